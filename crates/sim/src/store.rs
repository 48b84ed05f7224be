//! The cluster store as a member reaches it: a network in between, and an etcd that can be away.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_core::cluster::{Cluster, LeaseId, RawKey, Revision};
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use pgward_store::{
    AcquireOutcome, Condition, KeptAlive, Key, MemoryBackup, MemoryServer, MemoryStore, RenewOutcome, Renewal, Store,
    StoreError, StoreView,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::host::{Clocks, Process};
use crate::network::{Kind, Network, Place};
use crate::postgres::signal::Signal;

/// How long a picture counts without being confirmed, and how often it is confirmed: as the etcd client has it.
const LOST_AFTER: Duration = Duration::from_secs(5);
const CONFIRM_EVERY: Duration = Duration::from_secs(2);

/// How long a packet that does not arrive is sent again.
const RETRANSMITTED_FOR: Duration = Duration::from_secs(15);

/// What happened in the store, for the observer. Called after the change, never while a lock is held.
pub type StoreHook = Arc<dyn Fn(&StoreEvent) + Send + Sync>;

/// A change that the observer has to know of.
#[derive(Clone, Debug)]
pub enum StoreEvent {
    /// The store extended the lease that `member` holds the leader key under.
    Held {
        /// Who.
        member: MemberName,
        /// When the store may give the key to somebody else, in true time.
        until: Instant,
        /// The epoch of the leadership.
        epoch: Revision,
        /// The key was created, not only kept.
        is_new: bool,
    },
    /// `member` deleted its leader key.
    Released {
        /// Who.
        member: MemberName,
    },
    /// Something changed, or a lease ended.
    Changed,
    /// An older state was put in the place of everything.
    Restored,
}

/// The etcd cluster of a run. Clones are the same cluster.
#[derive(Clone)]
pub struct Etcd {
    server: MemoryServer,
    network: Network,
    state: Arc<Mutex<State>>,
    changes: Signal,
    began: Instant,
    hook: StoreHook,
}

#[derive(Debug, Default)]
struct State {
    /// No quorum: nothing is answered, and no lease ends.
    is_away: bool,
    /// Watches say nothing; reads work (FLT-9).
    are_watches_silent: bool,
    /// Members that are shown the store as it was so long ago (FLT-8).
    behind: BTreeMap<MemberName, Duration>,
    /// A copy of everything (FLT-11).
    backup: Option<MemoryBackup>,
}

impl Etcd {
    /// An empty store.
    pub fn new(network: Network, hook: StoreHook) -> Etcd {
        let (server, state) = (MemoryServer::new(), Arc::default());
        Etcd { server, network, state, changes: Signal::default(), began: Instant::now(), hook }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: &StoreEvent) {
        self.changes.raise();
        (self.hook)(event);
    }

    /// Brings the store's clock to now. While it is away no time passes for its leases.
    fn catch_up(&self) {
        if self.state().is_away {
            return;
        }
        let now = BootInstant(self.began.elapsed());
        let before = self.server.revision();
        self.server.advance(now.since(self.server.now()));
        if self.server.revision() != before {
            self.tell(&StoreEvent::Changed);
        }
    }

    /// Ends leases in time. Runs as long as the run does.
    pub async fn run(self) {
        // A lease that is granted meanwhile may end earlier than the earliest known one.
        const LONGEST: Duration = Duration::from_secs(2);
        loop {
            let end = self.server.next_lease_end().map(|end| self.began + end.0);
            let latest = Instant::now() + LONGEST;
            let is_away = self.state().is_away;
            sleep_until(end.filter(|_| !is_away).map_or(latest, |end| end.min(latest))).await;
            self.catch_up();
        }
    }

    /// Takes the quorum away.
    pub fn go_away(&self) {
        self.catch_up();
        self.state().is_away = true;
        self.tell(&StoreEvent::Changed);
    }

    /// A leader is elected: after an outage, or in its place. Leases count anew from here (FLT-10).
    pub fn elect(&self) {
        self.state().is_away = false;
        self.server.elect(BootInstant(self.began.elapsed()));
        self.tell(&StoreEvent::Changed);
    }

    /// Makes watches silent, or speak again.
    pub fn silence_watches(&self, silent: bool) {
        self.state().are_watches_silent = silent;
    }

    /// Shows `member` the store as it was `behind` ago, and calls it current; zero for the truth (FLT-8). More than etcd
    /// ever does to a linearizable read: safety must not rest on the picture.
    pub fn show_late(&self, member: &MemberName, behind: Duration) {
        self.state().behind.insert(member.clone(), behind);
        self.changes.raise();
    }

    /// Makes a copy of everything.
    pub fn back_up(&self) {
        self.catch_up();
        let backup = self.server.back_up();
        self.state().backup = Some(backup);
    }

    /// Comes back with what the copy holds (FLT-11).
    pub fn restore(&self) {
        self.elect();
        let backup = self.state().backup.clone();
        if let Some(backup) = backup {
            self.server.restore(&backup);
        }
        self.tell(&StoreEvent::Restored);
    }

    /// Deletes everything, as an operator would.
    pub fn delete_all(&self) {
        self.catch_up();
        self.server.keys().iter().for_each(|key| self.server.delete(&key.suffix));
        self.tell(&StoreEvent::Changed);
    }

    /// Writes a key as an older version of Patroni has it (FLT-22): a history without times and names, a position in a key
    /// of its own.
    pub fn put_as_older_versions_do(&self) {
        let cluster = self.cluster();
        if let Some(history) = cluster.history {
            let lines = history.value.lines.iter();
            let lines: Vec<_> = lines.map(|line| (line.timeline.get(), line.lsn.0, line.reason.clone())).collect();
            self.put("history", &serde_json::json!(lines).to_string());
        }
        if let Some(optime) = cluster.status.optime {
            self.delete("status");
            self.put("optime/leader", &optime.0.to_string());
        }
    }

    /// What is stored, for the observer.
    pub fn keys(&self) -> Vec<RawKey> {
        self.server.keys()
    }

    /// What is stored, as members understand it.
    pub fn cluster(&self) -> Cluster {
        Cluster::from_keys(self.server.revision(), self.server.keys())
    }

    /// Writes as an operator would.
    pub fn put(&self, suffix: &str, value: &str) {
        self.catch_up();
        self.server.put(suffix, value.as_bytes(), None);
        self.tell(&StoreEvent::Changed);
    }

    /// Deletes as an operator would.
    pub fn delete(&self, suffix: &str) {
        self.catch_up();
        self.server.delete(suffix);
        self.tell(&StoreEvent::Changed);
    }

    /// The connection of one agent. Its watch is part of the agent's `process`.
    pub fn connect(&self, me: &MemberName, clocks: &Clocks, process: &Process) -> SimStore {
        let (publisher, view) = watch::channel(StoreView::Connecting { error: None });
        let store =
            SimStore { me: me.clone(), etcd: self.clone(), client: self.server.client(), clocks: clocks.clone(), view };
        drop(process.spawn(store.clone().follow(publisher)));
        store
    }
}

/// The store as one agent reaches it.
#[derive(Clone)]
pub struct SimStore {
    me: MemberName,
    etcd: Etcd,
    client: MemoryStore,
    clocks: Clocks,
    view: watch::Receiver<StoreView>,
}

impl SimStore {
    fn here(&self) -> Place {
        Place::Member(self.me.clone())
    }

    fn carries_request(&self) -> bool {
        self.etcd.network.carries(&self.here(), &Place::Store, Kind::Store)
    }

    fn carries_answer(&self) -> bool {
        self.etcd.network.carries(&Place::Store, &self.here(), Kind::Store)
    }

    /// One request on its way and back. `carry_out` runs at the store, at the instant at which the request arrives: that
    /// may be long after the caller has given up (FLT-7).
    async fn ask<T, F>(
        &self,
        within: Duration,
        carry_out: impl FnOnce(SimStore) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        drop(tokio::spawn(self.clone().travel(carry_out, answer)));
        let lost = |last: &str| StoreError::Timeout { after: within, last: last.to_owned() };
        match timeout(within, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(lost("the connection broke")),
            Err(_) => Err(lost("no answer")),
        }
    }

    async fn travel<T, F>(self, carry_out: impl FnOnce(SimStore) -> F, answer: oneshot::Sender<Result<T, StoreError>>)
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let delay = || self.etcd.network.delay(&self.here(), &Place::Store);
        sleep(delay()).await;
        // Packets are sent again for a while: a short interruption only delays a request.
        let mut changes = (self.etcd.network.changes(), self.etcd.changes.subscribe());
        let give_up = Instant::now() + RETRANSMITTED_FOR;
        while !self.carries_request() || self.etcd.state().is_away {
            tokio::select! {
                biased;
                () = sleep_until(give_up) => return std::future::pending().await,
                () = changes.0.changed() => {}
                () = changes.1.changed() => {}
            }
        }
        self.etcd.catch_up();
        let outcome = carry_out(self.clone()).await;
        self.etcd.changes.raise();
        sleep(delay()).await;
        while !self.carries_answer() {
            tokio::select! {
                biased;
                () = sleep_until(give_up) => return std::future::pending().await,
                () = changes.0.changed() => {}
            }
        }
        // Who has given up meanwhile does not learn it.
        let _ = answer.send(outcome);
    }

    /// The lease under the leader key was extended at the store just now.
    fn held(&self, renewal: &Renewal, is_new: bool) {
        let until = Instant::now() + renewal.ttl;
        let event = StoreEvent::Held { member: self.me.clone(), until, epoch: renewal.epoch, is_new };
        (self.etcd.hook)(&event);
    }

    /// The newest picture; an older one while this member is shown the store late. `before` keeps those of the last minute.
    fn picture(&self, before: &mut VecDeque<(Instant, Arc<Cluster>)>) -> Arc<Cluster> {
        const KEPT: Duration = Duration::from_secs(60);
        let (now, newest) = (Instant::now(), self.etcd.server.cluster());
        if before.back().is_none_or(|(_, last)| !Arc::ptr_eq(last, &newest)) {
            before.push_back((now, Arc::clone(&newest)));
        }
        while before.len() > 1 && before.front().is_some_and(|(at, _)| now.duration_since(*at) > KEPT) {
            before.pop_front();
        }
        let behind = self.etcd.state().behind.get(&self.me).copied().unwrap_or_default();
        let is_old = |(at, _): &&(Instant, Arc<Cluster>)| now.duration_since(*at) >= behind;
        before.iter().rev().find(is_old).or(before.front()).map_or(newest, |(_, cluster)| Arc::clone(cluster))
    }

    /// Follows the store as the etcd client does: changes at once, and a read every few seconds that proves that nothing
    /// was missed.
    async fn follow(self, publisher: watch::Sender<StoreView>) {
        let (mut store, mut network) = (self.etcd.changes.subscribe(), self.etcd.network.changes());
        let mut confirmed: Option<BootInstant> = None;
        let mut shown: Option<Revision> = None;
        let mut before: VecDeque<(Instant, Arc<Cluster>)> = VecDeque::new();
        let mut next_read = Instant::now();
        loop {
            let reaches = self.carries_request() && self.carries_answer() && !self.etcd.state().is_away;
            let is_read_due = Instant::now() >= next_read;
            let hears =
                !self.etcd.state().are_watches_silent && self.etcd.server.revision() != shown.unwrap_or_default();
            if reaches && (is_read_due || hears || shown.is_none()) {
                let read_at = self.clocks.boot_now();
                sleep(self.etcd.network.delay(&self.here(), &Place::Store)).await;
                if self.carries_answer() && !self.etcd.state().is_away {
                    self.etcd.catch_up();
                    let cluster = self.picture(&mut before);
                    let revision = cluster.revision;
                    if shown != Some(revision) || confirmed.is_none() {
                        publisher.send_replace(StoreView::Current { cluster, read_at });
                        shown = Some(revision);
                    }
                    confirmed = Some(read_at);
                }
                next_read = Instant::now() + CONFIRM_EVERY;
            } else if !reaches && is_read_due {
                let age = confirmed.map(|at| self.clocks.boot_now().since(at));
                if age.is_some_and(|age| age > LOST_AFTER) {
                    let error = "the simulated store does not answer".to_owned();
                    let last = publisher.borrow().latest().cloned();
                    publisher.send_replace(StoreView::Lost { error, since: confirmed.unwrap_or_default(), last });
                    (confirmed, shown) = (None, None);
                }
                next_read = Instant::now() + Duration::from_millis(500);
            }
            tokio::select! {
                biased;
                () = sleep_until(next_read) => {}
                () = store.changed() => {}
                () = network.changed() => {}
            }
        }
    }
}

