//! `pgward agent`, also under the name `patroni`.

mod probe;
pub(crate) mod sources;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use pgward_agent::COMPATIBLE_VERSION;
use pgward_core::config::LocalConfig;
use tokio::runtime::Builder;
use tracing::{error, warn};

use crate::logging;
use sources::Found;

/// Manage PostgreSQL on this machine as a member of a cluster.
///
/// Exit codes: 0 after an orderly end; 1 when the configuration or the data directory cannot be used, or another member
/// has the same name; 2 for a wrong command line.
#[derive(Debug, Parser)]
#[command(name = "pgward agent", version)]
pub(crate) struct Args {
    /// A configuration file, or a directory with *.yml and *.yaml files, which are merged in the order of their names.
    /// PATRONI_* variables are laid over it; without one they are the whole configuration.
    config: Option<PathBuf>,
    /// List every problem in the configuration, and end
    #[arg(long)]
    validate_config: bool,
    /// With --validate-config: a port that is in use is no problem
    #[arg(short, long, requires = "validate_config")]
    ignore_listen_port: bool,
    /// With --validate-config: print the configuration with the environment laid over it. It holds passwords
    #[arg(short, long, requires = "validate_config")]
    print: bool,
}

impl Args {
    /// The command line of the name `patroni`. Scripts take the second word of `--version` for Patroni's version.
    pub(crate) fn parse_as_patroni() -> Args {
        let version: &str = format!("{COMPATIBLE_VERSION} (pgward {})", env!("CARGO_PKG_VERSION")).leak();
        let mut command = Args::command().name("patroni").bin_name("patroni").version(version);
        let matches = command.get_matches_mut();
        Args::from_arg_matches(&matches).unwrap_or_else(|problem| problem.format(&mut command).exit())
    }
}

/// The runtime has two threads: one for the cycle, and one so that the lease and REST do not wait for it.
const THREADS: usize = 2;

/// Runs the agent until it ends.
pub(crate) fn main(args: &Args) -> ExitCode {
    let found = match sources::gather(args.config.as_deref()) {
        Ok(found) => found,
        Err(problem) => {
            return fail(format_args!("pgward: {problem:#}; check the path, its owner and its permissions"));
        }
    };
    if args.validate_config {
        return validate::main(&found, args.ignore_listen_port, args.print);
    }
    let config = match LocalConfig::load(&found.sources) {
        Ok(config) => config,
        Err(rejected) => {
            let missing = missing_path(&found).map(|notice| format!("pgward: {notice}\n")).unwrap_or_default();
            return fail(format_args!("{missing}{rejected}"));
        }
    };
    if let Err(problem) = logging::start(&config.log) {
        return fail(format_args!("pgward: {problem:#}"));
    }
    if let Some(notice) = missing_path(&found) {
        warn!("{notice}");
    }
    for finding in &config.warnings {
        warn!("{finding}");
    }
    let runtime = match Builder::new_multi_thread().worker_threads(THREADS).enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            error!(error = %problem, "the runtime cannot be started");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(pgward_agent::run(config)) {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            error!("{:#}", anyhow::Error::from(problem));
            ExitCode::FAILURE
        }
    }
}

/// A path that does not exist is no error, and hardly ever meant.
fn missing_path(found: &Found) -> Option<String> {
    let path = found.missing.as_ref()?;
    Some(format!("{}: does not exist, so the environment is the whole configuration; check the path", path.display()))
}

fn fail(problem: std::fmt::Arguments<'_>) -> ExitCode {
    eprintln!("{problem}");
    ExitCode::FAILURE
}
