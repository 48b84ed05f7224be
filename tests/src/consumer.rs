//! A consumer of logical decoding that follows the primary and remembers everything that it was given.
//!
//! It looks at changes first, remembers them, and only then confirms them: what its slot has lost track of it gets twice,
//! and what it is never given nobody else has taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cluster::Cluster;
use crate::sql::Target;

/// How long one statement may take: on a primary that waits for its standbys, as long as they may be missed.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a connection attempt may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Pause after nothing was new, or nobody was primary.
const PAUSE: Duration = Duration::from_millis(50);
/// Changes taken at once.
const BATCH: usize = 500;

/// When the rows of the table `written` were delivered, by their number, in order.
pub type Deliveries = BTreeMap<u64, Vec<Instant>>;

/// A consumer of the slot of that name. Dropping it stops it.
#[derive(Debug)]
pub struct Consumer {
    slot: String,
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Record {
    deliveries: Deliveries,
    last_error: String,
}

impl Consumer {
    /// Starts to consume `slot`, which decodes with `test_decoding`, wherever the primary is.
    pub fn start(cluster: &Cluster, slot: &str) -> Consumer {
        let record: Arc<Mutex<Record>> = Arc::default();
        let targets: Vec<Target> = cluster.nodes.iter().map(|node| node.tcp()).collect();
        let task = tokio::spawn(run(targets, slot.to_owned(), Arc::clone(&record)));
        Consumer { slot: slot.to_owned(), record, task }
    }

    /// Everything so far.
    pub fn deliveries(&self) -> Deliveries {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).deliveries.clone()
    }

    /// Waits until everything that is in the table now was delivered; returns the numbers in the table.
    ///
    /// # Errors
    /// When it was not within `limit`: names what is missing.
    pub async fn catches_up(&self, cluster: &Cluster, limit: Duration) -> Result<Vec<u64>> {
        let primary = cluster.primary().await?;
        let rows = cluster.nodes[primary].socket().query("SELECT id FROM written ORDER BY id").await?;
        let ids = rows.iter().map(|row| Ok(row.parse()?)).collect::<Result<Vec<u64>>>()?;
        crate::wait::until_true(limit, async || {
            let deliveries = self.deliveries();
            let missing: Vec<u64> = ids.iter().copied().filter(|id| !deliveries.contains_key(id)).collect();
            let last_error = self.record.lock().unwrap_or_else(PoisonError::into_inner).last_error.clone();
            anyhow::ensure!(
                missing.is_empty(),
                "{} of {} rows were not delivered by {}: {:?}…; last error: {last_error}",
                missing.len(),
                ids.len(),
                self.slot,
                &missing[..missing.len().min(20)]
            );
            Ok(true)
        })
        .await?;
        Ok(ids)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(targets: Vec<Target>, slot: String, record: Arc<Mutex<Record>>) {
    loop {
        for target in &targets {
            if let Ok(client) = target.connect_writable(CONNECT_LIMIT).await
                && let Err(error) = consume(&client, &slot, &record).await
            {
                record.lock().unwrap_or_else(PoisonError::into_inner).last_error = format!("{error:#}");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn consume(client: &Client, slot: &str, record: &Mutex<Record>) -> Result<()> {
    let peek = format!("SELECT lsn, data FROM pg_logical_slot_peek_changes('{slot}', NULL, {BATCH})");
    loop {
        let messages = tokio::time::timeout(LIMIT, client.simple_query(&peek)).await.context("no answer in time")??;
        let rows = messages.iter().filter_map(|message| {
            let SimpleQueryMessage::Row(row) = message else { return None };
            Some((row.get(0)?, row.get(1)?))
        });
        let rows: Vec<(&str, &str)> = rows.collect();
        let now = Instant::now();
        {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            for id in rows.iter().filter_map(|(_, data)| inserted(data)) {
                record.deliveries.entry(id).or_default().push(now);
            }
        }
        let Some((end, _)) = rows.iter().rev().find(|(_, data)| data.starts_with("COMMIT")) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let confirm = format!("SELECT pg_replication_slot_advance('{slot}', '{end}')");
        tokio::time::timeout(LIMIT, client.simple_query(&confirm)).await.context("no answer in time")??;
    }
}

/// The number of a row of the writers, as test_decoding prints it.
fn inserted(data: &str) -> Option<u64> {
    data.strip_prefix("table public.written: INSERT: id[bigint]:")?.parse().ok()
}
