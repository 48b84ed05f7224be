//! Documents and status codes as they were recorded.

use std::time::Duration;

use pgward_agent::rest::view::NodeView;
use pgward_agent::rest::{
    Modes, Query, cluster_document, health_status, is_alive, is_ready, metrics_text, status_document,
};
use pgward_core::json::spaced;
use pgward_core::wal::Lsn;

use super::support::{FOREVER, NOW, cluster_at, golden, node_at};

/// Every recorded stage with its members.
const STAGES: [(&str, &[&str]); 12] = [
    ("single-leader", &["pg1"]),
    ("steady-async", &["pg1", "pg2", "pg3"]),
    ("pending-restart-and-tags", &["pg1", "pg2", "pg3"]),
    ("scheduled", &["pg1", "pg2"]),
    ("after-switchover", &["pg1", "pg2"]),
    ("paused", &["pg1", "pg3"]),
    ("sync-mode", &["pg1", "pg2", "pg3"]),
    ("quorum-mode", &["pg1", "pg2", "pg3"]),
    ("failsafe-enabled", &["pg1", "pg3"]),
    ("etcd-down-failsafe-active", &["pg1", "pg3"]),
    ("etcd-down-no-failsafe-demoted", &["pg1", "pg3"]),
    ("standby-leader", &["pg4"]),
];

/// The view, with what the store cannot tell while it is down.
fn node(stage: &str, name: &str) -> NodeView {
    let mut node = node_at(stage, name);
    if node.cluster.is_none() {
        // Last seen while the mode was on; it stays when the mode is switched off.
        node.failsafe = Some(serde_json::Map::from_iter([("pg1".to_owned(), "http://n1/patroni".into())]));
    }
    if stage == "etcd-down-failsafe-active" {
        node.lease_until = (name == "pg3").then_some(FOREVER);
    }
    if stage == "etcd-down-no-failsafe-demoted" && name == "pg3" {
        // The former leader has nobody to stream from.
        node.server.as_mut().unwrap().latest_end_lsn = None;
    }
    node
}

fn members() -> impl Iterator<Item = (&'static str, &'static str)> {
    STAGES.iter().flat_map(|(stage, names)| names.iter().map(|name| (*stage, *name)))
}

#[test]
fn status_documents_are_those_that_were_recorded() {
    for (stage, name) in members().chain([("reinitializing", "pg3")]) {
        let want = golden(&format!("{stage}/{name}.status.json"));
        let mut node = node(stage, name);
        if stage == "reinitializing" {
            node.cluster = cluster_at("steady-async").map(Into::into);
        }
        assert_eq!(spaced(&status_document(&node)), want, "{stage} {name}");
    }
}

#[test]
fn metrics_are_those_that_were_recorded() {
    for (stage, name) in members().chain([("reinitializing", "pg3")]) {
        let want = golden(&format!("{stage}/{name}.metrics.txt"));
        let mut node = node(stage, name);
        if stage == "reinitializing" {
            node.cluster = cluster_at("steady-async").map(Into::into);
        }
        // Recorded a second later.
        let seen = want.lines().find(|line| line.starts_with("patroni_dcs_last_seen")).unwrap();
        node.dcs_last_seen = seen.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(metrics_text(&node), want, "{stage} {name}");
    }
}

#[test]
fn cluster_history_and_configuration_are_those_that_were_recorded() {
    for (stage, names) in STAGES {
        let Some(cluster) = cluster_at(stage) else { continue };
        let node = node(stage, names[0]);
        let want = |document: &str| golden(&format!("{stage}/{document}.json"));
        let document = cluster_document(&cluster, &node.scope, Modes::of(&cluster, &node));
        assert_eq!(spaced(&document), want("cluster"), "{stage}");
        let history = cluster.history.map(|history| history.value).unwrap_or_default();
        assert_eq!(spaced(&history), want("history"), "{stage}");
        assert_eq!(spaced(&cluster.config.unwrap().value), want("config"), "{stage}");
    }
}

/// The recorded codes of paths that need more than the view, in the order GET, HEAD, OPTIONS.
fn codes_of_documents(path: &str, node: &NodeView) -> Option<&'static str> {
    let needs_store = if node.cluster.is_some() { "200" } else { "503" };
    match path {
        "/patroni" | "/metrics" => Some("200"),
        "/cluster" | "/history" | "/config" => Some(needs_store),
        "/failsafe" => Some(if node.failsafe.is_some() { "200" } else { "502" }),
        _ => None,
    }
}

