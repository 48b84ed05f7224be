//! Puts an agent together from its parts, in production and under simulation alike.

use std::collections::HashSet;
use std::sync::Arc;

use pgward_core::cluster::MemberRole;
use pgward_core::config::{DynamicConfig, LocalConfig};
use pgward_core::decide::Memory;
use pgward_core::decide::view::Lease;
use pgward_store::Store;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::action::Actions;
use crate::consent::Promises;
use crate::cycle::{Cycle, Namesake, lease_times};
use crate::fence::Fence;
use crate::host::Host;
use crate::lease::{LeaseKeeper, Predecessor};
use crate::local::Local;
use crate::orders::Inbox;
use crate::peers::Peers;
use crate::rest::NodeView;
use crate::ring::Recorder;
use crate::server::Server;

/// What an agent is made of.
pub struct Parts<S: Store, L: Server> {
    /// The file and the variables.
    pub config: Arc<LocalConfig>,
    /// The dynamic configuration that counts until the store has said another one.
    pub dynamic: Arc<DynamicConfig>,
    /// The cluster store, already read once.
    pub store: S,
    /// The local server.
    pub server: L,
    /// The fencer's orders.
    pub fence: Fence,
    /// Reaches the other members.
    pub peers: Arc<dyn Peers>,
    /// What it promises to others.
    pub promises: Promises,
    /// Clocks and tasks.
    pub host: Arc<dyn Host>,
    /// Where the view that REST answers from is published.
    pub node: watch::Sender<NodeView>,
    /// Wakes the cycle.
    pub wake: Arc<Notify>,
    /// What operators ask for.
    pub inbox: Inbox,
}

impl<S: Store, L: Server> Parts<S, L> {
    /// The two tasks of an agent. The keeper has to run as long as the cycle does.
    pub fn assemble(self) -> (LeaseKeeper<S>, Cycle<S, L>) {
        let Parts { config, dynamic, store, server, fence, peers, promises, host, node, wake, inbox } = self;
        let times = lease_times(&dynamic);
        let role = server.role_at_start();
        let predecessor = match role {
            _ if fence.is_inherited() => Predecessor::MayHaveLed,
            MemberRole::Replica | MemberRole::StandbyLeader | MemberRole::Uninitialized => Predecessor::HasNotLed,
            MemberRole::Primary | MemberRole::Promoted | MemberRole::Demoted => Predecessor::MayHaveLed,
        };
        let me = config.name.clone();
        let (keeper, lease) = LeaseKeeper::new(store.clone(), me, predecessor, fence.clone(), times, Arc::clone(&host));
        let store_view = store.view();
        let decided_on = store_view.borrow().clone();
        let local = Local::new(role, Arc::clone(&host));
        let cycle = Cycle {
            config,
            dynamic,
            dynamic_revision: None,
            decided_on,
            decided_lease: Lease::None,
            store,
            store_view,
            lease,
            fence,
            fencer_due: Instant::now(),
            server,
            local,
            peers,
            memory: Memory::default(),
            actions: Actions::new(Arc::clone(&host)),
            finished: Vec::new(),
            poll: None,
            round: None,
            promises,
            node,
            wake,
            inbox,
            requests: Default::default(),
            published: Default::default(),
            last_seen: None,
            warned: HashSet::new(),
            namesake: Namesake::default(),
            last_reason: None,
            said: Vec::new(),
            last_effects: Vec::new(),
            last_problem: None,
            next_tick: Instant::now(),
            server_config_due: true,
            host,
            recorder: Recorder::default(),
        };
        (keeper, cycle)
    }
}
