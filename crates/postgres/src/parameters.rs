//! Server parameters: which the server knows, when two values are the same, and what waits for a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::client::literal;
use crate::command::Tool;
use crate::control::ControlData;
use crate::error::{CommandError, Error};
use crate::instance::Instance;
use crate::recovery::is_recovery_parameter;

/// A change that waits for a restart, as published to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingChange {
    /// The value in force; empty when unknown.
    pub old: String,
    /// The value after a restart; empty when unknown.
    pub new: String,
}

/// Parameters split by whether the server knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterFilter {
    /// What to write.
    pub kept: BTreeMap<String, String>,
    /// Names that the server would refuse to start with.
    pub unknown: BTreeSet<String>,
}

/// Names that a server program has answered for; valid for as long as the program is the same.
#[derive(Clone, Default)]
pub(crate) struct KnownParameters {
    program: PathBuf,
    modified: Option<SystemTime>,
    answers: BTreeMap<String, bool>,
}

/// The five parameters that a standby must not have smaller than its primary had (5.2).
pub(crate) const STANDBY_SENSITIVE: [&str; 5] = [
    "max_connections",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "max_worker_processes",
    "max_wal_senders",
];

/// A server program that only prints something.
const PRINT_LIMIT: Duration = Duration::from_secs(10);

impl Instance {
    /// Splits parameters by whether the installed server knows them (4.4). Names with a dot belong to extensions and are
    /// kept; recovery parameters are written elsewhere and are left out.
    ///
    /// # Errors
    /// When the server's program cannot be asked at all.
    pub async fn filter_parameters(&self, parameters: &BTreeMap<String, String>) -> Result<ParameterFilter, Error> {
        let mut filter = ParameterFilter::default();
        for (name, value) in parameters {
            if is_recovery_parameter(&name.to_ascii_lowercase()) {
                continue;
            }
            if name.contains('.') || self.knows_parameter(name).await? {
                filter.kept.insert(name.clone(), value.clone());
            } else {
                filter.unknown.insert(name.clone());
            }
        }
        Ok(filter)
    }

