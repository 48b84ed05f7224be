//! The model that the projected decisions are taken in: a store, the members that told what they see, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::outcome::{Outcome, Verdict};
use super::{Event, Live, Loss, Projection, Step};
use crate::cluster::{Cluster, Initialize, Leader, MemberRole, PostgresState, Revision, Versioned};
use crate::decide::memory::CheckpointState;
use crate::decide::peers::{PeerAnswer, PeerPoll, PeerStatus};
use crate::decide::rewind::{DivergenceFacts, LocalPosition, LocalRole};
use crate::decide::view::{ActionKind, DataDir, Facts, Finished, Lease, Outcome as Ended, RecoveryDiff, Store, View};
use crate::decide::{Decision, DemoteMode, Effect, Memory, Reason, StartAs, decide, failsafe, follow};
use crate::names::MemberName;
use crate::sync::pick::Replication;
use crate::time::{BootInstant, WallTime};
use crate::wal::{Lsn, Timeline};

/// Rounds of decisions at one instant, and instants: more means that decisions chase one another.
const ROUNDS_MAX: usize = 24;
const INSTANTS_MAX: usize = 400;

/// What stands for the error of a store that is lost in the model.
const STORE_LOST: &str = "it is lost";

/// One member.
pub(super) struct Machine {
    pub(super) view: View,
    memory: Memory,
    /// Its clocks when the loss happens.
    pub(super) boot: BootInstant,
    wall: WallTime,
    reaches_store: bool,
    /// Members of different sides do not reach each other.
    pub(super) is_apart: bool,
    watchdog_failed: bool,
    upstream: Option<MemberName>,
    wake_at: Option<Duration>,
    /// What was told last.
    told: Option<Reason>,
    /// What it did last at this instant: done again, it would change nothing.
    done: Option<Decision>,
    /// What follows is not foreseen.
    pub(super) is_over: bool,
}

/// Everything.
pub(super) struct World {
    cluster: Cluster,
    pub(super) machines: BTreeMap<MemberName, Machine>,
    /// When the store removes what is bound to the leases of members that cannot renew them.
    expiries: Vec<MemberName>,
    ttl: Duration,
    horizon: Duration,
    loop_wait: Duration,
    steps: Vec<Step>,
    outcome: Outcome,
    lost: BTreeSet<MemberName>,
}

impl World {
    pub(super) fn new(live: &Live, loss: &Loss) -> World {
        let machines =
            live.members.iter().map(|(name, observed)| (name.clone(), Machine::new(observed, &live.cluster)));
        let machines: BTreeMap<MemberName, Machine> = machines.collect();
        let settings = machines.values().map(|machine| machine.view.settings.clone());
        let of_leader = live.cluster.leader.as_ref().and_then(|leader| machines.get(&leader.name));
        let ttl = match of_leader.map(|machine| &machine.view.lease) {
            Some(Lease::Held { ttl, .. }) => *ttl,
            Some(Lease::None | Lease::NotOurs { .. }) | None => {
                settings.clone().map(|settings| settings.ttl).max().unwrap_or(Duration::from_secs(30))
            }
        };
        let loop_wait = settings.clone().map(|settings| settings.loop_wait).max().unwrap_or(Duration::from_secs(10));
        let backoff = settings.map(|settings| settings.primary_race_backoff).max().unwrap_or_default();
        let mut world = World {
            cluster: Cluster::clone(&live.cluster),
            machines,
            expiries: Vec::new(),
            ttl,
            horizon: ttl + backoff + loop_wait * 3,
            loop_wait,
            steps: Vec::new(),
            outcome: Outcome::default(),
            lost: BTreeSet::new(),
        };
        if *loss != Loss::Nothing {
            world.note_what_was_decided();
        }
        world.lose(loss);
        world
    }

    /// So that only what the loss changes is told.
    fn note_what_was_decided(&mut self) {
        for name in self.names() {
            let Some(machine) = self.machines.get(&name) else { continue };
            let before = (machine.memory.clone(), machine.view.clone());
            let reason = self.decide(&name, Duration::ZERO).map(|decision| decision.reason);
            if let Some(machine) = self.machines.get_mut(&name) {
                (machine.memory, machine.view) = before;
                machine.told = reason;
            }
        }
    }

