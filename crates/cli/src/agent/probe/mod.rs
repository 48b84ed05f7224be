//! Carries out the checks of a configuration that need this machine or the network, all at once and each with a limit.
//!
//! Nothing is changed: no file is created, and a port that is opened is closed again at once.

mod data_directory;
mod files;
mod listen;
mod parts;
mod store;

use std::io;
use std::time::Duration;

use pgward_core::config::{Check, Finding, LocalConfig, Probe};
use pgward_core::time::rounded;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

/// What to think of a port on which something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsedPorts {
    /// The configuration cannot be used now.
    AreProblems,
    /// It is the server that is to be managed.
    AreFine,
}

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Broken {
    /// The value that is wrong, when it is not the value of the probe.
    value: Option<String>,
    problem: String,
    remedy: &'static str,
}

impl Broken {
    fn new(problem: impl Into<String>, remedy: &'static str) -> Broken {
        Broken { value: None, problem: problem.into(), remedy }
    }
}

/// Limit for one check: name lookups and network file systems may hang. Longer than that of the store, which says more.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// Runs all checks and returns what failed, in the order of `probes`.
///
/// # Errors
/// When the operating system gives no runtime.
pub(super) fn run(probes: &[Probe], config: &LocalConfig, ports: UsedPorts) -> io::Result<Vec<Finding>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(run_all(probes, config, ports));
    // A check that hangs in the operating system is left behind.
    runtime.shutdown_background();
    Ok(findings)
}

async fn run_all(probes: &[Probe], config: &LocalConfig, ports: UsedPorts) -> Vec<Finding> {
    let mut checks = JoinSet::new();
    for (number, probe) in probes.iter().cloned().enumerate() {
        let config = config.clone();
        checks.spawn(async move {
            let found = timeout(CHECK_TIME, check(probe.check.clone(), config, ports)).await;
            let found = found.unwrap_or_else(|_| {
                let problem = format!("could not be checked within {}", rounded(CHECK_TIME));
                Some(Broken::new(problem, "see what keeps this machine from answering"))
            });
            (number, found.map(|broken| failed(&probe, broken)))
        });
    }
    let mut found = checks.join_all().await;
    found.sort_by_key(|(number, _)| *number);
    let mut findings: Vec<Finding> = found.into_iter().filter_map(|(_, finding)| finding).collect();
    // Six programs are missed in a directory that does not exist, which is one problem.
    findings.dedup();
    let of_parts = timeout(CHECK_TIME, parts::findings(config, probes)).await.unwrap_or_default();
    // A file that cannot be read was named already.
    let is_new = |part: &Finding| !findings.iter().any(|said| said.key == part.key);
    let new: Vec<Finding> = of_parts.into_iter().filter(is_new).collect();
    findings.extend(new);
    findings
}

fn failed(probe: &Probe, broken: Broken) -> Finding {
    // One line for one problem, whatever a system says.
    let problem = broken.problem.split_whitespace().collect::<Vec<_>>().join(" ");
    let finding = probe.failed(problem, broken.remedy);
    Finding { value: broken.value.or(finding.value), ..finding }
}

async fn check(check: Check, config: LocalConfig, ports: UsedPorts) -> Option<Broken> {
    match check {
        Check::PortIsFree(address) => blocking(move || listen::problem(&address, ports)).await,
        Check::StoreAnswers(endpoint) => store::problem(endpoint, &config).await,
        Check::Program { directory, name } => blocking(move || files::program(directory.as_deref(), &name)).await,
        Check::DataDirectory { path, bin_dir, postgres } => {
            data_directory::problem(path, bin_dir.as_deref(), &postgres).await
        }
        Check::WritableDirectory(path) => blocking(move || files::writable_directory(&path)).await,
        Check::ReadableFile(path) => blocking(move || files::readable_file(&path)).await,
        Check::WritableFile(path) => blocking(move || files::writable_file(&path)).await,
    }
}

async fn blocking(look: impl FnOnce() -> Option<Broken> + Send + 'static) -> Option<Broken> {
    spawn_blocking(look).await.unwrap_or_else(|problem| Some(Broken::new(problem.to_string(), "report this as a bug")))
}
