//! Finds in a history what must never happen, in the manner of the list-append checkers of Elle and Jepsen.
//!
//! Every number is appended once, so a list tells the order of all commits before it. A list that was read is compared
//! with the list at the end: both may differ only in numbers that a failover lost, and those must stand at its end.
//!
//! Replication is asynchronous: a failover after a crash may lose what was acknowledged in the last moment before it
//! ([`LAST_MOMENT`]), and a primary that is cut off from its replicas may lose what it acknowledges meanwhile. Both are
//! counted ([`Verdict::loss_window`]) and need a fault that explains them; a switchover explains nothing. Everything else
//! is an [`Anomaly`], whatever the faults.
//!
//! Pure: no clock, no connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::history::{Harm, History, List, Operation, Outcome, Request};
use crate::reign::{Acknowledged, Reign, overlaps};

/// How long before the end of a reign that ended in a crash an acknowledged commit may be lost.
pub const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// An acknowledged number is not in the list at the end, and no fault explains it.
    Lost {
        /// The number.
        value: u64,
        /// The node that acknowledged it.
        node: usize,
        /// When.
        at: Duration,
    },
    /// A number stands in a list more than once.
    Doubled {
        /// The number.
        value: u64,
        /// When it was seen.
        at: Duration,
    },
    /// A number stands in a list to which nobody appended it, or where the append had failed.
    Phantom {
        /// The number.
        value: u64,
        /// When it was seen.
        at: Duration,
    },
    /// Two lists of one key cannot both have been true: neither is the beginning of the other.
    Order {
        /// The key.
        key: i32,
        /// When the list was seen.
        at: Duration,
        /// What it was compared with.
        with: &'static str,
    },
    /// A primary answered with a list that lacks a number acknowledged before the request was sent.
    StaleRead {
        /// The number.
        value: u64,
        /// The node that answered.
        node: usize,
        /// When.
        at: Duration,
    },
    /// A node acknowledged commits that were sent after its successor had acknowledged its first.
    StaleAcks {
        /// The node.
        node: usize,
        /// Its timeline.
        timeline: u32,
        /// The node that had succeeded it.
        successor: usize,
        /// How many.
        count: usize,
        /// The first of them.
        at: Duration,
    },
    /// Two nodes answered as primary at one instant.
    TwoWritable {
        /// The nodes.
        nodes: (usize, usize),
        /// From when.
        at: Duration,
        /// For how long at least.
        time: Duration,
    },
    /// Two nodes acknowledged commits on one timeline.
    SharedTimeline {
        /// The timeline.
        timeline: u32,
        /// The nodes.
        nodes: (usize, usize),
        /// When the later of them began.
        at: Duration,
    },
}

impl Anomaly {
    /// When it showed.
    pub fn at(&self) -> Duration {
        match self {
            Self::Lost { at, .. }
            | Self::Doubled { at, .. }
            | Self::Phantom { at, .. }
            | Self::Order { at, .. }
            | Self::StaleRead { at, .. }
            | Self::StaleAcks { at, .. }
            | Self::TwoWritable { at, .. }
            | Self::SharedTimeline { at, .. } => *at,
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: &usize| format!("n{}", node + 1);
        write!(f, "at {:.3} s: ", self.at().as_secs_f64())?;
        match self {
            Self::Lost { value, node, .. } => {
                write!(
                    f,
                    "lost: {} acknowledged {value}, which is not there at the end, and no fault explains it",
                    name(node)
                )
            }
            Self::Doubled { value, .. } => write!(f, "doubled: {value} stands in a list more than once"),
            Self::Phantom { value, .. } => {
                write!(f, "phantom: {value} stands in a list although its append failed or was never sent")
            }
            Self::Order { key, with, .. } => write!(f, "order: a list of key {key} contradicts {with}"),
            Self::StaleRead { value, node, .. } => {
                write!(f, "stale read: {} answered as primary without {value}, acknowledged before", name(node))
            }
            Self::StaleAcks { node, timeline, successor, count, .. } => write!(
                f,
                "stale primary: {} acknowledged {count} commits on timeline {timeline} that were sent after the first \
                 acknowledgement of its successor {}",
                name(node),
                name(successor)
            ),
            Self::TwoWritable { nodes: (one, other), time, .. } => {
                write!(f, "two writable nodes: {} and {} for {time:.3?} at least", name(one), name(other))
            }
            Self::SharedTimeline { timeline, nodes: (one, other), .. } => {
                write!(f, "shared timeline: {} and {} both wrote on timeline {timeline}", name(one), name(other))
            }
        }
    }
}

/// An acknowledged commit that a fault may have cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excused {
    /// The number.
    pub value: u64,
    /// The node that had acknowledged it.
    pub node: usize,
    /// When.
    pub acked: Duration,
    /// How long before the last acknowledgement of its reign.
    pub before_the_end: Duration,
}

