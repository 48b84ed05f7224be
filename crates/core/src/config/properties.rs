//! The configuration: YAML, `PATRONI_*` variables, the document in the store, and how one is laid over another.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema::LOCAL;
use super::yaml::{self, Kind, Node};
use super::{
    ClientConfig, DynamicConfig, EffectivePostgresql, Finding, InvalidDynamicConfig, LocalConfig, Origin, Severity,
    Source, Sources, Tags, environment, patch, to_dynamic_for_bootstrap, validate,
};
use crate::cluster::{Cluster, Revision};
use crate::properties::is_one_line;

/// The name under which a text is read.
const FILE: &str = "pg.yml";

/// A finding says where, what and how to repair it, on one line.
fn assert_says_everything(finding: &Finding) {
    let text = finding.to_string();
    assert!(is_one_line(&text), "a finding is one line: {text:?}");
    assert!(!finding.problem.is_empty() && !finding.remedy.is_empty(), "a rule and a remedy: {finding:?}");
    match &finding.origin {
        Origin::File { name, .. } | Origin::Environment(name) => assert!(!name.is_empty(), "a place: {finding:?}"),
        Origin::Store | Origin::Unknown => {}
    }
}

/// YAML is read into values that know their lines, or refused with a line; what was read means the same after it was
/// written as YAML again.
pub fn yaml(text: &str) {
    let mut warnings = Vec::new();
    let read = yaml::parse(FILE, text, &mut warnings);
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    let assert_place = |origin: &Origin| match origin {
        Origin::File { name, line } => assert!(name == FILE && *line <= lines + 1, "{origin} in {lines} lines"),
        Origin::Environment(_) | Origin::Store | Origin::Unknown => panic!("{origin} is not in the file"),
    };
    for warning in &warnings {
        assert_says_everything(warning);
        assert_place(&warning.origin);
        assert_eq!(warning.severity, Severity::Warning);
    }
    match read {
        Ok(node) => {
            for_each(&node, &mut |node| assert_place(&node.origin));
            let value = node.to_value();
            let written = write(&value);
            let again =
                yaml::parse(FILE, &written, &mut Vec::new()).unwrap_or_else(|error| panic!("{error}: {written}"));
            assert_eq!(again.to_value(), value, "{written}");
        }
        Err(finding) => {
            assert_says_everything(&finding);
            assert_place(&finding.origin);
            assert_eq!(finding.severity, Severity::Error);
        }
    }
}

fn for_each(node: &Node, visit: &mut impl FnMut(&Node)) {
    visit(node);
    match &node.kind {
        Kind::Scalar(_) => {}
        Kind::List(items) => items.iter().for_each(|item| for_each(item, visit)),
        Kind::Map(entries) => entries.iter().for_each(|(_, below)| for_each(below, visit)),
    }
}

/// A value in YAML's flow layout, every text quoted.
fn write(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) if number.is_f64() => {
            let text = format!("{:?}", number.as_f64().unwrap_or_default());
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, ""));
            let point = if digits.contains('.') { "" } else { ".0" };
            match exponent.strip_prefix('-') {
                Some(exponent) => format!("{digits}{point}e-{exponent}"),
                None if exponent.is_empty() => text,
                None => format!("{digits}{point}e+{exponent}"),
            }
        }
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(write).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{}: {}", quoted(key), write(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(character));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// A plain scalar means the same when what it was read as is written and read again.
pub fn scalar(text: &str) {
    let Ok(node) = yaml::parse(FILE, &format!("key: {text}"), &mut Vec::new()) else { return };
    let Some(Kind::Scalar(value)) = node.get("key").map(|node| &node.kind) else { return };
    let again = yaml::parse(FILE, &format!("key: {}", write(value)), &mut Vec::new());
    let again = again.unwrap_or_else(|error| panic!("{error}: {value}"));
    assert_eq!(again.get("key").map(Node::to_value).as_ref(), Some(value), "{text:?}");
}

