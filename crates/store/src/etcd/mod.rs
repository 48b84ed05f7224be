//! The store in etcd 3.4 and later, over gRPC.

mod client;
mod fault;
mod follow;
mod options;
mod pool;
mod proto;
mod session;
mod term;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pgward_core::cluster::{Cluster, LeaseId, Revision};
use pgward_core::names::MemberName;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::client::{Answer, Client};
use self::follow::{Follower, read_all};
use self::pool::Pool;
use self::proto::{
    DeleteRangeRequest, DeleteRangeResponse, KeyValue, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, PutRequest, PutResponse, RequestOp, TxnRequest, TxnResponse,
};
use crate::{AcquireOutcome, Condition, KeptAlive, Key, RenewOutcome, Renewal, Store, StoreError, StoreView};

pub use options::EtcdOptions;

/// How often a renewal is repeated when the leader of etcd or the key changed in the middle of it.
const RENEW_ATTEMPTS_MAX: u32 = 5;

/// One cluster in etcd. Clones share connections, token and view.
#[derive(Clone)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    prefix: String,
    leader_key: String,
    view: OnceLock<watch::Receiver<StoreView>>,
    suspicion: Arc<Notify>,
    tasks: TaskTracker,
}

impl EtcdStore {
    /// Prepares the store; nothing is sent before the first call. Must run inside a tokio runtime. Background tasks end
    /// when `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`StoreError::Options`] when the options cannot work: no endpoint, unreadable certificates.
    pub fn new(options: &EtcdOptions, shutdown: CancellationToken) -> Result<EtcdStore, StoreError> {
        options.validate()?;
        let pool = Pool::new(options)?;
        let tasks = TaskTracker::new();
        let client = Client::new(pool, options.credentials(), options.discover_members, tasks.clone(), shutdown);
        let inner = Inner {
            client,
            prefix: options.prefix.clone(),
            leader_key: format!("{}leader", options.prefix),
            view: OnceLock::new(),
            suspicion: Arc::default(),
            tasks,
        };
        Ok(EtcdStore { inner: Arc::new(inner) })
    }

