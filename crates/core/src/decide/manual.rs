//! Requests to move the leadership (section 18).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::{Cluster, FailoverRequest};
use crate::mutant::{Mutant, leaves_out};
use crate::names::MemberName;
use crate::time::BootInstant;

use super::effect::{Decision, DemoteMode, Effect};
use super::memory::Memory;
use super::peers::{self, Asked, Bound, Candidates, PeerAnswer, failover_possible, request, sync_is_active};
use super::race::{LagCheck, Standing, everybody, is_ahead, living_primary, stand};
use super::reason::Reason;
use super::sync;
use super::view::View;

/// MAN-L1…9: what a leader with a fresh lease does about a request. `None`: nothing.
pub(super) fn as_leader(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    let versioned = cluster.failover.as_ref()?;
    let request = &versioned.value;
    let paused = view.settings.paused;
    if paused && !view.postgres.is_primary() {
        return None; // MAN-L1
    }
    let clear_for = |reason: Reason| {
        let effect = Effect::RewriteFailover { request: None, seen: Some(versioned.revision) };
        (!leaves_out(Mutant::RequestNotCleared)).then(|| reason.with([effect]))
    };
    let clear = |why: &str| clear_for(Reason::ClearsRequest { why: why.to_owned() });
    if memory.request_done == Some(versioned.revision) {
        return clear_for(Reason::RequestFulfilled); // Whoever should have cleared it got no answer.
    }
    if let Some(at) = &request.scheduled_at {
        if paused {
            return None; // MAN-L3
        }
        match due(view, at) {
            Due::Later => return None,
            Due::Soon(left) => {
                return Some(Reason::WaitsForSchedule { at: at.clone() }.wake_at(view.now + left));
            }
            Due::Now => {}
            Due::Missed => return clear("its time has passed"),
            Due::Unreadable => return clear("its time is not an ISO 8601 timestamp with a zone"),
        }
    }
    if request.leader.as_ref().is_some_and(|leader| *leader != view.me) {
        return clear("it names another member as the leader"); // MAN-L4
    }
    if request.candidate.as_ref() == Some(&view.me) {
        return clear("this member is the leader already"); // MAN-L5
    }
    if paused && request.candidate.is_none() {
        return clear("it names no candidate, which it must in pause"); // MAN-L6
    }
    match failover_possible(view, cluster, Bound::Lag, Candidates::AsRequested) {
        Asked::Ask(members) => Some(Reason::AsksWhetherFailoverPossible.with([Effect::PollPeers(members)])),
        Asked::Known(true) => {
            let candidate = request.candidate.as_ref().map_or("any member".to_owned(), ToString::to_string);
            let demote = Effect::Demote { mode: DemoteMode::Graceful, upstream: None };
            memory.steps_down_for = Some(versioned.revision);
            Some(Reason::StepsDown { candidate }.with([demote])) // MAN-L7
        }
        Asked::Known(false) => clear("no member that it allows can take over"), // MAN-L8
    }
}

/// The request that counts while nobody holds the key. One that is scheduled for later, or for a time that nobody can
/// read, was not what the leader stepped down for: it does not make its candidate fit (INV-S8).
pub(super) fn in_force<'c>(view: &View, cluster: &'c Cluster) -> Option<&'c FailoverRequest> {
    let is_for_now = |request: &&FailoverRequest| match request.scheduled_at.as_ref().map(|at| due(view, at)) {
        Some(Due::Later | Due::Unreadable) => false,
        Some(Due::Soon(_) | Due::Now | Due::Missed) | None => true,
    };
    request(cluster).filter(is_for_now)
}

/// MAN-N1…8: whether a request settles who stands while nobody holds the key. `None`: undecided.
pub(super) fn without_leader(view: &View, cluster: &Cluster, memory: &Memory) -> Option<Standing> {
    let request = in_force(view, cluster)?;
    if let Some(candidate) = &request.candidate {
        if *candidate == view.me {
            return Some(as_candidate(view, cluster, memory, request));
        }
        if !sync::may_be_complete(view, cluster) && !view.settings.paused {
            return Some(Standing::No(Reason::NotSynchronous)); // MAN-N3
        }
        if view.settings.paused {
            return Some(Standing::No(Reason::YieldsToCandidate { candidate: candidate.clone() })); // MAN-N2
        }
        let asked = BTreeSet::from([candidate.clone()]);
        let has_record = cluster.members.get(candidate).is_some_and(|member| member.api_url().is_some());
        if has_record {
            match peers::answers(view, &asked) {
                Asked::Ask(_) => return Some(Standing::Ask(ask_all(view, cluster, memory))),
                Asked::Known(answers) => {
                    if answers.iter().any(|(_, status)| !status.is_limited()) && !has_waited(view, memory, 1) {
                        // MAN-N4: it is there and fit: let it win.
                        return Some(Standing::No(Reason::YieldsToCandidate { candidate: candidate.clone() }));
                    }
                }
            }
        }
    }
    if view.settings.paused {
        return Some(Standing::No(Reason::NoRaceInPause)); // MAN-N6
    }
    Some(without_candidate(view, cluster, memory, request))
}

