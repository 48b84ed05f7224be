//! What a decision sees: one frozen picture of the store, PostgreSQL, the lease and time.
//!
//! What could not be observed is a value too, never an error on the way: an error would skip the decision on the very
//! day it matters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Cluster, History, MemberRole, PostgresState, Revision};
use crate::config::SynchronousMode;
use crate::names::MemberName;
use crate::sync::pick::Replication;
use crate::sync::{Method, Wanted};
use crate::time::{BootInstant, WallTime, demote_deadline, lease_end};
use crate::wal::{Lsn, Timeline};

use super::failsafe::{Consent, Failsafe};
use super::operator::Request;
use super::peers::PeerPoll;
use super::rewind::{ControlState, DivergenceFacts};
use super::slots::LogicalSlot;

/// Everything one decision depends on, apart from [`super::Memory`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// When this was observed.
    pub now: BootInstant,
    /// The same instant by the wall clock: for schedules only (INV-S27).
    pub wall: WallTime,
    /// This member.
    pub me: MemberName,
    /// This member's tags.
    pub tags: OwnTags,
    /// True when the local file has a `bootstrap` section: only such members create a cluster (BOO-1).
    pub may_bootstrap: bool,
    /// The dynamic configuration in force.
    pub settings: Settings,
    /// The cluster as the store tells it.
    pub store: Store,
    /// What this member can prove about the leader key.
    pub lease: Lease,
    /// The data directory.
    pub data_dir: DataDir,
    /// The local server.
    pub postgres: Postgres,
    /// The long action under way, if any. At most one runs at a time (ASY-7).
    pub action: Option<RunningAction>,
    /// Actions that ended since the last decision, in their order.
    pub finished: Vec<Finished>,
    /// What an operator has asked this member for and no decision has answered yet.
    #[serde(default)]
    pub request: Option<Request>,
    /// Answers of other members, when the last decision asked for them.
    pub poll: Option<PeerPoll>,
    /// Who agreed to what while the store is away.
    #[serde(default)]
    pub failsafe: Failsafe,
    /// A watchdog is required, and why it cannot be had (WDG-7).
    #[serde(default)]
    pub watchdog_failure: Option<String>,
}

impl View {
    /// When a primary that neither the store nor the other members confirm any more has to begin to stop: by the lease, or
    /// by the consent that came after it (DCSF-4).
    pub fn demote_at(&self) -> Option<BootInstant> {
        let by_lease = self.lease.demote_at()?;
        let by_consent = self.failsafe.consent.map(Consent::demote_at);
        Some(by_consent.map_or(by_lease, |by_consent| by_consent.max(by_lease)))
    }
}

/// Tags of this member that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct OwnTags {
    /// Never becomes primary on its own (IN-T1, with `failover_priority` taken into account).
    pub nofailover: bool,
    /// The effective `failover_priority` (IN-T2).
    pub failover_priority: i64,
    /// The member to stream from instead of the leader.
    pub replicatefrom: Option<String>,
    /// Does not stream at all.
    pub nostream: bool,
}

/// The dynamic configuration as far as decisions depend on it (IN-C).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// Length of the leader lease.
    pub ttl: Duration,
    /// The tick of the cycle.
    pub loop_wait: Duration,
    /// Budget of one store or PostgreSQL operation.
    pub retry_timeout: Duration,
    /// How far behind the last known leader position a candidate may be, in bytes.
    pub maximum_lag_on_failover: u64,
    /// Whether a candidate must be on the newest known timeline.
    pub check_timeline: bool,
    /// How long a primary may take to start before others are asked to take over; zero means at once.
    pub primary_start_timeout: Duration,
    /// How long the race waits while WAL still arrives from a silent primary; zero means it does not.
    pub primary_race_backoff: Duration,
    /// Maintenance mode.
    pub paused: bool,
    /// Synchronous replication (IN-C11…14).
    #[serde(default)]
    pub sync: SyncSettings,
    /// This is a standby cluster, where nobody may ever be writable (INV-S25).
    pub standby_cluster: bool,
    /// A primary without the store may go on while all others agree (FS-1).
    pub failsafe_mode: bool,
    /// `use_pg_rewind`.
    pub use_pg_rewind: bool,
    /// `remove_data_directory_on_rewind_failure`.
    pub wipe_on_rewind_failure: bool,
    /// `remove_data_directory_on_diverged_timelines`.
    pub wipe_on_divergence: bool,
}

