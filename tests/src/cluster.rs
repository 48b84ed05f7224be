//! A whole cluster on this machine: etcd, nodes, network, in one scratch folder.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::etcd::Etcd;
use crate::machine::{Machine, pgward_executable};
use crate::network::{Kind, Network};
use crate::node::{Agent, Node, Place, REST_AUTH};
use crate::patroni;
use crate::process::{Finished, Spec};
use crate::scratch::Scratch;
use crate::wait::{until, until_true};
use crate::yaml::to_yaml;

/// How long a fresh cluster may take on a loaded machine.
pub const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(60);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Topology {
    /// One node for each; named `n1`, `n2`, ...
    pub agents: Vec<Agent>,
    /// Number of etcd members.
    pub etcd_members: usize,
    /// Where it lives.
    pub network: Kind,
    /// The dynamic configuration written at bootstrap.
    pub dynamic: Value,
}

impl Topology {
    /// `count` nodes run by `agent`, one etcd member, and the shortest lease that Patroni accepts.
    pub fn of(agent: Agent, count: usize) -> Self {
        Self {
            agents: vec![agent; count],
            etcd_members: 1,
            network: Kind::Loopback,
            dynamic: json!({
                "ttl": 20,
                "loop_wait": 3,
                "retry_timeout": 3,
                "maximum_lag_on_failover": 1_048_576,
                "postgresql": {"use_pg_rewind": true, "use_slots": true},
            }),
        }
    }

    /// With that many etcd members.
    #[must_use]
    pub fn etcd(mut self, members: usize) -> Self {
        self.etcd_members = members;
        self
    }

    /// With every node, and an etcd member beside it, in a network namespace.
    #[must_use]
    pub fn in_namespaces(mut self) -> Self {
        self.network = Kind::Namespaces;
        self.etcd_members = self.agents.len();
        self
    }

    /// With a value of the dynamic configuration.
    #[must_use]
    pub fn dynamic(mut self, key: &str, value: Value) -> Self {
        self.dynamic[key] = value;
        self
    }

    /// With the timing of Patroni's defaults.
    #[must_use]
    pub fn default_timing(self) -> Self {
        self.dynamic("ttl", json!(30)).dynamic("loop_wait", json!(10)).dynamic("retry_timeout", json!(10))
    }
}

/// Why a test failed: the whole text for people, where `anyhow` would print a backtrace of the test runner.
pub struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("{:#}", error.into()))
    }
}

/// How a test ends.
pub type Outcome = Result<(), Failure>;

/// A running cluster. Dropping it ends all its processes.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The store.
    pub etcd: Etcd,
    /// The network.
    pub network: Network,
    /// Where the dynamic configuration began.
    pub topology: Topology,
    machine: Machine,
    scratch: Scratch,
}

/// A record in the WAL of a primary, to see it arrive elsewhere.
struct Mark {
    primary: usize,
    /// Its position, as PostgreSQL prints it.
    position: String,
}

/// Starts a cluster's etcd, runs `body`, and adds what the cluster looked like to its error.
///
/// # Errors
/// What `body` returns.
pub async fn with(topology: Topology, body: impl AsyncFnOnce(&mut Cluster) -> Result<()>) -> Outcome {
    let mut cluster = Cluster::prepare(topology).await?;
    match body(&mut cluster).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let seen = cluster.dump().await;
            Err(Failure(format!("{error:#}\n\n--- what was seen ---\n{seen}")))
        }
    }
}

/// Like [`with`], with all nodes started and streaming.
///
/// # Errors
/// What `body` returns, or that the cluster does not come up.
pub async fn with_running(topology: Topology, body: impl AsyncFnOnce(&mut Cluster) -> Result<()>) -> Outcome {
    with(topology, async |cluster| {
        cluster.start_all()?;
        cluster.all_streaming(BOOTSTRAP_LIMIT).await?;
        body(cluster).await
    })
    .await
}

