//! `GET /cluster`: all members as one document.

use pgward_core::cluster::{Cluster, Member};
use pgward_core::names::MemberName;
use pgward_core::wal::Lsn;
use serde_json::{Map, Value, json};

use super::modes::Modes;
use super::view::SynchronousMode;

/// What of a member's record is shown as it is.
const COPIED: [&str; 6] =
    ["timeline", "pending_restart", "pending_restart_reason", "scheduled_restart", "tags", "problem"];

/// The members and their lag. Roles come from the leader key and `/sync`, not from what members say about themselves.
pub fn cluster_document(cluster: &Cluster, scope: &str, modes: Modes) -> Value {
    let mut document = Map::new();
    let members: Vec<Value> = cluster.members.values().map(|member| member_row(cluster, modes, member)).collect();
    document.insert("members".to_owned(), members.into());
    if modes.paused {
        document.insert("pause".to_owned(), true.into());
    }
    let rivals: Vec<&str> = cluster.rivals().map(MemberName::as_str).collect();
    if !rivals.is_empty() {
        document.insert("split_brain".to_owned(), rivals.into());
    }
    if let Some(request) = cluster.failover.as_ref().map(|failover| &failover.value)
        && let Some(at) = &request.scheduled_at
    {
        let mut scheduled = Map::from_iter([("at".to_owned(), Value::from(at.as_str()))]);
        for (key, name) in [("from", &request.leader), ("to", &request.candidate)] {
            if let Some(name) = name {
                scheduled.insert(key.to_owned(), name.as_str().into());
            }
        }
        document.insert("scheduled_switchover".to_owned(), scheduled.into());
    }
    document.insert("scope".to_owned(), scope.into());
    Value::Object(document)
}

fn member_row(cluster: &Cluster, modes: Modes, member: &Member) -> Value {
    let is_leader = cluster.is_led_by(&member.name);
    let role = if is_leader && modes.standby_cluster {
        "standby_leader"
    } else if is_leader {
        "leader"
    } else if cluster.sync.value.has_voter(member.name.as_str()) {
        match modes.synchronous {
            SynchronousMode::Off => "replica",
            SynchronousMode::On => "sync_standby",
            SynchronousMode::Quorum => "quorum_standby",
        }
    } else {
        "replica"
    };
    let replication_state = member.replication_state().filter(|_| role != "leader");
    let state = replication_state.or_else(|| member.fields.get("state").and_then(Value::as_str)).unwrap_or("");
    let mut row = Map::from_iter([
        ("name".to_owned(), json!(member.name.as_str())),
        ("role".to_owned(), json!(role)),
        ("state".to_owned(), json!(state)),
        ("api_url".to_owned(), json!(member.api_url())),
    ]);
    if let Some(address) = member.address() {
        row.insert("host".to_owned(), address.host.into());
        row.insert("port".to_owned(), address.port.into());
    }
    for key in COPIED {
        if let Some(value) = member.fields.get(key) {
            row.insert(key.to_owned(), value.clone());
        }
    }
    if !is_leader {
        let newest = cluster.status.optime.unwrap_or(Lsn::INVALID);
        put_lag(&mut row, "receive_lag", "receive_lsn", member.receive_lsn(), newest);
        put_lag(&mut row, "replay_lag", "replay_lsn", member.replay_lsn(), newest);
        put_lag(&mut row, "lag", "lsn", member.lsn_location(), newest);
    }
    Value::Object(row)
}

fn put_lag(row: &mut Map<String, Value>, lag_key: &str, lsn_key: &str, lsn: Option<Lsn>, newest: Lsn) {
    let (lag, text) = match lsn {
        Some(lsn) => (Value::from(lsn.bytes_behind(newest)), lsn.to_string()),
        None => (Value::from("unknown"), "unknown".to_owned()),
    };
    row.insert(lag_key.to_owned(), lag);
    row.insert(lsn_key.to_owned(), text.into());
}
