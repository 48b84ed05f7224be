//! The modes of a cluster that change what an answer says.

use pgward_core::cluster::Cluster;
use serde_json::Value;

use super::view::{NodeView, SynchronousMode};

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
    /// The modes in a fresh read of the cluster; those that `node` works with where the read has no configuration.
    pub fn of(cluster: &Cluster, node: &NodeView) -> Modes {
        let Some(config) = cluster.config.as_ref().map(|config| &config.value) else {
            return Modes { paused: node.paused, synchronous: node.synchronous, standby_cluster: node.standby_cluster };
        };
        let standby = config.get("standby_cluster").and_then(Value::as_object);
        let is_set = |key: &str| standby.and_then(|standby| standby.get(key)).is_some_and(|value| !is_empty(value));
        Modes {
            paused: config.get("pause").is_some_and(is_on),
            synchronous: match config.get("synchronous_mode") {
                Some(Value::String(text)) if text.eq_ignore_ascii_case("quorum") => SynchronousMode::Quorum,
                Some(value) if is_on(value) => SynchronousMode::On,
                Some(_) | None => SynchronousMode::Off,
            },
            standby_cluster: ["host", "port", "restore_command"].into_iter().any(is_set),
        }
    }
}

/// A switch as people write it.
fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::String(text) => ["on", "true", "yes", "1"].iter().any(|word| text.trim().eq_ignore_ascii_case(word)),
        Value::Number(number) => number.as_i64() == Some(1),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("") || value.as_i64() == Some(0)
}
