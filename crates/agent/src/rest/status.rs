//! The status document: `GET /patroni`, and the body of every health check.

use pgward_core::cluster::MemberRole;
use serde_json::{Map, Value, json};

use super::view::{NodeView, ServerFacts, SynchronousMode, WalPosition, Walsender};

/// The text of a state in which PostgreSQL should answer and does not.
const UNKNOWN_STATE: &str = "unknown";

/// How this member is. The order of the keys is part of the interface.
pub fn status_document(node: &NodeView) -> Value {
    let mut document = Map::new();
    let server = node.current_server();
    put(&mut document, "state", node.published_state().map_or(UNKNOWN_STATE, |state| state.as_str()));
    if let Some(server) = server {
        put(&mut document, "postmaster_start_time", server.postmaster_start_time.as_str());
    }
    put(&mut document, "role", node.published_role().as_str());
    if let Some(server) = server {
        put_server(&mut document, node, server);
    }
    put_flag(&mut document, "pause", node.paused);
    put_flag(&mut document, "cluster_unlocked", node.is_unlocked());
    put_flag(&mut document, "failsafe_mode_is_active", node.failsafe_active);
    put(&mut document, "dcs_last_seen", node.dcs_last_seen);
    if !node.tags.is_empty() {
        put(&mut document, "tags", node.tags.clone());
    }
    if let Some(id) = &node.system_id {
        put(&mut document, "database_system_identifier", id.as_str());
    }
    if !node.pending_restart.is_empty() {
        let values = |old: &str, new: &str| json!({"old_value": old, "new_value": new});
        let reasons = node.pending_restart.iter();
        let reasons = reasons.map(|item| (item.parameter.clone(), values(&item.old_value, &item.new_value)));
        put(&mut document, "pending_restart", true);
        put(&mut document, "pending_restart_reason", reasons.collect::<Map<_, _>>());
    }
    put(&mut document, "patroni", json!({"version": node.version, "scope": node.scope, "name": node.name.as_str()}));
    if let Some(restart) = &node.scheduled_restart {
        let shown = restart.iter().filter(|(key, _)| *key != "postmaster_start_time");
        put(&mut document, "scheduled_restart", shown.map(|(k, v)| (k.clone(), v.clone())).collect::<Map<_, _>>());
    }
    put_flag(&mut document, "watchdog_failed", node.watchdog_failed);
    if let Some(problem) = &node.problem {
        put(&mut document, "problem", problem.as_str());
    }
    if !node.split_brain.is_empty() {
        put(&mut document, "split_brain", node.split_brain.clone());
    }
    Value::Object(document)
}

fn put_server(document: &mut Map<String, Value>, node: &NodeView, server: &ServerFacts) {
    put(document, "server_version", server.server_version);
    let wal = match &server.wal {
        WalPosition::Primary { location } => json!({"location": location}),
        WalPosition::Replica { received, replayed, replayed_timestamp, paused } => json!({
            "received_location": received,
            "replayed_location": replayed,
            "replayed_timestamp": replayed_timestamp,
            "paused": paused,
        }),
    };
    put(document, "xlog", wal);
    if let Some(flag) = sync_flag(node) {
        put(document, flag, true);
    }
    put(document, "timeline", server.timeline.map(|timeline| timeline.get()));
    if let Some(state) = server.replication_state {
        put(document, "replication_state", state.as_str());
    }
    if !server.replication.is_empty() {
        put(document, "replication", server.replication.iter().map(walsender).collect::<Vec<_>>());
    }
}

/// The name of the flag that a synchronous standby shows.
pub(super) fn sync_flag(node: &NodeView) -> Option<&'static str> {
    if node.published_role() != MemberRole::Replica || !node.is_listed_in_sync() {
        return None;
    }
    match node.synchronous {
        SynchronousMode::Off => None,
        SynchronousMode::On => Some("sync_standby"),
        SynchronousMode::Quorum => Some("quorum_standby"),
    }
}

fn walsender(row: &Walsender) -> Value {
    json!({
        "usename": row.usename,
        "application_name": row.application_name,
        "client_addr": row.client_addr,
        "state": row.state,
        "sync_state": row.sync_state,
        "sync_priority": row.sync_priority,
    })
}

fn put(document: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    document.insert(key.to_owned(), value.into());
}

/// Flags are shown when they are on, and absent otherwise.
fn put_flag(document: &mut Map<String, Value>, key: &str, is_on: bool) {
    if is_on {
        put(document, key, true);
    }
}
