//! The `failover` key: a request for a switchover or a failover (IN-D6).

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    pub(super) fn parse(text: &str) -> (Option<FailoverRequest>, Option<String>) {
        let name = |value: Option<&str>| value.and_then(|text| text.parse().ok());
        let request = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => FailoverRequest {
                leader: name(map.get("leader").and_then(Value::as_str)),
                candidate: name(map.get("member").and_then(Value::as_str)),
                scheduled_at: map.get("scheduled_at").and_then(Value::as_str).map(str::to_owned),
            },
            Ok(_) => return (None, Some("is not a JSON object and counts as no request".to_owned())),
            Err(_) if text.trim().is_empty() => return (None, None),
            Err(_) => match text.split_once(':').filter(|_| !text.contains(['{', '"', '['])) {
                Some((leader, candidate)) => FailoverRequest {
                    leader: name(Some(leader.trim())),
                    candidate: name(Some(candidate.trim())),
                    scheduled_at: None,
                },
                None => {
                    return (None, Some("is neither JSON nor leader:candidate and counts as no request".to_owned()));
                }
            },
        };
        let asks = request.leader.is_some() || request.candidate.is_some();
        (asks.then_some(request), None)
    }

    /// The value to store.
    pub fn to_value(&self) -> String {
        crate::json::compact(self)
    }
}
