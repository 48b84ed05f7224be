//! `make sim`: runs many simulated clusters, or tells the story of one.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use clap::Parser;
use pgward_sim::campaign::{Failure, Limits, Progress, Summary, campaign, focused_plan_of, judge, plan_of, shrink};
use pgward_sim::focus::Focus;
use pgward_sim::run::run;
use pgward_sim::story::listen;

#[derive(Parser)]
#[command(about = "Simulates whole clusters under faults and checks what must never happen")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Runs this one seed and tells its story.
    #[arg(long)]
    seed: Option<u64>,
    /// Ends after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Ends after so many broken runs.
    #[arg(long, default_value_t = 5)]
    failures: usize,
    /// Runs at the same time; as many as there are processors when left out.
    #[arg(long)]
    jobs: Option<usize>,
    /// Draws only plans of this kind.
    #[arg(long)]
    focus: Option<String>,
    /// Leaves out one rule after the other, and counts the seeds that it takes to notice.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutants: bool,
    /// With --seed: leaves this rule out. With --mutants: tries this one only.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<String>,
    /// With --seed: does not look for the smallest plan that breaks the same invariant.
    #[arg(long)]
    whole: bool,
    /// With --seed: how many lines of the story to print, counted from its end; 0 for all.
    #[arg(long, default_value_t = 150)]
    lines: usize,
}

/// How often progress is printed.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

struct Lines(Mutex<Option<Instant>>);

impl Progress for Lines {
    fn broke(&self, failure: &Failure) {
        eprintln!("{}", broken(failure));
    }

    fn ran(&self, summary: &Summary) {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY) {
            *printed = Some(Instant::now());
            eprintln!("{}", line(summary));
        }
    }
}

fn line(summary: &Summary) -> String {
    format!(
        "{} runs, {:.0} cluster-hours in {:.0} s ({:.0} cluster-hours per minute of a core), {} changes of leader, {} broken",
        summary.runs,
        summary.simulated.as_secs_f64() / 3600.0,
        summary.wall.as_secs_f64(),
        summary.hours_per_core_minute(),
        summary.leader_changes,
        summary.failures.len()
    )
}

fn broken(Failure { seed, violation }: &Failure) -> String {
    format!("seed {seed}: {} after {:.1} s: {}", violation.invariant, violation.at.as_secs_f64(), violation.text)
}

fn main() -> anyhow::Result<ExitCode> {
    // A panic of an agent under test is a finding, reported with its seed; its text is kept there.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments = Arguments::parse();
    #[cfg(feature = "mutants")]
    if let Some(name) = &arguments.mutant {
        pgward_core::mutant::leave_out(Some(pgward_sim::mutants::find(name)?));
    }
    if let Some(seed) = arguments.seed {
        return tell(seed, &arguments);
    }
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    #[cfg(feature = "mutants")]
    if arguments.mutants {
        let only = arguments.mutant.as_deref();
        let (table, is_complete) = pgward_sim::mutants::table(arguments.first, arguments.seeds, jobs, only)?;
        print!("{table}");
        return Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let limits = Limits {
        first: arguments.first,
        seeds: arguments.seeds,
        time: arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        failures: arguments.failures,
        jobs,
        only: &[],
        focus: arguments.focus.as_deref().map(Focus::find).transpose()?,
    };
    let summary = campaign(&limits, &Lines(Mutex::new(None)), &|| {})?;
    println!("{}", line(&summary));
    println!(
        "{} commits acknowledged, {} lost with the crash that replication was behind of",
        summary.acknowledged, summary.lost
    );
    for (invariant, count) in summary.by_invariant() {
        println!("broken {count} times: {invariant}");
    }
    summary.failures.iter().for_each(|failure| println!("{}", broken(failure)));
    if let Some(first) = summary.failures.first() {
        tell(first.seed, &arguments)?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs one seed again, and tells what happened.
fn tell(seed: u64, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let focus = arguments.focus.as_deref().map(Focus::find).transpose()?;
    let whole = focus.map_or_else(|| plan_of(seed), |focus| focused_plan_of(seed, focus));
    let outcome = judge(seed, &whole)?;
    let plan = match &outcome.violation {
        Some(violation) if !arguments.whole => shrink(seed, &whole, violation.invariant)?,
        Some(_) | None => whole.clone(),
    };
    println!("\nseed {seed}: {} members, tags {:?}, {}", plan.members, plan.tags, plan.dcs);
    println!("{} of {} faults, counted from the end of the bootstrap:", plan.faults.len(), whole.faults.len());
    plan.faults.iter().for_each(|planned| println!("  {planned}"));
    let (outcome, story) = listen(|| run(seed, &plan));
    let outcome = outcome?;
    let skipped = if arguments.lines == 0 { 0 } else { story.len().saturating_sub(arguments.lines) };
    println!(
        "\nthe story{}:",
        if skipped > 0 { format!(", without its first {skipped} lines") } else { String::new() }
    );
    story.iter().skip(skipped).for_each(|line| println!("{line}"));
    match outcome.violation {
        Some(violation) => {
            println!("\nbroken: {} after {:.3} s: {}", violation.invariant, violation.at.as_secs_f64(), violation.text);
            println!("again: make sim SEED={seed}");
            Ok(ExitCode::FAILURE)
        }
        None => {
            println!("\nnothing was broken in {:.0} s of the cluster's time", outcome.simulated.as_secs_f64());
            Ok(ExitCode::SUCCESS)
        }
    }
}
