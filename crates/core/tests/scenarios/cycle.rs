//! The cycle of the model: observe, decide, execute, tell; again until nothing follows.

use std::time::Duration;

use pgward_core::cluster::{Cluster, FailoverRequest, MemberRole, PostgresState, Revision, Status};
use pgward_core::config::DynamicConfig;
use pgward_core::decide::failsafe::{ConsentAnswer, Failsafe, with_promised_leader};
use pgward_core::decide::memory::CheckpointState;
use pgward_core::decide::view::{
    ActionKind, DataDir, Finished, Lease, Outcome, Postgres, RecoveryDiff, RunningAction, Settings, Store as SeenStore,
    View,
};
use pgward_core::decide::{Decision, Effect, StartAs, decide, follow};
use pgward_core::explain::{Step, replay};
use pgward_core::json;
use pgward_core::names::MemberName;
use pgward_core::time::{BootInstant, WallTime};
use serde_json::{Map, Value};

use crate::agent::Published;
use crate::store::{Condition, Refused};
use crate::words::in_words;
use crate::world::{BEGIN, Trouble, World};

fn is_replayed(recorded: &Step) -> bool {
    let read = Step::from_document(recorded.to_document());
    read.is_ok_and(|read| replay(&read).differences.is_empty())
}

/// How one pass through observe, decide and execute ended.
enum Pass {
    /// Nothing is left to do before something happens, or before this instant.
    Settled(Option<BootInstant>),
    /// Look again at once.
    Again,
    /// Other members were asked; the answers come later.
    Asked,
    /// The agent ended.
    Ended,
}

/// What follows an effect.
enum Next {
    Again,
    Started,
    Asked,
    Ended,
}

/// Decisions that follow one another at once; more of them disagree with each other.
const PASSES_MAX: usize = 12;

/// Pause before what failed is decided anew.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The wall clock at the beginning: 2027-01-15T08:00:00Z.
const WALL: Duration = Duration::from_secs(1_800_000_000);

/// Actions during which the server is not asked.
fn leaves_alone(kind: ActionKind) -> bool {
    match kind {
        ActionKind::Bootstrap
        | ActionKind::Clone
        | ActionKind::Demote
        | ActionKind::Stop
        | ActionKind::CrashRecovery
        | ActionKind::Rewind
        | ActionKind::ChangeUpstream
        | ActionKind::Restart
        | ActionKind::CopySlots => true,
        ActionKind::Start | ActionKind::Promote | ActionKind::CheckDivergence | ActionKind::Checkpoint => false,
    }
}

impl World {
    /// The wall clock of all machines.
    pub(crate) fn wall(&self) -> WallTime {
        WallTime(WALL + self.now.since(BEGIN))
    }

    /// Runs the cycle of `name` until it settles.
    pub(crate) fn cycle(&mut self, name: &MemberName) {
        let agent = self.agent_mut(name);
        agent.cycle_at = None;
        if let Some((_, poll)) = agent.poll_due.take() {
            agent.poll = Some(poll);
        }
        if let Some((_, round)) = agent.round_due.take() {
            agent.round = Some(round);
        }
        for _ in 0..PASSES_MAX {
            match self.pass(name) {
                Pass::Again => {}
                Pass::Asked | Pass::Ended => return,
                Pass::Settled(wake_at) => return self.settled(name, wake_at),
            }
        }
        let reason = self.agent(name).last_reason.clone();
        self.observer.report(format!("{name}: decisions follow one another without end: {reason:?}"));
        let again = self.now + Duration::from_millis(100);
        self.settled(name, Some(again));
    }

    /// The cycle ran: the lease may be renewed until the next one is overdue (BEY-2).
    fn settled(&mut self, name: &MemberName, wake_at: Option<BootInstant>) {
        let now = self.now;
        let agent = self.agent_mut(name);
        let loop_wait = agent.dynamic.timing.loop_wait;
        agent.permit_until = now + loop_wait + Duration::from_secs(5);
        if agent.next_tick <= now {
            agent.next_tick = now + loop_wait;
        }
        let next = wake_at.map_or(agent.next_tick, |at| at.min(agent.next_tick)).max(now);
        agent.cycle_at = Some(agent.cycle_at.map_or(next, |woken| woken.min(next)));
    }

