//! What a member may ask of the cluster store.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, LeaseId, Revision};
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use tokio::sync::watch;

use crate::StoreError;

/// The keys that are written by value. The leader key has operations of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The system identifier, or empty while a member bootstraps (DCS-5).
    Initialize,
    /// The dynamic configuration.
    Config,
    /// How far the leader is (DCS-11).
    Status,
    /// The leader's position for members older than 2.1.0.
    OptimeLeader,
    /// A requested failover or switchover (DCS-7).
    Failover,
    /// The synchronous standbys (DCS-6).
    Sync,
    /// The timelines of the past.
    History,
    /// The members that have to agree when the store is away.
    Failsafe,
    /// What a member says about itself (DCS-9).
    Member(MemberName),
    /// A key of our own below `x/`, which Patroni ignores; the text is the rest of the name.
    Own(String),
}

impl Key {
    /// The key without the cluster's prefix.
    pub fn suffix(&self) -> String {
        match self {
            Key::Initialize => "initialize".to_owned(),
            Key::Config => "config".to_owned(),
            Key::Status => "status".to_owned(),
            Key::OptimeLeader => "optime/leader".to_owned(),
            Key::Failover => "failover".to_owned(),
            Key::Sync => "sync".to_owned(),
            Key::History => "history".to_owned(),
            Key::Failsafe => "failsafe".to_owned(),
            Key::Member(name) => format!("members/{name}"),
            Key::Own(rest) => format!("x/{rest}"),
        }
    }
}

/// When a write may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whatever the key holds.
    Always,
    /// Only when the key does not exist.
    Absent,
    /// Only when the key was changed last at this revision; zero, the default, means that the key does not exist.
    Revision(Revision),
}

/// Proof that this member holds the leader key, and from when its lease counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// `CLOCK_BOOTTIME` just before the request that extended the lease was sent (TIM-4).
    pub sent: BootInstant,
    /// How long the lease lives from the moment the store carried that request out.
    pub ttl: Duration,
    /// The revision that created the leader key: the epoch of this leadership.
    pub epoch: Revision,
    /// The revision that changed the leader key last: as long as it has this one, its value and its lease are the same.
    pub revision: Revision,
}

/// A lease that was extended. It says nothing about any key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAlive {
    /// `CLOCK_BOOTTIME` just before the request was sent.
    pub sent: BootInstant,
    /// How long the lease lives from the moment the store carried the request out.
    pub ttl: Duration,
}

/// The answer to a renewal. "Unknown" is an error with [`StoreError::is_unknown`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewOutcome {
    /// The key holds our name under our lease, and the lease was extended.
    Renewed(Renewal),
    /// The key is provably not ours.
    NotOurs {
        /// Who holds it; `None` when nobody does, or when its value is not the name of a member. Our own name when another
        /// agent has it, too: the key is bound to a lease that is none of ours (BEY-31).
        holder: Option<MemberName>,
    },
}

/// The answer to an attempt to become the leader. "Unknown" is an error with [`StoreError::is_unknown`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcquireOutcome {
    /// The key is ours, and its lease was extended just before.
    Acquired(Renewal),
    /// The key exists and is not ours.
    Held,
}

/// The newest picture of the cluster.
#[derive(Clone, Debug)]
pub enum StoreView {
    /// The first read has not succeeded yet.
    Connecting {
        /// What the last attempt met.
        error: Option<String>,
    },
    /// The whole cluster, known to be current a moment ago.
    Current {
        /// Everything below the cluster's prefix.
        cluster: Arc<Cluster>,
        /// When the linearizable read was sent that confirmed the picture last; changes may have arrived since. Moves on
        /// without waking those who wait for a change.
        read_at: BootInstant,
    },
    /// The picture could not be confirmed for a few seconds.
    Lost {
        /// What the last attempt met.
        error: String,
        /// When it was confirmed last.
        since: BootInstant,
        /// What it was then.
        last: Option<Arc<Cluster>>,
    },
}

impl StoreView {
    /// The cluster, when it is known to be current.
    pub fn current(&self) -> Option<&Arc<Cluster>> {
        match self {
            StoreView::Current { cluster, .. } => Some(cluster),
            StoreView::Connecting { .. } | StoreView::Lost { .. } => None,
        }
    }

    /// The cluster as it was seen last, however long ago.
    pub fn latest(&self) -> Option<&Arc<Cluster>> {
        match self {
            StoreView::Current { cluster, .. } => Some(cluster),
            StoreView::Lost { last, .. } => last.as_ref(),
            StoreView::Connecting { .. } => None,
        }
    }
}

