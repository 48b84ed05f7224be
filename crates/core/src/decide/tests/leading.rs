//! The holder of the key, and a primary that is not.

use super::*;

fn demote(mode: DemoteMode) -> Effect {
    Effect::Demote { mode, upstream: None }
}

fn action(kind: ActionKind, committed: bool) -> Option<RunningAction> {
    Some(RunningAction { kind, since: at(90), committed, cancelled: false })
}

#[test]
fn a_leader_keeps_leading_only_under_a_proven_lease() {
    let led = || three(Some("a"), &[]);
    let lost = || Store::Lost { error: "timeout".to_owned() };
    let none: &[Effect] = &[];
    for (name, view, effects, rule) in [
        ("a fresh lease: goes on", primary(led()), none, "OWN-3"),
        (
            "the key names us, but nothing is proven after a restart: proves it",
            View { lease: Lease::None, ..primary(led()) },
            &[Effect::Adopt],
            "DCS-E2",
        ),
        (
            "renewals fail and the lease runs out: steps down before it can be given away",
            View { lease: held(25), ..primary(led()) },
            &[demote(DemoteMode::Offline)],
            "DCSF-6",
        ),
        (
            "the store says somebody else holds the key: stops at once, the key is not ours to release",
            View { lease: Lease::NotOurs { holder: "b".parse().ok() }, ..primary(three(Some("b"), &[])) },
            &[demote(DemoteMode::ImmediateNoLock)],
            "OWN-4",
        ),
        (
            "the view says so before the renewal does",
            primary(three(Some("b"), &[])),
            &[demote(DemoteMode::ImmediateNoLock)],
            "OWN-4",
        ),
        (
            "the same in pause: keeps running",
            View {
                lease: Lease::NotOurs { holder: "b".parse().ok() },
                settings: Settings { paused: true, ..settings() },
                ..primary(three(Some("b"), &[]))
            },
            none,
            "OWN-5",
        ),
        (
            "the store is silent and the lease is good: unknown is not no",
            View { store: lost(), lease: held(10), ..primary(led()) },
            none,
            "DCSF-6",
        ),
        (
            "the store is silent and the lease runs out: offline, the key expires by time",
            View { store: lost(), lease: held(25), ..primary(led()) },
            &[demote(DemoteMode::Offline)],
            "DCSF-5",
        ),
        (
            "the store is silent and stepping down is under way: once is enough",
            View { store: lost(), lease: held(25), action: action(ActionKind::Demote, true), ..primary(led()) },
            none,
            "DCSF-7",
        ),
        (
            "the store is silent in pause: nothing",
            View { store: lost(), settings: Settings { paused: true, ..settings() }, ..primary(led()) },
            none,
            "DCSF-1",
        ),
        ("the store is silent: a replica stays", View { store: lost(), ..replica(led()) }, none, "DCSF-3"),
        (
            "the store is silent: a stopped server stays down",
            View {
                store: lost(),
                postgres: down(MemberRole::Replica, PostgresState::Stopped, rewind::ControlState::ShutDown),
                ..replica(led())
            },
            none,
            "DCSF-2",
        ),
        (
            "a query failed: the cached role counts, the lease is renewed and nothing else is done",
            View { postgres: Postgres { facts: None, ..postgres(MemberRole::Primary) }, ..primary(led()) },
            none,
            "CYC-21",
        ),
        (
            "a query failed and the key is gone: the cached role counts too",
            View {
                postgres: Postgres { facts: None, ..postgres(MemberRole::Promoted) },
                ..primary(three(Some("b"), &[]))
            },
            &[demote(DemoteMode::ImmediateNoLock)],
            "OWN-4",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

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
fn a_member_that_stopped_leading_owes_a_checkpoint_when_it_leads_again() {
    let leads = Memory { checkpoint: CheckpointState::Done, ..Memory::default() };
    let (_, follows) = decide(&replica(three(Some("b"), &[])), &leads);
    // An operator promoted it by hand.
    let promoted = Facts { checkpointed: false, timeline: Timeline::new(2), ..facts(false) };
    let view = View {
        postgres: Postgres { facts: Some(promoted), ..postgres(MemberRole::Primary) },
        ..primary(three(Some("a"), &[]))
    };
    check("INV-S21", &view, &follows, &[Effect::Checkpoint], "RWD-15");
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
fn a_primary_without_a_lease_stops_whatever_else_is_the_matter() {
    let unreadable = || DataDir::Present { system_id: None };
    let unlocked = || three(None, &[]);
    let lapsed = || Lease::Held { sent: at(10), ttl: Duration::from_secs(30), epoch: Revision(5) };
    let creating = || cluster(&[("initialize", ""), ("x/bootstrap_alive", "d")]);
    let stop = [demote(DemoteMode::ImmediateNoLock)];
    let offline = [demote(DemoteMode::Offline)];
    for (name, view, effects, rule) in [
        (
            "its control file cannot be read and another member holds the key",
            View { data_dir: unreadable(), lease: Lease::None, ..primary(three(Some("b"), &[])) },
            &stop[..],
            "OWN-4",
        ),
        (
            "its control file cannot be read and the lease runs out",
            View { data_dir: unreadable(), lease: held(25), ..primary(three(Some("a"), &[])) },
            &offline,
            "TIM-4",
        ),
        (
            "its control file cannot be read and an agent that was restarted has proven nothing: proves it",
            View { data_dir: unreadable(), lease: Lease::None, ..primary(three(Some("a"), &[])) },
            &[Effect::Adopt],
            "DCS-E2",
        ),
        (
            "the key is gone and the lease runs out: does not ask first",
            View { lease: held(25), ..primary(unlocked()) },
            &offline,
            "TIM-4",
        ),
        ("the machine slept through its lease", View { lease: lapsed(), ..primary(unlocked()) }, &offline, "TIM-4"),
        (
            "the store was wiped and the lease runs out",
            View { lease: held(25), ..primary(cluster(&[])) },
            &offline,
            "TIM-4",
        ),
        (
            "somebody creates a cluster and the lease runs out",
            View { lease: held(25), ..primary(creating()) },
            &offline,
            "TIM-4",
        ),
        (
            "in pause it goes on",
            View {
                data_dir: unreadable(),
                settings: Settings { paused: true, ..settings() },
                ..primary(three(Some("b"), &[]))
            },
            &[],
            "DIR-5",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_primary_that_proves_nothing_for_the_time_of_one_request_stops() {
    let alone = poll(&[("b", None), ("c", None)]);
    for (name, effect, view) in [
        (
            "the key is free and cannot be taken",
            Effect::Acquire,
            View { lease: Lease::None, poll: alone, ..primary(three(None, &[])) },
        ),
        (
            "the key names us and that cannot be proven",
            Effect::Adopt,
            View { lease: Lease::None, ..primary(three(Some("a"), &[])) },
        ),
        (
            "the identifier cannot be stored",
            Effect::StoreSystemId { over: None },
            View { lease: Lease::None, ..primary(cluster(&[])) },
        ),
    ] {
        let tries = std::slice::from_ref(&effect);
        let (decision, memory) = decide(&view, &Memory::default());
        assert_eq!(decision.effects, tries, "{name}: tries");
        assert_eq!(decision.wake_at, Some(at(110)), "{name}: and looks at it again in time");
        let (decision, memory) = decide(&View { now: at(109), ..view.clone() }, &memory);
        assert_eq!(decision.effects, tries, "{name}: tries again");
        let stop = [demote(DemoteMode::ImmediateNoLock)];
        check(name, &View { now: at(110), ..view.clone() }, &memory, &stop, "UNL-6");
        let (_, proven) = decide(&View { lease: held(1), ..primary(three(Some("a"), &[])) }, &memory);
        assert_eq!(proven.unproven_since, None, "{name}: a proof ends it");
    }
}

#[test]
fn a_silent_store_wakes_the_cycle_when_the_lease_runs_out() {
    let view =
        View { store: Store::Lost { error: "timeout".to_owned() }, lease: held(10), ..primary(three(Some("a"), &[])) };
    let (decision, _) = decide(&view, &Memory::default());
    assert_eq!(decision.wake_at, view.lease.demote_at());
    let promoting = View { postgres: postgres(MemberRole::Replica), action: action(ActionKind::Promote, true), ..view };
    let (decision, _) = decide(&promoting, &Memory::default());
    assert_eq!(decision.wake_at, promoting.lease.demote_at(), "during a promotion too");
}

#[test]
fn a_primary_that_takes_too_long_to_start_leaves_it_to_others() {
    let starting = |since: u64| View {
        postgres: Postgres {
            state: PostgresState::Starting,
            starting_since: Some(at(since)),
            facts: None,
            ..postgres(MemberRole::Primary)
        },
        settings: Settings { primary_start_timeout: Duration::from_secs(20), ..settings() },
        ..primary(three(Some("a"), &[]))
    };
    let fit = poll(&[("b", Some(answer(1000))), ("c", None)]);
    let nobody = poll(&[("b", None), ("c", None)]);
    let ask = [Effect::PollPeers(["b".parse().unwrap(), "c".parse().unwrap()].into())];
    for (name, view, effects, rule) in [
        ("there is time left", starting(90), &[][..], "STA-7"),
        ("too long: asks whether another could lead", starting(80), &ask, "FP-3"),
        ("too long and another can", View { poll: fit, ..starting(80) }, &[demote(DemoteMode::Immediate)], "STA-5"),
        ("too long, but nobody can", View { poll: nobody, ..starting(80) }, &[], "STA-6"),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
    let (decision, _) = decide(&starting(90), &Memory::default());
    assert_eq!(decision.wake_at, Some(at(110)), "looks again when the time is over, not at some tick after it");
}

#[test]
fn the_winner_promotes_only_with_time_left() {
    let led = || three(Some("a"), &[]);
    for (name, view, effects, rule) in [
        (
            "a replica with the lease promotes",
            View { lease: held(1), ..replica(led()) },
            &[Effect::Promote][..],
            "PRO-7",
        ),
        (
            "the key was taken after the view was read: the proof counts",
            View {
                lease: Lease::Held { sent: at(99), ttl: Duration::from_secs(30), epoch: Revision(11) },
                ..replica(three(None, &[]))
            },
            &[Effect::Promote],
            "PRO-7",
        ),
        ("no time left: does not promote", View { lease: held(25), ..replica(led()) }, &[Effect::Adopt], "DCSF-6"),
        (
            "promote was issued and the server is still in recovery",
            View { lease: held(1), postgres: postgres(MemberRole::Promoted), ..replica(led()) },
            &[],
            "PRO-5",
        ),
        (
            "a standby cluster is never writable",
            View { lease: held(1), settings: Settings { standby_cluster: true, ..settings() }, ..replica(led()) },
            &[],
            "INV-S25",
        ),
        (
            "synchronous mode is active and its pre-promote step does not exist: gives the key up",
            View {
                lease: held(1),
                settings: Settings { synchronous: true, ..settings() },
                ..replica(three(Some("a"), &[("sync", r#"{"leader":"b","sync_standby":"a"}"#)]))
            },
            &[Effect::Release],
            "PRO-6",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
    let refused = Memory { refused: Some("exit code 1".to_owned()), ..Memory::default() };
    let view = View { lease: held(1), ..replica(led()) };
    let memory = check("the script refused: gives the key up", &view, &refused, &[Effect::Release], "PRO-3");
    let view = View { poll: poll(&[("b", None), ("c", None)]), ..replica(three(None, &[])) };
    check("and does not stand for a ttl", &view, &memory, &[], "HLT-1");
}

#[test]
fn a_lost_lease_stops_whatever_would_become_writable() {
    let led_by_b = || three(Some("b"), &[]);
    let promoting = |committed| View {
        action: action(ActionKind::Promote, committed),
        postgres: postgres(if committed { MemberRole::Promoted } else { MemberRole::Replica }),
        ..replica(led_by_b())
    };
    let cancel_and_demote = [Effect::CancelAction, demote(DemoteMode::ImmediateNoLock)];
    let offline = [Effect::CancelAction, demote(DemoteMode::Offline)];
    for (name, view, effects, rule) in [
        ("before promote was issued: cancels it", promoting(false), &[Effect::CancelAction][..], "ASY-4"),
        ("after it was issued: stops the server", promoting(true), &cancel_and_demote, "ASY-9"),
        (
            "promote is about to be issued and the role does not show it yet: stops the server",
            View { postgres: postgres(MemberRole::Replica), ..promoting(true) },
            &cancel_and_demote,
            "ASY-9",
        ),
        (
            "while a primary is started after a crash",
            View {
                action: action(ActionKind::Start, true),
                postgres: Postgres { state: PostgresState::Starting, facts: None, ..postgres(MemberRole::Primary) },
                ..replica(led_by_b())
            },
            &cancel_and_demote,
            "ASY-5",
        ),
        (
            "while a primary replays after a crash",
            View {
                postgres: Postgres { state: PostgresState::Starting, facts: None, ..postgres(MemberRole::Primary) },
                ..replica(led_by_b())
            },
            &[demote(DemoteMode::ImmediateNoLock)],
            "STA-4",
        ),
        (
            "an agent that was restarted while its primary replays proves the lease first",
            View {
                lease: Lease::None,
                postgres: Postgres { state: PostgresState::Starting, facts: None, ..postgres(MemberRole::Primary) },
                ..replica(three(Some("a"), &[]))
            },
            &[Effect::Adopt],
            "DCS-E2",
        ),
        (
            "the store falls silent during a promotion and the lease runs out",
            View { store: Store::Lost { error: "x".to_owned() }, lease: held(25), ..promoting(false) },
            &offline,
            "DCSF-5",
        ),
        (
            "promote was issued and recovery takes longer than its action: it cannot be taken back",
            View { postgres: postgres(MemberRole::Promoted), ..replica(led_by_b()) },
            &[demote(DemoteMode::ImmediateNoLock)],
            "OWN-4",
        ),
        (
            "the same when the store falls silent and the lease runs out",
            View {
                store: Store::Lost { error: "x".to_owned() },
                lease: held(25),
                postgres: postgres(MemberRole::Promoted),
                ..replica(led_by_b())
            },
            &[demote(DemoteMode::Offline)],
            "DCSF-5",
        ),
        (
            "the same in pause, under the lease: the key stays with what is about to be primary",
            View {
                lease: held(1),
                settings: Settings { paused: true, ..settings() },
                postgres: postgres(MemberRole::Promoted),
                ..replica(three(Some("a"), &[]))
            },
            &[],
            "PRO-5",
        ),
        (
            "the store falls silent while a cluster is created: nobody else can know it yet",
            View {
                store: Store::Lost { error: "x".to_owned() },
                action: action(ActionKind::Bootstrap, false),
                postgres: Postgres { facts: None, ..postgres(MemberRole::Primary) },
                ..replica(cluster(&[]))
            },
            &[],
            "ASY-3",
        ),
        (
            "a clone goes on without a leader",
            View { action: action(ActionKind::Clone, true), ..replica(led_by_b()) },
            &[],
            "ASY-6",
        ),
        (
            "pause does not disturb a promotion",
            View { settings: Settings { paused: true, ..settings() }, ..promoting(false) },
            &[],
            "ASY-3",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_request_is_honoured_or_cleared_but_never_kept() {
    let asked = |request: &str| primary(three(Some("a"), &[("failover", request)]));
    let clear = [Effect::RewriteFailover { request: None, seen: Some(Revision(5)) }];
    let fit = poll(&[("b", Some(answer(1000))), ("c", Some(answer(1000)))]);
    let ask_b = [Effect::PollPeers(["b".parse().unwrap()].into())];
    for (name, view, effects, rule) in [
        ("asks the candidate first", asked(r#"{"leader":"a","member":"b"}"#), &ask_b[..], "FP-3"),
        (
            "steps down for a fit candidate",
            View { poll: fit.clone(), ..asked(r#"{"leader":"a","member":"b"}"#) },
            &[demote(DemoteMode::Graceful)],
            "MAN-L7",
        ),
        (
            "any fit member will do when none is named",
            View { poll: fit.clone(), ..asked(r#"{"leader":"a"}"#) },
            &[demote(DemoteMode::Graceful)],
            "MAN-L7",
        ),
        (
            "an unreachable candidate",
            View { poll: poll(&[("b", None)]), ..asked(r#"{"leader":"a","member":"b"}"#) },
            &clear,
            "MAN-L8",
        ),
        (
            "a candidate that lags too far",
            View {
                poll: poll(&[("b", Some(answer(1)))]),
                ..primary(three(Some("a"), &[("failover", r#"{"member":"b"}"#), ("status", r#"{"optime":9000000}"#)]))
            },
            &clear,
            "MAN-L8",
        ),
        (
            "a candidate that never left the timeline before ours, however far it is there",
            View {
                postgres: Postgres {
                    facts: Some(Facts { timeline: Timeline::new(2), ..facts(false) }),
                    ..postgres(MemberRole::Primary)
                },
                poll: poll(&[("b", Some(answer(9_000_000)))]),
                ..asked(r#"{"leader":"a","member":"b"}"#)
            },
            &clear,
            "MAN-L8",
        ),
        ("another leader is named", asked(r#"{"leader":"c","member":"b"}"#), &clear, "MAN-L4"),
        ("we are the candidate", asked(r#"{"member":"a"}"#), &clear, "MAN-L5"),
        (
            "no candidate in pause",
            View { settings: Settings { paused: true, ..settings() }, ..asked(r#"{"leader":"a"}"#) },
            &clear,
            "MAN-L6",
        ),
        (
            "a time without a zone",
            asked(r#"{"leader":"a","member":"b","scheduled_at":"2030-01-01T00:00:00"}"#),
            &clear,
            "MAN-L9",
        ),
        (
            "a time long past",
            asked(r#"{"leader":"a","member":"b","scheduled_at":"2020-01-01T00:00:00+00:00"}"#),
            &clear,
            "MAN-L9",
        ),
        (
            "a time far ahead: leads on",
            asked(r#"{"leader":"a","member":"b","scheduled_at":"2099-01-01T00:00:00+00:00"}"#),
            &[],
            "OWN-3",
        ),
        (
            "a time within one tick: waits for it",
            // 1 800 000 000 is 2027-01-15T08:00:00Z
            asked(r#"{"leader":"a","member":"b","scheduled_at":"2027-01-15T08:00:05+00:00"}"#),
            &[],
            "TIM-8",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_fresh_primary_checkpoints_and_writes_history() {
    let due = Memory { checkpoint: CheckpointState::Due, ..Memory::default() };
    let with = |facts: Facts| View {
        postgres: Postgres { facts: Some(facts), ..postgres(MemberRole::Primary) },
        ..primary(three(Some("a"), &[]))
    };
    let memory = check(
        "the control file lags behind the promotion",
        &with(Facts { checkpointed: false, ..facts(false) }),
        &due,
        &[Effect::Checkpoint],
        "RWD-15",
    );
    assert_eq!(memory.checkpoint, CheckpointState::Running);
    check("no checkpoint is due", &with(facts(false)), &due, &[], "OWN-3");
    check(
        "a restarted agent does not know of the promotion, the control file does",
        &with(Facts { checkpointed: false, ..facts(false) }),
        &Memory::default(),
        &[Effect::Checkpoint],
        "RWD-15",
    );

    let line = crate::cluster::HistoryLine {
        timeline: Timeline::FIRST,
        lsn: Lsn(900),
        reason: "no recovery target specified".to_owned(),
        timestamp: Some("2026-11-21T00:00:00+00:00".to_owned()),
        new_leader: None,
    };
    let local = crate::cluster::History { lines: vec![line.clone()] };
    let written = crate::cluster::History {
        lines: vec![crate::cluster::HistoryLine { new_leader: Some("a".to_owned()), ..line }],
    };
    let second = Facts { timeline: Timeline::new(2), history: Some(local), ..facts(false) };
    check(
        "the store does not know the timeline yet",
        &with(second),
        &Memory::default(),
        &[Effect::StoreHistory(written)],
        "HIS-1",
    );
}

#[test]
fn only_the_owner_restores_lost_keys() {
    let (record, value) = member("a", "primary");
    let keys = [(record.as_str(), value.as_str()), ("leader", "a")];
    let wiped = || cluster(&keys);
    check(
        "initialize is gone",
        &primary(wiped()),
        &Memory::default(),
        &[Effect::StoreSystemId { over: None }],
        "CYC-7",
    );
    let demote = [demote(DemoteMode::Offline)];
    check(
        "a lease that runs out comes first",
        &View { lease: held(25), ..primary(wiped()) },
        &Memory::default(),
        &demote,
        "DCSF-6",
    );
    let mut with_id = keys.to_vec();
    with_id.push(("initialize", SYSTEM_ID));
    check("config is gone", &primary(cluster(&with_id)), &Memory::default(), &[Effect::StoreConfig], "CYC-8");
    with_id.push(("config", "{"));
    check("config is garbage", &primary(cluster(&with_id)), &Memory::default(), &[Effect::StoreConfig], "CYC-8");
    let replica = replica(cluster(&[(record.as_str(), value.as_str()), ("leader", "b")]));
    check("a replica restores nothing", &replica, &Memory::default(), &[], "FOL-13");
}

#[test]
fn a_refusal_that_is_known_late_gives_nothing_up_under_a_primary() {
    let memory = Memory { refused: Some("the script said no".to_owned()), ..Memory::default() };
    let (decision, next) = decide(&primary(three(Some("a"), &[])), &memory);
    assert!(!decision.effects.contains(&Effect::Release), "INV-S12: {}", decision.reason);
    assert_eq!(next.refused, None, "it is not kept for the next promotion either");
}

#[test]
fn a_schedule_is_judged_by_a_tick_of_any_length() {
    let request = r#"{"leader":"a","member":"b","scheduled_at":"2026-01-01T00:00:00Z"}"#;
    let mut view = primary(three(Some("a"), &[("failover", request)]));
    view.settings.loop_wait = Duration::MAX;
    let (decision, _) = decide(&view, &Memory::default());
    assert!(matches!(decision.reason, Reason::AsksWhetherFailoverPossible), "TIM-8: {}", decision.reason);
}
