//! PostgreSQL is down, absent, foreign, or has left the leader's history.

use super::rewind::{ControlState, DivergenceFacts, LocalPosition, LocalRole};
use super::*;

fn standby_of(upstream: Option<&str>) -> [Effect; 1] {
    [Effect::Start(StartAs::Standby { upstream: upstream.map(|name| name.parse().unwrap()) })]
}

fn crashed(cluster: Cluster) -> View {
    let postgres = down(MemberRole::Primary, PostgresState::Crashed, ControlState::InProduction);
    View { lease: held(1), postgres, ..replica(cluster) }
}

#[test]
fn a_crashed_primary_is_started_again_under_its_lease() {
    let led = || three(Some("a"), &[]);
    let at_once = || Settings { primary_start_timeout: Duration::ZERO, ..settings() };
    let fit = || poll(&[("b", Some(answer(1000))), ("c", None)]);
    let ask = [Effect::PollPeers(["b".parse().unwrap(), "c".parse().unwrap()].into())];
    let immediate = [Effect::Demote { mode: DemoteMode::Immediate, upstream: None }];
    for (name, view, effects, rule) in [
        ("in place, on its timeline", crashed(led()), &[Effect::Start(StartAs::Primary)][..], "REC-3"),
        ("fail over at once: asks", View { settings: at_once(), ..crashed(led()) }, &ask, "FP-3"),
        (
            "fail over at once: another can lead",
            View { settings: at_once(), poll: fit(), ..crashed(led()) },
            &immediate,
            "REC-2",
        ),
        (
            "fail over at once, but nobody can lead: in place",
            View { settings: at_once(), poll: poll(&[("b", None), ("c", None)]), ..crashed(led()) },
            &[Effect::Start(StartAs::Primary)],
            "REC-3",
        ),
        (
            "a stopped former primary with the key: read-only first, then promoted",
            View {
                postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown),
                ..crashed(led())
            },
            &standby_of(None),
            "REC-7",
        ),
        (
            "the key names us, but nothing is proven yet",
            View { lease: Lease::None, ..crashed(led()) },
            &[Effect::Adopt],
            "REC-1",
        ),
        (
            "the lease has nearly run out: not as primary",
            View { lease: held(25), ..crashed(led()) },
            &[Effect::CrashRecover],
            "REC-5",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
    let failed = Memory { recovering: true, start_error: Some("port in use".to_owned()), ..Memory::default() };
    check("a leader that cannot start gives up the key", &crashed(led()), &failed, &[Effect::Release], "REC-12");
}

#[test]
fn a_former_primary_compares_before_it_starts() {
    let led = || three(Some("b"), &[]);
    let stopped = || View {
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown),
        ..replica(led())
    };
    let compare = [Effect::CheckDivergence { leader: "b".parse().unwrap() }];
    let memory = check("asks the leader", &stopped(), &Memory::default(), &compare, "RWD-3");
    let found = |local_lsn: u64| {
        let facts = DivergenceFacts::Known {
            local: LocalPosition {
                timeline: Timeline::FIRST,
                lsn: Lsn(local_lsn),
                was: LocalRole::FormerPrimary { checkpoint_end: Some(Lsn(1000)) },
            },
            local_history: Some(Vec::new()),
            leader_timeline: Timeline::new(2).unwrap(),
            leader_history: vec![(Timeline::FIRST, Lsn(1000))],
        };
        vec![Finished { kind: ActionKind::CheckDivergence, outcome: Outcome::Divergence(Box::new(facts)) }]
    };
    let same = View { finished: found(900), ..stopped() };
    check("the same history: starts", &same, &memory, &standby_of(Some("b")), "REC-11");
    let diverged = View { finished: found(1000), ..stopped() };
    let rewind = [Effect::Rewind { source: "b".parse().unwrap() }];
    check("diverged: rewinds", &diverged, &memory, &rewind, "RWD-9");
    let off = Settings { use_pg_rewind: false, wipe_on_divergence: true, ..settings() };
    check(
        "diverged, rewind off, allowed to copy anew",
        &View { settings: off, ..diverged.clone() },
        &memory,
        &[Effect::Clone { source: "b".parse().unwrap(), wipe: true }],
        "RWD-13",
    );
    let not_allowed = Settings { use_pg_rewind: false, ..settings() };
    check(
        "diverged and nothing allowed: just starts, wipes nothing",
        &View { settings: not_allowed, ..diverged },
        &memory,
        &standby_of(Some("b")),
        "REC-11",
    );
    let unclear = vec![Finished {
        kind: ActionKind::CheckDivergence,
        outcome: Outcome::Divergence(Box::new(DivergenceFacts::LeaderNotReady("in recovery".to_owned()))),
    }];
    let waits = Memory { rejoin_waits_until: Some(at(103)), ..memory.clone() };
    check("the leader is not ready: waits", &View { finished: unclear.clone(), ..stopped() }, &waits, &[], "RWD-3");
    let impatient = View { now: at(104), finished: unclear, ..stopped() };
    check("but not for ever", &impatient, &waits, &standby_of(Some("b")), "REC-11");
}

