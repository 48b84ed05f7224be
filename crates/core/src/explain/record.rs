//! One decision with everything it was taken from, and how it is written: one JSON object on one line.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clean;
use crate::decide::view::Store;
use crate::decide::{Decision, Memory, View};

/// A decision and its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What was seen.
    pub view: View,
    /// What was remembered before.
    pub memory: Memory,
    /// What was decided.
    pub decision: Decision,
}

impl Step {
    /// True when the same was decided for the same reason. When to look again does not count: it moves on with time.
    pub fn is_same_decision(&self, other: &Step) -> bool {
        self.decision.reason == other.decision.reason && self.decision.effects == other.decision.effects
    }

    /// The document that is written: without passwords, and with texts of bounded length.
    pub fn to_document(&self) -> Value {
        let step = Step { view: view(&self.view), memory: memory(&self.memory), decision: self.decision.clone() };
        cleaned(&step)
    }

    /// Reads [`Step::to_document`].
    ///
    /// # Errors
    /// When a field is missing or of another shape: another version has written it.
    pub fn from_document(document: Value) -> Result<Step, serde_json::Error> {
        serde_json::from_value(document)
    }
}

/// A memory as [`Step::to_document`] writes it.
pub fn memory_document(found: &Memory) -> Value {
    cleaned(&memory(found))
}

fn cleaned(value: &impl Serialize) -> Value {
    // Maps of these types have names as keys, which JSON can hold: there is nothing that could fail.
    let mut document = serde_json::to_value(value).unwrap_or_default();
    clean::document(&mut document);
    document
}

fn view(view: &View) -> View {
    let store = match &view.store {
        Store::Current(cluster) => Store::Current(Arc::new(clean::cluster(cluster))),
        Store::Lost { error } => Store::Lost { error: error.clone() },
    };
    View { store, ..view.clone() }
}

fn memory(memory: &Memory) -> Memory {
    Memory { last_led: memory.last_led.as_ref().map(|last| Arc::new(clean::cluster(last))), ..memory.clone() }
}
