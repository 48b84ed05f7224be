//! Recorded clusters as views, an agent that does what a test says, and a server around both.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgward_agent::consent::{ConsentReply, ConsentRequest, PromiseFile, Promises};
use pgward_agent::host::{BoxFuture, System};
use pgward_agent::http::{ClientTls, HttpClient, Response};
use pgward_agent::orders::Orders;
use pgward_agent::rest::view::{NodeView, PendingRestart, ReplicationState, ServerFacts, WalPosition, Walsender};
use pgward_agent::rest::{Modes, OperationFuture, Operations, RestConfig, RestServer};
use pgward_core::cluster::{Cluster, LeaseId, Member, MemberRole, PostgresState, RawKey, Revision};
use pgward_core::config::{BasicAuth, ListenAddress, Secret};
use pgward_core::decide::failsafe::Promise;
use pgward_core::decide::peers::{PeerAnswer, PeerPoll, PeerStatus};
use pgward_core::time::BootInstant;
use pgward_core::wal::{Lsn, Timeline};
use pgward_store::{Condition, Key, StoreError};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The instant that pure tests call now.
pub(crate) const NOW: BootInstant = BootInstant(Duration::from_secs(1000));

/// Far after now, also for the real clock.
pub(crate) const FOREVER: BootInstant = BootInstant(Duration::from_secs(1 << 40));

pub(crate) fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The store at a recorded stage; `None` where it was unreachable.
pub(crate) fn cluster_at(stage: &str) -> Option<Cluster> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(stage).join("store.json");
    let rows: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).ok()?).unwrap();
    let keys = rows.iter().map(|row| RawKey {
        suffix: row["key"].as_str().unwrap().to_owned(),
        value: row["value"].as_str().unwrap().as_bytes().to_vec(),
        create_revision: Revision(row["create_revision"].as_i64().unwrap()),
        mod_revision: Revision(row["mod_revision"].as_i64().unwrap()),
        lease: LeaseId(row["lease"].as_i64().unwrap()),
    });
    let cluster = Cluster::from_keys(Revision(1000), keys);
    assert_eq!(cluster.warnings, [], "{stage}");
    Some(cluster)
}

/// The view of a member at a recorded stage, put together from what it and the store showed then.
pub(crate) fn node_at(stage: &str, name: &str) -> NodeView {
    let status: Value = serde_json::from_str(&golden(&format!("{stage}/{name}.status.json"))).unwrap();
    let text = |key: &str| status[key].as_str().map(str::to_owned);
    let scope = status["patroni"]["scope"].as_str().unwrap().to_owned();
    let mut node = NodeView::unseen(name.parse().unwrap(), scope, "4.1.5".to_owned());
    node.cluster = cluster_at(stage).map(Arc::new);
    if let Some(cluster) = node.cluster.clone() {
        let modes = Modes::of(&cluster, &node);
        (node.paused, node.synchronous, node.standby_cluster) =
            (modes.paused, modes.synchronous, modes.standby_cluster);
        node.lease_until = cluster.is_led_by(&node.name).then_some(FOREVER);
        node.failsafe = cluster
            .failsafe
            .as_ref()
            .map(|map| map.iter().map(|(name, url)| (name.clone(), Value::from(url.as_str()))).collect());
    }
    let state = text("state").unwrap();
    node.state = PostgresState::ALL.into_iter().find(|known| known.as_str() == state).unwrap();
    node.role = MemberRole::from_published(status["role"].as_str().unwrap()).unwrap();
    node.server = status["server_version"].is_u64().then(|| server_facts(&status));
    node.dcs_last_seen = status["dcs_last_seen"].as_u64().unwrap();
    node.tags = status["tags"].as_object().cloned().unwrap_or_default();
    node.system_id = text("database_system_identifier");
    node.scheduled_restart = status["scheduled_restart"].as_object().cloned();
    let reasons = status["pending_restart_reason"].as_object();
    node.pending_restart = reasons.into_iter().flatten().map(pending).collect();
    node.failsafe_active = status["failsafe_mode_is_active"] == true;
    node.next_run = FOREVER;
    node
}

fn pending((parameter, values): (&String, &Value)) -> PendingRestart {
    PendingRestart {
        parameter: parameter.clone(),
        old_value: values["old_value"].as_str().unwrap().to_owned(),
        new_value: values["new_value"].as_str().unwrap().to_owned(),
    }
}

