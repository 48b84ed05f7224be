//! `POST /switchover`, `POST /failover` and `DELETE /switchover`: moving the leadership on request (MAN-V1…10).
//!
//! A request is checked, written to the `failover` key, and then followed: the answer is given at the moment the
//! leader key changes hands. The members carry it out; nothing here demotes or promotes.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use pgward_core::cluster::{Cluster, FailoverRequest, Member, Revision};
use pgward_core::decide::peers::PeerAnswer;
use pgward_core::names::MemberName;
use pgward_store::{Condition, Key, StoreError};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::modes::Modes;
use super::operations::Operations;
use super::reply::Reply;
use super::schedule::{InvalidSchedule, Schedule};
use super::view::{NodeView, SynchronousMode};

/// The shortest time that an answer is waited for is twice this.
const OUTCOME_WAIT_MIN: Duration = Duration::from_secs(10);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Unplanned: to a candidate, whatever became of the leader.
    Failover,
    /// Planned: away from a leader that is alive.
    Switchover,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Failover => "failover",
            Action::Switchover => "switchover",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Action::Failover => "Failover",
            Action::Switchover => "Switchover",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Action::Failover => "failed over",
            Action::Switchover => "switched over",
        }
    }

    fn past_title(self) -> &'static str {
        match self {
            Action::Failover => "Failed over",
            Action::Switchover => "Switched over",
        }
    }
}

/// A request as it was sent. Names need not be names of members yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    leader: Option<String>,
    candidate: Option<String>,
    scheduled_at: Option<String>,
}

/// A definite "no", with the status code and the words that scripts know.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad_request(text: impl Into<String>) -> Refusal {
        Refusal(StatusCode::BAD_REQUEST, text.into())
    }

    fn precondition(text: impl Into<String>) -> Refusal {
        Refusal(StatusCode::PRECONDITION_FAILED, text.into())
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        Reply::text(refusal.0, refusal.1)
    }
}

impl Asked {
    fn read(body: &Map<String, Value>) -> Result<Asked, Refusal> {
        // Empty counts as missing.
        let text = |key: &str| match body.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(Refusal::bad_request(format!("\"{key}\" must be a JSON string"))),
        };
        let candidate = match text("candidate")? {
            Some(candidate) => Some(candidate),
            None => text("member")?,
        };
        Ok(Asked { leader: text("leader")?, candidate, scheduled_at: text("scheduled_at")? })
    }
}

/// Checks a request, carries it to the store, and waits for what becomes of it.
pub(super) async fn start(
    action: Action,
    body: &Map<String, Value>,
    mut node: watch::Receiver<NodeView>,
    operations: &Arc<dyn Operations>,
) -> Reply {
    let asked = match Asked::read(body).and_then(|asked| check_alone(action, &asked).map(|()| asked)) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into(),
    };
    let cluster = match operations.read_cluster().await {
        Ok(cluster) => cluster,
        Err(error) => return store_unreachable(&error),
    };
    let modes = Modes::of(&cluster, &node.borrow());
    let (action, schedule) = match check_in_mode(action, &asked, modes, Timestamp::now()) {
        Ok(checked) => checked,
        Err(refusal) => return refusal.into(),
    };
    if schedule.is_none() {
        let members = match eligible_members(action, &asked, &cluster, modes) {
            Ok(members) => members,
            Err(refusal) => return refusal.into(),
        };
        let answers = operations.poll_peers(members).await.answers;
        let is_good = |answer: &PeerAnswer| match answer {
            PeerAnswer::Unreachable => false,
            PeerAnswer::Status(status) => !status.is_limited(),
        };
        if !answers.values().any(is_good) {
            let text = format!("{} is not possible: no good candidates have been found", action.word());
            return Refusal::precondition(text).into();
        }
    }
    let request = match to_store(&asked, schedule.as_ref()) {
        Ok(request) => request,
        Err(refusal) => return refusal.into(),
    };
    let Ok(written) = operations.write(&Key::Failover, &request.to_value(), Condition::Always).await else {
        return Reply::text(StatusCode::SERVICE_UNAVAILABLE, "failed to write failover key into DCS");
    };
    operations.wake();
    if schedule.is_some() {
        return Reply::text(StatusCode::ACCEPTED, format!("{} scheduled", action.title()));
    }
    let old = cluster.leader.as_ref().map(|leader| &leader.name);
    let limit = 2 * OUTCOME_WAIT_MIN.max(node.borrow().loop_wait);
    match tokio::time::timeout(limit, outcome(&mut node, old, written)).await {
        Ok(Some(Outcome::LedBy(new))) => Reply::text(StatusCode::OK, done(action, asked.candidate.as_deref(), &new)),
        Ok(Some(Outcome::Dropped)) => {
            Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{} failed", action.title()))
        }
        Ok(None) | Err(_) => Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{} status unknown", action.title())),
    }
}

