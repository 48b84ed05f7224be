//! Which node surely accepted commits when: the question behind "were there two primaries at once?".

use std::collections::BTreeMap;
use std::time::Duration;

/// One acknowledged commit. Times count from any common moment.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// The node that acknowledged it.
    pub node: usize,
    /// The timeline it was written on.
    pub timeline: u32,
    /// When it was sent.
    pub sent: Duration,
    /// When it was acknowledged.
    pub acked: Duration,
}

/// The time in which one node surely accepted commits on one timeline: from its first acknowledgement to the moment its
/// last acknowledged commit was sent. A node that crashes and comes back in place continues its reign. A late
/// acknowledgement on a busy machine is thus never taken for an overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign {
    /// The node.
    pub node: usize,
    /// The timeline.
    pub timeline: u32,
    /// The first acknowledgement.
    pub first: Duration,
    /// When the last acknowledged commit was sent.
    pub last_sent: Duration,
    /// The last acknowledgement.
    pub last_acked: Duration,
}

impl Reign {
    /// All reigns, in the order of nodes and timelines.
    pub fn all(commits: impl IntoIterator<Item = Acknowledged>) -> Vec<Self> {
        let mut reigns: BTreeMap<(usize, u32), Self> = BTreeMap::new();
        for Acknowledged { node, timeline, sent, acked } in commits {
            let fresh = Self { node, timeline, first: acked, last_sent: sent, last_acked: acked };
            let reign = reigns.entry((node, timeline)).or_insert(fresh);
            reign.first = reign.first.min(acked);
            reign.last_sent = reign.last_sent.max(sent);
            reign.last_acked = reign.last_acked.max(acked);
        }
        reigns.into_values().collect()
    }

    /// For how long both surely accepted commits.
    pub fn overlap(&self, other: &Self) -> Duration {
        self.last_sent.min(other.last_sent).saturating_sub(self.first.max(other.first))
    }
}

/// Every pair of reigns of different nodes that overlap, and for how long.
pub fn overlaps(reigns: &[Reign]) -> Vec<(Reign, Reign, Duration)> {
    let mut found = Vec::new();
    for (index, one) in reigns.iter().enumerate() {
        for other in reigns.iter().skip(index + 1).filter(|other| other.node != one.node) {
            let time = one.overlap(other);
            if !time.is_zero() {
                found.push((*one, *other, time));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(node: usize, timeline: u32, at: u64) -> Acknowledged {
        let at = Duration::from_millis(at);
        Acknowledged { node, timeline, sent: at, acked: at }
    }

    #[test]
    fn reigns_that_overlap_are_found_and_a_switch_is_not_one() {
        let switch = [commit(0, 1, 10), commit(0, 1, 20), commit(1, 2, 30), commit(1, 2, 40), commit(0, 3, 50)];
        assert_eq!(overlaps(&Reign::all(switch)), []);
        let split = Reign::all([commit(0, 1, 10), commit(0, 1, 35), commit(1, 2, 30), commit(1, 2, 40)]);
        assert_eq!(overlaps(&split), [(split[0], split[1], Duration::from_millis(5))]);
    }

    #[test]
    fn an_acknowledgement_that_arrives_late_does_not_prolong_a_reign() {
        let late = Acknowledged { acked: Duration::from_millis(60), ..commit(0, 1, 20) };
        assert_eq!(overlaps(&Reign::all([commit(0, 1, 10), late, commit(1, 2, 30), commit(1, 2, 70)])), []);
    }
}
