//! Takes secrets out of what is recorded.
//!
//! Two nets, one behind the other: of the store only what decisions read is kept ([`cluster`]), and in every text that is
//! left, such as the output of a program that failed, what looks like a password becomes `***` ([`text`]).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::cluster::{Cluster, Initialize, Member, Versioned};
use crate::decide::bootstrap::{INTENT_ALIVE_KEY, INTENT_KEY};

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// The longest text in a record, in bytes: the end of a program's output says why it failed, and records are bounded.
const TEXT_BYTES_MAX: usize = 4000;

/// The fields of a member's record that decisions read, and those that tell a person how the member was.
const MEMBER_FIELDS: [&str; 14] = [
    "conn_url",
    "api_url",
    "state",
    "role",
    "version",
    "tags",
    "pending_restart",
    "checkpoint_after_promote",
    "xlog_location",
    "replay_lsn",
    "receive_lsn",
    "replication_state",
    "timeline",
    "pause",
];

/// The tags that decisions read.
const TAGS: [&str; 8] = [
    "nofailover",
    "failover_priority",
    "noloadbalance",
    "clonefrom",
    "nosync",
    "sync_priority",
    "nostream",
    "replicatefrom",
];

/// The cluster with what decisions read: other values may hold anything, so they are left out.
pub fn cluster(cluster: &Cluster) -> Cluster {
    let is_ours = |name: &&String| [INTENT_KEY, INTENT_ALIVE_KEY].contains(&name.as_str());
    Cluster {
        initialize: match &cluster.initialize {
            Initialize::Invalid(_) => Initialize::Invalid("(not a system identifier)".to_owned()),
            known @ (Initialize::Absent | Initialize::Bootstrapping | Initialize::SystemId(_)) => known.clone(),
        },
        // That there is one is all that a decision asks.
        config: cluster.config.as_ref().map(|config| Versioned { value: Map::new(), revision: config.revision }),
        members: cluster.members.iter().map(|(name, known)| (name.clone(), member(known))).collect(),
        failsafe: cluster
            .failsafe
            .as_ref()
            .map(|members| members.iter().map(|(name, url)| (name.clone(), known_url(cluster, name, url))).collect()),
        own: cluster
            .own
            .iter()
            .filter(|(name, _)| is_ours(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        warnings: Vec::new(),
        ..cluster.clone()
    }
}

/// What the record of that member says, too; anything else is left out.
fn known_url(cluster: &Cluster, name: &str, url: &str) -> String {
    let record = cluster.members.values().find(|member| member.name.as_str() == name);
    record.and_then(Member::api_url).filter(|known| *known == url).unwrap_or_default().to_owned()
}

/// The names in a map of members and their URLs.
pub fn names(members: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    members.keys().map(|name| (name.clone(), String::new())).collect()
}

fn member(member: &Member) -> Member {
    let mut fields = chosen(&member.fields, &MEMBER_FIELDS);
    if let Some(Value::Object(tags)) = fields.get_mut("tags") {
        *tags = chosen(tags, &TAGS);
    }
    Member { fields, ..member.clone() }
}

fn chosen(fields: &Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    fields
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Cleans every text in a document, and shortens those that are too long. Keys stay: they are names of ours.
pub fn document(value: &mut Value) {
    match value {
        Value::String(found) => {
            let cleaned = shortened(text(found));
            if cleaned != *found {
                *found = cleaned;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(document),
        Value::Object(fields) => fields.values_mut().for_each(document),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The end of a text that is too long; why something failed stands there.
fn shortened(text: String) -> String {
    let Some(excess) = text.len().checked_sub(TEXT_BYTES_MAX).filter(|excess| *excess > 0) else { return text };
    let start = (excess..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("(…) {}", &text[start..])
}

/// A text without passwords: of URLs (`//user:secret@`), of connection strings (`password=secret`), of variables
/// (`PGPASSWORD=secret`), of SQL (`PASSWORD 'secret'`) and of YAML (`password: secret`).
pub fn text(text: &str) -> String {
    in_assignments(&in_urls(text))
}

fn in_urls(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, authority) = rest.split_at(at + 3);
        cleaned.push_str(before);
        let end = authority.find(|c: char| c.is_whitespace() || "/?#\"'<>".contains(c)).unwrap_or(authority.len());
        let (authority, after) = authority.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                let user = user.split_once(':').map_or_else(|| user.to_owned(), |(user, _)| format!("{user}:{HIDDEN}"));
                cleaned.push_str(&format!("{user}@{host}"));
            }
            None => cleaned.push_str(authority),
        }
        rest = after;
    }
    cleaned + rest
}

fn in_assignments(text: &str) -> String {
    const WORD: &str = "password";
    let lower = text.to_ascii_lowercase(); // ASCII only, so that positions are the same.
    let mut cleaned = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(found) = lower[done..].find(WORD) {
        let word_end = done + found + WORD.len();
        let (start, end) = secret_after(text, word_end).unwrap_or((word_end, word_end));
        cleaned.push_str(&text[done..start]);
        if end > start {
            cleaned.push_str(HIDDEN);
        }
        done = end;
    }
    cleaned + &text[done..]
}

/// Where the secret stands that is assigned at `at`: after `=` or `:`, or in quotes, up to its end.
fn secret_after(text: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &text[at..];
    let closed = rest.strip_prefix(['"', '\'']).unwrap_or(rest); // The end of a quoted key, as in JSON.
    let is_assigned = closed.trim_start().starts_with(['=', ':']);
    let value = closed.trim_start().trim_start_matches(['=', ':']).trim_start();
    let start = text.len() - value.len();
    let quote = value.chars().next().filter(|first| ['"', '\''].contains(first));
    let inner = match quote {
        Some(quote) => {
            let mut escaped = false;
            value[1..].find(|c: char| {
                let ends = c == quote && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })
        }
        None if !is_assigned => return None,
        None => value.find(|c: char| c.is_whitespace() || "&,;}])\"'".contains(c)),
    };
    let skip = usize::from(quote.is_some());
    let end = inner.map_or(text.len(), |length| start + skip + length);
    (end > start + skip).then_some((start + skip, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{LeaseId, RawKey, Revision};

    #[test]
    fn passwords_are_taken_out_of_any_text() {
        for (found, want) in [
            ("postgres://bob:hunter2@n1:5432/db?x=1", "postgres://bob:***@n1:5432/db?x=1"),
            ("postgres://bob@n1,n2/db and http://n1:8008/x", "postgres://bob@n1,n2/db and http://n1:8008/x"),
            ("postgresql://bob:p@ss:w@n1", "postgresql://bob:***@n1"),
            ("host=n1 password=hunter2 user=bob", "host=n1 password=*** user=bob"),
            (r"password='it\'s secret' host=n1", "password='***' host=n1"),
            ("password = \"a b\" host=n1", "password = \"***\" host=n1"),
            ("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"),
            ("ALTER ROLE bob PASSWORD 'hunter2' LOGIN", "ALTER ROLE bob PASSWORD '***' LOGIN"),
            ("sslpassword=x&password=y", "sslpassword=***&password=***"),
            (r#"{"password": "hunter2", "x": 1}"#, r#"{"password": "***", "x": 1}"#),
            ("password: hunter2\nuser: bob", "password: ***\nuser: bob"),
            ("password='never closed", "password='***"),
            (
                "FATAL: password authentication failed for user \"bob\"",
                "FATAL: password authentication failed for user \"bob\"",
            ),
            ("password", "password"),
            ("password=", "password="),
            ("größer password=é€ ü", "größer password=*** ü"),
        ] {
            assert_eq!(text(found), want);
            assert_eq!(text(want), want, "cleaning twice changes nothing");
        }
    }

    #[test]
    fn of_the_store_only_what_decisions_read_is_kept() {
        let key = |suffix: &str, value: &str| RawKey {
            suffix: suffix.to_owned(),
            value: value.as_bytes().to_vec(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            lease: LeaseId(1),
        };
        let keys = [
            key("config", r#"{"ttl":30,"postgresql":{"parameters":{"primary_conninfo":"hunter2"}}}"#),
            key("initialize", "hunter2"),
            key(
                "members/a",
                r#"{"conn_url":"postgres://a/x","tags":{"nofailover":true,"note":"hunter2"},"secret":"hunter2"}"#,
            ),
            key("members/b", "postgres://bob:hunter2@b:5432/x?application_name=http://b:8008/patroni"),
            key("failsafe", r#"{"a":"http://hunter2"}"#),
            key("x/other", "hunter2"),
            key("x/bootstrap", "a"),
        ];
        let full = Cluster::from_keys(Revision(1), keys);
        let kept = cluster(&full);
        let mut written = serde_json::to_value(&kept).unwrap();
        document(&mut written);
        let text = written.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        let read: Cluster = serde_json::from_value(written).unwrap();
        assert!(read.config.is_some() && read.own.contains_key(INTENT_KEY) && read.failsafe.is_some());
        let a = &read.members[&"a".parse().unwrap()];
        assert!(a.is_nofailover() && a.conn_url() == Some("postgres://a/x"));
        let b = &read.members[&"b".parse().unwrap()];
        assert_eq!(b.address(), full.members[&b.name].address(), "an address without its password is the same address");
    }

    #[test]
    fn a_text_that_is_too_long_keeps_its_end() {
        let mut value = Value::from(format!("{}é the reason", "x".repeat(TEXT_BYTES_MAX)));
        document(&mut value);
        let text = value.as_str().unwrap();
        assert!(text.len() < TEXT_BYTES_MAX + 10 && text.ends_with("é the reason"), "{text}");
    }
}
