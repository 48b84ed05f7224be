//! Keeps the fencer armed with the deadline of the lease while PostgreSQL is, or may become, writable.
//!
//! Two sides meet here: the cycle says what is protected, the lease task says until when. Either may be first; the
//! fencer is armed as soon as both are known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_core::cluster::Revision;
use pgward_core::time::{BootInstant, fence_deadline};
use tracing::{error, warn};

use crate::fencer::{FencerError, FencerHandle, FencerSettings, Lost};

/// What the fencer shall kill at the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protected {
    /// Whatever runs in the data directory by then: a server that is about to be started as primary.
    BeforeStart,
    /// This postmaster, by pid and start time (`/proc/<pid>/stat`, field 22): a recycled pid never counts.
    Postmaster {
        /// Process id.
        pid: i32,
        /// Start time in clock ticks since boot.
        start_ticks: u64,
    },
}

struct State {
    fencer: FencerHandle,
    protected: Option<Protected>,
    deadline: Option<(BootInstant, Revision)>,
}

/// Shared by the cycle and the lease task.
#[derive(Clone)]
pub struct Fence {
    state: Arc<Mutex<State>>,
    /// Orders reach the fencer in the order in which they were decided: an overtaken one could arm a standby.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The fencer did not confirm: PostgreSQL must not become writable, or must stop.
#[derive(Debug, thiserror::Error)]
pub enum NotFenced {
    /// There is no deadline to give.
    #[error("there is no leader lease to fence by")]
    NoLease,
    /// The fencer refused or did not answer.
    #[error("the fencer did not confirm the deadline: {0}")]
    Fencer(#[from] FencerError),
}

/// What to arm, and with which fencer.
struct Order {
    fencer: FencerHandle,
    protected: Protected,
    deadline: BootInstant,
    epoch: Revision,
}

impl Order {
    async fn give(self) -> Result<(), FencerError> {
        match self.protected {
            Protected::BeforeStart => self.fencer.arm_before_start(self.deadline, self.epoch).await,
            Protected::Postmaster { pid, start_ticks } => {
                self.fencer.arm(pid, start_ticks, self.deadline, self.epoch).await
            }
        }
    }
}

impl Fence {
    /// A fence that protects nothing yet.
    pub fn new(fencer: FencerHandle) -> Self {
        Fence { state: Arc::new(Mutex::new(State { fencer, protected: None, deadline: None })), turn: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Option<Order> {
        let mut state = self.lock();
        change(&mut state);
        let (deadline, epoch) = state.deadline?;
        Some(Order { fencer: state.fencer.clone(), protected: state.protected?, deadline, epoch })
    }

    /// Protects a server: at the deadline of the lease the fencer kills it.
    ///
    /// # Errors
    /// [`NotFenced`] when there is no lease, or the fencer does not confirm in time.
    pub async fn protect(&self, protected: Protected) -> Result<(), NotFenced> {
        let _turn = self.turn.lock().await;
        match self.change(|state| state.protected = Some(protected)) {
            Some(order) => Ok(order.give().await?),
            None => Err(NotFenced::NoLease),
        }
    }

    /// Moves the deadline: a renewal that was sent at `sent` was confirmed.
    pub async fn extend(&self, sent: BootInstant, ttl: Duration, epoch: Revision) {
        let _turn = self.turn.lock().await;
        let deadline = (fence_deadline(sent, ttl), epoch);
        if let Some(order) = self.change(|state| state.deadline = Some(deadline))
            && let Err(problem) = order.give().await
        {
            // The old deadline stays armed, which is safe; the agent replaces a fencer that is gone.
            error!(error = %problem, "the fencer was not told of the renewed lease");
        }
    }

    /// Ends the protection: PostgreSQL is a standby, or has stopped.
    pub async fn disarm(&self) {
        let _turn = self.turn.lock().await;
        let (fencer, was_protected) = {
            let mut state = self.lock();
            (state.fencer.clone(), state.protected.take().is_some())
        };
        if was_protected && let Err(problem) = fencer.disarm().await {
            warn!(error = %problem, "the fencer was not disarmed");
        }
    }

    /// What is protected now.
    pub fn protected(&self) -> Option<Protected> {
        self.lock().protected
    }

    /// Resolves when the fencer is lost.
    pub async fn lost(&self) -> Lost {
        let fencer = self.lock().fencer.clone();
        fencer.lost().await
    }

    /// Starts another fencer in place of one that ended, and gives it the present order.
    ///
    /// # Errors
    /// When none can be started: PostgreSQL must not stay writable then.
    pub async fn replace(&self, settings: FencerSettings) -> Result<(), NotFenced> {
        let fencer = FencerHandle::start_or_adopt(settings).await?;
        let _turn = self.turn.lock().await;
        match self.change(|state| state.fencer = fencer) {
            Some(order) => Ok(order.give().await?),
            None => Ok(()),
        }
    }
}
