//! Options of command-line tools as lists in the file: `- checksums`, `- encoding: UTF8`, or a mapping.

use serde_json::Value;

use super::local::OptionList;
use super::units::text_of;

/// Reads a list of options, and says which entries could not be understood.
pub(super) fn option_list(value: &Value) -> (OptionList, Vec<String>) {
    let mut options = OptionList::new();
    let mut problems = Vec::new();
    match value {
        Value::Null => {}
        Value::Array(list) => list.iter().for_each(|entry| match entry {
            Value::String(name) => options.push((undashed(name), None)),
            Value::Object(map) if map.len() == 1 => {
                for (name, value) in map {
                    push(&mut options, &mut problems, name, value);
                }
            }
            Value::Object(_) => problems.push(format!("{} has more than one option in one entry", text_of(entry))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                problems.push(format!("{} is not an option", text_of(entry)));
            }
        }),
        Value::Object(map) => map.iter().for_each(|(name, value)| push(&mut options, &mut problems, name, value)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            problems.push(format!("{} is not a list of options", text_of(value)));
        }
    }
    options.retain(|(name, _)| !name.is_empty());
    (options, problems)
}

fn push(options: &mut OptionList, problems: &mut Vec<String>, name: &str, value: &Value) {
    match value {
        // A mapping that switches an option on or off: what was meant is plain.
        Value::Bool(true) => options.push((undashed(name), None)),
        Value::Bool(false) | Value::Null => {}
        Value::String(_) | Value::Number(_) => options.push((undashed(name), Some(unquoted(&text_of(value))))),
        Value::Array(_) | Value::Object(_) => problems.push(format!("the value of {name} is not a text")),
    }
}

fn undashed(name: &str) -> String {
    name.trim_start_matches('-').to_owned()
}

/// Removes one layer of shell quotes around the whole text.
fn unquoted(text: &str) -> String {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote).filter(|inner| !inner.contains(quote));
    inner('\'').or_else(|| inner('"')).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_and_mappings_name_the_same_options() {
        let want: OptionList = vec![
            ("data-checksums".into(), None),
            ("encoding".into(), Some("UTF8".into())),
            ("n".into(), Some("5".into())),
        ];
        for value in [
            json!(["data-checksums", {"encoding": "'UTF8'"}, {"n": 5}]),
            json!(["--data-checksums", {"encoding": "UTF8"}, {"n": "\"5\""}]),
            json!({"data-checksums": true, "encoding": "UTF8", "n": 5, "off": false}),
        ] {
            assert_eq!(option_list(&value), (want.clone(), vec![]), "{value}");
        }
    }

    #[test]
    fn what_is_no_option_is_named() {
        for bad in [json!([{"a": "1", "b": "2"}]), json!([5]), json!("x"), json!([{"a": []}])] {
            assert_eq!(option_list(&bad).1.len(), 1, "{bad}");
        }
    }
}
