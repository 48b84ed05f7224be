//! What happens to etcd, and what the store makes of it.

use std::time::Duration;

use pgward_core::cluster::{Cluster, LeaseId};
use pgward_core::names::MemberName;
use pgward_store::conformance::until;
use pgward_store::{
    AcquireOutcome, Condition, EtcdOptions, EtcdStore, Key, RenewOutcome, Store, StoreError, StoreView,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::etcd::{Etcd, Line, Proxy, open, options};

const WITHIN: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(20);

fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

/// A member that leads under a lease of its own.
async fn leader(store: &EtcdStore, me: &str) -> (MemberName, LeaseId) {
    let me = name(me);
    let lease = store.grant(TTL, WITHIN).await.unwrap();
    let outcome = store.acquire(&me, lease, WITHIN).await.unwrap();
    assert!(matches!(outcome, AcquireOutcome::Acquired(_)), "{outcome:?}");
    (me, lease)
}

async fn assert_renews(store: &EtcdStore, me: &MemberName, lease: LeaseId) {
    let outcome = store.renew(me, lease, &[], WITHIN).await.unwrap();
    assert!(matches!(outcome, RenewOutcome::Renewed(_)), "{outcome:?}");
}

/// Writes a number through `store` and waits until `view` shows it; returns how long that took in all.
async fn write_and_see(store: &EtcdStore, view: &mut watch::Receiver<StoreView>, number: u32) -> Duration {
    let start = Instant::now();
    let text = number.to_string();
    store.write(&Key::Own("n".into()), &text, Condition::Always, None, WITHIN).await.unwrap();
    until(view, &text, |cluster| shows(cluster, &text)).await;
    start.elapsed()
}

fn shows(cluster: &Cluster, text: &str) -> bool {
    cluster.own.get("n").is_some_and(|own| own.value == text)
}

/// Proves that changes come by the watch: the reads that confirm the view would bring them too, but seconds later.
async fn assert_watch_is_alive(store: &EtcdStore, view: &mut watch::Receiver<StoreView>) {
    let deadline = Instant::now() + WITHIN;
    let mut quick_in_a_row = 0;
    let mut number = 1000;
    while quick_in_a_row < 5 {
        assert!(Instant::now() < deadline, "changes come late: the watch does not work");
        number += 1;
        let is_quick = write_and_see(store, view, number).await < Duration::from_millis(400);
        quick_in_a_row = if is_quick { quick_in_a_row + 1 } else { 0 };
    }
}

/// Waits until the view is lost, and says how long it took.
async fn until_lost(view: &mut watch::Receiver<StoreView>) -> Duration {
    let start = Instant::now();
    let lost = view.wait_for(|view| matches!(view, StoreView::Lost { .. }));
    timeout(Duration::from_secs(20), lost).await.expect("the view gets lost").unwrap();
    start.elapsed()
}

#[tokio::test]
async fn the_loss_of_any_one_etcd_member_goes_by() {
    let mut etcd = Etcd::start(3, &[]).await.unwrap();
    // One address is enough: the others are learned.
    let opened = open(&options(vec![etcd.urls()[0].clone()], "loss"));
    let store = &opened.store;
    let mut view = store.view();
    let (me, lease) = leader(store, "a").await;
    let epoch = until(&mut view, "the leader", |cluster| cluster.is_led_by(&me)).await.leader.clone().unwrap().epoch;
    let mut number = 0;
    for round in 0..4 {
        // Each member once, the leader of etcd last.
        let leader = etcd.leader().await.unwrap();
        let victim = if round == 3 { leader } else { round };
        etcd.kill_member(victim).await.unwrap();
        number += 1;
        let took = write_and_see(store, &mut view, number).await;
        assert!(took < Duration::from_secs(8), "round {round}: {took:?}");
        assert_renews(store, &me, lease).await;
        number += 1;
        let took = write_and_see(store, &mut view, number).await;
        assert!(took < Duration::from_secs(4), "round {round}, the second time: {took:?}");
        assert_watch_is_alive(store, &mut view).await;
        etcd.start_member(victim).unwrap();
        etcd.wait_until_healthy().await.unwrap();
    }
    let now = store.read(WITHIN).await.unwrap();
    assert_eq!(now.leader.as_ref().unwrap().epoch, epoch, "nobody lost the leadership");
}

#[tokio::test]
async fn the_loss_of_the_quorum_is_unknown_and_ends() {
    let mut etcd = Etcd::start(3, &[]).await.unwrap();
    let opened = open(&options(etcd.urls(), "quorum"));
    let store = &opened.store;
    let mut view = store.view();
    let (me, lease) = leader(store, "a").await;
    until(&mut view, "the leader", |cluster| cluster.is_led_by(&me)).await;

    let survivor = etcd.leader().await.unwrap();
    for n in (0..3).filter(|n| *n != survivor) {
        etcd.kill_member(n).await.unwrap();
    }
    let lost_after = until_lost(&mut view).await;
    assert!(lost_after < Duration::from_secs(10), "{lost_after:?}");
    assert!(view.borrow().latest().unwrap().is_led_by(&me), "what was seen last is kept");
    assert!(view.borrow().current().is_none());
    for within in [Duration::from_millis(300), Duration::from_secs(3)] {
        let start = Instant::now();
        let renewed = store.renew(&me, lease, &[], within).await;
        assert!(matches!(&renewed, Err(error) if error.is_unknown()), "{renewed:?}");
        let written = store.write(&Key::Status, "{}", Condition::Absent, None, within).await;
        assert!(matches!(&written, Err(error) if error.is_unknown()), "{written:?}");
        let released = store.release(&me, &[lease], within).await;
        assert!(matches!(&released, Err(error) if error.is_unknown()), "{released:?}");
        assert!(start.elapsed() < within * 3 + Duration::from_millis(500), "{:?}", start.elapsed());
    }

    for n in (0..3).filter(|n| *n != survivor) {
        etcd.start_member(n).unwrap();
    }
    until(&mut view, "anything current", |_| true).await;
    assert_watch_is_alive(store, &mut view).await;
}

#[tokio::test]
async fn a_connection_that_fell_silent_is_left() {
    let etcd = Etcd::start(1, &[]).await.unwrap();
    let proxies = [Proxy::start(&etcd.urls()[0]).await.unwrap(), Proxy::start(&etcd.urls()[0]).await.unwrap()];
    let endpoints = proxies.iter().map(|proxy| proxy.url.clone()).collect();
    let opened = open(&EtcdOptions { discover_members: false, ..options(endpoints, "silent") });
    let store = &opened.store;
    let mut view = store.view();
    write_and_see(store, &mut view, 1).await;
    for (number, silent) in [(2, 0), (3, 1), (4, 0)] {
        proxies[silent].set(Line::Silent);
        // Written behind its back, so that no request of ours finds the silence first.
        let text = number.to_string();
        etcd.put("/service/silent/x/n", text.as_bytes(), None).await.unwrap();
        let start = Instant::now();
        until(&mut view, &text, |cluster| shows(cluster, &text)).await;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(view.borrow().current().is_some());
        assert_watch_is_alive(store, &mut view).await;
        proxies[silent].set(Line::Open);
    }
    for proxy in &proxies {
        proxy.set(Line::Silent);
    }
    let lost_after = until_lost(&mut view).await;
    assert!(lost_after > Duration::from_secs(2) && lost_after < Duration::from_secs(8), "{lost_after:?}");
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_repeated_without_harm() {
    let etcd = Etcd::start(1, &[]).await.unwrap();
    let proxy = Proxy::start(&etcd.urls()[0]).await.unwrap();
    let opened = open(&EtcdOptions { discover_members: false, ..options(vec![proxy.url.clone()], "repeat") });
    let store = &opened.store;
    let lose_next_answer = async || {
        proxy.set(Line::Open);
        store.read(WITHIN).await.unwrap(); // On a connection that works, which now stops to.
        proxy.set(Line::LosesAnswers);
    };
    let within = Duration::from_secs(4);
    let me = name("a");
    let lease = store.grant(TTL, WITHIN).await.unwrap();
    let key = Key::Sync;

    lose_next_answer().await;
    let outcome = store.acquire(&me, lease, within).await.unwrap();
    assert!(matches!(outcome, AcquireOutcome::Acquired(_)), "{outcome:?}");

    lose_next_answer().await;
    let created = store.write(&key, "{\"leader\":\"a\"}", Condition::Absent, None, within).await.unwrap();
    let stored = etcd.keys("/service/repeat/").await.unwrap();
    assert_eq!(stored.iter().find(|key| key.suffix == "sync").unwrap().mod_revision, created);

    lose_next_answer().await;
    let changed = store.write(&key, "{}", Condition::Revision(created), None, within).await.unwrap();
    lose_next_answer().await;
    let conflict = store.write(&key, "{\"x\":1}", Condition::Revision(created), None, within).await;
    assert!(matches!(conflict, Err(StoreError::Conflict { .. })), "a repeated conflict is still one: {conflict:?}");
    lose_next_answer().await;
    store.delete(&key, Condition::Revision(changed), within).await.unwrap();

    // Every racer for the bootstrap writes the same: whose write it was cannot be told.
    lose_next_answer().await;
    let raced = store.write(&Key::Initialize, "", Condition::Absent, None, within).await;
    assert!(matches!(&raced, Err(error) if error.is_unknown()), "{raced:?}");

    lose_next_answer().await;
    assert_renews(store, &me, lease).await;
    lose_next_answer().await;
    assert!(store.release(&me, &[lease], within).await.unwrap());
}

#[tokio::test]
async fn a_watch_survives_compaction_while_it_was_cut_off() {
    let etcd = Etcd::start(1, &[]).await.unwrap();
    let proxy = Proxy::start(&etcd.urls()[0]).await.unwrap();
    let opened = open(&EtcdOptions { discover_members: false, ..options(vec![proxy.url.clone()], "compacted") });
    let store = &opened.store;
    let mut view = store.view();
    let lease = store.grant(TTL, WITHIN).await.unwrap();
    store.write(&Key::Member(name("b")), "{}", Condition::Always, Some(lease), WITHIN).await.unwrap();
    write_and_see(store, &mut view, 1).await;
    for number in 2..5 {
        proxy.set(Line::Cut);
        for step in 0..5 {
            etcd.put("/service/compacted/x/n", format!("{number}-{step}").as_bytes(), None).await.unwrap();
        }
        etcd.ctl(&["del", "/service/compacted/members/b"], None).await.unwrap();
        etcd.compact().await.unwrap();
        proxy.set(Line::Open);
        let last = format!("{number}-4");
        let cluster = until(&mut view, &last, |cluster| shows(cluster, &last)).await;
        assert!(cluster.members.is_empty(), "a deletion in the gap is seen, too: {cluster:?}");
        assert_watch_is_alive(store, &mut view).await;
    }
}

#[tokio::test]
async fn a_store_that_lost_its_data_is_seen_as_it_is() {
    let mut etcd = Etcd::start(1, &[]).await.unwrap();
    let opened = open(&options(etcd.urls(), "wiped"));
    let store = &opened.store;
    let mut view = store.view();
    let (me, lease) = leader(store, "a").await;
    for number in 0..30 {
        write_and_see(store, &mut view, number).await;
    }
    etcd.kill_member(0).await.unwrap();
    etcd.wipe_member(0).unwrap();
    etcd.start_member(0).unwrap();
    etcd.wait_until_healthy().await.unwrap();
    // The same name and token make the same cluster id: only the revisions tell, and terms begin anew.
    let cluster = until(&mut view, "an empty store", |cluster| cluster.is_unlocked()).await;
    assert!(cluster.own.is_empty(), "{cluster:?}");
    let outcome = store.renew(&me, lease, &[], Duration::from_secs(60)).await;
    assert!(matches!(outcome, Ok(RenewOutcome::NotOurs { holder: None })), "{outcome:?}");
    assert_watch_is_alive(store, &mut view).await;
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_waited_for() {
    let mut etcd = Etcd::start(1, &[]).await.unwrap();
    etcd.kill_member(0).await.unwrap();
    let opened = open(&options(etcd.urls(), "late"));
    let store = &opened.store;
    let mut view = store.view();
    let start = Instant::now();
    let refused = store.read(Duration::from_secs(1)).await;
    assert!(matches!(&refused, Err(StoreError::Unreachable { .. })), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains(&etcd.urls()[0]));
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    let connecting = view.wait_for(|view| matches!(view, StoreView::Connecting { error: Some(_) }));
    timeout(Duration::from_secs(10), connecting).await.expect("the reason is published").unwrap();
    etcd.start_member(0).unwrap();
    until(&mut view, "anything", |_| true).await;
}

#[tokio::test]
async fn everything_ends_with_the_token() {
    let etcd = Etcd::start(1, &[]).await.unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let store = EtcdStore::new(&options(etcd.urls(), "end"), shutdown.clone()).unwrap();
    let mut view = store.view();
    write_and_see(&store, &mut view, 1).await;
    shutdown.cancel();
    timeout(Duration::from_secs(5), store.closed()).await.expect("all tasks end");
    assert!(view.changed().await.is_err(), "nobody feeds the view any more");
}
