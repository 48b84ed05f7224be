//! Keeps the fencer armed with the deadline of the lease while PostgreSQL is, or may become, writable.
//!
//! Two sides meet here: the cycle says what is protected, the lease task says until when. Either may be first; the
//! fencer is armed as soon as both are known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_core::cluster::Revision;
use pgward_core::decide::failsafe::Consent;
use pgward_core::mutant::{Mutant, leaves_out};
use pgward_core::time::{BootInstant, fence_deadline};
use tracing::{error, warn};

use crate::fencer::{FencerError, FencerHandle, FencerSettings, Lost};
use crate::host::BoxFuture;
use crate::watchdog::Watchdog;

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
    fencer: Arc<dyn Fencer>,
    protected: Option<Protected>,
    deadline: Option<(BootInstant, Revision)>,
    /// A former agent has armed the fencer, and nothing was ordered since.
    is_inherited: bool,
}

/// Who keeps the deadline: production has the fencer process, [`FencerHandle`].
pub trait Fencer: Send + Sync {
    /// Kills what is protected at the deadline. Returns when that is certain.
    fn arm(&self, order: Order) -> BoxFuture<'_, Result<(), FencerError>>;
    /// Kills nothing.
    fn disarm(&self) -> BoxFuture<'_, Result<(), FencerError>>;
    /// Resolves when it is lost.
    fn lost(&self) -> BoxFuture<'_, Lost>;
    /// Another one in place of one that ended.
    fn replacement(&self) -> BoxFuture<'_, Result<Arc<dyn Fencer>, FencerError>>;
}

/// The process, and how to start another one.
pub struct FencerProcess {
    /// It.
    pub handle: FencerHandle,
    /// How it was started.
    pub settings: FencerSettings,
}

impl Fencer for FencerProcess {
    fn arm(&self, order: Order) -> BoxFuture<'_, Result<(), FencerError>> {
        Box::pin(async move {
            match order.protected {
                Protected::BeforeStart => self.handle.arm_before_start(order.deadline, order.epoch).await,
                Protected::Postmaster { pid, start_ticks } => {
                    self.handle.arm(pid, start_ticks, order.deadline, order.epoch).await
                }
            }
        })
    }

    fn disarm(&self) -> BoxFuture<'_, Result<(), FencerError>> {
        Box::pin(self.handle.disarm())
    }

    fn lost(&self) -> BoxFuture<'_, Lost> {
        Box::pin(self.handle.lost())
    }

    fn replacement(&self) -> BoxFuture<'_, Result<Arc<dyn Fencer>, FencerError>> {
        Box::pin(async {
            let settings = self.settings.clone();
            let handle = FencerHandle::start_or_adopt(settings.clone()).await?;
            Ok(Arc::new(FencerProcess { handle, settings }) as Arc<dyn Fencer>)
        })
    }
}

/// Shared by the cycle and the lease task.
#[derive(Clone)]
pub struct Fence {
    state: Arc<Mutex<State>>,
    /// Beside the fencer: what it guards, the watchdog guards, too.
    watchdog: Arc<Watchdog>,
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
    /// It is required, and cannot be started (WDG-4).
    #[error("the watchdog that is required cannot be used: {0}")]
    Watchdog(String),
}

/// What the fencer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to kill.
    pub protected: Protected,
    /// When.
    pub deadline: BootInstant,
    /// The leadership that ends then.
    pub epoch: Revision,
}

/// How often an order is given that the fencer does not acknowledge: a machine under load may be slow for a moment.
const ATTEMPTS: usize = 3;

async fn give((fencer, order): (Arc<dyn Fencer>, Order)) -> Result<(), FencerError> {
    if leaves_out(Mutant::NoFence) {
        return Ok(());
    }
    for _ in 1..ATTEMPTS {
        match fencer.arm(order).await {
            Err(FencerError::Unacknowledged) => {}
            given => return given,
        }
    }
    fencer.arm(order).await
}

impl Fence {
    /// A fence that protects nothing yet. `is_inherited`: a former agent has armed the fencer.
    pub fn new(fencer: Arc<dyn Fencer>, is_inherited: bool) -> Self {
        let state = State { fencer, protected: None, deadline: None, is_inherited };
        Fence { state: Arc::new(Mutex::new(state)), watchdog: Arc::new(Watchdog::off()), turn: Arc::default() }
    }

    /// With a watchdog beside the fencer. One that a former agent has left running is taken over.
    #[must_use]
    pub fn with_watchdog(mut self, watchdog: Watchdog) -> Self {
        if self.lock().is_inherited {
            // Whoever requires it and cannot have it is told when it is to lead.
            let _ = watchdog.activate();
        }
        self.watchdog = Arc::new(watchdog);
        self
    }

