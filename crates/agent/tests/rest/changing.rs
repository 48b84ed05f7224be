//! Changes of the dynamic configuration.

use serde_json::{Value, json};

use super::support::{Agent, protected, run};

/// A request, and whether the answer has to be the configuration or to contain a text.
struct Case {
    name: &'static str,
    method: &'static str,
    body: Value,
    status: u16,
    /// What was written; `None` when nothing may be.
    written: Option<Value>,
    text: &'static str,
}

fn present() -> Value {
    let cluster = super::support::cluster_at("steady-async").unwrap();
    Value::Object(cluster.config.unwrap().value)
}

fn with(change: impl FnOnce(&mut Value)) -> Option<Value> {
    let mut document = present();
    change(&mut document);
    Some(document)
}

#[tokio::test]
async fn a_change_is_merged_or_replaces_and_is_refused_when_it_makes_no_sense() {
    for Case { name, method, body, status, written, text } in [
        Case {
            name: "a new value",
            method: "PATCH",
            body: json!({"loop_wait": 4, "pause": true}),
            status: 200,
            written: with(|document| {
                document["loop_wait"] = json!(4);
                document["pause"] = json!(true);
            }),
            text: r#""pause": true"#,
        },
        Case {
            name: "below a mapping, and null",
            method: "PATCH",
            body: json!({"postgresql": {"parameters": {"max_connections": null, "work_mem": "8MB"}}}),
            status: 200,
            written: with(|document| {
                let parameters = document["postgresql"]["parameters"].as_object_mut().unwrap();
                parameters.shift_remove("max_connections");
                parameters.insert("work_mem".to_owned(), json!("8MB"));
            }),
            text: r#""work_mem": "8MB""#,
        },
        Case {
            name: "what is not there is removed without a write",
            method: "PATCH",
            body: json!({"nosuchkey": null}),
            status: 200,
            written: None,
            text: r#"{"ttl": 20, "#,
        },
        Case {
            name: "the same again",
            method: "PUT",
            body: present(),
            status: 200,
            written: None,
            text: r#"{"ttl": 20, "#,
        },
        Case {
            name: "another one",
            method: "PUT",
            body: json!({"ttl": 40}),
            status: 200,
            written: Some(json!({"ttl": 40})),
            text: r#"{"ttl": 40}"#,
        },
        Case {
            name: "no sense",
            method: "PATCH",
            body: json!({"synchronous_node_count": "two"}),
            status: 422,
            written: None,
            text: "was not changed: /config: synchronous_node_count: \"two\": is not a number",
        },
        Case {
            name: "no sense at all",
            method: "PUT",
            body: json!({"ttl": "soon"}),
            status: 422,
            written: None,
            text: "ttl is \"soon\", which is not a whole number of seconds",
        },
        Case {
            name: "a slot that cannot be named so",
            method: "PATCH",
            body: json!({"slots": {"My-Slot": null}}),
            status: 422,
            written: None,
            text: "slots.My-Slot: is no name for a replication slot",
        },
        Case {
            name: "a logical slot with the name of a member's",
            method: "PATCH",
            body: json!({"slots": {"pg2": {"database": "d", "plugin": "p"}}}),
            status: 422,
            written: None,
            text: "slots.pg2: is logical and has the name of the slot of member pg2, which is physical (SLT-1)",
        },
        Case { name: "empty", method: "PATCH", body: json!({}), status: 400, written: None, text: "" },
        Case { name: "no object", method: "PUT", body: json!([1]), status: 400, written: None, text: "" },
    ] {
        let agent = Agent::at("steady-async", "pg1");
        let running = run(&agent, protected()).await;
        let answer = running.ask(method, "/config", Some(body)).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        assert!(answer.text().contains(text), "{name}: {}", answer.text());
        let writes = agent.written.lock().unwrap().clone();
        let want: Vec<String> = written.iter().map(Value::to_string).collect();
        assert_eq!(writes, want, "{name}");
        if let Some(written) = &written {
            assert_eq!(&serde_json::from_str::<Value>(&answer.text()).unwrap(), written, "{name}");
        }
    }
}

#[tokio::test]
async fn what_keeps_a_change_from_being_stored_is_told_apart() {
    let agent = Agent::at("steady-async", "pg1");
    let running = run(&agent, protected()).await;
    let patch = async || running.ask("PATCH", "/config", Some(json!({"ttl": 60}))).await.status;
    *agent.conflict.lock().unwrap() = true;
    assert_eq!(patch().await, 409, "somebody else was faster");
    *agent.conflict.lock().unwrap() = false;
    agent.store.lock().unwrap().as_mut().unwrap().config = None;
    assert_eq!(patch().await, 503, "nothing to change");
    let put = running.ask("PUT", "/config", Some(json!({"ttl": 60}))).await;
    assert_eq!(put.status, 200, "replacing needs nothing that is there");
    *agent.store.lock().unwrap() = None;
    assert_eq!(patch().await, 503, "no store");

    let bare =
        "PATCH /config HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Basic YWRtaW46c2VjcmV0\r\n\r\n";
    assert!(running.raw(bare).await.starts_with("HTTP/1.1 411 "), "without a length");
    let foreign = "PATCH /config HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{\"ttl\": 5}";
    assert!(running.raw(foreign).await.starts_with("HTTP/1.1 401 "), "without a password");
}
