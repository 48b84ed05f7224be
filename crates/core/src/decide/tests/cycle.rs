//! The order of the cycle, and rules that belong to no single situation.

use std::collections::BTreeSet;

use super::super::follow::upstream;
use super::super::memory::Backoff;
use super::super::peers::{Asked, Bound, Candidates, failover_possible};
use super::super::rewind::ControlState;
use super::*;

fn first_rule(view: &View, memory: &Memory) -> &'static str {
    decide(view, memory).0.reason.rules()[0]
}

#[test]
fn situations_are_looked_at_in_their_order() {
    // Everything is wrong at once. Each step mends what decided the one before: CYC-1, CYC-8 to CYC-10, CYC-12 to CYC-17.
    let foreign = DataDir::Present { system_id: Some("1111111111111".to_owned()) };
    let mut view = View {
        store: Store::Lost { error: "timeout".to_owned() },
        lease: Lease::None,
        data_dir: DataDir::Empty,
        action: action(ActionKind::Rewind, 90, true),
        postgres: starting(MemberRole::Primary),
        ..replica(three(None, &[]))
    };
    let mut memory = Memory { recovering: true, start_error: Some("port in use".to_owned()), ..Memory::default() };
    assert_eq!(first_rule(&view, &memory), "DCSF-5", "CYC-1: the store comes first");
    view.store = Store::Current(Arc::new(three(Some("b"), &[])));
    assert_eq!(first_rule(&view, &memory), "ASY-2", "CYC-9: then the action under way");
    view.action = None;
    assert_eq!(first_rule(&view, &memory), "STA-4", "CYC-10: then a server that is starting");
    view.postgres = down(MemberRole::Primary, PostgresState::StartFailed, ControlState::InProduction);
    view.store = Store::Current(Arc::new(three(Some("a"), &[])));
    view.lease = held(1);
    assert_eq!(first_rule(&view, &memory), "REC-12", "CYC-12: then a start that failed");
    memory.recovering = false;
    assert_eq!(first_rule(&view, &memory), "DIR-2", "CYC-13: then an empty directory");
    view.data_dir = foreign;
    assert_eq!(first_rule(&view, &memory), "DIR-6", "CYC-14: then one of another cluster");
    view.data_dir = DataDir::Present { system_id: Some(SYSTEM_ID.to_owned()) };
    memory.start_error = None;
    assert_eq!(first_rule(&view, &memory), "REC-7", "CYC-15: then a server that is down");
    view.postgres = postgres(MemberRole::Replica);
    view.lease = Lease::None;
    view.store = Store::Current(Arc::new(three(None, &[])));
    assert_eq!(first_rule(&view, &memory), "PEER-1", "CYC-16: then a free key");
    view.store = Store::Current(Arc::new(three(Some("b"), &[])));
    assert_eq!(first_rule(&view, &memory), "OWN-7", "CYC-17: else somebody leads");
}

#[test]
fn who_holds_the_key_is_what_was_proven() {
    let named = || three(Some("a"), &[]);
    let newer = Lease::Held { sent: at(99), ttl: Duration::from_secs(30), epoch: Revision(11) };
    for (what, view, effects, rule) in [
        ("CYC-4: the picture names another one", primary(three(Some("b"), &[])), None, "OWN-4"),
        (
            "CYC-4: but the proof is newer than the picture",
            View { lease: newer, ..primary(three(Some("b"), &[])) },
            Some(vec![]),
            "OWN-3",
        ),
        (
            "OWN-6: a replica whose key is another's is not promoted",
            View { lease: Lease::NotOurs { holder: None }, ..replica(three(Some("b"), &[])) },
            Some(vec![]),
            "OWN-7",
        ),
        (
            "PRO-12, INV-S3: a winner whose lease has nearly run out does not promote",
            View { lease: held(25), ..replica(named()) },
            Some(vec![Effect::Adopt]),
            "TIM-4",
        ),
        (
            "PRO-9: a promotion that did not come to its end is tried again",
            View {
                lease: held(1),
                finished: ended(ActionKind::Promote, Outcome::Failed("still in recovery".to_owned())),
                ..replica(named())
            },
            Some(vec![Effect::Promote]),
            "PRO-7",
        ),
        (
            "PRO-8: during a promotion the lease is kept",
            View { lease: held(1), action: action(ActionKind::Promote, 99, true), ..replica(named()) },
            Some(vec![]),
            "ASY-2",
        ),
        (
            "QRK-7: after promote was issued a lost key stops the server",
            View {
                action: action(ActionKind::Promote, 99, true),
                postgres: Postgres { role: MemberRole::Promoted, ..postgres(MemberRole::Replica) },
                ..replica(three(Some("b"), &[]))
            },
            Some(vec![Effect::CancelAction, Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None }]),
            "QRK-7",
        ),
    ] {
        let (decision, _) = decide(&view, &Memory::default());
        if let Some(effects) = effects {
            assert_eq!(decision.effects, effects, "{what}: {}", decision.reason);
        }
        assert!(decision.reason.rules().contains(&rule), "{what}: {} {:?}", decision.reason, decision.reason.rules());
    }
}

