//! Synchronous replication: what a primary changes, who may win, and what comes before a promotion.

use super::*;
use crate::cluster::SyncState;
use crate::config::SynchronousMode;
use crate::sync::pick::{Rank, Replication, Walsender};

fn mode(mode: SynchronousMode, strict: bool) -> Settings {
    Settings { sync: SyncSettings { mode, strict, ..SyncSettings::default() }, ..settings() }
}

fn on() -> Settings {
    mode(SynchronousMode::On, false)
}

fn quorum() -> Settings {
    mode(SynchronousMode::Quorum, false)
}

fn streams(name: &str, rank: Rank) -> Walsender {
    let at = Some(Lsn(1000));
    let slot = Some(name.to_owned());
    Walsender { application_name: name.to_owned(), slot, streaming: true, rank, written: at, flushed: at, replayed: at }
}

/// Primary `a` with this in `/sync`, this loaded, and these standbys.
fn leads(settings: Settings, sync: Option<&str>, loaded: &str, standbys: &[Walsender]) -> View {
    let keys: Vec<(&str, &str)> = sync.into_iter().map(|value| ("sync", value)).collect();
    let replication =
        Replication { loaded: loaded.to_owned(), walsenders: standbys.to_vec(), ..Replication::default() };
    let postgres = Postgres { facts: Some(Facts { replication, ..facts(false) }), ..postgres(MemberRole::Primary) };
    View { settings, postgres, ..primary(three(Some("a"), &keys)) }
}

fn state(leader: &str, quorum: u32, voters: &[&str]) -> SyncState {
    let voters = voters.iter().map(|name| (*name).to_owned()).collect();
    SyncState { leader: Some(leader.to_owned()), quorum, voters }
}

fn store(state: SyncState, seen: i64) -> Effect {
    Effect::StoreSync { state: Some(state), seen: Revision(seen) }
}

fn load(names: &str) -> Effect {
    Effect::LoadStandbyNames { names: Some(names.to_owned()) }
}

