//! The fencer as a real process, against real PostgreSQL.
//!
//! The executable of this test plays three parts: without arguments it runs the tests, as `__fencer` it is the fencer, and
//! as `__agent` an agent that only keeps the fencer armed, so that it can be stopped and killed. Hence the own `main`.
//!
//! As root, PostgreSQL runs as user `postgres`, and the fencer as root or `postgres`; as anybody else, all of it runs as
//! that user. `PG_BIN` names the directory of PostgreSQL's programs.

#![expect(clippy::unwrap_used, reason = "a test may panic where it cannot go on")]

mod cases;
mod machine;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use pgward_agent::fencer::{FencerHandle, FencerSettings, ProcessIdentity, fencer_main};
use pgward_core::cluster::Revision;
use pgward_store::boot_now;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|first| first.to_str()) {
        Some("__fencer") => fencer_main(args),
        Some("__agent") => {
            let args: Vec<String> = args.filter_map(|arg| arg.into_string().ok()).collect();
            match machine::block_on(agent(&args)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("agent: {error:#}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => run_tests(),
    }
}

/// `DATA_DIR STATE_FILE POSTMASTER_PID DEADLINE_MS`: keeps the fencer armed that far ahead until it is killed. Says the
/// identifier of the fencer first, then each deadline in nanoseconds.
async fn agent(args: &[String]) -> anyhow::Result<()> {
    let [data_dir, state_file, pid, ahead] = args else { anyhow::bail!("four arguments, not {args:?}") };
    let executable = "/proc/self/exe".into();
    let settings =
        FencerSettings { executable, data_dir: data_dir.into(), programs: Vec::new(), state_file: state_file.into() };
    let fencer = FencerHandle::start_or_adopt(settings).await?;
    println!("{}", fencer.pid());
    let postmaster = ProcessIdentity::of(pid.parse()?)?;
    let ahead = Duration::from_millis(ahead.parse()?);
    let mut tick = tokio::time::interval(ahead / 10);
    loop {
        tick.tick().await;
        let deadline = boot_now() + ahead;
        fencer.arm(postmaster.pid, postmaster.start_ticks, deadline, Revision(7)).await.context("cannot arm")?;
        println!("{}", deadline.0.as_nanos());
    }
}

/// Runs the tests whose names contain one of the arguments, several at a time, since most of them wait.
fn run_tests() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let chosen: Vec<_> = cases::ALL
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())))
        .collect();
    if std::env::args().any(|arg| arg == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let template = match machine::Template::create() {
        Ok(template) => template,
        Err(error) => {
            eprintln!("cannot prepare PostgreSQL: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    println!("\nrunning {} tests", chosen.len());
    let (waiting, failed) = (Mutex::new(chosen.iter()), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, test)) = { waiting.lock().unwrap().next() } {
                    let result = catch_unwind(AssertUnwindSafe(|| test(&template)))
                        .unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked, see above")));
                    match result {
                        Ok(()) => println!("test {name} ... ok"),
                        Err(error) => {
                            *failed.lock().unwrap() += 1;
                            println!("test {name} ... FAILED: {error:#}");
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("\ntest result: {} passed; {failed} failed\n", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
