use std::sync::Arc;

use pgward_core::cluster::{Cluster, Initialize, LeaseId, MemberRole, PostgresState, RawKey, Revision};
use pgward_core::decide::decide;
use pgward_core::decide::view::{
    ActionKind, DataDir, Finished, Lease, Outcome, OwnTags, Postgres, RecoveryDiff, Settings, Store,
};
use pgward_core::explain::document::{self, Document};
use pgward_core::explain::replay;
use pgward_core::time::{BootInstant, WallTime};

use super::*;
use crate::rest::{NodeView, Query, decision_metrics, explain_document};

const PASSWORD: &str = "hunter2";

/// A replica of `leader`, in a store that holds passwords wherever people put them.
fn view(leader: &str, second: u64) -> View {
    let key = |suffix: &str, value: &str| RawKey {
        suffix: suffix.to_owned(),
        value: value.replace("SECRET", PASSWORD).into_bytes(),
        create_revision: Revision(1),
        mod_revision: Revision(1),
        lease: LeaseId(1),
    };
    let member = |name: &str| {
        let urls =
            format!(r#""conn_url":"postgres://bob:SECRET@{name}:5432/x","api_url":"http://{name}:8008/patroni""#);
        key(
            &format!("members/{name}"),
            &format!(r#"{{{urls},"role":"primary","note":"SECRET","tags":{{"key":"SECRET"}}}}"#),
        )
    };
    let keys = [
        key("leader", leader),
        key("initialize", "7710485511011361242"),
        key(
            "config",
            r#"{"postgresql":{"authentication":{"superuser":{"password":"SECRET"}},"parameters":{"x":"SECRET"}}}"#,
        ),
        member("n1"),
        member("n2"),
        member("n3"),
    ];
    let failed = Outcome::Failed(format!("connection to \"host=n1 user=bob password={PASSWORD}\" failed"));
    let settings = Settings {
        ttl: Duration::from_secs(30),
        loop_wait: Duration::from_secs(10),
        retry_timeout: Duration::from_secs(10),
        maximum_lag_on_failover: 1,
        check_timeline: false,
        primary_start_timeout: Duration::from_secs(300),
        primary_race_backoff: Duration::ZERO,
        paused: false,
        sync: pgward_core::decide::view::SyncSettings::default(),
        standby_cluster: false,
        failsafe_mode: false,
        use_pg_rewind: true,
        wipe_on_rewind_failure: false,
        wipe_on_divergence: false,
    };
    View {
        now: BootInstant(Duration::from_secs(second)),
        wall: WallTime(Duration::from_secs(1_800_000_000 + second)),
        me: "n3".parse().unwrap(),
        tags: OwnTags::default(),
        may_bootstrap: false,
        settings,
        store: Store::Current(Arc::new(Cluster::from_keys(Revision(9), keys))),
        lease: Lease::None,
        data_dir: DataDir::Present { system_id: Some("7710485511011361242".to_owned()) },
        postgres: Postgres {
            state: PostgresState::Running,
            role: MemberRole::Replica,
            alive: true,
            starting_since: None,
            facts: None,
            control: None,
            managed: true,
            recovery: RecoveryDiff::Same,
            lacks_slots: Default::default(),
        },
        action: None,
        finished: vec![Finished { kind: ActionKind::CrashRecovery, outcome: failed }],
        request: None,
        poll: None,
        failsafe: Default::default(),
        watchdog_failure: None,
    }
}

fn note(recorder: &Recorder, view: &View) {
    let before = Memory::default();
    let (decision, after) = decide(view, &before);
    recorder.note(view, before, &decision, &after);
}

/// What a ring holds, as `times leader`.
fn held_by(recorder: &Recorder) -> Vec<String> {
    let kept = recorder.lock();
    let line = |entry: &pgward_core::explain::ring::Entry| {
        let Store::Current(cluster) = &entry.step.view.store else { panic!("{entry:?}") };
        format!("{} {}", entry.tally.times, cluster.leader.as_ref().unwrap().name)
    };
    kept.ring.entries().map(line).collect()
}

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn decisions_survive_the_agent_and_passwords_never_get_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.decisions");
    let recorder = Recorder::with_file(path.clone()).unwrap();
    for (leader, second) in [("n1", 0), ("n1", 10), ("n1", 20), ("n2", 25), ("n2", 26)] {
        note(&recorder, &view(leader, second));
    }
    recorder.flush(LIMIT).await;
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(PASSWORD), "{text}");
    assert!(text.contains("password=***"), "the error is there without its password: {text}");
    let content = file::read(&text);
    assert_eq!(content.unreadable, []);
    assert_eq!(content.entries.len(), 2);
    assert_eq!(content.entries[0].tally, Tally { times: 3, last: WallTime(Duration::from_secs(1_800_000_020)) });
    for entry in &content.entries {
        assert_eq!(replay(&entry.step).differences, []);
    }
    // Another agent, after a crash in the middle of a line.
    fs::write(&path, text + "{\"view\":").unwrap();
    let next = Recorder::with_file(path.clone()).unwrap();
    next.flush(LIMIT).await;
    assert_eq!(held_by(&next), ["3 n1", "2 n2"], "it knows what the former one decided");
    note(&next, &view("n1", 60));
    next.flush(LIMIT).await;
    let content = file::read(&fs::read_to_string(&path).unwrap());
    assert_eq!((content.entries.len(), content.unreadable), (3, vec![]));
}

