//! Nodes that must not join: another cluster's data, another member's name.

use std::time::Duration;

use anyhow::{Context, ensure};
use pgward_tests::cluster::{Outcome, Topology, with};
use pgward_tests::process::Spec;

use crate::support::{WHOLE, agent};

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
