//! Keeps the leader lease: a small task of its own, so that a slow cycle does not lose it, under a permit, so that a
//! hung one does (BEY-2).
//!
//! All operations on the leader key go through this task, one at a time: a release can never race with a renewal.
//!
//! Invariants:
//! - the lease counts from just before the renewal was sent (TIM-4);
//! - "not ours" is published only when the store has proved it; "unknown" leaves the last proof in place, which runs out
//!   by itself (DCS-2);
//! - every confirmed renewal is told to the fencer before it is told to anybody else;
//! - the name in the leader key proves nothing: the key is ours under a lease that this process has or had, and, until the
//!   store has answered for the first time, under the one that it was found with when the agent started (BEY-31).

use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{LeaseId, Revision};
use pgward_core::decide::failsafe::Consent;
use pgward_core::decide::view::Lease;
use pgward_core::mutant::{Mutant, leaves_out};
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use pgward_store::{AcquireOutcome, RenewOutcome, Renewal, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::fence::Fence;
use crate::host::Host;

/// The times that the lease is kept by; from the dynamic configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Length of the lease.
    pub ttl: Duration,
    /// The tick of the cycle.
    pub loop_wait: Duration,
    /// Budget of one store operation.
    pub retry_timeout: Duration,
}

impl LeaseTimes {
    /// A renewal is sent this often: five chances in the life of a lease (BEY-2).
    fn renew_every(&self) -> Duration {
        self.loop_wait.min(self.ttl / 5)
    }

    /// How long one renewal may take before it is sent again.
    fn renew_within(&self) -> Duration {
        self.retry_timeout.min(self.ttl / 6)
    }
}

/// Pause before a failed renewal is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// How many former leases are remembered. Each change of the `ttl` leaves one behind, which lives for one `ttl` at most.
const FORMER_MAX: usize = 8;

/// Requests in flight: the cycle sends one at a time, the shutdown another.
const QUEUE: usize = 8;

/// What the task publishes.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseState {
    /// The lease that our keys are bound to; `None` until the store has granted one.
    pub id: Option<LeaseId>,
    /// What is proven about the leader key.
    pub key: Lease,
    /// The revision of the leader key that was proven ours, while it is [`Lease::Held`]: what only the leader writes
    /// depends on it (BEY-32).
    pub revision: Option<Revision>,
    /// All other members agreed to wait, after the last renewal that the store confirmed (DCSF-4).
    pub consent: Option<Consent>,
    /// What the last failed request met.
    pub error: Option<String>,
}

impl LeaseState {
    /// When a primary that neither the store nor the other members confirm any more has to begin to stop.
    fn demote_at(&self) -> Option<BootInstant> {
        let by_lease = self.key.demote_at()?;
        Some(self.consent.map_or(by_lease, |consent| consent.demote_at().max(by_lease)))
    }

    /// What is proven has changed: the consent that came before it is over.
    fn set_key(&mut self, key: Lease, revision: Option<Revision>) {
        self.key = key;
        self.revision = revision;
        self.consent = None;
    }
}

enum Command {
    Acquire(oneshot::Sender<Result<bool, StoreError>>),
    Adopt(oneshot::Sender<Result<bool, StoreError>>),
    Take(oneshot::Sender<Result<bool, StoreError>>),
    Release(oneshot::Sender<Result<bool, StoreError>>),
    Claim(oneshot::Sender<Result<bool, StoreError>>),
    Forget,
    Check,
}

/// Reaches the task.
#[derive(Clone)]
pub struct LeaseHandle {
    commands: mpsc::Sender<Command>,
    state: Arc<watch::Sender<LeaseState>>,
    fence: Fence,
    permit: watch::Sender<BootInstant>,
    times: watch::Sender<LeaseTimes>,
    host: Arc<dyn Host>,
}

impl LeaseHandle {
    /// Now on the clock that the lease is counted on.
    pub fn boot_now(&self) -> BootInstant {
        self.host.boot_now()
    }

    /// True when so much of the lease is left that something may be begun under it (PRO-12).
    pub fn is_safe(&self) -> bool {
        self.now().key.is_safe(self.boot_now())
    }

