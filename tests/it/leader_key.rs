//! Somebody's hand in the leader key: it is deleted, or made to name another member, while all is well.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{Cluster, Outcome, with, with_running};
use pgward_tests::direct::DirectWriters;
use pgward_tests::etcd::KeyLog;
use pgward_tests::process;
use pgward_tests::verdict::{DirectVerdict, interruption};
use pgward_tests::wait::{until, until_true};
use pgward_tests::writers::Writers;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{WHOLE, is_pgward, nothing_lost, only_last_moment_lost, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_key_that_is_deleted_or_replaced_by_its_own_value_comes_back_to_its_owner() -> Outcome {
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let (key, name) = (cluster.key("leader"), cluster.nodes[primary].name().to_owned());
        let postmaster = cluster.nodes[primary].postmaster_pid();
        let writers = Writers::start(cluster).await?;
        let direct = DirectWriters::start(cluster).await?;
        let started = Instant::now();
        for round in 0..6 {
            let log = cluster.etcd.watch(&key).await?;
            match round % 2 {
                0 => cluster.etcd.etcdctl(&["del", &key]).await?,
                _ => cluster.etcd.etcdctl(&["put", &key, &name]).await?,
            };
            // Without a lease it would outlive its owner.
            until_true(WHOLE, async || {
                let changes = log.changes();
                let last = changes.last().context("the key was not touched")?;
                ensure!(last.leased && last.value.as_ref() == Some(&name), "the key's changes: {changes:?}");
                Ok(true)
            })
            .await
            .with_context(|| format!("round {round}"))?;
            writers.wait_for_writes(50, WHOLE).await?;
        }
        ensure!(cluster.at_rest(WHOLE).await? == primary, "the primary changed");
        ensure!(cluster.nodes[primary].postmaster_pid() == postmaster, "PostgreSQL was restarted");
        let writes = nothing_lost(cluster, writers).await?;
        let longest = interruption(&writes, started);
        ensure!(longest < Duration::from_secs(1), "writes were interrupted for {longest:?}");
        exclusive(cluster, direct).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_the_leader_key_is_made_to_name_leads_once_the_old_leader_has_stopped() -> Outcome {
    with_running(three(), async |cluster| {
        let old = cluster.at_rest(WHOLE).await?;
        let named = (old + 1) % 3;
        let writers = Writers::start(cluster).await?;
        let direct = DirectWriters::start(cluster).await?;
        let overwritten = Overwritten::now(cluster, named).await?;
        let new = cluster.new_primary(old, WHOLE).await?;
        if new != named {
            // The third member has received more of the old leader's last moment: then it has to be the one (DCS-E2).
            let log = std::fs::read_to_string(cluster.nodes[named].agent_log())?;
            let (named, new) = (cluster.nodes[named].name(), cluster.nodes[new].name());
            ensure!(log.contains("was made to name this member, which may not lead"), "{new} leads, not {named}");
        }
        overwritten.is_respected_by(cluster, old)?;
        writers.wait_for_writes(50, WHOLE).await?;
        println!("interrupted for {:?}", interruption(&writers.writes(), overwritten.at));
        let last = direct.last_commit_on(old).context("no commit on the old primary")?;
        let first = until(WHOLE, async || Ok(direct.first_commit_on(new, overwritten.at))).await?;
        ensure!(last < first, "the old primary still accepted commits");
        ensure!(cluster.all_streaming(WHOLE).await? == new, "the primary moved on");
        exclusive(cluster, direct).await?;
        only_last_moment_lost(cluster, writers, overwritten.at).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_may_not_lead_gives_up_the_leader_key_that_was_made_to_name_it() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with(three(), async |cluster| {
        cluster.nodes[2].config["tags"] = json!({"nofailover": true});
        for node in [0, 1] {
            cluster.nodes[node].start()?;
        }
        cluster.these_streaming(&[0, 1], WHOLE).await?;
        cluster.nodes[2].start()?;
        let old = cluster.at_rest(WHOLE).await?;
        let direct = DirectWriters::start(cluster).await?;

        let overwritten = Overwritten::now(cluster, 2).await?;
        let now = released_and_taken(cluster, &overwritten, old).await?;
        ensure!(now != 2, "n3 leads, which is tagged nofailover");
        ensure!(cluster.all_streaming(WHOLE).await? == now, "the primary moved on");

        // A replica that has not received for a while, and would take everything since then with it.
        let (old, behind) = (now, 1 - now);
        let receiver = cluster.nodes[behind].socket().query("SELECT pid FROM pg_stat_wal_receiver").await?;
        let receiver = receiver.first().context("no WAL receiver")?.parse()?;
        process::send(receiver, Signal::STOP);
        let rows = "CREATE TABLE bulk AS SELECT repeat('x', 100) FROM generate_series(1, 40000)";
        cluster.nodes[old].socket().query(rows).await?;
        cluster.these_streaming(&[old, 2], WHOLE).await.context("n3 does not receive the rows")?;
        lag_is_published(cluster, behind).await?;
        let overwritten = Overwritten::now(cluster, behind).await?;
        // The one that is tagged nofailover does not stand and the one behind may not: the old leader returns.
        let now = released_and_taken(cluster, &overwritten, old).await?;
        process::send(receiver, Signal::CONT);
        ensure!(now == old, "{} leads, which has not received everything", cluster.nodes[now].name());
        ensure!(cluster.all_streaming(WHOLE).await? == old, "the primary moved on");
        let count = cluster.nodes[old].socket().query("SELECT count(*) FROM bulk").await?;
        ensure!(count == ["40000"], "of 40000 rows there are {count:?}");
        exclusive(cluster, direct).await
    })
    .await
}

/// The moment at which a member's name was written into the leader key, and what became of the key since.
struct Overwritten {
    at: Instant,
    log: KeyLog,
    name: String,
}

impl Overwritten {
    async fn now(cluster: &Cluster, named: usize) -> Result<Self> {
        let (key, name) = (cluster.key("leader"), cluster.nodes[named].name().to_owned());
        let log = cluster.etcd.watch(&key).await?;
        let at = Instant::now();
        cluster.etcd.etcdctl(&["put", &key, &name]).await?;
        until_true(WHOLE, async || Ok(!log.changes().is_empty())).await.context("the watch does not show the key")?;
        Ok(Self { at, log, name })
    }

    /// Since then, the key was the named member's alone until that one released it.
    fn is_respected_by(&self, cluster: &Cluster, old: usize) -> Result<()> {
        let changes = self.log.changes();
        let while_named = changes.iter().take_while(|change| change.value.is_some());
        let strange = while_named.filter(|change| change.value.as_ref() != Some(&self.name)).count();
        ensure!(strange == 0, "{} did not leave the key alone: {changes:?}", cluster.nodes[old].name());
        Ok(())
    }
}

/// Waits until the named member has released the key and somebody has taken it and is primary; returns who.
async fn released_and_taken(cluster: &Cluster, overwritten: &Overwritten, old: usize) -> Result<usize> {
    let gone = async || Ok(overwritten.log.gone_after(overwritten.at));
    until(WHOLE, gone).await.with_context(|| format!("{} keeps the key", overwritten.name))?;
    overwritten.is_respected_by(cluster, old)?;
    until(WHOLE, async || Ok(Some(cluster.primary().await?))).await.context("nobody leads")
}

/// Waits until the store tells that the replica is farther behind than a new leader may be.
async fn lag_is_published(cluster: &Cluster, replica: usize) -> Result<()> {
    until_true(WHOLE, async || {
        let sql = "SELECT pg_last_wal_receive_lsn() - '0/0'";
        let received = cluster.nodes[replica].socket().query(sql).await?;
        let received: u64 = received.first().context("no position")?.parse()?;
        let status = cluster.etcd.get(&cluster.key("status")).await?.context("no status key")?;
        let status: Value = serde_json::from_str(&status)?;
        let leader = status["optime"].as_u64().context("no position of the leader")?;
        Ok(leader > received + 2 * 1_048_576)
    })
    .await
    .context("the lag is not published")
}

async fn exclusive(cluster: &Cluster, direct: DirectWriters) -> Result<()> {
    let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
    println!("{verdict}");
    verdict.is_exclusive()
}
