//! Whole commands against recorded clusters: what patronictl 4.1.5 printed for them is the expected output.
//!
//! `stages.json` holds the keys of a cluster at moments of its life; each `.txt` file holds a command line, everything it
//! printed, prompts included, and its exit code.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use http::Method;
use jiff::Zoned;
use pgward_core::cluster::{Cluster, LeaseId, Member, RawKey, Revision};
use pgward_store::{Condition, Key};

use super::args::Arguments;
use super::terminal::script::Script;
use super::world::{Answer, ClusterName, Login, NoAnswer, QueryFailed, Request, World};
use super::{conclude, execute};

mod changing;

/// Moments of a recorded cluster: stage to key to value.
fn stages() -> BTreeMap<String, BTreeMap<String, String>> {
    serde_json::from_str(include_str!("../../tests/golden/ctl/stages.json")).unwrap()
}

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/ctl/{name}.txt"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A recorded moment, with some texts in its values replaced by those of the moment at which a command was recorded.
#[derive(Clone, Copy)]
struct Moment {
    stage: &'static str,
    edits: &'static [(&'static str, &'static str)],
}

const fn at(stage: &'static str) -> Moment {
    Moment { stage, edits: &[] }
}

/// One recorded command and what the world around it was.
#[derive(Clone, Copy)]
struct Case {
    golden: &'static str,
    scope: &'static str,
    /// What the first read sees.
    before: Moment,
    /// What later reads see.
    after: Moment,
    answers: &'static [&'static str],
    /// What a member answers to a POST; nothing when it cannot be reached. With status 0 the answer is lost.
    post: Option<(u16, &'static str)>,
}

impl Case {
    const fn of(golden: &'static str, before: Moment) -> Case {
        Case { golden, scope: "demo", before, after: before, answers: &[], post: None }
    }
}

/// A world made of recordings.
struct Recorded {
    case: Case,
    now: Zoned,
    reads: Mutex<VecDeque<Moment>>,
    /// Requests to members and writes to the store, in order.
    requests: Mutex<Vec<String>>,
    /// What a GET of any member answers.
    status: Option<&'static str>,
    /// What a file or the standard input holds, or an editor saves in place of its `{}`.
    text: &'static str,
    /// Conditional writes lose against others.
    loses: bool,
}

impl Recorded {
    fn new(case: Case, now: &str) -> Recorded {
        let now = format!("{now}+00:00[UTC]").parse().unwrap_or_else(|error| panic!("{now}: {error}"));
        let reads = Mutex::new([case.before].into());
        Recorded { case, now, reads, requests: Mutex::default(), status: None, text: "{}", loses: false }
    }

