//! `PATRONI_*` variables: what each of them sets, and how its text is read.

use std::collections::BTreeMap;

use serde_json::Value;

use super::finding::{Finding, Origin, Severity};
use super::suggest::nearest;
use super::units::{parse_bool, parse_int};
use super::yaml::{Kind, Node, parse};

/// How the text of a variable is read.
#[derive(Clone, Copy)]
enum Read {
    Text,
    Integer,
    Boolean,
    List,
    Mapping,
    /// A layout with `%(…)s` in it, or else a list.
    Format,
}

/// Variables with a common first part that set keys of one section. A variable's last part in lower case is its key.
struct Family {
    prefix: &'static str,
    section: &'static [&'static str],
    names: &'static [(&'static str, Read)],
}

const fn family(
    prefix: &'static str,
    section: &'static [&'static str],
    names: &'static [(&'static str, Read)],
) -> Family {
    Family { prefix, section, names }
}

const PREFIX: &str = "PATRONI_";

/// Holds a whole document; see [`super::Sources`].
pub(super) const CONFIGURATION: &str = "PATRONI_CONFIGURATION";

const USER: &[(&str, Read)] = &[
    ("USERNAME", Read::Text),
    ("PASSWORD", Read::Text),
    ("SSLMODE", Read::Text),
    ("SSLCERT", Read::Text),
    ("SSLKEY", Read::Text),
    ("SSLPASSWORD", Read::Text),
    ("SSLROOTCERT", Read::Text),
    ("SSLCRL", Read::Text),
    ("SSLCRLDIR", Read::Text),
    ("GSSENCMODE", Read::Text),
    ("CHANNEL_BINDING", Read::Text),
    ("SSLNEGOTIATION", Read::Text),
];

const LOGIN: &[(&str, Read)] = &[("USERNAME", Read::Text), ("PASSWORD", Read::Text)];

const FAMILIES: [Family; 12] = [
    family(
        "",
        &[],
        &[
            ("NAME", Read::Text),
            ("NAMESPACE", Read::Text),
            ("SCOPE", Read::Text),
            ("THREAD_POOL_SIZE", Read::Integer),
            ("THREAD_STACK_SIZE", Read::Text),
        ],
    ),
    family(
        "LOG_",
        &["log"],
        &[
            ("TYPE", Read::Text),
            ("LEVEL", Read::Text),
            ("TRACEBACK_LEVEL", Read::Text),
            ("FORMAT", Read::Format),
            ("DATEFORMAT", Read::Text),
            ("STATIC_FIELDS", Read::Mapping),
            ("MAX_QUEUE_SIZE", Read::Integer),
            ("DIR", Read::Text),
            ("MODE", Read::Integer),
            ("FILE_SIZE", Read::Integer),
            ("FILE_NUM", Read::Integer),
            ("LOGGERS", Read::Mapping),
            ("DEDUPLICATE_HEARTBEAT_LOGS", Read::Boolean),
        ],
    ),
    family(
        "RESTAPI_",
        &["restapi"],
        &[
            ("LISTEN", Read::Text),
            ("CONNECT_ADDRESS", Read::Text),
            ("CERTFILE", Read::Text),
            ("KEYFILE", Read::Text),
            ("KEYFILE_PASSWORD", Read::Text),
            ("CAFILE", Read::Text),
            ("CIPHERS", Read::Text),
            ("VERIFY_CLIENT", Read::Text),
            ("ALLOWLIST", Read::List),
            ("ALLOWLIST_INCLUDE_MEMBERS", Read::Boolean),
            ("HTTP_EXTRA_HEADERS", Read::Mapping),
            ("HTTPS_EXTRA_HEADERS", Read::Mapping),
            ("REQUEST_QUEUE_SIZE", Read::Integer),
            ("SERVER_TOKENS", Read::Text),
        ],
    ),
    family("RESTAPI_", &["restapi", "authentication"], LOGIN),
    family(
        "CTL_",
        &["ctl"],
        &[
            ("INSECURE", Read::Boolean),
            ("CACERT", Read::Text),
            ("CERTFILE", Read::Text),
            ("KEYFILE", Read::Text),
            ("KEYFILE_PASSWORD", Read::Text),
        ],
    ),
    family("CTL_", &["ctl", "authentication"], LOGIN),
    family(
        "POSTGRESQL_",
        &["postgresql"],
        &[
            ("LISTEN", Read::Text),
            ("CONNECT_ADDRESS", Read::Text),
            ("PROXY_ADDRESS", Read::Text),
            ("CONFIG_DIR", Read::Text),
            ("DATA_DIR", Read::Text),
            ("PGPASS", Read::Text),
            ("BIN_DIR", Read::Text),
        ],
    ),
    family(
        "POSTGRESQL_BIN_",
        &["postgresql", "bin_name"],
        &[
            ("PG_CTL", Read::Text),
            ("INITDB", Read::Text),
            ("PG_CONTROLDATA", Read::Text),
            ("PG_BASEBACKUP", Read::Text),
            ("POSTGRES", Read::Text),
            ("PG_ISREADY", Read::Text),
            ("PG_REWIND", Read::Text),
        ],
    ),
    family("SUPERUSER_", &["postgresql", "authentication", "superuser"], USER),
    family("REPLICATION_", &["postgresql", "authentication", "replication"], USER),
    family("REWIND_", &["postgresql", "authentication", "rewind"], USER),
    family("CITUS_", &["citus"], &[("GROUP", Read::Integer), ("DATABASE", Read::Text)]),
];

