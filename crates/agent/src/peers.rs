//! Asks other members for their status.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgward_core::cluster::{Cluster, Member};
use pgward_core::decide::Memory;
use pgward_core::decide::peers::{PeerAnswer, PeerPoll};
use pgward_core::names::MemberName;

use crate::host::BoxFuture;
use crate::http::{HttpClient, poll_peers};

/// Reaches other members.
pub trait Peers: Send + Sync {
    /// Asks all of `members` at once; there is one answer for each, after a bounded time.
    fn poll<'a>(&'a self, members: Vec<&'a Member>) -> BoxFuture<'a, PeerPoll>;
}

impl Peers for HttpClient {
    fn poll<'a>(&'a self, members: Vec<&'a Member>) -> BoxFuture<'a, PeerPoll> {
        Box::pin(poll_peers(self, members))
    }
}

/// Polls `names`, by the addresses that the store has for them now, or had when there last was a leader.
pub(crate) async fn poll(
    client: &dyn Peers,
    cluster: &Arc<Cluster>,
    memory: &Memory,
    names: &BTreeSet<MemberName>,
) -> PeerPoll {
    let record = |name: &MemberName| -> Option<&Member> {
        let before = || memory.last_led.as_ref().and_then(|last| last.members.get(name));
        cluster.members.get(name).or_else(before)
    };
    let mut poll = client.poll(names.iter().filter_map(record).collect()).await;
    for name in names {
        // Whoever has no address anywhere was asked in vain: the decision must not ask again for ever.
        poll.answers.entry(name.clone()).or_insert(PeerAnswer::Unreachable);
    }
    poll
}
