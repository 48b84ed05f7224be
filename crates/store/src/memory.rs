//! The store in memory: the same rules without network and clock, for simulation and tests.
//!
//! A [`MemoryServer`] holds the keys of one cluster and the time; [`MemoryStore`]s are its clients, each of which can be
//! cut off. Nothing here waits: every call answers at once, and time passes only by [`MemoryServer::advance`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_core::cluster::{Cluster, LeaseId, RawKey, Revision};
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use tokio::sync::watch;

use crate::{AcquireOutcome, Condition, KeptAlive, Key, RenewOutcome, Renewal, Store, StoreError, StoreView};

const LEADER: &str = "leader";

/// What is wrong between a client and the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryFault {
    /// Nothing.
    #[default]
    None,
    /// Requests do not arrive, and the view is lost.
    Unreachable,
    /// Requests are carried out, their answers do not arrive, and the view is lost.
    AnswersLost,
}

/// One cluster's keys, leases and time.
#[derive(Clone, Debug, Default)]
pub struct MemoryServer {
    state: Arc<Mutex<State>>,
}

/// A client of a [`MemoryServer`]. Clones are the same client.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    server: MemoryServer,
    id: usize,
}

#[derive(Debug, Default)]
struct State {
    now: BootInstant,
    revision: i64,
    keys: BTreeMap<String, RawKey>,
    leases: BTreeMap<i64, Lease>,
    leases_granted: i64,
    clients: Vec<ClientState>,
    /// The cluster at a revision: it is asked for more often than it changes.
    read: Mutex<Option<Arc<Cluster>>>,
}

/// What a [`MemoryServer`] held at one moment.
#[derive(Clone, Debug)]
pub struct MemoryBackup {
    revision: i64,
    keys: BTreeMap<String, RawKey>,
    leases: BTreeMap<i64, Lease>,
}

#[derive(Clone, Debug)]
struct Lease {
    ttl: Duration,
    end: BootInstant,
}

#[derive(Debug)]
struct ClientState {
    fault: MemoryFault,
    publisher: watch::Sender<StoreView>,
}

impl MemoryServer {
    /// An empty store at time zero.
    pub fn new() -> MemoryServer {
        MemoryServer::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new client.
    pub fn client(&self) -> MemoryStore {
        let mut state = self.state();
        let id = state.clients.len();
        let (publisher, _) = watch::channel(StoreView::Connecting { error: None });
        state.clients.push(ClientState { fault: MemoryFault::None, publisher });
        state.publish(id, true);
        MemoryStore { server: self.clone(), id }
    }

    /// The time of the store and of all its clients.
    pub fn now(&self) -> BootInstant {
        self.state().now
    }

    /// Lets time pass: leases that end in it take their keys with them, in the order in which they end.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        let target = state.now + by;
        while let Some((id, end)) = state.next_lease_to_end().filter(|(_, end)| *end <= target) {
            state.now = end;
            state.revoke(id);
        }
        state.now = target;
        state.publish_all(false);
    }

    /// When the next lease ends, if there is one.
    pub fn next_lease_end(&self) -> Option<BootInstant> {
        self.state().next_lease_to_end().map(|(_, end)| end)
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        Revision(self.state().revision)
    }

    /// The cluster as it is stored now.
    pub fn cluster(&self) -> Arc<Cluster> {
        self.state().cluster()
    }

    /// The store elects a leader at `now`: no lease has ended since the last call, and each counts anew from here, as in
    /// etcd, whose new leader does not know when the old one had extended it.
    pub fn elect(&self, now: BootInstant) {
        let mut state = self.state();
        state.now = state.now.max(now);
        let now = state.now;
        state.leases.values_mut().for_each(|lease| lease.end = now + lease.ttl);
    }

    /// A copy of everything, as `etcdctl snapshot save` makes one.
    pub fn back_up(&self) -> MemoryBackup {
        let state = self.state();
        MemoryBackup { revision: state.revision, keys: state.keys.clone(), leases: state.leases.clone() }
    }

    /// Puts a copy in the place of what there is, as an operator does after a disaster. Revisions go back with it, and each
    /// lease counts anew from now.
    pub fn restore(&self, backup: &MemoryBackup) {
        let mut state = self.state();
        (state.revision, state.keys, state.leases) = (backup.revision, backup.keys.clone(), backup.leases.clone());
        let now = state.now;
        state.leases.values_mut().for_each(|lease| lease.end = now + lease.ttl);
        state.read.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        state.publish_all(true);
    }

