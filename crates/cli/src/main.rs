//! The executable.

mod agent;
mod ctl;
mod demo;
mod logging;
mod replay;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

/// PostgreSQL high availability in one binary.
#[derive(Parser)]
#[command(name = "pgward", version)]
enum Cli {
    /// Manage PostgreSQL on this machine as a member of a cluster; also answers to the name patroni
    Agent(agent::Args),
    /// Show a cluster and move its leader; also answers to the name patronictl
    #[command(disable_help_flag = true)]
    Ctl {
        /// What patronictl takes; see `pgward ctl --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a whole cluster on this machine, to try things out
    Demo(demo::Args),
    /// Take recorded decisions again and show where they differ
    Replay(replay::Args),
}

fn main() -> ExitCode {
    // The two processes that an agent starts from this executable: before anything else is set up.
    let mut hidden = std::env::args_os().skip(1);
    match hidden.next().as_deref().and_then(OsStr::to_str) {
        Some("__fencer") => return pgward_agent::fencer::fencer_main(hidden),
        Some("__launch") => return pgward_postgres::launch_main(hidden),
        Some(_) | None => {}
    }
    if is_called("patroni") {
        return agent::main(&agent::Args::parse_as_patroni());
    }
    if is_called("patronictl") {
        return ctl::main(std::env::args_os());
    }
    match Cli::parse() {
        Cli::Agent(args) => agent::main(&args),
        Cli::Ctl { arguments } => ctl::main(std::iter::once(OsString::from("pgward ctl")).chain(arguments)),
        Cli::Demo(args) => run(demo::main(args)),
        Cli::Replay(args) => replay::main(&args),
    }
}

/// True when the executable was started under this name, such as through a link.
fn is_called(name: &str) -> bool {
    let called = std::env::args_os().next();
    called.is_some_and(|called| Path::new(&called).file_name().is_some_and(|file| file == name))
}

/// Runs a command on a runtime with all cores.
#[tokio::main]
async fn run(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    command.await.unwrap_or_else(|error| {
        eprintln!("pgward: {error:#}");
        ExitCode::FAILURE
    })
}