/// What a history shows.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Acknowledged appends.
    pub acked: usize,
    /// Appends whose outcome the client does not know.
    pub unknown: usize,
    /// Appends that were refused.
    pub failed: usize,
    /// Reads that were answered, by primaries and by replicas.
    pub reads: usize,
    /// Acknowledged commits lost with a crash or cut that explains it.
    pub loss_window: Vec<Excused>,
    /// What must never happen, in the order of time.
    pub anomalies: Vec<Anomaly>,
    /// Who acknowledged commits when.
    pub reigns: Vec<Reign>,
}

impl Verdict {
    /// Nothing happened that must not.
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty() && self.acked > 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, unknown, failed, reads, loss_window, anomalies, reigns } = self;
        write!(f, "{acked} appends acknowledged, {unknown} unknown, {failed} failed, {reads} reads, ")?;
        write!(f, "{} reigns, {} lost in loss windows", reigns.len(), loss_window.len())?;
        match (anomalies.len(), acked) {
            (0, 0) => f.write_str("; nothing was acknowledged: the run proves nothing"),
            (0, _) => f.write_str("; no anomaly"),
            (count, _) => write!(f, "; {count} ANOMALIES"),
        }
    }
}

/// Judges a history.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    for operation in &history.operations {
        match (&operation.request, &operation.outcome) {
            (Request::Append(_), Outcome::Done { .. }) => verdict.acked += 1,
            (Request::Append(_), Outcome::Failed) => verdict.failed += 1,
            (Request::Append(_), Outcome::Unknown) => verdict.unknown += 1,
            (Request::Read, Outcome::Done { .. }) => verdict.reads += 1,
            (Request::Read, Outcome::Failed | Outcome::Unknown) => {}
        }
    }
    let seen = Seen::all(history);
    let mut anomalies = contents(history, &seen);
    anomalies.extend(orders(history, &seen));
    anomalies.extend(stale_reads(history, &seen));
    verdict.reigns = reigns(&seen, |seen| seen.appended.is_some());
    anomalies.extend(losses(history, &seen, &verdict.reigns, &mut verdict.loss_window));
    anomalies.extend(exclusiveness(&seen, &verdict.reigns));
    anomalies.sort_by_key(Anomaly::at);
    verdict.anomalies = anomalies;
    verdict
}

/// An answered operation.
struct Seen<'a> {
    key: i32,
    appended: Option<u64>,
    node: usize,
    timeline: Option<u32>,
    list: &'a List,
    sent: Duration,
    at: Duration,
}

impl<'a> Seen<'a> {
    fn all(history: &'a History) -> Vec<Self> {
        let seen = |operation: &'a Operation| {
            let Outcome::Done { by, list } = &operation.outcome else { return None };
            let appended = match operation.request {
                Request::Append(value) => Some(value),
                Request::Read => None,
            };
            let (node, timeline) = (by.node, by.timeline);
            Some(Self { key: operation.key, appended, node, timeline, list, sent: operation.sent, at: operation.ended })
        };
        history.operations.iter().filter_map(seen).collect()
    }
}

/// Every list holds only numbers that somebody appended to it, each once, and the answer to an append ends with it.
fn contents(history: &History, seen: &[Seen]) -> Vec<Anomaly> {
    let mut possible: BTreeMap<u64, i32> = BTreeMap::new();
    for operation in &history.operations {
        if let (Request::Append(value), Outcome::Done { .. } | Outcome::Unknown) =
            (operation.request, &operation.outcome)
        {
            possible.insert(value, operation.key);
        }
    }
    let end = history.operations.iter().map(|o| o.ended).max().unwrap_or_default();
    let last = history.last.iter().map(|(key, list)| (*key, list, end));
    // Each finding once, when it was first seen: a doubled number shows in every later list too.
    let mut doubled: BTreeMap<u64, Duration> = BTreeMap::new();
    let mut phantoms: BTreeMap<u64, Duration> = BTreeMap::new();
    for (key, list, at) in seen.iter().map(|s| (s.key, s.list, s.at)).chain(last) {
        let mut once = BTreeSet::new();
        for value in list {
            let note = |found: &mut BTreeMap<u64, Duration>| {
                let first = found.entry(*value).or_insert(at);
                *first = at.min(*first);
            };
            if !once.insert(value) {
                note(&mut doubled);
            }
            if possible.get(value) != Some(&key) {
                note(&mut phantoms);
            }
        }
    }
    let doubled = doubled.into_iter().map(|(value, at)| Anomaly::Doubled { value, at });
    let phantoms = phantoms.into_iter().map(|(value, at)| Anomaly::Phantom { value, at });
    let with = "the append that it answers";
    let own = seen.iter().filter(|s| s.appended.is_some() && s.list.last() != s.appended.as_ref());
    let own = own.map(|s| Anomaly::Order { key: s.key, at: s.at, with });
    doubled.chain(phantoms).chain(own).collect()
}