#[test]
fn a_primary_looks_again_when_its_lease_runs_out_whatever_was_decided() {
    for (what, view) in [
        ("CYC-22: leading", primary(three(Some("a"), &[]))),
        (
            "QRK-14: the store is away",
            View { store: Store::Lost { error: "x".to_owned() }, ..primary(three(None, &[])) },
        ),
        (
            "CYC-21: the server does not answer",
            View {
                postgres: Postgres { facts: None, ..postgres(MemberRole::Primary) },
                ..primary(three(Some("a"), &[]))
            },
        ),
    ] {
        let (decision, _) = decide(&view, &Memory::default());
        assert!(decision.wake_at.is_some_and(|wake| Some(wake) <= view.lease.demote_at()), "{what}: {decision:?}");
    }
}

#[test]
fn the_wall_clock_decides_nothing_but_schedules() {
    // INV-S27, QRK-13: an hour forward, an hour back.
    for view in [
        primary(three(Some("a"), &[])),
        replica(three(None, &[])),
        View { lease: held(25), ..primary(three(Some("a"), &[])) },
        View { store: Store::Lost { error: "x".to_owned() }, ..primary(three(None, &[])) },
    ] {
        let usual = decide(&view, &Memory::default());
        for wall in [0, 1_799_996_400, 1_800_003_600] {
            let jumped = View { wall: WallTime(Duration::from_secs(wall)), ..view.clone() };
            assert_eq!(decide(&jumped, &Memory::default()), usual);
        }
    }
}

#[test]
fn crash_recovery_of_an_owner_has_its_time() {
    let recovering = |since| View {
        lease: held(1),
        action: action(ActionKind::CrashRecovery, since, true),
        postgres: down(MemberRole::Primary, PostgresState::Crashed, ControlState::InProduction),
        settings: Settings { primary_start_timeout: Duration::from_secs(20), ..settings() },
        ..replica(three(Some("a"), &[]))
    };
    let fit = || poll(&[("b", Some(answer(1000))), ("c", None)]);
    let give_up = [Effect::CancelAction, Effect::Demote { mode: DemoteMode::Immediate, upstream: None }];
    check("there is time", &recovering(90), &Memory::default(), &[], "ASY-2");
    check("too long: asks", &recovering(80), &Memory::default(), &[ask(&["b", "c"])], "FP-3");
    check("another can lead", &View { poll: fit(), ..recovering(80) }, &Memory::default(), &give_up, "ASY-1");
    let in_pause =
        View { settings: Settings { paused: true, ..recovering(80).settings }, poll: fit(), ..recovering(80) };
    check("INV-S14: not in maintenance mode", &in_pause, &Memory::default(), &[], "ASY-3");
}

