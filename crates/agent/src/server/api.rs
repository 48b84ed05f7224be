//! The local server as the rest of the agent knows it.
//!
//! [`super::LocalServer`] is PostgreSQL; the simulator has a model of it. One trait for each side of the work, so that each
//! is implemented in one place; [`Server`] is all of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use pgward_core::cluster::{Cluster, Member, MemberRole};
use pgward_core::config::DynamicConfig;
use pgward_core::decide::rewind::DivergenceFacts;
use pgward_core::decide::slots::standby::SlotParameters;
use pgward_core::decide::slots::{LogicalSlot, Slots};
use pgward_core::sync::pick::Replication;
use pgward_core::wal::{Lsn, Timeline};
pub use pgward_postgres::SlotCopy;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::look::{Look, Seen};
use crate::local::Local;
use crate::rest::view::ServerFacts;

/// Why an operation on the local server failed, with the output of what failed.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An operation of `pgward_postgres`.
    #[error(transparent)]
    Postgres(#[from] pgward_postgres::Error),
    /// A statement.
    #[error(transparent)]
    Sql(#[from] pgward_postgres::SqlError),
    /// The server did not start.
    #[error("PostgreSQL did not start: {0}")]
    DidNotStart(String),
    /// The member cannot be used for this.
    #[error("{0}")]
    Unusable(String),
    /// It cannot be used for this yet: try again.
    #[error("{0}")]
    NotReady(String),
    /// What is there is not ours to change.
    #[error("{0}")]
    NotOurs(String),
}

/// What the configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Diverged members are rewound.
    pub use_pg_rewind: bool,
    /// A failed rewind may end in a new copy.
    pub wipe_on_rewind_failure: bool,
    /// A divergence that cannot be rewound may end in a new copy.
    pub wipe_on_divergence: bool,
    /// Members have replication slots.
    pub use_slots: bool,
}

/// How to stop the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopHow {
    /// A checkpoint while clients still work, then a fast stop.
    FastWithCheckpoint,
    /// A fast stop.
    Fast,
    /// An immediate stop.
    Immediate,
}

/// What a stop left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The position to publish, after a stop in order of a primary.
    pub published: Option<Lsn>,
}

/// The last record of a primary that stops: no session exists from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Where the shutdown checkpoint is: what a replica must have received to be promoted without loss.
    pub checkpoint: Lsn,
    /// The position to publish: before a segment switch that only archiving caused (STS-3).
    pub published: Lsn,
}

/// The main process of a server. Equal when it is the same process, never by number alone.
pub trait Postmaster: Clone + PartialEq + Send + Sync + 'static {
    /// The process number.
    fn pid(&self) -> i32;
    /// When it started, in clock ticks since boot.
    fn start_ticks(&self) -> u64;
    /// False from the moment it ended.
    fn is_alive(&self) -> bool;
    /// Resolves the moment it ends.
    fn exited(&self) -> impl Future<Output = ()> + Send;
}

/// What the configuration says of the server.
pub trait ServerSettings: Clone + Send + Sync + 'static {
    /// Its main process.
    type Postmaster: Postmaster;

    /// Takes over a changed dynamic configuration. Returns whether it changes anything for PostgreSQL.
    fn set_dynamic(&self, dynamic: &DynamicConfig) -> bool;
    /// Takes over the parameters that slots ask for. Returns whether they have changed (SLT-7, SLT-10).
    fn set_slot_parameters(&self, parameters: SlotParameters) -> bool;
    /// Keeps the dynamic configuration beside the data: what counts when the store has lost it (IN-D2).
    fn keep_dynamic(&self, document: &Map<String, Value>);
    /// The user's own `synchronous_standby_names`.
    fn own_standby_names(&self) -> String;
    /// What the configuration allows.
    fn policy(&self) -> Policy;
    /// `postgres://host:port/database`, as published.
    fn conn_url(&self) -> &str;
    /// The REST address, as published.
    fn api_url(&self) -> &str;
    /// The address of a proxy in front of this member, as published.
    fn proxy_url(&self) -> Option<&str>;
    /// Parameters that wait for a restart, as published.
    fn pending_restart(&self) -> Map<String, Value>;
}

/// Looking at the server.
pub trait ServerSight: ServerSettings {
    /// The role that the data directory suggests, before anything is known.
    fn role_at_start(&self) -> MemberRole;
    /// Looks once. Never fails: what could not be seen is a value.
    fn look(&self, local: &Local<Self::Postmaster>, look: &Look)
    -> impl Future<Output = Seen<Self::Postmaster>> + Send;
    /// Resolves when standbys have come or gone since `before`, or count for something else. Can be dropped.
    fn standbys_change(&self, before: &Replication) -> impl Future<Output = ()> + Send;
    /// The facts for REST, asked anew: peers compare positions with them. `None` when the server does not answer.
    fn fresh_facts(&self, leader_timeline: Option<Timeline>) -> impl Future<Output = Option<ServerFacts>> + Send;
    /// Resolves when a starting server accepts connections or has ended. Never, when none is starting. Can be dropped.
    fn becomes_ready(&self, starting: Option<Self::Postmaster>) -> impl Future<Output = ()> + Send;
    /// DEM-12: false only when it is certain that the server accepts no writes.
    fn may_be_writable(&self, local: &Local<Self::Postmaster>) -> impl Future<Output = bool> + Send;
    /// The last lines that the server wrote.
    fn output_tail(&self) -> String;
    /// The system identifier of the data directory.
    fn system_id(&self) -> impl Future<Output = Result<String, ServerError>> + Send;
    /// True when members have come or gone since the slots were made.
    fn slots_are_for_others(&self, cluster: &Cluster) -> bool;
}

