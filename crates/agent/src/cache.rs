//! The dynamic configuration as it was applied last, kept in the data directory: what counts when the store has lost it
//! (IN-D2). The name of the file is Patroni's, so that either agent finds what the other one left.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tracing::warn;

const FILE: &str = "patroni.dynamic.json";

/// The document that was applied last; `None` when there is none, or when it cannot be read.
pub(crate) fn read(data_dir: &Path) -> Option<Map<String, Value>> {
    let text = std::fs::read_to_string(data_dir.join(FILE)).ok()?;
    match serde_json::from_str(&text) {
        Ok(document) => Some(document),
        Err(problem) => {
            warn!(file = %data_dir.join(FILE).display(), error = %problem, "the kept dynamic configuration cannot be read");
            None
        }
    }
}

/// Keeps a document, unless there is no cluster in the data directory yet: a file would make it look used.
pub(crate) fn write(data_dir: &Path, document: &Map<String, Value>) {
    if !data_dir.join("PG_VERSION").exists() {
        return;
    }
    let path = data_dir.join(FILE);
    let text = pgward_core::json::compact(document);
    if std::fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return;
    }
    if let Err(problem) = replace(&path, &text) {
        warn!(file = %path.display(), error = %problem, "the dynamic configuration could not be kept");
    }
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut temporary = PathBuf::from(path);
    temporary.set_extension("json.tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_kept_only_beside_a_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let document: Map<String, Value> = serde_json::from_str(r#"{"ttl": 20, "pause": true}"#).unwrap();
        write(directory.path(), &document);
        assert_eq!(read(directory.path()), None, "an empty directory stays empty");
        std::fs::write(directory.path().join("PG_VERSION"), "15\n").unwrap();
        write(directory.path(), &document);
        assert_eq!(read(directory.path()), Some(document));
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(read(directory.path()), None, "garbage counts as absent");
    }
}
