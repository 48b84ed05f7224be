//! What this member publishes in the store: its member record and, while it leads, the status.
//!
//! Field order and presence are part of the interface: peers compare values as text (DCS-9, CYC-19).

use std::collections::BTreeMap;
use std::time::Duration;

use pgward_core::cluster::{Cluster, MemberRole, PostgresState, Status};
use pgward_core::config::PermanentSlot;
use pgward_core::decide::view::Facts;
use pgward_core::json;
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use pgward_core::wal::Lsn;
use serde_json::{Map, Value};

/// The version that members publish and that peers compare as dotted integers: the Patroni release whose interfaces
/// this program speaks.
pub const COMPATIBLE_VERSION: &str = "4.1.5";

/// The parts of a member record.
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    /// `postgres://host:port/database`.
    pub conn_url: &'a str,
    /// `http://host:port/patroni`.
    pub api_url: &'a str,
    /// `postgres://…` of a proxy in front of this member.
    pub proxy_url: Option<&'a str>,
    /// What PostgreSQL is doing.
    pub state: PostgresState,
    /// The role.
    pub role: MemberRole,
    /// Effective tags that are published.
    pub tags: &'a Map<String, Value>,
    /// Parameters that wait for a restart.
    pub pending_restart: &'a Map<String, Value>,
    /// The checkpoint after the promotion has not been made yet.
    pub lacks_checkpoint: bool,
    /// Positions; left out while a long action other than a promotion runs (CYC-19).
    pub facts: Option<&'a Facts>,
    /// What was received, where that is known besides the position.
    pub received: Option<Lsn>,
    /// `streaming` or `in archive recovery`.
    pub replication_state: Option<&'a str>,
    /// The restart that is kept for later.
    pub scheduled_restart: Option<&'a Map<String, Value>>,
    /// This member has seen the pause.
    pub paused: bool,
    /// Why this member does not come back (RWD-12). Patroni knows no such field, and ignores it.
    pub problem: Option<&'a str>,
}

impl Record<'_> {
    /// The value of `members/<name>`.
    pub(crate) fn to_value(&self) -> String {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("conn_url", self.conn_url.into());
        put("api_url", self.api_url.into());
        put("state", self.state.as_str().into());
        put("role", self.role.as_str().into());
        put("version", COMPATIBLE_VERSION.into());
        if let Some(proxy_url) = self.proxy_url {
            put("proxy_url", proxy_url.into());
        }
        if !self.tags.is_empty() {
            put("tags", self.tags.clone().into());
        }
        if !self.pending_restart.is_empty() {
            put("pending_restart", true.into());
            put("pending_restart_reason", self.pending_restart.clone().into());
        }
        if let Some(restart) = self.scheduled_restart {
            put("scheduled_restart", restart.clone().into());
        }
        if self.lacks_checkpoint {
            put("checkpoint_after_promote", false.into());
        }
        let states = [PostgresState::Running, PostgresState::Restarting, PostgresState::Starting];
        if let Some(facts) = self.facts.filter(|_| states.contains(&self.state)) {
            put("xlog_location", facts.position.0.into());
            if facts.in_recovery {
                for (key, lsn) in [("replay_lsn", Some(facts.replayed)), ("receive_lsn", self.received)] {
                    if let Some(lsn) = lsn.filter(|lsn| *lsn != Lsn::INVALID) {
                        put(key, lsn.0.into());
                    }
                }
                if let Some(replication_state) = self.replication_state {
                    put("replication_state", replication_state.into());
                }
            }
            if let Some(timeline) = facts.timeline {
                put("timeline", timeline.get().into());
            }
        }
        if self.paused {
            put("pause", true.into());
        }
        if let Some(problem) = self.problem {
            fields.insert("problem".to_owned(), problem.into());
        }
        json::compact(&fields)
    }
}

/// The status that a leader publishes: its position, the slots of the others and its own, and the slots that are kept
/// for members (STS-1, STS-2). `retained` is `None` when slots of absent members are not kept: then only the permanent
/// slots are told.
pub(crate) fn status(
    me: &MemberName,
    position: Lsn,
    slots: &BTreeMap<String, Lsn>,
    permanent: &BTreeMap<String, PermanentSlot>,
    retained: Option<Vec<String>>,
) -> Status {
    let mut slots = slots.clone();
    if retained.is_some() {
        slots.insert(me.slot_name(), position);
    } else {
        slots.retain(|name, _| permanent.contains_key(name));
    }
    Status { optime: Some(position), slots: (!slots.is_empty()).then_some(slots), retain_slots: retained }
}

/// Since when members have been away whose slots are kept (STS-2).
#[derive(Default)]
pub(crate) struct Retained(BTreeMap<String, BootInstant>);