    async fn knows_parameter(&self, name: &str) -> Result<bool, Error> {
        let settings = self.settings();
        let program = settings.program("postgres");
        let modified = std::fs::metadata(&program).and_then(|metadata| metadata.modified()).ok();
        let mut known = self.0.known_parameters.lock().await;
        if known.program != program || known.modified != modified || known.answers.is_empty() {
            let output = Tool::new(&settings, "postgres").arg("--describe-config").limit(PRINT_LIMIT).run().await?;
            let names = output.stdout.lines().filter_map(|line| line.split('\t').next());
            let answers = names.map(|name| (name.to_ascii_lowercase(), true)).collect();
            *known = KnownParameters { program, modified, answers };
        }
        let lower = name.to_ascii_lowercase();
        if let Some(answer) = known.answers.get(&lower) {
            return Ok(*answer);
        }
        // The list leaves out developer options, which are valid nevertheless: ask for the one.
        if !lower.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Ok(false);
        }
        let directory = if settings.data_dir.is_dir() { settings.data_dir.as_path() } else { Path::new("/") };
        let ask = Tool::new(&settings, "postgres").arg("-D").arg(directory);
        let answer = match ask.args(["-c", "config_file=/dev/null", "-C", &lower]).limit(PRINT_LIMIT).run().await {
            Ok(_) => true,
            Err(CommandError::Failed { output, .. }) => !output.contains("unrecognized configuration parameter"),
            Err(other) => return Err(other.into()),
        };
        known.answers.insert(lower, answer);
        Ok(answer)
    }

    /// The value that the server would start with, from its files.
    ///
    /// # Errors
    /// When the program fails, for example for an unknown name.
    pub async fn configured_value(&self, name: &str) -> Result<String, Error> {
        let settings = self.settings();
        let mut config_file = std::ffi::OsString::from("--config-file=");
        config_file.push(settings.config_file());
        let tool = Tool::new(&settings, "postgres").arg("-D").arg(&settings.data_dir).arg(config_file);
        let output = tool.arg("-C").arg(name).limit(PRINT_LIMIT).run().await?;
        Ok(output.stdout.trim_end().to_owned())
    }

    /// Parameters whose wanted value differs from the running one and needs a restart (5.1, step 2). Values are compared
    /// by type and unit and reported with human units.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn pending_restart(
        &self,
        wanted: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, PendingChange>, Error> {
        let names: Vec<String> = wanted.keys().map(|name| literal(&name.to_ascii_lowercase())).collect();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = self
            .query(&format!(
                "SELECT name, setting, vartype, unit, current_setting(name) FROM pg_settings \
                 WHERE context = 'postmaster' AND lower(name) IN ({})",
                names.join(", ")
            ))
            .await?;
        let by_lower: BTreeMap<String, &String> =
            wanted.iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        let mut pending = BTreeMap::new();
        for row in &rows {
            let Some(name) = row.owned(0) else { continue };
            let Some(wanted) = by_lower.get(&name.to_ascii_lowercase()) else { continue };
            let text = |column: usize| row.text(column).unwrap_or_default();
            let skipped = is_recovery_parameter(&name) || name == "hot_standby" || name.ends_with("_file");
            if skipped || values_equal(text(2), text(3), text(1), wanted) {
                continue;
            }
            if name == "wal_buffers" && wanted.trim() == "-1" {
                continue;
            }
            pending.insert(name, PendingChange { old: text(4).to_owned(), new: (*wanted).clone() });
        }
        Ok(pending)
    }

    /// What the server itself says is pending, after a reload was carried out (5.1, step 4). This counts changes made
    /// with `ALTER SYSTEM` too.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn reported_pending_restart(&self) -> Result<BTreeMap<String, PendingChange>, Error> {
        let rows = self
            .query(
                "SELECT name, current_setting(name) FROM pg_settings WHERE pending_restart AND name <> 'hot_standby'",
            )
            .await?;
        let mut pending = BTreeMap::new();
        for row in &rows {
            let Some(name) = row.owned(0).filter(|name| !is_recovery_parameter(name)) else { continue };
            let new = self.configured_value(&name).await.unwrap_or_else(|error| {
                warn!(parameter = name, %error, "cannot ask for the value after a restart");
                String::new()
            });
            pending.insert(name, PendingChange { old: row.owned(1).unwrap_or_default(), new });
        }
        Ok(pending)
    }
}

/// Raises the parameters that a standby must not have smaller than its control file says (5.2), in a map of parameters
/// or a command line. Returns what was raised: it stays pending until a restart can lower it.
pub fn raise_for_standby<'a>(
    parameters: impl IntoIterator<Item = (&'a str, &'a mut String)>,
    control: &ControlData,
) -> BTreeMap<String, PendingChange> {
    let mut raised = BTreeMap::new();
    for (name, value) in parameters {
        let Some(sensitive) = STANDBY_SENSITIVE.iter().find(|sensitive| name.eq_ignore_ascii_case(sensitive)) else {
            continue;
        };
        let Some(needed) = control.settings.get(sensitive) else { continue };
        if value.trim().parse::<u64>().is_ok_and(|wanted| wanted < *needed) {
            let new = std::mem::replace(value, needed.to_string());
            raised.insert((*sensitive).to_owned(), PendingChange { old: needed.to_string(), new });
        }
    }
    raised
}

/// Whether two texts mean the same value of a parameter of this type. `running` is as `pg_settings` prints it, in
/// `unit`.
pub(crate) fn values_equal(vartype: &str, unit: &str, running: &str, wanted: &str) -> bool {
    match vartype {
        "bool" => as_bool(running).is_some() && as_bool(running) == as_bool(wanted),
        "integer" | "real" => match (as_number(running, ""), as_number(wanted, unit)) {
            (Some(running), Some(wanted)) if vartype == "integer" => running.round() == wanted.round(),
            (Some(running), Some(wanted)) => (running - wanted).abs() <= 1e-9 * running.abs().max(1.0),
            (Some(_) | None, _) => false,
        },
        "enum" => running.eq_ignore_ascii_case(wanted.trim()) || is_same_wal_level(running, wanted),
        _ => running == wanted,
    }
}

