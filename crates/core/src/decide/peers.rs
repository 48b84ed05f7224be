//! What other members answered, and whether one of them could take over (PEER-1…5, FP-1…7).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Cluster, FailoverRequest, Member};
use crate::names::MemberName;
use crate::wal::{Lsn, Timeline};

use super::memory::Memory;
use super::view::View;

/// Answers collected for one decision.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct PeerPoll {
    /// One entry for each member that was asked.
    pub answers: BTreeMap<MemberName, PeerAnswer>,
}

/// What one member answered.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum PeerAnswer {
    /// No usable answer in time (PEER-1).
    Unreachable,
    /// Its status document.
    Status(PeerStatus),
}

/// The part of a member's status document that decisions read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PeerStatus {
    /// False when it accepts writes (PEER-2).
    pub in_recovery: bool,
    /// The larger of received and replayed; zero for a primary (PEER-3).
    pub position: Lsn,
    /// Its timeline, when known.
    pub timeline: Option<Timeline>,
    /// The tag, from the answer (PEER-5).
    pub nofailover: bool,
    /// The tag, from the answer.
    pub failover_priority: i64,
    /// Its watchdog is required and does not work.
    pub watchdog_failed: bool,
}

impl PeerStatus {
    /// True when it may not become primary (PEER-4).
    pub fn is_limited(&self) -> bool {
        self.nofailover || self.watchdog_failed
    }
}

/// A question that may need answers of other members first.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked<T> {
    /// The answer.
    Known(T),
    /// Ask these members, then decide again.
    Ask(BTreeSet<MemberName>),
}

/// The answers of `members`, or the wish to ask them all when one has not been asked yet.
pub(super) fn answers<'v>(
    view: &'v View,
    members: &BTreeSet<MemberName>,
) -> Asked<Vec<(&'v MemberName, &'v PeerStatus)>> {
    let known = view.poll.as_ref().map(|poll| &poll.answers);
    if members.iter().any(|name| !known.is_some_and(|answers| answers.contains_key(name))) {
        return Asked::Ask(members.clone());
    }
    let reachable = known.into_iter().flatten().filter(|(name, _)| members.contains(*name));
    Asked::Known(
        reachable
            .filter_map(|(name, answer)| match answer {
                PeerAnswer::Status(status) => Some((name, status)),
                PeerAnswer::Unreachable => None,
            })
            .collect(),
    )
}

/// The record by which a member can be asked: its present one, or the one it had when there last was a leader, where the
/// present one is gone or garbled (INV-S20); or the failsafe map alone tells where it is (FS-8).
pub fn reachable_as<'c>(cluster: &'c Cluster, memory: &'c Memory, name: &MemberName) -> Option<Cow<'c, Member>> {
    let before = memory.last_led.as_ref().and_then(|last| last.members.get(name));
    let known = cluster.members.get(name).into_iter().chain(before).find(|member| member.api_url().is_some());
    let in_map = || {
        let api_url = cluster.failsafe.as_ref()?.get(name.as_str())?;
        let record = serde_json::json!({"api_url": api_url}).to_string();
        Some(Cow::Owned(Member::parse(name.clone(), &record).0))
    };
    known.map(Cow::Borrowed).or_else(in_map)
}

/// How far a candidate has to be for a leader to give up the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Not lagging by more than `maximum_lag_on_failover` (RACE-1).
    Lag,
    /// It has this position: the shutdown checkpoint (DEM-3).
    Has(Lsn),
}

/// Which members count as candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// Only the requested candidate, when one is requested; else everybody.
    AsRequested,
    /// Everybody except the requested candidate (MAN-N7).
    ExceptRequested,
}

