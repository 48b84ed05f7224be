//! What REST requests may ask of the rest of the agent.

use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, Member, Revision};
use pgward_core::decide::peers::PeerPoll;
use pgward_store::{Condition, Key, Store, StoreError};
use tokio::sync::{Notify, watch};

use crate::consent::{ConsentReply, ConsentRequest, Promises};
use crate::orders::Orders;
use crate::peers::Peers;
use crate::rest::view::ServerFacts;
use crate::rest::{NodeView, OperationFuture, Operations};
use crate::ring::Recorder;
use crate::server::Server;

/// The doors of this agent.
pub(crate) struct Doors<S, L> {
    /// The store.
    pub store: S,
    /// Asks other members.
    pub peers: Arc<dyn Peers>,
    /// Wakes the cycle.
    pub wake: Arc<Notify>,
    /// The local server.
    pub server: L,
    /// What the cycle published last.
    pub node: watch::Receiver<NodeView>,
    /// The last decisions.
    pub recorder: Recorder,
    /// Tells the cycle what operators ask for.
    pub orders: Orders,
    /// What this member promises to a primary without the store.
    pub promises: Promises,
}

impl<S: Store, L: Server> Doors<S, L> {
    /// Budget of one request to the store.
    fn within(&self) -> Duration {
        let node = self.node.borrow();
        // The view carries no retry_timeout; a third of the lease is its largest sensible value (TIM-1).
        (node.ttl / 3).min(Duration::from_secs(10))
    }
}

impl<S: Store, L: Server> Operations for Doors<S, L> {
    fn read_cluster(&self) -> OperationFuture<'_, Result<Arc<Cluster>, StoreError>> {
        Box::pin(self.store.read(self.within()))
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        value: &'a str,
        condition: Condition,
    ) -> OperationFuture<'a, Result<Revision, StoreError>> {
        Box::pin(self.store.write(key, value, condition, None, self.within()))
    }

    fn poll_peers<'a>(&'a self, members: Vec<&'a Member>) -> OperationFuture<'a, PeerPoll> {
        self.peers.poll(members)
    }

    fn fresh_facts(&self) -> OperationFuture<'_, Option<ServerFacts>> {
        let leader_timeline = self
            .node
            .borrow()
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.leader_member().and_then(|leader| leader.timeline()));
        Box::pin(self.server.fresh_facts(leader_timeline))
    }

    fn consent<'a>(&'a self, request: &'a ConsentRequest) -> OperationFuture<'a, ConsentReply> {
        Box::pin(async {
            let reply = self.promises.answer(request).await;
            if !self.node.borrow().failsafe_active && reply == ConsentReply::Accepted {
                self.wake.notify_one(); // It shows.
            }
            reply
        })
    }

    fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    fn orders(&self) -> Orders {
        self.orders.clone()
    }

    fn wake(&self) {
        self.wake.notify_one();
    }
}
