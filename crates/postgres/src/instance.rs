//! The handle to the local server.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Connection;
use crate::command::Tool;
use crate::control::{ControlData, QuickLook, quick_look};
use crate::error::Error;
use crate::parameters::KnownParameters;
use crate::process::{PidFileOwner, Postmaster, Process, all_exited, find_postmaster, server_processes};
use crate::recovery::Followed;
use crate::settings::Settings;

/// The local server. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Instance(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    settings: Mutex<Arc<Settings>>,
    /// What the kept connection is called in `pg_stat_activity`.
    pub(crate) connection_name: &'static str,
    /// The connection that the monitoring keeps.
    pub(crate) heartbeat: tokio::sync::Mutex<Option<Connection>>,
    /// Recovery settings that were found to be in force.
    pub(crate) followed: Mutex<Option<Followed>>,
    /// Parameters that the server's program was asked about.
    pub(crate) known_parameters: tokio::sync::Mutex<KnownParameters>,
    /// The device of the file system on which a cluster was seen last.
    device: Mutex<Option<u64>>,
}

/// What the data directory looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDirState {
    /// Missing, or nothing in it but dot-files and `lost+found`.
    Empty,
    /// It could not be looked at, or is not ours; never to be taken for empty.
    Inaccessible(String),
    /// Something is in it.
    Present {
        /// The major version; `None` when there is no readable `PG_VERSION`.
        major: Option<u32>,
    },
}

/// How long `pg_controldata` may take.
const CONTROLDATA_LIMIT: Duration = Duration::from_secs(10);

impl Instance {
    /// A handle to the server that `settings` describe. Touches nothing.
    pub fn new(settings: Settings) -> Instance {
        Instance::named(settings, "pgward heartbeat")
    }

