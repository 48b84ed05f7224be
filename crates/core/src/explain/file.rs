//! Recorded decisions as text: for each a line with the record, and a line that counts its repetitions.
//!
//! The second line has a fixed length, so that it can be overwritten in place: a decision that is repeated for a week
//! takes no more room than one that was taken once, and still says when it was taken last.

use serde_json::Value;

use super::record::Step;
use super::ring::{Entry, Tally};

/// A line that is neither a record nor a count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not a record of this version: {why}")]
pub struct Unreadable {
    /// Counted from one.
    pub line: usize,
    /// What was met.
    pub why: String,
}

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// The decisions, oldest first.
    pub entries: Vec<Entry>,
    /// The lines that could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// The line of a record, with its line break.
pub fn record_line(step: &Step) -> String {
    step.to_document().to_string() + "\n"
}

/// The line that counts, with its line break. All of them have the same length.
pub fn tally_line(tally: Tally) -> String {
    let (times, seconds, nanos) = (tally.times, tally.last.0.as_secs(), tally.last.0.subsec_nanos());
    format!("{{\"times\":{times:>20},\"last\":{{\"secs\":{seconds:>20},\"nanos\":{nanos:>9}}}}}\n")
}

/// Reads a text of records. A last line without its line break was cut off while it was written, and is left out.
pub fn read(text: &str) -> Content {
    let mut content = Content::default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (index, line) in whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if let Err(problem) = content.take(line) {
            content.unreadable.push(Unreadable { line: index + 1, why: problem.to_string() });
        }
    }
    content
}

impl Content {
    fn take(&mut self, line: &str) -> Result<(), serde_json::Error> {
        let document: Value = serde_json::from_str(line)?;
        if document.get("times").is_none() {
            self.entries.push(Entry::of(Step::from_document(document)?));
        } else if let Some(last) = self.entries.last_mut() {
            last.tally = serde_json::from_value(document)?;
        }
        Ok(())
    }
}
