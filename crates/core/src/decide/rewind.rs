//! Has this member left the leader's history, and what follows from it (RWD-1…16).

use crate::cluster::{Cluster, HistoryLine, Member, MemberRole};
use crate::mutant::{Mutant, leaves_out};
use crate::wal::{Lsn, Timeline};

use super::effect::{Decision, Effect};
use super::memory::{Memory, RewindState};
use super::reason::Reason;
use super::view::{Control, View};

/// `Database cluster state` of the control data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ControlState {
    /// A primary that was stopped in order.
    ShutDown,
    /// A standby that was stopped in order.
    ShutDownInRecovery,
    /// A stop that was interrupted.
    ShuttingDown,
    /// A crash during crash recovery.
    InCrashRecovery,
    /// A standby that was not stopped in order.
    InArchiveRecovery,
    /// A primary that was not stopped in order.
    InProduction,
    /// `starting up`, or a text that no supported version prints.
    Other,
}

impl ControlState {
    /// True for a server that was primary, or crashed as one, and was not stopped in order (REC-5).
    pub fn needs_crash_recovery(self) -> bool {
        match self {
            ControlState::InProduction | ControlState::ShuttingDown | ControlState::InCrashRecovery => true,
            ControlState::ShutDown
            | ControlState::ShutDownInRecovery
            | ControlState::InArchiveRecovery
            | ControlState::Other => false,
        }
    }

    /// True for a server that was primary last, stopped in order or not (REC-3).
    pub fn was_primary(self) -> bool {
        self.needs_crash_recovery() || self == ControlState::ShutDown
    }
}

/// Where this member's own history ends (RWD-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LocalPosition {
    /// The timeline.
    pub timeline: Timeline,
    /// The last position that matters: replayed, minimum recovery end, or the shutdown checkpoint.
    pub lsn: Lsn,
    /// What it was.
    pub was: LocalRole,
}

/// What the position belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LocalRole {
    /// A standby: the position is what it replayed.
    Standby,
    /// A former primary: the position is its shutdown checkpoint, which ends here when that could be read.
    FormerPrimary {
        /// End of the checkpoint record.
        checkpoint_end: Option<Lsn>,
    },
}

/// What a divergence check collected.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum DivergenceFacts {
    /// A rewind of this member was broken off: whatever its files say, they are of two histories.
    HalfRewound,
    /// This member's own position is not known (RWD-3, RWD-4).
    LocalUnknown(String),
    /// The leader could not be asked, or is not a primary out of recovery yet (RWD-3).
    LeaderNotReady(String),
    /// Both sides are known.
    Known {
        /// This side.
        local: LocalPosition,
        /// The leader's timeline.
        leader_timeline: Timeline,
        /// The leader's history: where each earlier timeline ended.
        leader_history: Vec<(Timeline, Lsn)>,
    },
}

/// What a divergence check means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// This member holds WAL that the leader does not have.
    Diverged,
    /// Streaming will work.
    SameHistory,
    /// Not known yet; ask again.
    Unknown,
}

/// RWD-5…7: does the local history leave the leader's?
pub fn judge(facts: &DivergenceFacts) -> Divergence {
    let (local, leader_timeline, history) = match facts {
        DivergenceFacts::HalfRewound => return Divergence::Diverged,
        DivergenceFacts::LocalUnknown(_) | DivergenceFacts::LeaderNotReady(_) => return Divergence::Unknown,
        DivergenceFacts::Known { local, leader_timeline, leader_history } => (local, *leader_timeline, leader_history),
    };
    let diverged = if local.timeline > leader_timeline {
        true
    } else if local.timeline == leader_timeline {
        false
    } else {
        match last_common(local.timeline, history) {
            None => true, // Missing or jumped over: the leader does not descend from it.
            Some(switch) => match local.was {
                LocalRole::Standby => local.lsn > switch,
                LocalRole::FormerPrimary { checkpoint_end } => local.lsn >= switch || checkpoint_end != Some(switch),
            },
        }
    };
    if diverged && !leaves_out(Mutant::NeverDiverged) { Divergence::Diverged } else { Divergence::SameHistory }
}

/// Up to where a leader with this history has the WAL of `timeline`; `None` when it does not descend from it.
///
/// Mostly that is where `timeline` ended. But a server that was recovered to a target before that end, while it followed a
/// later timeline, left that one at an earlier position than it began.
fn last_common(timeline: Timeline, history: &[(Timeline, Lsn)]) -> Option<Lsn> {
    let at = history.iter().position(|(ended, _)| *ended == timeline)?;
    history[at..].iter().map(|(_, switch)| *switch).min()
}

