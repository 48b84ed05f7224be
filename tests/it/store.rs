//! What the cluster does when etcd loses members, its quorum, or its mind.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgward_tests::cluster::{Outcome, with_running};
use pgward_tests::direct::DirectWriters;
use pgward_tests::verdict::{DirectVerdict, interruption};
use pgward_tests::wait::{until, until_true};
use pgward_tests::writers::Writers;
use rustix::process::Signal;

use crate::support::{TTL, WHOLE, nothing_lost, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_one_etcd_member_changes_no_role_and_the_loss_of_the_quorum_stops_writes_in_time() -> Outcome {
    with_running(three().etcd(3), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let log = cluster.etcd.watch(&cluster.key("leader")).await?;
        let writers = Writers::start(cluster).await?;
        // Each member is killed once, and so the one that leads too; then the one that leads hangs: it accepts
        // connections and answers nothing.
        for member in [Some(0), Some(1), Some(2), None] {
            let (hangs, started) = (member.is_none(), Instant::now());
            let member = match member {
                Some(member) => member,
                None => cluster.etcd.leader_member().await?,
            };
            if hangs {
                cluster.etcd.signal_member(member, Signal::STOP);
            } else {
                cluster.etcd.kill_member(member);
            }
            until_true(TTL, async || Ok(cluster.etcd.healthy_members().await == 2)).await.context("two members")?;
            // Long enough for every agent to have renewed its lease against what is left.
            until_true(TTL, async || Ok(started.elapsed() > Duration::from_secs(7))).await?;
            if hangs {
                cluster.etcd.signal_member(member, Signal::CONT);
            } else {
                cluster.etcd.start_member(member)?;
            }
            until_true(TTL, async || Ok(cluster.etcd.healthy_members().await == 3)).await.context("three members")?;
            let longest = interruption(&writers.writes(), started);
            println!("etcd member {member} away, hung {hangs}: longest interruption {longest:?}");
            ensure!(longest < Duration::from_secs(1), "writes were interrupted for {longest:?}");
        }
        ensure!(cluster.all_streaming(WHOLE).await? == primary, "the primary changed");
        ensure!(log.changes().iter().all(|c| c.value.is_some()), "the leader key was gone: {:?}", log.changes());

        let direct = DirectWriters::start(cluster).await?;
        let lost = Instant::now();
        cluster.etcd.kill_member(0);
        cluster.etcd.kill_member(1);
        // The last renewal was before the quorum was lost, so the lease could be given away one ttl later at the latest.
        let silent = async || {
            let last = direct.last_commit_on(primary).context("no commits")?;
            Ok((last.elapsed() > Duration::from_secs(3)).then_some(last))
        };
        let last = until(TTL + Duration::from_secs(10), silent).await.context("the primary goes on")?;
        println!("last commit {:?} after the quorum was lost", last - lost);
        ensure!(last - lost < TTL, "the primary accepted a commit {:?} after the quorum was lost", last - lost);

        cluster.etcd.start_member(0)?;
        cluster.etcd.start_member(1)?;
        writers.wait_for_writes(50, WHOLE).await.context("writes do not come back")?;
        cluster.at_rest(WHOLE).await?;
        let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
        println!("{verdict}");
        verdict.is_exclusive()?;
        nothing_lost(cluster, writers).await.map(drop)
    })
    .await
}