/// The cluster store (DCS-1 to DCS-8).
///
/// `within` is the time that a call may take in total, attempts at other endpoints included (DCS-8). Every future may
/// be dropped at any time; a write may then have happened or not.
///
/// # Errors
/// All calls: see [`StoreError`]. A store that cannot be asked is always an error, never a "no" (DCS-E8).
pub trait Store: Clone + Send + Sync + 'static {
    /// Follows the cluster. The first call starts to watch it.
    ///
    /// The receiver is woken when something changes in the cluster, and when the picture is lost or found again.
    fn view(&self) -> watch::Receiver<StoreView>;

    /// Reads the whole cluster, linearizable: it reflects every write that was acknowledged before the call.
    fn read(&self, within: Duration) -> impl Future<Output = Result<Arc<Cluster>, StoreError>> + Send;

    /// Creates a lease (DCS-E1). The store may round `ttl` to seconds, upwards.
    fn grant(&self, ttl: Duration, within: Duration) -> impl Future<Output = Result<LeaseId, StoreError>> + Send;

    /// Extends a lease; `None` when it does not exist any more. It proves nothing about the keys bound to it.
    fn keep_alive(
        &self,
        lease: LeaseId,
        within: Duration,
    ) -> impl Future<Output = Result<Option<KeptAlive>, StoreError>> + Send;

    /// Creates the leader key if it does not exist (DCS-1), and extends the lease just before. A key that already
    /// holds our name under this very lease counts as acquired: an earlier attempt created it.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`]: grant a new lease and try again (DCS-E3).
    fn acquire(
        &self,
        me: &MemberName,
        lease: LeaseId,
        within: Duration,
    ) -> impl Future<Output = Result<AcquireOutcome, StoreError>> + Send;

    /// Overwrites the leader key whatever it holds (DCS-4): only at the end of a bootstrap.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`]: grant a new lease and try again.
    fn take(
        &self,
        me: &MemberName,
        lease: LeaseId,
        within: Duration,
    ) -> impl Future<Output = Result<Renewal, StoreError>> + Send;

    /// Extends the lease and proves that the leader key holds our name under it (DCS-2, BEY-3).
    ///
    /// A key with our name under one of the `former` leases, or under none, is bound to this lease. Under any other lease
    /// it is not ours, whatever name it holds: two agents may have one name (BEY-31). A key that is gone is never created
    /// again: that would skip the race.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] when the key would have to be bound to this lease and it does not exist: grant a new
    /// lease and renew with it (DCS-E2).
    fn renew(
        &self,
        me: &MemberName,
        lease: LeaseId,
        former: &[LeaseId],
        within: Duration,
    ) -> impl Future<Output = Result<RenewOutcome, StoreError>> + Send;

    /// Deletes the leader key if it holds our name under one of these leases, or under none (DCS-3). False when it is not
    /// ours: the name alone proves nothing (BEY-31).
    fn release(
        &self,
        me: &MemberName,
        leases: &[LeaseId],
        within: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Writes a key that only the leader writes, as [`write`](Store::write) without a lease does, if the leader key is
    /// still as it was at the revision `leader` ([`Renewal::revision`]): what a deposed leader writes too late changes
    /// nothing (BEY-32).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the leader key has changed or `condition` does not hold. It names the leader key,
    /// unless the store cannot tell which it was.
    fn write_as_leader(
        &self,
        leader: Revision,
        key: &Key,
        value: &str,
        condition: Condition,
        within: Duration,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Writes a key and returns the revision that a later condition has to name.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when `condition` does not hold; [`StoreError::LeaseGone`] when `lease` does not exist.
    fn write(
        &self,
        key: &Key,
        value: &str,
        condition: Condition,
        lease: Option<LeaseId>,
        within: Duration,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Deletes a key and returns the revision of the store after it. Deleting a key that does not exist is fine unless
    /// a revision is named.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when `condition` does not hold.
    fn delete(
        &self,
        key: &Key,
        condition: Condition,
        within: Duration,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Deletes everything below the cluster's prefix and returns how many keys there were.
    fn delete_cluster(&self, within: Duration) -> impl Future<Output = Result<u64, StoreError>> + Send;
}

/// The prefix of a cluster's keys, `/<namespace>/<scope>/`, with runs of `/` collapsed.
pub fn prefix_of(namespace: &str, scope: &str) -> String {
    let mut prefix = String::from("/");
    for part in namespace.split('/').chain(scope.split('/')).filter(|part| !part.is_empty()) {
        prefix.push_str(part);
        prefix.push('/');
    }
    prefix
}
