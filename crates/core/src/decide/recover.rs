//! PostgreSQL is down (section 11).

use crate::cluster::{Cluster, MemberRole, PostgresState};
use crate::mutant::{Mutant, leaves_out};

use crate::names::MemberName;

use super::effect::{Decision, DemoteMode, Effect, StartAs};
use super::follow;
use super::is_owner;
use super::leader;
use super::memory::{Memory, RewindState};
use super::peers::{Asked, Bound, Candidates, failover_possible};
use super::reason::Reason;
use super::rewind::{self, Remedy};
use super::sync;
use super::view::{Lease, View};

/// REC-1…11.
pub(super) fn decide(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if view.settings.paused {
        return in_pause(view, cluster, memory);
    }
    if leaves_out(Mutant::NeverStarted) {
        return Reason::DownInPause.alone();
    }
    // A server that stepped down a moment ago has released the key: the view may be older than that.
    let stepped_down = memory.rejoin_waits_until.is_some_and(|until| view.now < until);
    if cluster.is_led_by(&view.me) && !matches!(view.lease, Lease::Held { .. }) && !stepped_down {
        let refused = leader::refuses_by_hand(view, cluster, memory).filter(|_| !was_primary(view));
        return refused.unwrap_or_else(|| leader::ask_for_proof(view, cluster, memory)); // REC-1
    }
    let owner = is_owner(view, cluster) && view.lease.is_safe(view.now);
    let control = view.postgres.control.as_ref();
    if owner && was_primary(view) && view.settings.primary_start_timeout.is_zero() {
        match failover_possible(view, cluster, Bound::Lag, Candidates::AsRequested) {
            Asked::Ask(members) => {
                return Reason::AsksWhetherFailoverPossible.with([Effect::PollPeers(members)]);
            }
            Asked::Known(true) => {
                let demote = Effect::Demote { mode: DemoteMode::Immediate, upstream: None };
                return Reason::CrashedFailover.with([demote]); // REC-2
            }
            Asked::Known(false) => {}
        }
    }
    if owner
        && view.postgres.state == PostgresState::Crashed
        && view.postgres.role == MemberRole::Primary
        && !view.settings.standby_cluster // INV-S25
        && control.is_some_and(|control| control.state.was_primary() && !control.has_signal_file)
    {
        memory.recovering = true;
        let mut effects = sync::before_start(view, cluster);
        effects.push(Effect::Start(StartAs::Primary)); // REC-3
        return Reason::RestartsAfterCrash.with(effects);
    }
    if let (Some(error), Some(retry_at)) = (&memory.start_error, memory.retry_at)
        && view.now < retry_at
    {
        return Reason::StartFailed { error: error.clone() }.wake_at(retry_at);
    }
    if let Some(control) = control
        && control.state.needs_crash_recovery()
        && !control.has_backup_label
        && !memory.crash_recovery_tried
        && !owner
        && (cluster.is_unlocked() || rewind::is_usable(view, Some(control)))
    {
        memory.crash_recovery_tried = true;
        return Reason::RecoversFirst.with([Effect::CrashRecover]); // REC-5
    }
    if owner && view.settings.standby_cluster {
        return as_standby_leader(view, cluster, memory); // REC-9
    }
    if owner {
        memory.rewind = RewindState::Initial;
        memory.recovering = true;
        return Reason::StartsReadOnly.with([Effect::Start(StartAs::Standby { upstream: None })]); // REC-7
    }
    as_replica(view, cluster, memory)
}

/// REC-8…11: compare and rewind if that is due, then start as a replica.
fn as_replica(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if matches!(memory.rewind, RewindState::Initial) {
        rewind::request_check(memory); // REC-8
    }
    if (cluster.is_unlocked() || cluster.is_led_by(&view.me))
        && let Some(until) = memory.rejoin_waits_until.filter(|until| view.now < *until)
    {
        return Reason::WaitsForLeader.wake_at(until); // DEM-11: a successor is about to appear.
    }
    if let Some(decision) = rewind::next_step(view, cluster, memory) {
        return decision;
    }
    memory.recovering = true;
    let upstream = follow::upstream(&view.me, &view.tags, &view.settings, cluster);
    // Nobody can stream from a mere name.
    let upstream = upstream.filter(|name| name.is_remote() || cluster.members.contains_key(name));
    let reason = match &upstream {
        Some(leader) => Reason::StartsAsReplica { leader: leader.clone() },
        None => Reason::StartsWithoutLeader,
    };
    let reason =
        if upstream.as_ref().is_some_and(MemberName::is_remote) { Reason::StartsFollowingRemote } else { reason };
    reason.with([Effect::Start(StartAs::Standby { upstream })]) // REC-11
}

/// REC-9: compares with the other cluster first, and starts as its standby.
fn as_standby_leader(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if matches!(memory.rewind, RewindState::Initial) {
        memory.remote_compared_at = Some(view.now);
        rewind::request_check(memory); // REC-8
    }
    if let Some(decision) = rewind::next_step(view, cluster, memory) {
        return decision;
    }
    memory.recovering = true;
    let upstream = follow::upstream(&view.me, &view.tags, &view.settings, cluster);
    Reason::StartsAsStandbyLeader.with([Effect::Start(StartAs::Standby { upstream })])
}

/// PAU-3, PAU-9: nothing is started, except what stepped down for a request.
fn in_pause(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if cluster.is_led_by(&view.me) {
        return Reason::ReleasesInPause.with([Effect::Release]);
    }
    let stepped_down = memory.rejoin_waits_until.is_some(); // Until the server runs again.
    let rewound = match memory.rewind {
        RewindState::Needed | RewindState::Forked(Remedy::Rewind) => {
            rewind::is_usable(view, view.postgres.control.as_ref())
        }
        RewindState::Success => true,
        RewindState::Initial
        | RewindState::CheckRequested
        | RewindState::NotNeeded
        | RewindState::Forked(Remedy::Copy)
        | RewindState::Failed => false,
    };
    let rewinds = rewound && !cluster.is_unlocked();
    if stepped_down || rewinds {
        return as_replica(view, cluster, memory);
    }
    Reason::DownInPause.alone()
}

/// REC-12: the start before this cycle left no server.
pub(super) fn after_failed_start(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    if matches!(memory.rewind, RewindState::Needed | RewindState::Forked(_)) {
        return None;
    }
    let error = memory.start_error.clone()?;
    let holds_key = cluster.is_led_by(&view.me) || is_owner(view, cluster);
    holds_key.then(|| Reason::ReleasesAfterFailedStart { error }.with([Effect::Release]))
}

fn was_primary(view: &View) -> bool {
    let control = view.postgres.control.as_ref();
    matches!(view.postgres.role, MemberRole::Primary | MemberRole::Promoted)
        && control.is_none_or(|control| !control.has_signal_file)
}
