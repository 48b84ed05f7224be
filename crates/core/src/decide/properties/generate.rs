//! Views and memories of any kind, most of them possible.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::bootstrap::{INTENT_ALIVE_KEY, INTENT_KEY};
use super::super::failsafe::{Consent, ConsentAnswer, Failsafe, KnownMap, Promise, Round};
use super::super::memory::{Backoff, SameHistory};
use super::super::operator::Request;
use super::super::peers::{PeerAnswer, PeerPoll, PeerStatus};
use super::super::rewind::{ControlState, DivergenceFacts, LocalPosition, LocalRole, Remedy, switch_points};
use super::super::slots::LogicalSlot;
use super::super::view::{
    ActionKind, Control, DataDir, Facts, Finished, Lease, Outcome, OwnTags, Postgres, RecoveryDiff, RunningAction,
    Settings, Store, SyncSettings, View,
};
use super::super::{CheckpointState, Memory, RewindState};
use crate::cluster::properties::{history, raw_key};
use crate::cluster::{Cluster, MemberRole, PostgresState, RawKey, Revision};
use crate::config::SynchronousMode;
use crate::names::MemberName;
use crate::properties::choices::Choices;
use crate::sync::pick::{CommitLevel, Rank, Readiness, Replication, Walsender};
use crate::time::{BootInstant, WallTime};
use crate::wal::{Lsn, Timeline};

const NAMES: [&str; 3] = ["a", "b", "c"];
const SYSTEM_ID: &str = "7710485511011361242";

fn name(choices: &mut Choices<'_>) -> MemberName {
    choices.one_of(&NAMES).parse().expect("a member name")
}

fn seconds(choices: &mut Choices<'_>) -> Duration {
    if choices.rarely(30) {
        return choices.one_of(&[
            Duration::ZERO,
            Duration::MAX,
            Duration::from_secs(u64::MAX),
            Duration::from_nanos(1),
        ]);
    }
    Duration::from_secs(choices.one_of(&[10, 30, 1, 5, 20, 300, 29, 3600]))
}

/// Around the present, which is at 1000 seconds.
fn instant(choices: &mut Choices<'_>) -> BootInstant {
    if choices.rarely(40) {
        return BootInstant(choices.one_of(&[Duration::ZERO, Duration::MAX]));
    }
    BootInstant(Duration::from_millis(1_000_000 - 45_000 + u64::from(choices.byte()) * 200))
}

fn lsn(choices: &mut Choices<'_>) -> Lsn {
    if choices.rarely(20) { Lsn(choices.number()) } else { Lsn(choices.one_of(&[1000, 1001, 999, 0, 5_000_000])) }
}

pub(super) fn timeline(choices: &mut Choices<'_>) -> Timeline {
    let number = if choices.rarely(20) { u32::MAX } else { choices.one_of(&[1, 2, 3, 4]) };
    Timeline::new(number).unwrap_or(Timeline::FIRST)
}

fn role(choices: &mut Choices<'_>) -> MemberRole {
    use MemberRole::*;
    choices.one_of(&[Replica, Primary, Demoted, Promoted, Uninitialized, StandbyLeader])
}

fn action(choices: &mut Choices<'_>) -> ActionKind {
    use ActionKind::*;
    choices.one_of(&[
        Promote,
        Start,
        Demote,
        Bootstrap,
        Clone,
        Stop,
        CrashRecovery,
        CheckDivergence,
        Rewind,
        ChangeUpstream,
        Checkpoint,
    ])
}

fn member_record(choices: &mut Choices<'_>, name: &str) -> String {
    if choices.rarely(16) {
        return choices.one_of(&["", "[]", "{}", "postgres://h:1/x?application_name=http://h:2/patroni"]).to_owned();
    }
    let mut record = serde_json::json!({
        "conn_url": format!("postgres://{name}:5432/postgres"),
        "state": choices.one_of(&["running", "stopped", "starting"]),
        "role": choices.one_of(&["replica", "primary", "master", "demoted"]),
        "xlog_location": lsn(choices).0,
        "timeline": timeline(choices).get(),
    });
    if !choices.rarely(6) {
        record["api_url"] = format!("http://{name}:8008/patroni").into();
    }
    if choices.rarely(4) {
        record["tags"] = serde_json::json!({
            choices.one_of(&["nofailover", "clonefrom", "replicatefrom", "failover_priority"]):
                choices.one_of(&[serde_json::json!(true), 0.into(), "a".into(), "b".into(), "c".into()]),
        });
    }
    if choices.rarely(5) {
        record["checkpoint_after_promote"] = false.into();
    }
    record.to_string()
}

