//! The world that a script or a seed plays with: a store, machines with PostgreSQL, a fencer and an agent each, and a
//! clock that moves from one event to the next.
//!
//! Only the agents decide anything, with the real `decide`; see [`crate::agent`]. Everything here is the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, Revision};
use pgward_core::decide::failsafe::Promise;
use pgward_core::decide::peers::{PeerAnswer, PeerPoll, PeerStatus};
use pgward_core::decide::view::Lease;
use pgward_core::names::MemberName;
use pgward_core::time::{BootInstant, lease_end};
use pgward_core::wal::Lsn;

use crate::agent::Agent;
use crate::invariants::Observer;
use crate::pace::Pace;
use crate::postgres::{Postgres, Stop};
use crate::store::{LEADER, Refused, Store};

/// When a script begins: some time after the machine was started, as in life.
pub(crate) const BEGIN: BootInstant = BootInstant(Duration::from_secs(10_000));

/// How often primaries write and replicas receive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// After so long without contact the picture of the store counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// Why a request to the store did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No answer: it may have happened or not.
    Unknown,
    /// The store refused.
    Refused(Refused),
}

/// What the fencer was told last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed {
    pub(crate) deadline: BootInstant,
    /// The postmaster; `None`: whatever runs there by then.
    pub(crate) process: Option<u64>,
}

/// One machine.
pub(crate) struct Node {
    pub(crate) is_up: bool,
    /// No packet leaves or reaches it.
    pub(crate) is_cut_off: bool,
    /// It does not reach the store, and everybody else.
    pub(crate) is_unplugged: bool,
    /// Since when the store cannot be reached from here.
    pub(crate) store_lost_since: Option<BootInstant>,
    /// Requests reach the store, answers do not come back.
    pub(crate) loses_answers: bool,
    pub(crate) postgres: Postgres,
    pub(crate) fencer: Option<Armed>,
    pub(crate) agent: Option<Agent>,
    /// What its agent has promised to a primary without the store; on disk.
    pub(crate) promise: Option<Promise>,
    /// Until when the last confirmed renewal made from here excludes everybody else.
    pub(crate) proven_until: BootInstant,
    /// The exit code of an agent that ended by its own decision.
    pub(crate) exited: Option<u8>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: BootInstant,
    pub(crate) store: Store,
    pub(crate) store_is_up: bool,
    pub(crate) nodes: BTreeMap<MemberName, Node>,
    /// Pairs of machines that do not reach each other.
    pub(crate) broken: BTreeSet<(MemberName, MemberName)>,
    pub(crate) pace: Pace,
    pub(crate) observer: Observer,
    /// What happened, line by line.
    pub(crate) story: Vec<String>,
    heartbeat: BootInstant,
    /// Promotions so far.
    branches: u64,
    /// The holder of the leader key that the story told last.
    told_leader: Option<String>,
    began: BootInstant,
    first_revision: Revision,
}

impl World {
    /// Machines with empty directories and agents that are about to run their first cycle.
    pub(crate) fn new(names: &[MemberName], pace: Pace) -> World {
        let mut world = World {
            now: BEGIN,
            store: Store::default(),
            store_is_up: true,
            nodes: BTreeMap::new(),
            broken: BTreeSet::new(),
            pace,
            observer: Observer::default(),
            story: Vec::new(),
            heartbeat: BEGIN + HEARTBEAT,
            branches: 0,
            told_leader: None,
            began: BEGIN,
            first_revision: Revision(0),
        };
        world.store.is_hasty = world.pace.is_random();
        for name in names {
            world.add_machine(name);
        }
        world
    }

    /// One more machine with an empty directory, and its agent.
    pub(crate) fn add_machine(&mut self, name: &MemberName) {
        let node = Node {
            is_up: true,
            is_cut_off: false,
            is_unplugged: false,
            store_lost_since: None,
            loses_answers: false,
            postgres: Postgres::new(),
            fencer: None,
            agent: None,
            promise: None,
            proven_until: BootInstant::default(),
            exited: None,
        };
        self.nodes.insert(name.clone(), node);
        self.start_agent(name);
    }

    /// The machine loses its power.
    pub(crate) fn kill_machine(&mut self, name: &MemberName) {
        let node = self.node_mut(name);
        node.is_up = false;
        node.postgres.kill();
        node.fencer = None;
        node.agent = None;
        self.connections_changed();
    }

    /// Forgets the story so far: it begins here.
    pub(crate) fn begins_now(&mut self) {
        self.story.clear();
        self.began = self.now;
        self.first_revision = self.store.revision();
    }

    /// How often the store was written since the story began.
    pub(crate) fn writes(&self) -> i64 {
        self.store.revision().0 - self.first_revision.0
    }