/// Synchronous replication as asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct SyncSettings {
    /// `synchronous_mode`.
    pub mode: SynchronousMode,
    /// `synchronous_mode_strict`: rather block commits than go on without a standby.
    pub strict: bool,
    /// `synchronous_node_count`; at least 1.
    pub count: u32,
    /// `maximum_lag_on_syncnode`, in bytes; `None` is no limit.
    pub lag_bytes_max: Option<u64>,
    /// The user's own `synchronous_standby_names`, which count while the mode is off.
    pub own: String,
}

impl Default for SyncSettings {
    fn default() -> Self {
        SyncSettings { mode: SynchronousMode::Off, strict: false, count: 1, lag_bytes_max: None, own: String::new() }
    }
}

impl SyncSettings {
    /// How standbys are chosen from; `None` while the mode is off.
    pub fn method(&self) -> Option<Method> {
        match self.mode {
            SynchronousMode::Off => None,
            SynchronousMode::On => Some(Method::Priority),
            SynchronousMode::Quorum => Some(Method::Quorum),
        }
    }

    /// How many standbys there have to be.
    pub fn wanted(&self) -> Wanted {
        Wanted { count: self.count.max(1), strict: self.strict }
    }
}

/// What the store says, as far as it can be known now.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Store {
    /// The cluster, confirmed recently enough to decide on.
    Current(#[serde(with = "crate::cluster::shared")] Arc<Cluster>),
    /// The store did not answer (IN-D11): "unknown", which is not "no".
    Lost {
        /// Why, in words.
        error: String,
    },
}

/// What this member can prove about the leader key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Lease {
    /// Never held by this process, or released by it.
    None,
    /// The last renewal that the store confirmed. It may have run out meanwhile: see [`Lease::is_exclusive`].
    Held {
        /// Just before that renewal was sent (TIM-4).
        sent: BootInstant,
        /// The length that the store granted.
        ttl: Duration,
        /// The create revision of the leader key: the epoch of this leadership.
        epoch: Revision,
    },
    /// The store proved that the key is not ours any more (DCS-2). `seen` is the revision of that proof.
    NotOurs {
        /// Who holds it, when somebody does.
        holder: Option<MemberName>,
    },
}

impl Lease {
    /// True while no other member can have been granted the lease (TIM-5).
    pub fn is_exclusive(&self, now: BootInstant) -> bool {
        match self {
            Lease::Held { sent, ttl, .. } => now < lease_end(*sent, *ttl),
            Lease::None | Lease::NotOurs { .. } => false,
        }
    }

    /// True while enough of the lease is left to serve and, at its end, to stop in order.
    pub fn is_safe(&self, now: BootInstant) -> bool {
        self.demote_at().is_some_and(|deadline| now < deadline)
    }

    /// When a primary that cannot renew has to begin stopping.
    pub fn demote_at(&self) -> Option<BootInstant> {
        match self {
            Lease::Held { sent, ttl, .. } => Some(demote_deadline(*sent, *ttl)),
            Lease::None | Lease::NotOurs { .. } => None,
        }
    }
}

/// The data directory (IN-P9).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DataDir {
    /// Nothing in it.
    Empty,
    /// It could not be looked at; this never counts as empty (pitfall: a vanished mount).
    Inaccessible {
        /// Why, in words.
        problem: String,
    },
    /// There is a cluster in it.
    Present {
        /// The system identifier, when the control data could be read and it is valid.
        system_id: Option<String>,
    },
}

/// The local server.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Postgres {
    /// What it is doing. `Starting` only while a postmaster is alive and does not accept connections yet.
    pub state: PostgresState,
    /// The role it had when it was last asked (IN-P2).
    pub role: MemberRole,
    /// A postmaster of this data directory is alive.
    pub alive: bool,
    /// When the present start began, while it has not ended.
    pub starting_since: Option<BootInstant>,
    /// What it answered in this cycle; `None` when it did not (IN-P4).
    pub facts: Option<Facts>,
    /// Control data, read when no server runs.
    pub control: Option<Control>,
    /// True when this agent has started it, or has managed it for a cycle already (DIR-8).
    pub managed: bool,
    /// How the running recovery settings differ from those for the upstream that [`super::follow::upstream`] names.
    pub recovery: RecoveryDiff,
    /// Logical slots that this standby lacks and the primary has (SLT-8).
    #[serde(default)]
    pub lacks_slots: BTreeMap<String, LogicalSlot>,
}

impl Postgres {
    /// True when it is, or must be taken for, a server that accepts writes.
    ///
    /// Without an answer the cached role counts (IN-P4). One that was told to promote counts whatever it answers: it
    /// will accept writes at any moment, and nothing but a stop keeps it from that (ASY-9).
    pub fn is_primary(&self) -> bool {
        match &self.facts {
            Some(facts) => !facts.in_recovery || self.role == MemberRole::Promoted,
            None => self.alive && matches!(self.role, MemberRole::Primary | MemberRole::Promoted),
        }
    }

