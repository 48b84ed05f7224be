//! Where this server stands compared with a leader, and `pg_rewind`.

use std::path::PathBuf;
use std::time::Duration;

use pgward_core::wal::{Lsn, Timeline};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::bootstrap::option;
use crate::command::Tool;
use crate::config::{remove_if_present, sync_directory};
use crate::conninfo::ConnInfo;
use crate::control::{ClusterState, ControlData};
use crate::error::{CommandError, Error};
use crate::instance::Instance;
use crate::secret::Login;

/// Where this server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPosition {
    /// Its timeline; of a standby the one it replays.
    pub timeline: Timeline,
    /// Replayed by a standby; the last checkpoint of a former primary.
    pub lsn: Lsn,
    /// It is or was a standby.
    pub in_recovery: bool,
}

/// How to rewind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RewindOptions {
    /// `restore_command`, for WAL that is not there any more.
    pub restore_command: Option<String>,
    /// Further options of pg_rewind.
    pub options: Vec<(String, Option<String>)>,
}

/// Options that the agent gives itself, or that would not leave a usable server.
const FORBIDDEN: [&str; 9] = [
    "target-pgdata",
    "source-pgdata",
    "source-server",
    "write-recovery-conf",
    "dry-run",
    "restore-target-wal",
    "config-file",
    "no-ensure-shutdown",
    "version",
];
/// Segments fetched one by one before giving up: a divergence lies a few segments back.
const FETCHED_SEGMENTS_MAX: usize = 1000;
/// Output of a tool that is shorter than this is known as a whole.
const SHORT_OUTPUT_BYTES: usize = 3 * 1024;

impl Instance {
    /// pg_rewind is installed, and the control file allows it (9.2).
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub async fn can_rewind(&self) -> Result<bool, Error> {
        let settings = self.settings();
        let help = Tool::new(&settings, "pg_rewind").arg("--help").limit(Duration::from_secs(10));
        Ok(help.run().await.is_ok() && self.control_data().await?.allows_rewind())
    }

    /// Where this server stands (9.3); `None` when that cannot be known now, and nothing may be concluded.
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub async fn local_position(&self) -> Result<Option<LocalPosition>, Error> {
        if self.postmaster().map_err(Error::file("look for", "postmaster.pid"))?.is_some() {
            // Never the receiver's timeline, which may be ahead of replay.
            if let (Ok(identity), Ok(rows)) =
                (self.identify_system().await, self.query("SELECT pg_last_wal_replay_lsn()").await)
                && let Some(lsn) = rows.first().and_then(|row| row.parse(0))
            {
                return Ok(Some(LocalPosition { timeline: identity.timeline, lsn, in_recovery: true }));
            }
        }
        Ok(position_of(&self.control_data().await?))
    }

    /// Runs pg_rewind against `source`, which names a primary and the rewind user. The server has to be down, in order.
    /// There is no deadline: cancel it.
    ///
    /// # Errors
    /// The end of the tool's output; [`Error::Refused`] while a server runs; [`Error::Cancelled`]. Unless it failed before
    /// it changed anything, the directory is marked: see [`Instance::is_half_rewound`].
    pub async fn rewind(
        &self,
        source: &ConnInfo,
        options: &RewindOptions,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        if self.postmaster().map_err(Error::file("look for", "postmaster.pid"))?.is_some() {
            return Err(Error::Refused("a server runs on the data directory: stop it before a rewind".to_owned()));
        }
        self.kill_stale_tools().await?;
        let was_half_rewound = self.is_half_rewound();
        self.mark_as_half_rewound()?;
        let result = self.rewind_with_restored_wal(source, options, cancel).await;
        let is_whole = match &result {
            Ok(()) => true,
            Err(error) => !was_half_rewound && has_changed_nothing(error),
        };
        if is_whole && remove_if_present(&self.rewind_mark())? {
            sync_directory(&self.settings().data_dir)?;
        }
        result
    }

