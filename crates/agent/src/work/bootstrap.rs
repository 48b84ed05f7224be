//! Creating a cluster (section 9): the one path on which the leader key is taken without a race.

use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Initialize, Member, MemberRole, PostgresState, Revision};
use pgward_core::config::{DynamicConfig, LocalConfig};
use pgward_core::decide::bootstrap::{INTENT_ALIVE_KEY, INTENT_KEY};
use pgward_core::decide::view::Outcome;
use pgward_core::mutant::{Mutant, leaves_out};
use pgward_store::{Condition, Key, Store, StoreError};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::action::Progress;
use crate::fence::{Fence, NotFenced, Protected};
use crate::lease::LeaseHandle;
use crate::local::Local;
use crate::server::{Postmaster, Server, ServerError, StopHow};

/// Creates a cluster on an empty directory.
pub(crate) struct Bootstrap<S, L: Server> {
    /// The store.
    pub store: S,
    /// Takes the leader key at the end.
    pub lease: LeaseHandle,
    /// Guards the new primary.
    pub fence: Fence,
    /// The server.
    pub server: L,
    /// Its shared state.
    pub local: Local<L::Postmaster>,
    /// The file, with its `bootstrap` section.
    pub config: Arc<LocalConfig>,
    /// What becomes the dynamic configuration of the cluster: `bootstrap.dcs`, its times corrected.
    pub dynamic: Arc<DynamicConfig>,
    /// Budget of one store operation.
    pub within: Duration,
}

