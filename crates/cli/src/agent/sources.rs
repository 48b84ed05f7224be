//! Where a configuration comes from: a file, the files of a directory, and the environment.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use pgward_core::config::{Source, Sources, config_files};

/// The longest file that is read. The largest configurations that people have are below 1 MB.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the agent is configured by: a path that exists, and the environment over it; else the environment alone.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) sources: Sources,
    /// A path that was named and does not exist, which is no error: the environment may say everything.
    pub(super) missing: Option<PathBuf>,
}

/// Reads everything that the argument and the environment of this process name.
///
/// # Errors
/// When a file that exists cannot be read.
pub(super) fn gather(path: Option<&Path>) -> anyhow::Result<Found> {
    gather_with(path, environment())
}

fn gather_with(path: Option<&Path>, mut environment: BTreeMap<String, String>) -> anyhow::Result<Found> {
    let named = path.filter(|path| !path.as_os_str().is_empty());
    let (present, missing) = match named {
        Some(path) if is_there(path) => (Some(path), None),
        Some(path) => (None, Some(path.to_owned())),
        None => (None, None),
    };
    let files = present.map(read).transpose()?.unwrap_or_default();
    if present.is_some() {
        // It stands in for a path, so a directory without files does not bring it back.
        environment.remove("PATRONI_CONFIGURATION");
    }
    Ok(Found { sources: Sources { files, environment }, missing })
}

/// False only when there is nothing: what exists and cannot be looked at is an error of reading it.
fn is_there(path: &Path) -> bool {
    !matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// The variables of this process that are text.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// One file, or the YAML files of a directory in the order of their names.
///
/// # Errors
/// An [`io::Error`] below a context that names the file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Source>> {
    let failed = || format!("cannot read the configuration {}", path.display());
    if !path.is_dir() {
        return Ok(vec![read_file(path).with_context(failed)?]);
    }
    let entries = fs::read_dir(path).with_context(failed)?;
    let names = entries.collect::<io::Result<Vec<_>>>().with_context(failed)?;
    let names = names.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
    let paths = config_files(names).into_iter().map(|name| path.join(name)).filter(|path| path.is_file());
    paths
        .map(|path| read_file(&path).with_context(|| format!("cannot read the configuration {}", path.display())))
        .collect()
}

fn read_file(path: &Path) -> io::Result<Source> {
    let mut text = String::new();
    let length = fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MB; name a YAML file"));
    }
    Ok(Source { name: path.display().to_string(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("PATRONI_CONFIGURATION", "name: whole"), ("PATRONI_NAME", "one")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn a_path_that_exists_wins_over_the_whole_document_in_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let found = gather_with(Some(directory.path()), variables()).unwrap();
        assert_eq!((found.sources.files.len(), found.sources.environment.len()), (0, 1), "an empty directory counts");
        let missing = directory.path().join("patroni.yml");
        let found = gather_with(Some(&missing), variables()).unwrap();
        assert_eq!((found.sources.environment.len(), found.missing), (2, Some(missing)));
        assert_eq!(gather_with(Some(Path::new("")), variables()).unwrap().missing, None);
    }

    #[test]
    fn a_directory_is_read_by_name_and_only_its_yaml_files() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["2.yml", "1.yaml", "3.txt", "b.yml.bak"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        fs::create_dir(directory.path().join("0.yml")).unwrap();
        let texts: Vec<String> = read(directory.path()).unwrap().into_iter().map(|source| source.text).collect();
        assert_eq!(texts, ["1.yaml", "2.yml"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yml");
        fs::write(&path, b"name: \xff\n").unwrap();
        let problem = format!("{:#}", read(directory.path()).unwrap_err());
        assert!(problem.starts_with(&format!("cannot read the configuration {}: ", path.display())), "{problem}");
        assert!(problem.contains("UTF-8"), "{problem}");
        let problem = format!("{:#}", read(Path::new("/dev/zero")).unwrap_err());
        assert!(problem.ends_with("larger than 16 MB; name a YAML file"), "{problem}");
    }
}
