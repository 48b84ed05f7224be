//! Nobody holds the leader key: may this member take it (section 13)?

use std::collections::BTreeSet;

use crate::cluster::{Cluster, FailoverRequest, HistoryLine, Initialize, Member, PostgresState};
use crate::mutant::{Mutant, leaves_out};
use crate::names::MemberName;
use crate::wal::{Lsn, Timeline};

use super::effect::{Decision, Effect};
use super::follow;
use super::manual;
use super::memory::{Backoff, Memory};
use super::peers::{self, Asked, PeerAnswer, PeerStatus, request, sync_is_active, timeline_suffices};
use super::reason::Reason;
use super::rewind;
use super::sync;
use super::view::{DataDir, View};

/// The answer to "may I stand?".
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    /// Stand, for this reason.
    Yes(Reason),
    /// Do not stand, for this reason.
    No(Reason),
    /// Ask these members first.
    Ask(BTreeSet<MemberName>),
}

/// UNL-1…6.
pub(super) fn decide(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if let Some(decision) = back_off(view, cluster, memory) {
        return decision;
    }
    note_request(view, cluster, memory);
    match may_stand(view, cluster, memory) {
        Standing::Ask(members) => Reason::AsksBeforeRace.with([Effect::PollPeers(members)]),
        Standing::Yes(Reason::Stands) if let Some(decision) = waits_for_others(view, cluster, memory) => decision,
        Standing::Yes(reason) => {
            memory.overrides_sync = reason == Reason::StandsAsCandidate;
            reason.with(acquire(view, cluster, memory)) // UNL-3, UNL-4
        }
        Standing::No(reason) => {
            let named = manual::in_force(view, cluster).is_some_and(|request| request.candidate.is_some());
            if named || (view.tags.nofailover && !view.settings.paused) {
                rewind::request_check(memory); // UNL-2
            }
            let yields = matches!(reason, Reason::YieldsToCandidate { .. } | Reason::YieldsAfterSwitchover);
            let looks_again = manual::patience_ends(view, memory).filter(|_| yields && !view.settings.paused);
            follow::without_leader(view, reason).and_wake_at(looks_again)
        }
    }
}

/// MAN-N4, MAN-N7: since when a request has waited for somebody to fulfil it.
fn note_request(view: &View, cluster: &Cluster, memory: &mut Memory) {
    let revision = manual::in_force(view, cluster).and(cluster.failover.as_ref()).map(|request| request.revision);
    let known = memory.yields.filter(|(request, _)| Some(*request) == revision);
    memory.yields = known.or(revision.map(|request| (request, view.now)));
}

/// RACE-13: when a whole cluster starts, whoever is up first must not win against the one that led last and has more.
fn waits_for_others(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    let saw_a_leader = memory.last_led.as_ref().is_some_and(|last| !last.is_unlocked());
    if saw_a_leader || manual::in_force(view, cluster).is_some() {
        return None; // The cluster has been up, or an operator asks.
    }
    let end = *memory.leaderless_since.get_or_insert(view.now) + view.settings.loop_wait;
    if view.now >= end {
        return None;
    }
    let is_on_its_way = |member: &&Member| {
        let starts = [PostgresState::Starting, PostgresState::Stopped].map(PostgresState::as_str);
        let answer = view.poll.as_ref().and_then(|poll| poll.answers.get(&member.name));
        // Its server is up, and it has not asked it for the position yet.
        let knows_no_position = matches!(answer, Some(PeerAnswer::Status(status)) if status.position == Lsn::INVALID);
        let may_have_more = starts.contains(&member.state()) || knows_no_position;
        member.name != view.me && !member.is_nofailover() && may_have_more
    };
    let ours = view.postgres.position()?;
    if let Some(optime) = cluster.status.optime.filter(|optime| ours < *optime) {
        return Some(Reason::WaitsForMoreWal { bytes_behind: ours.bytes_behind(optime) }.wake_at(end));
    }
    let member = cluster.members.values().find(is_on_its_way)?.name.clone();
    Some(Reason::WaitsForMember { member }.wake_at(end))
}

/// UNL-1: while the silent primary still ships WAL, it is not dead.
fn back_off(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    let settings = &view.settings;
    let candidate_named = manual::in_force(view, cluster).is_some_and(|request| request.candidate.is_some());
    if settings.primary_race_backoff.is_zero() || settings.paused || settings.standby_cluster || candidate_named {
        return None;
    }
    let facts = view.postgres.facts.as_ref().filter(|facts| facts.in_recovery)?;
    memory.last_position?;
    let fresh = Backoff { since: view.now, noted_at: view.now, position: facts.position };
    let backoff = memory.backoff.get_or_insert(fresh);
    let end = backoff.since + settings.primary_race_backoff;
    if view.now >= end {
        return None;
    }
    if view.now.since(backoff.noted_at) >= settings.loop_wait {
        // Compared tick by tick: decisions may follow one another within milliseconds.
        if !facts.streaming || facts.position <= backoff.position {
            return None;
        }
        *backoff = Backoff { since: backoff.since, ..fresh };
    }
    Some(Reason::BacksOff.wake_at(end.min(backoff.noted_at + settings.loop_wait)))
}

