//! Whole commands against a recorded cluster: n1 leads since a failover from n2, n3 is tagged nofailover.
//!
//! `tests/golden/explain` holds the keys in the store and what `GET /explain` answered. The expected outputs are beside
//! them; `PGWARD_UPDATE_GOLDEN=1 cargo test` writes them anew, to be read before they are committed. A field that is added
//! to a view or a decision needs a default (`#[serde(default)]`), so that these recordings, and those of people, can still
//! be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use jiff::Zoned;
use pgward_core::cluster::{Cluster, LeaseId, Member, RawKey, Revision};
use pgward_store::{Condition, Key};
use serde_json::Value;

use crate::ctl::args::Arguments;
use crate::ctl::terminal::script::Script;
use crate::ctl::world::{Answer, ClusterName, Login, NoAnswer, QueryFailed, Request, World};
use crate::ctl::{conclude, execute};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/explain")
}

fn recorded(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The recorded cluster, changed by a test.
struct Scene {
    /// `None` for a store that does not answer.
    keys: Option<BTreeMap<String, String>>,
    /// What the members answer, by the port of their REST API; one that is missing does not answer.
    answers: BTreeMap<&'static str, Value>,
    own_api_url: Option<&'static str>,
}

const PORTS: [&str; 3] = ["17411", "17412", "17413"];

impl Scene {
    fn recorded() -> Scene {
        let documents =
            ["n1", "n2", "n3"].map(|name| serde_json::from_str(&recorded(&format!("{name}.json"))).unwrap());
        Scene {
            keys: Some(serde_json::from_str(&recorded("store.json")).unwrap()),
            answers: PORTS.into_iter().zip(documents).collect(),
            own_api_url: None,
        }
    }

    fn keys(&mut self) -> &mut BTreeMap<String, String> {
        self.keys.as_mut().unwrap()
    }

    /// n2 has received less by `bytes`.
    fn behind(mut self, bytes: u64) -> Scene {
        let n2 = self.answers.get_mut("17412").unwrap();
        let less = |value: &mut Value| *value = (value.as_u64().unwrap() - bytes).into();
        less(&mut n2["status"]["xlog"]["received_location"]);
        less(&mut n2["status"]["xlog"]["replayed_location"]);
        less(&mut n2["latest"]["record"]["view"]["postgres"]["facts"]["position"]);
        self
    }
}

impl World for Scene {
    fn configured_scope(&self) -> Option<String> {
        Some("demo".to_owned())
    }

    fn configured_group(&self) -> Option<u32> {
        None
    }

    fn own_api_url(&self) -> Option<String> {
        self.own_api_url.map(str::to_owned)
    }

    fn own_logs(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn now(&self) -> Zoned {
        "2026-11-21T15:38:50+00:00[UTC]".parse().unwrap()
    }

    async fn read(&self, _name: &ClusterName) -> anyhow::Result<Arc<Cluster>> {
        let keys =
            self.keys.clone().ok_or_else(|| anyhow::anyhow!("cannot read cluster demo from etcd at http://e1:2379"))?;
        let keys = keys.into_iter().map(|(suffix, value)| RawKey {
            suffix,
            value: value.into_bytes(),
            create_revision: Revision(40),
            mod_revision: Revision(40),
            lease: LeaseId(1),
        });
        Ok(Arc::new(Cluster::from_keys(Revision(50), keys)))
    }

    async fn call(&self, url: &str, _request: Request, _timeout: Duration) -> Result<Answer, NoAnswer> {
        let found = self.answers.iter().find(|(port, _)| url.contains(*port) && url.contains("/explain"));
        match found {
            Some((_, document)) => Ok(Answer { status: 200, body: document.to_string() }),
            None => Err(NoAnswer::Unsent(anyhow::anyhow!("cannot connect to {url}: Connection refused"))),
        }
    }

    async fn write(&self, _: &ClusterName, _: &Key, _: &str, _: Condition) -> anyhow::Result<bool> {
        panic!("nothing is touched")
    }

    async fn delete(&self, _: &ClusterName, _: &Key) -> anyhow::Result<()> {
        panic!("nothing is touched")
    }

    async fn delete_cluster(&self, _: &ClusterName) -> anyhow::Result<()> {
        panic!("nothing is touched")
    }

    async fn query(
        &self,
        _: &Member,
        _: &Login,
        _: Option<bool>,
        _: &str,
    ) -> Result<Vec<pgward_postgres::Answer>, QueryFailed> {
        panic!("nothing is asked")
    }

    fn read_text(&self, path: &Path) -> anyhow::Result<String> {
        panic!("nothing is read from {}", path.display())
    }

    fn edit(&self, _: &str, _: &ClusterName) -> anyhow::Result<String> {
        panic!("nothing is edited")
    }

    async fn sleep(&self, _: Duration) {}
}

fn transcript(command: &str, scene: &Scene) -> String {
    let mut terminal = Script::default();
    let arguments = Arguments::try_parse_from(command.split_whitespace()).unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let outcome = runtime.block_on(execute(arguments.command, scene, &mut terminal));
    let code = conclude(outcome, &mut terminal);
    format!("$ {command}\n{}[exit {code}]\n", terminal.transcript)
}

fn check(golden: &str, command: &str, scene: &Scene) {
    let found = transcript(command, scene);
    let long = found.lines().skip(1).find(|line| line.chars().count() > 100 && !line.starts_with("Error: "));
    assert_eq!(long, None, "{golden}: a line is too long");
    if std::env::var_os("PGWARD_UPDATE_GOLDEN").is_some() {
        std::fs::write(folder().join(golden), &found).unwrap();
    }
    assert_eq!(found, recorded(golden), "{golden}");
}

#[test]
fn explain_says_what_was_decided_and_who_would_take_over() {
    check("explain.txt", "pgward explain", &Scene::recorded());
    check("explain-behind.txt", "pgward explain", &Scene::recorded().behind(48 << 20));
    check("explain-member.txt", "pgward explain n1", &Scene::recorded());
    check("explain-no-such-member.txt", "pgward explain n9", &Scene::recorded());
}

#[test]
fn explain_works_while_things_are_broken() {
    let mut silent = Scene::recorded();
    silent.answers.remove("17412");
    check("explain-silent.txt", "pgward explain", &silent);
    check("explain-silent-member.txt", "pgward explain n2", &silent);

    let mut hung = Scene::recorded();
    hung.answers.get_mut("17413").unwrap()["now"] = "2026-11-21T15:40:30Z".into();
    check("explain-hung.txt", "pgward explain", &hung);

    let mut leaderless = Scene::recorded();
    leaderless.keys().remove("leader");
    leaderless.keys().remove("members/n1");
    check("explain-leaderless.txt", "pgward explain", &leaderless);

    let blind = Scene { keys: None, ..Scene::recorded() };
    check("explain-no-store.txt", "pgward explain", &blind);
    let by_member = Scene { own_api_url: Some("http://127.0.0.1:17413/patroni"), ..blind };
    check("explain-by-member.txt", "pgward explain", &by_member);
}

#[test]
fn explain_judges_members_that_patroni_runs_by_what_they_publish() {
    let mut newer = Scene::recorded();
    newer.answers.get_mut("17412").unwrap()["latest"]["record"]["view"] = "another form".into();
    check("explain-other-version.txt", "pgward explain", &newer);
    let mut mixed = Scene::recorded();
    let status = mixed.answers["17412"]["status"].clone();
    mixed.answers.insert("17412", status);
    check("explain-mixed.txt", "pgward explain", &mixed);
}

#[test]
fn what_if_tells_each_step_and_touches_nothing() {
    for (golden, command) in [
        ("lose-leader.txt", "pgward what-if --lose n1"),
        ("lose-replica.txt", "pgward what-if --lose n2"),
        ("lose-store.txt", "pgward what-if --lose-store"),
        ("partition-leader.txt", "pgward what-if --partition n1"),
        ("partition-replicas.txt", "pgward what-if --partition n2,n3"),
        ("lose-unknown.txt", "pgward what-if --lose n9"),
    ] {
        check(golden, command, &Scene::recorded());
    }
}

#[test]
fn a_report_is_an_archive_of_what_the_members_said() {
    let folder = tempfile::tempdir().unwrap();
    let (path, log) = (folder.path().join("r.tar.gz"), folder.path().join("agent.log"));
    std::fs::write(&log, "connects with password=hunter2\n").unwrap();
    let command = format!("pgward report -o {} --log {}", path.display(), log.display());
    let mut scene = Scene::recorded();
    scene.answers.remove("17413");
    let text = transcript(&command, &scene);
    assert!(text.contains("failover from n2 to n1, timeline 2") && text.ends_with("[exit 0]\n"), "{text}");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap()));
    let files: BTreeMap<String, String> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            (path.split_once('/').unwrap().1.to_owned(), std::io::read_to_string(&mut entry).unwrap())
        })
        .collect();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let member =
        |name| ["decisions.jsonl", "decisions.txt", "status.json"].map(|file| format!("members/{name}/{file}"));
    let want = [
        vec!["README.txt".to_owned(), "explain.txt".to_owned(), "logs/1-agent.log".to_owned()],
        member("n1").to_vec(),
        member("n2").to_vec(),
        vec!["members/n3/decisions.txt".to_owned(), "store.json".to_owned(), "timeline.txt".to_owned()],
    ];
    assert_eq!(names, want.concat());
    assert_eq!(files["logs/1-agent.log"], "connects with password=***\n");
    assert!(files["members/n3/decisions.txt"].starts_with("n3 cannot be asked"));
    assert!(files["timeline.txt"].contains("15:37:51.0  n1  holds the leader lease"), "{}", files["timeline.txt"]);
}

#[test]
fn json_says_the_same() {
    let read = |command: &str| -> Value {
        let text = transcript(command, &Scene::recorded());
        let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{text}"));
        serde_json::from_str(line).unwrap()
    };
    let all = read("pgward explain -f json");
    assert_eq!(all["leader"], "n1");
    assert_eq!(all["members"]["n3"]["last"]["rules"][0], "OWN-7");
    assert_eq!(all["if_leader_lost"]["outcome"]["primary"], "n2");
    assert_eq!(all["if_leader_lost"]["outcome"]["verdicts"]["n3"]["does_not"], "NoFailover");
    assert_eq!(read("pgward explain n1 -f json")["changes"][0]["from"], "n2");
    let trial = read("pgward what-if --lose n1 -f json");
    assert_eq!((&trial["outcome"]["primary"], &trial["outcome"]["primary_after"]), (&"n2".into(), &20.0.into()));
}

#[test]
fn one_loss_at_a_time_has_to_be_named() {
    for command in ["pgward what-if", "pgward what-if --lose n1 --lose-store"] {
        assert!(Arguments::try_parse_from(command.split_whitespace()).is_err(), "{command}");
    }
}
