//! The server over real connections.

use std::time::Duration;

use pgward_agent::rest::view::WalPosition;
use pgward_agent::rest::{AllowList, RestConfig, RestError, RestServer};
use pgward_core::config::ServerTokens;
use pgward_core::wal::Lsn;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Agent, golden, loopback, node_at, protected, run};

#[tokio::test]
async fn documents_come_with_type_length_and_server() {
    let running = run(&Agent::at("steady-async", "pg1"), RestConfig::default()).await;
    for (path, status, kind, document) in [
        ("/", 200, "application/json", "pg1.status.json"),
        ("/replica", 503, "application/json", "pg1.status.json"),
        ("/nosuch", 503, "application/json", "pg1.status.json"),
        ("/switchover", 503, "application/json", "pg1.status.json"),
        ("/patroni?x", 200, "application/json", "pg1.status.json"),
        ("/cluster/foo", 200, "application/json", "cluster.json"),
        ("/history", 200, "application/json", "history.json"),
        ("/config", 200, "application/json", "config.json"),
    ] {
        let answer = running.ask("GET", path, None).await;
        assert_eq!((answer.status, answer.text()), (status, golden(&format!("steady-async/{document}"))), "{path}");
        assert_eq!(answer.headers["content-type"], kind, "{path}");
        assert_eq!(answer.headers["content-length"], answer.body.len().to_string(), "{path}");
        assert_eq!(answer.headers["server"], concat!("pgward/", env!("CARGO_PKG_VERSION")), "{path}");
    }
    let explained = running.ask("GET", "/explain", None).await;
    assert_eq!((explained.status, &explained.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    assert!(explained.text().contains(r#""member": "pg"#), "{}", explained.text());
    let metrics = running.ask("GET", "/metrics", None).await;
    assert!(metrics.text().contains("# TYPE pgward_refusals_total counter"), "{}", metrics.text());
    assert_eq!((metrics.status, &metrics.headers["content-type"]), (200, &"text/plain".parse().unwrap()));
    let failsafe = running.ask("GET", "/failsafe", None).await;
    assert_eq!((failsafe.status, failsafe.text()), (502, golden("error-502.html")));
    assert_eq!(failsafe.headers["content-type"], "text/html;charset=utf-8");
}

#[tokio::test]
async fn probes_get_a_status_without_a_body() {
    let running = run(&Agent::at("steady-async", "pg1"), RestConfig::default()).await;
    for (request, status) in [
        ("HEAD /primary", "200 OK"),
        ("HEAD /patroni", "503 Service Unavailable"),
        ("OPTIONS /leader", "200 OK"),
        ("OPTIONS /replica", "503 Service Unavailable"),
        ("GET /liveness", "200 OK"),
        ("GET /readiness", "200 OK"),
    ] {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            let answer = running.raw(&format!("{request} {version}\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("{version} {status}\r\n")), "{request} {version}: {answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{request}: {answer}");
            if request.starts_with("HEAD") {
                // Zero would say that a GET has nothing to read either.
                assert!(!answer.to_lowercase().contains("content-length: 0"), "{request}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let running = run(&Agent::at("steady-async", "pg1"), RestConfig::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut buffer = [0; 4096];
    for _ in 0..3 {
        stream.write_all(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let read = stream.read(&mut buffer).await.unwrap();
        let answer = std::str::from_utf8(&buffer[..read]).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    // An idle connection does not hold up the end.
    running.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), running.ended).await.expect("the server ends").unwrap();
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
}

#[tokio::test]
async fn unsafe_requests_are_checked_before_anything_else() {
    let running = run(&Agent::at("steady-async", "pg1"), protected()).await;
    for (header, text) in [
        ("", "no auth header received"),
        ("Authorization: Basic YWRtaW46YmFk\r\n", "not authenticated"),
        ("Authorization: Bearer x\r\n", "not authenticated"),
    ] {
        for request in ["POST /switchover", "DELETE /switchover", "PATCH /config", "POST /reload", "POST /failsafe"] {
            let answer =
                running.raw(&format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{request}: {answer}");
            assert!(answer.contains("www-authenticate: Basic realm=\"Patroni\"\r\n"), "{request}: {answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{text}")), "{request}: {answer}");
        }
    }
    let elsewhere = AllowList::resolve(&["10.0.0.0/8".to_owned()], false).await.unwrap();
    let running = run(&Agent::at("steady-async", "pg1"), RestConfig { allowlist: elsewhere, ..protected() }).await;
    let answer = running.ask("DELETE", "/switchover", None).await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "Access is denied"));
    // The members of the recorded cluster are on this machine.
    let members = AllowList::resolve(&["10.0.0.0/8".to_owned()], true).await.unwrap();
    let running = run(&Agent::at("steady-async", "pg1"), RestConfig { allowlist: members, ..protected() }).await;
    assert_eq!(running.ask("DELETE", "/switchover", None).await.status, 404);
    assert_eq!(running.ask("POST", "/failsafe", None).await.status, 403);
}

#[tokio::test]
async fn what_is_not_supported_says_so() {
    let running = run(&Agent::at("steady-async", "pg1"), protected()).await;
    let answer = running.raw("POST /nosuch HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 501 Unsupported method ('POST')\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: close"), "{head}");
    assert_eq!(body, golden("error-501.html"));
    for (method, path) in [("POST", "/reload"), ("POST", "/sigterm"), ("POST", "/mpp")] {
        let answer = running.ask(method, path, Some(json!({"a": 1}))).await;
        assert_eq!(answer.status, 501, "{method} {path}");
        assert!(answer.text().contains("Server does not support this operation"), "{method} {path}");
    }
    let answer = running.ask("POST", "/failsafe", Some(json!({"name": "pg1"}))).await;
    assert_eq!((answer.status, answer.text()), (502, golden("error-502.html")));
}

#[tokio::test]
async fn a_primary_without_the_store_gets_a_promise_or_a_reason() {
    let on = |name: &str| {
        let mut node = node_at("failsafe-enabled", name);
        node.failsafe_mode = true;
        Agent::with(node)
    };
    let body = json!({"name": "pg3", "conn_url": "postgres://127.0.0.1:25433/postgres",
        "api_url": "http://127.0.0.1:28003/patroni", "slots": {"pg3": 7}});
    let replica = on("pg1");
    let running = run(&replica, protected()).await;
    let answer = running.ask("POST", "/failsafe", Some(body.clone())).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Accepted"));
    let server = replica.node.borrow().server.clone().unwrap();
    let WalPosition::Replica { received, .. } = server.wal else { panic!("{server:?}") };
    assert_eq!(answer.headers["lsn"], received.0.to_string());
    assert_eq!(replica.promises.present().map(|promise| promise.leader.to_string()), Some("pg3".to_owned()));
    assert_eq!(running.ask("POST", "/failsafe", Some(json!({"slots": {}}))).await.status, 400);
    assert_eq!(running.ask("POST", "/failsafe", Some(json!({}))).await.status, 400);

    let leader = run(&on("pg3"), protected()).await;
    let answer = leader.ask("POST", "/failsafe", Some(body)).await;
    assert_eq!((answer.status, answer.text().as_str()), (500, "Running as a leader"));
    let map = leader.ask("GET", "/failsafe", None).await;
    assert!(map.status == 200 && map.text().contains("\"pg1\": \"http://127.0.0.1:28001/patroni\""), "{}", map.text());
}

#[tokio::test]
async fn a_bad_body_is_refused_with_the_code_that_says_why() {
    let running = run(&Agent::at("steady-async", "pg1"), protected()).await;
    let auth = "Authorization: Basic YWRtaW46c2VjcmV0\r\nConnection: close";
    for (headers, body, status) in [
        ("", "", 411),
        ("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n", 411),
        ("Content-Length: 0\r\n", "", 400),
        ("Content-Length: 2\r\n", "{}", 400),
        ("Content-Length: 3\r\n", "[1]", 400),
        ("Content-Length: 3\r\n", "{x}", 400),
        ("Content-Length: 99999999\r\n", "", 413),
    ] {
        let request = format!("POST /switchover HTTP/1.1\r\nHost: x\r\n{auth}\r\n{headers}\r\n{body}");
        let answer = running.raw(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers} {body}: {answer}");
        if status == 411 {
            assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, golden("error-411.html"));
        }
    }
    let huge = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000));
    assert!(!running.raw(&huge).await.contains("200 OK"));
    assert!(running.raw("\0\x01\x02\r\n\r\n").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn without_the_store_an_error_page_says_so() {
    let running = run(&Agent::at("etcd-down-failsafe-active", "pg1"), protected()).await;
    for (method, path) in [
        ("GET", "/cluster"),
        ("GET", "/history"),
        ("GET", "/config"),
        ("DELETE", "/switchover"),
        ("POST", "/switchover"),
    ] {
        let body = (method == "POST").then(|| json!({"leader": "pg3"}));
        let answer = running.ask(method, path, body).await;
        assert_eq!(answer.status, 503, "{method} {path}");
        assert!(answer.text().contains("cannot reach the store at http://127.0.0.1:2379"), "{}", answer.text());
    }
    assert_eq!(running.ask("GET", "/replica", None).await.status, 200);
}

#[tokio::test]
async fn positions_are_those_of_now_where_others_compare_them() {
    let agent = Agent::at("steady-async", "pg1");
    let running = run(&agent, RestConfig::default()).await;
    let mut facts = agent.node.borrow().server.clone().unwrap();
    facts.wal = WalPosition::Primary { location: Lsn(7) };
    *agent.fresh.lock().unwrap() = Some(Some(facts));
    assert!(running.ask("GET", "/patroni", None).await.text().contains(r#""xlog": {"location": 7}"#));
    assert!(
        running.ask("GET", "/metrics", None).await.text().contains("xlog_location{scope=\"demo\",name=\"pg1\"} 7\n")
    );
    *agent.fresh.lock().unwrap() = Some(None);
    let unknown = running.ask("GET", "/patroni", None).await.text();
    assert!(unknown.starts_with(r#"{"state": "unknown", "role": "primary", "dcs_last_seen""#), "{unknown}");
    assert!(
        running
            .ask("GET", "/metrics", None)
            .await
            .text()
            .contains("patroni_postgres_state{scope=\"demo\",name=\"pg1\"} -1\n")
    );
}

#[tokio::test]
async fn headers_are_as_configured() {
    let config = RestConfig {
        server_tokens: ServerTokens::Minimal,
        http_extra_headers: vec![("X-Frame-Options".to_owned(), "SAMEORIGIN".to_owned())],
        https_extra_headers: vec![("Strict-Transport-Security".to_owned(), "max-age=60".to_owned())],
        ..RestConfig::default()
    };
    let running = run(&Agent::at("steady-async", "pg1"), config.clone()).await;
    let answer = running.ask("GET", "/cluster", None).await;
    assert_eq!(
        (&answer.headers["server"], &answer.headers["x-frame-options"]),
        (&"Patroni/4.1.5".parse().unwrap(), &"SAMEORIGIN".parse().unwrap())
    );
    assert!(!answer.headers.contains_key("strict-transport-security"), "only with TLS");
    for path in ["/liveness", "/failsafe"] {
        assert!(!running.ask("GET", path, None).await.headers.contains_key("x-frame-options"), "{path}");
    }
    let product = RestConfig { server_tokens: ServerTokens::ProductOnly, ..config };
    let running = run(&Agent::at("steady-async", "pg1"), product).await;
    assert_eq!(running.ask("GET", "/", None).await.headers["server"], "Patroni");
}

#[tokio::test]
async fn a_listener_that_cannot_be_opened_says_which_and_why() {
    let taken = RestServer::bind(&loopback(0), RestConfig::default()).await.unwrap();
    let port = taken.local_addresses()[0].port();
    let Err(error) = RestServer::bind(&loopback(port), RestConfig::default()).await else { panic!("bound twice") };
    let want = format!("cannot listen on 127.0.0.1:{port} (restapi.listen): address in use; ");
    assert!(error.to_string().starts_with(&want), "{error}");
    let bad = RestConfig { http_extra_headers: vec![("a b".to_owned(), "c".to_owned())], ..RestConfig::default() };
    assert!(matches!(RestServer::bind(&loopback(0), bad).await, Err(RestError::Header { name }) if name == "a b"));
}
