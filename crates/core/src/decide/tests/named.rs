//! The leader key names this member, which has not proved yet that it is its own.

use super::*;

#[test]
fn a_replica_that_the_key_names_asks_for_a_living_primary_first() {
    let named = |answers| View { poll: answers, ..replica(three(Some("a"), &[])) };
    let ask = [Effect::PollPeers(["b".parse().unwrap(), "c".parse().unwrap()].into())];
    let alive = PeerStatus { in_recovery: false, ..answer(0) };
    for (name, view, effects, rule) in [
        ("somebody wrote our name into it: asks the others", named(None), &ask[..], "RACE-3"),
        ("a primary is alive: leaves the key alone", named(poll(&[("b", Some(alive)), ("c", None)])), &[], "RACE-5"),
        ("no primary: proves it", named(poll(&[("b", Some(answer(1000))), ("c", None)])), &[Effect::Adopt], "DCS-E2"),
        (
            "in pause an operator knows what that was for",
            View { settings: Settings { paused: true, ..settings() }, ..named(None) },
            &[Effect::Adopt],
            "DCS-E2",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_replica_that_somebodys_hand_made_leader_leads_only_if_its_rules_allow() {
    let mut by_hand = three(Some("a"), &[]);
    by_hand.leader.as_mut().unwrap().lease = LeaseId::default();
    let named = |answers| View { poll: answers, ..replica(by_hand.clone()) };
    let heard = |position| poll(&[("b", Some(answer(position))), ("c", None)]);
    let alive = PeerStatus { in_recovery: false, ..answer(0) };
    let nofailover = OwnTags { nofailover: true, ..OwnTags::default() };
    let far_behind =
        Postgres { facts: Some(Facts { position: Lsn(0), ..facts(true) }), ..postgres(MemberRole::Replica) };
    let strict = Settings { maximum_lag_on_failover: 999, ..settings() };
    let stopped = down(MemberRole::Replica, PostgresState::Stopped, rewind::ControlState::ShutDownInRecovery);
    for (name, view, effects, rule) in [
        ("nobody is fitter: proves it", named(heard(1000)), &[Effect::Adopt][..], "DCS-E2"),
        ("a primary is alive: leaves the key alone", named(poll(&[("b", Some(alive)), ("c", None)])), &[], "RACE-5"),
        ("another member is ahead: gives it up", named(heard(1001)), &[Effect::Release], "DCS-E2"),
        (
            "it lags: gives it up",
            View { postgres: far_behind, settings: strict, ..named(heard(0)) },
            &[Effect::Release],
            "DCS-E2",
        ),
        ("tagged nofailover: gives it up", View { tags: nofailover, ..named(heard(0)) }, &[Effect::Release], "INV-S24"),
        (
            "its server is down: gives it up",
            View { postgres: stopped, ..named(heard(0)) },
            &[Effect::Release],
            "DCS-E2",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
    let crashed = down(MemberRole::Primary, PostgresState::Crashed, rewind::ControlState::Other);
    let own = View { postgres: crashed, ..named(None) };
    check("its own name over its own key, and a crash: proves it", &own, &Memory::default(), &[Effect::Adopt], "REC-1");
}

#[test]
fn a_standby_that_the_key_names_asks_also_while_it_starts() {
    let starting = Postgres { state: PostgresState::Starting, facts: None, ..postgres(MemberRole::Replica) };
    let named = |answers| View { postgres: starting.clone(), poll: answers, ..replica(three(Some("a"), &[])) };
    let ask = [Effect::PollPeers(["b".parse().unwrap(), "c".parse().unwrap()].into())];
    let alive = PeerStatus { in_recovery: false, ..answer(0) };
    check("asks first", &named(None), &Memory::default(), &ask, "RACE-5");
    let answers = poll(&[("b", Some(alive)), ("c", None)]);
    check("a primary is alive: leaves the key alone", &named(answers), &Memory::default(), &[], "RACE-5");
}

#[test]
fn a_proof_is_not_asked_for_again_while_the_view_is_older_than_the_answer() {
    let stopped = || View {
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, rewind::ControlState::ShutDown),
        ..replica(three(Some("a"), &[]))
    };
    let memory = check("the key names us", &stopped(), &Memory::default(), &[Effect::Adopt], "REC-1");
    let answered = View { lease: Lease::NotOurs { holder: None }, ..stopped() };
    let memory = check("the store says no, the view still says yes", &answered, &memory, &[], "DCS-2");
    let (decision, _) = decide(&answered, &memory);
    assert_eq!(decision.wake_at, Some(at(101)), "in a while the key is asked for again: nothing else may wake us");
    check("a while later", &View { now: at(101), ..answered }, &memory, &[Effect::Adopt], "REC-1");
}

#[test]
fn a_key_that_a_namesake_holds_is_not_asked_for_again_until_it_changes() {
    let down = || View {
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, rewind::ControlState::ShutDown),
        ..replica(three(Some("a"), &[]))
    };
    let memory = check("the key names us", &down(), &Memory::default(), &[Effect::Adopt], "REC-1");
    let refused = || Lease::NotOurs { holder: "a".parse().ok() };
    let answered = View { lease: refused(), ..down() };
    let memory = check("under a lease that is not ours", &answered, &memory, &[], "BEY-31");
    let later = View { now: at(500), ..answered.clone() };
    let memory = check("and so it stays", &later, &memory, &[], "BEY-31");
    let mut rewritten = three(Some("a"), &[]);
    if let Some(leader) = &mut rewritten.leader {
        leader.revision = Revision(77);
    }
    let rewritten = View { store: View { ..replica(rewritten) }.store, ..answered };
    check("the key was written anew", &rewritten, &memory, &[Effect::Adopt], "REC-1");
    let primary = View { lease: refused(), ..primary(three(Some("a"), &[])) };
    let stops = [demote(DemoteMode::ImmediateNoLock)];
    check("a primary whose namesake has the key steps down", &primary, &Memory::default(), &stops, "OWN-4");
}