const ALONE: Option<&str> = Some(r#"{"leader":"a","quorum":0,"sync_standby":null}"#);
const WITH_B: Option<&str> = Some(r#"{"leader":"a","quorum":0,"sync_standby":"b"}"#);

#[test]
fn a_primary_takes_one_step_at_a_time() {
    let (b, c) = (streams("b", Rank::Sync), streams("c", Rank::Async));
    let both = [b.clone(), c.clone()];
    let own = Settings { sync: SyncSettings { own: "x".to_owned(), ..SyncSettings::default() }, ..settings() };
    let managed = || Memory { standby_names_managed: true, ..Memory::default() };
    for (what, view, memory, effects, rule) in [
        (
            "SON-1: nothing is stored",
            leads(on(), None, "", &both),
            managed(),
            vec![store(state("a", 0, &[]), 0)],
            "SON-6",
        ),
        ("SON-7: commits wait for the best", leads(on(), ALONE, "", &both), managed(), vec![load("b")], "SON-7"),
        ("SON-8: it is watched until it has everything", leads(on(), ALONE, "b", &both), managed(), vec![], "OWN-3"),
        (
            "SON-6: a standby is gone",
            leads(on(), WITH_B, "b", &[c]),
            managed(),
            vec![store(state("a", 0, &[]), 5)],
            "SON-6",
        ),
        ("SON-5: all is well", leads(on(), WITH_B, "b", &both), managed(), vec![], "OWN-3"),
        (
            "QRM-D1: nothing is stored",
            leads(quorum(), None, "", &both),
            managed(),
            vec![store(state("a", 0, &[]), 0)],
            "QRM-D3",
        ),
        ("QRM-11: all at once", leads(quorum(), ALONE, "", &both), managed(), vec![load("ANY 1 (b,c)")], "QRM-D3"),
        (
            "SYN-7: switched off, the key first",
            leads(settings(), WITH_B, "b", &both),
            Memory::default(),
            vec![Effect::StoreSync { state: None, seen: Revision(5) }],
            "SYN-7",
        ),
        (
            "SYN-7: then the user's own setting",
            leads(own.clone(), None, "b", &both),
            managed(),
            vec![Effect::LoadStandbyNames { names: None }],
            "SYN-7",
        ),
        ("SYN-7: which is there", leads(own.clone(), None, "x", &both), managed(), vec![], "OWN-3"),
        (
            "SYN-7: what was never managed is the user's",
            leads(own, None, "b", &both),
            Memory::default(),
            vec![],
            "OWN-3",
        ),
    ] {
        let memory = check(what, &view, &memory, &effects, rule);
        let (again, _) = decide(&view, &memory);
        assert!(again.effects == effects || again.effects.is_empty(), "{what}: {again:?}");
    }
    // SON-9, MEM-12, QRM-D4: looked at again until it counts.
    let view = leads(on(), ALONE, "b", &both);
    let (first, memory) = decide(&view, &Memory::default());
    let soon = first.wake_at.expect("it is looked at again");
    assert!(first.effects.is_empty() && soon.since(view.now) < Duration::from_secs(1), "{first:?}");
    let (then, _) = decide(&View { now: soon, ..view }, &memory);
    assert_eq!(then.effects, [store(state("a", 0, &["b"]), 5)], "SON-9, IN-P10: {}", then.reason);
}

#[test]
fn only_who_has_everything_stands() {
    let sync = |quorum: u32, voters: &str| format!(r#"{{"leader":"b","quorum":{quorum},"sync_standby":"{voters}"}}"#);
    let free = |settings: Settings, sync: &str, more: &[(&str, &str)]| {
        let mut keys = vec![("sync", sync)];
        keys.extend_from_slice(more);
        View { settings, poll: poll(&[("b", None), ("c", Some(answer(1000)))]), ..replica(three(None, &keys)) }
    };
    let with = |answers: &[(&str, Option<PeerStatus>)], view: View| View { poll: poll(answers), ..view };
    let limited = PeerStatus { nofailover: true, ..answer(1000) };
    let to_me = ("failover", r#"{"leader":"b","member":"a"}"#);
    let by_hand = ("failover", r#"{"member":"a"}"#);
    let behind = ("status", r#"{"optime":900000000}"#);
    let (yes, no) = (true, false);
    for (what, view, stands, rule) in [
        ("SYN-3: a voter", free(on(), &sync(0, "a"), &[]), yes, "RACE-10"),
        ("HLT-12: not a voter", free(on(), &sync(0, "c"), &[]), no, "HLT-12"),
        ("QRK-6: far behind what was confirmed to nobody", free(on(), &sync(0, "a"), &[behind]), yes, "RACE-10"),
        (
            "RACE-6: the former leader is ahead of a voter",
            with(&[("b", Some(answer(2000))), ("c", None)], free(on(), &sync(0, "a"), &[])),
            yes,
            "RACE-10",
        ),
        (
            "HLT-13: so is somebody whom nobody waited for",
            with(&[("b", None), ("c", Some(answer(2000)))], free(on(), &sync(0, "a"), &[])),
            yes,
            "RACE-10",
        ),
        (
            "RACE-6: another voter is ahead",
            with(&[("b", None), ("c", Some(answer(2000)))], free(on(), &sync(0, "a,c"), &[])),
            no,
            "RACE-6",
        ),
        ("RACE-8, RACE-10: a vote of one", free(quorum(), &sync(1, "a,c"), &[]), yes, "RACE-10"),
        (
            "RACE-10, INV-S7: no vote of one",
            with(&[("b", None), ("c", None)], free(quorum(), &sync(1, "a,c"), &[])),
            no,
            "QRM-I4",
        ),
        ("RACE-10: the vote of an outsider does not count", free(quorum(), &sync(1, "a,d"), &[]), no, "QRM-I4"),
        ("RACE-4: an outsider needs one more", free(quorum(), &sync(1, "c,d"), &[]), no, "QRM-I4"),
        ("RACE-4: and has it", free(quorum(), &sync(0, "c"), &[]), yes, "RACE-10"),
        (
            "QRK-3: who may not lead votes nevertheless",
            with(&[("b", None), ("c", Some(limited))], free(quorum(), &sync(1, "a,c"), &[])),
            yes,
            "RACE-10",
        ),
        (
            "SYN-3: a quorum that was stored counts in mode `on`, too",
            with(&[("b", None), ("c", None)], free(on(), &sync(1, "a,c"), &[])),
            no,
            "QRM-I4",
        ),
        ("HLT-8: a switchover, and not a voter", free(on(), &sync(0, "c"), &[to_me]), no, "HLT-8"),
        ("MAN-N1: a switchover to a voter", free(on(), &sync(0, "a"), &[to_me]), yes, "MAN-N1"),
        ("MAN-N1: a failover overrides", free(on(), &sync(0, "c"), &[by_hand]), yes, "MAN-N1"),
        (
            "MAN-N3: another one's failover",
            free(on(), &sync(0, "c"), &[("failover", r#"{"member":"c"}"#)]),
            no,
            "HLT-12",
        ),
        (
            "QRK-5: a switchover without the votes, and behind the end",
            with(&[("b", None), ("c", None)], free(quorum(), &sync(1, "a,c"), &[to_me, behind])),
            no,
            "QRM-I4",
        ),
        (
            "QRK-5: it has everything up to the end",
            with(&[("b", None), ("c", None)], free(quorum(), &sync(1, "a,c"), &[to_me])),
            yes,
            "MAN-N1",
        ),
    ] {
        let memory = Memory { last_led: Some(Arc::new(three(Some("b"), &[]))), ..Memory::default() };
        let (decision, _) = decide(&view, &memory);
        assert_eq!(decision.effects.contains(&Effect::Acquire), stands, "{what}: {}", decision.reason);
        assert!(
            decision.reason.rules().contains(&rule),
            "{what}: {} cites {:?}",
            decision.reason,
            decision.reason.rules()
        );
    }
}

#[test]
fn a_primary_without_the_key_goes_on_only_as_the_leader_of_sync() {
    let view = |leader: &str| {
        let sync = format!(r#"{{"leader":"{leader}","sync_standby":"c"}}"#);
        let cluster = three(None, &[("sync", &sync)]);
        let poll = poll(&[("b", None), ("c", Some(answer(1000)))]);
        View { settings: on(), lease: Lease::None, poll, ..primary(cluster) }
    };
    check("QRK-2: it is", &view("a"), &Memory::default(), &[Effect::Acquire], "HLT-5");
    let demote = Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None };
    check("QRK-2: it is not", &view("b"), &Memory::default(), &[demote], "SYN-3");
}

#[test]
fn whom_commits_wait_for_is_settled_before_anybody_is_let_in() {
    let won = |settings: Settings, sync: &str| View {
        settings,
        lease: held(1),
        ..replica(three(Some("a"), &[("sync", sync)]))
    };
    let of_b = r#"{"leader":"b","sync_standby":"a"}"#;
    let by_votes = r#"{"leader":"b","quorum":1,"sync_standby":"a,c"}"#;
    let strict = || mode(SynchronousMode::On, true);
    for (what, view, effects) in [
        ("SPP-1", won(on(), of_b), vec![store(state("a", 0, &[]), 5), Effect::Promote]),
        ("SPP-2, IN-C12", won(strict(), of_b), vec![store(state("a", 0, &["b"]), 5), load("b"), Effect::Promote]),
        (
            "SPP-3, QRK-10",
            won(quorum(), by_votes),
            vec![load("ANY 1 (b,c)"), store(state("a", 1, &["b", "c"]), 5), Effect::Promote],
        ),
        (
            "SPP-3: a quorum that was stored counts in mode `on`, too",
            won(on(), by_votes),
            vec![load("ANY 1 (b,c)"), store(state("a", 1, &["b", "c"]), 5), Effect::Promote],
        ),
        (
            "SPP-4, SYN-7",
            won(settings(), of_b),
            vec![Effect::StoreSync { state: None, seen: Revision(5) }, Effect::Promote],
        ),
    ] {
        check(what, &view, &Memory::default(), &effects, "PRO-6");
    }
    let stranger = won(on(), r#"{"leader":"b","sync_standby":"c"}"#);
    check("SYN-3: may lack commits", &stranger, &Memory::default(), &[Effect::Release], "SYN-3");
    let asked = Memory { overrides_sync: true, ..Memory::default() };
    let effects = [store(state("a", 0, &[]), 5), Effect::Promote];
    check("SPP-1: an operator asked for it", &stranger, &asked, &effects, "PRO-6");

    let crashed = |settings: Settings, sync: &str| {
        let postgres = down(MemberRole::Primary, PostgresState::Crashed, rewind::ControlState::InProduction);
        View { settings, postgres, ..primary(three(Some("a"), &[("sync", sync)])) }
    };
    let start = || Effect::Start(StartAs::Primary);
    let with_b = r#"{"leader":"a","sync_standby":"b"}"#;
    for (what, view, effects) in [
        ("SYN-2: a crashed primary waits for its voters again", crashed(on(), with_b), vec![load("b"), start()]),
        (
            "SYN-2: for as many as its quorum demands",
            crashed(quorum(), r#"{"leader":"a","quorum":1,"sync_standby":"b,c"}"#),
            vec![load("ANY 1 (b,c)"), start()],
        ),
        (
            "SYN-1: it was not the leader of /sync",
            crashed(on(), of_b),
            vec![store(state("a", 0, &[]), 5), load(""), start()],
        ),
        ("asynchronous", crashed(settings(), with_b), vec![start()]),
    ] {
        check(what, &view, &Memory::default(), &effects, "REC-3");
    }
}

#[test]
fn a_leader_gives_up_the_key_only_where_somebody_can_be_elected() {
    let asked = |settings: Settings, answers: &[(&str, Option<PeerStatus>)]| {
        let keys = [("sync", r#"{"leader":"a","quorum":1,"sync_standby":"b,c"}"#)];
        let view = View { settings, poll: poll(answers), ..primary(three(Some("a"), &keys)) };
        let Store::Current(cluster) = &view.store else { panic!("it is there") };
        super::peers::failover_possible(&view, cluster, super::peers::Bound::Lag, super::peers::Candidates::AsRequested)
    };
    use super::peers::Asked::Known;
    let one = [("b", Some(answer(1000))), ("c", None)];
    let both = [("b", Some(answer(1000))), ("c", Some(answer(1000)))];
    assert_eq!(asked(quorum(), &one), Known(false), "FP-6: it would find no vote");
    assert_eq!(asked(quorum(), &both), Known(true), "FP-6");
}
