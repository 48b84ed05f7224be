//! The `members/<name>` keys (IN-D5).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::LeaseId;
use crate::json::is_truthy;
use crate::names::MemberName;
use crate::wal::{Lsn, Timeline};

/// What PostgreSQL on a member is doing. The texts and their numbers are part of the interface (metrics, REST, store).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum PostgresState {
    /// initdb runs.
    Initdb = 0,
    /// initdb failed.
    InitdbFailed = 1,
    /// A custom bootstrap method runs.
    CustomBootstrap = 2,
    /// A custom bootstrap method failed.
    CustomBootstrapFailed = 3,
    /// A base backup or another replica method runs.
    CreatingReplica = 4,
    /// The server accepts connections.
    Running = 5,
    /// The postmaster is up and not yet accepting connections.
    Starting = 6,
    /// The same, after a custom bootstrap.
    BootstrapStarting = 7,
    /// The postmaster ended before it accepted connections.
    StartFailed = 8,
    /// A requested restart is under way.
    Restarting = 9,
    /// A requested restart failed.
    RestartFailed = 10,
    /// The server is being stopped.
    Stopping = 11,
    /// The server is down because it was asked to be.
    Stopped = 12,
    /// The server did not stop.
    StopFailed = 13,
    /// The postmaster ended without having been asked to.
    Crashed = 14,
}

impl PostgresState {
    /// All states in the order of their numbers.
    pub const ALL: [PostgresState; 15] = {
        use PostgresState::*;
        [
            Initdb,
            InitdbFailed,
            CustomBootstrap,
            CustomBootstrapFailed,
            CreatingReplica,
            Running,
            Starting,
            BootstrapStarting,
            StartFailed,
            Restarting,
            RestartFailed,
            Stopping,
            Stopped,
            StopFailed,
            Crashed,
        ]
    };

    /// The text that is published.
    pub fn as_str(self) -> &'static str {
        match self {
            PostgresState::Initdb => "initializing new cluster",
            PostgresState::InitdbFailed => "initdb failed",
            PostgresState::CustomBootstrap => "running custom bootstrap script",
            PostgresState::CustomBootstrapFailed => "custom bootstrap failed",
            PostgresState::CreatingReplica => "creating replica",
            PostgresState::Running => "running",
            PostgresState::Starting => "starting",
            PostgresState::BootstrapStarting => "starting after custom bootstrap",
            PostgresState::StartFailed => "start failed",
            PostgresState::Restarting => "restarting",
            PostgresState::RestartFailed => "restart failed",
            PostgresState::Stopping => "stopping",
            PostgresState::Stopped => "stopped",
            PostgresState::StopFailed => "stop failed",
            PostgresState::Crashed => "crashed",
        }
    }

    /// The number in `patroni_postgres_state`.
    pub fn index(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for PostgresState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The role that a member believes to have (IN-P2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum MemberRole {
    /// No data directory yet.
    Uninitialized,
    /// A standby.
    Replica,
    /// The leader of a standby cluster.
    StandbyLeader,
    /// Accepts writes.
    Primary,
    /// Promote was issued and recovery has not ended.
    Promoted,
    /// Was primary and stepped down.
    Demoted,
}

impl MemberRole {
    /// The text that is published.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberRole::Uninitialized => "uninitialized",
            MemberRole::Replica => "replica",
            MemberRole::StandbyLeader => "standby_leader",
            MemberRole::Primary => "primary",
            MemberRole::Promoted => "promoted",
            MemberRole::Demoted => "demoted",
        }
    }

    /// Reads a published role; `master` is what Patroni wrote before 4.0.
    pub fn from_published(text: &str) -> Option<MemberRole> {
        Some(match text {
            "uninitialized" => MemberRole::Uninitialized,
            "replica" => MemberRole::Replica,
            "standby_leader" => MemberRole::StandbyLeader,
            "primary" | "master" => MemberRole::Primary,
            "promoted" => MemberRole::Promoted,
            "demoted" => MemberRole::Demoted,
            _ => return None,
        })
    }
}

impl fmt::Display for MemberRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Host and port of a member's PostgreSQL, from `conn_url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnUrl {
    /// Host name or address, IPv6 without brackets; several hosts stay comma-joined.
    pub host: String,
    /// 5432 when the URL has none.
    pub port: u16,
    /// The maintenance database in the path, when present.
    pub database: Option<String>,
}

impl ConnUrl {
    /// Reads `postgres://[user[:password]@]host[:port][/database][?…]`.
    pub fn parse(url: &str) -> Option<ConnUrl> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
        let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
        let (authority, database) = rest.split_once('/').map_or((rest, ""), |parts| parts);
        let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') && !host.is_empty() => match host.strip_prefix('[') {
                Some(inner) => (inner.strip_suffix(']')?, port),
                None if host.contains(':') => return None,
                None => (host, port),
            },
            Some(_) | None => (address.trim_start_matches('[').trim_end_matches(']'), "5432"),
        };
        let database = (!database.is_empty()).then(|| database.to_owned());
        (!host.is_empty()).then_some(())?;
        Some(ConnUrl { host: host.to_owned(), port: port.parse().ok()?, database })
    }
}

