//! Failsafe mode: etcd is gone, and a primary that all other members agree to wait for goes on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{BOOTSTRAP_LIMIT, Cluster, Outcome, Topology, with, with_running};
use pgward_tests::direct::DirectWriters;
use pgward_tests::node::Agent;
use pgward_tests::verdict::{DirectVerdict, interruption};
use pgward_tests::wait::{until, until_true};
use pgward_tests::writers::Writers;
use serde_json::json;

use crate::support::{TTL, WHOLE, agent, is_pgward, nothing_lost, three};

fn with_failsafe(topology: Topology) -> Topology {
    topology.dynamic("failsafe_mode", json!(true))
}

/// FS-1: everybody is in the map.
async fn map_is_complete(cluster: &Cluster) -> Result<()> {
    let names: Vec<&str> = cluster.nodes.iter().map(|node| node.name()).collect();
    let complete = async || {
        let map = cluster.etcd.get(&cluster.key("failsafe")).await?.unwrap_or_default();
        ensure!(names.iter().all(|name| map.contains(name)), "failsafe is {map}");
        Ok(true)
    };
    until_true(WHOLE, complete).await
}

fn stop_etcd(cluster: &mut Cluster) {
    for member in 0..cluster.topology.etcd_members {
        cluster.etcd.kill_member(member);
    }
}

fn start_etcd(cluster: &mut Cluster) -> Result<()> {
    (0..cluster.topology.etcd_members).try_for_each(|member| cluster.etcd.start_member(member))
}

/// The status of a node says that failsafe mode is in force.
async fn is_active(cluster: &Cluster, node: usize) -> Result<bool> {
    Ok(cluster.nodes[node].get("/patroni").await?.json()?["failsafe_mode_is_active"] == true)
}

/// Takes etcd away for `time`, with writers at work; returns the longest time without an acknowledged write.
async fn outlives_etcd(cluster: &mut Cluster, time: Duration) -> Result<Duration> {
    let primary = cluster.at_rest(WHOLE).await?;
    map_is_complete(cluster).await?;
    let timeline = cluster.nodes[primary].socket().query("SELECT timeline_id FROM pg_control_checkpoint()").await?;
    let writers = Writers::start(cluster).await?;
    let lost = Instant::now();
    stop_etcd(cluster);
    let active = async || is_active(cluster, primary).await;
    until_true(TTL, active).await.context("the primary does not say that it lives on consent")?;
    let others: Vec<usize> = (0..cluster.nodes.len()).filter(|node| *node != primary).collect();
    // An agent that is away for a moment comes back with its promise.
    let restarted = others[0];
    if cluster.topology.agents[restarted] == Agent::Pgward {
        cluster.nodes[restarted].kill_agent();
        cluster.nodes[restarted].start()?;
    }
    until_true(time + TTL, async || Ok(lost.elapsed() > time)).await?;
    ensure!(is_active(cluster, primary).await?, "the primary does not live on consent any more");
    let leader = cluster.nodes[primary].get("/primary").await?;
    ensure!(leader.status == 200, "/primary answers {}", leader.status);
    writers.wait_for_writes(50, TTL).await.context("writes have stopped")?;
    start_etcd(cluster)?;
    ensure!(cluster.at_rest(WHOLE).await? == primary, "the primary changed");
    until_true(TTL * 2, async || Ok(!is_active(cluster, primary).await?)).await.context("failsafe mode goes on")?;
    let longest = interruption(&writers.writes(), lost);
    println!("etcd was gone for {:?}: longest interruption {longest:?}", lost.elapsed());
    nothing_lost(cluster, writers).await?;
    let after = cluster.nodes[primary].socket().query("SELECT timeline_id FROM pg_control_checkpoint()").await?;
    ensure!(after == timeline, "the timeline went from {timeline:?} to {after:?}");
    Ok(longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_writes_go_on_while_everybody_agrees_and_end_in_time_when_one_is_gone() -> Outcome {
    with_running(with_failsafe(three().etcd(3)), async |cluster| {
        let longest = outlives_etcd(cluster, TTL + Duration::from_secs(10)).await?;
        ensure!(longest < Duration::from_secs(1), "writes were interrupted for {longest:?}");
        if !is_pgward() {
            return Ok(());
        }

        let primary = cluster.at_rest(WHOLE).await?;
        let direct = DirectWriters::start(cluster).await?;
        stop_etcd(cluster);
        until_true(TTL, async || is_active(cluster, primary).await).await.context("no consent")?;
        let gone = (primary + 1) % 3;
        let crashed = Instant::now();
        cluster.nodes[gone].crash();
        let silent = async || {
            let last = direct.last_commit_on(primary).context("no commits")?;
            Ok((last.elapsed() > Duration::from_secs(3)).then_some(last))
        };
        let last = until(TTL + Duration::from_secs(10), silent).await.context("the primary goes on")?;
        println!("last commit {:?} after one of the others was gone", last - crashed);
        ensure!(last - crashed < TTL, "the primary accepted a commit {:?} after it", last - crashed);
        start_etcd(cluster)?;
        cluster.nodes[gone].start()?;
        cluster.at_rest(WHOLE).await?;
        let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
        println!("{verdict}");
        verdict.is_exclusive()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_of_pgward_lives_on_the_consent_of_patroni() -> Outcome {
    shared(Agent::Pgward, Agent::Patroni).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_of_patroni_lives_on_the_consent_of_pgward() -> Outcome {
    shared(Agent::Patroni, Agent::Pgward).await
}

async fn shared(first: Agent, second: Agent) -> Outcome {
    let topology = Topology { agents: vec![first, second], ..Topology::of(first, 2) };
    with(with_failsafe(topology), async |cluster| {
        cluster.nodes[0].start()?;
        cluster.these_streaming(&[0], BOOTSTRAP_LIMIT).await.context("the first node")?;
        cluster.nodes[1].start()?;
        ensure!(cluster.at_rest(WHOLE).await.context("the second node joins")? == 0, "the first node leads");
        let longest = outlives_etcd(cluster, TTL + Duration::from_secs(10)).await?;
        ensure!(longest < Duration::from_secs(2), "writes were interrupted for {longest:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes eleven minutes: make soak"]
async fn ten_minutes_without_etcd_interrupt_no_write() -> Outcome {
    with_running(with_failsafe(Topology::of(agent(), 3).default_timing().etcd(3)), async |cluster| {
        let longest = outlives_etcd(cluster, Duration::from_secs(600)).await?;
        ensure!(longest < Duration::from_secs(1), "writes were interrupted for {longest:?}");
        Ok(())
    })
    .await
}
