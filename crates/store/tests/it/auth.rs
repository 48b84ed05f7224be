//! Users, permissions, and tokens that do not live long.

use std::time::Duration;

use pgward_store::conformance::until;
use pgward_store::{AcquireOutcome, Condition, EtcdOptions, Key, RenewOutcome, Store, StoreError};
use tokio::time::{Instant, sleep};

use crate::etcd::{Etcd, open, options};

const WITHIN: Duration = Duration::from_secs(10);

/// An etcd with authentication, a user for `/service/mine/` and tokens that end after a second without use.
async fn guarded() -> Etcd {
    let mut etcd = Etcd::start(1, &["--auth-token-ttl", "1"]).await.unwrap();
    for command in [
        &["user", "add", "root:rootpw"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "mine"],
        &["role", "grant-permission", "mine", "--prefix=true", "readwrite", "/service/mine/"],
        &["user", "add", "me:mypw"],
        &["user", "grant-role", "me", "mine"],
        &["auth", "enable"],
    ] {
        // Roles have to exist before they are granted; only root's is made on the way.
        if command == ["user", "grant-role", "root", "root"] {
            drop(etcd.ctl(&["role", "add", "root"], None).await);
        }
        etcd.ctl(command, None).await.unwrap();
    }
    etcd.ctl_args = vec!["--user".into(), "root:rootpw".into()];
    etcd
}

fn mine(etcd: &Etcd) -> EtcdOptions {
    EtcdOptions { username: Some("me".into()), password: Some("mypw".into()), ..options(etcd.urls(), "mine") }
}

#[tokio::test]
async fn a_token_that_ended_is_replaced() {
    let mut etcd = guarded().await;
    let opened = open(&mine(&etcd));
    let store = &opened.store;
    let mut view = store.view();
    let me = "a".parse().unwrap();
    let lease = store.grant(Duration::from_secs(30), WITHIN).await.unwrap();
    let outcome = store.acquire(&me, lease, WITHIN).await.unwrap();
    assert!(matches!(outcome, AcquireOutcome::Acquired(_)), "{outcome:?}");
    until(&mut view, "the leader", |cluster| cluster.is_led_by(&me)).await;
    let idle = open(&mine(&etcd));
    idle.store.read(WITHIN).await.unwrap();
    for round in 0..3 {
        // The subject is an expiry by the server's clock: there is nothing to wait for but time.
        sleep(Duration::from_millis(2500)).await;
        let start = Instant::now();
        let outcome = store.renew(&me, lease, &[], WITHIN).await.unwrap();
        assert!(matches!(outcome, RenewOutcome::Renewed(_)), "{outcome:?}");
        let text = format!("round {round}");
        idle.store.write(&Key::Own("n".into()), &text, Condition::Always, None, WITHIN).await.unwrap();
        until(&mut view, &text, |cluster| cluster.own.get("n").is_some_and(|own| own.value == text)).await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    // A restarted server knows no token at all, and the watch has to be opened with a new one.
    etcd.kill_member(0).await.unwrap();
    etcd.start_member(0).unwrap();
    idle.store.write(&Key::Own("n".into()), "after", Condition::Always, None, WITHIN).await.unwrap();
    until(&mut view, "the restart", |cluster| cluster.own.get("n").is_some_and(|own| own.value == "after")).await;
}

#[tokio::test]
async fn a_refusal_is_definite_and_says_why() {
    let etcd = guarded().await;
    for (case, options, want) in [
        ("wrong password", EtcdOptions { password: Some("nonsense".into()), ..mine(&etcd) }, "authentication failed"),
        ("no user", options(etcd.urls(), "mine"), "user name is empty"),
        ("foreign prefix", EtcdOptions { prefix: "/service/yours/".into(), ..mine(&etcd) }, "permission denied"),
    ] {
        let opened = open(&options);
        let start = Instant::now();
        let refused = opened.store.read(WITHIN).await;
        assert!(matches!(&refused, Err(StoreError::Rejected { .. })), "{case}: {refused:?}");
        let error = refused.unwrap_err();
        assert!(error.to_string().contains(want) && !error.is_unknown(), "{case}: {error}");
        assert!(start.elapsed() < Duration::from_secs(3), "{case}: {:?}", start.elapsed());
        let written = opened.store.write(&Key::Status, "{}", Condition::Always, None, WITHIN).await;
        assert!(matches!(&written, Err(StoreError::Rejected { .. })), "{case}: {written:?}");
    }
}

#[tokio::test]
async fn a_user_is_no_hindrance_where_nobody_asks_for_one() {
    let etcd = Etcd::start(1, &[]).await.unwrap();
    let opened = open(&mine(&etcd));
    opened.store.write(&Key::Status, "{}", Condition::Always, None, WITHIN).await.unwrap();
    opened.store.read(WITHIN).await.unwrap();
}
