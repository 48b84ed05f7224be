//! Patroni 4.1 in a throw-away Python environment, as the other member of mixed clusters and the yardstick of the
//! benchmark.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// What is installed: the release line whose behaviour we share.
const PACKAGES: [&str; 2] = ["patroni[etcd3]==4.1.*", "psycopg2-binary"];

/// The folder with `patroni` and `patronictl`; installs them on first use.
///
/// # Errors
/// When there is no Python or no package index.
pub fn programs() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| install().map_err(|e| format!("{e:#}"))).clone().map_err(anyhow::Error::msg)
}

fn install() -> Result<PathBuf> {
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // Two test programs may come here at once; the second waits until the first is done.
    let lock = File::create(cache.join("patroni.lock"))?;
    lock.lock()?;
    let venv = cache.join("patroni-4.1");
    let marker = venv.join("complete");
    if !marker.is_file() {
        let _ = fs::remove_dir_all(&venv);
        // Debian's own Python where there is one: a Python below /root could not be run by another user.
        let python = Path::new("/usr/bin/python3");
        let python = if python.is_file() { python } else { Path::new("python3") };
        run(
            Command::new(python).args(["-m", "venv"]).arg(&venv),
            "python3-venv is needed: apt-get install python3-venv",
        )?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
        run(&mut pip, "a Python package index must be reachable, see pip config")?;
        fs::write(&marker, "")?;
    }
    Ok(venv.join("bin"))
}

fn run(command: &mut Command, remedy: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}; {remedy}"))?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?} failed; {remedy}\n{error}");
    Ok(())
}

/// A folder that survives from run to run and that every user may enter: cargo's target folder may lie in `/root`.
fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("PGWARD_TEST_CACHE").filter(|d| !d.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/cache/pgward-tests"));
    }
    let home = env::var_os("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".cache/pgward-tests"))
}