/// Pause after a claim that failed because of the store, before the next decision may try again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Pause after the cluster to follow could not be copied.
const COPY_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Server(#[from] ServerError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the claim to create the cluster was lost: another member may be at it")]
    ClaimLost,
    #[error("{0}")]
    NotFenced(#[from] NotFenced),
    #[error("{0}")]
    NotCopied(ServerError),
    #[error("it was cancelled")]
    Cancelled,
}

impl<S: Store, L: Server> Bootstrap<S, L> {
    /// BOO-1…11. Losing the race is no failure; a failure moves what was created aside (BOO-8).
    pub(crate) async fn run(self, progress: Progress) -> Outcome {
        if let Err(problem) = self.server.check_port().await {
            return Outcome::Failed(problem.to_string()); // Nothing was claimed or created yet.
        }
        let claimed = match self.claim().await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return Outcome::Cancelled, // BOO-4
            Err(problem) => {
                error!(error = %problem, "could not claim the cluster");
                sleep(RETRY_PAUSE).await;
                return Outcome::Cancelled;
            }
        };
        info!("won the race to create the cluster");
        let created = match &self.dynamic.standby_cluster {
            None => self.create(&progress).await,
            Some(other) => self.copy(&other.as_member(), &progress).await,
        };
        match created {
            Ok(()) => {
                info!("created the cluster");
                Outcome::Done
            }
            Err(Problem::NotCopied(problem)) => {
                // Nothing of it is left, and the other cluster may be away for a while: somebody tries again.
                error!(error = %problem, "the cluster to follow could not be copied");
                self.local.set_state(PostgresState::Stopped);
                self.give_back(claimed, None).await;
                sleep(COPY_PAUSE).await;
                Outcome::Cancelled
            }
            Err(problem) => {
                error!(error = %problem, "creating the cluster failed");
                if matches!(problem, Problem::Server(ServerError::NotOurs(_))) {
                    self.give_back(claimed, None).await; // What is in the way was not created by us (INV-S11).
                } else {
                    self.undo(claimed).await;
                }
                Outcome::Failed(problem.to_string())
            }
        }
    }

    /// Wins `initialize`, and announces who did and that it lives (QRK-11).
    ///
    /// The announcement of life comes first, so that nobody else tries meanwhile; the claim is bound to the same lease,
    /// so that it never outlives us; and who made it is written last, so that it is never said of a claim of Patroni's.
    ///
    /// Returns the revision at which `initialize` was claimed; `None` when somebody else was faster.
    async fn claim(&self) -> Result<Option<Revision>, StoreError> {
        let me = self.config.name.as_str();
        let mut state = self.lease.state();
        let granted = timeout(self.within, state.wait_for(|state| state.id.is_some())).await;
        let Some(lease) = granted.ok().and_then(Result::ok).and_then(|state| state.id) else {
            return Err(StoreError::Other("no lease was granted".to_owned()));
        };
        let alive = Key::Own(INTENT_ALIVE_KEY.to_owned());
        match self.store.write(&alive, me, Condition::Absent, Some(lease), self.within).await {
            Ok(_) => {}
            Err(StoreError::Conflict { .. }) => {
                let known = self.store.read(self.within).await?.own.get(INTENT_ALIVE_KEY).cloned();
                let Some(ours) = known.filter(|known| known.value == me) else { return Ok(None) };
                // Left by an earlier attempt: it has to live as long as this one.
                let unchanged = Condition::Revision(ours.revision);
                self.store.write(&alive, me, unchanged, Some(lease), self.within).await?;
            }
            Err(other) => return Err(other),
        }
        let claimed = match self.store.write(&Key::Initialize, "", Condition::Absent, Some(lease), self.within).await {
            Ok(claimed) => claimed,
            Err(StoreError::Conflict { .. }) if leaves_out(Mutant::BootstrapAgain) => Revision::default(),
            Err(StoreError::Conflict { .. }) => {
                self.store.delete(&alive, Condition::Always, self.within).await?;
                return Ok(None);
            }
            Err(other) => return Err(other),
        };
        let claim = Key::Own(INTENT_KEY.to_owned());
        if let Err(problem) = self.store.write(&claim, me, Condition::Always, None, self.within).await {
            warn!(error = %problem, "could not say who creates the cluster; the claim ends with our lease all the same");
        }
        Ok(Some(claimed))
    }

    async fn create(&self, progress: &Progress) -> Result<(), Problem> {
        self.local.set_state(PostgresState::Initdb);
        self.server.initdb(&progress.cancel).await?;
        // The claim may be long gone, if this process was stopped. And from here on it may be stopped at any moment.
        if !self.lease.guard_claim().await? {
            return Err(Problem::ClaimLost);
        }
        self.claimed_at().await?;
        self.fence.protect(Protected::BeforeStart).await?;
        let postmaster = self.server.start_primary().await?;
        self.guard(&postmaster).await;
        self.local.started(postmaster.clone());
        self.server.wait_accepting(&postmaster).await?;
        self.local.accepts();
        self.local.set_role(MemberRole::Primary);
        self.server.post_bootstrap(&progress.cancel).await?; // BOO-10
        if progress.cancel.is_cancelled() {
            return Err(Problem::Cancelled);
        }
        // BOO-11, in this order; before it, the claim is looked at once more (BEY-23).
        let system_id = self.server.system_id().await?;
        let claimed_at = self.claimed_at().await?;
        self.store_system_id(&system_id, claimed_at).await?;
        self.register(&postmaster).await;
        Ok(())
    }

    /// BOO-2: copies the cluster that this one follows, and starts as its standby. Roles and scripts are the other
    /// cluster's. Nothing is writable here, so that the fencer has nothing to guard.
    async fn copy(&self, other: &Member, progress: &Progress) -> Result<(), Problem> {
        self.local.set_state(PostgresState::CreatingReplica);
        self.server.clone_from(other, false, &progress.cancel).await.map_err(Problem::NotCopied)?;
        let claimed_at = self.claimed_at().await?;
        let system_id = self.server.system_id().await?;
        let postmaster = self.server.start_standby(Some(other)).await?;
        self.local.started(postmaster.clone());
        self.server.wait_accepting(&postmaster).await?;
        self.local.accepts();
        self.local.set_role(MemberRole::StandbyLeader);
        if progress.cancel.is_cancelled() {
            return Err(Problem::Cancelled);
        }
        self.store_system_id(&system_id, claimed_at).await?;
        let dynamic = pgward_core::json::compact(&self.dynamic.document);
        if let Err(problem) = self.store.write(&Key::Config, &dynamic, Condition::Always, None, self.within).await {
            warn!(error = %problem, "the configuration of the new cluster was not stored yet");
        }
        if let Err(problem) = self.lease.take().await {
            warn!(error = %problem, "the leader key was not taken yet");
        }
        if let Err(problem) = self.drop_claim().await {
            warn!(error = %problem, "the claim to the new cluster was not cleaned up");
        }
        Ok(())
    }

    /// Where `initialize` was claimed, as long as the claim is ours and nobody leads (BEY-23).
    async fn claimed_at(&self) -> Result<Revision, Problem> {
        let cluster = self.store.read(self.within).await?;
        let is_ours = cluster.own.get(INTENT_ALIVE_KEY).is_some_and(|own| own.value == self.config.name.as_str());
        if (!is_ours || cluster.leader.is_some()) && !leaves_out(Mutant::BootstrapWithoutClaim) {
            return Err(Problem::ClaimLost);
        }
        Ok(cluster.initialize_revision)
    }

    /// At the deadline the fencer ends this server and no other.
    async fn guard(&self, postmaster: &L::Postmaster) {
        let protected = Protected::Postmaster { pid: postmaster.pid(), start_ticks: postmaster.start_ticks() };
        if let Err(problem) = self.fence.protect(protected).await {
            warn!(error = %problem, "the fencer does not guard the new primary yet"); // Whatever runs there it does.
        }
    }

    /// From here on the cluster exists. A write whose answer was lost is looked up before everything is undone.
    async fn store_system_id(&self, system_id: &str, claimed_at: Revision) -> Result<(), StoreError> {
        let unchanged = Condition::Revision(claimed_at);
        let unchanged = if leaves_out(Mutant::BootstrapWithoutClaim) { Condition::Always } else { unchanged };
        match self.store.write(&Key::Initialize, system_id, unchanged, None, self.within).await {
            Err(problem) if problem.is_unknown() => {
                let cluster = self.store.read(self.within).await?;
                if cluster.initialize.system_id() == Some(system_id) { Ok(()) } else { Err(problem) }
            }
            written => written.map(|_| ()),
        }
    }

    /// What fails here is repaired by the cycle, which finds a primary, a free key and an identifier: nothing is undone.
    async fn register(&self, postmaster: &L::Postmaster) {
        let dynamic = pgward_core::json::compact(&self.dynamic.document);
        if let Err(problem) = self.store.write(&Key::Config, &dynamic, Condition::Always, None, self.within).await {
            warn!(error = %problem, "the configuration of the new cluster was not stored yet");
        }
        match self.lease.take().await {
            Ok(_) => self.guard(postmaster).await,
            Err(problem) => warn!(error = %problem, "the leader key was not taken yet"),
        }
        if let Err(problem) = self.drop_claim().await {
            warn!(error = %problem, "the claim to the new cluster was not cleaned up");
        }
    }

    async fn drop_claim(&self) -> Result<(), StoreError> {
        for key in [INTENT_ALIVE_KEY, INTENT_KEY] {
            self.store.delete(&Key::Own(key.to_owned()), Condition::Always, self.within).await?;
        }
        Ok(())
    }

    /// BOO-8: gives the claim back, stops the server, and moves the remains aside; nothing is deleted.
    async fn undo(&self, claimed: Revision) {
        if let Err(problem) = self.server.stop(&self.local, StopHow::Immediate, None, None).await {
            error!(error = %problem, "PostgreSQL did not stop: its data directory stays where it is");
            return;
        }
        self.fence.disarm().await;
        self.lease.forget().await;
        self.local.ended(PostgresState::InitdbFailed);
        self.local.set_role(MemberRole::Uninitialized);
        let system_id = self.server.system_id().await.ok(); // Before what holds it is moved.
        if let Err(problem) = self.server.move_aside().await {
            error!(error = %problem, "the data directory could not be moved aside");
        }
        self.give_back(claimed, system_id).await;
    }

    /// Deletes `initialize` only where it holds what this attempt wrote: its claim, or the identifier of what it made, whose
    /// write had been answered by nobody (BEY-32). An identifier of others is their cluster.
    async fn give_back(&self, claimed: Revision, system_id: Option<String>) {
        let given_back = async {
            let cluster = self.store.read(self.within).await?;
            if cluster.own.get(INTENT_KEY).is_none_or(|own| own.value != self.config.name.as_str()) {
                return Ok(()); // The claim is another member's by now.
            }
            let is_claim = cluster.initialize != Initialize::Absent && cluster.initialize_revision == claimed;
            let is_result = system_id.is_some() && cluster.initialize.system_id() == system_id.as_deref();
            if cluster.leader.is_none() && (is_claim || is_result) {
                let seen = Condition::Revision(cluster.initialize_revision);
                self.store.delete(&Key::Initialize, seen, self.within).await?;
            }
            self.drop_claim().await
        };
        if let Err(problem) = given_back.await {
            error!(error = %problem, "the claim in the store could not be given back");
        }
    }
}
