//! What PostgreSQL on this member runs with: the local and the dynamic configuration merged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::dynamic::{DynamicConfig, LOCAL_ONLY};
use super::finding::{Finding, Origin, Severity};
use super::governed::{GOVERNED, is_governed, segments_as_size};
use super::local::{LocalConfig, OptionList};
use super::options::option_list;
use super::units::{bool_of, parse_real, text_of};
use crate::json::is_truthy;

/// The merged `postgresql` configuration.
///
/// Precedence: parameters are merged one by one, local over dynamic, except governed ones, which only the dynamic
/// configuration sets; `use_slots` is dynamic only; for any other key the local value hides the dynamic one as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectivePostgresql {
    /// The maintenance database.
    pub database: String,
    /// The directory of the server's programs; `$PATH` is searched without it.
    pub bin_dir: Option<PathBuf>,
    /// Programs under other names: tool to file name.
    pub bin_name: BTreeMap<String, String>,
    /// What goes into `postgresql.conf`, governed parameters included and recovery settings excluded. `hba_file` and
    /// `ident_file` are there only when they point away from their default place, with absolute paths.
    pub parameters: BTreeMap<String, String>,
    /// Parameters passed to the postmaster, in order; a subset of `parameters`.
    pub command_line: Vec<(String, String)>,
    /// The lines of `pg_hba.conf`; `None` when the agent does not write that file.
    pub pg_hba: Option<Vec<String>>,
    /// The lines of `pg_ident.conf`; `None` when the agent does not write that file.
    pub pg_ident: Option<Vec<String>>,
    /// Recovery settings of a standby, without those the agent generates itself.
    pub recovery: BTreeMap<String, String>,
    /// Included instead of the base file.
    pub custom_conf: Option<PathBuf>,
    /// Standbys use replication slots.
    pub use_slots: bool,
    /// Diverged members are rewound.
    pub use_pg_rewind: bool,
    /// Extra options of pg_rewind.
    pub rewind: OptionList,
    /// A failed rewind ends in a new copy.
    pub remove_data_directory_on_rewind_failure: bool,
    /// A divergence that cannot be rewound ends in a new copy.
    pub remove_data_directory_on_diverged_timelines: bool,
    /// The agent connects through the socket.
    pub use_unix_socket: bool,
    /// Local replication connections use the socket.
    pub use_unix_socket_repl: bool,
    /// How long starting and stopping may take.
    pub pg_ctl_timeout: Duration,
    /// The Kerberos service name.
    pub krbsrvname: Option<String>,
    /// Methods to create a replica, in order.
    pub create_replica_methods: Vec<String>,
    /// Options of the `basebackup` method.
    pub basebackup: OptionList,
    /// Commands run at events: event to command.
    pub callbacks: BTreeMap<String, String>,
    /// A command that may refuse a promotion.
    pub pre_promote: Option<String>,
    /// A command run before a stop.
    pub before_stop: Option<String>,
    /// The whole merged section, for keys that have no field: sections of replica methods and the like.
    pub section: Map<String, Value>,
    /// What was ignored, corrected or not understood.
    pub warnings: Vec<Finding>,
}

/// Settings of a standby's recovery: written after the other parameters, and never among them.
pub const RECOVERY_PARAMETERS: [&str; 16] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
    "standby_mode",
];

/// `pg_ctl_timeout` when nothing usable is configured.
const PG_CTL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest accepted `pg_ctl_timeout`, in seconds: a year.
const PG_CTL_TIMEOUT_SECONDS_MAX: f64 = 31_536_000.0;

