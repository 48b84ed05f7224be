//! etcd members as processes, and a look at their keys through etcd's own JSON gateway.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::http::{Head, Request, read_chunk};
use crate::machine::{Machine, program};
use crate::network::Network;
use crate::process::{Process, Spec};
use crate::scratch::Scratch;
use crate::wait::until_true;

/// How long one request to a member may take; the next member is tried afterwards.
const LIMIT: Duration = Duration::from_secs(2);

/// The members of one etcd cluster; member `i` lives on host `i`.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    client: Client,
}

/// Reads and writes keys, at whichever member answers. Clones share what they know of the members.
#[derive(Clone, Debug)]
pub struct Client {
    /// `host:port` of every member.
    endpoints: Vec<String>,
    /// The member that answered last: asked first the next time.
    answered: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Member {
    spec: Spec,
    client: String,
    log: PathBuf,
    process: Option<Process>,
}

impl Etcd {
    /// Starts `count` members and waits until they answer.
    ///
    /// # Errors
    /// When they do not.
    pub async fn start(machine: &Machine, scratch: &Scratch, network: &Network, count: usize) -> Result<Self> {
        let mut urls = Vec::new();
        for host in 0..count {
            let address = network.address(host);
            let (client, peer) = (network.free_port(host)?, network.free_port(host)?);
            urls.push((format!("{address}:{client}"), format!("http://{address}:{peer}")));
        }
        let all: Vec<String> = urls.iter().enumerate().map(|(i, u)| format!("e{}={}", i + 1, u.1)).collect();
        let program = program("etcd").context("etcd is not installed; remedy: apt-get install etcd-server")?;
        let mut members = Vec::new();
        for (host, (client, peer)) in urls.into_iter().enumerate() {
            let name = format!("e{}", host + 1);
            let dir = scratch.folder(&name, &machine.user)?;
            let url = format!("http://{client}");
            let spec = Spec::new(&program, &dir)
                .args(["--name", &name, "--initial-cluster-state", "new", "--initial-cluster", &all.join(",")])
                .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .arg("--data-dir")
                .arg(dir.join("data"))
                .namespace(network.namespace(host).as_deref())
                .user(&machine.user);
            members.push(Member { spec, client, log: scratch.path().join(format!("{name}.log")), process: None });
        }
        let endpoints = members.iter().map(|m: &Member| m.client.clone()).collect();
        let mut etcd = Self { members, client: Client { endpoints, answered: Arc::default() } };
        for member in 0..count {
            etcd.start_member(member)?;
        }
        until_true(Duration::from_secs(20), async || Ok(etcd.healthy_members().await == count))
            .await
            .context("etcd does not become healthy")?;
        Ok(etcd)
    }

    /// `host:port` of every member for clients.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|m| m.client.clone()).collect()
    }

    /// Starts a member, again if need be.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_member(&mut self, member: usize) -> Result<()> {
        let member = self.members.get_mut(member).context("no such etcd member")?;
        member.process = Some(member.spec.start(&member.log)?);
        Ok(())
    }

    /// Kills a member.
    pub fn kill_member(&mut self, member: usize) {
        if let Some(member) = self.members.get_mut(member) {
            // Dropping the handle kills the process and collects it.
            member.process = None;
        }
    }

    /// Sends a signal to a member, such as STOP and CONT.
    pub fn signal_member(&mut self, member: usize, signal: Signal) {
        if let Some(process) = self.members.get_mut(member).and_then(|m| m.process.as_mut()) {
            process.signal(signal);
        }
    }

    /// How many members say that they are healthy, that is, see a leader and can commit.
    pub async fn healthy_members(&self) -> usize {
        let mut healthy = 0;
        for member in &self.members {
            let answer = Request::get(&member.client, "/health").send(LIMIT).await;
            healthy += usize::from(answer.is_ok_and(|a| a.body.contains("true")));
        }
        healthy
    }

    /// The member that leads, as the members say themselves.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn leader_member(&self) -> Result<usize> {
        for (index, member) in self.members.iter().enumerate() {
            let request = Request {
                method: "POST",
                json: Some(&json!({})),
                ..Request::get(&member.client, "/v3/maintenance/status")
            };
            let Ok(status) = request.send(LIMIT).await.and_then(|a| a.json()) else { continue };
            if status["leader"].is_string() && status["leader"] == status["header"]["member_id"] {
                return Ok(index);
            }
        }
        bail!("no etcd member says that it leads")
    }

    /// Hands leadership among the etcd members to another one, if `member` has it.
    ///
    /// # Errors
    /// When it does not happen.
    pub async fn move_leader_away_from(&self, member: usize) -> Result<()> {
        let leader = self.leader_member().await?;
        let target = self.members.iter().enumerate().find(|(index, _)| *index != member).map(|(_, m)| m);
        let Some(target) = target.filter(|_| leader == member) else { return Ok(()) };
        let ask = |client: String, path: &'static str, body: Value| async move {
            Request { method: "POST", json: Some(&body), ..Request::get(&client, path) }.send(LIMIT).await
        };
        let status = ask(target.client.clone(), "/v3/maintenance/status", json!({})).await?.json()?;
        let body = json!({"targetID": status["header"]["member_id"]});
        ask(self.members[leader].client.clone(), "/v3/maintenance/transfer-leadership", body).await?;
        let moved = async || Ok(self.leader_member().await? != member);
        until_true(Duration::from_secs(10), moved).await.context("etcd does not move its leadership")
    }

    /// A client of its own for a task beside.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Value of a key; see [`Client::get`].
    ///
    /// # Errors
    /// When no member answers.
    pub async fn get(&self, key: &str) -> Result<Option<String>> {
        self.client.get(key).await
    }

    /// All keys that begin with `prefix`, in order.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        self.client.list(prefix).await
    }

    /// Writes a key, without a lease.
    ///
    /// # Errors
    /// When no member takes it.
    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        self.client.put(key, value).await
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// When no member takes it.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.client.delete(key).await
    }

    /// Runs `etcdctl` with these arguments, as operators do; returns what it printed.
    ///
    /// # Errors
    /// When it is missing or fails.
    pub async fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let program = program("etcdctl").context("etcdctl is not installed; remedy: apt-get install etcd-client")?;
        let command = Spec::new(program, Path::new("/"))
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints().join(",")))
            .args(args);
        let finished = command.run(Duration::from_secs(10)).await?;
        ensure!(finished.status.success(), "etcdctl {}: {}", args.join(" "), finished.text());
        Ok(finished.stdout)
    }

    /// Records every change of a key from now on.
    ///
    /// # Errors
    /// When no member accepts the watch.
    pub async fn watch(&self, key: &str) -> Result<KeyLog> {
        let body = json!({"create_request": {"key": STANDARD.encode(key)}});
        for member in &self.members {
            let request = Request { method: "POST", json: Some(&body), ..Request::get(&member.client, "/v3/watch") };
            let Ok(mut stream) = request.open().await else { continue };
            let opened = tokio::time::timeout(LIMIT, Head::read(&mut stream)).await;
            if !matches!(opened, Ok(Ok(Head { status: 200, .. }))) {
                continue;
            }
            let changes: Arc<Mutex<Vec<Change>>> = Arc::default();
            let record = Arc::clone(&changes);
            let task = tokio::spawn(async move {
                let mut text = Vec::new();
                while let Ok(Some(chunk)) = read_chunk(&mut stream).await {
                    text.extend(chunk);
                    while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = text.drain(..=end).collect();
                        let message: Value = serde_json::from_slice(&line).unwrap_or_default();
                        let events = message["result"]["events"].as_array().cloned().unwrap_or_default();
                        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
                        record.extend(events.iter().map(Change::of));
                    }
                }
            });
            return Ok(KeyLog { changes, task });
        }
        bail!("no etcd member accepts a watch")
    }
}

