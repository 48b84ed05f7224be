//! Whoever holds the key leads or gives it up, and nothing is repeated without end.

use super::rewind::ControlState;
use super::*;

/// The local history file of a primary on `timeline`: where each earlier one ended.
fn history(lines: &[(u32, u64)]) -> crate::cluster::History {
    let line = |(timeline, lsn): &(u32, u64)| crate::cluster::HistoryLine {
        timeline: Timeline::new(*timeline).unwrap(),
        lsn: Lsn(*lsn),
        reason: "no recovery target specified".to_owned(),
        timestamp: Some("2026-11-21T00:00:00+00:00".to_owned()),
        new_leader: None,
    };
    crate::cluster::History { lines: lines.iter().map(line).collect() }
}

#[test]
fn a_history_is_written_once_even_when_a_timeline_was_skipped() {
    // Timeline 2 was another member's: PostgreSQL found its history file in the archive and went on to 3.
    let on_third = Facts { timeline: Timeline::new(3), history: Some(history(&[(1, 900)])), ..facts(false) };
    let leading = |keys: &[(&str, &str)]| View {
        postgres: Postgres { facts: Some(on_third.clone()), ..postgres(MemberRole::Primary) },
        ..primary(three(Some("a"), keys))
    };
    let (decision, _) = decide(&leading(&[]), &Memory::default());
    let [Effect::StoreHistory(written)] = decision.effects.as_slice() else { panic!("{decision:?}") };
    check("it is stored", &leading(&[("history", &written.to_value())]), &Memory::default(), &[], "OWN-3");
}

#[test]
fn what_failed_is_not_tried_again_at_once() {
    let stopped = View {
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown),
        ..replica(three(Some("b"), &[]))
    };
    let needed = Memory { rewind: RewindState::Needed, ..Memory::default() };
    let rewind = [Effect::Rewind { source: "b".parse().unwrap() }];
    let lost = ended(ActionKind::Rewind, Outcome::SourceLost("connection refused".to_owned()));
    let failed = View { finished: lost, ..stopped.clone() };
    let memory = check("a rewind lost its source", &failed, &needed, &[], "RWD-11");
    let (decision, _) = decide(&failed, &needed);
    assert!(decision.wake_at.is_some_and(|at| at > failed.now), "it is not forgotten either");
    check("a while later", &View { now: at(110), ..stopped }, &memory, &rewind, "RWD-9");

    let behind = Facts { checkpointed: false, ..facts(false) };
    let leading = View {
        postgres: Postgres { facts: Some(behind), ..postgres(MemberRole::Primary) },
        ..primary(three(Some("a"), &[]))
    };
    let running = Memory { checkpoint: CheckpointState::Running, ..Memory::default() };
    let refused = ended(ActionKind::Checkpoint, Outcome::Failed("too many clients already".to_owned()));
    let failed = View { finished: refused, ..leading.clone() };
    let memory = check("a checkpoint failed", &failed, &running, &[], "OWN-3");
    assert_eq!(memory.checkpoint, CheckpointState::Due);
    check("a while later", &View { now: at(110), lease: held(0), ..leading }, &memory, &[Effect::Checkpoint], "RWD-15");
}

