//! A primary that is cut off from everything, in network namespaces. The etcd member on its host is cut off with it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgward_tests::cluster::{Outcome, with_running};
use pgward_tests::direct::DirectWriters;
use pgward_tests::verdict::DirectVerdict;
use pgward_tests::wait::{until, until_true};

use crate::support::{TTL, WHOLE, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_cut_off_stops_first_and_rejoins_without_its_diverged_commits() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        println!("left out: network namespaces need root");
        return Ok(());
    }
    with_running(three().in_namespaces(), async |cluster| {
        let old = cluster.at_rest(WHOLE).await?;

        // A replica that is cut off for longer than its lease changes nothing for the primary.
        let replica = (old + 1) % 3;
        cluster.network.cut(replica)?;
        let member = cluster.key(&format!("members/{}", cluster.nodes[replica].name()));
        let forgotten = async || Ok(cluster.etcd.get(&member).await?.is_none());
        until_true(TTL + Duration::from_secs(20), forgotten)
            .await
            .context("the member key of the cut replica stays")?;
        ensure!(cluster.primary().await? == old, "the primary changed");
        cluster.network.heal(replica)?;
        ensure!(cluster.all_streaming(WHOLE).await? == old, "the primary changed");

        let direct = DirectWriters::start(cluster).await?;
        let cut = Instant::now();
        cluster.network.cut(old)?;
        let new = cluster.new_primary(old, TTL + Duration::from_secs(30)).await?;
        let first =
            until(WHOLE, async || Ok(direct.first_commit_on(new, cut))).await.context("no commit on the new side")?;
        let last = direct.last_commit_on(old).context("no commit on the old side")?;
        println!("last commit on the old side {:?}, first on the new side {:?} after the cut", last - cut, first - cut);
        ensure!(last < first, "the old side still accepted commits");
        let until_then = direct.commits().len();
        until_true(WHOLE, async || Ok(direct.commits().len() > until_then + 200)).await?;

        cluster.network.heal(old)?;
        ensure!(cluster.all_streaming(WHOLE).await? == new, "the primary moved on");
        let commits = direct.stop().await;
        let verdict = DirectVerdict::of(cluster, &commits).await?;
        println!("{verdict}");
        verdict.is_exclusive()?;
        let diverged = commits.iter().filter(|c| c.node == old && c.acked > cut + Duration::from_secs(1)).count();
        ensure!(diverged > 0, "nothing diverged: the check proves nothing");
        ensure!(verdict.lost >= diverged, "{diverged} commits of the old side after the cut, but {verdict}");

        // All three hold the same rows, and the old primary was rewound, not cloned.
        let rows = "SELECT count(*) || ' rows, sum ' || sum(id) FROM direct";
        let same = async || {
            let want = cluster.nodes[new].socket().query(rows).await?;
            for node in &cluster.nodes {
                let has = node.socket().query(rows).await?;
                ensure!(has == want, "{} has {has:?}, the primary {want:?}", node.name());
            }
            Ok(true)
        };
        until_true(WHOLE, same).await?;
        let said = std::fs::read_to_string(cluster.nodes[old].agent_log())?.to_lowercase();
        ensure!(said.contains("rewind"), "the old primary was not rewound");
        Ok(())
    })
    .await
}
