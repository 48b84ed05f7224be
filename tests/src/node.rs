//! One node: a YAML file in Patroni's format, an agent that runs it, and the PostgreSQL that the agent runs.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::{self, Request, Response};
use crate::machine::RunUser;
use crate::process::{self, Process, Seen, Spec};
use crate::sql::{SUPERUSER_PASSWORD, Target};
use crate::yaml::to_yaml;

/// User and password of the REST API's unsafe methods.
pub const REST_AUTH: (&str, &str) = ("admin", "rest-secret");

/// Which program runs a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// The executable under test.
    Pgward,
    /// Patroni 4.1 from PyPI.
    Patroni,
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pgward => "pgward",
            Self::Patroni => "patroni",
        })
    }
}

/// Where a node listens and keeps its files; the rest of its configuration is the same for all.
#[derive(Clone, Debug)]
pub struct Place {
    /// Name of the member.
    pub name: String,
    /// Number of its host in the network.
    pub host: usize,
    /// Address of the host.
    pub address: String,
    /// Port of PostgreSQL.
    pub pg_port: u16,
    /// Port of the REST API.
    pub rest_port: u16,
    /// Folder of the node: configuration, password file, socket, and the data directory in `data`.
    pub dir: PathBuf,
    /// Network namespace.
    pub namespace: Option<String>,
    /// Addresses that may connect, in CIDR notation.
    pub clients: String,
}

/// A node of a cluster.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub place: Place,
    /// What runs it.
    pub agent: Agent,
    /// Its configuration; written at every start of the agent.
    pub config: Value,
    /// Variables added to the environment of the agent, and so of its PostgreSQL.
    pub environment: Vec<(String, String)>,
    executable: PathBuf,
    user: RunUser,
    process: Option<Process>,
}

impl Node {
    /// A node that is not started yet. `base` holds what all nodes share: scope, namespace, etcd3, bootstrap.
    pub fn new(place: Place, agent: Agent, executable: PathBuf, user: &RunUser, pg_bin: &Path, base: &Value) -> Self {
        let mut config = base.clone();
        config["name"] = json!(place.name);
        config["restapi"] = json!({
            "listen": format!("{}:{}", place.address, place.rest_port),
            "connect_address": format!("{}:{}", place.address, place.rest_port),
            "authentication": {"username": REST_AUTH.0, "password": REST_AUTH.1},
        });
        config["postgresql"] = json!({
            "listen": format!("{}:{}", place.address, place.pg_port),
            "connect_address": format!("{}:{}", place.address, place.pg_port),
            "data_dir": place.dir.join("data"),
            "bin_dir": pg_bin,
            "pgpass": place.dir.join("pgpass"),
            "authentication": {
                "superuser": {"username": "postgres", "password": SUPERUSER_PASSWORD},
                "replication": {"username": "replicator", "password": "rep-secret"},
                "rewind": {"username": "rewinder", "password": "rewind-secret"},
            },
            "parameters": {
                "unix_socket_directories": place.dir,
                "logging_collector": "on",
                "log_directory": place.dir,
                "log_filename": "postgresql.log",
                "log_line_prefix": "%n [%p] ",
            },
            "pg_hba": [
                "local all all trust",
                format!("host replication replicator {} md5", place.clients),
                format!("host all all {} md5", place.clients),
            ],
        });
        Self { place, agent, config, environment: Vec::new(), executable, user: user.clone(), process: None }
    }