/// What a member published about itself. Every field but the name may be missing: the writer may be older, newer or
/// broken.
///
/// `fields` is the object as written, in its order; the accessors read it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// The last part of the key.
    pub name: MemberName,
    /// The lease that the key is bound to.
    pub lease: LeaseId,
    /// The JSON object as written.
    pub fields: Map<String, Value>,
}

impl Member {
    /// Reads a value: a JSON object, or the connection URL that the first Patroni versions wrote. Anything else is a
    /// member with empty data.
    pub fn parse(name: MemberName, text: &str) -> (Member, Option<String>) {
        let mut problem = None;
        let fields = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) | Err(_) if text.starts_with("postgres") => legacy_fields(text),
            Ok(_) | Err(_) => {
                problem = Some("is not a JSON object; the member counts as one without data".to_owned());
                Map::new()
            }
        };
        (Member { name, lease: LeaseId::default(), fields }, problem)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key).and_then(Value::as_str)
    }

    fn lsn(&self, key: &str) -> Option<Lsn> {
        let value = self.fields.get(key)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).map(Lsn)
    }

    /// `postgres://host:port/database` without credentials.
    pub fn conn_url(&self) -> Option<&str> {
        self.text("conn_url")
    }

    /// The host and port in `conn_url`.
    pub fn address(&self) -> Option<ConnUrl> {
        self.conn_url().and_then(ConnUrl::parse)
    }

    /// The status document of the member's REST API.
    pub fn api_url(&self) -> Option<&str> {
        self.text("api_url")
    }

    /// The state as published; `unknown` when missing.
    pub fn state(&self) -> &str {
        self.text("state").unwrap_or("unknown")
    }

    /// True when the member says that its PostgreSQL accepts connections.
    pub fn is_running(&self) -> bool {
        self.state() == PostgresState::Running.as_str()
    }

    /// The role as published, when it is one we know.
    pub fn role(&self) -> Option<MemberRole> {
        self.text("role").and_then(MemberRole::from_published)
    }

    /// The version of the agent, as dotted integers.
    pub fn version(&self) -> Option<&str> {
        self.text("version")
    }

    /// `xlog_location`: the current position of a primary, the larger of received and replayed of a replica.
    pub fn lsn_location(&self) -> Option<Lsn> {
        self.lsn("xlog_location")
    }

    /// `receive_lsn` of a replica.
    pub fn receive_lsn(&self) -> Option<Lsn> {
        self.lsn("receive_lsn")
    }

    /// `replay_lsn` of a replica.
    pub fn replay_lsn(&self) -> Option<Lsn> {
        self.lsn("replay_lsn")
    }

    /// `streaming` or `in archive recovery`.
    pub fn replication_state(&self) -> Option<&str> {
        self.text("replication_state").filter(|text| !text.is_empty())
    }

    /// The member's timeline, when known.
    pub fn timeline(&self) -> Option<Timeline> {
        self.fields.get("timeline")?.as_u64().and_then(|n| u32::try_from(n).ok()).and_then(Timeline::new)
    }

    /// True when a change of configuration waits for a restart of PostgreSQL.
    pub fn has_pending_restart(&self) -> bool {
        self.fields.get("pending_restart").is_some_and(|value| *value == Value::Bool(true))
    }

    /// True while a new primary has not finished the checkpoint after its promotion: it must not be a rewind source.
    pub fn lacks_checkpoint_after_promote(&self) -> bool {
        self.fields.get("checkpoint_after_promote") == Some(&Value::Bool(false))
    }

    /// Why this member does not come back (RWD-12): a field of pgward's own.
    pub fn problem(&self) -> Option<&str> {
        self.text("problem")
    }

    /// The tags as published.
    pub fn tags(&self) -> Option<&Map<String, Value>> {
        self.fields.get("tags").and_then(Value::as_object)
    }

    /// True when the tags forbid that this member becomes primary: `nofailover`, or a `failover_priority` of zero or
    /// less where `nofailover` is not set (IN-T1).
    pub fn is_nofailover(&self) -> bool {
        self.tags().is_some_and(crate::config::is_nofailover)
    }

    /// Never a synchronous standby (IN-T3).
    pub fn is_nosync(&self) -> bool {
        self.tags().is_some_and(crate::config::is_nosync)
    }

    /// How much it is preferred as synchronous standby (IN-T3); 1 without tags.
    pub fn sync_priority(&self) -> i64 {
        self.tags().map_or(1, crate::config::sync_priority)
    }

    /// True when the tags say that this member does not stream, and so needs no slot.
    pub fn is_nostream(&self) -> bool {
        self.tags().is_some_and(crate::config::is_nostream)
    }

    /// A tag with a true value.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().and_then(|tags| tags.get(tag)).is_some_and(is_truthy)
    }

    /// The member whose WAL this one asks to stream, when it cascades.
    pub fn replicatefrom(&self) -> Option<&str> {
        self.tags()?.get("replicatefrom")?.as_str()
    }
}

fn legacy_fields(url: &str) -> Map<String, Value> {
    let (conn_url, query) = url.split_once('?').unwrap_or((url, ""));
    let parameters: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let mut fields = Map::from_iter([("conn_url".to_owned(), Value::from(conn_url))]);
    if let Some(api_url) = parameters.get("application_name") {
        fields.insert("api_url".to_owned(), Value::from(*api_url));
    }
    fields
}
