//! From texts and variables to a typed configuration.
//!
//! A file, or all files of a directory in the order of their names, and over them the `PATRONI_*` variables. Without a
//! file `PATRONI_CONFIGURATION` is the whole document, and every other variable is then ignored; without that the
//! variables are.

mod client;
mod etcd;
mod probe;
mod read;
mod sections;

use std::collections::BTreeMap;
use std::fmt;

pub use client::ClientConfig;
pub use probe::{Check, Probe};

use super::environment::{self, CONFIGURATION};
use super::finding::{Finding, Origin, Severity};
use super::local::LocalConfig;
use super::patch::overlay;
use super::report::{Purpose, Report, Rule};
use super::schema::Checker;
use super::yaml::{Kind, Node, parse};

/// One file of configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Everything that a configuration is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file, or the files of a directory in order (see [`config_files`]); none when no existing path was named.
    pub files: Vec<Source>,
    /// The environment of the process; only `PATRONI_*` variables are looked at.
    pub environment: BTreeMap<String, String>,
}

/// A configuration that cannot be used, with everything there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Rejected {
    /// Errors first, then warnings. At least one error.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Rejected {
    /// The errors, each on its line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let lines: Vec<String> = errors.map(Finding::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// What `--validate-config` reports.
#[derive(Clone, Debug)]
pub struct Validation {
    /// Every problem that can be seen without I/O, errors first.
    pub findings: Vec<Finding>,
    /// What remains to be checked with I/O.
    pub probes: Vec<Probe>,
    /// The configuration, when it is complete enough to be one.
    pub config: Option<LocalConfig>,
}

/// The names of the files in a directory that belong to the configuration, in the order in which they are merged.
pub fn config_files(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> =
        names.into_iter().filter(|name| name.ends_with(".yml") || name.ends_with(".yaml")).collect();
    names.sort();
    names
}

impl LocalConfig {
    /// Reads the configuration of a member.
    ///
    /// # Errors
    /// When the agent could not start with it. Lesser problems are in [`LocalConfig::warnings`].
    pub fn load(sources: &Sources) -> Result<LocalConfig, Rejected> {
        let (config, _, report) = examine(sources);
        let findings = report.conclude(Purpose::Start);
        match config {
            Some(config) if !has_errors(&findings) => Ok(LocalConfig { warnings: findings, ..config }),
            Some(_) | None => Err(Rejected { findings }),
        }
    }
}

/// Finds every problem at once, by the strict rules of `--validate-config`.
pub fn validate(sources: &Sources) -> Validation {
    let (config, root, report) = examine(sources);
    let findings = report.conclude(Purpose::Validation);
    let probes = config.as_ref().map(|config| probe::probes(config, &root)).unwrap_or_default();
    Validation { findings, probes, config }
}

fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

fn examine(sources: &Sources) -> (Option<LocalConfig>, Node, Report) {
    let mut report = Report::default();
    let Some(root) = document(sources, &mut report) else {
        return (None, Node { origin: Origin::Unknown, kind: Kind::Map(Vec::new()) }, report);
    };
    let pending = Checker::new(&mut report).local(&root);
    let config = read::local_config(&root, pending, &mut report);
    (config, root, report)
}

/// The merged document; `None`, with the reason in the report, when there is none.
fn document(sources: &Sources, report: &mut Report) -> Option<Node> {
    let mut entries = Vec::new();
    let whole = sources.environment.get(CONFIGURATION).filter(|text| !text.trim().is_empty());
    if sources.files.is_empty()
        && let Some(text) = whole
    {
        let source = Source { name: CONFIGURATION.to_owned(), text: text.clone() };
        merge_file(&mut entries, &source, report)?;
    } else {
        // Every file is read even when one is broken, so that all problems are seen at once.
        let read: Vec<Option<()>> =
            sources.files.iter().map(|source| merge_file(&mut entries, source, report)).collect();
        let (variables, findings) = environment::read(&sources.environment);
        for finding in findings {
            let rule = if finding.severity == Severity::Error { Rule::Schema } else { Rule::Notice };
            report.add(rule, finding.origin, &finding.key, finding.value, finding.problem, &finding.remedy);
        }
        overlay(&mut entries, variables);
        read.into_iter().collect::<Option<()>>()?;
    }
    let origin =
        sources.files.first().map_or(Origin::Unknown, |file| Origin::File { name: file.name.clone(), line: 0 });
    if entries.is_empty() {
        let remedy = "name a configuration file, or set PATRONI_CONFIGURATION or PATRONI_ variables";
        report.add(Rule::Fatal, origin, "", None, "the configuration is empty", remedy);
        return None;
    }
    Some(Node { origin, kind: Kind::Map(entries) })
}

fn merge_file(entries: &mut Vec<(String, Node)>, source: &Source, report: &mut Report) -> Option<()> {
    let mut warnings = Vec::new();
    let parsed = parse(&source.name, &source.text, &mut warnings);
    report.extend(warnings);
    match parsed {
        Ok(Node { kind: Kind::Map(read), .. }) => {
            overlay(entries, read);
            Some(())
        }
        Ok(Node { kind: Kind::Scalar(_) | Kind::List(_), .. }) => {
            let origin = Origin::File { name: source.name.clone(), line: 0 };
            let remedy = "write `scope: …`, `name: …` and so on at the top level";
            report.add(Rule::Fatal, origin, "", None, "the file is not a mapping of keys to values", remedy);
            None
        }
        Err(finding) => {
            report.extend(vec![*finding]);
            None
        }
    }
}

#[cfg(test)]
mod tests;
