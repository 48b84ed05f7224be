//! PICK-1…8 as tables.

use std::time::Duration;

use super::super::pick::*;
use super::super::*;
use super::{names, state};
use crate::cluster::{Cluster, LeaseId, RawKey, Revision};
use crate::names::MemberName;
use crate::time::BootInstant;
use crate::wal::Lsn;

/// Members `a` to `d` that run; some have tags.
fn cluster(tags: &[(&str, serde_json::Value)]) -> Cluster {
    let record = |name: &str| {
        let tags =
            tags.iter().find(|(tagged, _)| *tagged == name).map_or(serde_json::json!({}), |(_, tags)| tags.clone());
        let state = if name == "d" { "stopped" } else { "running" };
        serde_json::json!({"state": state, "tags": tags}).to_string()
    };
    let keys = ["a", "b", "c", "d"].map(|name| RawKey {
        suffix: format!("members/{name}"),
        value: record(name).into_bytes(),
        create_revision: Revision(1),
        mod_revision: Revision(1),
        lease: LeaseId(1),
    });
    Cluster::from_keys(Revision(1), keys)
}

fn walsender(name: &str, rank: Rank, position: u64) -> Walsender {
    Walsender {
        application_name: name.to_owned(),
        slot: None,
        streaming: true,
        rank,
        written: Some(Lsn(position)),
        flushed: Some(Lsn(position)),
        replayed: Some(Lsn(position)),
    }
}

fn seen(walsenders: &[Walsender]) -> Replication {
    Replication { walsenders: walsenders.to_vec(), ..Replication::default() }
}

fn chosen(replication: &Replication, cluster: &Cluster, lag_max: Option<u64>) -> String {
    let me: MemberName = "a".parse().unwrap();
    let fit = fit(replication, cluster, &me, Lsn(1000), lag_max);
    fit.standbys.iter().map(|standby| standby.name.as_str()).collect()
}

#[test]
fn who_is_fit_and_preferred() {
    use serde_json::json;
    let plain = cluster(&[]);
    let two = [walsender("b", Rank::Async, 900), walsender("C", Rank::Async, 950)];
    let of_b = |change: &dyn Fn(&mut Walsender)| {
        let mut walsenders = two.clone();
        change(&mut walsenders[0]);
        seen(&walsenders)
    };
    for (rule, replication, cluster, lag_max, want) in [
        ("PICK-3: who is furthest", seen(&two), plain.clone(), None, "cb"),
        ("PICK-3: who is synchronous already", of_b(&|b| b.rank = Rank::Sync), plain.clone(), None, "bc"),
        ("PICK-3: priority above all", seen(&two), cluster(&[("b", json!({"sync_priority": 2}))]), None, "bc"),
        (
            "PICK-3: nofailover comes last",
            of_b(&|b| b.rank = Rank::Sync),
            cluster(&[("b", json!({"nofailover": true}))]),
            None,
            "cb",
        ),
        ("PICK-2: nosync", seen(&two), cluster(&[("c", json!({"nosync": true}))]), None, "b"),
        ("IN-T3: a priority of zero", seen(&two), cluster(&[("c", json!({"sync_priority": 0}))]), None, "b"),
        ("PICK-2: still catching up", of_b(&|b| b.streaming = false), plain.clone(), None, "c"),
        ("PICK-2: no position", of_b(&|b| b.flushed = None), plain.clone(), None, "c"),
        ("PICK-2: not a member", of_b(&|b| b.application_name = "x".into()), plain.clone(), None, "c"),
        ("PICK-2: this member's own name", of_b(&|b| b.application_name = "a".into()), plain.clone(), None, "c"),
        ("PICK-2: does not run", of_b(&|b| b.application_name = "d".into()), plain.clone(), None, "c"),
        (
            "PICK-2: meant to stream from another one",
            seen(&two),
            cluster(&[("b", json!({"replicatefrom": "c"}))]),
            None,
            "c",
        ),
        (
            "PICK-2: which is not connected",
            of_b(&|b| b.rank = Rank::Sync),
            cluster(&[("b", json!({"replicatefrom": "d"}))]),
            None,
            "bc",
        ),
        ("PICK-4, IN-C14: lags behind the best", seen(&two), plain.clone(), Some(49), "c"),
        ("PICK-4: lags no more than allowed", seen(&two), plain.clone(), Some(50), "cb"),
        ("PICK-4: the only one lags behind us", seen(&two[..1]), plain.clone(), Some(99), ""),
        ("BEY-19: a slot of somebody else", of_b(&|b| b.slot = Some("other".into())), plain.clone(), None, "c"),
        ("BEY-19: its own slot", of_b(&|b| b.slot = Some("b".into())), plain.clone(), None, "cb"),
        ("BEY-19: two of one name", of_b(&|b| b.application_name = "c".into()), plain.clone(), None, ""),
    ] {
        assert_eq!(chosen(&replication, &cluster, lag_max), want, "{rule}");
    }
    // `b` has written most, and replayed least.
    let mut walsenders = two.clone();
    (walsenders[0].written, walsenders[0].replayed) = (Some(Lsn(999)), Some(Lsn(10)));
    for (level, want) in
        [(CommitLevel::Flush, "cb"), (CommitLevel::RemoteWrite, "bc"), (CommitLevel::RemoteApply, "cb")]
    {
        let replication = Replication { level, ..seen(&walsenders) };
        assert_eq!(chosen(&replication, &plain, None), want, "PICK-1: {level:?}");
    }
    assert_eq!(["remote_write", "remote_apply", "on", "local"].map(CommitLevel::of), {
        use CommitLevel::*;
        [RemoteWrite, RemoteApply, Flush, Flush]
    });
}