#[tokio::test]
async fn the_files_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.decisions");
    let limit = 20_000;
    let recorder = Recorder::with_limit(path.clone(), limit).unwrap();
    for second in 0..60 {
        note(&recorder, &view(if second % 2 == 0 { "n1" } else { "n2" }, second));
        recorder.flush(LIMIT).await;
    }
    let sizes: Vec<u64> = [path.clone(), rotated(&path)].map(|path| fs::metadata(path).unwrap().len()).into();
    assert!(sizes.iter().all(|size| (1..=limit).contains(size)), "{sizes:?}");
    let entries = read(&path);
    assert_eq!(entries.last().unwrap().step.view.wall, view("n2", 59).wall, "the newest is there");
    assert_eq!(recorder.left_out(), 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_holds_nothing_up() {
    let recorder = Recorder::with_file(PathBuf::from("/nonexistent/data.decisions")).unwrap();
    for second in 0..200 {
        note(&recorder, &view(if second % 2 == 0 { "n1" } else { "n2" }, second));
    }
    recorder.flush(LIMIT).await;
    assert_eq!(recorder.lock().ring.entries().len(), 200, "memory has them all");
}

fn node() -> NodeView {
    NodeView::unseen("n3".parse().unwrap(), "demo".to_owned(), "4.1.5".to_owned())
}

#[test]
fn a_member_explains_itself_to_whoever_asks() {
    let recorder = Recorder::default();
    let empty = explain_document(&node(), &recorder, &Query::default());
    assert_eq!((empty.latest, empty.decisions), (None, vec![]));
    for (leader, second) in [("n1", 0), ("n1", 10), ("n2", 25)] {
        note(&recorder, &view(leader, second));
    }
    let document = explain_document(&node(), &recorder, &Query::parse("limit=1&inputs=true"));
    let text = serde_json::to_string(&document).unwrap();
    assert!(!text.contains(PASSWORD), "{text}");
    let read: Document = serde_json::from_str(&text).unwrap();
    assert_eq!(read.decisions.len(), 1);
    assert_eq!(replay(&document::entry(&read.decisions[0]).unwrap().step).differences, []);
    assert_eq!(read.decisions[0].record.as_ref(), Some(&read.latest.unwrap().record));
    let all = explain_document(&node(), &recorder, &Query::default());
    let told: Vec<_> = all.decisions.iter().map(|told| (told.with_rules(), told.times)).collect();
    let follows = |leader: &str| format!("follows the leader {leader} [OWN-7, FOL-12]");
    assert_eq!(told, [(follows("n1"), 2), (follows("n2"), 1)]);
    assert!(all.decisions.iter().all(|told| told.record.is_none()), "inputs only for who asks for them");
    let times = serde_json::to_value(&all.decisions[0]).unwrap();
    assert_eq!(
        (&times["at"], &times["until"]),
        (&"2027-01-15T08:00:00.000Z".into(), &"2027-01-15T08:00:10.000Z".into())
    );
}

#[test]
fn metrics_of_decisions_have_a_help_line_and_a_type() {
    let mut phases = Phases::default();
    let leaderless = |second| {
        let mut view = view("n1", second);
        view.tags.nofailover = true;
        view.store = Store::Current(Arc::new(Cluster {
            initialize: Initialize::SystemId("7710485511011361242".to_owned()),
            ..Cluster::default()
        }));
        view
    };
    for view in [view("n1", 0), leaderless(10), leaderless(20)] {
        phases.note(&view, &decide(&view, &Memory::default()).0);
    }
    let want = r#"# HELP pgward_leader_changes_total How often this member took over as primary since its agent was started.
# TYPE pgward_leader_changes_total counter
pgward_leader_changes_total{scope="demo",name="n3",kind="failover"} 0
pgward_leader_changes_total{scope="demo",name="n3",kind="switchover"} 0
# HELP pgward_leader_change_phase_seconds The last time this member took over: seconds from seeing that nobody led to the end of each phase.
# TYPE pgward_leader_change_phase_seconds gauge
# HELP pgward_leader_change_timestamp_seconds When that was: epoch seconds at which this member saw that nobody led.
# TYPE pgward_leader_change_timestamp_seconds gauge
# HELP pgward_split_brain Members that are primary beside the holder of the leader key now.
# TYPE pgward_split_brain gauge
pgward_split_brain{scope="demo",name="n3"} 0
# HELP pgward_split_brains_total How often such members were seen since the agent was started.
# TYPE pgward_split_brains_total counter
pgward_split_brains_total{scope="demo",name="n3"} 0
# HELP pgward_refusals_total How often this member refused to lead since its agent was started, by the first rule of the reason.
# TYPE pgward_refusals_total counter
pgward_refusals_total{scope="demo",name="n3",rule="HLT-7"} 1
"#;
    assert_eq!(decision_metrics(&node(), &phases), want);
}
