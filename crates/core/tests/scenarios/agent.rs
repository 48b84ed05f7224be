//! An agent of the model: what it knows, and when it does something next.
//!
//! Around the real `decide` stands a small copy of what the agent of `pgward-agent` does: [`crate::keeper`] renews the
//! lease, [`crate::cycle`] observes and executes, [`crate::work`] carries out the long actions.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pgward_core::cluster::{Cluster, LeaseId, MemberRole, PostgresState, Revision, Status};
use pgward_core::config::DynamicConfig;
use pgward_core::decide::failsafe::{Consent, Round};
use pgward_core::decide::peers::PeerPoll;
use pgward_core::decide::view::{Finished, Lease, OwnTags};
use pgward_core::decide::{Memory, Reason};
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;

use crate::postgres::Postgres;
use crate::work::Action;
use crate::world::World;

/// What the agent knows about its server between two observations.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) state: PostgresState,
    pub(crate) role: MemberRole,
    pub(crate) starting_since: Option<BootInstant>,
    pub(crate) managed: bool,
}

impl Local {
    pub(crate) fn ended(&mut self, state: PostgresState) {
        self.state = state;
        self.starting_since = None;
    }

    pub(crate) fn started(&mut self, now: BootInstant) {
        self.state = PostgresState::Starting;
        self.starting_since = Some(now);
        self.managed = true;
    }
}

/// What was told to others last.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) record: String,
    pub(crate) essence: String,
    pub(crate) record_at: Option<BootInstant>,
    pub(crate) lease: Option<LeaseId>,
    pub(crate) status: Option<Status>,
    pub(crate) status_at: Option<BootInstant>,
}

/// An agent.
pub(crate) struct Agent {
    pub(crate) tags: OwnTags,
    pub(crate) dynamic: DynamicConfig,
    pub(crate) dynamic_revision: Option<Revision>,
    pub(crate) memory: Memory,
    pub(crate) local: Local,
    // The lease task.
    pub(crate) lease: Lease,
    pub(crate) lease_id: Option<LeaseId>,
    /// Leases that this agent had before, and the one that it found the leader key under (BEY-31).
    pub(crate) former: Vec<LeaseId>,
    pub(crate) legacy: Option<LeaseId>,
    pub(crate) permit_until: BootInstant,
    pub(crate) renew_at: BootInstant,
    /// The deadline for the fencer.
    pub(crate) deadline: Option<BootInstant>,
    /// What the fencer was asked to protect; the inner `None` is a server that is about to be started.
    pub(crate) protected: Option<Option<u64>>,
    // The picture of the store.
    pub(crate) seen: Option<Arc<Cluster>>,
    pub(crate) picture_due: Option<BootInstant>,
    pub(crate) knows_store_is_lost: bool,
    // The cycle.
    pub(crate) cycle_at: Option<BootInstant>,
    /// A request that is not answered yet holds up the cycle until then.
    pub(crate) busy_until: BootInstant,
    pub(crate) next_tick: BootInstant,
    pub(crate) decided_kind: (u8, Option<Revision>),
    pub(crate) saw_alive: bool,
    pub(crate) finished: Vec<Finished>,
    pub(crate) poll: Option<PeerPoll>,
    pub(crate) poll_due: Option<(BootInstant, PeerPoll)>,
    /// All others agreed to wait, after the last renewal.
    pub(crate) consent: Option<Consent>,
    pub(crate) round: Option<Round>,
    pub(crate) round_due: Option<(BootInstant, Round)>,
    pub(crate) action: Option<Action>,
    pub(crate) beside: Option<Action>,
    pub(crate) published: Published,
    pub(crate) last_reason: Option<Reason>,
    pub(crate) is_frozen: bool,
}

impl Agent {
    fn new(now: BootInstant, postgres: &Postgres, tags: OwnTags) -> Agent {
        let role = match &postgres.data {
            None => MemberRole::Uninitialized,
            Some(data) if data.has_signal_file => MemberRole::Replica,
            Some(_) if postgres.process.is_some() => MemberRole::Primary,
            Some(_) => MemberRole::Demoted,
        };
        let dynamic = bootstrap_configuration();
        Agent {
            tags,
            permit_until: now + dynamic.timing.ttl,
            dynamic,
            dynamic_revision: None,
            memory: Memory::default(),
            local: Local { state: PostgresState::Stopped, role, starting_since: None, managed: false },
            lease: Lease::None,
            lease_id: None,
            former: Vec::new(),
            legacy: None,
            renew_at: now,
            deadline: None,
            protected: None,
            seen: None,
            picture_due: None,
            knows_store_is_lost: false,
            cycle_at: None,
            busy_until: now,
            next_tick: now,
            decided_kind: (0, None),
            saw_alive: false,
            finished: Vec::new(),
            poll: None,
            poll_due: None,
            consent: None,
            round: None,
            round_due: None,
            action: None,
            beside: None,
            published: Published::default(),
            last_reason: None,
            is_frozen: false,
        }
    }

    /// When something of it is due. A frozen agent is not asked.
    pub(crate) fn next_event(&self) -> Option<BootInstant> {
        let connected = self.seen.is_some();
        let renew = Some(self.renew_at).filter(|_| connected);
        let action = self.action.as_ref().map(|action| action.due);
        let beside = self.beside.as_ref().map(|action| action.due);
        [self.picture_due, renew, action, beside, self.next_cycle()].into_iter().flatten().min()
    }

