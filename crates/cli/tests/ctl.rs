//! `pgward ctl` as a process, against a real etcd and a member's REST API that answers from a script.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop the test when the machine fails them")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgward_core::cluster::Cluster;
use pgward_store::{Condition, EtcdOptions, EtcdStore, Key, Store};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const PGWARD: &str = env!("CARGO_BIN_EXE_pgward");
const STAGES: &str = include_str!("golden/ctl/stages.json");
const LIST: &str = include_str!("golden/ctl/03-list-three-members.txt");

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// One etcd with a data directory of its own.
struct Etcd {
    process: Child,
    endpoint: String,
    directory: TempDir,
}

impl Etcd {
    fn start() -> Etcd {
        let directory = TempDir::new().unwrap();
        let (client, peer) = (free_port(), free_port());
        let endpoint = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path().join("etcd"))
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut process = process.expect("etcd is needed: apt-get install etcd-server");
        let log = process.stderr.take().unwrap();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains("ready to serve") {
                    let _ = ready.send(());
                }
                seen.push(line);
            }
            seen
        });
        is_ready.recv_timeout(PATIENCE * 3).expect("etcd becomes ready");
        Etcd { process, endpoint, directory }
    }

    fn store(&self) -> EtcdStore {
        let options = EtcdOptions {
            endpoints: vec![self.endpoint.clone()],
            prefix: "/service/demo/".to_owned(),
            ..EtcdOptions::default()
        };
        EtcdStore::new(&options, CancellationToken::new()).unwrap()
    }

    /// Writes a recorded cluster whose members have their REST API at `api`.
    fn load(&self, stage: &str, api: &str) {
        let stages: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(STAGES).unwrap();
        let store_it = async {
            let store = self.store();
            for (key, value) in &stages[stage] {
                let suffix = key.strip_prefix("/service/demo/").unwrap();
                let value = value.replace("http://127.0.0.1:28001", api);
                match key_of(suffix) {
                    Some(key) => {
                        store.write(&key, &value, Condition::Always, None, PATIENCE).await.unwrap();
                    }
                    None => {
                        let lease = store.grant(Duration::from_secs(600), PATIENCE).await.unwrap();
                        store.take(&value.parse().unwrap(), lease, PATIENCE).await.unwrap();
                    }
                }
            }
        };
        runtime().block_on(store_it);
    }

    fn read(&self) -> Cluster {
        let read = async { self.store().read(PATIENCE).await.unwrap() };
        Cluster::clone(&runtime().block_on(read))
    }

    /// `pgward ctl` for this store.
    fn ctl(&self, arguments: &[&str]) -> Command {
        let mut command = ctl(&["-d", &self.endpoint]);
        command.args(arguments);
        command
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `None` is the leader key, which is written in another way.
fn key_of(suffix: &str) -> Option<Key> {
    Some(match suffix {
        "leader" => return None,
        "initialize" => Key::Initialize,
        "config" => Key::Config,
        "status" => Key::Status,
        "failover" => Key::Failover,
        "sync" => Key::Sync,
        "history" => Key::History,
        "failsafe" => Key::Failsafe,
        other => Key::Member(other.strip_prefix("members/").unwrap().parse().unwrap()),
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A command that nothing in our own environment reaches.
fn ctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(PGWARD);
    command.arg("ctl").args(arguments);
    clean(&mut command);
    command
}

fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PATRONI") || text == "DCS_URL" {
            command.env_remove(&name);
        }
    }
    command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME").stdin(Stdio::null());
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a recorded list printed.
fn recorded_list() -> String {
    let (_, rest) = LIST.split_once('\n').unwrap();
    rest.replace("[exit 0]\n", "")
}

/// A REST API that answers one request and returns it.
fn member(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&mut stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes())).unwrap();
        request
    });
    (url, served)
}

fn read_request(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let (mut head, mut body) = (String::new(), String::new());
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "the request ends early: {head}");
    }
    let mut lengths =
        head.lines().filter_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let length: u64 = lengths.next_back().unwrap_or(0);
    reader.take(length).read_to_string(&mut body).unwrap();
    head + &body
}