/// Old names, and the variable that wins over each.
const LEGACY: [(&str, &str, &str); 3] = [
    ("PATRONI_LOGLEVEL", "PATRONI_LOG_LEVEL", "level"),
    ("PATRONI_LOGFORMAT", "PATRONI_LOG_FORMAT", "format"),
    ("PATRONI_LOG_DATEFMT", "PATRONI_LOG_DATEFORMAT", "dateformat"),
];

/// What a variable of a store's section may end in.
const STORE: &[(&str, Read)] = &[
    ("HOST", Read::Text),
    ("HOSTS", Read::List),
    ("PORT", Read::Integer),
    ("PROTOCOL", Read::Text),
    ("USE_PROXIES", Read::Boolean),
    ("SRV", Read::Text),
    ("SRV_SUFFIX", Read::Text),
    ("URL", Read::Text),
    ("PROXY", Read::Text),
    ("CACERT", Read::Text),
    ("CERT", Read::Text),
    ("KEY", Read::Text),
];

/// Sections of stores, ours first.
pub(super) const STORE_SECTIONS: [&str; 7] =
    ["etcd3", "etcd", "consul", "zookeeper", "exhibitor", "kubernetes", "raft"];

/// The document that the variables describe, with what could not be read.
pub(super) fn read(environment: &BTreeMap<String, String>) -> (Vec<(String, Node)>, Vec<Finding>) {
    let mut reader =
        Reader { environment, root: Vec::new(), findings: Vec::new(), known: vec![CONFIGURATION.to_owned()] };
    for family in &FAMILIES {
        reader.family(family);
    }
    for (old, new, key) in LEGACY {
        reader.known.push(old.to_owned());
        if environment.get(new).is_none_or(String::is_empty) {
            reader.variable(old, &["log", key], if key == "format" { Read::Format } else { Read::Text });
        }
    }
    for section in STORE_SECTIONS {
        reader.store(section);
    }
    reader.unknown();
    (reader.root, reader.findings)
}

struct Reader<'a> {
    environment: &'a BTreeMap<String, String>,
    root: Vec<(String, Node)>,
    findings: Vec<Finding>,
    known: Vec<String>,
}

