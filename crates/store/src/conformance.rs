//! What every store has to pass: functions generic over [`Store`], for tests.
//!
//! A [`Bench`] supplies a fresh, empty cluster and what only the operator of the store can do. [`all`] runs everything;
//! each function can be run alone on a bench of its own.
//!
//! # Panics
//! Every function panics when the store does not behave as [`Store`] says.

use std::future::Future;
use std::time::Duration;

use pgward_core::cluster::{Cluster, LeaseId, RawKey, Revision};
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::{AcquireOutcome, Condition, Key, RenewOutcome, Renewal, Store, StoreError, StoreView};

/// Time for one call: plenty, since nothing is broken.
const WITHIN: Duration = Duration::from_secs(10);
/// Time for a change to show up in a view; only spent when the test fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// The shortest lease that etcd grants is two seconds.
const TTL: Duration = Duration::from_secs(2);

/// One fresh, empty cluster.
pub trait Bench: Send + Sync {
    /// The store under test.
    type Store: Store;

    /// A client of the cluster, always the same one.
    fn store(&self) -> Self::Store;

    /// Writes a key behind the store's back.
    fn put(&self, suffix: &str, value: &[u8], lease: Option<LeaseId>) -> impl Future<Output = ()> + Send;

    /// Deletes a key behind the store's back.
    fn delete(&self, suffix: &str) -> impl Future<Output = ()> + Send;

    /// Ends a lease before its time.
    fn revoke(&self, lease: LeaseId) -> impl Future<Output = ()> + Send;

    /// Waits, or lets time pass, until a lease of this length that is not renewed has ended.
    fn outlive(&self, ttl: Duration) -> impl Future<Output = ()> + Send;

    /// All keys of the cluster as they are stored, in their order.
    fn keys(&self) -> impl Future<Output = Vec<RawKey>> + Send;

    /// Now, on the clock that the store takes for [`Renewal::sent`].
    fn now(&self) -> BootInstant;
}

