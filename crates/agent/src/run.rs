//! Wires the parts of an agent, runs them, and takes them down in order.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, MemberRole};
use pgward_core::config::{BasicAuth, DynamicConfig, EffectivePostgresql, InvalidDynamicConfig, LocalConfig};
use pgward_core::time::BootInstant;
use pgward_core::time::rounded;
use pgward_store::{EtcdOptions, EtcdStore, Store, StoreError, StoreView};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cache;
use crate::consent::{PromiseOnDisk, Promises};
use crate::cycle::Ended;
use crate::fence::{Fence, FencerProcess};
use crate::fencer::{FencerError, FencerHandle, FencerSettings, State as FencerState};
use crate::host::{Host, System};
use crate::http::{ClientTls, HttpClient, ServerVerification, TlsError};
use crate::local::Local;
use crate::operations::Doors;
use crate::orders;
use crate::parts::Parts;
use crate::record::COMPATIBLE_VERSION;
use crate::rest::{NodeView, RestConfig, RestError, RestServer};
use crate::ring::Recorder;
use crate::server::{LocalServer, ServerSight};
use crate::unproven::wait_for_store;
use crate::watchdog::{self, Watchdog};

/// Why the agent could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The options of the store cannot work, or it refuses us.
    #[error("the cluster store cannot be used")]
    Store(#[from] StoreError),
    /// REST cannot be served.
    #[error("the REST API cannot be served")]
    Rest(#[from] RestError),
    /// An allow list that cannot be used.
    #[error("restapi.allowlist cannot be used: {0}")]
    AllowList(String),
    /// The certificates for asking peers cannot be used.
    #[error("the certificates for asking other members cannot be used (ctl.cacert, certfile, keyfile)")]
    Tls(#[from] TlsError),
    /// No fencer: PostgreSQL must never become a primary then.
    #[error("the fencer process cannot be started")]
    Fencer(#[from] FencerError),
    /// The bootstrap section is unusable.
    #[error("bootstrap.dcs cannot be used")]
    Dynamic(#[from] InvalidDynamicConfig),
    /// PostgreSQL refuses to run as root, and so its agent does.
    #[error(
        "the agent runs as root, and PostgreSQL does not: start it as the user that PostgreSQL runs as, such as postgres"
    )]
    Root,
    /// Another agent has our name.
    #[error("another agent named {name} answers at {api_url}: every member needs a name of its own")]
    DuplicateName {
        /// The name.
        name: String,
        /// Where the other one answers.
        api_url: String,
    },
    /// The operating system refused something basic.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A task of the agent ended on its own.
    #[error("a part of the agent ended on its own")]
    PartEnded,
}

/// How long the parts may take to end after PostgreSQL and the leader key are settled.
const GRACE: Duration = Duration::from_secs(5);

/// How long the last decisions may take to get into their file: a disk that hangs must not keep the agent from ending.
const RECORDS_GRACE: Duration = Duration::from_secs(1);

/// How long before the fencer strikes a stop in order has to begin.
const STOP_TIME: Duration = Duration::from_secs(6);

/// How long a member with our name may take to answer (BOO-15).
const DUPLICATE_LIMIT: Duration = Duration::from_secs(3);

/// Runs the agent until it is asked to end (SIGTERM, SIGINT) or a decision ends it. Returns the exit code.
///
/// # Errors
/// [`AgentError`] for whatever keeps it from starting.
pub async fn run(config: LocalConfig) -> Result<u8, AgentError> {
    if rustix::process::geteuid().is_root() {
        return Err(AgentError::Root);
    }
    let config = Arc::new(config);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // The cycle ends first, because it still needs the store and the lease to step down; the others end after it.
    let (cycle_shutdown, parts_shutdown) = (CancellationToken::new(), CancellationToken::new());

    let store = EtcdStore::new(&etcd_options(&config), parts_shutdown.clone())?;
    let rest_config =
        RestConfig::from_config(&config.restapi).await.map_err(|problem| AgentError::AllowList(problem.to_string()))?;
    let rest = RestServer::bind(&config.restapi.listen, rest_config).await?;
    let executable = PathBuf::from("/proc/self/exe");
    let program = std::env::current_exe().unwrap_or_else(|_| executable.clone());
    let bootstrap = config.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone()).unwrap_or_default();
    // Until the store has said what is in force: what was last in force here, else what a new cluster starts with.
    let kept = cache::read(&config.postgresql.data_dir).and_then(|document| DynamicConfig::from_map(&document).ok());
    let dynamic = Arc::new(match kept {
        Some(kept) => kept,
        None => DynamicConfig::from_map(&bootstrap)?,
    });
    let fencer_settings = FencerSettings {
        executable: program.clone(),
        data_dir: config.postgresql.data_dir.clone(),
        programs: server_programs(&EffectivePostgresql::merge(&config, &dynamic)),
        state_file: beside(&config.postgresql.data_dir, ".fencer"),
    };
    let fencer = FencerHandle::start_or_adopt(fencer_settings.clone()).await?;
    if let Some(fencing) = fencer.last_fencing() {
        warn!(%fencing, "the fencer has stopped PostgreSQL before this start");
    }
    let inherited = match fencer.adopted_state() {
        FencerState::Armed(orders) => Some(orders.deadline),
        FencerState::Disarmed | FencerState::Fenced => None,
    };
    let timing = dynamic.timing;
    let watchdog = Watchdog::new(&config.watchdog, watchdog::device_of(&config.watchdog), timing.ttl, timing.loop_wait);
    if let Some(problem) = watchdog.failure() {
        warn!(error = %problem, "a watchdog is required here and cannot be used: this member will not lead"); // WDG-7
    }
    let fence = Fence::new(Arc::new(FencerProcess { handle: fencer, settings: fencer_settings }), inherited.is_some())
        .with_watchdog(watchdog);
    let peers = HttpClient::new(peer_auth(&config), peer_tls(&config))?;

    let server = LocalServer::new(Arc::clone(&config), &dynamic, program);
    // What other members ask for before the first cycle has run.
    let unseen = NodeView {
        failsafe_mode: dynamic.failsafe_mode,
        ttl: dynamic.timing.ttl,
        ..NodeView::unseen(config.name.clone(), config.scope.clone(), COMPATIBLE_VERSION.to_owned())
    };
    let (node, node_view) = watch::channel(unseen);
    let wake = Arc::new(Notify::new());
    let recorder = Recorder::with_file(beside(&config.postgresql.data_dir, ".decisions"))?;
    let (orders, inbox) = orders::channel();
    let promise_file = PromiseOnDisk::new(beside(&config.postgresql.data_dir, ".failsafe"))?;
    // Until the first cycle has seen the server, what its files say counts.
    let leads = matches!(server.role_at_start(), MemberRole::Primary | MemberRole::Promoted);
    let promises =
        Promises::new(Arc::new(promise_file), Arc::new(System), dynamic.failsafe_mode, dynamic.timing.ttl, leads);
    let doors = Arc::new(Doors {
        store: store.clone(),
        peers: Arc::new(peers.clone()),
        wake: Arc::clone(&wake),
        server: server.clone(),
        node: node_view.clone(),
        recorder: recorder.clone(),
        orders,
        promises: promises.clone(),
    });
    let mut parts = JoinSet::new();
    parts.spawn(rest.run(node_view, doors, parts_shutdown.clone()));

    let mut store_view = store.view();
    let connected = async {
        tokio::select! {
            cluster = first_read(&mut store_view) => Some(cluster),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        }
    };
    let local = Local::new(server.role_at_start(), Arc::new(System));
    let patience = patience(&dynamic, inherited);
    let connected = wait_for_store(&server, &local, &fence, patience, connected).await;
    let Some(cluster) = connected else {
        parts_shutdown.cancel();
        return Ok(0);
    };
    refuse_duplicate(&config, &cluster, &peers).await?;

    let (keeper, cycle) = Parts {
        config: Arc::clone(&config),
        dynamic,
        store,
        server,
        fence,
        peers: Arc::new(peers),
        promises,
        host: Arc::new(System),
        node,
        wake,
        inbox,
    }
    .assemble();
    parts.spawn(keeper.run(parts_shutdown.clone()));
    let cycle = cycle.recorded_by(recorder.clone());
    // The lease task ends when nobody can reach it any more, which must not be before the end of the cycle was seen.
    let _lease = cycle.lease.clone();
    let mut cycle = tokio::spawn(cycle.run(cycle_shutdown.clone()));
    info!(name = %config.name, scope = %config.scope, "the agent runs");

    let ended = loop {
        tokio::select! {
            ended = &mut cycle => break ended,
            _ = terminate.recv() => {
                info!("asked to end");
                cycle_shutdown.cancel();
            }
            _ = interrupt.recv() => {
                info!("asked to end");
                cycle_shutdown.cancel();
            }
            _ = hangup.recv() => warn!("a reload of the file is not available yet: restart the agent for a change of it"),
            Some(part) = parts.join_next() => {
                error!(?part, "a part of the agent ended on its own: the agent ends");
                cycle_shutdown.cancel();
                break cycle.await;
            }
        }
    };
    recorder.flush(RECORDS_GRACE).await;
    parts_shutdown.cancel();
    let drained = async { while parts.join_next().await.is_some() {} };
    if timeout(GRACE, drained).await.is_err() {
        error!(grace = rounded(GRACE), remaining = parts.len(), "gave up waiting for the parts of the agent");
    }
    match ended {
        Ok(Ended::Asked) => Ok(0),
        Ok(Ended::Decided(code)) => Ok(code),
        Err(_) => Err(AgentError::PartEnded),
    }
}

/// How long a primary that was left running may go on before the store has answered: as long as the fencer knows its lease to
/// last, with time for a stop in order; where no fencer knows, as long as a store that is there may take. In pause nothing
/// is stopped (PAU-8).
fn patience(dynamic: &DynamicConfig, inherited: Option<BootInstant>) -> Duration {
    const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
    match inherited {
        _ if dynamic.pause => FOREVER,
        Some(deadline) => deadline.since(System.boot_now() + STOP_TIME),
        None => dynamic.timing.retry_timeout,
    }
}

/// The file names that a server under another name may run by: the configured one, and that of the file it leads to.
fn server_programs(effective: &EffectivePostgresql) -> Vec<OsString> {
    let Some(name) = effective.bin_name.get("postgres") else { return Vec::new() };
    let path = effective.bin_dir.as_ref().map_or_else(|| PathBuf::from(name), |directory| directory.join(name));
    let mut names: Vec<OsString> = path.file_name().map(ToOwned::to_owned).into_iter().collect();
    let real = path.canonicalize().ok().and_then(|real| real.file_name().map(ToOwned::to_owned));
    names.extend(real.filter(|real| !names.contains(real)));
    names
}

/// A path beside the data directory, with a suffix to its name.
pub(crate) fn beside(data_dir: &std::path::Path, suffix: &str) -> PathBuf {
    let mut name = data_dir.as_os_str().to_owned();
    while name.to_string_lossy().ends_with('/') && name.len() > 1 {
        name = name.to_string_lossy().trim_end_matches('/').to_owned().into();
    }
    name.push(suffix);
    PathBuf::from(name)
}

/// Waits for the store, with one line for each cause and no end: it comes back (7.1).
async fn first_read(view: &mut watch::Receiver<StoreView>) -> Arc<Cluster> {
    let mut said = None;
    loop {
        let now = view.borrow_and_update().clone();
        match now {
            StoreView::Current { cluster, .. } => return cluster,
            StoreView::Connecting { error: Some(problem) } | StoreView::Lost { error: problem, .. } => {
                if said.as_ref() != Some(&problem) {
                    warn!(error = %problem, "waits for etcd");
                    said = Some(problem);
                }
            }
            StoreView::Connecting { error: None } => {}
        }
        if view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// BOO-15: two agents with one name would fight over one record.
async fn refuse_duplicate(config: &LocalConfig, cluster: &Cluster, peers: &HttpClient) -> Result<(), AgentError> {
    let Some(api_url) = cluster.members.get(&config.name).and_then(|member| member.api_url()) else { return Ok(()) };
    if api_url == config.restapi.api_url() {
        return Ok(()); // We listen there ourselves, so nobody else does.
    }
    let liveness = format!("{}/liveness", api_url.trim_end_matches("/patroni"));
    match peers.request(hyper::Method::GET, &liveness, None, DUPLICATE_LIMIT).await {
        Ok(_) => Err(AgentError::DuplicateName { name: config.name.to_string(), api_url: api_url.to_owned() }),
        Err(_) => Ok(()),
    }
}

/// The options of the store in the configuration.
pub fn etcd_options(config: &LocalConfig) -> EtcdOptions {
    let etcd = &config.etcd;
    EtcdOptions {
        endpoints: etcd.endpoints.clone(),
        discover_members: !etcd.use_proxies,
        srv: etcd.srv.as_ref().map(|srv| srv.domain.clone()),
        username: etcd.username.clone(),
        password: etcd.password.as_ref().map(|password| password.expose().to_owned()),
        ca_cert: etcd.cacert.clone(),
        cert: etcd.cert.clone(),
        key: etcd.key.clone(),
        prefix: config.prefix(),
    }
}

fn peer_auth(config: &LocalConfig) -> Option<BasicAuth> {
    config.ctl.auth.clone().or_else(|| config.restapi.auth.clone())
}

/// As Patroni does: without a certificate of its own the agent does not verify its peers.
fn peer_tls(config: &LocalConfig) -> ClientTls {
    let ctl = &config.ctl;
    let authorities = ctl.cacert.clone().or_else(|| config.restapi.cafile.clone());
    let identity = ctl.certfile.clone().map(|cert| (cert.clone(), ctl.keyfile.clone().unwrap_or(cert)));
    let verification = match (&identity, authorities) {
        (Some(_), Some(path)) => ServerVerification::Authorities(path),
        (Some(_), None) => ServerVerification::SystemRoots,
        (None, _) => ServerVerification::Insecure,
    };
    ClientTls { verification, identity }
}