/// `hot_standby` and `archive` are old names that the server reads as `replica`.
fn is_same_wal_level(running: &str, wanted: &str) -> bool {
    running == "replica" && ["hot_standby", "archive"].iter().any(|old| wanted.trim().eq_ignore_ascii_case(old))
}

/// A boolean as the server reads it: any unambiguous beginning of the words, and 0 and 1.
fn as_bool(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if text == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        Some(true)
    } else if text == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Some(false)
    } else {
        None
    }
}

/// A number with or without a unit, converted to `unit` (such as `8kB` or `ms`).
fn as_number(text: &str, unit: &str) -> Option<f64> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(|number| number as f64);
    }
    let is_unit = |c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E');
    let (digits, suffix) = text.split_at(text.find(is_unit).unwrap_or(text.len()));
    let number: f64 = digits.trim().parse().ok()?;
    if suffix.trim().is_empty() {
        return Some(number);
    }
    let (from, to) = (unit_size(suffix.trim())?, unit_size(unit)?);
    (from.0 == to.0).then_some(number * from.1 / to.1)
}

/// The kind of a unit and its size in bytes or microseconds. `8kB` is eight times `kB`.
fn unit_size(unit: &str) -> Option<(char, f64)> {
    let split = unit.find(|c: char| !c.is_ascii_digit())?;
    let (count, name) = unit.split_at(split);
    let count: f64 = if count.is_empty() { 1.0 } else { count.parse().ok()? };
    let (kind, size) = match name {
        "B" => ('m', 1.0),
        "kB" => ('m', 1024.0),
        "MB" => ('m', 1_048_576.0),
        "GB" => ('m', 1_073_741_824.0),
        "TB" => ('m', 1_099_511_627_776.0),
        "us" => ('t', 1.0),
        "ms" => ('t', 1e3),
        "s" => ('t', 1e6),
        "min" => ('t', 6e7),
        "h" => ('t', 3.6e9),
        "d" => ('t', 8.64e10),
        _ => return None,
    };
    Some((kind, count * size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_by_type_and_unit() {
        for (vartype, unit, running, wanted, equal) in [
            ("bool", "", "on", "true", true),
            ("bool", "", "off", "0", true),
            ("bool", "", "off", "o", false),
            ("integer", "8kB", "16384", "128MB", true),
            ("integer", "8kB", "16384", "16384", true),
            ("integer", "8kB", "16384", "127MB", false),
            ("integer", "MB", "1024", "1GB", true),
            ("integer", "ms", "60000", "1min", true),
            ("integer", "", "511", "0x1FF", true),
            ("integer", "ms", "60000", "1MB", false),
            ("real", "", "0.5", "5e-1", true),
            ("enum", "", "replica", "Replica", true),
            ("enum", "", "replica", "hot_standby", true),
            ("enum", "", "logical", "hot_standby", false),
            ("string", "", "a", "a ", false),
            ("integer", "", "1", "", false),
        ] {
            assert_eq!(values_equal(vartype, unit, running, wanted), equal, "{vartype} {unit} {running} {wanted}");
        }
    }

    #[test]
    fn a_standby_keeps_the_larger_value_and_says_so() {
        let control = ControlData { settings: [("max_connections", 100)].into(), ..ControlData::default() };
        let mut line = [
            ("max_connections".to_owned(), "50".to_owned()),
            ("max_wal_senders".to_owned(), "5".to_owned()),
            ("port".to_owned(), "1".to_owned()),
        ];
        let raised = raise_for_standby(line.iter_mut().map(|(name, value)| (name.as_str(), value)), &control);
        assert_eq!(line[0].1, "100");
        assert_eq!(raised["max_connections"], PendingChange { old: "100".into(), new: "50".into() });
        assert_eq!(raised.len(), 1);
    }
}