    /// The newest state; wakes at every change.
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.subscribe()
    }

    /// The newest state.
    pub fn now(&self) -> LeaseState {
        self.state.borrow().clone()
    }

    /// Lets the task renew until `until`: the cycle says that it ran and found the member healthy.
    pub fn permit_until(&self, until: BootInstant) {
        self.permit.send_replace(until);
    }

    /// Sets the times; a changed ttl makes the task move its keys to a new lease (DCS-E9).
    pub fn set_times(&self, times: LeaseTimes) {
        self.times.send_if_modified(|present| std::mem::replace(present, times) != times);
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<bool, StoreError>>) -> Command,
    ) -> Result<bool, StoreError> {
        let ended = || StoreError::Other("the lease task has ended".to_owned());
        let (answer, receiver) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| ended())?;
        receiver.await.map_err(|_| ended())?
    }

    /// Creates the leader key (DCS-1). False: somebody else has it.
    pub async fn acquire(&self) -> Result<bool, StoreError> {
        self.ask(Command::Acquire).await
    }

    /// Proves that the key that names us is ours (DCS-2). False: it is not.
    pub async fn adopt(&self) -> Result<bool, StoreError> {
        self.ask(Command::Adopt).await
    }

    /// Overwrites the leader key at the end of a bootstrap (DCS-4).
    pub async fn take(&self) -> Result<bool, StoreError> {
        self.ask(Command::Take).await
    }

    /// From here on every extension of the lease moves the fencer's deadline, although there is no leader key yet: the claim
    /// to create a cluster lives under this lease, and with it ends the right to run the new primary (BEY-23). True when the
    /// lease was extended just now.
    pub async fn guard_claim(&self) -> Result<bool, StoreError> {
        self.ask(Command::Claim).await
    }

    /// The revision of the leader key while it is proven ours, for what only the leader writes (BEY-32).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not proven.
    pub fn leadership(&self) -> Result<Revision, StoreError> {
        self.state.borrow().revision.ok_or_else(|| StoreError::Conflict { key: "leader".to_owned() })
    }

    /// Deletes the leader key if it is ours (DCS-3). The caller has made sure that PostgreSQL is not writable.
    pub async fn release(&self) -> Result<bool, StoreError> {
        self.ask(Command::Release).await
    }

    /// Resolves when the lease is not held, or too little of it is left to go on under it. Can be dropped.
    pub async fn runs_out(&self) {
        let mut state = self.state();
        loop {
            let deadline = state.borrow_and_update().demote_at();
            let Some(left) = deadline.map(|deadline| deadline.since(self.boot_now())).filter(|left| !left.is_zero())
            else {
                return;
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep(left) => {}
                changed = state.changed() => if changed.is_err() {
                    // A task that has ended renews nothing: what is left of the lease is all there is.
                    return tokio::time::sleep(left).await;
                },
            }
        }
    }

    /// All others agreed to wait, in a round that began at `sent`: under a lease that is held, this counts as a renewal of it
    /// (DCSF-4). The fencer learns of it first. It does not wait for a renewal that hangs.
    pub async fn live_on_consent(&self, sent: BootInstant) {
        let ttl = self.times.borrow().ttl;
        let Lease::Held { ttl: granted, epoch, .. } = self.now().key else { return };
        let consent = Consent { sent, ttl: granted.min(ttl) };
        self.fence.extend_by_consent(consent, epoch, self.boot_now()).await;
        self.state.send_if_modified(|state| {
            let holds = matches!(&state.key, Lease::Held { epoch: held, sent: renewed, .. } if *held == epoch && *renewed < sent);
            if holds {
                state.consent = Some(consent);
            }
            holds
        });
    }

    /// Asks for a renewal now: a write was refused because the lease is gone.
    pub fn check(&self) {
        // With a full queue the task is about to talk to the store anyway.
        let _ = self.commands.try_send(Command::Check);
    }

    /// Stops renewing the leader key without touching it: it expires by time (offline and nolock demotions).
    pub async fn forget(&self) {
        // A task that has ended renews nothing either.
        let _ = self.commands.send(Command::Forget).await;
    }
}