/// A whole configuration: accepted or refused for reasons that can be read, never lost on the way; what a start accepts,
/// all later steps accept.
pub fn document(text: &str, environment: &BTreeMap<String, String>) {
    let files = vec![Source { name: FILE.to_owned(), text: text.to_owned() }];
    let sources = Sources { files, environment: environment.clone() };
    let validation = validate(&sources);
    validation.findings.iter().for_each(assert_says_everything);
    let sorted = validation.findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity));
    assert!(sorted, "errors first: {:?}", validation.findings);
    match LocalConfig::load(&sources) {
        Ok(config) => {
            config.warnings.iter().for_each(assert_says_everything);
            assert!(config.warnings.iter().all(|finding| finding.severity == Severity::Warning));
            assert_keeps_every_key(text, &config, &validation.findings);
            assert_usable(&config);
        }
        Err(rejected) => {
            rejected.findings.iter().for_each(assert_says_everything);
            let errors = |findings: &[Finding]| findings.iter().any(|finding| finding.severity == Severity::Error);
            assert!(errors(&rejected.findings), "a refusal has a reason");
            assert!(errors(&validation.findings), "what cannot be started is not valid either: {rejected}");
        }
    }
    match ClientConfig::load(&sources) {
        Ok(config) => {
            config.warnings.iter().for_each(assert_says_everything);
            let prefix = config.prefix("demo");
            assert!(prefix.starts_with('/') && prefix.ends_with("/demo/"), "{prefix:?}");
        }
        Err(rejected) => rejected.findings.iter().for_each(assert_says_everything),
    }
}

/// No key of the file is dropped in silence: it is in the merged document, and unknown ones are named.
fn assert_keeps_every_key(text: &str, config: &LocalConfig, findings: &[Finding]) {
    let Ok(node) = yaml::parse(FILE, text, &mut Vec::new()) else { return };
    for (key, below) in node.entries().iter().filter(|(_, below)| !below.is_null()) {
        assert!(config.document.contains_key(key), "{key:?} was lost");
        let is_known = LOCAL.iter().any(|known| known.name == key);
        let is_named = || findings.iter().any(|finding| finding.key == *key && finding.origin == below.origin);
        assert!(is_known || is_named(), "{key:?} is neither known nor named in {findings:?}");
    }
}

/// What a member does with its configuration after it was read.
fn assert_usable(config: &LocalConfig) {
    let prefix = config.prefix();
    assert!(prefix.starts_with('/') && prefix.ends_with('/'), "{prefix:?}");
    assert!(!config.etcd.endpoints.is_empty() || config.etcd.srv.is_some(), "a store that can be reached");
    let document = to_dynamic_for_bootstrap(config);
    let dynamic = DynamicConfig::from_map(&document).expect("what bootstrap writes can be read by every member");
    let effective = EffectivePostgresql::merge(config, &dynamic);
    effective.warnings.iter().for_each(assert_says_everything);
    for (name, _) in &effective.command_line {
        assert!(effective.parameters.contains_key(name), "{name} is also written into the file");
    }
}

/// The dynamic configuration: whatever the store holds is refused as a whole or gives timing with room for two retries
/// within the lease (TIM-1), and a corrected document needs no further correction.
pub fn dynamic(document: &Map<String, Value>) {
    let config = match DynamicConfig::from_map(document) {
        Ok(config) => config,
        Err(InvalidDynamicConfig::NotANumber { key, .. } | InvalidDynamicConfig::NotAMapping { key, .. }) => {
            let first = key.split('.').next().unwrap_or(key);
            assert!(document.contains_key(first), "{key} is what the document has");
            return;
        }
    };
    config.warnings.iter().for_each(assert_says_everything);
    let timing = config.timing;
    assert!(timing.loop_wait + timing.retry_timeout * 2 <= timing.ttl, "TIM-1: {timing:?}");
    let minimum = [timing.ttl.as_secs() >= 20, timing.loop_wait.as_secs() >= 1, timing.retry_timeout.as_secs() >= 3];
    assert_eq!(minimum, [true; 3], "TIM-1: {timing:?}");
    let keys_stay = document.keys().all(|key| config.document.contains_key(key));
    assert!(keys_stay, "keys that are not ours stay: {document:?} became {:?}", config.document);
    let again = DynamicConfig::from_map(&config.document).expect("a corrected document is accepted");
    assert_eq!((again.timing, &again.document), (timing, &config.document), "corrected once");
}

/// One variable: it is read, or named in a finding, and no other is.
pub fn variable(name: &str, text: &str) {
    let (entries, findings) = environment::read(&BTreeMap::from([(name.to_owned(), text.to_owned())]));
    for finding in &findings {
        assert_says_everything(finding);
        assert_eq!(finding.origin, Origin::Environment(name.to_owned()));
        let shows = finding.value.as_ref().is_some_and(|value| !value.is_empty());
        assert!(!shows || !name.contains("PASSWORD"), "a secret is shown: {finding}");
    }
    let is_ours = name.starts_with("PATRONI_") && name != "PATRONI_CONFIGURATION" && !text.is_empty();
    let of_a_foreign_store = ["CONSUL", "ZOOKEEPER", "EXHIBITOR", "KUBERNETES", "RAFT"];
    let is_foreign = of_a_foreign_store
        .iter()
        .any(|store| name.strip_prefix("PATRONI_").is_some_and(|rest| rest.starts_with(store)));
    assert!(!is_ours || is_foreign || !entries.is_empty() || !findings.is_empty(), "{name} was ignored in silence");
    for (_, node) in &entries {
        for_each(node, &mut |node| assert_eq!(node.origin, Origin::Environment(name.to_owned())));
    }
}

