//! Copying another server with `pg_basebackup`.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::bootstrap::option;
use crate::command::Tool;
use crate::conninfo::ConnInfo;
use crate::error::{CommandError, Error};
use crate::instance::Instance;
use crate::process::{Process, all_exited, tools_with_argument};
use crate::replication::identify_system;
use crate::secret::Login;
use crate::wipe::Ground;

/// Options for `pg_basebackup`: a name, and a value where it takes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasebackupOptions {
    /// Such as `("checkpoint", Some("fast"))`.
    pub options: Vec<(String, Option<String>)>,
}

/// What a copy may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nothing: the data directory has to be empty.
    Nothing,
    /// The cluster in the data directory, because somebody has allowed that.
    Cluster,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneProgress {
    /// Copied so far.
    pub done_bytes: u64,
    /// Expected, by an estimate of the source; zero while it writes its checkpoint.
    pub total_bytes: u64,
}

/// Options that the agent gives itself.
const FORBIDDEN: [&str; 11] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
];
const ATTEMPTS: u32 = 2;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(5);
/// A tool that an earlier agent left behind.
const STALE_LIMIT: Duration = Duration::from_secs(10);

impl Instance {
    /// Copies another server into the data directory, in two attempts. There is no deadline, because a copy may take days:
    /// cancel it. What a copy that failed or was cancelled has written is removed, and nothing else: what appears in the
    /// place of the directory meanwhile, such as a volume that is mounted late, is left alone (INV-S11).
    ///
    /// A cluster is removed only when the copy can be had: the source lets us in, and is of the same cluster (INV-S21).
    ///
    /// # Errors
    /// The end of the output of the second attempt; [`Error::Cancelled`]; [`Error::Refused`] for a directory that is not
    /// empty and may not be replaced.
    pub async fn clone_from(
        &self,
        source: &ConnInfo,
        replace: Replace,
        options: &BasebackupOptions,
        progress: Option<watch::Sender<CloneProgress>>,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        self.kill_stale_tools().await?;
        let major = self.program_major().await?;
        if replace == Replace::Cluster {
            self.require_same_cluster(source).await?;
            self.wipe_data_dir().await?;
        }
        let ground = self.prepare_ground().await?;
        let copied = self.copy(source, options, major, progress.as_ref(), cancel, ground).await;
        if copied.is_err()
            && let Err(error) = self.clear_ground(ground).await
        {
            warn!(%error, "what a failed copy has written was not removed");
        }
        copied
    }