/// Runs every function, each on a bench that `bench` makes for it under the given name.
pub async fn all<B: Bench, F: Future<Output = B>>(bench: impl Fn(&'static str) -> F) {
    conditions_decide_about_writes(&bench("writes").await).await;
    keys_are_stored_byte_for_byte(&bench("bytes").await).await;
    only_one_member_acquires(&bench("acquire").await).await;
    a_renewal_proves_that_the_key_is_ours(&bench("renew").await).await;
    a_renewal_never_creates_a_key(&bench("renew-gone").await).await;
    a_restarted_agent_binds_its_key_to_its_new_lease(&bench("rebind").await).await;
    a_key_without_a_lease_belongs_to_the_member_it_names(&bench("hand").await).await;
    of_two_agents_with_one_name_one_keeps_the_key(&bench("namesakes").await).await;
    release_deletes_only_what_is_ours(&bench("release").await).await;
    only_the_leader_writes_as_leader(&bench("as-leader").await).await;
    take_overwrites(&bench("take").await).await;
    a_lease_that_ends_takes_its_keys_with_it(&bench("expiry").await).await;
    the_view_shows_every_change_in_order(&bench("view").await).await;
    garbage_is_named_and_harmless(&bench("garbage").await).await;
    a_cluster_is_deleted_whole(&bench("delete").await).await;
}

/// DCS-5, DCS-6, DCS-7: create if absent, compare and set, unconditional writes and deletions.
pub async fn conditions_decide_about_writes(bench: &impl Bench) {
    let store = bench.store();
    let write = async |value, condition| store.write(&Key::Sync, value, condition, None, WITHIN).await;
    let delete = async |condition| store.delete(&Key::Sync, condition, WITHIN).await;

    let created = write("{\"a\":0}", Condition::Revision(Revision(0))).await.expect("revision zero means absent");
    assert_conflict(write("{\"b\":1}", Condition::Revision(Revision(0))).await, "it exists now");
    delete(Condition::Revision(created)).await.expect("deletes what it has read");
    delete(Condition::Revision(Revision(0))).await.expect("there is nothing to delete");

    let created = write("{\"a\":1}", Condition::Absent).await.expect("creates an absent key");
    assert_conflict(write("{\"b\":1}", Condition::Absent).await, "a key is created once");
    assert_conflict(write("{\"b\":1}", Condition::Revision(Revision(created.0 + 1000))).await, "a revision never seen");
    let changed = write("{\"c\":1}", Condition::Revision(created)).await.expect("changes what it has read");
    assert!(changed > created, "{changed:?} after {created:?}");
    assert_conflict(write("{\"d\":1}", Condition::Revision(created)).await, "what was read has changed since");
    let overwritten = write("{\"e\":1}", Condition::Always).await.expect("overwrites");
    assert_eq!(stored(bench, "sync").await.expect("written").mod_revision, overwritten);

    assert_conflict(delete(Condition::Revision(changed)).await, "deletes only what it has read");
    let deleted = delete(Condition::Revision(overwritten)).await.expect("deletes what it has read");
    assert!(deleted > overwritten);
    assert!(stored(bench, "sync").await.is_none());
    assert_conflict(write("{\"f\":1}", Condition::Revision(overwritten)).await, "what was read is gone");
    assert_conflict(delete(Condition::Revision(overwritten)).await, "what was read is gone");
    delete(Condition::Always).await.expect("an absent key is as good as deleted");
}

/// Keys and values are exactly those that Patroni reads, and leases are bound where they are asked for.
pub async fn keys_are_stored_byte_for_byte(bench: &impl Bench) {
    let store = bench.store();
    let lease = store.grant(TTL * 10, WITHIN).await.expect("grants");
    let member = name("n-1.a");
    let value = "{\"text\":\"\\u00e9\",\"n\":1}";
    let bound = [(Key::Member(member.clone()), "members/n-1.a")];
    let free = [
        (Key::Initialize, "initialize"),
        (Key::Config, "config"),
        (Key::Status, "status"),
        (Key::OptimeLeader, "optime/leader"),
        (Key::Failover, "failover"),
        (Key::Sync, "sync"),
        (Key::History, "history"),
        (Key::Failsafe, "failsafe"),
        (Key::Own("term/3".to_owned()), "x/term/3"),
    ];
    for (key, _) in &free {
        store.write(key, value, Condition::Always, None, WITHIN).await.expect("writes");
    }
    for (key, _) in &bound {
        store.write(key, value, Condition::Always, Some(lease), WITHIN).await.expect("writes with a lease");
    }
    assert_acquired(store.acquire(&member, lease, WITHIN).await);
    store.write(&Key::Initialize, "", Condition::Always, None, WITHIN).await.expect("writes an empty value");

    let keys = bench.keys().await;
    let found = |suffix: &str| keys.iter().find(|key| key.suffix == suffix).unwrap_or_else(|| panic!("no {suffix}"));
    for (_, suffix) in free.iter().skip(1) {
        assert_eq!((found(suffix).value.as_slice(), found(suffix).lease), (value.as_bytes(), LeaseId(0)), "{suffix}");
    }
    for (_, suffix) in &bound {
        assert_eq!((found(suffix).value.as_slice(), found(suffix).lease), (value.as_bytes(), lease), "{suffix}");
    }
    assert_eq!((found("leader").value.as_slice(), found("leader").lease), (b"n-1.a".as_slice(), lease));
    assert_eq!(found("initialize").value, b"");
    assert_eq!(keys.len(), free.len() + bound.len() + 1, "nothing else is written: {keys:?}");

    let gone = LeaseId(lease.0 + 12345);
    let refused = store.write(&Key::Member(member), value, Condition::Always, Some(gone), WITHIN).await;
    assert!(matches!(refused, Err(StoreError::LeaseGone)), "{refused:?}");
}

/// DCS-1.
pub async fn only_one_member_acquires(bench: &impl Bench) {
    let (store, a, b) = (bench.store(), name("a"), name("b"));
    let (lease_a, lease_b) = two_leases(&store).await;
    let before = bench.now();
    let renewal = assert_acquired(store.acquire(&a, lease_a, WITHIN).await);
    assert!(renewal.sent >= before && renewal.sent <= bench.now(), "{renewal:?} was sent after {before:?}");
    assert!(renewal.ttl >= TTL, "{renewal:?}");
    assert_eq!(renewal.epoch, stored(bench, "leader").await.expect("acquired").create_revision);

    let again = assert_acquired(store.acquire(&a, lease_a, WITHIN).await);
    assert_eq!(again.epoch, renewal.epoch, "an attempt whose answer got lost counts when it is repeated");
    assert_eq!(store.acquire(&b, lease_b, WITHIN).await.expect("answers"), AcquireOutcome::Held);
    assert_eq!(
        store.acquire(&a, lease_b, WITHIN).await.expect("answers"),
        AcquireOutcome::Held,
        "another agent of ours"
    );
    assert_eq!(stored(bench, "leader").await.expect("held").value, b"a");

    bench.revoke(lease_b).await;
    bench.delete("leader").await;
    let refused = store.acquire(&b, lease_b, WITHIN).await;
    assert!(matches!(refused, Err(StoreError::LeaseGone)), "{refused:?}");
    assert!(stored(bench, "leader").await.is_none());
}

/// DCS-2, BEY-3.
pub async fn a_renewal_proves_that_the_key_is_ours(bench: &impl Bench) {
    let (store, a, b) = (bench.store(), name("a"), name("b"));
    let (lease_a, lease_b) = two_leases(&store).await;
    let acquired = assert_acquired(store.acquire(&a, lease_a, WITHIN).await);
    let before = stored(bench, "leader").await;
    let renewal = assert_renewed(store.renew(&a, lease_a, &[], WITHIN).await);
    assert_eq!(renewal.epoch, acquired.epoch);
    assert!(renewal.sent >= acquired.sent && renewal.sent <= bench.now());
    assert_eq!(stored(bench, "leader").await, before, "a renewal writes nothing");

    assert_not_ours(store.renew(&b, lease_b, &[], WITHIN).await, Some(&a), "held by another");

    bench.put("leader", b"b", Some(lease_a)).await;
    assert_not_ours(store.renew(&a, lease_a, &[], WITHIN).await, Some(&b), "overwritten under our own lease");
    assert_eq!(stored(bench, "leader").await.expect("kept").value, b"b");

    bench.put("leader", b"\xff/", None).await;
    assert_not_ours(store.renew(&a, lease_a, &[], WITHIN).await, None, "overwritten with garbage");
    assert!(stored(bench, "leader").await.is_some());
}

/// QRK-9: a key that is gone is reported, and the race for it is left to the race.
pub async fn a_renewal_never_creates_a_key(bench: &impl Bench) {
    let (store, a) = (bench.store(), name("a"));
    let (lease, other) = two_leases(&store).await;
    assert_acquired(store.acquire(&a, lease, WITHIN).await);
    bench.delete("leader").await;
    assert_not_ours(store.renew(&a, lease, &[], WITHIN).await, None, "deleted by an operator while the lease lives");
    assert!(stored(bench, "leader").await.is_none());
    assert!(store.keep_alive(lease, WITHIN).await.expect("answers").is_some(), "the lease itself lives on");

    assert_acquired(store.acquire(&a, lease, WITHIN).await);
    bench.revoke(lease).await;
    assert_not_ours(store.renew(&a, lease, &[], WITHIN).await, None, "the lease was revoked");
    assert_eq!(store.keep_alive(lease, WITHIN).await.expect("answers"), None);
    assert_not_ours(store.renew(&a, other, &[lease], WITHIN).await, None, "a new lease does not help");
    assert!(stored(bench, "leader").await.is_none());
}

/// DCS-E2 for an agent that comes back while its old lease still lives.
pub async fn a_restarted_agent_binds_its_key_to_its_new_lease(bench: &impl Bench) {
    let (store, a, b) = (bench.store(), name("a"), name("b"));
    let (old, new) = two_leases(&store).await;
    let acquired = assert_acquired(store.acquire(&a, old, WITHIN).await);
    assert_not_ours(store.renew(&a, new, &[], WITHIN).await, Some(&a), "another agent may have our name");
    assert_eq!(stored(bench, "leader").await.expect("kept").lease, old, "it is left alone");
    let renewal = assert_renewed(store.renew(&a, new, &[old], WITHIN).await);
    assert_eq!(renewal.epoch, acquired.epoch, "it is the same leadership");
    assert!(renewal.revision > acquired.revision, "but another revision: {renewal:?} after {acquired:?}");
    let leader = stored(bench, "leader").await.expect("kept");
    assert_eq!((leader.value.as_slice(), leader.lease), (b"a".as_slice(), new));
    bench.revoke(old).await;
    assert_renewed(store.renew(&a, new, &[old], WITHIN).await);

    assert_not_ours(store.renew(&b, new, &[], WITHIN).await, Some(&a), "the lease of another name proves nothing");
    assert_not_ours(store.renew(&b, new, &[new], WITHIN).await, Some(&a), "nor does a former one");
    assert_not_ours(store.renew(&a, old, &[], WITHIN).await, Some(&a), "a lease that is gone takes nothing over");
    let gone = store.renew(&a, old, &[new], WITHIN).await;
    assert!(
        matches!(gone, Err(StoreError::LeaseGone)),
        "our name under a lease that lives, asked with one that is gone: {gone:?}"
    );
}

/// DCS-E2: what an operator writes over the key is nobody's, so that the member it names may have it.
pub async fn a_key_without_a_lease_belongs_to_the_member_it_names(bench: &impl Bench) {
    let (store, a, b) = (bench.store(), name("a"), name("b"));
    let (lease_a, lease_b) = two_leases(&store).await;
    assert_acquired(store.acquire(&a, lease_a, WITHIN).await);
    bench.put("leader", b"a", None).await;
    assert_not_ours(store.renew(&b, lease_b, &[], WITHIN).await, Some(&a), "it names another");
    let renewal = assert_renewed(store.renew(&a, lease_a, &[], WITHIN).await);
    let leader = stored(bench, "leader").await.expect("kept");
    assert_eq!((leader.lease, leader.mod_revision), (lease_a, renewal.revision));
    bench.put("leader", b"a", None).await;
    assert!(!store.release(&b, &[lease_b], WITHIN).await.expect("answers"), "it names another");
    assert!(store.release(&a, &[], WITHIN).await.expect("answers"));
    assert!(stored(bench, "leader").await.is_none());
}

/// BEY-31: two agents with one name, that both renew, adopt and release as often as they like. Who has the key keeps it.
pub async fn of_two_agents_with_one_name_one_keeps_the_key(bench: &impl Bench) {
    let (store, a) = (bench.store(), name("a"));
    let (first, second) = two_leases(&store).await;
    let (former_of_first, former_of_second) = two_leases(&store).await;
    let acquired = assert_acquired(store.acquire(&a, first, WITHIN).await);
    for _ in 0..3 {
        let refused = store.renew(&a, second, &[former_of_second], WITHIN).await;
        assert_not_ours(refused, Some(&a), "the second agent never had the lease that the key is bound to");
        assert!(!store.release(&a, &[second, former_of_second], WITHIN).await.expect("answers"), "not its to release");
        assert_eq!(store.acquire(&a, second, WITHIN).await.expect("answers"), AcquireOutcome::Held);
        let renewal = assert_renewed(store.renew(&a, first, &[former_of_first], WITHIN).await);
        assert_eq!((renewal.epoch, renewal.revision), (acquired.epoch, acquired.revision), "nobody touched it");
    }
    // An adoption by the second, which had seen the lease of the first when it started: from then on it alone has the key.
    let adopted = assert_renewed(store.renew(&a, second, &[first], WITHIN).await);
    for _ in 0..3 {
        let refused = store.renew(&a, first, &[former_of_first], WITHIN).await;
        assert_not_ours(refused, Some(&a), "the first does not take it back");
        assert!(!store.release(&a, &[first, former_of_first], WITHIN).await.expect("answers"), "not its to release");
        let renewal = assert_renewed(store.renew(&a, second, &[], WITHIN).await);
        assert_eq!(renewal.revision, adopted.revision, "nobody touched it");
    }
}

/// BEY-32: what a deposed leader writes too late changes nothing.
pub async fn only_the_leader_writes_as_leader(bench: &impl Bench) {
    let (store, a, b) = (bench.store(), name("a"), name("b"));
    let (lease_a, lease_b) = two_leases(&store).await;
    let write =
        async |leader, value, condition| store.write_as_leader(leader, &Key::Status, value, condition, WITHIN).await;
    assert_conflict(write(Revision::default(), "0", Condition::Always).await, "nobody leads");

    let reign = assert_acquired(store.acquire(&a, lease_a, WITHIN).await).revision;
    assert_eq!(stored(bench, "leader").await.expect("acquired").mod_revision, reign);
    let written = write(reign, "1", Condition::Absent).await.expect("the leader creates an absent key");
    assert_conflict(write(reign, "2", Condition::Absent).await, "it exists now");
    let written = write(reign, "2", Condition::Revision(written)).await.expect("the leader changes what it has read");
    let found = stored(bench, "status").await.expect("written");
    assert_eq!((found.value.as_slice(), found.mod_revision, found.lease), (b"2".as_slice(), written, LeaseId(0)));
    assert_renewed(store.renew(&a, lease_a, &[], WITHIN).await);
    write(reign, "3", Condition::Always).await.expect("a renewal changes nothing about it");

    assert!(store.release(&a, &[lease_a], WITHIN).await.expect("answers"));
    assert_deposed(write(reign, "late", Condition::Always).await, "released");
    let next = assert_acquired(store.acquire(&b, lease_b, WITHIN).await).revision;
    assert_deposed(write(reign, "late", Condition::Always).await, "another leads");
    assert_conflict(write(reign, "late", Condition::Revision(written)).await, "another leads");
    bench.put("leader", b"b", None).await;
    assert_deposed(write(next, "late", Condition::Always).await, "not bound to our lease any more");
    let next = assert_renewed(store.renew(&b, lease_b, &[], WITHIN).await).revision;
    assert_eq!(stored(bench, "status").await.expect("kept").value, b"3", "nothing of it was written");
    write(next, "4", Condition::Always).await.expect("the leader writes");
    assert_eq!(stored(bench, "status").await.expect("written").value, b"4");
}

/// DCS-3.
pub async fn release_deletes_only_what_is_ours(bench: &impl Bench) {
    let (store, a, b) = (bench.store(), name("a"), name("b"));
    let (lease_a, lease_b) = two_leases(&store).await;
    assert!(!store.release(&a, &[], WITHIN).await.expect("answers"), "nothing is held");
    assert_acquired(store.acquire(&a, lease_a, WITHIN).await);
    assert!(!store.release(&b, &[lease_b], WITHIN).await.expect("answers"), "held by another");
    assert!(!store.release(&a, &[lease_b], WITHIN).await.expect("answers"), "held under another lease");
    assert!(stored(bench, "leader").await.is_some());
    assert!(store.release(&a, &[lease_a], WITHIN).await.expect("answers"));
    assert!(stored(bench, "leader").await.is_none());
    let first = assert_acquired(store.acquire(&a, lease_a, WITHIN).await);
    assert!(!store.release(&a, &[], WITHIN).await.expect("answers"), "the name alone is not enough");
    assert!(store.release(&a, &[lease_b, lease_a], WITHIN).await.expect("answers"), "one of them is enough");
    let second = assert_acquired(store.acquire(&b, lease_b, WITHIN).await);
    assert!(second.epoch > first.epoch, "each leadership is newer than the one before");
}

/// DCS-4.
pub async fn take_overwrites(bench: &impl Bench) {
    let (store, a, b) = (bench.store(), name("a"), name("b"));
    let (lease_a, lease_b) = two_leases(&store).await;
    let taken = store.take(&a, lease_a, WITHIN).await.expect("takes an absent key");
    assert_eq!(taken.epoch, stored(bench, "leader").await.expect("taken").create_revision);
    let taken = store.take(&b, lease_b, WITHIN).await.expect("takes a key that is held");
    assert_eq!(taken.epoch, assert_renewed(store.renew(&b, lease_b, &[], WITHIN).await).epoch);
    assert_not_ours(store.renew(&a, lease_a, &[], WITHIN).await, Some(&b), "it was taken");
    bench.revoke(lease_a).await;
    let refused = store.take(&a, lease_a, WITHIN).await;
    assert!(matches!(refused, Err(StoreError::LeaseGone)), "{refused:?}");
    assert_eq!(stored(bench, "leader").await.expect("kept").value, b"b");
}

/// DCS-9: the keys of a member that is gone disappear, together; the others stay.
pub async fn a_lease_that_ends_takes_its_keys_with_it(bench: &impl Bench) {
    let (store, a, b) = (bench.store(), name("a"), name("b"));
    let mut view = store.view();
    let lease = store.grant(TTL, WITHIN).await.expect("grants");
    let other = store.grant(TTL * 30, WITHIN).await.expect("grants");
    store.write(&Key::Member(a.clone()), "{}", Condition::Always, Some(lease), WITHIN).await.expect("writes");
    store.write(&Key::Member(b.clone()), "{}", Condition::Always, Some(other), WITHIN).await.expect("writes");
    store.write(&Key::Status, "{\"optime\":5}", Condition::Always, None, WITHIN).await.expect("writes");
    assert_acquired(store.acquire(&a, lease, WITHIN).await);
    let seen = |cluster: &Cluster| cluster.is_led_by(&a) && cluster.members.len() == 2;
    until(&mut view, "leader and both members", seen).await;

    bench.outlive(TTL).await;
    let cluster = until(&mut view, "the end of the lease", |cluster| cluster.is_unlocked()).await;
    assert!(!cluster.members.contains_key(&a), "member and leader key go together: {cluster:?}");
    assert!(cluster.members.contains_key(&b));
    assert!(cluster.status.optime.is_some());
    assert_not_ours(store.renew(&a, lease, &[], WITHIN).await, None, "the lease has ended");
    assert_acquired(store.acquire(&b, other, WITHIN).await);
}

/// The view reaches every state in turn, wakes its readers, never goes back, and agrees with a read.
pub async fn the_view_shows_every_change_in_order(bench: &impl Bench) {
    let store = bench.store();
    let mut view = store.view();
    let key = Key::Own("n".to_owned());
    let mut newest = Revision(0);
    for n in 0..20 {
        let revision = store.write(&key, &n.to_string(), Condition::Always, None, WITHIN).await.expect("writes");
        let value = n.to_string();
        let seen = |cluster: &Cluster| cluster.own.get("n").is_some_and(|own| own.value == value);
        let cluster = until(&mut view, "each value in turn", seen).await;
        assert_eq!(cluster.own["n"].revision, revision);
        assert!(cluster.revision > newest, "{:?} after {newest:?}", cluster.revision);
        newest = cluster.revision;
    }
    // Many at once: they may be seen together, but never out of order.
    for n in 20..120 {
        store.write(&key, &n.to_string(), Condition::Always, None, WITHIN).await.expect("writes");
    }
    bench.put("x/last", b"yes", None).await;
    let mut numbers = Vec::new();
    until(&mut view, "the last one", |cluster| {
        numbers.extend(cluster.own.get("n").and_then(|own| own.value.parse::<u32>().ok()));
        cluster.own.contains_key("last")
    })
    .await;
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&119), "changes by others come in the same order as ours");

    bench.delete("x/n").await;
    let cluster = until(&mut view, "the deletion", |cluster| !cluster.own.contains_key("n")).await;
    let read = store.read(WITHIN).await.expect("reads");
    assert_eq!(read.own, cluster.own);
    assert!(read.revision >= cluster.revision);
    let newest = view.borrow();
    assert!(matches!(&*newest, StoreView::Current { read_at, .. } if *read_at <= bench.now()), "{newest:?}");
}

