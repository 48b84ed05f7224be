//! Keeps the fencer armed with the deadline of the lease while PostgreSQL is, or may become, writable.
//!
//! Two sides meet here: the cycle says which postmaster is protected, the lease task says until when. Either may be
//! first; the fencer is armed as soon as both are known.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgward_core::cluster::Revision;
use pgward_core::time::{BootInstant, fence_deadline};
use tracing::error;

use crate::fencer::FencerHandle;

/// A postmaster, by identity: a recycled pid never counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
}

#[derive(Debug, Default)]
struct Both {
    protected: Option<Protected>,
    deadline: Option<(BootInstant, Revision)>,
}

/// Shared by the cycle and the lease task.
#[derive(Clone)]
pub struct Fence {
    both: Arc<Mutex<Both>>,
    fencer: FencerHandle,
}

/// The fencer did not confirm: PostgreSQL must not become writable, or must stop.
#[derive(Debug, thiserror::Error)]
#[error("the fencer did not confirm the deadline: {0}")]
pub struct NotFenced(pub String);

impl Fence {
    /// A fence that protects nothing yet.
    pub fn new(fencer: FencerHandle) -> Self {
        Fence { both: Arc::default(), fencer }
    }

    fn update(&self, change: impl FnOnce(&mut Both)) -> Option<(Protected, BootInstant, Revision)> {
        let mut both = self.both.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut both);
        let (deadline, epoch) = both.deadline?;
        Some((both.protected?, deadline, epoch))
    }

    /// Protects this postmaster: at the deadline of the lease the fencer kills it.
    ///
    /// # Errors
    /// [`NotFenced`] when there is no lease, or the fencer does not confirm in time.
    pub async fn protect(&self, protected: Protected) -> Result<(), NotFenced> {
        match self.update(|both| both.protected = Some(protected)) {
            Some(armed) => self.arm(armed).await,
            None => Err(NotFenced("there is no leader lease".to_owned())),
        }
    }

    /// Moves the deadline: a renewal that was sent at `sent` was confirmed.
    pub async fn extend(&self, sent: BootInstant, ttl: Duration, epoch: Revision) {
        let deadline = (fence_deadline(sent, ttl), epoch);
        if let Some(armed) = self.update(|both| both.deadline = Some(deadline))
            && let Err(problem) = self.arm(armed).await
        {
            // The old deadline stays armed, which is safe; the cycle restarts a fencer that is gone.
            error!(error = %problem, "the fencer was not told of the renewed lease");
        }
    }

    /// Ends the protection: PostgreSQL is a standby, or has stopped.
    pub async fn disarm(&self) {
        let was_protected = {
            let mut both = self.both.lock().unwrap_or_else(PoisonError::into_inner);
            both.protected.take().is_some()
        };
        if was_protected && let Err(problem) = self.fencer.disarm().await {
            error!(error = %problem, "the fencer was not disarmed");
        }
    }

    /// What is protected now.
    pub fn protected(&self) -> Option<Protected> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner).protected
    }

    async fn arm(&self, (protected, deadline, epoch): (Protected, BootInstant, Revision)) -> Result<(), NotFenced> {
        let armed = self.fencer.arm(protected.pid, protected.start_ticks, deadline, epoch).await;
        armed.map_err(|problem| NotFenced(problem.to_string()))
    }
}
