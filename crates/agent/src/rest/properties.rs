//! What must hold for whatever a client, a member or an operator sends: one function for each property. The property
//! tests below call them with random values, the targets in `fuzz/` with what libFuzzer comes up with. A function
//! returns when its property holds and panics, as a test does, when it does not. Compiled for tests and fuzzing only.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use jiff::Timestamp;
use pgward_core::cluster::{Cluster, LeaseId, Member, MemberRole, PostgresState, RawKey, Revision};
use pgward_core::decide::peers::{PeerAnswer, PeerPoll, PeerStatus};
use pgward_core::wal::{Lsn, Timeline};
use pgward_store::{Condition, Key, StoreError};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::access::Network;
use super::operations::{OperationFuture, Operations};
use super::query::Query;
use super::route::Router;
use super::schedule::Schedule;
use super::server::RestConfig;
use super::view::{NodeView, ReplicationState, ServerFacts, WalPosition};
use crate::consent::{ConsentReply, ConsentRequest};

/// A query string: what was sent is what is found, the first of each name, and sizes are numbers.
pub fn query(text: &str) {
    let query = Query::parse(text);
    for pair in text.split('&').filter(|pair| !pair.contains(['%', '+'])) {
        let Some((name, value)) = pair.split_once('=').filter(|(_, value)| !value.is_empty()) else { continue };
        let found = query.get(name);
        assert!(found.is_some(), "{name:?} of {text:?}");
        let is_only_one = text.matches(&format!("{name}=")).count() == 1 && !text.contains(['%', '+']);
        assert!(!is_only_one || found == Some(value), "{name:?} of {text:?}");
    }
    for (tag, value) in query.tags() {
        assert_eq!(query.get(&format!("tag_{tag}")), Some(value), "{text:?}");
    }
    assert!(query.bytes("lag").is_none_or(|bytes| i64::try_from(bytes).is_ok()), "{text:?}");
}

/// Names and values survive in a query string, whatever they are made of.
pub fn parameters(name: &str, value: &str) {
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let query = Query::parse(&format!("{}={}", encoded(name), encoded(value)));
    assert_eq!(query.get(name), Some(value).filter(|value| !value.is_empty()));
}

/// A schedule is refused, or is stored in a form that everybody reads as the same instant: the leader that acts on it
/// (TIM-8), and this parser.
pub fn schedule(text: &str) {
    let Ok(schedule) = Schedule::parse(text) else { return };
    let stored: Timestamp =
        schedule.text.parse().unwrap_or_else(|error| panic!("{text:?} is stored as {schedule:?}: {error}"));
    let difference = stored.as_nanosecond().abs_diff(schedule.at.as_nanosecond());
    assert!(difference < 1000, "{text:?}: {schedule:?} is stored with microseconds");
    let again = Schedule::parse(&schedule.text);
    assert_eq!(again.map(|again| again.text), Ok(schedule.text.clone()), "{text:?}");
    // What Python's datetime can hold, because other members are written in it.
    let (date, offset) = (schedule.text.split_once('T'), schedule.text.rsplit_once(['+', '-']));
    assert!(date.is_some_and(|(date, _)| date.len() == 10 && !date.starts_with("0000")), "{text:?}: {schedule:?}");
    assert!(offset.is_some_and(|(_, offset)| offset < "24:00" && offset.len() == 5), "{text:?}: {schedule:?}");
}

/// A status document of a member, or anything else that its address answers.
pub fn status(body: &[u8]) {
    let member = Member { name: "n1".parse().expect("a member name"), lease: LeaseId::default(), fields: Map::new() };
    match crate::http::parse_status(&member, body) {
        PeerAnswer::Unreachable => {}
        PeerAnswer::Status(status) => {
            assert!(serde_json::from_slice::<Map<String, Value>>(body).is_ok(), "a document: {status:?}");
            assert!(status.in_recovery || status.position == Lsn::INVALID, "PEER-3: {status:?}");
        }
    }
}

/// An entry of the allow list: it admits its own address, and a wider network admits no less.
pub fn network(text: &str, address: IpAddr) {
    if let Some(network) = Network::parse(text) {
        let (own, prefix) = text.trim().split_once('/').unwrap_or((text.trim(), ""));
        let own: IpAddr = own.parse().expect("an address before the slash");
        assert!(network.contains(own), "{text:?} admits itself");
        assert!(!network.contains(address) || own.is_ipv4() == address.is_ipv4(), "{text:?} {address}");
        if let Some(wider) = prefix.parse::<u8>().ok().and_then(|prefix| prefix.checked_sub(1)) {
            let wider = Network::parse(&format!("{own}/{wider}")).expect("a shorter prefix");
            assert!(!network.contains(address) || wider.contains(address), "{text:?} {address}");
        }
    }
}