    fn note(&self, request: String) {
        self.requests.lock().unwrap().push(request);
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl World for Recorded {
    fn configured_scope(&self) -> Option<String> {
        (!self.case.scope.is_empty()).then(|| self.case.scope.to_owned())
    }

    fn configured_group(&self) -> Option<u32> {
        None
    }

    fn own_api_url(&self) -> Option<String> {
        None
    }

    fn own_logs(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn now(&self) -> Zoned {
        self.now.clone()
    }

    async fn read(&self, name: &ClusterName) -> anyhow::Result<Arc<Cluster>> {
        let moment = self.reads.lock().unwrap().pop_front().unwrap_or(self.case.after);
        let keys = stages().remove(moment.stage).unwrap_or_else(|| panic!("no stage {}", moment.stage));
        let prefix = format!("/service/{}/", name.scope);
        let keys = keys.into_iter().filter_map(|(key, mut value)| {
            for (from, to) in moment.edits {
                value = value.replace(from, to);
            }
            Some(RawKey {
                suffix: key.strip_prefix(&prefix)?.to_owned(),
                value: value.into_bytes(),
                create_revision: Revision(1),
                mod_revision: Revision(1),
                lease: LeaseId(0),
            })
        });
        Ok(Arc::new(Cluster::from_keys(Revision(1), keys)))
    }

    async fn call(&self, url: &str, request: Request, _timeout: Duration) -> Result<Answer, NoAnswer> {
        let unreachable = || NoAnswer::Unsent(anyhow::anyhow!("cannot connect to {url}"));
        if request.method == Method::GET {
            let body = self.status.ok_or_else(unreachable)?.to_owned();
            return Ok(Answer { status: 200, body });
        }
        let body = request.body.map(|body| format!(" {body}")).unwrap_or_default();
        self.note(format!("{} {url}{body}", request.method));
        match self.case.post.ok_or_else(unreachable)? {
            (0, problem) => Err(NoAnswer::Lost(anyhow::anyhow!("{problem}"))),
            (status, body) => Ok(Answer { status, body: body.to_owned() }),
        }
    }

    async fn write(&self, name: &ClusterName, key: &Key, value: &str, condition: Condition) -> anyhow::Result<bool> {
        self.note(format!("{} {}: {value}", name.scope, key.suffix()));
        Ok(!self.loses || condition == Condition::Always)
    }

    async fn delete(&self, name: &ClusterName, key: &Key) -> anyhow::Result<()> {
        self.note(format!("{} {} deleted", name.scope, key.suffix()));
        Ok(())
    }

    async fn delete_cluster(&self, name: &ClusterName) -> anyhow::Result<()> {
        self.note(format!("{} deleted", name.scope));
        Ok(())
    }

    async fn query(
        &self,
        member: &Member,
        login: &Login,
        recovers: Option<bool>,
        sql: &str,
    ) -> Result<Vec<pgward_postgres::Answer>, QueryFailed> {
        self.note(format!("{} {:?} {:?} {recovers:?} {sql}", member.name, login.user, login.database));
        Err(QueryFailed::Refused { code: "42P01".to_owned() })
    }

    fn read_text(&self, _path: &Path) -> anyhow::Result<String> {
        Ok(self.text.to_owned())
    }

    fn edit(&self, text: &str, _name: &ClusterName) -> anyhow::Result<String> {
        Ok(self.text.replace("{}", text))
    }

    async fn sleep(&self, _pause: Duration) {}
}

/// Runs a command line and returns everything that it printed, and its exit code, as the recordings have it.
fn transcript(command: &str, answers: &[&str], world: &Recorded) -> String {
    transcript_of(command, &command.split_whitespace().collect::<Vec<_>>(), answers, world)
}

fn transcript_of(command: &str, words: &[&str], answers: &[&str], world: &Recorded) -> String {
    let mut terminal = Script::answering(answers);
    let outcome = match Arguments::try_parse_from(words) {
        Ok(arguments) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(execute(arguments.command, world, &mut terminal))
        }
        Err(message) => panic!("{command}: {message}"),
    };
    let code = conclude(outcome, &mut terminal);
    format!("$ {command}\n{}[exit {code}]\n", terminal.transcript)
}

/// The time at which a recording was made, where its text says so.
fn time_in(text: &str) -> &str {
    let line = text.lines().find(|line| line.starts_with("2026-")).unwrap_or("2026-11-21 05:06:00");
    line.get(..25).unwrap_or(line)
}

fn check(case: Case) -> Recorded {
    let want = golden(case.golden);
    let command = want.lines().next().and_then(|line| line.strip_prefix("$ ")).unwrap();
    let world = Recorded::new(case, time_in(&want));
    let found = transcript(command, case.answers, &world);
    // The clusters' table ends with the file's last line break or without one.
    assert!(found.trim_end() == want.trim_end(), "{}\n--- expected\n{want}\n--- found\n{found}", case.golden);
    world
}

const STEADY: &str = "03-steady-three-members";
/// The idle cluster a little later.
const LATER: Moment = Moment { stage: STEADY, edits: &[("67108960", "67393112")] };
const BEFORE_SWITCHOVER: Moment = Moment { stage: STEADY, edits: &[("67108960", "67417280")] };
/// The command was recorded just before the restart of pg1 was scheduled, the keys just after.
const BEFORE_SCHEDULED_RESTART: Moment = Moment {
    stage: "24-scheduled-switchover-without-candidate",
    edits: &[(
        r#","scheduled_restart":{"schedule":"2031-01-01T00:00:00+00:00","postmaster_start_time":"2026-11-21 05:27:44.349774+00:00"}}"#,
        "}",
    )],
};
const SYNCHRONOUS: &str = "11-sync-mode-one-standby";
const STANDBY_CLUSTER: &str = "22-standby-cluster-demo2";

#[test]
fn list_prints_what_patronictl_prints() {
    for (golden, moment) in [
        ("01-list-one-member", at("02-fresh-bootstrap-single-member")),
        ("03-list-three-members", at(STEADY)),
        ("03-list-extended", at(STEADY)),
        ("03-list-extended-format-json", LATER),
        ("03-list-extended-format-tsv", LATER),
        ("03-list-extended-format-yaml", LATER),
        ("03-list-format-json", LATER),
        ("03-list-format-pretty", LATER),
        ("03-list-format-tsv", LATER),
        ("03-list-format-yaml", LATER),
        ("03-list-format-yml", LATER),
        ("03-list-timestamp", at(STEADY)),
        ("03-list-two-clusters", at(STEADY)),
        ("03-list-unknown-cluster", at(STEADY)),
        ("05-list-pending-restart-and-tags", at("05-pending-restart-and-tags")),
        ("05-list-pending-restart-and-tags-json", at("05-pending-restart-and-tags")),
        ("05-list-pending-restart-and-tags-tsv", at("05-pending-restart-and-tags")),
        ("05-list-pending-restart-and-tags-yaml", at("05-pending-restart-and-tags")),
        ("06-list-scheduled-json", at("06-scheduled-switchover-and-restart")),
        ("06-list-scheduled-switchover-and-restart", at("06-scheduled-switchover-and-restart")),
        ("08-list-after-switchover", at("08c-settled-after-switchover")),
        ("09-list-after-failover-two-members", at("09c-after-failover-two-members")),
        ("09-list-leader-crashed", at("09-leader-crashed-lease-not-expired")),
        ("10-list-paused", at("10-paused")),
        ("10-list-paused-json", at("10-paused")),
        ("10-list-resumed", at("10c-resumed")),
        ("11-list-sync-mode", at(SYNCHRONOUS)),
        ("11-list-sync-mode-json", at(SYNCHRONOUS)),
        ("11-list-sync-mode-two", at("11b-sync-mode-two-standbys")),
        ("12-list-quorum-json", at("12-quorum-mode")),
        ("12-list-quorum-mode", at("12-quorum-mode")),
        ("17-list-replica-stopped", at("17-replica-stopped-cleanly-lease-pending")),
        ("19-list-during-reinit", at("19-during-reinit")),
        ("23-remove-list-after", at("23-after-remove-demo2")),
        ("24-list-scheduled-switchover-without-candidate", BEFORE_SCHEDULED_RESTART),
        ("25-list-two-pending-gucs-json", at("25-three-pending-parameters")),
        ("25-list-two-pending-gucs-one-long", at("25-three-pending-parameters")),
        ("25-list-two-pending-gucs-tsv", at("25-three-pending-parameters")),
    ] {
        check(Case::of(golden, moment));
    }
}

#[test]
fn topology_prints_what_patronictl_prints() {
    for (golden, moment) in [
        ("03-topology", at(STEADY)),
        ("05-topology-cascading", at("05-pending-restart-and-tags")),
        ("06-topology-scheduled", at("06-scheduled-switchover-and-restart")),
        ("10-topology-paused", at("10-paused")),
        ("11-topology-sync-mode", at(SYNCHRONOUS)),
        ("25-topology-two-pending-gucs", at("25-three-pending-parameters")),
    ] {
        check(Case::of(golden, moment));
    }
}

#[test]
fn a_standby_cluster_has_a_standby_leader() {
    for (golden, stage) in [
        ("22-list-standby-cluster", STANDBY_CLUSTER),
        ("22-list-standby-cluster-json", STANDBY_CLUSTER),
        ("22-topology-standby-cluster", STANDBY_CLUSTER),
        ("22-switchover-prompt-standby-leader", STANDBY_CLUSTER),
        ("22-list-after-promote-cluster", "22b-after-promote-cluster-demo2"),
        ("22-list-after-demote-cluster", "22c-after-demote-cluster-demo2"),
    ] {
        check(Case { scope: "demo2", ..Case::of(golden, at(stage)) });
    }
}

#[test]
fn the_other_reading_commands_print_what_patronictl_prints() {
    for (golden, stage) in [
        ("01-list-one-member-uninitialized-history", "02-fresh-bootstrap-single-member"),
        ("08-history", "08c-settled-after-switchover"),
        ("08-history-format-json", "08c-settled-after-switchover"),
        ("08-history-format-tsv", "08c-settled-after-switchover"),
        ("08-history-format-yaml", "08c-settled-after-switchover"),
        ("09-history-after-failover", "09c-after-failover-two-members"),
        ("20-history", "20-after-manual-failover"),
        ("03-show-config", STEADY),
        ("03-dsn-leader", STEADY),
        ("03-dsn-member", STEADY),
        ("03-dsn-nosuch", STEADY),
        ("03-dsn-replica", STEADY),
        ("03-dsn-role-and-member", STEADY),
    ] {
        check(Case::of(golden, at(stage)));
    }
}

#[test]
fn version_names_the_compatible_version_first_and_then_asks_members() {
    let status = r#"{"state":"running","server_version":150018,"patroni":{"version":"4.1.5","scope":"demo"}}"#;
    for name in ["03-version", "03-version-cluster", "03-version-cluster-member"] {
        let want =
            golden(name).replace("version 4.1.5\n", &format!("version 4.1.5 (pgward {})\n", env!("CARGO_PKG_VERSION")));
        let command = want.lines().next().unwrap().trim_start_matches("$ ").to_owned();
        let world =
            Recorded { status: Some(status), ..Recorded::new(Case::of(name, at(STEADY)), "2026-11-21 05:06:00") };
        assert_eq!(transcript(&command, &[], &world).trim_end(), want.trim_end());
    }
    let world = Recorded::new(Case::of("", at(STEADY)), "2026-11-21 05:06:00");
    let found = transcript("patronictl version demo pg2", &[], &world);
    assert!(found.contains("pg2: failed to get version: cannot connect to"), "{found}");
}

#[test]
fn a_switchover_refuses_what_patronictl_refuses() {
    for (golden, moment, answers) in [
        ("08-failover-no-candidate", BEFORE_SWITCHOVER, &[][..]),
        ("08-switchover-bad-candidate", BEFORE_SWITCHOVER, &[]),
        ("08-switchover-candidate-is-leader", BEFORE_SWITCHOVER, &[]),
        ("08-switchover-interactive-abort", BEFORE_SWITCHOVER, &[]),
        ("08-switchover-interactive-no", BEFORE_SWITCHOVER, &["", "pg2", "", "n"]),
        ("08-switchover-interactive-scheduled-no", BEFORE_SWITCHOVER, &["pg1", "", "2031-01-01T00:00:00Z", ""]),
        ("08-switchover-wrong-leader", BEFORE_SWITCHOVER, &[]),
        ("10-paused-switchover-scheduled", at("10-paused"), &[]),
        (
            "11-failover-to-async-prompt-then-abort",
            Moment { stage: SYNCHRONOUS, edits: &[("67418864", "67418920")] },
            &["y"],
        ),
    ] {
        let world = check(Case { answers, ..Case::of(golden, moment) });
        assert_eq!(world.requests(), Vec::<String>::new(), "{golden} sends nothing");
    }
}

#[test]
fn a_move_is_sent_to_the_leader_and_shows_the_new_state() {
    for (golden, before, after, answer, request) in [
        (
            "08-switchover-force",
            BEFORE_SWITCHOVER,
            at("08-right-after-switchover"),
            r#"Successfully switched over to "pg2""#,
            r#"POST http://127.0.0.1:28001/switchover {"candidate":"pg2","leader":"pg1"}"#,
        ),
        (
            "10-paused-switchover-to-candidate",
            at("10-paused"),
            at("10b-paused-after-switchover"),
            r#"Successfully switched over to "pg1""#,
            r#"POST http://127.0.0.1:28003/switchover {"candidate":"pg1","leader":"pg3"}"#,
        ),
        (
            "11-switchover-in-sync-mode",
            Moment { stage: "11b-sync-mode-two-standbys", edits: &[("67418960", "67419016")] },
            at("11d-sync-mode-right-after-switchover"),
            r#"Successfully switched over to "pg2""#,
            r#"POST http://127.0.0.1:28001/switchover {"candidate":"pg2","leader":"pg1"}"#,
        ),
        (
            "12-switchover-in-quorum-mode",
            at("12-quorum-mode"),
            at("12b-quorum-right-after-switchover"),
            r#"Successfully switched over to "pg3""#,
            r#"POST http://127.0.0.1:28002/switchover {"candidate":"pg3","leader":"pg2"}"#,
        ),
        (
            "20-failover-force",
            Moment { stage: "19-during-reinit", edits: &[("67422288", "134217728")] },
            Moment {
                stage: "08-right-after-switchover",
                edits: &[("\"timeline\":1}", "\"timeline\":9}"), ("67417576", "134218064")],
            },
            r#"Successfully failed over to "pg2""#,
            r#"POST http://127.0.0.1:28001/failover {"candidate":"pg2"}"#,
        ),
    ] {
        let world = check(Case { after, post: Some((200, answer)), ..Case::of(golden, before) });
        assert_eq!(world.requests(), [request], "{golden}");
    }
}

/// A switchover of the idle cluster; `post` is what the leader answers.
fn switchover(options: &str, post: Option<(u16, &'static str)>) -> (String, Vec<String>) {
    let case = Case { post, ..Case::of("", at(STEADY)) };
    let world = Recorded::new(case, "2026-11-21 05:06:35.42013");
    let found = transcript(&format!("patronictl switchover demo --force {options}"), &[], &world);
    let (_, after_table) = found.split_once("+-----+\n2").map_or((found.as_str(), ""), |parts| parts);
    let tail = if after_table.is_empty() { found.lines().rev().take(2).collect() } else { format!("2{after_table}") };
    (tail, world.requests())
}

#[test]
fn a_scheduled_switchover_is_sent_with_its_time() {
    let (tail, requests) = switchover("--scheduled 2031-01-01T00:00:00Z", Some((202, "Switchover scheduled")));
    assert!(tail.starts_with("2026-11-21 05:06:35.42013 Switchover scheduled\n+ Cluster: demo"), "{tail}");
    let body = r#"{"candidate":null,"leader":"pg1","scheduled_at":"2031-01-01T00:00:00+00:00"}"#;
    assert_eq!(requests, [format!("POST http://127.0.0.1:28001/switchover {body}")]);
}

#[test]
fn a_refusal_is_printed_and_is_no_failure_of_the_command() {
    for (status, body, line) in [
        (412, "candidate does not exists", "Switchover failed, details: 412, candidate does not exists"),
        (503, "Switchover status unknown", "Switchover result unknown, details: 503, Switchover status unknown"),
    ] {
        let (tail, _) = switchover("", Some((status, body)));
        assert_eq!(tail, format!("[exit 0]{line}"));
    }
}

#[test]
fn an_old_member_is_asked_at_its_other_endpoint() {
    let (_, requests) = switchover("", Some((501, "Error: Server does not support this operation")));
    let paths: Vec<&str> = requests.iter().filter_map(|request| request.split(' ').nth(1)).collect();
    assert_eq!(paths, ["http://127.0.0.1:28001/switchover", "http://127.0.0.1:28001/failover"]);
}

#[test]
fn a_leader_that_cannot_be_reached_is_moved_through_the_store() {
    let (tail, requests) = switchover("--candidate pg2", None);
    assert_eq!(requests.last().unwrap(), r#"demo failover: {"leader":"pg1","member":"pg2"}"#);
    let line = "2026-11-21 05:06:35.42013 Could not switchover using Patroni api, falling back to DCS\n+ Cluster: demo";
    assert!(tail.contains(line) && tail.ends_with("[exit 0]\n"), "{tail}");
}

#[test]
fn a_lost_answer_is_not_asked_for_again_when_the_leader_has_moved() {
    let (_, requests) = switchover("", Some((0, "the connection broke")));
    assert_eq!(requests.last().unwrap(), r#"demo failover: {"leader":"pg1"}"#, "the leader has not moved");

    let after = at("08-right-after-switchover");
    let case = Case { after, post: Some((0, "the connection broke")), ..Case::of("", at(STEADY)) };
    let world = Recorded::new(case, "2026-11-21 05:06:35.42013");
    let found = transcript("patronictl switchover demo --force", &[], &world);
    assert!(found.contains("The answer was lost, but the leader is \"pg2\" now\n+ Cluster: demo"), "{found}");
    assert_eq!(world.requests().len(), 1, "nothing is written to the store");
}

#[test]
fn garbage_in_the_leader_key_is_no_leader_to_hand_over() {
    let garbage = Moment { stage: "01-bootstrap-in-progress", edits: &[] };
    let world = Recorded::new(Case::of("", garbage), "2026-11-21 05:06:00");
    let found = transcript("patronictl switchover demo --force", &[], &world);
    assert!(found.ends_with("Error: This cluster has no leader\n[exit 1]\n"), "{found}");
    let garbage = Moment { stage: STEADY, edits: &[("pg1", "a/b")] };
    let world = Recorded::new(Case::of("", garbage), "2026-11-21 05:06:00");
    let found = transcript("patronictl switchover demo --force", &[], &world);
    assert!(found.contains("Error: The leader key of cluster demo does not hold the name of a member"), "{found}");
    assert_eq!(world.requests(), Vec::<String>::new());
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    let world = Recorded::new(Case::of("", at(STEADY)), "2026-11-21 05:06:00");
    let found = transcript("patronictl explode", &[], &world);
    assert_eq!(found, "$ patronictl explode\nError: No such command 'explode'. See --help\n[exit 2]\n");
}

#[test]
fn without_a_cluster_a_list_is_empty_and_everything_else_is_refused() {
    let run = |command| {
        let world = Recorded::new(Case { scope: "", ..Case::of("", at(STEADY)) }, "2026-11-21 05:06:00");
        transcript(command, &[], &world)
    };
    assert!(run("patronictl list").ends_with("WARNING - Listing members: No cluster names were provided\n[exit 0]\n"));
    assert!(run("patronictl history").contains("Error: no cluster is named"));
}

#[test]
fn the_former_option_of_the_leader_is_still_understood() {
    let (_, requests) = switchover("--master pg1 --candidate pg2", Some((200, "ok")));
    assert_eq!(requests, [r#"POST http://127.0.0.1:28001/switchover {"candidate":"pg2","leader":"pg1"}"#]);
}
