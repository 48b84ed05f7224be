//! Proves that the checks can fail: for each rule that is left out, how many seeds it takes until an invariant is broken.

use std::fmt::Write as _;

use anyhow::Context as _;
use pgward_core::mutant::{Mutant, leave_out};

use crate::campaign::{Failure, Limits, Progress, Summary, campaign};
use crate::focus::Focus;
use crate::observer::Invariant;

struct Silent;

impl Progress for Silent {
    fn broke(&self, _: &Failure) {}

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
    use Invariant::{
        S1, S2, S3, S8, S9, S10, S11, S12, S13, S15, S17, S20, S21, S22, S23, S24, S26, S27, Stable, Whole,
    };
    match mutant {
        Mutant::NoFence | Mutant::LeaseFromAnswer => &[S2],
        Mutant::PromoteWithoutLease => &[S3],
        Mutant::RaceIgnoresPositions => &[S8],
        Mutant::RaceIgnoresPrimary => &[S1],
        Mutant::PrimaryTakesKeyBack => &[S9],
        Mutant::BootstrapAgain => &[S10],
        Mutant::BootstrapWithoutClaim => &[S1, S2, S10, Whole],
        Mutant::WipeWithoutLooking => &[S11],
        Mutant::ReleaseBeforeStop => &[S12],
        Mutant::ActionsTogether => &[S13],
        Mutant::RewindTooEarly => &[S21],
        Mutant::NeverDiverged | Mutant::NeverStarted => &[Whole],
        Mutant::FollowInCircles => &[S22],
        Mutant::HistoryForgotten => &[S23],
        Mutant::NofailoverIgnored => &[S24],
        Mutant::PanicOnGarbage => &[S26],
        Mutant::RequestNotCleared => &[S17],
        Mutant::ConsentOfMost => &[S1, S2],
        Mutant::PromiseForgotten => &[S1, S15],
        Mutant::RestlessStandby => &[Stable, Whole],
        Mutant::LostKeysStay => &[S20],
        Mutant::LeaseByWallClock => &[S27],
    }
}

/// What else a mutant breaks, in plans of another kind.
const ALSO: [(Mutant, Option<Focus>, &[Invariant]); 1] =
    [(Mutant::RaceIgnoresPositions, Some(Focus::Switchovers), &[Invariant::Switchover])];

/// The plans that show it soonest; any when chance draws them often enough.
pub fn focus(mutant: Mutant) -> Option<Focus> {
    match mutant {
        Mutant::PromoteWithoutLease => Some(Focus::Switchovers),
        Mutant::RaceIgnoresPrimary => Some(Focus::LostLeaderKey),
        Mutant::PrimaryTakesKeyBack => Some(Focus::PromotedByHand),
        Mutant::WipeWithoutLooking | Mutant::RewindTooEarly | Mutant::NeverDiverged => Some(Focus::Rejoins),
        Mutant::HistoryForgotten | Mutant::RequestNotCleared => Some(Focus::Switchovers),
        Mutant::BootstrapAgain => Some(Focus::Bootstrap),
        Mutant::LostKeysStay => Some(Focus::LostKeys),
        Mutant::LeaseByWallClock => Some(Focus::WallClocks),
        Mutant::FollowInCircles => Some(Focus::Circles),
        Mutant::NoFence
        | Mutant::LeaseFromAnswer
        | Mutant::RaceIgnoresPositions
        | Mutant::BootstrapWithoutClaim
        | Mutant::ReleaseBeforeStop
        | Mutant::ActionsTogether
        | Mutant::NofailoverIgnored
        | Mutant::PanicOnGarbage
        | Mutant::NeverStarted
        | Mutant::ConsentOfMost
        | Mutant::PromiseForgotten
        | Mutant::RestlessStandby => None,
    }
}

/// A row for each mutant, or for the one that is named, in Markdown; false when one was not noticed.
///
/// # Errors
/// When a run could not be made, and when no mutant has the name.
pub fn table(first: u64, seeds: u64, jobs: usize, only: Option<&str>) -> anyhow::Result<(String, bool)> {
    let mut text = String::from("| rule left out | plans | breaks | seeds needed | how |\n|---|---|---|---|---|\n");
    let mut is_complete = true;
    let mutants = only.map(find).transpose()?.map_or(Mutant::ALL.to_vec(), |mutant| vec![mutant]);
    let tried = mutants.iter().map(|mutant| (*mutant, focus(*mutant), breaks(*mutant)));
    let again = ALSO.into_iter().filter(|(mutant, ..)| mutants.contains(mutant));
    for (mutant, focus, only) in tried.chain(again) {
        let limits = Limits { first, seeds, time: None, failures: 1, jobs, only, focus };
        let summary = campaign(&limits, &Silent, &|| leave_out(Some(mutant)))?;
        let plans = focus.map_or("any".to_owned(), |focus| format!("{focus:?}"));
        let row = match summary.failures.first() {
            Some(failure) => {
                let invariant = failure.violation.invariant;
                let how = failure.violation.text.split(';').next().unwrap_or_default();
                format!("| {mutant:?} | {plans} | {invariant} | {} | {how} |", summary.runs)
            }
            None => {
                is_complete = false;
                format!("| {mutant:?} | {plans} | **not noticed** | more than {} | |", summary.runs)
            }
        };
        eprintln!("{row}");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{row}");
    }
    Ok((text, is_complete))
}