/// The task. See the module.
pub struct LeaseKeeper<S> {
    store: S,
    me: MemberName,
    fence: Fence,
    commands: mpsc::Receiver<Command>,
    state: Arc<watch::Sender<LeaseState>>,
    permit: watch::Receiver<BootInstant>,
    times: watch::Receiver<LeaseTimes>,
    next: Instant,
    was_permitted: bool,
    /// The ttl that the present lease was asked for with; the store may have rounded it.
    asked_for: Option<Duration>,
    /// Leases that this process had before, the newest last.
    former: Vec<LeaseId>,
    /// What the agent before this one may have left behind.
    legacy: Legacy,
    /// A claim to create a cluster lives under the lease (BEY-23).
    guards_claim: bool,
    host: Arc<dyn Host>,
}

/// Whether a former agent of this member may have had the leader key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// The server here may have led: it is no standby, or a fencer guards it.
    MayHaveLed,
    /// A standby or nothing at all was found here: a leader key with our name is another agent's.
    HasNotLed,
}

/// The lease under which the leader key named this member when its agent started (REC-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Legacy {
    /// The store was not seen yet.
    Unseen,
    /// It may be that of our predecessor. Used once: a key that was taken from us is not taken back (BEY-31).
    Lease(LeaseId),
    /// There is none.
    Nothing,
}

impl<S: Store> LeaseKeeper<S> {
    /// A keeper that holds nothing yet, and the handle to it.
    pub fn new(
        store: S,
        me: MemberName,
        predecessor: Predecessor,
        fence: Fence,
        times: LeaseTimes,
        host: Arc<dyn Host>,
    ) -> (Self, LeaseHandle) {
        let (command_sender, commands) = mpsc::channel(QUEUE);
        let state = LeaseState { id: None, key: Lease::None, revision: None, consent: None, error: None };
        let state = Arc::new(watch::Sender::new(state));
        // Until the first cycle has run, the task may get a lease and keep it for one ttl.
        let (permit_sender, permit) = watch::channel(host.boot_now() + times.ttl);
        let (times_sender, times) = watch::channel(times);
        let legacy = match predecessor {
            Predecessor::MayHaveLed => Legacy::Unseen,
            Predecessor::HasNotLed => Legacy::Nothing,
        };
        let mut keeper = LeaseKeeper {
            store,
            me,
            fence: fence.clone(),
            commands,
            state: Arc::clone(&state),
            permit,
            times,
            next: Instant::now(),
            was_permitted: true,
            asked_for: None,
            former: Vec::new(),
            legacy,
            guards_claim: false,
            host: Arc::clone(&host),
        };
        keeper.look_back();
        let handle =
            LeaseHandle { commands: command_sender, state, fence, permit: permit_sender, times: times_sender, host };
        (keeper, handle)
    }

