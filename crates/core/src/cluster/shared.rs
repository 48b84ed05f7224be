//! How a shared [`Cluster`] is written and read: as the cluster itself.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Cluster;

/// Writes the cluster.
pub(crate) fn serialize<S: Serializer>(cluster: &Arc<Cluster>, serializer: S) -> Result<S::Ok, S::Error> {
    cluster.as_ref().serialize(serializer)
}

/// Reads a cluster of its own.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Cluster>, D::Error> {
    Cluster::deserialize(deserializer).map(Arc::new)
}

/// The same for one that may be missing.
pub(crate) mod option {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Cluster;

    /// Writes the cluster.
    pub(crate) fn serialize<S: Serializer>(cluster: &Option<Arc<Cluster>>, serializer: S) -> Result<S::Ok, S::Error> {
        cluster.as_deref().serialize(serializer)
    }

    /// Reads a cluster of its own.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Cluster>>, D::Error> {
        Ok(Option::<Cluster>::deserialize(deserializer)?.map(Arc::new))
    }
}
