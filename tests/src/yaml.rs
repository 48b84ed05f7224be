//! Writes YAML in the block style people use for these files.

use serde_json::Value;

/// The document as block-style YAML.
pub fn to_yaml(document: &Value) -> String {
    let mut text = String::new();
    write(&mut text, document, 0);
    text
}

fn write(text: &mut String, value: &Value, indent: usize) {
    if let Some(map) = value.as_object() {
        for (key, value) in map {
            text.push_str(&format!("{:indent$}{key}:", ""));
            write_inner(text, value, indent);
        }
    } else if let Some(items) = value.as_array() {
        for item in items {
            text.push_str(&format!("{:indent$}-", ""));
            // A map of one entry stands on the line of its dash, as in `- encoding: UTF8`.
            if item.as_object().is_some_and(|map| map.len() == 1) {
                let mut inner = String::new();
                write(&mut inner, item, indent + 2);
                text.push_str(&format!(" {}", inner.trim_start()));
            } else {
                write_inner(text, item, indent);
            }
        }
    }
}

/// What follows a key or a dash: the rest of the line, or a block below it.
fn write_inner(text: &mut String, value: &Value, indent: usize) {
    let is_block = value.as_object().is_some_and(|m| !m.is_empty()) || value.as_array().is_some_and(|a| !a.is_empty());
    if is_block {
        text.push('\n');
        write(text, value, indent + 2);
    } else {
        text.push_str(&format!(" {}\n", to_scalar(value)));
    }
}

/// Plain where nothing can be misread, otherwise double-quoted; JSON's quoting is valid YAML.
fn to_scalar(value: &Value) -> String {
    value.as_str().filter(|text| is_plain(text)).map_or_else(|| value.to_string(), str::to_owned)
}

fn is_plain(text: &str) -> bool {
    let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let rest_well = text.chars().all(|c| c.is_ascii_alphanumeric() || "/_.- %".contains(c));
    starts_well && rest_well && text.trim() == text && !words.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::to_yaml;

    #[test]
    fn nested_values_are_written_in_block_style() {
        let document =
            json!({"a": {"b": 1, "c": [], "d": ["x", {"e": "UTF8"}]}, "f": "on", "g": "host all all 0/0 md5"});
        let want = "a:\n  b: 1\n  c: []\n  d:\n    - x\n    - e: UTF8\nf: \"on\"\ng: host all all 0/0 md5\n";
        assert_eq!(to_yaml(&document), want);
    }
}