#[test]
fn a_failed_rewind_wipes_only_what_an_operator_allowed_to_wipe() {
    let failed = || Memory { rewind: RewindState::Failed, rewind_error: "no WAL".to_owned(), ..Memory::default() };
    let stopped = |settings: Settings| View {
        settings,
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown),
        ..replica(three(Some("b"), &[]))
    };
    let clone = [Effect::Clone { source: "b".parse().unwrap(), wipe: true }];
    let allowed = Settings { wipe_on_rewind_failure: true, ..settings() };
    check(
        "no flag: starts and stays visibly broken",
        &stopped(settings()),
        &failed(),
        &standby_of(Some("b")),
        "REC-11",
    );
    check("with the flag: copies anew", &stopped(allowed.clone()), &failed(), &clone, "RWD-12");
    let not_primary_yet = View {
        store: Store::Current(Arc::new(three(Some("b"), &[("members/b", &member("b", "replica").1)]))),
        ..stopped(allowed.clone())
    };
    check("the leader is no primary yet: keeps what may be the only copy", &not_primary_yet, &failed(), &[], "RWD-3");
    let without_leader = View { store: Store::Current(Arc::new(three(None, &[]))), ..stopped(allowed) };
    check("no leader to copy from: wipes nothing", &without_leader, &failed(), &standby_of(None), "REC-11");
}

#[test]
fn what_was_found_about_one_leader_removes_nothing_under_the_next() {
    let stopped = |leader: &str| View {
        settings: Settings { use_pg_rewind: false, wipe_on_divergence: true, ..settings() },
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown),
        ..replica(three(Some(leader), &[]))
    };
    let compare = |leader: &str| [Effect::CheckDivergence { leader: leader.parse().unwrap() }];
    let clone = |leader: &str| [Effect::Clone { source: leader.parse().unwrap(), wipe: true }];
    let memory = check("compares with b", &stopped("b"), &Memory::default(), &compare("b"), "RWD-3");
    let parted = Memory { rewind: RewindState::Needed, ..memory };
    check("parted from b: copies it", &stopped("b"), &parted, &clone("b"), "RWD-13");
    check("parted from b, c leads: compares with c", &stopped("c"), &parted, &compare("c"), "RWD-3");
    let begun = Memory { rewind_error: "connection lost".to_owned(), ..parted };
    let rewinds = View { settings: settings(), ..stopped("c") };
    let rewind = [Effect::Rewind { source: "c".parse().unwrap() }];
    check("a rewind was begun: only another one mends that", &rewinds, &begun, &rewind, "RWD-9");
}

