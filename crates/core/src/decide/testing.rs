//! A plain base view of three members, and what tests change in it. One base serves the tables of decisions and the
//! tests of what explains them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::failsafe::Failsafe;
use super::peers::{PeerAnswer, PeerPoll, PeerStatus};
use super::rewind::ControlState;
use super::view::{
    ActionKind, Control, DataDir, Facts, Finished, Lease, Outcome, OwnTags, Postgres, RecoveryDiff, RunningAction,
    Settings, Store, SyncSettings, View,
};
use super::{DemoteMode, Effect, Memory, decide};
use crate::cluster::{Cluster, LeaseId, MemberRole, PostgresState, RawKey, Revision};
use crate::config::SynchronousMode;
use crate::names::MemberName;
use crate::sync::pick::Replication;
use crate::time::{BootInstant, WallTime};
use crate::wal::{Lsn, Timeline};

pub(crate) const SYSTEM_ID: &str = "7710485511011361242";

pub(crate) fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

pub(crate) fn at(seconds: u64) -> BootInstant {
    BootInstant(Duration::from_secs(seconds))
}

pub(crate) fn settings() -> Settings {
    Settings {
        ttl: Duration::from_secs(30),
        loop_wait: Duration::from_secs(10),
        retry_timeout: Duration::from_secs(10),
        maximum_lag_on_failover: 1_048_576,
        check_timeline: false,
        primary_start_timeout: Duration::from_secs(300),
        primary_race_backoff: Duration::ZERO,
        paused: false,
        sync: SyncSettings::default(),
        standby_cluster: false,
        failsafe_mode: false,
        use_pg_rewind: true,
        wipe_on_rewind_failure: false,
        wipe_on_divergence: false,
    }
}

/// Mode `on`, with one standby.
pub(crate) fn synchronous_on() -> SyncSettings {
    SyncSettings { mode: SynchronousMode::On, ..SyncSettings::default() }
}

pub(crate) fn paused() -> Settings {
    Settings { paused: true, ..settings() }
}

/// Keys as text; every key was changed at revision 5.
pub(crate) fn cluster(keys: &[(&str, &str)]) -> Cluster {
    let raw = keys.iter().map(|(suffix, value)| RawKey {
        suffix: (*suffix).to_owned(),
        value: value.as_bytes().to_vec(),
        create_revision: Revision(5),
        mod_revision: Revision(5),
        lease: LeaseId(1),
    });
    Cluster::from_keys(Revision(10), raw)
}

pub(crate) fn member(name: &str, role: &str) -> (String, String) {
    let conn_url = format!("postgres://{name}:5432/postgres");
    let api_url = format!("http://{name}:8008/patroni");
    let value = serde_json::json!({
        "conn_url": conn_url, "api_url": api_url, "state": "running", "role": role, "timeline": 1, "xlog_location": 1000
    });
    (format!("members/{name}"), value.to_string())
}

