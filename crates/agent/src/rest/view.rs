//! What the documents are made of.

use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, MemberRole, PostgresState};
pub use pgward_core::config::SynchronousMode;
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use pgward_core::wal::{Lsn, Timeline};
use serde_json::{Map, Value};

/// Everything about this member that REST answers show, at one instant.
///
/// The agent's loop publishes it through a `tokio::sync::watch` channel. It should do so whenever one of the fields
/// changes, at least once in each cycle, and at once when the cluster in the store changes, because callers of a
/// switchover wait for exactly that.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The name of this member.
    pub name: MemberName,
    /// The name of the cluster.
    pub scope: String,
    /// The version that is published, as dotted integers: of the interface, not of this program.
    pub version: String,
    /// What PostgreSQL is doing.
    pub state: PostgresState,
    /// The role that the agent believes its PostgreSQL to have.
    pub role: MemberRole,
    /// What PostgreSQL answered last; `None` when it did not answer the last time it was asked.
    pub server: Option<ServerFacts>,
    /// Until when nobody else can hold the leader key; `None` when this member does not hold it.
    pub lease_until: Option<BootInstant>,
    /// The cluster as last read; `None` when the last read failed or is older than `ttl`.
    pub cluster: Option<Arc<Cluster>>,
    /// When the cluster was last read, in seconds since 1970; zero for never.
    pub dcs_last_seen: u64,
    /// Maintenance mode.
    pub paused: bool,
    /// The tags that are published: the configured ones without booleans that are off.
    pub tags: Map<String, Value>,
    /// The system identifier of the data directory, when known.
    pub system_id: Option<String>,
    /// Parameters whose new value waits for a restart, by name in order of detection.
    pub pending_restart: Vec<PendingRestart>,
    /// The accepted request of a scheduled restart.
    pub scheduled_restart: Option<Map<String, Value>>,
    /// The watchdog is required and does not work.
    pub watchdog_failed: bool,
    /// On a primary: it lives on the consent of the other members. On a replica: it gave its consent less than a `ttl`
    /// ago.
    pub failsafe_active: bool,
    /// The dynamic setting `failsafe_mode`.
    pub failsafe_mode: bool,
    /// The last known content of the `failsafe` key.
    pub failsafe: Option<Map<String, Value>>,
    /// When the next cycle is due.
    pub next_run: BootInstant,
    /// The dynamic setting `ttl`.
    pub ttl: Duration,
    /// The dynamic setting `loop_wait`.
    pub loop_wait: Duration,
    /// The dynamic setting `maximum_lag_on_failover`.
    pub lag_on_failover_bytes_max: u64,
    /// The dynamic setting `synchronous_mode`.
    pub synchronous: SynchronousMode,
    /// The dynamic setting `standby_cluster` makes this cluster follow another one.
    pub standby_cluster: bool,
    /// Members that are primary beside the holder of the leader key (SPL-1, SPL-2).
    pub split_brain: Vec<String>,
    /// How often that was seen since the agent was started.
    pub split_brains: u64,
    /// Why this member does not come back (RWD-12).
    pub problem: Option<String>,
}

/// What PostgreSQL said about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerFacts {
    /// `pg_postmaster_start_time()` as `YYYY-MM-DD HH:MM:SS.ffffff+00:00`.
    pub postmaster_start_time: String,
    /// `server_version_num`.
    pub server_version: u32,
    /// Where it is in the WAL.
    pub wal: WalPosition,
    /// Its timeline, when known.
    pub timeline: Option<Timeline>,
    /// How WAL arrives here; `None` on a primary and where it does not arrive.
    pub replication_state: Option<ReplicationState>,
    /// How far the sender was when the WAL receiver last heard of it. Used for lag, never published.
    pub latest_end_lsn: Option<Lsn>,
    /// Who streams from here.
    pub replication: Vec<Walsender>,
}

/// Where a server is in the WAL.
#[derive(Clone, Debug, PartialEq)]
pub enum WalPosition {
    /// Not in recovery.
    Primary {
        /// The flushed position.
        location: Lsn,
    },
    /// In recovery.
    Replica {
        /// Received, or replayed where nothing was received since the start.
        received: Lsn,
        /// Replayed.
        replayed: Lsn,
        /// The time of the last replayed commit, in the form of `postmaster_start_time`.
        replayed_timestamp: Option<String>,
        /// Replay is paused.
        paused: bool,
    },
}

