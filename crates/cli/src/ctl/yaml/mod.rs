//! Writes YAML as PyYAML's `safe_dump(default_flow_style=False, allow_unicode=True, width=200)` does: sorted keys, lists
//! at the indentation of their key, quotes only where a YAML 1.1 reader would misread the text.
//!
//! Only what JSON can hold is written. Keys are expected to be shorter than 128 characters, as PyYAML changes its layout
//! for longer ones.

mod resolve;
mod scalar;

use serde_json::{Map, Value};

use scalar::{Place, Writer};

/// How lists and maps are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One line for each entry; ends with a line break.
    Block,
    /// `{a: 1, b: [2, 3]}` on one line, without a line break.
    Flow,
}

/// Writes `value`.
pub(crate) fn write(value: &Value, layout: Layout) -> String {
    let mut writer = Writer::default();
    match layout {
        Layout::Flow => flow(&mut writer, value),
        Layout::Block => {
            block(&mut writer, value, 0, After::Indentation);
            if !matches!(writer.text.as_str(), text if text.ends_with('\n')) {
                writer.text.push('\n');
            }
        }
    }
    writer.text
}

/// What stands before a node on its line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// Nothing, or the `- ` of a list that it is an entry of.
    Indentation,
    /// The colon of its key, without a space.
    Colon,
}

/// Writes a node whose entries, if it has any, start at column `indent`.
fn block(writer: &mut Writer, value: &Value, indent: usize, after: After) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (number, key) in sorted_keys(map).into_iter().enumerate() {
                if number > 0 || after == After::Colon {
                    writer.line_break(indent);
                }
                writer.scalar(key, Place::Key { flow: false }, indent + 2);
                writer.push(":");
                let inner = match &map[key] {
                    Value::Array(_) => indent,
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => indent + 2,
                };
                block(writer, &map[key], inner, After::Colon);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (number, entry) in list.iter().enumerate() {
                if number > 0 || after == After::Colon {
                    writer.line_break(indent);
                }
                writer.push("- ");
                block(writer, entry, indent + 2, After::Indentation);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) | Value::Array(_) => {
            if after == After::Colon {
                writer.push(" ");
            }
            leaf(writer, value, Place::Block, indent);
        }
    }
}

fn flow(writer: &mut Writer, value: &Value) {
    match value {
        Value::Object(map) => {
            writer.push("{");
            for (number, key) in sorted_keys(map).into_iter().enumerate() {
                writer.push(if number > 0 { ", " } else { "" });
                writer.scalar(key, Place::Key { flow: true }, 0);
                writer.push(": ");
                flow(writer, &map[key]);
            }
            writer.push("}");
        }
        Value::Array(list) => {
            writer.push("[");
            for (number, entry) in list.iter().enumerate() {
                writer.push(if number > 0 { ", " } else { "" });
                flow(writer, entry);
            }
            writer.push("]");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => leaf(writer, value, Place::Flow, 0),
    }
}

/// Writes a scalar, or an empty list or map. `indent` is where a folded text goes on.
fn leaf(writer: &mut Writer, value: &Value, place: Place, indent: usize) {
    match value {
        Value::Null => writer.push("null"),
        Value::Bool(true) => writer.push("true"),
        Value::Bool(false) => writer.push("false"),
        Value::Number(number) => writer.push(&scalar::number(number)),
        Value::String(text) => writer.scalar(text, place, indent),
        Value::Array(_) => writer.push("[]"),
        Value::Object(_) => writer.push("{}"),
    }
}

fn sorted_keys(map: &Map<String, Value>) -> Vec<&String> {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_unstable();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What PyYAML 6 printed for each value: `{"value": …, "block": …, "flow": …}`. `flow` is null where PyYAML prints
    /// several lines.
    const RECORDED: &str = include_str!("../../../tests/golden/pyyaml.json");

    #[test]
    fn every_value_is_written_as_pyyaml_writes_it() {
        let Value::Array(cases) = serde_json::from_str(RECORDED).unwrap() else { panic!("a list of cases") };
        assert!(cases.len() > 100, "the recording is complete");
        for case in cases {
            let value = &case["value"];
            assert_eq!(write(value, Layout::Block), case["block"].as_str().unwrap(), "block layout of {value}");
            if let Some(flow) = case["flow"].as_str() {
                assert_eq!(write(value, Layout::Flow), flow, "flow layout of {value}");
            }
        }
    }
}
