//! Permanent replication slots and slots that are left alone, as the dynamic configuration names them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::units::{bool_of, text_of};
use crate::json::is_truthy;

/// A slot that the cluster keeps through every change of leader (SLT-8).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PermanentSlot {
    /// For a standby that is no member, or for one that may be away for long.
    Physical {
        /// Only in a cluster of this type; `None` in every one.
        cluster_type: Option<ClusterType>,
    },
    /// For a consumer of logical decoding.
    Logical {
        /// Its database.
        database: String,
        /// Its output plugin.
        plugin: String,
        /// From PostgreSQL 17 on the server itself keeps it on standbys. False: the agent does, as it has to before 17.
        failover: bool,
    },
}

impl PermanentSlot {
    /// True for a slot of logical decoding.
    pub fn is_logical(&self) -> bool {
        match self {
            PermanentSlot::Physical { .. } => false,
            PermanentSlot::Logical { .. } => true,
        }
    }
}

/// Whether a cluster has a primary of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ClusterType {
    /// It has.
    Primary,
    /// It follows another one.
    Standby,
}

/// An entry of `ignore_slots`: a slot that has everything which is set here is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SlotPattern {
    /// Its name.
    pub name: Option<String>,
    /// `physical` or `logical`.
    pub kind: Option<String>,
    /// Its database.
    pub database: Option<String>,
    /// Its output plugin.
    pub plugin: Option<String>,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotProblem {
    /// Its key below the section.
    pub(super) key: String,
    /// The problem.
    pub(super) text: String,
    /// What to do.
    pub(super) remedy: &'static str,
    /// The entry cannot be meant so. False: something in it has no effect.
    pub(super) is_error: bool,
}

/// True for a name that PostgreSQL accepts for a slot.
pub fn is_slot_name(name: &str) -> bool {
    matches!(name.len(), 1..=63) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// Reads the entries of `slots`. What cannot be kept is left out and named.
pub(super) fn permanent_slots(section: &Map<String, Value>) -> (BTreeMap<String, PermanentSlot>, Vec<SlotProblem>) {
    let mut slots = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, options) in section {
        match permanent_slot(name, options) {
            Ok((slot, odd)) => {
                problems.extend(odd);
                slots.insert(name.clone(), slot);
            }
            Err(problem) => problems.push(problem),
        }
    }
    (slots, problems)
}

fn permanent_slot(name: &str, options: &Value) -> Result<(PermanentSlot, Vec<SlotProblem>), SlotProblem> {
    let problem = |key: &str, problem: &str, remedy| {
        let key = if key.is_empty() { name.to_owned() } else { format!("{name}.{key}") };
        SlotProblem { key, text: problem.to_owned(), remedy, is_error: true }
    };
    if !is_slot_name(name) {
        let why = "is no name for a replication slot: 1 to 63 lower-case letters, digits and underscores (SLT-1)";
        return Err(problem("", why, "rename it"));
    }
    let empty = Map::new();
    let options = match options {
        Value::Object(options) => options,
        other if !is_truthy(other) => &empty,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(problem("", "is neither empty nor a mapping", "write type, database and plugin below it"));
        }
    };
    let text = |key: &str| options.get(key).filter(|value| is_truthy(value)).map(text_of);
    let mut odd = Vec::new();
    for key in options.keys() {
        if !matches!(key.as_str(), "type" | "database" | "plugin" | "cluster_type" | "failover") {
            let problem = problem(key, "is not a known option of a slot and is ignored", "remove it");
            odd.push(SlotProblem { is_error: false, ..problem });
        }
    }
    let (database, plugin) = (text("database"), text("plugin"));
    let kind = text("type").unwrap_or_else(|| match (&database, &plugin) {
        (Some(_), Some(_)) => "logical".to_owned(),
        (_, _) => "physical".to_owned(),
    });
    let slot = match (kind.as_str(), database, plugin) {
        ("physical", _, _) => {
            let cluster_type = match text("cluster_type").as_deref() {
                None => None,
                Some("primary") => Some(ClusterType::Primary),
                Some("standby") => Some(ClusterType::Standby),
                Some(_) => {
                    return Err(problem("cluster_type", "is neither primary nor standby", "write one of them"));
                }
            };
            PermanentSlot::Physical { cluster_type }
        }
        ("logical", Some(database), Some(plugin)) => {
            let failover = options.get("failover").filter(|value| !value.is_null());
            let failover = match failover.map(bool_of) {
                None => true,
                Some(Some(failover)) => failover,
                Some(None) => return Err(problem("failover", "is not a boolean", "write true or false")),
            };
            PermanentSlot::Logical { database, plugin, failover }
        }
        ("logical", None, _) => return Err(problem("database", "is not set; a logical slot needs it", "name it")),
        ("logical", _, None) => return Err(problem("plugin", "is not set; a logical slot needs it", "name it")),
        (_, _, _) => return Err(problem("type", "is neither physical nor logical", "write one of them")),
    };
    Ok((slot, odd))
}

