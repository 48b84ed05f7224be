//! `make bench`: measures pgward against Patroni and prints the table of `docs/performance.md`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use pgward_tests::bench::report::Report;
use pgward_tests::bench::{SCENARIOS, Scenario, run_once};
use pgward_tests::machine::{Machine, workspace};
use pgward_tests::node::Agent;

#[derive(Parser)]
#[command(about = "Measures pgward against Patroni 4.1 on this machine")]
struct Arguments {
    /// What to do to the clusters, separated by commas; everything when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Scenario>,
    /// Which agents to measure.
    #[arg(long, value_enum, default_value = "both")]
    agent: Agents,
    /// How many times.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Also write the table to docs/performance.md.
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Agents {
    Patroni,
    Pgward,
    Both,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let machine = Machine::find()?;
    let scenarios = if arguments.rows.is_empty() { SCENARIOS.to_vec() } else { arguments.rows.clone() };
    let agents: &[Agent] = match arguments.agent {
        Agents::Patroni => &[Agent::Patroni],
        Agents::Pgward => &[Agent::Pgward],
        Agents::Both => &[Agent::Patroni, Agent::Pgward],
    };
    let mut report = Report::default();
    for run in 1..=arguments.runs {
        // Turn and turn about, so that a busy hour of the machine hits both.
        for agent in agents {
            eprintln!("run {run} of {}: {agent}", arguments.runs);
            run_once(*agent, &scenarios, &mut report).await;
        }
    }
    let text = document(&machine, &report, arguments.runs)?;
    println!("{text}");
    if arguments.write {
        let path = workspace().join("docs/performance.md");
        fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The whole page: how it was measured, and the table.
fn document(machine: &Machine, report: &Report, runs: u32) -> Result<String> {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = if arguments.is_empty() { String::new() } else { format!(" ARGS=\"{}\"", arguments.join(" ")) };
    Ok(format!(
        "# Performance\n\n\
         Measured by `make bench{given}` with PostgreSQL {}, {runs} runs, on a machine with {cpus} processors.\n\
         Both agents run the same three nodes from the same YAML (ttl 30, loop_wait 10, retry_timeout 10), one after the\n\
         other on the same machine. One writer for each node knows all addresses and looks for the one that accepts\n\
         writes. Each cell is the median, with minimum and maximum in parentheses; the ratio is Patroni's median\n\
         divided by pgward's.\n\n{}",
        machine.pg_major()?,
        report.to_markdown()
    ))
}
