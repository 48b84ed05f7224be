//! The executable.

mod demo;

use std::process::ExitCode;

use clap::Parser;

/// PostgreSQL high availability in one binary.
#[derive(Parser)]
#[command(name = "pgward", version)]
enum Cli {
    /// Run a whole cluster on this machine, to try things out
    Demo(demo::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli::Demo(args) => demo::main(args).await,
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("pgward: {error:#}");
        ExitCode::FAILURE
    })
}
