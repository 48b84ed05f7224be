//! Holds a document against the tables of keys.

use serde_json::{Map, Value};

use super::{DYNAMIC, Key, Place, State, Type};
use crate::config::address::{HostPort, InvalidAddress, ListenAddress};
use crate::config::finding::Origin;
use crate::config::options::option_list;
use crate::config::report::{Report, Rule};
use crate::config::slots::{PermanentSlot, SlotProblem, ignored_slots, permanent_slots};
use crate::config::suggest::nearest;
use crate::config::units::{bool_of, parse_int, seconds_of, text_of};
use crate::config::yaml::{Kind, Node};
use crate::json::is_truthy;
use crate::names::MemberName;

/// Walks a document and reports what its keys and values break.
pub(in crate::config) struct Checker<'a> {
    report: &'a mut Report,
    pending: Vec<(String, Origin)>,
    /// The slot that this member has on others.
    own_slot: Option<String>,
}

/// The keys of a dynamic configuration that are understood and not acted on yet.
pub(in crate::config) fn pending_in(document: &Map<String, Value>) -> Vec<String> {
    let root = Node::from_value(&Value::Object(document.clone()), &Origin::Store);
    let mut checker = Checker { report: &mut Report::default(), pending: Vec::new(), own_slot: None };
    checker.section("", root.entries(), DYNAMIC, Place::Dynamic);
    checker.pending.into_iter().map(|(key, _)| key).collect()
}

impl<'a> Checker<'a> {
    /// Reports into `report`.
    pub(in crate::config) fn new(report: &'a mut Report) -> Self {
        Checker { report, pending: Vec::new(), own_slot: None }
    }

    /// Checks a whole local document and returns the keys that are not acted on yet, which one finding names.
    pub(in crate::config) fn local(mut self, root: &Node) -> Vec<String> {
        let name = root.get("name").and_then(|name| text_of(&name.to_value()).parse::<MemberName>().ok());
        self.own_slot = name.map(|name| name.slot_name());
        self.section("", root.entries(), super::LOCAL, Place::Local);
        self.tags(root.get("tags"));
        self.standby_cluster(root);
        let keys: Vec<String> = self.pending.iter().map(|(key, _)| key.clone()).collect();
        if let Some((_, origin)) = self.pending.first() {
            let problem = format!("understood, and not acted on by this version: {}", keys.join(", "));
            self.report.add(Rule::Notice, origin.clone(), "", None, problem, "do not rely on them yet");
        }
        keys
    }

    fn section(&mut self, path: &str, entries: &[(String, Node)], keys: &'static [Key], place: Place) {
        let methods = named_methods(path, entries);
        for (name, node) in entries {
            let full = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match keys.iter().find(|key| key.name == name) {
                Some(key) => self.key(&full, node, key, place),
                None if methods.contains(name) => {}
                None => self.unknown(&full, name, node, keys),
            }
        }
    }

    fn unknown(&mut self, full: &str, name: &str, node: &Node, keys: &'static [Key]) {
        let origin = node.origin.clone();
        if full == name && DYNAMIC.iter().any(|key| key.name == name) {
            return self.report.about(Rule::Notice, full, node, IGNORED_LOCALLY, MAKE_DYNAMIC);
        }
        let remedy = match nearest(name, keys.iter().map(|key| key.name)) {
            Some(known) => format!("did you mean {known}?"),
            None => "remove it".to_owned(),
        };
        self.report.add(Rule::Notice, origin, full, None, "is not a known key and is ignored", &remedy);
    }

    fn key(&mut self, full: &str, node: &Node, key: &Key, place: Place) {
        if node.is_null() {
            return;
        }
        match (key.place, place) {
            (Place::Dynamic, Place::Local) => {
                return self.report.about(Rule::Notice, full, node, IGNORED_LOCALLY, MAKE_DYNAMIC);
            }
            (Place::Local, Place::Dynamic) => {
                let problem = "is taken from the local file only and ignored here";
                return self.report.about(Rule::Notice, full, node, problem, "move it to the local file");
            }
            (Place::Local | Place::Dynamic | Place::Both, _) => {}
        }
        match key.state {
            State::Used => {}
            State::Ignored(problem, remedy) => return self.report.about(Rule::Notice, full, node, problem, remedy),
            State::Pending(inert) => {
                let value = node.to_value();
                let text = text_of(&value);
                if is_truthy(&value) && !inert.iter().any(|word| word.eq_ignore_ascii_case(&text)) {
                    self.pending.push((full.to_owned(), node.origin.clone()));
                }
            }
        }
        if let Type::Section(keys) = key.kind {
            match &node.kind {
                // What is below `bootstrap.dcs` becomes the dynamic configuration.
                Kind::Map(entries) if full == "bootstrap.dcs" => self.section(full, entries, keys, Place::Dynamic),
                Kind::Map(entries) => self.section(full, entries, keys, place),
                Kind::Scalar(_) | Kind::List(_) => {
                    self.report.about(Rule::Schema, full, node, "is not a mapping", "indent its keys below it");
                }
            }
        } else if let Some((rule, problem, remedy)) = broken_rule(key.kind, node) {
            self.report.about(rule, full, node, problem, remedy);
        } else {
            self.entries(full, node, key.kind);
        }
    }