    async fn rewind_with_restored_wal(
        &self,
        source: &ConnInfo,
        options: &RewindOptions,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let major = self.require_major()?;
        let command = options.restore_command.as_deref().filter(|command| !command.trim().is_empty());
        let inside = self.settings().config_dir.starts_with(&self.settings().data_dir);
        let delegated = command.is_some() && (major >= 15 || inside);
        for _ in 0..FETCHED_SEGMENTS_MAX {
            let error = match self.run_rewind(source, options, major, delegated, cancel).await {
                Ok(()) => return Ok(()),
                Err(Error::Command(CommandError::Cancelled { .. })) => return Err(Error::Cancelled),
                Err(error) => error,
            };
            let missing = missing_segment(&error.to_string());
            let (Some(command), Some(segment), false) = (command, missing, delegated) else { return Err(error) };
            info!(segment, "pg_rewind lacks a WAL segment, fetching it");
            if let Err(fetch) = self.restore_segment(command, &segment, cancel).await {
                warn!(segment, error = %fetch, "cannot fetch the WAL segment that pg_rewind lacks");
                return Err(error);
            }
        }
        Err(Error::Refused(format!("pg_rewind still lacks WAL after {FETCHED_SEGMENTS_MAX} segments were fetched")))
    }

    /// A rewind has begun to change the data directory and has not come to its end, in this life of the agent or in one
    /// before. No server may run on it before it is rewound again, or copied anew.
    pub fn is_half_rewound(&self) -> bool {
        self.rewind_mark().symlink_metadata().is_ok()
    }

    /// The mark is a named pipe, because pg_rewind removes every file that its source does not have, and leaves alone
    /// what is neither a file, a directory nor a link. It is in the directory that it speaks of, wherever that is taken.
    fn rewind_mark(&self) -> PathBuf {
        self.in_data_dir("pgward.rewinding")
    }

    fn mark_as_half_rewound(&self) -> Result<(), Error> {
        let mark = self.rewind_mark();
        match mknodat(CWD, &mark, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) | Err(Errno::EXIST) => sync_directory(&self.settings().data_dir),
            Err(error) => Err(Error::file("create", mark)(error.into())),
        }
    }

    async fn run_rewind(
        &self,
        source: &ConnInfo,
        options: &RewindOptions,
        major: u32,
        delegated: bool,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let settings = self.settings();
        let target = ConnInfo { target_session_attrs: Some("read-write".to_owned()), ..source.clone() };
        let mut tool = Tool::new(&settings, "pg_rewind")
            .arg("-D")
            .arg(&settings.data_dir)
            .arg("--source-server")
            .arg(target.render_for_tool(major))
            .env("PGOPTIONS", "-c statement_timeout=0")
            .cancelled_by(cancel);
        if delegated {
            tool = tool.arg("--restore-target-wal");
            if major >= 15 && !settings.config_dir.starts_with(&settings.data_dir) {
                tool = tool.arg(format!("--config-file={}", settings.config_file().display()));
            }
        }
        for (name, value) in &options.options {
            if FORBIDDEN.contains(&name.as_str()) {
                warn!(option = name, "this option of pg_rewind would not leave a usable server and is ignored");
                continue;
            }
            tool = tool.arg(option(name, value.as_deref()));
        }
        // Both files are there as long as it runs.
        let login = Login::prepare(&settings, source)?;
        tool = tool.login(&login);
        let output = tool.run().await?;
        info!(output = output.stderr.trim(), "pg_rewind is done");
        Ok(())
    }
}

/// True when pg_rewind ended by itself before it told from where on it rewinds, which is the last thing it does before it
/// touches the directory.
fn has_changed_nothing(error: &Error) -> bool {
    match error {
        Error::Command(CommandError::Failed { output, .. }) => {
            // Of long output only the end is kept, which may have lost those words.
            !output.contains("rewinding from last common checkpoint") && output.len() < SHORT_OUTPUT_BYTES
        }
        Error::Command(CommandError::Spawn { .. }) | Error::UnknownVersion(_) => true,
        Error::Command(CommandError::Timeout { .. } | CommandError::Cancelled { .. })
        | Error::Sql(_)
        | Error::File { .. }
        | Error::NotRunning
        | Error::Ended { .. }
        | Error::Timeout { .. }
        | Error::Unkillable { .. }
        | Error::Refused(_)
        | Error::Cancelled => false,
    }
}