impl Retained {
    /// Forgets everything: somebody else leads and keeps count.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The slots to keep now: of members that are there, or were less than `ttl` ago. A new leader takes over the list
    /// that the store has and starts to count anew.
    pub(crate) fn update(
        &mut self,
        cluster: &Cluster,
        me: &MemberName,
        now: BootInstant,
        ttl: Duration,
    ) -> Vec<String> {
        if self.0.is_empty() {
            self.0 = cluster.status.retain_slots.iter().flatten().map(|slot| (slot.clone(), now)).collect();
        }
        for name in cluster.members.keys().chain([me]) {
            self.0.insert(name.slot_name(), now);
        }
        self.0.retain(|_, seen| now.since(*seen) < ttl);
        self.0.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use pgward_core::wal::Timeline;

    use super::*;

    #[test]
    fn records_are_written_as_patroni_writes_them() {
        let facts = Facts {
            in_recovery: true,
            position: Lsn(67_108_960),
            replayed: Lsn(67_108_960),
            timeline: Timeline::new(1),
            streaming: true,
            replay_paused: false,
            history: None,
            replication: pgward_core::sync::pick::Replication::default(),
            checkpointed: true,
        };
        let (tags, pending) = (Map::new(), Map::new());
        let record = Record {
            conn_url: "postgres://127.0.0.1:25432/postgres",
            api_url: "http://127.0.0.1:28002/patroni",
            proxy_url: None,
            state: PostgresState::Running,
            role: MemberRole::Replica,
            tags: &tags,
            pending_restart: &pending,
            lacks_checkpoint: false,
            facts: Some(&facts),
            received: Some(Lsn(67_108_960)),
            replication_state: Some("streaming"),
            scheduled_restart: None,
            paused: false,
            problem: None,
        };
        assert_eq!(
            record.to_value(),
            r#"{"conn_url":"postgres://127.0.0.1:25432/postgres","api_url":"http://127.0.0.1:28002/patroni","state":"running","role":"replica","version":"4.1.5","xlog_location":67108960,"replay_lsn":67108960,"receive_lsn":67108960,"replication_state":"streaming","timeline":1}"#
        );
        let stopped = Record { state: PostgresState::Stopped, role: MemberRole::Demoted, ..record };
        assert!(!stopped.to_value().contains("xlog_location"), "no positions of a server that is down");
        let broken = Record { problem: Some("pg_rewind failed"), ..stopped };
        assert!(broken.to_value().ends_with(r#","problem":"pg_rewind failed"}"#), "RWD-12: {}", broken.to_value());
    }

    #[test]
    fn the_status_tells_the_positions_that_others_need() {
        let me = "Pg-1".parse().unwrap();
        let slots = BTreeMap::from([("b".to_owned(), Lsn(5)), ("cdc".to_owned(), Lsn(4)), ("x".to_owned(), Lsn(3))]);
        let permanent = BTreeMap::from([("cdc".to_owned(), PermanentSlot::Physical { cluster_type: None })]);
        let value = |permanent, retained| status(&me, Lsn(7), &slots, permanent, retained).to_value();
        assert_eq!(
            value(&permanent, Some(vec!["b".to_owned(), "pg_1".to_owned()])),
            r#"{"optime":7,"slots":{"b":5,"cdc":4,"pg_1":7,"x":3},"retain_slots":["b","pg_1"]}"#,
            "STS-1"
        );
        assert_eq!(value(&permanent, None), r#"{"optime":7,"slots":{"cdc":4}}"#, "STS-1: without retention");
        assert_eq!(value(&BTreeMap::new(), None), r#"{"optime":7}"#, "STS-1: nothing that others would need");
    }

    #[test]
    fn slots_of_members_that_are_away_are_kept_for_a_while() {
        use pgward_core::cluster::{LeaseId, RawKey, Revision};
        let key = |suffix: &str, value: &str| RawKey {
            suffix: suffix.to_owned(),
            value: value.as_bytes().to_vec(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            lease: LeaseId(1),
        };
        let keys = [
            key("members/a", "{}"),
            key("members/b", "{}"),
            key("status", r#"{"optime":1,"retain_slots":["b","gone"]}"#),
        ];
        let cluster = Cluster::from_keys(Revision(1), keys);
        let (me, ttl) = ("a".parse().unwrap(), Duration::from_secs(1800));
        let at = |seconds| BootInstant(Duration::from_secs(seconds));
        let mut retained = Retained::default();
        assert_eq!(retained.update(&cluster, &me, at(10), ttl), ["a", "b", "gone"], "a new leader counts anew (STS-2)");
        assert_eq!(retained.update(&cluster, &me, at(1809), ttl), ["a", "b", "gone"]);
        assert_eq!(retained.update(&cluster, &me, at(1811), ttl), ["a", "b"], "too long away");
    }
}
