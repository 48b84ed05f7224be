//! Recovery of a crashed server without letting anybody in (3.8).

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::command::{Tool, ToolOutput};
use crate::config::{remove_if_present, sync_directory};
use crate::error::{CommandError, Error};
use crate::instance::Instance;

impl Instance {
    /// Runs the server in single-user mode until it has recovered and shut down in order. WAL that waits for archiving is
    /// saved first; the signal files are removed, so that recovery ends. It may take as long as any recovery: cancel it.
    ///
    /// # Errors
    /// [`Error::Refused`] while a server runs, or for a restored backup that was never started; the end of the server's
    /// output; [`Error::Cancelled`].
    pub async fn single_user_recovery(&self, cancel: &CancellationToken) -> Result<ToolOutput, Error> {
        if self.postmaster().map_err(Error::file("look for", "postmaster.pid"))?.is_some() {
            return Err(Error::Refused("a server runs on the data directory".to_owned()));
        }
        self.require_undisturbed()?;
        if self.has_backup_label() && self.require_major()? >= 15 {
            let problem =
                "the data directory is a backup that was not started yet: recovering it alone would destroy it";
            return Err(Error::Refused(problem.to_owned()));
        }
        match self.archive_ready_segments(cancel).await {
            Ok(_) => {}
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => warn!(%error, "cannot save WAL before crash recovery"),
        }
        self.clear_archive_status()?;
        let settings = self.settings();
        for name in ["standby.signal", "recovery.signal"] {
            remove_if_present(&settings.data_dir.join(name))?;
        }
        sync_directory(&settings.data_dir)?;
        let opts = std::fs::read_to_string(settings.data_dir.join("postmaster.opts")).unwrap_or_default();
        let mut tool = Tool::new(&settings, "postgres").arg("--single").arg("-D").arg(&settings.data_dir);
        for (name, value) in parse_opts(&opts) {
            tool = tool.arg("-c").arg(format!("{name}={value}"));
        }
        // Archiving that always fails keeps what recovery completes until the server runs again.
        tool = tool.args(["-c", "archive_mode=on", "-c", "archive_command=false", "template1"]);
        match tool.directory(&settings.data_dir).cancelled_by(cancel).run().await {
            Err(CommandError::Cancelled { .. }) => Err(Error::Cancelled),
            result => Ok(result?),
        }
    }
}

/// The `--name=value` arguments of the last start: `/…/postgres "-D" "/data" "--port=5432"`.
pub(crate) fn parse_opts(text: &str) -> Vec<(String, String)> {
    let quoted = text.split('"').skip(1).step_by(2);
    let pairs = quoted.filter_map(|argument| argument.strip_prefix("--")?.split_once('='));
    pairs.map(|(name, value)| (name.replace('-', "_"), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_the_last_start_are_read() {
        let text = "/usr/lib/postgresql/15/bin/postgres \"-D\" \"/data\" \"--config-file=/data/postgresql.conf\" \
                    \"--port=5432\" \"--cluster_name=a b\"\n";
        let options = parse_opts(text);
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            options,
            [option("config_file", "/data/postgresql.conf"), option("port", "5432"), option("cluster_name", "a b")]
        );
        assert!(parse_opts("").is_empty());
    }
}