impl Store for SimStore {
    fn view(&self) -> watch::Receiver<StoreView> {
        self.view.clone()
    }

    async fn read(&self, within: Duration) -> Result<Arc<Cluster>, StoreError> {
        self.ask(within, move |store| async move { store.client.read(within).await }).await
    }

    async fn grant(&self, ttl: Duration, within: Duration) -> Result<LeaseId, StoreError> {
        self.ask(within, move |store| async move { store.client.grant(ttl, within).await }).await
    }

    async fn keep_alive(&self, lease: LeaseId, within: Duration) -> Result<Option<KeptAlive>, StoreError> {
        let sent = self.clocks.boot_now();
        let kept = self.ask(within, move |store| async move { store.client.keep_alive(lease, within).await }).await?;
        Ok(kept.map(|kept| KeptAlive { sent, ..kept }))
    }

    async fn acquire(&self, _: &MemberName, lease: LeaseId, within: Duration) -> Result<AcquireOutcome, StoreError> {
        let sent = self.clocks.boot_now();
        let acquire = move |store: SimStore| async move {
            let outcome = store.client.acquire(&store.me, lease, within).await;
            if let Ok(AcquireOutcome::Acquired(renewal)) = &outcome {
                store.held(renewal, true);
            }
            outcome
        };
        Ok(match self.ask(within, acquire).await? {
            AcquireOutcome::Acquired(renewal) => AcquireOutcome::Acquired(Renewal { sent, ..renewal }),
            AcquireOutcome::Held => AcquireOutcome::Held,
        })
    }