    fn lose(&mut self, loss: &Loss) {
        match loss {
            Loss::Nothing => {}
            Loss::Member(name) => {
                self.tell(Duration::ZERO, Some(name), Event::Lost);
                self.machines.remove(name);
                self.lost.insert(name.clone());
                self.expiries.push(name.clone());
            }
            Loss::Store => {
                self.tell(Duration::ZERO, None, Event::CutOff);
                self.machines.values_mut().for_each(|machine| machine.reaches_store = false);
            }
            Loss::Partition(names) => {
                for name in names {
                    self.tell(Duration::ZERO, Some(name), Event::CutOff);
                    self.expiries.push(name.clone());
                    if let Some(machine) = self.machines.get_mut(name) {
                        (machine.reaches_store, machine.is_apart) = (false, true);
                    }
                }
                self.lost.clone_from(names);
            }
        }
    }

    /// Runs until nothing follows any more.
    pub(super) fn run(&mut self) {
        let mut now = Duration::ZERO;
        self.settle(now);
        for _ in 0..INSTANTS_MAX {
            let Some(next) = self.next_instant(now) else { return };
            now = next;
            if now >= self.ttl && !self.expiries.is_empty() {
                self.expire(now);
            }
            self.settle(now);
        }
    }

    fn next_instant(&self, now: Duration) -> Option<Duration> {
        let last_step = self.steps.last().map_or(Duration::ZERO, |step| step.after);
        let is_quiet = self.expiries.is_empty() && now.saturating_sub(last_step) >= self.loop_wait;
        if now >= self.horizon || (is_quiet && self.primary().is_some()) {
            return None;
        }
        let wakes = self.machines.values().filter(|machine| !machine.is_over).filter_map(|machine| machine.wake_at);
        let expiry = (!self.expiries.is_empty()).then_some(self.ttl);
        wakes.chain(expiry).filter(|at| *at > now).chain([now + self.loop_wait]).min()
    }

    /// The member that leads and is primary, as far as that is known.
    fn primary(&self) -> Option<&MemberName> {
        let leader = &self.cluster.leader.as_ref()?.name;
        let is_primary = match self.machines.get(leader) {
            Some(machine) => machine.reaches_store && machine.view.postgres.is_primary(),
            // Nothing is known of it but that it leads.
            None => !self.lost.contains(leader),
        };
        is_primary.then_some(leader)
    }

    /// The leases of those that could not renew them run out.
    fn expire(&mut self, now: Duration) {
        for name in std::mem::take(&mut self.expiries) {
            self.cluster.members.remove(&name);
            if self.cluster.is_led_by(&name) {
                self.cluster.leader = None;
                self.tell(now, None, Event::LeaseEnds { of: name });
            }
        }
        self.touch();
    }

    fn touch(&mut self) {
        self.cluster.revision = Revision(self.cluster.revision.0 + 1);
    }

    fn names(&self) -> Vec<MemberName> {
        self.machines.keys().cloned().collect()
    }

    /// Lets everybody decide on the same picture, then carries it all out, until nothing changes any more.
    fn settle(&mut self, now: Duration) {
        self.machines.values_mut().for_each(|machine| machine.done = None);
        for _ in 0..ROUNDS_MAX {
            let mut decisions = Vec::new();
            for name in self.names() {
                decisions.extend(self.decide(&name, now).map(|decision| (name, decision)));
            }
            if self.cluster.is_unlocked() {
                self.note_verdicts(&decisions);
            }
            let mut changed = false;
            for (name, decision) in decisions {
                changed |= self.carry_out(&name, decision, now);
            }
            if !changed {
                return;
            }
        }
    }

    fn note_verdicts(&mut self, decisions: &[(MemberName, Decision)]) {
        let of = |name: &MemberName| decisions.iter().find(|(member, _)| member == name);
        for name in self.cluster.members.keys().filter(|name| !self.lost.contains(*name)) {
            let verdict = match of(name) {
                None => Verdict::Unknown,
                Some((_, decision)) if decision.effects.contains(&Effect::Acquire) => {
                    Verdict::Stands(decision.reason.clone())
                }
                Some((_, decision)) => Verdict::DoesNot(decision.reason.clone()),
            };
            self.outcome.verdicts.insert(name.clone(), verdict);
        }
    }

