//! What survives the processes: the data directory.

use std::collections::BTreeMap;

use pgward_core::decide::rewind::ControlState;
use pgward_core::names::MemberName;
use pgward_core::wal::{Lsn, Timeline};
use serde_json::{Map, Value};

use super::wal::{Payload, Record, TimelineHistory, Wal, switch_point};

/// A database system identifier.
pub type SystemId = u64;

/// The control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// What the server was doing.
    pub state: ControlState,
    /// Where the latest checkpoint starts.
    pub checkpoint: Lsn,
    /// The timeline of that checkpoint.
    pub checkpoint_timeline: Timeline,
    /// A standby that stops here or earlier is not consistent. `None` on a primary.
    pub minimum_recovery: Option<(Lsn, Timeline)>,
}

/// The member that a standby streams from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Who.
    pub member: MemberName,
    /// The slot that it uses there.
    pub slot: Option<String>,
}

/// A physical replication slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    /// The oldest WAL that it holds.
    pub restart: Option<Lsn>,
    /// The connection that uses it.
    pub used_by: Option<u64>,
}

/// Why a data directory cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// Some files are newer than others.
    Files,
    /// A copy, a rewind or initdb was interrupted: the control file cannot be read.
    ControlFile,
}

/// A data directory with a cluster in it.
#[derive(Clone, Debug)]
pub(super) struct DataDirectory {
    pub system_id: SystemId,
    pub wal: Wal,
    /// The history files that are there, by the timeline that they lead to.
    pub histories: BTreeMap<Timeline, TimelineHistory>,
    pub control: ControlFile,
    pub has_standby_signal: bool,
    /// A copy that was not started yet.
    pub has_backup_label: bool,
    /// As the configuration files say.
    pub upstream: Option<Upstream>,
    pub slots: BTreeMap<String, Slot>,
    /// `wal_log_hints` or checksums are on.
    pub allows_rewind: bool,
    pub damage: Option<Damage>,
    /// The agent's mark: a rewind has begun, and has not come to its end.
    pub is_half_rewound: bool,
    /// What the agent keeps beside the data: the dynamic configuration that was last in force.
    pub kept_dynamic: Option<Map<String, Value>>,
}

impl DataDirectory {
    /// What initdb leaves.
    pub(super) fn new(system_id: SystemId) -> DataDirectory {
        let wal = Wal::new();
        let checkpoint = wal.last().map_or(Lsn::INVALID, |record| record.start);
        DataDirectory {
            system_id,
            wal,
            histories: BTreeMap::new(),
            control: ControlFile {
                state: ControlState::ShutDown,
                checkpoint,
                checkpoint_timeline: Timeline::FIRST,
                minimum_recovery: None,
            },
            has_standby_signal: false,
            has_backup_label: false,
            upstream: None,
            slots: BTreeMap::new(),
            allows_rewind: true,
            damage: None,
            is_half_rewound: false,
            kept_dynamic: None,
        }
    }

    /// What another member gets when it copies this directory, up to what is flushed here. It is consistent when all of
    /// it is replayed.
    pub(super) fn copy(&self) -> DataDirectory {
        let mut copy = self.clone();
        copy.wal.truncate(self.wal.flushed());
        copy.has_standby_signal = false;
        copy.has_backup_label = true;
        copy.slots.clear();
        copy.damage = None;
        copy.is_half_rewound = false;
        copy.upstream = None;
        copy.control.minimum_recovery = Some((copy.wal.written(), copy.wal.timeline()));
        copy
    }

    /// The timeline that WAL is written on.
    pub(super) fn timeline(&self) -> Timeline {
        self.wal.timeline()
    }

    /// Where the earlier timelines ended on the way to the present one.
    pub(super) fn history(&self) -> &[(Timeline, Lsn)] {
        self.histories.get(&self.timeline()).map_or(&[], Vec::as_slice)
    }

    /// Writes a checkpoint of a server that is not in recovery.
    pub(super) fn checkpoint(&mut self, payload: Payload) -> Record {
        let record = self.wal.append(self.timeline(), payload, 0);
        self.wal.flush(record.end);
        self.control.checkpoint = record.start;
        self.control.checkpoint_timeline = record.timeline;
        record
    }

    /// A standby makes what it has replayed the place where it would begin anew.
    pub(super) fn restartpoint(&mut self, replayed: Lsn) {
        if let Some(record) = self.wal.checkpoint_before(replayed) {
            self.control.checkpoint = record.start;
            self.control.checkpoint_timeline = record.timeline;
        }
        let timeline = self.wal.ending_at(replayed).map_or(self.timeline(), |record| record.timeline);
        let reached = self.control.minimum_recovery.map_or(Lsn::INVALID, |(position, _)| position);
        if replayed >= reached {
            self.control.minimum_recovery = Some((replayed, timeline));
        }
    }