/// The switch points of a leader's `history` lines, for [`DivergenceFacts`].
pub fn switch_points(lines: &[HistoryLine]) -> Vec<(Timeline, Lsn)> {
    lines.iter().map(|line| (line.timeline, line.lsn)).collect()
}

/// RWD-1: pg_rewind is enabled and the data directory allows it.
pub(super) fn is_usable(view: &View, control: Option<&Control>) -> bool {
    view.settings.use_pg_rewind && control.is_none_or(|control| control.rewind_possible)
}

/// RWD-2: asks for a check, unless a rewind is already known to be needed or nothing could follow from it.
pub(super) fn request_check(view: &View, memory: &mut Memory) {
    let useful = view.settings.use_pg_rewind || view.settings.wipe_on_divergence;
    if useful && memory.rewind != RewindState::Needed {
        memory.rewind = RewindState::CheckRequested;
    }
}

/// The leader as a source for a check or a rewind: another member with an address that says it is primary (RWD-3).
fn source<'c>(view: &View, cluster: &'c Cluster) -> Option<&'c Member> {
    let leader = cluster.leader_member().filter(|leader| leader.name != view.me)?;
    leader.address()?;
    Some(leader)
}

/// What the rewind state asks for now. `None`: nothing, go on to start or follow.
///
/// Called for a server that is down (REC-8) and for a replica that runs (FOL-6).
pub(super) fn next_step(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    match memory.rewind {
        RewindState::Initial | RewindState::NotNeeded | RewindState::Success => None,
        RewindState::CheckRequested => check(view, cluster, memory),
        RewindState::Needed if judged_another_leader(view, cluster, memory) => {
            memory.rewind = RewindState::CheckRequested;
            check(view, cluster, memory)
        }
        RewindState::Needed => rewind(view, cluster, memory),
        RewindState::Failed => {
            let allowed = view.settings.wipe_on_rewind_failure || view.settings.wipe_on_divergence;
            // RWD-12: only an operator's flag allows to wipe; without one the member stays visibly broken.
            let leader = source(view, cluster).filter(|_| allowed && may_wipe(view, cluster))?;
            Some(wipe(leader, memory, Reason::RewindFailedRecloning { error: memory.rewind_error.clone() }))
        }
    }
}

/// INV-S11: to have left the history of one leader says nothing about that of the next. A rewind that was begun has
/// changed the data, so that only another one can end it.
fn judged_another_leader(view: &View, cluster: &Cluster, memory: &Memory) -> bool {
    let is_untouched = memory.rewind_error.is_empty();
    let leader = source(view, cluster).map(|leader| &leader.name);
    is_untouched && memory.compared_with.as_ref().is_some_and(|before| leader.is_some_and(|now| now != before))
}

/// Copies the cluster anew. INV-S21: not before the leader is a primary, because what is removed may be the only copy.
fn wipe(leader: &Member, memory: &mut Memory, reason: Reason) -> Decision {
    if leader.role() != Some(MemberRole::Primary) && !leaves_out(Mutant::WipeWithoutLooking) {
        return Reason::WaitsForLeaderToPromote { leader: leader.name.clone() }.alone();
    }
    memory.rewind = RewindState::Initial;
    reason.with([Effect::Clone { source: leader.name.clone(), wipe: true }])
}

/// INV-S11: never while this member owns the key or its server is a primary. INV-S14: never in maintenance mode.
fn may_wipe(view: &View, cluster: &Cluster) -> bool {
    leaves_out(Mutant::WipeWithoutLooking)
        || !cluster.is_led_by(&view.me)
            && !view.postgres.is_primary()
            && !view.lease.is_exclusive(view.now)
            && !view.settings.paused
}

fn check(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    let leader = source(view, cluster)?;
    let patience = memory.rejoin_waits_until.filter(|until| view.now < *until && !view.postgres.alive);
    if leader.role() != Some(MemberRole::Primary) {
        // The winner has the key and is about to be primary. A server that is down waits for it a moment, so that it
        // starts once, on the right history; a running replica just goes on.
        return patience.map(|until| Reason::WaitsForLeaderToPromote { leader: leader.name.clone() }.wake_at(until));
    }
    if let Some(again) = memory.check_again_at.filter(|again| view.now < *again) {
        return patience.map(|_| Reason::WaitsForLeaderToPromote { leader: leader.name.clone() }.wake_at(again));
    }
    memory.compared_with = Some(leader.name.clone());
    Some(
        Reason::ChecksDivergence { leader: leader.name.clone() }
            .with([Effect::CheckDivergence { leader: leader.name.clone() }]),
    )
}