    fn next_cycle(&self) -> Option<BootInstant> {
        let poll = self.poll_due.as_ref().map(|(at, _)| *at).or(self.round_due.as_ref().map(|(at, _)| *at));
        let cycle = self.cycle_at.filter(|_| poll.is_none()).map(|at| at.max(self.busy_until));
        poll.or(cycle).filter(|_| self.seen.is_some())
    }

    /// What wakes the cycle when it changes: the kind of what is proven, not each renewal.
    pub(crate) fn lease_kind(&self) -> (u8, Option<Revision>) {
        match &self.lease {
            Lease::None => (0, None),
            Lease::Held { epoch, .. } => (1, Some(*epoch)),
            Lease::NotOurs { .. } => (2, None),
        }
    }
}

impl World {
    pub(crate) fn agent(&self, name: &MemberName) -> &Agent {
        self.node(name).agent.as_ref().expect("asked only for a member whose agent runs")
    }

    pub(crate) fn agent_mut(&mut self, name: &MemberName) -> &mut Agent {
        self.node_mut(name).agent.as_mut().expect("asked only for a member whose agent runs")
    }

    /// Starts the agent of a machine that is up and has none.
    pub(crate) fn start_agent(&mut self, name: &MemberName) {
        if !self.node(name).is_up || self.node(name).agent.is_some() {
            return;
        }
        let now = self.now;
        let node = self.node_mut(name);
        let tags = OwnTags { failover_priority: 1, ..OwnTags::default() };
        node.agent = Some(Agent::new(now, &node.postgres, tags));
        node.exited = None;
        self.deliver_later(name);
    }

    /// The agent is gone; what it was doing stays as it is, and so do PostgreSQL and the fencer.
    pub(crate) fn kill_agent(&mut self, name: &MemberName) {
        self.node_mut(name).agent = None;
    }

    pub(crate) fn set_frozen(&mut self, name: &MemberName, is_frozen: bool) {
        if let Some(agent) = &mut self.node_mut(name).agent {
            agent.is_frozen = is_frozen;
        }
        if !is_frozen {
            self.deliver_later(name);
            self.wake(name);
        }
    }

    /// The cycle runs as soon as it can.
    pub(crate) fn wake(&mut self, name: &MemberName) {
        let now = self.now;
        if let Some(agent) = &mut self.node_mut(name).agent {
            agent.cycle_at = Some(now);
        }
    }

    /// One thing of the agent that is due.
    pub(crate) fn fire_agent(&mut self, name: &MemberName) -> bool {
        let now = self.now;
        let lost = self.store_is_lost(name);
        let Some(agent) = self.node_mut(name).agent.as_mut().filter(|agent| !agent.is_frozen) else { return false };
        if lost && !agent.knows_store_is_lost {
            agent.knows_store_is_lost = true;
            agent.cycle_at = Some(now);
            return true;
        }
        if agent.picture_due.is_some_and(|at| at <= now) {
            agent.picture_due = None;
            self.receive_picture(name);
            return true;
        }
        let agent = self.agent_mut(name);
        if agent.seen.is_some() && agent.renew_at <= now {
            self.keep(name);
            return true;
        }
        if agent.action.as_ref().is_some_and(|action| action.due <= now) {
            self.proceed(name);
            return true;
        }
        if agent.beside.as_ref().is_some_and(|action| action.due <= now) {
            self.proceed_beside(name);
            return true;
        }
        if agent.next_cycle().is_some_and(|at| at <= now) {
            self.cycle(name);
            return true;
        }
        false
    }

    fn receive_picture(&mut self, name: &MemberName) {
        if !self.reaches_store(name) {
            return;
        }
        let (picture, now) = (self.picture(), self.now);
        let may_have_led = self.agent(name).local.role != MemberRole::Replica || self.node(name).fencer.is_some();
        let agent = self.agent_mut(name);
        if agent.seen.is_none() && may_have_led {
            let leader = picture.leader.as_ref().filter(|leader| leader.name == *name);
            agent.legacy = leader.map(|leader| leader.lease);
        }
        let changed =
            agent.knows_store_is_lost || agent.seen.as_deref().map(significance) != Some(significance(&picture));
        agent.knows_store_is_lost = false;
        agent.seen = Some(picture);
        if changed {
            agent.cycle_at = Some(now);
        }
    }
}

/// What of the store a decision depends on, positions of members left out.
fn significance(cluster: &Cluster) -> u64 {
    let mut hasher = DefaultHasher::new();
    cluster.initialize_revision.hash(&mut hasher);
    cluster.config.as_ref().map(|config| config.revision).hash(&mut hasher);
    cluster.leader.as_ref().map(|leader| (&leader.name, leader.epoch, leader.revision)).hash(&mut hasher);
    cluster.failover.as_ref().map(|request| request.revision).hash(&mut hasher);
    cluster.history.as_ref().map(|history| history.revision).hash(&mut hasher);
    cluster.own.iter().for_each(|(name, own)| (name, own.revision).hash(&mut hasher));
    for (name, member) in &cluster.members {
        name.hash(&mut hasher);
        for field in ["state", "role", "timeline", "checkpoint_after_promote", "tags"] {
            member.fields.get(field).map(ToString::to_string).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// What the local file gives the cluster at its creation.
fn bootstrap_configuration() -> DynamicConfig {
    let document =
        serde_json::json!({"ttl": 30, "loop_wait": 10, "retry_timeout": 10, "postgresql": {"use_pg_rewind": true}});
    let document = document.as_object().cloned().unwrap_or_default();
    DynamicConfig::from_map(&document).expect("the document above is valid")
}