/// IN-D: whatever an operator writes, the view lives, and says which key is wrong.
pub async fn garbage_is_named_and_harmless(bench: &impl Bench) {
    let store = bench.store();
    let mut view = store.view();
    let garbage: [&[u8]; 5] = [b"\xff\xfe", b"", b"[", b"null", b"{\"a\":"];
    let keys = ["config", "status", "sync", "failover", "history", "failsafe", "initialize", "members/a", "leader"];
    for value in garbage {
        for key in keys {
            bench.put(key, value, None).await;
        }
    }
    bench.put("members/a/b", b"{}", None).await;
    bench.put("nonsense", b"\xff", None).await;
    bench.put("x/end", b"1", None).await;
    let cluster = until(&mut view, "the last key", |cluster| cluster.own.contains_key("end")).await;
    assert!(!cluster.is_unlocked(), "whatever it holds, an existing leader key is a lock");
    for key in ["config", "status", "history"] {
        assert!(cluster.warnings.iter().any(|warning| warning.key == key), "{key}: {:?}", cluster.warnings);
    }
    let read = store.read(WITHIN).await.expect("reads");
    assert_eq!(Cluster { revision: cluster.revision, ..(*read).clone() }, *cluster, "a view is what a read returns");
}

/// What `ctl remove` needs: everything below the prefix, and nothing else.
pub async fn a_cluster_is_deleted_whole(bench: &impl Bench) {
    let store = bench.store();
    let mut view = store.view();
    assert_eq!(store.delete_cluster(WITHIN).await.expect("deletes nothing"), 0);
    for key in ["config", "leader", "members/a", "x/deep/er", "unknown"] {
        bench.put(key, b"{}", None).await;
    }
    until(&mut view, "the keys", |cluster| !cluster.own.is_empty() && !cluster.is_unlocked()).await;
    assert_eq!(store.delete_cluster(WITHIN).await.expect("deletes"), 5);
    assert!(bench.keys().await.is_empty());
    until(&mut view, "nothing", |cluster| cluster.is_unlocked() && cluster.own.is_empty()).await;
}