/// The position that control data of a server that is down speak of.
fn position_of(control: &ControlData) -> Option<LocalPosition> {
    let primary = || {
        let (lsn, timeline) = (control.checkpoint?, control.checkpoint_timeline?);
        Some(LocalPosition { timeline, lsn, in_recovery: false })
    };
    match control.state? {
        ClusterState::ShutDownInRecovery | ClusterState::InArchiveRecovery => {
            match (control.min_recovery_end, control.min_recovery_end_timeline) {
                (Some(lsn), Some(timeline)) => Some(LocalPosition { timeline, lsn, in_recovery: true }),
                // It was a primary that has not replayed anything since.
                (Some(_) | None, _) => primary(),
            }
        }
        ClusterState::ShutDown => primary(),
        ClusterState::StartingUp
        | ClusterState::ShuttingDown
        | ClusterState::InCrashRecovery
        | ClusterState::InProduction => None,
    }
}

/// The segment that pg_rewind could not open: the only name of 24 hexadecimal digits in its complaint.
fn missing_segment(text: &str) -> Option<String> {
    let line =
        text.lines().find(|line| line.contains("could not open file") || line.contains("could not find file"))?;
    let names = line.split(|c: char| !c.is_ascii_alphanumeric());
    let is_segment =
        |name: &&str| name.len() == 24 && name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    names.into_iter().find(is_segment).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServerConfig;
    use crate::settings::Settings;
    use crate::settings::tests::settings;

    #[test]
    fn the_position_depends_on_how_the_server_went_down() {
        use ClusterState::*;
        let (checkpoint, end) = (Some(Lsn(10)), Some(Lsn(20)));
        let base = ControlData {
            checkpoint,
            checkpoint_timeline: Timeline::new(1),
            min_recovery_end: end,
            min_recovery_end_timeline: Timeline::new(2),
            ..ControlData::default()
        };
        let was = |timeline, lsn, in_recovery| {
            Timeline::new(timeline).map(|timeline| LocalPosition { timeline, lsn: Lsn(lsn), in_recovery })
        };
        for (name, state, end, want) in [
            ("a primary that shut down", Some(ShutDown), None, was(1, 10, false)),
            ("a standby that shut down", Some(ShutDownInRecovery), end, was(2, 20, true)),
            ("a standby that crashed", Some(InArchiveRecovery), end, was(2, 20, true)),
            ("a primary started as standby in vain", Some(ShutDownInRecovery), None, was(1, 10, false)),
            ("a primary that crashed", Some(InProduction), None, None),
            ("an odd control file", None, end, None),
        ] {
            let control = ControlData { state, min_recovery_end: end, ..base.clone() };
            assert_eq!(position_of(&control), want, "{name}");
        }
    }

    #[test]
    fn a_rewind_that_failed_early_leaves_a_whole_directory() {
        let failed = |output: &str| {
            let (program, status) = ("pg_rewind".to_owned(), "exit status: 1".to_owned());
            Error::Command(CommandError::Failed { program, status, output: output.to_owned() })
        };
        assert!(has_changed_nothing(&failed("pg_rewind: error: connection to server failed")));
        let late = "pg_rewind: rewinding from last common checkpoint at 0/2000060 on timeline 1\npg_rewind: error: x";
        for error in [failed(late), failed(&"x".repeat(4096)), Error::Cancelled] {
            assert!(!has_changed_nothing(&error), "{error:?}");
        }
    }

    #[tokio::test]
    async fn nothing_runs_on_a_half_rewound_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("PG_VERSION"), "15\n").unwrap();
        let settings = Settings { data_dir: directory.path().to_owned(), ..settings() };
        let instance = Instance::new(settings);
        instance.mark_as_half_rewound().unwrap();
        instance.mark_as_half_rewound().unwrap();
        assert!(instance.is_half_rewound());
        let started = instance.spawn(&ServerConfig::default()).await.unwrap_err().to_string();
        let recovered = instance.single_user_recovery(&CancellationToken::new()).await.unwrap_err().to_string();
        for refused in [started, recovered] {
            assert!(refused.contains("rewound again"), "{refused}");
        }
    }

    #[test]
    fn the_segment_that_is_missing_is_named_in_the_complaint() {
        let text = "pg_rewind failed with exit status: 1: pg_rewind: error: could not open file \
                    \"/data/pg_wal/000000010000000000000003\": No such file or directory\n";
        assert_eq!(missing_segment(text).as_deref(), Some("000000010000000000000003"));
        assert_eq!(missing_segment("could not open file \"global/pg_control\""), None);
    }
}
