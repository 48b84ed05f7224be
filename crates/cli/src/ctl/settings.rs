//! Where the store is and how members are asked: from the options, the environment and the configuration file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use pgward_core::config::{ClientConfig, CtlConfig, EtcdConfig, Source, Sources};

use super::args::Global;
use super::dcs_url::{self, DcsUrl};

/// A file, or a text that stands for one: its name and its content.
type Document = (String, String);

/// The part of a configuration that the commands need.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// The cluster that is meant when none is named.
    pub(super) scope: Option<String>,
    /// The first part of every key.
    pub(super) namespace: String,
    /// The Citus group that is meant when none is named.
    pub(super) group: Option<u32>,
    /// How members are asked.
    pub(super) ctl: CtlConfig,
    etcd: Option<EtcdConfig>,
}

impl Settings {
    /// Reads everything that the options and the environment of this process name.
    ///
    /// # Errors
    /// When a named file cannot be read, or a setting cannot be used.
    pub(super) fn load(global: &Global) -> anyhow::Result<Settings> {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let files = configuration_files(global.config_file.as_deref(), &variables)?;
        let mut settings = Settings::read(&files, &variables)?;
        if let Some(url) = global.dcs_url.as_deref().filter(|url| !url.is_empty()) {
            let DcsUrl { etcd, namespace } = dcs_url::parse(url)?;
            settings.etcd = Some(etcd);
            settings.namespace = namespace.unwrap_or(settings.namespace);
        }
        settings.ctl.insecure |= global.insecure;
        Ok(settings)
    }

    fn read(files: &[Document], variables: &BTreeMap<String, String>) -> anyhow::Result<Settings> {
        let files = files.iter().map(|(name, text)| Source { name: name.clone(), text: text.clone() }).collect();
        let sources = Sources { files, environment: variables.clone() };
        let ClientConfig { scope, namespace, group, etcd, ctl, warnings: _ } =
            ClientConfig::load(&sources).map_err(|problem| anyhow::anyhow!("cannot use the configuration: {problem}"))?;
        Ok(Settings { scope, namespace, group, ctl, etcd })
    }

    /// How to reach the store.
    ///
    /// # Errors
    /// When no source names one.
    pub(super) fn etcd(&self) -> anyhow::Result<&EtcdConfig> {
        match &self.etcd {
            Some(etcd) => Ok(etcd),
            None => bail!(
                "no store is configured; give -c FILE with an `etcd3` section, -d etcd3://HOST:PORT or PATRONI_ETCD3_HOSTS"
            ),
        }
    }
}

/// The named file or directory, or else the usual file when there is one.
fn configuration_files(named: Option<&Path>, variables: &BTreeMap<String, String>) -> anyhow::Result<Vec<Document>> {
    match named.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => read(path).with_context(|| format!("cannot read the configuration {}", path.display())),
        None => {
            let Some(path) = usual_file(variables) else { return Ok(Vec::new()) };
            match read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                other => other.with_context(|| format!("cannot read the configuration {}", path.display())),
            }
        }
    }
}

fn usual_file(variables: &BTreeMap<String, String>) -> Option<PathBuf> {
    let variable = |name: &str| variables.get(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let directory = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(directory.join("patroni/patronictl.yaml"))
}

/// One file, or the YAML files of a directory in the order of their names.
fn read(path: &Path) -> io::Result<Vec<Document>> {
    if !path.is_dir() {
        return Ok(vec![document(path)?]);
    }
    let mut paths = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.is_file() && path.extension().is_some_and(|kind| kind == "yml" || kind == "yaml"));
    paths.sort();
    paths.iter().map(|path| document(path)).collect()
}

fn document(path: &Path) -> io::Result<Document> {
    Ok((path.display().to_string(), std::fs::read_to_string(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &str, variables: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::read(&[("ctl.yml".to_owned(), file.to_owned())], &variables)
    }

    fn user(settings: &Settings) -> Option<&str> {
        settings.ctl.auth.as_ref().map(|auth| auth.username.as_str())
    }

    #[test]
    fn a_file_with_a_cluster_and_a_store_is_enough() {
        let found = settings("scope: demo\nnamespace: /db/\netcd3:\n  hosts: n1:2379,n2:2379\n", &[]).unwrap();
        assert_eq!((found.scope.as_deref(), found.namespace.trim_matches('/')), (Some("demo"), "db"));
        assert_eq!(found.etcd().unwrap().endpoints, ["http://n1:2379", "http://n2:2379"]);
        assert_eq!((found.group, user(&found)), (None, None));
    }

    #[test]
    fn the_environment_stands_above_the_file() {
        let file = "scope: demo\netcd3: {host: n1}\nrestapi: {authentication: {username: a, password: b}}\n";
        let variables = [("PATRONI_SCOPE", "other"), ("PATRONI_ETCD3_HOST", "n9:1")];
        let found = settings(file, &variables).unwrap();
        assert_eq!(found.scope.as_deref(), Some("other"));
        assert_eq!(found.etcd().unwrap().endpoints, ["http://n9:1"]);
        assert_eq!(user(&found), Some("a"), "members are asked as the agent's own users are");
    }

    #[test]
    fn without_a_cluster_or_a_store_only_what_needs_them_fails() {
        let found = settings("citus: {group: 2, database: x}\n", &[]).unwrap();
        assert_eq!((found.scope.clone(), found.group), (None, Some(2)));
        assert!(found.etcd().unwrap_err().to_string().starts_with("no store is configured; give"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let problem = format!("{:#}", settings("scope: [\n", &[]).unwrap_err());
        assert!(problem.contains("ctl.yml"), "{problem}");
        let missing = configuration_files(Some(Path::new("/nonexistent/ctl.yml")), &BTreeMap::new()).unwrap_err();
        assert!(
            format!("{missing:#}").starts_with("cannot read the configuration /nonexistent/ctl.yml: "),
            "{missing:#}"
        );
    }

    #[test]
    fn the_usual_file_may_be_missing_and_a_directory_is_read_in_order() {
        let home = tempfile::tempdir().unwrap();
        let variables = BTreeMap::from([("HOME".to_owned(), home.path().display().to_string())]);
        assert_eq!(configuration_files(None, &variables).unwrap(), []);
        let usual = home.path().join(".config/patroni/patronictl.yaml");
        std::fs::create_dir_all(usual.parent().unwrap()).unwrap();
        std::fs::write(&usual, "scope: a\n").unwrap();
        assert_eq!(configuration_files(None, &variables).unwrap()[0].1, "scope: a\n");
        for name in ["2.yml", "1.yaml", "3.txt"] {
            std::fs::write(home.path().join(name), name).unwrap();
        }
        let files = configuration_files(Some(home.path()), &BTreeMap::new()).unwrap();
        assert_eq!(files.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["1.yaml", "2.yml"]);
    }
}