/// A request of any method, target and body to a running cluster is answered with a status that the interface knows, in
/// text that a browser can show; only an accepted request reaches the store, as one that every member understands.
pub fn request(method: &str, target: &str, body: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let request = Request::builder().method(method).uri(target).header("content-length", body.len());
        let Ok(request) = request.body(Full::new(Bytes::copy_from_slice(body))) else { return };
        let agent = Arc::new(Agent::default());
        let (changes, node) = watch::channel(node());
        drop(changes); // The agent ends, so that nobody waits for the outcome of an accepted request.
        let config = RestConfig::default();
        let router = Router { config, extra_headers: hyper::HeaderMap::new(), node, operations: agent.clone() };
        let client: SocketAddr = "192.0.2.1:1".parse().expect("an address");
        let response = router.answer(request, client, false).await;
        let status = response.status();
        let known = [200, 202, 400, 404, 409, 411, 412, 413, 422, 501, 502, 503];
        assert!(known.contains(&status.as_u16()), "{method} {target}: {status}");
        let answer = response.into_body().collect().await.expect("a whole body").to_bytes();
        assert!(std::str::from_utf8(&answer).is_ok(), "{method} {target}: {answer:?}");
        let written = agent.written.lock().expect("one thread").clone();
        for value in &written {
            if matches!(method, "PATCH" | "PUT") {
                let document: Value = serde_json::from_str(value).expect("a configuration");
                assert!(document.is_object() && status == StatusCode::OK, "{method} {target} wrote {value}");
                continue;
            }
            assert!(matches!(method, "POST" | "DELETE"), "{method} {target} wrote {value}");
            let key = raw_key("failover", value);
            let cluster = Cluster::from_keys(Revision(1), [key]);
            assert_eq!(cluster.warnings, [], "{value}");
            let asks = cluster.failover.map(|request| request.value.to_value());
            assert_eq!(asks.as_ref(), Some(value), "what was accepted is what was asked for");
            assert!(matches!(status, StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE | StatusCode::OK));
        }
    });
}

fn raw_key(suffix: &str, value: &str) -> RawKey {
    RawKey {
        suffix: suffix.to_owned(),
        value: value.as_bytes().to_vec(),
        create_revision: Revision(1),
        mod_revision: Revision(1),
        lease: LeaseId(1),
    }
}

/// Three members of which `n1` leads.
fn cluster() -> Cluster {
    let member = |name: &str| {
        let role = if name == "n1" { "primary" } else { "replica" };
        let value = format!(
            "{{\"conn_url\":\"postgres://{name}:5432/postgres\",\"api_url\":\"http://{name}:8008/patroni\",\"state\":\
             \"running\",\"role\":\"{role}\",\"timeline\":1,\"xlog_location\":1000}}"
        );
        raw_key(&format!("members/{name}"), &value)
    };
    let keys = ["n1", "n2", "n3"].map(member).into_iter();
    let others = [("leader", "n1"), ("config", "{\"ttl\":30}"), ("status", "{\"optime\":1000}"), ("history", "[]")];
    Cluster::from_keys(Revision(5), keys.chain(others.map(|(suffix, value)| raw_key(suffix, value))))
}

/// The replica `n2` of that cluster.
fn node() -> NodeView {
    let name = "n2".parse().expect("a member name");
    let mut node = NodeView::unseen(name, "demo".to_owned(), "4.1.5".to_owned());
    node.state = PostgresState::Running;
    node.role = MemberRole::Replica;
    node.cluster = Some(Arc::new(cluster()));
    node.server = Some(facts());
    node
}

fn facts() -> ServerFacts {
    ServerFacts {
        postmaster_start_time: "2026-11-21 03:04:05.000000+00:00".to_owned(),
        server_version: 150_004,
        wal: WalPosition::Replica { received: Lsn(1000), replayed: Lsn(990), replayed_timestamp: None, paused: false },
        timeline: Timeline::new(1),
        replication_state: Some(ReplicationState::Streaming),
        latest_end_lsn: Some(Lsn(1000)),
        replication: Vec::new(),
    }
}

/// An agent whose store and members answer at once.
#[derive(Default)]
struct Agent {
    written: Mutex<Vec<String>>,
}

impl Operations for Agent {
    fn read_cluster(&self) -> OperationFuture<'_, Result<Arc<Cluster>, StoreError>> {
        Box::pin(async { Ok(Arc::new(cluster())) })
    }

    fn write<'a>(
        &'a self,
        _key: &'a Key,
        value: &'a str,
        _condition: Condition,
    ) -> OperationFuture<'a, Result<Revision, StoreError>> {
        self.written.lock().expect("one thread").push(value.to_owned());
        Box::pin(async { Ok(Revision(6)) })
    }

    fn poll_peers<'a>(&'a self, members: Vec<&'a Member>) -> OperationFuture<'a, PeerPoll> {
        let status = PeerStatus {
            in_recovery: true,
            position: Lsn(1000),
            timeline: Timeline::new(1),
            nofailover: false,
            failover_priority: 1,
            watchdog_failed: false,
        };
        let answer = |member: &Member| (member.name.clone(), PeerAnswer::Status(status.clone()));
        let answers = members.into_iter().map(answer).collect();
        Box::pin(async { PeerPoll { answers } })
    }

    fn fresh_facts(&self) -> OperationFuture<'_, Option<ServerFacts>> {
        Box::pin(async { Some(facts()) })
    }

    fn consent<'a>(&'a self, _request: &'a ConsentRequest) -> OperationFuture<'a, ConsentReply> {
        Box::pin(async { ConsentReply::Accepted })
    }

    fn wake(&self) {}
}