#[test]
fn a_cluster_is_listed_under_both_names_of_the_program() {
    let etcd = Etcd::start();
    etcd.load("03-steady-three-members", "http://127.0.0.1:1");
    let link = etcd.directory.path().join("patronictl");
    std::os::unix::fs::symlink(PGWARD, &link).unwrap();
    let mut linked = Command::new(&link);
    clean(&mut linked);
    linked.args(["list", "demo"]).env("DCS_URL", &etcd.endpoint);
    for mut command in [etcd.ctl(&["list", "demo"]), linked] {
        let output = command.output().unwrap();
        assert_eq!((stdout(&output), stderr(&output)), (recorded_list(), String::new()));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn a_store_that_is_away_is_an_error_in_the_stated_time() {
    // A listener that never answers: the connection succeeds and nothing comes.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for endpoint in [format!("127.0.0.1:{}", free_port()), silent.local_addr().unwrap().to_string()] {
        let start = Instant::now();
        let output = ctl(&["--timeout", "1", "-d", &format!("etcd3://{endpoint}"), "list", "demo"]).output().unwrap();
        let text = stderr(&output);
        assert!(text.starts_with(&format!("Error: cannot read cluster demo from etcd at http://{endpoint}")), "{text}");
        assert_eq!(output.status.code(), Some(1));
        assert!(start.elapsed() < PATIENCE / 2, "took {:?}", start.elapsed());
    }
}

#[test]
fn a_switchover_is_agreed_in_a_dialogue_and_sent_to_the_leader() {
    let etcd = Etcd::start();
    let (url, member) = member("Successfully switched over to \"pg2\"");
    etcd.load("03-steady-three-members", &url);
    let mut command = etcd.ctl(&["switchover", "demo"]);
    let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut process = process.unwrap();
    process.stdin.take().unwrap().write_all(b"\npg2\n\ny\n").unwrap();
    let output = process.wait_with_output().unwrap();
    let request = member.join().unwrap();
    assert!(request.starts_with("POST /switchover HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"candidate\":\"pg2\",\"leader\":\"pg1\"}"), "{request}");
    let text = stdout(&output);
    let question = "Are you sure you want to switchover cluster demo, demoting current leader pg1? [y/N]: ";
    assert!(text.contains("Primary [pg1]: Candidate ['pg2', 'pg3'] []: When should the switchover"), "{text}");
    assert!(text.contains(question) && text.contains(" Successfully switched over to \"pg2\"\n+ Cluster"), "{text}");
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
}

#[test]
fn a_file_names_the_cluster_the_store_and_the_user() {
    let etcd = Etcd::start();
    let (url, member) = member("Switchover scheduled");
    etcd.load("03-steady-three-members", &url);
    let file = etcd.directory.path().join("patronictl.yml");
    let login = "ctl:\n  authentication:\n    username: demo\n    password: secret\n";
    std::fs::write(&file, format!("scope: demo\netcd3:\n  hosts: [{}]\n{login}", &etcd.endpoint[7..])).unwrap();
    let named = |arguments: &[&str]| {
        let mut command = ctl(&["-c", file.to_str().unwrap()]);
        command.args(arguments).output().unwrap()
    };
    let output = named(&["list"]);
    assert_eq!((stdout(&output), stderr(&output)), (recorded_list(), String::new()));
    let output = named(&["switchover", "--scheduled", "2031-01-01T00:00Z", "--force"]);
    let request = member.join().unwrap();
    assert!(request.to_lowercase().contains("\r\nauthorization: basic zgvtbzpzzwnyzxq=\r\n"), "{request}");
    let body = r#"{"candidate":null,"leader":"pg1","scheduled_at":"2031-01-01T00:00:00+00:00"}"#;
    assert!(request.ends_with(body), "{request}");
    assert!(stdout(&output).contains(" Switchover scheduled\n+ Cluster: demo"), "{}", stdout(&output));
}

#[test]
fn a_failover_goes_through_the_store_when_the_member_is_away() {
    let etcd = Etcd::start();
    etcd.load("03-steady-three-members", &format!("http://127.0.0.1:{}", free_port()));
    let output = etcd.ctl(&["failover", "demo", "--candidate", "pg3", "--force"]).output().unwrap();
    let text = stdout(&output);
    assert!(text.contains(" Could not failover using Patroni api, falling back to DCS\n"), "{text}");
    assert!(stderr(&output).contains("WARNING - cannot connect to"), "{}", stderr(&output));
    let request = etcd.read().failover.unwrap().value;
    assert_eq!(request.to_value(), r#"{"member":"pg3"}"#);
}

#[test]
fn an_aborted_dialogue_and_a_reader_that_has_enough_are_no_crash() {
    let etcd = Etcd::start();
    etcd.load("03-steady-three-members", "http://127.0.0.1:1");
    let output = etcd.ctl(&["switchover", "demo"]).output().unwrap();
    assert!(stdout(&output).ends_with("Primary [pg1]: "));
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("Aborted!\n", Some(1)));

    let mut command = etcd.ctl(&["list", "demo"]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(process.stdout.take());
    let output = process.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_watched_list_goes_on_while_the_store_is_away() {
    let mut etcd = Etcd::start();
    etcd.load("03-steady-three-members", "http://127.0.0.1:1");
    let mut command = etcd.ctl(&["--timeout", "0.2", "list", "demo", "-w", "0.1"]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().take(20).any(|line| line.contains("pg3")), "lists again and again");
    etcd.process.kill().unwrap();
    assert!(lines.by_ref().take(200).any(|line| line.starts_with("Error: cannot read cluster demo")));
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn help_names_every_command() {
    let output = ctl(&["--help"]).output().unwrap();
    let text = stdout(&output);
    for command in ["list", "topology", "switchover", "failover", "history", "show-config", "dsn", "version"] {
        assert!(text.contains(&format!("\n  {command} ")), "{command} is missing in:\n{text}");
    }
    assert!(text.contains("pgward ctl"), "{text}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(ctl(&[]).output().unwrap().status.code(), Some(2));
}
