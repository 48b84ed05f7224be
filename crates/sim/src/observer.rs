//! The observer sees everything: true time, the true store and every server. It checks the safety invariants after every
//! event (`docs/testing.md` lists them) and notes who broke which.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use pgward_core::cluster::{Cluster, Initialize, Revision};
use pgward_core::decide::peers::PeerAnswer;
use pgward_core::names::MemberName;
use pgward_core::wal::{Lsn, Timeline};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::peers::Directory;
use crate::postgres::signal::Signal;
use crate::postgres::{CommitId, Event, Postgres};
use crate::store::{Etcd, StoreEvent};

/// A third of the time for which a circle of standbys may last.
const CIRCLE_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// How far two clocks come apart in the time of a lease.
const CLOCKS_DIFFER: std::time::Duration = std::time::Duration::from_millis(200);

/// How long ago a primary may have ended that was there when it was looked at, before data was removed.
const LOOKED_AT_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// What must never happen. The names are those of the list of invariants in `docs/testing.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Two writable nodes.
    S1,
    /// A writable node without a lease that is still alive.
    S2,
    /// Promote was issued without a lease.
    S3,
    /// The winner was behind somebody whose answer it had.
    S8,
    /// Writable on a timeline that the cluster has left behind.
    S9,
    /// Two clusters under one name.
    S10,
    /// Data was removed that must not be.
    S11,
    /// The key was released by a writable node.
    S12,
    /// Two programs on one data directory.
    S13,
    /// A member stood although it had promised to wait.
    S15,
    /// A request by an operator moved the leader more than once, or stayed.
    S17,
    /// Keys were lost, and something came of it; or they stayed lost.
    S20,
    /// A rewind or a copy from somebody who is no proper source.
    S21,
    /// A member follows itself, directly or around a circle.
    S22,
    /// The stored history was changed in its past.
    S23,
    /// A member that may not lead took the key.
    S24,
    /// The agent panicked.
    S26,
    /// A jump of a wall clock changed what was decided.
    S27,
    /// A write that a switchover must not lose was lost.
    Switchover,
    /// The cluster did not become whole again in time (L1, L6, L9, L12, L14).
    Whole,
    /// Something changed although nothing happened (L10).
    Stable,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let liveness = match self {
            Invariant::Switchover => Some("no loss by a switchover"),
            Invariant::Whole => Some("liveness L1/L6/L9/L12/L14"),
            Invariant::Stable => Some("liveness L10"),
            Invariant::S1
            | Invariant::S2
            | Invariant::S3
            | Invariant::S8
            | Invariant::S9
            | Invariant::S10
            | Invariant::S11
            | Invariant::S12
            | Invariant::S13
            | Invariant::S15
            | Invariant::S17
            | Invariant::S20
            | Invariant::S21
            | Invariant::S22
            | Invariant::S23
            | Invariant::S24
            | Invariant::S26
            | Invariant::S27 => None,
        };
        match liveness {
            Some(text) => f.write_str(text),
            None => write!(f, "INV-{self:?}"),
        }
    }
}

/// An invariant that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, since the beginning of the run.
    pub at: std::time::Duration,
    /// By whom, and how.
    pub text: String,
}

/// See the module. Clones are the same observer.
#[derive(Clone)]
pub struct Observer {
    state: Arc<Mutex<State>>,
    world: Arc<OnceLock<World>>,
    broken: watch::Sender<bool>,
    wins: Signal,
    began: Instant,
}

/// What is observed.
pub struct World {
    /// The store.
    pub etcd: Etcd,
    /// The servers by the names of their members.
    pub servers: BTreeMap<MemberName, Postgres>,
    /// What members told each other.
    pub directory: Directory,
    /// Only a member on the newest timeline may win a race.
    pub check_timeline: bool,
    /// Members tagged `nofailover`.
    pub nofailover: BTreeSet<MemberName>,
}

