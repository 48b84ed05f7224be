//! The watchdog, with a file in place of a device: this machine has none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgward_tests::cluster::{BOOTSTRAP_LIMIT, Outcome, with};
use pgward_tests::wait::until_true;
use serde_json::json;

use crate::support::{TTL, WHOLE, is_pgward, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_watchdog_is_fed_by_who_leads_and_who_has_none_does_not_lead() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with(three(), async |cluster| {
        let folder = cluster.folder("watchdogs")?;
        let device = |node: usize| folder.join(format!("n{}", node + 1));
        for node in 0..3 {
            if node < 2 {
                fs::write(device(node), "")?;
                fs::set_permissions(device(node), fs::Permissions::from_mode(0o666))?;
            }
            let watchdog = json!({"mode": "required", "driver": "testing", "device": device(node), "safety_margin": 5});
            cluster.nodes[node].config["watchdog"] = watchdog;
            cluster.nodes[node].write_config()?;
        }
        let told = |node: usize| fs::read_to_string(device(node));
        // BOO-11: who has none does not create the cluster either.
        cluster.nodes[2].start()?;
        let failed =
            async |node: usize| Ok(cluster.nodes[node].get("/patroni").await?.json()?["watchdog_failed"] == true);
        until_true(WHOLE, async || failed(2).await).await.context("the missing watchdog does not show")?;
        cluster.nodes[0].start()?;
        cluster.nodes[1].start()?;
        let first = cluster.all_streaming(BOOTSTRAP_LIMIT).await?;
        ensure!(first < 2, "n3 leads without a watchdog");
        // WDG-4: fed again and again, by the primary alone.
        let fed = told(first)?.len();
        until_true(TTL, async || Ok(told(first)?.len() > fed + 1)).await.context("it is not fed")?;
        ensure!(told(1 - first)?.is_empty(), "a replica has started its watchdog: {}", told(1 - first)?);

        // WDG-5, WDG-6: a stop in order ends it, and the next primary starts its own.
        cluster.nodes[first].stop(WHOLE).await?;
        ensure!(told(first)?.ends_with('V'), "it was not stopped: {}", told(first)?);
        let second = cluster.new_primary(first, WHOLE).await?;
        ensure!(second == 1 - first, "n3 leads without a watchdog");
        until_true(WHOLE, async || Ok(!told(second)?.is_empty()))
            .await
            .context("the new primary does not feed its own")?;

        // WDG-7: the last one left does not lead.
        cluster.nodes[second].crash();
        let crashed = Instant::now();
        let watched = async || {
            ensure!(cluster.leader().await? != Some(2), "n3 leads without a watchdog");
            Ok(crashed.elapsed() > TTL + Duration::from_secs(10))
        };
        until_true(TTL * 3, watched).await?;
        ensure!(cluster.leader().await? != Some(2), "n3 leads without a watchdog");
        cluster.nodes[second].start()?;
        until_true(WHOLE, async || Ok(cluster.primary().await? == second))
            .await
            .context("the second one comes back")?;
        Ok(())
    })
    .await
}