fn rewind(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    let leader = source(view, cluster)?;
    let control = view.postgres.control.as_ref();
    if !is_usable(view, control) {
        if view.settings.wipe_on_divergence && may_wipe(view, cluster) {
            let reason = Reason::DivergedRecloning { leader: leader.name.clone() };
            return Some(wipe(leader, memory, reason)); // RWD-13
        }
        return None; // RWD-14: PostgreSQL itself will refuse to stream.
    }
    if let Some(again) = memory.check_again_at.filter(|again| view.now < *again && !memory.rewind_error.is_empty()) {
        return Some(Reason::RewindTriedAgain { error: memory.rewind_error.clone() }.wake_at(again)); // RWD-11
    }
    let is_source = !leader.lacks_checkpoint_after_promote() && leader.role() == Some(MemberRole::Primary);
    if !is_source && !leaves_out(Mutant::RewindTooEarly) {
        return Some(Reason::WaitsForCheckpointOfLeader { leader: leader.name.clone() }.alone()); // RWD-9
    }
    if control
        .is_some_and(|control| control.state == ControlState::InArchiveRecovery || control.state.needs_crash_recovery())
        && !memory.crash_recovery_tried
    {
        memory.crash_recovery_tried = true; // RWD-8
        return Some(Reason::RecoversBeforeRewind.with([Effect::CrashRecover]));
    }
    Some(Reason::Rewinds { leader: leader.name.clone() }.with([Effect::Rewind { source: leader.name.clone() }]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    /// A standby on timeline 1 at 100; the leader left timeline 1 for 2 at 100.
    fn facts(local_timeline: u32, lsn: u64, was: LocalRole) -> DivergenceFacts {
        DivergenceFacts::Known {
            local: LocalPosition { timeline: timeline(local_timeline), lsn: Lsn(lsn), was },
            leader_timeline: timeline(3),
            leader_history: vec![(timeline(1), Lsn(100)), (timeline(2), Lsn(200))],
        }
    }

    #[test]
    fn divergence_is_judged_from_history_alone() {
        use Divergence::*;
        let primary = |end: Option<u64>| LocalRole::FormerPrimary { checkpoint_end: end.map(Lsn) };
        for (name, facts, want) in [
            ("RWD-5: a higher timeline than the leader's", facts(4, 10, LocalRole::Standby), Diverged),
            ("RWD-5: the same timeline", facts(3, 9999, LocalRole::Standby), SameHistory),
            ("RWD-6: a standby that replayed exactly to the switch", facts(1, 100, LocalRole::Standby), SameHistory),
            ("RWD-6: a standby one byte beyond the switch", facts(1, 101, LocalRole::Standby), Diverged),
            ("RWD-7: shutdown checkpoint ends at the switch", facts(2, 90, primary(Some(200))), SameHistory),
            ("RWD-7: shutdown checkpoint ends elsewhere", facts(2, 90, primary(Some(150))), Diverged),
            ("RWD-7: end of the checkpoint unknown", facts(2, 90, primary(None)), Diverged),
            ("RWD-7: checkpoint beyond the switch", facts(2, 200, primary(Some(200))), Diverged),
            ("INV-S13: a rewind that was broken off is done again", DivergenceFacts::HalfRewound, Diverged),
            ("RWD-3: leader not ready", DivergenceFacts::LeaderNotReady("in recovery".into()), Unknown),
            ("RWD-4: own position unknown", DivergenceFacts::LocalUnknown("no control data".into()), Unknown),
        ] {
            assert_eq!(judge(&facts), want, "{name}");
        }
        let jumped = DivergenceFacts::Known {
            local: LocalPosition { timeline: timeline(2), lsn: Lsn(1), was: LocalRole::Standby },
            leader_timeline: timeline(3),
            leader_history: vec![(timeline(1), Lsn(100))],
        };
        assert_eq!(judge(&jumped), Diverged, "RWD-5: a timeline that the leader's history jumps over");
        for (lsn, want) in [(70, SameHistory), (71, Diverged), (100, Diverged)] {
            let recovered = DivergenceFacts::Known {
                local: LocalPosition { timeline: timeline(1), lsn: Lsn(lsn), was: LocalRole::Standby },
                leader_timeline: timeline(3),
                leader_history: vec![(timeline(1), Lsn(100)), (timeline(2), Lsn(70))],
            };
            assert_eq!(judge(&recovered), want, "RWD-6: at {lsn}; the leader was recovered to 70, before the switch");
        }
    }
}
