//! A cluster that follows another one.

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{BOOTSTRAP_LIMIT, Cluster, Outcome, Topology, with_running};
use pgward_tests::wait::{until, until_true};
use serde_json::json;

use crate::support::{WHOLE, agent, is_pgward, three};

/// All nodes of a cluster listen on one port, each on its own address: a connection string with several hosts has room for
/// one port only.
fn share_port(cluster: &mut Cluster) -> (String, u16) {
    let port = cluster.nodes[0].place.pg_port;
    for node in &mut cluster.nodes {
        node.place.pg_port = port;
        let address = format!("{}:{port}", node.place.address);
        node.config["postgresql"]["listen"] = json!(address);
        node.config["postgresql"]["connect_address"] = json!(address);
    }
    let hosts: Vec<&str> = cluster.nodes.iter().map(|node| node.place.address.as_str()).collect();
    (hosts.join(","), port)
}

async fn write(cluster: &Cluster, word: &str) -> Result<()> {
    let insert = format!("INSERT INTO said VALUES ('{word}')");
    until_true(WHOLE, async || {
        let primary = cluster.primary().await?;
        cluster.nodes[primary].socket().query(&insert).await?;
        Ok(true)
    })
    .await
    .with_context(|| format!("{word} could not be written"))
}

/// Waits until every node of `standby` has replayed exactly `words`, and is read-only.
async fn all_have(standby: &Cluster, words: &[&str]) -> Result<()> {
    for node in &standby.nodes {
        until_true(WHOLE, async || {
            let have = node.socket().query("SELECT word FROM said ORDER BY word").await?;
            ensure!(have == words, "{} has {have:?}", node.name());
            let in_recovery = node.socket().query("SELECT pg_is_in_recovery()").await?;
            ensure!(in_recovery == ["t"], "INV-S25: {} is writable", node.name());
            Ok(true)
        })
        .await?;
    }
    Ok(())
}

async fn standby_leader(standby: &Cluster) -> Result<usize> {
    until(BOOTSTRAP_LIMIT, async || {
        let leader = standby.leader().await?.context("nobody leads the standby cluster")?;
        for (index, node) in standby.nodes.iter().enumerate() {
            let answers = [("/standby-leader", index == leader), ("/replica", index != leader), ("/primary", false)];
            for (path, wanted) in answers {
                let answer = node.get(path).await?;
                ensure!(
                    (answer.status == 200) == wanted,
                    "FOL-8, FOL-11: {} GET {path}: {} {}",
                    node.name(),
                    answer.status,
                    answer.body
                );
            }
        }
        Ok(Some(leader))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_cluster_follows_another_one_through_its_failovers_and_is_promoted() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    let mut main = Cluster::prepare(three()).await?;
    let (hosts, port) = share_port(&mut main);
    main.start_all()?;
    main.all_streaming(BOOTSTRAP_LIMIT).await?;
    let outcome = follow_and_promote(&mut main, &hosts, port).await;
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => {
            let seen = main.dump().await;
            Err(anyhow::anyhow!("{error:?}\n\n--- the cluster that was followed ---\n{seen}").into())
        }
    }
}

async fn follow_and_promote(main: &mut Cluster, hosts: &str, port: u16) -> Outcome {
    let primary = main.primary().await?;
    main.nodes[primary].socket().query("CREATE TABLE said (word text)").await?;
    write(main, "a").await?;
    let follows = json!({"host": hosts, "port": port});
    let topology = Topology::of(agent(), 2).dynamic("standby_cluster", follows);
    pgward_tests::cluster::with(topology, async |standby| {
        standby.start_all()?;
        let leader = standby_leader(standby).await?;
        all_have(standby, &["a"]).await.context("a copy of the cluster")?;
        let conninfo = standby.nodes[leader].socket().query("SHOW primary_conninfo").await?.join("");
        ensure!(conninfo.contains("target_session_attrs=read-write"), "STB-2: {conninfo}");

        let from = main.primary().await?;
        main.switchover(from, (from + 1) % 3).await?;
        main.all_streaming(WHOLE).await?;
        write(main, "b").await?;
        all_have(standby, &["a", "b"]).await.context("after a switchover")?;

        let old = main.primary().await?;
        main.nodes[old].crash();
        main.new_primary(old, WHOLE).await?;
        write(main, "c").await?;
        all_have(standby, &["a", "b", "c"]).await.context("after a crash of the primary")?;
        main.nodes[old].start()?;

        let leader = standby_leader(standby).await?;
        standby.nodes[leader].crash();
        let other = until(WHOLE, async || Ok(standby.leader().await?.filter(|other| *other != leader))).await?;
        standby.nodes[leader].start()?;
        write(main, "d").await?;
        all_have(standby, &["a", "b", "c", "d"]).await.context("after a crash of the standby leader")?;
        ensure!(standby_leader(standby).await? == other, "STB-1: the leader moved on");

        let refused = standby.nodes[other]
            .patch(
                "/config",
                &json!({"standby_cluster": {
                    "host": standby.nodes[other].place.address, "port": standby.nodes[other].place.pg_port
                }}),
            )
            .await?;
        ensure!(refused.status == 422 && refused.body.contains("STB-2"), "{} {}", refused.status, refused.body);

        let finished = standby.ctl(agent(), &["promote-cluster", "demo", "--force"]).await?;
        ensure!(finished.status.success(), "{}", finished.text());
        let promoted = standby.all_streaming(WHOLE).await.context("promoted")?;
        write(standby, "own").await?;

        let port = port.to_string();
        let args = ["demote-cluster", "demo", "--host", hosts, "--port", &port, "--force"];
        let finished = standby.ctl(agent(), &args).await?;
        ensure!(finished.status.success(), "{}", finished.text());
        write(main, "e").await?;
        all_have(standby, &["a", "b", "c", "d", "e"])
            .await
            .context("RWD-9: follows again, without what only it had")?;
        ensure!(standby_leader(standby).await? == promoted, "DEM-10: the key was given up");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_cluster_becomes_a_standby_of_an_archive_and_back() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(Topology::of(agent(), 2), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        cluster.nodes[primary].socket().query("CREATE TABLE said (word text); INSERT INTO said VALUES ('a')").await?;
        let archive = cluster.folder("archive")?;
        let restore = format!("cp {}/%f %p", archive.display());
        cluster.set_dynamic(&[("standby_cluster", json!({"restore_command": restore}))]).await?;
        all_have(cluster, &["a"]).await.context("a standby of an archive")?;
        standby_leader(cluster).await?;
        for node in &cluster.nodes {
            let command = node.socket().query("SHOW restore_command").await?;
            ensure!(command == [restore.clone()], "NTF-6: {} has {command:?}", node.name());
        }
        cluster.set_dynamic(&[("standby_cluster", json!(null))]).await?;
        let again = cluster.all_streaming(WHOLE).await?;
        ensure!(again == primary, "the leader moved");
        cluster.nodes[again].socket().query("INSERT INTO said VALUES ('b')").await?;
        until_true(WHOLE, async || {
            let command = cluster.nodes[again].socket().query("SHOW restore_command").await?;
            ensure!(command == [""], "the archive is still {command:?}");
            Ok(true)
        })
        .await?;
        Ok(())
    })
    .await
}
