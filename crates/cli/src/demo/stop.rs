//! Stopping a demo in order, and letting a node crash.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::guide;
use super::layout::{Layout, Node, Part};
use super::process::{self, Found, Process};
use super::state;

/// An agent stops PostgreSQL first, which writes a checkpoint; on a slow disk that takes its time.
const AGENT_LIMIT: Duration = Duration::from_secs(60);
/// The last members of a store that loses its quorum would wait seconds to hand over a leadership that nobody can take.
/// Killing them loses nothing: what etcd has acknowledged is on disk.
const ETCD_LIMIT: Duration = Duration::from_secs(2);
/// After SIGKILL only the kernel is left to wait for.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// `pgward demo stop`.
pub(super) async fn cluster(dir: &Path) -> anyhow::Result<ExitCode> {
    let layout = Layout::existing(dir)?;
    if anything_runs(&layout) {
        everything(&layout).await?;
    } else {
        say!("nothing of the demo in {} runs", layout.dir.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// True when any process of the demo runs, an orphaned PostgreSQL included.
pub(super) fn anything_runs(layout: &Layout) -> bool {
    let etcd = layout.etcd_members().any(|member| Process::of(&layout.pid_file(&member)).is_some());
    etcd || layout
        .nodes()
        .any(|node| Process::of(&layout.pid_file(&node)).is_some() || !of_node(layout, node).is_empty())
}

/// Stops replicas, then the primary, so that nobody fails over; then what a killed agent left behind; the store last.
pub(super) async fn everything(layout: &Layout) -> anyhow::Result<()> {
    let members = state::members(layout).await;
    let is_leader = |node: &Node| state::member_of(&members, *node).is_some_and(state::Member::is_leader);
    let (leaders, replicas): (Vec<_>, Vec<_>) = layout.nodes().partition(is_leader);
    for nodes in [replicas, leaders] {
        let names: Vec<_> = nodes.iter().map(Node::to_string).collect();
        stop_named(layout, &names, AGENT_LIMIT).await;
    }
    for node in layout.nodes() {
        stop_orphans(layout, node).await?;
    }
    // One after the other: a member that leads hands over to one that is still there.
    for member in layout.etcd_members() {
        stop_named(layout, &[member.to_string()], ETCD_LIMIT).await;
    }
    say!("stopped; the data is in {}", layout.dir.display());
    Ok(())
}

/// Asks these processes to end, all at once, and kills what has not after `limit`.
async fn stop_named(layout: &Layout, names: &[String], limit: Duration) {
    let asked = Instant::now();
    let running: Vec<_> = names.iter().filter_map(|name| Some((name, Process::of(&layout.pid_file(name))?))).collect();
    for (_, process) in &running {
        process.signal(Signal::TERM);
    }
    for (name, process) in &running {
        let obeyed = process.has_ended_within(limit.saturating_sub(asked.elapsed())).await;
        if !obeyed {
            process.signal(Signal::KILL);
            process.has_ended_within(KILL_LIMIT).await;
        }
        let how = if obeyed { "stopped" } else { "killed" };
        say!("{:6.1} s  {name} {how}", asked.elapsed().as_secs_f64());
    }
}

/// Stops what is left of a node whose agent is gone: PostgreSQL by a fast shutdown, the others at once.
async fn stop_orphans(layout: &Layout, node: Node) -> anyhow::Result<()> {
    let postmaster = postmaster(layout, node);
    if let Some(process) = &postmaster {
        say!("{node} left its PostgreSQL behind (process {process}), which is stopped now");
        process.signal(Signal::INT);
        if !process.has_ended_within(AGENT_LIMIT).await {
            process.signal(Signal::QUIT);
        }
    }
    for Found { process, .. } in of_node(layout, node) {
        process.signal(Signal::KILL);
        process.has_ended_within(KILL_LIMIT).await;
    }
    Ok(())
}

/// The postmaster of a node, if its PID file names a process that works in the data directory.
fn postmaster(layout: &Layout, node: Node) -> Option<Process> {
    let text = std::fs::read_to_string(layout.data_dir(node).join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim();
    of_node(layout, node).into_iter().map(|found| found.process).find(|process| process.to_string() == pid)
}

/// Everything that runs for a node: agent, fencer, PostgreSQL and its tools.
fn of_node(layout: &Layout, node: Node) -> Vec<Found> {
    const TOOLS: [&str; 6] = ["postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind", "pg_controldata"];
    let pg_bin = &layout.settings.pg_bin;
    let mut programs: Vec<PathBuf> = TOOLS.iter().map(|tool| real(&pg_bin.join(tool))).collect();
    programs.push(layout.executable());
    process::working_on(&layout.node_dir(node), &programs).unwrap_or_default()
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// `pgward demo kill`: what a power cut does to a machine, as far as one machine can show it.
pub(super) fn crash(dir: &Path, part: Part) -> anyhow::Result<ExitCode> {
    let layout = Layout::existing(dir)?;
    let processes = match part {
        Part::Node(node) => {
            layout.require(node)?;
            of_node(&layout, node)
        }
        Part::Etcd(_) => Vec::new(),
    };
    let main = Process::of(&layout.pid_file(&part));
    if main.is_none() && processes.is_empty() {
        say!("nothing of {part} runs");
        return Ok(ExitCode::FAILURE);
    }
    for process in processes.iter().map(|found| &found.process).chain(&main) {
        process.signal(Signal::KILL);
    }
    let count = |name: &str| processes.iter().filter(|found| found.program == name).count();
    match part {
        Part::Node(_) => {
            say!("killed {part}: {} processes of pgward, {} of PostgreSQL", count("pgward"), count("postgres"))
        }
        Part::Etcd(_) => say!("killed {part}"),
    }
    let executable = guide::quote(&layout.executable().to_string_lossy());
    say!("bring it back: {executable} demo start {part} --dir {}", guide::quote(&layout.dir.to_string_lossy()));
    Ok(ExitCode::SUCCESS)
}