impl Cluster {
    /// Starts etcd and lays out the nodes; no agent runs yet.
    ///
    /// # Errors
    /// When something is missing on this machine.
    pub async fn prepare(topology: Topology) -> Result<Self> {
        let machine = Machine::find()?;
        let hosts = topology.agents.len().max(topology.etcd_members);
        let network = Network::plan(topology.network, hosts);
        let scratch = Scratch::new(&machine.user, &network.namespaces())?;
        network.build()?;
        let etcd = Etcd::start(&machine, &scratch, &network, topology.etcd_members).await?;
        let agents = topology.agents.clone();
        let mut cluster = Self { nodes: Vec::new(), etcd, network, topology, machine, scratch };
        for agent in agents {
            cluster.add_node(agent)?;
        }
        let file = to_yaml(&cluster.shared_config(&["scope", "namespace", "etcd3", "restapi"]));
        fs::write(cluster.ctl_file(), file)?;
        Ok(cluster)
    }

    /// Adds a node, not started, on a host of its own.
    ///
    /// # Errors
    /// When its executable is missing.
    pub fn add_node(&mut self, agent: Agent) -> Result<usize> {
        let host = self.nodes.len();
        let name = format!("n{}", host + 1);
        let place = Place {
            dir: self.scratch.folder(&name, &self.machine.user)?,
            address: self.network.address(host),
            pg_port: self.network.free_port(host)?,
            rest_port: self.network.free_port(host)?,
            namespace: self.network.namespace(host),
            clients: self.network.clients(),
            name,
            host,
        };
        let base = self.shared_config(&["scope", "namespace", "etcd3", "bootstrap"]);
        let executable = self.executable(agent)?;
        self.nodes.push(Node::new(place, agent, executable, &self.machine.user, &self.machine.pg_bin, &base));
        Ok(host)
    }

    /// The program that runs a node, at a place where the user of the servers can run it.
    ///
    /// # Errors
    /// When it is missing.
    pub fn executable(&self, agent: Agent) -> Result<PathBuf> {
        match agent {
            Agent::Patroni => Ok(patroni::programs()?.join("patroni")),
            Agent::Pgward => {
                let copy = self.scratch.folder("bin", &self.machine.user)?.join("pgward");
                if !copy.is_file() {
                    // A link, where that is possible: a copy is busy (ETXTBSY) for as long as a process that another
                    // test has just forked still holds it open for writing.
                    let executable = pgward_executable()?;
                    if fs::hard_link(&executable, &copy).is_err() {
                        fs::copy(&executable, &copy).context("cannot copy the executable")?;
                    }
                }
                Ok(copy)
            }
        }
    }