    fn pass(&mut self, name: &MemberName) -> Pass {
        self.refresh_dynamic(name);
        let view = self.observe(name);
        let agent = self.agent_mut(name);
        let (decision, memory) = decide(&view, &agent.memory);
        let again = decide(&view, &agent.memory);
        let recorded = Step { view: view.clone(), memory: agent.memory.clone(), decision: decision.clone() };
        agent.memory = memory;
        agent.finished.clear();
        agent.poll = None;
        agent.round = None;
        agent.saw_alive = view.postgres.alive;
        // What is recorded has to be enough to take the decision again. Writing takes longer than deciding: one of a few.
        let is_tried = view.now.0.subsec_millis().is_multiple_of(7);
        let is_same = again.0 == decision && again.1 == agent.memory && (!is_tried || is_replayed(&recorded));
        self.check_decision(name, &view, &decision, is_same);
        self.log(name, &decision);
        self.guard(name, &view);
        let pass = self.execute(name, &decision, &view);
        if matches!(pass, Pass::Settled(_)) {
            self.publish(name, &view);
        }
        pass
    }

    /// A changed dynamic configuration; an unusable one leaves the present one in force (IN-D2).
    fn refresh_dynamic(&mut self, name: &MemberName) {
        let agent = self.agent_mut(name);
        let Some(config) = agent.seen.as_ref().and_then(|cluster| cluster.config.as_ref()) else { return };
        if agent.dynamic_revision == Some(config.revision) {
            return;
        }
        agent.dynamic_revision = Some(config.revision);
        if let Ok(dynamic) = DynamicConfig::from_map(&config.value) {
            let ttl_changed = dynamic.timing.ttl != agent.dynamic.timing.ttl;
            agent.dynamic = dynamic;
            if ttl_changed {
                let now = self.now;
                let agent = self.agent_mut(name);
                agent.former.extend(agent.lease_id.take()); // DCS-E9
                agent.renew_at = now;
            }
        }
    }

    fn settings(&self, name: &MemberName) -> Settings {
        let dynamic = &self.agent(name).dynamic;
        let flag = |key: &str| dynamic.postgresql.get(key).and_then(Value::as_bool).unwrap_or(false);
        Settings {
            ttl: dynamic.timing.ttl,
            loop_wait: dynamic.timing.loop_wait,
            retry_timeout: dynamic.timing.retry_timeout,
            maximum_lag_on_failover: dynamic.maximum_lag_on_failover_bytes,
            check_timeline: dynamic.check_timeline,
            primary_start_timeout: dynamic.primary_start_timeout,
            primary_race_backoff: dynamic.primary_race_backoff,
            paused: dynamic.pause,
            sync: dynamic.sync_settings(String::new()),
            standby_cluster: dynamic.standby_cluster.is_some(),
            failsafe_mode: dynamic.failsafe_mode,
            use_pg_rewind: flag("use_pg_rewind"),
            wipe_on_rewind_failure: flag("remove_data_directory_on_rewind_failure"),
            wipe_on_divergence: flag("remove_data_directory_on_diverged_timelines"),
        }
    }

