//! The real world: etcd, HTTP and the clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Zoned;
use pgward_agent::http::HttpClient;
use pgward_core::cluster::{Cluster, Member};
use pgward_core::config::EtcdConfig;
use pgward_store::{Condition, EtcdOptions, EtcdStore, Key, Store, StoreError, prefix_of};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::args::Global;
use super::editor;
use super::schedule;
use super::settings::Settings;
use super::sql;
use super::terminal::{Console, Terminal};
use super::world::{Answer, ClusterName, Login, NoAnswer, QueryFailed, Request, World};

/// Connects where the configuration says.
pub(super) struct Outside {
    settings: Settings,
    timeout: Duration,
    http: HttpClient,
}

impl Outside {
    /// Reads the configuration. Nothing is connected yet.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub(super) fn new(global: Global) -> anyhow::Result<Outside> {
        let timeout = global.timeout;
        let settings = Settings::load(&global)?;
        let http = HttpClient::from_config(&settings.ctl).context("cannot use the TLS settings of `ctl`")?;
        Ok(Outside { settings, timeout, http })
    }

    /// A store for one request: between two of them a person may think for long. It is closed with the guard.
    fn store(&self, name: &ClusterName) -> anyhow::Result<(EtcdStore, DropGuard)> {
        let closed = CancellationToken::new();
        let options = etcd_options(self.settings.etcd()?, &self.settings.namespace, name);
        Ok((EtcdStore::new(&options, closed.clone())?, closed.drop_guard()))
    }

    fn endpoints(&self) -> String {
        self.settings.etcd().map_or_else(|_| String::new(), |etcd| etcd.endpoints.join(", "))
    }
}

impl World for Outside {
    fn configured_scope(&self) -> Option<String> {
        self.settings.scope.clone()
    }

    fn configured_group(&self) -> Option<u32> {
        self.settings.group
    }

    fn own_api_url(&self) -> Option<String> {
        self.settings.own.as_ref().map(|own| own.restapi.api_url())
    }

    fn own_logs(&self) -> Vec<PathBuf> {
        let own = self.settings.own.as_ref();
        own.and_then(|own| own.log.dir.as_ref()).map(|dir| dir.join(crate::logging::FILE)).into_iter().collect()
    }

    fn now(&self) -> Zoned {
        Zoned::now()
    }

    async fn read(&self, name: &ClusterName) -> anyhow::Result<Arc<Cluster>> {
        let (store, _guard) = self.store(name)?;
        let cluster = store.read(self.timeout).await;
        let cluster =
            cluster.with_context(|| format!("cannot read cluster {} from etcd at {}", name.scope, self.endpoints()))?;
        for warning in &cluster.warnings {
            let now = schedule::seconds(&self.now());
            Console.warn(&format!("{now} - WARNING - {}: the key {} {}", name.scope, warning.key, warning.problem));
        }
        Ok(cluster)
    }

    async fn call(&self, url: &str, request: Request, timeout: Duration) -> Result<Answer, NoAnswer> {
        match self.http.request(request.method, url, request.body.as_ref(), timeout).await {
            Ok(response) => Ok(Answer { status: response.status, body: response.text() }),
            Err(error) if error.is_unsent() => Err(NoAnswer::Unsent(error.into())),
            Err(error) => Err(NoAnswer::Lost(error.into())),
        }
    }

    async fn write(&self, name: &ClusterName, key: &Key, value: &str, condition: Condition) -> anyhow::Result<bool> {
        let (store, _guard) = self.store(name)?;
        match store.write(key, value, condition, None, self.timeout).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("cannot write {} to etcd at {}", key.suffix(), self.endpoints()))
            }
        }
    }

    async fn delete(&self, name: &ClusterName, key: &Key) -> anyhow::Result<()> {
        let (store, _guard) = self.store(name)?;
        let deleted = store.delete(key, Condition::Always, self.timeout).await;
        deleted.with_context(|| format!("cannot remove {} from etcd at {}", key.suffix(), self.endpoints()))?;
        Ok(())
    }

    async fn delete_cluster(&self, name: &ClusterName) -> anyhow::Result<()> {
        let (store, _guard) = self.store(name)?;
        let deleted = store.delete_cluster(self.timeout).await;
        deleted.with_context(|| format!("cannot remove {} from etcd at {}", name.scope, self.endpoints()))?;
        Ok(())
    }

    async fn query(
        &self,
        member: &Member,
        login: &Login,
        recovers: Option<bool>,
        sql: &str,
    ) -> Result<Vec<pgward_postgres::Answer>, QueryFailed> {
        sql::run(member, login, recovers, sql).await
    }

    fn read_text(&self, path: &Path) -> anyhow::Result<String> {
        if path == Path::new("-") {
            return std::io::read_to_string(std::io::stdin()).context("cannot read the standard input");
        }
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn edit(&self, text: &str, name: &ClusterName) -> anyhow::Result<String> {
        editor::edit(text, &name.scope)
    }

    async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }
}

fn etcd_options(etcd: &EtcdConfig, namespace: &str, name: &ClusterName) -> EtcdOptions {
    let scope = match name.group {
        Some(group) => format!("{}/{group}", name.scope),
        None => name.scope.clone(),
    };
    EtcdOptions {
        endpoints: etcd.endpoints.clone(),
        // One request does not pay for a discovery; the configured endpoints have to do.
        discover_members: false,
        srv: etcd.srv.as_ref().map(|srv| srv.domain.clone()),
        username: etcd.username.clone(),
        password: etcd.password.as_ref().map(|password| password.expose().to_owned()),
        ca_cert: etcd.cacert.clone(),
        cert: etcd.cert.clone(),
        key: etcd.key.clone(),
        prefix: prefix_of(namespace, &scope),
    }
}
