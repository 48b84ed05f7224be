//! One cluster of pgward and Patroni: each leads with the other as its replica, whoever began.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{BOOTSTRAP_LIMIT, Cluster, Outcome, Topology, with};
use pgward_tests::node::Agent;
use pgward_tests::wait::until_true;
use pgward_tests::writers::Writers;

use crate::support::{TTL, WHOLE, nothing_lost};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patroni_joins_a_cluster_of_pgward() -> Outcome {
    share(Agent::Pgward, Agent::Patroni).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgward_joins_a_cluster_of_patroni() -> Outcome {
    share(Agent::Patroni, Agent::Pgward).await
}

async fn share(first: Agent, second: Agent) -> Outcome {
    let topology = Topology { agents: vec![first, second], ..Topology::of(first, 2) };
    with(topology, async |cluster| {
        cluster.nodes[0].start()?;
        cluster.these_streaming(&[0], BOOTSTRAP_LIMIT).await.context("the first node")?;
        cluster.nodes[1].start()?;
        cluster.at_rest(WHOLE).await.context("the second node joins")?;
        both_tools_agree(cluster).await?;

        let writers = Writers::start(cluster).await?;
        for (from, to) in [(0, 1), (1, 0)] {
            cluster.switchover(from, to).await.with_context(|| format!("switchover {from} to {to}"))?;
            ensure!(cluster.at_rest(WHOLE).await? == to, "the primary did not move");
            both_tools_agree(cluster).await?;
        }
        nothing_lost(cluster, writers).await?;

        for (from, to) in [(0, 1), (1, 0)] {
            cluster.nodes[from].crash();
            let new = cluster.new_primary(from, TTL + Duration::from_secs(30)).await;
            let new = new.with_context(|| format!("failover {from} to {to}"))?;
            ensure!(new == to, "the primary is {}", cluster.nodes[new].name());
            cluster.nodes[from].start()?;
            ensure!(cluster.at_rest(WHOLE).await? == to, "the primary did not stay");
        }
        both_tools_agree(cluster).await
    })
    .await
}

/// `list`, `topology`, `history` and `show-config` of both tools print the same.
async fn both_tools_agree(cluster: &Cluster) -> Result<()> {
    for args in
        [&["list", "demo"][..], &["list", "-f", "json", "demo"], &["topology", "demo"], &["history"], &["show-config"]]
    {
        // Positions may move between two calls, so they get a few chances to agree.
        let agree = async || {
            let theirs = cluster.ctl(Agent::Patroni, args).await?;
            let ours = cluster.ctl(Agent::Pgward, args).await?;
            ensure!(
                theirs.stdout == ours.stdout,
                "{args:?}: patronictl says\n{}\npgward says\n{}",
                theirs.text(),
                ours.text()
            );
            Ok(true)
        };
        until_true(Duration::from_secs(20), agree).await?;
    }
    Ok(())
}
