//! Stepping down (section 17). Order is safety: stop, prove that it stopped, release.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgward_core::cluster::{MemberRole, PostgresState, Status};
use pgward_core::decide::peers::{Asked, Bound, Candidates, failover_possible};
use pgward_core::decide::view::{Outcome, Store as SeenStore, View};
use pgward_core::decide::{DemoteMode, Memory};
use pgward_core::mutant::{Mutant, leaves_out};
use pgward_core::wal::Lsn;
use pgward_store::{Condition, Key, Store};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::fence::Fence;
use crate::lease::LeaseHandle;
use crate::local::Local;
use crate::peers::{self, Peers};
use crate::server::{LastRecord, Server, ServerError, StopHow, Stopped};

/// Between two looks whether somebody has the shutdown checkpoint.
const EARLY_RELEASE_PAUSE: Duration = Duration::from_secs(1);

/// Steps down. Whether and whom to follow afterwards is for the next decision, except offline (DCSF-8).
pub(crate) struct Demote<S, L: Server> {
    /// How.
    pub mode: DemoteMode,
    /// The server.
    pub server: L,
    /// Its shared state.
    pub local: Local<L::Postmaster>,
    /// The lease.
    pub lease: LeaseHandle,
    /// The fencer's orders.
    pub fence: Fence,
    /// For the position at which a graceful demotion ended.
    pub store: S,
    /// Asks the other members.
    pub peers: Arc<dyn Peers>,
    /// IN-C21, STP-7: how long an orderly stop may take; `None` is no limit.
    pub stop_timeout: Option<Duration>,
    /// What the demotion was decided on: who may take over.
    pub view: Box<View>,
    /// Budget of one store operation.
    pub within: Duration,
}

impl<S: Store, L: Server> Demote<S, L> {
    /// DEM-2…13.
    pub(crate) async fn run(self) -> Outcome {
        info!(mode = ?self.mode, "steps down");
        let how = match self.mode {
            DemoteMode::Graceful => StopHow::FastWithCheckpoint,
            DemoteMode::Offline | DemoteMode::Cluster => StopHow::Fast,
            DemoteMode::Immediate | DemoteMode::ImmediateNoLock => StopHow::Immediate,
        };
        self.local.set_state(PostgresState::Stopping);
        if leaves_out(Mutant::ReleaseBeforeStop) && self.mode.releases() {
            drop(self.lease.release().await);
        }
        let limit = self.stop_limit();
        let (stopped, released) = self.stop(how, limit).await;
        let stopped = match stopped {
            Ok(stopped) => stopped,
            Err(problem) => {
                // DEM-12: the key stays ours as long as it is not proven that nothing can write; the fencer stays armed.
                error!(error = %problem, "PostgreSQL did not stop: the leader key is kept");
                self.local.set_state(PostgresState::StopFailed);
                return Outcome::Failed(problem.to_string());
            }
        };
        self.local.ended(PostgresState::Stopped);
        self.local.set_role(MemberRole::Demoted);
        if self.mode == DemoteMode::Cluster {
            // DEM-10: the other cluster, whose standby this one becomes, has to get the last record.
            if let Err(problem) = self.server.archive_last_wal().await {
                warn!(error = %problem, "the last WAL of the former primary could not be archived");
            }
        } else if !released {
            self.give_up_key(&stopped).await;
        }
        self.fence.disarm().await;
        if self.mode == DemoteMode::Offline {
            return self.start_read_only().await;
        }
        Outcome::Done
    }

    /// DEM-6, DEM-13: deletes the key, or leaves it to expire.
    async fn give_up_key(&self, stopped: &Stopped) {
        if !self.mode.releases() {
            return self.lease.forget().await;
        }
        if self.mode == DemoteMode::Graceful
            && let Some(position) = stopped.published
        {
            self.publish_position(position).await;
        }
        if let Err(problem) = self.lease.release().await {
            warn!(error = %problem, "the leader key could not be released: it expires by time");
        }
    }

