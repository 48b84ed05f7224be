//! Real etcd servers for tests, and the operator's hand on them. `ETCD_BIN` names another etcd than the one in `PATH`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pgward_core::cluster::{LeaseId, RawKey, Revision};
use pgward_store::{EtcdOptions, EtcdStore, prefix_of};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const START_TIME: Duration = Duration::from_secs(60);

/// One or more etcd servers that form one etcd cluster. Dropping it kills them.
pub(crate) struct Etcd {
    pub(crate) members: Vec<Member>,
    /// Global options of etcdctl, such as user and certificates.
    pub(crate) ctl_args: Vec<String>,
    dir: TempDir,
}

pub(crate) struct Member {
    pub(crate) url: String,
    data: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

impl Etcd {
    /// Starts `count` servers with further arguments and waits until they answer.
    pub(crate) async fn start(count: usize, more: &[&str]) -> Result<Etcd> {
        let etcd = Etcd::start_with(count, "http", more, &[]).await?;
        Ok(etcd)
    }

    pub(crate) async fn start_with(count: usize, scheme: &str, more: &[&str], ctl_args: &[String]) -> Result<Etcd> {
        let dir = tempfile::tempdir()?;
        let ports: Vec<(u16, u16)> = (0..count).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<_>>()?;
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("e{n}=http://127.0.0.1:{peer}")).collect();
        let mut etcd = Etcd { members: Vec::new(), ctl_args: ctl_args.to_vec(), dir };
        for (n, (client, peer)) in ports.iter().enumerate() {
            let data = etcd.dir.path().join(format!("e{n}"));
            let url = format!("{scheme}://127.0.0.1:{client}");
            let peer_url = format!("http://127.0.0.1:{peer}");
            let mut args: Vec<String> = [
                ("--name", format!("e{n}")),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", url.clone()),
                ("--advertise-client-urls", url.clone()),
                ("--listen-peer-urls", peer_url.clone()),
                ("--initial-advertise-peer-urls", peer_url),
                ("--initial-cluster", peers.join(",")),
                ("--log-level", "error".to_owned()),
            ]
            .into_iter()
            .flat_map(|(option, value)| [option.to_owned(), value])
            .collect();
            args.extend(more.iter().map(|arg| (*arg).to_owned()));
            etcd.members.push(Member { url, data, args, child: None });
        }
        for n in 0..count {
            etcd.start_member(n)?;
        }
        etcd.wait_until_healthy().await?;
        Ok(etcd)
    }