/// Starting, stopping, promoting, copying.
pub trait ServerControl: ServerSettings {
    /// Says before a start what PostgreSQL would only say in its own log: that its port is taken.
    fn check_port(&self) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Starts the server as primary. The caller holds the lease, or is creating a cluster that nobody knows yet.
    fn start_primary(&self) -> impl Future<Output = Result<Self::Postmaster, ServerError>> + Send;
    /// Starts the server as a standby.
    fn start_standby(
        &self,
        upstream: Option<&Member>,
    ) -> impl Future<Output = Result<Self::Postmaster, ServerError>> + Send;
    /// Waits until the server accepts connections.
    fn wait_accepting(&self, postmaster: &Self::Postmaster) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Stops the server and proves that it has ended. `limit` makes a fast stop an immediate one. `announce` is told when
    /// the shutdown checkpoint is written, while a slow archive may still keep the postmaster.
    ///
    /// The server that was seen last counts too: its pid file may have vanished with the data directory, and it goes on
    /// to accept writes without either (DIR-1).
    fn stop(
        &self,
        local: &Local<Self::Postmaster>,
        how: StopHow,
        limit: Option<Duration>,
        announce: Option<oneshot::Sender<LastRecord>>,
    ) -> impl Future<Output = Result<Stopped, ServerError>> + Send;
    /// Ends what is left of a server whose postmaster has died: a backend in the middle of a statement can still commit.
    fn end_leftovers(&self) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Asks the server to become primary, and returns at once (PRO-7).
    fn promote(&self) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Waits until it is.
    fn wait_promoted(&self, limit: Duration) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// DEM-10: archives what a former primary has not archived yet, the segment of its shutdown checkpoint included. The
    /// server is down. Does nothing without an archive.
    fn archive_last_wal(&self) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Writes a checkpoint, however long it takes.
    fn checkpoint(&self) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Lets a paused replay go on.
    fn resume_replay(&self) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Points a running standby to another upstream, by a reload (FOL-10).
    fn reload_upstream(&self, upstream: Option<&Member>) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Lets commits wait for these standbys, `None`: for the user's own, and returns when the server has taken it over. One
    /// that is down takes it over when it starts.
    fn load_standby_names(&self, names: Option<&str>) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Writes the configuration of a running server anew and reloads it.
    fn apply_configuration(
        &self,
        upstream: Option<Option<&Member>>,
    ) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Copies a member into the data directory. Without `wipe` the directory must be empty (INV-S11).
    fn clone_from(
        &self,
        source: &Member,
        wipe: bool,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// initdb, with the options of the file.
    fn initdb(&self, cancel: &CancellationToken) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// BOO-10: roles, and the script of the user.
    fn post_bootstrap(&self, cancel: &CancellationToken) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// BOO-8: renames the data directory to `….failed`.
    fn move_aside(&self) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Brings the slots in line: creates what is missing, drops what nobody needs, moves unused ones forward (SLT-2…8).
    /// Slots in use are left alone; what takes long is done beside the cycle.
    fn sync_slots(&self, cluster: &Cluster, slots: &Slots) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Reads logical slots of a primary, to be installed here. Only such that this server has the WAL for (SLT-8).
    fn fetch_slots(
        &self,
        source: &Member,
        slots: &BTreeMap<String, LogicalSlot>,
    ) -> impl Future<Output = Result<Vec<SlotCopy>, ServerError>> + Send;
    /// Writes them. The server is down.
    fn install_slots(&self, copies: &[SlotCopy]) -> impl Future<Output = Result<(), ServerError>> + Send;
}

/// Coming back after a change of leader.
pub trait ServerRejoin: ServerSettings {
    /// Collects what tells whether this server has left the leader's history (RWD-3, RWD-4). What cannot be known is
    /// said, never guessed.
    fn divergence_facts(&self, leader: &Member) -> impl Future<Output = DivergenceFacts> + Send;
    /// Recovers a server that was not stopped in order, without letting anybody in (REC-13).
    fn crash_recover(&self, cancel: &CancellationToken) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Rewinds from a primary that has made its checkpoint (RWD-9). The server is down.
    fn rewind(
        &self,
        source: &Member,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// RWD-11: whether the source of a failed rewind is there and a primary.
    fn is_primary_reachable(&self, source: &Member) -> impl Future<Output = bool> + Send;
    /// RWD-1, RWD-11: the control data still allow a rewind.
    fn allows_rewind(&self) -> impl Future<Output = bool> + Send;
}

/// Everything that the agent asks of the local server.
pub trait Server: ServerSight + ServerControl + ServerRejoin {}

impl<T: ServerSight + ServerControl + ServerRejoin> Server for T {}
