//! Packets dropped by the kernel, in the network namespace of one host: what a firewall or a broken switch does.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Which packets are dropped. Those of the loopback interface never are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Drop {
    /// All that the host sends.
    Sent,
    /// All that arrives at the host.
    Received,
    /// All that the host sends to these TCP ports.
    SentTo(Vec<u16>),
}

/// A rule in force in one namespace, as a table of its own in the kernel's packet filter.
#[derive(Debug)]
pub(super) struct Filter {
    namespace: String,
    table: String,
}

impl Filter {
    /// Puts a rule into force. `name` is the name of its table, unique in the namespace.
    ///
    /// # Errors
    /// When `nft` is missing or refuses.
    pub(super) fn set(namespace: &str, name: &str, drop: &Drop) -> Result<Self> {
        nft(namespace, &rules(name, drop))?;
        Ok(Self { namespace: namespace.to_owned(), table: name.to_owned() })
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub(super) fn lift(self) -> Result<()> {
        nft(&self.namespace, &format!("delete table inet {}\n", self.table))
    }
}

fn rules(table: &str, drop: &Drop) -> String {
    let (hook, rule) = match drop {
        Drop::Sent => ("output", "oifname != \"lo\" drop".to_owned()),
        Drop::Received => ("input", "iifname != \"lo\" drop".to_owned()),
        Drop::SentTo(ports) => {
            let mut list = String::new();
            for port in ports {
                let _ = write!(list, "{}{port}", if list.is_empty() { "" } else { ", " });
            }
            ("output", format!("tcp dport {{ {list} }} drop"))
        }
    };
    format!("table inet {table} {{\nchain drops {{\ntype filter hook {hook} priority 0\n{rule}\n}}\n}}\n")
}

fn nft(namespace: &str, script: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "nft", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run ip; remedy: apt-get install iproute2 nftables")?;
    child.stdin.take().context("nft has no standard input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft refuses {script:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
