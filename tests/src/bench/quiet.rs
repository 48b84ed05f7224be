//! What a healthy cluster costs: memory, processor time, latency.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::report::Report;
use crate::cluster::Cluster;
use crate::http::{LIMIT, Request};
use crate::node::Agent;
use crate::process::{cpu_time, resident_bytes};

/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_secs(60);
/// Requests for the latency of the REST API, after a tenth of that to warm up.
const REQUESTS: usize = 1000;
/// Runs of the command line tool.
const LISTS: usize = 10;

/// Resident memory of agent and fencer, and their processor time in a minute.
pub(super) async fn idle(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let primary = cluster.primary().await?;
    let pids = cluster.nodes[primary].agent_pids();
    ensure!(!pids.is_empty(), "the agent does not run");
    let cpu = || pids.iter().filter_map(|pid| cpu_time(*pid)).sum::<Duration>();
    let (before, started) = (cpu(), Instant::now());
    tokio::time::sleep(IDLE).await;
    let (used, minutes) = (cpu() - before, started.elapsed().as_secs_f64() / 60.0);
    report.add(agent, "cpu", used.as_secs_f64() / minutes);
    let resident: u64 = pids.iter().filter_map(|pid| resident_bytes(*pid)).sum();
    report.add(agent, "rss", resident as f64 / f64::from(1 << 20));
    Ok(())
}

/// Latency of `GET /primary` on a new connection, as load balancers ask.
pub(super) async fn http(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let primary = cluster.primary().await?;
    let address = cluster.nodes[primary].rest_address();
    let mut milliseconds = Vec::with_capacity(REQUESTS);
    for request in 0..REQUESTS + REQUESTS / 10 {
        let started = Instant::now();
        let answer = Request::get(&address, "/primary").send(LIMIT).await?;
        ensure!(answer.status == 200, "GET /primary answered {}", answer.status);
        if request >= REQUESTS / 10 {
            milliseconds.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    milliseconds.sort_by(f64::total_cmp);
    let at = |share: usize| milliseconds.get(milliseconds.len() * share / 100).copied().context("no request was made");
    report.add(agent, "get-p50", at(50)?);
    report.add(agent, "get-p99", at(99)?);
    Ok(())
}

/// Wall time of `ctl list`.
pub(super) async fn list(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let command = cluster.ctl_command(agent, &["list"])?;
    let mut times = Vec::with_capacity(LISTS);
    for _ in 0..LISTS {
        let started = Instant::now();
        let finished = command.run(Duration::from_secs(20)).await?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        ensure!(finished.status.success(), "list: {}", finished.text());
    }
    times.sort_by(f64::total_cmp);
    report.add(agent, "list", times.get(LISTS / 2).copied().unwrap_or_default());
    Ok(())
}
