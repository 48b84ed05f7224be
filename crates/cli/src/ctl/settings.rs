//! Where the store is and how members are asked: from the options, the environment and the configuration file.

use anyhow::bail;
use pgward_core::config::{CtlConfig, EtcdConfig};

use super::args::Global;

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
    pub(super) fn load(_global: &Global) -> anyhow::Result<Settings> {
        Ok(Settings { namespace: "service".to_owned(), ..Settings::default() })
    }

    pub(super) fn etcd(&self) -> anyhow::Result<&EtcdConfig> {
        match &self.etcd {
            Some(etcd) => Ok(etcd),
            None => bail!("no store is configured"),
        }
    }
}