#[derive(Default)]
struct State {
    violation: Option<Violation>,
    /// Until when each member holds the key, by the store's count.
    held_until: BTreeMap<MemberName, Instant>,
    writable: BTreeSet<MemberName>,
    /// Members that are creating a cluster: writable before they can have a lease.
    creating: BTreeSet<MemberName>,
    system_id: Option<String>,
    history: Vec<(Timeline, Lsn)>,
    leader: Option<MemberName>,
    /// The request that the leader changed under last, by its revision, and how often.
    requested: Option<(Revision, u32)>,
    /// Members that an operator has promoted behind everybody's back, as long as they are writable and do not lead.
    by_hand: BTreeSet<MemberName>,
    /// There was such a member.
    has_hand: bool,
    /// When each member was seen as a primary last.
    primary_at: BTreeMap<MemberName, Instant>,
    course: DefaultHasher,
    leader_changes: u32,
    starts: u32,
    ends: u32,
    commits: u64,
    acknowledged: Vec<(CommitId, MemberName)>,
}

impl Observer {
    /// An observer of a run that begins now.
    pub fn new() -> Observer {
        Observer {
            state: Arc::default(),
            world: Arc::new(OnceLock::new()),
            broken: watch::Sender::new(false),
            wins: Signal::default(),
            began: Instant::now(),
        }
    }