    /// True when a server runs and accepts connections.
    pub fn is_running(&self) -> bool {
        self.alive && self.state == PostgresState::Running
    }

    /// The position a race compares: the larger of received and replayed, or the flush position of a primary (IN-P5).
    pub fn position(&self) -> Option<Lsn> {
        self.facts.as_ref().map(|facts| facts.position)
    }
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// Flush position of a primary; the larger of received and replayed of a replica (IN-P5).
    pub position: Lsn,
    /// Replayed position of a replica.
    pub replayed: Lsn,
    /// The timeline, when known (IN-P6).
    pub timeline: Option<Timeline>,
    /// A WAL receiver is streaming.
    pub streaming: bool,
    /// Replay is paused (FOL-7).
    pub replay_paused: bool,
    /// The local history file of the present timeline, when the store's `history` does not reach it yet (HIS-1).
    pub history: Option<History>,
    /// Who streams from here, and whom commits wait for (IN-P10).
    #[serde(default)]
    pub replication: Replication,
    /// The control file's timeline is the present one: no checkpoint is due after a promotion (RWD-15).
    pub checkpointed: bool,
}

/// Control data of a server that is down (IN-P8).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Control {
    /// Cluster state.
    pub state: ControlState,
    /// `wal_log_hints` or data checksums are on: pg_rewind is possible (RWD-1).
    pub rewind_possible: bool,
    /// `standby.signal` or `recovery.signal` exists.
    pub has_signal_file: bool,
    /// `backup_label` exists: the directory is a copy that was not started yet (REC-5).
    pub has_backup_label: bool,
    /// Location of the latest checkpoint.
    pub checkpoint: Option<Lsn>,
}

/// How running recovery settings differ from wanted ones (FOL-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RecoveryDiff {
    /// Not compared: no server, or not a standby.
    Unknown,
    /// Nothing to do.
    Same,
    /// A reload is enough.
    Reload,
    /// Needs a restart.
    Restart,
}

/// A long action under way.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunningAction {
    /// Which one.
    pub kind: ActionKind,
    /// When it began.
    pub since: BootInstant,
    /// The part that can be cancelled without a trace is over (IN-A).
    pub committed: bool,
    /// It was asked to stop.
    pub cancelled: bool,
}

/// The long actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ActionKind {
    /// Creating a new cluster.
    Bootstrap,
    /// Copying a member.
    Clone,
    /// Starting the server, as primary after a crash or as a standby.
    Start,
    /// Promoting the server.
    Promote,
    /// Stepping down.
    Demote,
    /// Stopping a server that must not run.
    Stop,
    /// Recovering a crashed server in single-user mode.
    CrashRecovery,
    /// Comparing histories with the leader.
    CheckDivergence,
    /// Rewinding.
    Rewind,
    /// Restarting to follow another upstream.
    ChangeUpstream,
    /// Restarting because an operator asked for it.
    Restart,
    /// The checkpoint after a promotion.
    Checkpoint,
    /// Copying logical slots from the primary, which needs a restart.
    CopySlots,
}

impl std::fmt::Display for ActionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ActionKind::Bootstrap => "bootstrap",
            ActionKind::Clone => "clone",
            ActionKind::Start => "start",
            ActionKind::Promote => "promote",
            ActionKind::Demote => "demote",
            ActionKind::Stop => "stop",
            ActionKind::CrashRecovery => "crash recovery",
            ActionKind::CheckDivergence => "divergence check",
            ActionKind::Rewind => "rewind",
            ActionKind::ChangeUpstream => "change of upstream",
            ActionKind::Restart => "restart",
            ActionKind::Checkpoint => "checkpoint",
            ActionKind::CopySlots => "copy of logical slots",
        })
    }
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Finished {
    /// Which one.
    pub kind: ActionKind,
    /// What came of it.
    pub outcome: Outcome,
}

/// The result of an action.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// It did what it was for.
    Done,
    /// It did not; the text holds the output of what failed.
    Failed(String),
    /// It was cancelled before it changed anything.
    Cancelled,
    /// A pre-promote script refused (PRO-3).
    Refused(String),
    /// What a divergence check found.
    Divergence(Box<DivergenceFacts>),
    /// A failed rewind after which the leader was not reachable: try again (RWD-11).
    SourceLost(String),
}

/// Helps tests and tools to name members.
pub type MemberMap<T> = BTreeMap<MemberName, T>;
