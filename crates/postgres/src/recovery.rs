//! What a standby follows, and whether the running server follows it already.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::SystemTime;

use crate::client::literal;
use crate::conninfo::{ConnInfo, Render, parse, pgpass_lines};
use crate::error::Error;
use crate::instance::Instance;
use crate::parameters::values_equal;
use crate::settings::Settings;

/// What a standby follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoverySettings {
    /// The upstream; `None` streams from nobody.
    pub primary: Option<ConnInfo>,
    /// The replication slot there.
    pub slot: Option<String>,
    /// Further recovery parameters. Those that the agent owns (`primary_conninfo`, `primary_slot_name`,
    /// `recovery_target*`) are ignored.
    pub extra: BTreeMap<String, String>,
}

/// How the running recovery settings differ from the wanted ones (5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecoveryDiff {
    /// Not at all.
    Same,
    /// Writing the files and a reload bring them about.
    Reload,
    /// They need a restart.
    Restart,
}

/// Parameters that say how to recover. They are written only as recovery settings.
const RECOVERY_PARAMETERS: [&str; 16] = [
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

/// Emptied, so that a base file cannot stop recovery somewhere.
const TARGETS: [&str; 5] =
    ["recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_xid"];

/// Left alone when the agent does not configure them and they come from another file than ours.
const TOLERATED: [&str; 5] = [
    "archive_cleanup_command",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "restore_command",
];

pub(crate) fn is_recovery_parameter(name: &str) -> bool {
    RECOVERY_PARAMETERS.contains(&name)
}

impl RecoverySettings {
    /// The parameters to write, by name.
    pub(crate) fn render(&self, settings: &Settings, major: u32) -> BTreeMap<String, String> {
        let own = |name: &str| name.starts_with("primary_") || name.starts_with("recovery_target");
        let known = |name: &str| {
            is_recovery_parameter(name) && name != "standby_mode" && (name != "promote_trigger_file" || major < 16)
        };
        let extra = self.extra.iter().filter(|(name, _)| known(name) && !own(name));
        let mut rendered: BTreeMap<String, String> = extra.map(|(name, value)| (name.clone(), value.clone())).collect();
        rendered.extend(TARGETS.map(|name| (name.to_owned(), String::new())));
        rendered.insert("recovery_target_timeline".to_owned(), "latest".to_owned());
        if let Some(primary) = &self.primary {
            rendered.insert("primary_conninfo".to_owned(), primary_conninfo(primary, settings, major));
            if let Some(slot) = &self.slot {
                rendered.insert("primary_slot_name".to_owned(), slot.clone());
            }
        }
        rendered
    }
}

/// The string that the WAL receiver connects with (5.3).
fn primary_conninfo(primary: &ConnInfo, settings: &Settings, major: u32) -> String {
    let target =
        ConnInfo { database: primary.database.clone().or_else(|| Some(settings.database.clone())), ..primary.clone() };
    target.render(Render {
        major,
        passfile: primary.credentials.password.is_some().then_some(settings.pgpass.as_path()),
        application_name: Some(settings.name.as_str()),
        krbsrvname: settings.krbsrvname.as_deref(),
        defaults: true,
        ..Render::default()
    })
}

/// One row of `pg_settings`.
struct Running {
    setting: String,
    context: String,
    vartype: String,
    unit: String,
    from_other_file: bool,
}

/// The server and the files that its recovery settings came from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    postmaster: (i32, u64),
    files: [Option<SystemTime>; 3],
}

/// Settings that were found to be in force, and when that has to be looked at again.
pub(crate) type Followed = (Option<Fingerprint>, BTreeMap<String, String>);

impl Instance {
    /// Compares the running recovery settings with `wanted`. Only for a standby that accepts connections.
    ///
    /// # Errors
    /// When the server does not answer: the difference is unknown then.
    pub async fn recovery_diff(&self, wanted: &RecoverySettings) -> Result<RecoveryDiff, Error> {
        let major = self.require_major()?;
        let settings = self.settings();
        if !settings.data_dir.join("standby.signal").exists() {
            return Ok(RecoveryDiff::Restart);
        }
        let rendered = wanted.render(&settings, major);
        let key = (self.fingerprint(&settings), rendered.clone());
        if key.0.is_some() && *self.0.followed.lock().unwrap_or_else(PoisonError::into_inner) == Some(key.clone()) {
            return Ok(RecoveryDiff::Same);
        }
        let running = self.running_recovery().await?;
        let mut diff = passfile_diff(wanted, &settings);
        for (name, row) in &running {
            let ignored = matches!(name.as_str(), "recovery_target_inclusive" | "recovery_target_action");
            let tolerated = TOLERATED.contains(&name.as_str()) && !rendered.contains_key(name) && row.from_other_file;
            let no_upstream = name == "primary_slot_name" && wanted.primary.is_none();
            let value = rendered.get(name).map_or("", String::as_str);
            if ignored || tolerated || no_upstream || is_equal(name, row, value) {
                continue;
            }
            diff = diff.max(if row.context == "postmaster" { RecoveryDiff::Restart } else { RecoveryDiff::Reload });
        }
        if diff == RecoveryDiff::Same {
            *self.0.followed.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        }
        Ok(diff)
    }

