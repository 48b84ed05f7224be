//! Asking other members how they are (PEER-1…5).

use std::time::Duration;

use hyper::Method;
use pgward_core::cluster::{LeaseId, Member, MemberRole};
use pgward_core::decide::peers::{PeerAnswer, PeerPoll, PeerStatus};
use pgward_core::wal::{Lsn, Timeline};
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tracing::debug;

use super::HttpClient;

/// How long a member may take to answer (PEER-1). There is no second attempt.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// The priority of a member without the tag.
const FAILOVER_PRIORITY_DEFAULT: i64 = 1;

/// Asks all `members` at once; there is one answer for each of them after at most [`PEER_TIMEOUT`].
///
/// Only reads, so it can be cancelled at any `.await`.
pub async fn poll_peers<'m>(client: &HttpClient, members: impl IntoIterator<Item = &'m Member>) -> PeerPoll {
    let mut poll = PeerPoll::default();
    let mut asked = JoinSet::new();
    for member in members {
        // Replaced when the member answers.
        poll.answers.insert(member.name.clone(), PeerAnswer::Unreachable);
        if let Some(url) = member.api_url() {
            let (client, member, url) = (client.clone(), member.clone(), url.to_owned());
            asked.spawn(async move {
                let answer = match client.request(Method::GET, &url, None, PEER_TIMEOUT).await {
                    Ok(response) => parse_status(&member, &response.body),
                    Err(error) => {
                        debug!(member = %member.name, error = &error as &dyn std::error::Error, "no answer");
                        PeerAnswer::Unreachable
                    }
                };
                (member.name, answer)
            });
        }
    }
    while let Some(answered) = asked.join_next().await {
        if let Ok((name, answer)) = answered {
            poll.answers.insert(name, answer);
        }
    }
    poll
}

/// Reads the status document of `member`. Without a section on WAL, or without a position, it is as good as no answer
/// (PEER-1). The status code does not matter: a member that is not fit for the path that was asked still tells how it
/// is.
pub fn parse_status(member: &Member, body: &[u8]) -> PeerAnswer {
    let Ok(Value::Object(document)) = serde_json::from_slice(body) else {
        return PeerAnswer::Unreachable;
    };
    status_of(member, document).map_or(PeerAnswer::Unreachable, PeerAnswer::Status)
}

fn status_of(member: &Member, document: Map<String, Value>) -> Option<PeerStatus> {
    // `wal` is what the first versions called it.
    let wal = document.get("xlog").or_else(|| document.get("wal"))?.as_object()?;
    let position = |key: &str| wal.get(key).and_then(Value::as_u64).map(Lsn);
    // From here on the answer is read as the record of a member, because its tags mean the same (PEER-5).
    let answer = Member { name: member.name.clone(), lease: LeaseId::default(), fields: document.clone() };
    let in_recovery = position("location").is_none() && answer.role() != Some(MemberRole::Primary);
    let position = if in_recovery {
        // The larger one: `None` is less than any position (PEER-3).
        position("received_location").max(position("replayed_location"))?
    } else {
        Lsn::INVALID
    };
    let timeline = document.get("timeline").and_then(Value::as_u64);
    let priority = answer.tags().and_then(|tags| tags.get("failover_priority")).and_then(integer);
    Some(PeerStatus {
        in_recovery,
        position,
        timeline: timeline.and_then(|number| u32::try_from(number).ok()).and_then(Timeline::new),
        nofailover: answer.is_nofailover(),
        failover_priority: priority.unwrap_or(FAILOVER_PRIORITY_DEFAULT),
        watchdog_failed: document.get("watchdog_failed") == Some(&Value::Bool(true)),
    })
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_i64(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<PeerStatus> {
        let member = Member { name: "n1".parse().unwrap(), lease: LeaseId::default(), fields: Map::new() };
        match parse_status(&member, body.as_bytes()) {
            PeerAnswer::Status(status) => Some(status),
            PeerAnswer::Unreachable => None,
        }
    }

    fn replica() -> PeerStatus {
        PeerStatus {
            in_recovery: true,
            position: Lsn(7),
            timeline: Timeline::new(2),
            nofailover: false,
            failover_priority: 1,
            watchdog_failed: false,
        }
    }

    #[test]
    fn a_status_document_tells_what_a_race_needs() {
        const REPLICA: &str = r#""role":"replica","timeline":2,"xlog":{"received_location":5,"replayed_location":7}"#;
        for (name, body, want) in [
            ("a replica is as far as the larger position", format!("{{{REPLICA}}}"), replica()),
            (
                "a current location means primary",
                r#"{"role":"replica","timeline":2,"xlog":{"location":9}}"#.to_owned(),
                PeerStatus { in_recovery: false, position: Lsn(0), ..replica() },
            ),
            (
                "so does the role, also by its old name",
                r#"{"role":"master","timeline":2,"wal":{"received_location":9}}"#.to_owned(),
                PeerStatus { in_recovery: false, position: Lsn(0), ..replica() },
            ),
            (
                "one position is enough, and the timeline may be unknown",
                r#"{"timeline":null,"xlog":{"received_location":0,"replayed_location":7,"paused":false}}"#.to_owned(),
                PeerStatus { timeline: None, ..replica() },
            ),
            (
                "tags and the watchdog come from the answer",
                format!(r#"{{{REPLICA},"tags":{{"nofailover":true,"failover_priority":"3"}},"watchdog_failed":true}}"#),
                PeerStatus { nofailover: true, failover_priority: 3, watchdog_failed: true, ..replica() },
            ),
            (
                "priority zero forbids failover",
                format!(r#"{{{REPLICA},"tags":{{"failover_priority":0}}}}"#),
                PeerStatus { nofailover: true, failover_priority: 0, ..replica() },
            ),
        ] {
            assert_eq!(read(&body), Some(want), "{name}");
        }
    }

    #[test]
    fn an_answer_without_positions_counts_as_unreachable() {
        for body in
            ["", "<html>", "[]", "{}", r#"{"state":"running"}"#, r#"{"xlog":[]}"#, r#"{"xlog":{"paused":false}}"#]
        {
            assert_eq!(read(body), None, "{body}");
        }
    }
}
