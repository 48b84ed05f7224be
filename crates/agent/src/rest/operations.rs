//! What REST needs done by the rest of the agent.

use std::pin::Pin;
use std::sync::Arc;

use pgward_core::cluster::{Cluster, Member, Revision};
use pgward_core::decide::peers::PeerPoll;
use pgward_store::{Condition, Key, StoreError};

use super::view::ServerFacts;
use crate::consent::{ConsentReply, ConsentRequest};
use crate::orders::Orders;
use crate::ring::Recorder;

/// An operation under way.
pub type OperationFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The doors of the agent that requests go through. Each operation keeps a deadline of its own (`retry_timeout`).
pub trait Operations: Send + Sync + 'static {
    /// A fresh read of the cluster.
    fn read_cluster(&self) -> OperationFuture<'_, Result<Arc<Cluster>, StoreError>>;

    /// Writes a key, and returns the revision of the write.
    fn write<'a>(
        &'a self,
        key: &'a Key,
        value: &'a str,
        condition: Condition,
    ) -> OperationFuture<'a, Result<Revision, StoreError>>;

    /// Asks members for their status, as [`poll_peers`](crate::http::poll_peers) does.
    fn poll_peers<'a>(&'a self, members: Vec<&'a Member>) -> OperationFuture<'a, PeerPoll>;

    /// Asks PostgreSQL anew. Other members compare their positions with the answer, so it must not be of the last
    /// cycle. `None` when PostgreSQL does not answer.
    fn fresh_facts(&self) -> OperationFuture<'_, Option<ServerFacts>>;

    /// A primary without the store asks this member to wait (FS-5).
    fn consent<'a>(&'a self, request: &'a ConsentRequest) -> OperationFuture<'a, ConsentReply>;

    /// The last decisions. An empty memory where nothing is recorded.
    fn recorder(&self) -> Recorder {
        Recorder::default()
    }

    /// Tells the cycle what operators ask for. By default nobody hears it, and everything is refused.
    fn orders(&self) -> Orders {
        Orders::default()
    }

    /// Makes the next cycle start now.
    fn wake(&self);
}