fn any_cluster(choices: &mut Choices<'_>) -> Cluster {
    let revision = |choices: &mut Choices<'_>| Revision(i64::from(choices.byte() % 8));
    let mut keys: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: String| keys.push((key.to_owned(), value));
    for name in NAMES {
        if !choices.rarely(5) {
            put(&format!("members/{name}"), member_record(choices, name));
        }
    }
    match choices.byte() % 8 {
        0 | 1 => {}
        2 => put("leader", choices.text()),
        _ => put("leader", choices.one_of(&NAMES).to_owned()),
    }
    if !choices.rarely(5) {
        put(
            "initialize",
            choices.one_of(&[SYSTEM_ID, SYSTEM_ID, SYSTEM_ID, "", "x", "7710485511011361243"]).to_owned(),
        );
    }
    if !choices.rarely(5) {
        put("config", r#"{"ttl":30}"#.to_owned());
    }
    if !choices.rarely(4) {
        put("status", format!("{{\"optime\":{}}}", lsn(choices).0));
    }
    if choices.rarely(3) {
        put("history", history(choices).to_value());
    }
    if choices.rarely(3) {
        let member = |choices: &mut Choices<'_>| choices.one_of(&["null", "\"a\"", "\"b\"", "\"c\"", "\"d\""]);
        let at = choices.one_of(&["null", "\"2027-01-15T08:00:00Z\"", "\"2027-01-15T07:59:50Z\"", "\"soon\""]);
        let (leader, candidate) = (member(choices), member(choices));
        put("failover", format!("{{\"leader\":{leader},\"member\":{candidate},\"scheduled_at\":{at}}}"));
    }
    if choices.rarely(6) {
        let sync = serde_json::json!({"leader": choices.one_of(&NAMES), "sync_standby": choices.one_of(&NAMES)});
        put("sync", sync.to_string());
    }
    if choices.rarely(6) {
        put("failsafe", format!("{{\"{}\":\"http://x\"}}", choices.one_of(&NAMES)));
    }
    for key in [INTENT_KEY, INTENT_ALIVE_KEY] {
        if choices.rarely(6) {
            put(&format!("x/{key}"), choices.one_of(&NAMES).to_owned());
        }
    }
    let at = revision(choices);
    let with_revisions = |(suffix, value): (String, String)| {
        let (create_revision, mod_revision) = (revision(choices), revision(choices));
        RawKey { create_revision, mod_revision, ..raw_key(&suffix, value.as_bytes()) }
    };
    Cluster::from_keys(at, keys.into_iter().map(with_revisions).collect::<Vec<_>>())
}

fn any_facts(choices: &mut Choices<'_>, in_recovery: bool) -> Facts {
    Facts {
        in_recovery,
        position: lsn(choices),
        replayed: lsn(choices),
        timeline: (!choices.rarely(8)).then(|| timeline(choices)),
        streaming: choices.flag(),
        replay_paused: choices.rarely(8),
        history: choices.maybe(history),
        replication: any_replication(choices),
        checkpointed: !choices.rarely(4),
    }
}

fn any_replication(choices: &mut Choices<'_>) -> Replication {
    let loaded = ["", "b", "2 (b,c)", "ANY 1 (b,c)", "ANY 1 (*)", crate::sync::PLACEHOLDER, "1 (", "2 (a,b,x)"];
    let any_walsender = |choices: &mut Choices<'_>| Walsender {
        application_name: choices.one_of(&["b", "c", "a", "C", "x", "*"]).to_owned(),
        slot: choices.maybe(|choices| choices.one_of(&["b", "c", "x"]).to_owned()),
        streaming: !choices.rarely(4),
        rank: choices.one_of(&[Rank::Sync, Rank::Quorum, Rank::Potential, Rank::Async]),
        written: choices.maybe(lsn),
        flushed: (!choices.rarely(6)).then(|| lsn(choices)),
        replayed: choices.maybe(lsn),
    };
    Replication {
        loaded: choices.one_of(&loaded).to_owned(),
        level: choices.one_of(&[CommitLevel::Flush, CommitLevel::RemoteWrite, CommitLevel::RemoteApply]),
        walsenders: choices.several(3, any_walsender),
    }
}