    /// Waits until all background tasks have ended, after the token was cancelled.
    pub async fn closed(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn key(&self, key: &Key) -> String {
        format!("{}{}", self.inner.prefix, key.suffix())
    }

    async fn txn(
        &self,
        compare: Vec<proto::Compare>,
        success: Vec<RequestOp>,
        failure: Vec<RequestOp>,
        within: Duration,
    ) -> Result<Answer<TxnResponse>, StoreError> {
        let request = TxnRequest { compare, success, failure };
        self.inner.client.call(proto::TXN, &request, within).await
    }

    /// What was believed about a key was wrong: whatever else is believed may be, too (DCS-E5).
    fn suspect_view(&self) {
        self.inner.suspicion.notify_one();
    }

    async fn extend(&self, lease: LeaseId, within: Duration) -> Result<(Option<KeptAlive>, Term), StoreError> {
        let request = LeaseKeepAliveRequest { id: lease.0 };
        let answer: Answer<LeaseKeepAliveResponse> =
            match self.inner.client.call(proto::LEASE_KEEP_ALIVE, &request, within).await {
                Err(StoreError::LeaseGone) => return Ok((None, Term::default())),
                other => other?,
            };
        let term = Term::of(&answer);
        let ttl = u64::try_from(answer.body.ttl).ok().filter(|seconds| *seconds > 0);
        Ok((ttl.map(|seconds| KeptAlive { sent: answer.sent, ttl: Duration::from_secs(seconds) }), term))
    }

    /// One verified renewal (BEY-3); `None` when something changed in the middle of it and it has to be repeated.
    ///
    /// The lease is extended by the leader of etcd alone, without asking its quorum, so a leader that has lost it may
    /// still say yes. The transaction needs the quorum: when it carries the same raft term, the leader that extended
    /// the lease was still the leader afterwards.
    async fn renew_once(
        &self,
        me: &MemberName,
        lease: LeaseId,
        former: &[LeaseId],
        left: Duration,
    ) -> Result<Option<RenewOutcome>, StoreError> {
        let start = Instant::now();
        let (kept, term) = self.extend(lease, left).await?;
        let key = &self.inner.leader_key;
        let ours = vec![proto::holds(key, me.as_str()), proto::bound_to(key, lease.0)];
        let left = left.saturating_sub(start.elapsed());
        let answer = self.txn(ours, vec![proto::get(key)], vec![proto::get(key)], left).await?;
        let is_same_term = Term::of(&answer) == term;
        let is_ours = answer.body.succeeded;
        let found = answer.body.read();
        match (found, kept) {
            (Some(found), Some(kept)) if is_ours => {
                Ok(is_same_term.then(|| RenewOutcome::Renewed(renewal(kept, &found))))
            }
            // The key was there with this lease a moment ago, and the lease was not: ask again.
            (Some(_), None) if is_ours => Ok(None),
            (Some(found), kept) if is_bound_to_us(&found, me, former) => {
                let kept = kept.ok_or(StoreError::LeaseGone)?;
                let left = left.saturating_sub(start.elapsed());
                let rebound = self.rebind(me, lease, &found, left).await?;
                Ok(rebound.filter(|_| is_same_term).map(|found| RenewOutcome::Renewed(renewal(kept, &found))))
            }
            (Some(found), _) => {
                self.suspect_view();
                Ok(Some(RenewOutcome::NotOurs { holder: name_in(&found) }))
            }
            (None, _) => {
                self.suspect_view();
                Ok(Some(RenewOutcome::NotOurs { holder: None }))
            }
        }
    }

    /// Binds a leader key that was found to be ours to our present lease, unless it changes meanwhile.
    async fn rebind(
        &self,
        me: &MemberName,
        lease: LeaseId,
        found: &KeyValue,
        left: Duration,
    ) -> Result<Option<KeyValue>, StoreError> {
        let key = &self.inner.leader_key;
        let unchanged = vec![proto::holds(key, me.as_str()), proto::changed_at(key, found.mod_revision)];
        let put = vec![proto::put(key, me.as_str(), lease.0), proto::get(key)];
        let answer = self.txn(unchanged, put, Vec::new(), left).await?;
        Ok(if answer.body.succeeded { answer.body.read() } else { None })
    }

    /// A write under conditions, of which a failed one is told from one that an earlier attempt of this very request has
    /// made fail.
    async fn write_when(
        &self,
        compare: Vec<proto::Compare>,
        key: &Key,
        value: &str,
        lease: i64,
        within: Duration,
    ) -> Result<Revision, StoreError> {
        let name = self.key(key);
        let put = vec![proto::put(&name, value, lease)];
        let answer = self.txn(compare, put, vec![proto::get(&name)], within).await?;
        let revision = Revision(answer.header().revision);
        if answer.body.succeeded {
            return Ok(revision);
        }
        self.suspect_view();
        if !answer.is_repeat {
            return Err(StoreError::Conflict { key: key.suffix() });
        }
        // An earlier attempt of this very request may be what changed the key.
        match answer.body.read() {
            Some(found) if found.value != value.as_bytes() || found.lease != lease => {
                Err(StoreError::Conflict { key: key.suffix() })
            }
            // An empty value is the same whoever wrote it, so it is no proof.
            Some(found) if !value.is_empty() => Ok(Revision(found.mod_revision)),
            Some(_) | None => Err(StoreError::Timeout {
                after: within,
                last: format!("{} changed, and it is not known by whom", key.suffix()),
            }),
        }
    }
}

impl Store for EtcdStore {
    fn view(&self) -> watch::Receiver<StoreView> {
        let start = || {
            let (publisher, view) = watch::channel(StoreView::Connecting { error: None });
            let Inner { client, prefix, suspicion, tasks, .. } = &*self.inner;
            tasks.spawn(Follower::new(client.clone(), prefix.clone(), publisher, suspicion.clone()).run());
            view
        };
        self.inner.view.get_or_init(start).clone()
    }

    async fn read(&self, within: Duration) -> Result<Arc<Cluster>, StoreError> {
        let reading = read_all(&self.inner.client, &self.inner.prefix, within).await?;
        Ok(reading.picture.cluster().clone())
    }

