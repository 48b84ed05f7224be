//! PostgreSQL in a few lines: a history of timelines, a position, and a process that may or may not be there.

use std::time::Duration;

use pgward_core::cluster::{History, HistoryLine};
use pgward_core::decide::rewind::{ControlState, DivergenceFacts, LocalPosition, LocalRole};
use pgward_core::decide::view::{Control, DataDir, Facts};
use pgward_core::names::MemberName;
use pgward_core::sync::pick::Replication;
use pgward_core::time::BootInstant;
use pgward_core::wal::{Lsn, Timeline};

/// Length of a checkpoint record, and of the record that ends a recovery.
const RECORD: u64 = 0x70;

/// What a primary writes in one second.
const WRITES: u64 = 0x1000;

/// The write-ahead log of one data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wal {
    pub(crate) timeline: Timeline,
    /// Tells one timeline from another of the same number: two members that promote from the same past make two.
    pub(crate) branch: u64,
    /// Where earlier timelines ended.
    pub(crate) switches: Vec<Switch>,
    pub(crate) end: Lsn,
}

/// The end of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) timeline: Timeline,
    pub(crate) branch: u64,
    pub(crate) lsn: Lsn,
}

impl Wal {
    fn append(&mut self, bytes: u64) {
        self.end = Lsn(self.end.0 + bytes);
    }

    /// The lines of the history file.
    fn switch_points(&self) -> Vec<(Timeline, Lsn)> {
        self.switches.iter().map(|switch| (switch.timeline, switch.lsn)).collect()
    }

    /// True when `branch` is this timeline, or one that it descends from.
    pub(crate) fn knows(&self, branch: u64) -> bool {
        self.branch == branch || self.switches.iter().any(|switch| switch.branch == branch)
    }

    /// True when everything here is also in `source`: only then can it be streamed from there.
    pub(crate) fn is_part_of(&self, source: &Wal) -> bool {
        if self.branch == source.branch {
            return self.end <= source.end;
        }
        source.switches.iter().any(|switch| switch.branch == self.branch && self.end <= switch.lsn)
    }
}

/// A data directory.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    /// `None` while initdb has not come to its end.
    pub(crate) system_id: Option<String>,
    pub(crate) wal: Wal,
    pub(crate) state: ControlState,
    pub(crate) has_signal_file: bool,
    pub(crate) has_backup_label: bool,
    /// The last shutdown checkpoint: where it begins and where it ends.
    pub(crate) checkpoint: Option<(Lsn, Lsn)>,
    /// The control file knows the present timeline.
    pub(crate) is_checkpointed: bool,
}

impl Data {
    pub(crate) fn new(system_id: Option<String>) -> Data {
        Data {
            system_id,
            wal: Wal { timeline: Timeline::FIRST, branch: 0, switches: Vec::new(), end: Lsn(0x0300_0000) },
            state: ControlState::ShutDown,
            has_signal_file: false,
            has_backup_label: false,
            checkpoint: None,
            is_checkpointed: true,
        }
    }

    fn write_shutdown_checkpoint(&mut self) {
        let begin = self.wal.end;
        self.wal.append(RECORD);
        self.checkpoint = Some((begin, self.wal.end));
        self.state = ControlState::ShutDown;
        self.is_checkpointed = true;
    }

    /// Single-user mode: replays what there is and stops in order.
    pub(crate) fn recover(&mut self) {
        self.has_signal_file = false;
        self.write_shutdown_checkpoint();
    }

    /// A base backup of it, or what a rewind makes of another directory.
    pub(crate) fn copied(&self, state: ControlState) -> Data {
        Data { state, has_signal_file: false, has_backup_label: true, checkpoint: None, ..self.clone() }
    }
}

/// A running postmaster.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Tells it from those before it.
    pub(crate) id: u64,
    pub(crate) in_recovery: bool,
    pub(crate) accepts_at: BootInstant,
    pub(crate) announced: bool,
    pub(crate) upstream: Option<MemberName>,
    pub(crate) is_streaming: bool,
    /// `synchronous_standby_names`.
    pub(crate) standby_names: String,
    pub(crate) promotes_at: Option<BootInstant>,
    /// A kill is under way and takes effect then.
    pub(crate) dies_at: Option<BootInstant>,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Fast,
    Immediate,
}

/// PostgreSQL on one machine.
pub(crate) struct Postgres {
    pub(crate) data: Option<Data>,
    pub(crate) process: Option<Process>,
    /// How long a start takes until connections are accepted, crash recovery included.
    pub(crate) start_time: Duration,
    /// Every start fails.
    pub(crate) refuses_to_start: bool,
    spawned: u64,
}

impl Postgres {
    pub(crate) fn new() -> Self {
        Postgres {
            data: None,
            process: None,
            start_time: Duration::from_millis(400),
            refuses_to_start: false,
            spawned: 0,
        }
    }

    pub(crate) fn accepts(&self, now: BootInstant) -> bool {
        self.process.as_ref().is_some_and(|process| process.accepts_at <= now)
    }

    /// Clients can commit.
    pub(crate) fn is_writable(&self, now: BootInstant) -> bool {
        self.accepts(now) && self.process.as_ref().is_some_and(|process| !process.in_recovery)
    }

    /// A standby that answers.
    pub(crate) fn is_replica(&self, now: BootInstant) -> bool {
        self.accepts(now) && self.process.as_ref().is_some_and(|process| process.in_recovery)
    }