impl Reader<'_> {
    fn family(&mut self, family: &Family) {
        for (name, read) in family.names {
            let variable = format!("{PREFIX}{}{name}", family.prefix);
            let key = name.to_ascii_lowercase();
            let path: Vec<&str> = family.section.iter().copied().chain([key.as_str()]).collect();
            self.variable(&variable, &path, *read);
            self.known.push(variable);
        }
    }

    /// One variable; an empty one counts as not set.
    fn variable(&mut self, variable: &str, path: &[&str], read: Read) {
        let environment = self.environment;
        if let Some(text) = environment.get(variable).filter(|text| !text.is_empty()) {
            self.set(variable, path, text, read);
        }
    }

    fn set(&mut self, variable: &str, path: &[&str], text: &str, read: Read) {
        let origin = Origin::Environment(variable.to_owned());
        match read_text(text, read, &origin) {
            Ok(kind) => insert(&mut self.root, path, Node { origin, kind }),
            Err(problem) => {
                let (severity, key, value) = (Severity::Error, path.join("."), Some(text.to_owned()));
                let remedy = "correct or unset the variable".to_owned();
                self.findings.push(Finding { severity, origin, key, value, problem, remedy });
            }
        }
    }

    /// The section of a store. An empty variable sets the empty text. User and password count only beside another one.
    fn store(&mut self, section: &str) {
        let prefix = format!("{PREFIX}{}_", section.to_ascii_uppercase());
        let environment = self.environment;
        let mut any = false;
        for (name, read) in STORE {
            let variable = format!("{prefix}{name}");
            if let Some(text) = environment.get(&variable) {
                let read = if text.is_empty() { Read::Text } else { *read };
                self.set(&variable, &[section, &name.to_ascii_lowercase()], text, read);
                any = true;
            }
            self.known.push(variable);
        }
        if !matches!(section, "etcd" | "etcd3") {
            return;
        }
        for (name, read) in LOGIN {
            let variable = format!("{prefix}{name}");
            if any {
                self.variable(&variable, &[section, &name.to_ascii_lowercase()], *read);
            } else if environment.get(&variable).is_some_and(|text| !text.is_empty()) {
                let problem = format!("counts only beside another {prefix} variable and is ignored");
                self.warn(&variable, problem, format!("set {prefix}HOSTS too, or write it into the file"));
            }
            self.known.push(variable);
        }
    }

    fn warn(&mut self, variable: &str, problem: String, remedy: String) {
        let origin = Origin::Environment(variable.to_owned());
        let (severity, key) = (Severity::Warning, String::new());
        self.findings.push(Finding { severity, origin, key, value: None, problem, remedy });
    }

    fn unknown(&mut self) {
        let environment = self.environment;
        for variable in environment.keys().filter(|variable| variable.starts_with(PREFIX)) {
            let of_a_foreign_store = STORE_SECTIONS[2..]
                .iter()
                .any(|section| variable[PREFIX.len()..].starts_with(&format!("{}_", section.to_ascii_uppercase())));
            if of_a_foreign_store || self.known.contains(variable) {
                continue;
            }
            let remedy = match nearest(variable, self.known.iter().map(String::as_str)) {
                Some(name) => format!("did you mean {name}?"),
                None => "unset it".to_owned(),
            };
            self.warn(variable, "is not a known variable and is ignored".to_owned(), remedy);
        }
    }
}

/// Puts a node at a path, making the mappings on the way.
fn insert(entries: &mut Vec<(String, Node)>, path: &[&str], node: Node) {
    let Some((first, rest)) = path.split_first() else { return };
    let place = entries.iter().position(|(key, _)| key == first);
    if rest.is_empty() {
        match place {
            Some(place) => entries[place].1 = node,
            None => entries.push(((*first).to_owned(), node)),
        }
        return;
    }
    let place = place.unwrap_or_else(|| {
        entries.push(((*first).to_owned(), Node { origin: node.origin.clone(), kind: Kind::Map(Vec::new()) }));
        entries.len() - 1
    });
    if let Kind::Map(below) = &mut entries[place].1.kind {
        insert(below, rest, node);
    }
}

fn read_text(text: &str, read: Read, origin: &Origin) -> Result<Kind, String> {
    let scalar = |value: Value| Ok(Kind::Scalar(value));
    match read {
        Read::Text => scalar(Value::from(text)),
        Read::Integer => match parse_int(text, None) {
            Some(number) => scalar(Value::from(number)),
            None => Err("is not a whole number".to_owned()),
        },
        Read::Boolean => match parse_bool(text) {
            Some(value) => scalar(Value::from(value)),
            None => Err("is not a boolean".to_owned()),
        },
        Read::List => read_list(text, origin),
        Read::Mapping => {
            let trimmed = text.trim();
            let flow = if trimmed.starts_with('{') { trimmed.to_owned() } else { format!("{{{trimmed}}}") };
            match read_yaml(&flow, origin)? {
                kind @ Kind::Map(_) => Ok(kind),
                Kind::Scalar(_) | Kind::List(_) => Err("is not a mapping such as `a: b, c: d`".to_owned()),
            }
        }
        Read::Format if text.contains("%(") => scalar(Value::from(text)),
        Read::Format => read_list(text, origin),
    }
}

/// A YAML list, or items between commas; quotes around an item are removed.
fn read_list(text: &str, origin: &Origin) -> Result<Kind, String> {
    let trimmed = text.trim();
    let is_flow = trimmed.starts_with('[') && trimmed.ends_with(']');
    if is_flow || trimmed.starts_with("- ") {
        return match read_yaml(trimmed, origin)? {
            kind @ Kind::List(_) => Ok(kind),
            Kind::Scalar(_) | Kind::Map(_) => Err("is not a list such as `a, b`".to_owned()),
        };
    }
    let items =
        trimmed.split(',').map(|item| item.trim().trim_matches(['"', '\'']).trim()).filter(|item| !item.is_empty());
    let node = |item: &str| Node { origin: origin.clone(), kind: Kind::Scalar(Value::from(item)) };
    Ok(Kind::List(items.map(node).collect()))
}

