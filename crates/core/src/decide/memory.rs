//! What one decision remembers for the next. There is no other state in the decision core.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Cluster, MemberRole, Revision};
use crate::names::MemberName;
use crate::sync::pick::Readiness;
use crate::time::BootInstant;
use crate::wal::{Lsn, Timeline};

use super::failsafe::KnownMap;
use super::is_owner;
use super::rewind::{Divergence, DivergenceFacts, LocalRole, Remedy, judge};
use super::view::{ActionKind, Finished, Outcome, Store, View};

/// State between decisions (MEM-1…12, as far as asynchronous replication needs it).
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The last cluster that had a leader (MEM-2): who was a member, and who led.
    #[serde(with = "crate::cluster::shared::option")]
    pub last_led: Option<Arc<Cluster>>,
    /// Our position at the end of the previous decision (MEM-4).
    pub last_position: Option<Lsn>,
    /// Since when nobody has held the leader key, as long as this process has not seen a leader (RACE-13).
    pub leaderless_since: Option<BootInstant>,
    /// The race is put off because WAL may still arrive (UNL-1).
    pub backoff: Option<Backoff>,
    /// Divergence from the leader (MEM-5).
    pub rewind: RewindState,
    /// The leader that the history was last compared with: what was found is about it alone.
    pub compared_with: Option<MemberName>,
    /// The timeline that this leader was on then, when it could be asked.
    pub compared_timeline: Option<Timeline>,
    /// What that comparison found to be one history (FOL-12).
    pub same_history: Option<SameHistory>,
    /// Whom a running replica was last told to follow, and when.
    pub pointed_to: Option<(Option<MemberName>, BootInstant)>,
    /// Why the last rewind failed.
    pub rewind_error: String,
    /// A divergence check that could not be completed is repeated at this instant.
    pub check_again_at: Option<BootInstant>,
    /// A server that is down waits until then for a leader to follow, before it starts without one.
    pub rejoin_waits_until: Option<BootInstant>,
    /// The checkpoint after our promotion is not done yet (RWD-15).
    pub checkpoint: CheckpointState,
    /// A checkpoint that failed is repeated at this instant.
    pub checkpoint_again_at: Option<BootInstant>,
    /// When a standby leader last compared its history with that of the cluster that it follows (FOL-5).
    pub remote_compared_at: Option<BootInstant>,
    /// Logical slots are not copied again before this instant.
    pub copy_slots_again_at: Option<BootInstant>,
    /// A start was attempted and its result was not seen yet (MEM-6, CYC-12).
    pub recovering: bool,
    /// How long the present start may take, when an operator said so (RST-3).
    pub start_timeout: Option<Duration>,
    /// What the last failed start or clone said.
    pub start_error: Option<String>,
    /// Do not try the same failed thing again before this instant.
    pub retry_at: Option<BootInstant>,
    /// Single-user recovery was tried since the last success (REC-5).
    pub crash_recovery_tried: bool,
    /// The revision of the leader key that a proof was asked for last, and when.
    pub proof_asked: Option<(Revision, BootInstant)>,
    /// Since when the server has been primary without a proven lease, outside pause and with the store in reach.
    pub unproven_since: Option<BootInstant>,
    /// Which synchronous standbys have everything (MEM-12).
    pub readiness: Readiness,
    /// What commits wait for is managed by decisions, or was when it was last looked at (SYN-7).
    pub standby_names_managed: bool,
    /// When the user's own setting was loaded last.
    pub standby_names_restored_at: Option<BootInstant>,
    /// The key was taken as the candidate that an operator named, who accepts that commits may be missing (SPP-2).
    pub overrides_sync: bool,
    /// The last decision was taken in pause (MEM-7).
    pub was_paused: bool,
    /// When the key was released because a pre-promote script refused (MEM-9).
    pub refused_at: Option<BootInstant>,
    /// The result of that script has not been acted on yet (PRO-3).
    pub refused: Option<String>,
    /// Since when the server has been told to promote and is still in recovery.
    pub promotes_since: Option<BootInstant>,
    /// The request that this member is stepping down for.
    pub steps_down_for: Option<Revision>,
    /// The request that has had its effect here: this member stepped down for it, or took the key while it was there
    /// (INV-S17).
    pub request_done: Option<Revision>,
    /// The request that is left to others to fulfil, and since when nobody has held the key while it was there.
    pub yields: Option<(Revision, BootInstant)>,
    /// The failsafe map, for when the store is silent (MEM-3).
    pub failsafe: KnownMap,
    /// A bootstrap failed: its remains were moved aside and the agent has to end (BOO-8).
    pub bootstrap_failed: Option<String>,
}

/// What a comparison found to be one history. It says nothing about what was not compared then: a server that was down
/// may find more WAL of its own when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SameHistory {
    /// The leader's timeline.
    pub leader_timeline: Timeline,
    /// Ours.
    pub timeline: Timeline,
    /// Up to where we had it.
    pub lsn: Lsn,
}