    /// The same with another name for the connection that it keeps. Whoever must not wait while somebody else asks the
    /// server needs a handle of its own, not a clone.
    pub fn named(settings: Settings, connection_name: &'static str) -> Instance {
        Instance(Arc::new(Inner {
            settings: Mutex::new(Arc::new(settings)),
            connection_name,
            heartbeat: tokio::sync::Mutex::new(None),
            followed: Mutex::new(None),
            known_parameters: tokio::sync::Mutex::default(),
            device: Mutex::new(None),
        }))
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings_slot())
    }

    /// Puts other settings in force: for every later operation, and for the kept connection from its next failure on.
    pub fn replace_settings(&self, settings: Settings) {
        *self.settings_slot() = Arc::new(settings);
    }

    fn settings_slot(&self) -> MutexGuard<'_, Arc<Settings>> {
        self.0.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the data directory looks like. A present control file answers without a scan (DIR-11).
    ///
    /// Where a cluster was seen on one file system, an empty directory on another is a mount point whose volume is gone, and
    /// counts as inaccessible for as long as this handle lives (DIR-3).
    pub fn data_dir_state(&self) -> DataDirState {
        let directory = &self.settings().data_dir;
        match std::fs::metadata(directory.join("global/pg_control")) {
            Ok(_) => {
                if let Ok(metadata) = std::fs::metadata(directory) {
                    *self.device() = Some(metadata.dev());
                }
                return DataDirState::Present { major: self.major_version() };
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => {}
            Err(error) => return inaccessible(directory, &error),
        }
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.empty_or_unmounted(directory),
            Err(error) => return inaccessible(directory, &error),
        };
        for entry in entries {
            match entry {
                Ok(entry) if is_no_content(&entry.file_name().to_string_lossy()) => {}
                Ok(_) => return DataDirState::Present { major: self.major_version() },
                Err(error) => return inaccessible(directory, &error),
            }
        }
        self.empty_or_unmounted(directory)
    }

    fn empty_or_unmounted(&self, directory: &Path) -> DataDirState {
        let Some(before) = *self.device() else { return DataDirState::Empty };
        let nearest = directory.ancestors().find_map(|ancestor| std::fs::metadata(ancestor).ok());
        match nearest {
            Some(metadata) if metadata.dev() == before => DataDirState::Empty,
            Some(_) | None => DataDirState::Inaccessible(format!(
                "the data directory {} is on another file system than the cluster that was in it: mount its volume again, \
                 or restart the agent if it was exchanged on purpose",
                directory.display()
            )),
        }
    }

    fn device(&self) -> MutexGuard<'_, Option<u64>> {
        self.0.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The major version of the data directory, from `PG_VERSION`.
    pub fn major_version(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.settings().data_dir.join("PG_VERSION")).ok()?;
        text.trim().parse().ok()
    }

    /// The major version, or the error that forbids to write anything.
    pub(crate) fn require_major(&self) -> Result<u32, Error> {
        self.major_version().ok_or_else(|| Error::UnknownVersion(self.settings().data_dir.clone()))
    }

    /// Why this process must not run a server here: it is root, or the directory belongs to somebody else.
    pub fn check_owner(&self) -> Result<(), Error> {
        let own = rustix::process::geteuid().as_raw();
        if own == 0 {
            return Err(Error::Refused("PostgreSQL does not run as root: start the agent as PostgreSQL's user".into()));
        }
        let directory = &self.settings().data_dir;
        match std::fs::metadata(directory) {
            Ok(metadata) if metadata.uid() != own => Err(Error::Refused(format!(
                "the data directory {} belongs to user {}, and the agent runs as user {own}: PostgreSQL would refuse to \
                 start",
                directory.display(),
                metadata.uid()
            ))),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::file("look at", directory)(error)),
        }
    }

    /// `standby.signal` or `recovery.signal` exists.
    pub fn has_signal_file(&self) -> bool {
        let directory = &self.settings().data_dir;
        ["standby.signal", "recovery.signal"].iter().any(|name| directory.join(name).exists())
    }

    /// `backup_label` exists: a base backup that was not started yet.
    pub fn has_backup_label(&self) -> bool {
        self.settings().data_dir.join("backup_label").exists()
    }

    /// What `pg_controldata` prints.
    ///
    /// # Errors
    /// When the program fails, for example because the file is damaged.
    pub async fn control_data(&self) -> Result<ControlData, Error> {
        self.require_major()?;
        let settings = self.settings();
        let output =
            Tool::new(&settings, "pg_controldata").arg(&settings.data_dir).limit(CONTROLDATA_LIMIT).run().await?;
        Ok(ControlData::parse(&output.stdout))
    }

    /// The head of the control file, in microseconds. Its checksum is not verified: confirm with
    /// [`Instance::control_data`] before acting.
    pub fn control_quick_look(&self) -> Option<QuickLook> {
        quick_look(&self.settings().data_dir)
    }

    /// The server of this data directory, when one runs. Its pid file is believed only when the process is recognised.
    ///
    /// # Errors
    /// When the process table cannot be read; that is "unknown", not "none".
    pub fn postmaster(&self) -> io::Result<Option<Postmaster>> {
        let settings = self.settings();
        Ok(match find_postmaster(&settings.data_dir, &settings.program("postgres"))? {
            PidFileOwner::Postmaster(postmaster) => Some(postmaster),
            PidFileOwner::Nobody | PidFileOwner::Stranger(_) => None,
        })
    }

    /// Server processes of this data directory that belong to no living postmaster. They block the next start.
    ///
    /// # Errors
    /// When the process table cannot be read; that is "unknown", not "none".
    pub fn leftover_processes(&self) -> io::Result<Vec<Process>> {
        let settings = self.settings();
        let postmaster = self.postmaster()?;
        let except = postmaster.as_ref().map(Postmaster::process);
        server_processes(&settings.data_dir, &settings.program("postgres"), except)
    }

    /// Kills them and waits for their end, until there are none. Returns how many there were.
    ///
    /// # Errors
    /// [`Error::Unkillable`] when some are still there after `limit`, and the refusal of the operating system.
    pub async fn kill_leftovers(&self, limit: Duration) -> Result<usize, Error> {
        let failed = |action| Error::file(action, self.settings().data_dir.clone());
        let deadline = Instant::now() + limit;
        let mut killed = 0;
        loop {
            let leftovers = self.leftover_processes().map_err(failed("look for the server processes of"))?;
            if leftovers.is_empty() {
                return Ok(killed);
            }
            for process in &leftovers {
                process.signal(rustix::process::Signal::KILL).map_err(failed("kill the server processes of"))?;
            }
            if !all_exited(&leftovers, deadline.saturating_duration_since(Instant::now())).await {
                let living = leftovers.iter().filter(|process| process.is_alive()).map(Process::describe);
                let processes = living.collect::<Vec<_>>().join(", ");
                return Err(Error::Unkillable { processes, after: limit });
            }
            killed += leftovers.len();
        }
    }

    /// A file or directory below the data directory.
    pub(crate) fn in_data_dir(&self, name: impl AsRef<Path>) -> PathBuf {
        self.settings().data_dir.join(name)
    }
}

