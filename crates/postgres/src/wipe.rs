//! Removing a data directory, or moving it aside, with the WAL directory and tablespaces that it links to.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::config::sync_directory;
use crate::error::Error;
use crate::instance::{Instance, is_no_content};
use crate::settings::Settings;

/// Names of the WAL directory, now and before version 10.
const WAL_DIRECTORIES: [&str; 2] = ["pg_wal", "pg_xlog"];

impl Instance {
    /// Removes everything that belongs to the cluster on this member. A data directory that is a link is only unlinked.
    /// What cannot be removed is moved aside instead.
    ///
    /// # Errors
    /// [`Error::Refused`] while a server runs; and when it can neither be removed nor moved.
    pub(crate) async fn wipe_data_dir(&self) -> Result<(), Error> {
        self.require_stopped()?;
        self.beside(|settings| match wipe(settings) {
            Ok(()) => Ok(()),
            Err(error) => {
                warn!(%error, "cannot remove the data directory, moving it aside");
                move_aside(settings, ".failed")
            }
        })
        .await
    }

    /// Makes the data directory if it is missing, and takes hold of it for a copy.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not empty, or while a server runs.
    pub(crate) async fn prepare_ground(&self) -> Result<Ground, Error> {
        self.require_stopped()?;
        self.beside(|settings| Ground::prepare(&settings.data_dir)).await
    }

    /// Removes what a copy has written.
    ///
    /// # Errors
    /// [`Error::Refused`] when the data directory is not what the copy began in, or while a server runs.
    pub(crate) async fn clear_ground(&self, ground: Ground) -> Result<(), Error> {
        self.require_stopped()?;
        self.beside(move |settings| ground.clear(&settings.data_dir)).await
    }

    /// The data directory is still what the copy began in.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not.
    pub(crate) fn require_ground(&self, ground: Ground) -> Result<(), Error> {
        ground.require(&self.settings().data_dir)
    }

    /// Removing files takes its time, so it has a thread of its own.
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Settings) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let settings = self.settings();
        let done = tokio::task::spawn_blocking(move || work(&settings)).await;
        done.unwrap_or_else(|error| Err(Error::Refused(error.to_string())))
    }

    /// Renames the data directory to itself and `suffix`, the targets of its links too (BOO-8). What has that name
    /// already, from an earlier failure, is removed.
    ///
    /// # Errors
    /// [`Error::Refused`] while a server runs; and when something cannot be renamed.
    pub async fn move_data_dir_aside(&self, suffix: &str) -> Result<(), Error> {
        self.require_stopped()?;
        let suffix = suffix.to_owned();
        self.beside(move |settings| move_aside(settings, &suffix)).await
    }

    fn require_stopped(&self) -> Result<(), Error> {
        match self.postmaster().map_err(Error::file("look for", "postmaster.pid"))? {
            None => Ok(()),
            Some(running) => Err(Error::Refused(format!(
                "a server runs on the data directory {} (process {}): it is not removed",
                self.settings().data_dir.display(),
                running.pid()
            ))),
        }
    }
}

/// The directory that a copy fills, known by what it is and not by its name.
///
/// Under the name there may be another one at any time: a volume that is mounted late, or one that is gone. It holds
/// somebody's data, and is never removed for the sake of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ground {
    device: u64,
    inode: u64,
}

impl Ground {
    fn of(data_dir: &Path) -> Result<Ground, Error> {
        let metadata = fs::metadata(data_dir).map_err(Error::file("look at", data_dir))?;
        Ok(Ground { device: metadata.dev(), inode: metadata.ino() })
    }

    fn prepare(data_dir: &Path) -> Result<Ground, Error> {
        let create = fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
        create.map_err(Error::file("create", data_dir))?;
        let entries = fs::read_dir(data_dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(Error::file("list", data_dir))?;
        if !entries.iter().all(|entry| is_no_content(&entry.file_name().to_string_lossy())) {
            return Err(Error::Refused(format!(
                "the data directory {} is not empty any more: it is not touched",
                data_dir.display()
            )));
        }
        for entry in &entries {
            // pg_basebackup wants none of them, and says so of what cannot be removed.
            let _ = fs::remove_file(entry.path());
        }
        let metadata = fs::metadata(data_dir).map_err(Error::file("look at", data_dir))?;
        if metadata.mode() & 0o027 != 0 {
            // PostgreSQL does not start in a directory that others may look into.
            let private = fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700));
            private.map_err(Error::file("protect", data_dir))?;
        }
        Ground::of(data_dir)
    }

    fn require(self, data_dir: &Path) -> Result<(), Error> {
        if Ground::of(data_dir)? == self {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{} is not the directory any more that the copy began in: it is not touched",
            data_dir.display()
        )))
    }

    fn clear(self, data_dir: &Path) -> Result<(), Error> {
        self.require(data_dir)?;
        // pg_basebackup has found the targets of these links empty before it made them.
        for (_, target) in links(data_dir) {
            clear(&target)?;
        }
        clear(data_dir)
    }
}

fn wipe(settings: &Settings) -> Result<(), Error> {
    let data_dir = &settings.data_dir;
    let metadata = match fs::symlink_metadata(data_dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("look at", data_dir)(error)),
    };
    if metadata.is_symlink() {
        return fs::remove_file(data_dir).map_err(Error::file("unlink", data_dir));
    }
    for (_, target) in links(data_dir) {
        clear(&target)?;
        remove_directory_if_possible(&target);
    }
    clear(data_dir)?;
    remove_directory_if_possible(data_dir);
    Ok(())
}