/// Reads the entries of `ignore_slots`. An entry that says nothing would match every slot; it does so only when it is an
/// empty mapping, which somebody has written on purpose.
pub(super) fn ignored_slots(entries: &[Value]) -> (Vec<SlotPattern>, Vec<SlotProblem>) {
    let mut patterns = Vec::new();
    let mut problems = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let at = format!("[{index}]");
        let Value::Object(fields) = entry else {
            let (text, remedy) = ("is not a mapping and is ignored".to_owned(), "write name, type, database or plugin");
            problems.push(SlotProblem { key: at, text, remedy, is_error: true });
            continue;
        };
        for key in fields.keys() {
            if !matches!(key.as_str(), "name" | "type" | "database" | "plugin") {
                let text = "is not a known key of a slot, so that the rest of the entry decides alone".to_owned();
                let (key, remedy) = (format!("{at}.{key}"), "write name, type, database or plugin");
                problems.push(SlotProblem { key, text, remedy, is_error: false });
            }
        }
        let text = |key: &str| fields.get(key).filter(|value| is_truthy(value)).map(text_of);
        if let Some(kind) = text("type").filter(|kind| !matches!(kind.as_str(), "physical" | "logical")) {
            let text = format!("is {kind}, which no slot is, so that the entry matches none");
            let (key, remedy) = (format!("{at}.type"), "write physical or logical");
            problems.push(SlotProblem { key, text, remedy, is_error: true });
        }
        patterns.push(SlotPattern {
            name: text("name"),
            kind: text("type"),
            database: text("database"),
            plugin: text("plugin"),
        });
    }
    (patterns, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slot_says_what_it_is_or_what_is_missing() {
        let physical = || PermanentSlot::Physical { cluster_type: None };
        let logical = |failover| PermanentSlot::Logical { database: "app".into(), plugin: "pgoutput".into(), failover };
        for (options, want) in [
            (json!(null), physical()),
            (json!(0), physical()),
            (json!({}), physical()),
            (json!({"type": "physical", "plugin": "x"}), physical()),
            (json!({"database": "app"}), physical()),
            (json!({"cluster_type": "standby"}), PermanentSlot::Physical { cluster_type: Some(ClusterType::Standby) }),
            (json!({"database": "app", "plugin": "pgoutput"}), logical(true)),
            (json!({"type": "logical", "database": "app", "plugin": "pgoutput", "failover": "off"}), logical(false)),
        ] {
            let section = json!({"a": options}).as_object().unwrap().clone();
            assert_eq!(permanent_slots(&section), (BTreeMap::from([("a".to_owned(), want)]), vec![]), "{options}");
        }
        for (name, options, key) in [
            ("A", json!(null), "A"),
            ("a-b", json!(null), "a-b"),
            ("", json!(null), ""),
            (&"a".repeat(64), json!(null), &*"a".repeat(64)),
            ("a", json!("yes"), "a"),
            ("a", json!({"type": "both"}), "a.type"),
            ("a", json!({"type": "logical", "plugin": "p"}), "a.database"),
            ("a", json!({"type": "logical", "database": "d"}), "a.plugin"),
            ("a", json!({"cluster_type": "x"}), "a.cluster_type"),
            ("a", json!({"database": "d", "plugin": "p", "failover": "perhaps"}), "a.failover"),
        ] {
            let section = json!({name: options}).as_object().unwrap().clone();
            let (slots, problems) = permanent_slots(&section);
            assert!(
                slots.is_empty() && problems.len() == 1 && problems[0].key == key,
                "{name}: {options}: {problems:?}"
            );
        }
    }

    #[test]
    fn an_entry_of_ignore_slots_is_read_as_far_as_it_can_be() {
        let (patterns, problems) = ignored_slots(&[json!({"name": "a", "type": "logical"}), json!("b"), json!({})]);
        let first = SlotPattern { name: Some("a".into()), kind: Some("logical".into()), ..SlotPattern::default() };
        assert_eq!(patterns, [first, SlotPattern::default()]);
        assert_eq!(problems.len(), 1);
        assert_eq!(ignored_slots(&[json!({"kind": "logical"}), json!({"type": "both"})]).1.len(), 2);
    }
}
