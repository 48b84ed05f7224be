//! Looks at every member and at the leader key a few times a second, for the picture. Decides nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::etcd;
use crate::sql::Target;

/// Pause between two looks.
const PACE: Duration = Duration::from_millis(200);
/// How long a look may take.
const LIMIT: Duration = Duration::from_millis(1500);

/// What a member's PostgreSQL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Out of recovery.
    Primary,
    /// In recovery, and receiving.
    Streaming,
    /// In recovery, receiving nothing.
    Replica,
    /// Something is there, but does not answer in time.
    Silent,
    /// Nobody accepts connections.
    Down,
}

/// What the leader key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It names this member.
    Held(String),
    /// There is no key: the lease has run out, or was released.
    Free,
    /// etcd does not answer.
    Unknown,
}

/// A value over time: each entry holds until the next one.
pub type Track<T> = Vec<(Duration, T)>;

/// The looks so far. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Observer {
    roles: Vec<Arc<Mutex<Track<Role>>>>,
    lease: Arc<Mutex<Track<Lease>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Observer {
    /// Begins; times count from `origin`.
    pub(super) fn start(cluster: &Cluster, origin: Instant) -> Self {
        let mut observer = Self { roles: Vec::new(), lease: Arc::default(), tasks: Vec::new() };
        for node in &cluster.nodes {
            let track: Arc<Mutex<Track<Role>>> = Arc::default();
            observer.roles.push(Arc::clone(&track));
            observer.tasks.push(tokio::spawn(watch_role(node.socket(), track, origin)));
        }
        let (client, key) = (cluster.etcd.client(), cluster.key("leader"));
        observer.tasks.push(tokio::spawn(watch_lease(client, key, Arc::clone(&observer.lease), origin)));
        observer
    }

    /// Each member's role over time.
    pub(super) fn roles(&self) -> Vec<Track<Role>> {
        self.roles.iter().map(|track| track.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// The leader key over time.
    pub(super) fn lease(&self) -> Track<Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Notes a value when it is another than before.
fn note<T: PartialEq>(track: &Mutex<Track<T>>, at: Duration, value: T) {
    let mut track = track.lock().unwrap_or_else(PoisonError::into_inner);
    if track.last().is_none_or(|(_, last)| *last != value) {
        track.push((at, value));
    }
}

async fn watch_role(target: Target, track: Arc<Mutex<Track<Role>>>, origin: Instant) {
    let mut session: Option<Client> = None;
    loop {
        // What is seen is dated by when the look began: a server that hangs has been silent since then.
        let at = origin.elapsed();
        let role = match timeout(LIMIT, look(&target, &mut session)).await {
            Ok(Ok(role)) => role,
            Ok(Err(_)) => {
                session = None;
                Role::Down
            }
            Err(_) => {
                session = None;
                Role::Silent
            }
        };
        note(&track, at, role);
        sleep(PACE).await;
    }
}

async fn look(target: &Target, session: &mut Option<Client>) -> Result<Role> {
    if session.as_ref().is_none_or(Client::is_closed) {
        // Longer than the look itself may take: a server that hangs is silent, not down.
        *session = Some(target.connect(LIMIT * 2).await?);
    }
    let Some(client) = session else { return Ok(Role::Down) };
    let sql = "SELECT pg_is_in_recovery(), EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')";
    let row = client.query_one(sql, &[]).await?;
    Ok(match (row.try_get(0)?, row.try_get(1)?) {
        (false, _) => Role::Primary,
        (true, true) => Role::Streaming,
        (true, false) => Role::Replica,
    })
}

async fn watch_lease(client: etcd::Client, key: String, track: Arc<Mutex<Track<Lease>>>, origin: Instant) {
    loop {
        let at = origin.elapsed();
        let lease = match client.get(&key).await {
            Ok(Some(holder)) => Lease::Held(holder),
            Ok(None) => Lease::Free,
            Err(_) => Lease::Unknown,
        };
        note(&track, at, lease);
        sleep(PACE).await;
    }
}