    async fn take(&self, _: &MemberName, lease: LeaseId, within: Duration) -> Result<Renewal, StoreError> {
        let sent = self.clocks.boot_now();
        let take = move |store: SimStore| async move {
            let renewal = store.client.take(&store.me, lease, within).await?;
            store.held(&renewal, true);
            Ok(renewal)
        };
        Ok(Renewal { sent, ..self.ask(within, take).await? })
    }

    async fn renew(
        &self,
        _: &MemberName,
        lease: LeaseId,
        former: &[LeaseId],
        within: Duration,
    ) -> Result<RenewOutcome, StoreError> {
        let (sent, former) = (self.clocks.boot_now(), former.to_vec());
        let renew = move |store: SimStore| async move {
            let outcome = store.client.renew(&store.me, lease, &former, within).await;
            if let Ok(RenewOutcome::Renewed(renewal)) = &outcome {
                store.held(renewal, false);
            }
            outcome
        };
        Ok(match self.ask(within, renew).await? {
            RenewOutcome::Renewed(renewal) => RenewOutcome::Renewed(Renewal { sent, ..renewal }),
            RenewOutcome::NotOurs { holder } => RenewOutcome::NotOurs { holder },
        })
    }

    async fn release(&self, _: &MemberName, leases: &[LeaseId], within: Duration) -> Result<bool, StoreError> {
        let leases = leases.to_vec();
        let release = move |store: SimStore| async move {
            let released = store.client.release(&store.me, &leases, within).await?;
            if released {
                (store.etcd.hook)(&StoreEvent::Released { member: store.me.clone() });
            }
            Ok(released)
        };
        self.ask(within, release).await
    }