#[test]
fn in_pause_nothing_is_removed_and_nothing_is_started_again_and_again() {
    let paused = || Settings { paused: true, wipe_on_divergence: true, wipe_on_rewind_failure: true, ..settings() };
    let without_rewind = || Settings { use_pg_rewind: false, ..paused() };
    let stopped = |settings| View {
        settings,
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown),
        ..replica(three(Some("b"), &[]))
    };
    let runs = |settings| View { settings, ..replica(three(Some("b"), &[])) };
    let state = |rewind| Memory { rewind, was_paused: true, ..Memory::default() };
    let tried_before = Memory { rejoin_waits_until: Some(at(90)), ..Memory::default() };
    let just_before = Memory { rejoin_waits_until: Some(at(102)), ..Memory::default() };
    let compare = [Effect::CheckDivergence { leader: "b".parse().unwrap() }];
    let rewind = [Effect::Rewind { source: "b".parse().unwrap() }];
    for (name, view, memory, effects, rule) in [
        ("a rewind failed, a copy is allowed", runs(paused()), state(RewindState::Failed), &[][..], "OWN-7"),
        ("parted, a copy is allowed", runs(without_rewind()), state(RewindState::Needed), &[], "OWN-7"),
        (
            "parted and down, and no rewind possible",
            stopped(without_rewind()),
            state(RewindState::Needed),
            &[],
            "PAU-9",
        ),
        ("parted and down: rewinds", stopped(paused()), state(RewindState::Needed), &rewind, "RWD-9"),
        ("stepped down long before the pause and does not come up", stopped(paused()), tried_before, &[], "PAU-9"),
        ("stepped down a moment before the pause: comes back", stopped(paused()), just_before, &compare, "RWD-3"),
    ] {
        check(name, &view, &memory, effects, rule);
    }
}

#[test]
fn a_crashed_primary_of_a_standby_cluster_is_not_started_as_one() {
    let standby = Settings { standby_cluster: true, ..settings() };
    let view = View { settings: standby, ..crashed(three(Some("a"), &[])) };
    let compare = [Effect::CheckDivergence { leader: MemberName::remote() }];
    let asked = check("REC-8: compares with the other cluster", &view, &Memory::default(), &compare, "RWD-3");
    let known = Memory { rewind: RewindState::NotNeeded, ..asked };
    let follow = [Effect::Start(StartAs::Standby { upstream: Some(MemberName::remote()) })];
    check("INV-S25: and follows it", &view, &known, &follow, "REC-9");
}

#[test]
fn a_rewind_waits_for_the_checkpoint_of_its_source() {
    let (key, value) = member("b", "primary");
    let value = value.replace("{\"api_url\"", "{\"checkpoint_after_promote\":false,\"api_url\"");
    let value = value.replacen('{', "{\"checkpoint_after_promote\":false,", 1);
    let cluster = three(Some("b"), &[(key.as_str(), value.as_str())]);
    let view = View {
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown),
        ..replica(cluster)
    };
    let needed = Memory { rewind: RewindState::Needed, ..Memory::default() };
    check("the source has not checkpointed", &view, &needed, &[], "INV-S21");
}

#[test]
fn a_stopped_server_waits_a_moment_for_its_successor() {
    let free = View {
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown),
        ..replica(three(None, &[]))
    };
    let patient = Memory { rejoin_waits_until: Some(at(102)), ..Memory::default() };
    check("just stepped down", &free, &patient, &[], "DEM-11");
    let older = View { store: Store::Current(Arc::new(three(Some("a"), &[]))), ..free.clone() };
    check("the view is older than our release of the key: does not ask for it again", &older, &patient, &[], "DEM-11");
    let disproved = View { lease: Lease::NotOurs { holder: None }, ..older };
    check("the view is older than the proof that the key is gone", &disproved, &patient, &[], "DEM-11");
    check("nobody came", &View { now: at(103), ..free }, &patient, &standby_of(None), "REC-11");
}