fn server_facts(status: &Value) -> ServerFacts {
    let xlog = &status["xlog"];
    let lsn = |key: &str| xlog[key].as_u64().map(Lsn);
    let wal = match lsn("location") {
        Some(location) => WalPosition::Primary { location },
        None => WalPosition::Replica {
            received: lsn("received_location").unwrap(),
            replayed: lsn("replayed_location").unwrap(),
            replayed_timestamp: xlog["replayed_timestamp"].as_str().map(str::to_owned),
            paused: xlog["paused"].as_bool().unwrap(),
        },
    };
    let is_replica = matches!(wal, WalPosition::Replica { .. });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    ServerFacts {
        postmaster_start_time: text(&status["postmaster_start_time"]),
        server_version: status["server_version"].as_u64().unwrap().try_into().unwrap(),
        wal,
        timeline: status["timeline"].as_u64().and_then(|number| Timeline::new(number.try_into().unwrap())),
        replication_state: match status["replication_state"].as_str() {
            Some("streaming") => Some(ReplicationState::Streaming),
            Some("in archive recovery") => Some(ReplicationState::InArchiveRecovery),
            _ => None,
        },
        latest_end_lsn: lsn("replayed_location").filter(|_| is_replica),
        replication: status["replication"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| Walsender {
                usename: text(&row["usename"]),
                application_name: text(&row["application_name"]),
                client_addr: row["client_addr"].as_str().map(str::to_owned),
                state: text(&row["state"]),
                sync_state: text(&row["sync_state"]),
                sync_priority: row["sync_priority"].as_i64().unwrap(),
            })
            .collect(),
    }
}

/// Something that happens to the cluster.
type Change = Box<dyn FnOnce(&mut Cluster) + Send>;

/// What the store and the other members do.
pub(crate) struct Agent {
    pub(crate) node: watch::Sender<NodeView>,
    /// What a fresh read returns; `None` for a store that does not answer.
    pub(crate) store: Mutex<Option<Cluster>>,
    /// Values of the writes that were accepted.
    pub(crate) written: Mutex<Vec<String>>,
    /// Members that answer when they are asked how they are.
    pub(crate) reachable: Mutex<Vec<String>>,
    /// Applied to the cluster when the agent is woken.
    pub(crate) on_wake: Mutex<Option<Change>>,
    /// What PostgreSQL says when it is asked anew; the outer `None` stands for what the view has.
    pub(crate) fresh: Mutex<Option<Option<ServerFacts>>>,
    /// The next write loses against another one.
    pub(crate) conflict: Mutex<bool>,
    /// Where requests of operators go; by default to nobody.
    pub(crate) orders: Mutex<Orders>,
    /// What it promises to a primary without the store.
    pub(crate) promises: Promises,
}

/// Keeps promises nowhere.
struct Nowhere;

impl PromiseFile for Nowhere {
    fn read(&self) -> Option<Promise> {
        None
    }

    fn keep(&self, _promise: Promise) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

impl Agent {
    pub(crate) fn at(stage: &str, name: &str) -> Arc<Agent> {
        Agent::with(node_at(stage, name))
    }

    pub(crate) fn with(node: NodeView) -> Arc<Agent> {
        let cluster = node.cluster.as_deref().cloned();
        let reachable = cluster.iter().flat_map(|cluster| cluster.members.keys().map(ToString::to_string)).collect();
        let leads = node.role == MemberRole::Primary;
        let promises =
            Promises::new(Arc::new(Nowhere), Arc::new(System), node.failsafe_mode, Duration::from_secs(30), leads);
        Arc::new(Agent {
            promises,
            node: watch::Sender::new(node),
            store: Mutex::new(cluster),
            written: Mutex::default(),
            reachable: Mutex::new(reachable),
            on_wake: Mutex::default(),
            fresh: Mutex::default(),
            conflict: Mutex::default(),
            orders: Mutex::default(),
        })
    }

    pub(crate) fn on_wake(&self, change: impl FnOnce(&mut Cluster) + Send + 'static) {
        *self.on_wake.lock().unwrap() = Some(Box::new(change));
    }