    /// What single entries of a value break.
    fn entries(&mut self, full: &str, node: &Node, kind: Type) {
        let value = node.to_value();
        match (kind, &value) {
            (Type::Slots, Value::Object(slots)) => {
                let (slots, problems) = permanent_slots(slots);
                for problem in problems {
                    let at = problem.key.split('.').next().and_then(|name| node.get(name)).unwrap_or(node);
                    self.about_slot(&format!("{full}."), at, problem);
                }
                let own = self.own_slot.as_deref().filter(|own| slots.get(*own).is_some_and(PermanentSlot::is_logical));
                if let Some(own) = own.map(str::to_owned) {
                    let at = node.get(&own).unwrap_or(node);
                    let problem = "is logical and has the name of this member's own slot, which is physical (SLT-1)";
                    self.report.add(
                        Rule::Schema,
                        at.origin.clone(),
                        &format!("{full}.{own}"),
                        None,
                        problem,
                        "rename it",
                    );
                }
            }
            (Type::SlotPatterns, Value::Array(patterns)) => {
                ignored_slots(patterns).1.into_iter().for_each(|problem| self.about_slot(full, node, problem));
            }
            (_, _) => {}
        }
    }

    fn about_slot(&mut self, section: &str, node: &Node, problem: SlotProblem) {
        let rule = if problem.is_error { Rule::Schema } else { Rule::Notice };
        let key = format!("{section}{}", problem.key);
        self.report.add(rule, node.origin.clone(), &key, None, problem.text, problem.remedy);
    }

    /// STB-2: a cluster that follows this very member follows nobody.
    fn standby_cluster(&mut self, root: &Node) {
        let dcs = root.get("bootstrap").and_then(|bootstrap| bootstrap.get("dcs"));
        let Some(section) = dcs.and_then(|dcs| dcs.get("standby_cluster")) else { return };
        let text = |node: Option<&Node>| node.map(|node| text_of(&node.to_value())).unwrap_or_default();
        let own = text(root.get("postgresql").and_then(|postgresql| postgresql.get("connect_address")));
        let (hosts, port) = (text(section.get("host")), text(section.get("port")));
        let port = if port.is_empty() { "5432" } else { port.as_str() };
        if hosts.split(',').any(|host| format!("{}:{port}", host.trim()) == own)
            && let Some(host) = section.get("host")
        {
            let problem = "is this member itself: a standby cluster follows another one (STB-2)";
            let key = "bootstrap.dcs.standby_cluster.host";
            self.report.about(Rule::Schema, key, host, problem, "name the cluster to follow");
        }
    }

    /// Tags are free; some have a meaning, and two pairs exclude each other.
    fn tags(&mut self, tags: Option<&Node>) {
        let Some(tags) = tags else { return };
        for (name, node) in tags.entries() {
            let key = format!("tags.{name}");
            let is_flag = matches!(name.as_str(), "nofailover" | "noloadbalance" | "clonefrom" | "nosync" | "nostream");
            let is_priority = matches!(name.as_str(), "failover_priority" | "sync_priority");
            let kind = match name.as_str() {
                _ if is_flag => Type::Flag,
                _ if is_priority => Type::Integer(0, i64::MAX),
                "replicatefrom" => Type::Text,
                _ => Type::Any,
            };
            if let Some((rule, problem, remedy)) = broken_rule(kind, node) {
                self.report.about(rule, &key, node, problem, remedy);
            }
        }
        for (flag, priority) in [("nofailover", "failover_priority"), ("nosync", "sync_priority")] {
            let (Some(flag_node), Some(priority_node)) = (tags.get(flag), tags.get(priority)) else { continue };
            let excluded = is_truthy(&flag_node.to_value());
            let contradicts =
                parse_int(&text_of(&priority_node.to_value()), None).is_some_and(|p| (p <= 0) != excluded);
            let rule = if contradicts { Rule::Schema } else { Rule::Strict };
            let problem = format!("is set beside {priority}, and {flag} wins");
            self.report.about(rule, &format!("tags.{flag}"), flag_node, problem, "keep one of the two");
        }
    }
}

