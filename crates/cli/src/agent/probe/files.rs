//! Are the files and programs there, and may this user use them?

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::Broken;

/// The place of a program: in `directory`, or else in `PATH`.
pub(super) fn find_program(directory: Option<&Path>, name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    match directory {
        Some(directory) => Some(directory.join(name)).filter(is_program),
        None => {
            let directories = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&directories).map(|directory| directory.join(name)).find(is_program)
        }
    }
}

pub(super) fn program(directory: Option<&Path>, name: &str) -> Option<Broken> {
    if find_program(directory, name).is_some() {
        return None;
    }
    Some(match directory {
        Some(directory) if !directory.is_dir() => Broken {
            value: Some(directory.display().to_string()),
            problem: "is not a directory".to_owned(),
            remedy: "install PostgreSQL, or write the directory of its programs",
        },
        Some(directory) => Broken::new(
            format!("there is no such program in {}", directory.display()),
            "install PostgreSQL's server and client programs, or correct bin_dir",
        ),
        None => Broken::new(
            "there is no such program in PATH",
            "write the directory of PostgreSQL's programs as postgresql.bin_dir, such as /usr/lib/postgresql/15/bin",
        ),
    })
}

pub(super) fn readable_file(path: &Path) -> Option<Broken> {
    match fs::File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => None,
        Ok(_) => Some(Broken::new("is not a file", "write the path of a file")),
        Err(problem) => Some(Broken::new(format!("cannot be read: {problem}"), "check the path and its permissions")),
    }
}

pub(super) fn writable_directory(path: &Path) -> Option<Broken> {
    if !path.is_dir() {
        Some(Broken::new("is not a directory", "create it, owned by the user of the agent"))
    } else if is_writable(path) {
        None
    } else {
        Some(Broken::new("cannot be written by this user", "change its owner to the user of the agent"))
    }
}

/// The file is replaced, so its directory has to be writable.
pub(super) fn writable_file(path: &Path) -> Option<Broken> {
    let directory = path.parent().filter(|parent| parent.as_os_str() != OsStr::new("")).unwrap_or(Path::new("."));
    if path.exists() && !path.is_file() {
        Some(Broken::new("is not a file", "write the path of a file, which is overwritten"))
    } else if !directory.is_dir() {
        Some(Broken::new("its directory does not exist", "create it, owned by the user of the agent"))
    } else if is_writable(directory) {
        None
    } else {
        Some(Broken::new(
            "its directory cannot be written by this user",
            "write a path in a directory of the agent's user",
        ))
    }
}

/// Files can be created in this directory.
pub(super) fn is_writable(directory: &Path) -> bool {
    access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(broken: Option<Broken>) -> Option<String> {
        broken.map(|broken| broken.problem)
    }

    #[test]
    fn what_is_missing_or_of_the_wrong_kind_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let (here, file) = (directory.path(), directory.path().join("file"));
        fs::write(&file, "").unwrap();
        let missing = here.join("missing");
        for (found, want) in [
            (program(None, "sh"), None),
            (program(Some(Path::new("/bin")), "sh"), None),
            (program(Some(here), "file"), Some(format!("there is no such program in {}", here.display()))),
            (program(Some(&missing), "sh"), Some("is not a directory".to_owned())),
            (program(None, "no-such-program"), Some("there is no such program in PATH".to_owned())),
            (readable_file(&file), None),
            (readable_file(here), Some("is not a file".to_owned())),
            (readable_file(&missing), Some("cannot be read: No such file or directory (os error 2)".to_owned())),
            (writable_directory(here), None),
            (writable_directory(&file), Some("is not a directory".to_owned())),
            (writable_file(&file), None),
            (writable_file(&missing), None),
            (writable_file(here), Some("is not a file".to_owned())),
            (writable_file(&missing.join("pgpass")), Some("its directory does not exist".to_owned())),
        ] {
            assert_eq!(text(found), want);
        }
    }
}
