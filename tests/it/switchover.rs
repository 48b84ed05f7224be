//! Planned changes of the primary.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{Outcome, with_running};
use pgward_tests::direct::DirectWriters;
use pgward_tests::http::Request;
use pgward_tests::verdict::{DirectVerdict, interruption};
use pgward_tests::writers::Writers;
use serde_json::{Value, json};

use crate::support::{WHOLE, agent, nothing_lost, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_moves_the_primary_and_loses_nothing() -> Outcome {
    with_running(three(), async |cluster| {
        let first = cluster.at_rest(WHOLE).await?;
        let (second, third) = ((first + 1) % 3, (first + 2) % 3);
        let writers = Writers::start(cluster).await?;
        let direct = DirectWriters::start(cluster).await?;

        let asked = Instant::now();
        let text = cluster.switchover(first, second).await?;
        let expected = format!("Successfully switched over to \"{}\"", cluster.nodes[second].name());
        ensure!(text == expected, "the answer is {text:?}");
        let now = cluster.these_streaming(&[first, second, third], WHOLE).await?;
        ensure!(now == second, "the primary is {}", cluster.nodes[now].name());
        println!("by REST: interrupted for {:?}", interruption(&writers.writes(), asked));

        let asked = Instant::now();
        let (from, to) = (cluster.nodes[second].name(), cluster.nodes[third].name());
        let args = ["switchover", "demo", "--leader", from, "--candidate", to, "--force"];
        let finished = cluster.ctl(agent(), &args).await?;
        ensure!(
            finished.status.success() && finished.text().contains("Successfully switched over"),
            "{}",
            finished.text()
        );
        let now = cluster.all_streaming(WHOLE).await?;
        ensure!(now == third, "the primary is {}", cluster.nodes[now].name());
        println!("by ctl: interrupted for {:?}", interruption(&writers.writes(), asked));

        let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
        println!("{verdict}");
        verdict.is_exclusive()?;
        ensure!(verdict.lost == 0, "{verdict}");
        nothing_lost(cluster, writers).await?;
        history_names_the_new_leaders(cluster, &[second, third]).await
    })
    .await
}

async fn history_names_the_new_leaders(cluster: &pgward_tests::cluster::Cluster, leaders: &[usize]) -> Result<()> {
    let want: Vec<&str> = leaders.iter().map(|l| cluster.nodes[*l].name()).collect();
    pgward_tests::wait::until_true(Duration::from_secs(20), async || {
        let text = cluster.etcd.get(&cluster.key("history")).await?.context("no history key")?;
        let history: Value = serde_json::from_str(&text)?;
        let names: Vec<&str> = history.as_array().into_iter().flatten().filter_map(|line| line[4].as_str()).collect();
        ensure!(names == want, "history is {history}");
        Ok(true)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_that_cannot_work_is_refused_and_nothing_moves() -> Outcome {
    with_running(three(), async |cluster| {
        let primary = cluster.at_rest(WHOLE).await?;
        let (leader, other) = (cluster.nodes[primary].name(), cluster.nodes[(primary + 1) % 3].name());
        for (body, code, text) in [
            (json!({"leader": other, "candidate": leader}), 412, "leader name does not match"),
            (json!({"leader": leader, "candidate": leader}), 400, "Switchover target and source are the same"),
            (json!({"leader": leader, "candidate": "nobody"}), 412, "candidate does not exists"),
            (json!({"candidate": other}), 400, "Switchover could be performed only from a specific leader"),
        ] {
            let answer = cluster.nodes[primary].post("/switchover", &body, Duration::from_secs(30)).await?;
            ensure!(answer.status == code && answer.body == text, "{body}: {} {:?}", answer.status, answer.body);
        }
        let (address, body) = (cluster.nodes[primary].rest_address(), json!({"leader": leader, "candidate": other}));
        let plain = Request { method: "POST", json: Some(&body), ..Request::get(&address, "/switchover") };
        let answer = plain.send(Duration::from_secs(30)).await?;
        ensure!(answer.status == 401, "without credentials: {} {}", answer.status, answer.body);
        ensure!(cluster.primary().await? == primary, "the primary changed");

        // One that is due at once is carried out by itself.
        let now = in_five_seconds();
        let body = json!({"leader": leader, "candidate": other, "scheduled_at": now});
        let answer = cluster.nodes[primary].post("/switchover", &body, Duration::from_secs(30)).await?;
        ensure!(answer.status == 202 && answer.body == "Switchover scheduled", "{} {}", answer.status, answer.body);
        let new = cluster.new_primary(primary, Duration::from_secs(40)).await?;
        ensure!(cluster.nodes[new].name() == other, "the primary is {}", cluster.nodes[new].name());
        cluster.all_streaming(WHOLE).await.map(drop)
    })
    .await
}

/// Five seconds from now, in ISO 8601 with a zone.
fn in_five_seconds() -> String {
    let seconds = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() + 5;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date, by counting eras of 400 years from 0000-03-01.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}+00:00", rest / 3600, rest / 60 % 60, rest % 60)
}