    fn spawn(&mut self, now: BootInstant, in_recovery: bool, upstream: Option<MemberName>) -> Option<u64> {
        if self.refuses_to_start || self.process.is_some() {
            return None;
        }
        let data = self.data.as_mut()?;
        data.has_signal_file = in_recovery;
        data.has_backup_label = false;
        data.state = if in_recovery { ControlState::InArchiveRecovery } else { ControlState::InProduction };
        self.spawned += 1;
        self.process = Some(Process {
            id: self.spawned,
            in_recovery,
            accepts_at: now + self.start_time,
            announced: false,
            upstream,
            is_streaming: false,
            standby_names: String::new(),
            promotes_at: None,
            dies_at: None,
        });
        Some(self.spawned)
    }

    pub(crate) fn start_primary(&mut self, now: BootInstant) -> Option<u64> {
        self.spawn(now, false, None)
    }

    pub(crate) fn start_standby(&mut self, now: BootInstant, upstream: Option<MemberName>) -> Option<u64> {
        self.spawn(now, true, upstream)
    }

    /// Everything of it is gone; the control data stay as they were.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it. Returns where the shutdown checkpoint of a primary begins.
    pub(crate) fn stop(&mut self, how: Stop, now: BootInstant) -> Option<Lsn> {
        let was_accepting = self.accepts(now);
        let process = self.process.take()?;
        let data = self.data.as_mut()?;
        if how == Stop::Immediate || !was_accepting {
            return None;
        }
        if process.in_recovery {
            data.state = ControlState::ShutDownInRecovery;
            return None;
        }
        data.write_shutdown_checkpoint();
        data.checkpoint.map(|(begin, _)| begin)
    }

    /// Recovery ends on a new timeline.
    pub(crate) fn become_primary(&mut self, branch: u64) {
        let (Some(process), Some(data)) = (&mut self.process, &mut self.data) else { return };
        process.in_recovery = false;
        process.promotes_at = None;
        process.is_streaming = false;
        let wal = &mut data.wal;
        wal.switches.push(Switch { timeline: wal.timeline, branch: wal.branch, lsn: wal.end });
        wal.timeline = wal.timeline.next();
        wal.branch = branch;
        data.wal.append(RECORD);
        data.state = ControlState::InProduction;
        data.has_signal_file = false;
        data.is_checkpointed = false;
    }

    /// One second of work of its clients.
    pub(crate) fn write(&mut self) {
        if let Some(data) = &mut self.data {
            data.wal.append(WRITES);
        }
    }

    pub(crate) fn data_dir(&self) -> DataDir {
        match &self.data {
            None => DataDir::Empty,
            Some(data) => DataDir::Present { system_id: data.system_id.clone() },
        }
    }

    pub(crate) fn control(&self) -> Option<Control> {
        let data = self.data.as_ref()?;
        Some(Control {
            state: data.state,
            rewind_possible: true,
            has_signal_file: data.has_signal_file,
            has_backup_label: data.has_backup_label,
            checkpoint: data.checkpoint.map(|(begin, _)| begin),
        })
    }

    pub(crate) fn facts(&self, now: BootInstant) -> Option<Facts> {
        if !self.accepts(now) {
            return None;
        }
        let (process, data) = (self.process.as_ref()?, self.data.as_ref()?);
        let line = |switch: &Switch| HistoryLine {
            timeline: switch.timeline,
            lsn: switch.lsn,
            reason: "no recovery target specified".to_owned(),
            timestamp: Some("2026-11-21T00:00:00.000000+00:00".to_owned()),
            new_leader: None,
        };
        let lines: Vec<HistoryLine> = data.wal.switches.iter().map(line).collect();
        Some(Facts {
            in_recovery: process.in_recovery,
            position: data.wal.end,
            replayed: data.wal.end,
            timeline: Some(data.wal.timeline),
            streaming: process.is_streaming,
            replay_paused: false,
            history: (!process.in_recovery && !lines.is_empty()).then_some(History { lines }),
            replication: Replication { loaded: process.standby_names.clone(), ..Replication::default() },
            checkpointed: data.is_checkpointed,
        })
    }

    /// RWD-4: where the own history ends.
    pub(crate) fn local_position(&self, now: BootInstant) -> Option<LocalPosition> {
        let data = self.data.as_ref()?;
        let standby = LocalPosition { timeline: data.wal.timeline, lsn: data.wal.end, was: LocalRole::Standby };
        if self.is_replica(now) {
            return Some(standby);
        }
        match data.state {
            ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery => Some(standby),
            ControlState::ShutDown => {
                let (begin, end) = data.checkpoint?;
                let was = LocalRole::FormerPrimary { checkpoint_end: Some(end) };
                Some(LocalPosition { lsn: begin, was, ..standby })
            }
            ControlState::ShuttingDown
            | ControlState::InCrashRecovery
            | ControlState::InProduction
            | ControlState::Other => None,
        }
    }

    /// What a comparison with `leader` finds (RWD-3).
    pub(crate) fn compare(&self, leader: Option<&Postgres>, now: BootInstant) -> DivergenceFacts {
        let Some(local) = self.local_position(now) else {
            return DivergenceFacts::LocalUnknown("the control data tell no position".to_owned());
        };
        match leader.filter(|leader| leader.is_writable(now)).and_then(|leader| leader.data.as_ref()) {
            Some(data) => DivergenceFacts::Known {
                local,
                local_history: self.data.as_ref().map(|own| own.wal.switch_points()),
                leader_timeline: data.wal.timeline,
                leader_history: data.wal.switch_points(),
            },
            None => DivergenceFacts::LeaderNotReady("not reachable as a primary".to_owned()),
        }
    }
}