    /// The decision of one member; questions to the others are answered at once.
    fn decide(&mut self, name: &MemberName, now: Duration) -> Option<Decision> {
        let (mut poll, mut round) = (None, None);
        for _ in 0..ROUNDS_MAX {
            let mut view = View { poll: poll.take(), ..self.view(name, now)? };
            view.failsafe.round = round.take();
            let machine = self.machines.get_mut(name)?;
            let (decision, memory) = decide(&view, &machine.memory);
            machine.memory = memory;
            machine.view.finished.clear();
            match decision.effects.as_slice() {
                [Effect::PollPeers(members)] => poll = Some(self.answers(name, members)),
                [Effect::AskConsent { members, .. }] => round = self.consent_of(name, members, now),
                _ => return Some(decision),
            }
        }
        None
    }

    /// What a member sees now.
    fn view(&self, name: &MemberName, now: Duration) -> Option<View> {
        let machine = self.machines.get(name).filter(|machine| !machine.is_over)?;
        let mut view = machine.view.clone();
        view.now = machine.boot + now;
        view.wall = WallTime(machine.wall.0 + now);
        if !machine.reaches_store {
            if !matches!(view.store, Store::Lost { .. }) {
                view.store = Store::Lost { error: STORE_LOST.to_owned() };
            }
        } else {
            let cluster = Arc::new(self.cluster.clone());
            view.store = Store::Current(failsafe::with_promised_leader(&cluster, &view.failsafe, view.now));
            if let Lease::Held { sent, .. } = &mut view.lease
                && self.cluster.is_led_by(name)
            {
                *sent = view.now; // Renewed.
                view.failsafe.consent = None;
            }
        }
        let is_replica = view.postgres.is_running() && !view.postgres.is_primary();
        if is_replica && let Some(facts) = &mut view.postgres.facts {
            facts.streaming = machine.upstream.as_ref().is_some_and(|upstream| self.streams_from(machine, upstream));
        }
        view.postgres.recovery = match (is_replica, &self.cluster.leader) {
            (true, Some(leader)) if leader.name != *name && machine.reaches_store => {
                let wanted = follow::upstream(name, &view.tags, &view.settings, &self.cluster);
                if wanted == machine.upstream { RecoveryDiff::Same } else { RecoveryDiff::Reload }
            }
            (_, _) => RecoveryDiff::Unknown,
        };
        Some(view)
    }

    fn streams_from(&self, machine: &Machine, upstream: &MemberName) -> bool {
        match self.machines.get(upstream) {
            Some(source) => source.is_apart == machine.is_apart && source.view.postgres.is_running(),
            None => !self.lost.contains(upstream), // Nothing is known of it.
        }
    }

    fn answers(&self, asker: &MemberName, members: &BTreeSet<MemberName>) -> PeerPoll {
        let is_apart = self.machines.get(asker).is_some_and(|asker| asker.is_apart);
        let answer = |name: &MemberName| {
            let machine = self.machines.get(name).filter(|machine| machine.is_apart == is_apart)?;
            let view = &machine.view;
            let facts = view.postgres.facts.as_ref().filter(|_| view.postgres.alive)?;
            let in_recovery = !view.postgres.is_primary();
            Some(PeerStatus {
                in_recovery,
                position: if in_recovery { facts.position } else { Lsn::INVALID },
                timeline: facts.timeline,
                nofailover: view.tags.nofailover,
                failover_priority: view.tags.failover_priority,
                watchdog_failed: machine.watchdog_failed,
            })
        };
        let answers =
            members.iter().map(|name| (name.clone(), answer(name).map_or(PeerAnswer::Unreachable, PeerAnswer::Status)));
        PeerPoll { answers: answers.collect() }
    }

    fn tell(&mut self, after: Duration, member: Option<&MemberName>, event: Event) {
        self.steps.push(Step { after, member: member.cloned(), event });
    }

