//! `version`: of this command, and of members by their REST API.

use std::time::Duration;

use pgward_agent::COMPATIBLE_VERSION;
use pgward_core::cluster::{Cluster, Member};
use serde_json::Value;

use super::terminal::Terminal;
use super::world::{Answer, NoAnswer, Request, World};

/// How long one member may take to tell its version.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(2);

/// The first line: the version of Patroni that we are compatible with, which is what scripts look for, and our own.
pub(super) fn ours() -> String {
    format!("patronictl version {COMPATIBLE_VERSION} (pgward {})\n", env!("CARGO_PKG_VERSION"))
}

/// Prints a line for each member in `names`, or for all when there are none.
///
/// # Errors
/// Only when the output cannot be written.
pub(super) async fn of_members(
    cluster: &Cluster,
    names: &[String],
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    terminal.print("\n")?;
    let is_wanted = |member: &&Member| names.is_empty() || names.iter().any(|name| name == member.name.as_str());
    for member in cluster.members.values().filter(is_wanted) {
        let line = match ask(member, world).await {
            Ok(versions) => format!("{}: {versions}\n", member.name),
            Err(error) => format!("{}: failed to get version: {error:#}\n", member.name),
        };
        terminal.print(&line)?;
    }
    Ok(())
}

async fn ask(member: &Member, world: &impl World) -> anyhow::Result<String> {
    let api_url = member.api_url().ok_or_else(|| anyhow::anyhow!("the member has published no api_url"))?;
    let answer = world.call(api_url, Request::get(), MEMBER_TIMEOUT).await;
    // A status document comes with 200 or 503, depending on the role.
    let Answer { body, .. } = answer.map_err(|no_answer| match no_answer {
        NoAnswer::Unsent(error) | NoAnswer::Lost(error) => error,
    })?;
    let document: Value = serde_json::from_str(&body)?;
    let agent = document.pointer("/patroni/version").and_then(Value::as_str);
    let agent = agent.ok_or_else(|| anyhow::anyhow!("the answer is not a status document"))?;
    let server = document.get("server_version").and_then(Value::as_u64).map(postgresql_version);
    Ok(match server {
        Some(server) => format!("Patroni {agent} PostgreSQL {server}"),
        None => format!("Patroni {agent}"),
    })
}

/// `150018` is 15.18, `90624` is 9.6.24.
fn postgresql_version(number: u64) -> String {
    let (major, rest) = (number / 10_000, number % 10_000);
    if major >= 10 { format!("{major}.{rest}") } else { format!("{major}.{}.{}", rest / 100, rest % 100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_versions_are_written_as_the_server_writes_them() {
        for (number, text) in [(150_018, "15.18"), (170_000, "17.0"), (90_624, "9.6.24"), (100_001, "10.1")] {
            assert_eq!(postgresql_version(number), text);
        }
    }
}
