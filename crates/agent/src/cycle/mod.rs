//! The cycle: observe, decide, execute; again whenever something happens, and at every tick.
//!
//! Events only wake it; it reads everything again. The tick is the safety net, not the clock (BEY-1).

mod execute;
mod namesake;
mod observe;
mod publish;
mod requests;
mod shutdown;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, KeyWarning, Revision};
use pgward_core::config::{DynamicConfig, LocalConfig};
use pgward_core::decide::failsafe::Round;
use pgward_core::decide::peers::PeerPoll;
use pgward_core::decide::view::{Finished, Lease, Store as SeenStore};
use pgward_core::decide::{Decision, Effect, Memory, Reason, decide};
use pgward_core::sync::pick::Replication;
use pgward_core::time::BootInstant;
use pgward_store::{Store, StoreView};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub(crate) use namesake::Namesake;

use crate::action::Actions;
use crate::consent::Promises;
use crate::fence::Fence;
use crate::fencer::Lost;
use crate::host::Host;
use crate::lease::{LeaseHandle, LeaseState, LeaseTimes};
use crate::local::Local;
use crate::orders::Inbox;
use crate::peers::Peers;
use crate::rest::view::NodeView;
use crate::ring::Recorder;
use crate::server::{Postmaster, Seen, Server};

/// Everything the cycle works with.
pub struct Cycle<S: Store, L: Server> {
    pub(crate) config: Arc<LocalConfig>,
    pub(crate) dynamic: Arc<DynamicConfig>,
    pub(crate) dynamic_revision: Option<Revision>,
    pub(crate) store: S,
    pub(crate) store_view: watch::Receiver<StoreView>,
    pub(crate) decided_on: StoreView,
    pub(crate) decided_lease: Lease,
    pub(crate) lease: LeaseHandle,
    pub(crate) fence: Fence,
    /// When a lost fencer is replaced, at the earliest.
    pub(crate) fencer_due: Instant,
    pub(crate) server: L,
    pub(crate) local: Local<L::Postmaster>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) memory: Memory,
    pub(crate) actions: Actions,
    pub(crate) finished: Vec<Finished>,
    pub(crate) poll: Option<PeerPoll>,
    pub(crate) round: Option<Round>,
    pub(crate) promises: Promises,
    pub(crate) node: watch::Sender<NodeView>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) published: publish::Published,
    pub(crate) last_seen: Option<Seen<L::Postmaster>>,
    pub(crate) warned: HashSet<KeyWarning>,
    pub(crate) namesake: Namesake,
    pub(crate) last_reason: Option<Reason>,
    /// What the log has told since the last decision of another kind, the newest first.
    pub(crate) said: Vec<Reason>,
    /// What the pass before this one did, when it belongs to the same run of passes.
    pub(crate) last_effects: Vec<Effect>,
    /// What kept the last effect from being carried out.
    pub(crate) last_problem: Option<String>,
    pub(crate) next_tick: Instant,
    /// The configuration has changed and PostgreSQL was not told yet.
    pub(crate) server_config_due: bool,
    pub(crate) inbox: Inbox,
    pub(crate) requests: requests::Requests,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) recorder: Recorder,
}

/// How one pass through observe, decide and execute ended.
enum Pass {
    /// Nothing is left to do before something happens, or before this instant.
    Settled(Option<BootInstant>),
    /// The decision changed what it was based on: look again at once.
    Again,
    /// The agent ends.
    Exit { code: u8, leave_postgres: bool },
}

/// How the cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Asked,
    /// A decision ended the agent with this code.
    Decided(u8),
}

/// Pause after a fencer was replaced, in case the new one ends at once, too.
const FENCER_PAUSE: Duration = Duration::from_secs(1);

/// Pause after none could be started: the machine may lack memory or processes for a while.
const NO_FENCER_PAUSE: Duration = Duration::from_secs(5);

/// Reasons of one kind that differ in details, and are told once.
const SAID_MAX: usize = 8;

/// Decisions that follow one another without anything happening outside: more means that two of them disagree.
const PASSES_MAX: usize = 12;

