//! `--validate-config`: every problem of a configuration at once, those of this machine included.

use std::io::Write;
use std::process::ExitCode;

use pgward_core::config::{Finding, Severity, Validation, validate};
use serde_json::Value;

use super::probe::{self, UsedPorts};
use super::sources::Found;
use super::{fail, missing_path};
use crate::ctl::yaml::{Layout, write};

/// Prints each problem on its line of standard error, errors first, and fails when there is an error. Silent when all is
/// well; with `print` the configuration follows on standard output then.
pub(super) fn main(found: &Found, ignore_used_ports: bool, print: bool) -> ExitCode {
    let Validation { mut findings, probes, config } = validate(&found.sources);
    if let Some(config) = &config {
        let ports = if ignore_used_ports { UsedPorts::AreFine } else { UsedPorts::AreProblems };
        match probe::run(&probes, config, ports) {
            Ok(failed) => findings.extend(failed),
            Err(problem) => return fail(format_args!("pgward: cannot check this machine: {problem}")),
        }
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if let Some(notice) = missing_path(found) {
        eprintln!("{notice}");
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    if let Some(summary) = summary(&findings) {
        eprintln!("{summary}");
        return ExitCode::FAILURE;
    }
    match config {
        Some(config) if print => {
            let text = write(&Value::Object(config.document), Layout::Block);
            // A reader that has enough is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Some(_) | None => ExitCode::SUCCESS,
    }
}

/// How many lines are errors, which stand first; `None` without an error.
fn summary(findings: &[Finding]) -> Option<String> {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    match (errors, findings.len() - errors) {
        (0, _) => None,
        (errors, 0) => Some(counted(errors, "error")),
        (errors, warnings) => {
            Some(format!("{} (above), then {}", counted(errors, "error"), counted(warnings, "warning")))
        }
    }
}