/// The key first; then the request that was fulfilled is cleared, unconditionally (UNL-4).
///
/// In pause the name of the candidate stays until it is primary: it is what allows it to promote (OWN-1).
fn acquire(view: &View, cluster: &Cluster, memory: &mut Memory) -> Vec<Effect> {
    if leaves_out(Mutant::PromoteWithoutLease) {
        return vec![Effect::Promote];
    }
    let Some(request) = request(cluster).filter(|_| !leaves_out(Mutant::RequestNotCleared)) else {
        return vec![Effect::Acquire];
    };
    let rewrite = |request| vec![Effect::Acquire, Effect::RewriteFailover { request, seen: None }];
    let stays = view.settings.paused && request.candidate.is_some();
    match (stays, &request.leader) {
        (true, Some(_)) => {
            let candidate = request.candidate.clone();
            rewrite(Some(FailoverRequest { candidate, ..FailoverRequest::default() }))
        }
        (true, None) => vec![Effect::Acquire],
        (false, _) => {
            memory.request_done = cluster.failover.as_ref().map(|request| request.revision); // INV-S17
            rewrite(None)
        }
    }
}

/// HLT-1…13, in their order; the first that matches answers.
fn may_stand(view: &View, cluster: &Cluster, memory: &Memory) -> Standing {
    let settings = &view.settings;
    if memory.refused_at.is_some_and(|at| view.now.since(at) < settings.ttl) {
        return Standing::No(Reason::NoRaceAfterRefusal); // HLT-1
    }
    if let (Initialize::SystemId(theirs), DataDir::Present { system_id: Some(ours) }) =
        (&cluster.initialize, &view.data_dir)
        && theirs != ours
    {
        // Only in pause does a cycle with a foreign directory come so far (DIR-6, DIR-7, HLT-4).
        return Standing::No(Reason::ForeignDataDirInPause { theirs: theirs.clone(), ours: ours.clone() });
    }
    if settings.paused
        && !view.tags.nofailover
        && request(cluster).is_some_and(|request| request.scheduled_at.is_none())
        && let Some(standing) = manual::without_leader(view, cluster, memory)
    {
        return standing; // HLT-2
    }
    if view.postgres.state != PostgresState::Running {
        return Standing::No(Reason::NoRaceWhileStarting); // HLT-3
    }
    if view.postgres.is_primary() {
        return primary_without_key(view, cluster, memory); // HLT-4, HLT-5
    }
    if settings.paused {
        return Standing::No(Reason::NoRaceInPause); // HLT-6
    }
    if view.tags.nofailover && !leaves_out(Mutant::NofailoverIgnored) {
        return Standing::No(Reason::NoFailover); // HLT-7
    }
    let request = manual::in_force(view, cluster);
    let is_member = !sync_is_active(view, cluster) || cluster.sync.value.contains(view.me.as_str());
    let is_switchover = request.is_some_and(|request| request.leader.is_some());
    if (is_switchover && !is_member) || (request.is_none() && !sync::may_be_complete(view, cluster)) {
        return Standing::No(Reason::NotSynchronous); // HLT-8, HLT-12
    }
    if request.is_some() {
        // HLT-9: a request answers for itself; no answer means no.
        return manual::without_leader(view, cluster, memory).unwrap_or(Standing::No(Reason::YieldsAfterSwitchover));
    }
    if let Some(why) = &view.watchdog_failure {
        return Standing::No(Reason::NoWatchdog { why: why.clone() }); // HLT-10
    }
    if let Some(failsafe) = &cluster.failsafe
        && settings.failsafe_mode
        && !failsafe.is_empty()
        && !failsafe.contains_key(view.me.as_str())
    {
        return Standing::No(Reason::NotInFailsafeMap); // HLT-11
    }
    stand(view, cluster, memory, &everybody(view, cluster, memory), LagCheck::On) // HLT-13
}

