//! Proves that the checks can fail: for each rule that is left out, how many seeds it takes until an invariant is broken.

use std::fmt::Write as _;

use anyhow::Context as _;
use pgward_core::mutant::{Mutant, leave_out};

use crate::campaign::{Limits, Progress, Summary, campaign};
use crate::observer::Invariant;

struct Silent;

impl Progress for Silent {
    fn ran(&self, _: &Summary) {}
}

/// The mutant of a name as `Debug` prints it.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> anyhow::Result<Mutant> {
    let mutant = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
    mutant.with_context(|| format!("no mutant is named {name}; there are {:?}", Mutant::ALL))
}

/// What leaving this rule out must break at the latest within the seeds given.
pub fn breaks(mutant: Mutant) -> &'static [Invariant] {
    use Invariant::{S1, S2, S3, S8, S9, S10, S11, S12, S13, S15, S17, S21, S22, S23, S24, S26, Stable, Whole};
    match mutant {
        Mutant::NoFence | Mutant::LeaseFromAnswer => &[S1, S2],
        Mutant::PromoteWithoutLease => &[S1, S2, S3],
        Mutant::RaceIgnoresPositions => &[S8],
        Mutant::RaceIgnoresPrimary => &[S1, S2],
        Mutant::PrimaryTakesKeyBack => &[S1, S9],
        Mutant::BootstrapAgain | Mutant::BootstrapWithoutClaim => &[S1, S2, S10, Whole],
        Mutant::WipeWithoutLooking => &[S11],
        Mutant::ReleaseBeforeStop => &[S1, S2, S12],
        Mutant::ActionsTogether => &[S1, S2, S13],
        Mutant::RewindTooEarly => &[S21],
        Mutant::NeverDiverged | Mutant::NeverStarted => &[Whole],
        Mutant::FollowInCircles => &[S22],
        Mutant::HistoryForgotten => &[S23],
        Mutant::NofailoverIgnored => &[S24],
        Mutant::PanicOnGarbage => &[S26],
        Mutant::RequestNotCleared => &[S17, Stable],
        Mutant::ConsentOfMost => &[S1, S2],
        Mutant::PromiseForgotten => &[S1, S15],
        Mutant::RestlessStandby => &[Stable, Whole],
    }
}

/// A row for each mutant, in Markdown; false when one was not noticed.
///
/// # Errors
/// When a run could not be made.
pub fn table(first: u64, seeds: u64, jobs: usize) -> anyhow::Result<(String, bool)> {
    let mut text = String::from("| rule left out | breaks | seeds needed | how |\n|---|---|---|---|\n");
    let mut is_complete = true;
    for mutant in Mutant::ALL {
        let limits = Limits { first, seeds, time: None, failures: 1, jobs, only: breaks(mutant) };
        let summary = campaign(&limits, &Silent, &|| leave_out(Some(mutant)))?;
        let row = match summary.failures.first() {
            Some(failure) => {
                let invariant = failure.violation.invariant;
                let how = failure.violation.text.split(';').next().unwrap_or_default();
                format!("| {mutant:?} | {invariant} | {} | {how} |", summary.runs)
            }
            None => {
                is_complete = false;
                format!("| {mutant:?} | **not noticed** | more than {} | |", summary.runs)
            }
        };
        eprintln!("{row}");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{row}");
    }
    Ok((text, is_complete))
}
