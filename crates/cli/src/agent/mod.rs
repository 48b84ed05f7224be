//! `pgward agent`, also under the name `patroni`.

mod sources;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pgward_core::config::{LocalConfig, Severity};
use tokio::runtime::Builder;
use tracing::{error, warn};

use crate::logging;

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

/// The runtime has two threads: one for the cycle, and one so that the lease and REST do not wait for it.
const THREADS: usize = 2;

/// Runs the agent until it ends.
pub(crate) fn main(args: &Args) -> ExitCode {
    let config = match sources::load(args.config.as_deref()) {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    if args.validate_config {
        return validate(args, &config);
    }
    if let Err(problem) = logging::start(&config.log) {
        eprintln!("pgward: {problem:#}");
        return ExitCode::FAILURE;
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

fn validate(args: &Args, config: &LocalConfig) -> ExitCode {
    let mut failed = false;
    for finding in &config.warnings {
        eprintln!("{finding}");
        failed |= finding.severity == Severity::Error;
    }
    if args.print && !failed {
        println!("{}", serde_json::to_string_pretty(&config.document).unwrap_or_default());
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
