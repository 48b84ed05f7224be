//! What an operator does to a running cluster: restarts, new copies, changes of the configuration.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{Cluster, Outcome, with_running};
use pgward_tests::wait::until_true;
use pgward_tests::writers::Writers;
use serde_json::{Value, json};

use crate::support::{WHOLE, agent, nothing_lost, three};

/// Runs ctl and returns what it printed.
async fn ctl(cluster: &Cluster, args: &[&str]) -> Result<String> {
    let finished = cluster.ctl(agent(), args).await?;
    ensure!(finished.status.success(), "{args:?}: {}", finished.text());
    Ok(finished.text())
}

/// What a member says of itself.
async fn status(cluster: &Cluster, node: usize) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.nodes[node].get("/patroni").await?.body)?)
}

async fn change_parameter(cluster: &Cluster, setting: &str) -> Result<()> {
    let text = ctl(cluster, &["edit-config", "demo", "-p", setting, "--force"]).await?;
    ensure!(text.contains("Configuration changed"), "{text}");
    Ok(())
}

/// Waits until exactly these parameters wait for a restart.
async fn pending(cluster: &Cluster, node: usize, names: &[&str]) -> Result<()> {
    until_true(WHOLE, async || {
        let status = status(cluster, node).await?;
        let reason = status["pending_restart_reason"].as_object();
        let found: Vec<&str> = reason.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        ensure!(found == names, "{}: {status}", cluster.nodes[node].name());
        Ok(true)
    })
    .await
}

/// RST-1, RST-6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_restarted_in_place_when_and_if_the_operator_says() -> Outcome {
    with_running(three(), async |cluster| {
        let leader = cluster.at_rest(WHOLE).await?;
        let replica = (leader + 1) % 3;
        let writers = Writers::start(cluster).await?;
        let (name, other) = (cluster.nodes[leader].name().to_owned(), cluster.nodes[replica].name().to_owned());
        let pids = [leader, replica].map(|node| cluster.nodes[node].postmaster_pid());

        change_parameter(cluster, "shared_buffers=24MB").await?;
        for node in [leader, replica] {
            pending(cluster, node, &["shared_buffers"]).await?;
        }
        let text = ctl(cluster, &["restart", "demo", &name, &other, "--pending", "--force"]).await?;
        for member in [&name, &other] {
            ensure!(text.contains(&format!("Success: restart on member {member}")), "{text}");
        }
        ensure!(cluster.all_streaming(WHOLE).await? == leader, "another member leads after a restart");
        for (node, before) in [leader, replica].into_iter().zip(pids) {
            let now = cluster.nodes[node].postmaster_pid();
            ensure!(now.is_some() && now != before, "{} still runs as {before:?}", cluster.nodes[node].name());
            pending(cluster, node, &[]).await?;
            ensure!(status(cluster, node).await?["timeline"] == 1, "it was promoted");
        }
        let text = ctl(cluster, &["restart", "demo", &name, "--pending", "--force"]).await?;
        ensure!(text.contains("status code=503, (restart conditions are not satisfied)"), "{text}");

        scheduled_restart(cluster, replica).await?;
        // A standby cannot lower this before its primary has, and says that it wants to.
        change_parameter(cluster, "max_connections=90").await?;
        for node in [leader, replica] {
            pending(cluster, node, &["max_connections"]).await?;
        }
        nothing_lost(cluster, writers).await?;
        Ok(())
    })
    .await
}

/// RST-5.
async fn scheduled_restart(cluster: &Cluster, node: usize) -> Result<()> {
    let member = &cluster.nodes[node];
    let far = json!({"schedule": "2099-01-01T00:00:00Z", "role": "replica"});
    let limit = Duration::from_secs(10);
    ensure!(member.post("/restart", &far, limit).await?.body == "Restart scheduled");
    ensure!(member.post("/restart", &far, limit).await?.status == 409, "one is scheduled already");
    let key = cluster.key(&format!("members/{}", member.name()));
    until_true(WHOLE, async || {
        let record = cluster.etcd.get(&key).await?.context("no member record")?;
        let record: Value = serde_json::from_str(&record)?;
        let schedule = &record["scheduled_restart"];
        ensure!(schedule["schedule"] == "2099-01-01T00:00:00+00:00", "{record}");
        ensure!(schedule["postmaster_start_time"].is_string(), "{record}");
        Ok(true)
    })
    .await?;
    let text = ctl(cluster, &["flush", "demo", member.name(), "restart", "--force"]).await?;
    ensure!(text.contains("Success: flush scheduled restart"), "{text}");

    let before = member.postmaster_pid();
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let answer = member.post("/restart", &json!({"schedule": soon.to_string()}), limit).await?;
    ensure!(answer.status == 202, "{}", answer.body);
    until_true(WHOLE, async || {
        let now = member.postmaster_pid();
        ensure!(now.is_some() && now != before, "it was not restarted");
        let status = status(cluster, node).await?;
        ensure!(status["state"] == "running" && status["scheduled_restart"].is_null(), "{status}");
        Ok(true)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_copied_anew_and_the_leader_is_not() -> Outcome {
    with_running(three(), async |cluster| {
        let leader = cluster.at_rest(WHOLE).await?;
        let replica = (leader + 1) % 3;
        let (name, leading) = (cluster.nodes[replica].name().to_owned(), cluster.nodes[leader].name().to_owned());
        let mark = cluster.nodes[replica].data_dir().join("left-by-the-test");
        std::fs::write(&mark, "x")?;

        let answer = cluster.nodes[leader].post("/reinitialize", &json!({}), Duration::from_secs(10)).await?;
        ensure!((answer.status, &*answer.body) == (503, "I am the leader, can not reinitialize"), "{}", answer.body);

        let text = ctl(cluster, &["reinit", "demo", &name, "--force", "--wait"]).await?;
        ensure!(text.contains(&format!("Reinitialize is completed on: {name}")), "{text}");
        ensure!(cluster.all_streaming(WHOLE).await? == leader, "{leading} does not lead any more");
        ensure!(!mark.exists(), "the data directory is the old one");
        Ok(())
    })
    .await
}
