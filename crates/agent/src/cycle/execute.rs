//! Carries a decision out. There are no choices left to make here: what fails is seen by the next decision.

use pgward_core::cluster::{Cluster, FailoverRequest, Member, Revision};
use pgward_core::decide::failsafe::Round;
use pgward_core::decide::view::{ActionKind, DataDir, Finished, Lease, Outcome, Store as SeenStore, View};
use pgward_core::decide::{Decision, DemoteMode, Effect, StartAs, follow};
use pgward_core::mutant::{Mutant, leaves_out};
use pgward_core::names::MemberName;
use pgward_store::{Condition, Key, Store, StoreError};
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::{Cycle, Pass};
use crate::consent::ConsentRequest;
use crate::fence::{NotFenced, Protected};
use crate::peers;
use crate::server::{Postmaster, Seen, Server};
use crate::work;

/// Pause before what failed is decided anew, when nothing happens before.
pub(super) const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

impl<S: Store, L: Server> Cycle<S, L> {
    /// Runs the effects in their order; the first that fails drops the rest.
    pub(super) async fn execute(&mut self, decision: &Decision, view: &View) -> Pass {
        let mut again = false;
        for effect in &decision.effects {
            if self.is_late(decision, effect) {
                warn!(?effect, "the lease changed since this was decided: it is dropped");
                self.last_effects.clear(); // It was not carried out.
                return Pass::Again;
            }
            match self.carry_out(effect, view).await {
                Ok(Next::Again) => again = true,
                Ok(Next::Started) => {}
                Ok(Next::Exit { code, leave_postgres }) => return Pass::Exit { code, leave_postgres },
                Err(problem) => {
                    let problem = problem.to_string();
                    self.requests.not_begun(&decision.effects, &problem);
                    if self.last_problem.as_ref() == Some(&problem) {
                        debug!(?effect, error = %problem, "could not be carried out; decides anew");
                    } else {
                        warn!(?effect, error = %problem, "could not be carried out; decides anew");
                    }
                    self.last_problem = Some(problem);
                    let soon = Some(self.host.boot_now() + RETRY_PAUSE);
                    return Pass::Settled(decision.clone().and_wake_at(soon).wake_at);
                }
            }
        }
        if !decision.effects.is_empty() && !decision.only_asks() {
            self.last_problem = None;
        }
        if again { Pass::Again } else { Pass::Settled(decision.wake_at) }
    }

    /// INV-S28: a decision made under a lease that is not ours any more, or not long enough, is not carried out.
    fn is_late(&self, decision: &Decision, effect: &Effect) -> bool {
        let lease = self.lease.now().key;
        let epoch = match &lease {
            Lease::Held { epoch, .. } => Some(*epoch),
            Lease::None | Lease::NotOurs { .. } => None,
        };
        effect.needs_lease()
            && !leaves_out(Mutant::PromoteWithoutLease)
            && (epoch != decision.epoch || !lease.is_safe(self.host.boot_now()))
    }