    /// All keys in their order.
    pub fn keys(&self) -> Vec<RawKey> {
        self.state().keys.values().cloned().collect()
    }

    /// Writes any key as an operator would, whatever its name and value.
    pub fn put(&self, suffix: &str, value: &[u8], lease: Option<LeaseId>) -> Revision {
        self.state().put(suffix, value, lease.unwrap_or_default())
    }

    /// Deletes any key as an operator would.
    pub fn delete(&self, suffix: &str) {
        self.state().delete([suffix.to_owned()]);
    }

    /// Ends a lease before its time.
    pub fn revoke(&self, lease: LeaseId) {
        self.state().revoke(lease.0);
    }
}

impl State {
    fn next_lease_to_end(&self) -> Option<(i64, BootInstant)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.end)).min_by_key(|(_, end)| *end)
    }

    fn put(&mut self, suffix: &str, value: &[u8], lease: LeaseId) -> Revision {
        self.revision += 1;
        let mod_revision = Revision(self.revision);
        let create_revision = self.keys.get(suffix).map_or(mod_revision, |known| known.create_revision);
        let key = RawKey { suffix: suffix.to_owned(), value: value.to_vec(), create_revision, mod_revision, lease };
        self.keys.insert(suffix.to_owned(), key);
        self.publish_all(true);
        mod_revision
    }

    /// Deletes keys in one revision; as in etcd, deleting nothing makes no revision.
    fn delete(&mut self, suffixes: impl IntoIterator<Item = String>) -> u64 {
        let deleted = suffixes.into_iter().filter(|suffix| self.keys.remove(suffix).is_some()).count();
        if deleted > 0 {
            self.revision += 1;
            self.publish_all(true);
        }
        u64::try_from(deleted).unwrap_or(u64::MAX)
    }

    fn revoke(&mut self, id: i64) {
        self.leases.remove(&id);
        let bound: Vec<String> =
            self.keys.values().filter(|key| key.lease.0 == id).map(|key| key.suffix.clone()).collect();
        self.delete(bound);
    }

    fn keep_alive(&mut self, lease: LeaseId) -> Option<KeptAlive> {
        let now = self.now;
        let lease = self.leases.get_mut(&lease.0)?;
        lease.end = now + lease.ttl;
        Some(KeptAlive { sent: now, ttl: lease.ttl })
    }

    fn needs_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        if lease == LeaseId::default() || self.leases.contains_key(&lease.0) {
            Ok(())
        } else {
            Err(StoreError::LeaseGone)
        }
    }

    fn check(&self, suffix: &str, condition: Condition) -> Result<(), StoreError> {
        let known = self.keys.get(suffix);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => known.is_none(),
            Condition::Revision(revision) => known.map(|key| key.mod_revision).unwrap_or_default() == revision,
        };
        if holds { Ok(()) } else { Err(StoreError::Conflict { key: suffix.to_owned() }) }
    }

    /// BEY-32. A revision of zero, which means that a key is absent, is nobody's leadership.
    fn check_leader(&self, leader: Revision) -> Result<(), StoreError> {
        let is_led = self.keys.get(LEADER).is_some_and(|key| key.mod_revision == leader);
        if is_led { Ok(()) } else { Err(StoreError::Conflict { key: LEADER.to_owned() }) }
    }

    fn renewal(&self, kept: KeptAlive) -> Renewal {
        let leader = self.keys.get(LEADER);
        let epoch = leader.map(|key| key.create_revision).unwrap_or_default();
        let revision = leader.map(|key| key.mod_revision).unwrap_or_default();
        Renewal { sent: kept.sent, ttl: kept.ttl, epoch, revision }
    }

    fn cluster(&self) -> Arc<Cluster> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = Revision(self.revision);
        match &*read {
            Some(cluster) if cluster.revision == revision => Arc::clone(cluster),
            Some(_) | None => {
                let cluster = Arc::new(Cluster::from_keys(revision, self.keys.values().cloned()));
                *read = Some(Arc::clone(&cluster));
                cluster
            }
        }
    }

    fn publish_all(&self, has_changed: bool) {
        for id in 0..self.clients.len() {
            self.publish(id, has_changed);
        }
    }

    fn publish(&self, id: usize, has_changed: bool) {
        let client = &self.clients[id];
        let read_at = self.now;
        match client.fault {
            MemoryFault::None => client.publisher.send_if_modified(|view| match view {
                StoreView::Current { read_at: known, .. } if !has_changed => {
                    *known = read_at;
                    false
                }
                StoreView::Current { .. } | StoreView::Connecting { .. } | StoreView::Lost { .. } => {
                    *view = StoreView::Current { cluster: self.cluster(), read_at };
                    true
                }
            }),
            MemoryFault::Unreachable | MemoryFault::AnswersLost => client.publisher.send_if_modified(|view| {
                let error = "cut off".to_owned();
                let lost = match view {
                    StoreView::Lost { .. } => return false,
                    StoreView::Connecting { .. } => StoreView::Lost { error, since: read_at, last: None },
                    StoreView::Current { cluster, read_at } => {
                        StoreView::Lost { error, since: *read_at, last: Some(cluster.clone()) }
                    }
                };
                *view = lost;
                true
            }),
        };
    }
}