/// How long the race has been put off, and what had arrived a tick ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Backoff {
    /// Since when.
    pub since: BootInstant,
    /// When the position was noted.
    pub noted_at: BootInstant,
    /// Our position then.
    pub position: Lsn,
}

/// How this member's history relates to the leader's (section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum RewindState {
    /// Nothing suggests a divergence.
    #[default]
    Initial,
    /// A check is due as soon as a leader can be asked (RWD-2).
    CheckRequested,
    /// Diverged.
    Needed,
    /// Diverged on a timeline of the same number, which PostgreSQL does not see (RWD-5).
    Forked(Remedy),
    /// Checked: the same history.
    NotNeeded,
    /// Rewound.
    Success,
    /// pg_rewind failed for a reason that does not pass (RWD-11).
    Failed,
}

/// The checkpoint that a new primary owes to those who rewind from it (RWD-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum CheckpointState {
    /// Nothing is known yet: the server tells when it is a primary, whoever promoted it.
    #[default]
    Unknown,
    /// Not a freshly promoted primary, or done.
    Done,
    /// Due.
    Due,
    /// Under way.
    Running,
}

/// How long a former primary that was stopped in order stays down to see its successor before it starts alone.
const REJOIN_PATIENCE: Duration = Duration::from_secs(3);

/// Pause between attempts to ask a leader that is not ready.
const CHECK_AGAIN: Duration = Duration::from_millis(250);

/// Pause before something is repeated that starts programs or opens connections, and failed for a reason that may pass.
const TRY_AGAIN: Duration = Duration::from_secs(2);

impl Memory {
    /// RWD-12: why this member does not come back, when no setting allows what would bring it back, or another attempt
    /// follows. `None` while it streams, or leads.
    pub fn rejoin_problem(&self, view: &View) -> Option<String> {
        let facts = view.postgres.facts.as_ref();
        let is_back = facts.is_some_and(|facts| facts.streaming || !facts.in_recovery);
        if is_back || view.postgres.is_primary() {
            return None;
        }
        match self.rewind {
            RewindState::Forked(Remedy::Copy) if self.rewind_error.is_empty() => {
                Some("its history has forked from the leader's, and only a new copy brings it back".to_owned())
            }
            RewindState::Initial
            | RewindState::CheckRequested
            | RewindState::Needed
            | RewindState::Forked(_)
            | RewindState::NotNeeded
            | RewindState::Success
            | RewindState::Failed => {
                (!self.rewind_error.is_empty()).then(|| format!("pg_rewind failed: {}", self.rewind_error.trim()))
            }
        }
    }

    /// Takes in what happened since the last decision, before anything is decided.
    pub(super) fn absorb(&mut self, view: &View) {
        if view.settings.paused && !self.was_paused && self.rejoin_waits_until.is_some_and(|until| view.now >= until) {
            self.rejoin_waits_until = None; // INV-S14: what stepped down long before and does not come up is for a person.
        }
        for finished in &view.finished {
            self.absorb_finished(view, finished);
        }
        if let Store::Current(cluster) = &view.store {
            self.failsafe.absorb(cluster);
            if !cluster.is_unlocked() {
                self.backoff = None; // CYC-3
                self.yields = None;
                self.overrides_sync &= cluster.is_led_by(&view.me);
            }
            if !cluster.is_unlocked() || self.last_led.is_none() {
                self.last_led = Some(Arc::clone(cluster)); // MEM-2
            }
            let has_consent = view.failsafe.consent.is_some_and(|consent| view.now < consent.end());
            let proven = is_owner(view, cluster) || has_consent;
            let unproven = view.postgres.is_primary() && !view.settings.paused && !proven;
            // A cluster that is being created is nobody else's yet.
            let creates = view.action.as_ref().is_some_and(|action| action.kind == ActionKind::Bootstrap);
            self.unproven_since = (unproven && !creates).then(|| self.unproven_since.unwrap_or(view.now));
        }
        match (self.checkpoint, &view.postgres.facts) {
            // INV-S21: what was known of an earlier leadership says nothing about the next one, whoever promotes it.
            (_, Some(facts)) if facts.in_recovery => {
                self.checkpoint = CheckpointState::Unknown;
                self.readiness = Readiness::default();
            }
            (CheckpointState::Unknown, Some(facts)) => {
                self.checkpoint = if facts.checkpointed { CheckpointState::Done } else { CheckpointState::Due };
            }
            (_, _) => {}
        }
        let promoted = view.postgres.alive && view.postgres.role == MemberRole::Promoted;
        self.promotes_since = promoted.then(|| self.promotes_since.unwrap_or(view.now));
        if self.was_paused && !view.settings.paused {
            self.rewind = RewindState::Initial; // CYC-5, PAU-16
        }
        self.was_paused = view.settings.paused;
        if view.postgres.is_running() && view.action.is_none() {
            self.start_timeout = None;
        }
        if view.postgres.is_running() {
            self.start_error = None;
            self.retry_at = None;
            self.crash_recovery_tried = false;
            self.rejoin_waits_until = None;
            if matches!(self.rewind, RewindState::Success | RewindState::NotNeeded) {
                self.rewind = RewindState::Initial; // RWD-16: a later end of the server is compared anew.
            }
        }
    }