    /// Carries a decision out. Returns whether that changed anything.
    fn carry_out(&mut self, name: &MemberName, decision: Decision, now: Duration) -> bool {
        let Some(machine) = self.machines.get_mut(name) else { return false };
        machine.wake_at = decision.wake_at.map(|at| at.since(machine.boot)).filter(|at| *at > now);
        let news = machine.told.as_ref() != Some(&decision.reason);
        let repeated = machine
            .done
            .as_ref()
            .is_some_and(|done| done.effects == decision.effects && done.reason == decision.reason);
        if repeated {
            return false;
        }
        machine.told = Some(decision.reason.clone());
        machine.done = Some(decision.clone());
        if news || !decision.effects.is_empty() {
            let (reason, effects) = (decision.reason.clone(), decision.effects.clone());
            self.tell(now, Some(name), Event::Decides { reason, effects });
        }
        let mut changed = false;
        for effect in decision.effects {
            changed = true;
            if !self.apply(name, effect, now) {
                break;
            }
        }
        changed
    }

    /// Carries one effect out. False when it failed, which drops the effects after it.
    fn apply(&mut self, name: &MemberName, effect: Effect, now: Duration) -> bool {
        match effect {
            Effect::Acquire => return self.acquire(name, now),
            Effect::Adopt => {
                if !self.cluster.is_led_by(name) {
                    return false;
                }
                let epoch = self.cluster.leader.as_ref().map(|leader| leader.epoch).unwrap_or_default();
                self.hold(name, now, epoch);
            }
            Effect::Release => self.release(name),
            Effect::StoreSystemId { .. } => {
                if let Some(DataDir::Present { system_id: Some(id) }) = self.machine(name).map(|m| &m.view.data_dir) {
                    self.cluster.initialize = Initialize::SystemId(id.clone());
                }
            }
            Effect::StoreConfig { .. } => self.cluster.config = Some(Versioned::default()),
            Effect::RewriteFailover { request, .. } => {
                self.cluster.failover = request.map(|value| Versioned { value, revision: self.cluster.revision });
            }
            Effect::StoreHistory(value) => {
                self.cluster.history = Some(Versioned { value, revision: self.cluster.revision });
            }
            Effect::StoreSync { state, .. } => {
                self.cluster.sync = Versioned { value: state.unwrap_or_default(), revision: self.cluster.revision };
            }
            Effect::LoadStandbyNames { names } => {
                if let Some(facts) = self.facts_mut(name) {
                    facts.replication.loaded = names.unwrap_or_default();
                }
            }
            Effect::ClearInitialize { .. } => self.cluster.initialize = Initialize::Absent,
            Effect::PollPeers(_) | Effect::AskConsent { .. } => {}
            Effect::LiveOnConsent { sent } => self.live_on_consent(name, sent),
            Effect::StoreFailsafe { members, .. } => self.cluster.failsafe = Some(members),
            Effect::Promote => self.promote(name, now),
            Effect::Demote { mode, .. } => self.demote(name, mode, now),
            Effect::StopImmediately => self.stop(name, now),
            Effect::Start(StartAs::Primary) | Effect::Restart(StartAs::Primary) => {
                self.start(name, MemberRole::Primary, None);
            }
            Effect::Start(StartAs::Standby { upstream }) | Effect::Restart(StartAs::Standby { upstream }) => {
                self.start(name, MemberRole::Replica, upstream);
            }
            Effect::ReloadUpstream { upstream } | Effect::RestartForUpstream { upstream } => {
                let timeline = upstream.as_ref().and_then(|upstream| self.timeline_of(upstream));
                if let Some(machine) = self.machines.get_mut(name) {
                    machine.upstream = upstream;
                    if let Some(facts) = &mut machine.view.postgres.facts {
                        facts.timeline = timeline.max(facts.timeline);
                    }
                }
            }
            Effect::CopySlots { .. } => {} // Nobody lacks any here.
            Effect::CheckDivergence { leader } => {
                let timeline = self.timeline_of(&leader).unwrap_or(Timeline::FIRST);
                let lsn = self.machine(name).and_then(|machine| machine.view.postgres.position()).unwrap_or_default();
                let local = LocalPosition { timeline, lsn, was: LocalRole::Standby };
                let history = vec![(Timeline::FIRST, Lsn::INVALID)]; // Wherever it was: both have the same.
                let facts = DivergenceFacts::Known {
                    local,
                    local_history: Some(history.clone()),
                    leader_timeline: timeline,
                    leader_history: history,
                };
                self.finish(name, ActionKind::CheckDivergence, Ended::Divergence(Box::new(facts)));
            }
            Effect::CrashRecover => self.finish(name, ActionKind::CrashRecovery, Ended::Done),
            Effect::Checkpoint => {
                if let Some(facts) = self.facts_mut(name) {
                    facts.checkpointed = true;
                }
                self.finish(name, ActionKind::Checkpoint, Ended::Done);
            }
            Effect::ResumeReplay => {
                if let Some(facts) = self.facts_mut(name) {
                    facts.replay_paused = false;
                }
            }
            Effect::CancelAction => {
                if let Some(machine) = self.machines.get_mut(name) {
                    machine.view.action = None;
                }
            }
            Effect::Bootstrap | Effect::Clone { .. } | Effect::Rewind { .. } | Effect::Exit { .. } => {
                self.tell(now, Some(name), Event::NotForeseen);
                if let Some(machine) = self.machines.get_mut(name) {
                    machine.is_over = true;
                }
            }
        }
        self.touch();
        true
    }