    async fn copy(
        &self,
        source: &ConnInfo,
        options: &BasebackupOptions,
        major: u32,
        progress: Option<&watch::Sender<CloneProgress>>,
        cancel: &CancellationToken,
        ground: Ground,
    ) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let error = match self.basebackup(source, options, major, progress, cancel).await {
                Ok(()) => break,
                Err(Error::Command(CommandError::Cancelled { .. })) => return Err(Error::Cancelled),
                Err(error) => error,
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            warn!(%error, attempt, "the base backup failed, trying again");
            attempt += 1;
            tokio::select! {
                () = cancel.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(BETWEEN_ATTEMPTS) => {}
            }
            self.clear_ground(ground).await?;
        }
        self.require_ground(ground)?;
        self.restore_configuration_copies()
    }

    /// INV-S21: what is about to be removed may be the only copy, so a new one must be within reach.
    async fn require_same_cluster(&self, source: &ConnInfo) -> Result<(), Error> {
        let theirs = identify_system(source).await?.system_id;
        match self.control_quick_look().map(|look| look.system_id.to_string()) {
            Some(ours) if ours != theirs => Err(Error::Refused(format!(
                "the data directory is kept: {source} is of another cluster (system identifier {theirs}, here {ours})"
            ))),
            // Nobody can tell any more what a directory without readable control data was.
            Some(_) | None => Ok(()),
        }
    }

    async fn basebackup(
        &self,
        source: &ConnInfo,
        options: &BasebackupOptions,
        major: u32,
        progress: Option<&watch::Sender<CloneProgress>>,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let settings = self.settings();
        let mut tool = Tool::new(&settings, "pg_basebackup")
            .arg(self.pgdata_argument())
            .args(["-X", "stream"])
            .arg(format!("--dbname={}", source.render_for_tool(major)))
            .cancelled_by(cancel);
        for (name, value) in &options.options {
            let is_server_side = value.as_deref().is_some_and(|value| value.starts_with("server"));
            if FORBIDDEN.contains(&name.as_str()) || (name == "compress" && !(is_server_side && major >= 15)) {
                warn!(option = name, "this option of pg_basebackup would not give a usable copy and is ignored");
                continue;
            }
            tool = tool.arg(option(name, value.as_deref()));
        }
        if let Some(progress) = progress.cloned() {
            tool = tool.arg("--progress").on_error_output(move |text| {
                if let Some(now) = parse_progress(text) {
                    progress.send_replace(now);
                }
            });
        }
        // Both files are there as long as it runs.
        let login = Login::prepare(&settings, source)?;
        tool = tool.login(&login);
        if let Some(name) = &settings.krbsrvname {
            tool = tool.env("PGKRBSRVNAME", name);
        }
        tool.run().await?;
        Ok(())
    }

    /// Ends copies and rewinds of this data directory that an agent that is gone has started.
    pub(crate) async fn kill_stale_tools(&self) -> Result<(), Error> {
        let stale = self.stale_tools();
        for process in &stale {
            warn!(pid = process.pid(), "ending a copy of the data directory that an earlier agent started");
            process.kill_tree().map_err(Error::file("end a copy of", &self.settings().data_dir))?;
        }
        if all_exited(&stale, STALE_LIMIT).await {
            Ok(())
        } else {
            Err(Error::Timeout { what: "an earlier copy of the data directory did not end", after: STALE_LIMIT })
        }
    }

    /// INV-S13: one thing at a time works on a data directory, and a rewind is done whole or not at all.
    ///
    /// # Errors
    /// [`Error::Refused`] while a copy or a rewind goes on that an agent which is gone has started, and after a rewind that
    /// was broken off.
    pub(crate) fn require_undisturbed(&self) -> Result<(), Error> {
        if let Some(tool) = self.stale_tools().first() {
            return Err(Error::Refused(format!(
                "process {}, a copy or a rewind that an earlier agent started, still works on the data directory",
                tool.pid()
            )));
        }
        if self.is_half_rewound() {
            return Err(Error::Refused(
                "a rewind of the data directory was broken off: it has to be rewound again, or copied anew".to_owned(),
            ));
        }
        Ok(())
    }

    fn stale_tools(&self) -> Vec<Process> {
        let settings = self.settings();
        let find = |tool: &str, argument: &str| {
            let program = settings.program(tool);
            program.file_name().map(|name| tools_with_argument(&name.to_string_lossy(), argument)).unwrap_or_default()
        };
        let mut stale = find("pg_basebackup", &self.pgdata_argument());
        stale.extend(find("pg_rewind", &settings.data_dir.display().to_string()));
        stale
    }

    fn pgdata_argument(&self) -> String {
        format!("--pgdata={}", self.settings().data_dir.display())
    }

    /// The major version of the installed programs.
    pub(crate) async fn program_major(&self) -> Result<u32, Error> {
        let tool = Tool::new(&self.settings(), "postgres").arg("--version").limit(Duration::from_secs(10));
        let output = tool.run().await?;
        let version =
            output.stdout.split_ascii_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let major = version.and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        major.ok_or_else(|| Error::Refused(format!("cannot read a version from {:?}", output.stdout.trim())))
    }
}

/// Reads the last report, such as `12345/67890 kB (18%), 0/1 tablespace`.
pub(crate) fn parse_progress(text: &str) -> Option<CloneProgress> {
    let report = text.rsplit(['\r', '\n']).find(|line| line.contains(" kB ("))?;
    let (numbers, _) = report.trim_start().split_once(" kB")?;
    let (done, total) = numbers.split_once('/')?;
    let bytes = |text: &str| text.trim().parse::<u64>().ok().map(|kilobytes| kilobytes.saturating_mul(1024));
    Some(CloneProgress { done_bytes: bytes(done)?, total_bytes: bytes(total)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_the_last_report() {
        let text =
            "waiting for checkpoint\r    0/22753 kB (0%), 0/1 tablespace\r22763/22763 kB (100%), 1/1 tablespace\n";
        assert_eq!(parse_progress(text), Some(CloneProgress { done_bytes: 22763 << 10, total_bytes: 22763 << 10 }));
        assert_eq!(parse_progress("pg_basebackup: error: x/y kB (z"), None);
    }
}
