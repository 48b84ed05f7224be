//! Long rounds of everything, for `make soak`.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgward_tests::cluster::{Outcome, with_running};
use pgward_tests::direct::DirectWriters;
use pgward_tests::verdict::DirectVerdict;
use pgward_tests::writers::Writers;
use rustix::process::Signal;

use crate::support::{TTL, WHOLE, is_pgward, three};

/// Faults in an order that differs from round to round, for `PGWARD_SOAK_MINUTES` (default 60).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an hour: make soak"]
async fn a_cluster_survives_an_hour_of_everything() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    let minutes = std::env::var("PGWARD_SOAK_MINUTES").ok().and_then(|m| m.parse().ok()).unwrap_or(60);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    with_running(three().etcd(3), async |cluster| {
        let mut round = 0_usize;
        while Instant::now() < end {
            let primary = cluster.at_rest(WHOLE * 2).await.with_context(|| format!("before round {round}"))?;
            let writers = Writers::start(cluster).await?;
            let direct = DirectWriters::start(cluster).await?;
            let (node, fault) = ((primary + round / 6) % 3, round % 6);
            println!("round {round}: fault {fault} on n{}, primary n{}", node + 1, primary + 1);
            match fault {
                0 => drop(cluster.switchover(primary, (primary + 1) % 3).await?),
                1 => cluster.nodes[node].kill_postmaster()?,
                2 => {
                    cluster.nodes[node].crash();
                    writers.wait_for_writes(200, WHOLE).await?;
                    cluster.nodes[node].start()?;
                }
                3 => {
                    cluster.nodes[node].signal_agent(Signal::STOP);
                    let frozen = Instant::now();
                    pgward_tests::wait::until_true(TTL * 3, async || Ok(frozen.elapsed() > TTL + TTL / 4)).await?;
                    cluster.nodes[node].signal_agent(Signal::CONT);
                }
                4 => {
                    cluster.nodes[node].kill_agent();
                    cluster.nodes[node].start()?;
                }
                _ => {
                    cluster.etcd.kill_member(node);
                    writers.wait_for_writes(500, WHOLE).await?;
                    cluster.etcd.start_member(node)?;
                }
            }
            writers.wait_for_writes(200, WHOLE).await.with_context(|| format!("round {round}"))?;
            cluster.all_streaming(WHOLE * 2).await.with_context(|| format!("round {round}"))?;
            let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
            verdict.is_exclusive().with_context(|| format!("round {round}"))?;
            let writes = writers.stop().await;
            let seen = pgward_tests::verdict::Verdict::of(cluster, &writes).await?;
            println!("  {seen}; {verdict}");
            ensure!(seen.doubled == 0, "round {round}: {seen}");
            ensure!(!matches!(fault, 0 | 4 | 5) || seen.lost.is_empty(), "round {round}: {seen}");
            round += 1;
        }
        println!("{round} rounds");
        Ok(())
    })
    .await
}
