//! This member holds the leader key, or the key names it (section 14).

use std::time::Duration;

use crate::cluster::{Cluster, LeaseId};

use super::effect::{Decision, DemoteMode, Effect};
use super::failsafe;
use super::follow;
use super::manual;
use super::memory::{CheckpointState, Memory};
use super::peers::Asked;
use super::promote;
use super::race::{self, LagCheck, Standing};
use super::reason::Reason;
use super::view::{Lease, View};

/// How long a view may lag behind an answer of the store before the same is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// OWN-1…6. The server is up and accepts connections, or is a standby that still starts.
pub(super) fn decide(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    match &view.lease {
        Lease::None => return prove_key(view, cluster, memory),
        // The key is newer than the proof: an acquisition whose answer was lost, or somebody's hand.
        Lease::NotOurs { .. } if !view.postgres.is_primary() => return prove_key(view, cluster, memory),
        Lease::NotOurs { holder } => {
            let holder = match holder {
                None => "nobody".to_owned(),
                Some(holder) if *holder == view.me => "another agent with the name of this member".to_owned(), // BEY-31
                Some(holder) => holder.to_string(),
            };
            return without_lock(view, holder);
        }
        Lease::Held { .. } if !view.lease.is_safe(view.now) => return renewals_fail(view),
        Lease::Held { .. } => {}
    }
    if view.settings.paused && !view.postgres.is_primary() && !view.settings.standby_cluster {
        let requested = super::peers::request(cluster).and_then(|request| request.candidate.as_ref());
        if requested != Some(&view.me) {
            return Reason::ReleasesInPause.with([Effect::Release]); // OWN-2, PAU-4
        }
    }
    if let Some(decision) = manual::as_leader(view, cluster, memory) {
        return decision; // OWN-3
    }
    if view.settings.standby_cluster {
        return follow::as_standby_leader(view, cluster, memory);
    }
    if view.postgres.is_primary()
        && memory.checkpoint == CheckpointState::Due
        && view.action.is_none()
        && view.postgres.facts.as_ref().is_some_and(|facts| !facts.in_recovery)
    {
        if view.postgres.facts.as_ref().is_some_and(|facts| facts.checkpointed) {
            memory.checkpoint = CheckpointState::Done;
        } else if let Some(again) = memory.checkpoint_again_at.filter(|again| view.now < *again) {
            return promote::promote(view, cluster, memory).and_wake_at(Some(again));
        } else {
            memory.checkpoint = CheckpointState::Running;
            return Reason::Checkpoints.with([Effect::Checkpoint]); // RWD-15
        }
    }
    promote::promote(view, cluster, memory)
}

/// QRK-14: a primary that could not renew its lease in time steps down; so does one that could not prove any lease for as
/// long as one request to the store may take (UNL-6).
pub(super) fn time_is_up(view: &View, memory: &mut Memory) -> Option<Decision> {
    if view.settings.paused || !view.postgres.is_primary() {
        return None;
    }
    if let Some(decision) = failsafe::decide(view, memory) {
        return Some(decision); // DCSF-6
    }
    if matches!(view.lease, Lease::Held { .. }) && !view.lease.is_safe(view.now) {
        return Some(renewals_fail(view));
    }
    let demote = Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None };
    let since = memory.unproven_since.filter(|since| view.now.since(*since) >= view.settings.retry_timeout);
    since.map(|_| Reason::NothingProven.with([demote]))
}

/// REC-1, OWN-3: the key names us, and this process has not held it yet. A primary proves it at once; a replica may have
/// been named by somebody's hand and asks first whether a primary lives.
fn prove_key(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if !view.postgres.is_primary() && !view.settings.paused {
        match race::living_primary(view, cluster, memory) {
            Asked::Ask(members) => return Reason::AsksBeforeProof.with([Effect::PollPeers(members)]),
            Asked::Known(Some(member)) => return Reason::PrimaryAlive { member }.alone(),
            Asked::Known(None) => {}
        }
        if let Some(decision) = refuses_by_hand(view, cluster, memory) {
            return decision;
        }
    }
    ask_for_proof(view, cluster, memory)
}

/// DCS-E2: a key without a lease was written by somebody's hand, perhaps over that of a leader who was well. A replica
/// that it names takes it only if it could have won it in a race, too.
pub(super) fn refuses_by_hand(view: &View, cluster: &Cluster, memory: &Memory) -> Option<Decision> {
    cluster.leader.as_ref().filter(|leader| leader.lease == LeaseId::default())?;
    let gives_up = |why: String| Some(Reason::MayNotLeadByHand { why }.with([Effect::Release]));
    if view.tags.nofailover {
        return gives_up("it is tagged nofailover".to_owned()); // INV-S24
    }
    match race::stand(view, cluster, memory, &race::everybody(view, cluster, memory), LagCheck::On) {
        Standing::Yes(_) => None,
        Standing::Ask(members) => Some(Reason::AsksBeforeProof.with([Effect::PollPeers(members)])),
        Standing::No(reason) => gives_up(reason.to_string()),
    }
}

/// DCS-2: asks the store whether the key is ours. While the view is older than its "no", it is not asked again at once.
pub(super) fn ask_for_proof(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    let revision = cluster.leader.as_ref().map(|leader| leader.revision).unwrap_or_default();
    let answered = memory.proof_asked.filter(|(asked, _)| *asked == revision);
    if let (Lease::NotOurs { holder: Some(holder) }, Some(_)) = (&view.lease, answered)
        && *holder == view.me
    {
        return Reason::HeldByNamesake.alone(); // Until the key changes: what is another's is not asked for again.
    }
    if let (Lease::NotOurs { .. }, Some((_, at))) = (&view.lease, answered)
        && view.now < at + ASK_AGAIN
    {
        return Reason::ViewIsOlder.wake_at(at + ASK_AGAIN);
    }
    memory.proof_asked = Some((revision, view.now));
    Reason::AdoptsLease.with([Effect::Adopt])
}

/// OWN-4…6: the store proved that the key is not ours.
pub(super) fn without_lock(view: &View, holder: String) -> Decision {
    if !view.postgres.is_primary() {
        return Reason::KeepsUpstream.alone(); // OWN-6: not promoted; the next view tells whom to follow.
    }
    if view.settings.paused {
        return Reason::LostLockInPause.alone(); // OWN-5
    }
    let demote = Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None };
    Reason::LostLock { holder }.with([demote]) // OWN-4
}

/// DCSF-6: the store can be read, but the lease could not be renewed and is running out.
fn renewals_fail(view: &View) -> Decision {
    if view.settings.paused || !view.postgres.is_primary() {
        return Reason::RenewalsFail.with([Effect::Adopt]);
    }
    Reason::RenewalsFail.with([Effect::Demote { mode: DemoteMode::Offline, upstream: None }])
}
