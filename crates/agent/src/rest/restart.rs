//! `POST /restart`, `DELETE /restart` and `POST /reinitialize`: what is done to this member's PostgreSQL on request.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use pgward_core::cluster::PostgresState;
use pgward_core::config::units;
use pgward_core::decide::operator::Request;
use pgward_core::json::is_truthy;
use pgward_core::time::WallTime;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::operations::Operations;
use super::reply::Reply;
use super::schedule::{InvalidSchedule, Schedule};
use super::view::NodeView;
use crate::orders::{Answer, Conditions, ScheduledRestart};

/// How long a start may take when neither the request nor anything else says so.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// A request as it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    schedule: Option<Schedule>,
    conditions: Conditions,
    timeout: Option<Duration>,
}

/// A definite "no".
type Refusal = (StatusCode, String);

impl Asked {
    /// Reads the body key by key; the first that cannot be used answers.
    fn read(body: &Map<String, Value>, now: Timestamp) -> Result<Asked, Refusal> {
        let mut asked = Asked::default();
        let bad = |text: String| (StatusCode::BAD_REQUEST, text);
        for (key, value) in body {
            match (key.as_str(), value) {
                ("schedule", Value::String(text)) => asked.schedule = Some(check_schedule(text, now)?),
                ("role", Value::String(role)) if ["primary", "standby_leader", "replica"].contains(&role.as_str()) => {
                    asked.conditions.role = Some(role.clone());
                }
                ("role", _) => {
                    return Err(bad("PostgreSQL role should be either primary, standby_leader, or replica".to_owned()));
                }
                ("postgres_version", value) => {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    asked.conditions.older_than = Some(version(&text).map_err(bad)?);
                }
                ("timeout", value) => {
                    let seconds = units::seconds_of(value).and_then(|seconds| u64::try_from(seconds).ok());
                    match seconds.filter(|seconds| *seconds > 0) {
                        Some(seconds) => asked.timeout = Some(Duration::from_secs(seconds)),
                        None => return Err(bad("Timeout should be a positive number of seconds".to_owned())),
                    }
                }
                ("restart_pending", _) => asked.conditions.pending = true,
                ("schedule", _) => check_schedule("", now).map(drop)?,
                (unknown, _) => return Err(bad(format!("Unknown filter for the scheduled restart: {unknown}"))),
            }
        }
        Ok(asked)
    }
}

fn check_schedule(text: &str, now: Timestamp) -> Result<Schedule, Refusal> {
    let unprocessable = |text: &str| Err((StatusCode::UNPROCESSABLE_ENTITY, text.to_owned()));
    match Schedule::parse(text) {
        Ok(schedule) if schedule.at < now => unprocessable("Cannot schedule restart in the past"),
        Ok(schedule) => Ok(schedule),
        Err(InvalidSchedule::NoZone) => {
            Err((StatusCode::BAD_REQUEST, "Timezone information is mandatory for the scheduled restart".to_owned()))
        }
        Err(InvalidSchedule::Unreadable) => {
            unprocessable("Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601")
        }
    }
}

/// `15.4` as 150004, `9.6.24` as 90624.
fn version(text: &str) -> Result<u32, String> {
    let number = |part: &str| part.parse::<u32>().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()));
    let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
    let parts = parts.ok_or_else(|| format!("Invalid PostgreSQL version: {text}"))?;
    let number = match parts[..] {
        [major @ 10..9999, minor @ ..10_000] => Some(major * 10_000 + minor),
        [major @ ..10, middle @ ..100, minor @ ..100] => Some(major * 10_000 + middle * 100 + minor),
        _ => None,
    };
    number.ok_or_else(|| format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {text}"))
}

/// Restarts now and answers when it is over, or keeps the restart for later.
pub(super) async fn restart(
    body: &Map<String, Value>,
    node: watch::Receiver<NodeView>,
    operations: &Arc<dyn Operations>,
) -> Reply {
    let asked = match Asked::read(body, Timestamp::now()) {
        Ok(asked) => asked,
        Err((status, text)) => return Reply::text(status, text),
    };
    match asked.schedule {
        Some(schedule) => {
            if node.borrow().paused {
                let text = "Can't schedule restart in the paused state";
                return Reply::text(StatusCode::INTERNAL_SERVER_ERROR, text);
            }
            let mut published = body.clone();
            published.insert("schedule".to_owned(), schedule.text.into());
            if let Some(timeout) = asked.timeout {
                published.insert("timeout".to_owned(), timeout.as_secs().into());
            }
            let since_epoch = u64::try_from(schedule.at.as_second()).unwrap_or_default();
            let restart = ScheduledRestart {
                at: WallTime(Duration::from_secs(since_epoch)),
                conditions: asked.conditions,
                timeout: asked.timeout,
                published,
            };
            match operations.orders().schedule(restart).await {
                Some(true) => Reply::text(StatusCode::ACCEPTED, "Restart scheduled"),
                Some(false) => Reply::text(StatusCode::CONFLICT, "Another restart is already scheduled"),
                None => unavailable("the agent is busy with other requests, or ends"),
            }
        }
        None if !asked.conditions.hold(&node.borrow()) => unavailable("restart conditions are not satisfied"),
        None => {
            let timeout = asked.timeout;
            match operations.orders().carry(Request::Restart { timeout }).await {
                Answer::Done => started(node, timeout.unwrap_or(START_TIMEOUT)).await,
                Answer::Failed(problem) => unavailable(&format!("restart failed: {problem}")),
                Answer::Refused(why) => unavailable(&why),
            }
        }
    }
}

/// Waits until the restarted server accepts connections, or has ended.
async fn started(mut node: watch::Receiver<NodeView>, limit: Duration) -> Reply {
    let settled = node.wait_for(|node| !matches!(node.state, PostgresState::Starting | PostgresState::Restarting));
    match tokio::time::timeout(limit, settled).await {
        Ok(Ok(node)) if node.state == PostgresState::Running => Reply::text(StatusCode::OK, "restarted successfully"),
        Ok(_) => unavailable("restart failed"),
        Err(_) => unavailable("postgres is still starting"),
    }
}

/// Takes a scheduled restart back.
pub(super) async fn unschedule(operations: &Arc<dyn Operations>) -> Reply {
    match operations.orders().unschedule().await {
        Some(true) => Reply::text(StatusCode::OK, "scheduled restart deleted"),
        Some(false) => Reply::text(StatusCode::NOT_FOUND, "no restarts are scheduled"),
        None => unavailable("the agent is busy with other requests, or ends"),
    }
}

/// Removes the data directory and copies another member.
pub(super) async fn reinitialize(body: &Map<String, Value>, operations: &Arc<dyn Operations>) -> Reply {
    let flag = |key: &str| body.get(key).is_some_and(is_truthy);
    let request = Request::Reinitialize { force: flag("force"), from_leader: flag("from_leader") };
    match operations.orders().carry(request).await {
        Answer::Done => Reply::text(StatusCode::OK, "reinitialize started"),
        Answer::Failed(why) | Answer::Refused(why) => unavailable(&why),
    }
}

fn unavailable(text: &str) -> Reply {
    Reply::text(StatusCode::SERVICE_UNAVAILABLE, text)
}
