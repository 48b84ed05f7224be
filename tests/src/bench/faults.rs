//! What clients see when something is moved, killed, frozen or cut off.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::report::Report;
use crate::cluster::{BOOTSTRAP_LIMIT, Cluster, Topology};
use crate::direct::DirectWriters;
use crate::http::Request;
use crate::node::{Agent, Node};
use crate::verdict::{DirectVerdict, Verdict, interruption};
use crate::wait::until;
use crate::writers::{Write, Writers};

/// The longest time anything here may take: a lease of 30 s, an election, a rewind, a new base backup.
const LIMIT: Duration = Duration::from_secs(120);
/// How long things are watched once they seem to be settled: more than one `loop_wait` of 10 s.
const WATCHED: Duration = Duration::from_secs(12);

/// A switchover asked of the primary's agent.
pub(super) async fn switchover(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let old = cluster.primary().await?;
    let new = (old + 1) % cluster.nodes.len();
    let writers = Writers::start(cluster).await?;
    let asked = Instant::now();
    cluster.switchover(old, new).await?;
    writers.wait_for_writes(50, LIMIT).await?;
    cluster.these_streaming(&[old, new], LIMIT).await?;
    report.add(agent, "rejoin", asked.elapsed().as_secs_f64());
    finish(agent, cluster, writers, report, "switchover", asked).await.map(drop)
}

/// The agent of the primary is killed and started again at once.
pub(super) async fn agent_killed(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let primary = cluster.primary().await?;
    let writers = Writers::start(cluster).await?;
    let killed = Instant::now();
    cluster.nodes[primary].kill_agent();
    let started = Instant::now();
    cluster.nodes[primary].start()?;
    let address = cluster.nodes[primary].rest_address();
    loop {
        if Request::get(&address, "/liveness").send(Duration::from_secs(1)).await.is_ok() {
            break;
        }
        anyhow::ensure!(started.elapsed() < LIMIT, "the restarted agent does not answer");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    report.add(agent, "agent-start", started.elapsed().as_secs_f64());
    cluster.at_rest(LIMIT).await?;
    tokio::time::sleep(WATCHED).await;
    finish(agent, cluster, writers, report, "agent", killed).await.map(drop)
}

/// PostgreSQL's main process is killed while the agent lives.
pub(super) async fn postmaster_killed(
    agent: Agent,
    cluster: &mut Cluster,
    row: &'static str,
    report: &mut Report,
) -> Result<()> {
    let primary = cluster.primary().await?;
    let writers = Writers::start(cluster).await?;
    let killed = Instant::now();
    cluster.nodes[primary].kill_postmaster()?;
    writers.wait_for_writes(50, LIMIT).await?;
    cluster.all_streaming(LIMIT).await?;
    finish(agent, cluster, writers, report, row, killed).await.map(drop)
}

/// Agent, fencer and PostgreSQL of the primary are killed at one instant.
pub(super) async fn crash(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let old = cluster.primary().await?;
    let log = cluster.etcd.watch(&cluster.key("leader")).await?;
    let writers = Writers::start(cluster).await?;
    let killed = Instant::now();
    cluster.nodes[old].crash();
    writers.wait_for_writes(50, LIMIT).await?;
    let new = cluster.new_primary(old, LIMIT).await?;
    let gone = log.gone_after(killed).context("the leader key was never gone")?;
    let writes = finish(agent, cluster, writers, report, "crash", killed).await?;
    let first = writes.iter().filter_map(|w| w.acked).filter(|acked| *acked > gone.at).min();
    let first = first.context("no write after the leader key was gone")?;
    report.add(agent, "crash-after-lease", (first - gone.at).as_secs_f64());
    let asked = promoted_at(&cluster.nodes[new], gone.epoch_seconds - 1.0)?;
    report.add(agent, "promote", (asked - gone.epoch_seconds) * 1000.0);
    cluster.nodes[old].start()?;
    cluster.all_streaming(LIMIT).await.map(drop)
}

/// The agent of the primary is frozen, and thawed ten seconds after another node took over.
pub(super) async fn freeze(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let old = cluster.primary().await?;
    let direct = DirectWriters::start(cluster).await?;
    cluster.nodes[old].signal_agent(Signal::STOP);
    let taken_over = cluster.new_primary(old, LIMIT).await;
    if taken_over.is_ok() {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    cluster.nodes[old].signal_agent(Signal::CONT);
    taken_over?;
    cluster.all_streaming(LIMIT).await?;
    let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
    report.add(agent, "freeze-overlap", verdict.overlap_time().as_secs_f64());
    report.add(agent, "freeze-lost", verdict.lost as f64);
    Ok(())
}

/// The host of the primary, with the etcd member on it, is cut off from everything.
pub(super) async fn partition(agent: Agent, report: &mut Report) -> Result<()> {
    eprintln!("  {agent}: Partition");
    let topology = Topology::of(agent, 3).default_timing().in_namespaces();
    let mut cluster = Cluster::prepare(topology).await?;
    cluster.start_all()?;
    let outcome = cut_off(agent, &mut cluster, report).await;
    if outcome.is_err() {
        eprintln!("{}", cluster.dump().await);
    }
    outcome
}

async fn cut_off(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    cluster.all_streaming(BOOTSTRAP_LIMIT).await?;
    let old = cluster.at_rest(BOOTSTRAP_LIMIT).await?;
    cluster.etcd.move_leader_away_from(old).await?;
    let direct = DirectWriters::start(cluster).await?;
    let cut = Instant::now();
    cluster.network.cut(old)?;
    let new = cluster.new_primary(old, LIMIT).await?;
    let first =
        until(LIMIT, async || Ok(direct.first_commit_on(new, cut))).await.context("no write on the new side")?;
    tokio::time::sleep(WATCHED).await;
    let last = direct.last_commit_on(old).context("no write on the old side")?;
    cluster.network.heal(old)?;
    cluster.all_streaming(LIMIT).await?;
    let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
    report.add(agent, "partition", last.saturating_duration_since(cut).as_secs_f64());
    report.add(agent, "partition-new", first.saturating_duration_since(cut).as_secs_f64());
    report.add(agent, "partition-overlap", verdict.overlap_time().as_secs_f64());
    Ok(())
}

/// Stops the writers, counts, and reports the longest interruption since `since`.
async fn finish(
    agent: Agent,
    cluster: &Cluster,
    writers: Writers,
    report: &mut Report,
    row: &'static str,
    since: Instant,
) -> Result<Vec<Write>> {
    let writes = writers.stop().await;
    let verdict = Verdict::of(cluster, &writes).await?;
    eprintln!("    {verdict}");
    report.add(agent, row, interruption(&writes, since).as_secs_f64());
    anyhow::ensure!(verdict.doubled == 0, "{verdict}");
    report.count_lost(agent, row, verdict.lost.len());
    Ok(writes)
}

/// When PostgreSQL was asked to promote, by its own log, in seconds since 1970; the first time after `since`.
fn promoted_at(node: &Node, since: f64) -> Result<f64> {
    let text = fs::read_to_string(node.postgres_log()).context("cannot read PostgreSQL's log")?;
    let lines = text.lines().filter(|line| line.contains("received promote request"));
    let mut times = lines.filter_map(|line| line.split(' ').next()?.parse::<f64>().ok());
    times.find(|time| *time >= since).context("PostgreSQL's log has no promote request")
}