/// Lists fit together: with the list at the end, and, on one timeline, with one another.
fn orders(history: &History, seen: &[Seen]) -> Vec<Anomaly> {
    let mut longest: BTreeMap<(i32, u32), &List> = BTreeMap::new();
    for one in seen {
        if let Some(timeline) = one.timeline {
            let known = longest.entry((one.key, timeline)).or_insert(one.list);
            if known.len() < one.list.len() {
                *known = one.list;
            }
        }
    }
    let empty = List::new();
    let mut found = Vec::new();
    for one in seen {
        let last = history.last.get(&one.key).unwrap_or(&empty);
        let common = one.list.iter().zip(last).take_while(|(a, b)| a == b).count();
        // What follows the common beginning was lost in a failover; a number that survived cannot stand behind it.
        if one.list.iter().skip(common).any(|value| last.contains(value)) {
            found.push(Anomaly::Order { key: one.key, at: one.at, with: "the list at the end" });
        }
        let same = one.timeline.and_then(|timeline| longest.get(&(one.key, timeline)));
        if same.is_some_and(|same| !same.starts_with(one.list)) {
            found.push(Anomaly::Order { key: one.key, at: one.at, with: "another list of the same timeline" });
        }
    }
    found
}

/// A primary shows everything acknowledged before the request was sent, except what a failover to a later timeline lost.
fn stale_reads(history: &History, seen: &[Seen]) -> Vec<Anomaly> {
    let mut acked: BTreeMap<i32, Vec<(u64, u32, Duration)>> = BTreeMap::new();
    for one in seen {
        if let (Some(value), Some(timeline)) = (one.appended, one.timeline) {
            acked.entry(one.key).or_default().push((value, timeline, one.at));
        }
    }
    let empty = List::new();
    let mut found = Vec::new();
    for one in seen {
        let Some(timeline) = one.timeline else { continue };
        let last = history.last.get(&one.key).unwrap_or(&empty);
        let missing = acked.get(&one.key).into_iter().flatten().find(|(value, of, at)| {
            *at < one.sent && !one.list.contains(value) && (last.contains(value) || timeline <= *of)
        });
        if let Some((value, _, _)) = missing {
            found.push(Anomaly::StaleRead { value: *value, node: one.node, at: one.at });
        }
    }
    found
}

/// Acknowledged numbers that are not there at the end: excused, or not.
fn losses(history: &History, seen: &[Seen], reigns: &[Reign], excused: &mut Vec<Excused>) -> Vec<Anomaly> {
    let mut found = Vec::new();
    for one in seen {
        let (Some(value), Some(timeline)) = (one.appended, one.timeline) else { continue };
        if history.last.get(&one.key).is_some_and(|list| list.contains(&value)) {
            continue;
        }
        let reign = reigns.iter().find(|r| (r.node, r.timeline) == (one.node, timeline));
        let end = reign.map_or(one.at, |r| r.last_acked);
        let explains = |harm: Harm, at: Duration| {
            let mut all = history.disturbances.iter().filter(|d| d.node == one.node && d.harm == harm);
            all.any(|d| d.from <= at + LAST_MOMENT && at <= d.until)
        };
        let before_the_end = end.saturating_sub(one.at);
        if explains(Harm::Cut, one.at) || (before_the_end <= LAST_MOMENT && explains(Harm::Crash, end)) {
            excused.push(Excused { value, node: one.node, acked: one.at, before_the_end });
        } else {
            found.push(Anomaly::Lost { value, node: one.node, at: one.at });
        }
    }
    found
}

/// One node accepts commits at a time, and each timeline has one.
fn exclusiveness(seen: &[Seen], reigns: &[Reign]) -> Vec<Anomaly> {
    let mut found = Vec::new();
    for reign in reigns {
        let later = reigns.iter().filter(|r| r.timeline > reign.timeline).min_by_key(|r| r.first);
        if let Some(successor) = later {
            let own = seen.iter().filter(|s| s.appended.is_some() && s.node == reign.node);
            let own = own.filter(|s| s.timeline == Some(reign.timeline) && s.sent > successor.first);
            let times: Vec<Duration> = own.map(|s| s.at).collect();
            if let Some(at) = times.iter().min().copied() {
                let (node, timeline, successor, count) = (reign.node, reign.timeline, successor.node, times.len());
                found.push(Anomaly::StaleAcks { node, timeline, successor, count, at });
            }
        }
        for other in reigns.iter().filter(|r| r.timeline == reign.timeline && r.node > reign.node) {
            let (timeline, nodes, at) = (reign.timeline, (reign.node, other.node), reign.first.max(other.first));
            found.push(Anomaly::SharedTimeline { timeline, nodes, at });
        }
    }
    // Reads count here too: a node that answers as primary is one, whether or not it was asked to write.
    for (one, other, time) in overlaps(&self::reigns(seen, |_| true)) {
        found.push(Anomaly::TwoWritable { nodes: (one.node, other.node), at: one.first.max(other.first), time });
    }
    found
}

/// Who answered as primary when, by those answers that `counts`.
fn reigns(seen: &[Seen], counts: impl Fn(&Seen) -> bool) -> Vec<Reign> {
    let answers = seen.iter().filter(|s| counts(s)).filter_map(|s| {
        let timeline = s.timeline?;
        Some(Acknowledged { node: s.node, timeline, sent: s.sent, acked: s.at })
    });
    Reign::all(answers)
}

#[cfg(test)]
mod tests;
