//! What a member answers when it is asked to explain itself: the document of `GET /explain`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::phases::Change;
use super::record::{Step, memory_document};
use super::ring::{Entry, Ring};
use super::words;
use crate::decide::Decision;
use crate::names::MemberName;
use crate::time::WallTime;

/// The answer of one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The member.
    pub member: MemberName,
    /// The cluster.
    pub scope: String,
    /// The version of the program.
    pub version: String,
    /// When this was asked, by the clock of the member.
    #[serde(with = "iso")]
    pub now: WallTime,
    /// What it tells other members: the document of `GET /patroni`.
    pub status: Value,
    /// The last decision, with what it saw and what it remembers since. Missing until the first one.
    pub latest: Option<Latest>,
    /// The last decisions, oldest first.
    pub decisions: Vec<Told>,
    /// The last changes of leader to this member, oldest first.
    pub changes: Vec<Change>,
}

/// The last decision and its inputs, as the core takes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latest {
    /// What was decided, in words.
    pub told: Told,
    /// What it saw, remembered and decided.
    pub record: Value,
    /// What it remembers since.
    pub memory: Value,
}

/// A decision in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// When it was taken first.
    #[serde(with = "iso")]
    pub at: WallTime,
    /// When it was taken last, without another one in between.
    #[serde(with = "iso")]
    pub until: WallTime,
    /// How often it was taken.
    pub times: u64,
    /// The name of the reason.
    pub reason: String,
    /// The reason as a sentence.
    pub text: String,
    /// The rules that it stands on.
    pub rules: Vec<String>,
    /// What was to be done, in words.
    pub effects: Vec<String>,
    /// What it saw, remembered and decided, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record: Option<Value>,
}

impl Told {
    fn of(decision: &Decision, at: WallTime, until: WallTime, times: u64) -> Told {
        let reason = &decision.reason;
        Told {
            at,
            until,
            times,
            reason: reason.name().to_owned(),
            // A reason may hold the output of a program.
            text: super::clean::text(&words::sentence(reason)),
            rules: reason.rules().iter().map(|rule| (*rule).to_owned()).collect(),
            effects: decision.effects.iter().map(words::effect).collect(),
            record: None,
        }
    }

    /// The sentence with its rules: `follows the leader n1 [OWN-7, FOL-12]`.
    pub fn with_rules(&self) -> String {
        format!("{} [{}]", self.text, self.rules.join(", "))
    }
}

/// The last decision of a ring.
pub fn latest(ring: &Ring) -> Option<Latest> {
    let latest = ring.latest()?;
    let (step, last) = (&latest.step, ring.entries().next_back());
    let tally = last.filter(|entry| entry.step.is_same_decision(step)).map(|entry| (entry.step.view.wall, entry.tally));
    let (at, times) = tally.map_or((step.view.wall, 1), |(at, tally)| (at, tally.times));
    Some(Latest {
        told: Told::of(&step.decision, at, step.view.wall, times),
        record: step.to_document(),
        memory: memory_document(&latest.memory),
    })
}

/// Whether decisions come with what they saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// Words only.
    LeaveOut,
    /// As many of the newest as have room in this many bytes.
    Within(usize),
}

/// The newest decisions of a ring, oldest first, at most `count`.
pub fn decisions(ring: &Ring, count: usize, inputs: Inputs) -> Vec<Told> {
    let mut room = match inputs {
        Inputs::LeaveOut => 0,
        Inputs::Within(bytes) => bytes,
    };
    let mut newest_first = Vec::new();
    for Entry { step, tally } in ring.entries().rev().take(count) {
        let mut told = Told::of(&step.decision, step.view.wall, tally.last, tally.times);
        if inputs != Inputs::LeaveOut {
            let record = step.to_document();
            let Some(left) = room.checked_sub(record.to_string().len()) else { break };
            room = left;
            told.record = Some(record);
        }
        newest_first.push(told);
    }
    newest_first.reverse();
    newest_first
}

/// The entry that a decision with its inputs was made from.
///
/// # Errors
/// When it came without them, or another version has written them.
pub fn entry(told: &Told) -> Result<Entry, serde_json::Error> {
    let step = Step::from_document(told.record.clone().unwrap_or_default())?;
    let tally = super::ring::Tally { times: told.times, last: told.until };
    Ok(Entry { step, tally })
}

/// Wall-clock times as ISO 8601 in UTC, with milliseconds.
pub mod iso {
    use std::time::Duration;

    use jiff::Timestamp;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::time::WallTime;

    /// The time as text: `2026-11-21T15:02:11.123Z`.
    pub fn text(time: WallTime) -> String {
        let nanos = i128::try_from(time.0.as_nanos()).unwrap_or(i128::MAX);
        match Timestamp::from_nanosecond(nanos) {
            Ok(timestamp) => format!("{timestamp:.3}"),
            Err(_) => "unknown".to_owned(), // Beyond the year 9999.
        }
    }

    /// Writes the text.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn serialize<S: Serializer>(time: &WallTime, serializer: S) -> Result<S::Ok, S::Error> {
        text(*time).serialize(serializer)
    }

    /// Reads the text.
    ///
    /// # Errors
    /// When it is not a time after 1970.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WallTime, D::Error> {
        let timestamp: Timestamp = String::deserialize(deserializer)?.parse().map_err(D::Error::custom)?;
        let nanos = u64::try_from(timestamp.as_nanosecond()).map_err(D::Error::custom)?;
        Ok(WallTime(Duration::from_nanos(nanos)))
    }
}
