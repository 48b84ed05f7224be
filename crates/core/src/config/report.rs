//! Findings as they are gathered, and how bad each is for whom.

use std::collections::BTreeSet;

use super::finding::{Finding, Origin, Severity};
use super::units::text_of;
use super::yaml::{Kind, Node};

/// What breaking a rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The agent cannot start.
    Fatal,
    /// `--validate-config` refuses it; a start goes on with a default and warns.
    Schema,
    /// `--validate-config` refuses it; a start has nothing to say about it.
    Strict,
    /// Accepted, and not quite what was probably meant.
    Notice,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A start or a reload.
    Start,
    /// `--validate-config`.
    Validation,
}

/// All findings about one configuration.
#[derive(Default)]
pub(super) struct Report(Vec<(Rule, Finding)>);

impl Report {
    /// A finding about a value that is there.
    pub(super) fn about(&mut self, rule: Rule, key: &str, node: &Node, problem: impl Into<String>, remedy: &str) {
        let value = match &node.kind {
            Kind::Scalar(_) if is_secret(key) => None,
            Kind::Scalar(value) if value.is_null() || value.is_boolean() => Some(value.to_string()),
            Kind::Scalar(value) => Some(text_of(value)),
            Kind::List(_) | Kind::Map(_) => None,
        };
        self.add(rule, node.origin.clone(), key, value, problem, remedy);
    }

    /// A finding about a key that is missing in `section`, or anywhere.
    pub(super) fn missing(&mut self, rule: Rule, key: &str, section: Option<&Node>, remedy: &str) {
        let origin = section.map_or(Origin::Unknown, |section| section.origin.clone());
        self.add(rule, origin, key, None, "is not set", remedy);
    }

    /// Any finding.
    pub(super) fn add(
        &mut self,
        rule: Rule,
        origin: Origin,
        key: &str,
        value: Option<String>,
        problem: impl Into<String>,
        remedy: &str,
    ) {
        let (severity, key, problem, remedy) = (Severity::Error, key.to_owned(), problem.into(), remedy.to_owned());
        self.0.push((rule, Finding { severity, origin, key, value, problem, remedy }));
    }

    /// Takes over findings that were made without a rule: errors and warnings as they are.
    pub(super) fn extend(&mut self, findings: Vec<Finding>) {
        self.0.extend(findings.into_iter().map(|finding| match finding.severity {
            Severity::Error => (Rule::Fatal, finding),
            Severity::Warning => (Rule::Notice, finding),
        }));
    }

    /// What there is to say, errors first and then in the order of the files. Of several findings about one value only
    /// the gravest kind is kept.
    pub(super) fn conclude(self, purpose: Purpose) -> Vec<Finding> {
        let fatal: BTreeSet<(Origin, String)> = self
            .0
            .iter()
            .filter(|(rule, _)| *rule == Rule::Fatal)
            .map(|(_, f)| (f.origin.clone(), f.key.clone()))
            .collect();
        let is_said_already = |rule: Rule, finding: &Finding| {
            matches!(rule, Rule::Schema | Rule::Strict)
                && fatal.contains(&(finding.origin.clone(), finding.key.clone()))
        };
        let mut findings: Vec<Finding> = Vec::new();
        for (rule, finding) in self.0 {
            let severity = match (rule, purpose) {
                (Rule::Fatal, _) | (Rule::Schema | Rule::Strict, Purpose::Validation) => Severity::Error,
                (Rule::Schema, Purpose::Start) | (Rule::Notice, _) => Severity::Warning,
                (Rule::Strict, Purpose::Start) => continue,
            };
            let finding = Finding { severity, ..finding };
            if !is_said_already(rule, &finding) && !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.origin.cmp(&b.origin)));
        findings
    }
}

/// True for keys whose values are not shown.
fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    last.contains("password") || matches!(last, "token" | "url" | "proxy")
}
