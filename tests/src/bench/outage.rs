//! What clients see when etcd is gone for a minute.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::report::Report;
use crate::cluster::Cluster;
use crate::node::Agent;
use crate::verdict::{Verdict, interruption};
use crate::wait::until_true;
use crate::writers::Writers;

/// How long etcd is away: two leases.
const GONE: Duration = Duration::from_secs(60);

/// How long anything may take afterwards.
const LIMIT: Duration = Duration::from_secs(120);

/// etcd is killed and started again; returns when it answers.
async fn take_etcd_away(cluster: &mut Cluster) -> Result<()> {
    let (members, killed) = (cluster.topology.etcd_members, Instant::now());
    for member in 0..members {
        cluster.etcd.kill_member(member);
    }
    until_true(GONE * 2, async || Ok(killed.elapsed() > GONE)).await?;
    for member in 0..members {
        cluster.etcd.start_member(member)?;
    }
    until_true(LIMIT, async || Ok(cluster.etcd.healthy_members().await == members)).await.context("etcd comes back")
}

/// The primary stops when its lease is over, and one is writable again when etcd is back.
pub(super) async fn without_failsafe(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let writers = Writers::start(cluster).await?;
    take_etcd_away(cluster).await?;
    let back = Instant::now();
    writers.wait_for_writes(50, LIMIT).await?;
    cluster.all_streaming(LIMIT).await?;
    let writes = writers.stop().await;
    let verdict = Verdict::of(cluster, &writes).await?;
    eprintln!("    {verdict}");
    let first = writes.iter().filter_map(|w| w.acked).filter(|acked| *acked > back).min();
    let first = first.context("no write after etcd was back")?;
    report.add(agent, "etcd-back", (first - back).as_secs_f64());
    report.count_lost(agent, "etcd-back", verdict.lost.len());
    ensure!(verdict.doubled == 0, "{verdict}");
    Ok(())
}

/// The primary goes on, because the others agree to wait.
pub(super) async fn with_failsafe(agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let primary = cluster.primary().await?;
    let names: Vec<&str> = cluster.nodes.iter().map(|node| node.name()).collect();
    let is_written = async || {
        let map = cluster.etcd.get(&cluster.key("failsafe")).await?.unwrap_or_default();
        Ok(names.iter().all(|name| map.contains(name)))
    };
    until_true(LIMIT, is_written).await.context("the failsafe map is not written")?;
    let writers = Writers::start(cluster).await?;
    let began = Instant::now();
    take_etcd_away(cluster).await?;
    writers.wait_for_writes(50, LIMIT).await?;
    ensure!(cluster.all_streaming(LIMIT).await? == primary, "the primary changed");
    let writes = writers.stop().await;
    let verdict = Verdict::of(cluster, &writes).await?;
    eprintln!("    {verdict}");
    report.add(agent, "etcd-failsafe", interruption(&writes, began).as_secs_f64());
    report.count_lost(agent, "etcd-failsafe", verdict.lost.len());
    ensure!(verdict.doubled == 0, "{verdict}");
    Ok(())
}
