//! Has this member left the leader's history, and what follows from it (RWD-1…16).

use crate::cluster::{Cluster, HistoryLine, MemberRole};
use crate::mutant::{Mutant, leaves_out};
use crate::names::MemberName;
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
        /// Where each earlier timeline of this side ended. `None`: there is no history file that could be read.
        local_history: Option<Vec<(Timeline, Lsn)>>,
        /// The leader's timeline.
        leader_timeline: Timeline,
        /// The leader's history: where each earlier timeline ended.
        leader_history: Vec<(Timeline, Lsn)>,
    },
}

/// What a divergence check means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// This member holds WAL that the leader does not have. PostgreSQL sees it and refuses to stream.
    Diverged,
    /// Both sides have a timeline of the same number, and it is not the same one: two members were promoted on their
    /// own. PostgreSQL compares only numbers: it would stream, and replay what does not fit the data.
    Forked(Remedy),
    /// Streaming will work.
    SameHistory,
    /// Not known yet; ask again.
    Unknown,
}

/// What can bring a member back whose history has forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Remedy {
    /// pg_rewind: the leader is on a timeline of another number by now, so that it compares the histories.
    Rewind,
    /// Only a new copy: to pg_rewind the same number is the same history, or it has failed.
    Copy,
}

/// RWD-5…7: does the local history leave the leader's?
pub fn judge(facts: &DivergenceFacts) -> Divergence {
    let (local, local_history, leader_timeline, history) = match facts {
        DivergenceFacts::HalfRewound => return Divergence::Diverged,
        DivergenceFacts::LeaderNotReady(_) if leaves_out(Mutant::WipeWithoutLooking) => return Divergence::Diverged,
        DivergenceFacts::LocalUnknown(_) | DivergenceFacts::LeaderNotReady(_) => return Divergence::Unknown,
        DivergenceFacts::Known { local, local_history, leader_timeline, leader_history } => {
            (local, local_history, *leader_timeline, leader_history)
        }
    };
    if leaves_out(Mutant::NeverDiverged) {
        return Divergence::SameHistory;
    }
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
    if diverged {
        return Divergence::Diverged;
    }
    let remedy = if local.timeline == leader_timeline { Remedy::Copy } else { Remedy::Rewind };
    match began_alike(local.timeline, local_history.as_deref(), history) {
        Some(true) => Divergence::SameHistory,
        Some(false) => Divergence::Forked(remedy),
        None => Divergence::Unknown,
    }
}

