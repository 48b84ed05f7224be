//! The holder of the key keeps it, and a primary that is not the holder.

use super::*;

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
            View { store: lost(), lease: held(25), action: action(ActionKind::Demote, 90, true), ..primary(led()) },
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
    let promoting =
        View { postgres: postgres(MemberRole::Replica), action: action(ActionKind::Promote, 90, true), ..view };
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
fn a_lost_lease_stops_whatever_would_become_writable() {
    let led_by_b = || three(Some("b"), &[]);
    let promoting = |committed| View {
        action: action(ActionKind::Promote, 90, committed),
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
                action: action(ActionKind::Start, 90, true),
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
                action: action(ActionKind::Bootstrap, 90, false),
                postgres: Postgres { facts: None, ..postgres(MemberRole::Primary) },
                ..replica(cluster(&[]))
            },
            &[],
            "ASY-3",
        ),
        (
            "a clone goes on without a leader",
            View { action: action(ActionKind::Clone, 90, true), ..replica(led_by_b()) },
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
    let absent = [Effect::StoreConfig { over: None }];
    check("config is gone", &primary(cluster(&with_id)), &Memory::default(), &absent, "CYC-8");
    let owner = || View { lease: held(1), ..replica(wiped()) };
    check("a promotion does not wait for it", &owner(), &Memory::default(), &[Effect::Promote], "PRO-7");
    let crashed = down(MemberRole::Primary, PostgresState::Crashed, rewind::ControlState::InProduction);
    let crashed = View { postgres: crashed, ..owner() };
    let restart = [Effect::Start(StartAs::Primary)];
    check("nor does a restart after a crash", &crashed, &Memory::default(), &restart, "REC-3");
    let restores = [Effect::StoreSystemId { over: None }];
    let starts = View { postgres: starting(MemberRole::Primary), ..owner() };
    check("while the server starts there is time for it", &starts, &Memory::default(), &restores, "CYC-7");
    with_id.push(("config", "{"));
    let over = [Effect::StoreConfig { over: Some(Revision(5)) }]; // BEY-32: only what was seen is overwritten.
    check("config is garbage", &primary(cluster(&with_id)), &Memory::default(), &over, "CYC-8");
    let replica = replica(cluster(&[(record.as_str(), value.as_str()), ("leader", "b")]));
    check("a replica restores nothing", &replica, &Memory::default(), &[], "FOL-13");
}