const IGNORED_LOCALLY: &str = "is a setting of the whole cluster and ignored in the local file";
const MAKE_DYNAMIC: &str =
    "set it below bootstrap.dcs for a new cluster, in the key `config` in etcd for an existing one";

/// Sections of custom methods are named by the keys beside them.
fn named_methods(path: &str, entries: &[(String, Node)]) -> Vec<String> {
    let value = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, node)| node.to_value());
    let listed = match path.rsplit('.').next().unwrap_or_default() {
        "postgresql" => value("create_replica_methods").or_else(|| value("create_replica_method")),
        "bootstrap" => value("method"),
        _ => None,
    };
    match listed {
        Some(Value::Array(names)) => names.iter().map(text_of).collect(),
        Some(Value::String(name)) => vec![name],
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    }
}

type Broken = (Rule, String, &'static str);

/// The rule of `kind` that a value breaks.
fn broken_rule(kind: Type, node: &Node) -> Option<Broken> {
    let value = node.to_value();
    let broken = |problem: &str, remedy| Some((Rule::Schema, problem.to_owned(), remedy));
    let is_scalar = matches!(node.kind, Kind::Scalar(_));
    match kind {
        Type::Any | Type::Section(_) => None,
        Type::Text => match &value {
            Value::String(_) => None,
            Value::Bool(_) => broken("is a boolean, not text", "quote it"),
            Value::Number(_) => broken("is a number, not text", "quote it"),
            Value::Null | Value::Array(_) | Value::Object(_) => broken("is not text", "write text"),
        },
        Type::Flag if bool_of(&value).is_none() => broken("is not a boolean", "write true or false"),
        Type::SynchronousMode if bool_of(&value).is_none() && !text_of(&value).eq_ignore_ascii_case("quorum") => {
            broken("is neither a boolean nor quorum", "write true, false or quorum")
        }
        Type::Flag | Type::SynchronousMode => None,
        Type::Integer(least, most) => {
            match parse_int(&text_of(&value), None).filter(|_| is_scalar && !value.is_boolean()) {
                None => broken("is not a whole number", "write digits, without a unit"),
                Some(number) if number < least => broken(&format!("is less than {least}"), "raise it"),
                Some(number) if number > most => broken(&format!("is more than {most}"), "lower it"),
                Some(_) => None,
            }
        }
        Type::Seconds(least) => match seconds_of(&value).filter(|_| !value.is_boolean()) {
            None => broken("is not a number of seconds", "write digits, or digits and a unit such as min"),
            Some(seconds) if seconds < least => broken(&format!("is less than {least}"), "raise it"),
            Some(_) => None,
        },
        Type::Choice(words) => {
            let text = text_of(&value);
            let is_known = is_scalar && words.iter().any(|word| word.eq_ignore_ascii_case(&text));
            (!is_known).then(|| (Rule::Schema, format!("is not one of {}", words.join(", ")), "write one of them"))
        }
        Type::Address => address_problem(HostPort::parse(&text_of(&value), None).err()),
        Type::PublicAddress => match HostPort::parse(&text_of(&value), None) {
            Err(problem) => address_problem(Some(problem)),
            Ok(address) => address.hosts().find(|host| is_loopback(host)).map(|host| {
                (
                    Rule::Strict,
                    format!("{host} cannot be reached from other machines"),
                    "write an address of this machine",
                )
            }),
        },
        Type::Listen => address_problem(ListenAddress::parse(&text_of(&value), None).err()),
        Type::Lines | Type::SlotPatterns => match &value {
            Value::Array(items) if items.is_empty() => {
                Some((Rule::Strict, "is an empty list".to_owned(), "remove the key, or add an item"))
            }
            Value::Array(_) => None,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                broken("is not a list", "write one item a line, each after a dash")
            }
        },
        Type::Hosts => match &value {
            Value::Array(items) if items.is_empty() => {
                Some((Rule::Strict, "is an empty list".to_owned(), "remove the key, or add an item"))
            }
            Value::Array(_) | Value::String(_) => None,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                broken("is neither a list nor text with commas", "write one item a line, each after a dash")
            }
        },
        Type::Mapping | Type::Slots if !value.is_object() => broken("is not a mapping", "write `name: value` below it"),
        Type::Mapping | Type::Slots => None,
        Type::Options => {
            let (_, problems) = option_list(&value);
            let problem = problems.into_iter().next()?;
            Some((Rule::Schema, problem, "write `- name` or `- name: value`"))
        }
    }
}

fn address_problem(problem: Option<InvalidAddress>) -> Option<Broken> {
    Some((Rule::Schema, problem?.to_string(), "write host:port"))
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "0.0.0.0" | "*" | "::1" | "localhost")
}
