//! Seeded faults of every kind on a cluster of three, while clients append to lists.

use std::time::Duration;

use pgward_tests::chaos::{Settings, run};
use pgward_tests::cluster::Outcome;

use crate::support::is_pgward;

/// The seed of the short run: its schedule has more kinds of faults on the primary than others of two minutes.
const SEED: u64 = 228;

fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("left out: network namespaces need root");
    }
    root && is_pgward()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a machine that does nothing else: make soak"]
async fn two_minutes_of_chaos_show_no_anomaly() -> Outcome {
    if !can_run() {
        return Ok(());
    }
    run(Settings::from_environment(SEED, Duration::from_secs(120))?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes: make soak"]
async fn ten_minutes_of_chaos_show_no_anomaly() -> Outcome {
    if !can_run() {
        return Ok(());
    }
    // A seed of its own for every day, printed at the beginning.
    let days = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() / 86_400;
    run(Settings::from_environment(days, Duration::from_secs(600))?).await
}
