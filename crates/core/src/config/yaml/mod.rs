//! YAML as existing files use it, read into a tree in which every value knows its line.
//!
//! The parser below yields raw scalars with their style; what a plain one means is decided in [`resolve`], the way PyYAML's
//! safe loader does. Merge keys (`<<`), anchors and aliases work; how much an alias may expand to is bounded.

mod resolve;

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

use super::finding::{Finding, Origin, Severity};
use resolve::Resolved;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Where its key (or, in a list, the item itself) starts.
    pub(super) origin: Origin,
    /// The value.
    pub(super) kind: Kind,
}

/// The value of a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Null, a boolean, a number or text.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A mapping; every key once.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The same without places.
    pub(super) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Kind::Map(entries) => Value::Object(to_map(entries)),
        }
    }

    /// The value below a key of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// The value at a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of a mapping; none for anything else.
    pub(super) fn entries(&self) -> &[(String, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            Kind::Scalar(_) | Kind::List(_) => &[],
        }
    }

    /// Says that this value and all below it come from `origin`.
    pub(super) fn place(&mut self, origin: &Origin) {
        self.origin.clone_from(origin);
        match &mut self.kind {
            Kind::Scalar(_) => {}
            Kind::List(items) => items.iter_mut().for_each(|item| item.place(origin)),
            Kind::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.place(origin)),
        }
    }

    /// A JSON value that was not read from a file.
    pub(super) fn from_value(value: &Value, origin: &Origin) -> Node {
        let below = |value: &Value| Node::from_value(value, origin);
        let kind = match value {
            Value::Array(items) => Kind::List(items.iter().map(below).collect()),
            Value::Object(map) => Kind::Map(map.iter().map(|(key, value)| (key.clone(), below(value))).collect()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Kind::Scalar(value.clone()),
        };
        Node { origin: origin.clone(), kind }
    }

    /// True for null.
    pub(super) fn is_null(&self) -> bool {
        self.kind == Kind::Scalar(Value::Null)
    }
}

/// Entries as a JSON object.
pub(super) fn to_map(entries: &[(String, Node)]) -> Map<String, Value> {
    entries.iter().map(|(key, node)| (key.clone(), node.to_value())).collect()
}

/// Most nodes that one document may have, aliases expanded: a hundred times the largest real configuration.
const NODES_MAX: usize = 100_000;

/// Deepest nesting, aliases expanded.
const DEPTH_MAX: usize = 100;

/// Reads one document. Warnings are added to `warnings`.
///
/// # Errors
/// The first thing that makes the text not one YAML document.
pub(super) fn parse(name: &str, text: &str, warnings: &mut Vec<Finding>) -> Result<Node, Box<Finding>> {
    let mut builder =
        Builder { name, warnings, open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None, documents: 0 };
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| {
            let remedy = "check indentation, quotes and brackets on this line and the one before";
            builder.error(*error.marker(), error.info(), remedy)
        })?;
        builder.take(event, span)?;
    }
    let empty = Node { origin: builder.origin(0), kind: Kind::Scalar(Value::Null) };
    Ok(builder.root.unwrap_or(empty))
}

/// Reads one document as a value: what PyYAML's `safe_load` makes of it.
///
/// # Errors
/// The first thing that makes the text not one YAML document, with `name` and the line.
pub fn read_value(name: &str, text: &str) -> Result<Value, Box<Finding>> {
    Ok(parse(name, text, &mut Vec::new())?.to_value())
}

/// A finished node with what bounds need to know about it.
#[derive(Clone)]
struct Built {
    node: Node,
    nodes: usize,
    depth: usize,
}

/// A collection that is not finished yet.
struct Open {
    origin: Origin,
    anchor: usize,
    nodes: usize,
    depth: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { merged: Vec<(String, Node)>, own: Vec<(String, Node)>, key: Option<(Key, Origin)> },
}

enum Key {
    Name(String),
    Merge,
}

struct Builder<'a> {
    name: &'a str,
    warnings: &'a mut Vec<Finding>,
    open: Vec<Open>,
    anchors: HashMap<usize, Built>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

