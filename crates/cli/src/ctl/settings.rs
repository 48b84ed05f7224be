//! Where the store is and how members are asked: from the options, the environment and the configuration file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use pgward_core::config::{ClientConfig, CtlConfig, EtcdConfig, LocalConfig, Source, Sources};

use super::args::Global;
use super::dcs_url::{self, DcsUrl};
use crate::agent::sources;

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
    /// The member that the configuration is of, when it is a complete one.
    pub(super) own: Option<Arc<LocalConfig>>,
}

impl Settings {
    /// Reads everything that the options and the environment of this process name.
    ///
    /// # Errors
    /// When a named file cannot be read, or a setting cannot be used.
    pub(super) fn load(global: &Global) -> anyhow::Result<Settings> {
        let environment = sources::environment();
        let files = configuration_files(global.config_file.as_deref(), &environment)?;
        let mut settings = Settings::read(&Sources { files, environment })?;
        if let Some(url) = global.dcs_url.as_deref().filter(|url| !url.is_empty()) {
            let DcsUrl { etcd, namespace } = dcs_url::parse(url)?;
            settings.etcd = Some(etcd);
            settings.namespace = namespace.unwrap_or(settings.namespace);
        }
        settings.ctl.insecure |= global.insecure;
        Ok(settings)
    }

    fn read(sources: &Sources) -> anyhow::Result<Settings> {
        let ClientConfig { scope, namespace, group, etcd, ctl, warnings: _ } = ClientConfig::load(sources)
            .map_err(|problem| anyhow::anyhow!("cannot use the configuration: {problem}"))?;
        let own = LocalConfig::load(sources).ok().map(Arc::new);
        Ok(Settings { scope, namespace, group, ctl, etcd, own })
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
fn configuration_files(named: Option<&Path>, variables: &BTreeMap<String, String>) -> anyhow::Result<Vec<Source>> {
    match named.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => sources::read(path),
        None => {
            let Some(path) = usual_file(variables) else { return Ok(Vec::new()) };
            match sources::read(&path) {
                Err(error) if is_missing(&error) => Ok(Vec::new()),
                other => other,
            }
        }
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn usual_file(variables: &BTreeMap<String, String>) -> Option<PathBuf> {
    let variable = |name: &str| variables.get(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let directory = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(directory.join("patroni/patronictl.yaml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &str, variables: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let files = vec![Source { name: "ctl.yml".to_owned(), text: file.to_owned() }];
        Settings::read(&Sources { files, environment })
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
    fn the_usual_file_may_be_missing() {
        let home = tempfile::tempdir().unwrap();
        let variables = BTreeMap::from([("HOME".to_owned(), home.path().display().to_string())]);
        assert_eq!(configuration_files(None, &variables).unwrap(), []);
        let usual = home.path().join(".config/patroni/patronictl.yaml");
        std::fs::create_dir_all(usual.parent().unwrap()).unwrap();
        std::fs::write(&usual, "scope: a\n").unwrap();
        assert_eq!(configuration_files(None, &variables).unwrap()[0].text, "scope: a\n");
    }

    #[test]
    fn a_file_says_how_members_are_asked_over_tls() {
        let file = "ctl: {insecure: on, cacert: /ca, certfile: /crt, keyfile: /key}\nrestapi: {cafile: /other}\n";
        let CtlConfig { insecure, cacert, certfile, keyfile, .. } = settings(file, &[]).unwrap().ctl;
        let paths = [cacert, certfile, keyfile].map(|path| path.unwrap().display().to_string());
        assert!(insecure);
        assert_eq!(paths, ["/ca", "/crt", "/key"]);
        let fallback = settings("restapi: {cafile: /other}\n", &[("PATRONI_CTL_INSECURE", "yes")]).unwrap().ctl;
        assert_eq!((fallback.insecure, fallback.cacert), (true, Some(PathBuf::from("/other"))));
    }
}