/// How WAL arrives at a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationState {
    /// The WAL receiver streams.
    Streaming,
    /// It does not, but a restore command is set.
    InArchiveRecovery,
}

impl ReplicationState {
    /// The text that is published.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplicationState::Streaming => "streaming",
            ReplicationState::InArchiveRecovery => "in archive recovery",
        }
    }
}

/// One row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walsender {
    /// The user of the connection.
    pub usename: String,
    /// By convention the name of the member.
    pub application_name: String,
    /// `None` for a Unix socket.
    pub client_addr: Option<String>,
    /// Such as `streaming` or `catchup`.
    pub state: String,
    /// Such as `async`, `sync`, `quorum` or `potential`.
    pub sync_state: String,
    /// Zero when asynchronous.
    pub sync_priority: i64,
}

/// A parameter whose new value waits for a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRestart {
    /// The name of the parameter.
    pub parameter: String,
    /// The value in force, as text.
    pub old_value: String,
    /// The value that a restart brings, as text.
    pub new_value: String,
}

impl NodeView {
    /// A member that has seen nothing yet: what is served between the start and the first cycle.
    pub fn unseen(name: MemberName, scope: String, version: String) -> Self {
        NodeView {
            name,
            scope,
            version,
            state: PostgresState::Stopped,
            role: MemberRole::Uninitialized,
            server: None,
            lease_until: None,
            cluster: None,
            dcs_last_seen: 0,
            paused: false,
            tags: Map::new(),
            system_id: None,
            pending_restart: Vec::new(),
            scheduled_restart: None,
            watchdog_failed: false,
            failsafe_active: false,
            failsafe_mode: false,
            failsafe: None,
            next_run: BootInstant::default(),
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            lag_on_failover_bytes_max: 1024 * 1024,
            synchronous: SynchronousMode::Off,
            standby_cluster: false,
            split_brain: Vec::new(),
            split_brains: 0,
            problem: None,
        }
    }

    /// What PostgreSQL answered, unless it is in a state in which an answer cannot be of now.
    pub fn current_server(&self) -> Option<&ServerFacts> {
        match self.state {
            PostgresState::Running | PostgresState::Restarting | PostgresState::Starting => self.server.as_ref(),
            PostgresState::Initdb
            | PostgresState::InitdbFailed
            | PostgresState::CustomBootstrap
            | PostgresState::CustomBootstrapFailed
            | PostgresState::CreatingReplica
            | PostgresState::BootstrapStarting
            | PostgresState::StartFailed
            | PostgresState::RestartFailed
            | PostgresState::Stopping
            | PostgresState::Stopped
            | PostgresState::StopFailed
            | PostgresState::Crashed => None,
        }
    }

    /// The state that is published; `None` stands for `unknown`: it should be running, and did not answer.
    pub fn published_state(&self) -> Option<PostgresState> {
        let is_unknown = self.state == PostgresState::Running && self.server.is_none();
        (!is_unknown).then_some(self.state)
    }

    /// True when PostgreSQL runs and answers.
    pub fn is_running(&self) -> bool {
        self.published_state() == Some(PostgresState::Running)
    }

    /// The role that is published: that of the server when it answers, else the one the agent believes in.
    pub fn published_role(&self) -> MemberRole {
        match self.current_server().map(|server| &server.wal) {
            Some(WalPosition::Primary { .. }) => MemberRole::Primary,
            Some(WalPosition::Replica { .. }) if self.standby_cluster => self.role,
            Some(WalPosition::Replica { .. }) => MemberRole::Replica,
            None => self.role,
        }
    }

    /// True while this member holds the leader key and nobody else can be granted it.
    pub fn is_leader(&self, now: BootInstant) -> bool {
        self.lease_until.is_some_and(|until| now < until)
    }

    /// True when nobody holds the leader key, as far as is known.
    pub fn is_unlocked(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.is_unlocked())
    }

    /// True when the `/sync` key lists this member as a standby.
    pub fn is_listed_in_sync(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.sync.value.has_voter(self.name.as_str()))
    }
}
