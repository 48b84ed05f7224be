//! Where the configuration comes from: a file, a directory, or the environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pgward_core::config::{self, LocalConfig};

/// Why there is no configuration: for people, one line for each problem.
#[derive(Debug)]
pub(crate) struct NoConfig(Vec<String>);

impl std::fmt::Display for NoConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Reads the configuration by the rules of Patroni: a path that exists, with the environment laid over it; else
/// `PATRONI_CONFIGURATION` alone; else the other variables alone.
///
/// # Errors
/// Everything that keeps the agent from starting.
pub(crate) fn load(path: Option<&Path>) -> Result<LocalConfig, NoConfig> {
    let mut variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("PATRONI_"))
        .collect();
    let mut files = Vec::new();
    match path.filter(|path| !path.as_os_str().is_empty() && path.exists()) {
        Some(path) => files = read(path)?,
        None => {
            if let Some(document) = variables.get("PATRONI_CONFIGURATION").filter(|text| !text.is_empty()) {
                files.push(("PATRONI_CONFIGURATION".to_owned(), document.clone()));
                variables.clear();
            }
        }
    }
    if files.is_empty() && variables.is_empty() {
        let named = path.map(|path| format!(": {} does not exist, and", path.display())).unwrap_or_default();
        return Err(NoConfig(vec![format!(
            "Config is empty.\npgward{named} no PATRONI_* variable is set; name a configuration file, as in `pgward agent patroni.yml`"
        )]));
    }
    config::load(&files, &variables).map_err(|findings| NoConfig(findings.iter().map(ToString::to_string).collect()))
}

/// A file, or the YAML files of a directory by name.
fn read(path: &Path) -> Result<Vec<(String, String)>, NoConfig> {
    let unreadable = |path: &Path, problem: &std::io::Error| {
        NoConfig(vec![format!("{}: cannot be read: {problem}; check its owner and permissions", path.display())])
    };
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|problem| unreadable(path, &problem))?;
        paths = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml") && path.is_file())
            .collect();
        paths.sort();
    }
    paths
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).map_err(|problem| unreadable(&path, &problem))?;
            let text = String::from_utf8(bytes).map_err(|_| {
                NoConfig(vec![format!("{}: is not UTF-8 text; save it as UTF-8", path.display())])
            })?;
            Ok((path.display().to_string(), text))
        })
        .collect()
}
