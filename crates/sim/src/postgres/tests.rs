//! Three servers without agents: the tests do what agents would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgward_agent::local::Local;
use pgward_agent::server::{ServerControl, ServerRejoin, ServerSight, StopHow};
use pgward_core::cluster::{Member, MemberRole};
use pgward_core::config::{DynamicConfig, LocalConfig, Source, Sources};
use pgward_core::decide::rewind::{Divergence, judge};
use pgward_core::decide::slots::{Slots, WantedKind, WantedSlot};
use pgward_core::names::MemberName;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::network::Kind;

mod failures;
mod life;
mod streaming;

type Log = Arc<Mutex<Vec<String>>>;

/// One member: its machine, and an agent's side of it.
struct Node {
    postgres: Postgres,
    server: ModelServer,
    local: Local<ModelPostmaster>,
    member: Member,
}

struct World {
    nodes: Vec<Node>,
    network: Network,
    log: Log,
    last_commit: u64,
}

fn second() -> Duration {
    Duration::from_secs(1)
}

fn member(name: &str) -> Member {
    let fields = format!("{{\"conn_url\": \"postgres://{name}:5432/postgres\"}}");
    Member::parse(name.parse().unwrap(), &fields).0
}

impl World {
    fn new(seed: u64) -> World {
        let dice = Dice::new(seed);
        let (network, fleet) = (Network::new(dice.fork()), Fleet::default());
        let (log, began): (Log, Instant) = (Arc::default(), Instant::now());
        let lines = Arc::clone(&log);
        let hook: Hook = Arc::new(move |name, event| {
            let line = format!("{} {name} {event:?}", began.elapsed().as_millis());
            lines.lock().unwrap().push(line);
        });
        let node = |name: &&str| {
            let yaml = format!(
                "{{scope: demo, name: {name}, etcd3: {{host: 127.0.0.1}}, \
                 restapi: {{listen: '127.0.0.1:1', connect_address: '127.0.0.1:1'}}, \
                 postgresql: {{listen: '127.0.0.1:1', connect_address: '127.0.0.1:1', data_dir: /nowhere, \
                 use_pg_rewind: true, authentication: {{superuser: {{username: a}}, replication: {{username: b}}}}}}}}"
            );
            let file = Source { name: "n.yml".to_owned(), text: yaml };
            let config = LocalConfig::load(&Sources { files: vec![file], environment: BTreeMap::new() }).unwrap();
            let dynamic = DynamicConfig::from_map(&serde_json::Map::new()).unwrap();
            let name: MemberName = name.parse().unwrap();
            let postgres = Postgres::new(&name, &fleet, network.clone(), dice.fork(), Arc::clone(&hook));
            let server = ModelServer::new(&postgres, Arc::new(config), &dynamic);
            let local = Local::new(MemberRole::Replica, Arc::new(pgward_agent::host::System));
            Node { postgres, server, local, member: member(name.as_str()) }
        };
        let nodes = ["a", "b", "c"].iter().map(node).collect();
        World { nodes, network, log, last_commit: 0 }
    }

    fn truth(&self, node: usize) -> Truth {
        self.nodes[node].postgres.truth()
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn place(&self, node: usize) -> Place {
        Place::Member(self.nodes[node].postgres.name().clone())
    }

    fn cut(&self, one: usize, other: usize) {
        self.network.cut(&self.place(one), &self.place(other), Kind::Replication);
        self.network.cut(&self.place(other), &self.place(one), Kind::Replication);
    }

    /// The node creates a cluster and leads it.
    async fn bootstrap(&self, node: usize) {
        let server = &self.nodes[node].server;
        server.initdb(&CancellationToken::new()).await.unwrap();
        let postmaster = server.start_primary().await.unwrap();
        server.wait_accepting(&postmaster).await.unwrap();
        self.make_slots(node).await;
    }

    async fn make_slots(&self, node: usize) {
        let slot = || WantedSlot { kind: WantedKind::Physical, expected_active: true, advance_to: None };
        let others = self.nodes.iter().filter(|other| other.member.name != self.nodes[node].member.name);
        let wanted = others.map(|other| (other.member.name.slot_name(), slot())).collect();
        let cluster = pgward_core::cluster::Cluster::from_keys(Default::default(), []);
        let slots = Slots { wanted, leads: true, may_drop: true, ..Slots::default() };
        self.nodes[node].server.sync_slots(&cluster, &slots).await.unwrap();
    }

    async fn start_standby(&self, node: usize, upstream: usize) {
        self.nodes[node].server.start_standby(Some(&self.nodes[upstream].member)).await.unwrap();
    }

    async fn clone(&self, node: usize, source: usize) {
        let cancel = CancellationToken::new();
        self.nodes[node].server.clone_from(&self.nodes[source].member, false, &cancel).await.unwrap();
        self.start_standby(node, source).await;
    }

    /// A leads, b and c stream.
    async fn cluster(seed: u64) -> World {
        let world = World::new(seed);
        world.bootstrap(0).await;
        for node in [1, 2] {
            world.clone(node, 0).await;
            world.until(|world| world.truth(node).is_streaming).await;
        }
        world
    }

    /// Waits for something that has to happen.
    async fn until(&self, is_true: impl Fn(&World) -> bool) {
        let wait = async {
            while !is_true(self) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(second() * 120, wait).await.is_err() {
            let truths: Vec<Truth> = (0..3).map(|node| self.truth(node)).collect();
            panic!("it did not happen: {:#?}\n{truths:#?}", self.log());
        }
    }

    async fn commit(&mut self, node: usize) -> Result<CommitId, NotCommitted> {
        self.last_commit += 1;
        let id = CommitId(self.last_commit);
        timeout(second() * 60, self.nodes[node].postgres.commit(id)).await.unwrap_or(Err(NotCommitted::Unknown))?;
        Ok(id)
    }

    async fn promote(&self, node: usize) {
        self.nodes[node].server.promote().await.unwrap();
        self.nodes[node].server.wait_promoted(second() * 10).await.unwrap();
        self.make_slots(node).await;
    }

    async fn stop(&self, node: usize, how: StopHow) {
        let node = &self.nodes[node];
        node.server.stop(&node.local, how, None, None).await.unwrap();
    }

    async fn judge(&self, node: usize, leader: usize) -> Divergence {
        judge(&self.nodes[node].server.divergence_facts(&self.nodes[leader].member).await)
    }

    async fn rewind(&self, node: usize, source: usize) -> Result<(), pgward_agent::server::ServerError> {
        let cancel = CancellationToken::new();
        self.nodes[node].server.rewind(&self.nodes[source].member, &cancel).await
    }

    /// Every node has the same WAL.
    fn is_level(&self) -> bool {
        let end = |node: usize| (self.truth(node).flushed, self.truth(node).timeline);
        end(0) == end(1) && end(1) == end(2)
    }
}