    fn observe(&mut self, name: &MemberName) -> View {
        let now = self.now;
        let agent = self.agent(name);
        let (consent, round) = (agent.consent, agent.round.clone());
        let failsafe = Failsafe { consent, round, promise: self.node(name).promise.clone() };
        let store = match &self.agent(name).seen {
            Some(cluster) if !self.store_is_lost(name) => {
                SeenStore::Current(with_promised_leader(cluster, &failsafe, now))
            }
            Some(_) | None => SeenStore::Lost { error: "no answer".to_owned() },
        };
        let (settings, wall) = (self.settings(name), self.wall());
        let running = self.agent(name).action.as_ref().map(|action| RunningAction {
            kind: action.kind,
            since: action.since,
            committed: action.committed,
            cancelled: action.cancelled,
        });
        let looks = running.as_ref().is_none_or(|action| !leaves_alone(action.kind));
        let postgres = &self.node(name).postgres;
        let alive = postgres.process.is_some();
        let (accepting, facts) = (postgres.accepts(now) && looks, postgres.facts(now).filter(|_| looks));
        let control = postgres.control().filter(|_| looks && !alive);
        let data_dir = postgres.data_dir();
        let upstream = postgres.process.as_ref().and_then(|process| process.upstream.clone());
        self.settle_local(name, alive, accepting, facts.as_ref().map(|facts| facts.in_recovery), running.is_none());
        let agent = self.agent_mut(name);
        agent.decided_kind = agent.lease_kind();
        let recovery = match &store {
            SeenStore::Current(cluster)
                if facts.as_ref().is_some_and(|facts| facts.in_recovery)
                    && !cluster.is_unlocked()
                    && !cluster.is_led_by(name) =>
            {
                let wanted = follow::upstream(name, &agent.tags, &settings, cluster);
                if wanted == upstream { RecoveryDiff::Same } else { RecoveryDiff::Reload }
            }
            SeenStore::Current(_) | SeenStore::Lost { .. } => RecoveryDiff::Unknown,
        };
        let view = View {
            now,
            wall,
            me: name.clone(),
            tags: agent.tags.clone(),
            may_bootstrap: true,
            settings,
            store,
            lease: agent.lease.clone(),
            data_dir,
            postgres: Postgres {
                state: agent.local.state,
                role: agent.local.role,
                alive,
                starting_since: agent.local.starting_since,
                facts,
                control,
                managed: agent.local.managed,
                recovery,
                lacks_slots: Default::default(),
            },
            action: running,
            finished: agent.finished.clone(),
            request: None,
            poll: agent.poll.clone(),
            failsafe,
            watchdog_failure: None,
        };
        agent.local.managed |= alive;
        view
    }

    /// Brings what is remembered of the server in line with what was seen.
    fn settle_local(&mut self, name: &MemberName, alive: bool, accepting: bool, standby: Option<bool>, idle: bool) {
        let now = self.now;
        let agent = self.agent_mut(name);
        let local = &mut agent.local;
        if !alive {
            if idle && matches!(local.state, PostgresState::Running | PostgresState::Restarting) {
                local.ended(PostgresState::Crashed);
            } else if idle && local.state == PostgresState::Starting {
                local.ended(PostgresState::StartFailed);
                let outcome = Outcome::Failed("it ended while it was starting".to_owned());
                agent.finished.push(Finished { kind: ActionKind::Start, outcome });
            }
            return;
        }
        if accepting && (idle || local.state == PostgresState::Starting) {
            local.state = PostgresState::Running;
            local.starting_since = None;
        } else if !accepting && idle && local.state != PostgresState::Running {
            local.state = PostgresState::Starting;
            local.starting_since.get_or_insert(now);
        }
        match standby {
            Some(false) => local.role = MemberRole::Primary,
            Some(true) if local.role != MemberRole::Promoted || idle => local.role = MemberRole::Replica,
            Some(true) | None => {}
        }
    }

    fn log(&mut self, name: &MemberName, decision: &Decision) {
        let quiet = decision.effects.is_empty() || decision.only_asks();
        let last = self.agent(name).last_reason.as_ref();
        if last.is_some_and(|last| last.is_continued_by(decision)) {
            return;
        }
        let same = last == Some(&decision.reason);
        if !(same && quiet) {
            let effects: Vec<String> = decision.effects.iter().map(in_words).collect();
            let arrow = if effects.is_empty() { String::new() } else { format!(" -> {}", effects.join(", ")) };
            let rules = decision.reason.rules().join(" ");
            self.tell(name.as_str(), &format!("{}{arrow} [{rules}]", decision.reason));
        }
        self.agent_mut(name).last_reason = Some(decision.reason.clone());
    }

