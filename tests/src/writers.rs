//! Clients that write all the time and remember what was acknowledged.
//!
//! Each writer knows the addresses of all nodes and looks for the one that accepts writes, as libpq does with
//! `target_session_attrs=read-write`. It never repeats a write whose outcome it does not know, so every row that
//! appears twice was doubled by the servers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::sql::Target;

/// Numbers of the rows: unique in this process, as several rounds of writers may fill one table.
static NEXT: AtomicU64 = AtomicU64::new(1);
/// Pause between two writes of one writer: fine enough to measure interruptions, light enough for a small machine.
const PACE: Duration = Duration::from_millis(5);
/// How long a connection attempt or a statement may take before the writer turns to another node.
const LIMIT: Duration = Duration::from_secs(1);
/// Pause after no node was found that accepts writes.
const ROUND: Duration = Duration::from_millis(5);

/// One write and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Unique number, stored in the row.
    pub id: u64,
    /// Node that it was sent to.
    pub node: usize,
    /// When it was sent.
    pub sent: Instant,
    /// When it was acknowledged; none when the outcome is unknown.
    pub acked: Option<Instant>,
}

/// The writers of a cluster, and the record they share. Dropping it stops them.
#[derive(Debug)]
pub struct Writers {
    record: Arc<Mutex<Vec<Write>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Makes the table and starts a writer for each node; returns after the first write of each.
    ///
    /// # Errors
    /// When the table cannot be made or writes do not begin.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let primary = cluster.primary().await?;
        let table = "CREATE TABLE IF NOT EXISTS written (id bigint NOT NULL)";
        cluster.nodes[primary].socket().query(table).await.context("cannot make the table of the writers")?;
        let record: Arc<Mutex<Vec<Write>>> = Arc::default();
        let targets: Vec<Target> = cluster.nodes.iter().map(|n| n.tcp()).collect();
        let start = |first: usize| {
            let writer = Writer { targets: targets.clone(), first, record: Arc::clone(&record) };
            tokio::spawn(writer.run())
        };
        let tasks = (0..cluster.nodes.len()).map(start).collect::<Vec<_>>();
        let writers = Self { record, tasks };
        writers.wait_for_writes(cluster.nodes.len() * 5, Duration::from_secs(10)).await?;
        Ok(writers)
    }

    /// Waits until `count` more writes have been acknowledged.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub async fn wait_for_writes(&self, count: usize, limit: Duration) -> Result<()> {
        let acked = || self.writes().iter().filter(|w| w.acked.is_some()).count();
        let before = acked();
        let more = crate::wait::until_true(limit, async || Ok(acked() >= before + count)).await;
        more.with_context(|| format!("{count} more writes were not acknowledged"))
    }

    /// Everything so far.
    pub fn writes(&self) -> Vec<Write> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops and returns the whole record.
    pub async fn stop(mut self) -> Vec<Write> {
        for task in &mut self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.writes()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Writer {
    targets: Vec<Target>,
    first: usize,
    record: Arc<Mutex<Vec<Write>>>,
}

impl Writer {
    async fn run(self) {
        loop {
            for offset in 0..self.targets.len() {
                let node = (self.first + offset) % self.targets.len();
                if let Ok(client) = self.targets[node].connect_writable(LIMIT).await {
                    let _ = self.write_on(node, &client).await;
                    break;
                }
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Writes until something goes wrong.
    async fn write_on(&self, node: usize, client: &Client) -> Result<()> {
        let insert = client.prepare("INSERT INTO written VALUES ($1)");
        let insert = tokio::time::timeout(LIMIT, insert).await??;
        loop {
            let id = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = i64::try_from(id)?;
            let sent = Instant::now();
            let outcome = tokio::time::timeout(LIMIT, client.execute(&insert, &[&number])).await;
            let acked = matches!(outcome, Ok(Ok(1))).then(Instant::now);
            let write = Write { id, node, sent, acked };
            self.record.lock().unwrap_or_else(PoisonError::into_inner).push(write);
            outcome??;
            tokio::time::sleep(PACE).await;
        }
    }
}