/// HLT-4, HLT-5 with QRK-2: a running primary may not trust that nothing happened while it did not hold the key.
fn primary_without_key(view: &View, cluster: &Cluster, memory: &Memory) -> Standing {
    if view.settings.paused {
        return Standing::Yes(Reason::TakesKeyInPause);
    }
    if leaves_out(Mutant::PrimaryTakesKeyBack) {
        return Standing::Yes(Reason::TakesKeyBack);
    }
    if view.data_dir == (DataDir::Present { system_id: None }) {
        return Standing::No(Reason::InvalidDataDir); // DIR-5
    }
    let Some(ours) = view.postgres.facts.as_ref().and_then(|facts| facts.timeline) else {
        return Standing::No(Reason::PositionUnknown); // Its timeline might be one that the cluster has left.
    };
    if let Some(newest) = cluster.timeline().filter(|newest| ours < *newest) {
        return Standing::No(Reason::OldTimeline { ours, newest });
    }
    if has_another_history(view, cluster, ours) {
        return Standing::No(Reason::AnotherHistory { ours });
    }
    let leads_sync = |name: &String| name.eq_ignore_ascii_case(view.me.as_str());
    if sync_is_active(view, cluster) && !cluster.sync.value.leader.as_ref().is_some_and(leads_sync) {
        return Standing::No(Reason::NotSynchronous); // QRK-2: what was confirmed meanwhile may be elsewhere.
    }
    let others = askable(view, cluster, memory, &everybody(view, cluster, memory));
    match peers::answers(view, &others) {
        Asked::Ask(members) => Standing::Ask(members),
        Asked::Known(answers) => {
            for (name, status) in answers {
                if !status.in_recovery {
                    return Standing::No(Reason::RivalPrimary { member: name.clone() });
                }
                if let Some(newest) = status.timeline.filter(|theirs| *theirs > ours) {
                    return Standing::No(Reason::OldTimeline { ours, newest });
                }
            }
            Standing::Yes(Reason::TakesKeyBack)
        }
    }
}

/// HLT-5: a server that somebody has promoted beside the cluster may be on the newest number and yet not on the newest
/// timeline. Where the timelines before ended tells them apart.
fn has_another_history(view: &View, cluster: &Cluster, ours: Timeline) -> bool {
    let own = view.postgres.facts.as_ref().and_then(|facts| facts.history.as_ref());
    let (Some(own), Some(stored)) = (own, cluster.history.as_ref()) else { return false };
    let is_ours = |line: &HistoryLine| own.lines.iter().any(|own| own.timeline == line.timeline && own.lsn == line.lsn);
    stored.value.lines.iter().filter(|line| line.timeline < ours).any(|line| !is_ours(line))
}

/// Whether the lag against the last published position counts (RACE-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LagCheck {
    /// An automatic race.
    On,
    /// A manual request without a candidate (MAN-N8).
    Off,
}

/// RACE-1…12: compares this member with `members`.
pub(super) fn stand(
    view: &View,
    cluster: &Cluster,
    memory: &Memory,
    members: &BTreeSet<MemberName>,
    lag: LagCheck,
) -> Standing {
    let Some(ours) = view.postgres.position() else {
        return Standing::No(Reason::PositionUnknown);
    };
    let timeline = view.postgres.facts.as_ref().and_then(|facts| facts.timeline);
    let max_bytes_behind = view.settings.maximum_lag_on_failover;
    let bytes_behind = peers::bytes_behind(cluster, timeline, ours);
    let in_sync_mode = sync_is_active(view, cluster);
    if !sync::may_be_complete(view, cluster) {
        return Standing::No(Reason::NotSynchronous); // HLT-12
    }
    // QRK-6: what is proven by membership or votes is not doubted because of commits that nobody was told of.
    if lag == LagCheck::On && !in_sync_mode && bytes_behind > max_bytes_behind {
        return Standing::No(Reason::TooFarBehind { bytes_behind, max_bytes_behind });
    }
    if !timeline_suffices(view, cluster, timeline) {
        return Standing::No(Reason::TimelineTooLow); // RACE-2
    }
    let asked = askable(view, cluster, memory, members);
    match peers::answers(view, &asked) {
        Asked::Ask(members) => Standing::Ask(members),
        Asked::Known(answers) => {
            let blocked =
                answers.iter().find_map(|(name, status)| blocks(view, cluster, memory, timeline, name, status));
            match blocked {
                Some(reason) => Standing::No(reason),
                None => votes_suffice(view, cluster, &answers),
            }
        }
    }
}

/// RACE-4, RACE-8…10: with a quorum, so many voters have to be in reach and not ahead that one of them has every commit. The
/// member that stored the quorum has them all itself.
fn votes_suffice(view: &View, cluster: &Cluster, answers: &[(&MemberName, &PeerStatus)]) -> Standing {
    let sync = &cluster.sync.value;
    if !sync::is_by_votes(view, cluster) {
        return Standing::Yes(Reason::Stands);
    }
    if sync.leader.as_ref().is_some_and(|leader| leader.eq_ignore_ascii_case(view.me.as_str())) {
        return Standing::Yes(Reason::Stands);
    }
    // QRK-3: whoever may not lead has a voice nevertheless.
    let votes_for_us = |(name, status): &&(&MemberName, &PeerStatus)| {
        let has_position = status.position != Lsn::INVALID && status.in_recovery;
        sync.contains(name.as_str()) && has_position && !is_ahead(view, status)
    };
    let votes = u32::try_from(answers.iter().filter(votes_for_us).count()).unwrap_or(u32::MAX);
    let needed = sync.quorum + u32::from(!sync.contains(view.me.as_str()));
    if votes >= needed {
        Standing::Yes(Reason::Stands)
    } else {
        Standing::No(Reason::TooFewVotes { votes, quorum: needed })
    }
}

