//! One decision with everything it was taken from, and how it is written: one JSON object on one line.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::clean;
use crate::decide::failsafe::KnownMap;
use crate::decide::view::Store;
use crate::decide::{Decision, Effect, Memory, View};

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
        // A primary that lives on consent gets it again every few seconds.
        let renews = |effect: &&Effect| matches!(effect, Effect::LiveOnConsent { .. });
        let (ours, theirs) = (self.decision.effects.iter(), other.decision.effects.iter());
        self.decision.reason == other.decision.reason
            && ours.filter(|effect| !renews(effect)).eq(theirs.filter(|effect| !renews(effect)))
    }

    /// The document that is written: without passwords, and with texts of bounded length.
    pub fn to_document(&self) -> Value {
        let step = Step { view: view(&self.view), memory: memory(&self.memory), decision: self.decision.clone() };
        cleaned(&step)
    }

    /// Reads [`Step::to_document`], also of other versions as far as what was seen and decided has the same form.
    ///
    /// # Errors
    /// When what was seen or decided has another form: another version has written it.
    pub fn from_document(mut document: Value) -> Result<Step, serde_json::Error> {
        let part = |name: &str| document.get_mut(name).map(Value::take).unwrap_or_default();
        let [view, memory, decision] = ["view", "memory", "decision"].map(part);
        Ok(Step {
            view: serde_json::from_value(view)?,
            memory: memory_of(memory),
            decision: serde_json::from_value(decision)?,
        })
    }
}

/// Reads [`memory_document`]. What another version remembers in another form counts as not remembered.
pub fn memory_of(document: Value) -> Memory {
    let whole = serde_json::from_value(document.clone());
    whole.unwrap_or_else(|_| {
        let mut known = Map::new();
        for (name, value) in document.as_object().into_iter().flatten() {
            known.insert(name.clone(), value.clone());
            if serde_json::from_value::<Memory>(Value::Object(known.clone())).is_err() {
                known.remove(name);
            }
        }
        serde_json::from_value(Value::Object(known)).unwrap_or_default()
    })
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
    let failsafe = KnownMap {
        read: memory.failsafe.read.as_ref().map(clean::names),
        attempted: memory.failsafe.attempted.as_ref().map(clean::names),
        ..memory.failsafe.clone()
    };
    Memory { last_led: memory.last_led.as_ref().map(|last| Arc::new(clean::cluster(last))), failsafe, ..memory.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::Lsn;

    #[test]
    fn what_another_version_remembers_in_another_form_is_left_out() {
        let memory = Memory { last_position: Some(Lsn(7)), was_paused: true, ..Memory::default() };
        let mut document = memory_document(&memory);
        document["same_history_as"] = 1.into();
        document["not_known_here"] = true.into();
        assert_eq!(memory_of(document), memory);
        assert_eq!(memory_of(Value::Null), Memory::default());
    }
}
