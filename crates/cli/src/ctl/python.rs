//! Texts that the prompts and answers share with Python.

/// A list of names as Python prints a list of texts: `['n1', 'n2']`.
pub(super) fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A text as Python prints it.
pub(super) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut result = String::from(quote);
    for character in text.chars() {
        if character == quote || character == '\\' {
            result.push('\\');
        }
        result.push(character);
    }
    result.push(quote);
    result
}

/// True for the values that Patroni takes for "on": `true`, `on`, `yes`, `1`, in any case.
pub(super) fn is_on(value: Option<&serde_json::Value>) -> bool {
    let text = match value {
        Some(serde_json::Value::Bool(on)) => return *on,
        Some(serde_json::Value::Number(number)) => number.to_string(),
        Some(serde_json::Value::String(text)) => text.to_ascii_lowercase(),
        Some(serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_)) | None => {
            return false;
        }
    };
    matches!(text.as_str(), "true" | "on" | "yes" | "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_python_does() {
        let names = |names: &[&str]| list(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["pg2", "pg3"]), "['pg2', 'pg3']");
        assert_eq!(names(&["it's", "a\\b", "'\""]), r#"["it's", 'a\\b', '\'"']"#);
        assert_eq!(names(&[]), "[]");
    }
}