    async fn carry_out(&mut self, effect: &Effect, view: &View) -> Result<Next, Problem> {
        let within = self.dynamic.timing.retry_timeout;
        match effect {
            Effect::Acquire => {
                self.stand()?;
                return match self.lease.acquire().await? {
                    true => Ok(Next::Again),
                    false => Err(Problem::Lost("the leader key was taken by another member first")),
                };
            }
            Effect::Adopt => {
                if !view.postgres.is_primary() {
                    self.stand()?;
                }
                if !self.lease.adopt().await? {
                    return Err(Problem::Lost("the leader key is not ours"));
                }
            }
            Effect::Release => {
                self.release(view).await?;
            }
            Effect::StoreSystemId { over } => {
                let DataDir::Present { system_id: Some(system_id) } = &view.data_dir else {
                    return Err(Problem::Lost("the system identifier is not known any more"));
                };
                self.write(&Key::Initialize, system_id, over.map_or(Condition::Absent, Condition::Revision)).await?;
            }
            Effect::StoreConfig { over } => {
                // What was in force stays in force (IN-D2), unless somebody has written another one meanwhile (BEY-32).
                let value = pgward_core::json::compact(&self.dynamic.document);
                self.write_as_leader(&Key::Config, &value, over.map_or(Condition::Absent, Condition::Revision)).await?;
            }
            Effect::RewriteFailover { request, seen } => {
                let value = request.as_ref().map_or(FailoverRequest::NONE.to_owned(), FailoverRequest::to_value);
                self.write(&Key::Failover, &value, seen.map_or(Condition::Always, Condition::Revision)).await?;
            }
            Effect::StoreHistory(history) => {
                self.write_as_leader(&Key::History, &history.to_value(), Condition::Always).await?;
            }
            Effect::StoreSync { state: Some(state), seen } => {
                // DCS-6, INV-S16
                self.write_as_leader(&Key::Sync, &state.to_value(), Condition::Revision(*seen)).await?;
            }
            Effect::StoreSync { state: None, seen } => {
                let revision = self.store.delete(&Key::Sync, Condition::Revision(*seen), within).await?;
                self.catch_up(revision).await;
            }
            Effect::LoadStandbyNames { names } => self.server.load_standby_names(names.as_deref()).await?,
            Effect::ClearInitialize { seen } => {
                let revision = self.store.delete(&Key::Initialize, Condition::Revision(*seen), within).await?;
                self.catch_up(revision).await;
            }
            Effect::PollPeers(members) => {
                let SeenStore::Current(cluster) = &view.store else {
                    return Err(Problem::Lost("the store is not known any more"));
                };
                self.poll = Some(peers::poll(&*self.peers, cluster, &self.memory, members).await);
            }
            Effect::AskConsent { members, until } => {
                let request = self.consent_request(view);
                let known = self.memory.failsafe.members();
                let asked = known.into_iter().filter(|(name, _)| members.contains(name)).collect();
                let sent = self.host.boot_now();
                let answers = self.peers.ask_consent(&request, asked, until.since(sent)).await;
                self.round = Some(Round { sent, answers });
            }
            Effect::LiveOnConsent { sent } => self.lease.live_on_consent(*sent).await,
            Effect::StoreFailsafe { members, seen } => {
                let value = serde_json::to_string(members).unwrap_or_default();
                self.write_as_leader(&Key::Failsafe, &value, Condition::Revision(*seen)).await?;
            }
            Effect::CancelAction => {
                self.actions.cancel();
                return Ok(Next::Started);
            }
            Effect::ReloadUpstream { upstream } => {
                self.server.reload_upstream(self.member(view, upstream.as_ref()).as_ref()).await?;
            }
            Effect::ResumeReplay => self.server.resume_replay().await?,
            Effect::Exit { code, leave_postgres } => {
                return Ok(Next::Exit { code: *code, leave_postgres: *leave_postgres });
            }
            Effect::Bootstrap
            | Effect::Clone { .. }
            | Effect::Start(_)
            | Effect::Restart(_)
            | Effect::Promote
            | Effect::Demote { .. }
            | Effect::StopImmediately
            | Effect::RestartForUpstream { .. }
            | Effect::CopySlots { .. }
            | Effect::CrashRecover
            | Effect::CheckDivergence { .. }
            | Effect::Rewind { .. }
            | Effect::Checkpoint => {
                self.start_action(effect, view).await?;
                return Ok(Next::Started);
            }
        }
        Ok(Next::Again)
    }

    /// The record of a member as the decision saw it.
    fn member(&self, view: &View, name: Option<&MemberName>) -> Option<pgward_core::cluster::Member> {
        match &view.store {
            SeenStore::Current(cluster) => name.and_then(|name| self.member_named(cluster, name)),
            SeenStore::Lost { .. } => None,
        }
    }