    pub(crate) fn start_member(&mut self, n: usize) -> Result<()> {
        let member = &mut self.members[n];
        let child = Command::new(std::env::var("ETCD_BIN").unwrap_or_else(|_| "etcd".to_owned()))
            .args(&member.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start etcd: install it with `apt-get install etcd-server`")?;
        member.child = Some(child);
        Ok(())
    }

    /// SIGKILL.
    pub(crate) async fn kill_member(&mut self, n: usize) -> Result<()> {
        if let Some(mut child) = self.members[n].child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Deletes the data of a member that is not running.
    pub(crate) fn wipe_member(&self, n: usize) -> Result<()> {
        Ok(std::fs::remove_dir_all(&self.members[n].data)?)
    }

    pub(crate) async fn wait_until_healthy(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIME;
        loop {
            let answer = self.ctl(&["endpoint", "health"], None).await;
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error.context("etcd did not start")),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The member that leads.
    pub(crate) async fn leader(&self) -> Result<usize> {
        let status: Value = serde_json::from_str(&self.ctl(&["endpoint", "status", "-w", "json"], None).await?)?;
        for entry in status.as_array().context("a list")? {
            if entry["Status"]["leader"] == entry["Status"]["header"]["member_id"] {
                let url = entry["Endpoint"].as_str().context("an endpoint")?;
                return self.members.iter().position(|member| member.url == url).context("a member of ours");
            }
        }
        bail!("nobody leads: {status}")
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    /// Runs etcdctl against the running members and returns what it prints.
    pub(crate) async fn ctl(&self, args: &[&str], input: Option<&[u8]>) -> Result<String> {
        let running: Vec<String> =
            self.members.iter().filter(|member| member.child.is_some()).map(|member| member.url.clone()).collect();
        let mut child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(running.join(","))
            .args(&self.ctl_args)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start etcdctl: install it with `apt-get install etcd-client`")?;
        let mut stdin = child.stdin.take().context("stdin is a pipe")?;
        stdin.write_all(input.unwrap_or_default()).await?;
        drop(stdin);
        let output = timeout(Duration::from_secs(20), child.wait_with_output()).await??;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "etcdctl {args:?}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) async fn put(&self, key: &str, value: &[u8], lease: Option<LeaseId>) -> Result<()> {
        let lease = format!("--lease={:x}", lease.unwrap_or_default().0);
        if value.is_empty() {
            self.ctl(&["put", &lease, key, ""], None).await?; // From an empty pipe etcdctl would wait for more.
        } else {
            self.ctl(&["put", &lease, key], Some(value)).await?;
        }
        Ok(())
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Result<Vec<RawKey>> {
        let text = self.ctl(&["get", "--prefix", prefix, "-w", "json"], None).await?;
        let answer: Value = serde_json::from_str(&text)?;
        let bytes = |value: &Value| BASE64_STANDARD.decode(value.as_str().unwrap_or_default());
        let number = |value: &Value| value.as_i64().unwrap_or_default();
        answer["kvs"]
            .as_array()
            .unwrap_or(&Vec::new())
            .iter()
            .map(|kv| {
                let key = String::from_utf8(bytes(&kv["key"])?)?;
                Ok(RawKey {
                    suffix: key.strip_prefix(prefix).context("below the prefix")?.to_owned(),
                    value: bytes(&kv["value"])?,
                    create_revision: Revision(number(&kv["create_revision"])),
                    mod_revision: Revision(number(&kv["mod_revision"])),
                    lease: LeaseId(number(&kv["lease"])),
                })
            })
            .collect()
    }

    /// Throws the history away up to now.
    pub(crate) async fn compact(&self) -> Result<()> {
        let status: Value = serde_json::from_str(&self.ctl(&["endpoint", "status", "-w", "json"], None).await?)?;
        let revision = status[0]["Status"]["header"]["revision"].as_i64().context("a revision")?;
        self.ctl(&["compact", &revision.to_string()], None).await?;
        Ok(())
    }
}

/// A store that ends with the test.
pub(crate) struct Opened {
    pub(crate) store: EtcdStore,
    _guard: tokio_util::sync::DropGuard,
}

pub(crate) fn options(endpoints: Vec<String>, scope: &str) -> EtcdOptions {
    EtcdOptions { endpoints, discover_members: true, prefix: prefix_of("service", scope), ..EtcdOptions::default() }
}

pub(crate) fn open(options: &EtcdOptions) -> Opened {
    // What the store says is shown when the test fails.
    drop(tracing_subscriber::fmt().with_env_filter("pgward_store=debug").with_test_writer().try_init());
    let shutdown = CancellationToken::new();
    let store = EtcdStore::new(options, shutdown.clone()).expect("the options are good");
    Opened { store, _guard: shutdown.drop_guard() }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What a [`Proxy`] does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Passes everything on.
    Open,
    /// Ends all connections and refuses new ones.
    Cut,
    /// Takes everything and passes nothing on, as a network that drops packets does.
    Silent,
    /// Passes requests on and drops the answers to them, on the connections that there are; new ones are open.
    LosesAnswers,
}

/// A TCP proxy before one etcd member whose line can be broken.
pub(crate) struct Proxy {
    pub(crate) url: String,
    line: watch::Sender<Line>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn start(target: &str) -> Result<Proxy> {
        let target = Arc::new(target.strip_prefix("http://").context("plain http")?.to_owned());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (line, state) = watch::channel(Line::Open);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target.clone(), state.clone()));
            }
        });
        Ok(Proxy { url, line, task })
    }

    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn pass(client: TcpStream, target: Arc<String>, mut line: watch::Receiver<Line>) {
    let mut state = *line.borrow_and_update();
    if state == Line::Silent {
        drop(line.wait_for(|line| *line == Line::Cut).await);
        return;
    }
    let Ok(server) = TcpStream::connect(&*target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let loses_answers = AtomicBool::new(false);
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if !loses_answers.load(Ordering::Relaxed) && to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(up, down);
    while state != Line::Cut {
        tokio::select! {
            _ = &mut up, if state != Line::Silent => return,
            () = &mut down, if state != Line::Silent => return,
            changed = line.changed() => if changed.is_err() { return },
        }
        // Bytes that were lost are lost: a connection does not recover, and only new ones see an open line.
        let now = *line.borrow_and_update();
        match now {
            Line::LosesAnswers => loses_answers.store(true, Ordering::Relaxed),
            Line::Silent | Line::Cut => state = now,
            Line::Open => {}
        }
    }
}