fn done(action: Action, candidate: Option<&str>, new: &MemberName) -> String {
    match candidate {
        Some(candidate) if candidate != new.as_str() => {
            format!("{} to \"{new}\" instead of \"{candidate}\"", action.past_title())
        }
        Some(_) | None => format!("Successfully {} to \"{new}\"", action.past()),
    }
}

/// What needs no knowledge of the cluster.
fn check_alone(action: Action, asked: &Asked) -> Result<(), Refusal> {
    let refuse = |text: &str| Err(Refusal::bad_request(text));
    match action {
        Action::Failover if asked.candidate.is_none() => {
            refuse("Failover could be performed only to a specific candidate")
        }
        Action::Switchover if asked.leader.is_none() => {
            refuse("Switchover could be performed only from a specific leader")
        }
        Action::Failover if asked.scheduled_at.is_some() => refuse("Failover can't be scheduled"),
        Action::Failover | Action::Switchover => Ok(()),
    }
}

/// What depends on the mode and on the time. A failover that names the leader goes on as a switchover (MAN-V5).
fn check_in_mode(
    action: Action,
    asked: &Asked,
    modes: Modes,
    now: Timestamp,
) -> Result<(Action, Option<Schedule>), Refusal> {
    if modes.paused && asked.scheduled_at.is_some() {
        return Err(Refusal::bad_request("Can't schedule switchover in the paused state"));
    }
    let schedule = asked.scheduled_at.as_deref().map(|text| check_schedule(action, text, now)).transpose()?;
    if modes.paused && asked.candidate.is_none() {
        let text = "Switchover is possible only to a specific candidate in a paused state";
        return Err(Refusal::bad_request(text));
    }
    let action = if asked.leader.is_some() { Action::Switchover } else { action };
    if asked.leader.is_some() && asked.leader == asked.candidate {
        return Err(Refusal::bad_request("Switchover target and source are the same"));
    }
    Ok((action, schedule))
}

fn check_schedule(action: Action, text: &str, now: Timestamp) -> Result<Schedule, Refusal> {
    let unprocessable = |text: String| Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, text));
    match Schedule::parse(text) {
        Ok(schedule) if schedule.at < now => unprocessable(format!("Cannot schedule {} in the past", action.word())),
        Ok(schedule) => Ok(schedule),
        Err(InvalidSchedule::NoZone) => {
            Err(Refusal::bad_request(format!("Timezone information is mandatory for the scheduled {}", action.word())))
        }
        Err(InvalidSchedule::Unreadable) => unprocessable(
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601".to_owned(),
        ),
    }
}

