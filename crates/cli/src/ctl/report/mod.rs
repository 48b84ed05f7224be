//! `report`: everything that a post-mortem needs, in one archive.
//!
//! Nothing in it holds a password: decisions and the store are recorded without them, and the tails of logs are cleaned.

mod archive;
pub(super) mod timeline;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use jiff::Zoned;
use pgward_core::explain::what_if::what_if;
use pgward_core::explain::{clean, document, file};

use super::args::ReportArguments;
use super::explain::gather::{Heard, Inputs, Said, hear};
use super::explain::print;
use super::terminal::Terminal;
use super::world::{ClusterName, Request, World, endpoint};

/// How much of the end of a log is taken.
const LOG_BYTES_MAX: u64 = 1024 * 1024;

/// How long a member may take to tell its metrics.
const METRICS_TIMEOUT: Duration = Duration::from_secs(3);

/// One file of the archive.
pub(super) struct Item {
    /// Its path in the archive.
    path: String,
    content: String,
}

/// `report`.
pub(super) async fn report(
    wanted: ReportArguments,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let now = world.now();
    let heard = hear(name, Inputs::All, world).await?;
    let mut items = items(&heard, &now);
    for (member, record) in &heard.cluster.members {
        let Some(api_url) = record.api_url() else { continue };
        if let Ok(answer) = world.call(&endpoint(api_url, "/metrics"), Request::get(), METRICS_TIMEOUT).await {
            items.push(Item { path: format!("members/{member}/metrics.txt"), content: answer.body });
        }
    }
    let known = world.own_logs().into_iter().filter(|log| log.exists());
    for (number, log) in known.chain(wanted.log).enumerate() {
        let content = tail(&log).with_context(|| format!("cannot read the log {}", log.display()))?;
        let name = log.file_name().map_or_else(|| "log".into(), |name| name.to_string_lossy());
        items.push(Item { path: format!("logs/{}-{name}", number + 1), content: clean::text(&content) });
    }
    let stem = format!("pgward-report-{}-{}", heard.scope, now.strftime("%Y%m%dT%H%M%S"));
    let path = wanted.output.unwrap_or_else(|| PathBuf::from(format!("{stem}.tar.gz")));
    archive::write(&path, &stem, &items, &now).with_context(|| format!("cannot write {}", path.display()))?;
    terminal.print(&format!("{}\n", timeline::of_cluster(&heard, &now).trim_end()))?;
    Ok(terminal.print(&format!("\nWrote {} with {} files.\n", path.display(), items.len()))?)
}

/// What does not need the world any more.
fn items(heard: &Heard, now: &Zoned) -> Vec<Item> {
    let loss = print::loss_of_leader(heard);
    let projection = heard.live().map(|live| what_if(&live, &loss));
    let mut items = vec![
        Item { path: "README.txt".to_owned(), content: README.to_owned() },
        Item { path: "explain.txt".to_owned(), content: print::cluster(heard, &loss, projection.as_ref(), now) },
        Item {
            path: "timeline.txt".to_owned(),
            content: format!("{}\n{}", timeline::of_cluster(heard, now), timeline::decisions(heard, now)),
        },
        Item { path: "store.json".to_owned(), content: store(heard) },
    ];
    for (name, said) in &heard.members {
        let mut put = |file: &str, content| items.push(Item { path: format!("members/{name}/{file}"), content });
        match said {
            Said::Explained(document) => {
                put("status.json", print::json(&document.status));
                put("decisions.txt", print::member(heard, name, now));
                let entries = document.decisions.iter().filter_map(|told| document::entry(told).ok());
                let lines = entries.map(|entry| file::record_line(&entry.step) + &file::tally_line(entry.tally));
                put("decisions.jsonl", lines.collect());
            }
            Said::StatusOnly(_) | Said::Silent(_) => put("decisions.txt", print::member(heard, name, now)),
        }
    }
    items
}

fn store(heard: &Heard) -> String {
    let mut value = serde_json::to_value(clean::cluster(&heard.cluster)).unwrap_or_default();
    clean::document(&mut value);
    print::json(&value)
}

const README: &str = "\
Written by `pgward ctl report`. Passwords are not in here; addresses and names of members are.

explain.txt                   what each member decided last, and who would take over
timeline.txt                  the changes of leader with their phases, then all decisions of all members by time
store.json                    the cluster in etcd, as far as decisions read it
members/NAME/status.json      what the member says of itself
members/NAME/decisions.txt    its last decisions in words
members/NAME/decisions.jsonl  the same with all that they saw: `pgward replay FILE` takes them again
members/NAME/metrics.txt      its metrics
logs/                         the ends of the logs that were named or found

Times in timeline.txt are of the members' own clocks, which may differ.
";

/// The end of a log, from the beginning of a line.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut log = fs::File::open(path)?;
    let length = log.metadata()?.len();
    let start = length.saturating_sub(LOG_BYTES_MAX);
    log.seek(SeekFrom::Start(start))?;
    let mut content = Vec::new();
    log.take(LOG_BYTES_MAX).read_to_end(&mut content)?;
    let text = String::from_utf8_lossy(&content);
    let whole = if start > 0 { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
    Ok(whole.to_owned())
}
