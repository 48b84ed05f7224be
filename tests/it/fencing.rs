//! PostgreSQL stops accepting commits before anyone else may take over, whatever happens to its agent.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgward_tests::cluster::{Outcome, Topology, with_running};
use pgward_tests::direct::DirectWriters;
use pgward_tests::node::Agent;
use pgward_tests::verdict::{DirectVerdict, interruption};
use pgward_tests::wait::{until, until_true};
use pgward_tests::writers::Writers;
use rustix::process::Signal;

use crate::support::{TTL, WHOLE, is_pgward, nothing_lost, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_agent_leaves_no_second_primary() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        let old = cluster.at_rest(WHOLE).await?;
        let log = cluster.etcd.watch(&cluster.key("leader")).await?;
        let direct = DirectWriters::start(cluster).await?;
        let frozen = Instant::now();
        cluster.nodes[old].signal_agent(Signal::STOP);
        let new = cluster.new_primary(old, TTL + Duration::from_secs(20)).await?;
        let gone = log.gone_after(frozen).context("the leader key was never gone")?;
        let last = direct.last_commit_on(old).context("no commit on the old primary")?;
        let first = until(WHOLE, async || Ok(direct.first_commit_on(new, frozen))).await?;
        println!(
            "last commit {:?}, lease over {:?}, first commit {:?}",
            last - frozen,
            gone.at - frozen,
            first - frozen
        );
        ensure!(last < gone.at, "the old primary acknowledged a commit after its lease");
        ensure!(cluster.nodes[old].postmaster_pid().is_none(), "the old primary's PostgreSQL still runs");

        cluster.nodes[old].signal_agent(Signal::CONT);
        cluster.all_streaming(WHOLE).await?;
        let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
        println!("{verdict}");
        verdict.is_exclusive()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_restarted_inside_its_lease_goes_unnoticed_and_one_that_stays_away_is_fenced() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let postmaster = cluster.nodes[primary].postmaster_pid();
        let writers = Writers::start(cluster).await?;
        let killed = Instant::now();
        cluster.nodes[primary].kill_agent();
        writers.wait_for_writes(300, WHOLE).await?;
        cluster.nodes[primary].start()?;
        cluster.at_rest(WHOLE).await?;
        // The lease of the killed agent has run out by then: the new one must have renewed it.
        let past = async || Ok(killed.elapsed() > TTL + Duration::from_secs(3));
        until_true(TTL * 2, past).await?;
        ensure!(cluster.primary().await? == primary, "the primary moved");
        ensure!(cluster.nodes[primary].postmaster_pid() == postmaster, "PostgreSQL was restarted");
        let writes = nothing_lost(cluster, writers).await?;
        let failed = writes.iter().filter(|w| w.acked.is_none()).count();
        let longest = interruption(&writes, killed);
        println!("{failed} failed writes, longest interruption {longest:?}");
        // One write of each writer may be on its way when they are stopped; those are not recorded.
        ensure!(failed == 0 && longest < Duration::from_secs(1), "{failed} failed writes, interrupted for {longest:?}");

        let log = cluster.etcd.watch(&cluster.key("leader")).await?;
        let direct = DirectWriters::start(cluster).await?;
        let killed = Instant::now();
        cluster.nodes[primary].kill_agent();
        let fenced = async || Ok(cluster.nodes[primary].postmaster_pid().is_none().then(Instant::now));
        let fenced = until(TTL + Duration::from_secs(5), fenced).await.context("PostgreSQL was not fenced")?;
        let gone = until(TTL * 2, async || Ok(log.gone_after(killed))).await.context("the leader key stays")?;
        println!("fenced after {:?}, lease over after {:?}", fenced - killed, gone.at - killed);
        ensure!(fenced < gone.at, "PostgreSQL was fenced after the lease was over");
        cluster.new_primary(primary, WHOLE).await?;
        cluster.nodes[primary].start()?;
        cluster.all_streaming(WHOLE).await?;
        let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
        println!("{verdict}");
        verdict.is_exclusive()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_fencer_is_replaced_or_the_primary_steps_down() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let fencers = cluster.nodes[primary].fencer_pids();
        ensure!(fencers.len() == 1, "the primary has fencers {fencers:?}");
        let writers = Writers::start(cluster).await?;
        for pid in &fencers {
            pgward_tests::process::send(*pid, Signal::KILL);
        }
        let replaced = async || {
            let now = cluster.nodes[primary].fencer_pids();
            let leader = cluster.leader().await?;
            Ok((now.len() == 1 && now != fencers) || leader != Some(primary))
        };
        until_true(Duration::from_secs(10), replaced).await.context("the primary goes on without a fencer")?;

        // The new one is armed: it does its duty when the agent is frozen next.
        let primary = cluster.at_rest(WHOLE).await?;
        nothing_lost(cluster, writers).await?;
        let direct = DirectWriters::start(cluster).await?;
        cluster.nodes[primary].signal_agent(Signal::STOP);
        let fenced = async || Ok(cluster.nodes[primary].postmaster_pid().is_none());
        until_true(TTL + Duration::from_secs(5), fenced).await.context("the new fencer did not fence")?;
        cluster.new_primary(primary, WHOLE).await?;
        cluster.nodes[primary].signal_agent(Signal::CONT);
        cluster.all_streaming(WHOLE).await?;
        let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
        println!("{verdict}");
        verdict.is_exclusive()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_comes_back_without_a_store_and_a_fencer_leaves_no_primary_that_nobody_can_prove() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(Topology::of(Agent::Pgward, 1), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        cluster.nodes[primary].kill_agent();
        for pid in cluster.nodes[primary].fencer_pids() {
            pgward_tests::process::send(pid, Signal::KILL);
        }
        cluster.etcd.kill_member(0);
        ensure!(cluster.nodes[primary].postmaster_pid().is_some(), "PostgreSQL ended with its agent");
        cluster.nodes[primary].start()?;
        let socket = cluster.nodes[primary].socket();
        let read_only = async || {
            let answer = socket.query("SELECT pg_is_in_recovery()").await;
            Ok(answer.is_ok_and(|rows| rows == ["t"]))
        };
        until_true(TTL + Duration::from_secs(10), read_only).await.context("the primary goes on")?;
        cluster.etcd.start_member(0)?;
        cluster.at_rest(WHOLE).await.context("it does not lead again when the store is back").map(drop)
    })
    .await
}