    async fn start_action(&mut self, effect: &Effect, view: &View) -> Result<(), Problem> {
        let (server, local) = (self.server.clone(), self.local.clone());
        let source = |name: &MemberName| {
            self.member(view, Some(name)).ok_or(Problem::Lost("the member is not in the store any more"))
        };
        match effect {
            Effect::Bootstrap => {
                self.stand()?;
                let bootstrap = work::Bootstrap {
                    store: self.store.clone(),
                    lease: self.lease.clone(),
                    fence: self.fence.clone(),
                    server,
                    local,
                    config: self.config.clone(),
                    dynamic: self.dynamic.clone(),
                    within: self.dynamic.timing.retry_timeout,
                };
                self.actions.start(ActionKind::Bootstrap, |progress| bootstrap.run(progress));
            }
            Effect::Clone { source: name, wipe } => {
                let (source, wipe) = (source(name)?, *wipe);
                let leader = match &view.store {
                    SeenStore::Current(cluster) => cluster.leader_member().cloned(),
                    SeenStore::Lost { .. } => None,
                };
                self.end_guard().await?;
                let replaces = match (wipe, leader) {
                    (true, Some(leader)) => Some(leader),
                    (true, None) => return Err(Problem::Lost("nobody leads: what is here may be the only copy")),
                    (false, _) => None,
                };
                self.actions
                    .start(ActionKind::Clone, |progress| work::clone(server, local, source, replaces, progress));
            }
            Effect::Start(StartAs::Primary) => {
                let guarded = self.fence.protect(Protected::BeforeStart).await;
                guarded.map_err(|problem| self.not_guarded(ActionKind::Start, problem))?;
                let (fence, lease) = (self.fence.clone(), self.lease.clone());
                self.actions.start(ActionKind::Start, |_| work::start_primary(server, local, fence, lease));
            }
            Effect::Start(StartAs::Standby { upstream }) => {
                let upstream = self.member(view, upstream.as_ref());
                self.end_guard().await?;
                self.actions.start(ActionKind::Start, |_| work::start_standby(server, local, upstream));
            }
            Effect::Restart(StartAs::Primary) => {
                let guarded = self.fence.protect(Protected::BeforeStart).await; // Before the stop: it goes on whatever follows.
                guarded.map_err(|problem| self.not_guarded(ActionKind::Restart, problem))?;
                let (fence, lease) = (self.fence.clone(), self.lease.clone());
                self.actions.start(ActionKind::Restart, |progress| {
                    work::restart_primary(server, local, fence, lease, progress)
                });
            }
            Effect::Restart(StartAs::Standby { upstream }) => {
                let upstream = self.member(view, upstream.as_ref());
                self.actions.start(ActionKind::Restart, |_| work::restart_standby(server, local, upstream));
            }
            Effect::Promote => {
                self.stand()?;
                let Some(postmaster) = local.get().postmaster else {
                    return Err(Problem::Lost("the postmaster has ended"));
                };
                let protected = Protected::Postmaster { pid: postmaster.pid(), start_ticks: postmaster.start_ticks() };
                let guarded = self.fence.protect(protected).await;
                if !leaves_out(Mutant::PromoteWithoutLease) {
                    guarded.map_err(|problem| self.not_guarded(ActionKind::Promote, problem))?;
                }
                let promote =
                    work::Promote { server, local, lease: self.lease.clone(), limit: self.dynamic.timing.loop_wait };
                self.actions.start(ActionKind::Promote, |progress| promote.run(progress));
            }
            Effect::Demote { mode, .. } => {
                // A demotion does not wait for its turn: what runs was asked to end, or must end now.
                self.finished.extend(self.actions.cancel_and_wait().await);
                let demote = self.demotion(*mode, view);
                self.actions.start(ActionKind::Demote, |_| demote.run());
            }
            Effect::StopImmediately => {
                self.actions.start(ActionKind::Stop, |_| work::stop_immediately(server, local));
            }
            Effect::RestartForUpstream { upstream } => {
                let upstream = self.member(view, upstream.as_ref());
                self.actions.start(ActionKind::ChangeUpstream, |_| work::restart_standby(server, local, upstream));
            }
            Effect::CopySlots { source: name, slots, upstream } => {
                let (source, upstream) = (source(name)?, self.member(view, upstream.as_ref()));
                let copies = work::CopySlots { server, local, source, slots: slots.clone(), upstream };
                self.actions.start(ActionKind::CopySlots, |_| copies.run());
            }
            Effect::CrashRecover => {
                // PostgreSQL is down. At the deadline the fencer would kill the single-user server, too.
                self.end_guard().await?;
                self.actions.start(ActionKind::CrashRecovery, |progress| work::crash_recover(server, progress));
            }
            Effect::CheckDivergence { leader } => {
                let leader = source(leader)?;
                self.actions.start(ActionKind::CheckDivergence, |_| work::check_divergence(server, leader));
            }
            Effect::Rewind { source: name } => {
                let source = source(name)?;
                self.end_guard().await?; // pg_rewind runs a single-user server.
                self.actions.start(ActionKind::Rewind, |progress| work::rewind(server, local, source, progress));
            }
            Effect::Checkpoint => {
                self.actions.start(ActionKind::Checkpoint, |_| work::checkpoint(server));
            }
            Effect::Acquire
            | Effect::Adopt
            | Effect::Release
            | Effect::StoreSystemId { .. }
            | Effect::StoreConfig { .. }
            | Effect::RewriteFailover { .. }
            | Effect::StoreHistory(_)
            | Effect::ClearInitialize { .. }
            | Effect::PollPeers(_)
            | Effect::AskConsent { .. }
            | Effect::LiveOnConsent { .. }
            | Effect::StoreFailsafe { .. }
            | Effect::StoreSync { .. }
            | Effect::LoadStandbyNames { .. }
            | Effect::CancelAction
            | Effect::ReloadUpstream { .. }
            | Effect::ResumeReplay
            | Effect::Exit { .. } => {}
        }
        Ok(())
    }