    pub(crate) fn node(&self, name: &MemberName) -> &Node {
        self.nodes.get(name).expect("scripts and seeds name only members that exist")
    }

    pub(crate) fn node_mut(&mut self, name: &MemberName) -> &mut Node {
        self.nodes.get_mut(name).expect("scripts and seeds name only members that exist")
    }

    pub(crate) fn names(&self) -> Vec<MemberName> {
        self.nodes.keys().cloned().collect()
    }

    /// Adds a line to the story.
    pub(crate) fn tell(&mut self, who: &str, what: &str) {
        let seconds = self.now.since(self.began).as_secs_f64();
        self.story.push(format!("{seconds:>9.3}  {who:<6} {what}"));
    }

    // Who reaches whom.

    pub(crate) fn reaches_store(&self, name: &MemberName) -> bool {
        let node = self.node(name);
        self.store_is_up && node.is_up && !node.is_cut_off && !node.is_unplugged
    }

    fn reaches(&self, one: &MemberName, other: &MemberName) -> bool {
        let (here, there) = (self.node(one), self.node(other));
        let pair = if one < other { (one.clone(), other.clone()) } else { (other.clone(), one.clone()) };
        here.is_up && there.is_up && !here.is_cut_off && !there.is_cut_off && !self.broken.contains(&pair)
    }

    /// The server of `other`, when it can be reached from `one`.
    pub(crate) fn server_of(&self, one: &MemberName, other: &MemberName) -> Option<&Postgres> {
        self.nodes.contains_key(other).then(|| self.reaches(one, other))?.then(|| &self.node(other).postgres)
    }

    /// What the members answer when `asker` asks them for their status (PEER-1…5).
    pub(crate) fn answers(&self, asker: &MemberName, members: &BTreeSet<MemberName>) -> PeerPoll {
        let answer = |name: &MemberName| {
            let agent = self.nodes.get(name)?.agent.as_ref().filter(|agent| !agent.is_frozen)?;
            if !self.reaches(asker, name) {
                return None;
            }
            let facts = self.node(name).postgres.facts(self.now)?;
            Some(PeerStatus {
                in_recovery: facts.in_recovery,
                position: if facts.in_recovery { facts.position } else { Lsn::INVALID },
                timeline: facts.timeline,
                nofailover: agent.tags.nofailover,
                failover_priority: agent.tags.failover_priority,
                watchdog_failed: false,
            })
        };
        let answers = members
            .iter()
            .map(|name| (name.clone(), answer(name).map_or(PeerAnswer::Unreachable, PeerAnswer::Status)))
            .collect();
        PeerPoll { answers }
    }

    /// True when a question to `member` gets neither an answer nor a refusal: its machine is down or cut off, or its
    /// agent is frozen. A machine without an agent refuses at once.
    pub(crate) fn is_silent(&self, asker: &MemberName, member: &MemberName) -> bool {
        let agent = self.nodes.get(member).and_then(|node| node.agent.as_ref());
        !self.nodes.contains_key(member) || !self.reaches(asker, member) || agent.is_some_and(|agent| agent.is_frozen)
    }

    // The store, as members reach it.

    /// One request of `name` to the store.
    pub(crate) fn ask<T>(
        &mut self,
        name: &MemberName,
        request: impl FnOnce(&mut Store, BootInstant) -> Result<T, Refused>,
    ) -> Result<T, Trouble> {
        if !self.reaches_store(name) {
            return Err(Trouble::Unknown);
        }
        let now = self.now;
        let answer = self.change_store(|store| request(store, now));
        if self.node(name).loses_answers {
            return Err(Trouble::Unknown);
        }
        answer.map_err(Trouble::Refused)
    }

    /// Changes the store and lets everybody who watches it know a little later.
    pub(crate) fn change_store<T>(&mut self, change: impl FnOnce(&mut Store) -> T) -> T {
        let before = self.store.revision();
        let result = change(&mut self.store);
        if self.store.revision() != before {
            self.tell_leader();
            self.observer.saw_store(&self.store);
            for name in self.names() {
                self.deliver_later(&name);
            }
        }
        result
    }

    fn tell_leader(&mut self) {
        let leader = self.store.get(LEADER).map(str::to_owned);
        if leader != self.told_leader {
            let text = leader
                .as_ref()
                .map_or("the leader key is gone".to_owned(), |name| format!("the leader key is {name}'s"));
            self.tell("store", &text);
            self.told_leader = leader;
        }
    }