    async fn write_as_leader(
        &self,
        leader: Revision,
        key: &Key,
        value: &str,
        condition: Condition,
        within: Duration,
    ) -> Result<Revision, StoreError> {
        let (key, value) = (key.clone(), value.to_owned());
        let write = move |store: SimStore| async move {
            let written = store.client.write_as_leader(leader, &key, &value, condition, within).await;
            (store.etcd.hook)(&StoreEvent::Changed);
            written
        };
        self.ask(within, write).await
    }

    async fn write(
        &self,
        key: &Key,
        value: &str,
        condition: Condition,
        lease: Option<LeaseId>,
        within: Duration,
    ) -> Result<Revision, StoreError> {
        let (key, value) = (key.clone(), value.to_owned());
        let write = move |store: SimStore| async move {
            let written = store.client.write(&key, &value, condition, lease, within).await;
            (store.etcd.hook)(&StoreEvent::Changed);
            written
        };
        self.ask(within, write).await
    }

    async fn delete(&self, key: &Key, condition: Condition, within: Duration) -> Result<Revision, StoreError> {
        let key = key.clone();
        let delete = move |store: SimStore| async move {
            let deleted = store.client.delete(&key, condition, within).await;
            (store.etcd.hook)(&StoreEvent::Changed);
            deleted
        };
        self.ask(within, delete).await
    }

    async fn delete_cluster(&self, within: Duration) -> Result<u64, StoreError> {
        self.ask(within, move |store| async move { store.client.delete_cluster(within).await }).await
    }
}
