//! How long each part of a change of leader took, and why this member refused to lead: what metrics and reports show.
//!
//! Told by the member that took over, from what its own cycle saw. A phase ends with the first look that shows its end,
//! so an end can be told up to one tick (`loop_wait`) late where nothing wakes the cycle: the first write, above all.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::words;
use crate::cluster::Cluster;
use crate::decide::view::{Lease, Store};
use crate::decide::{Decision, View};
use crate::names::MemberName;
use crate::time::{BootInstant, WallTime};
use crate::wal::{Lsn, Timeline};

/// How many changes are remembered.
const CHANGES_MAX: usize = 16;

/// WAL that a promotion itself writes, at most: the end of recovery and a checkpoint are some hundred bytes. What goes
/// beyond was written by a client.
const OWN_WAL_BYTES_MAX: u64 = 1024;

/// Why the leader changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The leader was lost.
    Failover,
    /// Somebody asked for it.
    Switchover,
}

impl Kind {
    /// The word for people and for labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Failover => "failover",
            Kind::Switchover => "switchover",
        }
    }
}

/// A change of leader to this member. The durations count from [`Change::detected`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Why.
    pub kind: Kind,
    /// Who led before.
    pub from: MemberName,
    /// This member.
    pub to: MemberName,
    /// The timeline that it leads on, once known.
    pub timeline: Option<Timeline>,
    /// When this member saw that nobody held the leader key, by its wall clock.
    #[serde(with = "super::document::iso")]
    pub detected: WallTime,
    /// How long before that this member was first seen without a stream of WAL.
    pub stream_lost_before: Option<Duration>,
    /// Until it held the leader key.
    pub acquired: Duration,
    /// Until its PostgreSQL was primary.
    pub promoted: Option<Duration>,
    /// Until a write of a client was seen.
    pub first_write: Option<Duration>,
    /// Until every other member that runs streamed from it.
    pub followed: Option<Duration>,
}

impl Change {
    /// The phases in their order, with the time from detection to their end.
    pub fn phases(&self) -> [(&'static str, Option<Duration>); 4] {
        [
            ("acquired", Some(self.acquired)),
            ("promoted", self.promoted),
            ("first_write", self.first_write),
            ("followed", self.followed),
        ]
    }

    /// True when nothing is left to be seen.
    fn is_complete(&self) -> bool {
        self.phases().iter().all(|(_, end)| end.is_some())
    }
}

/// Follows the decisions of a member.
#[derive(Clone, Debug, Default)]
pub struct Phases {
    /// Who led when somebody did.
    last_leader: Option<MemberName>,
    /// Since when nobody leads, as seen here, and whether that was asked for.
    free: Option<(BootInstant, WallTime, Kind)>,
    /// When WAL was first seen not to arrive.
    stream_lost: Option<BootInstant>,
    /// The change under way: when it was detected, and the position at the end of the promotion.
    under_way: Option<(BootInstant, Option<Lsn>, Change)>,
    changes: VecDeque<Change>,
    counts: BTreeMap<Kind, u64>,
    refusals: BTreeMap<&'static str, u64>,
    last_refusal: Option<&'static str>,
}

impl Phases {
    /// Takes in a decision and what it saw.
    pub fn note(&mut self, view: &View, decision: &Decision) {
        self.note_refusal(decision);
        let streaming = view.postgres.facts.as_ref().is_some_and(|facts| facts.streaming);
        if streaming {
            self.stream_lost = None;
        } else {
            self.stream_lost.get_or_insert(view.now);
        }
        let Store::Current(cluster) = &view.store else { return };
        let holds = matches!(view.lease, Lease::Held { .. });
        match &cluster.leader {
            Some(leader) if leader.name != view.me => {
                self.last_leader = Some(leader.name.clone());
                (self.free, self.under_way) = (None, None);
            }
            Some(_) if self.under_way.is_none() && self.free.is_none() => self.last_leader = Some(view.me.clone()),
            None if !holds => {
                self.under_way = None;
                let kind = if cluster.failover.is_some() { Kind::Switchover } else { Kind::Failover };
                self.free.get_or_insert((view.now, view.wall, kind));
            }
            Some(_) | None => {}
        }
        if holds {
            self.advance(view, cluster);
        }
    }

    /// A refusal counts once, however often it is repeated; asking the others in between does not end it.
    fn note_refusal(&mut self, decision: &Decision) {
        if words::is_refusal(&decision.reason) {
            let rule = decision.reason.rules().first().copied().unwrap_or_default();
            if self.last_refusal != Some(rule) {
                *self.refusals.entry(rule).or_default() += 1;
            }
            self.last_refusal = Some(rule);
        } else if !decision.only_asks() {
            self.last_refusal = None;
        }
    }

    fn advance(&mut self, view: &View, cluster: &Cluster) {
        let facts = view.postgres.facts.as_ref();
        if let Some((detected_at, detected, kind)) = self.free.take()
            && let Some(from) = self.last_leader.replace(view.me.clone())
            && facts.is_none_or(|facts| facts.in_recovery)
        {
            // A primary that takes its key back is no change of leader.
            let change = Change {
                kind,
                from,
                to: view.me.clone(),
                timeline: None,
                detected,
                stream_lost_before: self.stream_lost.map(|lost| detected_at.since(lost)),
                acquired: view.now.since(detected_at),
                promoted: None,
                first_write: None,
                followed: None,
            };
            self.under_way = Some((detected_at, None, change));
        }
        let Some((detected_at, promoted_to, change)) = &mut self.under_way else { return };
        let Some(facts) = facts.filter(|facts| !facts.in_recovery) else { return };
        let elapsed = view.now.since(*detected_at);
        if change.promoted.is_none() {
            (change.promoted, change.timeline) = (Some(elapsed), facts.timeline);
            *promoted_to = Some(facts.position);
            *self.counts.entry(change.kind).or_default() += 1;
            self.changes.push_back(change.clone());
            let excess = self.changes.len().saturating_sub(CHANGES_MAX);
            self.changes.drain(..excess);
        }
        change.timeline = change.timeline.or(facts.timeline);
        if promoted_to.is_some_and(|position| position.bytes_behind(facts.position) > OWN_WAL_BYTES_MAX) {
            change.first_write.get_or_insert(elapsed);
        }
        if everybody_streams(cluster, &view.me, facts.timeline) {
            change.followed.get_or_insert(elapsed);
        }
        if let Some(last) = self.changes.back_mut() {
            last.clone_from(change);
        }
        if change.is_complete() {
            self.under_way = None;
        }
    }

    /// The last changes to this member, oldest first.
    pub fn changes(&self) -> impl DoubleEndedIterator<Item = &Change> + ExactSizeIterator {
        self.changes.iter()
    }

    /// How often this member took over since its agent was started.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// How often this member refused to lead since its agent was started, by the first rule of the reason.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.refusals.iter().map(|(rule, count)| (*rule, *count))
    }
}

/// True when there is another member, and each that runs and shall stream says that it streams on our timeline.
fn everybody_streams(cluster: &Cluster, me: &MemberName, timeline: Option<Timeline>) -> bool {
    let mut others = cluster
        .members
        .values()
        .filter(|member| member.name != *me && member.is_running() && !member.has_tag("nostream"))
        .peekable();
    others.peek().is_some()
        && others.all(|member| member.replication_state() == Some("streaming") && member.timeline() == timeline)
}