fn read_yaml(text: &str, origin: &Origin) -> Result<Kind, String> {
    let mut node = parse("", text, &mut Vec::new()).map_err(|finding| finding.problem)?;
    node.place(origin);
    Ok(node.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::to_map;
    use serde_json::json;

    fn variables(pairs: &[(&str, &str)]) -> (Value, Vec<String>) {
        let environment = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let (entries, findings) = read(&environment);
        (Value::Object(to_map(&entries)), findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn variables_set_the_keys_they_name() {
        for (pairs, want) in [
            (&[("PATRONI_NAME", "n1"), ("PATRONI_SCOPE", "")][..], json!({"name": "n1"})),
            (
                &[("PATRONI_LOG_MODE", "0644"), ("PATRONI_LOG_LEVEL", "debug")],
                json!({"log": {"mode": 420, "level": "debug"}}),
            ),
            (&[("PATRONI_LOGLEVEL", "INFO"), ("PATRONI_LOG_LEVEL", "DEBUG")], json!({"log": {"level": "DEBUG"}})),
            (&[("PATRONI_LOGLEVEL", "INFO")], json!({"log": {"level": "INFO"}})),
            (&[("PATRONI_LOG_LOGGERS", "a: DEBUG, b: INFO")], json!({"log": {"loggers": {"a": "DEBUG", "b": "INFO"}}})),
            (&[("PATRONI_LOG_FORMAT", "[asctime, levelname]")], json!({"log": {"format": ["asctime", "levelname"]}})),
            (&[("PATRONI_LOG_FORMAT", "%(message)s")], json!({"log": {"format": "%(message)s"}})),
            (
                &[("PATRONI_RESTAPI_ALLOWLIST", "10.0.0.0/8, 'a'")],
                json!({"restapi": {"allowlist": ["10.0.0.0/8", "a"]}}),
            ),
            (&[("PATRONI_RESTAPI_USERNAME", "u")], json!({"restapi": {"authentication": {"username": "u"}}})),
            (
                &[("PATRONI_REPLICATION_PASSWORD", "p"), ("PATRONI_REPLICATION_CHANNEL_BINDING", "prefer")],
                json!({"postgresql": {"authentication": {"replication": {"password": "p", "channel_binding": "prefer"}}}}),
            ),
            (&[("PATRONI_POSTGRESQL_BIN_PG_ISREADY", "x")], json!({"postgresql": {"bin_name": {"pg_isready": "x"}}})),
            (
                &[("PATRONI_ETCD3_HOSTS", "'a:1',b:2"), ("PATRONI_ETCD3_PASSWORD", "p"), ("PATRONI_ETCD3_SRV", "")],
                json!({"etcd3": {"hosts": ["a:1", "b:2"], "srv": "", "password": "p"}}),
            ),
            (&[("PATRONI_ETCD3_HOSTS", "[::1]:2379")], json!({"etcd3": {"hosts": ["[::1]:2379"]}})),
            (&[("PATRONI_ETCD_USE_PROXIES", "yes")], json!({"etcd": {"use_proxies": true}})),
        ] {
            let (value, findings) = variables(pairs);
            assert_eq!(value, want, "{pairs:?}");
            assert!(findings.is_empty(), "{findings:?}");
        }
    }

    #[test]
    fn what_a_variable_cannot_mean_is_said() {
        for (pairs, want) in [
            (
                &[("PATRONI_LOG_FILE_NUM", "many")][..],
                "PATRONI_LOG_FILE_NUM: log.file_num: many: is not a whole number; correct or unset the variable",
            ),
            (
                &[("PATRONI_ETCD3_PASSWORD", "p")],
                "PATRONI_ETCD3_PASSWORD: counts only beside another PATRONI_ETCD3_ variable and is ignored; set \
                 PATRONI_ETCD3_HOSTS too, or write it into the file",
            ),
            (
                &[("PATRONI_POSTGRES_LISTEN", "*:1")],
                "PATRONI_POSTGRES_LISTEN: is not a known variable and is ignored; did you mean PATRONI_POSTGRESQL_LISTEN?",
            ),
        ] {
            let (value, findings) = variables(pairs);
            assert_eq!((value, findings), (json!({}), vec![want.to_owned()]));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            for name in ["PATRONI_LOG_FORMAT", "PATRONI_LOG_LOGGERS", "PATRONI_ETCD3_HOSTS", "PATRONI_LOG_MODE", "PATRONI_X"] {
                variables(&[(name, &text)]);
            }
        }
    }
}