    /// What this machine offers.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Makes a folder in the scratch folder that the servers can write to.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        self.scratch.folder(name, &self.machine.user)
    }

    /// Makes a folder that is a small file system of its own, in memory, which the servers can fill up. Needs root.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn small_disk(&self, name: &str, mebibytes: u32) -> Result<PathBuf> {
        self.scratch.small_disk(name, &self.machine.user, mebibytes)
    }

    /// The scratch folder.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The whole key of the store for a name such as `leader` or `members/n1`.
    pub fn key(&self, name: &str) -> String {
        format!("/service/demo/{name}")
    }

    /// Starts every agent.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_all(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::start)
    }

    /// Index of the node of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn index_of(&self, name: &str) -> Result<usize> {
        self.nodes.iter().position(|n| n.name() == name).with_context(|| format!("there is no node {name:?}"))
    }

    /// Who holds the leader key.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn leader(&self) -> Result<Option<usize>> {
        match self.etcd.get(&self.key("leader")).await? {
            Some(name) => Ok(self.nodes.iter().position(|n| n.name() == name)),
            None => Ok(None),
        }
    }

    /// The node that holds the leader key and accepts writes.
    ///
    /// # Errors
    /// When there is none.
    pub async fn primary(&self) -> Result<usize> {
        let leader = self.leader().await?.context("nobody holds the leader key")?;
        let node = &self.nodes[leader];
        let in_recovery = node.socket().query("SELECT pg_is_in_recovery()").await?;
        ensure!(in_recovery == ["f"], "{} holds the leader key but is in recovery", node.name());
        Ok(leader)
    }

    /// Waits until another node than `old` is primary; returns it.
    ///
    /// # Errors
    /// When `limit` has passed.
    pub async fn new_primary(&self, old: usize, limit: Duration) -> Result<usize> {
        let other = async || Ok(Some(self.primary().await?).filter(|p| *p != old));
        until(limit, other).await.context("no other node became primary")
    }

    /// Names of the members that stream from the primary now.
    ///
    /// # Errors
    /// When there is no primary.
    pub async fn streaming(&self) -> Result<Vec<String>> {
        let primary = self.primary().await?;
        let sql = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1";
        self.nodes[primary].socket().query(sql).await
    }

    /// Waits until there is a primary and every other node streams from it; returns the primary.
    ///
    /// # Errors
    /// When `limit` has passed.
    pub async fn all_streaming(&self, limit: Duration) -> Result<usize> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.these_streaming(&all, limit).await
    }

    /// Waits until there is a primary among `nodes` and the others of them stream from it; returns the primary.
    ///
    /// The primary's word is not enough: after a partition it lists connections that are long dead. So a mark is
    /// written, and each replica has to receive it from this very primary.
    ///
    /// # Errors
    /// When `limit` has passed.
    pub async fn these_streaming(&self, nodes: &[usize], limit: Duration) -> Result<usize> {
        let mut mark: Option<Mark> = None;
        let look = async || {
            let primary = self.primary().await?;
            ensure!(nodes.contains(&primary), "the primary is {}", self.nodes[primary].name());
            let streaming = self.streaming().await?;
            let replicas = || nodes.iter().filter(|node| **node != primary).map(|node| &self.nodes[*node]);
            for name in replicas().map(Node::name) {
                ensure!(streaming.iter().any(|s| s == name), "{name} does not stream; streaming: {streaming:?}");
            }
            let mark = match mark.as_ref().filter(|mark| mark.primary == primary) {
                Some(mark) => mark,
                None => mark.insert(self.write_mark(primary).await?),
            };
            for replica in replicas() {
                self.has_received(replica, mark).await?;
            }
            Ok(Some(primary))
        };
        until(limit, look).await.context("the cluster is not whole")
    }

    async fn write_mark(&self, primary: usize) -> Result<Mark> {
        let sql = "SELECT pg_logical_emit_message(true, 'pgward test', 'a mark')";
        let position = self.nodes[primary].socket().query(sql).await?.pop().context("no position of the mark")?;
        Ok(Mark { primary, position })
    }

    async fn has_received(&self, replica: &Node, mark: &Mark) -> Result<()> {
        let Mark { primary, position } = mark;
        let port = self.nodes[*primary].advertised_port();
        let sql = format!(
            "SELECT CASE WHEN status = 'streaming' AND sender_port = {port} AND flushed_lsn >= '{position}' THEN 'yes' \
             ELSE format('%s from port %s, received up to %s', status, sender_port, flushed_lsn) END \
             FROM pg_stat_wal_receiver"
        );
        let said = replica.socket().query(&sql).await?;
        let (name, primary) = (replica.name(), self.nodes[*primary].name());
        ensure!(said == ["yes"], "{name} has not received {position} from {primary} (port {port}) but says: {said:?}");
        Ok(())
    }

    /// Waits until every node streams and every agent says so too: the cluster is at rest.
    ///
    /// # Errors
    /// When `limit` has passed.
    pub async fn at_rest(&self, limit: Duration) -> Result<usize> {
        let deadline = Instant::now() + limit;
        let primary = self.all_streaming(limit).await?;
        for node in &self.nodes {
            let path = if node.name() == self.nodes[primary].name() { "/primary" } else { "/replica" };
            let left = deadline.saturating_duration_since(Instant::now());
            until_true(left, async || {
                let answer = node.get(path).await?;
                ensure!(answer.status == 200, "{} GET {path}: {} {}", node.name(), answer.status, answer.body);
                Ok(true)
            })
            .await
            .with_context(|| format!("{} does not settle", node.name()))?;
        }
        Ok(primary)
    }

    /// Asks the primary's agent for a switchover, as operators do; returns the answer's text.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn switchover(&self, from: usize, to: usize) -> Result<String> {
        let body = json!({"leader": self.nodes[from].name(), "candidate": self.nodes[to].name()});
        let answer = self.nodes[from].post("/switchover", &body, Duration::from_secs(60)).await?;
        ensure!(answer.status == 200, "switchover answered {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// Merges values into the dynamic configuration, directly in the store: works with every agent.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn set_dynamic(&self, changes: &[(&str, Value)]) -> Result<()> {
        let text = self.etcd.get(&self.key("config")).await?.context("there is no dynamic configuration")?;
        let mut document: Value = serde_json::from_str(&text)?;
        for (key, value) in changes {
            document[*key] = value.clone();
        }
        self.etcd.put(&self.key("config"), &document.to_string()).await
    }

    /// A file for `patronictl -c`.
    pub fn ctl_file(&self) -> PathBuf {
        self.scratch.path().join("patronictl.yml")
    }

    /// The command line tool of one agent on this cluster; `args` follow `-c FILE`.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn ctl_command(&self, agent: Agent, args: &[&str]) -> Result<Spec> {
        let spec = match agent {
            Agent::Pgward => Spec::new(self.executable(agent)?, self.dir()).arg("ctl"),
            Agent::Patroni => Spec::new(patroni::programs()?.join("patronictl"), self.dir()),
        };
        Ok(spec.arg("-c").arg(self.ctl_file()).args(args))
    }

    /// Runs [`Self::ctl_command`].
    ///
    /// # Errors
    /// When it does not end within half a minute.
    pub async fn ctl(&self, agent: Agent, args: &[&str]) -> Result<Finished> {
        self.ctl_command(agent, args)?.run(Duration::from_secs(30)).await
    }

    /// What a person would look at first: the store's keys, every agent's answer, the ends of the logs.
    pub async fn dump(&mut self) -> String {
        let mut text = String::new();
        match self.etcd.list(&self.key("")).await {
            Ok(keys) => keys.iter().for_each(|(key, value)| {
                let _ = writeln!(text, "{key} = {value}");
            }),
            Err(error) => {
                let _ = writeln!(text, "etcd: {error:#}");
            }
        }
        for node in &mut self.nodes {
            let (agent, postmaster) = (node.agent_pid(), node.postmaster_pid());
            let _ = writeln!(text, "{} ({}): agent {agent:?}, postmaster {postmaster:?}", node.name(), node.agent);
            let answer = match node.get("/patroni").await {
                Ok(answer) => answer.body,
                Err(error) => format!("{error:#}"),
            };
            let _ = writeln!(text, "  REST: {answer}\n{}", node.log_tails(45));
        }
        text
    }

    /// The parts of the configuration that all nodes share.
    fn shared_config(&self, keys: &[&str]) -> Value {
        let all = json!({
            "scope": "demo",
            "namespace": "/service/",
            "etcd3": {"hosts": self.etcd.endpoints()},
            "restapi": {"authentication": {"username": REST_AUTH.0, "password": REST_AUTH.1}},
            "bootstrap": {
                "dcs": self.topology.dynamic,
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
            },
        });
        let mut some = json!({});
        for key in keys {
            some[*key] = all[*key].clone();
        }
        some
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("{}:\n{}", node.name(), node.log_tails(45));
            }
        }
    }
}
