//! What this machine offers: PostgreSQL, etcd, the executable under test, and the user that servers run as.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

/// The user that PostgreSQL, etcd and the agents run as; PostgreSQL refuses to run as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunUser {
    /// Name, as `id -un` prints it.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Whether processes must change to this user, that is, whether the tests run as root.
    pub switch: bool,
}

/// The programs and the user of a run.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Folder of PostgreSQL's programs: `PG_BIN`, or the newest below `/usr/lib/postgresql`.
    pub pg_bin: PathBuf,
    /// The user of all servers.
    pub user: RunUser,
}

impl Machine {
    /// Looks at the machine.
    ///
    /// # Errors
    /// Says which package is missing.
    pub fn find() -> Result<Self> {
        static FOUND: OnceLock<Result<Machine, String>> = OnceLock::new();
        let look = || -> Result<Machine> {
            ensure!(program("etcd").is_some(), "etcd is not installed; remedy: apt-get install etcd-server");
            Ok(Machine { pg_bin: find_pg_bin()?, user: find_user()? })
        };
        FOUND.get_or_init(|| look().map_err(|e| format!("{e:#}"))).clone().map_err(anyhow::Error::msg)
    }

    /// Major version of the PostgreSQL in use.
    ///
    /// # Errors
    /// When `postgres --version` cannot be run or read.
    pub fn pg_major(&self) -> Result<u32> {
        let output = Command::new(self.pg_bin.join("postgres")).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().nth(2).with_context(|| format!("unexpected version text {text:?}"))?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().with_context(|| format!("unexpected version text {text:?}"))
    }
}

/// The executable under test: `PGWARD_BIN`, or what `cargo build` makes of this workspace.
///
/// # Errors
/// When it is missing or does not build.
pub fn pgward_executable() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let look = || -> Result<PathBuf> {
        if let Some(path) = env::var_os("PGWARD_BIN").filter(|p| !p.is_empty()) {
            let path = PathBuf::from(path);
            ensure!(path.is_file(), "PGWARD_BIN={} is not a file", path.display());
            return Ok(path.canonicalize()?);
        }
        let release = !cfg!(debug_assertions);
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        build.args(["build", "--quiet", "--locked", "-p", "pgward-cli", "--bin", "pgward"]).current_dir(workspace());
        if release {
            build.arg("--release");
        }
        ensure!(build.status()?.success(), "cargo build of the executable failed");
        let path = target_dir()?.join(if release { "release" } else { "debug" }).join("pgward");
        ensure!(path.is_file(), "{} is missing after cargo build", path.display());
        Ok(path)
    };
    FOUND.get_or_init(|| look().map_err(|e| format!("{e:#}"))).clone().map_err(anyhow::Error::msg)
}

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    package.parent().map_or(package.clone(), Path::to_path_buf)
}

/// Cargo's target folder, told from where this very program lies (`target/debug/deps/it-…`, `target/release/bench`).
///
/// # Errors
/// When this program's own path cannot be told.
pub fn target_dir() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let profile = own.ancestors().find(|p| p.ends_with("debug") || p.ends_with("release"));
    Ok(profile.and_then(Path::parent).map_or_else(|| workspace().join("target"), Path::to_path_buf))
}

/// The first program of that name in `PATH` or in the usual folders.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    env::split_paths(&path).chain(usual.iter().map(PathBuf::from)).map(|dir| dir.join(name)).find(|p| p.is_file())
}

fn find_pg_bin() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("PG_BIN").filter(|p| !p.is_empty()) {
        let dir = PathBuf::from(dir);
        ensure!(dir.join("postgres").is_file(), "PG_BIN={} has no postgres in it", dir.display());
        return Ok(dir);
    }
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let major = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let dir = entry.path().join("bin");
        if let Some(major) = major.filter(|_| dir.join("postgres").is_file()) {
            found.push((major, dir));
        }
    }
    found.sort();
    let newest = found.pop().map(|(_, dir)| dir);
    newest.context("no PostgreSQL below /usr/lib/postgresql; remedy: apt-get install postgresql, or give PG_BIN=DIR")
}

fn find_user() -> Result<RunUser> {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let users = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some((name.to_owned(), uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?))
    });
    if uid != 0 {
        let gid = rustix::process::getegid().as_raw();
        let name = users.into_iter().find(|u| u.1 == uid).map_or_else(|| uid.to_string(), |u| u.0);
        return Ok(RunUser { name, uid, gid, switch: false });
    }
    let mut users: Vec<_> = users.collect();
    users.sort_by_key(|u| (u.0 != "postgres", u.0 != "nobody"));
    match users.into_iter().find(|u| u.1 != 0) {
        Some((name, uid, gid)) => Ok(RunUser { name, uid, gid, switch: true }),
        None => bail!("running as root, and there is no other user to run PostgreSQL as; remedy: adduser postgres"),
    }
}