    /// A server that is primary under our lease is guarded, a standby is not.
    fn guard(&mut self, name: &MemberName, view: &View) {
        if view.settings.paused {
            return self.disarm(name);
        }
        if !view.postgres.is_primary() {
            let standby = view.postgres.facts.as_ref().is_some_and(|facts| facts.in_recovery) && view.action.is_none();
            if standby && !matches!(view.lease, Lease::Held { .. }) {
                self.disarm(name);
            }
            return;
        }
        let process = self.node(name).postgres.process.as_ref().map(|process| process.id);
        if process.is_some() && self.agent(name).protected != Some(process) && view.lease.is_exclusive(view.now) {
            self.protect(name, process);
        }
    }

    fn execute(&mut self, name: &MemberName, decision: &Decision, view: &View) -> Pass {
        let mut again = false;
        for effect in &decision.effects {
            if self.is_late(name, decision, effect) {
                return Pass::Again;
            }
            match self.carry_out(name, effect, view) {
                Ok(Next::Again) => again = true,
                Ok(Next::Started) => {}
                Ok(Next::Asked) => return Pass::Asked,
                Ok(Next::Ended) => return Pass::Ended,
                Err(trouble) => {
                    let now = self.now;
                    let agent = self.agent_mut(name);
                    if trouble == Trouble::Unknown {
                        agent.busy_until = now + agent.dynamic.timing.retry_timeout;
                    }
                    let soon = now + RETRY_PAUSE;
                    return Pass::Settled(Some(decision.wake_at.map_or(soon, |at| at.min(soon))));
                }
            }
        }
        if again { Pass::Again } else { Pass::Settled(decision.wake_at) }
    }

    /// INV-S28.
    fn is_late(&self, name: &MemberName, decision: &Decision, effect: &Effect) -> bool {
        let lease = &self.agent(name).lease;
        let epoch = match lease {
            Lease::Held { epoch, .. } => Some(*epoch),
            Lease::None | Lease::NotOurs { .. } => None,
        };
        effect.needs_lease() && (epoch != decision.epoch || !lease.is_safe(self.now))
    }

    fn carry_out(&mut self, name: &MemberName, effect: &Effect, view: &View) -> Result<Next, Trouble> {
        let lost = Err(Trouble::Refused(Refused::Conflict));
        match effect {
            Effect::Acquire => {
                self.check_promise(name);
                return if self.acquire(name)? { Ok(Next::Again) } else { lost };
            }
            Effect::Adopt => {
                self.adopt(name)?;
            }
            Effect::Release => {
                if self.node(name).postgres.is_writable(self.now) && !view.settings.paused {
                    return lost; // DEM-12
                }
                self.disarm(name);
                self.release(name)?;
                self.catch_up(name); // A request to the store takes longer than its watch.
            }
            Effect::StoreSystemId { over } => {
                let DataDir::Present { system_id: Some(system_id) } = &view.data_dir else { return lost };
                let condition = over.map_or(Condition::Absent, Condition::At);
                self.write(name, "initialize", system_id, condition)?;
            }
            Effect::StoreConfig { over } => {
                let document = json::compact(&self.agent(name).dynamic.document);
                self.write(name, "config", &document, over.map_or(Condition::Absent, Condition::At))?;
            }
            Effect::RewriteFailover { request, seen } => {
                let value = request.as_ref().map_or(FailoverRequest::NONE.to_owned(), FailoverRequest::to_value);
                self.write(name, "failover", &value, seen.map_or(Condition::Always, Condition::At))?;
            }
            Effect::StoreHistory(history) => self.write(name, "history", &history.to_value(), Condition::Always)?,
            Effect::StoreSync { state: Some(state), seen } => {
                self.write(name, "sync", &state.to_value(), Condition::At(*seen))?;
            }
            Effect::StoreSync { state: None, seen } => {
                self.ask(name, |store, _| store.remove("sync", Condition::At(*seen)))?;
                self.catch_up(name);
            }
            Effect::LoadStandbyNames { names } => {
                if let Some(process) = &mut self.node_mut(name).postgres.process {
                    process.standby_names = names.clone().unwrap_or_default();
                }
            }
            Effect::ClearInitialize { seen } => {
                self.ask(name, |store, _| store.remove("initialize", Condition::At(*seen)))?;
                self.catch_up(name);
            }
            Effect::StoreFailsafe { members, seen } => {
                let value = serde_json::to_string(members).unwrap_or_default();
                let condition = if *seen == Revision::default() { Condition::Absent } else { Condition::At(*seen) };
                self.write(name, "failsafe", &value, condition)?;
            }
            Effect::AskConsent { members, until } => {
                let round = self.consent_of(name, members);
                let silent = round.answers.values().any(|answer| matches!(answer, ConsentAnswer::Unreachable(_)));
                let at = (self.now + self.pace.poll(silent)).min(*until);
                self.agent_mut(name).round_due = Some((at, round));
                return Ok(Next::Asked);
            }
            Effect::LiveOnConsent { sent } => self.live_on_consent(name, *sent),
            Effect::PollPeers(members) => {
                let answers = self.answers(name, members);
                let silent = members.iter().any(|member| self.is_silent(name, member));
                let at = self.now + self.pace.poll(silent);
                self.agent_mut(name).poll_due = Some((at, answers));
                return Ok(Next::Asked);
            }
            Effect::ReloadUpstream { upstream } => {
                if let Some(process) = &mut self.node_mut(name).postgres.process {
                    process.upstream.clone_from(upstream);
                    process.is_streaming = false;
                }
            }
            Effect::ResumeReplay => {}
            Effect::Exit { code, leave_postgres } => {
                self.tell(name.as_str(), &format!("the agent ends with exit code {code}"));
                if *leave_postgres {
                    self.kill_agent(name)
                } else {
                    self.shut_down(name)
                }
                self.node_mut(name).exited = Some(*code);
                return Ok(Next::Ended);
            }
            Effect::CancelAction
            | Effect::Promote
            | Effect::Start(_)
            | Effect::Restart(_)
            | Effect::Clone { .. }
            | Effect::Bootstrap
            | Effect::Demote { .. }
            | Effect::StopImmediately
            | Effect::RestartForUpstream { .. }
            | Effect::CopySlots { .. }
            | Effect::CrashRecover
            | Effect::CheckDivergence { .. }
            | Effect::Rewind { .. }
            | Effect::Checkpoint => {
                return if self.start_action(name, effect) { Ok(Next::Started) } else { lost };
            }
        }
        Ok(Next::Again)
    }