/// A member's address: refused, or taken apart into what it says.
pub fn url(text: &str) {
    let Some((authority, path)) = crate::http::target_of(text) else { return };
    assert!(path.starts_with('/') || path.starts_with('*'), "{text:?} asks for {path:?}");
    let (host, port) = authority.rsplit_once(':').expect("a port");
    assert!(!host.is_empty() && port.parse::<u16>().is_ok(), "{text:?} is at {authority:?}");
    assert!(text.to_ascii_lowercase().starts_with("http"), "{text:?}");
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let written = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let written = written.rsplit_once('@').map_or(written, |(_, address)| address);
    let names_port = written.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.ends_with(']'));
    assert!(
        !names_port || written.ends_with(port) || written.ends_with(&format!(":0{port}")),
        "{text:?}: {authority:?}"
    );
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    /// The same cases in every run, so that none fails by chance; `PROPTEST_RNG_SEED` lets a developer look further.
    fn repeatable() -> ProptestConfig {
        let from_environment = ProptestConfig::default();
        let rng_seed = match from_environment.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            chosen @ RngSeed::Fixed(_) => chosen,
        };
        ProptestConfig { rng_seed, failure_persistence: None, ..from_environment }
    }

    proptest! {
        #![proptest_config(repeatable())]

        #[test]
        fn a_query_says_what_was_sent(
            text in "(([a-z_]{0,4}|tag_[a-z]{0,2}|lag)(=([a-z0-9]{0,4}|[0-9]{1,20}(kB|MB)?|%[0-9a-f]{0,2}|\\+|\\PC))?&?){0,6}",
            name in "\\PC{0,8}", value in "\\PC{0,8}",
        ) {
            query(&text);
            parameters(&name, &value);
        }

        #[test]
        fn a_schedule_is_stored_as_the_instant_that_was_meant(
            text in "[-+]?[0-9]{4,6}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:?[0-5][0-9](:?[0-5][0-9]([.,][0-9]{1,9})?)?)?\
                     ( ?([+-][0-9]{1,2}:?[0-9]{0,2}(:[0-9]{2})?|Z|UTC|z|\\[UTC\\])){0,2}",
            odd in "2031-01-01T00:00[+-][-+0-9:é]{0,5}",
        ) {
            schedule(&text);
            schedule(&odd);
        }

        #[test]
        fn what_a_member_answers_is_a_status_or_nothing(
            body in "\\{\"(xlog|wal)\":\\{\"(location|received_location|replayed_location)\":(-?[0-9]{1,20}|null|\"1\")\\},\"\
                     (role|timeline|tags)\":(\"master\"|-?[0-9]{1,11}|\\{\"failover_priority\":\"?[0-9]{1,20}\"?\\})\\}",
            bytes in vec(any::<u8>(), 0..40),
        ) {
            status(body.as_bytes());
            status(&bytes);
        }

        #[test]
        fn a_network_admits_itself_and_a_wider_one_no_less(
            own: IpAddr, prefix in 0u8..=130, address: IpAddr, text in "[0-9a-f:./ ]{0,18}",
        ) {
            network(&format!("{own}/{prefix}"), address);
            network(&text, address);
        }

        #[test]
        fn an_address_of_a_member_is_taken_apart_as_it_is_written(
            text in "(https?|HTTP|ftp)://([a-z]{1,3}@)?([a-z0-9.]{0,6}|\\[[0-9a-f:]{0,6}\\])(:[0-9]{0,6})?(/[a-z?#*]{0,5})?|\\PC{0,20}",
        ) {
            url(&text);
        }
    }

    proptest! {
        #![proptest_config(repeatable())]

        #[test]
        fn any_request_is_answered(
            method in "GET|HEAD|OPTIONS|POST|DELETE|PATCH|PUT|[A-Z]{1,5}",
            target in "/(switchover|failover|failsafe|config|cluster|history|patroni|metrics|liveness|readiness|replica|leader|\
                       reload|mpp|[a-z-]{0,8})?(\\?(lag|tag_x|mode)=[0-9A-Za-z%]{0,6})?|\\*|http://x/[a-z]{0,4}|\\PC{0,6}",
            leader in "\"(n1|n2|nope|a/b|)\"|5|null", candidate in "\"(n1|n2|nope|a/b|)\"|5|null",
            at in "null|null|null|\"20[34]1-01-01T00:00(\\+00:00|Z|\\+1é1)?\"|\"\\PC{0,6}\"",
            bytes in vec(any::<u8>(), 0..20),
        ) {
            let body = format!("{{\"leader\":{leader},\"candidate\":{candidate},\"scheduled_at\":{at}}}");
            request(&method, &target, body.as_bytes());
            request("POST", "/switchover", body.as_bytes());
            request(&method, &target, &bytes);
        }
    }
}
