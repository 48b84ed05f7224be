//! Rules that can be left out on purpose, one at a time, to prove that the simulator notices when one is missing.
//!
//! Only a build with the feature `mutants` can leave anything out; in every other one [`leaves_out`] is false at compile
//! time, and nothing is left of it in the program. The switch belongs to a thread: a simulated cluster lives on one.

/// A rule that is left out. Each breaks at least one invariant; `docs/testing.md` has the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// The fencer is never armed (BEY-2).
    NoFence,
    /// A lease counts from when its renewal was answered, not from when it was sent (TIM-4).
    LeaseFromAnswer,
    /// Whoever wins a race promotes at once, without a lease and without a fence (UNL-3, PRO-12, INV-S28).
    PromoteWithoutLease,
    /// A race does not look at positions (RACE-6).
    RaceIgnoresPositions,
    /// A race does not look for a living primary (RACE-5).
    RaceIgnoresPrimary,
    /// A running primary takes the key back without asking (HLT-5, QRK-2).
    PrimaryTakesKeyBack,
    /// A cluster is created although it was initialised (BOO-1, BOO-7).
    BootstrapAgain,
    /// The claim to create the cluster is not looked at once more (BEY-23).
    BootstrapWithoutClaim,
    /// A leader that does not answer is one that this member has left, and data is removed without looking at the source, the
    /// key and the server (RWD-3, INV-S11, INV-S21).
    WipeWithoutLooking,
    /// The key is released before the server has stopped (DEM-12).
    ReleaseBeforeStop,
    /// A start does not wait for the action that runs (ASY-7).
    ActionsTogether,
    /// A rewind does not wait for the checkpoint of its source (RWD-9).
    RewindTooEarly,
    /// Diverged members are not rewound (RWD-5).
    NeverDiverged,
    /// A member may follow whoever follows it (INV-S22).
    FollowInCircles,
    /// History is written anew from nothing (HIS-1).
    HistoryForgotten,
    /// The tag `nofailover` is not looked at (HLT-7).
    NofailoverIgnored,
    /// A garbled key of the store ends the agent (INV-S26).
    PanicOnGarbage,
    /// A request stays after it was carried out (MAN-L1, UNL-4).
    RequestNotCleared,
    /// A crashed member is not started again (REC-7).
    NeverStarted,
    /// A primary without the store is content with most of the others (FS-4).
    ConsentOfMost,
    /// Who agreed to wait forgets it when the store is back (FS-7).
    PromiseForgotten,
    /// A standby is pointed to its leader again and again (FOL-10).
    RestlessStandby,
    /// What the store has lost stays lost (CYC-7, CYC-8).
    LostKeysStay,
    /// The lease counts on the wall clock (TIM-5). Left out where the simulator stands in for the machine's clocks.
    LeaseByWallClock,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 24] = [
        Mutant::NoFence,
        Mutant::LeaseFromAnswer,
        Mutant::PromoteWithoutLease,
        Mutant::RaceIgnoresPositions,
        Mutant::RaceIgnoresPrimary,
        Mutant::PrimaryTakesKeyBack,
        Mutant::BootstrapAgain,
        Mutant::BootstrapWithoutClaim,
        Mutant::WipeWithoutLooking,
        Mutant::ReleaseBeforeStop,
        Mutant::ActionsTogether,
        Mutant::RewindTooEarly,
        Mutant::NeverDiverged,
        Mutant::FollowInCircles,
        Mutant::HistoryForgotten,
        Mutant::NofailoverIgnored,
        Mutant::PanicOnGarbage,
        Mutant::RequestNotCleared,
        Mutant::NeverStarted,
        Mutant::ConsentOfMost,
        Mutant::PromiseForgotten,
        Mutant::RestlessStandby,
        Mutant::LostKeysStay,
        Mutant::LeaseByWallClock,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static LEFT_OUT: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Leaves out this rule on this thread, or none.
    pub fn leave_out(mutant: Option<Mutant>) {
        LEFT_OUT.set(mutant);
    }

    pub(super) fn is_left_out(mutant: Mutant) -> bool {
        LEFT_OUT.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use switch::leave_out;

/// True when this rule is to be left out.
#[inline]
pub fn leaves_out(mutant: Mutant) -> bool {
    #[cfg(feature = "mutants")]
    return switch::is_left_out(mutant);
    #[cfg(not(feature = "mutants"))]
    {
        let _ = mutant;
        false
    }
}