/// Three running members a, b, c; `leader` holds the key, when there is one. `more` keys come on top.
pub(crate) fn three(leader: Option<&str>, more: &[(&str, &str)]) -> Cluster {
    let records: Vec<(String, String)> = ["a", "b", "c"]
        .iter()
        .map(|name| member(name, if leader == Some(*name) { "primary" } else { "replica" }))
        .collect();
    let mut keys: Vec<(&str, &str)> = records.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    keys.push(("initialize", SYSTEM_ID));
    keys.push(("config", r#"{"ttl":30}"#));
    keys.push(("status", r#"{"optime":1000}"#));
    keys.extend(leader.map(|leader| ("leader", leader)));
    keys.extend_from_slice(more);
    cluster(&keys)
}

pub(crate) fn facts(in_recovery: bool) -> Facts {
    Facts {
        in_recovery,
        position: Lsn(1000),
        replayed: Lsn(1000),
        timeline: Timeline::new(1),
        streaming: in_recovery,
        replay_paused: false,
        history: None,
        replication: Replication::default(),
        checkpointed: true,
    }
}

pub(crate) fn postgres(role: MemberRole) -> Postgres {
    let in_recovery = !matches!(role, MemberRole::Primary);
    Postgres {
        state: PostgresState::Running,
        role,
        alive: true,
        starting_since: None,
        facts: Some(facts(in_recovery)),
        control: None,
        managed: true,
        recovery: RecoveryDiff::Same,
        lacks_slots: BTreeMap::new(),
    }
}

/// One that has been starting for five seconds.
pub(crate) fn starting(role: MemberRole) -> Postgres {
    Postgres { state: PostgresState::Starting, starting_since: Some(at(95)), facts: None, ..postgres(role) }
}

/// A server that is down, with this control state.
pub(crate) fn down(role: MemberRole, state: PostgresState, control: ControlState) -> Postgres {
    let has_signal_file = !matches!(role, MemberRole::Primary | MemberRole::Demoted);
    Postgres {
        state,
        role,
        alive: false,
        starting_since: None,
        facts: None,
        control: Some(Control {
            state: control,
            rewind_possible: true,
            has_signal_file,
            has_backup_label: false,
            checkpoint: Some(Lsn(900)),
        }),
        managed: true,
        recovery: RecoveryDiff::Unknown,
        lacks_slots: BTreeMap::new(),
    }
}

/// Member `a` at 100 s: a caught-up replica of `b`.
pub(crate) fn replica(cluster: Cluster) -> View {
    View {
        now: at(100),
        wall: WallTime(Duration::from_secs(1_800_000_000)),
        me: "a".parse().unwrap(),
        tags: OwnTags { failover_priority: 1, ..OwnTags::default() },
        may_bootstrap: true,
        settings: settings(),
        store: Store::Current(Arc::new(cluster)),
        lease: Lease::None,
        data_dir: DataDir::Present { system_id: Some(SYSTEM_ID.to_owned()) },
        postgres: postgres(MemberRole::Replica),
        action: None,
        finished: Vec::new(),
        request: None,
        poll: None,
        failsafe: Failsafe::default(),
        watchdog_failure: None,
    }
}

/// A lease whose last renewal was sent `age` seconds ago.
pub(crate) fn held(age: u64) -> Lease {
    Lease::Held { sent: at(100 - age), ttl: Duration::from_secs(30), epoch: Revision(5) }
}

/// Member `a` at 100 s: a primary that holds the lease.
pub(crate) fn primary(cluster: Cluster) -> View {
    View { lease: held(1), postgres: postgres(MemberRole::Primary), ..replica(cluster) }
}

pub(crate) fn answer(position: u64) -> PeerStatus {
    PeerStatus {
        in_recovery: true,
        position: Lsn(position),
        timeline: Timeline::new(1),
        nofailover: false,
        failover_priority: 1,
        watchdog_failed: false,
    }
}

/// Answers of members by name; `None` is unreachable.
pub(crate) fn poll(answers: &[(&str, Option<PeerStatus>)]) -> Option<PeerPoll> {
    let answers: BTreeMap<_, _> = answers
        .iter()
        .map(|(name, status)| {
            let answer = status.clone().map_or(PeerAnswer::Unreachable, PeerAnswer::Status);
            (self::name(name), answer)
        })
        .collect();
    Some(PeerPoll { answers })
}

pub(crate) fn ask(members: &[&str]) -> Effect {
    Effect::PollPeers(members.iter().map(|member| name(member)).collect())
}

pub(crate) fn demote(mode: DemoteMode) -> Effect {
    Effect::Demote { mode, upstream: None }
}

pub(crate) fn action(kind: ActionKind, since: u64, committed: bool) -> Option<RunningAction> {
    Some(RunningAction { kind, since: at(since), committed, cancelled: false })
}

pub(crate) fn ended(kind: ActionKind, outcome: Outcome) -> Vec<Finished> {
    vec![Finished { kind, outcome }]
}

/// One row of a table: the effects and the rule that stands first in the reason.
pub(crate) fn check(name: &str, view: &View, memory: &Memory, effects: &[Effect], rule: &str) -> Memory {
    let (decision, memory) = decide(view, memory);
    assert_eq!(decision.effects, effects, "{name}: {}", decision.reason);
    assert!(decision.reason.rules().contains(&rule), "{name}: {} cites {:?}", decision.reason, decision.reason.rules());
    memory
}