/// Laying a change over a document: it is there afterwards, a second time changes nothing, and what it does not name
/// stays.
pub fn patches(document: &Map<String, Value>, change: &Map<String, Value>) {
    let mut patched = document.clone();
    let changed = patch(&mut patched, change);
    let meaning = |map: &Map<String, Value>| without_nulls(&Value::Object(map.clone()));
    assert!(changed || meaning(&patched) == meaning(document), "unchanged, and yet {document:?} became {patched:?}");
    let mut twice = patched.clone();
    assert!(!patch(&mut twice, change), "{change:?} changes {patched:?} again");
    assert_eq!(meaning(&twice), meaning(&patched));
    for (key, value) in document {
        assert!(change.contains_key(key) || patched.get(key) == Some(value), "{key} was not to be changed");
    }
    for (key, value) in change {
        assert_eq!(value.is_null(), !patched.contains_key(key), "null removes and everything else is there: {key}");
    }
}

/// The same without keys that are null, which mean the same as missing ones.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let present = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(present.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Tags: what a member thinks of its own tags, others think of the tags that it publishes (IN-T1).
pub fn tags(configured: &Map<String, Value>) {
    let own = Tags::new(configured.clone());
    let record = serde_json::json!({"tags": own.published()}).to_string();
    let cluster =
        Cluster::from_keys(Revision(1), [crate::cluster::properties::raw_key("members/a", record.as_bytes())]);
    let member = cluster.members.values().next().expect("the record of a member");
    assert_eq!(member.is_nofailover(), own.is_nofailover(), "{configured:?}");
    assert_eq!(member.replicatefrom().filter(|name| !name.is_empty()), own.replicatefrom(), "{configured:?}");
    assert_eq!(member.has_tag("clonefrom"), own.is_clonefrom(), "{configured:?}");
    assert_eq!(member.is_nostream(), own.is_nostream(), "{configured:?}");
    assert!(own.failover_priority() <= 0 || !own.is_nofailover(), "{configured:?}");
}