#[test]
fn status_codes_are_those_that_were_recorded() {
    let none = Query::default();
    for (stage, name) in members() {
        let node = node(stage, name);
        let table = golden(&format!("{stage}/{name}.codes.tsv"));
        for row in table.lines().skip(1) {
            let mut cells = row.split('\t');
            let path = cells.next().unwrap();
            let recorded: Vec<&str> = cells.filter(|cell| !cell.is_empty()).collect();
            let health = health_status(path, &none, &node, NOW).to_string();
            let probe = |is_ok: bool| if is_ok { "200".to_owned() } else { "503".to_owned() };
            let get = match (path, codes_of_documents(path, &node)) {
                (_, Some(code)) => code.to_owned(),
                ("/liveness", _) => probe(is_alive(&node, NOW)),
                ("/readiness", _) => probe(is_ready(&none, &node, NOW)),
                _ => health.clone(),
            };
            assert_eq!(get, recorded[0], "GET {path} {stage} {name}");
            if node.cluster.is_none() && path == "/failsafe" {
                continue; // Nobody knows what else the store would have said.
            }
            for code in &recorded[1..] {
                assert_eq!(health, *code, "HEAD or OPTIONS {path} {stage} {name}");
            }
        }
    }
}

#[test]
fn filters_by_tag_and_lag_give_the_recorded_codes() {
    for row in golden("tag-filters.tsv").lines() {
        let [name, target, want] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let node = node("pending-restart-and-tags", name);
        let (path, query) = target.split_once('?').unwrap();
        let query = Query::parse(query);
        let code = match path {
            "/readiness" if is_ready(&query, &node, NOW) => 200,
            "/readiness" => 503,
            path => health_status(path, &query, &node, NOW),
        };
        assert_eq!(code.to_string(), want, "{row}");
    }
}

#[test]
fn what_was_never_recorded_follows_the_rules() {
    let replica = || node("steady-async", "pg2");
    let leader = || node("steady-async", "pg1");
    let code = |target: &str, node: &NodeView| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        match path {
            "/readiness" => {
                if is_ready(&query, node, NOW) {
                    200
                } else {
                    503
                }
            }
            "/liveness" => {
                if is_alive(node, NOW) {
                    200
                } else {
                    503
                }
            }
            path => health_status(path, &query, node, NOW),
        }
    };
    let behind = |bytes: u64| {
        let mut node = replica();
        node.server.as_mut().unwrap().latest_end_lsn = Some(Lsn(67_108_960 + bytes));
        node
    };
    let unanswered = |mut node: NodeView| {
        node.server = None;
        node
    };
    let blind_and_paused = |mut node: NodeView| {
        (node.cluster, node.paused, node.lease_until) = (None, true, None);
        node
    };
    let late = |mut node: NodeView, seconds: u64| {
        node.next_run = pgward_core::time::BootInstant(NOW.0 - Duration::from_secs(seconds));
        node
    };
    for (name, target, node, want) in [
        ("a leader that cannot be queried stays primary: the lock decides", "/primary", unanswered(leader()), 200),
        ("and is not healthy", "/health", unanswered(leader()), 503),
        ("a lease that has run out is none", "/primary", NodeView { lease_until: Some(NOW), ..leader() }, 503),
        ("blind while paused, the role decides", "/primary", blind_and_paused(leader()), 200),
        ("also for the leader", "/leader", blind_and_paused(leader()), 200),
        ("and not for replicas", "/primary", blind_and_paused(replica()), 503),
        ("unknown paths are never healthy", "/nosuch", leader(), 503),
        ("case matters", "/Primary", leader(), 503),
        ("words are found anywhere", "/x/master/y", leader(), 200),
        ("except in the synchronous paths", "/x/async", replica(), 503),
        ("lag within the limit", "/replica?lag=10", behind(10), 200),
        ("lag beyond the limit", "/replica?lag=10", behind(11), 503),
        ("lag without a limit", "/replica", behind(1 << 40), 200),
        ("readiness has a limit by default", "/readiness", behind((1 << 20) + 1), 503),
        ("up to the limit is ready", "/readiness", behind(1 << 20), 200),
        ("a limit that is none is the default", "/readiness?lag=junk", behind((1 << 20) + 1), 503),
        ("the loop is on time", "/liveness", late(leader(), 29), 200),
        ("the loop of a primary hangs", "/liveness", late(leader(), 30), 503),
        ("a replica has twice the time", "/liveness", late(replica(), 59), 200),
        ("and not more", "/liveness", late(replica(), 60), 503),
        ("nobody hangs while paused", "/liveness", NodeView { paused: true, ..late(replica(), 600) }, 200),
    ] {
        assert_eq!(code(target, &node), want, "{name}");
    }
}
