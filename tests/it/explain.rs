//! What the members say about their decisions, held against what happens then.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{BOOTSTRAP_LIMIT, Cluster, Outcome, with};
use pgward_tests::node::{Agent, Node, REST_AUTH};
use pgward_tests::sql::SUPERUSER_PASSWORD;
use pgward_tests::wait::until_true;
use serde_json::{Value, json};

use crate::support::{TTL, WHOLE, is_pgward, three};

/// What a command of ctl printed.
async fn ctl(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let finished = cluster.ctl(Agent::Pgward, arguments).await?;
    ensure!(finished.status.success(), "{arguments:?}: {} {}", finished.stdout, finished.stderr);
    Ok(finished.stdout)
}

/// The decisions of a member, taken again by the executable: none may differ, and none may hold a password.
async fn replays(node: &Node) -> Result<()> {
    let file = node.place.dir.join("data.decisions");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    for secret in [SUPERUSER_PASSWORD, "rep-secret", "rewind-secret", REST_AUTH.1] {
        ensure!(!text.contains(secret), "{} holds the password {secret}", file.display());
    }
    let finished = node.command().arg("replay").arg(&file).run(Duration::from_secs(30)).await?;
    println!("{}: {}", node.name(), finished.stdout.lines().last().unwrap_or_default());
    ensure!(finished.status.success(), "replay of {}: {} {}", file.display(), finished.stdout, finished.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_promoted_was_foretold_with_the_reasons_of_the_others() -> Outcome {
    if !is_pgward() {
        return Ok(());
    }
    with(three(), async |cluster| {
        cluster.nodes[2].config["tags"] = json!({"nofailover": true});
        cluster.start_all()?;
        cluster.all_streaming(BOOTSTRAP_LIMIT).await?;
        let leader = cluster.at_rest(WHOLE).await?;
        let heir = 1 - leader;
        let (old, new) = (cluster.nodes[leader].name().to_owned(), cluster.nodes[heir].name().to_owned());

        let explained = ctl(cluster, &["explain"]).await?;
        println!("{explained}");
        ensure!(explained.contains(&format!("{old} leads")), "{explained}");
        ensure!(explained.contains(&format!("  {new}  would be promoted, after at most 20 s")), "{explained}");
        ensure!(
            explained.contains("  n3  would not: this member is tagged nofailover [HLT-7, INV-S24]"),
            "{explained}"
        );
        let trial = ctl(cluster, &["what-if", "--lose", &old]).await?;
        println!("{trial}");
        let foretold: Value = serde_json::from_str(&ctl(cluster, &["what-if", "--lose", &old, "-f", "json"]).await?)?;
        ensure!(foretold["outcome"]["primary"] == new.as_str(), "{foretold}");
        ensure!(foretold["outcome"]["verdicts"]["n3"]["does_not"] == "NoFailover", "{foretold}");

        cluster.nodes[leader].crash();
        let promoted = cluster.new_primary(leader, TTL + Duration::from_secs(20)).await?;
        ensure!(promoted == heir, "{} was promoted, {new} was foretold", cluster.nodes[promoted].name());
        cluster.nodes[leader].start()?;
        cluster.all_streaming(WHOLE).await?;

        until_true(WHOLE, async || {
            let metrics = cluster.nodes[heir].get("/metrics").await?.body;
            let took_over = format!(r#"pgward_leader_changes_total{{scope="demo",name="{new}",kind="failover"}} 1"#);
            ensure!(metrics.contains(&took_over), "{metrics}");
            ensure!(metrics.contains(r#"phase="followed"}"#), "{metrics}");
            let refusals = cluster.nodes[2].get("/metrics").await?.body;
            ensure!(refusals.contains(r#"pgward_refusals_total{scope="demo",name="n3",rule="HLT-7"} 1"#), "{refusals}");
            Ok(true)
        })
        .await?;
        let archive = cluster.dir().join("report.tar.gz").display().to_string();
        let report = ctl(cluster, &["report", "-o", &archive]).await?;
        println!("{report}");
        ensure!(report.contains(&format!("failover from {old} to {new}, timeline 2")), "{report}");
        for node in &cluster.nodes {
            replays(node).await?;
        }
        Ok(())
    })
    .await
}