/// RACE-5…9 for one reachable member, with QRK-3 and QRK-4.
fn blocks(
    view: &View,
    cluster: &Cluster,
    memory: &Memory,
    our_timeline: Option<Timeline>,
    name: &MemberName,
    status: &PeerStatus,
) -> Option<Reason> {
    if !status.in_recovery && !leaves_out(Mutant::RaceIgnoresPrimary) {
        return Some(Reason::PrimaryAlive { member: name.clone() }); // Whatever its tags say (QRK-3).
    }
    if status.is_limited() || status.position == Lsn::INVALID {
        return None; // PEER-4, RACE-9
    }
    if !timeline_suffices(view, cluster, status.timeline) {
        return None; // QRK-4: it could not win, so it must not block.
    }
    let in_sync_mode = sync_is_active(view, cluster);
    if in_sync_mode && !cluster.sync.value.contains(name.as_str()) {
        return None; // HLT-13: what it has beyond the others was confirmed to nobody.
    }
    let leads_sync =
        cluster.sync.value.leader.as_ref().is_some_and(|leader| leader.eq_ignore_ascii_case(name.as_str()));
    if in_sync_mode && leads_sync {
        return None; // RACE-6, RACE-7: a former primary may be ahead by what nobody was told of.
    }
    let ours = view.postgres.position().unwrap_or(Lsn::INVALID);
    if is_ahead(view, status) && !leaves_out(Mutant::RaceIgnoresPositions) {
        return Some(Reason::MemberAhead { member: name.clone(), theirs: status.position, ours });
    }
    let was_leader = memory.last_led.as_ref().is_some_and(|last| last.is_led_by(name));
    // It sees us ahead when it is on an older timeline: if it were preferred nevertheless, nobody would stand.
    let is_older = matches!((status.timeline, our_timeline), (Some(theirs), Some(mine)) if theirs < mine);
    let preferred =
        status.position == ours && status.failover_priority > view.tags.failover_priority && !was_leader && !is_older;
    preferred.then(|| Reason::MemberPreferred { member: name.clone() }) // RACE-7
}

/// QRK-4: a position counts only within its timeline; where one is unknown the positions alone are compared.
pub(super) fn is_ahead(view: &View, status: &PeerStatus) -> bool {
    let ours = view.postgres.position().unwrap_or(Lsn::INVALID);
    match (status.timeline, view.postgres.facts.as_ref().and_then(|facts| facts.timeline)) {
        (Some(theirs), Some(mine)) => (theirs, status.position) > (mine, ours),
        (Some(_) | None, _) => status.position > ours,
    }
}

/// HLT-13: everybody who was a member when there last was a leader, is one now, or is in the failsafe map.
pub(super) fn everybody(view: &View, cluster: &Cluster, memory: &Memory) -> BTreeSet<MemberName> {
    let before = memory.last_led.iter().flat_map(|last| last.members.keys());
    let map = cluster.failsafe.iter().filter(|_| view.settings.failsafe_mode).flat_map(|map| map.keys());
    let in_map = map.filter_map(|name| name.parse().ok()); // FS-8
    before.chain(cluster.members.keys()).cloned().chain(in_map).collect()
}

/// RACE-5 alone: a member that says it is primary, whatever its tags.
pub(super) fn living_primary(view: &View, cluster: &Cluster, memory: &Memory) -> Asked<Option<MemberName>> {
    let others = askable(view, cluster, memory, &everybody(view, cluster, memory));
    match peers::answers(view, &others) {
        Asked::Ask(members) => Asked::Ask(members),
        Asked::Known(answers) => {
            let primary = answers.iter().find(|(_, status)| !status.in_recovery);
            Asked::Known(primary.map(|(name, _)| (*name).clone()))
        }
    }
}

/// RACE-3: who can be asked. A member tagged nofailover is asked as well: it may be a live primary (QRK-3).
fn askable(view: &View, cluster: &Cluster, memory: &Memory, members: &BTreeSet<MemberName>) -> BTreeSet<MemberName> {
    members
        .iter()
        .filter(|name| **name != view.me && peers::reachable_as(cluster, memory, name).is_some())
        .cloned()
        .collect()
}