    /// Begins the timeline after every known one. Returns it with the position at which it begins.
    pub(super) fn begin_timeline(&mut self) -> (Timeline, Lsn) {
        let (old, switch) = (self.timeline(), self.wal.written());
        let new = self.newest_known_timeline().next();
        let mut history = self.history().to_vec();
        history.push((old, switch));
        self.histories.insert(new, history);
        let record = self.wal.append(new, Payload::EndOfRecovery, 0);
        self.wal.flush(record.end);
        (new, switch)
    }

    /// The last of the timelines after the present one whose history files are there without a gap.
    pub(super) fn newest_known_timeline(&self) -> Timeline {
        let mut newest = self.timeline();
        while self.histories.contains_key(&newest.next()) {
            newest = newest.next();
        }
        newest
    }

    /// Takes over the history files of an upstream on `timeline`, and keeps those that are here already.
    pub(super) fn learn_histories(&mut self, theirs: &BTreeMap<Timeline, TimelineHistory>, timeline: Timeline) {
        for (timeline, history) in theirs.range(..=timeline) {
            self.histories.entry(*timeline).or_insert_with(|| history.clone());
        }
    }

    /// A standby that begins to recover with a later timeline in sight: what lies behind the switch is not replayed.
    ///
    /// # Errors
    /// What PostgreSQL says when the later timeline is not a child of what is here.
    pub(super) fn aim_at_newest_timeline(&mut self) -> Result<(), String> {
        let (newest, own) = (self.newest_known_timeline(), self.timeline());
        let Some(history) = self.histories.get(&newest).filter(|_| newest != own) else { return Ok(()) };
        let checkpoint = self.control.checkpoint_timeline;
        let not_a_child = || format!("FATAL:  requested timeline {newest} is not a child of this server's history");
        if checkpoint != newest {
            let end = switch_point(history, checkpoint).ok_or_else(not_a_child)?;
            if self.control.checkpoint >= end {
                return Err(not_a_child());
            }
        }
        if let Some((position, timeline)) = self.control.minimum_recovery
            && timeline != newest
            && switch_point(history, timeline).is_none_or(|end| position > end)
        {
            return Err(format!(
                "FATAL:  requested timeline {newest} does not contain minimum recovery point {position} on timeline \
                 {timeline}"
            ));
        }
        if let Some(end) = switch_point(history, own) {
            self.wal.truncate(end);
        }
        Ok(())
    }

    /// Whether somebody whose WAL ends with `last` can go on with what is here.
    ///
    /// # Errors
    /// What the walsender, or the replay of what it would send, says.
    pub(super) fn continues(&self, last: &Record) -> Result<(), String> {
        let (own, flushed) = (self.timeline(), self.wal.flushed());
        if own < last.timeline {
            return Err(format!(
                "ERROR:  highest timeline {own} of the primary is behind recovery timeline {}",
                last.timeline
            ));
        }
        let not_ours = format!(
            "ERROR:  requested starting point {} on timeline {} is not in this server's history",
            last.end, last.timeline
        );
        if own == last.timeline {
            if last.end > flushed {
                return Err(format!(
                    "ERROR:  requested starting point {} is ahead of the WAL flush position",
                    last.end
                ));
            }
        } else if switch_point(self.history(), last.timeline).is_none_or(|end| last.end > end) {
            return Err(not_ours);
        }
        // Two servers that made the same timeline, or lost different records: the next record does not fit.
        match self.wal.ending_at(last.end) {
            Some(record) if record.start == last.start => Ok(()),
            Some(_) | None => Err(format!("LOG:  record with incorrect prev-link at {}", last.end)),
        }
    }

    /// Whether a standby that has replayed up to `replayed` may let clients in.
    ///
    /// # Errors
    /// What PostgreSQL says when it has gone past the point where it should have become consistent, on another timeline.
    pub(super) fn is_consistent_at(&self, replayed: Lsn) -> Result<bool, String> {
        let Some((position, timeline)) = self.control.minimum_recovery else { return Ok(true) };
        if replayed < position {
            return Ok(false);
        }
        match self.wal.after(Lsn(position.0.saturating_sub(1))).first() {
            Some(record) if record.timeline != timeline => Err(format!(
                "FATAL:  requested timeline {} does not contain minimum recovery point {position} on timeline {timeline}",
                self.timeline()
            )),
            Some(_) | None => Ok(true),
        }
    }

    /// A loss of power.
    pub(super) fn lose_unflushed(&mut self) {
        self.wal.truncate(self.wal.flushed());
        self.release_slots();
    }

    /// The server has ended: nobody streams from it.
    pub(super) fn release_slots(&mut self) {
        for slot in self.slots.values_mut() {
            slot.used_by = None;
        }
    }
}