    /// The watch of `name` shows the present state of the store after its delay.
    pub(crate) fn deliver_later(&mut self, name: &MemberName) {
        if self.reaches_store(name) {
            let at = self.now + self.pace.watch(name);
            if let Some(agent) = &mut self.node_mut(name).agent {
                agent.picture_due = Some(agent.picture_due.map_or(at, |due| due.min(at)));
            }
        }
    }

    /// The picture of the store as the watch of `name` has it.
    pub(crate) fn picture(&mut self) -> Arc<Cluster> {
        self.store.cluster()
    }

    /// Notes from when on members do not reach the store any more, or lets those who do again catch up.
    pub(crate) fn connections_changed(&mut self) {
        for name in self.names() {
            let (reaches, now) = (self.reaches_store(&name), self.now);
            let node = self.node_mut(&name);
            if !reaches {
                node.store_lost_since.get_or_insert(now);
            } else if node.store_lost_since.take().is_some() {
                self.deliver_later(&name);
            }
        }
    }

    /// The store has been out of reach for so long that its picture does not count any more.
    pub(crate) fn store_is_lost(&self, name: &MemberName) -> bool {
        self.node(name).store_lost_since.is_some_and(|since| self.now >= since + LOST_AFTER)
    }

    // Time.

    /// Lets time pass, event by event.
    pub(crate) fn advance(&mut self, by: Duration) {
        let target = self.now + by;
        self.advance_until(target, |_| false);
    }

