//! Restarts and new copies on request: what REST refuses by itself, and what it asks of the cycle.

use pgward_agent::orders::{self, Orders};
use pgward_core::cluster::PostgresState;
use serde_json::{Value, json};

use super::support::{Agent, protected, run};

async fn ask(agent: &std::sync::Arc<Agent>, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
    let running = run(agent, protected()).await;
    let answer = running.ask(method, path, body).await;
    (answer.status, answer.text())
}

#[tokio::test]
async fn a_restart_is_refused_in_the_words_that_scripts_know() {
    const UNREADABLE: &str =
        "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
    for (stage, body, status, text) in [
        (
            "steady-async",
            json!({"role": "master"}),
            400,
            "PostgreSQL role should be either primary, standby_leader, or replica",
        ),
        ("steady-async", json!({"timeout": "-1"}), 400, "Timeout should be a positive number of seconds"),
        ("steady-async", json!({"timeout": 0}), 400, "Timeout should be a positive number of seconds"),
        ("steady-async", json!({"postgres_version": "a.b"}), 400, "Invalid PostgreSQL version: a.b"),
        (
            "steady-async",
            json!({"postgres_version": "9.6"}),
            400,
            "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9.6",
        ),
        (
            "steady-async",
            json!({"postgres_version": "15.1.2"}),
            400,
            "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 15.1.2",
        ),
        ("steady-async", json!({"schedule": "garbage"}), 422, UNREADABLE),
        ("steady-async", json!({"schedule": null}), 422, UNREADABLE),
        (
            "steady-async",
            json!({"schedule": "2031-01-01T00:00:00"}),
            400,
            "Timezone information is mandatory for the scheduled restart",
        ),
        ("steady-async", json!({"schedule": "2001-01-01T00:00:00Z"}), 422, "Cannot schedule restart in the past"),
        ("steady-async", json!({"foo": 1}), 400, "Unknown filter for the scheduled restart: foo"),
        ("steady-async", json!({"foo": 1, "role": "master"}), 400, "Unknown filter for the scheduled restart: foo"),
        ("steady-async", json!({"role": "replica"}), 503, "restart conditions are not satisfied"),
        ("steady-async", json!({"postgres_version": "15.18"}), 503, "restart conditions are not satisfied"),
        ("steady-async", json!({"restart_pending": false}), 503, "restart conditions are not satisfied"),
        ("paused", json!({"schedule": "2031-01-01T00:00:00Z"}), 500, "Can't schedule restart in the paused state"),
    ] {
        let agent = Agent::at(stage, "pg1");
        assert_eq!(ask(&agent, "POST", "/restart", Some(body.clone())).await, (status, text.to_owned()), "{body}");
    }
}

#[tokio::test]
async fn nobody_who_could_do_it_is_a_refusal_too() {
    let agent = Agent::at("steady-async", "pg1");
    let busy = "the agent is busy with other requests, or ends".to_owned();
    assert_eq!(ask(&agent, "POST", "/restart", None).await, (503, busy.clone()));
    assert_eq!(ask(&agent, "POST", "/reinitialize", Some(json!({}))).await, (503, busy.clone()));
    assert_eq!(ask(&agent, "DELETE", "/restart", None).await, (503, busy));
}

#[tokio::test]
async fn more_operators_than_can_wait_are_turned_away() {
    let (orders, _inbox) = orders::channel();
    let agent = Agent::at("steady-async", "pg1");
    *agent.orders.lock().unwrap() = orders.clone();
    let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(held(orders.clone()))).collect();
    // Each has to have been sent before the next one is too many.
    while orders.room() > 0 {
        tokio::task::yield_now().await;
    }
    let (status, text) = ask(&agent, "POST", "/restart", None).await;
    assert_eq!((status, text.as_str()), (503, "the agent is busy with other requests, or ends"));
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn held(orders: Orders) {
    orders.unschedule().await;
}

#[tokio::test]
async fn an_odd_body_is_no_request() {
    let agent = Agent::at("steady-async", "pg1");
    let running = run(&agent, protected()).await;
    for body in [json!([1]), json!("now"), json!(1)] {
        assert_eq!(running.ask("POST", "/restart", Some(body.clone())).await.status, 400, "{body}");
        assert_eq!(running.ask("POST", "/reinitialize", Some(body)).await.status, 400);
    }
    assert_eq!(agent.node.borrow().state, PostgresState::Running);
}