fn any_sync(choices: &mut Choices<'_>) -> SyncSettings {
    use SynchronousMode::*;
    SyncSettings {
        mode: if choices.rarely(3) { choices.one_of(&[On, Quorum]) } else { Off },
        strict: choices.flag(),
        count: choices.one_of(&[1, 2, 3, 0, u32::MAX]),
        lag_bytes_max: choices.maybe(Choices::number),
        own: choices.one_of(&["", "b", "ANY 1 (*)", "("]).to_owned(),
    }
}

fn any_postgres(choices: &mut Choices<'_>) -> Postgres {
    use PostgresState::*;
    let role = role(choices);
    let alive = !choices.rarely(3);
    let usual = if alive { [Running, Running, Starting, Restarting] } else { [Stopped, Crashed, StartFailed, Stopped] };
    let state = if choices.rarely(20) { choices.one_of(&PostgresState::ALL) } else { choices.one_of(&usual) };
    let in_recovery = (role != MemberRole::Primary) != choices.rarely(10);
    let control = |choices: &mut Choices<'_>| Control {
        state: choices.one_of(&[
            ControlState::InProduction,
            ControlState::ShutDown,
            ControlState::ShutDownInRecovery,
            ControlState::InArchiveRecovery,
            ControlState::ShuttingDown,
            ControlState::InCrashRecovery,
            ControlState::Other,
        ]),
        rewind_possible: !choices.flag(),
        has_signal_file: choices.flag(),
        has_backup_label: choices.rarely(5),
        checkpoint: choices.maybe(lsn),
    };
    Postgres {
        state,
        role,
        alive,
        starting_since: choices.maybe(instant),
        facts: (alive && !choices.rarely(4)).then(|| any_facts(choices, in_recovery)),
        control: (!alive && !choices.rarely(5)).then(|| control(choices)),
        managed: !choices.rarely(4),
        recovery: choices.one_of(&[
            RecoveryDiff::Same,
            RecoveryDiff::Unknown,
            RecoveryDiff::Reload,
            RecoveryDiff::Restart,
        ]),
        lacks_slots: choices.maybe(|_| ("cdc".to_owned(), slot())).into_iter().collect(),
    }
}

fn slot() -> LogicalSlot {
    LogicalSlot { database: "app".to_owned(), plugin: "pgoutput".to_owned() }
}

fn any_settings(choices: &mut Choices<'_>) -> Settings {
    let plain = !choices.rarely(3);
    let time = |choices: &mut Choices<'_>, usual| if plain { Duration::from_secs(usual) } else { seconds(choices) };
    Settings {
        ttl: time(choices, 30),
        loop_wait: time(choices, 10),
        retry_timeout: time(choices, 10),
        maximum_lag_on_failover: if plain { 1_048_576 } else { choices.number() },
        check_timeline: choices.rarely(4),
        primary_start_timeout: if choices.rarely(4) { seconds(choices) } else { Duration::ZERO },
        primary_race_backoff: if choices.rarely(4) { seconds(choices) } else { Duration::ZERO },
        paused: choices.rarely(4),
        sync: any_sync(choices),
        standby_cluster: choices.rarely(8),
        failsafe_mode: choices.rarely(8),
        use_pg_rewind: !choices.flag(),
        wipe_on_rewind_failure: choices.rarely(4),
        wipe_on_divergence: choices.rarely(4),
    }
}

