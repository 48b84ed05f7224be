//! As root: continue as somebody who may run PostgreSQL.
//!
//! PostgreSQL refuses to run as root, and nothing else of a demo needs it. So root only prepares the directory and then
//! replaces itself by this executable, run as that user; the rest of the demo never knows. Root writes no file in the
//! directory, which is the other user's: the copy of the executable is written by that user too.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};

use super::layout;
use super::preflight;
use super::{Args, command_line};

struct User {
    name: String,
    uid: u32,
    gid: u32,
}

impl User {
    /// Looks up a name or a number where the system looks up its users.
    fn find(key: &str) -> anyhow::Result<Option<User>> {
        let output = Command::new("getent").args(["passwd", "--", key]).output();
        let output = output.context("cannot look up users: getent does not run")?;
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut fields = line.trim().split(':');
        let (Some(name), _, Some(uid), Some(gid)) = (fields.next(), fields.next(), fields.next(), fields.next()) else {
            return Ok(None);
        };
        Ok(Some(User { name: name.to_owned(), uid: uid.parse()?, gid: gid.parse()? }))
    }

    /// A command that this user runs.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.gid).current_dir(dir);
        command.env("HOME", dir).env("USER", &self.name).env("LOGNAME", &self.name);
        command
    }
}

/// Refuses `--user` for everybody but root, unless it is the user anyway.
pub(super) fn refuse_other_user(name: &str) -> anyhow::Result<()> {
    match User::find(name)? {
        Some(user) if user.uid == rustix::process::geteuid().as_raw() => Ok(()),
        _ => bail!("only root can run the demo as another user ({name}): leave --user out"),
    }
}

/// Replaces this process by the same command, run as an unprivileged user; returns only when that cannot be done.
pub(super) fn continue_unprivileged<T>(args: &Args, dir: &Path) -> anyhow::Result<T> {
    Err(try_continue(args, dir).map_or_else(|error| error, |never: Infallible| match never {}))
}

fn try_continue(args: &Args, dir: &Path) -> anyhow::Result<Infallible> {
    let user = if dir.exists() { owner(args, dir)? } else { chosen(args)? };
    if args.command.is_none() {
        prepare(dir, &user)?;
    } else if !layout::executable(dir).exists() {
        bail!("there is no demo in {}; `pgward demo --dir {0}` makes one", dir.display());
    }
    let mut command = user.command(layout::executable(dir), dir);
    let error = command.args(command_line(args, dir)).exec();
    Err(error).with_context(|| format!("cannot run {} as user {}", layout::executable(dir).display(), user.name))
}

/// Who runs a demo that does not exist yet.
fn chosen(args: &Args) -> anyhow::Result<User> {
    let user = match &args.user {
        Some(name) => User::find(name)?.with_context(|| format!("--user {name}: there is no such user"))?,
        None => match User::find("postgres")? {
            Some(user) => user,
            None => User::find("nobody")?.context("there is neither a user postgres nor nobody: give --user")?,
        },
    };
    if user.uid == 0 {
        bail!("--user {}: PostgreSQL does not run as root; name an ordinary user", user.name);
    }
    Ok(user)
}

/// Who runs the demo in an existing directory: its owner.
fn owner(args: &Args, dir: &Path) -> anyhow::Result<User> {
    let uid = fs::metadata(dir).with_context(|| format!("cannot look at {}", dir.display()))?.uid();
    if uid == 0 {
        let user = chosen(args)?.name;
        let dir = dir.display();
        bail!(
            "{dir} belongs to root, and PostgreSQL does not run as root: choose another --dir, or `chown {user} {dir}`"
        );
    }
    let user = User::find(&uid.to_string())?.with_context(|| {
        format!("{} belongs to user {uid}, who has no name on this machine; choose another --dir", dir.display())
    })?;
    match &args.user {
        Some(name) if User::find(name)?.is_none_or(|asked| asked.uid != user.uid) => {
            bail!(
                "{} belongs to {}, not to {name}: leave --user out, or choose another --dir",
                dir.display(),
                user.name
            )
        }
        _ => Ok(user),
    }
}

/// Makes the directory if it is missing, and puts the executable where the user can run it.
fn prepare(dir: &Path, user: &User) -> anyhow::Result<()> {
    if !dir.exists() {
        fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        std::os::unix::fs::chown(dir, Some(user.uid), Some(user.gid))?;
    }
    if !preflight::is_demo_or_empty(dir)? {
        bail!("{} holds something that `pgward demo` did not put there; choose another --dir", dir.display());
    }
    preflight::check_nothing_runs(dir)?;
    let executable = File::open("/proc/self/exe").context("cannot read this executable")?;
    let script =
        "umask 022 && mkdir -p bin && cat > bin/pgward.new && chmod 755 bin/pgward.new && mv bin/pgward.new bin/pgward";
    let copied = user.command("/bin/sh", dir).args(["-c", script]).stdin(Stdio::from(executable)).output();
    match copied {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(anyhow!("user {} cannot write in {}: {said}", user.name, dir.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Leave nothing behind that the next attempt would have to explain.
            let _ = fs::remove_dir(dir);
            bail!(
                "user {} cannot enter {}: a folder above it is closed to others. Choose another place, such as \
                 --dir /var/tmp/pgward-demo",
                user.name,
                dir.display()
            )
        }
        Err(error) => Err(error).with_context(|| format!("cannot run /bin/sh as user {}", user.name)),
    }
}