    /// Starts or cancels the long action. False: what becomes writable cannot be fenced.
    fn start_action(&mut self, name: &MemberName, effect: &Effect) -> bool {
        match effect {
            Effect::CancelAction => self.cancel_action(name),
            Effect::Promote => {
                let process = self.node(name).postgres.process.as_ref().map(|process| process.id);
                if process.is_none() || !self.protect(name, process) {
                    return false;
                }
                self.begin_promote(name);
            }
            Effect::Start(StartAs::Primary) => {
                if !self.protect(name, None) {
                    return false;
                }
                self.begin_start(name, StartAs::Primary);
            }
            Effect::Start(standby @ StartAs::Standby { .. }) => {
                self.disarm(name);
                self.begin_start(name, standby.clone());
            }
            Effect::Clone { source, wipe } => {
                self.disarm(name);
                self.begin_clone(name, source.clone(), *wipe);
            }
            Effect::Restart(_) => panic!("no operator asks for a restart in a script"),
            Effect::Bootstrap => self.begin_bootstrap(name),
            Effect::Demote { mode, .. } => self.begin_demote(name, *mode),
            Effect::StopImmediately => self.begin_stop(name),
            Effect::RestartForUpstream { upstream } | Effect::CopySlots { upstream, .. } => {
                self.begin_restart(name, upstream.clone())
            }
            Effect::CrashRecover => self.begin_crash_recovery(name),
            Effect::CheckDivergence { leader } => self.begin_check(name, leader.clone()),
            Effect::Rewind { source } => self.begin_rewind(name, source.clone()),
            Effect::Checkpoint => self.begin_checkpoint(name),
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
            | Effect::ReloadUpstream { .. }
            | Effect::StoreSync { .. }
            | Effect::LoadStandbyNames { .. }
            | Effect::ResumeReplay
            | Effect::Exit { .. } => {}
        }
        true
    }

