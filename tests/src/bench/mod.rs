//! The benchmark: the same topology, YAML and clients for Patroni and for pgward, in one run on one machine.

pub mod faults;
pub mod outage;
pub mod quiet;
pub mod report;

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cluster::{BOOTSTRAP_LIMIT, Cluster, Topology};
use crate::node::Agent;
use report::Report;

/// One thing that is done to a cluster; each yields one or more rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// First start until three members stream. Always done, as everything else needs the cluster.
    Fresh,
    /// Memory and processor time of an idle primary's agent.
    Idle,
    /// Latency of `GET /primary`.
    Http,
    /// Wall time of `ctl list`.
    List,
    /// Planned change of the primary.
    Switchover,
    /// Agent killed and started again.
    Agent,
    /// PostgreSQL's main process killed, agent alive.
    Postmaster,
    /// The same with `primary_start_timeout: 0`.
    Failover,
    /// Agent and PostgreSQL killed together.
    Crash,
    /// Agent of the primary frozen.
    Freeze,
    /// etcd gone for a minute.
    Outage,
    /// The same in failsafe mode.
    Failsafe,
    /// Primary cut off from everything, in network namespaces.
    Partition,
}

/// All scenarios, in the order in which they are done.
pub const SCENARIOS: [Scenario; 13] = {
    use Scenario::{
        Agent, Crash, Failover, Failsafe, Freeze, Fresh, Http, Idle, List, Outage, Partition, Postmaster, Switchover,
    };
    [Fresh, Idle, Http, List, Switchover, Agent, Postmaster, Failover, Crash, Freeze, Outage, Failsafe, Partition]
};

/// Does the scenarios once for one agent. What fails is noted in the report; the rest goes on with a new cluster.
pub async fn run_once(agent: Agent, scenarios: &[Scenario], report: &mut Report) {
    let mut left: Vec<Scenario> = SCENARIOS.into_iter().filter(|s| scenarios.contains(s)).collect();
    left.retain(|s| *s != Scenario::Partition);
    let mut attempt = 0;
    while !left.is_empty() && attempt < 3 {
        attempt += 1;
        if let Err(error) = on_one_cluster(agent, &mut left, report).await {
            report.failed(agent, &format!("{error:#}"));
        }
    }
    if scenarios.contains(&Scenario::Partition)
        && let Err(error) = faults::partition(agent, report).await
    {
        report.failed(agent, &format!("partition: {error:#}"));
    }
}

/// Takes scenarios from `left` as long as the cluster lasts.
async fn on_one_cluster(agent: Agent, left: &mut Vec<Scenario>, report: &mut Report) -> Result<()> {
    let mut cluster = Cluster::prepare(topology(agent)).await?;
    let started = Instant::now();
    cluster.start_all()?;
    if let Err(error) = cluster.all_streaming(BOOTSTRAP_LIMIT).await {
        left.retain(|s| *s != Scenario::Fresh);
        eprintln!("{}", cluster.dump().await);
        return Err(error.context("fresh cluster"));
    }
    if left.contains(&Scenario::Fresh) {
        report.add(agent, "fresh", started.elapsed().as_secs_f64());
        left.retain(|s| *s != Scenario::Fresh);
    }
    while !left.is_empty() {
        let scenario = left.remove(0);
        cluster.at_rest(BOOTSTRAP_LIMIT * 2).await.with_context(|| format!("before {scenario:?}"))?;
        eprintln!("  {agent}: {scenario:?}");
        if let Err(error) = one(scenario, agent, &mut cluster, report).await {
            eprintln!("{}", cluster.dump().await);
            return Err(error.context(format!("{scenario:?}")));
        }
    }
    Ok(())
}

async fn one(scenario: Scenario, agent: Agent, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    match scenario {
        Scenario::Fresh | Scenario::Partition => Ok(()),
        Scenario::Idle => quiet::idle(agent, cluster, report).await,
        Scenario::Http => quiet::http(agent, cluster, report).await,
        Scenario::List => quiet::list(agent, cluster, report).await,
        Scenario::Switchover => faults::switchover(agent, cluster, report).await,
        Scenario::Agent => faults::agent_killed(agent, cluster, report).await,
        Scenario::Postmaster => faults::postmaster_killed(agent, cluster, "postmaster", report).await,
        Scenario::Failover => {
            cluster.set_dynamic(&[("primary_start_timeout", json!(0))]).await?;
            faults::postmaster_killed(agent, cluster, "failover", report).await?;
            cluster.set_dynamic(&[("primary_start_timeout", json!(300))]).await
        }
        Scenario::Crash => faults::crash(agent, cluster, report).await,
        Scenario::Freeze => faults::freeze(agent, cluster, report).await,
        Scenario::Outage => outage::without_failsafe(agent, cluster, report).await,
        Scenario::Failsafe => {
            cluster.set_dynamic(&[("failsafe_mode", json!(true))]).await?;
            outage::with_failsafe(agent, cluster, report).await?;
            cluster.set_dynamic(&[("failsafe_mode", json!(false))]).await
        }
    }
}

fn topology(agent: Agent) -> Topology {
    Topology::of(agent, 3).default_timing()
}