    /// Stops the server. A graceful demotion may release the key before the postmaster has ended (DEM-3): once control
    /// data say "shut down", nothing can write any more, and a slow archive must not keep everybody waiting. It may take
    /// its time only as long as the lease is renewed: a checkpoint lets clients go on to write (OWN-4, DCSF-5).
    pub(crate) async fn stop(&self, how: StopHow, limit: Option<Duration>) -> (Result<Stopped, ServerError>, bool) {
        let is_graceful = self.mode == DemoteMode::Graceful;
        let (announce, announced) = oneshot::channel();
        let stop = self.server.stop(&self.local, how, limit, Some(announce));
        let can_write = AtomicBool::new(true);
        let early = async {
            match announced.await {
                Ok(checkpoint) if is_graceful => {
                    can_write.store(false, Ordering::Relaxed);
                    self.release_early(&checkpoint).await;
                }
                Ok(_) | Err(_) => std::future::pending().await,
            }
        };
        let too_late = async {
            self.lease.runs_out().await;
            let waits = is_graceful || self.mode == DemoteMode::Cluster;
            if !waits || !can_write.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(stop);
        tokio::select! {
            biased;
            stopped = &mut stop => (stopped, false),
            () = early => (stop.await, true),
            () = too_late => {
                warn!("the leader lease is lost or runs out: PostgreSQL is stopped immediately");
                (self.server.stop(&self.local, StopHow::Immediate, None, None).await, false)
            }
        }
    }

    /// Waits until a member has the shutdown checkpoint and could take over, then releases the key. Not before a second
    /// has passed: without an archive the postmaster has ended by then (TIM-6). From then on nobody may kill the server:
    /// what it still archives may exist nowhere else.
    async fn release_early(&self, last: &LastRecord) {
        loop {
            sleep(EARLY_RELEASE_PAUSE).await;
            if self.can_be_followed_by_somebody(last.checkpoint).await {
                self.publish_position(last.published).await;
                if self.lease.release().await.is_ok() {
                    info!("the last record was written and another member has it: released the leader key");
                    self.local.set_role(MemberRole::Demoted);
                    return self.fence.disarm().await;
                }
            }
        }
    }

    /// FP with the shutdown checkpoint as the bound.
    async fn can_be_followed_by_somebody(&self, checkpoint: Lsn) -> bool {
        let SeenStore::Current(cluster) = &self.view.store else { return false };
        let mut view = View { poll: None, ..(*self.view).clone() };
        let bound = Bound::Has(checkpoint);
        if let Asked::Ask(members) = failover_possible(&view, cluster, bound, Candidates::AsRequested) {
            view.poll = Some(peers::poll(&*self.peers, cluster, &Memory::default(), &members).await);
        }
        matches!(failover_possible(&view, cluster, bound, Candidates::AsRequested), Asked::Known(true))
    }

    /// A primary that still holds its lease may take what is left of it for an orderly stop; the fencer ends it then.
    fn stop_limit(&self) -> Option<Duration> {
        match self.mode {
            DemoteMode::Graceful | DemoteMode::Immediate => self.stop_timeout,
            DemoteMode::Cluster => None,
            DemoteMode::ImmediateNoLock => Some(Duration::from_secs(1)),
            DemoteMode::Offline => {
                let deadline = match self.lease.now().key {
                    pgward_core::decide::view::Lease::Held { sent, ttl, .. } => {
                        pgward_core::time::fence_deadline(sent, ttl)
                    }
                    pgward_core::decide::view::Lease::None | pgward_core::decide::view::Lease::NotOurs { .. } => {
                        self.lease.boot_now()
                    }
                };
                Some(deadline.since(self.lease.boot_now()).saturating_sub(Duration::from_secs(1)))
            }
        }
    }

    /// STS-3: the others have to know how far the last primary was. Slots that are stored stay as they are.
    async fn publish_position(&self, position: Lsn) {
        let known = self.store.view().borrow().latest().map(|cluster| cluster.status.clone());
        let status = Status { optime: Some(position), ..known.unwrap_or_default() };
        let (value, always) = (status.to_value(), Condition::Always);
        let written = match self.lease.leadership() {
            Ok(leader) => self.store.write_as_leader(leader, &Key::Status, &value, always, self.within).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = written {
            warn!(error = %problem, "the position at the end could not be published");
        }
    }

    /// DCSF-8: without the store nobody can be followed; the data stays readable.
    async fn start_read_only(&self) -> Outcome {
        match self.server.start_standby(None).await {
            Ok(postmaster) => {
                self.local.set_role(MemberRole::Demoted);
                self.local.started(postmaster);
                Outcome::Done
            }
            Err(problem) => {
                self.local.ended(PostgresState::StartFailed);
                Outcome::Failed(problem.to_string())
            }
        }
    }
}
