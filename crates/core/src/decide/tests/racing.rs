//! Nobody holds the key.

use super::*;

/// What a member remembers that has seen the leader which is gone.
fn saw_a_leader() -> Memory {
    Memory { last_led: Some(Arc::new(three(Some("a"), &[]))), ..Memory::default() }
}

fn ask(members: &[&str]) -> Vec<Effect> {
    vec![Effect::PollPeers(members.iter().map(|name| name.parse().unwrap()).collect())]
}

#[test]
fn a_replica_stands_only_when_nobody_is_fitter() {
    let free = || three(None, &[]);
    let standing =
        |b: Option<PeerStatus>, c: Option<PeerStatus>| View { poll: poll(&[("b", b), ("c", c)]), ..replica(free()) };
    let acquire = [Effect::Acquire];
    let none: &[Effect] = &[];
    let ask_both = ask(&["b", "c"]);
    let old_timeline = PeerStatus { timeline: Timeline::new(1), ..answer(5000) };
    let on_second = Facts { timeline: Timeline::new(2), ..facts(true) };
    for (name, view, effects, rule) in [
        ("asks the others first", replica(free()), &ask_both[..], "RACE-3"),
        ("as far as the others: stands", standing(Some(answer(1000)), Some(answer(900))), &acquire, "RACE-10"),
        ("nobody answers: stands (RACE-12)", standing(None, None), &acquire, "RACE-10"),
        ("somebody is ahead", standing(Some(answer(1001)), None), none, "RACE-6"),
        ("a primary is alive", standing(Some(PeerStatus { in_recovery: false, ..answer(0) }), None), none, "RACE-5"),
        (
            "a primary is alive, and tagged nofailover: blocks all the same",
            standing(Some(PeerStatus { in_recovery: false, nofailover: true, ..answer(0) }), None),
            none,
            "QRK-3",
        ),
        (
            "a member that may not lead does not block",
            standing(Some(PeerStatus { nofailover: true, ..answer(2000) }), None),
            &acquire,
            "RACE-10",
        ),
        ("a member whose server is down does not block", standing(Some(answer(0)), None), &acquire, "RACE-10"),
        (
            "equally far and preferred",
            standing(Some(PeerStatus { failover_priority: 2, ..answer(1000) }), None),
            none,
            "RACE-7",
        ),
        (
            "preferred, and behind: who has more goes first (RACE-6)",
            standing(Some(PeerStatus { failover_priority: 9, ..answer(999) }), None),
            &acquire,
            "RACE-10",
        ),
        (
            "preferred by its number, and may not lead",
            standing(Some(PeerStatus { nofailover: true, failover_priority: 9, ..answer(1000) }), None),
            &acquire,
            "RACE-10",
        ),
        (
            "equally far and equally preferred: the store decides",
            standing(Some(answer(1000)), None),
            &acquire,
            "RACE-10",
        ),
        (
            "ahead on an older timeline is not ahead",
            View {
                postgres: Postgres { facts: Some(on_second), ..postgres(MemberRole::Replica) },
                ..standing(Some(old_timeline), None)
            },
            &acquire,
            "RACE-10",
        ),
        (
            "preferred and equally far, but on an older timeline: it waits for us",
            View {
                postgres: Postgres {
                    facts: Some(Facts { timeline: Timeline::new(2), ..facts(true) }),
                    ..postgres(MemberRole::Replica)
                },
                ..standing(Some(PeerStatus { failover_priority: 2, ..answer(1000) }), None)
            },
            &acquire,
            "RACE-10",
        ),
        (
            "behind on a newer timeline is not behind",
            standing(Some(PeerStatus { timeline: Timeline::new(2), ..answer(10) }), None),
            none,
            "QRK-4",
        ),
        (
            "too far behind the last leader",
            replica(three(None, &[("status", r#"{"optime":99000000}"#)])),
            none,
            "RACE-1",
        ),
        (
            "tagged nofailover",
            View { tags: OwnTags { nofailover: true, ..OwnTags::default() }, ..replica(free()) },
            none,
            "HLT-7",
        ),
        ("in pause", View { settings: Settings { paused: true, ..settings() }, ..replica(free()) }, none, "HLT-6"),
        (
            "still starting",
            View {
                postgres: Postgres { state: PostgresState::Starting, facts: None, ..postgres(MemberRole::Replica) },
                ..replica(free())
            },
            none,
            "HLT-3",
        ),
        (
            "the position is unknown",
            View { postgres: Postgres { facts: None, ..postgres(MemberRole::Replica) }, ..replica(free()) },
            none,
            "RACE-1",
        ),
        (
            "synchronous mode, and not a synchronous standby",
            View {
                settings: Settings { sync: synchronous_on(), ..settings() },
                ..replica(three(None, &[("sync", r#"{"leader":"b","sync_standby":"c"}"#)]))
            },
            none,
            "HLT-12",
        ),
        (
            "not in the failsafe map (FS-11)",
            View {
                settings: Settings { failsafe_mode: true, ..settings() },
                ..replica(three(None, &[("failsafe", r#"{"b":"http://b"}"#)]))
            },
            none,
            "FS-8",
        ),
        (
            "a watchdog is required and missing (WDG-7)",
            View { watchdog_failure: Some("no such file".to_owned()), ..replica(three(None, &[])) },
            none,
            "HLT-10",
        ),
        (
            "who is only in the failsafe map is asked, too",
            View {
                settings: Settings { failsafe_mode: true, ..settings() },
                poll: poll(&[("b", None), ("c", None)]),
                ..replica(three(None, &[("failsafe", r#"{"a":"http://a","d":"http://d"}"#)]))
            },
            &[Effect::PollPeers(["b", "c", "d"].iter().map(|member| member.parse().unwrap()).collect())],
            "RACE-3",
        ),
        (
            "an empty failsafe map forbids nothing",
            View {
                settings: Settings { failsafe_mode: true, ..settings() },
                ..replica(three(None, &[("failsafe", "{}")]))
            },
            &ask_both,
            "RACE-3",
        ),
        (
            "check_timeline and an old timeline",
            View {
                settings: Settings { check_timeline: true, ..settings() },
                ..replica(three(None, &[("history", r#"[[1,500,"r"]]"#)]))
            },
            none,
            "RACE-2",
        ),
        (
            "two timelines behind: what the last leader wrote would be gone without a word",
            replica(three(None, &[("history", r#"[[1,500,"r"],[2,600,"r"]]"#)])),
            none,
            "INV-S9",
        ),
        (
            "beyond the end of its timeline: what nobody else has does not make up for what it lacks",
            View {
                postgres: Postgres {
                    facts: Some(Facts { position: Lsn(9_000_000), ..facts(true) }),
                    ..postgres(MemberRole::Replica)
                },
                ..replica(three(None, &[("history", r#"[[1,500,"r"]]"#), ("status", r#"{"optime":8000000}"#)]))
            },
            none,
            "RACE-1",
        ),
        (
            "one timeline behind: the last leader may have died before anybody received something of it",
            replica(three(None, &[("history", r#"[[1,500,"r"]]"#)])),
            &ask_both,
            "RACE-3",
        ),
    ] {
        check(name, &view, &saw_a_leader(), effects, rule);
    }
}

#[test]
fn members_that_were_there_under_the_last_leader_are_asked_too() {
    let led = three(Some("b"), &[]);
    let (_, memory) = decide(&replica(led), &Memory::default());
    let (record, value) = member("a", "replica");
    let alone = cluster(&[(record.as_str(), value.as_str()), ("initialize", SYSTEM_ID), ("config", "{\"ttl\":30}")]);
    check("b and c have lost their records", &replica(alone), &memory, &ask(&["b", "c"]), "RACE-3");
    let garbled = three(None, &[("members/b", "{"), ("members/c", "{}")]);
    check("their records are garbled", &replica(garbled), &memory, &ask(&["b", "c"]), "RACE-3");
}

#[test]
fn a_running_primary_without_the_key_asks_before_it_takes_it_back() {
    let free = |more: &[(&str, &str)]| View { lease: Lease::None, ..primary(three(None, more)) };
    let answered = |b: Option<PeerStatus>| View { poll: poll(&[("b", b), ("c", None)]), ..free(&[]) };
    let stop = [Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None }];
    let ask_both = ask(&["b", "c"]);
    let promoted_beside = |own: &str| View {
        postgres: Postgres {
            facts: Some(Facts {
                timeline: Timeline::new(2),
                history: cluster(&[("history", own)]).history.map(|history| history.value),
                ..facts(false)
            }),
            ..postgres(MemberRole::Primary)
        },
        ..free(&[("history", r#"[[1,5,"r"]]"#)])
    };
    for (name, view, effects, rule) in [
        ("asks first", free(&[]), &ask_both[..], "RACE-3"),
        ("no rival: takes it", answered(Some(answer(1000))), &[Effect::Acquire], "QRK-2"),
        ("a rival primary: stops", answered(Some(PeerStatus { in_recovery: false, ..answer(0) })), &stop, "QRK-2"),
        (
            "a member on a newer timeline: stops",
            answered(Some(PeerStatus { timeline: Timeline::new(2), ..answer(10) })),
            &stop,
            "HLT-5",
        ),
        ("the history knows a newer timeline: stops", free(&[("history", r#"[[1,5,"r"]]"#)]), &stop, "HLT-5"),
        ("the newest number, reached on another way: stops", promoted_beside("[[1,7,\"r\"]]"), &stop, "INV-S23"),
        ("the newest number, reached on the same way", promoted_beside("[[1,5,\"r\"]]"), &ask_both, "RACE-3"),
        (
            "it does not answer, so nobody knows on which timeline it is: stops",
            View {
                postgres: Postgres { facts: None, ..postgres(MemberRole::Primary) },
                ..answered(Some(PeerStatus { timeline: Timeline::new(2), ..answer(10) }))
            },
            &stop,
            "IN-P5",
        ),
        (
            "it does not know its timeline: stops",
            View {
                postgres: Postgres {
                    facts: Some(Facts { timeline: None, ..facts(false) }),
                    ..postgres(MemberRole::Primary)
                },
                ..answered(Some(PeerStatus { timeline: Timeline::new(2), ..answer(10) }))
            },
            &stop,
            "IN-P5",
        ),
        (
            "its control file cannot be read: stops",
            View { data_dir: DataDir::Present { system_id: None }, ..answered(None) },
            &stop,
            "DIR-5",
        ),
        (
            "in pause it takes it",
            View { settings: Settings { paused: true, ..settings() }, ..free(&[]) },
            &[Effect::Acquire],
            "PAU-5",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_request_without_a_leader_names_who_stands() {
    let asked = |request: &str| replica(three(None, &[("failover", request)]));
    let both = || poll(&[("b", Some(answer(1000))), ("c", Some(answer(1000)))]);
    let take_and_clear = [Effect::Acquire, Effect::RewriteFailover { request: None, seen: None }];
    let ask_both = ask(&["b", "c"]);
    for (name, view, effects, rule) in [
        ("we are named: no questions", asked(r#"{"leader":"b","member":"a"}"#), &take_and_clear[..], "MAN-N1"),
        ("another one is named: asks", asked(r#"{"leader":"b","member":"c"}"#), &ask_both, "RACE-3"),
        (
            "another one is named and fit: leaves it to it",
            View { poll: both(), ..asked(r#"{"leader":"b","member":"c"}"#) },
            &[],
            "MAN-N4",
        ),
        (
            "the named one is gone: everybody stands, except the old leader",
            View { poll: poll(&[("b", Some(answer(5000))), ("c", None)]), ..asked(r#"{"leader":"b","member":"c"}"#) },
            &take_and_clear,
            "RACE-10",
        ),
        ("we stepped down and another can lead", View { poll: both(), ..asked(r#"{"leader":"a"}"#) }, &[], "MAN-N7"),
        (
            "we stepped down and nobody else can: come back",
            View { poll: poll(&[("b", None), ("c", None)]), ..asked(r#"{"leader":"a"}"#) },
            &take_and_clear,
            "MAN-N7",
        ),
        (
            "no candidate, and the old leader is still a primary: does not stand beside it",
            View {
                poll: poll(&[("b", Some(PeerStatus { in_recovery: false, ..answer(0) })), ("c", None)]),
                ..asked(r#"{"leader":"b"}"#)
            },
            &[],
            "RACE-5",
        ),
        (
            "named for another day: what it lacks counts",
            View {
                store: Store::Current(Arc::new(three(
                    None,
                    &[
                        ("failover", r#"{"leader":"b","member":"a","scheduled_at":"2099-01-01T00:00:00+00:00"}"#),
                        ("status", r#"{"optime":99000000}"#),
                    ],
                ))),
                ..asked("{}")
            },
            &[],
            "RACE-1",
        ),
        (
            "another one is named for another day: it is not left to it",
            View { poll: both(), ..asked(r#"{"leader":"b","member":"c","scheduled_at":"2099-01-01T00:00:00+00:00"}"#) },
            &take_and_clear,
            "RACE-10",
        ),
        (
            "named for a moment that has just come: what the leader stepped down for",
            asked(r#"{"leader":"b","member":"a","scheduled_at":"2027-01-15T08:00:00+00:00"}"#),
            &take_and_clear,
            "MAN-N1",
        ),
        (
            "we stepped down and a primary is alive: do not come back",
            View {
                poll: poll(&[
                    ("b", Some(PeerStatus { in_recovery: false, nofailover: true, ..answer(0) })),
                    ("c", None),
                ]),
                ..asked(r#"{"leader":"a"}"#)
            },
            &[],
            "RACE-5",
        ),
        (
            "named in pause: stands, and stays named until it is primary",
            View { settings: Settings { paused: true, ..settings() }, ..asked(r#"{"member":"a"}"#) },
            &[Effect::Acquire],
            "MAN-N1",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_race_is_put_off_while_wal_still_arrives() {
    // A tick is 10 s, the backoff 20 s.
    let at_position = |seconds: u64, position: u64| View {
        now: at(seconds),
        settings: Settings { primary_race_backoff: Duration::from_secs(20), ..settings() },
        postgres: Postgres {
            facts: Some(Facts { position: Lsn(position), ..facts(true) }),
            ..postgres(MemberRole::Replica)
        },
        ..replica(three(None, &[]))
    };
    let waits = |name: &str, view: &View, memory: &Memory, until: u64| {
        let memory = check(name, view, memory, &[], "UNL-1");
        assert_eq!(decide(view, &memory).0.wake_at, Some(at(until)), "{name}");
        memory
    };
    let before = Memory { last_position: Some(Lsn(500)), ..Memory::default() };
    let first = waits("first sight of a free key", &at_position(100, 500), &before, 110);
    let soon = waits("whatever wakes it: not before a tick has passed", &at_position(103, 500), &first, 110);
    check("a tick without WAL", &at_position(110, 500), &soon, &ask(&["b", "c"]), "RACE-3");
    let arrives = waits("a tick with WAL", &at_position(110, 900), &soon, 120);
    waits("a moment later nothing new has come yet", &at_position(111, 900), &arrives, 120);
    check("long enough", &at_position(120, 2000), &arrives, &ask(&["b", "c"]), "RACE-3");
}

#[test]
fn when_a_whole_cluster_starts_the_one_that_led_last_is_waited_for() {
    let others = || poll(&[("b", Some(answer(900))), ("c", Some(answer(1000)))]);
    let unknown = poll(&[("b", Some(answer(0))), ("c", Some(answer(1000)))]);
    let starting = |name: &str, tags: &str| {
        let (key, value) = member(name, "replica");
        (key, value.replace("\"running\"", &format!("\"starting\",\"tags\":{tags}")))
    };
    let (key, plain) = starting("b", "{}");
    let (_, barred) = starting("b", r#"{"nofailover":true}"#);
    let seen = |more: &[(&str, &str)]| View { poll: others(), ..replica(three(None, more)) };
    let behind = ("status", r#"{"optime":1001}"#);
    let acquire = [Effect::Acquire];
    for (name, view, effects, rule) in [
        ("everybody is up and it has everything: stands", seen(&[]), &acquire[..], "RACE-10"),
        ("it lacks what the last leader has published: waits", seen(&[behind]), &[], "RACE-13"),
        ("another member is still starting: waits", seen(&[(&key, &plain)]), &[], "RACE-13"),
        ("another member does not know its position yet", View { poll: unknown, ..seen(&[]) }, &[], "RACE-13"),
        ("one that starts and may not lead is not waited for", seen(&[(&key, &barred)]), &acquire, "RACE-10"),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
    let first = seen(&[behind]);
    let (decision, memory) = decide(&first, &Memory::default());
    assert_eq!(decision.wake_at, Some(at(110)));
    check(
        "a tick later it stands: the data may be lost",
        &View { now: at(110), ..first.clone() },
        &memory,
        &acquire,
        "RACE-10",
    );
    check("a member that has seen a leader does not wait", &first, &saw_a_leader(), &acquire, "RACE-10");
}

#[test]
fn a_candidate_that_does_not_take_the_key_is_waited_for_no_longer_than_a_lease() {
    let request = [("failover", r#"{"leader":"c","member":"b"}"#)];
    let b = |position, priority| PeerStatus { failover_priority: priority, ..answer(position) };
    let asked = |seconds: u64, b| View {
        now: at(seconds),
        poll: poll(&[("b", Some(b)), ("c", None)]),
        ..replica(three(None, &request))
    };
    let take = [Effect::Acquire, Effect::RewriteFailover { request: None, seen: None }];
    let (decision, memory) = decide(&asked(100, b(1000, 9)), &Memory::default());
    assert_eq!((decision.effects, decision.wake_at), (Vec::new(), Some(at(130))), "looks again when its time is over");
    for (name, view, effects, rule) in [
        ("it has its time", asked(129, b(1000, 9)), &[][..], "MAN-N4"),
        ("it cannot reach the store, whatever its priority", asked(130, b(1000, 9)), &take, "RACE-10"),
        ("it has more WAL", asked(130, b(1001, 1)), &[], "RACE-6"),
    ] {
        check(name, &view, &memory, effects, rule);
    }
    let led = View { now: at(120), ..replica(three(Some("c"), &request)) };
    let (_, memory) = decide(&led, &memory);
    check("somebody led meanwhile: its time begins anew", &asked(130, b(1000, 1)), &memory, &[], "MAN-N4");
    let paused = View { settings: paused(), ..asked(200, b(1000, 1)) };
    check("in pause only the candidate stands", &paused, &memory, &[], "MAN-N2");
}

#[test]
fn a_member_that_stepped_down_comes_back_when_nobody_has_led_for_two_leases() {
    let others = || poll(&[("b", Some(answer(1000))), ("c", Some(answer(1000)))]);
    let take = [Effect::Acquire, Effect::RewriteFailover { request: None, seen: None }];
    for request in [r#"{"leader":"a","member":"b"}"#, r#"{"leader":"a"}"#] {
        let asked =
            |seconds: u64| View { now: at(seconds), poll: others(), ..replica(three(None, &[("failover", request)])) };
        let (_, memory) = decide(&asked(100), &Memory::default());
        check("the others can lead", &asked(159), &memory, &[], "MAN-N7");
        check("and do not", &asked(160), &memory, &take, "MAN-N7");
    }
}
