//! One problem in the configuration, said so that it can be repaired without reading anything else.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The agent starts; something is not as it was probably meant.
    Warning,
    /// The agent does not start with this. In the store's configuration: a change to it is refused, and a member that
    /// finds it goes on with the default.
    Error,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A line of a file, counted from 1; line 0 is the file as a whole.
    File {
        /// The name of the file as it was given.
        name: String,
        /// The line on which the key starts.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// The configuration that all members share in the store.
    Store,
    /// Nowhere: it is about something that is missing.
    Unknown,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { name, line: 0 } => f.write_str(name),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Environment(variable) => f.write_str(variable),
            Origin::Store => f.write_str("/config"),
            Origin::Unknown => f.write_str("configuration"),
        }
    }
}

/// One problem: where, which key, which value, which rule it breaks, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the agent can start with it.
    pub severity: Severity,
    /// Where the value was written.
    pub origin: Origin,
    /// The dotted path of the key, such as `postgresql.listen`; empty when the finding is about the whole file.
    pub key: String,
    /// The value as text, unless it is missing or secret.
    pub value: Option<String>,
    /// The rule that is broken.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Finding {
    /// `FILE:LINE: key.path: value: problem; remedy`, on one line whatever the key or a tag in the file is made of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}: ", self.origin);
        if !self.key.is_empty() {
            text.push_str(&format!("{}: ", self.key));
        }
        if let Some(value) = &self.value {
            text.push_str(&format!("{}: ", shorten(value)));
        }
        text.push_str(&self.problem);
        if !self.remedy.is_empty() {
            text.push_str(&format!("; {}", self.remedy));
        }
        f.write_str(&text.chars().flat_map(printable).collect::<String>())
    }
}

/// Longest piece of a value that a finding shows: enough to recognise it, short enough for one line.
const VALUE_CHARS_MAX: usize = 80;

fn shorten(value: &str) -> String {
    let mut text: String = value.chars().take(VALUE_CHARS_MAX).flat_map(printable).collect();
    if value.chars().nth(VALUE_CHARS_MAX).is_some() {
        text.push('…');
    }
    text
}

fn printable(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control();
    let escape = escaped.then(|| character.escape_default()).into_iter().flatten();
    escape.chain((!escaped).then_some(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_that_names_place_key_value_rule_and_remedy() {
        let finding = Finding {
            severity: Severity::Error,
            origin: Origin::File { name: "pg.yml".into(), line: 7 },
            key: "restapi.listen".into(),
            value: Some("8008\nx".into()),
            problem: "has no port".into(),
            remedy: "write host:port".into(),
        };
        assert_eq!(finding.to_string(), r"pg.yml:7: restapi.listen: 8008\nx: has no port; write host:port");
        let odd = Finding { key: "a\nb".into(), problem: "tag !\u{b}".into(), ..finding.clone() };
        assert_eq!(odd.to_string(), r"pg.yml:7: a\nb: 8008\nx: tag !\u{b}; write host:port");
        let long = Finding { value: Some("x".repeat(500)), key: String::new(), ..finding };
        assert!(long.to_string().len() < 150);
    }
}