    /// Who cannot be guarded must not lead, and must not keep others from it: the next decision gives the key up, as after
    /// a script that refused, or a start that failed (PRO-3, REC-12).
    fn not_guarded(&mut self, kind: ActionKind, problem: NotFenced) -> Problem {
        let outcome = match kind {
            ActionKind::Promote => Outcome::Refused(problem.to_string()),
            ActionKind::Start
            | ActionKind::Bootstrap
            | ActionKind::Clone
            | ActionKind::Demote
            | ActionKind::Stop
            | ActionKind::CrashRecovery
            | ActionKind::CheckDivergence
            | ActionKind::Rewind
            | ActionKind::ChangeUpstream
            | ActionKind::Restart
            | ActionKind::CopySlots
            | ActionKind::Checkpoint => Outcome::Failed(problem.to_string()),
        };
        self.finished.push(Finished { kind, outcome });
        Problem::NotFenced(problem)
    }

    /// What it takes to step down.
    pub(super) fn demotion(&self, mode: DemoteMode, view: &View) -> work::Demote<S, L> {
        work::Demote {
            mode,
            server: self.server.clone(),
            local: self.local.clone(),
            lease: self.lease.clone(),
            fence: self.fence.clone(),
            store: self.store.clone(),
            peers: self.peers.clone(),
            stop_timeout: self.dynamic.primary_stop_timeout,
            view: Box::new(view.clone()),
            within: self.dynamic.timing.retry_timeout,
        }
    }

    /// INV-S15: takes a step towards the leadership, unless a promise forbids it. From here on none is made.
    fn stand(&self) -> Result<(), Problem> {
        match self.promises.try_stand() {
            true => Ok(()),
            false => Err(Problem::Lost("this member has promised to wait for a primary without the store")),
        }
    }

    /// What a primary without the store says about itself.
    fn consent_request(&self, view: &View) -> ConsentRequest {
        let slots = self.last_seen.as_ref().map(|seen| seen.details.slots.clone()).unwrap_or_default();
        let own = view.postgres.position().map(|position| (view.me.slot_name(), position));
        let slots = slots.into_iter().chain(own).map(|(slot, lsn)| (slot, lsn.0.into()));
        ConsentRequest {
            name: view.me.clone(),
            conn_url: self.server.conn_url().to_owned(),
            api_url: self.server.api_url().to_owned(),
            slots: slots.collect(),
            ttl: Some(view.settings.ttl),
        }
    }

    /// DEM-12: the key is given up only by a member whose server is proven not to accept writes.
    async fn release(&mut self, view: &View) -> Result<(), Problem> {
        if !view.settings.paused {
            if self.server.may_be_writable(&self.local).await {
                return Err(Problem::Lost("PostgreSQL still runs as primary: the key is kept"));
            }
            self.server.end_leftovers().await?;
        }
        self.fence.disarm().await;
        match self.lease.release().await? {
            true => Ok(()),
            false => Err(Problem::Lost("the leader key is not ours to release: gone, another's, or of another lease")),
        }
    }

    /// Takes the guard from a server that is no primary: not before what a dead postmaster may have left is ended, because
    /// a backend in the middle of a statement can still commit.
    async fn end_guard(&self) -> Result<(), Problem> {
        self.server.end_leftovers().await?;
        self.fence.disarm().await;
        Ok(())
    }