impl MemoryStore {
    /// Breaks or mends the connection of this client.
    pub fn set_fault(&self, fault: MemoryFault) {
        let mut state = self.server.state();
        state.clients[self.id].fault = fault;
        state.publish(self.id, false);
    }

    /// The store that this is a client of.
    pub fn server(&self) -> &MemoryServer {
        &self.server
    }

    fn ask<T>(
        &self,
        within: Duration,
        answer: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.server.state();
        match state.clients[self.id].fault {
            MemoryFault::None => answer(&mut state),
            MemoryFault::Unreachable => {
                Err(StoreError::Unreachable { endpoint: "memory".to_owned(), reason: "cut off".to_owned() })
            }
            MemoryFault::AnswersLost => {
                // The point of this fault: whatever the answer is, the caller does not get it.
                drop(answer(&mut state));
                Err(StoreError::Timeout { after: within, last: "the answer was lost".to_owned() })
            }
        }
    }
}

impl Store for MemoryStore {
    fn view(&self) -> watch::Receiver<StoreView> {
        self.server.state().clients[self.id].publisher.subscribe()
    }

    async fn read(&self, within: Duration) -> Result<Arc<Cluster>, StoreError> {
        self.ask(within, |state| Ok(state.cluster()))
    }

    async fn grant(&self, ttl: Duration, within: Duration) -> Result<LeaseId, StoreError> {
        self.ask(within, |state| {
            state.leases_granted += 1;
            let lease = Lease { ttl, end: state.now + ttl };
            state.leases.insert(state.leases_granted, lease);
            Ok(LeaseId(state.leases_granted))
        })
    }

    async fn keep_alive(&self, lease: LeaseId, within: Duration) -> Result<Option<KeptAlive>, StoreError> {
        self.ask(within, |state| Ok(state.keep_alive(lease)))
    }

    async fn acquire(&self, me: &MemberName, lease: LeaseId, within: Duration) -> Result<AcquireOutcome, StoreError> {
        self.ask(within, |state| {
            let kept = state.keep_alive(lease).ok_or(StoreError::LeaseGone)?;
            let is_ours = match state.keys.get(LEADER) {
                Some(known) => known.value == me.as_str().as_bytes() && known.lease == lease,
                None => {
                    state.put(LEADER, me.as_str().as_bytes(), lease);
                    true
                }
            };
            Ok(if is_ours { AcquireOutcome::Acquired(state.renewal(kept)) } else { AcquireOutcome::Held })
        })
    }

    async fn take(&self, me: &MemberName, lease: LeaseId, within: Duration) -> Result<Renewal, StoreError> {
        self.ask(within, |state| {
            let kept = state.keep_alive(lease).ok_or(StoreError::LeaseGone)?;
            state.put(LEADER, me.as_str().as_bytes(), lease);
            Ok(state.renewal(kept))
        })
    }

