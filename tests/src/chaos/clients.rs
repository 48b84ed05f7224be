//! Clients that append to lists and read them, and remember every request and its outcome.
//!
//! Some roam: they know the addresses of all nodes and look for the one that accepts writes, as libpq does with
//! `target_session_attrs=read-write`. Others are pinned: one for each node, through its socket, where no partition of
//! the network keeps them from noticing that a node still accepts commits. None repeats a request whose outcome it does
//! not know.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Row, Statement};

use super::history::{List, Operation, Outcome, Request, Server};
use crate::cluster::{BOOTSTRAP_LIMIT, Cluster};
use crate::sql::Target;
use crate::wait::until;

/// How many clients roam.
const ROAMING: usize = 4;
/// Pause between two requests of one client.
const PACE: Duration = Duration::from_millis(40);
/// Pause of a pinned client between two looks at a replica, and of a roaming one after a round without a primary.
const LOOK: Duration = Duration::from_millis(200);
/// How long a connection attempt or a request may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Numbers are spread over this many keys at a time, and a list ends up about this long.
const KEYS: u64 = 4;
const LENGTH: u64 = 50;

/// SQLSTATE of a statement that a server in recovery refuses.
const READ_ONLY: &str = "25006";

/// The timeline that the server writes on, in hexadecimal.
const TIMELINE: &str = "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

/// The clients of a cluster, and the record they share. Dropping it stops them.
#[derive(Debug)]
pub(super) struct Clients {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    next: AtomicU64,
    record: Mutex<Vec<Operation>>,
    /// Which node listens on which port: a server is known by what it says itself.
    ports: BTreeMap<String, usize>,
}

impl Clients {
    /// Makes the table and starts the clients; times count from `origin`.
    ///
    /// # Errors
    /// When the table cannot be made.
    pub(super) async fn start(cluster: &Cluster, origin: Instant) -> Result<Self> {
        let table = "CREATE TABLE IF NOT EXISTS register (key integer PRIMARY KEY, list bigint[] NOT NULL)";
        // On a busy machine the cluster may be about to recover from a lease that it lost before any fault.
        let make = async || cluster.nodes[cluster.primary().await?].socket().query(table).await.map(Some);
        until(BOOTSTRAP_LIMIT, make).await.context("cannot make the table of the clients")?;
        let ports = cluster.nodes.iter().enumerate().map(|(index, n)| (n.place.pg_port.to_string(), index)).collect();
        let shared = Arc::new(Shared { origin, next: AtomicU64::new(1), record: Mutex::default(), ports });
        let all: Vec<Target> = cluster.nodes.iter().map(|n| n.tcp()).collect();
        let mut tasks = Vec::new();
        for client in 0..ROAMING {
            tasks.push(tokio::spawn(roam(Session { client, shared: Arc::clone(&shared) }, all.clone())));
        }
        for (index, node) in cluster.nodes.iter().enumerate() {
            let session = Session { client: ROAMING + index, shared: Arc::clone(&shared) };
            tasks.push(tokio::spawn(stay(session, node.socket())));
        }
        Ok(Self { shared, tasks })
    }

    /// How many appends have been acknowledged.
    pub(super) fn acknowledged(&self) -> usize {
        let record = self.shared.record.lock().unwrap_or_else(PoisonError::into_inner);
        let acked = |o: &&Operation| matches!((o.request, &o.outcome), (Request::Append(_), Outcome::Done { .. }));
        record.iter().filter(acked).count()
    }

