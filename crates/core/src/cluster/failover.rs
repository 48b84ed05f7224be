//! The `failover` key: a request for a switchover or a failover (IN-D6).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::names::MemberName;

/// A request to move the leadership. With `leader` it is a switchover, without one a manual failover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverRequest {
    /// The member that has to hold the lock for the request to apply.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub leader: Option<MemberName>,
    /// The member that shall take over. The stored field is called `member`.
    #[serde(rename = "member", skip_serializing_if = "Option::is_none", default)]
    pub candidate: Option<MemberName>,
    /// When to act, ISO 8601 with a zone, as the requester wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scheduled_at: Option<String>,
}

impl FailoverRequest {
    /// The value that means "nothing requested". The key is overwritten with it, never deleted.
    pub const NONE: &'static str = "{}";

    /// Reads a value: a JSON object, or the old form `leader:candidate`. `None` when nothing is requested.
    ///
    /// A request with a part that cannot be understood is none: without its leader it would move the leadership whoever
    /// holds it, without its candidate to anybody, and without its time at once.
    pub(super) fn parse(text: &str) -> (Option<FailoverRequest>, Option<String>) {
        let problem = |what: &str| (None, Some(format!("{what} and counts as no request")));
        let request = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => FailoverRequest::from_map(&map),
            Ok(_) => return problem("is not a JSON object"),
            Err(_) if text.trim().is_empty() => return (None, None),
            Err(_) => match text.split_once(':').filter(|_| !text.contains(['{', '"', '['])) {
                Some((leader, candidate)) => FailoverRequest::from_names(leader.trim(), candidate.trim()),
                None => return problem("is neither JSON nor leader:candidate"),
            },
        };
        match request {
            Some(request) if request.leader.is_none() && request.candidate.is_none() => (None, None),
            Some(request) => (Some(request), None),
            None => problem("has a leader, member or scheduled_at that cannot be understood"),
        }
    }

    fn from_map(map: &Map<String, Value>) -> Option<FailoverRequest> {
        let text = |key: &str| match map.get(key) {
            None | Some(Value::Null) => Some(None),
            Some(Value::String(text)) => Some(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => None,
        };
        let names =
            FailoverRequest::from_names(text("leader")?.unwrap_or_default(), text("member")?.unwrap_or_default());
        Some(FailoverRequest { scheduled_at: text("scheduled_at")?.map(str::to_owned), ..names? })
    }

    /// Empty stands for none.
    fn from_names(leader: &str, candidate: &str) -> Option<FailoverRequest> {
        let name = |text: &str| match text {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        };
        Some(FailoverRequest { leader: name(leader)?, candidate: name(candidate)?, scheduled_at: None })
    }

    /// The value to store.
    pub fn to_value(&self) -> String {
        crate::json::compact(self)
    }
}