/// No finding shows a secret, whatever way it is written in the file. `style` holds `@` where the secret stands.
pub fn secrets(style: &str, secret: &str) {
    let value = style.replace('@', secret);
    let text = format!(
        "scope: demo\nname: n1\netcd3:\n  host: e1\n  password: {value}\nrestapi:\n  listen: 127.0.0.1:8008\n  \
         connect_address: 127.0.0.1:8008\n  authentication:\n    username: u\n    password: {value}\nctl:\n  \
         authentication:\n    username: u\n    password: {value}\npostgresql:\n  listen: 127.0.0.1:5432\n  \
         connect_address: 127.0.0.1:5432\n  data_dir: /data\n  authentication:\n    superuser:\n      \
         username: u\n      password: {value}\n    replication:\n      username: u\n      sslpassword: {value}\n"
    );
    let sources = Sources { files: vec![Source { name: FILE.to_owned(), text }], ..Sources::default() };
    let findings = validate(&sources).findings;
    let shown = findings.iter().map(|finding| format!("{finding} {finding:?}")).collect::<Vec<_>>().join("\n");
    assert!(!shown.contains(secret), "{shown}");
    assert!(is_one_line(secret));
    if let Ok(config) = LocalConfig::load(&sources) {
        let users = &config.postgresql.authentication;
        let shown = format!("{:?} {:?} {:?} {users:?}", config.etcd, config.restapi, config.ctl);
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any JSON value of moderate size, with keys that mean something here and there.
    fn value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-5i64..100).prop_map(Value::from),
            "[a-z0-9:,./ -]{0,12}".prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        let key = "ttl|loop_wait|retry_timeout|postgresql|parameters|slots|standby_cluster|host|max_connections|\
                   nofailover|failover_priority|nostream|clonefrom|nosync|replicatefrom|[a-z]{1,4}";
        scalar.prop_recursive(3, 24, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((key, inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    fn map() -> impl Strategy<Value = Map<String, Value>> {
        let timing = (proptest::option::of(value()), proptest::option::of(value()), proptest::option::of(value()));
        let key = "ttl|loop_wait|retry_timeout|postgresql|parameters|slots|nofailover|failover_priority|nostream|\
                   clonefrom|replicatefrom|synchronous_mode|standby_cluster|[a-z]{1,4}";
        let others = proptest::collection::vec((key, value()), 0..6);
        (timing, others).prop_map(|((ttl, loop_wait, retry), others)| {
            let named = [("ttl", ttl), ("loop_wait", loop_wait), ("retry_timeout", retry)];
            let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
            // Timing that is not a number refuses a whole document: one in a few is enough.
            others.into_iter().chain(named.filter(|(_, value)| value.is_number())).collect()
        })
    }

    fn tag_value() -> impl Strategy<Value = Value> {
        let text = "null|true|false|0|1|-1|0\\.0|2\\.5|\"(0|2|on|off|a|)\"|\\[\\]|\\{\\}";
        text.prop_map(|text| serde_json::from_str(&text).expect("JSON"))
    }

    const COMPLETE: &str = "scope: demo\nname: n1\netcd3: {host: e1}\nrestapi: {listen: 127.0.0.1:8008, connect_address: \
                            127.0.0.1:8008}\npostgresql:\n  listen: 127.0.0.1:5432\n  connect_address: 127.0.0.1:5432\n  \
                            data_dir: /data\n  authentication: {superuser: {username: s}, replication: {username: r}}\n";

    proptest! {
        #![proptest_config(crate::properties::repeatable(192))]

        #[test]
        fn yaml_is_read_with_its_lines_and_means_the_same_written_again(
            text in "([a-c&*<!?|>'\"\\[\\]{}:,#~%@\\\\ \n-]|<<|: |- |\n  |\n- |\r\n|\u{85}|0x|1:3|&a |\\*a |!!str |\\PC){0,60}",
        ) {
            yaml(&text);
        }

        #[test]
        fn a_value_is_the_same_after_it_was_written_as_yaml(value in value()) {
            let text = write(&value);
            let node = yaml::parse(FILE, &text, &mut Vec::new()).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(node.to_value(), value);
        }

        #[test]
        fn a_scalar_means_one_value(text in "[-+]?[0-9._:xobeE+-]{0,20}|[a-zA-Z.~<=]{0,6}|\\PC{0,12}|0[0-7_]{0,30}") {
            scalar(&text);
        }

        #[test]
        fn no_document_is_refused_without_a_reason(
            text in "((scope|name|etcd3|restapi|postgresql|bootstrap|tags|log|dcs|listen|hosts|initdb|pg_hba|parameters|\
                     authentication|superuser|method): ?|[ \n]|  |- |\\[|\\]|\\{|\\}|[a-z0-9:/*~]){0,80}",
        ) {
            document(&text, &BTreeMap::new());
        }

        #[test]
        fn a_complete_document_stays_usable_whatever_comes_on_top(
            section in "log|restapi|ctl|etcd3|postgresql|bootstrap|watchdog|tags|scope|name|namespace|citus|[a-z]{1,6}|\"\\PC{1,4}\"",
            value in value(),
        ) {
            let text = format!("{COMPLETE}\n{}: {}\n", section, write(&value));
            document(&text, &BTreeMap::new());
            let dcs = format!("{COMPLETE}\nbootstrap: {{dcs: {}}}\n", write(&value));
            document(&dcs, &BTreeMap::new());
        }

        #[test]
        fn timing_always_leaves_room_for_two_retries(map in map()) {
            dynamic(&map);
        }

        #[test]
        fn a_variable_is_read_or_named(
            name in "PATRONI_(LOG_(FORMAT|LOGGERS|MODE|LEVEL)|ETCD3_(HOSTS|HOST|PORT|PASSWORD|URL)|NAME|SCOPE|[A-Z_]{0,20})|[A-Z]{1,9}",
            text in "[a-z0-9:,'\"\\[\\]{}= -]{0,16}|\\PC{0,40}",
        ) {
            variable(&name, &text);
        }

        #[test]
        fn a_change_can_be_made_twice(document in map(), change in map()) {
            patches(&document, &change);
        }

        #[test]
        fn others_see_the_tags_as_their_owner_does(
            configured in proptest::collection::vec(
                ("nofailover|failover_priority|nostream|clonefrom|replicatefrom|az", tag_value()), 0..5,
            ),
        ) {
            tags(&configured.into_iter().collect());
        }

        #[test]
        fn no_message_shows_a_secret(
            style in "@|'@'|\"@\"|!!int @|!!bool @|!!float @|!!str @|!x @|\\[@\\]|\\{a: @\\}|@: x|'@|@ @|&@ x|\\*@",
            secret in "[0-9]{4}-[01][0-9]-[0-3][0-9]|[A-Z0-9]{12}|0x[0-9a-f]{9}|[1-9][0-9]{9}",
        ) {
            secrets(&style, &secret);
        }
    }
}