    /// What the answer depends on besides what is wanted. A difference is never remembered, because a reload takes its
    /// time.
    fn fingerprint(&self, settings: &Settings) -> Option<Fingerprint> {
        let modified = |path: PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let postmaster = self.postmaster().ok().flatten()?;
        Some(Fingerprint {
            postmaster: (postmaster.pid(), postmaster.start_ticks()),
            files: [
                modified(settings.config_file()),
                modified(settings.data_dir.join("postgresql.auto.conf")),
                modified(settings.pgpass.clone()),
            ],
        })
    }

    async fn running_recovery(&self) -> Result<BTreeMap<String, Running>, Error> {
        let names: Vec<String> = RECOVERY_PARAMETERS.iter().map(|name| literal(name)).collect();
        let rows = self
            .query(&format!(
                "SELECT name, setting, context, vartype, unit, sourcefile FROM pg_settings WHERE name IN ({})",
                names.join(", ")
            ))
            .await?;
        let own = [self.settings().config_file(), self.in_data_dir("postgresql.auto.conf")];
        let own = own.map(|path| fs::canonicalize(&path).unwrap_or(path));
        let read = |row: &crate::Row| {
            let file = row.text(5).map(PathBuf::from);
            let from_other_file = file.is_some_and(|file| !own.contains(&fs::canonicalize(&file).unwrap_or(file)));
            let text = |column: usize| row.owned(column).unwrap_or_default();
            let running =
                Running { setting: text(1), context: text(2), vartype: text(3), unit: text(4), from_other_file };
            Some((row.owned(0)?, running))
        };
        Ok(rows.iter().filter_map(read).collect())
    }
}

/// The server reads the password file at each connection; a changed password is in it after a rewrite.
fn passfile_diff(wanted: &RecoverySettings, settings: &Settings) -> RecoveryDiff {
    let expected = wanted.primary.as_ref().map(pgpass_lines).unwrap_or_default();
    let present = || fs::read_to_string(&settings.pgpass).unwrap_or_default();
    if expected.is_empty() || present().lines().eq(expected.iter().map(String::as_str)) {
        RecoveryDiff::Same
    } else {
        RecoveryDiff::Reload
    }
}

fn is_equal(name: &str, running: &Running, wanted: &str) -> bool {
    match name {
        // A reload compares the text in the server too, so an equal meaning in another order is not looked for.
        "primary_conninfo" => running.setting == wanted || sorted(&running.setting) == sorted(wanted),
        // The default of the server, which it prints as such.
        "recovery_target_timeline" => running.setting == wanted,
        _ if wanted.is_empty() => {
            running.setting.is_empty() || (running.vartype == "integer" && running.setting == "0")
        }
        _ => values_equal(&running.vartype, &running.unit, &running.setting, wanted),
    }
}

fn sorted(conninfo: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = parse(conninfo)?;
    pairs.sort();
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn wanted() -> RecoverySettings {
        RecoverySettings {
            primary: Some(ConnInfo { host: Some("h".into()), port: 5432, ..ConnInfo::default() }),
            slot: Some("n1".into()),
            extra: [("restore_command", "cp %f %p"), ("recovery_target_name", "x"), ("promote_trigger_file", "p")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    #[test]
    fn targets_are_emptied_whatever_is_configured() {
        let rendered = wanted().render(&settings(), 15);
        for name in TARGETS {
            assert_eq!(rendered[name], "", "{name}");
        }
        assert_eq!(rendered["recovery_target_timeline"], "latest");
        assert_eq!(rendered["restore_command"], "cp %f %p");
        assert_eq!(rendered["primary_slot_name"], "n1");
        assert_eq!(
            rendered["primary_conninfo"],
            "dbname=postgres host=h port=5432 sslmode=prefer application_name=n1 gssencmode=prefer \
             channel_binding=prefer"
        );
    }

    #[test]
    fn a_parameter_that_the_server_lost_in_16_is_not_written() {
        assert!(wanted().render(&settings(), 15).contains_key("promote_trigger_file"));
        assert!(!wanted().render(&settings(), 16).contains_key("promote_trigger_file"));
    }

    #[test]
    fn without_an_upstream_there_is_no_slot_either() {
        let rendered = RecoverySettings { primary: None, ..wanted() }.render(&settings(), 15);
        assert!(!rendered.contains_key("primary_slot_name") && !rendered.contains_key("primary_conninfo"));
    }
}
