//! Starting a demo, and staying with it until it is asked to end.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use pgward_core::time::rounded;

use anyhow::{Context, bail};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::layout::{EtcdMember, Layout, Node, Part};
use super::preflight::{self, Plan};
use super::process::{self, Process};
use super::signals::Signals;
use super::state::{self, Member};
use super::{Args, configuration, guide, http, stop};

/// Electing among three local processes takes a second or two; the rest is for a machine that is busy.
const ETCD_LIMIT: Duration = Duration::from_secs(30);
/// Initialising and cloning take a few seconds; a restart after a crash may have WAL to replay.
const NODES_LIMIT: Duration = Duration::from_secs(120);
/// How often a condition that only polling can tell is looked at.
const POLL: Duration = Duration::from_millis(50);

/// `pgward demo`.
pub(super) async fn cluster(args: &Args, dir: &Path) -> anyhow::Result<ExitCode> {
    let mut plan = preflight::check(args, dir)?;
    configuration::write(&plan.layout)?;
    // Now the directory exists for certain, and the processes in it will be known by its real path.
    plan.layout.dir = plan.layout.dir.canonicalize()?;
    let starting = lock(&plan.layout)?;
    let Layout { dir, settings } = &plan.layout;
    say!(
        "starting {} nodes with PostgreSQL {} and three etcd members {} in {}",
        settings.nodes,
        plan.postgres_version,
        plan.etcd_version,
        dir.display()
    );

    let mut signals = Signals::new()?;
    let mut children = Children::default();
    let outcome = tokio::select! {
        outcome = bring_up(&plan, &mut children) => outcome,
        () = signals.asked_to_end() => Err(anyhow::anyhow!("interrupted while starting")),
    };
    let members = match outcome {
        Ok(members) => members,
        Err(error) => {
            say!("stopping what was started");
            stop::everything(&plan.layout).await?;
            return Err(error);
        }
    };
    drop(starting);
    say!("{}", guide::text(&plan, &members, args.detach));
    if !args.detach {
        stay(&plan.layout, children, &mut signals).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps a second `pgward demo` out of the directory while the first one is still starting.
fn lock(layout: &Layout) -> anyhow::Result<File> {
    let path = layout.run_dir().join("starting");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another `pgward demo` is starting in {}", layout.dir.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The processes that this command started, as names with their ends to come.
#[derive(Default)]
struct Children(JoinSet<(String, std::io::Result<ExitStatus>)>);

impl Children {
    fn add(&mut self, name: &impl ToString, mut child: Child) {
        let name = name.to_string();
        self.0.spawn(async move {
            let status = child.wait().await;
            (name, status)
        });
    }

    /// The next one that ends; never returns when there is none.
    async fn next_end(&mut self) -> (String, String) {
        match self.0.join_next().await {
            Some(Ok((name, Ok(status)))) => (name, status.to_string()),
            Some(Ok((name, Err(error)))) => (name, error.to_string()),
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}

/// Starts everything and waits until all nodes do what their role asks.
async fn bring_up(plan: &Plan, children: &mut Children) -> anyhow::Result<Vec<Member>> {
    let layout = &plan.layout;
    let started = Instant::now();
    for member in layout.etcd_members() {
        children.add(&member, start_etcd(layout, member)?);
        // One after the other: a new member first asks the others whether the store exists, and one that listens but
        // does not answer yet costs it two seconds.
        let it_answers_peers = async || http::get(layout.etcd_peer_address(member), "/version").await.ok();
        until(children, layout, ETCD_LIMIT, "an etcd member does not answer", it_answers_peers).await?;
    }
    until(children, layout, ETCD_LIMIT, "etcd has not elected a leader", || etcd_is_healthy(layout)).await?;
    say!("{:6.1} s  etcd answers", started.elapsed().as_secs_f64());
    for node in layout.nodes() {
        children.add(&node, start_agent(layout, node)?);
    }
    let mut progress = Progress { started, last: BTreeMap::new() };
    let everything_runs = async || {
        let members = state::members(layout).await;
        progress.show(&members);
        let is_complete = state::is_complete(layout, &members) && state::answer(layout, layout.nodes()).await;
        is_complete.then_some(members)
    };
    let members = until(children, layout, NODES_LIMIT, "the nodes are not all well", everything_runs).await?;
    say!("{:6.1} s  all {} nodes are up", started.elapsed().as_secs_f64(), layout.settings.nodes);
    Ok(members)
}

/// Polls until there is an answer; fails when time runs out or a child ends.
async fn until<T>(
    children: &mut Children,
    layout: &Layout,
    limit: Duration,
    complaint: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let poll = async {
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Some(answer) = look().await {
                return answer;
            }
        }
    };
    tokio::select! {
        answer = timeout(limit, poll) => answer.with_context(|| {
            format!("{complaint} after {}; the logs are in {}", rounded(limit), layout.log_dir().display())
        }),
        (name, how) = children.next_end() => {
            bail!("{name} ended ({how}); the end of {}:\n{}", layout.log_file(&name).display(), tail(&layout.log_file(&name)))
        }
    }
}

/// A member is healthy when it has a leader and can write through it, so one member's word is enough.
async fn etcd_is_healthy(layout: &Layout) -> Option<()> {
    for member in layout.etcd_members() {
        if is_healthy(layout, member).await {
            return Some(());
        }
    }
    None
}

async fn is_healthy(layout: &Layout, member: EtcdMember) -> bool {
    http::get(layout.etcd_client_address(member), "/health").await.is_ok_and(|body| body.contains("\"true\""))
}

/// Says each change of a member once.
struct Progress {
    started: Instant,
    last: BTreeMap<String, Member>,
}

impl Progress {
    fn show(&mut self, members: &[Member]) {
        for member in members {
            if self.last.get(&member.name) != Some(member) {
                let Member { name, role, state } = member;
                say!("{:6.1} s  {name}: {role}, {state}", self.started.elapsed().as_secs_f64());
                self.last.insert(name.clone(), member.clone());
            }
        }
    }
}

fn start_etcd(layout: &Layout, member: EtcdMember) -> anyhow::Result<Child> {
    let url = |address| format!("http://{address}");
    let (client, peer) = (url(layout.etcd_client_address(member)), url(layout.etcd_peer_address(member)));
    let cluster: Vec<_> = layout.etcd_members().map(|m| format!("{m}={}", url(layout.etcd_peer_address(m)))).collect();
    let mut command = Command::new("etcd");
    command.current_dir(&layout.dir).arg("--data-dir").arg(layout.etcd_dir(member));
    for (option, value) in [
        ("--name", member.to_string().as_str()),
        ("--listen-client-urls", &client),
        ("--advertise-client-urls", &client),
        ("--listen-peer-urls", &peer),
        ("--initial-advertise-peer-urls", &peer),
        ("--initial-cluster", &cluster.join(",")),
        ("--initial-cluster-token", "pgward-demo"),
        ("--logger", "zap"),
        ("--log-level", "warn"),
        // The demo writes a little all day long; without this the store would only grow.
        ("--auto-compaction-mode", "periodic"),
        ("--auto-compaction-retention", "10m"),
    ] {
        command.args([option, value]);
    }
    process::start(command, &layout.pid_file(&member), &layout.log_file(&member))
}

fn start_agent(layout: &Layout, node: Node) -> anyhow::Result<Child> {
    let mut command = Command::new(layout.executable());
    command
        .current_dir(layout.node_dir(node))
        .env("HOME", layout.node_dir(node))
        .arg("agent")
        .arg(layout.node_file(node));
    process::start(command, &layout.pid_file(&node), &layout.log_file(&node))
}

/// `pgward demo start`: what was killed before.
pub(super) async fn part(dir: &Path, part: Part) -> anyhow::Result<ExitCode> {
    let layout = Layout::existing(dir)?;
    if let Part::Node(node) = part {
        layout.require(node)?;
    }
    let _starting = lock(&layout)?;
    if let Some(process) = Process::of(&layout.pid_file(&part)) {
        bail!("{part} runs already (process {process})");
    }
    if !stop::anything_runs(&layout) {
        let dir = guide::quote(&layout.dir.to_string_lossy());
        bail!("the demo in {} is stopped: start it as a whole with `pgward demo --dir {dir}`", layout.dir.display());
    }
    let started = Instant::now();
    let mut children = Children::default();
    match part {
        Part::Node(node) => {
            children.add(&node, start_agent(&layout, node)?);
            let mut progress = Progress { started, last: BTreeMap::new() };
            let it_is_well = async || {
                let members = state::members(&layout).await;
                let member = state::member_of(&members, node)?;
                progress.show(std::slice::from_ref(member));
                (member.is_well() && state::answer(&layout, [node]).await).then_some(())
            };
            until(&mut children, &layout, NODES_LIMIT, "the node is not well", it_is_well).await?;
        }
        Part::Etcd(member) => {
            children.add(&member, start_etcd(&layout, member)?);
            let it_is_well = async || is_healthy(&layout, member).await.then_some(());
            until(&mut children, &layout, ETCD_LIMIT, "the etcd member is not well", it_is_well).await?;
            say!("{:6.1} s  {member} answers", started.elapsed().as_secs_f64());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Stays until a signal, then stops everything; returns too when everything was stopped from elsewhere.
async fn stay(layout: &Layout, mut children: Children, signals: &mut Signals) -> anyhow::Result<()> {
    // Nodes that were started again from elsewhere are not our children, so their end has to be looked for.
    let mut look = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = signals.asked_to_end() => {
                say!("\nstopping");
                return stop::everything(layout).await;
            }
            (name, how) = children.next_end() => say!("{name} ended: {how}"),
            _ = look.tick() => if !stop::anything_runs(layout) {
                say!("everything was stopped");
                return Ok(());
            }
        }
    }
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    const BYTES: u64 = 4096;
    const LINES: usize = 12;
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("  {line}\n")).collect()
}
