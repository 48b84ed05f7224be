//! What a run leaves behind: text for the terminal, a picture for a person.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::check::Verdict;
use super::history::{Operation, Outcome, Request};
use super::nemesis::describe;
use super::observer::{Lease, Role, Track};
use super::{Injected, picture};
use crate::machine::target_dir;

/// Everything known of a run. Times count from its beginning.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The members' names.
    pub names: Vec<String>,
    /// When everything was over.
    pub length: Duration,
    /// When the last fault had been undone.
    pub healed: Duration,
    /// When the cluster was whole again.
    pub recovered: Duration,
    /// The steps as they were carried out.
    pub injected: Vec<Injected>,
    /// What the clients did.
    pub operations: Vec<Operation>,
    /// Each member's role over time.
    pub roles: Vec<Track<Role>>,
    /// The leader key over time.
    pub lease: Track<Lease>,
    /// What the history shows; none when the lists could not be read at the end.
    pub verdict: Option<Verdict>,
    /// What kept the cluster from becoming whole.
    pub trouble: Vec<String>,
}

impl Report {
    /// Nothing happened that must not, and the cluster is whole again.
    pub fn is_good(&self) -> bool {
        self.trouble.is_empty() && self.verdict.as_ref().is_some_and(Verdict::is_clean)
    }

    /// Writes the picture into cargo's target folder; returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<PathBuf> {
        let folder = target_dir()?.join("chaos");
        let write = |name: String, text: String| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write(format!("{}.svg", self.seed), picture::svg(self))?;
        write(format!("{}.html", self.seed), picture::html(self))
    }

    /// The longest time without an acknowledged append.
    pub fn longest_interruption(&self) -> Duration {
        let acked = |o: &Operation| {
            matches!((o.request, &o.outcome), (Request::Append(_), Outcome::Done { .. })).then_some(o.ended)
        };
        let mut times: Vec<Duration> = self.operations.iter().filter_map(acked).collect();
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// How often another member began to acknowledge commits.
    pub fn leader_changes(&self) -> usize {
        let Some(verdict) = &self.verdict else { return 0 };
        let mut reigns = verdict.reigns.clone();
        reigns.sort_by_key(|reign| reign.first);
        reigns.windows(2).filter(|pair| pair[0].node != pair[1].node).count()
    }

    /// The verdict in a few words.
    pub fn headline(&self) -> String {
        match &self.verdict {
            _ if self.is_good() => "clean: nothing that must never happen".to_owned(),
            Some(verdict) if !verdict.anomalies.is_empty() => format!("FAILED: {} anomalies", verdict.anomalies.len()),
            Some(_) if self.trouble.is_empty() => "FAILED: no append was acknowledged".to_owned(),
            Some(_) | None => "FAILED: the cluster did not become whole again".to_owned(),
        }
    }

    /// The numbers of the run, a sentence each.
    pub fn numbers(&self) -> Vec<String> {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let done = self.injected.iter().filter(|one| !one.note.starts_with("left out")).count();
        let mut lines = vec![format!(
            "faults: {done} in {}; leader changes: {}; whole again {} after the last; at worst {} without an acknowledged \
             append",
            seconds(self.healed),
            self.leader_changes(),
            seconds(self.recovered.saturating_sub(self.healed)),
            seconds(self.longest_interruption()),
        )];
        if let Some(verdict) = &self.verdict {
            let Verdict { acked, unknown, failed, reads, loss_window, .. } = verdict;
            lines.push(format!(
                "{acked} appends acknowledged, {unknown} of unknown outcome, {failed} failed; {reads} reads; {} acknowledged \
                 appends lost in the loss windows of asynchronous replication",
                loss_window.len()
            ));
        }
        lines
    }

    /// What was wrong, a line each.
    pub fn findings(&self) -> Vec<String> {
        let anomalies = self.verdict.iter().flat_map(|verdict| &verdict.anomalies).map(ToString::to_string);
        self.trouble.iter().cloned().chain(anomalies).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.headline())?;
        for line in self.numbers() {
            write!(f, "\n  {line}")?;
        }
        let findings = self.findings();
        // A broken run may have thousands; the first ones tell what it is about.
        for line in findings.iter().take(20) {
            write!(f, "\n  ! {line}")?;
        }
        if findings.len() > 20 {
            write!(f, "\n  ! and {} more", findings.len() - 20)?;
        }
        if !self.is_good() {
            write!(f, "\nwhat was done:")?;
            for one in &self.injected {
                write!(
                    f,
                    "\n  {:6.1} s to {:6.1} s  {}",
                    one.begun.as_secs_f64(),
                    one.healed.as_secs_f64(),
                    describe(one)
                )?;
            }
        }
        Ok(())
    }
}
