//! Does etcd answer at an endpoint?

use std::time::Duration;

use pgward_core::config::LocalConfig;
use pgward_store::{EtcdOptions, EtcdStore, Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::Broken;

/// Limit for an answer. A healthy etcd needs milliseconds.
const STORE_TIME: Duration = Duration::from_secs(3);

/// Reads the cluster as the agent does, with its user and certificates, so that each of them is checked as well.
pub(super) async fn problem(endpoint: String, config: &LocalConfig) -> Option<Broken> {
    let options = EtcdOptions {
        endpoints: vec![endpoint],
        discover_members: false,
        srv: None,
        ..pgward_agent::etcd_options(config)
    };
    let closed = CancellationToken::new();
    let _guard = closed.clone().drop_guard();
    let read = async { EtcdStore::new(&options, closed)?.read(STORE_TIME).await };
    let problem: StoreError = read.await.err()?;
    let remedy = "start etcd there, or correct the address, the user or the certificates";
    Some(Broken::new(format!("{:#}", anyhow::Error::from(problem)), remedy))
}