    async fn renew(
        &self,
        me: &MemberName,
        lease: LeaseId,
        former: &[LeaseId],
        within: Duration,
    ) -> Result<RenewOutcome, StoreError> {
        self.ask(within, |state| {
            let kept = state.keep_alive(lease);
            let Some(known) = state.keys.get(LEADER) else { return Ok(RenewOutcome::NotOurs { holder: None }) };
            let is_ours = known.lease == lease || known.lease == LeaseId::default() || former.contains(&known.lease);
            if known.value != me.as_str().as_bytes() || !is_ours {
                let holder = std::str::from_utf8(&known.value).ok().and_then(|name| name.parse().ok());
                return Ok(RenewOutcome::NotOurs { holder });
            }
            let is_bound_elsewhere = known.lease != lease;
            let kept = kept.ok_or(StoreError::LeaseGone)?;
            if is_bound_elsewhere {
                state.put(LEADER, me.as_str().as_bytes(), lease);
            }
            Ok(RenewOutcome::Renewed(state.renewal(kept)))
        })
    }

    async fn release(&self, me: &MemberName, leases: &[LeaseId], within: Duration) -> Result<bool, StoreError> {
        self.ask(within, |state| {
            let is_ours = state.keys.get(LEADER).is_some_and(|known| {
                let is_bound_to_us = known.lease == LeaseId::default() || leases.contains(&known.lease);
                known.value == me.as_str().as_bytes() && is_bound_to_us
            });
            Ok(is_ours && state.delete([LEADER.to_owned()]) == 1)
        })
    }

    async fn write_as_leader(
        &self,
        leader: Revision,
        key: &Key,
        value: &str,
        condition: Condition,
        within: Duration,
    ) -> Result<Revision, StoreError> {
        self.ask(within, |state| {
            state.check_leader(leader)?;
            let suffix = key.suffix();
            state.check(&suffix, condition)?;
            Ok(state.put(&suffix, value.as_bytes(), LeaseId::default()))
        })
    }

    async fn write(
        &self,
        key: &Key,
        value: &str,
        condition: Condition,
        lease: Option<LeaseId>,
        within: Duration,
    ) -> Result<Revision, StoreError> {
        self.ask(within, |state| {
            let (suffix, lease) = (key.suffix(), lease.unwrap_or_default());
            state.check(&suffix, condition)?;
            state.needs_lease(lease)?;
            Ok(state.put(&suffix, value.as_bytes(), lease))
        })
    }

    async fn delete(&self, key: &Key, condition: Condition, within: Duration) -> Result<Revision, StoreError> {
        self.ask(within, |state| {
            let suffix = key.suffix();
            state.check(&suffix, condition)?;
            state.delete([suffix]);
            Ok(Revision(state.revision))
        })
    }

    async fn delete_cluster(&self, within: Duration) -> Result<u64, StoreError> {
        self.ask(within, |state| {
            let all: Vec<String> = state.keys.keys().cloned().collect();
            Ok(state.delete(all))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_client_that_is_cut_off_knows_nothing_and_the_others_go_on() {
        let server = MemoryServer::new();
        let (here, there) = (server.client(), server.client());
        let mut view = here.view();
        here.set_fault(MemoryFault::Unreachable);
        there.write(&Key::Status, "{\"optime\":1}", Condition::Always, None, WITHIN).await.unwrap();
        assert!(view.has_changed().unwrap());
        assert!(matches!(&*view.borrow_and_update(), StoreView::Lost { last: Some(_), .. }));
        assert!(here.read(WITHIN).await.unwrap_err().is_unknown());
        here.set_fault(MemoryFault::None);
        assert!(view.borrow_and_update().current().unwrap().status.optime.is_some());
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_the_write_behind() {
        let server = MemoryServer::new();
        let store = server.client();
        store.set_fault(MemoryFault::AnswersLost);
        let written = store.write(&Key::Status, "{}", Condition::Absent, None, WITHIN).await;
        assert!(written.unwrap_err().is_unknown());
        assert_eq!(server.keys().len(), 1);
    }

    #[tokio::test]
    async fn time_that_passes_moves_the_view_on_without_waking() {
        let server = MemoryServer::new();
        let mut view = server.client().view();
        view.mark_unchanged();
        server.advance(WITHIN);
        assert!(!view.has_changed().unwrap());
        assert!(matches!(&*view.borrow(), StoreView::Current { read_at, .. } if *read_at == server.now()));
    }
}
