//! Addresses for the hosts of a cluster: on the loopback interface, or in network namespaces that can be cut off.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

/// Which network a cluster lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every host has an address of its own in 127.0.0.0/8.
    Loopback,
    /// Every host has a network namespace; they meet at a bridge in a namespace of its own. Needs root.
    Namespaces,
}

/// The network of one cluster. Hosts are numbered from 0.
#[derive(Debug)]
pub struct Network {
    kind: Kind,
    id: u32,
    subnet: (u8, u8),
    hosts: usize,
}

static PORTS: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

impl Network {
    /// Chooses addresses for `hosts` hosts; nothing exists yet.
    pub fn plan(kind: Kind, hosts: usize) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        let bytes = random.to_le_bytes();
        Self {
            kind,
            id: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]),
            subnet: (bytes[3].max(1), bytes[4]),
            hosts,
        }
    }

    /// Names of all namespaces, for the janitor.
    pub fn namespaces(&self) -> Vec<String> {
        match self.kind {
            Kind::Loopback => Vec::new(),
            Kind::Namespaces => (0..self.hosts).map(|h| self.host_name(h)).chain([self.switch()]).collect(),
        }
    }

    /// Builds the namespaces, bridge and links; nothing to do on the loopback interface.
    ///
    /// # Errors
    /// When `ip` refuses, for instance without root.
    pub fn build(&self) -> Result<()> {
        if self.kind == Kind::Loopback {
            return Ok(());
        }
        ensure!(rustix::process::geteuid().is_root(), "network namespaces need root");
        let (switch, uplink) = (self.switch(), format!("pgw{:x}r", self.id));
        // The bridge has a namespace of its own: the machine's packet filter (Docker's, say) has no say there.
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        ip(&["link", "add", &uplink, "type", "veth", "peer", "name", "up0", "netns", &switch])?;
        ip(&["addr", "add", &format!("{}/24", self.own_address()), "dev", &uplink])?;
        ip(&["link", "set", &uplink, "up"])?;
        ip(&["-n", &switch, "link", "set", "up0", "master", "br0", "up"])?;
        for host in 0..self.hosts {
            let (name, port) = (self.host_name(host), format!("h{host}"));
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch])?;
            ip(&["-n", &name, "addr", "add", &format!("{}/24", self.address(host)), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
        }
        Ok(())
    }

    /// Address of a host.
    pub fn address(&self, host: usize) -> String {
        self.at(u8::try_from(host + 11).unwrap_or(u8::MAX))
    }

    /// The address of the machine that runs the tests, as the hosts see it.
    pub fn own_address(&self) -> String {
        self.at(254)
    }

    /// Namespace of a host.
    pub fn namespace(&self, host: usize) -> Option<String> {
        (self.kind == Kind::Namespaces).then(|| self.host_name(host))
    }

    /// The addresses that clients come from, in CIDR notation.
    pub fn clients(&self) -> String {
        match self.kind {
            Kind::Loopback => "127.0.0.0/8".to_owned(),
            Kind::Namespaces => format!("{}/24", self.at(0)),
        }
    }

    /// A free port on a host's address.
    ///
    /// # Errors
    /// When none is found.
    pub fn free_port(&self, host: usize) -> Result<u16> {
        let address = self.address(host);
        let random = RandomState::new();
        for attempt in 0..200_u32 {
            // Below the range from which the kernel takes source ports, so that no client of ours can sit on it.
            let port = 10_000 + u16::try_from(random.hash_one(attempt) % 20_000).unwrap_or(0);
            let mut taken = PORTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let free = self.kind == Kind::Namespaces || TcpListener::bind((address.as_str(), port)).is_ok();
            if free && taken.get_or_insert_default().insert(port) {
                return Ok(port);
            }
        }
        bail!("no free port on {address}")
    }

    /// Cuts a host off, as a pulled cable does: nothing is refused or reset, it just does not arrive.
    ///
    /// # Errors
    /// When `ip` refuses, or on the loopback interface.
    pub fn cut(&self, host: usize) -> Result<()> {
        self.set_port(host, "down")
    }

    /// Connects a host again.
    ///
    /// # Errors
    /// When `ip` refuses, or on the loopback interface.
    pub fn heal(&self, host: usize) -> Result<()> {
        self.set_port(host, "up")
    }

    fn set_port(&self, host: usize, state: &str) -> Result<()> {
        ensure!(self.kind == Kind::Namespaces, "hosts on the loopback interface cannot be cut off");
        ip(&["-n", &self.switch(), "link", "set", &format!("h{host}"), state])
    }

    fn at(&self, last: u8) -> String {
        let first = if self.kind == Kind::Loopback { 127 } else { 10 };
        format!("{first}.{}.{}.{last}", self.subnet.0, self.subnet.1)
    }

    fn host_name(&self, host: usize) -> String {
        format!("pgw{:x}h{host}", self.id)
    }

    fn switch(&self) -> String {
        format!("pgw{:x}sw", self.id)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.namespaces() {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).output();
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("cannot run ip; remedy: apt-get install iproute2")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), error.trim());
    Ok(())
}
