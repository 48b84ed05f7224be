//! Saving WAL that the server did not archive itself before it stopped (9.6), and bringing back what a rewind lacks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::command::Tool;
use crate::config::sync_directory;
use crate::error::Error;
use crate::instance::Instance;

/// One segment, to or from a remote store.
const SEGMENT_LIMIT: Duration = Duration::from_secs(300);

impl Instance {
    /// Runs `archive_command` for every segment that waits for it, oldest first, and marks it as done on success. Failures
    /// are logged. Does nothing when archiving is off. Returns how many segments were saved.
    ///
    /// # Errors
    /// When the settings or the directory cannot be read; [`Error::Cancelled`].
    pub async fn archive_ready_segments(&self, cancel: &CancellationToken) -> Result<usize, Error> {
        let waiting = self.segments_to_archive()?;
        if waiting.is_empty() || !matches!(self.configured_value("archive_mode").await?.as_str(), "on" | "always") {
            return Ok(0);
        }
        let command = self.configured_value("archive_command").await?;
        if command.is_empty() {
            return Ok(0);
        }
        let status = self.in_data_dir("pg_wal/archive_status");
        let mut saved = 0;
        for segment in waiting {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let line = expand(&command, &format!("pg_wal/{segment}"), &segment, "");
            let tool = Tool::shell(&line, "archive_command").directory(&self.settings().data_dir);
            if let Err(error) = tool.limit(SEGMENT_LIMIT).cancelled_by(cancel).run().await {
                warn!(segment, %error, "cannot archive a WAL segment");
                continue;
            }
            let (ready, done) = (status.join(format!("{segment}.ready")), status.join(format!("{segment}.done")));
            fs::rename(&ready, done).map_err(Error::file("rename", ready))?;
            info!(segment, "archived a WAL segment that the server had left");
            saved += 1;
        }
        Ok(saved)
    }

    /// Archives what waits for it, and the segment with the checkpoint of a former primary that was stopped in order: the
    /// server itself archives no segment that it has not filled. Returns how many were saved.
    ///
    /// # Errors
    /// As [`Instance::archive_ready_segments`]; and when the control file cannot be read.
    pub async fn archive_shutdown_segment(&self, cancel: &CancellationToken) -> Result<usize, Error> {
        let control = self.control_data().await?;
        let bytes = control.wal_segment_bytes.unwrap_or(16 << 20).max(1);
        if let (Some(checkpoint), Some(timeline)) = (control.checkpoint, control.checkpoint_timeline) {
            let (high, low) = (checkpoint.0 >> 32, (checkpoint.0 & 0xFFFF_FFFF) / bytes);
            let segment = format!("{:08X}{high:08X}{low:08X}", timeline.get());
            let status = self.in_data_dir("pg_wal/archive_status");
            let is_done = status.join(format!("{segment}.done")).exists();
            if !is_done && self.in_data_dir("pg_wal").join(&segment).exists() {
                let ready = status.join(format!("{segment}.ready"));
                fs::write(&ready, "").map_err(Error::file("write", &ready))?;
            }
        }
        self.archive_ready_segments(cancel).await
    }

    fn segments_to_archive(&self) -> Result<Vec<String>, Error> {
        let status = self.in_data_dir("pg_wal/archive_status");
        let entries = match fs::read_dir(&status) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("list", status)(error)),
        };
        let wal = self.in_data_dir("pg_wal");
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let segments = names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned));
        let mut segments: Vec<String> = segments.filter(|segment| wal.join(segment).exists()).collect();
        segments.sort();
        Ok(segments)
    }

    /// Forgets what waits to be archived, so that the server does not wait for it. Save it first.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn clear_archive_status(&self) -> Result<(), Error> {
        let status = self.in_data_dir("pg_wal/archive_status");
        let entries = match fs::read_dir(&status) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("list", status)(error)),
        };
        for entry in entries.flatten() {
            fs::remove_file(entry.path()).map_err(Error::file("remove", entry.path()))?;
        }
        sync_directory(&status)
    }

    /// Fetches one segment with `restore_command`.
    pub(crate) async fn restore_segment(
        &self,
        restore_command: &str,
        segment: &str,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let target: PathBuf = self.in_data_dir("pg_wal").join(segment);
        let line = expand(restore_command, &target.display().to_string(), segment, "000000010000000000000001");
        let tool = Tool::shell(&line, "restore_command").directory(&self.settings().data_dir);
        tool.limit(SEGMENT_LIMIT).cancelled_by(cancel).run().await?;
        is_file(&target)
    }
}

fn is_file(path: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(Error::file("find after restore_command", path))?;
    if metadata.is_file() { Ok(()) } else { Err(Error::Refused(format!("{} is not a file", path.display()))) }
}

/// Replaces `%p`, `%f`, `%r` and `%%`; anything else stays as it is.
fn expand(command: &str, path: &str, file: &str, restart: &str) -> String {
    let mut line = String::with_capacity(command.len() + path.len());
    let mut rest = command.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            line.push(character);
            continue;
        }
        match rest.next() {
            Some('p') => line.push_str(path),
            Some('f') => line.push_str(file),
            Some('r') if !restart.is_empty() => line.push_str(restart),
            Some('%') => line.push('%'),
            Some(other) => line.extend(['%', other]),
            None => line.push('%'),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_of_a_command_are_replaced() {
        assert_eq!(expand("cp %p /a/%f # 100%% %r %x%", "pg_wal/1", "1", ""), "cp pg_wal/1 /a/1 # 100% %r %x%");
        assert_eq!(expand("f %f %p %r", "/d/1", "1", "0"), "f 1 /d/1 0");
    }
}
