//! Keeps the fencer armed with the deadline of the lease while PostgreSQL is, or may become, writable.
//!
//! Two sides meet here: the cycle says what is protected, the lease task says until when. Either may be first; the
//! fencer is armed as soon as both are known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_core::cluster::Revision;
use pgward_core::time::{BootInstant, fence_deadline};
use tracing::{error, warn};

use crate::fencer::{FencerError, FencerHandle, FencerSettings, Lost, State as FencerState};

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
    fencer: Keeper,
    protected: Option<Protected>,
    deadline: Option<(BootInstant, Revision)>,
    /// A former agent has armed the fencer, and nothing was ordered since.
    is_inherited: bool,
}

/// Who keeps the deadline.
#[derive(Clone)]
enum Keeper {
    Process(FencerHandle),
    /// Notes what it is told.
    #[cfg(test)]
    Notes(tests::Notes),
}

impl Keeper {
    async fn arm(&self, order: &Order) -> Result<(), FencerError> {
        match (self, order.protected) {
            (Keeper::Process(fencer), Protected::BeforeStart) => {
                fencer.arm_before_start(order.deadline, order.epoch).await
            }
            (Keeper::Process(fencer), Protected::Postmaster { pid, start_ticks }) => {
                fencer.arm(pid, start_ticks, order.deadline, order.epoch).await
            }
            #[cfg(test)]
            (Keeper::Notes(notes), _) => notes.arm(order),
        }
    }

    async fn disarm(&self) -> Result<(), FencerError> {
        match self {
            Keeper::Process(fencer) => fencer.disarm().await,
            #[cfg(test)]
            Keeper::Notes(notes) => notes.disarm(),
        }
    }

    async fn lost(&self) -> Lost {
        match self {
            Keeper::Process(fencer) => fencer.lost().await,
            #[cfg(test)]
            Keeper::Notes(_) => std::future::pending().await,
        }
    }
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
    fencer: Keeper,
    protected: Protected,
    deadline: BootInstant,
    epoch: Revision,
}

/// How often an order is given that the fencer does not acknowledge: a machine under load may be slow for a moment.
const ATTEMPTS: usize = 3;

impl Order {
    async fn give(self) -> Result<(), FencerError> {
        for _ in 1..ATTEMPTS {
            match self.fencer.arm(&self).await {
                Err(FencerError::Unacknowledged) => {}
                given => return given,
            }
        }
        self.fencer.arm(&self).await
    }
}

impl Fence {
    /// A fence that protects nothing yet.
    pub fn new(fencer: FencerHandle) -> Self {
        let is_inherited = matches!(fencer.adopted_state(), FencerState::Armed(_));
        Fence::with(Keeper::Process(fencer), is_inherited)
    }

    fn with(fencer: Keeper, is_inherited: bool) -> Self {
        let state = State { fencer, protected: None, deadline: None, is_inherited };
        Fence { state: Arc::new(Mutex::new(state)), turn: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Option<Order> {
        let mut state = self.lock();
        change(&mut state);
        let (deadline, epoch) = state.deadline?;
        let order = Order { fencer: state.fencer.clone(), protected: state.protected?, deadline, epoch };
        state.is_inherited = false;
        Some(order)
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

    /// Ends the protection: PostgreSQL is a standby, or has stopped. Nothing is sent when nothing is armed.
    pub async fn disarm(&self) {
        let _turn = self.turn.lock().await;
        let (fencer, protected, is_inherited) = {
            let mut state = self.lock();
            (state.fencer.clone(), state.protected.take(), std::mem::take(&mut state.is_inherited))
        };
        if protected.is_none() && !is_inherited {
            return;
        }
        if let Err(problem) = fencer.disarm().await {
            // It would kill a standby at the old deadline: the next cycle tries again.
            warn!(error = %problem, "the fencer was not disarmed");
            let mut state = self.lock();
            state.protected = state.protected.or(protected);
            state.is_inherited = is_inherited;
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
        match self.change(|state| state.fencer = Keeper::Process(fencer)) {
            Some(order) => Ok(order.give().await?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fencer that only notes what it is told.
    #[derive(Clone, Default)]
    pub(crate) struct Notes(Arc<Mutex<Vec<Note>>>, Arc<Mutex<bool>>);

    /// An order.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Note {
        Armed(Protected, BootInstant),
        Disarmed,
    }

    impl Notes {
        pub(super) fn arm(&self, order: &Order) -> Result<(), FencerError> {
            self.note(Note::Armed(order.protected, order.deadline))
        }

        pub(super) fn disarm(&self) -> Result<(), FencerError> {
            self.note(Note::Disarmed)
        }

        fn note(&self, note: Note) -> Result<(), FencerError> {
            if *self.1.lock().unwrap() {
                return Err(FencerError::Unacknowledged);
            }
            self.0.lock().unwrap().push(note);
            Ok(())
        }

        /// From now on it answers, or does not.
        fn is_silent(&self, silent: bool) {
            *self.1.lock().unwrap() = silent;
        }

        /// What it was told since the last call.
        pub(crate) fn take(&self) -> Vec<Note> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl Fence {
        /// A fence without a process.
        pub(crate) fn noting(is_inherited: bool) -> (Fence, Notes) {
            let notes = Notes::default();
            (Fence::with(Keeper::Notes(notes.clone()), is_inherited), notes)
        }
    }

    fn at(seconds: u64) -> BootInstant {
        BootInstant(Duration::from_secs(seconds))
    }

    const TTL: Duration = Duration::from_secs(30);
    const SERVER: Protected = Protected::Postmaster { pid: 7, start_ticks: 70 };

    #[tokio::test]
    async fn it_is_armed_as_soon_as_both_sides_have_spoken() {
        let (fence, notes) = Fence::noting(false);
        assert!(matches!(fence.protect(SERVER).await, Err(NotFenced::NoLease)));
        fence.extend(at(100), TTL, Revision(1)).await;
        fence.extend(at(106), TTL, Revision(1)).await;
        fence.protect(Protected::BeforeStart).await.unwrap();
        let deadline = |sent| fence_deadline(at(sent), TTL);
        let armed = [
            Note::Armed(SERVER, deadline(100)),
            Note::Armed(SERVER, deadline(106)),
            Note::Armed(Protected::BeforeStart, deadline(106)),
        ];
        assert_eq!(notes.take(), armed);
        fence.disarm().await;
        fence.disarm().await;
        fence.extend(at(112), TTL, Revision(1)).await;
        assert_eq!(notes.take(), [Note::Disarmed], "once, and nothing is armed without something to protect");
    }

    #[tokio::test]
    async fn a_fencer_that_did_not_hear_is_disarmed_again() {
        let (fence, notes) = Fence::noting(false);
        fence.extend(at(100), TTL, Revision(1)).await;
        fence.protect(SERVER).await.unwrap();
        notes.take();
        notes.is_silent(true);
        fence.disarm().await;
        assert!(matches!(fence.protect(SERVER).await, Err(NotFenced::Fencer(FencerError::Unacknowledged))));
        notes.is_silent(false);
        fence.disarm().await;
        assert_eq!(notes.take(), [Note::Disarmed]);
    }

    #[tokio::test]
    async fn what_a_former_agent_has_armed_is_disarmed_too() {
        let (fence, notes) = Fence::noting(true);
        fence.disarm().await;
        fence.disarm().await;
        assert_eq!(notes.take(), [Note::Disarmed]);
    }
}
