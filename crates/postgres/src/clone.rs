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
use crate::process::{all_exited, tools_with_argument};

/// Options for `pg_basebackup`: a name, and a value where it takes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasebackupOptions {
    /// Such as `("checkpoint", Some("fast"))`.
    pub options: Vec<(String, Option<String>)>,
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
    /// Replaces the data directory with a copy of another server, in two attempts. There is no deadline, because a copy
    /// may take days: cancel it. What was written stays when it fails or is cancelled: see [`Instance::wipe_data_dir`].
    ///
    /// # Errors
    /// The end of the output of the second attempt; [`Error::Cancelled`].
    pub async fn clone_from(
        &self,
        source: &ConnInfo,
        options: &BasebackupOptions,
        progress: Option<watch::Sender<CloneProgress>>,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        self.kill_stale_tools().await?;
        let major = self.program_major().await?;
        let mut attempt = 1;
        loop {
            self.wipe_data_dir().await?;
            let error = match self.basebackup(source, options, major, progress.as_ref(), cancel).await {
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
        }
        self.restore_configuration_copies()
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
        if let Some(path) = self.tool_pgpass(source)? {
            tool = tool.env("PGPASSFILE", path);
        }
        if let Some(name) = &settings.krbsrvname {
            tool = tool.env("PGKRBSRVNAME", name);
        }
        tool.run().await?;
        Ok(())
    }

    /// Ends copies and rewinds of this data directory that an agent that is gone has started.
    pub(crate) async fn kill_stale_tools(&self) -> Result<(), Error> {
        let mut stale = tools_with_argument("pg_basebackup", &self.pgdata_argument());
        stale.extend(tools_with_argument("pg_rewind", &self.settings().data_dir.display().to_string()));
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
