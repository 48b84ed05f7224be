//! A second primary that nobody asked pgward for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{Cluster, Outcome, with_running};
use pgward_tests::process::Spec;
use pgward_tests::wait::until_true;
use pgward_tests::writers::Writers;
use serde_json::{Value, json};

use crate::support::{WHOLE, agent, is_pgward, nothing_lost, three};

/// `loop_wait` of the test clusters, and what a slow machine adds to it.
const ONE_CYCLE: Duration = Duration::from_secs(3 + 5);

/// What an operator must never do on a replica.
async fn promote_by_hand(cluster: &Cluster, node: usize) -> Result<()> {
    let program = cluster.machine().pg_bin.join("pg_ctl");
    let spec = Spec::new(program, cluster.dir()).user(&cluster.machine().user);
    let data_dir = cluster.nodes[node].data_dir();
    let finished = spec.args(["promote", "-w", "-D"]).arg(data_dir).run(Duration::from_secs(30)).await?;
    ensure!(finished.status.success(), "{}", finished.text());
    Ok(())
}

async fn metric(cluster: &Cluster, node: usize, name: &str) -> Result<String> {
    let page = cluster.nodes[node].get("/metrics").await?.body;
    let line = page.lines().find(|line| line.starts_with(&format!("{name}{{"))).context("no such metric")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_promoted_by_hand_is_stopped_and_comes_back() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let writers = Writers::start(cluster).await?;
        let rogue = (primary + 1) % 3;
        promote_by_hand(cluster, rogue).await?;
        until_true(ONE_CYCLE, async || {
            let seen = metric(cluster, rogue, "pgward_split_brains_total").await?;
            ensure!(seen == "1", "SPL-1: seen {seen} times");
            Ok(true)
        })
        .await?;
        let log = std::fs::read_to_string(cluster.nodes[rogue].agent_log())?;
        ensure!(
            log.contains("split brain: primary beside the holder of the leader key"),
            "SPL-1: the log does not say so"
        );
        let now = cluster.all_streaming(WHOLE).await.context("the rogue does not come back as a replica")?;
        ensure!(now == primary, "the primary moved");
        let (seen, now) = (metric(cluster, rogue, "pgward_split_brain").await?, "0");
        ensure!(seen == now, "SPL-1: {seen} are still said to be primary");
        // A writer that met the rogue in its moment wrote into nothing, and no other may have lost anything.
        let writes = writers.stop().await;
        ensure!(writes.iter().any(|write| write.node == primary && write.acked.is_some()), "nobody wrote");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_be_rewound_says_why_until_it_is_back() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let rogue = (primary + 1) % 3;
        cluster.nodes[rogue].config["postgresql"]["bin_name"] = json!({"pg_rewind": "/bin/false"});
        cluster.nodes[rogue].stop(WHOLE).await?;
        cluster.nodes[rogue].start()?;
        cluster.all_streaming(WHOLE).await?;
        promote_by_hand(cluster, rogue).await?;
        let name = cluster.nodes[rogue].name().to_owned();
        until_true(WHOLE, async || {
            let document: Value = serde_json::from_str(&cluster.nodes[rogue].get("/patroni").await?.body)?;
            let problem = document["problem"].as_str().unwrap_or_default().to_owned();
            let list = cluster.ctl(agent(), &["list"]).await?.text();
            ensure!(
                problem.contains("pg_rewind failed") && list.contains(&format!("{name} cannot come back: ")),
                "RWD-12: {document}\n{list}"
            );
            Ok(true)
        })
        .await?;
        cluster.nodes[rogue].config["postgresql"]["bin_name"] = json!({});
        cluster.nodes[rogue].stop(WHOLE).await?;
        cluster.nodes[rogue].start()?;
        cluster.all_streaming(WHOLE).await.context("with a pg_rewind that works")?;
        let list = cluster.ctl(agent(), &["list"]).await?.text();
        ensure!(!list.contains("cannot come back"), "RWD-12: {list}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_maintenance_mode_a_second_primary_is_shown_and_left_alone() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        cluster.set_dynamic(&[("pause", json!(true))]).await?;
        let (rogue, third) = ((primary + 1) % 3, (primary + 2) % 3);
        until_true(ONE_CYCLE, async || {
            let text = cluster.etcd.get(&cluster.key(&format!("members/{}", cluster.nodes[rogue].name()))).await?;
            Ok(text.is_some_and(|text| text.contains(r#""pause":true"#)))
        })
        .await
        .context("the pause is not seen")?;
        promote_by_hand(cluster, rogue).await?;
        let name = cluster.nodes[rogue].name().to_owned();
        for (node, path) in [(rogue, "/patroni"), (third, "/patroni"), (primary, "/cluster")] {
            until_true(ONE_CYCLE, async || {
                let document: Value = serde_json::from_str(&cluster.nodes[node].get(path).await?.body)?;
                ensure!(document["split_brain"] == json!([name]), "SPL-2: n{} GET {path}: {document}", node + 1);
                Ok(true)
            })
            .await?;
        }
        let list = cluster.ctl(agent(), &["list"]).await?.text();
        ensure!(list.contains(&format!("Split brain: {name} is primary beside the leader")), "{list}");
        let in_recovery = cluster.nodes[rogue].socket().query("SELECT pg_is_in_recovery()").await?;
        ensure!(in_recovery == ["f"], "PAU-7: it was stopped in maintenance mode");
        cluster.set_dynamic(&[("pause", json!(null))]).await?;
        let now = cluster.all_streaming(WHOLE).await.context("after maintenance")?;
        ensure!(now == primary, "the primary moved");
        let writers = Writers::start(cluster).await?;
        nothing_lost(cluster, writers).await.map(drop)
    })
    .await
}