#[test]
fn a_key_that_names_us_is_proven_whatever_was_proven_before() {
    let not_ours = || Lease::NotOurs { holder: "b".parse().ok() };
    let nobody_else = poll(&[("b", None), ("c", Some(answer(1000)))]);
    let named = || View { lease: not_ours(), ..replica(three(Some("a"), &[])) };
    let stopped = down(MemberRole::Replica, PostgresState::Stopped, ControlState::ShutDownInRecovery);
    let ask = [Effect::PollPeers(["b".parse().unwrap(), "c".parse().unwrap()].into())];
    for (name, view, effects, rule) in [
        ("an acquisition whose answer was lost, by a member that lost the key before", named(), &ask[..], "RACE-3"),
        ("no primary lives", View { poll: nobody_else, ..named() }, &[Effect::Adopt], "REC-1"),
        ("the same with its server down", View { postgres: stopped, ..named() }, &[Effect::Adopt], "REC-1"),
        (
            "a primary stops: the view may be older than the proof",
            View { lease: not_ours(), ..primary(three(Some("a"), &[])) },
            &[Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None }],
            "OWN-4",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_member_that_cannot_lead_gives_the_key_up() {
    let led = || three(Some("a"), &[]);
    let broken = || View { data_dir: DataDir::Present { system_id: None }, ..primary(led()) };
    let crashed = down(MemberRole::Primary, PostgresState::Crashed, ControlState::Other);
    for (name, view, effects, rule) in [
        (
            "the control file is broken and the server is down",
            View { postgres: Postgres { control: None, ..crashed }, ..broken() },
            &[Effect::Release][..],
            "DIR-5",
        ),
        ("the control file cannot be read and the server runs: the key stays with it", broken(), &[], "DIR-5"),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_failover_in_pause_ends_with_a_primary() {
    let paused = Settings { paused: true, ..settings() };
    let asked =
        |leader, request: &str| View { settings: paused.clone(), ..replica(three(leader, &[("failover", request)])) };
    let named = r#"{"member":"a"}"#;
    check("the named candidate stands", &asked(None, named), &Memory::default(), &[Effect::Acquire], "MAN-N1");
    let won = View { lease: held(1), ..asked(Some("a"), named) };
    check("and promotes, because the request still names it", &won, &Memory::default(), &[Effect::Promote], "PRO-7");
    let leading = View { postgres: postgres(MemberRole::Primary), ..won };
    let clear = [Effect::RewriteFailover { request: None, seen: Some(Revision(5)) }];
    check("as primary it clears the request", &leading, &Memory::default(), &clear, "MAN-L5");

    let handed_over = View {
        settings: paused.clone(),
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown),
        ..replica(three(Some("b"), &[]))
    };
    // It stepped down in pause, too.
    let stepped_down = Memory {
        rejoin_waits_until: Some(at(99)),
        rewind: RewindState::NotNeeded,
        was_paused: true,
        ..Memory::default()
    };
    let follow = [Effect::Start(StartAs::Standby { upstream: "b".parse().ok() })];
    check("the member that handed over follows", &handed_over, &stepped_down, &follow, "REC-11");
    check("a server that an operator stopped stays down", &handed_over, &Memory::default(), &[], "PAU-9");

    let foreign = cluster(&[("initialize", "1234567890123")]);
    let of_another = View { settings: paused, lease: Lease::None, ..primary(foreign) };
    check("a primary of another cluster does not take the key", &of_another, &Memory::default(), &[], "DIR-7");
}

#[test]
fn settings_that_do_not_take_are_changed_once_a_tick() {
    let b = || Some("b".parse().unwrap());
    for (recovery, effect) in [
        (RecoveryDiff::Reload, Effect::ReloadUpstream { upstream: b() }),
        (RecoveryDiff::Restart, Effect::RestartForUpstream { upstream: b() }),
    ] {
        let view =
            View { postgres: Postgres { recovery, ..postgres(MemberRole::Replica) }, ..replica(three(Some("b"), &[])) };
        let memory = check("they differ", &view, &Memory::default(), std::slice::from_ref(&effect), "FOL-10");
        let memory = Memory { rewind: RewindState::Initial, ..memory }; // The histories were compared meanwhile.
        check("they still do, a moment later", &View { now: at(101), ..view.clone() }, &memory, &[], "OWN-7");
        check("and a tick later", &View { now: at(110), ..view.clone() }, &memory, &[effect], "FOL-10");
        let moved = View { now: at(101), store: Store::Current(Arc::new(three(Some("c"), &[]))), ..view };
        let (decision, _) = decide(&moved, &memory);
        assert_eq!(decision.effects.len(), 1, "another leader is followed at once: {}", decision.reason);
    }
}
