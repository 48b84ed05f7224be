//! Where the store is and how members are asked: from the options, the environment and the configuration file.

use anyhow::bail;
use pgward_core::config::{CtlConfig, EtcdConfig};

use super::args::Global;
use super::dcs_url::{self, DcsUrl};

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
    /// Reads everything that the options name.
    ///
    /// # Errors
    /// When a named file cannot be read, or a setting cannot be used.
    pub(super) fn load(global: &Global) -> anyhow::Result<Settings> {
        let mut settings = Settings { namespace: "service".to_owned(), ..Settings::default() };
        if let Some(url) = global.dcs_url.as_deref().filter(|url| !url.is_empty()) {
            let DcsUrl { etcd, namespace } = dcs_url::parse(url)?;
            settings.etcd = Some(etcd);
            settings.namespace = namespace.unwrap_or(settings.namespace);
        }
        settings.ctl.insecure |= global.insecure;
        Ok(settings)
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