/// Waits until the view is current and holds what is asked for, and returns it.
pub async fn until(
    view: &mut watch::Receiver<StoreView>,
    what: &str,
    mut holds: impl FnMut(&Cluster) -> bool,
) -> std::sync::Arc<Cluster> {
    let found = async {
        loop {
            if let Some(cluster) = view.borrow_and_update().current()
                && holds(cluster)
            {
                return cluster.clone();
            }
            view.changed().await.expect("the view is fed as long as the store lives");
        }
    };
    match timeout(PATIENCE, found).await {
        Ok(cluster) => cluster,
        Err(_) => panic!("the view does not show {what}: {:#?}", *view.borrow()),
    }
}

fn name(text: &str) -> MemberName {
    text.parse().expect("a member name")
}

async fn two_leases(store: &impl Store) -> (LeaseId, LeaseId) {
    let first = store.grant(TTL * 10, WITHIN).await.expect("grants a lease");
    let second = store.grant(TTL * 10, WITHIN).await.expect("grants another lease");
    assert_ne!(first, second);
    (first, second)
}

async fn stored(bench: &impl Bench, suffix: &str) -> Option<RawKey> {
    bench.keys().await.into_iter().find(|key| key.suffix == suffix)
}

fn assert_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>, why: &str) {
    assert!(matches!(result, Err(StoreError::Conflict { .. })), "{why}: {result:?}");
}

fn assert_deposed<T: std::fmt::Debug>(result: Result<T, StoreError>, why: &str) {
    assert!(matches!(&result, Err(StoreError::Conflict { key }) if key == "leader"), "{why}: {result:?}");
}

fn assert_acquired(result: Result<AcquireOutcome, StoreError>) -> Renewal {
    match result {
        Ok(AcquireOutcome::Acquired(renewal)) => renewal,
        other => panic!("not acquired: {other:?}"),
    }
}

fn assert_renewed(result: Result<RenewOutcome, StoreError>) -> Renewal {
    match result {
        Ok(RenewOutcome::Renewed(renewal)) => renewal,
        other => panic!("not renewed: {other:?}"),
    }
}

fn assert_not_ours(result: Result<RenewOutcome, StoreError>, holder: Option<&MemberName>, why: &str) {
    assert_eq!(result.expect("a definite answer"), RenewOutcome::NotOurs { holder: holder.cloned() }, "{why}");
}