/// Removes what is in a directory. The control file goes first, so that a wipe that was interrupted is not taken for a
/// cluster.
fn clear(directory: &Path) -> Result<(), Error> {
    let _ = fs::remove_file(directory.join("global/pg_control"));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("list", directory)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::file("list", directory))?;
        let path = entry.path();
        // A link is removed itself, not what it points to.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound && entry.file_name() != "lost+found" => {
                return Err(Error::file("remove", path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// An empty mount point stays.
fn remove_directory_if_possible(directory: &Path) {
    let _ = fs::remove_dir(directory);
}

fn move_aside(settings: &Settings, suffix: &str) -> Result<(), Error> {
    let data_dir = &settings.data_dir;
    if fs::symlink_metadata(data_dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    for (link, target) in links(data_dir) {
        let aside = with_suffix(&target, suffix);
        remove_aside(&aside)?;
        if target.exists() {
            fs::rename(&target, &aside).map_err(Error::file("rename", &target))?;
        }
        fs::remove_file(&link).and_then(|()| symlink(&aside, &link)).map_err(Error::file("link", &link))?;
    }
    let aside = with_suffix(data_dir, suffix);
    remove_aside(&aside)?;
    fs::rename(data_dir, &aside).map_err(Error::file("rename", data_dir))?;
    if let Some(parent) = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_directory(parent)?;
    }
    Ok(())
}

/// What an earlier failure left under the name that is needed now. Its links point to directories of the same suffix,
/// which are removed on their own.
fn remove_aside(aside: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(aside) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(aside),
        Ok(_) => fs::remove_file(aside),
        Err(_) => Ok(()),
    };
    removed.map_err(Error::file("remove", aside))
}

/// `path` and `suffix`, whatever slash it ends with.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.components().as_path().as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The links of a data directory that lead out of it, and where they lead: WAL and tablespaces.
fn links(data_dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    let tablespaces = fs::read_dir(data_dir.join("pg_tblspc")).into_iter().flatten().flatten();
    let candidates = WAL_DIRECTORIES.iter().map(|name| data_dir.join(name));
    let candidates = candidates.chain(tablespaces.map(|entry| entry.path()));
    candidates
        .filter_map(|link| {
            let target = fs::read_link(&link).ok()?;
            let target = link.parent()?.join(target);
            // A tablespace in place, which tests use, is a link that leads back inside.
            (!target.starts_with(data_dir)).then_some((link, target))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    /// A data directory with WAL and a tablespace elsewhere, and a trailing slash in its name.
    fn cluster() -> (tempfile::TempDir, Instance) {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for directory in ["data/global", "data/pg_tblspc", "wal/archive_status", "space/PG_15"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for file in ["data/PG_VERSION", "data/global/pg_control", "wal/1", "space/PG_15/1", "other"] {
            fs::write(at(file), "15").unwrap();
        }
        symlink(at("wal"), at("data/pg_wal")).unwrap();
        symlink(at("space"), at("data/pg_tblspc/16384")).unwrap();
        let data_dir = PathBuf::from(format!("{}/", at("data").display()));
        (root, Instance::new(Settings { data_dir, ..settings() }))
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_wipe_takes_the_targets_of_links_and_nothing_else() {
        let (root, instance) = cluster();
        instance.wipe_data_dir().await.unwrap();
        assert_eq!(names(root.path()), ["other"]);
        instance.wipe_data_dir().await.unwrap();
    }

    #[tokio::test]
    async fn a_linked_data_directory_is_only_unlinked() {
        let (root, _) = cluster();
        let link = root.path().join("link");
        symlink(root.path().join("data"), &link).unwrap();
        Instance::new(Settings { data_dir: link, ..settings() }).wipe_data_dir().await.unwrap();
        assert_eq!(names(root.path()), ["data", "other", "space", "wal"]);
    }

    #[tokio::test]
    async fn a_copy_removes_only_from_the_directory_that_it_began_in() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let instance = Instance::new(Settings { data_dir: at("data"), ..settings() });
        fs::create_dir(at("data")).unwrap();
        fs::write(at("data/.hidden"), "").unwrap();
        let ground = instance.prepare_ground().await.unwrap();
        assert_eq!(names(&at("data")), [""; 0]);
        fs::write(at("data/PG_VERSION"), "15").unwrap();
        let refused = instance.prepare_ground().await.unwrap_err();
        assert!(refused.to_string().contains("not empty any more"), "{refused}");
        instance.clear_ground(ground).await.unwrap();
        assert_eq!(names(&at("data")), [""; 0]);

        // A volume is mounted there.
        fs::rename(at("data"), at("before")).unwrap();
        fs::create_dir(at("data")).unwrap();
        fs::write(at("data/PG_VERSION"), "15").unwrap();
        for refused in [instance.clear_ground(ground).await, instance.require_ground(ground)] {
            assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        }
        assert_eq!(names(&at("data")), ["PG_VERSION"]);
    }

    #[tokio::test]
    async fn moving_aside_repoints_the_links_and_replaces_an_older_one() {
        let (root, instance) = cluster();
        fs::create_dir(root.path().join("data.failed")).unwrap();
        fs::create_dir(root.path().join("wal.failed")).unwrap();
        instance.move_data_dir_aside(".failed").await.unwrap();
        assert_eq!(names(root.path()), ["data.failed", "other", "space.failed", "wal.failed"]);
        let failed = root.path().join("data.failed");
        assert!(failed.join("pg_wal/1").exists() && failed.join("pg_tblspc/16384/PG_15/1").exists());
        instance.move_data_dir_aside(".failed").await.unwrap();
    }
}
