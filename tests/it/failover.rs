//! Unplanned changes of the primary: what happens when something is killed.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgward_tests::cluster::{Outcome, with_running};
use pgward_tests::direct::DirectWriters;
use pgward_tests::verdict::{DirectVerdict, interruption};
use pgward_tests::writers::Writers;
use serde_json::json;

use crate::support::{TTL, WHOLE, nothing_lost, only_last_moment_lost, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postmaster_is_started_again_in_place() -> Outcome {
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let writers = Writers::start(cluster).await?;
        let killed = Instant::now();
        cluster.nodes[primary].kill_postmaster()?;
        writers.wait_for_writes(50, WHOLE).await?;
        println!("interrupted for {:?}", interruption(&writers.writes(), killed));
        let now = cluster.all_streaming(WHOLE).await?;
        ensure!(now == primary, "the primary moved to {}", cluster.nodes[now].name());
        let timeline = "SELECT timeline_id FROM pg_control_checkpoint()";
        let timeline = cluster.nodes[primary].socket().query(timeline).await?;
        ensure!(timeline == ["1"], "the timeline is {timeline:?}");
        nothing_lost(cluster, writers).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postmaster_hands_over_when_no_start_is_allowed() -> Outcome {
    with_running(three().dynamic("primary_start_timeout", json!(0)), async |cluster| {
        let old = cluster.at_rest(WHOLE).await?;
        let writers = Writers::start(cluster).await?;
        let direct = DirectWriters::start(cluster).await?;
        let killed = Instant::now();
        cluster.nodes[old].kill_postmaster()?;
        let new = cluster.new_primary(old, WHOLE).await?;
        writers.wait_for_writes(50, WHOLE).await?;
        println!("interrupted for {:?}", interruption(&writers.writes(), killed));
        let now = cluster.all_streaming(WHOLE).await?;
        ensure!(now == new, "the primary moved on to {}", cluster.nodes[now].name());
        let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
        println!("{verdict}");
        verdict.is_exclusive()?;
        only_last_moment_lost(cluster, writers, killed).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_node_is_replaced_when_its_lease_ends_and_comes_back_as_a_replica() -> Outcome {
    with_running(three(), async |cluster| {
        let old = cluster.at_rest(WHOLE).await?;
        let log = cluster.etcd.watch(&cluster.key("leader")).await?;
        let writers = Writers::start(cluster).await?;
        let crashed = Instant::now();
        cluster.nodes[old].crash();
        let new = cluster.new_primary(old, TTL + Duration::from_secs(20)).await?;
        writers.wait_for_writes(50, WHOLE).await?;
        let gone = log.gone_after(crashed).context("the leader key was never gone")?;
        let first = writers.writes().iter().filter(|w| w.node != old).filter_map(|w| w.acked).min();
        let first = first.context("no write on the new primary")?;
        println!("the lease ended after {:?}, the first write came after {:?}", gone.at - crashed, first - crashed);
        ensure!(first > gone.at, "a write was accepted before the lease ended");

        cluster.nodes[old].start()?;
        let now = cluster.all_streaming(WHOLE).await?;
        ensure!(now == new, "the primary moved on to {}", cluster.nodes[now].name());
        only_last_moment_lost(cluster, writers, crashed).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_replica_changes_nothing_for_the_clients() -> Outcome {
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let replica = (primary + 1) % 3;
        let writers = Writers::start(cluster).await?;
        let crashed = Instant::now();
        cluster.nodes[replica].crash();
        cluster.nodes[replica].start()?;
        let now = cluster.all_streaming(WHOLE).await?;
        ensure!(now == primary, "the primary moved to {}", cluster.nodes[now].name());
        let writes = nothing_lost(cluster, writers).await?;
        let interruption = interruption(&writes, crashed);
        ensure!(interruption < Duration::from_secs(1), "writes were interrupted for {interruption:?}");
        Ok(())
    })
    .await
}