    fn machine(&self, name: &MemberName) -> Option<&Machine> {
        self.machines.get(name)
    }

    fn facts_mut(&mut self, name: &MemberName) -> Option<&mut Facts> {
        self.machines.get_mut(name)?.view.postgres.facts.as_mut()
    }

    fn timeline_of(&self, name: &MemberName) -> Option<Timeline> {
        let seen = self.machine(name).and_then(|machine| machine.view.postgres.facts.as_ref()?.timeline);
        seen.or_else(|| self.cluster.members.get(name).and_then(|member| member.timeline()))
    }

    fn finish(&mut self, name: &MemberName, kind: ActionKind, outcome: Ended) {
        if let Some(machine) = self.machines.get_mut(name) {
            machine.view.finished.push(Finished { kind, outcome });
        }
    }

    fn acquire(&mut self, name: &MemberName, now: Duration) -> bool {
        if let Some(leader) = &self.cluster.leader {
            let winner = leader.name.clone();
            if winner != *name {
                self.outcome.contenders.push(name.clone());
                self.tell(now, Some(name), Event::LosesRace { to: winner });
            }
            return false;
        }
        self.touch();
        let revision = self.cluster.revision;
        let lease = self.cluster.members.get(name).map(|member| member.lease).unwrap_or_default();
        self.cluster.leader = Some(Leader { name: name.clone(), lease, epoch: revision, revision });
        self.outcome.contenders.clear();
        if let Some(Verdict::Stands(reason)) = self.outcome.verdicts.get(name).cloned() {
            self.outcome.verdicts.insert(name.clone(), Verdict::Wins(reason));
        }
        self.hold(name, now, revision);
        true
    }

    fn hold(&mut self, name: &MemberName, now: Duration, epoch: Revision) {
        if let Some(machine) = self.machines.get_mut(name) {
            let ttl = machine.view.settings.ttl;
            machine.view.lease = Lease::Held { sent: machine.boot + now, ttl, epoch };
        }
    }

    fn release(&mut self, name: &MemberName) {
        if self.cluster.is_led_by(name) {
            self.cluster.leader = None;
        }
        if let Some(machine) = self.machines.get_mut(name) {
            machine.view.lease = Lease::None;
        }
    }

