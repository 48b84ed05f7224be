//! Counts from the writers' records what must never happen.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::direct::Commit;
use crate::reign::{self, Acknowledged, overlaps};
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

/// The longest overlap of two reigns.
fn overlap(commits: &[Commit]) -> Option<Overlap> {
    let start = commits.iter().map(|c| c.sent).min()?;
    let since = |at: Instant| at.saturating_duration_since(start);
    let acknowledged = commits.iter().map(|c| Acknowledged {
        node: c.node,
        timeline: c.timeline,
        sent: since(c.sent),
        acked: since(c.acked),
    });
    let worst = overlaps(&reign::Reign::all(acknowledged)).into_iter().max_by_key(|(_, _, time)| *time);
    let key = |reign: reign::Reign| (reign.node, reign.timeline);
    worst.map(|(one, other, time)| Overlap { time, one: key(one), other: key(other) })
}

/// All ids of a table on the primary, and how many rows are there more than once.
async fn rows(cluster: &Cluster, table: &str) -> Result<(BTreeSet<u64>, usize)> {
    let primary = cluster.primary().await?;
    let rows = cluster.nodes[primary].socket().query(&format!("SELECT id FROM {table}")).await?;
    let present: BTreeSet<u64> = rows.iter().filter_map(|id| id.parse().ok()).collect();
    let doubled = rows.len() - present.len();
    Ok((present, doubled))
}
