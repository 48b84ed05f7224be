//! The modes of a cluster that change what an answer says.

use pgward_core::cluster::Cluster;
use pgward_core::config::{DynamicConfig, SynchronousMode};

use super::view::NodeView;

/// How the cluster is run, by its dynamic configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// Maintenance mode.
    pub paused: bool,
    /// How commits wait for standbys.
    pub synchronous: SynchronousMode,
    /// The whole cluster follows another one.
    pub standby_cluster: bool,
}

impl Modes {
    /// The modes in a fresh read of the cluster; those that `node` works with where the read has no usable
    /// configuration.
    pub fn of(cluster: &Cluster, node: &NodeView) -> Modes {
        let config = cluster.config.as_ref().and_then(|config| DynamicConfig::from_map(&config.value).ok());
        match config {
            Some(config) => Modes {
                paused: config.pause,
                synchronous: config.synchronous_mode,
                standby_cluster: config.standby_cluster.is_some(),
            },
            None => Modes { paused: node.paused, synchronous: node.synchronous, standby_cluster: node.standby_cluster },
        }
    }
}
