//! A plain base view of three members, and one row of a table.

use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, LeaseId, MemberRole, PostgresState, RawKey, Revision};
use pgward_core::decide::peers::{PeerAnswer, PeerPoll, PeerStatus};
use pgward_core::decide::rewind::ControlState;
use pgward_core::decide::view::{
    ActionKind, Control, DataDir, Facts, Finished, Lease, Outcome, OwnTags, Postgres, RecoveryDiff, RunningAction,
    Settings, Store, View,
};
use pgward_core::decide::{Effect, Memory, decide};
use pgward_core::names::MemberName;
use pgward_core::time::{BootInstant, WallTime};
use pgward_core::wal::{Lsn, Timeline};

pub(crate) const SYSTEM_ID: &str = "7710485511011361242";

pub(crate) fn at(seconds: u64) -> BootInstant {
    BootInstant(Duration::from_secs(seconds))
}

pub(crate) fn name(text: &str) -> MemberName {
    text.parse().unwrap()
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
        synchronous: false,
        standby_cluster: false,
        failsafe_mode: false,
        use_pg_rewind: true,
        wipe_on_rewind_failure: false,
        wipe_on_divergence: false,
    }
}

pub(crate) fn paused() -> Settings {
    Settings { paused: true, ..settings() }
}

/// Three running members; `leader` holds the key, when there is one. Later keys replace earlier ones.
pub(crate) fn three(leader: Option<&str>, more: &[(&str, &str)]) -> Cluster {
    let mut keys: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: &str| {
        keys.retain(|(known, _)| known != key);
        keys.push((key.to_owned(), value.to_owned()));
    };
    for member in ["a", "b", "c"] {
        let role = if leader == Some(member) { "primary" } else { "replica" };
        let value = serde_json::json!({
            "conn_url": format!("postgres://{member}:5432/postgres"), "api_url": format!("http://{member}:8008/patroni"),
            "state": "running", "role": role, "timeline": 1, "xlog_location": 1000
        });
        put(&format!("members/{member}"), &value.to_string());
    }
    put("initialize", SYSTEM_ID);
    put("config", r#"{"ttl":30}"#);
    put("status", r#"{"optime":1000}"#);
    leader.iter().for_each(|leader| put("leader", leader));
    more.iter().for_each(|(key, value)| put(key, value));
    let raw = keys.into_iter().map(|(suffix, value)| RawKey {
        suffix,
        value: value.into_bytes(),
        create_revision: Revision(5),
        mod_revision: Revision(5),
        lease: LeaseId(1),
    });
    Cluster::from_keys(Revision(10), raw)
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
        checkpointed: true,
    }
}

pub(crate) fn running(role: MemberRole) -> Postgres {
    Postgres {
        state: PostgresState::Running,
        role,
        alive: true,
        starting_since: None,
        facts: Some(facts(role != MemberRole::Primary)),
        control: None,
        managed: true,
        recovery: RecoveryDiff::Same,
    }
}

pub(crate) fn starting(role: MemberRole) -> Postgres {
    Postgres { state: PostgresState::Starting, starting_since: Some(at(95)), facts: None, ..running(role) }
}

pub(crate) fn down(role: MemberRole, state: PostgresState, control: ControlState) -> Postgres {
    let control = Control {
        state: control,
        rewind_possible: true,
        has_signal_file: false,
        has_backup_label: false,
        checkpoint: None,
    };
    Postgres { state, alive: false, facts: None, control: Some(control), ..running(role) }
}

/// Member `a` at 100 s: a replica.
pub(crate) fn replica(cluster: Cluster) -> View {
    View {
        now: at(100),
        wall: WallTime(Duration::from_secs(1_800_000_000)),
        me: name("a"),
        tags: OwnTags { failover_priority: 1, ..OwnTags::default() },
        may_bootstrap: true,
        settings: settings(),
        store: Store::Current(Arc::new(cluster)),
        lease: Lease::None,
        data_dir: DataDir::Present { system_id: Some(SYSTEM_ID.to_owned()) },
        postgres: running(MemberRole::Replica),
        action: None,
        finished: Vec::new(),
        poll: None,
    }
}

pub(crate) fn held(age: u64) -> Lease {
    Lease::Held { sent: at(100 - age), ttl: Duration::from_secs(30), epoch: Revision(5) }
}

pub(crate) fn primary(cluster: Cluster) -> View {
    View { lease: held(1), postgres: running(MemberRole::Primary), ..replica(cluster) }
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

pub(crate) fn poll(answers: &[(&str, Option<PeerStatus>)]) -> Option<PeerPoll> {
    let answers = answers
        .iter()
        .map(|(member, status)| (name(member), status.clone().map_or(PeerAnswer::Unreachable, PeerAnswer::Status)));
    Some(PeerPoll { answers: answers.collect() })
}

pub(crate) fn ask(members: &[&str]) -> Effect {
    Effect::PollPeers(members.iter().map(|member| name(member)).collect())
}

pub(crate) fn action(kind: ActionKind, since: u64, committed: bool) -> Option<RunningAction> {
    Some(RunningAction { kind, since: at(since), committed, cancelled: false })
}

pub(crate) fn ended(kind: ActionKind, outcome: Outcome) -> Vec<Finished> {
    vec![Finished { kind, outcome }]
}

/// One row: the effects, and a rule that the reason stands on. Returns what the next decision remembers.
pub(crate) fn check(what: &str, view: &View, memory: &Memory, effects: &[Effect], rule: &str) -> Memory {
    let (decision, next) = decide(view, memory);
    assert_eq!(decision.effects, effects, "{what}: {}", decision.reason);
    assert!(decision.reason.rules().contains(&rule), "{what}: {} cites {:?}", decision.reason, decision.reason.rules());
    next
}

pub(crate) fn first_rule(view: &View, memory: &Memory) -> &'static str {
    decide(view, memory).0.reason.rules()[0]
}