/// Whether a timeline that both sides have began at the same position, and those before it, too (RWD-5). `None`: there is
/// nothing to tell it from. Files may lack the oldest lines, so that they are compared from the end.
fn began_alike(timeline: Timeline, local: Option<&[(Timeline, Lsn)]>, leader: &[(Timeline, Lsn)]) -> Option<bool> {
    if timeline == Timeline::FIRST {
        return Some(true);
    }
    let before = |line: &&(Timeline, Lsn)| line.0 < timeline;
    let mut both = local?.iter().rev().filter(before).zip(leader.iter().rev().filter(before)).peekable();
    both.peek()?;
    Some(both.all(|(ours, theirs)| ours == theirs))
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

/// RWD-2: asks for a check, unless what is known has to be acted on first. It is asked for where no rewind is possible,
/// too: only a check sees a fork.
pub(super) fn request_check(memory: &mut Memory) {
    match memory.rewind {
        RewindState::Needed | RewindState::Forked(_) => {}
        RewindState::Initial
        | RewindState::CheckRequested
        | RewindState::NotNeeded
        | RewindState::Success
        | RewindState::Failed => memory.rewind = RewindState::CheckRequested,
    }
}

/// Whom this member compares its history with, and rewinds from.
struct Source {
    name: MemberName,
    role: Option<MemberRole>,
    lacks_checkpoint: bool,
    timeline: Option<Timeline>,
}

/// The leader as a source for a check or a rewind: another member with an address that says it is primary (RWD-3). In a
/// standby cluster it is the other cluster: nobody here is a primary.
fn source(view: &View, cluster: &Cluster) -> Option<Source> {
    if view.settings.standby_cluster {
        return Some(Source {
            name: MemberName::remote(),
            role: Some(MemberRole::Primary),
            lacks_checkpoint: false, // Who rewinds asks it.
            timeline: None,
        });
    }
    let leader = cluster.leader_member().filter(|leader| leader.name != view.me)?;
    leader.address()?;
    Some(Source {
        name: leader.name.clone(),
        role: leader.role(),
        lacks_checkpoint: leader.lacks_checkpoint_after_promote(),
        timeline: leader.timeline(),
    })
}

/// What the rewind state asks for now. `None`: nothing, go on to start or follow.
///
/// Called for a server that is down (REC-8) and for a replica that runs (FOL-6).
pub(super) fn next_step(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    match memory.rewind {
        RewindState::Initial | RewindState::NotNeeded | RewindState::Success => None,
        RewindState::CheckRequested => check(view, cluster, memory),
        RewindState::Needed | RewindState::Forked(_) if judged_another_leader(view, cluster, memory) => {
            memory.rewind = RewindState::CheckRequested;
            check(view, cluster, memory)
        }
        RewindState::Needed => rewind(view, cluster, memory),
        RewindState::Forked(remedy) => leave_fork(view, cluster, memory, remedy),
        RewindState::Failed => {
            let allowed = view.settings.wipe_on_rewind_failure || view.settings.wipe_on_divergence;
            // RWD-12: only an operator's flag allows to wipe; without one the member stays visibly broken.
            let leader = source(view, cluster).filter(|_| allowed && may_wipe(view, cluster))?;
            Some(wipe(&leader, memory, Reason::RewindFailedRecloning { error: memory.rewind_error.clone() }))
        }
    }
}

/// INV-S11: to have left the history of one leader says nothing about that of the next, nor about a later timeline of
/// the same. A rewind that was begun has changed the data, so that only another one can end it.
fn judged_another_leader(view: &View, cluster: &Cluster, memory: &Memory) -> bool {
    let is_untouched = memory.rewind_error.is_empty();
    let Some(leader) = source(view, cluster).filter(|_| is_untouched) else { return false };
    let is_another = memory.compared_with.as_ref().is_some_and(|before| *before != leader.name);
    let has_moved_on = memory.compared_timeline.is_some_and(|before| leader.timeline.is_some_and(|now| now > before));
    is_another || has_moved_on
}

/// Copies the cluster anew. INV-S21: not before the leader is a primary, because what is removed may be the only copy.
fn wipe(leader: &Source, memory: &mut Memory, reason: Reason) -> Decision {
    if leader.role != Some(MemberRole::Primary) && !leaves_out(Mutant::WipeWithoutLooking) {
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
    if leader.role != Some(MemberRole::Primary) {
        // The winner has the key and is about to be primary. A server that is down waits for it a moment, so that it
        // starts once, on the right history; a running replica just goes on.
        return patience.map(|until| Reason::WaitsForLeaderToPromote { leader: leader.name.clone() }.wake_at(until));
    }
    if let Some(again) = memory.check_again_at.filter(|again| view.now < *again) {
        return patience.map(|_| Reason::WaitsForLeaderToPromote { leader: leader.name.clone() }.wake_at(again));
    }
    memory.compared_with = Some(leader.name.clone());
    memory.same_history = None;
    Some(
        Reason::ChecksDivergence { leader: leader.name.clone() }
            .with([Effect::CheckDivergence { leader: leader.name.clone() }]),
    )
}

fn rewind(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    let leader = source(view, cluster)?;
    let control = view.postgres.control.as_ref();
    if !is_usable(view, control) {
        if view.settings.wipe_on_divergence && may_wipe(view, cluster) && !view.settings.standby_cluster {
            let reason = Reason::DivergedRecloning { leader: leader.name.clone() };
            return Some(wipe(&leader, memory, reason)); // RWD-13
        }
        return None; // RWD-14: PostgreSQL itself will refuse to stream.
    }
    if let Some(again) = memory.check_again_at.filter(|again| view.now < *again && !memory.rewind_error.is_empty()) {
        return Some(Reason::RewindTriedAgain { error: memory.rewind_error.clone() }.wake_at(again)); // RWD-11
    }
    let is_source = !leader.lacks_checkpoint && leader.role == Some(MemberRole::Primary);
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

/// RWD-5: a fork that PostgreSQL does not see. Without a way back the server does not run as a replica of this leader.
fn leave_fork(view: &View, cluster: &Cluster, memory: &mut Memory, remedy: Remedy) -> Option<Decision> {
    let leader = source(view, cluster)?;
    let rewind_is_usable = is_usable(view, view.postgres.control.as_ref());
    if remedy == Remedy::Rewind && rewind_is_usable {
        return rewind(view, cluster, memory);
    }
    // RWD-12: to let pg_rewind say that there is nothing to do would be one more way for it to fail.
    let allowed = view.settings.wipe_on_divergence || rewind_is_usable && view.settings.wipe_on_rewind_failure;
    if allowed && may_wipe(view, cluster) {
        let reason = Reason::ForkedRecloning { leader: leader.name.clone() };
        return Some(wipe(&leader, memory, reason));
    }
    let reason = Reason::Forked { leader: leader.name.clone() };
    let stops = view.postgres.alive && !view.postgres.is_primary() && !view.settings.paused;
    Some(if stops { reason.with([Effect::StopImmediately]) } else { reason.alone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    fn switches(points: &[(u32, u64)]) -> Vec<(Timeline, Lsn)> {
        points.iter().map(|(number, lsn)| (timeline(*number), Lsn(*lsn))).collect()
    }

    /// A standby on timeline 1 at 100; the leader left timeline 1 for 2 at 100.
    fn facts(local_timeline: u32, lsn: u64, was: LocalRole) -> DivergenceFacts {
        DivergenceFacts::Known {
            local: LocalPosition { timeline: timeline(local_timeline), lsn: Lsn(lsn), was },
            local_history: Some(switches(&[(1, 100), (2, 200)][..usize::min(local_timeline as usize - 1, 2)])),
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
            local_history: Some(switches(&[(1, 100)])),
            leader_timeline: timeline(3),
            leader_history: vec![(timeline(1), Lsn(100))],
        };
        assert_eq!(judge(&jumped), Diverged, "RWD-5: a timeline that the leader's history jumps over");
        for (lsn, want) in [(70, SameHistory), (71, Diverged), (100, Diverged)] {
            let recovered = DivergenceFacts::Known {
                local: LocalPosition { timeline: timeline(1), lsn: Lsn(lsn), was: LocalRole::Standby },
                local_history: Some(Vec::new()),
                leader_timeline: timeline(3),
                leader_history: vec![(timeline(1), Lsn(100)), (timeline(2), Lsn(70))],
            };
            assert_eq!(judge(&recovered), want, "RWD-6: at {lsn}; the leader was recovered to 70, before the switch");
        }
    }

    #[test]
    fn the_same_number_is_the_same_timeline_only_where_it_began_alike() {
        use Divergence::*;
        /// Timelines and where they ended.
        type Points = &'static [(u32, u64)];
        /// A name, our position, our history, the leader's timeline and history, and what is to be found.
        type Row = (&'static str, (u32, u64), Option<Points>, (u32, Points), Divergence);
        let rows: [Row; 13] = [
            ("both on the first timeline", (1, 900), Some(&[]), (1, &[]), SameHistory),
            ("on the first timeline, which has no history file", (1, 90), None, (2, &[(1, 100)]), SameHistory),
            ("began alike", (2, 900), Some(&[(1, 100)]), (2, &[(1, 100)]), SameHistory),
            ("began earlier than the leader's", (2, 900), Some(&[(1, 90)]), (2, &[(1, 100)]), Forked(Remedy::Copy)),
            ("began later than the leader's", (2, 900), Some(&[(1, 110)]), (2, &[(1, 100)]), Forked(Remedy::Copy)),
            (
                "began on another timeline",
                (3, 900),
                Some(&[(1, 100)]),
                (3, &[(1, 100), (2, 200)]),
                Forked(Remedy::Copy),
            ),
            (
                "an earlier timeline began elsewhere",
                (3, 900),
                Some(&[(1, 90), (2, 200)]),
                (3, &[(1, 100), (2, 200)]),
                Forked(Remedy::Copy),
            ),
            (
                "the leader has left its timeline of that number",
                (2, 150),
                Some(&[(1, 90)]),
                (3, &[(1, 100), (2, 200)]),
                Forked(Remedy::Rewind),
            ),
            ("and was beyond: PostgreSQL sees that", (2, 201), Some(&[(1, 90)]), (3, &[(1, 100), (2, 200)]), Diverged),
            (
                "on a higher one than the leader: it sees that",
                (3, 9),
                Some(&[(1, 90), (2, 95)]),
                (2, &[(1, 100)]),
                Diverged,
            ),
            (
                "the oldest line is missing in one file",
                (3, 9),
                Some(&[(2, 200)]),
                (3, &[(1, 100), (2, 200)]),
                SameHistory,
            ),
            ("the history file is missing here", (2, 900), None, (2, &[(1, 100)]), Unknown),
            ("the history file is empty here", (2, 900), Some(&[]), (2, &[(1, 100)]), Unknown),
        ];
        for (name, (number, lsn), local_history, (leader_timeline, leader_history), want) in rows {
            let facts = DivergenceFacts::Known {
                local: LocalPosition { timeline: timeline(number), lsn: Lsn(lsn), was: LocalRole::Standby },
                local_history: local_history.map(switches),
                leader_timeline: timeline(leader_timeline),
                leader_history: switches(leader_history),
            };
            assert_eq!(judge(&facts), want, "RWD-5: {name}");
        }
    }
}