    fn write(&mut self, name: &MemberName, key: &str, value: &str, condition: Condition) -> Result<(), Trouble> {
        self.ask(name, |store, _| store.write(key, value, condition, None))?;
        self.catch_up(name);
        Ok(())
    }

    /// The own write is in the picture before the next decision.
    fn catch_up(&mut self, name: &MemberName) {
        let picture = self.picture();
        self.agent_mut(name).seen = Some(picture);
    }

    /// The member record, and the status while leading (CYC-19, DCS-10).
    fn publish(&mut self, name: &MemberName, view: &View) {
        let SeenStore::Current(cluster) = &view.store else { return };
        let agent = self.agent(name);
        let Some(lease) = agent.lease_id else { return };
        let essence = json::compact(&self.record(name, view, false));
        let record = json::compact(&self.record(name, view, true));
        let (now, loop_wait) = (self.now, agent.dynamic.timing.loop_wait);
        let is_due = |at: Option<BootInstant>| at.is_none_or(|at| now.since(at) >= loop_wait);
        let before: &Published = &agent.published;
        let urgent = !cluster.members.contains_key(name) || essence != before.essence || before.lease != Some(lease);
        let due = record != before.record && is_due(before.record_at);
        let status_due = is_due(before.status_at);
        if urgent || due {
            let key = format!("members/{name}");
            match self.ask(name, |store, _| store.write(&key, &record, Condition::Always, Some(lease))) {
                Ok(()) => {
                    let published = &mut self.agent_mut(name).published;
                    published.record = record;
                    published.essence = essence;
                    published.record_at = Some(now);
                    published.lease = Some(lease);
                }
                Err(Trouble::Refused(Refused::LeaseGone)) => self.agent_mut(name).renew_at = now,
                Err(Trouble::Refused(Refused::Conflict) | Trouble::Unknown) => {}
            }
        }
        self.publish_status(name, view, cluster, status_due);
    }

    fn publish_status(&mut self, name: &MemberName, view: &View, cluster: &Cluster, due: bool) {
        let leads = matches!(view.lease, Lease::Held { .. }) && cluster.is_led_by(name);
        let Some(facts) = view.postgres.facts.as_ref().filter(|facts| leads && !facts.in_recovery) else { return };
        let status = Status { optime: Some(facts.position), ..Status::default() };
        if !due || (self.agent(name).published.status.as_ref() == Some(&status) && cluster.status == status) {
            return;
        }
        let value = status.to_value();
        if self.ask(name, |store, _| store.write("status", &value, Condition::Always, None)).is_ok() {
            let now = self.now;
            let published = &mut self.agent_mut(name).published;
            published.status = Some(status);
            published.status_at = Some(now);
        }
    }

    fn record(&self, name: &MemberName, view: &View, with_positions: bool) -> Map<String, Value> {
        let agent = self.agent(name);
        let mut record = Map::new();
        let mut put = |key: &str, value: Value| record.insert(key.to_owned(), value);
        put("conn_url", format!("postgres://{name}:5432/postgres").into());
        put("api_url", format!("http://{name}:8008/patroni").into());
        put("state", agent.local.state.as_str().into());
        put("role", agent.local.role.as_str().into());
        let mut tags = Map::new();
        if agent.tags.nofailover {
            tags.insert("nofailover".to_owned(), true.into());
        }
        if agent.tags.nostream {
            tags.insert("nostream".to_owned(), true.into());
        }
        if let Some(source) = &agent.tags.replicatefrom {
            tags.insert("replicatefrom".to_owned(), source.as_str().into());
        }
        put("tags", tags.into());
        let promoting = view.action.as_ref().is_some_and(|action| action.kind == ActionKind::Promote);
        let owes = agent.memory.checkpoint != CheckpointState::Done && matches!(view.lease, Lease::Held { .. });
        if owes || promoting {
            put("checkpoint_after_promote", false.into());
        }
        let tells = view.action.is_none() || promoting;
        if let Some(facts) = view.postgres.facts.as_ref().filter(|_| tells) {
            if let Some(timeline) = facts.timeline {
                put("timeline", timeline.get().into());
            }
            if with_positions {
                put("xlog_location", facts.position.0.into());
            }
        }
        record
    }
}