    /// Stops and returns the whole record, in the order in which requests ended. A request that was on its way is not
    /// in it as such; its number may be in the lists all the same, so it is added with an unknown outcome.
    pub(super) async fn stop(mut self) -> Vec<Operation> {
        for task in &mut self.tasks {
            task.abort();
            let _ = task.await;
        }
        let mut record = std::mem::take(&mut *self.shared.record.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = self.shared.origin.elapsed();
        let known: std::collections::BTreeSet<u64> = record.iter().filter_map(appended).collect();
        for value in (1..self.shared.next.load(Ordering::Relaxed)).filter(|value| !known.contains(value)) {
            let (request, outcome) = (Request::Append(value), Outcome::Unknown);
            record.push(Operation { client: 0, key: key_of(value), request, sent: ended, ended, outcome });
        }
        record
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// All lists as a server has them.
///
/// # Errors
/// When they cannot be read.
pub(super) async fn lists(target: &Target) -> Result<BTreeMap<i32, List>> {
    let client = target.connect(LIMIT).await?;
    let rows = timeout(LIMIT * 10, client.query("SELECT key, list FROM register", &[])).await??;
    let list = |row: &Row| {
        let numbers: Vec<i64> = row.try_get(1)?;
        Ok((row.try_get(0)?, numbers.into_iter().map(i64::unsigned_abs).collect()))
    };
    rows.iter().map(list).collect()
}

fn appended(operation: &Operation) -> Option<u64> {
    match operation.request {
        Request::Append(value) => Some(value),
        Request::Read => None,
    }
}

/// The key that a number is appended to.
fn key_of(value: u64) -> i32 {
    i32::try_from(value / (KEYS * LENGTH) * KEYS + value % KEYS).unwrap_or(i32::MAX)
}

/// One client.
struct Session {
    client: usize,
    shared: Arc<Shared>,
}

/// What a client asks a server, prepared.
struct Prepared {
    append: Statement,
    read: Statement,
}

impl Prepared {
    async fn on(client: &Client) -> Result<Self> {
        let append = format!(
            "INSERT INTO register AS r (key, list) VALUES ($1, ARRAY[$2::bigint]) \
             ON CONFLICT (key) DO UPDATE SET list = r.list || excluded.list \
             RETURNING list, {TIMELINE}, current_setting('port')"
        );
        let read = format!(
            "SELECT coalesce((SELECT list FROM register WHERE key = $1), '{{}}'), \
             CASE WHEN NOT pg_is_in_recovery() THEN {TIMELINE} END, current_setting('port')"
        );
        let (append, read) =
            timeout(LIMIT, async { tokio::try_join!(client.prepare(&append), client.prepare(&read)) }).await??;
        Ok(Self { append, read })
    }
}

/// Looks for the primary, works there until something goes wrong, and looks again.
async fn roam(session: Session, targets: Vec<Target>) {
    let mut first = session.client;
    loop {
        let mut found = false;
        for offset in 0..targets.len() {
            let index = (first + offset) % targets.len();
            if let Ok(client) = targets[index].connect_writable(LIMIT).await {
                found = true;
                let _ = session.work(&client).await;
                first = index + 1;
                break;
            }
        }
        if !found {
            // It had something to append, and nowhere to.
            let sent = session.now();
            session.append_record(session.take(), sent, Outcome::Failed);
            sleep(LOOK).await;
        }
    }
}

/// Stays at one node: reads while it is a replica, appends and reads while it is a primary.
async fn stay(session: Session, target: Target) {
    loop {
        if let Ok(client) = target.connect(LIMIT).await {
            let _ = session.watch(&client).await;
        }
        sleep(LOOK).await;
    }
}

impl Session {
    fn now(&self) -> Duration {
        self.shared.origin.elapsed()
    }

    /// A number that nobody else appends.
    fn take(&self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::Relaxed)
    }

    fn append_record(&self, value: u64, sent: Duration, outcome: Outcome) {
        self.record(key_of(value), Request::Append(value), sent, outcome);
    }

    fn record(&self, key: i32, request: Request, sent: Duration, outcome: Outcome) {
        let operation = Operation { client: self.client, key, request, sent, ended: self.now(), outcome };
        self.shared.record.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// Appends and reads on a primary until something goes wrong.
    async fn work(&self, client: &Client) -> Result<()> {
        let prepared = Prepared::on(client).await?;
        loop {
            for _ in 0..3 {
                self.append(client, &prepared).await?;
                sleep(PACE).await;
            }
            self.read(client, &prepared, true).await?;
        }
    }

    async fn watch(&self, client: &Client) -> Result<()> {
        let prepared = Prepared::on(client).await?;
        loop {
            // The role is asked for beforehand: a statement that began in recovery may show less than the primary has.
            let row = timeout(LIMIT, client.query_one("SELECT NOT pg_is_in_recovery()", &[])).await??;
            let is_primary: bool = row.try_get(0)?;
            if is_primary {
                self.append(client, &prepared).await?;
            }
            self.read(client, &prepared, is_primary).await?;
            sleep(if is_primary { PACE } else { LOOK }).await;
        }
    }

    async fn append(&self, client: &Client, prepared: &Prepared) -> Result<()> {
        let value = self.take();
        let (key, number) = (key_of(value), i64::try_from(value)?);
        let sent = self.now();
        let answer = timeout(LIMIT, client.query_one(&prepared.append, &[&key, &number])).await;
        let outcome = match &answer {
            Ok(Ok(row)) => self.answer(row)?,
            Ok(Err(error)) if error.code().is_some_and(|code| code.code() == READ_ONLY) => Outcome::Failed,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        };
        self.append_record(value, sent, outcome);
        answer??;
        Ok(())
    }

    /// Reads a list that was appended to lately. A server that was not primary before counts as a replica.
    async fn read(&self, client: &Client, prepared: &Prepared, was_primary: bool) -> Result<()> {
        let latest = self.shared.next.load(Ordering::Relaxed);
        let key = key_of(latest.saturating_sub(1 + latest % 7));
        let sent = self.now();
        let row = timeout(LIMIT, client.query_one(&prepared.read, &[&key])).await??;
        let mut outcome = self.answer(&row)?;
        if let Outcome::Done { by, .. } = &mut outcome
            && !was_primary
        {
            by.timeline = None;
        }
        self.record(key, Request::Read, sent, outcome);
        Ok(())
    }

    /// List, timeline, port.
    fn answer(&self, row: &Row) -> Result<Outcome> {
        let numbers: Vec<i64> = row.try_get(0)?;
        let timeline: Option<&str> = row.try_get(1)?;
        let timeline = timeline.map(|text| u32::from_str_radix(text, 16)).transpose()?;
        let port: &str = row.try_get(2)?;
        let node = *self.shared.ports.get(port).with_context(|| format!("no node listens on port {port}"))?;
        let list = numbers.into_iter().map(i64::unsigned_abs).collect();
        Ok(Outcome::Done { by: Server { node, timeline }, list })
    }
}
