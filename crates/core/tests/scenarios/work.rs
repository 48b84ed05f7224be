//! The long actions of the model: what each does, and when.

use std::collections::VecDeque;
use std::time::Duration;

use pgward_core::cluster::{Initialize, MemberRole, PostgresState};
use pgward_core::decide::bootstrap::{INTENT_ALIVE_KEY, INTENT_KEY};
use pgward_core::decide::rewind::ControlState;
use pgward_core::decide::view::{ActionKind, Finished, Lease, Outcome};
use pgward_core::decide::{DemoteMode, StartAs};
use pgward_core::names::MemberName;
use pgward_core::time::{BootInstant, fence_deadline};

use crate::postgres::{Data, Postgres, Stop};
use crate::store::{Condition, Refused};
use crate::world::{Trouble, World};

/// One long action.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    pub(crate) kind: ActionKind,
    pub(crate) since: BootInstant,
    /// When its next step is done.
    pub(crate) due: BootInstant,
    pub(crate) committed: bool,
    pub(crate) cancelled: bool,
    steps: VecDeque<Step>,
}

/// What an action does when its time has come.
#[derive(Clone, Debug)]
enum Step {
    Initdb,
    FinishBootstrap,
    Copy {
        source: MemberName,
    },
    Spawn(StartAs),
    Promote,
    AwaitPromotion {
        patience: BootInstant,
    },
    Demote {
        mode: DemoteMode,
        stop: Stop,
    },
    StopImmediately,
    Recover,
    Compare {
        leader: MemberName,
    },
    StopForRewind {
        source: MemberName,
    },
    /// From the postmaster that it has been connected to since the beginning.
    Rewind {
        source: MemberName,
        process: u64,
    },
    Restart {
        upstream: Option<MemberName>,
    },
    Checkpoint,
}

/// What follows a step.
enum Then {
    End(Outcome),
    /// The next step, which is done after this time.
    Next(Step, Duration),
}

/// Where the claim to create the cluster is announced.
pub(crate) fn own(key: &str) -> String {
    format!("x/{key}")
}

impl World {
    fn begin(&mut self, name: &MemberName, kind: ActionKind, step: Step, within: Duration) {
        let since = self.now;
        let action =
            Action { kind, since, due: since + within, committed: false, cancelled: false, steps: [step].into() };
        self.check_one_action(name, kind);
        let agent = self.agent_mut(name);
        if kind == ActionKind::Checkpoint {
            agent.beside = Some(action);
        } else {
            agent.action = Some(action);
        }
    }

    fn finish(&mut self, name: &MemberName, kind: ActionKind, outcome: Outcome) {
        let failed = match &outcome {
            Outcome::Failed(error) | Outcome::SourceLost(error) | Outcome::Refused(error) => Some(error.clone()),
            Outcome::Done | Outcome::Cancelled | Outcome::Divergence(_) => None,
        };
        if let Some(error) = failed {
            self.tell(name.as_str(), &format!("{kind} failed: {error}"));
        }
        self.agent_mut(name).finished.push(Finished { kind, outcome });
        self.wake(name);
    }

    /// Does the next step of the running action.
    pub(crate) fn proceed(&mut self, name: &MemberName) {
        let Some(mut action) = self.agent_mut(name).action.take() else { return };
        let Some(step) = action.steps.pop_front() else { return };
        // A step sees its own action as running, as the real ones do.
        self.agent_mut(name).action = Some(action.clone());
        let then = self.step(name, &step, action.cancelled);
        let Some(agent) = self.node_mut(name).agent.as_mut() else { return };
        let Some(mut action) = agent.action.take() else { return };
        match then {
            Then::End(outcome) => self.finish(name, action.kind, outcome),
            Then::Next(step, within) => {
                action.committed |= matches!(step, Step::AwaitPromotion { .. });
                action.steps.push_back(step);
                action.due = self.now + within;
                self.agent_mut(name).action = Some(action);
            }
        }
    }

    /// The same for the checkpoint that runs beside other actions.
    pub(crate) fn proceed_beside(&mut self, name: &MemberName) {
        if self.agent_mut(name).beside.take().is_some()
            && let Then::End(outcome) = self.step(name, &Step::Checkpoint, false)
        {
            self.finish(name, ActionKind::Checkpoint, outcome);
        }
    }