    /// Name of the member.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.config["postgresql"]["data_dir"].as_str().map_or_else(|| self.place.dir.join("data"), PathBuf::from)
    }

    /// The port at which other members reach its PostgreSQL, by its configuration.
    pub fn advertised_port(&self) -> u16 {
        let address = self.config["postgresql"]["connect_address"].as_str().unwrap_or_default();
        address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(self.place.pg_port)
    }

    /// The file of the configuration.
    pub fn config_file(&self) -> PathBuf {
        self.place.dir.join("config.yml")
    }

    /// What the agent printed.
    pub fn agent_log(&self) -> PathBuf {
        self.place.dir.join("agent.log")
    }

    /// PostgreSQL's own log.
    pub fn postgres_log(&self) -> PathBuf {
        self.place.dir.join("postgresql.log")
    }

    /// Writes the configuration file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self) -> Result<()> {
        let file = self.config_file();
        fs::write(&file, to_yaml(&self.config)).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        if self.user.switch {
            chown(&file, Some(self.user.uid), Some(self.user.gid))?;
        }
        Ok(())
    }

    /// A command of the node's executable, run as the user of the servers and in the node's namespace.
    pub fn command(&self) -> Spec {
        let spec = if self.environment.is_empty() {
            Spec::new(&self.executable, &self.place.dir)
        } else {
            // Only for the program itself, not for those that bring it into its namespace as root.
            let variables = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
            Spec::new("/usr/bin/env", &self.place.dir).args(variables).arg(&self.executable)
        };
        spec.user(&self.user).namespace(self.place.namespace.as_deref())
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&mut self) -> Result<()> {
        self.write_config()?;
        let spec = match self.agent {
            Agent::Pgward => self.command().arg("agent").arg(self.config_file()),
            Agent::Patroni => self.command().arg(self.config_file()),
        };
        self.process = Some(spec.start(&self.agent_log())?);
        Ok(())
    }

    /// Pid of the agent, when it was started and runs.
    pub fn agent_pid(&mut self) -> Option<u32> {
        let process = self.process.as_mut()?;
        process.is_running().then(|| process.pid())
    }

    /// Asks the agent to stop (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it does not stop within `limit`.
    pub async fn stop(&mut self, limit: Duration) -> Result<std::process::ExitStatus> {
        let name = self.place.name.clone();
        let process = self.process.as_mut().context("the agent was not started")?;
        process.signal(Signal::TERM);
        process.ended(limit).await.with_context(|| format!("stop of the agent of {name}"))
    }

    /// Waits for the agent to end by itself.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn agent_ended(&mut self, limit: Duration) -> Result<std::process::ExitStatus> {
        self.process.as_mut().context("the agent was not started")?.ended(limit).await
    }

    /// Sends a signal to the agent alone.
    pub fn signal_agent(&mut self, signal: Signal) {
        if let Some(process) = self.process.as_mut() {
            process.signal(signal);
        }
    }

    /// Kills the agent alone and collects it; PostgreSQL and the fencer are left.
    pub fn kill_agent(&mut self) {
        self.process = None;
    }

    /// Kills everything of this node at one instant: agent, fencer, PostgreSQL. What a power cut does.
    pub fn crash(&mut self) {
        for signal in [Signal::STOP, Signal::KILL, Signal::KILL] {
            for pid in self.processes() {
                process::send(pid, signal);
            }
        }
        self.process = None;
    }

    /// Kills PostgreSQL's main process and nothing else.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_postmaster(&self) -> Result<()> {
        let pid = self.postmaster_pid().with_context(|| format!("{} has no postmaster", self.place.name))?;
        process::send(pid, Signal::KILL);
        Ok(())
    }

    /// Pid of the running postmaster.
    pub fn postmaster_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        process::is_alive(pid).then_some(pid)
    }

    /// Pids of the fencer: a process beside the agent, with `fencer` and this node's data directory in its arguments.
    pub fn fencer_pids(&self) -> Vec<u32> {
        let dir = self.place.dir.display().to_string();
        let own = |p: &Seen| p.command_line.contains("fencer") && p.command_line.contains(&dir);
        process::all().into_iter().filter(own).map(|p| p.pid).collect()
    }

    /// The agent and its fencer, without PostgreSQL.
    pub fn agent_pids(&mut self) -> Vec<u32> {
        let agent = self.agent_pid();
        let fencer = self.fencer_pids().into_iter().filter(|pid| Some(*pid) != agent);
        agent.into_iter().chain(fencer).collect()
    }

    /// All processes of this node.
    pub fn processes(&self) -> BTreeSet<u32> {
        let all = process::all();
        let prefix = format!("{}/", self.place.dir.display());
        let inside = |p: &Seen| p.dir.as_ref().is_some_and(|dir| dir.starts_with(&self.place.dir));
        let own = all.iter().filter(|p| inside(p) || p.command_line.contains(&prefix)).map(|p| p.pid);
        let roots: Vec<u32> = own.chain(self.process.as_ref().map(Process::pid)).collect();
        process::with_descendants(&all, roots)
    }

    /// `host:port` of the REST API.
    pub fn rest_address(&self) -> String {
        format!("{}:{}", self.place.address, self.place.rest_port)
    }

    /// A GET of the REST API.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Result<Response> {
        Request::get(&self.rest_address(), path).send(http::LIMIT).await
    }

    /// A POST to the REST API, with credentials.
    ///
    /// # Errors
    /// When there is no answer within `limit`.
    pub async fn post(&self, path: &str, body: &Value, limit: Duration) -> Result<Response> {
        let address = self.rest_address();
        let request =
            Request { method: "POST", auth: Some(REST_AUTH), json: Some(body), ..Request::get(&address, path) };
        request.send(limit).await
    }

    /// A PATCH of the REST API, with credentials.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Response> {
        let address = self.rest_address();
        let request =
            Request { method: "PATCH", auth: Some(REST_AUTH), json: Some(body), ..Request::get(&address, path) };
        request.send(http::LIMIT).await
    }

    /// PostgreSQL over TCP, as clients reach it.
    pub fn tcp(&self) -> Target {
        Target::Tcp { host: self.place.address.clone(), port: self.place.pg_port }
    }

    /// PostgreSQL through its socket: reachable even when the node is cut off.
    pub fn socket(&self) -> Target {
        Target::socket(&self.place.dir, self.place.pg_port)
    }

    /// The last lines of the agent's and PostgreSQL's logs.
    pub fn log_tails(&self, lines: usize) -> String {
        let tail = |file: PathBuf, lines: usize| {
            let text = fs::read(&file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let all: Vec<&str> = text.lines().collect();
            let last = all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n    ");
            format!("  {}:\n    {last}\n", file.display())
        };
        tail(self.agent_log(), lines) + &tail(self.postgres_log(), lines / 3)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.crash();
    }
}