impl EffectivePostgresql {
    /// Merges what one member says with what the cluster says.
    pub fn merge(local: &LocalConfig, dynamic: &DynamicConfig) -> EffectivePostgresql {
        let mut merger = Merger { local, dynamic, warnings: Vec::new() };
        let section = merger.section();
        let mut parameters = merger.parameters();
        let command_line = merger.govern(&mut parameters);
        let recovery = recovery_settings(&mut parameters, section.get("recovery_conf"));
        let config_dir = &local.postgresql.config_dir;
        let pg_hba = managed_file(&mut parameters, "hba_file", &config_dir.join("pg_hba.conf"))
            .then(|| lines(section.get("pg_hba")))
            .flatten();
        let pg_ident = managed_file(&mut parameters, "ident_file", &config_dir.join("pg_ident.conf"))
            .then(|| lines(section.get("pg_ident")))
            .flatten();
        let flag = |key: &str| section.get(key).is_some_and(|value| bool_of(value).unwrap_or_else(|| is_truthy(value)));
        let text = |key: &str| section.get(key).filter(|value| is_truthy(value)).map(text_of);
        EffectivePostgresql {
            database: text("database").unwrap_or_else(|| "postgres".to_owned()),
            bin_dir: text("bin_dir").map(PathBuf::from),
            bin_name: texts(section.get("bin_name")),
            parameters,
            command_line,
            pg_hba,
            pg_ident,
            recovery,
            custom_conf: text("custom_conf").map(PathBuf::from),
            use_slots: dynamic.postgresql.get("use_slots").is_none_or(|value| bool_of(value) != Some(false)),
            use_pg_rewind: flag("use_pg_rewind"),
            rewind: merger.options(&section, "rewind"),
            remove_data_directory_on_rewind_failure: flag("remove_data_directory_on_rewind_failure"),
            remove_data_directory_on_diverged_timelines: flag("remove_data_directory_on_diverged_timelines"),
            use_unix_socket: flag("use_unix_socket"),
            use_unix_socket_repl: flag("use_unix_socket_repl"),
            pg_ctl_timeout: section.get("pg_ctl_timeout").and_then(timeout).unwrap_or(PG_CTL_TIMEOUT),
            krbsrvname: text("krbsrvname"),
            create_replica_methods: replica_methods(&section),
            basebackup: merger.options(&section, "basebackup"),
            callbacks: texts(section.get("callbacks")),
            pre_promote: text("pre_promote"),
            before_stop: text("before_stop"),
            warnings: merger.warnings,
            section,
        }
    }
}

struct Merger<'a> {
    local: &'a LocalConfig,
    dynamic: &'a DynamicConfig,
    warnings: Vec<Finding>,
}

impl Merger<'_> {
    fn warn(&mut self, key: String, value: Option<&Value>, problem: String, remedy: &str) {
        let (severity, origin, value) = (Severity::Warning, Origin::Store, value.map(text_of));
        self.warnings.push(Finding { severity, origin, key, value, problem, remedy: remedy.to_owned() });
    }

    /// Everything but parameters: the local value hides the dynamic one.
    fn section(&self) -> Map<String, Value> {
        let mut section = self.dynamic.postgresql.clone();
        let local = self.local.postgresql.section.iter().filter(|(key, _)| *key != "use_slots");
        section.extend(local.map(|(key, value)| (key.clone(), value.clone())));
        section.retain(|key, _| key != "parameters" && !LOCAL_ONLY.contains(&key.as_str()));
        section
    }

    /// All parameters that are not governed, names case-insensitive, local over dynamic.
    fn parameters(&mut self) -> BTreeMap<String, String> {
        let mut by_name: BTreeMap<String, (String, String)> = BTreeMap::new();
        for source in [&self.dynamic.postgresql, &self.local.postgresql.section] {
            for (name, value) in source.get("parameters").and_then(Value::as_object).into_iter().flatten() {
                if !value.is_null() && !is_governed(name) {
                    by_name.insert(name.to_ascii_lowercase(), (name.clone(), text_of(value)));
                }
            }
        }
        by_name.into_values().collect()
    }

    /// Adds the governed parameters and returns those of the command line.
    fn govern(&mut self, parameters: &mut BTreeMap<String, String>) -> Vec<(String, String)> {
        let dynamic = self.dynamic;
        let configured = dynamic.postgresql.get("parameters").and_then(Value::as_object);
        let find = |name: &str| {
            let same = |key: &str| key.eq_ignore_ascii_case(name);
            configured?.iter().rfind(|(key, value)| same(key) && !value.is_null()).map(|(_, value)| value)
        };
        let listen = &self.local.postgresql.listen;
        let mut command_line = Vec::new();
        for governed in &GOVERNED {
            let value = find(governed.name);
            let (settled, problem) = governed.settle(value);
            if let Some(problem) = problem {
                let remedy = "change it in the dynamic configuration";
                self.warn(format!("postgresql.parameters.{}", governed.name), value, problem, remedy);
            }
            let settled = match governed.name {
                "listen_addresses" => Some(listen.listen_addresses()),
                "port" => Some(listen.port.to_string()),
                "cluster_name" => Some(self.local.scope.clone()),
                "wal_keep_size" if value.is_none() => find("wal_keep_segments").and_then(segments_as_size).or(settled),
                _ => settled,
            };
            if let Some(settled) = settled {
                parameters.insert(governed.name.to_owned(), settled.clone());
                if governed.on_command_line {
                    command_line.push((governed.name.to_owned(), settled));
                }
            }
        }
        command_line
    }

    fn options(&mut self, section: &Map<String, Value>, key: &str) -> OptionList {
        let Some(value) = section.get(key) else { return Vec::new() };
        let (options, problems) = option_list(value);
        for problem in problems {
            self.warn(format!("postgresql.{key}"), None, problem, "write `- name` or `- name: value`");
        }
        options
    }
}