    /// Asks the running action to end. A promotion that was issued is only not waited for any more.
    pub(crate) fn cancel_action(&mut self, name: &MemberName) {
        let now = self.now;
        if let Some(action) = &mut self.agent_mut(name).action {
            action.cancelled = true;
            action.due = match action.kind {
                ActionKind::Promote | ActionKind::CrashRecovery | ActionKind::Clone | ActionKind::Rewind => now,
                ActionKind::Bootstrap
                | ActionKind::Start
                | ActionKind::Demote
                | ActionKind::Stop
                | ActionKind::CheckDivergence
                | ActionKind::ChangeUpstream
                | ActionKind::Restart
                | ActionKind::CopySlots
                | ActionKind::Checkpoint => action.due,
            };
        }
    }

    /// Before a demotion: cancels what runs and waits for its end.
    fn cancel_and_wait(&mut self, name: &MemberName) {
        self.cancel_action(name);
        while self.node(name).agent.as_ref().is_some_and(|agent| agent.action.is_some()) {
            self.proceed(name);
        }
    }

    // Each action from its beginning.

    pub(crate) fn begin_bootstrap(&mut self, name: &MemberName) {
        let within = self.pace.action(ActionKind::Bootstrap);
        match self.claim(name) {
            Ok(()) => self.begin(name, ActionKind::Bootstrap, Step::Initdb, within),
            Err(_) => {
                // Lost the race (BOO-4), or the store did not answer: decides anew in a while.
                self.finish(name, ActionKind::Bootstrap, Outcome::Cancelled);
                let now = self.now;
                self.agent_mut(name).busy_until = now + Duration::from_secs(1);
            }
        }
    }

    /// Announces this member, then claims `initialize` (BOO-1, QRK-11).
    fn claim(&mut self, name: &MemberName) -> Result<(), Trouble> {
        let (me, lease) = (name.as_str(), self.lease_id(name)?);
        let alive = own(INTENT_ALIVE_KEY);
        let announced = self.ask(name, |store, _| store.write(&alive, me, Condition::Absent, Some(lease)));
        if announced == Err(Trouble::Refused(Refused::Conflict)) {
            // Perhaps it is our own, left by an attempt whose answer was lost.
            let known = self.picture().own.get(INTENT_ALIVE_KEY).filter(|known| known.value == me).cloned();
            let unchanged = Condition::At(known.ok_or(Trouble::Refused(Refused::Conflict))?.revision);
            self.ask(name, |store, _| store.write(&alive, me, unchanged, Some(lease)))?;
        } else {
            announced?;
        }
        let claimed = self.ask(name, |store, _| store.write("initialize", "", Condition::Absent, Some(lease)));
        if claimed == Err(Trouble::Refused(Refused::Conflict)) {
            self.ask(name, |store, _| store.remove(&alive, Condition::Always))?;
        }
        if claimed.is_ok() {
            let _ = self.ask(name, |store, _| store.write(&own(INTENT_KEY), me, Condition::Always, None));
            // What initdb leaves behind when it is killed is no cluster yet.
            self.node_mut(name).postgres.data = Some(Data::new(None));
            self.agent_mut(name).local.state = PostgresState::Initdb;
        }
        claimed
    }

    pub(crate) fn begin_clone(&mut self, name: &MemberName, source: MemberName, wipe: bool) {
        if wipe {
            self.stop_server(name, Stop::Immediate);
            self.tell(name.as_str(), "the data directory is removed");
            self.node_mut(name).postgres.data = None;
        }
        let within = self.pace.action(ActionKind::Clone);
        let local = &mut self.agent_mut(name).local;
        local.role = if wipe { MemberRole::Replica } else { MemberRole::Uninitialized };
        local.ended(PostgresState::CreatingReplica);
        self.begin(name, ActionKind::Clone, Step::Copy { source }, within);
    }

    pub(crate) fn begin_start(&mut self, name: &MemberName, start: StartAs) {
        let within = self.pace.action(ActionKind::Start);
        self.agent_mut(name).local.role = match start {
            StartAs::Primary => MemberRole::Primary,
            StartAs::Standby { .. } => MemberRole::Replica,
        };
        self.begin(name, ActionKind::Start, Step::Spawn(start), within);
    }

