//! Reads typed values out of a checked document. Types were complained about already: here a value that cannot be used
//! gives way to its default, and only what the agent cannot do without is an error.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::sections;
use crate::config::finding::Origin;
use crate::config::governed::is_governed;
use crate::config::local::LocalConfig;
use crate::config::report::{Report, Rule};
use crate::config::secret::Secret;
use crate::config::tags::Tags;
use crate::config::units::{bool_of, parse_int, text_of};
use crate::config::yaml::{Kind, Node, to_map};
use crate::json::is_truthy;
use crate::names::MemberName;

/// A section, and the way to it.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    /// Its dotted path, for findings.
    pub(super) path: &'a str,
    /// It, when it is there.
    pub(super) node: Option<&'a Node>,
}

impl<'a> Section<'a> {
    /// A section at the top level.
    pub(super) fn of(root: &'a Node, path: &'a str) -> Section<'a> {
        let node = path.split('.').try_fold(root, |node, key| node.get(key));
        Section { path, node }
    }

    /// The dotted path of a key in it.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// The value of a key, unless it is null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        self.node?.get(name).filter(|node| !node.is_null())
    }

    /// A scalar as text; an empty one counts as not set.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match &self.get(name)?.kind {
            Kind::Scalar(value) => Some(text_of(value)).filter(|text| !text.is_empty()),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The same as a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// The same as a password.
    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::new)
    }

    /// A boolean; false when missing.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| bool_of(&value).unwrap_or_else(|| is_truthy(&value)))
    }

    /// A whole number.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        parse_int(&self.text(name)?, None)
    }

    /// The value without places.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        self.get(name).map(Node::to_value)
    }

    /// A mapping; empty when missing.
    pub(super) fn map(&self, name: &str) -> Map<String, Value> {
        self.get(name).map(|node| to_map(node.entries())).unwrap_or_default()
    }

    /// A list of texts, or text with commas.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let texts: Vec<String> = match self.get(name).map(|node| &node.kind) {
            Some(Kind::List(items)) => items.iter().map(|item| text_of(&item.to_value())).collect(),
            Some(Kind::Scalar(value)) => text_of(value).split(',').map(str::to_owned).collect(),
            Some(Kind::Map(_)) | None => Vec::new(),
        };
        texts.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
    }
}

/// The typed configuration; `None`, with the reasons in the report, when a part of it is missing.
pub(super) fn local_config(root: &Node, pending: Vec<String>, report: &mut Report) -> Option<LocalConfig> {
    let root = &with_present_layout(root);
    let top = |name: &str| Section { path: "", node: Some(root) }.text(name);
    let scope = required_name(root, "scope", report);
    let name = required_name(root, "name", report).and_then(|name| member_name(root, &name, report));
    let etcd = super::etcd::read(root, report);
    let etcd = etcd.or_else(|| super::etcd::complain(root, report));
    let restapi = sections::restapi(root, report);
    let postgresql = sections::postgresql(root, report);
    let bootstrap = root.get("bootstrap").filter(|node| !node.is_null());
    report_governed(root, report);
    Some(LocalConfig {
        scope: scope?,
        name: name?,
        namespace: top("namespace").map_or_else(|| "service".to_owned(), |text| text.trim_matches('/').to_owned()),
        etcd: etcd?,
        restapi: restapi?,
        ctl: sections::ctl(root, report),
        postgresql: postgresql?,
        bootstrap: bootstrap.map(|_| sections::bootstrap(root)),
        tags: Tags::new(root.get("tags").map(|node| to_map(node.entries())).unwrap_or_default()),
        log: sections::log(root),
        watchdog: sections::watchdog(root, report),
        pending,
        warnings: Vec::new(),
        document: to_map(root.entries()),
    })
}

/// The document with the layouts of old versions moved to their present places.
fn with_present_layout(root: &Node) -> Node {
    let mut root = root.clone();
    let Some(postgresql) = root.get("postgresql").cloned() else { return root };
    if root.get("name").is_none()
        && let Some(name) = postgresql.get("name")
    {
        set(&mut root, "name", name.clone());
    }
    let old = |name: &str| postgresql.get(name).filter(|node| !node.is_null()).cloned();
    let authentication = match postgresql.get("authentication").filter(|node| !node.is_null()) {
        Some(present) => {
            let mut present = present.clone();
            if present.get("superuser").is_none()
                && let (Some(user), Kind::Map(_)) = (old("pg_rewind"), &present.kind)
            {
                set(&mut present, "superuser", user);
            }
            Some(present)
        }
        None => {
            let users: Vec<(String, Node)> = ["superuser", "replication"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), old(name)?)))
                .collect();
            let origin = users.first().map(|(_, node)| node.origin.clone());
            origin.map(|origin| Node { origin, kind: Kind::Map(users) })
        }
    };
    let is_old = postgresql.get("authentication").is_none_or(Node::is_null);
    if let Kind::Map(entries) = &mut root.kind
        && let Some((_, postgresql)) = entries.iter_mut().find(|(name, _)| name == "postgresql")
    {
        if let Some(authentication) = authentication {
            set(postgresql, "authentication", authentication);
        }
        if is_old && let Some(user) = old("pg_rewind") {
            set(postgresql, "use_pg_rewind", Node { origin: user.origin, kind: Kind::Scalar(Value::Bool(true)) });
        }
    }
    root
}

fn set(section: &mut Node, name: &str, node: Node) {
    if let Kind::Map(entries) = &mut section.kind {
        entries.retain(|(key, _)| key != name);
        entries.push((name.to_owned(), node));
    }
}

fn required_name(root: &Node, key: &str, report: &mut Report) -> Option<String> {
    let text = Section { path: "", node: Some(root) }.text(key);
    if text.is_none() {
        let remedy = match key {
            "scope" => "write `scope: NAME-OF-THE-CLUSTER`, or set PATRONI_SCOPE",
            _ => "write `name: NAME-OF-THIS-MEMBER`, or set PATRONI_NAME",
        };
        report.missing(Rule::Fatal, key, Some(root), remedy);
    }
    text
}

/// A name that Patroni keeps for itself.
const RESERVED_NAME: &str = "__patroni_strict_sync_replica_placeholder__";

fn member_name(root: &Node, name: &str, report: &mut Report) -> Option<MemberName> {
    let origin = root.get("name").map_or(Origin::Unknown, |node| node.origin.clone());
    let problem = match name.parse::<MemberName>() {
        Ok(name) if name.as_str() != RESERVED_NAME => return Some(name),
        Ok(_) => "is a reserved name".to_owned(),
        Err(problem) => problem.to_string(),
    };
    report.add(Rule::Fatal, origin, "name", Some(name.to_owned()), problem, "choose letters, digits, `-`, `_` and `.`");
    None
}

/// Parameters that the cluster governs have no effect in a local file.
fn report_governed(root: &Node, report: &mut Report) {
    let parameters = root.at(&["postgresql", "parameters"]).map(Node::entries).unwrap_or_default();
    for (name, node) in parameters.iter().filter(|(name, _)| is_governed(name)) {
        let problem = "is the same on all members and ignored in the local file";
        let remedy = match name.to_ascii_lowercase().as_str() {
            "listen_addresses" | "port" => "set postgresql.listen",
            "cluster_name" => "it follows scope",
            _ => {
                "set it below bootstrap.dcs.postgresql.parameters for a new cluster, in the key `config` in etcd for an existing one"
            }
        };
        report.about(Rule::Notice, &format!("postgresql.parameters.{name}"), node, problem, remedy);
    }
}