    fn unreachable() -> StoreError {
        StoreError::Unreachable { endpoint: "http://127.0.0.1:2379".to_owned(), reason: "refused".to_owned() }
    }
}

impl Operations for Agent {
    fn read_cluster(&self) -> OperationFuture<'_, Result<Arc<Cluster>, StoreError>> {
        let read = self.store.lock().unwrap().clone().map(Arc::new).ok_or_else(Agent::unreachable);
        Box::pin(async move { read })
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        value: &'a str,
        condition: Condition,
    ) -> OperationFuture<'a, Result<Revision, StoreError>> {
        Box::pin(async move {
            let mut store = self.store.lock().unwrap();
            let cluster = store.as_mut().ok_or_else(Agent::unreachable)?;
            if *self.conflict.lock().unwrap() {
                assert!(matches!(condition, Condition::Revision(_)), "an unconditional write cannot lose");
                return Err(StoreError::Conflict { key: key.suffix() });
            }
            self.written.lock().unwrap().push(value.to_owned());
            cluster.revision = Revision(cluster.revision.0 + 1);
            let raw = RawKey {
                suffix: key.suffix(),
                value: value.as_bytes().to_vec(),
                create_revision: cluster.revision,
                mod_revision: cluster.revision,
                lease: LeaseId(0),
            };
            let read = Cluster::from_keys(cluster.revision, [raw]);
            if *key == Key::Failover {
                cluster.failover = read.failover;
            } else {
                assert_eq!(*key, Key::Config, "nothing else is for REST to write");
                cluster.config = read.config;
            }
            Ok(cluster.revision)
        })
    }

    fn consent<'a>(&'a self, request: &'a ConsentRequest) -> OperationFuture<'a, ConsentReply> {
        Box::pin(self.promises.answer(request))
    }

    fn poll_peers<'a>(&'a self, members: Vec<&'a Member>) -> OperationFuture<'a, PeerPoll> {
        let reachable = self.reachable.lock().unwrap().clone();
        let answers = members.into_iter().map(|member| {
            let status = PeerStatus {
                in_recovery: true,
                position: Lsn(1),
                timeline: Timeline::new(1),
                nofailover: member.is_nofailover(),
                failover_priority: 1,
                watchdog_failed: false,
            };
            let answers = reachable.iter().any(|name| name == member.name.as_str());
            (member.name.clone(), if answers { PeerAnswer::Status(status) } else { PeerAnswer::Unreachable })
        });
        let poll = PeerPoll { answers: answers.collect() };
        Box::pin(async move { poll })
    }

    fn fresh_facts(&self) -> OperationFuture<'_, Option<ServerFacts>> {
        let facts = self.fresh.lock().unwrap().clone().unwrap_or_else(|| self.node.borrow().server.clone());
        Box::pin(async move { facts })
    }

    fn orders(&self) -> Orders {
        self.orders.lock().unwrap().clone()
    }

    fn wake(&self) {
        if let Some(change) = self.on_wake.lock().unwrap().take()
            && let Some(cluster) = self.store.lock().unwrap().as_mut()
        {
            cluster.revision = Revision(cluster.revision.0 + 1);
            change(cluster);
            let cluster = Arc::new(cluster.clone());
            self.node.send_modify(|node| node.cluster = Some(cluster));
        }
    }
}

/// A running server, and a client that knows the password.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) client: HttpClient,
    pub(crate) shutdown: CancellationToken,
    pub(crate) ended: tokio::task::JoinHandle<()>,
}

pub(crate) fn admin() -> BasicAuth {
    BasicAuth { username: "admin".to_owned(), password: Secret::new("secret") }
}

pub(crate) fn loopback(port: u16) -> ListenAddress {
    ListenAddress { hosts: vec!["127.0.0.1".to_owned()], port }
}

pub(crate) fn protected() -> RestConfig {
    RestConfig { auth: Some(admin()), ..RestConfig::default() }
}

pub(crate) async fn run(agent: &Arc<Agent>, config: RestConfig) -> Running {
    let server = RestServer::bind(&loopback(0), config).await.unwrap();
    let address = server.local_addresses()[0];
    let shutdown = CancellationToken::new();
    let ended = tokio::spawn(server.run(agent.node.subscribe(), agent.clone(), shutdown.clone()));
    let client = HttpClient::new(Some(admin()), ClientTls::default()).unwrap();
    Running { address, client, shutdown, ended }
}

impl Running {
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Response {
        let url = format!("http://{}{path}", self.address);
        let method = method.parse().unwrap();
        self.client.request(method, &url, body.as_ref(), Duration::from_secs(30)).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    pub(crate) async fn raw(&self, request: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(30), read).await.expect("the server closes").unwrap();
        String::from_utf8(answer).unwrap()
    }
}