    /// The watchdog.
    pub fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// A former agent has armed the fencer, and nothing was ordered since: it had the leader key.
    pub fn is_inherited(&self) -> bool {
        self.lock().is_inherited
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Option<(Arc<dyn Fencer>, Order)> {
        let mut state = self.lock();
        change(&mut state);
        let (deadline, epoch) = state.deadline?;
        let order = Order { protected: state.protected?, deadline, epoch };
        state.is_inherited = false;
        Some((Arc::clone(&state.fencer), order))
    }

    /// Protects a server: at the deadline of the lease the fencer kills it.
    ///
    /// # Errors
    /// [`NotFenced`] when there is no lease, or the fencer does not confirm in time.
    pub async fn protect(&self, protected: Protected) -> Result<(), NotFenced> {
        let _turn = self.turn.lock().await;
        self.watchdog.activate().map_err(NotFenced::Watchdog)?;
        match self.change(|state| state.protected = Some(protected)) {
            Some(order) => Ok(give(order).await?),
            None => Err(NotFenced::NoLease),
        }
    }

    /// Moves the deadline: a renewal that was sent at `sent` was confirmed.
    pub async fn extend(&self, sent: BootInstant, ttl: Duration, epoch: Revision, now: BootInstant) {
        let _turn = self.turn.lock().await;
        self.watchdog.keep_alive(sent, ttl, now);
        let deadline = (fence_deadline(sent, ttl), epoch);
        if let Some(order) = self.change(|state| state.deadline = Some(deadline))
            && let Err(problem) = give(order).await
        {
            // The old deadline stays armed, which is safe; the agent replaces a fencer that is gone.
            error!(error = %problem, "the fencer was not told of the renewed lease");
        }
    }

    /// Moves the deadline of the present leadership further away: all other members agreed to wait (DCSF-4).
    pub async fn extend_by_consent(&self, consent: Consent, epoch: Revision, now: BootInstant) {
        let _turn = self.turn.lock().await;
        self.watchdog.keep_alive(consent.sent, consent.ttl, now);
        let deadline = fence_deadline(consent.sent, consent.ttl);
        if self.lock().deadline.is_none_or(|(present, of)| of != epoch || deadline <= present) {
            return;
        }
        if let Some(order) = self.change(|state| state.deadline = Some((deadline, epoch)))
            && let Err(problem) = give(order).await
        {
            error!(error = %problem, "the fencer was not told of the consent of the others");
        }
    }

    /// Ends the protection: PostgreSQL is a standby, or has stopped. Nothing is sent when nothing is armed.
    pub async fn disarm(&self) {
        let _turn = self.turn.lock().await;
        let (fencer, protected, is_inherited) = {
            let mut state = self.lock();
            (Arc::clone(&state.fencer), state.protected.take(), std::mem::take(&mut state.is_inherited))
        };
        self.watchdog.disable(); // WDG-5, WDG-6: at the same moments.
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
        let fencer = Arc::clone(&self.lock().fencer);
        fencer.lost().await
    }

    /// Starts another fencer in place of one that ended, and gives it the present order.
    ///
    /// # Errors
    /// When none can be started: PostgreSQL must not stay writable then.
    pub async fn replace(&self) -> Result<(), NotFenced> {
        let ended = Arc::clone(&self.lock().fencer);
        let fencer = ended.replacement().await?;
        let _turn = self.turn.lock().await;
        match self.change(|state| state.fencer = fencer) {
            Some(order) => Ok(give(order).await?),
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
            (Fence::new(Arc::new(notes.clone()), is_inherited), notes)
        }
    }

    impl Fencer for Notes {
        fn arm(&self, order: Order) -> BoxFuture<'_, Result<(), FencerError>> {
            Box::pin(async move { self.note(Note::Armed(order.protected, order.deadline)) })
        }

        fn disarm(&self) -> BoxFuture<'_, Result<(), FencerError>> {
            Box::pin(async { self.note(Note::Disarmed) })
        }

        fn lost(&self) -> BoxFuture<'_, Lost> {
            Box::pin(std::future::pending())
        }

        fn replacement(&self) -> BoxFuture<'_, Result<Arc<dyn Fencer>, FencerError>> {
            Box::pin(async { Err(FencerError::Unacknowledged) })
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
        fence.extend(at(100), TTL, Revision(1), at(100)).await;
        fence.extend(at(106), TTL, Revision(1), at(106)).await;
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
        fence.extend(at(112), TTL, Revision(1), at(112)).await;
        assert_eq!(notes.take(), [Note::Disarmed], "once, and nothing is armed without something to protect");
    }

    #[tokio::test]
    async fn a_fencer_that_did_not_hear_is_disarmed_again() {
        let (fence, notes) = Fence::noting(false);
        fence.extend(at(100), TTL, Revision(1), at(100)).await;
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

    /// WDG-6.
    #[tokio::test]
    async fn the_watchdog_runs_as_long_as_something_is_guarded() {
        use pgward_core::config::{WatchdogConfig, WatchdogMode};

        use crate::watchdog::device_of;

        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("watchdog");
        std::fs::write(&device, "").unwrap();
        let told = || std::fs::read_to_string(&device).unwrap();
        let (mode, driver) = (WatchdogMode::Required, "testing".to_owned());
        let config = WatchdogConfig { mode, driver, device: device.clone(), ..WatchdogConfig::default() };
        let watchdog = || Watchdog::new(&config, device_of(&config), TTL, TTL / 3);
        let (fence, notes) = Fence::noting(false);
        let fence = fence.with_watchdog(watchdog());
        fence.extend(at(100), TTL, Revision(1), at(100)).await;
        assert_eq!(told(), "", "nothing is guarded yet");
        fence.protect(SERVER).await.unwrap();
        fence.extend(at(106), TTL, Revision(1), at(106)).await;
        assert_eq!(told(), "11");
        notes.is_silent(true);
        assert!(fence.protect(Protected::BeforeStart).await.is_err());
        assert_eq!(told(), "11", "a fencer that does not answer ends nothing");
        notes.is_silent(false);
        fence.disarm().await;
        assert_eq!(told(), "11V");
        std::fs::remove_file(&device).unwrap();
        assert!(matches!(fence.protect(SERVER).await, Err(NotFenced::Watchdog(_))), "nothing is guarded by half");
        std::fs::write(&device, "").unwrap();
        let (heir, _) = Fence::noting(true);
        let heir = heir.with_watchdog(watchdog());
        assert_eq!(told(), "1", "what a former agent has left running is taken over");
        heir.disarm().await;
        assert_eq!(told(), "1V");
    }
}
