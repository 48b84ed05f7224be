use pgward_core::time::fence_deadline;
use pgward_store::{Condition, Key, MemoryFault, MemoryServer, MemoryStore};
use tokio::task::JoinHandle;

use super::*;
use crate::fence::Protected;
use crate::fence::tests::{Note, Notes};
use crate::host::System;

const TTL: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_secs(6);

fn times() -> LeaseTimes {
    LeaseTimes { ttl: TTL, loop_wait: Duration::from_secs(10), retry_timeout: Duration::from_secs(10) }
}

fn name() -> MemberName {
    "a".parse().unwrap()
}

/// The task of member `a`, on a store whose clock began with ours; the time of the task itself is paused.
struct Bench {
    server: MemoryServer,
    store: MemoryStore,
    lease: LeaseHandle,
    fence: Fence,
    notes: Notes,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Bench {
    fn new() -> Bench {
        let server = MemoryServer::new();
        server.advance(System.boot_now().0);
        Bench::on(server, Predecessor::MayHaveLed)
    }

    /// The agent of `a` starts where something may be stored already.
    fn on(server: MemoryServer, predecessor: Predecessor) -> Bench {
        let (store, (fence, notes)) = (server.client(), Fence::noting(false));
        let (keeper, lease) =
            LeaseKeeper::new(store.clone(), name(), predecessor, fence.clone(), times(), Arc::new(System));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(keeper.run(shutdown.clone()));
        lease.permit_until(System.boot_now() + Duration::from_secs(3600));
        Bench { server, store, lease, fence, notes, shutdown, task }
    }

    /// One that leads, with a server that the fencer guards.
    async fn leading() -> Bench {
        let bench = Bench::new();
        assert!(bench.lease.acquire().await.unwrap());
        bench.fence.protect(Protected::BeforeStart).await.unwrap();
        bench.notes.take();
        bench
    }

    /// Lets time pass, for the store and for the task.
    async fn pass(&self, time: Duration) {
        self.server.advance(time);
        tokio::time::sleep(time + Duration::from_millis(1)).await;
    }

    fn held_since(&self) -> Option<BootInstant> {
        match self.lease.now().key {
            Lease::Held { sent, .. } => Some(sent),
            Lease::None | Lease::NotOurs { .. } => None,
        }
    }

    /// The value of the leader key and the lease it is bound to.
    fn key(&self) -> Option<(String, LeaseId)> {
        let keys = self.server.keys();
        let key = keys.iter().find(|key| key.suffix == "leader")?;
        Some((String::from_utf8(key.value.clone()).unwrap(), key.lease))
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_renewed_under_a_permit_and_the_fencer_hears_of_it() {
    let bench = Bench::leading().await;
    for _ in 0..20 {
        bench.pass(EVERY).await;
        assert_eq!(bench.held_since(), Some(bench.server.now()));
        let deadline = fence_deadline(bench.server.now(), TTL);
        assert_eq!(bench.notes.take(), [Note::Armed(Protected::BeforeStart, deadline)]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_permit_nothing_is_renewed_until_there_is_one_again() {
    let bench = Bench::leading().await;
    let renewed = bench.held_since();
    bench.lease.permit_until(System.boot_now());
    bench.pass(EVERY * 2).await;
    assert_eq!((bench.held_since(), bench.notes.take()), (renewed, vec![]), "the deadline stays where it was");
    bench.lease.permit_until(System.boot_now() + TTL);
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.held_since(), Some(bench.server.now()));
    bench.lease.permit_until(System.boot_now());
    bench.pass(TTL).await;
    assert_eq!(bench.key(), None, "a hung cycle loses the lease");
    let proof = bench.lease.now().key;
    assert!(matches!(proof, Lease::Held { .. }), "the last proof stays, and runs out by itself: {proof:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_anothers_is_not_ours_and_is_left_alone() {
    let bench = Bench::leading().await;
    bench.server.put("leader", b"b", None);
    bench.pass(EVERY).await;
    assert_eq!(bench.lease.now().key, Lease::NotOurs { holder: "b".parse().ok() });
    assert_eq!(bench.notes.take(), [], "the old deadline stays armed");
    bench.pass(EVERY * 10).await;
    assert_eq!(bench.key().unwrap().0, "b");
    assert!(!bench.lease.acquire().await.unwrap());
    assert!(!bench.lease.release().await.unwrap());
    assert_eq!(bench.key().unwrap().0, "b");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_gone_takes_the_leadership_with_it() {
    let bench = Bench::leading().await;
    let before = bench.lease.now().id.unwrap();
    bench.server.revoke(before);
    bench.pass(EVERY).await;
    assert_eq!(bench.lease.now().key, Lease::NotOurs { holder: None }, "the key is never created again without a race");
    bench.pass(Duration::from_secs(1)).await;
    let after = bench.lease.now().id.unwrap();
    assert_ne!(after, before, "the member record needs one");
    assert!(bench.lease.acquire().await.unwrap());
    assert_eq!(bench.key(), Some(("a".to_owned(), after)));
}

/// A store in which an agent of `a`, that is no more or lives elsewhere, has the leader key; and that agent's lease.
async fn led_by_a_namesake() -> (MemoryServer, MemoryStore, LeaseId) {
    let server = MemoryServer::new();
    server.advance(System.boot_now().0);
    let store = server.client();
    let lease = store.grant(TTL, EVERY).await.unwrap();
    assert!(matches!(store.acquire(&name(), lease, EVERY).await.unwrap(), AcquireOutcome::Acquired(_)));
    (server, store, lease)
}

#[tokio::test(start_paused = true)]
async fn a_key_of_a_former_agent_is_adopted() {
    let (server, _, _) = led_by_a_namesake().await;
    let bench = Bench::on(server, Predecessor::MayHaveLed);
    assert!(bench.lease.adopt().await.unwrap());
    let id = bench.lease.now().id.unwrap();
    assert_eq!(bench.key(), Some(("a".to_owned(), id)));
    bench.server.delete("leader");
    assert!(!bench.lease.adopt().await.unwrap(), "a key that is gone proves nothing");
    assert_eq!(bench.key(), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_of_a_former_agent_is_released() {
    let (server, _, _) = led_by_a_namesake().await;
    let bench = Bench::on(server, Predecessor::MayHaveLed);
    assert!(bench.lease.release().await.unwrap());
    assert_eq!(bench.key(), None);
}

#[tokio::test(start_paused = true)]
async fn a_standby_has_no_key_to_adopt() {
    let (server, _, lease) = led_by_a_namesake().await;
    let bench = Bench::on(server, Predecessor::HasNotLed);
    assert!(!bench.lease.adopt().await.unwrap());
    assert_eq!(bench.lease.now().key, Lease::NotOurs { holder: Some(name()) });
    assert!(!bench.lease.release().await.unwrap());
    assert_eq!(bench.key(), Some(("a".to_owned(), lease)));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_namesake_creates_later_is_not_adopted() {
    let bench = Bench::new();
    bench.pass(EVERY).await;
    let lease = bench.store.grant(TTL, EVERY).await.unwrap();
    assert!(matches!(bench.store.acquire(&name(), lease, EVERY).await.unwrap(), AcquireOutcome::Acquired(_)));
    assert!(!bench.lease.adopt().await.unwrap());
    assert!(!bench.lease.release().await.unwrap());
    assert_eq!(bench.key(), Some(("a".to_owned(), lease)));
}

/// BEY-31. Both tasks renew for minutes; each is also asked to adopt and to release, as a decision might.
#[tokio::test(start_paused = true)]
async fn of_two_agents_with_one_name_exactly_one_keeps_the_key() {
    let first = Bench::leading().await;
    let epoch = first.lease.now().revision;
    let second = Bench::on(first.server.clone(), Predecessor::MayHaveLed);
    assert!(second.lease.adopt().await.unwrap(), "as a restarted agent does");
    let taken = second.key();
    first.pass(EVERY).await;
    assert_eq!(first.lease.now().key, Lease::NotOurs { holder: Some(name()) }, "the next renewal tells");
    for _ in 0..20 {
        first.pass(EVERY).await;
        assert!(!first.lease.adopt().await.unwrap(), "what was taken is not taken back");
        assert_eq!(first.lease.now().key, Lease::NotOurs { holder: Some(name()) });
        assert!(!first.lease.acquire().await.unwrap());
        assert!(!first.lease.release().await.unwrap());
        assert_eq!(second.held_since(), Some(second.server.now()));
        assert_eq!(second.key(), taken, "nobody touched it");
    }
    assert!(second.lease.now().revision > epoch);
    let late = first.store.write_as_leader(epoch.unwrap(), &Key::Status, "{}", Condition::Always, EVERY).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn the_leadership_is_told_while_it_is_proven() {
    let bench = Bench::new();
    assert!(bench.lease.leadership().is_err());
    assert!(bench.lease.acquire().await.unwrap());
    let acquired = bench.lease.leadership().unwrap();
    bench.pass(EVERY).await;
    assert_eq!(bench.lease.leadership().unwrap(), acquired, "a renewal changes nothing about the key");
    bench.server.put("leader", b"a", None);
    bench.pass(EVERY).await;
    assert!(bench.lease.leadership().unwrap() > acquired, "bound to the lease again");
    assert!(bench.lease.release().await.unwrap());
    assert!(bench.lease.leadership().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_answer_is_not_a_no() {
    let bench = Bench::leading().await;
    let renewed = bench.held_since();
    for fault in [MemoryFault::Unreachable, MemoryFault::AnswersLost] {
        bench.store.set_fault(fault);
        bench.pass(EVERY).await;
        assert_eq!(bench.held_since(), renewed, "{fault:?}");
        assert!(bench.lease.now().error.is_some(), "{fault:?}");
        assert_eq!(bench.notes.take(), [], "{fault:?}: nothing was confirmed");
    }
    bench.store.set_fault(MemoryFault::None);
    bench.pass(RETRY_PAUSE * 2).await;
    assert_eq!(bench.held_since(), Some(bench.server.now()));
    assert_eq!(bench.lease.now().error, None);
}

#[tokio::test(start_paused = true)]
async fn another_ttl_moves_the_key_to_another_lease() {
    let bench = Bench::leading().await;
    let before = bench.lease.now().id;
    let ttl = Duration::from_secs(60);
    bench.lease.set_times(LeaseTimes { ttl, ..times() });
    bench.pass(Duration::from_secs(1)).await;
    let now = bench.lease.now();
    assert!(matches!(now.key, Lease::Held { ttl: granted, .. } if granted == ttl), "{now:?}");
    assert_ne!(now.id, before);
    assert_eq!(bench.key(), Some(("a".to_owned(), now.id.unwrap())));
    bench.lease.set_times(LeaseTimes { ttl, loop_wait: Duration::from_secs(5), ..times() });
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.lease.now().id, now.id, "only the ttl needs another lease");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_lead_keeps_its_lease_too() {
    let bench = Bench::new();
    bench.pass(EVERY).await;
    let id = bench.lease.now().id;
    assert!(id.is_some());
    bench.lease.set_times(LeaseTimes { loop_wait: Duration::from_secs(5), ..times() });
    for _ in 0..20 {
        bench.pass(EVERY).await;
    }
    assert_eq!((bench.lease.now().id, bench.lease.now().key), (id, Lease::None));
}

#[tokio::test(start_paused = true)]
async fn a_release_ends_the_renewals_even_when_its_answer_is_lost() {
    let bench = Bench::leading().await;
    assert!(bench.lease.release().await.unwrap());
    assert_eq!((bench.key(), bench.lease.now().key), (None, Lease::None));
    bench.pass(EVERY * 10).await;
    assert_eq!(bench.key(), None);

    assert!(bench.lease.acquire().await.unwrap());
    bench.store.set_fault(MemoryFault::AnswersLost);
    assert!(bench.lease.release().await.unwrap_err().is_unknown());
    assert_eq!((bench.key(), bench.lease.now().key), (None, Lease::None));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_key_is_not_touched() {
    let bench = Bench::leading().await;
    bench.lease.forget().await;
    bench.pass(EVERY).await;
    assert_eq!(bench.lease.now().key, Lease::None);
    assert_eq!(bench.notes.take(), []);
    assert_eq!(bench.key().unwrap().0, "a");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_of_the_lease_hears_of_it_at_once() {
    let bench = Bench::leading().await;
    let lease = bench.lease.clone();
    let waiting = tokio::spawn(async move { lease.runs_out().await });
    bench.pass(EVERY).await;
    assert!(!waiting.is_finished());
    bench.server.put("leader", b"b", None);
    bench.pass(EVERY).await;
    tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
    bench.shutdown.cancel();
    bench.task.await.unwrap();
    assert!(bench.lease.acquire().await.is_err(), "the task has ended");
}

#[tokio::test(start_paused = true)]
async fn a_claim_moves_the_fencers_deadline_until_there_is_a_key_or_none() {
    let bench = Bench::new();
    bench.pass(EVERY).await;
    assert!(matches!(bench.fence.protect(Protected::BeforeStart).await, Err(crate::fence::NotFenced::NoLease)));
    assert!(bench.lease.guard_claim().await.unwrap());
    bench.fence.protect(Protected::BeforeStart).await.unwrap();
    bench.notes.take();
    bench.pass(EVERY).await;
    let moved = bench.notes.take();
    assert!(matches!(moved[..], [Note::Armed(Protected::BeforeStart, _)]), "{moved:?}");
    bench.lease.forget().await;
    bench.pass(EVERY * 3).await;
    assert_eq!(bench.notes.take(), [], "the lease goes on, the claim does not");
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_not_carried_over_to_another_lease() {
    let bench = Bench::new();
    assert!(bench.lease.guard_claim().await.unwrap());
    bench.fence.protect(Protected::BeforeStart).await.unwrap();
    bench.notes.take();
    bench.lease.set_times(LeaseTimes { ttl: TTL * 2, ..times() });
    bench.pass(EVERY * 3).await;
    assert_eq!(bench.notes.take(), [], "its deadline is that of the lease it was made under");
}

/// FS-10.
#[tokio::test(start_paused = true)]
async fn the_consent_of_the_others_counts_until_the_store_confirms_the_lease_again() {
    let bench = Bench::leading().await;
    let before = bench.lease.now();
    bench.store.set_fault(MemoryFault::Unreachable);
    let sent = before.key.demote_at().unwrap();
    bench.lease.live_on_consent(sent).await;
    let consent = Consent { sent, ttl: TTL };
    assert_eq!(bench.notes.take(), [Note::Armed(Protected::BeforeStart, fence_deadline(sent, TTL))]);
    assert_eq!((bench.lease.now().consent, bench.lease.now().key), (Some(consent), before.key));
    bench.lease.live_on_consent(BootInstant(sent.0 - Duration::from_secs(20))).await;
    assert_eq!(bench.notes.take(), [], "an older consent moves nothing back");
    bench.store.set_fault(MemoryFault::None);
    bench.pass(EVERY).await;
    assert_eq!(bench.lease.now().consent, None, "the lease counts again");
    bench.lease.forget().await;
    bench.pass(EVERY).await;
    bench.lease.live_on_consent(sent).await;
    assert_eq!(bench.lease.now().consent, None, "without the lease there is nothing to go on under");
}