    /// Renews and obeys until `shutdown`, which comes after the last release.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut view = self.store.view();
        loop {
            self.look_back();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Ok(()) = view.changed(), if self.legacy == Legacy::Unseen => {}
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => break,
                },
                Ok(()) = self.times.changed() => self.change_times(),
                () = sleep_until(self.next) => self.keep().await,
            }
        }
    }

    fn times(&self) -> LeaseTimes {
        *self.times.borrow()
    }

    fn publish(&self, change: impl FnOnce(&mut LeaseState)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// Notes the lease under which the key names us in the first picture of the store. What appears there later under a
    /// lease that is none of ours is another agent's.
    fn look_back(&mut self) {
        if self.legacy != Legacy::Unseen {
            return;
        }
        let Some(cluster) = self.store.view().borrow().current().cloned() else { return };
        let leader = cluster.leader.as_ref().filter(|leader| leader.name == self.me);
        let lease = leader.map(|leader| leader.lease).filter(|lease| *lease != LeaseId::default());
        self.legacy = lease.map_or(Legacy::Nothing, Legacy::Lease);
    }

    /// The leases that our predecessor and this process have had.
    fn former_and_legacy(&self) -> Vec<LeaseId> {
        let legacy = match self.legacy {
            Legacy::Lease(lease) => Some(lease),
            Legacy::Unseen | Legacy::Nothing => None,
        };
        self.former.iter().copied().chain(legacy).collect()
    }

    /// Gives the present lease up, not the keys that are bound to it: a renewal takes them over (DCS-E2, DCS-E9).
    fn leave_lease(&mut self) {
        let left = self.state.borrow().id;
        self.former.extend(left);
        let surplus = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..surplus);
        self.publish(|state| state.id = None);
    }

    /// What the task proves, or stops to claim, about the leader key.
    fn publish_key(&self, key: Lease, revision: Option<Revision>) {
        self.publish(|state| state.set_key(key, revision));
    }

    /// One round: a lease if there is none; a renewal of the key if we lead; else of the lease alone.
    async fn keep(&mut self) {
        let times = self.times();
        self.next = Instant::now() + times.renew_every();
        if self.host.boot_now() >= *self.permit.borrow() {
            if std::mem::take(&mut self.was_permitted) {
                warn!("the cycle has not reported for too long: the lease is not renewed any more");
            }
            self.next = Instant::now() + RETRY_PAUSE;
            return;
        }
        self.was_permitted = true;
        let result = self.renew_once(times).await;
        if let Err(error) = result {
            self.next = Instant::now() + RETRY_PAUSE;
            let text = error.to_string();
            if self.state.borrow().error.as_ref() != Some(&text) {
                warn!(error = %text, "the lease could not be renewed");
            }
            self.publish(|state| state.error = Some(text));
        }
    }

    async fn renew_once(&mut self, times: LeaseTimes) -> Result<(), StoreError> {
        let lease = self.lease(times).await?;
        if matches!(self.state.borrow().key, Lease::Held { .. }) {
            return self.renew(lease, self.former.clone(), times).await.map(|_| ());
        }
        match self.store.keep_alive(lease, times.renew_within()).await? {
            Some(kept) if self.guards_claim => {
                self.fence.extend(kept.sent, kept.ttl, Revision::default(), self.host.boot_now()).await
            }
            Some(_) => {}
            None => {
                self.guards_claim = false; // It is gone with its lease.
                self.leave_lease();
                self.lease(times).await?;
            }
        }
        self.publish(|state| state.error = None);
        Ok(())
    }

    /// The present lease, or a new one.
    async fn lease(&mut self, times: LeaseTimes) -> Result<LeaseId, StoreError> {
        if let Some(id) = self.state.borrow().id {
            return Ok(id);
        }
        let id = self.store.grant(times.ttl, times.renew_within()).await?;
        self.asked_for = Some(times.ttl);
        self.publish(|state| state.id = Some(id));
        Ok(id)
    }

    /// Renews with proof. A lease that is gone is replaced once; the key then counts only if it still names us, under one of
    /// the `former` leases.
    async fn renew(&mut self, lease: LeaseId, mut former: Vec<LeaseId>, times: LeaseTimes) -> Result<bool, StoreError> {
        let within = times.renew_within();
        let outcome = match self.store.renew(&self.me, lease, &former, within).await {
            Err(StoreError::LeaseGone) => {
                self.leave_lease();
                former.push(lease);
                let lease = self.lease(times).await?;
                self.store.renew(&self.me, lease, &former, within).await?
            }
            other => other?,
        };
        self.legacy = Legacy::Nothing; // The store has answered: from here on only what this process had is ours.
        match outcome {
            RenewOutcome::Renewed(renewal) => {
                self.hold(renewal).await;
                Ok(true)
            }
            RenewOutcome::NotOurs { holder } => {
                self.tell_of_loss(holder.as_ref());
                self.publish_key(Lease::NotOurs { holder }, None);
                self.publish(|state| state.error = None);
                self.next = Instant::now(); // The lease may be gone with the key: our record needs one.
                Ok(false)
            }
        }
    }

    /// BEY-31: a key that holds our own name is the hardest loss to understand.
    fn tell_of_loss(&self, holder: Option<&MemberName>) {
        let is_namesake = holder == Some(&self.me);
        if !is_namesake {
            warn!(holder = ?holder, "the leader key is not ours any more");
        } else if matches!(self.state.borrow().key, Lease::Held { .. }) {
            error!(
                member = %self.me,
                "another agent with the name of this member has taken the leader key: two members have one name; give \
                 one of them another `name` and restart its agent"
            );
        } else {
            warn!(
                member = %self.me,
                "the leader key holds our name under a lease that is not ours: it was left by a former agent and runs \
                 out, or a second member has this name"
            );
        }
    }

    async fn hold(&mut self, mut renewal: Renewal) {
        if leaves_out(Mutant::LeaseFromAnswer) {
            renewal.sent = self.host.boot_now();
        }
        self.guards_claim = false;
        self.fence.extend(renewal.sent, renewal.ttl, renewal.epoch, self.host.boot_now()).await;
        self.legacy = Legacy::Nothing;
        let held = Lease::Held { sent: renewal.sent, ttl: renewal.ttl, epoch: renewal.epoch };
        self.publish(|state| {
            state.set_key(held, Some(renewal.revision));
            state.error = None;
        });
        self.next = Instant::now() + self.times().renew_every();
    }

    async fn obey(&mut self, command: Command) {
        let times = self.times();
        // A caller that has gone does not need the answer; the state tells everybody.
        match command {
            Command::Acquire(answer) => drop(answer.send(self.acquire(times).await)),
            Command::Adopt(answer) => drop(answer.send(self.adopt(times).await)),
            Command::Take(answer) => drop(answer.send(self.take(times).await)),
            Command::Release(answer) => drop(answer.send(self.release(times).await)),
            Command::Claim(answer) => drop(answer.send(self.claim(times).await)),
            Command::Forget => {
                self.guards_claim = false;
                self.publish_key(Lease::None, None);
            }
            Command::Check => self.next = Instant::now(),
        }
    }

    async fn acquire(&mut self, times: LeaseTimes) -> Result<bool, StoreError> {
        let lease = self.lease(times).await?;
        let outcome = match self.store.acquire(&self.me, lease, times.retry_timeout).await {
            Err(StoreError::LeaseGone) => {
                self.leave_lease();
                let lease = self.lease(times).await?;
                self.store.acquire(&self.me, lease, times.retry_timeout).await? // DCS-E3
            }
            other => other?,
        };
        match outcome {
            AcquireOutcome::Acquired(renewal) => {
                info!(epoch = renewal.epoch.0, "acquired the leader key");
                self.hold(renewal).await;
                Ok(true)
            }
            AcquireOutcome::Held => Ok(false),
        }
    }

    async fn adopt(&mut self, times: LeaseTimes) -> Result<bool, StoreError> {
        let lease = self.lease(times).await?;
        self.renew(lease, self.former_and_legacy(), times).await
    }

    async fn take(&mut self, times: LeaseTimes) -> Result<bool, StoreError> {
        let lease = self.lease(times).await?;
        let renewal = match self.store.take(&self.me, lease, times.retry_timeout).await {
            Err(StoreError::LeaseGone) => {
                self.leave_lease();
                let lease = self.lease(times).await?;
                self.store.take(&self.me, lease, times.retry_timeout).await?
            }
            other => other?,
        };
        self.hold(renewal).await;
        Ok(true)
    }

    async fn claim(&mut self, times: LeaseTimes) -> Result<bool, StoreError> {
        self.guards_claim = true;
        self.renew_once(times).await?;
        Ok(self.guards_claim)
    }

    async fn release(&mut self, times: LeaseTimes) -> Result<bool, StoreError> {
        // Whatever the store answers, from here on this member does not believe to lead.
        self.publish_key(Lease::None, None);
        let mut leases = self.former_and_legacy();
        leases.extend(self.state.borrow().id);
        let released = self.store.release(&self.me, &leases, times.retry_timeout).await?;
        if released {
            info!("released the leader key");
        }
        Ok(released)
    }

    /// DCS-E9: the old lease is left to expire; keys move to a new one at the next renewal.
    fn change_times(&mut self) {
        self.next = Instant::now();
        if self.asked_for != Some(self.times().ttl) {
            self.guards_claim = false; // It stays with the lease that is left to expire.
            self.leave_lease();
        }
    }
}

#[cfg(test)]
mod tests;
