//! `GET /metrics`: the text format of Prometheus.

use std::fmt::Write;

use pgward_core::cluster::{MemberRole, PostgresState};
use pgward_core::explain::Phases;
use pgward_core::explain::phases::Kind;

use super::status::sync_flag;
use super::view::{NodeView, ReplicationState, WalPosition};

/// The names of the states in the comment of `patroni_postgres_state`, in the order of their numbers.
const STATE_NAMES: [&str; PostgresState::ALL.len()] = [
    "initdb",
    "initdb_failed",
    "custom_bootstrap",
    "custom_bootstrap_failed",
    "creating_replica",
    "running",
    "starting",
    "bootstrap_starting",
    "start_failed",
    "restarting",
    "restart_failed",
    "stopping",
    "stopped",
    "stop_failed",
    "crashed",
];

/// All metrics. Names, labels, help texts and order are those that dashboards were made for.
pub fn metrics_text(node: &NodeView) -> String {
    let mut page = Page::new(node);
    let server = node.current_server();
    let role = node.published_role();
    let (mut location, mut received, mut replayed) = (0, 0, 0);
    let (mut replayed_at, mut paused) = (None, false);
    match server.map(|server| &server.wal) {
        Some(WalPosition::Primary { location: lsn }) => location = lsn.0,
        Some(WalPosition::Replica { received: r, replayed: p, replayed_timestamp, paused: is_paused }) => {
            (received, replayed, paused) = (r.0, p.0, *is_paused);
            replayed_at = replayed_timestamp.as_deref();
        }
        None => {}
    }
    let started_at = server.map(|server| server.postmaster_start_time.as_str());

    page.gauge("version", "Patroni semver without periods.", padded(&node.version));
    page.flag("postgres_running", "Value is 1 if Postgres is running, 0 otherwise.", node.is_running());
    page.gauge("postmaster_start_time", "Epoch seconds since Postgres started.", epoch(started_at));
    page.flag("primary", "Value is 1 if this node is the leader, 0 otherwise.", role == MemberRole::Primary);
    page.counter(
        "xlog_location",
        "Current location of the Postgres transaction log, 0 if this node is not the leader.",
        location,
    );
    page.flag(
        "standby_leader",
        "Value is 1 if this node is the standby_leader, 0 otherwise.",
        role == MemberRole::StandbyLeader,
    );
    page.flag("replica", "Value is 1 if this node is a replica, 0 otherwise.", role == MemberRole::Replica);
    let flag = server.and_then(|_| sync_flag(node));
    page.flag("sync_standby", "Value is 1 if this node is a sync standby, 0 otherwise.", flag == Some("sync_standby"));
    page.flag(
        "quorum_standby",
        "Value is 1 if this node is a quorum standby, 0 otherwise.",
        flag == Some("quorum_standby"),
    );
    page.counter(
        "xlog_received_location",
        "Current location of the received Postgres transaction log, 0 if this node is not a replica.",
        received,
    );
    page.counter(
        "xlog_replayed_location",
        "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.",
        replayed,
    );
    page.gauge(
        "xlog_replayed_timestamp",
        "Current timestamp of the replayed Postgres transaction log, 0 if null.",
        epoch(replayed_at),
    );
    page.flag("xlog_paused", "Value is 1 if the Postgres xlog is paused, 0 otherwise.", paused);
    if let Some(server) = server {
        page.flag(
            "postgres_streaming",
            "Value is 1 if Postgres is streaming, 0 otherwise.",
            server.replication_state == Some(ReplicationState::Streaming),
        );
        page.flag(
            "postgres_in_archive_recovery",
            "Value is 1 if Postgres is replicating from archive, 0 otherwise.",
            server.replication_state == Some(ReplicationState::InArchiveRecovery),
        );
    }
    page.gauge(
        "postgres_server_version",
        "Version of Postgres (if running), 0 otherwise.",
        server.map_or(0, |server| server.server_version),
    );
    page.flag("cluster_unlocked", "Value is 1 if the cluster is unlocked, 0 if locked.", node.is_unlocked());
    page.flag("failsafe_mode_is_active", "Value is 1 if failsafe mode is active, 0 if inactive.", node.failsafe_active);
    page.gauge(
        "postgres_timeline",
        "Postgres timeline of this node (if running), 0 otherwise.",
        server.and_then(|server| server.timeline).map_or(0, |timeline| timeline.get()),
    );
    page.gauge(
        "dcs_last_seen",
        "Epoch timestamp when DCS was last contacted successfully by Patroni.",
        node.dcs_last_seen,
    );
    page.flag(
        "pending_restart",
        "Value is 1 if the node needs a restart, 0 otherwise.",
        !node.pending_restart.is_empty(),
    );
    page.flag("is_paused", "Value is 1 if auto failover is disabled, 0 otherwise.", node.paused);
    page.state(node.published_state());
    page.text
}

