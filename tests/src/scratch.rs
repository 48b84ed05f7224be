//! A folder for one cluster, and the janitor that ends whatever still runs in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::machine::RunUser;
use crate::process;

/// A folder that every user may enter, owned by the user that servers run as.
#[derive(Debug)]
pub struct Scratch {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    janitor: Option<Child>,
}

/// Ends every process that names the folder in its command line or has it (or a folder below) as its current folder,
/// as soon as standard input is closed: that is, when the test is gone, even by SIGKILL. Reads the folder from the
/// environment so as not to match itself.
const JANITOR: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
for round in 1 2 3; do
  for p in /proc/[0-9]*; do
    pid=${p#/proc/}
    [ "$pid" = "$$" ] && continue
    case "$(readlink "$p/cwd" 2>/dev/null)" in "$SCRATCH"|"$SCRATCH"/*) kill -9 "$pid" 2>/dev/null; continue;; esac
    case "$(tr '\0' ' ' <"$p/cmdline" 2>/dev/null)" in *"$SCRATCH/"*) kill -9 "$pid" 2>/dev/null;; esac
  done
done
while read -r _ mount _; do case "$mount" in "$SCRATCH"/*) umount -l "$mount";; esac; done </proc/mounts
for n in $NAMESPACES; do ip netns del "$n" 2>/dev/null; done
[ -n "$KEEP" ] || rm -rf "$SCRATCH"
"#;

impl Scratch {
    /// Makes the folder and starts its janitor, who also removes the given network namespaces at the end.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(user: &RunUser, namespaces: &[String]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("pgward-test-").tempdir().context("cannot make a scratch folder")?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        if user.switch {
            chown(dir.path(), Some(user.uid), Some(user.gid))?;
        }
        let path = dir.path().to_owned();
        let mut janitor = Command::new("/bin/sh");
        janitor
            .args(["-c", JANITOR])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        janitor
            .env("SCRATCH", &path)
            .env("NAMESPACES", namespaces.join(" "))
            .env("KEEP", if keeps() { "1" } else { "" });
        std::os::unix::process::CommandExt::process_group(&mut janitor, 0);
        let janitor = janitor.spawn().context("cannot start the janitor")?;
        Ok(Self { dir: Some(dir), path, janitor: Some(janitor) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder below it, owned by `user`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str, user: &RunUser) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if user.switch {
            chown(&path, Some(user.uid), Some(user.gid))?;
        }
        Ok(path)
    }

    /// Makes a folder below it that is a file system of its own, in memory, of that many MiB. Needs root.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn small_disk(&self, name: &str, user: &RunUser, mebibytes: u32) -> Result<PathBuf> {
        let path = self.folder(name, user)?;
        let options = format!("size={mebibytes}m,mode=755,uid={},gid={}", user.uid, user.gid);
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "pgward-test"]).arg(&path).output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "cannot mount a small file system: {}", error.trim());
        Ok(path)
    }

    /// Unmounts the small disks, once nothing runs any more.
    fn unmount_all(&self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(mount).starts_with(&self.path) {
                let _ = Command::new("umount").args(["-l", mount]).output();
            }
        }
    }

    /// Kills every process that runs in or below the folder or names it.
    pub fn kill_all(&self) {
        let prefix = format!("{}/", self.path.display());
        let own = std::process::id();
        // Three rounds: a process may have been forked while we were looking.
        for _ in 0..3 {
            for seen in process::all() {
                let inside = seen.dir.as_ref().is_some_and(|dir| dir.starts_with(&self.path));
                if seen.pid != own && (inside || seen.command_line.contains(&prefix)) {
                    process::send(seen.pid, Signal::KILL);
                }
            }
        }
    }
}

/// Whether scratch folders are kept for a look afterwards (`PGWARD_TEST_KEEP=1`).
pub fn keeps() -> bool {
    std::env::var_os("PGWARD_TEST_KEEP").is_some_and(|v| !v.is_empty() && v != "0")
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.kill_all();
        self.unmount_all();
        if let Some(dir) = self.dir.take() {
            if keeps() {
                eprintln!("kept {}", dir.keep().display());
            } else {
                let _ = dir.close();
            }
        }
        if let Some(mut janitor) = self.janitor.take() {
            drop(janitor.stdin.take());
            let _ = janitor.wait();
        }
    }
}
