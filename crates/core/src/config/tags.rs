//! The tags of a member: what it may become, and what it tells others about itself.

use serde_json::{Map, Value};

use crate::json::is_truthy;

/// The tags as configured, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tags(Map<String, Value>);

/// Tags that are published only when true, with the priority tag that makes a false one worth publishing.
const BOOLEAN_TAGS: [(&str, Option<&str>); 5] = [
    ("clonefrom", None),
    ("nofailover", Some("failover_priority")),
    ("noloadbalance", None),
    ("nosync", Some("sync_priority")),
    ("nostream", None),
];

impl Tags {
    /// Takes the `tags` section as it is.
    pub fn new(tags: Map<String, Value>) -> Self {
        Tags(tags)
    }

    /// All tags as configured.
    pub fn configured(&self) -> &Map<String, Value> {
        &self.0
    }

    /// What is published in the member key and in the status document: the boolean tags only when true, or when their
    /// priority tag needs the contrast; any other tag always.
    pub fn published(&self) -> Map<String, Value> {
        let is_hidden = |name: &str, value: &Value| {
            BOOLEAN_TAGS.iter().any(|(tag, priority)| {
                *tag == name && !is_truthy(value) && !priority.is_some_and(|priority| self.0.contains_key(priority))
            })
        };
        self.0.iter().filter(|(name, value)| !is_hidden(name, value)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Never becomes primary on its own: `nofailover`, or without it a `failover_priority` of zero or less (IN-T1).
    pub fn is_nofailover(&self) -> bool {
        is_nofailover(&self.0)
    }

    /// Zero when [`Tags::is_nofailover`] by the boolean tag, else the configured priority, else 1 (IN-T2).
    pub fn failover_priority(&self) -> i64 {
        priority(&self.0, "nofailover", "failover_priority")
    }

    /// Never a synchronous standby (IN-T3).
    pub fn is_nosync(&self) -> bool {
        is_nosync(&self.0)
    }

    /// How much this member is preferred as synchronous standby (IN-T3).
    pub fn sync_priority(&self) -> i64 {
        sync_priority(&self.0)
    }

    /// Not offered to load balancers.
    pub fn is_noloadbalance(&self) -> bool {
        self.is_set("noloadbalance")
    }

    /// Preferred source of base backups.
    pub fn is_clonefrom(&self) -> bool {
        self.is_set("clonefrom")
    }

    /// Does not stream. The only tag for which boolean words in text count.
    pub fn is_nostream(&self) -> bool {
        is_nostream(&self.0)
    }

    /// The member to stream from instead of the leader.
    pub fn replicatefrom(&self) -> Option<&str> {
        self.0.get("replicatefrom")?.as_str().filter(|name| !name.is_empty())
    }

    fn is_set(&self, tag: &str) -> bool {
        self.0.get(tag).is_some_and(is_truthy)
    }
}

/// IN-T3, for one's own tags and for those that another member published.
pub(crate) fn is_nosync(tags: &Map<String, Value>) -> bool {
    excludes(tags, "nosync", "sync_priority")
}

/// [`Tags::sync_priority`] for the tags of any member.
pub(crate) fn sync_priority(tags: &Map<String, Value>) -> i64 {
    priority(tags, "nosync", "sync_priority")
}

/// IN-T1, for one's own tags and for those that another member published: both have to come to the same.
pub(crate) fn is_nofailover(tags: &Map<String, Value>) -> bool {
    excludes(tags, "nofailover", "failover_priority")
}

/// [`Tags::is_nostream`] for the tags of any member.
pub(crate) fn is_nostream(tags: &Map<String, Value>) -> bool {
    match tags.get("nostream") {
        Some(Value::String(text)) => super::units::parse_bool(text) == Some(true),
        Some(value) => is_truthy(value),
        None => false,
    }
}

fn priority(tags: &Map<String, Value>, boolean: &str, priority: &str) -> i64 {
    if tags.get(boolean).is_some_and(is_truthy) { 0 } else { number(tags, priority).unwrap_or(1) }
}

fn number(tags: &Map<String, Value>, tag: &str) -> Option<i64> {
    match tags.get(tag)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => super::units::parse_int(text, None),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn excludes(tags: &Map<String, Value>, boolean: &str, priority: &str) -> bool {
    match tags.get(boolean).filter(|value| !value.is_null()) {
        Some(value) => is_truthy(value),
        None => number(tags, priority).is_some_and(|priority| priority <= 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tags(value: Value) -> Tags {
        Tags::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn false_booleans_are_published_only_next_to_their_priority() {
        for (configured, published) in [
            (json!({"nofailover": false, "clonefrom": true, "az": ""}), json!({"clonefrom": true, "az": ""})),
            (
                json!({"nofailover": false, "failover_priority": 2, "nosync": false}),
                json!({"nofailover": false, "failover_priority": 2}),
            ),
            (json!({"nosync": false, "sync_priority": 0}), json!({"nosync": false, "sync_priority": 0})),
            (json!({"flag": false, "weight": 0}), json!({"flag": false, "weight": 0})),
        ] {
            assert_eq!(Value::Object(tags(configured.clone()).published()), published, "{configured}");
        }
    }

    #[test]
    fn the_boolean_wins_over_the_priority() {
        for (configured, nofailover, priority) in [
            (json!({}), false, 1),
            (json!({"nofailover": true}), true, 0),
            (json!({"nofailover": true, "failover_priority": 5}), true, 0),
            (json!({"nofailover": false, "failover_priority": 0}), false, 0),
            (json!({"failover_priority": 0}), true, 0),
            (json!({"failover_priority": -1}), true, -1),
            (json!({"failover_priority": "3"}), false, 3),
        ] {
            let tags = tags(configured.clone());
            assert_eq!((tags.is_nofailover(), tags.failover_priority()), (nofailover, priority), "{configured}");
        }
    }

    #[test]
    fn nostream_understands_words() {
        for (value, want) in [(json!("off"), false), (json!("on"), true), (json!(true), true), (json!(0), false)] {
            assert_eq!(tags(json!({"nostream": value})).is_nostream(), want, "{value}");
        }
    }
}
