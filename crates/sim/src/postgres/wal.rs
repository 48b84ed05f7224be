//! The write-ahead log of one data directory: a list of records instead of bytes.

use std::collections::BTreeMap;

use pgward_core::wal::{Lsn, Timeline};

/// A transaction of a simulated client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A transaction committed.
    Commit(CommitId),
    /// A checkpoint while the server works, or at the end of crash recovery.
    Checkpoint,
    /// The checkpoint of a primary that shuts down.
    ShutdownCheckpoint,
    /// The first record of a timeline.
    EndOfRecovery,
    /// The rest of a segment is left empty, for the archive.
    SegmentSwitch,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it starts: the end of the one before.
    pub start: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// The timeline that it was written on.
    pub timeline: Timeline,
    /// What it says.
    pub payload: Payload,
}

/// Where each earlier timeline ended, oldest first.
pub type TimelineHistory = Vec<(Timeline, Lsn)>;

/// The size of a segment.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Where initdb begins.
const FIRST_POSITION: Lsn = Lsn(SEGMENT_BYTES);

/// The length of each record but those of a commit, in bytes.
const RECORD_BYTES: u64 = 120;

/// The log of one data directory.
#[derive(Clone, Debug)]
pub(super) struct Wal {
    records: Vec<Record>,
    commits: BTreeMap<CommitId, Lsn>,
    /// What survives a loss of power.
    flushed: Lsn,
}

impl Wal {
    /// What initdb leaves: one checkpoint.
    pub(super) fn new() -> Wal {
        let mut wal = Wal { records: Vec::new(), commits: BTreeMap::new(), flushed: FIRST_POSITION };
        wal.append(Timeline::FIRST, Payload::ShutdownCheckpoint, 0);
        wal.flush(wal.written());
        wal
    }

    /// The end of the last record.
    pub(super) fn written(&self) -> Lsn {
        self.records.last().map_or(FIRST_POSITION, |record| record.end)
    }

    /// What survives a loss of power.
    pub(super) fn flushed(&self) -> Lsn {
        self.flushed
    }

    /// The timeline of the last record.
    pub(super) fn timeline(&self) -> Timeline {
        self.records.last().map_or(Timeline::FIRST, |record| record.timeline)
    }

    /// The last record.
    pub(super) fn last(&self) -> Option<&Record> {
        self.records.last()
    }

    /// Adds a record, `extra` bytes longer than the shortest one of its kind.
    pub(super) fn append(&mut self, timeline: Timeline, payload: Payload, extra: u64) -> Record {
        let start = self.written();
        let end = match payload {
            Payload::SegmentSwitch => Lsn((start.0 / SEGMENT_BYTES + 1) * SEGMENT_BYTES),
            Payload::Commit(_) | Payload::Checkpoint | Payload::ShutdownCheckpoint | Payload::EndOfRecovery => {
                Lsn(start.0 + RECORD_BYTES + extra)
            }
        };
        let record = Record { start, end, timeline, payload };
        self.push(record);
        record
    }

    /// Adds a record that comes from elsewhere, as it is.
    pub(super) fn push(&mut self, record: Record) {
        if let Payload::Commit(id) = record.payload {
            self.commits.insert(id, record.end);
        }
        self.records.push(record);
    }

    /// Everything up to `position` is on the disk now.
    pub(super) fn flush(&mut self, position: Lsn) {
        self.flushed = self.flushed.max(position.min(self.written()));
    }

    /// Removes what ends behind `position`.
    pub(super) fn truncate(&mut self, position: Lsn) {
        let kept = self.records.partition_point(|record| record.end <= position);
        for record in self.records.drain(kept..) {
            if let Payload::Commit(id) = record.payload {
                self.commits.remove(&id);
            }
        }
        self.flushed = self.flushed.min(self.written());
    }

    /// The records after `position`, oldest first.
    pub(super) fn after(&self, position: Lsn) -> &[Record] {
        let begin = self.records.partition_point(|record| record.end <= position);
        self.records.get(begin..).unwrap_or_default()
    }

    /// The record that ends at `position`.
    pub(super) fn ending_at(&self, position: Lsn) -> Option<&Record> {
        let index = self.records.partition_point(|record| record.end < position);
        self.records.get(index).filter(|record| record.end == position)
    }

    /// The record that starts at `position`.
    pub(super) fn starting_at(&self, position: Lsn) -> Option<&Record> {
        self.after(position).first().filter(|record| record.start == position)
    }

    /// The last checkpoint that ends at or before `position`.
    pub(super) fn checkpoint_before(&self, position: Lsn) -> Option<&Record> {
        let end = self.records.partition_point(|record| record.end <= position);
        let records = self.records.get(..end).unwrap_or_default();
        records.iter().rev().find(|record| record.is_checkpoint())
    }

    /// Whether a transaction is in it.
    pub(super) fn holds(&self, id: CommitId) -> bool {
        self.commits.contains_key(&id)
    }

    /// The transactions in it.
    pub(super) fn commits(&self) -> impl Iterator<Item = CommitId> {
        self.commits.keys().copied()
    }

    /// True at the start of a segment, where a switch to the next one writes nothing.
    pub(super) fn is_at_segment_start(&self) -> bool {
        self.written().0.is_multiple_of(SEGMENT_BYTES)
    }
}

impl Record {
    /// A checkpoint of either kind.
    pub(super) fn is_checkpoint(&self) -> bool {
        matches!(self.payload, Payload::Checkpoint | Payload::ShutdownCheckpoint)
    }
}

/// Where `history` left a timeline; `None` when it does not descend from it.
pub(super) fn switch_point(history: &[(Timeline, Lsn)], timeline: Timeline) -> Option<Lsn> {
    history.iter().find(|(line, _)| *line == timeline).map(|(_, end)| *end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_neither_held_nor_flushed() {
        let mut wal = Wal::new();
        let first = wal.append(Timeline::FIRST, Payload::Commit(CommitId(1)), 8);
        wal.append(Timeline::FIRST, Payload::Commit(CommitId(2)), 16);
        wal.flush(first.end);
        assert!(wal.holds(CommitId(2)) && wal.flushed() < wal.written());
        wal.truncate(wal.flushed());
        assert!(wal.holds(CommitId(1)) && !wal.holds(CommitId(2)));
        assert_eq!((wal.written(), wal.flushed()), (first.end, first.end));
        assert_eq!(wal.ending_at(first.end), Some(&first));
        assert_eq!(wal.starting_at(first.start), Some(&first));
        assert_eq!(wal.after(first.start), [first]);
    }

    #[test]
    fn a_switch_ends_at_a_segment() {
        let mut wal = Wal::new();
        let switch = wal.append(Timeline::FIRST, Payload::SegmentSwitch, 0);
        assert_eq!(switch.end, Lsn(2 * SEGMENT_BYTES));
        assert!(wal.is_at_segment_start());
    }
}
