//! Many runs: in parallel, with progress; and what is left of a plan that still breaks the same invariant.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::faults::Plan;
use crate::focus::Focus;
use crate::observer::{Invariant, Violation};
use crate::run::{Outcome, run};

/// A seed whose run broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What it broke.
    pub violation: Violation,
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs made.
    pub runs: u64,
    /// The time that all clusters lived, in their own time.
    pub simulated: Duration,
    /// Processor time spent: wall time of each run added up.
    pub spent: Duration,
    /// Wall time.
    pub wall: Duration,
    /// Commits that clients were told of, and how many of them are gone (replication is asynchronous).
    pub acknowledged: u64,
    /// See `acknowledged`.
    pub lost: u64,
    /// Changes of the leader.
    pub leader_changes: u64,
    /// Runs that broke an invariant, in the order of their seeds.
    pub failures: Vec<Failure>,
}

impl Summary {
    /// Simulated cluster-hours in a minute of one core.
    pub fn hours_per_core_minute(&self) -> f64 {
        let minutes = self.spent.as_secs_f64() / 60.0;
        if minutes > 0.0 { self.simulated.as_secs_f64() / 3600.0 / minutes } else { 0.0 }
    }

    fn add(&mut self, seed: u64, outcome: Outcome, spent: Duration, only: &[Invariant]) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.runs += 1;
        self.simulated += outcome.simulated;
        self.spent += spent;
        self.acknowledged += count(outcome.acknowledged);
        self.lost += count(outcome.lost);
        self.leader_changes += u64::from(outcome.leader_changes);
        if let Some(violation) =
            outcome.violation.filter(|violation| only.is_empty() || only.contains(&violation.invariant))
        {
            self.failures.push(Failure { seed, violation });
        }
    }

    /// How often each invariant was broken.
    pub fn by_invariant(&self) -> BTreeMap<Invariant, usize> {
        let mut counts = BTreeMap::new();
        for failure in &self.failures {
            *counts.entry(failure.violation.invariant).or_default() += 1;
        }
        counts
    }
}

/// How far a campaign goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The first seed.
    pub first: u64,
    /// How many, at most.
    pub seeds: u64,
    /// How long, at most.
    pub time: Option<Duration>,
    /// It ends after so many broken runs.
    pub failures: usize,
    /// Threads.
    pub jobs: usize,
    /// Which invariants count; all when empty.
    pub only: &'static [Invariant],
    /// What all plans are about; anything when left out.
    pub focus: Option<Focus>,
}

/// What is said while it goes on.
pub trait Progress: Sync {
    /// Called for each run that broke an invariant.
    fn broke(&self, failure: &Failure);

    /// Called after each run.
    fn ran(&self, summary: &Summary);
}

/// The plan of a seed.
pub fn plan_of(seed: u64) -> Plan {
    Plan::draw(&plan_dice(seed))
}

/// The plan of a seed that is about something.
pub fn focused_plan_of(seed: u64, focus: Focus) -> Plan {
    focus.draw(&plan_dice(seed))
}

/// Another stream than that of the run itself, so that a shrunk plan meets the same chances.
fn plan_dice(seed: u64) -> Dice {
    Dice::new(seed ^ 0x9e37_79b9_7f4a_7c15)
}

/// Runs a plan, and where wall clocks jump in it once more without that: nothing else may change (INV-S27).
///
/// # Errors
/// When a run could not be made.
pub fn judge(seed: u64, plan: &Plan) -> anyhow::Result<Outcome> {
    let outcome = run(seed, plan)?;
    let Some(still) = plan.without_jumps().filter(|_| outcome.violation.is_none()) else { return Ok(outcome) };
    let unmoved = run(seed, &still)?;
    let is_same = unmoved.course == outcome.course;
    let text = || "the run took another course because a wall clock jumped".to_owned();
    let moved = (!is_same).then(|| Violation { invariant: Invariant::S27, at: outcome.simulated, text: text() });
    Ok(Outcome { violation: moved, ..outcome })
}

/// Makes the runs. `prepare` is called on each thread before its first run: to switch a mutant on, say.
///
/// # Errors
/// When a run could not be made.
pub fn campaign(limits: &Limits, progress: &dyn Progress, prepare: &(dyn Fn() + Sync)) -> anyhow::Result<Summary> {
    let began = Instant::now();
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (summary, problem) = (Mutex::new(Summary::default()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..limits.jobs.max(1) {
            scope.spawn(|| {
                prepare();
                while !is_over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= limits.seeds || limits.time.is_some_and(|time| began.elapsed() >= time) {
                        break;
                    }
                    let (seed, started) = (limits.first.wrapping_add(number), Instant::now());
                    let plan = limits.focus.map_or_else(|| plan_of(seed), |focus| focused_plan_of(seed, focus));
                    match judge(seed, &plan) {
                        Ok(outcome) => {
                            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                            let known = summary.failures.len();
                            summary.add(seed, outcome, started.elapsed(), limits.only);
                            summary.failures.get(known).into_iter().for_each(|failure| progress.broke(failure));
                            summary.wall = began.elapsed();
                            progress.ran(&summary);
                            if summary.failures.len() >= limits.failures {
                                is_over.store(true, Ordering::Relaxed);
                            }
                        }
                        Err(error) => {
                            *problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            is_over.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = problem.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failures.sort_by_key(|failure| failure.seed);
    summary.wall = began.elapsed();
    Ok(summary)
}

/// Leaves out of `plan` whatever is not needed to break the same invariant with the same seed.
///
/// # Errors
/// When a run could not be made.
pub fn shrink(seed: u64, plan: &Plan, invariant: Invariant) -> anyhow::Result<Plan> {
    let breaks = |plan: &Plan| -> anyhow::Result<bool> {
        Ok(judge(seed, plan)?.violation.is_some_and(|violation| violation.invariant == invariant))
    };
    let mut smallest = plan.clone();
    loop {
        let mut is_smaller = false;
        for index in (0..smallest.faults.len()).rev() {
            let mut candidate = smallest.clone();
            candidate.faults.remove(index);
            if breaks(&candidate)? {
                smallest = candidate;
                is_smaller = true;
            }
        }
        if !is_smaller {
            return Ok(smallest);
        }
    }
}
