//! Takes recorded decisions again.

use serde_json::Value;

use super::record::Step;
use crate::decide::{Decision, decide};

/// What came of taking a recorded decision again.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// What is decided now.
    pub decision: Decision,
    /// The lines of the recorded decision and of the present one, where they differ; empty when they are the same.
    pub differences: Vec<Difference>,
}

/// One part of a decision that is not what was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which part: `effects`, `reason`, `wake_at` or `epoch`.
    pub part: String,
    /// What was recorded, as JSON.
    pub recorded: String,
    /// What is decided now, as JSON.
    pub now: String,
}

/// Decides once more on what a record saw, and compares.
pub fn replay(step: &Step) -> Replayed {
    let (decision, _) = decide(&step.view, &step.memory);
    let again = Step { decision: decision.clone(), ..step.clone() };
    // Compared as written: what a record does not hold cannot differ.
    let (recorded, now) = (step.to_document(), again.to_document());
    let parts = |document: &Value| document["decision"].as_object().cloned().unwrap_or_default();
    let (recorded, now) = (parts(&recorded), parts(&now));
    let differences = recorded
        .iter()
        .filter(|(part, value)| now.get(*part) != Some(value))
        .map(|(part, value)| Difference {
            part: part.clone(),
            recorded: value.to_string(),
            now: now.get(part).map_or_else(String::new, Value::to_string),
        })
        .collect();
    Replayed { decision, differences }
}