#[test]
fn an_empty_directory_creates_or_copies_but_never_both() {
    let empty = |keys: &[(&str, &str)]| View {
        data_dir: DataDir::Empty,
        postgres: down(MemberRole::Uninitialized, PostgresState::Stopped, ControlState::Other),
        ..replica(cluster(keys))
    };
    // `initialize` has revision 5.
    let died = |claimed_at: i64| {
        let mut cluster = cluster(&[("initialize", ""), ("x/bootstrap", "b")]);
        cluster.own.get_mut("bootstrap").unwrap().revision = Revision(claimed_at);
        View { store: Store::Current(Arc::new(cluster)), ..empty(&[]) }
    };
    let (b, value) = member("b", "primary");
    let led = [("leader", "b"), ("initialize", SYSTEM_ID), (b.as_str(), value.as_str())];
    let clear = [Effect::ClearInitialize { seen: Revision(5) }];
    let copy = [Effect::Clone { source: "b".parse().unwrap(), wipe: false }];
    let none: &[Effect] = &[];
    for (name, view, effects, rule) in [
        ("nothing at all: races to create it", empty(&[]), &[Effect::Bootstrap][..], "BOO-1"),
        ("not without a bootstrap section", View { may_bootstrap: false, ..empty(&[]) }, none, "BOO-1"),
        (
            "not with nofailover",
            View { tags: OwnTags { nofailover: true, ..OwnTags::default() }, ..empty(&[]) },
            none,
            "BOO-1",
        ),
        (
            "a standby cluster is copied from the one that it follows",
            View { settings: Settings { standby_cluster: true, ..settings() }, ..empty(&[]) },
            &[Effect::Bootstrap],
            "BOO-2",
        ),
        ("somebody creates it: waits", empty(&[("initialize", "")]), none, "BOO-14"),
        (
            "somebody alive creates it: waits",
            empty(&[("initialize", ""), ("x/bootstrap", "b"), ("x/bootstrap_alive", "b")]),
            none,
            "BOO-14",
        ),
        ("the creator died: clears its claim", died(6), &clear, "QRK-11"),
        ("a claim older than initialize is about another attempt: it may be Patroni's now", died(4), none, "BOO-14"),
        ("somebody alive is about to create it: waits", empty(&[("x/bootstrap_alive", "b")]), none, "BOO-4"),
        (
            "what an earlier attempt of ours left: tries again",
            empty(&[("x/bootstrap_alive", "a")]),
            &[Effect::Bootstrap],
            "BOO-1",
        ),
        ("initialised, no leader: waits", empty(&[("initialize", SYSTEM_ID)]), none, "BOO-7"),
        ("garbage in initialize: waits", empty(&[("initialize", "x")]), none, "BOO-7"),
        ("a leader: copies it", empty(&led), &copy, "BOO-5"),
        ("in pause: nothing", View { settings: Settings { paused: true, ..settings() }, ..empty(&led) }, none, "DIR-4"),
        ("with the key: gives it up", empty(&[("leader", "a")]), &[Effect::Release], "DIR-2"),
        (
            "a server still runs on it: stops it first",
            View { postgres: postgres(MemberRole::Replica), ..empty(&[("leader", "a")]) },
            &[Effect::StopImmediately],
            "DIR-1",
        ),
        (
            "a server still runs on it in pause: the key stays with it",
            View {
                settings: Settings { paused: true, ..settings() },
                lease: held(1),
                postgres: postgres(MemberRole::Primary),
                ..empty(&[("leader", "a"), ("initialize", SYSTEM_ID), ("config", "{\"ttl\":30}")])
            },
            none,
            "DIR-4",
        ),
        (
            "a directory that cannot be looked at is not empty",
            View { data_dir: DataDir::Inaccessible { problem: "I/O error".to_owned() }, ..empty(&[]) },
            none,
            "DIR-3",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_store_that_lost_a_cluster_is_no_reason_to_create_another_one() {
    let empty = |cluster| View {
        data_dir: DataDir::Empty,
        postgres: down(MemberRole::Uninitialized, PostgresState::Stopped, ControlState::Other),
        ..replica(cluster)
    };
    let none: &[Effect] = &[];
    let (_, knows) = decide(&empty(three(Some("b"), &[])), &Memory::default());
    check("a member without data that has seen it waits", &empty(cluster(&[])), &knows, none, "INV-S20");
    let (_, unled) = decide(&empty(cluster(&[("initialize", SYSTEM_ID)])), &Memory::default());
    check("an identifier alone is no cluster", &empty(cluster(&[])), &unled, &[Effect::Bootstrap], "BOO-1");

    // Somebody who has not seen it is faster than the primary.
    let claimed = || cluster(&[("initialize", ""), ("x/bootstrap_alive", "d")]);
    let led = || primary(three(Some("a"), &[]));
    let (_, leads) = decide(&led(), &Memory::default());
    let store = [Effect::StoreSystemId { over: Some(Revision(5)) }];
    let lost = View { lease: Lease::NotOurs { holder: None }, ..primary(claimed()) };
    check("the primary restores the identifier over a claim", &lost, &leads, &store, "DIR-9");
    check("but not the primary of another cluster", &lost, &Memory::default(), none, "BOO-14");
}

#[test]
fn a_claim_whose_answer_was_lost_is_given_back() {
    let claimed = |lease: i64| {
        let (a, value) = member("a", "uninitialized");
        let mut cluster = cluster(&[("initialize", ""), ("x/bootstrap_alive", "a"), (a.as_str(), value.as_str())]);
        cluster.initialize_lease = LeaseId(lease);
        View {
            data_dir: DataDir::Empty,
            postgres: down(MemberRole::Uninitialized, PostgresState::Stopped, ControlState::Other),
            ..replica(cluster)
        }
    };
    let clear = [Effect::ClearInitialize { seen: Revision(5) }];
    let none: &[Effect] = &[];
    for (name, lease, effects, rule) in [
        ("under our own lease, and we create nothing", 1, &clear[..], "QRK-11"),
        ("under the lease of another member", 2, none, "BOO-14"),
        ("under no lease: it is Patroni's", 0, none, "BOO-14"),
    ] {
        check(name, &claimed(lease), &Memory::default(), effects, rule);
    }
}

#[test]
fn a_member_offering_itself_spares_the_leader() {
    let (b, b_value) = member("b", "primary");
    let (c, c_value) = member("c", "replica");
    let c_value = c_value.replacen('{', r#"{"tags":{"clonefrom":true},"#, 1);
    let keys =
        [("leader", "b"), (b.as_str(), b_value.as_str()), (c.as_str(), c_value.as_str()), ("initialize", SYSTEM_ID)];
    let view = View {
        data_dir: DataDir::Empty,
        postgres: down(MemberRole::Uninitialized, PostgresState::Stopped, ControlState::Other),
        ..replica(cluster(&keys))
    };
    let clone = [Effect::Clone { source: "c".parse().unwrap(), wipe: false }];
    check("c has the tag clonefrom", &view, &Memory::default(), &clone, "BOO-5");
}

#[test]
fn a_foreign_or_unknown_directory_is_never_touched() {
    let with_id = |initialize: Option<&str>, view: fn(Cluster) -> View| {
        let (a, value) = member("a", "replica");
        let mut keys = vec![(a.as_str(), value.as_str()), ("config", "{\"ttl\":30}")];
        keys.extend(initialize.map(|id| ("initialize", id)));
        view(cluster(&keys))
    };
    let exit = |leave_postgres| [Effect::Exit { code: 1, leave_postgres }];
    let foreign = Some("1234567890123");
    let unmanaged = |view: View| View { postgres: Postgres { managed: false, ..view.postgres }, ..view };
    let stopped = |cluster: Cluster| View {
        postgres: Postgres {
            managed: false,
            ..down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDown)
        },
        ..replica(cluster)
    };
    for (name, view, effects, rule) in [
        ("of another cluster: ends", with_id(foreign, replica), &exit(false)[..], "DIR-6"),
        (
            "of another cluster, in pause: only warns",
            View { settings: Settings { paused: true, ..settings() }, ..with_id(foreign, replica) },
            &[],
            "DIR-7",
        ),
        (
            "no identifier: says so",
            View { data_dir: DataDir::Present { system_id: None }, ..with_id(foreign, replica) },
            &[],
            "DIR-5",
        ),
        (
            "unknown to the store, a replica runs: leaves it alone",
            unmanaged(with_id(None, replica)),
            &exit(true),
            "DIR-8",
        ),
        (
            "a replica we manage never restores it: it stands, and the winner does",
            with_id(None, replica),
            &[Effect::Acquire],
            "RACE-10",
        ),
        ("unless somebody is creating a cluster", with_id(Some(""), replica), &[], "DIR-10"),
        (
            "unknown to the store, stopped: brings its identifier",
            with_id(None, stopped),
            &[Effect::StoreSystemId { over: None }],
            "DIR-9",
        ),
        (
            "garbage in the store, stopped: overwrites just that",
            with_id(Some("garbage"), stopped),
            &[Effect::StoreSystemId { over: Some(Revision(5)) }],
            "DIR-9",
        ),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_replica_follows_whoever_leads() {
    let led = || three(Some("b"), &[]);
    let with = |recovery| View { postgres: Postgres { recovery, ..postgres(MemberRole::Replica) }, ..replica(led()) };
    let b = || Some("b".parse().unwrap());
    let circle = || {
        let (c, value) = member("c", "replica");
        let value = value.replacen('{', r#"{"tags":{"replicatefrom":"a"},"#, 1);
        three(Some("b"), &[(c.as_str(), value.as_str())])
    };
    for (name, view, effects, rule) in [
        ("nothing differs", with(RecoveryDiff::Same), &[][..], "OWN-7"),
        ("a reload is enough", with(RecoveryDiff::Reload), &[Effect::ReloadUpstream { upstream: b() }], "FOL-10"),
        ("a restart is needed", with(RecoveryDiff::Restart), &[Effect::RestartForUpstream { upstream: b() }], "FOL-10"),
        (
            "cascades from the member it names",
            View {
                tags: OwnTags { replicatefrom: Some("c".to_owned()), ..OwnTags::default() },
                ..with(RecoveryDiff::Reload)
            },
            &[Effect::ReloadUpstream { upstream: Some("c".parse().unwrap()) }],
            "FOL-10",
        ),
        (
            "not from a member whose address nobody can read",
            View {
                tags: OwnTags { replicatefrom: Some("c".to_owned()), ..OwnTags::default() },
                ..View {
                    store: Store::Current(Arc::new(three(Some("b"), &[("members/c", "{}")]))),
                    ..with(RecoveryDiff::Reload)
                }
            },
            &[Effect::ReloadUpstream { upstream: b() }],
            "FOL-10",
        ),
        (
            "not from a member that follows this one: neither would get any WAL",
            View {
                tags: OwnTags { replicatefrom: Some("c".to_owned()), ..OwnTags::default() },
                ..View { store: Store::Current(Arc::new(circle())), ..with(RecoveryDiff::Reload) }
            },
            &[Effect::ReloadUpstream { upstream: b() }],
            "FOL-10",
        ),
        (
            "replay was paused by a raised parameter",
            View {
                postgres: Postgres {
                    facts: Some(Facts { replay_paused: true, ..facts(true) }),
                    ..postgres(MemberRole::Replica)
                },
                ..replica(led())
            },
            &[Effect::ResumeReplay],
            "FOL-7",
        ),
        ("a leader without a record is no reason to let go", replica(three(Some("d"), &[])), &[], "FOL-13"),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}

#[test]
fn a_replica_compares_with_a_moved_leader_once() {
    let (b, value) = member("b", "primary");
    let value = value.replace("\"timeline\":1", "\"timeline\":2");
    let not_streaming = Facts { streaming: false, ..facts(true) };
    let behind = View {
        postgres: Postgres {
            facts: Some(not_streaming),
            recovery: RecoveryDiff::Reload,
            ..postgres(MemberRole::Replica)
        },
        ..replica(three(Some("b"), &[(b.as_str(), value.as_str())]))
    };
    let compare = [Effect::CheckDivergence { leader: "b".parse().unwrap() }];
    let memory = check("the leader has moved on", &behind, &Memory::default(), &compare, "RWD-3");
    let facts = DivergenceFacts::Known {
        local: LocalPosition { timeline: Timeline::FIRST, lsn: Lsn(1000), was: LocalRole::Standby },
        local_history: Some(Vec::new()),
        leader_timeline: Timeline::new(2).unwrap(),
        leader_history: vec![(Timeline::FIRST, Lsn(1000))],
    };
    let outcome = Outcome::Divergence(Box::new(facts));
    let compared = View { finished: vec![Finished { kind: ActionKind::CheckDivergence, outcome }], ..behind.clone() };
    let reload = [Effect::ReloadUpstream { upstream: Some("b".parse().unwrap()) }];
    let memory = check("the same history: follows", &compared, &memory, &reload, "FOL-10");
    let settled = View { postgres: Postgres { recovery: RecoveryDiff::Same, ..behind.postgres.clone() }, ..behind };
    let memory = Memory { rewind: RewindState::Initial, ..memory };
    check("and does not compare again", &settled, &memory, &[], "OWN-7");
    let before = settled.postgres.facts.clone().unwrap();
    let further = Facts { position: Lsn(1200), replayed: Lsn(1200), ..before };
    let further = View { postgres: Postgres { facts: Some(further), ..settled.postgres.clone() }, ..settled };
    check("it had more WAL of its own than it knew: compares again", &further, &memory, &compare, "RWD-3");
}
