//! The `status` key: how far the leader is (IN-D4, DCS-11).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::wal::Lsn;

/// What the leader published last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The leader's position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optime: Option<Lsn>,
    /// Replication slots and their positions, the leader's own slot name among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<BTreeMap<String, Lsn>>,
    /// Slots of members that are absent but kept for `member_slots_ttl`, sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_slots: Option<Vec<String>>,
}

impl Status {
    /// Reads a value: a JSON object, or a bare integer (the format before 2.1).
    pub(super) fn parse(text: &str) -> (Status, Option<String>) {
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Number(number)) => (Status { optime: number.as_u64().map(Lsn), ..Status::default() }, None),
            Ok(Value::Object(map)) => (Status::from_map(&map), None),
            Ok(_) | Err(_) => {
                (Status::default(), Some("is not a JSON object or an integer and counts as absent".into()))
            }
        }
    }

    fn from_map(map: &Map<String, Value>) -> Status {
        let nested = |key: &str| match map.get(key) {
            Some(Value::String(text)) => serde_json::from_str(text).ok(),
            other => other.cloned(),
        };
        let slots = nested("slots")
            .as_ref()
            .and_then(Value::as_object)
            .map(|slots| slots.iter().filter_map(|(name, lsn)| Some((name.clone(), Lsn(lsn.as_u64()?)))).collect());
        let retain_slots = nested("retain_slots")
            .as_ref()
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        let optime = match map.get("optime") {
            Some(Value::String(text)) => text.parse().ok().map(Lsn),
            other => other.and_then(Value::as_u64).map(Lsn),
        };
        Status { optime, slots, retain_slots }
    }

    /// The value to store.
    pub fn to_value(&self) -> String {
        crate::json::compact(self)
    }
}
