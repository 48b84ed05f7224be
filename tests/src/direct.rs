//! Clients that each write to one node through its socket, whatever role it has, as fast as it answers.
//!
//! They see what no honest client sees: whether a node that should have stopped still accepts commits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::sql::Target;

/// Numbers of the rows: unique in this process, as several rounds of writers may fill one table.
static NEXT: AtomicU64 = AtomicU64::new(1);
/// Pause between writes: with two of them at work each node is asked about five hundred times a second.
const PACE: Duration = Duration::from_millis(2);
/// How long a connection attempt or a statement may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A commit that a node acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Unique number, stored in the row.
    pub id: u64,
    /// Node that acknowledged it.
    pub node: usize,
    /// The timeline it was written on.
    pub timeline: u32,
    /// When it was sent.
    pub sent: Instant,
    /// When it was acknowledged.
    pub acked: Instant,
}

/// A direct writer for each node, and the record they share. Dropping it stops them.
#[derive(Debug)]
pub struct DirectWriters {
    record: Arc<Mutex<Vec<Commit>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl DirectWriters {
    /// Makes the table and starts the writers.
    ///
    /// # Errors
    /// When the table cannot be made or writes do not begin.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let primary = cluster.primary().await?;
        let table = "CREATE TABLE IF NOT EXISTS direct (id bigint NOT NULL)";
        cluster.nodes[primary].socket().query(table).await.context("cannot make the table of the direct writers")?;
        let record: Arc<Mutex<Vec<Commit>>> = Arc::default();
        let run = |(node, target): (usize, Target)| tokio::spawn(run(target, node, Arc::clone(&record)));
        let tasks = cluster.nodes.iter().map(|n| n.socket()).enumerate().map(run).collect();
        let writers = Self { record, tasks };
        let began = async || Ok(writers.commits().len() > 20);
        crate::wait::until_true(Duration::from_secs(10), began).await.context("direct writes do not begin")?;
        Ok(writers)
    }

    /// Everything acknowledged so far.
    pub fn commits(&self) -> Vec<Commit> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the node last acknowledged a commit.
    pub fn last_commit_on(&self, node: usize) -> Option<Instant> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.iter().filter(|c| c.node == node).map(|c| c.acked).max()
    }

    /// When the node first acknowledged a commit after `since`.
    pub fn first_commit_on(&self, node: usize, since: Instant) -> Option<Instant> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.iter().filter(|c| c.node == node && c.acked >= since).map(|c| c.acked).min()
    }

    /// Stops and returns the whole record.
    pub async fn stop(mut self) -> Vec<Commit> {
        for task in &mut self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.commits()
    }
}

impl Drop for DirectWriters {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn run(target: Target, node: usize, record: Arc<Mutex<Vec<Commit>>>) {
    loop {
        let _ = write(&target, node, &record).await;
        // Every look costs the server a new process; a node that refuses is asked less often than one that accepts.
        tokio::time::sleep(PACE * 5).await;
    }
}

async fn write(target: &Target, node: usize, record: &Mutex<Vec<Commit>>) -> Result<()> {
    let client = target.connect(LIMIT).await?;
    // A standby is asked for its role only: refused writes would fill its log.
    while timeout(LIMIT, client.query_one("SELECT pg_is_in_recovery()", &[])).await??.get(0) {
        tokio::time::sleep(PACE * 5).await;
    }
    let sql = "INSERT INTO direct VALUES ($1) RETURNING substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";
    let insert = timeout(LIMIT, client.prepare(sql)).await??;
    loop {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let number = i64::try_from(id)?;
        let sent = Instant::now();
        let row = timeout(LIMIT, client.query_one(&insert, &[&number])).await??;
        let acked = Instant::now();
        let timeline = u32::from_str_radix(row.get::<_, &str>(0), 16)?;
        let commit = Commit { id, node, timeline, sent, acked };
        record.lock().unwrap_or_else(PoisonError::into_inner).push(commit);
        tokio::time::sleep(PACE).await;
    }
}