fn any_outcome(choices: &mut Choices<'_>) -> Outcome {
    let text = "it failed".to_owned();
    match choices.byte() % 8 {
        0 | 1 => Outcome::Done,
        2 | 3 => Outcome::Failed(text),
        4 => Outcome::Cancelled,
        5 => Outcome::Refused(text),
        6 => Outcome::SourceLost(text),
        _ => {
            let was = if choices.flag() {
                LocalRole::FormerPrimary { checkpoint_end: choices.maybe(lsn) }
            } else {
                LocalRole::Standby
            };
            let known = DivergenceFacts::Known {
                local: LocalPosition { timeline: timeline(choices), lsn: lsn(choices), was },
                local_history: choices.maybe(|choices| switch_points(&history(choices).lines)),
                leader_timeline: timeline(choices),
                leader_history: switch_points(&history(choices).lines),
            };
            let unknown = [DivergenceFacts::LocalUnknown(text.clone()), DivergenceFacts::LeaderNotReady(text)];
            Outcome::Divergence(Box::new(if choices.rarely(4) { choices.one_of(&unknown) } else { known }))
        }
    }
}

fn any_poll(choices: &mut Choices<'_>) -> PeerPoll {
    let mut poll = PeerPoll::default();
    for name in NAMES {
        let status = PeerStatus {
            in_recovery: !choices.rarely(5),
            position: lsn(choices),
            timeline: (!choices.rarely(6)).then(|| timeline(choices)),
            nofailover: choices.rarely(6),
            failover_priority: i64::from(choices.byte() % 3),
            watchdog_failed: choices.rarely(12),
        };
        let answer = if choices.rarely(4) { PeerAnswer::Unreachable } else { PeerAnswer::Status(status) };
        if !choices.rarely(8) {
            poll.answers.insert(name.parse().expect("a member name"), answer);
        }
    }
    poll
}

fn any_lease(choices: &mut Choices<'_>, ttl: Duration) -> Lease {
    match choices.byte() % 6 {
        0 => Lease::None,
        1 => Lease::NotOurs { holder: choices.maybe(name) },
        _ => Lease::Held { sent: instant(choices), ttl, epoch: Revision(i64::from(choices.byte() % 8)) },
    }
}

pub(super) fn any_view(choices: &mut Choices<'_>) -> View {
    let settings = any_settings(choices);
    let store = match choices.rarely(8) {
        true => Store::Lost { error: choices.text() },
        false => Store::Current(Arc::new(any_cluster(choices))),
    };
    let system_id =
        |choices: &mut Choices<'_>| choices.one_of(&[Some(SYSTEM_ID), Some(SYSTEM_ID), Some("1234567890"), None]);
    let data_dir = match choices.byte() % 10 {
        8 => DataDir::Empty,
        9 => DataDir::Inaccessible { problem: choices.text() },
        _ => DataDir::Present { system_id: system_id(choices).map(str::to_owned) },
    };
    let running = |choices: &mut Choices<'_>| RunningAction {
        kind: action(choices),
        since: instant(choices),
        committed: choices.flag(),
        cancelled: choices.rarely(4),
    };
    View {
        now: if choices.rarely(60) { instant(choices) } else { BootInstant(Duration::from_secs(1000)) },
        // 2027-01-15T08:00:00Z, when schedules of generated clusters are due.
        wall: WallTime(Duration::from_secs(1_800_000_000)),
        me: name(choices),
        tags: OwnTags {
            nofailover: choices.rarely(6),
            failover_priority: i64::from(choices.byte() % 3),
            replicatefrom: choices.rarely(4).then(|| choices.one_of(&["a", "b", "c", "d"]).to_owned()),
            nostream: choices.rarely(10),
        },
        may_bootstrap: !choices.flag(),
        lease: any_lease(choices, settings.ttl),
        settings,
        store,
        data_dir,
        postgres: any_postgres(choices),
        action: choices.rarely(4).then(|| running(choices)),
        finished: choices.several(2, |choices| Finished { kind: action(choices), outcome: any_outcome(choices) }),
        poll: (!choices.rarely(3)).then(|| any_poll(choices)),
        request: choices.rarely(6).then(|| any_request(choices)),
        failsafe: if choices.rarely(3) { any_failsafe(choices) } else { Failsafe::default() },
        watchdog_failure: choices.rarely(12).then(|| choices.text()),
    }
}

fn any_request(choices: &mut Choices<'_>) -> Request {
    match choices.flag() {
        true => Request::Restart { timeout: choices.maybe(|_| Duration::from_secs(60)) },
        false => Request::Reinitialize { force: choices.flag(), from_leader: choices.flag() },
    }
}

