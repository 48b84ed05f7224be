//! Maintenance mode: whatever happens, nothing is done, except what an operator asks for by name.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{Cluster, Outcome, with_running};
use pgward_tests::node::Agent;
use pgward_tests::wait::until_true;
use pgward_tests::writers::Writers;

use crate::support::{TTL, WHOLE, is_pgward, three};

/// Long enough for every agent to have decided more than once (`loop_wait` is 3 s).
const WATCHED: Duration = Duration::from_secs(8);

async fn ctl(cluster: &Cluster, args: &[&str]) -> Result<String> {
    let finished = cluster.ctl(Agent::Pgward, args).await?;
    Ok(finished.text())
}

async fn key_is_gone(cluster: &Cluster) -> Result<bool> {
    Ok(cluster.leader().await?.is_none())
}

/// Nobody becomes primary, nothing is started, for so long that somebody would have.
async fn stays(cluster: &Cluster, time: Duration, holds: impl AsyncFn(&Cluster) -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    let watched = async || {
        ensure!(holds(cluster).await?, "it did not stay so for {:?}", began.elapsed());
        Ok(began.elapsed() > time)
    };
    // A condition that fails once has failed, whatever comes later.
    while !watched().await? {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_maintenance_mode_nothing_is_done_but_what_is_asked_for() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let (replica, candidate) = ((primary + 1) % 3, (primary + 2) % 3);
        let said = ctl(cluster, &["pause", "demo", "--wait"]).await?;
        ensure!(said.contains("Success: cluster management is paused"), "{said}");
        let listed = ctl(cluster, &["list", "demo"]).await?;
        ensure!(listed.contains("Maintenance mode: on"), "{listed}");
        ensure!(cluster.nodes[primary].get("/patroni").await?.json()?["pause"] == true, "REST does not show the pause");

        // PAU-9: a replica that ends stays down.
        cluster.nodes[replica].kill_postmaster()?;
        until_true(WHOLE, async || Ok(cluster.nodes[replica].postmaster_pid().is_none())).await?;
        stays(cluster, WATCHED, async |cluster| Ok(cluster.nodes[replica].postmaster_pid().is_none())).await?;

        // PAU-13, PAU-6: without its agent the primary goes on; its key expires, and nobody else takes it.
        let writers = Writers::start(cluster).await?;
        let ended = cluster.nodes[primary].stop(WHOLE).await?;
        ensure!(ended.success(), "the agent ended with {ended}");
        until_true(TTL * 2, async || key_is_gone(cluster).await).await.context("the leader key stays")?;
        stays(cluster, WATCHED, key_is_gone).await?;
        writers.wait_for_writes(50, WHOLE).await.context("the primary does not go on")?;

        // PAU-5: its agent takes the key again.
        cluster.nodes[primary].start()?;
        until_true(WHOLE, async || Ok(cluster.leader().await? == Some(primary)))
            .await
            .context("the key is not taken")?;
        writers.wait_for_writes(50, WHOLE).await?;
        drop(writers);

        // PAU-10, PAU-14: a named candidate takes over, and the old primary follows it.
        cluster.switchover(primary, candidate).await.context("a switchover in maintenance mode")?;
        cluster.these_streaming(&[primary, candidate], WHOLE).await?;
        ensure!(cluster.primary().await? == candidate, "the candidate is not primary");

        // PAU-3: a leader whose server ends gives the key up, and nothing else happens.
        cluster.nodes[candidate].kill_postmaster()?;
        until_true(WHOLE, async || key_is_gone(cluster).await)
            .await
            .context("the key of a leader without a server stays")?;
        let nobody = async |cluster: &Cluster| {
            Ok(cluster.leader().await?.is_none() && cluster.nodes[candidate].postmaster_pid().is_none())
        };
        stays(cluster, WATCHED, nobody).await?;

        // PAU-16.
        let said = ctl(cluster, &["resume", "demo", "--wait"]).await?;
        ensure!(said.contains("Success: cluster management is resumed"), "{said}");
        cluster.at_rest(WHOLE).await.map(drop)
    })
    .await
}