    async fn grant(&self, ttl: Duration, within: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = LeaseGrantRequest { ttl: i64::try_from(seconds.max(1)).unwrap_or(i64::MAX) };
        let answer: Answer<LeaseGrantResponse> = self.inner.client.call(proto::LEASE_GRANT, &request, within).await?;
        match answer.body {
            LeaseGrantResponse { id, error, .. } if error.is_empty() && id != 0 => Ok(LeaseId(id)),
            LeaseGrantResponse { error, .. } => Err(StoreError::Rejected { reason: format!("no lease: {error}") }),
        }
    }

    async fn keep_alive(&self, lease: LeaseId, within: Duration) -> Result<Option<KeptAlive>, StoreError> {
        Ok(self.extend(lease, within).await?.0)
    }

    async fn acquire(&self, me: &MemberName, lease: LeaseId, within: Duration) -> Result<AcquireOutcome, StoreError> {
        let start = Instant::now();
        let (kept, term) = self.extend(lease, within).await?;
        let kept = kept.ok_or(StoreError::LeaseGone)?;
        let key = &self.inner.leader_key;
        let left = within.saturating_sub(start.elapsed());
        let create = vec![proto::put(key, me.as_str(), lease.0), proto::get(key)];
        let answer = self.txn(vec![proto::created_at(key, 0)], create, vec![proto::get(key)], left).await?;
        let is_same_term = Term::of(&answer) == term;
        let found = answer.body.read();
        match found.filter(|found| found.value == me.as_str().as_bytes() && found.lease == lease.0) {
            Some(found) if is_same_term => Ok(AcquireOutcome::Acquired(renewal(kept, &found))),
            // Created, but the time of the lease is in doubt.
            Some(_) => {
                let left = within.saturating_sub(start.elapsed());
                Ok(match self.renew(me, lease, &[], left).await? {
                    RenewOutcome::Renewed(renewal) => AcquireOutcome::Acquired(renewal),
                    RenewOutcome::NotOurs { .. } => AcquireOutcome::Held,
                })
            }
            None => {
                self.suspect_view();
                Ok(AcquireOutcome::Held)
            }
        }
    }

    async fn take(&self, me: &MemberName, lease: LeaseId, within: Duration) -> Result<Renewal, StoreError> {
        let start = Instant::now();
        let key = &self.inner.leader_key;
        self.txn(Vec::new(), vec![proto::put(key, me.as_str(), lease.0)], Vec::new(), within).await?;
        let left = within.saturating_sub(start.elapsed());
        match self.renew(me, lease, &[], left).await? {
            RenewOutcome::Renewed(renewal) => Ok(renewal),
            RenewOutcome::NotOurs { .. } => Err(StoreError::Conflict { key: "leader".to_owned() }),
        }
    }

    async fn renew(
        &self,
        me: &MemberName,
        lease: LeaseId,
        former: &[LeaseId],
        within: Duration,
    ) -> Result<RenewOutcome, StoreError> {
        let deadline = Instant::now() + within;
        for _ in 0..RENEW_ATTEMPTS_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(outcome) = self.renew_once(me, lease, former, left).await? {
                return Ok(outcome);
            }
        }
        Err(StoreError::Other("the leader of etcd or the leader key kept changing during a renewal".to_owned()))
    }

    async fn release(&self, me: &MemberName, leases: &[LeaseId], within: Duration) -> Result<bool, StoreError> {
        let start = Instant::now();
        let key = &self.inner.leader_key;
        let answer = self.txn(Vec::new(), vec![proto::get(key)], Vec::new(), within).await?;
        let Some(found) = answer.body.read().filter(|found| is_bound_to_us(found, me, leases)) else {
            self.suspect_view();
            return Ok(false);
        };
        // Bound to this one leadership, so that a request which arrives late cannot end a later one.
        let ours = vec![
            proto::holds(key, me.as_str()),
            proto::created_at(key, found.create_revision),
            proto::bound_to(key, found.lease),
        ];
        let left = within.saturating_sub(start.elapsed());
        let answer = self.txn(ours, vec![proto::delete(key)], vec![proto::get(key)], left).await?;
        if answer.body.succeeded {
            return Ok(true);
        }
        self.suspect_view();
        // A repeated request may meet what the first one did.
        let is_repeat = answer.is_repeat;
        let later = answer.body.read();
        Ok(is_repeat && later.is_none_or(|later| later.create_revision != found.create_revision))
    }