/// Is there a member that could take over? Asked by a leader before it gives up the lock (FP-1…7).
pub fn failover_possible(view: &View, cluster: &Cluster, bound: Bound, candidates: Candidates) -> Asked<bool> {
    let request = cluster.failover.as_ref().map(|request| &request.value);
    let requested = request.and_then(|request| request.candidate.as_ref());
    let is_candidate = |member: &&Member| {
        let allowed = match (candidates, requested) {
            (_, None) => true,
            (Candidates::AsRequested, Some(name)) => member.name == *name,
            (Candidates::ExceptRequested, Some(name)) => member.name != *name,
        };
        member.name != view.me && allowed && !member.is_nofailover() && member.api_url().is_some()
    };
    let in_sync = |member: &&Member| {
        let overrides = request.is_some_and(|request| request.leader.is_none());
        !sync_is_active(view, cluster) || overrides || cluster.sync.value.has_voter(member.name.as_str())
    };
    let members: BTreeSet<MemberName> =
        cluster.members.values().filter(is_candidate).filter(in_sync).map(|member| member.name.clone()).collect();
    if members.is_empty() {
        return Asked::Known(false);
    }
    match answers(view, &members) {
        Asked::Ask(members) => Asked::Ask(members),
        Asked::Known(answers) => {
            let fit = answers.iter().filter(|(_, status)| is_fit(view, cluster, status, bound)).count();
            let is_requested = requested.is_some() && candidates == Candidates::AsRequested;
            let overrides = request.is_some_and(|request| request.leader.is_none());
            // FP-6: whoever stands needs the votes of the others.
            let by_votes = super::sync::is_by_votes(view, cluster) && !is_requested && !overrides;
            let quorum = usize::try_from(cluster.sync.value.quorum).unwrap_or(usize::MAX);
            Asked::Known(fit > if by_votes { quorum } else { 0 })
        }
    }
}

fn is_fit(view: &View, cluster: &Cluster, status: &PeerStatus, bound: Bound) -> bool {
    let far_enough = match bound {
        Bound::Has(lsn) => in_history(cluster, status.timeline, status.position) >= lsn,
        Bound::Lag => bytes_behind(cluster, status.timeline, status.position) <= view.settings.maximum_lag_on_failover,
    };
    // QRK-4: whoever is below the timeline that this primary writes has left its history, or has nothing of it.
    let ours = view.postgres.facts.as_ref().filter(|facts| !facts.in_recovery).and_then(|facts| facts.timeline);
    let is_below = matches!((ours, status.timeline), (Some(ours), Some(theirs)) if theirs < ours);
    !status.is_limited() && far_enough && !is_below && timeline_suffices(view, cluster, status.timeline)
}

/// RACE-1: how far behind the last published position of a leader, in bytes.
pub(super) fn bytes_behind(cluster: &Cluster, timeline: Option<Timeline>, position: Lsn) -> u64 {
    in_history(cluster, timeline, position).bytes_behind(cluster.status.optime.unwrap_or(Lsn::INVALID))
}

/// QRK-4: how much of a member's WAL belongs to the cluster. What it has on a timeline that the cluster has left counts
/// only up to the end of that timeline: the rest is what nobody else has.
fn in_history(cluster: &Cluster, timeline: Option<Timeline>, position: Lsn) -> Lsn {
    let lines = cluster.history.iter().flat_map(|history| &history.value.lines);
    let end = lines.filter(|line| Some(line.timeline) == timeline).map(|line| line.lsn).min();
    end.map_or(position, |end| position.min(end))
}

/// RACE-2, FP-5, INV-S9: never so far behind that its own promotion ends below the newest timeline that was ever
/// published; with `check_timeline`, on that timeline.
pub(super) fn timeline_suffices(view: &View, cluster: &Cluster, timeline: Option<Timeline>) -> bool {
    if view.settings.standby_cluster {
        return true; // STB-1: timelines are the other cluster's.
    }
    match (cluster.timeline(), timeline) {
        (None, _) => true,
        (Some(_), None) => !view.settings.check_timeline,
        (Some(newest), Some(ours)) if view.settings.check_timeline => ours >= newest,
        (Some(newest), Some(ours)) => ours.next() >= newest,
    }
}

/// SYN-5: synchronous replication is requested and somebody maintains `/sync`.
pub(super) fn sync_is_active(view: &View, cluster: &Cluster) -> bool {
    view.settings.sync.method().is_some() && !cluster.sync.value.is_empty()
}

/// The request in the store, when there is one.
pub(super) fn request(cluster: &Cluster) -> Option<&FailoverRequest> {
    cluster.failover.as_ref().map(|request| &request.value)
}
