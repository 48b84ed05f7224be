//! Synchronous replication (INV-S4, INV-S16): no acknowledged write is lost, and a dead standby does not block writes for long.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{BOOTSTRAP_LIMIT, Cluster, Outcome, Topology, with, with_running};
use pgward_tests::node::Agent;
use pgward_tests::verdict::{Verdict, interruption};
use pgward_tests::wait::until_true;
use pgward_tests::writers::Writers;
use serde_json::{Value, json};

use crate::support::{TTL, WHOLE, is_pgward, nothing_lost, three};

/// Rounds of one test; `PGWARD_SYNC_ROUNDS` for more.
fn rounds(few: usize) -> usize {
    let asked = std::env::var("PGWARD_SYNC_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    asked.unwrap_or(if std::env::var_os("PGWARD_SOAK").is_some() { 100 } else { few })
}

fn synchronous(mode: &Value, strict: bool) -> Topology {
    three().dynamic("synchronous_mode", mode.clone()).dynamic("synchronous_mode_strict", json!(strict))
}

/// The key `/sync`.
async fn sync_key(cluster: &Cluster) -> Result<Value> {
    let text = cluster.etcd.get(&cluster.key("sync")).await?.unwrap_or_else(|| "{}".to_owned());
    Ok(serde_json::from_str(&text)?)
}

fn voters(sync: &Value) -> Vec<String> {
    let listed = sync["sync_standby"].as_str().unwrap_or_default();
    listed.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Waits until `primary` leads `/sync` with so many voters, and says who they are.
async fn in_sync(cluster: &Cluster, primary: usize, count: usize) -> Result<Vec<String>> {
    let name = cluster.nodes[primary].name();
    let settled = async || {
        let sync = sync_key(cluster).await?;
        ensure!(sync["leader"] == name && voters(&sync).len() == count, "/sync is {sync}");
        Ok(true)
    };
    until_true(WHOLE, settled).await?;
    Ok(voters(&sync_key(cluster).await?))
}

/// Kills the primary's node, or moves the primary, again and again under load.
async fn nothing_is_lost(mode: Value, strict: bool, crashes: bool) -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    let count = if mode == json!("quorum") { 2 } else { 1 };
    with_running(synchronous(&mode, strict), async |cluster| {
        let (mut acked, mut gaps) = (0, Vec::new());
        let rounds = rounds(2);
        for round in 0..rounds {
            let old = cluster.at_rest(WHOLE * 2).await.with_context(|| format!("before round {round}"))?;
            let standbys = in_sync(cluster, old, count).await.with_context(|| format!("before round {round}"))?;
            let writers = Writers::start(cluster).await?;
            writers.wait_for_writes(100, WHOLE).await?;
            let began = Instant::now();
            let new = if crashes {
                cluster.nodes[old].crash();
                cluster.new_primary(old, TTL + Duration::from_secs(30)).await?
            } else {
                let to = cluster.index_of(&standbys[0])?;
                cluster.switchover(old, to).await?;
                to
            };
            let is_voter = standbys.iter().any(|name| name == cluster.nodes[new].name());
            ensure!(is_voter, "round {round}: {} won, of {standbys:?}", cluster.nodes[new].name());
            writers.wait_for_writes(50, WHOLE).await.with_context(|| format!("round {round}"))?;
            let gap = interruption(&writers.writes(), began);
            if crashes {
                cluster.nodes[old].start()?;
            }
            let now = cluster.all_streaming(WHOLE).await?;
            ensure!(now == new, "round {round}: the primary moved on to {}", cluster.nodes[now].name());
            let writes = writers.stop().await;
            let verdict = Verdict::of(cluster, &writes).await?;
            verdict.is_clean().with_context(|| format!("round {round}"))?;
            println!("round {round}: {verdict}; interrupted for {gap:?}");
            acked += verdict.acked;
            gaps.push(gap);
        }
        gaps.sort();
        let longest = gaps.last().copied().unwrap_or_default();
        println!(
            "{mode} strict={strict} crashes={crashes}: {rounds} rounds, {acked} writes acknowledged, 0 lost, 0 doubled; \
             interrupted for {:?} (median), {longest:?} (longest)",
            gaps[gaps.len() / 2]
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_a_synchronous_standby_when_the_primarys_node_dies() -> Outcome {
    nothing_is_lost(json!(true), false, true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_strict_mode_when_the_primarys_node_dies() -> Outcome {
    nothing_is_lost(json!(true), true, true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_a_quorum_when_the_primarys_node_dies() -> Outcome {
    nothing_is_lost(json!("quorum"), false, true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_a_synchronous_standby_by_a_switchover() -> Outcome {
    nothing_is_lost(json!(true), false, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_strict_mode_by_a_switchover() -> Outcome {
    nothing_is_lost(json!(true), true, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_a_quorum_by_a_switchover() -> Outcome {
    nothing_is_lost(json!("quorum"), false, false).await
}

/// SON-6, SON-7, SYN-7: a running cluster becomes synchronous, loses its standby, blocks when it is strict, and becomes
/// asynchronous again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_cluster_becomes_synchronous_and_a_dead_standby_is_replaced() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let writers = Writers::start(cluster).await?;
        let asked = Instant::now();
        cluster.set_dynamic(&[("synchronous_mode", json!(true))]).await?;
        let first = in_sync(cluster, primary, 1).await?;
        println!("synchronous {:?} after it was asked for", asked.elapsed());
        roles_are_told(cluster, primary, &first[0], "sync_standby", "/sync").await?;

        // The better one of two dies: commits wait for the other one.
        let dead = cluster.index_of(&first[0])?;
        let died = Instant::now();
        cluster.nodes[dead].crash();
        until_true(WHOLE, async || Ok(in_sync(cluster, primary, 1).await? != first)).await?;
        writers.wait_for_writes(50, WHOLE).await?;
        let gap = interruption(&writers.writes(), died);
        println!("a synchronous standby died: interrupted for {gap:?}");
        ensure!(gap < Duration::from_secs(2), "writes were interrupted for {gap:?}");

        // Nobody is left: not strict goes on, strict blocks.
        let second = in_sync(cluster, primary, 1).await?;
        let died = Instant::now();
        let last = cluster.index_of(&second[0])?;
        cluster.nodes[last].crash();
        in_sync(cluster, primary, 0).await?;
        writers.wait_for_writes(50, WHOLE).await?;
        println!("the last one died: interrupted for {:?}", interruption(&writers.writes(), died));
        cluster.nodes[dead].start()?;
        cluster.nodes[last].start()?;
        ensure!(cluster.all_streaming(WHOLE).await? == primary, "the primary moved");

        cluster.set_dynamic(&[("synchronous_mode", json!("quorum"))]).await?;
        let both = in_sync(cluster, primary, 2).await?;
        roles_are_told(cluster, primary, &both[0], "quorum_standby", "/quorum").await?;
        let setting = cluster.nodes[primary].socket().query("SHOW synchronous_standby_names").await?;
        ensure!(setting == [format!("ANY 1 ({})", both.join(","))], "{setting:?}");

        cluster.set_dynamic(&[("synchronous_mode", json!(false))]).await?;
        let off = async || Ok(cluster.etcd.get(&cluster.key("sync")).await?.is_none());
        until_true(WHOLE, off).await?;
        let empty = async || Ok(cluster.nodes[primary].socket().query("SHOW synchronous_standby_names").await? == [""]);
        until_true(WHOLE, empty).await?;
        nothing_lost(cluster, writers).await.map(drop)
    })
    .await
}

/// REST and the table of members call a standby by its role.
async fn roles_are_told(cluster: &Cluster, primary: usize, standby: &str, role: &str, path: &str) -> Result<()> {
    let index = cluster.index_of(standby)?;
    // DEM-9
    let setting = cluster.nodes[index].socket().query("SHOW synchronous_standby_names").await?;
    ensure!(setting == [""], "a standby waits for {setting:?}");
    until_true(WHOLE, async || Ok(cluster.nodes[index].get(path).await?.status == 200)).await?;
    ensure!(cluster.nodes[index].get("/async").await?.status == 503, "/async of {standby}");
    ensure!(cluster.nodes[primary].get(path).await?.status == 503, "{path} of the primary");
    let members: Value = serde_json::from_str(&cluster.nodes[primary].get("/cluster").await?.body)?;
    let of = members["members"].as_array().into_iter().flatten().find(|member| member["name"] == standby);
    ensure!(of.is_some_and(|member| member["role"] == role), "{members}");
    Ok(())
}

/// One cluster of pgward and Patroni: `/sync` written by either is honoured by the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patroni_and_pgward_honour_each_others_sync_key() -> Outcome {
    let topology = Topology { agents: vec![Agent::Pgward, Agent::Patroni], ..Topology::of(Agent::Pgward, 2) };
    with(topology.dynamic("synchronous_mode", json!(true)), async |cluster| {
        cluster.nodes[0].start()?;
        cluster.these_streaming(&[0], BOOTSTRAP_LIMIT).await.context("the first node")?;
        cluster.nodes[1].start()?;
        cluster.at_rest(WHOLE).await.context("the second node joins")?;
        let writers = Writers::start(cluster).await?;
        for mode in [json!(true), json!("quorum")] {
            cluster.set_dynamic(&[("synchronous_mode", mode.clone())]).await?;
            for (from, to) in [(0, 1), (1, 0)] {
                in_sync(cluster, from, 1).await.with_context(|| format!("{mode}: n{}", from + 1))?;
                cluster.switchover(from, to).await.with_context(|| format!("{mode}: switchover {from} to {to}"))?;
                ensure!(cluster.at_rest(WHOLE).await? == to, "the primary did not move");
            }
            for (from, to) in [(0, 1), (1, 0)] {
                in_sync(cluster, from, 1).await.with_context(|| format!("{mode}: n{}", from + 1))?;
                cluster.nodes[from].crash();
                let new = cluster.new_primary(from, TTL + Duration::from_secs(30)).await?;
                ensure!(new == to, "the primary is {}", cluster.nodes[new].name());
                cluster.nodes[from].start()?;
                ensure!(cluster.at_rest(WHOLE).await? == to, "the primary did not stay");
            }
        }
        nothing_lost(cluster, writers).await.map(drop)
    })
    .await
}