impl Builder<'_> {
    fn origin(&self, line: usize) -> Origin {
        Origin::File { name: self.name.to_owned(), line }
    }

    fn finding(&self, severity: Severity, line: usize, problem: String, remedy: &str) -> Finding {
        let (origin, remedy) = (self.origin(line), remedy.to_owned());
        Finding { severity, origin, key: String::new(), value: None, problem, remedy }
    }

    fn error(&self, at: Marker, problem: impl Into<String>, remedy: &str) -> Box<Finding> {
        Box::new(self.finding(Severity::Error, at.line(), problem.into(), remedy))
    }

    fn warn(&mut self, line: usize, problem: String, remedy: &str) {
        let warning = self.finding(Severity::Warning, line, problem, remedy);
        self.warnings.push(warning);
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Finding>> {
        let at = span.start;
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.error(
                        at,
                        "a second document starts here",
                        "keep one document, without further `---`",
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.take_scalar(&text, style, tag.as_deref(), anchor, at)?;
            }
            Event::Alias(anchor) => {
                let Some(built) = self.anchors.get(&anchor).cloned() else {
                    return Err(self.error(at, "an alias stands inside what it refers to", "write the value out"));
                };
                self.add(Built { node: Node { origin: self.origin(at.line()), ..built.node }, ..built }, at)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], at)?;
                self.start(Content::List(Vec::new()), anchor, at)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], at)?;
                self.start(Content::Map { merged: Vec::new(), own: Vec::new(), key: None }, anchor, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at)?,
            // Unknown aliases are errors of the parser, by its default options.
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::UnresolvedAlias(_) => {}
            // The parser's enum may grow; what is new carries no value.
            _ => {}
        }
        Ok(())
    }

    fn take_scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        anchor: usize,
        at: Marker,
    ) -> Result<(), Box<Finding>> {
        let resolved = match tag {
            Some(tag) => self.resolve_tagged(text, tag, at)?,
            None if style == ScalarStyle::Plain => resolve::resolve(text),
            None => Resolved::Value(Value::from(text)),
        };
        if self.wants_key() {
            let key = match resolved {
                Resolved::Merge => Key::Merge,
                Resolved::Timestamp => Key::Name(text.to_owned()),
                Resolved::Value(Value::String(text)) => Key::Name(text),
                Resolved::Value(value) => {
                    let read = value.to_string();
                    let problem = format!("the key {text:?} is not text and is read as {read}");
                    self.warn(at.line(), problem, "quote the key if it is meant as text");
                    Key::Name(read)
                }
            };
            return self.set_key(key, at);
        }
        let value = match resolved {
            Resolved::Value(value) => value,
            Resolved::Merge => Value::from(text),
            Resolved::Timestamp => {
                // Without the text, here and below: it may be a password.
                self.warn(at.line(), "a value that is a date in YAML is taken as text".to_owned(), "quote it");
                Value::from(text)
            }
        };
        let built =
            Built { node: Node { origin: self.origin(at.line()), kind: Kind::Scalar(value) }, nodes: 1, depth: 1 };
        if anchor != 0 {
            self.anchors.insert(anchor, built.clone());
        }
        self.add(built, at)
    }

    fn resolve_tagged(&self, text: &str, tag: &Tag, at: Marker) -> Result<Resolved, Box<Finding>> {
        let is_non_specific = tag.original() == "!";
        let value = match tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
            _ if is_non_specific => Some(Value::from(text)),
            Some("str") => Some(Value::from(text)),
            Some("null") => Some(Value::Null),
            Some("bool") => super::units::parse_bool(text).filter(|_| text.len() > 1).map(Value::Bool),
            Some("int") => resolve::integer(text),
            Some("float") => resolve::float(text).or_else(|| resolve::integer(text)),
            Some("timestamp") => return Ok(Resolved::Timestamp),
            Some(_) | None => {
                let problem = format!("the tag {} is not known", tag.original());
                return Err(self.error(at, problem, "remove the tag"));
            }
        };
        value.map(Resolved::Value).ok_or_else(|| {
            self.error(at, format!("the value is not what its tag {} says", tag.original()), "remove the tag")
        })
    }

    fn check_tag(&self, tag: Option<&Tag>, allowed: &[&str], at: Marker) -> Result<(), Box<Finding>> {
        match tag {
            Some(tag) if !tag.core_suffix().is_some_and(|suffix| allowed.contains(&suffix)) => {
                Err(self.error(at, format!("the tag {} is not known here", tag.original()), "remove the tag"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    fn set_key(&mut self, name: Key, at: Marker) -> Result<(), Box<Finding>> {
        let origin = self.origin(at.line());
        self.count(1, at)?;
        if let Some(Open { content: Content::Map { key, .. }, .. }) = self.open.last_mut() {
            *key = Some((name, origin));
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, at: Marker) -> Result<(), Box<Finding>> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            let problem = format!("the document has more than {NODES_MAX} values, aliases included");
            return Err(self.error(at, problem, "remove nested aliases"));
        }
        Ok(())
    }

    fn start(&mut self, content: Content, anchor: usize, at: Marker) -> Result<(), Box<Finding>> {
        if self.wants_key() {
            return Err(self.error(at, "a key is a list or a mapping", "use text as key"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(self.error(at, format!("nested deeper than {DEPTH_MAX} levels"), "flatten it"));
        }
        let origin = self.origin(at.line());
        self.open.push(Open { origin, anchor, nodes: 1, depth: 1, content });
        Ok(())
    }

    fn end(&mut self, at: Marker) -> Result<(), Box<Finding>> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let kind = match open.content {
            Content::List(items) => Kind::List(items),
            Content::Map { merged, own, .. } => Kind::Map(self.unite(merged, own)),
        };
        let built = Built { node: Node { origin: open.origin, kind }, nodes: open.nodes, depth: open.depth };
        // Its children were counted when they were added.
        self.nodes = self.nodes.saturating_sub(built.nodes - 1);
        if open.anchor != 0 {
            self.count(built.nodes, at)?; // The copy for aliases counts as well.
            self.anchors.insert(open.anchor, built.clone());
        }
        self.add(built, at)
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, built: Built, at: Marker) -> Result<(), Box<Finding>> {
        self.count(built.nodes, at)?;
        if self.open.len() + built.depth > DEPTH_MAX {
            return Err(self.error(at, format!("nested deeper than {DEPTH_MAX} levels"), "flatten it"));
        }
        if self.wants_key() {
            // An alias: PyYAML takes the text that it stands for.
            return match built.node.kind {
                Kind::Scalar(Value::String(text)) => self.set_key(Key::Name(text), at),
                Kind::Scalar(value) => self.set_key(Key::Name(value.to_string()), at),
                Kind::List(_) | Kind::Map(_) => Err(self.error(at, "a key is a list or a mapping", "use text as key")),
            };
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(built.node);
            return Ok(());
        };
        parent.nodes += built.nodes;
        parent.depth = parent.depth.max(built.depth + 1);
        match &mut parent.content {
            Content::List(items) => items.push(built.node),
            Content::Map { merged, own, key } => match key.take() {
                Some((Key::Name(name), origin)) => own.push((name, Node { origin, ..built.node })),
                Some((Key::Merge, _)) => {
                    let Some(entries) = merge_source(built.node.kind) else {
                        let problem = "`<<` takes a mapping or a list of mappings";
                        return Err(self.error(at, problem, "name an anchor of a mapping"));
                    };
                    // Own keys win over merged ones, and the first merged mapping over the next.
                    merged.splice(0..0, entries);
                }
                None => {}
            },
        }
        Ok(())
    }

    fn unite(&mut self, merged: Vec<(String, Node)>, own: Vec<(String, Node)>) -> Vec<(String, Node)> {
        let mut united: Vec<(String, Node)> = Vec::with_capacity(merged.len() + own.len());
        let mut places: HashMap<String, (usize, bool)> = HashMap::new();
        let all = merged.into_iter().map(|entry| (entry, false)).chain(own.into_iter().map(|entry| (entry, true)));
        for ((name, node), is_own) in all {
            match places.insert(name.clone(), (united.len(), is_own)) {
                Some((place, was_own)) => {
                    places.insert(name.clone(), (place, is_own));
                    if was_own && is_own {
                        self.warn_duplicate(&name, &united[place].1.origin, &node.origin);
                    }
                    united[place].1 = node;
                }
                None => united.push((name, node)),
            }
        }
        united
    }

    fn warn_duplicate(&mut self, name: &str, first: &Origin, last: &Origin) {
        let problem = format!("the key {name:?} is here again (first at {first}); the last one counts");
        let (severity, origin, remedy) = (Severity::Warning, last.clone(), "keep one of them".to_owned());
        self.warnings.push(Finding { severity, origin, key: name.to_owned(), value: None, problem, remedy });
    }
}

/// The entries that `<<` brings in, weakest first; `None` when it is given something else.
fn merge_source(kind: Kind) -> Option<Vec<(String, Node)>> {
    match kind {
        Kind::Map(entries) => Some(entries),
        Kind::List(items) => {
            let mut all = Vec::new();
            for item in items.into_iter().rev() {
                let Kind::Map(entries) = item.kind else { return None };
                all.extend(entries);
            }
            Some(all)
        }
        Kind::Scalar(_) => None,
    }
}

#[cfg(test)]
mod tests;
