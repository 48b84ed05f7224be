//! What can be wrong with one server and its disk. Everything is off by default, and may change while the server runs.

use std::time::Duration;

/// Faults in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A start takes this much longer (FLT-12).
    pub start_takes: Duration,
    /// How a start goes wrong.
    pub start: Option<StartFault>,
    /// What keeps a fast stop from coming to its end (FLT-13).
    pub stop_hangs_in: Option<StopHang>,
    /// The processes are in uninterruptible sleep: even SIGKILL ends them only afterwards (FLT-13).
    pub is_unkillable: bool,
    /// The end of recovery takes this much longer (FLT-14).
    pub promotion_takes: Duration,
    /// How a promotion goes wrong.
    pub promotion: Option<PromotionFault>,
    /// A checkpoint takes this much longer.
    pub checkpoint_takes: Duration,
    /// A rewind takes this much longer (FLT-15).
    pub rewind_takes: Duration,
    /// How a rewind goes wrong.
    pub rewind: Option<RewindFault>,
    /// A copy takes this much longer.
    pub clone_takes: Duration,
    /// Copies fail when they are nearly done.
    pub clone_fails: bool,
    /// Nothing is flushed: commits do not come to their end (FLT-16).
    pub is_flush_stalled: bool,
    /// The next write ends the server, and it does not start (FLT-16).
    pub is_disk_full: bool,
    /// The data directory cannot be looked at: its mount has vanished (FLT-16).
    pub is_data_dir_inaccessible: bool,
    /// The WAL receiver says that it streams, and writes nothing (FLT-17).
    pub is_receiver_stuck: bool,
    /// Replay is paused, until somebody lets it go on (FLT-17).
    pub is_replay_paused: bool,
    /// Statements of the monitoring are not answered in time (FLT-18).
    pub is_monitoring_silent: bool,
    /// Programs such as pg_rewind go on when the agent that started them is killed.
    pub do_tools_outlive_agent: bool,
}

/// How a start goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFault {
    /// The server ends before it accepts connections.
    Fails,
    /// It runs and rejects connections.
    Rejects,
}

/// Where a fast stop hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopHang {
    /// In the shutdown checkpoint: no session exists any more, and the last record is not written.
    Checkpoint,
    /// In a walsender, after the last record is written.
    Walsender,
    /// In archiving, after the last record is written.
    Archiving,
}

/// How a promotion goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromotionFault {
    /// It cannot even be asked for.
    Refused,
    /// The server ends before the new timeline exists.
    DiesBefore,
    /// The server ends after the new timeline exists, and before anybody was let in to write.
    DiesAfter,
}

/// How a rewind goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewindFault {
    /// Before anything was changed.
    Fails,
    /// After files were replaced: nothing can be started from what is left.
    FailsHalfWay,
    /// Half-way, with the control file unreadable besides.
    LosesControlFile,
    /// The WAL since the common ancestor is gone.
    WalMissing,
}
