//! Switchover and failover on request.

use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, Leader, LeaseId, Revision};
use serde_json::{Value, json};

use super::support::{Agent, golden, protected, run};

/// Pretends that `name` won the leader key and cleared the request.
fn led_by(name: &'static str) -> impl FnOnce(&mut Cluster) + Send + 'static {
    move |cluster| {
        let revision = Revision(cluster.revision.0);
        let name = name.parse().unwrap();
        cluster.leader = Some(Leader { name, lease: LeaseId(7), epoch: revision, revision });
        cluster.failover = None;
    }
}

async fn ask(agent: &Arc<Agent>, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
    let running = run(agent, protected()).await;
    let answer = running.ask(method, path, body).await;
    (answer.status, answer.text())
}

#[tokio::test]
async fn refusals_come_in_order_and_in_the_words_that_scripts_know() {
    const NO_GOOD: &str = "switchover is not possible: no good candidates have been found";
    const UNREADABLE: &str =
        "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
    let later = "2031-01-01T00:00:00Z";
    for (stage, path, body, status, text) in [
        (
            "steady-async",
            "failover",
            json!({"leader": "pg1"}),
            400,
            "Failover could be performed only to a specific candidate",
        ),
        (
            "steady-async",
            "switchover",
            json!({"candidate": "pg2"}),
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (
            "steady-async",
            "switchover",
            json!({"leader": "", "candidate": "pg2"}),
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (
            "steady-async",
            "failover",
            json!({"candidate": "pg2", "scheduled_at": later}),
            400,
            "Failover can't be scheduled",
        ),
        (
            "paused",
            "switchover",
            json!({"leader": "pg3", "candidate": "pg1", "scheduled_at": later}),
            400,
            "Can't schedule switchover in the paused state",
        ),
        (
            "steady-async",
            "switchover",
            json!({"leader": "pg1", "scheduled_at": "2031-01-01T00:00"}),
            400,
            "Timezone information is mandatory for the scheduled switchover",
        ),
        (
            "steady-async",
            "switchover",
            json!({"leader": "pg1", "scheduled_at": "2001-01-01T00:00Z"}),
            422,
            "Cannot schedule switchover in the past",
        ),
        ("steady-async", "switchover", json!({"leader": "pg1", "scheduled_at": "garbage"}), 422, UNREADABLE),
        (
            "paused",
            "switchover",
            json!({"leader": "pg3"}),
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ),
        (
            "steady-async",
            "switchover",
            json!({"leader": "pg1", "candidate": "pg1"}),
            400,
            "Switchover target and source are the same",
        ),
        (
            "steady-async",
            "failover",
            json!({"leader": "pg1", "member": "pg1"}),
            400,
            "Switchover target and source are the same",
        ),
        ("steady-async", "switchover", json!({"leader": "pg9", "candidate": "pg2"}), 412, "leader name does not match"),
        (
            "sync-mode",
            "switchover",
            json!({"leader": "pg1", "candidate": "pg3"}),
            412,
            "candidate name does not match with sync_standby",
        ),
        ("steady-async", "switchover", json!({"leader": "pg1", "candidate": "pg9"}), 412, "candidate does not exists"),
        ("steady-async", "failover", json!({"candidate": "a/b"}), 412, "candidate does not exists"),
        (
            "single-leader",
            "switchover",
            json!({"leader": "pg1"}),
            412,
            "switchover is not possible: cluster does not have members except leader",
        ),
        ("pending-restart-and-tags", "switchover", json!({"leader": "pg1", "candidate": "pg3"}), 412, NO_GOOD),
        ("steady-async", "switchover", json!({"leader": 1}), 400, "\"leader\" must be a JSON string"),
    ] {
        let name = if stage == "paused" { "pg3" } else { "pg1" };
        let agent = Agent::at(stage, name);
        let answer = ask(&agent, "POST", &format!("/{path}"), Some(body.clone())).await;
        assert_eq!(answer, (status, text.to_owned()), "{stage} {path} {body}");
        assert!(agent.written.lock().unwrap().is_empty(), "{stage} {path} {body}");
    }
}

#[tokio::test]
async fn without_a_standby_that_could_take_over_nothing_is_written() {
    let agent = Agent::at("sync-mode", "pg1");
    if let Some(cluster) = agent.store.lock().unwrap().as_mut() {
        cluster.sync.value.voters.clear();
    }
    let answer = ask(&agent, "POST", "/switchover", Some(json!({"leader": "pg1"}))).await;
    assert_eq!(answer, (412, "switchover is not possible: can not find sync_standby".to_owned()));
    let agent = Agent::at("steady-async", "pg1");
    agent.reachable.lock().unwrap().clear();
    let answer = ask(&agent, "POST", "/failover", Some(json!({"candidate": "pg2"}))).await;
    assert_eq!(answer, (412, "failover is not possible: no good candidates have been found".to_owned()));
    assert!(agent.written.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_answer_comes_with_the_change_of_leader() {
    for (path, body, new, written, text) in [
        (
            "switchover",
            json!({"leader": "pg1", "candidate": "pg2"}),
            "pg2",
            r#"{"leader":"pg1","member":"pg2"}"#,
            "Successfully switched over to \"pg2\"",
        ),
        ("switchover", json!({"leader": "pg1"}), "pg3", r#"{"leader":"pg1"}"#, "Successfully switched over to \"pg3\""),
        (
            "switchover",
            json!({"leader": "pg1", "candidate": "pg2"}),
            "pg3",
            r#"{"leader":"pg1","member":"pg2"}"#,
            "Switched over to \"pg3\" instead of \"pg2\"",
        ),
        ("failover", json!({"candidate": "pg2"}), "pg2", r#"{"member":"pg2"}"#, "Successfully failed over to \"pg2\""),
        (
            "failover",
            json!({"candidate": "pg2"}),
            "pg3",
            r#"{"member":"pg2"}"#,
            "Failed over to \"pg3\" instead of \"pg2\"",
        ),
        (
            "failover",
            json!({"leader": "pg1", "candidate": "pg2"}),
            "pg2",
            r#"{"leader":"pg1","member":"pg2"}"#,
            "Successfully switched over to \"pg2\"",
        ),
    ] {
        let agent = Agent::at("steady-async", "pg1");
        agent.on_wake(led_by(new));
        let begin = std::time::Instant::now();
        let answer = ask(&agent, "POST", &format!("/{path}"), Some(body.clone())).await;
        assert_eq!(answer, (200, text.to_owned()), "{path} {body}");
        assert_eq!(*agent.written.lock().unwrap(), [written], "{path} {body}");
        assert!(begin.elapsed() < Duration::from_millis(900), "no polling: {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_request_that_the_leader_drops_has_failed() {
    for (path, body, text) in [
        ("switchover", json!({"leader": "pg1", "candidate": "pg2"}), "Switchover failed"),
        ("failover", json!({"candidate": "pg2"}), "Failover failed"),
    ] {
        let agent = Agent::at("steady-async", "pg1");
        agent.on_wake(|cluster| cluster.failover = None);
        assert_eq!(ask(&agent, "POST", &format!("/{path}"), Some(body)).await, (503, text.to_owned()));
    }
}

#[tokio::test]
async fn a_view_from_before_the_request_says_nothing_about_it() {
    let agent = Agent::at("steady-async", "pg1");
    let running = run(&agent, protected()).await;
    let asked = tokio::spawn(async move { running.ask("POST", "/failover", Some(json!({"candidate": "pg2"}))).await });
    while agent.written.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    // Published again without the request in it, as a cycle does that began before the write.
    agent.node.send_modify(|node| node.paused = false);
    agent.node.send_modify(|node| {
        let mut cluster = agent.store.lock().unwrap().clone().unwrap();
        cluster.revision = Revision(cluster.revision.0 + 1);
        led_by("pg2")(&mut cluster);
        node.cluster = Some(Arc::new(cluster));
    });
    assert_eq!(asked.await.unwrap().text(), "Successfully failed over to \"pg2\"");
}

#[tokio::test]
async fn an_outcome_that_does_not_show_in_time_is_unknown() {
    let agent = Agent::at("steady-async", "pg1");
    let running = run(&agent, protected()).await;
    let asked = tokio::spawn(async move { running.ask("POST", "/failover", Some(json!({"candidate": "pg2"}))).await });
    while agent.written.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(21)).await;
    tokio::time::resume();
    let answer = asked.await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (503, "Failover status unknown"));
}

#[tokio::test]
async fn a_switchover_can_be_scheduled_and_taken_back() {
    let agent = Agent::at("steady-async", "pg1");
    let nobody = (404, "no switchover is scheduled".to_owned());
    assert_eq!(ask(&agent, "DELETE", "/switchover", None).await, nobody);
    let body = json!({"leader": "pg1", "candidate": "pg2", "scheduled_at": "2031-01-01T00:00:00Z"});
    let scheduled = (202, "Switchover scheduled".to_owned());
    assert_eq!(ask(&agent, "POST", "/switchover", Some(body)).await, scheduled);
    let want = r#"{"leader":"pg1","member":"pg2","scheduled_at":"2031-01-01T00:00:00+00:00"}"#;
    assert_eq!(*agent.written.lock().unwrap(), [want]);
    *agent.conflict.lock().unwrap() = true;
    assert_eq!(ask(&agent, "DELETE", "/switchover", None).await.0, 409);
    *agent.conflict.lock().unwrap() = false;
    let deleted = (200, "scheduled switchover deleted".to_owned());
    assert_eq!(ask(&agent, "DELETE", "/switchover", None).await, deleted);
    assert_eq!(agent.written.lock().unwrap().last().unwrap(), "{}");
    assert_eq!(ask(&agent, "DELETE", "/switchover", None).await, nobody);
    let shown = ask(&Agent::at("scheduled", "pg1"), "GET", "/cluster", None).await.1;
    assert_eq!(shown, golden("scheduled/cluster.json"));
}
