//! Mistakes that people make: each is answered by a text that names the thing, and nothing is harmed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{Cluster, Outcome, Topology, with, with_running};
use pgward_tests::node::{Agent, Node};
use pgward_tests::process::Finished;
use pgward_tests::wait::{until, until_true};
use pgward_tests::yaml::to_yaml;
use serde_json::{Value, json};

use crate::support::{WHOLE, is_pgward};

/// How long the agent may take to complain.
const COMPLAINS: Duration = Duration::from_secs(20);

fn one() -> Topology {
    Topology::of(Agent::Pgward, 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_with_mistakes_is_refused_with_every_mistake_named() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with(one(), async |cluster| {
        let good = cluster.nodes[0].config.clone();
        let finished = validate(cluster, &to_yaml(&good), 0o600).await?;
        ensure!(finished.status.success(), "a good file is refused: {}", finished.text());

        let broken = |change: fn(&mut Value)| {
            let mut config = good.clone();
            change(&mut config);
            to_yaml(&config)
        };
        for (name, text, wants) in [
            ("an empty file", String::new(), &["scope", "name"][..]),
            ("not a mapping", "- scope\n- name\n".to_owned(), &["check.yml"]),
            ("malformed", "scope: demo\nname: [n1\npostgresql:\n  listen: }\n".to_owned(), &["check.yml:"]),
            ("a tab", "scope: demo\npostgresql:\n\tlisten: x\n".to_owned(), &["check.yml:3"]),
            ("a missing name", broken(|c| drop(c.as_object_mut().map(|m| m.remove("name")))), &["name"]),
            ("no store", broken(|c| drop(c.as_object_mut().map(|m| m.remove("etcd3")))), &["etcd3"]),
            ("a store we do not have", broken(|c| c["consul"] = c["etcd3"].take()), &["consul"]),
            ("a port that is none", broken(|c| c["restapi"]["listen"] = json!("127.0.0.1:99999")), &["restapi.listen"]),
            ("a wrong type", broken(|c| c["postgresql"]["parameters"] = json!([1])), &["postgresql.parameters"]),
            (
                "contradictory tags",
                broken(|c| c["tags"] = json!({"nofailover": true, "failover_priority": 3})),
                &["failover_priority"],
            ),
            (
                "programs that are not there",
                broken(|c| c["postgresql"]["bin_dir"] = json!("/nonexistent")),
                &["postgresql.bin_dir", "/nonexistent"],
            ),
            (
                "three mistakes at once",
                broken(|c| {
                    c["bootstrap"]["dcs"]["ttl"] = json!("soon");
                    c["postgresql"]["listen"] = json!("");
                    c["restapi"]["authentication"] = json!({"username": "admin"});
                }),
                &["ttl", "postgresql.listen", "restapi.authentication"],
            ),
        ] {
            let finished = validate(cluster, &text, 0o600).await?;
            let said = finished.text();
            ensure!(!finished.status.success(), "{name}: accepted: {said}");
            ensure!(!said.contains("panicked"), "{name}: {said}");
            for want in wants {
                ensure!(said.contains(want), "{name}: {want:?} is not named in: {said}");
            }
        }
        if cluster.machine().user.switch {
            let finished = validate(cluster, &to_yaml(&good), 0o000).await?;
            let said = finished.text();
            ensure!(!finished.status.success() && said.contains("check.yml"), "an unreadable file: {said}");
        }
        Ok(())
    })
    .await
}

async fn validate(cluster: &Cluster, text: &str, mode: u32) -> Result<Finished> {
    let file = cluster.nodes[0].place.dir.join("check.yml");
    fs::write(&file, text)?;
    let user = &cluster.machine().user;
    if user.switch && mode != 0 {
        chown(&file, Some(user.uid), Some(user.gid))?;
    } else if user.switch {
        chown(&file, Some(0), Some(0))?;
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    let command = cluster.nodes[0].command().args(["agent", "--validate-config"]).arg(&file);
    command.run(Duration::from_secs(20)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_cannot_be_used_is_left_alone() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with_running(one(), async |cluster| {
        cluster.nodes[0].stop(Duration::from_secs(30)).await?;
        let (data, user) = (cluster.nodes[0].data_dir(), cluster.machine().user.clone());

        let version = fs::read_to_string(data.join("PG_VERSION"))?;
        fs::write(data.join("PG_VERSION"), "9\n")?;
        complains(cluster, &["version"]).await.context("data of PostgreSQL 9")?;
        fs::write(data.join("PG_VERSION"), version)?;

        if user.switch {
            chown(&data, Some(65_534), Some(65_534))?;
            complains(cluster, &[data.to_str().context("path")?]).await.context("data of another user")?;
            ensure!(data.join("PG_VERSION").is_file(), "the data directory was wiped");
            chown(&data, Some(user.uid), Some(user.gid))?;
        }

        let programs = cluster.nodes[0].config["postgresql"]["bin_dir"].take();
        cluster.nodes[0].config["postgresql"]["bin_dir"] = json!("/nonexistent");
        complains(cluster, &["/nonexistent"]).await.context("no programs")?;
        cluster.nodes[0].config["postgresql"]["bin_dir"] = programs;

        // With everything right again, the data is still there.
        cluster.nodes[0].start()?;
        cluster.all_streaming(WHOLE).await.map(drop)
    })
    .await
}

/// Starts the agent, waits until its log names all of `wants`, and ends it; it must not have wiped or panicked.
async fn complains(cluster: &mut Cluster, wants: &[&str]) -> Result<()> {
    let _ = fs::remove_file(cluster.nodes[0].agent_log());
    cluster.nodes[0].start()?;
    says(&cluster.nodes[0], wants).await?;
    cluster.nodes[0].crash();
    let kept = cluster.nodes[0].data_dir().join("global/pg_control");
    ensure!(kept.is_file(), "the data directory was wiped");
    Ok(())
}

/// Waits until the agent's log holds all of `wants`, in whatever case.
async fn says(node: &Node, wants: &[&str]) -> Result<()> {
    let said = async || {
        let text = read(&node.agent_log()).to_lowercase();
        ensure!(!text.contains("panicked"), "{text}");
        let missing = wants.iter().find(|want| !text.contains(&want.to_lowercase()));
        ensure!(missing.is_none(), "{missing:?} is not said");
        Ok(true)
    };
    until_true(COMPLAINS, said).await.with_context(|| format!("the agent of {} does not say {wants:?}", node.name()))
}

fn read(file: &Path) -> String {
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_ports_and_a_store_that_is_away_are_named() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with(one(), async |cluster| {
        // The port of REST: the agent cannot do its work and ends.
        let (address, port) = (cluster.nodes[0].place.address.clone(), cluster.nodes[0].place.rest_port);
        let occupied = std::net::TcpListener::bind((address.as_str(), port))?;
        cluster.nodes[0].start()?;
        let status = cluster.nodes[0].agent_ended(COMPLAINS).await.context("a busy REST port")?;
        let said = read(&cluster.nodes[0].agent_log());
        ensure!(!status.success() && said.contains(&port.to_string()), "a busy REST port: {status}: {said}");
        drop(occupied);

        // The store is away: one clear line, and the agent keeps trying.
        cluster.etcd.kill_member(0);
        let _ = fs::remove_file(cluster.nodes[0].agent_log());
        cluster.nodes[0].start()?;
        let endpoint = cluster.etcd.endpoints().remove(0);
        says(&cluster.nodes[0], &[&endpoint]).await?;
        let started = Instant::now();
        until_true(WHOLE, async || Ok(started.elapsed() > Duration::from_secs(12))).await?;
        ensure!(cluster.nodes[0].agent_pid().is_some(), "the agent gave up");
        let lines = read(&cluster.nodes[0].agent_log()).lines().count();
        ensure!(lines < 20, "{lines} lines in the log after some seconds without a store");
        // It comes back, and the port of PostgreSQL is busy.
        let occupied = std::net::TcpListener::bind((address.as_str(), cluster.nodes[0].place.pg_port))?;
        cluster.etcd.start_member(0)?;
        says(&cluster.nodes[0], &["address already in use"]).await.context("a busy PostgreSQL port")?;
        drop(occupied);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_are_named_and_do_no_harm() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with(Topology::of(Agent::Pgward, 2), async |cluster| {
        cluster.nodes[0].start()?;
        cluster.these_streaming(&[0], WHOLE).await?;
        let good = cluster.nodes[1].config["postgresql"]["authentication"].clone();

        // A replica that cannot clone for want of the right password keeps trying.
        cluster.nodes[1].config["postgresql"]["authentication"]["replication"]["password"] = json!("wrong");
        cluster.nodes[1].start()?;
        says(&cluster.nodes[1], &["password authentication failed", "replicator"]).await?;
        ensure!(cluster.nodes[1].agent_pid().is_some(), "the agent gave up");
        cluster.nodes[1].stop(Duration::from_secs(30)).await?;
        cluster.nodes[1].config["postgresql"]["authentication"] = good;
        cluster.nodes[1].start()?;
        cluster.all_streaming(WHOLE).await.context("with the right password")?;

        // An agent that is locked out of its own running primary says so.
        cluster.nodes[0].kill_agent();
        let _ = fs::remove_file(cluster.nodes[0].agent_log());
        let good = cluster.nodes[0].config["postgresql"]["authentication"].clone();
        cluster.nodes[0].config["postgresql"]["authentication"]["superuser"]["password"] = json!("wrong");
        cluster.nodes[0].start()?;
        says(&cluster.nodes[0], &["password authentication failed", "postgres"]).await?;
        cluster.nodes[0].kill_agent();
        cluster.nodes[0].config["postgresql"]["authentication"] = good;
        cluster.nodes[0].start()?;
        until(WHOLE, async || cluster.primary().await.map(Some)).await?;
        cluster.all_streaming(WHOLE).await.map(drop)
    })
    .await
}
