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
        // Roles and states may change between two calls, so they get a few chances to agree. Positions move all the
        // time while the writers write.
        let agree = async || {
            let theirs = cluster.ctl(Agent::Patroni, args).await?;
            let ours = cluster.ctl(Agent::Pgward, args).await?;
            ensure!(
                without_positions(&theirs.stdout) == without_positions(&ours.stdout),
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

/// The text with every WAL position, such as `0/30B8CC8`, masked digit by digit.
fn without_positions(text: &str) -> String {
    let is_position = |c: char| c.is_ascii_hexdigit() || c == '/';
    let mut masked = String::new();
    for piece in text.split_inclusive(|c: char| !is_position(c)) {
        let token = piece.trim_end_matches(|c: char| !is_position(c));
        let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit());
        match token.split_once('/') {
            Some((high, low)) if digits(high) && digits(low) => {
                masked.push_str(&"x".repeat(token.len()));
                masked.push_str(&piece[token.len()..]);
            }
            Some(_) | None => masked.push_str(piece),
        }
    }
    masked
}