/// MAN-N1 with QRK-5: the candidate of a switchover must not lack what was confirmed while it was disconnected. Whoever asks
/// for a failover accepts that.
fn as_candidate(view: &View, cluster: &Cluster, memory: &Memory, request: &FailoverRequest) -> Standing {
    let yes = Standing::Yes(Reason::StandsAsCandidate);
    let accepts_loss = request.leader.is_none() || view.settings.paused;
    if accepts_loss || !sync_is_active(view, cluster) || !sync::is_by_votes(view, cluster) {
        return yes; // In mode `on` a voter has everything, and nobody else comes here (HLT-8).
    }
    let reached = view.postgres.position().zip(cluster.status.optime).is_some_and(|(ours, end)| ours >= end);
    if reached {
        return yes;
    }
    match stand(view, cluster, memory, &everybody(view, cluster, memory), LagCheck::Off) {
        Standing::Yes(_) => yes,
        other @ (Standing::No(_) | Standing::Ask(_)) => other,
    }
}

fn without_candidate(view: &View, cluster: &Cluster, memory: &Memory, request: &FailoverRequest) -> Standing {
    if request.leader.as_ref() == Some(&view.me) {
        // MAN-N7: the member that stepped down comes back only when nobody else can lead.
        return match failover_possible(view, cluster, Bound::Lag, Candidates::ExceptRequested) {
            Asked::Ask(_) => Standing::Ask(ask_all(view, cluster, memory)),
            Asked::Known(true) if !has_waited(view, memory, 2) => Standing::No(Reason::YieldsAfterSwitchover),
            Asked::Known(_) => match stand(view, cluster, memory, &rivals(view, cluster, memory), LagCheck::Off) {
                Standing::Yes(_) => Standing::Yes(Reason::ReturnsAfterSwitchover),
                other @ (Standing::No(_) | Standing::Ask(_)) => other,
            },
        };
    }
    // The old leader does not count, unless it is still a primary (RACE-5).
    match living_primary(view, cluster, memory) {
        Asked::Ask(members) => return Standing::Ask(members),
        Asked::Known(Some(member)) => return Standing::No(Reason::PrimaryAlive { member }),
        Asked::Known(None) => {}
    }
    let mut members = rivals(view, cluster, memory);
    if let Some(leader) = &request.leader {
        members.remove(leader);
    }
    stand(view, cluster, memory, &members, LagCheck::Off) // MAN-N8
}

/// MAN-N4: a candidate that has not taken the key in time cannot, whatever it answers: the store may be out of its reach.
/// From then on it counts only where it has more WAL than this member.
fn rivals(view: &View, cluster: &Cluster, memory: &Memory) -> BTreeSet<MemberName> {
    let mut members = everybody(view, cluster, memory);
    let candidate = request(cluster).and_then(|request| request.candidate.as_ref());
    if let (Some(candidate), true, Some(poll)) = (candidate, has_waited(view, memory, 1), &view.poll)
        && let Some(PeerAnswer::Status(status)) = poll.answers.get(candidate)
        && !is_ahead(view, status)
    {
        members.remove(candidate);
    }
    members
}

/// True when somebody has had `leases` times `ttl` to fulfil the request. First the candidate, then everybody but the
/// member that stepped down.
fn has_waited(view: &View, memory: &Memory, leases: u32) -> bool {
    memory.yields.is_some_and(|(_, since)| view.now.since(since) >= view.settings.ttl.saturating_mul(leases))
}

/// When [`has_waited`] changes its answer next.
pub(super) fn patience_ends(view: &View, memory: &Memory) -> Option<BootInstant> {
    let (_, since) = memory.yields?;
    let ends = [1, 2].map(|leases| since + view.settings.ttl.saturating_mul(leases));
    ends.into_iter().find(|end| *end > view.now)
}

/// Everybody at once, so that one round of questions answers whatever is asked next.
fn ask_all(view: &View, cluster: &Cluster, memory: &Memory) -> BTreeSet<MemberName> {
    let mut members = everybody(view, cluster, memory);
    members.remove(&view.me);
    members
}

/// How a schedule relates to now (TIM-8).
enum Due {
    /// Farther away than one tick.
    Later,
    /// Within one tick: wake then.
    Soon(Duration),
    /// Now, or at most one and a half ticks ago.
    Now,
    /// Too late.
    Missed,
    /// No timestamp, or one without a zone.
    Unreadable,
}

fn due(view: &View, at: &str) -> Due {
    let Ok(at) = at.parse::<jiff::Timestamp>() else {
        return Due::Unreadable;
    };
    let at = at.as_nanosecond();
    let now = i128::try_from(view.wall.0.as_nanos()).unwrap_or(i128::MAX);
    let ahead = |nanos: i128| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    if at > now {
        let left = ahead(at - now);
        return if left <= view.settings.loop_wait { Due::Soon(left) } else { Due::Later };
    }
    let late_limit = Duration::from_secs(view.settings.loop_wait.as_secs().saturating_mul(3) / 2);
    if ahead(now - at) > late_limit { Due::Missed } else { Due::Now }
}