    /// Tells it what to observe.
    pub fn observe(&self, world: World) {
        // Set once per run.
        let _ = self.world.set(world);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an invariant is broken; the first one counts.
    pub fn report(&self, invariant: Invariant, text: String) {
        let mut state = self.state();
        if state.violation.is_none() {
            tracing::error!(%invariant, "{text}");
            state.violation = Some(Violation { invariant, at: self.began.elapsed(), text });
            drop(state);
            self.broken.send_replace(true);
        }
    }

    /// The first broken invariant.
    pub fn violation(&self) -> Option<Violation> {
        self.state().violation.clone()
    }

    /// Resolves when an invariant is broken.
    pub async fn broken(&self) {
        // We own the sender.
        let _ = self.broken.subscribe().wait_for(|broken| *broken).await;
    }

    /// Waits until the key passes to another member, and says to whom.
    pub async fn next_winner(&self) -> Option<MemberName> {
        self.wins.subscribe().changed().await;
        self.state().leader.clone()
    }

    /// How often the key has passed to another member, and how often a server ended, was created, or lost its data.
    pub fn upheavals(&self) -> (u32, u32) {
        let state = self.state();
        (state.leader_changes, state.ends)
    }

    /// How often the key has passed to another member, and how often a server was started.
    pub fn changes(&self) -> (u32, u32) {
        let state = self.state();
        (state.leader_changes, state.starts)
    }

    /// Everything that happened so far, as one number.
    pub fn course(&self) -> u64 {
        self.state().course.finish()
    }

    fn note(&self, who: &MemberName, event: &dyn fmt::Debug) {
        let at = self.began.elapsed();
        (at, who, format!("{event:?}")).hash(&mut self.state().course);
    }

    /// An operator promotes `who`: whatever follows from that at once is not the cluster's doing (FLT-19).
    pub fn promoted_by_hand(&self, who: &MemberName) {
        let mut state = self.state();
        state.by_hand.insert(who.clone());
        state.has_hand = true;
    }

    /// A number for a commit that a client is about to ask for.
    pub fn next_commit(&self) -> CommitId {
        let mut state = self.state();
        state.commits += 1;
        CommitId(state.commits)
    }

    /// A client was told that this commit is safe.
    pub fn acknowledged(&self, commit: CommitId, by: &MemberName) {
        self.state().acknowledged.push((commit, by.clone()));
    }

    /// How many acknowledged commits there were, and how many of them `server` does not hold.
    pub fn losses(&self, server: &Postgres) -> (usize, usize) {
        let state = self.state();
        let lost = state.acknowledged.iter().filter(|(commit, _)| !server.holds(*commit)).count();
        (state.acknowledged.len(), lost)
    }

    /// Writable members now.
    pub fn writable(&self) -> BTreeSet<MemberName> {
        self.state().writable.clone()
    }

    /// What a server did.
    pub fn server_did(&self, who: &MemberName, event: &Event) {
        tracing::info!(machine = who.as_str(), ?event, "PostgreSQL");
        self.note(who, event);
        match event {
            Event::Started { .. } => self.state().starts += 1,
            Event::InitdbDone { .. } => {
                let mut state = self.state();
                state.creating.insert(who.clone());
                state.ends += 1;
            }
            Event::PromoteIssued => self.promote_issued(who),
            Event::Writable { timeline, .. } => self.became_writable(who, *timeline),
            Event::NotWritable => {
                let mut state = self.state();
                state.writable.remove(who);
                state.primary_at.insert(who.clone(), Instant::now());
            }
            Event::Ended => {
                let mut state = self.state();
                state.by_hand.remove(who);
                state.ends += 1;
            }
            Event::Wiped { had } => self.wiped(who, had.is_some()),
            Event::RewindBegan { source, is_source_checkpointed_primary } => {
                if !is_source_checkpointed_primary {
                    self.report(
                        Invariant::S21,
                        format!("{who} rewinds from {source}, which is no primary with a checkpoint"),
                    );
                }
            }
            Event::Upstream(Some(upstream)) => self.follows(who, upstream),
            Event::DataDirectoryShared(one, other) => {
                self.report(Invariant::S13, format!("{one} and {other} work on the data directory of {who} at once"));
            }
            Event::Accepting
            | Event::MovedAside { .. }
            | Event::Cloned { .. }
            | Event::Rewound { .. }
            | Event::Upstream(None) => {}
        }
        self.check();
    }

    /// What happened in the store.
    pub fn store_did(&self, event: &StoreEvent) {
        match event {
            StoreEvent::Held { member, until, is_new, .. } => {
                let changes = {
                    let mut state = self.state();
                    state.held_until.insert(member.clone(), *until);
                    state.creating.remove(member);
                    state.by_hand.remove(member);
                    let changes = state.leader.as_ref() != Some(member);
                    if changes {
                        state.leader_changes += u32::from(state.leader.is_some());
                        state.leader = Some(member.clone());
                    }
                    changes
                };
                if changes {
                    self.wins.raise();
                    self.count_request();
                }
                if *is_new {
                    self.check_promise(member);
                }
                if changes || *is_new {
                    self.note(member, &"holds the leader key");
                    tracing::info!(machine = member.as_str(), "holds the leader key");
                    self.took_key(member);
                }
            }
            StoreEvent::Released { member } => {
                tracing::info!(machine = member.as_str(), "released the leader key");
                let writable = self.state().writable.contains(member);
                if writable {
                    self.report(Invariant::S12, format!("{member} released the leader key while it accepts writes"));
                }
            }
            StoreEvent::Changed => self.read_store(),
            StoreEvent::Restored => {
                {
                    let mut state = self.state();
                    // It is older than what was seen: the past begins anew.
                    state.history.clear();
                    state.requested = None;
                }
                self.read_store();
            }
        }
        self.check();
    }

    /// S1 and S2, after whatever happened.
    pub fn check(&self) {
        let broken = {
            let state = self.state();
            let now = Instant::now();
            let mut writable = state.writable.iter().filter(|name| !state.by_hand.contains(*name));
            match (writable.next(), writable.next()) {
                (Some(one), Some(other)) => {
                    Some((Invariant::S1, format!("{one} and {other} accept writes at the same instant")))
                }
                (Some(one), None) => {
                    let held = state.held_until.get(one).copied();
                    let is_late = held.is_none_or(|until| now > until)
                        && !state.creating.contains(one)
                        && !self.has_consent(one, now);
                    is_late.then(|| {
                        let ago = held.map(|until| format!(", which ended {:?} ago", now - until)).unwrap_or_default();
                        (Invariant::S2, format!("{one} accepts writes without a lease{ago}"))
                    })
                }
                (None, _) => None,
            }
        };
        if let Some((invariant, text)) = broken {
            self.report(invariant, text);
        }
    }

    /// DCSF-4: every other member in the failsafe map has promised to wait for this one.
    fn has_consent(&self, one: &MemberName, now: Instant) -> bool {
        let Some(world) = self.world.get() else { return false };
        let Some(map) = world.etcd.cluster().failsafe.filter(|map| map.contains_key(one.as_str())) else {
            return false;
        };
        let others = map.into_keys().filter(|name| name != one.as_str()).filter_map(|name| name.parse().ok());
        others.into_iter().all(|other| world.directory.promised(&other, Some(one)).is_some_and(|until| now <= until))
    }

    /// S15: whoever has promised to wait does not take the key before that time is over, by its own clock.
    fn check_promise(&self, who: &MemberName) {
        let Some(until) = self.world.get().and_then(|world| world.directory.promised(who, None)) else { return };
        let left = until.saturating_duration_since(Instant::now());
        if left > CLOCKS_DIFFER {
            self.report(
                Invariant::S15,
                format!("{who} took the leader key {left:?} before its promise to wait was over"),
            );
        }
    }

    /// S17: the key passes on once for a request; then the request is gone.
    fn count_request(&self) {
        let Some(world) = self.world.get() else { return };
        let Some(request) = world.etcd.cluster().failover.map(|request| request.revision) else { return };
        let count = {
            let mut state = self.state();
            let count = state.requested.filter(|(revision, _)| *revision == request).map_or(0, |(_, count)| count) + 1;
            state.requested = Some((request, count));
            count
        };
        // Who wins clears the request right after it has the key; a winner that dies in between leaves it for the next.
        if count > 2 {
            self.report(Invariant::S17, format!("one request has moved the leader key {count} times"));
        }
    }

    fn promote_issued(&self, who: &MemberName) {
        let is_allowed = {
            let state = self.state();
            let held = state.held_until.get(who).is_some_and(|until| Instant::now() < *until);
            held || state.by_hand.contains(who)
        };
        if !is_allowed {
            self.report(Invariant::S3, format!("{who} issued promote without a lease"));
        }
    }

    fn became_writable(&self, who: &MemberName, timeline: Timeline) {
        let is_by_hand = {
            let mut state = self.state();
            state.writable.insert(who.clone());
            state.by_hand.contains(who)
        };
        if !is_by_hand {
            self.check_timeline(who, timeline);
        }
    }

    /// S9.
    fn check_timeline(&self, who: &MemberName, timeline: Timeline) {
        let stale = {
            let state = self.state();
            state.history.last().map(|(ended, _)| *ended).filter(|ended| timeline <= *ended)
        };
        if let Some(ended) = stale {
            self.report(
                Invariant::S9,
                format!("{who} accepts writes on timeline {timeline}; the history says that {ended} has ended"),
            );
        }
    }

    fn wiped(&self, who: &MemberName, had_cluster: bool) {
        let Some(world) = self.world.get() else { return };
        if !had_cluster {
            return;
        }
        self.state().ends += 1;
        let leads = world.etcd.cluster().is_led_by(who);
        let is_only_copy = {
            let id = self.state().system_id.clone();
            let has_it = |server: &Postgres| server.truth().system_id.map(|system_id| system_id.to_string()) == id;
            !world.servers.iter().any(|(name, server)| name != who && has_it(server))
        };
        let truth = world.servers.get(who).map(Postgres::truth);
        let is_primary = |(name, server): (&MemberName, &Postgres)| {
            let truth = server.truth();
            let since = self.state().primary_at.get(name).map(Instant::elapsed);
            name != who && (truth.is_writable || since.is_some_and(|since| since < LOOKED_AT_WITHIN))
        };
        let why = if leads {
            "while it holds the leader key"
        } else if truth.is_some_and(|truth| truth.is_alive) {
            "below a running server"
        } else if is_only_copy {
            "and it was the only copy"
        } else if !world.servers.iter().any(is_primary) {
            "although there was no primary to copy"
        } else {
            return;
        };
        self.report(Invariant::S11, format!("{who} removed its data {why}"));
    }

    /// S22. Two standbys that change their upstream one after the other may meet in a circle for a moment.
    fn follows(&self, who: &MemberName, upstream: &MemberName) {
        if !self.is_in_circle(who) {
            return;
        }
        let (observer, who, upstream) = (self.clone(), who.clone(), upstream.clone());
        drop(tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(CIRCLE_LIMIT).await;
                if !observer.is_in_circle(&who) {
                    return;
                }
            }
            observer.report(Invariant::S22, format!("{who} follows {upstream}, and by that itself"));
        }));
    }

    /// A circle through the holder of the leader key is none: it is about to be primary, or to lose the key.
    fn is_in_circle(&self, who: &MemberName) -> bool {
        let Some(world) = self.world.get() else { return false };
        let cluster = world.etcd.cluster();
        if cluster.is_led_by(who) {
            return false;
        }
        let next = |name: &MemberName| {
            let truth = world.servers.get(name).map(Postgres::truth);
            truth.filter(|truth| truth.is_alive && truth.is_in_recovery).and_then(|truth| truth.upstream)
        };
        let (mut at, mut seen) = (next(who), BTreeSet::new());
        while let Some(name) = at {
            if name == *who {
                return true;
            }
            if cluster.is_led_by(&name) {
                return false;
            }
            if !seen.insert(name.clone()) {
                return false;
            }
            at = next(&name);
        }
        false
    }

    fn took_key(&self, who: &MemberName) {
        let Some(world) = self.world.get() else { return };
        let Some(truth) = world.servers.get(who).map(Postgres::truth) else { return };
        if let Some(timeline) = truth.timeline.filter(|_| truth.is_writable) {
            self.check_timeline(who, timeline);
        }
        if !truth.is_in_recovery {
            return; // It resumes, or it has just created the cluster.
        }
        let cluster = world.etcd.cluster();
        if cluster.failover.is_some() {
            return; // An operator has chosen.
        }
        if world.nofailover.contains(who) {
            self.report(Invariant::S24, format!("{who} is tagged nofailover and took the leader key"));
        }
        let answers = world.directory.last_poll(who).map(|poll| poll.answers).unwrap_or_default();
        for (name, answer) in answers {
            let PeerAnswer::Status(status) = answer else { continue };
            let is_behind = status.in_recovery
                && !status.is_limited()
                && status.timeline >= truth.timeline
                && status.position > truth.written;
            if is_behind && cluster.members.contains_key(&name) {
                let (here, there) = (truth.written, status.position);
                self.report(
                    Invariant::S8,
                    format!("{who} took the leader key at {here}, knowing that {name} is at {there}"),
                );
            }
        }
    }

    fn read_store(&self) {
        let Some(world) = self.world.get() else { return };
        let cluster = world.etcd.cluster();
        self.read_initialize(&cluster);
        let Some(history) = &cluster.history else { return };
        let lines: Vec<(Timeline, Lsn)> = history.value.lines.iter().map(|line| (line.timeline, line.lsn)).collect();
        let problem = {
            let mut state = self.state();
            let rises = lines.windows(2).all(|pair| pair[0].0 < pair[1].0);
            // A winner that has never heard of the last timeline begins it anew, where that is allowed: its line then says
            // where its own one began. All lines before stay as they are.
            let unchanged = state.history.iter().rev().skip(1).all(|line| lines.contains(line));
            // And where a member must be on the newest timeline to win, none of them can be missing.
            let is_whole = state.history.iter().all(|(ended, _)| lines.iter().any(|(timeline, _)| timeline == ended));
            // A branch that an operator began is his choice.
            let unchanged = if world.check_timeline && !state.has_hand { unchanged && is_whole } else { true };
            let problem =
                (!rises || !unchanged).then(|| format!("the history became {lines:?} from {:?}", state.history));
            state.history = lines;
            problem
        };
        if let Some(text) = problem {
            self.report(Invariant::S23, text);
        }
    }

    fn read_initialize(&self, cluster: &Cluster) {
        let Initialize::SystemId(now) = &cluster.initialize else { return };
        let before = {
            let mut state = self.state();
            state.system_id.replace(now.clone())
        };
        if let Some(before) = before.filter(|before| before != now) {
            self.report(Invariant::S10, format!("the system identifier of the cluster changed from {before} to {now}"));
        }
    }
}

impl Default for Observer {
    fn default() -> Self {
        Observer::new()
    }
}