    pub(crate) fn begin_promote(&mut self, name: &MemberName) {
        let within = self.pace.action(ActionKind::Promote);
        self.begin(name, ActionKind::Promote, Step::Promote, within);
    }

    pub(crate) fn begin_demote(&mut self, name: &MemberName, mode: DemoteMode) {
        self.cancel_and_wait(name);
        let (now, wanted) = (self.now, self.pace.fast_stop());
        let (stop, within) = match mode {
            DemoteMode::Graceful => (Stop::Fast, wanted),
            DemoteMode::Offline | DemoteMode::Cluster => {
                // An orderly stop for as long as the lease allows; then an immediate one.
                let deadline = match &self.agent(name).lease {
                    Lease::Held { sent, ttl, .. } => fence_deadline(*sent, *ttl),
                    Lease::None | Lease::NotOurs { .. } => now,
                };
                let limit = deadline.since(now).saturating_sub(Duration::from_secs(1));
                if wanted <= limit { (Stop::Fast, wanted) } else { (Stop::Immediate, limit) }
            }
            DemoteMode::Immediate | DemoteMode::ImmediateNoLock => {
                (Stop::Immediate, self.pace.action(ActionKind::Demote))
            }
        };
        self.agent_mut(name).local.state = PostgresState::Stopping;
        self.begin(name, ActionKind::Demote, Step::Demote { mode, stop }, within);
    }

    pub(crate) fn begin_stop(&mut self, name: &MemberName) {
        let within = self.pace.action(ActionKind::Stop);
        self.agent_mut(name).local.state = PostgresState::Stopping;
        self.begin(name, ActionKind::Stop, Step::StopImmediately, within);
    }

    pub(crate) fn begin_crash_recovery(&mut self, name: &MemberName) {
        let within = self.pace.action(ActionKind::CrashRecovery);
        self.begin(name, ActionKind::CrashRecovery, Step::Recover, within);
    }

    pub(crate) fn begin_check(&mut self, name: &MemberName, leader: MemberName) {
        let within = self.pace.action(ActionKind::CheckDivergence);
        self.begin(name, ActionKind::CheckDivergence, Step::Compare { leader }, within);
    }

    pub(crate) fn begin_rewind(&mut self, name: &MemberName, source: MemberName) {
        let within = self.pace.action(ActionKind::Start);
        self.agent_mut(name).local.state = PostgresState::Stopping;
        self.begin(name, ActionKind::Rewind, Step::StopForRewind { source }, within);
    }

    pub(crate) fn begin_restart(&mut self, name: &MemberName, upstream: Option<MemberName>) {
        let within = self.pace.action(ActionKind::ChangeUpstream);
        self.agent_mut(name).local.state = PostgresState::Stopping;
        self.begin(name, ActionKind::ChangeUpstream, Step::Restart { upstream }, within);
    }

    pub(crate) fn begin_checkpoint(&mut self, name: &MemberName) {
        let within = self.pace.action(ActionKind::Checkpoint);
        self.begin(name, ActionKind::Checkpoint, Step::Checkpoint, within);
    }

    // What the steps do.

    fn step(&mut self, name: &MemberName, step: &Step, cancelled: bool) -> Then {
        match step {
            Step::Initdb => self.initdb(name),
            Step::FinishBootstrap => Then::End(self.finish_bootstrap(name, cancelled)),
            Step::Copy { source } => Then::End(self.copy(name, source, cancelled)),
            Step::Spawn(start) => Then::End(self.spawn(name, start)),
            Step::Promote => self.promote(name, cancelled),
            Step::AwaitPromotion { patience } => self.await_promotion(name, *patience, cancelled),
            Step::Demote { mode, stop } => Then::End(self.demote(name, *mode, *stop)),
            Step::StopImmediately => {
                self.stop_server(name, Stop::Immediate);
                let local = &mut self.agent_mut(name).local;
                local.ended(PostgresState::Stopped);
                local.role = MemberRole::Uninitialized;
                Then::End(Outcome::Done)
            }
            Step::Recover if cancelled => Then::End(Outcome::Cancelled),
            Step::Recover => {
                if let Some(data) = &mut self.node_mut(name).postgres.data {
                    data.recover();
                }
                self.tell(name.as_str(), "PostgreSQL has recovered in single-user mode");
                Then::End(Outcome::Done)
            }
            Step::Compare { leader } => {
                let facts = self.node(name).postgres.compare(self.server_of(name, leader), self.now);
                Then::End(Outcome::Divergence(Box::new(facts)))
            }
            Step::StopForRewind { source } => self.connect_for_rewind(name, source, cancelled),
            Step::Rewind { source, process } => Then::End(self.rewind(name, source, *process, cancelled)),
            Step::Restart { upstream } => {
                self.stop_server(name, Stop::Fast);
                self.agent_mut(name).local.ended(PostgresState::Stopped);
                let start = StartAs::Standby { upstream: upstream.clone() };
                Then::End(self.spawn(name, &start))
            }
            Step::Checkpoint => {
                let node = self.node_mut(name);
                let done = node.postgres.process.is_some();
                if let Some(data) = node.postgres.data.as_mut().filter(|_| done) {
                    data.is_checkpointed = true;
                }
                Then::End(if done { Outcome::Done } else { Outcome::Failed("the server is gone".to_owned()) })
            }
        }
    }

