//! A slow archive keeps nobody waiting: the successor leads while the old primary still archives.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgward_tests::cluster::{Outcome, with};
use pgward_tests::direct::DirectWriters;
use pgward_tests::node::Node;
use pgward_tests::verdict::{DirectVerdict, interruption};
use pgward_tests::wait::until_true;
use pgward_tests::writers::Writers;
use serde_json::json;

use crate::support::{TTL, WHOLE, nothing_lost, three};

/// The size of a WAL segment, unless initdb is told otherwise.
const SEGMENT_BYTES: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_does_not_wait_for_an_archiver_that_hangs() -> Outcome {
    with(three(), async |cluster| {
        let archive = cluster.folder("archive")?;
        let hold = cluster.dir().join("hold");
        for node in &mut cluster.nodes {
            let parameters = &mut node.config["postgresql"]["parameters"];
            parameters["archive_mode"] = json!("on");
            let waits = format!("while test -e {}; do sleep 0.1; done", hold.display());
            parameters["archive_command"] = json!(format!("{waits}; cp %p {}/%f", archive.display()));
        }
        cluster.start_all()?;
        let old = cluster.at_rest(WHOLE).await?;
        let (new, third) = ((old + 1) % 3, (old + 2) % 3);
        let writers = Writers::start(cluster).await?;
        let direct = DirectWriters::start(cluster).await?;

        std::fs::write(&hold, "")?;
        let asked = Instant::now();
        cluster.switchover(old, new).await?;
        let released = Instant::now();
        ensure!(cluster.these_streaming(&[new, third], WHOLE).await? == new, "the primary is another one");
        writers.wait_for_writes(50, WHOLE).await?;
        let longest = interruption(&writers.writes(), asked);
        println!("switched over in {:?}, interrupted for {longest:?}", released - asked);
        ensure!(longest < Duration::from_secs(5), "writes were interrupted for {longest:?}");

        // Nothing can write there any more, so nobody may kill what archives: its segment exists nowhere else.
        let postmaster =
            cluster.nodes[old].postmaster_pid().context("the old primary did not wait for its archiver")?;
        let past_the_lease = async || {
            let now = cluster.nodes[old].postmaster_pid();
            ensure!(now == Some(postmaster), "the postmaster of the old primary was {postmaster}, now {now:?}");
            Ok(released.elapsed() > TTL + Duration::from_secs(3))
        };
        until_true(TTL * 2, past_the_lease).await?;

        std::fs::remove_file(&hold)?;
        ensure!(cluster.all_streaming(WHOLE).await? == new, "the primary moved on");
        let verdict = DirectVerdict::of(cluster, &direct.stop().await).await?;
        println!("{verdict}");
        verdict.is_exclusive()?;
        ensure!(verdict.lost == 0, "{verdict}");
        nothing_lost(cluster, writers).await?;
        first_timeline_is_archived(&cluster.nodes[new], &archive)
    })
    .await
}

/// Every segment that was complete when the first timeline ended is in the archive.
fn first_timeline_is_archived(primary: &Node, archive: &Path) -> Result<()> {
    let history = std::fs::read_to_string(primary.data_dir().join("pg_wal/00000002.history"))?;
    let switch = history.split_whitespace().nth(1).context("no position in the history")?;
    let (high, low) = switch.split_once('/').with_context(|| format!("{switch:?} is no position"))?;
    let switch_byte = (u64::from_str_radix(high, 16)? << 32) + u64::from_str_radix(low, 16)?;
    let last = switch_byte / SEGMENT_BYTES;
    ensure!(last > 1, "the first timeline filled no segment: the check proves nothing");
    for segment in 1..last {
        let name = format!("0000000100000000{segment:08X}");
        ensure!(archive.join(&name).is_file(), "{name} is not in the archive; the switch was at {switch}");
    }
    Ok(())
}
