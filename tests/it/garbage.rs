//! Nonsense in the store: nobody crashes, nobody wipes anything, writes go on or come back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgward_tests::cluster::{Outcome, with_running};
use pgward_tests::wait::until_true;
use pgward_tests::writers::Writers;

use crate::support::{WHOLE, is_pgward, nothing_lost, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_any_key_neither_ends_an_agent_nor_costs_data() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        cluster.at_rest(WHOLE).await?;
        let writers = Writers::start(cluster).await?;
        let kept: Vec<(String, String)> = cluster.etcd.list(&cluster.key("")).await?;
        let whole = |name: &str| {
            let key = cluster.key(name);
            kept.iter().find(|(k, _)| *k == key).map(|(_, value)| value.clone())
        };
        // Keys that nobody owns by lease are put back at the end; the others the agents mend themselves.
        for name in
            ["config", "status", "history", "sync", "failover", "failsafe", "members/n2", "members/zz", "optime/leader"]
        {
            for value in [
                "",
                "{",
                "[1, 2",
                "nonsense",
                "\u{0}\u{1}",
                "[[[]]]",
                "{\"ttl\": \"soon\"}",
                "-1",
                "18446744073709551616",
            ] {
                cluster.etcd.put(&cluster.key(name), value).await?;
            }
            writers.wait_for_writes(100, WHOLE).await.with_context(|| format!("after garbage in {name}"))?;
            match whole(name).filter(|_| name == "config") {
                Some(value) => cluster.etcd.put(&cluster.key(name), &value).await?,
                None => cluster.etcd.delete(&cluster.key(name)).await?,
            }
        }
        // A whole round of every agent passes over it.
        let started = Instant::now();
        until_true(WHOLE, async || Ok(started.elapsed() > Duration::from_secs(7))).await?;
        cluster.at_rest(WHOLE).await?;

        // The system id of the cluster: garbage must never make anyone initialise or wipe.
        let id = whole("initialize").context("no initialize key")?;
        for value in ["", "nonsense", "0", "-5", "99999999999999999999999"] {
            cluster.etcd.put(&cluster.key("initialize"), value).await?;
            writers.wait_for_writes(20, WHOLE).await.with_context(|| format!("initialize = {value:?}"))?;
        }
        cluster.etcd.put(&cluster.key("initialize"), &id).await?;
        for node in &mut cluster.nodes {
            ensure!(node.agent_pid().is_some(), "the agent of {} ended", node.name());
        }
        // A leader that nobody knows: nobody takes over while it stands, and the owner does not fight it for ever.
        cluster.etcd.put(&cluster.key("leader"), "ghost").await?;
        cluster.etcd.delete(&cluster.key("leader")).await?;
        cluster.at_rest(WHOLE).await?;
        for node in &mut cluster.nodes {
            ensure!(node.agent_pid().is_some(), "the agent of {} ended", node.name());
            let log = std::fs::read_to_string(node.agent_log())?;
            ensure!(!log.contains("panicked at"), "the agent of {} panicked", node.name());
        }
        nothing_lost(cluster, writers).await.map(drop)
    })
    .await
}