fn inaccessible(directory: &Path, error: &io::Error) -> DataDirState {
    DataDirState::Inaccessible(format!("cannot look into the data directory {}: {error}", directory.display()))
}

/// Dot-files and `lost+found` are no content of a data directory.
pub(crate) fn is_no_content(name: &str) -> bool {
    name.starts_with('.') || name == "lost+found"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn only_a_directory_without_content_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let instance = Instance::new(Settings { data_dir: data_dir.clone(), ..settings() });
        assert_eq!(instance.data_dir_state(), DataDirState::Empty, "missing");
        std::fs::create_dir(&data_dir).unwrap();
        std::fs::write(data_dir.join(".keep"), "").unwrap();
        std::fs::create_dir(data_dir.join("lost+found")).unwrap();
        assert_eq!(instance.data_dir_state(), DataDirState::Empty, "no content");
        std::fs::write(data_dir.join("x"), "").unwrap();
        assert_eq!(instance.data_dir_state(), DataDirState::Present { major: None });
        std::fs::write(data_dir.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(instance.data_dir_state(), DataDirState::Present { major: Some(15) });
        let not_a_directory = Instance::new(Settings { data_dir: data_dir.join("x"), ..settings() });
        assert!(matches!(not_a_directory.data_dir_state(), DataDirState::Inaccessible(_)));
    }

    #[test]
    fn a_mount_point_whose_volume_is_gone_is_not_an_empty_directory() {
        let here = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        let data_dir = here.path().join("data");
        let mount = |at: &Path| {
            let _ = std::fs::remove_file(&data_dir);
            std::os::unix::fs::symlink(at, &data_dir).unwrap();
        };
        let instance = Instance::new(Settings { data_dir: data_dir.clone(), ..settings() });
        mount(here.path());
        assert_eq!(instance.data_dir_state(), DataDirState::Present { major: None }, "something is in it");
        let empty = here.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        mount(elsewhere.path());
        assert_eq!(instance.data_dir_state(), DataDirState::Empty, "nothing is known of it yet");
        let control = elsewhere.path().join("global/pg_control");
        std::fs::create_dir(elsewhere.path().join("global")).unwrap();
        std::fs::write(&control, "").unwrap();
        assert_eq!(instance.data_dir_state(), DataDirState::Present { major: None });
        for gone in [&empty, &here.path().join("missing")] {
            mount(gone);
            assert!(matches!(instance.data_dir_state(), DataDirState::Inaccessible(_)), "{}", gone.display());
        }
        mount(elsewhere.path());
        std::fs::remove_dir_all(elsewhere.path().join("global")).unwrap();
        assert_eq!(instance.data_dir_state(), DataDirState::Empty, "emptied by hand, to be copied anew");
        std::fs::remove_dir(elsewhere.path()).unwrap();
        std::fs::remove_file(&data_dir).unwrap();
        assert!(
            matches!(instance.data_dir_state(), DataDirState::Inaccessible(_)),
            "where it would be made is elsewhere"
        );
    }
}