impl<S: Store, L: Server> Cycle<S, L> {
    /// Keeps the decisions there, in place of a memory of its own.
    #[must_use]
    pub fn recorded_by(mut self, recorder: Recorder) -> Self {
        self.recorder = recorder;
        self
    }

    /// Runs until `shutdown`, or until a decision ends the agent. Steps down before it returns.
    pub async fn run(mut self, shutdown: CancellationToken) -> Ended {
        loop {
            let wake_at = match self.passes().await {
                Pass::Settled(wake_at) => wake_at,
                Pass::Again => Some(self.host.boot_now() + execute::RETRY_PAUSE),
                Pass::Exit { code, leave_postgres } => {
                    if !leave_postgres {
                        self.step_down().await;
                    }
                    return Ended::Decided(code);
                }
            };
            self.grant_permit();
            self.next_tick = self.next_tick.max(Instant::now()); // TIM-2: an overrun does not queue up ticks.
            let deadline = wake_at.map(|at| Instant::now() + at.since(self.host.boot_now()));
            let due = self.due_in().map(|due| Instant::now() + due);
            let until = [deadline, due].into_iter().flatten().fold(self.next_tick, Instant::min);
            // One that was seen dead has been decided on; waiting for its end again would spin.
            let alive = self.last_seen.as_ref().is_some_and(|seen| seen.alive);
            let postmaster = self.local.get().postmaster.filter(|_| alive);
            let starting = postmaster.clone().filter(|_| self.local.get().starting_since.is_some());
            let significance = significance(&self.decided_on);
            let mut lease_state = self.lease.state();
            let (fence, fencer_due) = (self.fence.clone(), self.fencer_due);
            let fencer_lost = async {
                sleep_until(fencer_due).await;
                fence.lost().await
            };
            let ended = async {
                match &postmaster {
                    Some(postmaster) => postmaster.exited().await,
                    None => std::future::pending().await,
                }
            };
            // While commits wait for standbys, one that is gone must not wait for the tick.
            let replication = self.waits_for_standbys();
            let standbys_change = async {
                match &replication {
                    Some(before) => self.server.standbys_change(before).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                finished = self.actions.next_ended() => {
                    debug!(action = %finished.kind, outcome = ?finished.outcome, "an action ended");
                    self.requests.ended(&finished);
                    self.finished.push(finished);
                }
                () = ended => info!("the postmaster has ended"),
                lost = fencer_lost => if let Some(ended) = self.replace_fencer(lost).await {
                    return ended;
                },
                () = significant_change(&mut self.store_view, significance) => {}
                () = key_changed(&mut lease_state, &self.decided_lease) => {}
                Some(order) = self.inbox.0.recv() => self.take_order(order),
                () = self.wake.notified() => {}
                () = self.server.becomes_ready(starting) => {}
                () = standbys_change => {}
                () = sleep_until(until) => {}
            }
            if Instant::now() >= self.next_tick {
                self.next_tick = Instant::now() + self.dynamic.timing.loop_wait;
            }
        }
        self.step_down().await;
        Ended::Asked
    }

    /// Who streams from a primary whose commits wait for standbys, or shall.
    fn waits_for_standbys(&self) -> Option<Replication> {
        let facts = self.last_seen.as_ref()?.facts.as_ref()?;
        let leads = !facts.in_recovery && matches!(self.decided_lease, Lease::Held { .. });
        (leads && self.dynamic.is_synchronous()).then(|| facts.replication.clone())
    }

    /// Decides until nothing more follows from the decision itself.
    async fn passes(&mut self) -> Pass {
        self.last_effects.clear();
        for pass in 1..=PASSES_MAX {
            match self.pass(pass == PASSES_MAX).await {
                Pass::Again => {}
                settled @ (Pass::Settled(_) | Pass::Exit { .. }) => return settled,
            }
        }
        warn!(reason = ?self.last_reason, "decisions follow one another without end; waits a moment");
        Pass::Again
    }

    /// One round. What others are told waits until nothing more urgent is to be done, and for the last one.
    async fn pass(&mut self, is_last: bool) -> Pass {
        self.decided_on = self.store_view.borrow_and_update().clone();
        self.refresh_dynamic();
        self.check_schedule();
        let (view, seen) = self.observe().await;
        if let SeenStore::Current(cluster) = &view.store {
            self.look_for_namesake(&view, cluster);
        }
        let (decision, memory) = decide(&view, &self.memory);
        let before = std::mem::replace(&mut self.memory, memory);
        self.recorder.note(&view, before, &decision, &self.memory);
        self.finished.clear();
        self.poll = None;
        self.round = None;
        let repeats = !decision.effects.is_empty()
            && self.last_effects == decision.effects
            && self.last_reason.as_ref() == Some(&decision.reason);
        self.last_effects.clone_from(&decision.effects);
        self.log(&decision);
        self.requests.decided(&decision);
        self.guard(&view, &seen).await;
        self.last_seen = Some(seen);
        self.publish_node(&view);
        self.requests.published();
        let pass = if repeats {
            // It was carried out a moment ago and nothing has changed: once more would change nothing either.
            Pass::Settled(decision.clone().and_wake_at(Some(self.host.boot_now() + execute::RETRY_PAUSE)).wake_at)
        } else {
            self.execute(&decision, &view).await
        };
        if is_last || matches!(pass, Pass::Settled(_)) {
            self.requests.settled(&decision);
            if decision.effects.is_empty() {
                self.refresh_slot_parameters(&view);
                self.apply_configuration(&view).await; // It may find what waits for a restart, which is published.
            }
            self.publish(&view).await;
            if decision.effects.is_empty() {
                self.sync_slots(&view).await;
            }
        }
        pass
    }

    /// One line when the reason changes, not one for each cycle; nor for details that alternate, such as the member of
    /// etcd that does not answer.
    fn log(&mut self, decision: &Decision) {
        if self.last_reason.as_ref().is_some_and(|last| last.is_continued_by(decision)) {
            return debug!(effects = ?decision.effects, reason = %decision.reason, "decided");
        }
        let quiet = decision.effects.is_empty() || decision.only_asks();
        let kind = std::mem::discriminant(&decision.reason);
        if self.last_reason.as_ref().is_none_or(|last| std::mem::discriminant(last) != kind) {
            self.said.clear();
        }
        let said = self.said.contains(&decision.reason);
        if !said {
            self.said.truncate(SAID_MAX - 1);
            self.said.insert(0, decision.reason.clone());
        }
        if said {
            debug!(effects = ?decision.effects, reason = %decision.reason, "decided");
        } else if quiet {
            info!(reason = %decision.reason, rules = ?decision.reason.rules(), "decided");
        } else {
            info!(effects = ?decision.effects, reason = %decision.reason, rules = ?decision.reason.rules(), "decided");
        }
        self.last_reason = Some(decision.reason.clone());
    }

    /// The cycle ran: the lease may be renewed until the next one is overdue.
    fn grant_permit(&self) {
        self.lease.permit_until(self.host.boot_now() + self.patience());
    }

    /// How long the lease is renewed without a sign of life of the cycle.
    fn patience(&self) -> Duration {
        self.dynamic.timing.loop_wait + Duration::from_secs(5)
    }

    /// Takes over a changed dynamic configuration; an unusable one leaves the present one in force (IN-D2).
    fn refresh_dynamic(&mut self) {
        let view = self.decided_on.clone();
        let Some(cluster) = view.current() else { return };
        self.warn_of_keys(cluster);
        let Some(config) = &cluster.config else { return };
        if self.dynamic_revision == Some(config.revision) {
            return;
        }
        self.dynamic_revision = Some(config.revision);
        match DynamicConfig::from_map(&config.value) {
            Ok(dynamic) => {
                for warning in &dynamic.warnings {
                    warn!("dynamic configuration: {warning}");
                }
                self.lease.set_times(lease_times(&dynamic));
                self.fence.watchdog().set_times(dynamic.timing.ttl, dynamic.timing.loop_wait, dynamic.pause);
                self.server_config_due |= self.server.set_dynamic(&dynamic);
                self.server.keep_dynamic(&dynamic.document);
                self.dynamic = Arc::new(dynamic);
            }
            Err(problem) => error!(error = %problem, "the dynamic configuration is not usable; the former one stays"),
        }
    }

    fn warn_of_keys(&mut self, cluster: &Cluster) {
        for warning in &cluster.warnings {
            if self.warned.insert(warning.clone()) {
                warn!(key = %warning.key, "the key {}", warning.problem);
            }
        }
        self.warned.retain(|warning| cluster.warnings.contains(warning));
    }

    /// A fencer that ended is replaced; a displaced one means that another agent manages this data directory.
    async fn replace_fencer(&mut self, lost: Lost) -> Option<Ended> {
        match lost {
            Lost::Ended => {}
            Lost::Displaced => {
                error!("another agent manages this data directory: this one ends and leaves PostgreSQL to it");
                self.actions.abort().await; // INV-S13
                return Some(Ended::Decided(1));
            }
        }
        let replaced = self.fence.replace().await;
        match replaced {
            Ok(()) => {
                self.fencer_due = Instant::now() + FENCER_PAUSE;
                warn!(%lost, "the fencer was lost and is replaced");
            }
            Err(problem) => {
                self.fencer_due = Instant::now() + NO_FENCER_PAUSE;
                error!(%lost, error = %problem, "the fencer was lost and no other can be started");
                // Without one it must not be primary. A standby goes on; it could not be promoted (PRO-3).
                if self.fence.protected().is_some() {
                    self.step_down().await;
                }
            }
        }
        None
    }
}

/// Waits for what is proven about the leader key to differ in kind from what was decided on: a renewal alone wakes
/// nobody.
async fn key_changed(state: &mut watch::Receiver<LeaseState>, decided_on: &Lease) {
    let kind = |key: &Lease| match key {
        Lease::None => (0, None),
        Lease::Held { epoch, .. } => (1, Some(*epoch)),
        Lease::NotOurs { .. } => (2, None),
    };
    // A lease task that has ended renews nothing: the tick and the deadlines go on.
    if state.wait_for(|state| kind(&state.key) != kind(decided_on)).await.is_err() {
        std::future::pending().await
    }
}

/// What of the store a decision depends on. Positions that members publish all the time are not part of it: who needs
/// them reads them anew, and waking for them would let every write of one member wake all the others.
fn significance(view: &StoreView) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let cluster = view.current()?;
    let mut hasher = DefaultHasher::new();
    cluster.initialize_revision.hash(&mut hasher);
    cluster.config.as_ref().map(|config| config.revision).hash(&mut hasher);
    cluster.leader.as_ref().map(|leader| (&leader.name, leader.epoch, leader.revision)).hash(&mut hasher);
    cluster.failover.as_ref().map(|request| request.revision).hash(&mut hasher);
    cluster.sync.revision.hash(&mut hasher);
    cluster.history.as_ref().map(|history| history.revision).hash(&mut hasher);
    cluster.own.iter().for_each(|(name, own)| (name, own.revision).hash(&mut hasher));
    for (name, member) in &cluster.members {
        name.hash(&mut hasher);
        for field in ["state", "role", "timeline", "checkpoint_after_promote", "tags", "conn_url", "api_url"] {
            member.fields.get(field).map(ToString::to_string).hash(&mut hasher);
        }
    }
    Some(hasher.finish())
}

/// Waits until the store says something else than what was decided on.
async fn significant_change(view: &mut watch::Receiver<StoreView>, before: Option<u64>) {
    // The sender lives as long as the store; should it be gone, the tick goes on and the lease runs out.
    if view.wait_for(|view| significance(view) != before).await.is_err() {
        std::future::pending().await
    }
}

/// The times of the lease in a dynamic configuration.
pub(crate) fn lease_times(dynamic: &DynamicConfig) -> LeaseTimes {
    LeaseTimes {
        ttl: dynamic.timing.ttl,
        loop_wait: dynamic.timing.loop_wait,
        retry_timeout: dynamic.timing.retry_timeout,
    }
}