/// `recovery_conf` without what the agent generates. Recovery settings among the parameters move here and replace it.
fn recovery_settings(
    parameters: &mut BTreeMap<String, String>,
    recovery_conf: Option<&Value>,
) -> BTreeMap<String, String> {
    let is_recovery = |name: &String| RECOVERY_PARAMETERS.iter().any(|known| known.eq_ignore_ascii_case(name));
    let mut recovery: BTreeMap<String, String> =
        parameters.extract_if(.., |name, _| is_recovery(name)).map(|(k, v)| (k.to_ascii_lowercase(), v)).collect();
    if recovery.is_empty() {
        recovery = texts(recovery_conf).into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    }
    recovery.retain(|name, _| {
        !matches!(name.as_str(), "primary_conninfo" | "primary_slot_name" | "standby_mode")
            && !name.starts_with("recovery_target")
    });
    recovery
}

/// True when the file named by `parameter` is the one in its default place, which the agent writes. A parameter that says
/// just that is dropped; a relative one is made relative to the configuration directory.
fn managed_file(parameters: &mut BTreeMap<String, String>, parameter: &str, default: &Path) -> bool {
    let Some(name) = parameters.keys().find(|name| name.eq_ignore_ascii_case(parameter)).cloned() else { return true };
    let value = parameters.remove(&name).unwrap_or_default();
    let path = default.parent().unwrap_or(Path::new("")).join(&value);
    if value.is_empty() || path == default {
        return true;
    }
    parameters.insert(parameter.to_owned(), path.to_string_lossy().into_owned());
    false
}

fn lines(value: Option<&Value>) -> Option<Vec<String>> {
    let lines: Vec<String> = value?.as_array()?.iter().filter(|line| !line.is_null()).map(text_of).collect();
    (!lines.is_empty()).then_some(lines)
}

fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries
        .filter(|(_, value)| is_truthy(value) || value.is_number() || value.is_boolean())
        .map(|(k, v)| (k.clone(), text_of(v)))
        .collect()
}

fn timeout(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => parse_real(text, Some("s"))?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (0.0..=PG_CTL_TIMEOUT_SECONDS_MAX).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

fn replica_methods(section: &Map<String, Value>) -> Vec<String> {
    let value = section.get("create_replica_methods").or_else(|| section.get("create_replica_method"));
    let methods: Vec<String> = match value {
        Some(Value::Array(list)) => list.iter().map(text_of).filter(|name| !name.is_empty()).collect(),
        Some(Value::String(name)) if !name.is_empty() => vec![name.clone()],
        Some(_) | None => Vec::new(),
    };
    if methods.is_empty() { vec!["basebackup".to_owned()] } else { methods }
}

#[cfg(test)]
mod tests;