    fn promote(&mut self, name: &MemberName, now: Duration) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        machine.view.postgres.role = MemberRole::Primary;
        let mut timeline = None;
        if let Some(facts) = &mut machine.view.postgres.facts {
            timeline = facts.timeline.map(Timeline::next);
            (facts.in_recovery, facts.streaming, facts.checkpointed) = (false, false, false);
            facts.timeline = timeline;
        }
        self.publish(name, MemberRole::Primary, timeline);
        self.finish(name, ActionKind::Promote, Ended::Done);
        self.outcome.primary_after = Some(now);
        self.tell(now, Some(name), Event::IsPrimary);
    }

    /// What others read about a member.
    fn publish(&mut self, name: &MemberName, role: MemberRole, timeline: Option<Timeline>) {
        let Some(member) = self.cluster.members.get_mut(name) else { return };
        member.fields.insert("role".to_owned(), role.as_str().into());
        if let Some(timeline) = timeline {
            member.fields.insert("timeline".to_owned(), Value::from(timeline.get()));
        }
    }

    fn demote(&mut self, name: &MemberName, mode: DemoteMode, now: Duration) {
        let facts = self.facts_mut(name).cloned();
        self.stop(name, now);
        if mode.releases() {
            self.release(name);
        }
        if let Some(machine) = self.machines.get_mut(name) {
            machine.view.lease = Lease::None;
            machine.view.action = None;
            machine.view.postgres.role = MemberRole::Demoted;
            if mode == DemoteMode::Offline {
                machine.view.postgres.facts = facts.map(standby);
                machine.is_up_as(MemberRole::Replica);
            }
        }
        self.finish(name, ActionKind::Demote, Ended::Done);
        self.publish(name, MemberRole::Demoted, None);
    }

    fn stop(&mut self, name: &MemberName, now: Duration) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        let was_primary = machine.view.postgres.is_primary();
        let postgres = &mut machine.view.postgres;
        (postgres.alive, postgres.state, postgres.facts) = (false, PostgresState::Stopped, None);
        machine.upstream = None;
        if was_primary {
            self.outcome.former_writable_until = Some(now);
            self.tell(now, Some(name), Event::IsNoPrimary);
        }
    }

    fn start(&mut self, name: &MemberName, role: MemberRole, upstream: Option<MemberName>) {
        let (timeline, position) = (
            upstream.as_ref().and_then(|upstream| self.timeline_of(upstream)).or(self.cluster.timeline()),
            self.cluster.status.optime.unwrap_or_default(),
        );
        let Some(machine) = self.machines.get_mut(name) else { return };
        machine.upstream = upstream;
        machine.view.postgres.facts = Some(Facts {
            in_recovery: role != MemberRole::Primary,
            position,
            replayed: position,
            timeline,
            streaming: false,
            replay_paused: false,
            history: None,
            replication: Replication::default(),
            checkpointed: true,
        });
        machine.is_up_as(role);
        self.finish(name, ActionKind::Start, Ended::Done);
    }

    pub(super) fn into_projection(mut self) -> Projection {
        self.outcome.primary = self.primary().cloned();
        Projection { steps: self.steps, outcome: self.outcome }
    }
}

/// A former primary's facts once it runs read-only.
fn standby(facts: Facts) -> Facts {
    Facts { in_recovery: true, streaming: false, ..facts }
}

impl Machine {
    fn new(observed: &super::Observed, cluster: &Cluster) -> Machine {
        let mut view = observed.view.clone();
        let mut memory = observed.memory.clone();
        view.finished.clear();
        view.poll = None;
        if view.action.as_ref().is_some_and(|action| action.kind == ActionKind::Checkpoint) {
            view.action = None; // It does not keep anything from happening.
            memory.checkpoint = CheckpointState::Done;
        }
        if let (Lease::Held { sent, .. }, Store::Current(_)) = (&mut view.lease, &view.store) {
            *sent = view.now; // Renewed just before the loss: what is told are the latest times.
        }
        if let (Some(status), Some(facts)) = (&observed.status, &mut view.postgres.facts) {
            // What it answers now is newer than what it saw in its last cycle.
            if status.in_recovery && facts.in_recovery {
                facts.position = facts.position.max(status.position);
            }
            facts.timeline = status.timeline.or(facts.timeline);
        }
        Machine {
            boot: view.now,
            wall: view.wall,
            reaches_store: matches!(view.store, Store::Current(_)),
            is_apart: false,
            watchdog_failed: observed.status.as_ref().is_some_and(|status| status.watchdog_failed),
            upstream: follow::upstream(&view.me, &view.tags, &view.settings, cluster),
            wake_at: None,
            told: None,
            done: None,
            is_over: false,
            view,
            memory,
        }
    }

    fn is_up_as(&mut self, role: MemberRole) {
        let postgres = &mut self.view.postgres;
        (postgres.alive, postgres.state, postgres.role) = (true, PostgresState::Running, role);
        (postgres.control, postgres.starting_since) = (None, None);
    }
}
