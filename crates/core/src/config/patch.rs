//! The one way in which documents are merged: configuration files, variables over files, and changes of the dynamic
//! configuration.
//!
//! Mappings merge key by key, anything else is replaced as a whole, and null removes a key.

use serde_json::{Map, Value};

use super::units::comparison_text;
use super::yaml::{Kind, Node};

/// Lays `change` over `document` and tells whether anything changed.
///
/// Scalars are compared as text, so `2` over `"2"` changes nothing.
pub fn patch(document: &mut Map<String, Value>, change: &Map<String, Value>) -> bool {
    let mut changed = false;
    for (key, value) in change {
        changed |= match (document.get_mut(key), value) {
            (_, Value::Null) => document.shift_remove(key).is_some_and(|removed| !removed.is_null()),
            (Some(Value::Object(below)), Value::Object(value)) => patch(below, value),
            (Some(present), value) if comparison_text(present) == comparison_text(value) && !value.is_object() => false,
            (Some(present), value) => {
                *present = value.clone();
                true
            }
            (None, value) => {
                document.insert(key.clone(), value.clone());
                true
            }
        };
    }
    changed
}

/// Lays the entries of a later source over an earlier one.
pub(super) fn overlay(document: &mut Vec<(String, Node)>, change: Vec<(String, Node)>) {
    for (key, node) in change {
        let place = document.iter().position(|(name, _)| *name == key);
        match (place, node) {
            (Some(place), node) if node.is_null() => drop(document.remove(place)),
            (None, node) if node.is_null() => {}
            (Some(place), node) => match (&mut document[place].1.kind, node) {
                (Kind::Map(below), Node { kind: Kind::Map(entries), .. }) => overlay(below, entries),
                (_, node) => document[place].1 = node,
            },
            (None, node) => document.push((key, node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_removes_mappings_merge_and_the_rest_is_replaced() {
        for (name, document, change, want, changed) in [
            ("a new key", json!({"a": 1}), json!({"b": 2}), json!({"a": 1, "b": 2}), true),
            ("the same as text", json!({"a": 2}), json!({"a": "2"}), json!({"a": 2}), false),
            ("a number with a fraction is another text", json!({"a": 1}), json!({"a": 1.0}), json!({"a": 1.0}), true),
            ("null removes", json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2}), true),
            ("null for nothing", json!({"b": 2}), json!({"a": null}), json!({"b": 2}), false),
            (
                "below",
                json!({"p": {"x": 1, "y": 2}}),
                json!({"p": {"x": null, "z": 3}}),
                json!({"p": {"y": 2, "z": 3}}),
                true,
            ),
            ("lists whole", json!({"a": [1, 2]}), json!({"a": [2]}), json!({"a": [2]}), true),
            ("a scalar becomes a mapping", json!({"a": 1}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}), true),
            (
                "an empty mapping over a mapping",
                json!({"a": {"b": 1}}),
                json!({"a": {}}),
                json!({"a": {"b": 1}}),
                false,
            ),
            ("nothing", json!({"a": 1}), json!({}), json!({"a": 1}), false),
        ] {
            let mut document = document.as_object().unwrap().clone();
            assert_eq!(patch(&mut document, change.as_object().unwrap()), changed, "{name}");
            assert_eq!(Value::Object(document), want, "{name}");
        }
    }
}
