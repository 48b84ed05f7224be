//! Parameters of PostgreSQL that the cluster governs: every member has to agree on them, or replication breaks.
//!
//! They come from the dynamic configuration only, are checked against a minimum, and are passed on the command line, where
//! `ALTER SYSTEM` cannot reach them.

use super::units::{bool_of, parse_bool, parse_int, text_of};
use serde_json::Value;

/// One governed parameter.
pub(super) struct Governed {
    /// Its name, in lower case.
    pub(super) name: &'static str,
    /// The value when nothing valid is configured; empty for those that are derived.
    default: &'static str,
    rule: Rule,
    /// Passed on the command line, in the order of [`GOVERNED`]. Otherwise only written to the file.
    pub(super) on_command_line: bool,
}

/// What a configured value has to be.
#[derive(Clone, Copy)]
enum Rule {
    /// Derived from other settings; never configurable.
    Derived,
    /// `on`, whatever is asked for.
    AlwaysOn,
    /// `replica` (or its old name) or `logical`.
    WalLevel,
    /// A whole number of at least this.
    AtLeast(i64),
    /// A boolean.
    Boolean,
    /// A size of at least this many megabytes.
    Megabytes(i64),
    /// Converted to `wal_keep_size` and never written itself.
    Segments,
}

const fn governed(name: &'static str, default: &'static str, rule: Rule) -> Governed {
    Governed { name, default, rule, on_command_line: !matches!(rule, Rule::Megabytes(_) | Rule::Segments) }
}

/// All governed parameters; those of the command line first, in their order there.
pub(super) const GOVERNED: [Governed; 15] = [
    governed("listen_addresses", "", Rule::Derived),
    governed("port", "", Rule::Derived),
    governed("cluster_name", "", Rule::Derived),
    governed("wal_level", "replica", Rule::WalLevel),
    governed("hot_standby", "on", Rule::AlwaysOn),
    governed("max_connections", "100", Rule::AtLeast(25)),
    governed("max_wal_senders", "10", Rule::AtLeast(3)),
    governed("max_prepared_transactions", "0", Rule::AtLeast(0)),
    governed("max_locks_per_transaction", "64", Rule::AtLeast(32)),
    governed("track_commit_timestamp", "off", Rule::Boolean),
    governed("max_replication_slots", "10", Rule::AtLeast(4)),
    governed("max_worker_processes", "8", Rule::AtLeast(2)),
    governed("wal_log_hints", "on", Rule::Boolean),
    governed("wal_keep_size", "128MB", Rule::Megabytes(16)),
    governed("wal_keep_segments", "", Rule::Segments),
];

/// Megabytes of one WAL segment, as far as `wal_keep_segments` is concerned.
const SEGMENT_MEGABYTES: i64 = 16;

/// True for a parameter that a member may not set on its own.
pub fn is_governed(name: &str) -> bool {
    GOVERNED.iter().any(|governed| governed.name.eq_ignore_ascii_case(name))
}

impl Governed {
    /// The value to use, and the rule that the configured one breaks, if it does.
    pub(super) fn settle(&self, configured: Option<&Value>) -> (Option<String>, Option<String>) {
        let default = (!self.default.is_empty()).then(|| self.default.to_owned());
        let Some(value) = configured else { return (default, None) };
        match self.accept(value) {
            Ok(accepted) => (accepted.or(default), None),
            Err(problem) => (default, Some(problem)),
        }
    }

    fn accept(&self, value: &Value) -> Result<Option<String>, String> {
        let text = text_of(value);
        let use_instead = || match self.default {
            "" => "is ignored".to_owned(),
            default => format!("{default} is used"),
        };
        let unless = |valid: bool, accepted: String, rule: &str| {
            if valid { Ok(Some(accepted)) } else { Err(format!("{rule}; {}", use_instead())) }
        };
        match self.rule {
            Rule::Derived => Err("follows from other settings and cannot be set".to_owned()),
            Rule::AlwaysOn => unless(bool_of(value) == Some(true), "on".to_owned(), "has to be on"),
            Rule::WalLevel => match text.to_ascii_lowercase().as_str() {
                "hot_standby" | "replica" => Ok(Some("replica".to_owned())),
                "logical" => Ok(Some("logical".to_owned())),
                _ => unless(false, text, "is neither replica nor logical"),
            },
            Rule::AtLeast(minimum) => match parse_int(&text, None) {
                Some(number) if number >= minimum => Ok(Some(number.to_string())),
                Some(_) => unless(false, text, &format!("is less than {minimum}")),
                None => unless(false, text, "is not a whole number"),
            },
            Rule::Boolean => {
                let accepted = parse_bool(&text).map(|on| if on { "on" } else { "off" }.to_owned());
                unless(accepted.is_some(), accepted.unwrap_or_default(), "is not a boolean")
            }
            Rule::Megabytes(minimum) => {
                let valid = parse_int(&text, Some("MB")).is_some_and(|size| size >= minimum);
                unless(valid, text, &format!("is not a size of at least {minimum}MB"))
            }
            Rule::Segments => match segments_as_size(value) {
                Some(_) => Ok(None),
                None => Err("is not a whole number of at least 1; it is ignored".to_owned()),
            },
        }
    }
}

/// What a valid `wal_keep_segments` means as `wal_keep_size`.
pub(super) fn segments_as_size(value: &Value) -> Option<String> {
    let segments = parse_int(&text_of(value), None).filter(|segments| *segments >= 1)?;
    Some(format!("{}MB", segments.checked_mul(SEGMENT_MEGABYTES)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_out_of_range_gives_way_to_the_default_not_to_the_limit() {
        for (name, value, want, warned) in [
            ("max_connections", json!(50), Some("50"), false),
            ("max_connections", json!("0x40"), Some("64"), false),
            ("max_connections", json!(20), Some("100"), true),
            ("max_connections", json!("many"), Some("100"), true),
            ("max_prepared_transactions", json!(0), Some("0"), false),
            ("wal_level", json!("HOT_STANDBY"), Some("replica"), false),
            ("wal_level", json!("Logical"), Some("logical"), false),
            ("wal_level", json!("minimal"), Some("replica"), true),
            ("hot_standby", json!(true), Some("on"), false),
            ("hot_standby", json!("off"), Some("on"), true),
            ("wal_log_hints", json!(false), Some("off"), false),
            ("wal_keep_size", json!("64MB"), Some("64MB"), false),
            ("wal_keep_size", json!("8MB"), Some("128MB"), true),
            ("port", json!(1), None, true),
            ("wal_keep_segments", json!(4), None, false),
            ("wal_keep_segments", json!(0), None, true),
        ] {
            let governed = GOVERNED.iter().find(|governed| governed.name == name).unwrap();
            let (used, problem) = governed.settle(Some(&value));
            assert_eq!((used.as_deref(), problem.is_some()), (want, warned), "{name} {value}");
        }
        assert_eq!(segments_as_size(&json!(4)).as_deref(), Some("64MB"));
        assert!(segments_as_size(&json!(i64::MAX)).is_none());
    }
}
