//! The processes of one server, as far as others can see them.

use std::collections::BTreeMap;

use pgward_core::names::MemberName;
use pgward_core::wal::{Lsn, Timeline};
use tokio::time::Instant;

use super::disk::Upstream;
use super::signal::Signal;

/// How the server was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Sessions end, a checkpoint is written.
    Fast,
    /// Everything ends at once.
    Immediate,
}

/// A standby's connection to its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receiver {
    /// The timeline that it receives.
    pub timeline: Timeline,
    /// How far the upstream was when it was last heard of.
    pub latest_end: Lsn,
}

/// A connection that streams from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Walsender {
    /// Who receives.
    pub member: MemberName,
    /// What has been flushed there.
    pub flushed: Lsn,
}

/// One run of the server: its postmaster and what it has started.
#[derive(Debug)]
pub(super) struct Process {
    pub pid: i32,
    pub start_ticks: u64,
    pub started_at: Instant,
    /// The postmaster lives. Backends may outlive it.
    pub has_postmaster: bool,
    /// SIGKILL was sent, and is carried out when the processes leave the kernel.
    pub is_killed: bool,
    /// Stopped by SIGSTOP, or with the whole machine.
    pub is_frozen: bool,
    /// New connections are let in.
    pub is_accepting: bool,
    pub is_in_recovery: bool,
    /// The WAL that was here at the start is replayed.
    pub has_recovered: bool,
    /// WAL is archived: a stop ends its segment.
    pub archives: bool,
    /// When the last checkpoint was written.
    pub checkpointed_at: Instant,
    /// Promote was issued.
    pub is_promoting: bool,
    /// Backends exist, or may exist at any moment, that can commit when the server is not in recovery.
    pub has_sessions: bool,
    pub stop: Option<Stop>,
    pub replayed: Lsn,
    /// What the receiver has flushed since the start, if it ever ran.
    pub received: Option<Lsn>,
    pub receiver: Option<Receiver>,
    /// In force, which is not always what the files say.
    pub upstream: Option<Upstream>,
    pub walsenders: BTreeMap<u64, Walsender>,
    /// Tells those who wait for its end.
    pub exit: Signal,
}

impl Process {
    pub(super) fn new(pid: i32, start_ticks: u64, is_standby: bool, archives: bool) -> Process {
        Process {
            pid,
            start_ticks,
            started_at: Instant::now(),
            has_postmaster: true,
            is_killed: false,
            is_frozen: false,
            is_accepting: false,
            is_in_recovery: is_standby,
            has_recovered: false,
            archives,
            checkpointed_at: Instant::now(),
            is_promoting: false,
            has_sessions: false,
            stop: None,
            replayed: Lsn::INVALID,
            received: None,
            receiver: None,
            upstream: None,
            walsenders: BTreeMap::new(),
            exit: Signal::default(),
        }
    }

    /// A client could get a success for a commit now.
    pub(super) fn is_writable(&self) -> bool {
        self.has_sessions && !self.is_in_recovery && !self.is_frozen && !self.is_killed
    }

    /// A new connection gets a session.
    pub(super) fn lets_in(&self) -> bool {
        self.has_postmaster && self.is_accepting && self.stop.is_none() && !self.is_killed
    }

    /// The one that a member's agent holds on to.
    pub(super) fn postmaster(&self) -> ModelPostmaster {
        ModelPostmaster { pid: self.pid, start_ticks: self.start_ticks, exit: self.exit.clone() }
    }
}

/// The main process of a simulated server.
#[derive(Clone, Debug)]
pub struct ModelPostmaster {
    pid: i32,
    start_ticks: u64,
    exit: Signal,
}

impl PartialEq for ModelPostmaster {
    fn eq(&self, other: &Self) -> bool {
        (self.pid, self.start_ticks) == (other.pid, other.start_ticks)
    }
}

impl pgward_agent::server::Postmaster for ModelPostmaster {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    fn is_alive(&self) -> bool {
        !self.exit.is_raised()
    }

    async fn exited(&self) {
        self.exit.raised().await;
    }
}
