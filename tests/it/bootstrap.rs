//! From nothing to a cluster, and from a stopped cluster to a running one.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgward_tests::cluster::{BOOTSTRAP_LIMIT, Outcome, with};
use serde_json::Value;

use crate::support::{WHOLE, agent, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_empty_nodes_started_at_once_become_one_cluster() -> Outcome {
    with(three(), async |cluster| {
        let started = Instant::now();
        cluster.start_all()?;
        let primary = cluster.all_streaming(BOOTSTRAP_LIMIT).await?;
        println!("three members stream after {:?}", started.elapsed());

        let initialize = cluster.etcd.get(&cluster.key("initialize")).await?.context("no initialize key")?;
        for node in &cluster.nodes {
            let id = node.socket().query("SELECT system_identifier FROM pg_control_system()").await?;
            ensure!(id == [initialize.clone()], "{} has system id {id:?}, the cluster {initialize}", node.name());
        }
        let config = cluster.etcd.get(&cluster.key("config")).await?.context("no config key")?;
        let config: Value = serde_json::from_str(&config)?;
        ensure!(config["ttl"] == 20 && config["loop_wait"] == 3, "config is {config}");

        let slots =
            cluster.nodes[primary].socket().query("SELECT slot_name FROM pg_replication_slots ORDER BY 1").await?;
        let others: Vec<&str> =
            cluster.nodes.iter().map(|n| n.name()).filter(|n| *n != cluster.nodes[primary].name()).collect();
        ensure!(slots == others, "slots are {slots:?}, other members {others:?}");

        // A replica that joins later clones the primary, rows and all.
        let table = "CREATE TABLE early AS SELECT generate_series(1, 10000) AS id";
        cluster.nodes[primary].socket().query(table).await?;
        let late = cluster.add_node(agent())?;
        cluster.nodes[late].start()?;
        cluster.all_streaming(WHOLE).await?;
        let rows = cluster.nodes[late].socket().query("SELECT count(*) FROM early").await?;
        ensure!(rows == ["10000"], "the clone has {rows:?} rows");
        cluster.at_rest(WHOLE).await?;
        let answer = cluster.nodes[late].get("/cluster").await?.json()?;
        let members: Vec<&str> =
            answer["members"].as_array().into_iter().flatten().filter_map(|m| m["name"].as_str()).collect();
        ensure!(members == ["n1", "n2", "n3", "n4"], "GET /cluster: {answer}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_stopped_comes_back_with_its_data() -> Outcome {
    with(three(), async |cluster| {
        cluster.start_all()?;
        let primary = cluster.at_rest(BOOTSTRAP_LIMIT).await?;
        let id = cluster.etcd.get(&cluster.key("initialize")).await?;
        cluster.nodes[primary].socket().query("CREATE TABLE kept AS SELECT 1 AS one").await?;
        // Replicas first, as in an orderly shutdown; the primary gives its key back at the end.
        for node in (0..3).filter(|n| *n != primary).chain([primary]) {
            let status = cluster.nodes[node].stop(Duration::from_secs(30)).await?;
            ensure!(status.success(), "the agent of {} ended with {status}", cluster.nodes[node].name());
            ensure!(cluster.nodes[node].postmaster_pid().is_none(), "PostgreSQL outlived the agent");
        }
        let leader = cluster.etcd.get(&cluster.key("leader")).await?;
        ensure!(leader.is_none(), "after an orderly stop the leader key is {leader:?}");
        cluster.start_all()?;
        let primary = cluster.at_rest(WHOLE).await?;
        let rows = cluster.nodes[primary].socket().query("SELECT one FROM kept").await?;
        ensure!(rows == ["1"] && id == cluster.etcd.get(&cluster.key("initialize")).await?, "not the same cluster");
        Ok(())
    })
    .await
}