/// Our own metrics: changes of leader to this member, how long their phases took, and refusals to lead.
pub fn decision_metrics(node: &NodeView, phases: &Phases) -> String {
    let labels = format!("scope=\"{}\",name=\"{}\"", node.scope, node.name);
    let mut text = String::new();
    let mut family = |name: &str, help: &str, kind: &str, samples: &[(String, String)]| {
        let _ = write!(text, "# HELP pgward_{name} {help}\n# TYPE pgward_{name} {kind}\n");
        for (more, value) in samples {
            let _ = writeln!(text, "pgward_{name}{{{labels}{more}}} {value}");
        }
    };
    let count = |kind: Kind| (format!(",kind=\"{}\"", kind.as_str()), phases.count(kind).to_string());
    family(
        "leader_changes_total",
        "How often this member took over as primary since its agent was started.",
        "counter",
        &[count(Kind::Failover), count(Kind::Switchover)],
    );
    let last = phases.changes().next_back();
    let ends = last.iter().flat_map(|change| change.phases());
    let ends: Vec<_> = ends
        .filter_map(|(phase, end)| Some((format!(",phase=\"{phase}\""), format!("{:.3}", end?.as_secs_f64()))))
        .collect();
    family(
        "leader_change_phase_seconds",
        "The last time this member took over: seconds from seeing that nobody led to the end of each phase.",
        "gauge",
        &ends,
    );
    let detected = last.map(|change| (String::new(), format!("{:.3}", change.detected.0.as_secs_f64())));
    family(
        "leader_change_timestamp_seconds",
        "When that was: epoch seconds at which this member saw that nobody led.",
        "gauge",
        detected.as_slice(),
    );
    let refusals: Vec<_> =
        phases.refusals().map(|(rule, count)| (format!(",rule=\"{rule}\""), count.to_string())).collect();
    family(
        "split_brain",
        "Members that are primary beside the holder of the leader key now.",
        "gauge",
        &[(String::new(), node.split_brain.len().to_string())],
    );
    family(
        "split_brains_total",
        "How often such members were seen since the agent was started.",
        "counter",
        &[(String::new(), node.split_brains.to_string())],
    );
    family(
        "refusals_total",
        "How often this member refused to lead since its agent was started, by the first rule of the reason.",
        "counter",
        &refusals,
    );
    text
}

/// `4.1.5` as `040105`.
fn padded(version: &str) -> String {
    version.split('.').fold(String::new(), |mut text, part| {
        let _ = write!(text, "{part:0>2}");
        text
    })
}

/// Seconds since 1970 with as many decimals as needed and at least one; `0` when there is no time.
fn epoch(text: Option<&str>) -> String {
    let instant = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let Some(micros) = instant.map(|instant| instant.as_microsecond()) else {
        return "0".to_owned();
    };
    let decimals = format!("{:06}", micros.rem_euclid(1_000_000));
    let decimals = match decimals.trim_end_matches('0') {
        "" => "0",
        decimals => decimals,
    };
    format!("{}.{decimals}", micros.div_euclid(1_000_000))
}

struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn new(node: &NodeView) -> Page {
        let labels = format!("{{scope=\"{}\",name=\"{}\"}}", node.scope, node.name);
        Page { text: String::with_capacity(5000), labels }
    }

    fn sample(&mut self, name: &str, help: &str, kind: &str, comment: &str, value: impl std::fmt::Display) {
        let labels = &self.labels;
        let _ = write!(
            self.text,
            "# HELP patroni_{name} {help}\n{comment}# TYPE patroni_{name} {kind}\npatroni_{name}{labels} {value}\n"
        );
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.sample(name, help, "gauge", "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.sample(name, help, "counter", "", value);
    }

    fn flag(&mut self, name: &str, help: &str, is_on: bool) {
        self.gauge(name, help, u8::from(is_on));
    }

    fn state(&mut self, state: Option<PostgresState>) {
        let values: Vec<String> =
            STATE_NAMES.iter().enumerate().map(|(index, name)| format!("{index}={name}")).collect();
        let comment = format!("# Values: {}\n", values.join(", "));
        let index = state.map_or(-1, |state| i16::from(state.index()));
        self.sample("postgres_state", "Numeric representation of Postgres state.", "gauge", &comment, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_with_the_decimals_they_have() {
        for (text, want) in [
            (Some("2026-11-21 05:01:45.541672+00:00"), "1795237305.541672"),
            (Some("2026-11-21 05:01:45.540000+00:00"), "1795237305.54"),
            (Some("2026-11-21 05:01:45+00:00"), "1795237305.0"),
            (Some("2026-11-21 06:01:45.5+01"), "1795237305.5"),
            (Some("yesterday"), "0"),
            (None, "0"),
        ] {
            assert_eq!(epoch(text), want, "{text:?}");
        }
        assert_eq!(padded("4.1.15"), "040115");
    }
}