#[test]
fn whether_another_member_can_take_over() {
    let asked = |more: &[(&str, &str)], answers: &[(&str, Option<PeerStatus>)], settings: Settings, bound| {
        let cluster = three(Some("a"), more);
        let view = View { poll: poll(answers), settings, ..primary(three(Some("a"), more)) };
        failover_possible(&view, &cluster, bound, Candidates::AsRequested)
    };
    let both = [("b", Some(answer(1000))), ("c", Some(answer(1000)))];
    let none = [("b", None), ("c", None)];
    let to_b = [("failover", r#"{"leader":"a","member":"b"}"#)];
    let synchronous = || Settings { sync: synchronous_on(), ..settings() };
    let sync = |request: &'static str| [("sync", r#"{"leader":"a","sync_standby":"c"}"#), ("failover", request)];
    for (what, got, want) in [
        ("FP-7: one is enough", asked(&[], &[("b", Some(answer(1000))), ("c", None)], settings(), Bound::Lag), true),
        ("FP-3: nobody answers", asked(&[], &none, settings(), Bound::Lag), false),
        ("FP-1: the requested one only", asked(&to_b, &[("b", None)], settings(), Bound::Lag), false),
        (
            "FP-2: not a synchronous standby",
            asked(&sync(r#"{"leader":"a","member":"b"}"#), &both, synchronous(), Bound::Lag),
            false,
        ),
        (
            "FP-2, SYN-5: an operator overrides",
            asked(&sync(r#"{"member":"b"}"#), &both, synchronous(), Bound::Lag),
            true,
        ),
        ("FP-4: it lags", asked(&[("status", r#"{"optime":9000000}"#)], &both, settings(), Bound::Lag), false),
        ("FP-4: it lacks the checkpoint", asked(&[], &both, settings(), Bound::Has(Lsn(1001))), false),
        ("FP-4: it has the checkpoint", asked(&[], &both, settings(), Bound::Has(Lsn(1000))), true),
        (
            "FP-4, QRK-4: it is that far on a timeline that had ended before",
            asked(&[("history", r#"[[1,500,"r"]]"#)], &both, settings(), Bound::Has(Lsn(1000))),
            false,
        ),
        (
            "FP-5: an old timeline",
            asked(
                &[("history", r#"[[1,500,"r"]]"#)],
                &both,
                Settings { check_timeline: true, ..settings() },
                Bound::Lag,
            ),
            false,
        ),
    ] {
        assert_eq!(got, Asked::Known(want), "{what}");
    }
    let unasked = View { poll: None, ..primary(three(Some("a"), &[])) };
    let members: BTreeSet<MemberName> = [name("b"), name("c")].into();
    let cluster = three(Some("a"), &[]);
    assert_eq!(failover_possible(&unasked, &cluster, Bound::Lag, Candidates::AsRequested), Asked::Ask(members), "FP-3");
}

#[test]
fn who_is_followed() {
    let led = |leader| three(leader, &[]);
    let tags = |change: fn(&mut OwnTags)| {
        let mut tags = OwnTags::default();
        change(&mut tags);
        tags
    };
    for (what, tags, cluster, want) in [
        ("NTF-1: nobody", tags(|tags| tags.nostream = true), led(Some("b")), None),
        ("NTF-3: the one it names", tags(|tags| tags.replicatefrom = Some("c".to_owned())), led(Some("b")), Some("c")),
        ("NTF-3: who is not there", tags(|tags| tags.replicatefrom = Some("x".to_owned())), led(Some("b")), Some("b")),
        ("NTF-4: the leader", OwnTags::default(), led(Some("b")), Some("b")),
        ("NTF-4: nobody leads", OwnTags::default(), led(None), None),
        ("NTF-5, INV-S22: not oneself", OwnTags::default(), led(Some("a")), None),
        ("NTF-5: nor by name", tags(|tags| tags.replicatefrom = Some("a".to_owned())), led(Some("b")), Some("b")),
    ] {
        assert_eq!(upstream(&name("a"), &tags, &settings(), &cluster), want.map(name), "{what}");
    }
}

#[test]
fn following_in_special_situations() {
    let led = || three(Some("b"), &[]);
    let no_address = r#"{"state":"running","role":"primary"}"#;
    let diff = |cluster| View {
        postgres: Postgres { recovery: RecoveryDiff::Reload, ..postgres(MemberRole::Replica) },
        ..replica(cluster)
    };
    let stop = Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None };
    let needed = Memory { rewind: RewindState::Needed, ..Memory::default() };
    let source = || three(Some("b"), &[]);
    for (what, view, memory, effects, rule) in [
        (
            "FOL-2: a primary in a standby cluster stops",
            View {
                settings: Settings { standby_cluster: true, ..settings() },
                ..View { lease: Lease::None, ..primary(led()) }
            },
            Memory::default(),
            vec![stop],
            "OWN-4",
        ),
        (
            "FOL-4, PAU-7: a primary in maintenance mode goes on",
            View { settings: paused(), lease: Lease::None, ..primary(led()) },
            Memory::default(),
            vec![],
            "PAU-7",
        ),
        ("FOL-6: rewinding comes first", diff(source()), needed, vec![Effect::Rewind { source: name("b") }], "RWD-9"),
        (
            "FOL-9: a leader without an address is no reason to let go",
            diff(three(Some("b"), &[("members/b", no_address)])),
            Memory::default(),
            vec![],
            "FOL-13",
        ),
        (
            "STA-8: a standby that starts goes on with the cycle",
            View { postgres: starting(MemberRole::Replica), ..replica(led()) },
            Memory::default(),
            vec![],
            "OWN-7",
        ),
        (
            "STA-3: in maintenance mode a start is not judged",
            View { postgres: starting(MemberRole::Primary), settings: paused(), ..replica(led()) },
            Memory::default(),
            vec![],
            "OWN-5",
        ),
        (
            "PAU-12, DIR-7: the data of another cluster, in maintenance mode, with the key",
            View {
                settings: paused(),
                data_dir: DataDir::Present { system_id: Some("1111111111111".to_owned()) },
                ..replica(three(Some("a"), &[]))
            },
            Memory::default(),
            vec![Effect::Release],
            "DIR-7",
        ),
    ] {
        check(what, &view, &memory, &effects, rule);
    }
}

#[test]
fn what_is_remembered() {
    let led = || replica(three(Some("b"), &[]));
    let backoff = Backoff { since: at(90), noted_at: at(90), position: Lsn(900) };
    let (_, memory) = decide(&led(), &Memory { backoff: Some(backoff), ..Memory::default() });
    assert!(memory.last_led.as_ref().is_some_and(|cluster| cluster.is_led_by(&name("b"))), "MEM-2");
    assert_eq!((memory.backoff, memory.last_position), (None, Some(Lsn(1000))), "CYC-3, MEM-4");
    let (_, unled) = decide(&replica(three(None, &[])), &memory);
    assert!(
        unled.last_led.is_some_and(|cluster| cluster.is_led_by(&name("b"))),
        "MEM-2: a picture without a leader keeps it"
    );

    let (_, memory) = decide(&View { settings: paused(), ..led() }, &Memory::default());
    assert!(memory.was_paused, "MEM-7");
    let needed = Memory { rewind: RewindState::Needed, ..memory };
    let (_, memory) = decide(
        &View {
            postgres: down(MemberRole::Replica, PostgresState::Stopped, ControlState::ShutDownInRecovery),
            ..led()
        },
        &needed,
    );
    assert_eq!(memory.rewind, RewindState::CheckRequested, "CYC-5, PAU-16: compares anew after maintenance");

    let settled = Memory { rewind: RewindState::Success, ..Memory::default() };
    assert_eq!(decide(&led(), &settled).1.rewind, RewindState::Initial, "RWD-16, MEM-5");
    let failed = View {
        finished: ended(ActionKind::Start, Outcome::Failed("port in use".to_owned())),
        postgres: down(MemberRole::Replica, PostgresState::StartFailed, ControlState::ShutDownInRecovery),
        ..led()
    };
    let (_, memory) = decide(&failed, &Memory::default());
    assert_eq!((memory.start_error.as_deref(), memory.retry_at), (Some("port in use"), Some(at(110))), "MEM-6, REC-12");
    let (_, memory) = decide(
        &View { finished: ended(ActionKind::Demote, Outcome::Done), ..led() },
        &Memory { checkpoint: CheckpointState::Due, rewind: RewindState::Needed, ..Memory::default() },
    );
    assert_eq!(memory.checkpoint, CheckpointState::Unknown, "DEM-1: the checkpoint is forgotten");
    assert_ne!(memory.rewind, RewindState::Needed, "DEM-1: and what was known of histories");

    let broken = View {
        finished: ended(ActionKind::Bootstrap, Outcome::Failed("no space".to_owned())),
        data_dir: DataDir::Empty,
        ..replica(three(None, &[]))
    };
    check(
        "BOO-8, MEM-10: ends",
        &broken,
        &Memory::default(),
        &[Effect::Exit { code: 1, leave_postgres: false }],
        "BOO-8",
    );
    let refused = Memory { refused: Some("exit code 1".to_owned()), ..Memory::default() };
    let memory = check(
        "PRO-3",
        &View { lease: held(1), ..replica(three(Some("a"), &[])) },
        &refused,
        &[Effect::Release],
        "PRO-3",
    );
    assert_eq!(memory.refused_at, Some(at(100)), "MEM-9, HLT-1");
}

#[test]
fn a_copy_that_failed_is_tried_again_after_a_tick() {
    let empty = |now| View {
        now: at(now),
        data_dir: DataDir::Empty,
        postgres: down(MemberRole::Uninitialized, PostgresState::Stopped, ControlState::Other),
        ..replica(three(Some("b"), &[]))
    };
    let failed =
        View { finished: ended(ActionKind::Clone, Outcome::Failed("connection refused".to_owned())), ..empty(100) };
    let memory = check("BOO-12: waits", &failed, &Memory::default(), &[], "BOO-12");
    let copy = Effect::Clone { source: name("b"), wipe: false };
    check("BOO-12: and tries again", &empty(110), &memory, &[copy], "BOO-5");
}

#[test]
fn a_rewind_only_where_it_is_possible_and_after_a_recovery() {
    let stopped = |control: ControlState, settings: Settings| View {
        settings,
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, control),
        ..replica(three(Some("b"), &[]))
    };
    let needed = || Memory { rewind: RewindState::Needed, ..Memory::default() };
    let standby = Effect::Start(StartAs::Standby { upstream: Some(name("b")) });
    let off = || Settings { use_pg_rewind: false, ..settings() };
    let no_checksums = {
        let view = stopped(ControlState::ShutDown, settings());
        let control = view.postgres.control.clone().map(|control| Control { rewind_possible: false, ..control });
        View { postgres: Postgres { control, ..view.postgres.clone() }, ..view }
    };
    check(
        "RWD-1, RWD-14: switched off: just starts",
        &stopped(ControlState::ShutDown, off()),
        &needed(),
        std::slice::from_ref(&standby),
        "REC-11",
    );
    check("RWD-1: no checksums", &no_checksums, &needed(), &[standby], "REC-11");
    let recovered = check(
        "RWD-8: recovers first",
        &stopped(ControlState::InArchiveRecovery, settings()),
        &needed(),
        &[Effect::CrashRecover],
        "RWD-8",
    );
    let rewind = Effect::Rewind { source: name("b") };
    check("RWD-8: then rewinds", &stopped(ControlState::ShutDown, settings()), &recovered, &[rewind], "RWD-9");
    let compare = Effect::CheckDivergence { leader: name("b") };
    check(
        "REC-8: compares before it starts",
        &stopped(ControlState::ShutDown, settings()),
        &Memory::default(),
        &[compare],
        "RWD-3",
    );
}

#[test]
fn standing_with_a_request_or_in_a_special_mode() {
    let asked = |request: &str, settings: Settings| View { settings, ..replica(three(None, &[("failover", request)])) };
    let both = || poll(&[("b", Some(answer(5000))), ("c", Some(answer(900)))]);
    let limited = PeerStatus { nofailover: true, ..answer(1000) };
    let clear = Effect::RewriteFailover { request: None, seen: None };
    let sync = || Settings { sync: synchronous_on(), ..settings() };
    let in_sync = three(None, &[("sync", r#"{"leader":"b","sync_standby":"c"}"#)]);
    // The leader was seen before it was gone: the cluster does not just start (RACE-13).
    let memory = Memory { last_led: Some(Arc::new(three(Some("a"), &[]))), ..Memory::default() };
    for (what, view, effects, rule) in [
        ("MAN-N2: another candidate, in maintenance mode", asked(r#"{"member":"c"}"#, paused()), vec![], "MAN-N2"),
        ("MAN-N6, HLT-2: no candidate, in maintenance mode", asked(r#"{"leader":"b"}"#, paused()), vec![], "HLT-6"),
        (
            "MAN-N5: a candidate that may not lead is not waited for",
            View {
                poll: poll(&[("b", None), ("c", Some(limited))]),
                ..asked(r#"{"leader":"b","member":"c"}"#, settings())
            },
            vec![Effect::Acquire, clear.clone()],
            "RACE-10",
        ),
        (
            "MAN-N8: the old leader does not count, nor the lag",
            View {
                poll: both(),
                ..replica(three(None, &[("failover", r#"{"leader":"b"}"#), ("status", r#"{"optime":9000000}"#)]))
            },
            vec![Effect::Acquire, clear],
            "RACE-10",
        ),
        (
            "HLT-9: a request that nobody could fulfil",
            View { poll: both(), ..asked(r#"{"leader":"a"}"#, settings()) },
            vec![],
            "MAN-N7",
        ),
        ("HLT-12, SYN-5: /sync names others", View { settings: sync(), ..replica(in_sync) }, vec![], "HLT-12"),
        (
            "HLT-11: not in the failsafe map",
            View {
                settings: Settings { failsafe_mode: true, ..settings() },
                ..replica(three(None, &[("failsafe", r#"{"b":"http://b"}"#)]))
            },
            vec![],
            "HLT-11",
        ),
        ("HLT-13: everybody is asked", replica(three(None, &[])), vec![ask(&["b", "c"])], "RACE-3"),
        (
            "RACE-9: a member whose server is down does not block",
            View { poll: poll(&[("b", Some(answer(0))), ("c", None)]), ..replica(three(None, &[])) },
            vec![Effect::Acquire],
            "RACE-10",
        ),
    ] {
        check(what, &view, &memory, &effects, rule);
    }
    let tagged = View { tags: OwnTags { nofailover: true, ..OwnTags::default() }, ..replica(three(None, &[])) };
    let memory = check("UNL-2: who does not stand compares soon", &tagged, &Memory::default(), &[], "HLT-7");
    assert_eq!(memory.rewind, RewindState::CheckRequested, "UNL-2");
}

#[test]
fn a_leader_and_its_requests() {
    let asked =
        |request: &str, settings: Settings| View { settings, ..primary(three(Some("a"), &[("failover", request)])) };
    let far = r#"{"leader":"a","member":"b","scheduled_at":"2099-01-01T00:00:00+00:00"}"#;
    let unreadable = r#"{"leader":"a","member":"b","scheduled_at":"tomorrow"}"#;
    let clear = Effect::RewriteFailover { request: None, seen: Some(Revision(5)) };
    for (what, view, effects, rule) in [
        ("MAN-L2: far ahead", asked(far, settings()), vec![], "OWN-3"),
        ("MAN-L2: unreadable", asked(unreadable, settings()), vec![clear], "MAN-L9"),
        ("MAN-L3, PAU-10: schedules rest in maintenance mode", asked(unreadable, paused()), vec![], "OWN-3"),
        (
            "MAN-L1, OWN-1: the candidate holds the key in maintenance mode and is promoted",
            View {
                settings: paused(),
                postgres: postgres(MemberRole::Replica),
                ..asked(r#"{"member":"a"}"#, settings())
            },
            vec![Effect::Promote],
            "PRO-7",
        ),
        (
            "PAU-2: a primary leads in maintenance mode, too",
            View { settings: paused(), ..primary(three(Some("a"), &[])) },
            vec![],
            "OWN-3",
        ),
    ] {
        check(what, &view, &Memory::default(), &effects, rule);
    }
}