impl Client {
    /// Value of a key.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn get(&self, key: &str) -> Result<Option<String>> {
        let answer = self.call("/v3/kv/range", &json!({"key": STANDARD.encode(key)})).await?;
        Ok(answer["kvs"].get(0).map(|kv| decode(&kv["value"])))
    }

    /// All keys that begin with `prefix`, in order.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let request = json!({"key": STANDARD.encode(prefix), "range_end": STANDARD.encode(after(prefix))});
        let answer = self.call("/v3/kv/range", &request).await?;
        let keys = answer["kvs"].as_array().cloned().unwrap_or_default();
        Ok(keys.iter().map(|kv| (decode(&kv["key"]), decode(&kv["value"]))).collect())
    }

    /// Writes a key, without a lease.
    ///
    /// # Errors
    /// When no member takes it.
    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        self.call("/v3/kv/put", &json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)})).await.map(drop)
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// When no member takes it.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.call("/v3/kv/deleterange", &json!({"key": STANDARD.encode(key)})).await.map(drop)
    }

    async fn call(&self, path: &str, body: &Value) -> Result<Value> {
        let mut last = anyhow::anyhow!("there is no etcd member");
        let first = self.answered.load(Ordering::Relaxed);
        for turn in 0..self.endpoints.len() {
            let index = (first + turn) % self.endpoints.len();
            let request = Request { method: "POST", json: Some(body), ..Request::get(&self.endpoints[index], path) };
            match request.send(LIMIT).await {
                Ok(answer) if answer.status == 200 => {
                    self.answered.store(index, Ordering::Relaxed);
                    return answer.json();
                }
                Ok(answer) => last = anyhow::anyhow!("{}: {}", answer.status, answer.body),
                Err(error) => last = error,
            }
        }
        Err(last.context("etcd"))
    }
}

/// One change of a watched key.
#[derive(Clone, Debug)]
pub struct Change {
    /// When we were told, on the clock of the writers' records.
    pub at: Instant,
    /// When we were told, as seconds since 1970, to be compared with PostgreSQL's log.
    pub epoch_seconds: f64,
    /// The new value; none when the key is gone.
    pub value: Option<String>,
    /// Whether the key is bound to a lease.
    pub leased: bool,
}

impl Change {
    fn of(event: &Value) -> Self {
        let deleted = event["type"] == "DELETE";
        let epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            at: Instant::now(),
            epoch_seconds: epoch.as_secs_f64(),
            value: (!deleted).then(|| decode(&event["kv"]["value"])),
            leased: event["kv"]["lease"].as_str().is_some_and(|lease| lease != "0"),
        }
    }
}

/// What happened to a key since the watch began. Ends when it is dropped.
#[derive(Debug)]
pub struct KeyLog {
    changes: Arc<Mutex<Vec<Change>>>,
    task: JoinHandle<()>,
}

impl KeyLog {
    /// Everything so far.
    pub fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first deletion at or after `since`.
    pub fn gone_after(&self, since: Instant) -> Option<Change> {
        self.changes().into_iter().find(|change| change.value.is_none() && change.at >= since)
    }
}

impl Drop for KeyLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn decode(value: &Value) -> String {
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of the range of keys that begin with `prefix`, which must end in an ASCII character.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}
