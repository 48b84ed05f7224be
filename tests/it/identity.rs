//! Nodes that must not join: another cluster's data, another member's name.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgward_tests::cluster::{Outcome, Topology, with, with_running};
use pgward_tests::direct::DirectWriters;
use pgward_tests::process::Spec;
use pgward_tests::verdict::DirectVerdict;
use pgward_tests::wait::until_true;
use rustix::process::Signal;

use crate::support::{TTL, WHOLE, agent, is_pgward, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_data_and_a_name_in_use_are_refused() -> Outcome {
    with(Topology::of(agent(), 3), async |cluster| {
        cluster.nodes[0].start()?;
        cluster.these_streaming(&[0], WHOLE).await?;

        // n2 finds a data directory that was made for another cluster.
        let machine = cluster.machine().clone();
        let data = cluster.nodes[1].data_dir();
        let initdb = Spec::new(machine.pg_bin.join("initdb"), &cluster.nodes[1].place.dir)
            .user(&machine.user)
            .args(["-A", "trust", "-U", "postgres", "-D"])
            .arg(&data);
        let finished = initdb.run(Duration::from_secs(60)).await?;
        ensure!(finished.status.success(), "initdb: {}", finished.text());
        let control = std::fs::read(data.join("global/pg_control"))?;
        cluster.nodes[1].start()?;
        let status =
            cluster.nodes[1].agent_ended(Duration::from_secs(30)).await.context("foreign data is not refused")?;
        ensure!(!status.success(), "the agent ended with {status}");
        ensure!(std::fs::read(data.join("global/pg_control"))? == control, "the foreign data directory was changed");
        ensure!(cluster.nodes[1].postmaster_pid().is_none(), "PostgreSQL was started on foreign data");
        let said = std::fs::read_to_string(cluster.nodes[1].agent_log())?;
        ensure!(said.to_lowercase().contains("system id"), "the log does not say why:\n{said}");

        // n3 takes the name of n1.
        cluster.nodes[2].config["name"] = serde_json::json!("n1");
        cluster.nodes[2].start()?;
        let status =
            cluster.nodes[2].agent_ended(Duration::from_secs(30)).await.context("a name in use is not refused")?;
        ensure!(!status.success(), "the agent ended with {status}");
        let said = std::fs::read_to_string(cluster.nodes[2].agent_log())?;
        ensure!(said.contains("n1"), "the log does not name the member:\n{said}");
        ensure!(!cluster.nodes[2].data_dir().join("PG_VERSION").exists(), "the second n1 made a data directory");

        ensure!(cluster.primary().await? == 0, "n1 is not the primary any more");
        ensure!(cluster.nodes[0].agent_pid().is_some(), "the agent of n1 ended");
        Ok(())
    })
    .await
}

/// The second agent cannot ask the first whether it lives: the first is stopped while the second starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_members_with_one_name_one_keeps_the_leader_key() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let (second, name) = ((primary + 1) % 3, cluster.nodes[primary].name().to_owned());
        let direct = DirectWriters::start(cluster).await?;
        cluster.nodes[second].stop(WHOLE).await?;
        let log = cluster.etcd.watch(&cluster.key("leader")).await?;
        cluster.nodes[second].config["name"] = serde_json::json!(name);
        cluster.nodes[primary].signal_agent(Signal::STOP);
        let frozen = Instant::now();
        cluster.nodes[second].start()?;
        let log_file = cluster.nodes[second].agent_log();
        let runs = async || Ok(std::fs::read_to_string(&log_file)?.contains(&format!("the agent runs name={name}")));
        let started = until_true(TTL / 2, runs).await;
        cluster.nodes[primary].signal_agent(Signal::CONT);
        started.context("the second agent does not run")?;
        println!("the first agent was stopped for {:?}", frozen.elapsed());

        let told = async || {
            let said = std::fs::read_to_string(cluster.nodes[second].agent_log())?;
            Ok(said.contains("two members have one name"))
        };
        until_true(TTL * 3, told).await.context("the second agent does not say what is wrong")?;
        ensure!(log.changes().is_empty(), "the leader key was touched: {:?}", log.changes());
        let leader = cluster.etcd.get(&cluster.key(&format!("members/{name}"))).await?.context("no record")?;
        let port = cluster.nodes[primary].advertised_port().to_string();
        ensure!(leader.contains(&port), "the record is not that of the leader: {leader}");
        let in_recovery = cluster.nodes[primary].socket().query("SELECT pg_is_in_recovery()").await?;
        ensure!(in_recovery == ["f"], "the leader stepped down");

        // The remedy that the log names.
        cluster.nodes[second].stop(WHOLE).await?;
        cluster.nodes[second].config["name"] = serde_json::json!(format!("n{}", second + 1));
        cluster.nodes[second].start()?;
        ensure!(cluster.all_streaming(WHOLE).await? == primary, "the primary changed");
        let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
        println!("{verdict}");
        verdict.is_exclusive()
    })
    .await
}
