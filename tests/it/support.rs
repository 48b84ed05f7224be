//! What the tests share.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgward_tests::cluster::{Cluster, Topology};
use pgward_tests::node::Agent;
use pgward_tests::verdict::Verdict;
use pgward_tests::writers::{Write, Writers};

/// The lease of the test clusters.
pub(crate) const TTL: Duration = Duration::from_secs(20);
/// How long a cluster may take to be whole again after whatever was done to it.
pub(crate) const WHOLE: Duration = Duration::from_secs(90);

/// The agent to test.
pub(crate) fn agent() -> Agent {
    match std::env::var("PGWARD_TEST_AGENT").as_deref() {
        Ok("patroni") => Agent::Patroni,
        _ => Agent::Pgward,
    }
}

/// False, with a line that says so, when a test of pgward's own behaviour is asked to run with another agent.
pub(crate) fn is_pgward() -> bool {
    let own = agent() == Agent::Pgward;
    if !own {
        println!("left out: this is not expected of {}", agent());
    }
    own
}

/// Three nodes and one etcd member.
pub(crate) fn three() -> Topology {
    Topology::of(agent(), 3)
}

/// Stops the writers; nothing that they were promised may be lost or doubled.
pub(crate) async fn nothing_lost(cluster: &Cluster, writers: Writers) -> Result<Vec<Write>> {
    let writes = writers.stop().await;
    let verdict = Verdict::of(cluster, &writes).await?;
    println!("{verdict}");
    verdict.is_clean()?;
    Ok(writes)
}

/// Stops the writers. With asynchronous replication a crash may lose what was acknowledged in its last moment, and
/// nothing else; nothing may be doubled.
pub(crate) async fn only_last_moment_lost(cluster: &Cluster, writers: Writers, crash: Instant) -> Result<()> {
    let writes = writers.stop().await;
    let verdict = Verdict::of(cluster, &writes).await?;
    println!("{verdict}");
    ensure!(verdict.doubled == 0 && verdict.acked > 0, "{verdict}");
    let lost = writes.iter().filter(|w| verdict.lost.contains(&w.id));
    for write in lost {
        let before = write.acked.map_or(Duration::ZERO, |acked| crash.saturating_duration_since(acked));
        ensure!(
            before < Duration::from_millis(500),
            "a write acknowledged {before:?} before the crash is lost: {verdict}"
        );
    }
    Ok(())
}
