//! The `sync` key: who may win a race while synchronous replication is on (IN-D7).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Leader and voters of synchronous replication. Names match case-insensitively.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncState {
    /// The member that maintains the key; without one the state is empty.
    pub leader: Option<String>,
    /// How many voters besides itself a candidate needs; zero without a leader.
    pub quorum: u32,
    /// The synchronous standbys.
    #[serde(rename = "sync_standby", serialize_with = "comma_list", deserialize_with = "from_comma_list")]
    pub voters: Vec<String>,
}

fn comma_list<S: serde::Serializer>(voters: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    if voters.is_empty() { serializer.serialize_none() } else { serializer.serialize_str(&voters.join(",")) }
}

fn from_comma_list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(names(&Option::<String>::deserialize(deserializer)?.unwrap_or_default()))
}

fn names(listed: &str) -> Vec<String> {
    listed.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl SyncState {
    /// Reads a value; anything but an object counts as empty.
    pub(super) fn parse(text: &str) -> (SyncState, Option<String>) {
        let Ok(Value::Object(map)) = serde_json::from_str(text) else {
            return (SyncState::default(), Some("is not a JSON object and counts as empty".to_owned()));
        };
        let leader = map.get("leader").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
        let Some(leader) = leader else {
            return (SyncState::default(), None);
        };
        let voters = names(map.get("sync_standby").and_then(Value::as_str).unwrap_or_default());
        let quorum = map.get("quorum").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        (SyncState { leader: Some(leader), quorum, voters }, None)
    }

    /// True when no leader maintains the key.
    pub fn is_empty(&self) -> bool {
        self.leader.is_none()
    }

    /// True when `name` is the leader or a voter.
    pub fn contains(&self, name: &str) -> bool {
        self.leader.iter().chain(&self.voters).any(|member| member.eq_ignore_ascii_case(name))
    }

    /// True when `name` is a voter.
    pub fn has_voter(&self, name: &str) -> bool {
        self.voters.iter().any(|member| member.eq_ignore_ascii_case(name))
    }

    /// The value to store.
    pub fn to_value(&self) -> String {
        crate::json::compact(self)
    }
}
