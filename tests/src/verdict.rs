//! Counts from the writers' records what must never happen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::direct::Commit;
use crate::writers::Write;

/// What became of the writes of [`crate::writers::Writers`].
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Acknowledged.
    pub acked: usize,
    /// Sent, outcome unknown to the client.
    pub unknown: usize,
    /// Acknowledged, and not there.
    pub lost: Vec<u64>,
    /// There more than once.
    pub doubled: usize,
}

impl Verdict {
    /// Compares the record with the table on the primary.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn of(cluster: &Cluster, writes: &[Write]) -> Result<Self> {
        let (present, doubled) = rows(cluster, "written").await?;
        let acked: Vec<u64> = writes.iter().filter(|w| w.acked.is_some()).map(|w| w.id).collect();
        let lost = acked.iter().copied().filter(|id| !present.contains(id)).collect();
        Ok(Self { acked: acked.len(), unknown: writes.len() - acked.len(), lost, doubled })
    }

    /// Nothing acknowledged is lost, nothing is doubled.
    ///
    /// # Errors
    /// When something is.
    pub fn is_clean(&self) -> Result<()> {
        ensure!(self.lost.is_empty() && self.doubled == 0, "{self}; first lost ids: {:?}", self.lost.iter().take(5));
        ensure!(self.acked > 0, "no write was acknowledged: the check proves nothing");
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, unknown, lost, doubled } = self;
        write!(f, "{acked} writes acknowledged, {unknown} unknown, {} lost, {doubled} doubled", lost.len())
    }
}

/// The longest time without an acknowledged write that ended after `since`.
pub fn interruption(writes: &[Write], since: Instant) -> Duration {
    let mut acks: Vec<Instant> = writes.iter().filter_map(|w| w.acked).collect();
    acks.sort();
    let gaps = acks.windows(2).filter(|pair| pair[1] > since).map(|pair| pair[1] - pair[0].max(since));
    gaps.max().unwrap_or_default()
}

/// What became of the writes of [`crate::direct::DirectWriters`].
#[derive(Clone, Debug, Default)]
pub struct DirectVerdict {
    /// Acknowledged.
    pub acked: usize,
    /// Acknowledged, and not there.
    pub lost: usize,
    /// The longest time for which two nodes accepted commits.
    pub overlap: Option<Overlap>,
}

/// A node and the timeline it wrote on.
pub type Reign = (usize, u32);

/// Two nodes that accepted commits at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// For how long.
    pub time: Duration,
    /// The one that came first in the order of nodes.
    pub one: Reign,
    /// The other.
    pub other: Reign,
}

impl DirectVerdict {
    /// Compares the record with the table on the primary.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn of(cluster: &Cluster, commits: &[Commit]) -> Result<Self> {
        let (present, _) = rows(cluster, "direct").await?;
        let lost = commits.iter().filter(|c| !present.contains(&c.id)).count();
        Ok(Self { acked: commits.len(), lost, overlap: overlap(commits) })
    }

    /// How long two nodes accepted commits at once.
    pub fn overlap_time(&self) -> Duration {
        self.overlap.map_or(Duration::ZERO, |o| o.time)
    }

    /// No two nodes accepted commits at one instant.
    ///
    /// # Errors
    /// When two did.
    pub fn is_exclusive(&self) -> Result<()> {
        ensure!(self.overlap.is_none(), "two nodes accepted commits at once: {self}");
        ensure!(self.acked > 0, "no write was acknowledged: the check proves nothing");
        Ok(())
    }
}

impl fmt::Display for DirectVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} direct writes acknowledged, {} lost", self.acked, self.lost)?;
        match self.overlap {
            None => f.write_str(", never two nodes at once"),
            Some(Overlap { time, one, other }) => {
                write!(f, ", two nodes (node, timeline) {one:?} and {other:?} at once for {time:?}")
            }
        }
    }
}

/// The longest overlap of two reigns. A reign is the time in which one node surely accepted commits on one timeline:
/// from its first acknowledgement to the moment its last acknowledged commit was sent. A node that crashes and comes
/// back in place continues its reign. A late acknowledgement on a busy machine is thus never taken for an overlap.
fn overlap(commits: &[Commit]) -> Option<Overlap> {
    let mut reigns: BTreeMap<Reign, (Instant, Instant)> = BTreeMap::new();
    for commit in commits {
        let reign = reigns.entry((commit.node, commit.timeline)).or_insert((commit.acked, commit.sent));
        reign.0 = reign.0.min(commit.acked);
        reign.1 = reign.1.max(commit.sent);
    }
    let reigns: Vec<_> = reigns.into_iter().collect();
    let mut worst: Option<Overlap> = None;
    for (index, (one, (one_first, one_last))) in reigns.iter().enumerate() {
        for (other, (other_first, other_last)) in reigns.iter().skip(index + 1).filter(|(other, _)| other.0 != one.0) {
            let time = one_last.min(other_last).saturating_duration_since(*one_first.max(other_first));
            if !time.is_zero() && worst.is_none_or(|w| w.time < time) {
                worst = Some(Overlap { time, one: *one, other: *other });
            }
        }
    }
    worst
}

/// All ids of a table on the primary, and how many rows are there more than once.
async fn rows(cluster: &Cluster, table: &str) -> Result<(BTreeSet<u64>, usize)> {
    let primary = cluster.primary().await?;
    let rows = cluster.nodes[primary].socket().query(&format!("SELECT id FROM {table}")).await?;
    let present: BTreeSet<u64> = rows.iter().filter_map(|id| id.parse().ok()).collect();
    let doubled = rows.len() - present.len();
    Ok((present, doubled))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Overlap, overlap};
    use crate::direct::Commit;

    #[test]
    fn reigns_that_overlap_are_found_and_a_switch_is_not_one() {
        let start = Instant::now();
        let commit = |node, timeline, at| {
            let acked = start + Duration::from_millis(at);
            Commit { id: at, node, timeline, sent: acked, acked }
        };
        let switch = [commit(0, 1, 10), commit(0, 1, 20), commit(1, 2, 30), commit(1, 2, 40), commit(0, 3, 50)];
        assert_eq!(overlap(&switch), None);
        let split = [commit(0, 1, 10), commit(0, 1, 35), commit(1, 2, 30), commit(1, 2, 40)];
        assert_eq!(overlap(&split), Some(Overlap { time: Duration::from_millis(5), one: (0, 1), other: (1, 2) }));
    }
}
