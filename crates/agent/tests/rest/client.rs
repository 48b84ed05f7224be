//! The client against servers that misbehave.

use std::time::{Duration, Instant};

use pgward_agent::http::{ClientTls, HttpClient, HttpError, poll_peers};
use pgward_core::cluster::{Cluster, LeaseId, Member};
use pgward_core::decide::peers::PeerAnswer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::support::{Agent, cluster_at, run};
use pgward_agent::rest::RestConfig;

fn client() -> HttpClient {
    HttpClient::new(None, ClientTls::default()).unwrap()
}

/// A server that reads a request and answers with these bytes.
async fn answering(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/patroni", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&bytes).await;
        }
    });
    url
}

#[tokio::test]
async fn answers_of_old_servers_without_a_length_end_with_the_connection() {
    let url = answering(b"HTTP/1.0 503 Service Unavailable\r\nX-A: b\r\n\r\nbody".to_vec()).await;
    let response = client().request("GET".parse().unwrap(), &url, None, Duration::from_secs(5)).await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (503, "body"));
    assert_eq!(response.headers["x-a"], "b");
    let url = answering(b"HTTP/1.0 200 OK\r\n\r\n".to_vec()).await;
    let response = client().request("GET".parse().unwrap(), &url, None, Duration::from_secs(5)).await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, ""));
}

#[tokio::test]
async fn every_failure_says_what_and_where() {
    let get = |url: String, limit| async move { client().request("GET".parse().unwrap(), &url, None, limit).await };
    let long = Duration::from_secs(5);
    let garbage = answering(b"\x00\x01garbage".to_vec()).await;
    assert!(matches!(get(garbage, long).await, Err(HttpError::Exchange { .. })));
    let mut endless = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
    endless.resize(5 * 1024 * 1024, b'x');
    assert!(matches!(get(answering(endless).await, long).await, Err(HttpError::TooLong { .. })));
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = get(format!("http://{free}/"), long).await.unwrap_err();
    assert!(error.is_unsent() && error.to_string().contains(&free.to_string()), "{error}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let begin = Instant::now();
    assert!(matches!(get(url, Duration::from_millis(50)).await, Err(HttpError::Timeout { .. })));
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn members_are_asked_where_they_say_they_are() {
    let cluster: Cluster = cluster_at("steady-async").unwrap();
    let running = run(&Agent::at("steady-async", "pg2"), RestConfig::default()).await;
    let at = |name: &str, url: Option<String>| {
        let mut fields = cluster.members[&name.parse().unwrap()].fields.clone();
        fields.insert("api_url".to_owned(), url.into());
        Member { name: name.parse().unwrap(), lease: LeaseId(0), fields }
    };
    let members = [
        at("pg1", None),
        at("pg2", Some(format!("http://{}/patroni", running.address))),
        at("pg3", Some(answering(b"HTTP/1.0 200 OK\r\n\r\n{}".to_vec()).await)),
    ];
    let poll = poll_peers(&client(), &members).await;
    let answer = |name: &str| &poll.answers[&name.parse().unwrap()];
    assert_eq!((answer("pg1"), answer("pg3")), (&PeerAnswer::Unreachable, &PeerAnswer::Unreachable));
    let PeerAnswer::Status(status) = answer("pg2") else { panic!("{poll:?}") };
    assert!(status.in_recovery && status.position.0 == 67_108_960);
}
