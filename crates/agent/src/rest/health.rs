//! Health checks: one status code for a path.

use pgward_core::cluster::MemberRole;
use pgward_core::json::is_truthy;
use pgward_core::time::BootInstant;
use serde_json::Value;

use super::query::Query;
use super::view::{NodeView, ReplicationState, ServerFacts, SynchronousMode, WalPosition};

const OK: u16 = 200;
const UNAVAILABLE: u16 = 503;

/// The four questions that every path is a combination of.
struct Base {
    primary: bool,
    leader: bool,
    standby_leader: bool,
    replica: bool,
}

/// The status code for a GET, HEAD or OPTIONS of `path`, which is matched by the words in it, not as a whole. A path
/// that asks nothing known is 503.
pub fn health_status(path: &str, query: &Query, node: &NodeView, now: BootInstant) -> u16 {
    if is_healthy(path, query, node, now) { OK } else { UNAVAILABLE }
}

fn is_healthy(path: &str, query: &Query, node: &NodeView, now: BootInstant) -> bool {
    let base = Base::of(node, query, now);
    let path = if path == "/" { "/primary" } else { path };
    let has = |word: &str| path.contains(word);
    if has("standby_leader") || has("standby-leader") {
        return base.standby_leader;
    }
    if has("leader") {
        return base.leader;
    }
    if has("master") || has("primary") || has("read-write") {
        return base.primary;
    }
    answers_by_tag(path, &base, node) && has_tags(node, query)
}

/// The paths to which the tag filters apply.
fn answers_by_tag(path: &str, base: &Base, node: &NodeView) -> bool {
    let has = |word: &str| path.contains(word);
    let writable = base.primary || base.standby_leader;
    if has("replica") {
        return base.replica;
    }
    if has("read-only") && !has("sync") && !has("quorum") {
        return writable || base.replica;
    }
    if has("health") {
        return node.is_running();
    }
    if node.cluster.is_none() {
        return false;
    }
    let listed = node.is_listed_in_sync();
    let sync = listed && node.synchronous == SynchronousMode::On;
    let quorum = listed && node.synchronous == SynchronousMode::Quorum;
    match path {
        "/sync" | "/synchronous" => base.replica && sync,
        "/quorum" => base.replica && quorum,
        "/async" | "/asynchronous" => base.replica && !sync && !quorum,
        "/read-only-sync" | "/read-only-synchronous" => writable || (base.replica && sync),
        "/read-only-quorum" => writable || (base.replica && quorum),
        _ => false,
    }
}

impl Base {
    fn of(node: &NodeView, query: &Query, now: BootInstant) -> Base {
        let replica = is_balanced_replica(node, query);
        if node.cluster.is_none() && node.paused {
            // Nobody fails over now, so the role alone decides.
            let primary = node.published_role() == MemberRole::Primary;
            let standby_leader = node.published_role() == MemberRole::StandbyLeader;
            return Base { primary, leader: primary || standby_leader, standby_leader, replica };
        }
        let leader = node.is_leader(now);
        let may_lead_standbys = matches!(node.published_role(), MemberRole::Replica | MemberRole::StandbyLeader);
        Base {
            primary: leader && !node.standby_cluster,
            leader,
            standby_leader: leader && node.standby_cluster && may_lead_standbys,
            replica: replica && !(leader && node.standby_cluster),
        }
    }
}

fn is_balanced_replica(node: &NodeView, query: &Query) -> bool {
    node.published_role() == MemberRole::Replica
        && node.is_running()
        && !node.tags.get("noloadbalance").is_some_and(is_truthy)
        && !exceeds_lag(node, query.bytes("lag"))
}

/// True when replay is more than `limit` bytes behind; never without a limit.
fn exceeds_lag(node: &NodeView, limit: Option<i128>) -> bool {
    let (Some(limit), Some(server)) = (limit, node.current_server()) else {
        return false;
    };
    let newest = newest_position(node, server);
    newest != 0 && newest > position(server, Progress::Replayed) + limit
}

/// The farthest position of the primary that this member has heard of; zero when of none.
fn newest_position(node: &NodeView, server: &ServerFacts) -> i128 {
    let published = node.cluster.as_ref().and_then(|cluster| cluster.status.optime);
    i128::from(published.max(server.latest_end_lsn).map_or(0, |lsn| lsn.0))
}

enum Progress {
    Received,
    Replayed,
}

fn position(server: &ServerFacts, progress: Progress) -> i128 {
    let lsn = match (&server.wal, progress) {
        (WalPosition::Primary { .. }, Progress::Received | Progress::Replayed) => 0,
        (WalPosition::Replica { received, .. }, Progress::Received) => received.0,
        (WalPosition::Replica { replayed, .. }, Progress::Replayed) => replayed.0,
    };
    i128::from(lsn)
}

fn has_tags(node: &NodeView, query: &Query) -> bool {
    query.tags().iter().all(|(name, wanted)| node.tags.get(*name).is_some_and(|value| tag_text(value) == *wanted))
}

fn tag_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string().to_lowercase(),
    }
}

/// `GET /liveness`: the agent's loop still turns, or has a reason not to.
pub fn is_alive(node: &NodeView, now: BootInstant) -> bool {
    let is_running_primary = node.is_running() && node.published_role() == MemberRole::Primary;
    let patience = if is_running_primary { node.ttl } else { node.ttl * 2 };
    node.paused || node.next_run + patience > now
}

/// `GET /readiness`: the leader, or a replica that streams and is not too far behind.
pub fn is_ready(query: &Query, node: &NodeView, now: BootInstant) -> bool {
    if node.is_leader(now) {
        return true;
    }
    let Some(server) = node.current_server().filter(|_| node.is_running()) else {
        return false;
    };
    if server.replication_state != Some(ReplicationState::Streaming) {
        return false;
    }
    if node.cluster.is_none() && server.latest_end_lsn.is_none() {
        return node.failsafe_active;
    }
    let progress = if query.get("mode") == Some("write") { Progress::Received } else { Progress::Replayed };
    let limit = query.bytes("lag").unwrap_or(i128::from(node.lag_on_failover_bytes_max));
    newest_position(node, server) - position(server, progress) <= limit
}