    fn initdb(&mut self, name: &MemberName) -> Then {
        let now = self.now;
        // Two runs of initdb never give the same identifier.
        let system_id =
            format!("77{:017}", now.0.as_nanos() % 1_000_000_000_000 + u128::from(name.as_str().as_bytes()[0]));
        let postgres = &mut self.node_mut(name).postgres;
        postgres.data = Some(Data::new(Some(system_id)));
        let started = postgres.start_primary(now).is_some();
        if !started {
            self.undo_bootstrap(name);
            return Then::End(Outcome::Failed("PostgreSQL did not start".to_owned()));
        }
        self.agent_mut(name).local.started(now);
        self.tell(name.as_str(), "initdb is done");
        Then::Next(Step::FinishBootstrap, self.pace.action(ActionKind::Bootstrap))
    }

    fn finish_bootstrap(&mut self, name: &MemberName, cancelled: bool) -> Outcome {
        let registered = if cancelled { None } else { self.register(name) };
        match registered {
            Some(()) => Outcome::Done,
            None => {
                self.undo_bootstrap(name);
                Outcome::Failed("the claim to create the cluster was lost".to_owned())
            }
        }
    }

    /// BOO-11, in its order, after one more look at the claim (BEY-23). `None`: it is not ours any more.
    fn register(&mut self, name: &MemberName) -> Option<()> {
        let now = self.now;
        if !self.node(name).postgres.is_writable(now) || !self.reaches_store(name) {
            return None;
        }
        let cluster = self.picture();
        let is_ours = cluster.own.get(INTENT_ALIVE_KEY).is_some_and(|own| own.value == name.as_str());
        if !is_ours || cluster.leader.is_some() {
            return None;
        }
        let local = &mut self.agent_mut(name).local;
        local.state = PostgresState::Running;
        local.role = MemberRole::Primary;
        let system_id = self.node(name).postgres.data.as_ref()?.system_id.clone()?;
        let unchanged = Condition::At(cluster.initialize_revision);
        let stored = self.ask(name, |store, _| store.write("initialize", &system_id, unchanged, None));
        if stored == Err(Trouble::Unknown) {
            // A write whose answer was lost is looked up before everything is undone.
            let cluster = self.ask(name, |store, _| Ok(store.cluster())).ok()?;
            (cluster.initialize.system_id() == Some(system_id.as_str())).then_some(())?;
        } else {
            stored.ok()?;
        }
        // From here on the cluster exists: what fails is repaired by the cycle.
        let config = pgward_core::json::compact(&self.agent(name).dynamic.document);
        let _ = self.ask(name, |store, _| store.write("config", &config, Condition::Always, None));
        let _ = self.take(name);
        let process = self.node(name).postgres.process.as_ref().map(|process| process.id);
        self.protect(name, process);
        for key in [INTENT_ALIVE_KEY, INTENT_KEY] {
            // What stays is cleaned up by nobody and disturbs nobody.
            let _ = self.ask(name, |store, _| store.remove(&own(key), Condition::Always));
        }
        Some(())
    }