    /// Writes a key and waits until the view shows it, so that the next decision does not write it again.
    async fn write(&mut self, key: &Key, value: &str, condition: Condition) -> Result<(), Problem> {
        let revision = self.store.write(key, value, condition, None, self.dynamic.timing.retry_timeout).await?;
        info!(key = %key.suffix(), "wrote a key");
        self.catch_up(revision).await;
        Ok(())
    }

    /// The same under the condition that the leader key is still ours: a write that arrives late changes nothing (BEY-32).
    async fn write_as_leader(&mut self, key: &Key, value: &str, condition: Condition) -> Result<(), Problem> {
        let (leader, within) = (self.lease.leadership()?, self.dynamic.timing.retry_timeout);
        let revision = self.store.write_as_leader(leader, key, value, condition, within).await?;
        info!(key = %key.suffix(), "wrote a key");
        self.catch_up(revision).await;
        Ok(())
    }

    /// Waits until the watched view has reached a revision; a stalled watch is seen by the next decision.
    pub(super) async fn catch_up(&mut self, revision: Revision) {
        let reached = |cluster: &Cluster| cluster.revision >= revision;
        let caught_up = self.store_view.wait_for(|view| view.current().is_none_or(|cluster| reached(cluster)));
        if timeout(std::time::Duration::from_secs(1), caught_up).await.is_err() {
            warn!("the view of the store lags behind our own write");
        }
    }

    /// Tells a running server of a changed configuration.
    pub(super) async fn apply_configuration(&mut self, view: &View) {
        if !self.server_config_due || !view.postgres.is_running() || view.action.is_some() {
            return;
        }
        let Some(facts) = &view.postgres.facts else { return };
        let upstream = match &view.store {
            SeenStore::Current(cluster) if facts.in_recovery => {
                let upstream = follow::upstream(&view.me, &view.tags, &view.settings, cluster);
                let Some(member) = upstream.and_then(|name| self.member_named(cluster, &name)) else { return };
                Some(Some(member))
            }
            SeenStore::Current(_) if !facts.in_recovery => None,
            SeenStore::Current(_) | SeenStore::Lost { .. } => return,
        };
        let upstream = upstream.as_ref().map(|upstream: &Option<Member>| upstream.as_ref());
        match self.server.apply_configuration(upstream).await {
            Ok(()) => self.server_config_due = false,
            Err(problem) => warn!(error = %problem, "PostgreSQL could not be told of the changed configuration"),
        }
    }

    /// Sees to it that a server which is primary under our lease is guarded, and that a standby is not.
    pub(super) async fn guard(&mut self, view: &View, seen: &Seen<L::Postmaster>) {
        if view.settings.paused {
            return self.fence.disarm().await; // PAU-1
        }
        if !view.postgres.is_primary() {
            let is_standby = seen.facts.as_ref().is_some_and(|facts| facts.in_recovery) && view.action.is_none();
            // What a former agent has armed stays: perhaps it had told this server to promote.
            if is_standby && !matches!(view.lease, Lease::Held { .. }) && self.fence.protected().is_some() {
                self.fence.disarm().await;
            }
            return;
        }
        let Some(postmaster) = &seen.postmaster else { return };
        let wanted = Protected::Postmaster { pid: postmaster.pid(), start_ticks: postmaster.start_ticks() };
        if self.fence.protected() != Some(wanted) && view.lease.is_exclusive(view.now) {
            match self.fence.protect(wanted).await {
                Ok(()) => info!(pid = postmaster.pid(), "the fencer guards PostgreSQL"),
                Err(problem) => error!(error = %problem, "the fencer does not guard PostgreSQL"),
            }
        }
    }
}

/// What follows an effect.
enum Next {
    /// Look again at once: what the decision was based on has changed.
    Again,
    /// A task was started or asked to end; its end wakes the cycle.
    Started,
    /// The agent ends.
    Exit { code: u8, leave_postgres: bool },
}

/// Why an effect was not carried out.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NotFenced(#[from] NotFenced),
    #[error("{0}")]
    Server(#[from] crate::server::ServerError),
    #[error("{0}")]
    Lost(&'static str),
}
