//! The `history` key: the timelines of the cluster (IN-D8, HIS-1, HIS-2).

use serde::de::Error;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wal::{Lsn, Timeline};

/// One change of timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where it ended.
    pub lsn: Lsn,
    /// PostgreSQL's own words from the history file.
    pub reason: String,
    /// ISO 8601, when known.
    pub timestamp: Option<String>,
    /// The member that led the next timeline, when known.
    pub new_leader: Option<String>,
}

impl Serialize for HistoryLine {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_seq(None)?;
        line.serialize_element(&self.timeline)?;
        line.serialize_element(&self.lsn)?;
        line.serialize_element(&self.reason)?;
        if let Some(timestamp) = &self.timestamp {
            line.serialize_element(timestamp)?;
            if let Some(leader) = &self.new_leader {
                line.serialize_element(leader)?;
            }
        }
        line.end()
    }
}

impl<'de> Deserialize<'de> for HistoryLine {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let row = Value::deserialize(deserializer)?;
        parse_line(&row).ok_or_else(|| D::Error::custom("a line of the history is not [timeline, lsn, reason, …]"))
    }
}

/// All changes of timeline, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    /// The lines in timeline order.
    pub lines: Vec<HistoryLine>,
}

impl History {
    /// Reads a value. Lines have three to five entries.
    ///
    /// # Errors
    /// The problem in words, for the warning that names the key.
    pub(super) fn parse(text: &str) -> Result<History, String> {
        let broken = |what: &str| format!("{what}; the history counts as absent");
        let Ok(Value::Array(rows)) = serde_json::from_str(text) else {
            return Err(broken("is not a JSON list"));
        };
        let lines = rows.iter().map(parse_line).collect::<Option<Vec<_>>>();
        lines.map(|lines| History { lines }).ok_or_else(|| broken("has a line that is not [timeline, lsn, reason, …]"))
    }

    /// The timeline after the last line; the first one for an empty list (IN-D10).
    pub fn next_timeline(&self) -> Timeline {
        self.lines.last().map_or(Timeline::FIRST, |line| line.timeline.next())
    }

    /// The value to store.
    pub fn to_value(&self) -> String {
        crate::json::compact(self)
    }
}

fn parse_line(row: &Value) -> Option<HistoryLine> {
    let row = row.as_array()?;
    let text = |index: usize| row.get(index).and_then(Value::as_str).map(str::to_owned);
    Some(HistoryLine {
        timeline: Timeline::new(u32::try_from(row.first()?.as_u64()?).ok()?)?,
        lsn: Lsn(row.get(1)?.as_u64()?),
        reason: text(2)?,
        timestamp: text(3),
        new_leader: text(4),
    })
}