    /// BOO-8.
    fn undo_bootstrap(&mut self, name: &MemberName) {
        self.stop_server(name, Stop::Immediate);
        let created = self.node_mut(name).postgres.data.take().and_then(|data| data.system_id);
        let local = &mut self.agent_mut(name).local;
        local.ended(PostgresState::InitdbFailed);
        local.role = MemberRole::Uninitialized;
        self.tell(name.as_str(), "what was created is moved aside");
        if !self.reaches_store(name) {
            return;
        }
        let cluster = self.picture();
        if cluster.own.get(INTENT_KEY).is_none_or(|own| own.value != name.as_str()) {
            return;
        }
        // What others have written there is not undone (BEY-32).
        let is_ours = match &cluster.initialize {
            Initialize::Bootstrapping => true,
            Initialize::SystemId(id) => created.as_ref() == Some(id),
            Initialize::Absent | Initialize::Invalid(_) => false,
        };
        if cluster.leader.is_none() && is_ours {
            let seen = Condition::At(cluster.initialize_revision);
            let _ = self.ask(name, |store, _| store.remove("initialize", seen));
        }
        for key in [INTENT_ALIVE_KEY, INTENT_KEY] {
            let _ = self.ask(name, |store, _| store.remove(&own(key), Condition::Always));
        }
    }

    fn copy(&mut self, name: &MemberName, source: &MemberName, cancelled: bool) -> Outcome {
        let now = self.now;
        let copied = self.server_of(name, source).filter(|source| source.accepts(now) && !cancelled);
        let copied = copied.and_then(|source| source.data.as_ref()).map(|data| data.copied(ControlState::InProduction));
        let agent = self.agent_mut(name);
        agent.local.state = PostgresState::Stopped;
        let Some(data) = copied else { return Outcome::Failed(format!("{source} cannot be reached")) };
        agent.local.role = MemberRole::Replica;
        agent.local.managed = true;
        self.node_mut(name).postgres.data = Some(data);
        self.tell(name.as_str(), &format!("has copied {source}"));
        Outcome::Done
    }

    fn spawn(&mut self, name: &MemberName, start: &StartAs) -> Outcome {
        let now = self.now;
        let postgres = &mut self.node_mut(name).postgres;
        let spawned = match start {
            StartAs::Primary => postgres.start_primary(now),
            StartAs::Standby { upstream } => postgres.start_standby(now, upstream.clone()),
        };
        match (spawned, start) {
            (Some(process), start) => {
                self.agent_mut(name).local.started(now);
                if *start == StartAs::Primary && !self.protect(name, Some(process)) {
                    return Outcome::Failed("there is no lease to fence by".to_owned());
                }
                Outcome::Done
            }
            (None, _) => {
                self.agent_mut(name).local.ended(PostgresState::StartFailed);
                Outcome::Failed("the server refuses to start".to_owned())
            }
        }
    }

    fn promote(&mut self, name: &MemberName, cancelled: bool) -> Then {
        if cancelled {
            return Then::End(Outcome::Cancelled);
        }
        let now = self.now;
        if !self.agent(name).lease.is_safe(now) {
            return Then::End(Outcome::Failed("the leader lease ran out before the promotion".to_owned()));
        }
        self.check_promotion(name);
        let promotes_at = now + self.pace.promotion();
        let Some(process) = self.node_mut(name).postgres.process.as_mut().filter(|process| process.in_recovery) else {
            return Then::End(Outcome::Failed("there is no server to promote".to_owned()));
        };
        process.promotes_at = Some(promotes_at);
        let agent = self.agent_mut(name);
        agent.local.role = MemberRole::Promoted;
        let patience = now + agent.dynamic.timing.loop_wait;
        self.await_promotion(name, patience, false)
    }

    fn await_promotion(&mut self, name: &MemberName, patience: BootInstant, cancelled: bool) -> Then {
        if cancelled {
            return Then::End(Outcome::Cancelled);
        }
        let now = self.now;
        if self.node(name).postgres.is_writable(now) {
            self.agent_mut(name).local.role = MemberRole::Primary;
            return Then::End(Outcome::Done);
        }
        match self.node(name).postgres.process.as_ref().and_then(|process| process.promotes_at) {
            Some(at) if now < patience => {
                let within = at.min(patience).since(now).max(Duration::from_millis(1));
                Then::Next(Step::AwaitPromotion { patience }, within)
            }
            Some(_) => Then::End(Outcome::Failed("recovery has not ended in time".to_owned())),
            None => Then::End(Outcome::Failed("the server is gone".to_owned())),
        }
    }