    /// Lets time pass until `target`, or until `done`. Returns whether it was done.
    pub(crate) fn advance_until(&mut self, target: BootInstant, done: impl Fn(&World) -> bool) -> bool {
        let mut at_once = 0;
        while !done(self) {
            let Some(at) = self.next_event().filter(|at| *at <= target) else {
                self.now = target;
                return done(self);
            };
            at_once = if at > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 10_000, "events follow one another without end:\n{}", self.tail());
            self.now = self.now.max(at);
            self.fire();
            self.check_invariants();
        }
        true
    }

    fn next_event(&self) -> Option<BootInstant> {
        let store = self.store.next_lease_end().filter(|_| self.store_is_up);
        let nodes = self.names().into_iter().filter_map(|name| self.next_event_of(&name));
        nodes.chain(store).chain([self.heartbeat]).min().map(|at| at.max(self.now))
    }

    fn next_event_of(&self, name: &MemberName) -> Option<BootInstant> {
        let node = self.node(name);
        if !node.is_up {
            return None;
        }
        let process = node.postgres.process.as_ref();
        let fencer = node.fencer.filter(|armed| self.is_target(name, armed)).map(|armed| armed.deadline);
        let accepts = process.filter(|process| !process.announced).map(|process| process.accepts_at);
        let (promotes, dies) = (process.and_then(|p| p.promotes_at), process.and_then(|p| p.dies_at));
        let agent = node.agent.as_ref().filter(|agent| !agent.is_frozen);
        let lost = node.store_lost_since.map(|since| since + LOST_AFTER);
        let lost = lost.filter(|_| agent.is_some_and(|agent| !agent.knows_store_is_lost));
        let agent = agent.and_then(|agent| agent.next_event());
        [fencer, accepts, promotes, dies, lost, agent].into_iter().flatten().min()
    }

    /// One thing that is due.
    fn fire(&mut self) {
        let now = self.now;
        if self.store_is_up && self.store.next_lease_end().is_some_and(|end| end <= now) {
            self.change_store(|store| store.expire(now));
            return;
        }
        for name in self.names() {
            if self.node(&name).is_up && (self.fire_server(&name) || self.fire_agent(&name)) {
                return;
            }
        }
        if self.heartbeat <= now {
            self.heartbeat = now + HEARTBEAT;
            self.replicate();
            let writable: Vec<MemberName> = self.names().into_iter().filter(|name| self.is_writable(name)).collect();
            writable.iter().for_each(|name| self.node_mut(name).postgres.write());
        }
    }

    pub(crate) fn is_writable(&self, name: &MemberName) -> bool {
        self.node(name).is_up && self.node(name).postgres.is_writable(self.now)
    }

    /// The fencer and the server.
    fn fire_server(&mut self, name: &MemberName) -> bool {
        let now = self.now;
        if let Some(armed) = self.node(name).fencer
            && armed.deadline <= now
            && self.is_target(name, &armed)
        {
            let dies_at = now + self.pace.kill();
            self.tell(name.as_str(), "fencer: the deadline has passed, kills PostgreSQL");
            let node = self.node_mut(name);
            node.fencer = None;
            if let Some(process) = &mut node.postgres.process {
                process.dies_at = Some(dies_at);
            }
            return true;
        }
        let Some(process) = self.node_mut(name).postgres.process.as_mut() else { return false };
        if process.dies_at.is_some_and(|at| at <= now) {
            self.server_dies(name);
            return true;
        }
        if process.promotes_at.is_some_and(|at| at <= now) {
            self.replicate(); // What has been received counts.
            self.branches += 1;
            let branch = self.branches;
            let node = self.node_mut(name);
            node.postgres.become_primary(branch);
            let timeline = node.postgres.data.as_ref().map(|data| data.wal.timeline);
            self.observer.saw_promotion(name, timeline);
            let timeline = timeline.map_or("?".to_owned(), |timeline| timeline.to_string());
            self.tell(name.as_str(), &format!("PostgreSQL is primary on timeline {timeline}"));
            return true;
        }
        if !process.announced && process.accepts_at <= now {
            process.announced = true;
            let role = if process.in_recovery { "standby" } else { "primary" };
            self.tell(name.as_str(), &format!("PostgreSQL accepts connections as {role}"));
            self.wake(name);
            return true;
        }
        false
    }

    fn is_target(&self, name: &MemberName, armed: &Armed) -> bool {
        let process = self.node(name).postgres.process.as_ref().filter(|process| process.dies_at.is_none());
        process.is_some_and(|process| armed.process.is_none_or(|id| id == process.id))
    }

    /// The postmaster and all its children end without having been asked to.
    pub(crate) fn server_dies(&mut self, name: &MemberName) {
        let was_up = self.node(name).postgres.process.is_some();
        self.node_mut(name).postgres.kill();
        if was_up {
            self.tell(name.as_str(), "PostgreSQL is gone");
        }
        self.wake(name);
    }

    /// What primaries have written reaches the standbys that can stream from them.
    pub(crate) fn replicate(&mut self) {
        for name in self.names() {
            self.stream(&name);
        }
    }

    fn stream(&mut self, name: &MemberName) {
        let now = self.now;
        let received = || {
            let node = self.node(name);
            let upstream = node.postgres.process.as_ref()?.upstream.as_ref()?;
            let source = self.server_of(name, upstream).filter(|source| source.accepts(now))?;
            let (ours, theirs) = (node.postgres.data.as_ref()?, source.data.as_ref()?);
            let same = ours.system_id == theirs.system_id && ours.wal.is_part_of(&theirs.wal);
            same.then(|| (theirs.wal.clone(), theirs.state))
        };
        if !self.node(name).is_up || !self.node(name).postgres.is_replica(now) {
            return;
        }
        let received = received();
        let postgres = &mut self.node_mut(name).postgres;
        let (Some(process), Some(data)) = (&mut postgres.process, &mut postgres.data) else { return };
        process.is_streaming = received.is_some();
        if let Some((wal, _)) = received {
            data.wal = wal;
        }
    }

    /// Stops the server of `name`. In a fast stop a primary hands everything to those who stream from it, its shutdown
    /// checkpoint included.
    pub(crate) fn stop_server(&mut self, name: &MemberName, how: Stop) -> Option<Lsn> {
        let now = self.now;
        let followers: Vec<MemberName> = self.names().into_iter().filter(|other| self.streams(other, name)).collect();
        let was_up = self.node(name).postgres.process.is_some();
        let checkpoint = self.node_mut(name).postgres.stop(how, now);
        if checkpoint.is_some()
            && let Some(wal) = self.node(name).postgres.data.as_ref().map(|data| data.wal.clone())
        {
            for follower in followers {
                if let Some(data) = &mut self.node_mut(&follower).postgres.data {
                    data.wal = wal.clone();
                }
            }
        }
        if was_up {
            self.tell(name.as_str(), "PostgreSQL has stopped");
        }
        checkpoint
    }

    /// True when `name` receives WAL from `source`.
    pub(crate) fn streams(&self, name: &MemberName, source: &MemberName) -> bool {
        let process = self.node(name).postgres.process.as_ref();
        let follows = process.is_some_and(|process| process.is_streaming && process.upstream.as_ref() == Some(source));
        follows && self.node(name).is_up && self.reaches(name, source)
    }

    // Proofs, as an observer sees them.

    /// Notes what a confirmed renewal proved, for the invariants.
    pub(crate) fn proven(&mut self, name: &MemberName, lease: &Lease) {
        if let Lease::Held { sent, ttl, .. } = lease {
            self.node_mut(name).proven_until = lease_end(*sent, *ttl);
            self.observer.saw_proof(&self.store);
        }
    }

    pub(crate) fn leader(&self) -> Option<String> {
        self.store.get(LEADER).map(str::to_owned)
    }

    /// The last lines of the story, for a failure.
    pub(crate) fn tail(&self) -> String {
        let from = self.story.len().saturating_sub(120);
        self.story[from..].join("\n")
    }
}
