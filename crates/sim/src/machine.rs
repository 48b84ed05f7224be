//! A machine of the cluster: PostgreSQL, the fencer and the agent on it, and what can happen to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_agent::consent::{PromiseFile, Promises};
use pgward_agent::fence::Fence;
use pgward_agent::host::BoxFuture;
use pgward_agent::rest::NodeView;
use pgward_agent::server::ServerSight;
use pgward_agent::{COMPATIBLE_VERSION, Ended, Parts};
use pgward_core::cluster::MemberRole;
use pgward_core::config::{DynamicConfig, LocalConfig, Source, Sources};
use pgward_core::decide::failsafe::Promise;
use pgward_core::names::MemberName;
use pgward_store::Store;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::fencer::{FencerSlot, SimFencer};
use crate::host::{Clocks, Process, SimHost};
use crate::network::Network;
use crate::peers::{Answering, Directory, SimPeers};
use crate::postgres::{ModelServer, Postgres};
use crate::store::Etcd;

/// What all machines of a run share.
#[derive(Clone)]
pub struct Surroundings {
    /// The store.
    pub etcd: Etcd,
    /// The network.
    pub network: Network,
    /// Who answers REST.
    pub directory: Directory,
}

/// A machine. Clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    name: MemberName,
    config: Arc<LocalConfig>,
    clocks: Clocks,
    postgres: Postgres,
    around: Surroundings,
    fencer: FencerSlot,
    /// What its agent has promised; on disk.
    promise: Arc<Kept>,
    state: Arc<Mutex<State>>,
}

/// A promise on the disk of a machine.
#[derive(Default)]
struct Kept(Mutex<Option<Promise>>);

impl PromiseFile for Kept {
    fn read(&self) -> Option<Promise> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, promise: Promise) -> BoxFuture<'_, std::io::Result<()>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(promise);
        Box::pin(async { Ok(()) })
    }
}

#[derive(Default)]
struct State {
    agent: Option<Agent>,
    /// Agents started so far.
    started: u64,
    /// An agent that ends is not started again until this is over.
    is_kept_down: bool,
    /// How many have stopped PostgreSQL and not let it go on.
    server_stops: u32,
    /// What an agent panicked with.
    panic: Option<String>,
}

#[derive(Clone)]
struct Agent {
    process: Process,
    shutdown: CancellationToken,
    node: watch::Receiver<NodeView>,
}

/// As a service manager does it: an agent that ended is started again after this time.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Time that the parts of an agent have after its cycle has ended.
const GRACE: Duration = Duration::from_millis(100);