    /// DEM-2…13: stop, prove it, release.
    fn demote(&mut self, name: &MemberName, mode: DemoteMode, stop: Stop) -> Outcome {
        let position = self.stop_server(name, stop);
        let local = &mut self.agent_mut(name).local;
        local.ended(PostgresState::Stopped);
        local.role = MemberRole::Demoted;
        if mode.releases() {
            if let Some(position) = position.filter(|_| mode == DemoteMode::Graceful) {
                let status = format!("{{\"optime\":{}}}", position.0);
                let _ = self.ask(name, |store, _| store.write("status", &status, Condition::Always, None)); // STS-3
            }
            // A key that cannot be released expires by time.
            let _ = self.release(name);
        } else {
            self.forget(name);
        }
        self.disarm(name);
        if mode != DemoteMode::Offline {
            return Outcome::Done;
        }
        let now = self.now;
        if self.node_mut(name).postgres.start_standby(now, None).is_none() {
            self.agent_mut(name).local.ended(PostgresState::StartFailed);
            return Outcome::Failed("the server refuses to start".to_owned());
        }
        let local = &mut self.agent_mut(name).local;
        local.role = MemberRole::Demoted;
        local.started(now);
        Outcome::Done
    }

    /// Stops the server and connects to the source, which has to be a primary with its checkpoint made by then.
    fn connect_for_rewind(&mut self, name: &MemberName, source: &MemberName, cancelled: bool) -> Then {
        self.stop_server(name, Stop::Fast);
        self.agent_mut(name).local.ended(PostgresState::Stopped);
        let now = self.now;
        let primary = self.server_of(name, source).filter(|server| server.is_writable(now) && !cancelled);
        let found =
            primary.and_then(|server| Some((server.process.as_ref()?.id, server.data.as_ref()?.is_checkpointed)));
        let Some((process, is_checkpointed)) = found else {
            return Then::End(Outcome::SourceLost(format!("{source} is not reachable as a primary")));
        };
        if !is_checkpointed {
            self.observer.report(format!("{name} rewinds from {source} before its checkpoint (INV-S21)"));
        }
        Then::Next(Step::Rewind { source: source.clone(), process }, self.pace.action(ActionKind::Rewind))
    }

    fn rewind(&mut self, name: &MemberName, source: &MemberName, process: u64, cancelled: bool) -> Outcome {
        let is_same = |server: &&Postgres| server.process.as_ref().is_some_and(|now| now.id == process);
        let connected = self.server_of(name, source).filter(is_same).filter(|_| !cancelled);
        let Some(from) = connected.and_then(|server| server.data.as_ref()) else {
            return Outcome::SourceLost(format!("the connection to {source} was lost"));
        };
        let rewound = from.copied(ControlState::InArchiveRecovery);
        self.node_mut(name).postgres.data = Some(rewound);
        self.tell(name.as_str(), &format!("has rewound from {source}"));
        Outcome::Done
    }

    /// As a service manager would: an agent that gets no processor time cannot obey.
    pub(crate) fn shut_down_if_able(&mut self, name: &MemberName) {
        if self.node(name).agent.as_ref().is_some_and(|agent| !agent.is_frozen) {
            self.shut_down(name);
        }
    }

    /// The agent is asked to end (SHD-3…5): stop, then give up the key. In pause it leaves both alone.
    pub(crate) fn shut_down(&mut self, name: &MemberName) {
        if self.node(name).agent.is_none() {
            return;
        }
        self.cancel_and_wait(name);
        if self.agent(name).dynamic.pause {
            self.disarm(name); // SHD-1
            self.kill_agent(name);
            return;
        }
        let position = self.stop_server(name, Stop::Fast);
        self.agent_mut(name).local.ended(PostgresState::Stopped);
        if matches!(self.agent(name).lease, Lease::Held { .. }) {
            if let Some(position) = position {
                let status = format!("{{\"optime\":{}}}", position.0);
                let _ = self.ask(name, |store, _| store.write("status", &status, Condition::Always, None));
            }
            let _ = self.release(name);
        }
        self.disarm(name);
        self.kill_agent(name);
    }
}
