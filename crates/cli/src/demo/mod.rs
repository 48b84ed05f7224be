//! `pgward demo`: a whole cluster on one machine with one command.
//!
//! Three etcd members and a few nodes run as ordinary processes, with everything they write below one directory. What
//! runs is found again through PID files and never through memory, so that `stop`, `status`, `kill` and `start` work from
//! any terminal and after this process has ended. Not for production: everything listens on the loopback address only.
//!
//! Invariants:
//! - nothing is started before everything that can be checked beforehand has been checked;
//! - root starts nothing but this executable again, as an unprivileged user, and writes no file inside the directory;
//! - a signal goes only to a process whose identity (PID and start time, or executable and folder) is proven.

/// Prints a line. A reader that went away (`pgward demo | head`) is no reason to leave a cluster half started.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod become_user;
mod configuration;
mod guide;
mod http;
mod layout;
mod preflight;
mod process;
mod signals;
mod start;
mod state;
mod stop;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use self::layout::Part;

/// The arguments of `pgward demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Directory that holds the whole cluster; made when it is missing
    #[arg(long, global = true, default_value = "pgward-demo")]
    dir: PathBuf,

    /// Number of PostgreSQL nodes [default: 3, or as many as the directory has]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=i64::from(layout::NODES_MAX)))]
    nodes: Option<u8>,

    /// Port from which all ports are counted: PostgreSQL +1..9, REST +11..19, etcd +21..23 and +31..33 [default: 15400]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1024..=i64::from(layout::BASE_PORT_MAX)))]
    base_port: Option<u16>,

    /// Folder of PostgreSQL's programs [default: the newest below /usr/lib/postgresql]
    #[arg(long, env = "PG_BIN", value_name = "DIR")]
    pg_bin: Option<PathBuf>,

    /// For root only: the user that everything runs as [default: postgres, or nobody]
    #[arg(long)]
    user: Option<String>,

    /// Return once the cluster is up, instead of staying until Ctrl-C
    #[arg(long)]
    detach: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Stop every process of the demo in order, keep its data
    Stop,
    /// Show what runs and which role each node has
    Status,
    /// Let a node crash (agent, fencer and PostgreSQL are killed at once), or an etcd member
    Kill {
        /// The node, such as n1, or the etcd member, such as e1
        part: Part,
    },
    /// Start what was killed
    Start {
        /// The node, such as n1, or the etcd member, such as e1
        part: Part,
    },
}

/// Runs `pgward demo`.
pub(crate) async fn main(args: Args) -> anyhow::Result<ExitCode> {
    let dir = std::path::absolute(&args.dir).with_context(|| format!("{} is not a path", args.dir.display()))?;
    if rustix::process::geteuid().is_root() {
        return become_user::continue_unprivileged(&args, &dir);
    }
    if let Some(name) = &args.user {
        become_user::refuse_other_user(name)?;
    }
    match args.command {
        None => start::cluster(&args, &dir).await,
        Some(Command::Stop) => stop::cluster(&dir).await,
        Some(Command::Status) => state::print(&dir).await,
        Some(Command::Kill { part }) => stop::crash(&dir, part),
        Some(Command::Start { part }) => start::part(&dir, part).await,
    }
}

/// The command line that does the same again in `dir`, which is absolute.
fn command_line(args: &Args, dir: &Path) -> Vec<std::ffi::OsString> {
    let mut line = vec!["demo".into(), "--dir".into(), dir.into()];
    match args.command {
        Some(Command::Stop) => line.push("stop".into()),
        Some(Command::Status) => line.push("status".into()),
        Some(Command::Kill { part }) => line.extend(["kill".into(), part.to_string().into()]),
        Some(Command::Start { part }) => line.extend(["start".into(), part.to_string().into()]),
        None => {
            if let Some(nodes) = args.nodes {
                line.extend(["--nodes".into(), nodes.to_string().into()]);
            }
            if let Some(port) = args.base_port {
                line.extend(["--base-port".into(), port.to_string().into()]);
            }
            if let Some(pg_bin) = &args.pg_bin {
                line.extend(["--pg-bin".into(), pg_bin.into()]);
            }
            if args.detach {
                line.push("--detach".into());
            }
        }
    }
    line
}