    fn absorb_finished(&mut self, view: &View, finished: &Finished) {
        let retry = Some(view.now + view.settings.loop_wait);
        match (finished.kind, &finished.outcome) {
            (ActionKind::CheckDivergence, Outcome::Divergence(facts)) => self.absorb_check(view, facts),
            (ActionKind::Rewind, Outcome::Done) => {
                self.rewind = RewindState::Success;
                self.rewind_error.clear();
            }
            (ActionKind::Rewind, Outcome::Failed(error)) => {
                self.rewind = match self.rewind {
                    RewindState::Forked(_) => RewindState::Forked(Remedy::Copy), // Still not to be started.
                    RewindState::Initial
                    | RewindState::CheckRequested
                    | RewindState::Needed
                    | RewindState::NotNeeded
                    | RewindState::Success
                    | RewindState::Failed => RewindState::Failed,
                };
                self.rewind_error.clone_from(error);
            }
            (ActionKind::Rewind, Outcome::SourceLost(error)) => {
                self.rewind_error.clone_from(error);
                self.check_again_at = Some(view.now + TRY_AGAIN);
            }
            // A promotion that was not awaited to its end may still come to it.
            (ActionKind::Promote, Outcome::Done | Outcome::Failed(_)) => self.checkpoint = CheckpointState::Due,
            (ActionKind::Promote, Outcome::Refused(why)) => self.refused = Some(why.clone()),
            (ActionKind::Clone, Outcome::Done) => {
                // A copy looks like a crashed primary and is none: it starts from its backup label.
                self.rewind = RewindState::NotNeeded;
                self.rewind_error.clear(); // It was about the data before.
                self.crash_recovery_tried = true;
            }
            (ActionKind::Checkpoint, Outcome::Done) => self.checkpoint = CheckpointState::Done,
            (ActionKind::Checkpoint, _) => {
                self.checkpoint = CheckpointState::Due;
                self.checkpoint_again_at = Some(view.now + TRY_AGAIN);
            }
            (ActionKind::Demote, outcome) => {
                let request = self.steps_down_for.take();
                if *outcome == Outcome::Done {
                    self.request_done = request.or(self.request_done);
                }
                self.checkpoint = CheckpointState::Unknown;
                self.rewind = RewindState::Initial; // DEM-1
                self.rejoin_waits_until = Some(view.now + REJOIN_PATIENCE);
            }
            (ActionKind::Bootstrap, Outcome::Failed(error)) => self.bootstrap_failed = Some(error.clone()),
            (
                ActionKind::Start | ActionKind::Clone | ActionKind::ChangeUpstream | ActionKind::Restart,
                Outcome::Failed(error),
            ) => {
                self.start_error = Some(error.clone());
                self.retry_at = retry;
            }
            (ActionKind::CopySlots, _) => self.copy_slots_again_at = retry,
            (ActionKind::CrashRecovery, Outcome::Failed(error)) => self.start_error = Some(error.clone()),
            (
                ActionKind::Bootstrap
                | ActionKind::Clone
                | ActionKind::Start
                | ActionKind::Promote
                | ActionKind::Stop
                | ActionKind::CrashRecovery
                | ActionKind::CheckDivergence
                | ActionKind::Rewind
                | ActionKind::ChangeUpstream
                | ActionKind::Restart,
                _,
            ) => {}
        }
    }

    fn absorb_check(&mut self, view: &View, facts: &DivergenceFacts) {
        self.compared_timeline = match facts {
            DivergenceFacts::Known { leader_timeline, .. } => Some(*leader_timeline),
            DivergenceFacts::HalfRewound | DivergenceFacts::LocalUnknown(_) | DivergenceFacts::LeaderNotReady(_) => {
                None
            }
        };
        self.rewind = match judge(facts) {
            Divergence::Diverged => RewindState::Needed,
            Divergence::Forked(remedy) => RewindState::Forked(remedy),
            Divergence::SameHistory => {
                if let DivergenceFacts::Known { local, leader_timeline, .. } = facts {
                    let end = match local.was {
                        LocalRole::FormerPrimary { checkpoint_end } => checkpoint_end.unwrap_or(local.lsn),
                        LocalRole::Standby => local.lsn,
                    };
                    self.same_history =
                        Some(SameHistory { leader_timeline: *leader_timeline, timeline: local.timeline, lsn: end });
                }
                RewindState::NotNeeded
            }
            Divergence::Unknown => {
                self.check_again_at = Some(view.now + CHECK_AGAIN);
                RewindState::CheckRequested
            }
        };
    }

    /// Notes what the decision ends with, for the next one.
    pub(super) fn conclude(&mut self, view: &View) {
        self.last_position = view.postgres.position();
    }
}
