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
    /// Reads a value, and says what is wrong with it. Lines have three to five entries; `None` without a list of them.
    ///
    /// Timelines that do not rise (INV-S23) are put into order, the later of two lines about one timeline being kept: the
    /// newest timeline that anybody wrote stays the newest known one (IN-D10).
    pub(super) fn parse(text: &str) -> (Option<History>, Option<String>) {
        let absent = |what: &str| (None, Some(format!("{what}; the history counts as absent")));
        let Ok(Value::Array(rows)) = serde_json::from_str(text) else {
            return absent("is not a JSON list");
        };
        let Some(mut lines) = rows.iter().map(parse_line).collect::<Option<Vec<_>>>() else {
            return absent("has a line that is not [timeline, lsn, reason, …]");
        };
        if lines.is_sorted_by(|one, next| one.timeline < next.timeline) {
            return (Some(History { lines }), None);
        }
        lines.reverse();
        lines.sort_by_key(|line| line.timeline);
        lines.dedup_by_key(|line| line.timeline);
        (Some(History { lines }), Some("has timelines that do not rise; they are put into order".to_owned()))
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