    async fn write_as_leader(
        &self,
        leader: Revision,
        key: &Key,
        value: &str,
        condition: Condition,
        within: Duration,
    ) -> Result<Revision, StoreError> {
        let deposed = || StoreError::Conflict { key: "leader".to_owned() };
        // For etcd it would mean that the key is absent, which is nobody's leadership.
        if leader == Revision::default() {
            return Err(deposed());
        }
        let mut compare = vec![proto::changed_at(&self.inner.leader_key, leader.0)];
        compare.extend(comparison(&self.key(key), condition));
        match self.write_when(compare, key, value, 0, within).await {
            Err(StoreError::Conflict { .. }) if condition == Condition::Always => Err(deposed()),
            written => written,
        }
    }

    async fn write(
        &self,
        key: &Key,
        value: &str,
        condition: Condition,
        lease: Option<LeaseId>,
        within: Duration,
    ) -> Result<Revision, StoreError> {
        let lease = lease.map_or(0, |lease| lease.0);
        match comparison(&self.key(key), condition) {
            Some(compare) => self.write_when(vec![compare], key, value, lease, within).await,
            None => {
                let request = PutRequest { key: self.key(key).into(), value: value.into(), lease };
                let answer: Answer<PutResponse> = self.inner.client.call(proto::PUT, &request, within).await?;
                Ok(Revision(answer.header().revision))
            }
        }
    }

    async fn delete(&self, key: &Key, condition: Condition, within: Duration) -> Result<Revision, StoreError> {
        let name = self.key(key);
        let compare = comparison(&name, condition).into_iter().collect();
        let answer = self.txn(compare, vec![proto::delete(&name)], vec![proto::get(&name)], within).await?;
        let revision = Revision(answer.header().revision);
        if answer.body.succeeded {
            return Ok(revision);
        }
        self.suspect_view();
        let is_repeat = answer.is_repeat;
        match answer.body.read() {
            None if is_repeat => Ok(revision),
            Some(_) | None => Err(StoreError::Conflict { key: key.suffix() }),
        }
    }

    async fn delete_cluster(&self, within: Duration) -> Result<u64, StoreError> {
        let prefix = self.inner.prefix.as_bytes();
        let request = DeleteRangeRequest { key: prefix.to_vec(), range_end: proto::end_of(prefix) };
        let answer: Answer<DeleteRangeResponse> = self.inner.client.call(proto::DELETE_RANGE, &request, within).await?;
        Ok(u64::try_from(answer.body.deleted).unwrap_or_default())
    }
}

/// True when the leader key holds our name, bound to one of these leases or, as after somebody's hand, to none. The name
/// alone is no proof: another agent may have it, too (BEY-31).
fn is_bound_to_us(found: &KeyValue, me: &MemberName, leases: &[LeaseId]) -> bool {
    found.value == me.as_str().as_bytes() && (found.lease == 0 || leases.contains(&LeaseId(found.lease)))
}

fn comparison(name: &str, condition: Condition) -> Option<proto::Compare> {
    match condition {
        Condition::Always => None,
        Condition::Absent => Some(proto::created_at(name, 0)),
        Condition::Revision(revision) => Some(proto::changed_at(name, revision.0)),
    }
}

/// The leadership of etcd that an answer came from.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Term {
    cluster_id: u64,
    raft_term: u64,
}

impl Term {
    fn of<R: client::Headed>(answer: &Answer<R>) -> Term {
        let header = answer.header();
        Term { cluster_id: header.cluster_id, raft_term: header.raft_term }
    }
}

fn renewal(kept: KeptAlive, found: &KeyValue) -> Renewal {
    Renewal {
        sent: kept.sent,
        ttl: kept.ttl,
        epoch: Revision(found.create_revision),
        revision: Revision(found.mod_revision),
    }
}

fn name_in(found: &KeyValue) -> Option<MemberName> {
    std::str::from_utf8(&found.value).ok()?.parse().ok()
}