impl Machine {
    /// A machine with an empty disk.
    pub fn new(config: Arc<LocalConfig>, clocks: Clocks, postgres: Postgres, around: Surroundings) -> Machine {
        let name = config.name.clone();
        Machine {
            name,
            config,
            clocks,
            postgres,
            around,
            fencer: FencerSlot::default(),
            promise: Arc::default(),
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member on it.
    pub fn name(&self) -> &MemberName {
        &self.name
    }

    /// Its clocks.
    pub fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// Its PostgreSQL.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The configuration of the member.
    pub fn config(&self) -> &LocalConfig {
        &self.config
    }

    /// The process of the agent, if it was started.
    pub fn agent(&self) -> Option<Process> {
        self.state().agent.as_ref().map(|agent| agent.process.clone())
    }

    /// True when its agent runs.
    pub fn runs(&self) -> bool {
        self.agent().is_some_and(|agent| agent.runs())
    }

    /// What the agent published last.
    pub fn node(&self) -> Option<NodeView> {
        self.state().agent.as_ref().map(|agent| agent.node.borrow().clone())
    }

    /// The process of the fencer, if there is one.
    pub fn fencer(&self) -> Option<Process> {
        self.fencer.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|fencer| fencer.process().clone())
    }

    /// What an agent on this machine panicked with (INV-S26).
    pub fn panic(&self) -> Option<String> {
        self.state().panic.clone()
    }

    /// Stops all processes of PostgreSQL, until everybody who stopped them has let them go on.
    pub fn stop_server(&self) {
        self.state().server_stops += 1;
        self.postgres.set_frozen(true);
    }

    /// Lets them go on.
    pub fn let_server_go_on(&self) {
        let is_free = {
            let mut state = self.state();
            state.server_stops = state.server_stops.saturating_sub(1);
            state.server_stops == 0
        };
        if is_free {
            self.postgres.set_frozen(false);
        }
    }

    /// Sends SIGTERM to the agent.
    pub fn terminate_agent(&self) {
        if let Some(agent) = &self.state().agent {
            agent.shutdown.cancel();
        }
    }

    /// While `down`, an agent that ended stays away.
    pub fn keep_down(&self, down: bool) {
        self.state().is_kept_down = down;
        if !down && self.agent().is_none_or(|process| !process.is_alive()) {
            self.start_agent();
        }
    }

    /// Starts the agent.
    pub fn start_agent(&self) {
        let (number, process, shutdown) = {
            let mut state = self.state();
            if state.is_kept_down || state.agent.as_ref().is_some_and(|agent| agent.process.is_alive()) {
                return;
            }
            state.started += 1;
            (state.started, Process::new(&self.name), CancellationToken::new())
        };
        let unseen = NodeView::unseen(self.name.clone(), self.config.scope.clone(), COMPATIBLE_VERSION.to_owned());
        let (publisher, node) = watch::channel(unseen);
        self.state().agent = Some(Agent { process: process.clone(), shutdown: shutdown.clone(), node: node.clone() });
        let (machine, own) = (self.clone(), process.clone());
        let run = async move {
            machine.run_agent(number, own.clone(), publisher, node, shutdown).await;
            own.kill();
        };
        drop(process.spawn(run));
        drop(tokio::spawn(self.clone().supervise(process, number)));
    }

    /// Notes how the agent ended, and starts it again.
    async fn supervise(self, process: Process, number: u64) {
        process.ended().await;
        if let Some(fencer) = &*self.fencer.lock().unwrap_or_else(PoisonError::into_inner) {
            fencer.disconnect(number);
        }
        if let Some(panic) = process.panic() {
            self.state().panic = Some(panic);
            return;
        }
        sleep(RESTART_PAUSE).await;
        self.start_agent();
    }

    async fn run_agent(
        &self,
        number: u64,
        process: Process,
        publisher: watch::Sender<NodeView>,
        node: watch::Receiver<NodeView>,
        shutdown: CancellationToken,
    ) {
        // A start takes a moment.
        sleep(Duration::from_millis(10)).await;
        let store = self.around.etcd.connect(&self.name, &self.clocks, &process);
        let Some(dynamic) = self.dynamic() else { return };
        let server = ModelServer::new(&self.postgres, Arc::clone(&self.config), &dynamic);
        let host = Arc::new(SimHost { clocks: self.clocks.clone(), process: process.clone() });
        let leads = matches!(server.role_at_start(), MemberRole::Primary | MemberRole::Promoted);
        let (file, own) = (Arc::clone(&self.promise), host.clone());
        let promises = Promises::new(file, own, dynamic.failsafe_mode, dynamic.timing.ttl, leads);
        let answering =
            Answering { process: process.clone(), node, server: server.clone(), promises: promises.clone() };
        self.around.directory.enter(&self.name, answering);
        let known = self.fencer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fencer = match known.filter(|fencer| fencer.process().is_alive()) {
            Some(fencer) => fencer,
            None => SimFencer::start(&self.name, &self.clocks, &self.postgres, &self.fencer),
        };
        let fence = Fence::new(Arc::new(fencer.connect(number)), fencer.is_armed());
        let mut view = store.view();
        let connected = async {
            // The sender lives as long as this process.
            let _ = view.wait_for(|view| view.current().is_some()).await;
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = connected => {}
        }
        let parts = Parts {
            config: Arc::clone(&self.config),
            dynamic: Arc::new(dynamic),
            store,
            server,
            fence,
            peers: Arc::new(SimPeers {
                me: self.name.clone(),
                directory: self.around.directory.clone(),
                network: self.around.network.clone(),
            }),
            promises,
            host,
            node: publisher,
            wake: Arc::new(Notify::new()),
            inbox: pgward_agent::orders::channel().1,
        };
        let (keeper, cycle) = parts.assemble();
        let parts_shutdown = CancellationToken::new();
        drop(process.spawn(keeper.run(parts_shutdown.clone())));
        match cycle.run(shutdown).await {
            Ended::Asked | Ended::Decided(_) => {}
        }
        parts_shutdown.cancel();
        sleep(GRACE).await;
    }

    /// What was last in force here, else what a new cluster starts with.
    fn dynamic(&self) -> Option<DynamicConfig> {
        let kept = self.postgres.kept_dynamic();
        let bootstrap = || self.config.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone()).unwrap_or_default();
        DynamicConfig::from_map(&kept.unwrap_or_else(bootstrap)).ok()
    }
}

/// The configuration of member `number`, with dynamic settings as YAML text and tags likewise.
///
/// # Errors
/// When it is not accepted: a mistake in the simulator.
pub fn configuration(number: usize, dcs: &str, tags: &str) -> anyhow::Result<Arc<LocalConfig>> {
    let text = format!(
        "scope: sim\nname: n{number}\netcd3: {{host: '10.0.0.100:2379'}}\n\
         restapi: {{listen: '10.0.0.{number}:8008', connect_address: '10.0.0.{number}:8008'}}\n\
         bootstrap: {{dcs: {dcs}}}\n\
         postgresql: {{listen: '10.0.0.{number}:5432', connect_address: '10.0.0.{number}:5432', data_dir: /data, \
         bin_dir: /bin, authentication: {{superuser: {{username: s, password: s}}, replication: {{username: r, password: r}}}}}}\n\
         tags: {tags}\n"
    );
    let sources =
        Sources { files: vec![Source { name: format!("n{number}.yml"), text }], environment: BTreeMap::new() };
    let config = LocalConfig::load(&sources).map_err(|rejected| anyhow::anyhow!("{:?}", rejected.findings))?;
    Ok(Arc::new(config))
}