#[test]
fn as_many_as_are_wanted_confirm() {
    let me: MemberName = "a".parse().unwrap();
    let cluster = cluster(&[("b", serde_json::json!({"nofailover": true}))]);
    let two = seen(&[walsender("b", Rank::Async, 900), walsender("c", Rank::Async, 800)]);
    let fit = fit(&two, &cluster, &me, Lsn(1000), None);
    let wanted = |count| Wanted { count, strict: false };
    assert_eq!(fit.active(Method::Priority, wanted(1)), names("c"), "PICK-5");
    assert_eq!(fit.active(Method::Priority, wanted(3)), names("bc"), "PICK-5");
    assert_eq!(fit.active(Method::Quorum, wanted(1)), names("c"), "PICK-6: nofailover is not needed");
    assert_eq!(fit.active(Method::Quorum, wanted(2)), names("bc"), "PICK-6: nofailover makes up the number");
}

/// Looks at `b` and `c` with these ranks and positions.
struct Watched {
    readiness: Readiness,
    now: BootInstant,
    method: Method,
    stored: SyncState,
}

impl Watched {
    fn new(method: Method) -> Watched {
        let now = BootInstant(Duration::from_secs(10));
        Watched { readiness: Readiness::default(), now, method, stored: state("a", 0, "") }
    }

    fn look(&mut self, loaded: &str, ours: u64, walsenders: &[Walsender]) -> String {
        let me: MemberName = "a".parse().unwrap();
        let loaded = StandbyNames::parse(loaded).unwrap();
        let fit = fit(&seen(walsenders), &cluster(&[]), &me, Lsn(ours), None);
        let voters = standing_voters(&self.stored, "a", self.method);
        self.readiness.note(self.now, &loaded, Lsn(ours), &fit, &voters, self.method);
        self.now = self.now + SETTLE;
        self.readiness.confirmed(&names("bc"), &fit, self.method).to_vec().concat()
    }
}

#[test]
fn a_standby_counts_when_it_has_everything() {
    let b = |rank, position| [walsender("b", rank, position)];
    let mut on = Watched::new(Method::Priority);
    assert_eq!(on.look("b", 100, &b(Rank::Sync, 100)), "", "PICK-8: not before all processes have read the setting");
    assert_eq!(on.look("b", 120, &b(Rank::Sync, 110)), "", "PICK-7: behind what was there then");
    assert_eq!(on.look("b", 200, &b(Rank::Potential, 130)), "", "PICK-7: not synchronous yet");
    assert_eq!(on.look("b", 200, &b(Rank::Sync, 120)), "b", "PICK-7");
    assert_eq!(on.look("b", 200, &b(Rank::Potential, 120)), "", "PICK-5: not counted any more");
    assert_eq!(on.look("2 (b,c)", 200, &b(Rank::Sync, 120)), "b", "PICK-8: each commit has waited for it all along");
    assert_eq!(on.look("1 (b,c)", 200, &b(Rank::Sync, 120)), "", "PICK-8: not each commit waits for it any more");
    assert_eq!(on.look("c", 200, &b(Rank::Async, 500)), "", "PICK-8: no longer listed");

    let mut voter = Watched { stored: state("A", 0, "b"), ..Watched::new(Method::Priority) };
    assert_eq!(voter.look("b", 100, &b(Rank::Sync, 1)), "");
    assert_eq!(voter.look("b", 100, &b(Rank::Sync, 1)), "b", "PICK-7: a voter had to confirm everything");
    let mut elsewhere = Watched { stored: state("x", 0, "b"), ..Watched::new(Method::Priority) };
    elsewhere.look("b", 100, &b(Rank::Sync, 1));
    assert_eq!(elsewhere.look("b", 100, &b(Rank::Sync, 1)), "", "PICK-7: a voter of another leader");

    let mut quorum = Watched { stored: state("a", 0, "b"), ..Watched::new(Method::Quorum) };
    quorum.look("ANY 1 (b,c)", 100, &b(Rank::Quorum, 50));
    assert_eq!(
        quorum.look("ANY 1 (b,c)", 100, &b(Rank::Quorum, 50)),
        "",
        "PICK-7: a voter of a quorum need not have all"
    );
    assert_eq!(quorum.look("ANY 1 (b,c)", 100, &b(Rank::Quorum, 100)), "b", "PICK-7");
    assert_eq!(quorum.look("ANY 1 (b)", 200, &b(Rank::Quorum, 150)), "", "PICK-8: others have confirmed meanwhile");
}