fn any_failsafe(choices: &mut Choices<'_>) -> Failsafe {
    let answer = |choices: &mut Choices<'_>| match choices.byte() % 6 {
        0 => ConsentAnswer::Refused("no".to_owned()),
        1 => ConsentAnswer::Unreachable("timed out".to_owned()),
        _ => ConsentAnswer::Agreed { position: choices.maybe(lsn) },
    };
    let round = |choices: &mut Choices<'_>| Round {
        sent: instant(choices),
        answers: NAMES.iter().map(|name| ((*name).to_owned(), answer(choices))).collect(),
    };
    Failsafe {
        consent: choices.maybe(|choices| Consent { sent: instant(choices), ttl: seconds(choices) }),
        round: choices.maybe(round),
        promise: choices.maybe(|choices| Promise {
            leader: name(choices),
            conn_url: String::new(),
            api_url: choices.text(),
            until: instant(choices),
        }),
    }
}

fn any_map(choices: &mut Choices<'_>) -> BTreeMap<String, String> {
    NAMES.iter().filter(|_| !choices.rarely(4)).map(|name| ((*name).to_owned(), String::new())).collect()
}

pub(super) fn any_memory(choices: &mut Choices<'_>) -> Memory {
    let text = |_: &mut Choices<'_>| "it failed".to_owned();
    Memory {
        last_led: choices.maybe(|choices| Arc::new(any_cluster(choices))),
        last_position: choices.maybe(lsn),
        leaderless_since: choices.maybe(instant),
        backoff: choices.maybe(|choices| Backoff {
            since: instant(choices),
            noted_at: instant(choices),
            position: lsn(choices),
        }),
        rewind: choices.one_of(&[
            RewindState::Initial,
            RewindState::CheckRequested,
            RewindState::Needed,
            RewindState::Forked(Remedy::Rewind),
            RewindState::Forked(Remedy::Copy),
            RewindState::NotNeeded,
            RewindState::Success,
            RewindState::Failed,
        ]),
        compared_with: choices.maybe(name),
        compared_timeline: choices.maybe(timeline),
        same_history: choices.maybe(|choices| SameHistory {
            leader_timeline: timeline(choices),
            timeline: timeline(choices),
            lsn: lsn(choices),
        }),
        pointed_to: choices.maybe(|choices| (choices.maybe(name), instant(choices))),
        rewind_error: choices.maybe(text).unwrap_or_default(),
        check_again_at: choices.maybe(instant),
        rejoin_waits_until: choices.maybe(instant),
        checkpoint: choices.one_of(&[
            CheckpointState::Unknown,
            CheckpointState::Done,
            CheckpointState::Due,
            CheckpointState::Running,
        ]),
        checkpoint_again_at: choices.maybe(instant),
        copy_slots_again_at: choices.maybe(instant),
        remote_compared_at: choices.maybe(instant),
        recovering: choices.flag(),
        start_error: choices.maybe(text),
        start_timeout: choices.maybe(|_| Duration::from_secs(60)),
        retry_at: choices.maybe(instant),
        crash_recovery_tried: choices.flag(),
        proof_asked: choices.maybe(|choices| (Revision(i64::from(choices.byte() % 8)), instant(choices))),
        unproven_since: choices.maybe(instant),
        readiness: Readiness::default(),
        standby_names_managed: choices.flag(),
        standby_names_restored_at: choices.maybe(instant),
        overrides_sync: choices.flag(),
        was_paused: choices.flag(),
        refused_at: choices.maybe(instant),
        refused: choices.maybe(text),
        promotes_since: choices.maybe(instant),
        steps_down_for: choices.maybe(|choices| Revision(i64::from(choices.byte() % 8))),
        request_done: choices.maybe(|choices| Revision(i64::from(choices.byte() % 8))),
        yields: choices.maybe(|choices| (Revision(i64::from(choices.byte() % 8)), instant(choices))),
        failsafe: KnownMap {
            read: choices.maybe(any_map),
            attempted: if choices.rarely(4) { choices.maybe(any_map) } else { None },
            ask_again_at: if choices.rarely(3) { choices.maybe(instant) } else { None },
        },
        bootstrap_failed: choices.rarely(20).then(|| text(choices)),
    }
}