/// The members that could take over, of which one has to be reachable and allowed to (MAN-V7).
fn eligible_members<'c>(
    action: Action,
    asked: &Asked,
    cluster: &'c Cluster,
    modes: Modes,
) -> Result<Vec<&'c Member>, Refusal> {
    let leader = cluster.leader.as_ref().map(|leader| leader.name.as_str());
    if asked.leader.is_some() && asked.leader.as_deref() != leader {
        return Err(Refusal::precondition("leader name does not match"));
    }
    let only_voters = modes.synchronous == SynchronousMode::On;
    let is_voter = |name: &str| cluster.sync.value.has_voter(name);
    let members = cluster.members.values();
    if let Some(candidate) = asked.candidate.as_deref() {
        if action == Action::Switchover && only_voters && !is_voter(candidate) {
            return Err(Refusal::precondition("candidate name does not match with sync_standby"));
        }
        let members: Vec<&Member> = members.filter(|member| member.name.as_str() == candidate).collect();
        if members.is_empty() {
            return Err(Refusal::precondition("candidate does not exists"));
        }
        return Ok(members);
    }
    let impossible = |why: &str| Refusal::precondition(format!("{} is not possible: {why}", action.word()));
    let (members, why): (Vec<&Member>, _) = if only_voters {
        (members.filter(|member| is_voter(member.name.as_str())).collect(), "can not find sync_standby")
    } else {
        let is_other = |member: &&Member| Some(member.name.as_str()) != leader && member.api_url().is_some();
        (members.filter(is_other).collect(), "cluster does not have members except leader")
    };
    if members.is_empty() { Err(impossible(why)) } else { Ok(members) }
}

/// The value of the `failover` key. Only the names of a scheduled request are not names of members for certain.
fn to_store(asked: &Asked, schedule: Option<&Schedule>) -> Result<FailoverRequest, Refusal> {
    let name = |text: &Option<String>, refusal: &str| match text {
        Some(text) => text.parse().map(Some).map_err(|_| Refusal::precondition(refusal)),
        None => Ok(None),
    };
    Ok(FailoverRequest {
        leader: name(&asked.leader, "leader name does not match")?,
        candidate: name(&asked.candidate, "candidate does not exists")?,
        scheduled_at: schedule.map(|schedule| schedule.text.clone()),
    })
}

/// What became of a request.
enum Outcome {
    /// Another member than before holds the leader key.
    LedBy(MemberName),
    /// The request is gone, and the leader is the old one.
    Dropped,
}

/// Waits until a view that is not older than the request shows what became of it; `None` when the agent ends first.
///
/// Only reads, so it can be cancelled at any `.await`.
async fn outcome(node: &mut watch::Receiver<NodeView>, old: Option<&MemberName>, written: Revision) -> Option<Outcome> {
    loop {
        if let Some(cluster) = &node.borrow_and_update().cluster
            && cluster.revision >= written
        {
            match &cluster.leader {
                Some(leader) if Some(&leader.name) != old => return Some(Outcome::LedBy(leader.name.clone())),
                Some(_) | None if cluster.failover.is_none() => return Some(Outcome::Dropped),
                Some(_) | None => {}
            }
        }
        node.changed().await.ok()?;
    }
}

/// Takes a scheduled switchover back (MAN-V10).
pub(super) async fn cancel(operations: &Arc<dyn Operations>) -> Reply {
    let cluster = match operations.read_cluster().await {
        Ok(cluster) => cluster,
        Err(error) => return store_unreachable(&error),
    };
    let Some(request) = cluster.failover.as_ref().filter(|request| request.value.scheduled_at.is_some()) else {
        return Reply::text(StatusCode::NOT_FOUND, "no switchover is scheduled");
    };
    let condition = Condition::Revision(request.revision);
    match operations.write(&Key::Failover, FailoverRequest::NONE, condition).await {
        Ok(_) => Reply::text(StatusCode::OK, "scheduled switchover deleted"),
        Err(StoreError::Conflict { .. }) => Reply::error(StatusCode::CONFLICT),
        Err(error) => store_unreachable(&error),
    }
}

/// The store is needed for an answer, and does not give one.
pub(super) fn store_unreachable(error: &StoreError) -> Reply {
    Reply::explained(StatusCode::SERVICE_UNAVAILABLE, format!("The cluster store cannot be read or written: {error}"))
}
