//! Could a server of the configured version run in the data directory?

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::files::{find_program, is_writable};
use super::{Broken, blocking};

/// What is wrong with the data directory. An empty or a missing one is fine where one can be made.
pub(super) async fn problem(path: PathBuf, bin_dir: Option<&Path>, postgres: &str) -> Option<Broken> {
    let program = find_program(bin_dir, postgres);
    let seen = path.clone();
    if let Some(broken) = blocking(move || problem_of_directory(&seen)).await {
        return Some(broken);
    }
    let of_data = fs::read_to_string(path.join("PG_VERSION")).ok()?.trim().to_owned();
    // A missing program is a problem of its own.
    let of_program = major_version(&program?).await?;
    (of_data != of_program).then(|| {
        Broken::new(
            format!("holds data of PostgreSQL {of_data}, and {postgres} is of version {of_program}"),
            "set postgresql.bin_dir to the programs of that version, or upgrade the data with pg_upgrade",
        )
    })
}

fn problem_of_directory(path: &Path) -> Option<Broken> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(problem) if problem.kind() == ErrorKind::NotFound => return problem_of_creation(path),
        Err(problem) => return Some(unreadable(&problem)),
    };
    if !metadata.is_dir() {
        return Some(Broken::new("is not a directory", "write a path that is a directory or does not exist"));
    }
    let us = rustix::process::geteuid().as_raw();
    let owner = metadata.uid();
    if owner == 0 {
        return Some(Broken::new("belongs to root, and PostgreSQL does not run as root", "change its owner"));
    }
    // Root can only validate: it is another user who will run the agent.
    if us != 0 && owner != us {
        let problem = format!("belongs to user {owner}, and this is user {us}");
        return Some(Broken::new(problem, "run the agent as the owner, or change the owner"));
    }
    match is_empty(path) {
        Err(problem) => return Some(unreadable(&problem)),
        Ok(true) => return None,
        Ok(false) => {}
    }
    if !path.join("PG_VERSION").is_file() || !path.join("pg_wal").is_dir() {
        return Some(Broken::new(
            "is neither empty nor a data directory of PostgreSQL: PG_VERSION or pg_wal is missing",
            "write another path, or move its content away",
        ));
    }
    let mode = metadata.mode() & 0o777;
    (mode & 0o027 != 0).then(|| {
        let problem = format!("has the permissions {mode:04o}, with which PostgreSQL does not start");
        Broken::new(problem, "chmod it to 0700, or 0750")
    })
}

/// The nearest directory that exists has to let us make the rest.
fn problem_of_creation(path: &Path) -> Option<Broken> {
    let nearest = path.ancestors().skip(1).find(|above| above.exists())?;
    (!is_writable(nearest)).then(|| {
        let problem = format!("does not exist, and this user cannot create it in {}", nearest.display());
        Broken::new(problem, "create it, owned by the user of the agent, with permissions 0700")
    })
}

/// As the agent sees it: the root of a file system is empty although it has something in it.
fn is_empty(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') && name != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unreadable(problem: &io::Error) -> Broken {
    Broken::new(format!("cannot be read: {problem}"), "check the path, its owner and its permissions")
}

/// The `15` in `postgres (PostgreSQL) 15.20 (Debian 15.20-1)`. The caller limits the time.
async fn major_version(program: &Path) -> Option<String> {
    let output = Command::new(program)
        .arg("--version")
        // It needs none, and ours may hold passwords.
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some(major)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An executable that says it is PostgreSQL 15.
    fn programs(directory: &Path) -> PathBuf {
        let postgres = directory.join("postgres");
        fs::write(&postgres, "#!/bin/sh\necho 'postgres (PostgreSQL) 15.20 (Debian 15.20-1)'\n").unwrap();
        fs::set_permissions(&postgres, fs::Permissions::from_mode(0o755)).unwrap();
        directory.to_owned()
    }

    #[tokio::test]
    async fn only_an_empty_or_a_fitting_directory_will_do() {
        let bin = tempfile::tempdir().unwrap();
        let bin_dir = programs(bin.path());
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let found = async || problem(data.clone(), Some(&bin_dir), "postgres").await.map(|broken| broken.problem);
        assert_eq!(found().await, None, "it can be created");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(found().await.unwrap(), "belongs to root, and PostgreSQL does not run as root");
            std::os::unix::fs::chown(&data, Some(65_534), None).unwrap();
        }
        assert_eq!(found().await, None, "it is empty");
        fs::create_dir(data.join("lost+found")).unwrap();
        assert_eq!(found().await, None, "it is the root of a file system");
        fs::write(data.join("PG_VERSION"), "14\n").unwrap();
        assert!(found().await.unwrap().starts_with("is neither empty nor a data directory"));
        fs::create_dir(data.join("pg_wal")).unwrap();
        assert_eq!(found().await.unwrap(), "holds data of PostgreSQL 14, and postgres is of version 15");
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(found().await, None);
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(found().await.unwrap().starts_with("has the permissions 0755, with which"));
    }
}
