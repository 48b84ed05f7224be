//! Timelines of the same number that are not the same (RWD-5).

use super::rewind::{ControlState, DivergenceFacts, LocalPosition, LocalRole};
use super::*;

/// What a check found: timeline 2 began elsewhere here than with the leader, which is on `leader_timeline`.
fn forked_from(leader_timeline: u32) -> Vec<Finished> {
    let second = Timeline::new(2).unwrap();
    let mut leader_history = vec![(Timeline::FIRST, Lsn(900)), (second, Lsn(2000))];
    leader_history.truncate(leader_timeline as usize - 1);
    let facts = DivergenceFacts::Known {
        local: LocalPosition { timeline: second, lsn: Lsn(1000), was: LocalRole::Standby },
        local_history: Some(vec![(Timeline::FIRST, Lsn(800))]),
        leader_timeline: Timeline::new(leader_timeline).unwrap(),
        leader_history,
    };
    vec![Finished { kind: ActionKind::CheckDivergence, outcome: Outcome::Divergence(Box::new(facts)) }]
}

/// Three members of which b leads on this timeline.
fn led_on(timeline: u32) -> Cluster {
    let (b, value) = member("b", "primary");
    let value = value.replace("\"timeline\":1", &format!("\"timeline\":{timeline}"));
    three(Some("b"), &[(b.as_str(), value.as_str())])
}

#[test]
fn a_forked_member_does_not_follow_a_leader_whose_timeline_only_has_the_same_number() {
    let compared = Memory { compared_with: Some("b".parse().unwrap()), ..Memory::default() };
    let stopped = |settings: Settings, leader_timeline| View {
        settings,
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDownInRecovery),
        finished: forked_from(leader_timeline),
        ..replica(led_on(leader_timeline))
    };
    let running = |settings: Settings, leader_timeline| {
        let facts = Facts { timeline: Timeline::new(2), ..facts(true) };
        let postgres = Postgres { facts: Some(facts), ..postgres(MemberRole::Replica) };
        View { postgres, ..stopped(settings, leader_timeline) }
    };
    let no_rewind = || Settings { use_pg_rewind: false, ..settings() };
    let copy = [Effect::Clone { source: "b".parse().unwrap(), wipe: true }];
    let rewind = [Effect::Rewind { source: "b".parse().unwrap() }];
    let on_failure = |settings| Settings { wipe_on_rewind_failure: true, ..settings };
    let on_divergence = |settings| Settings { wipe_on_divergence: true, ..settings };
    let stop = [Effect::StopImmediately];
    for (name, view, effects, rule) in [
        ("down, nothing allowed: is not started", stopped(settings(), 2), &[][..], "RWD-5"),
        ("down, no rewind, nothing allowed: is not started", stopped(no_rewind(), 2), &[], "RWD-5"),
        ("running, nothing allowed: is stopped", running(settings(), 2), &stop, "RWD-5"),
        ("running in pause: is left alone", running(Settings { paused: true, ..settings() }, 2), &[], "RWD-5"),
        ("a copy after a failed rewind is allowed", stopped(on_failure(settings()), 2), &copy, "RWD-12"),
        ("that asks for a rewind that is possible", stopped(on_failure(no_rewind()), 2), &[], "RWD-5"),
        ("a copy of what has parted is allowed", stopped(on_divergence(no_rewind()), 2), &copy, "RWD-13"),
        ("running, a copy is allowed", running(on_divergence(settings()), 2), &copy, "RWD-13"),
        ("the leader is on a later timeline: pg_rewind sees it", stopped(settings(), 3), &rewind, "RWD-9"),
        ("but is switched off: is not started", stopped(no_rewind(), 3), &[], "RWD-5"),
    ] {
        check(name, &view, &compared, effects, rule);
    }
}

#[test]
fn a_replica_that_followed_somebody_who_was_promoted_beside_its_leader_compares() {
    let on_second = |streaming| View {
        postgres: Postgres {
            facts: Some(Facts { timeline: Timeline::new(2), streaming, ..facts(true) }),
            ..postgres(MemberRole::Replica)
        },
        ..replica(led_on(1))
    };
    let compare = [Effect::CheckDivergence { leader: "b".parse().unwrap() }];
    for (name, streaming, effects, rule) in [
        ("ahead of its leader, and streams nothing", false, &compare[..], "RWD-3"),
        ("its leader's record is older than what it streams", true, &[], "FOL-12"),
    ] {
        check(name, &on_second(streaming), &Memory::default(), effects, rule);
    }
}

#[test]
fn what_forked_is_judged_anew_when_the_leader_moves_on_and_never_started_after_a_failed_rewind() {
    let compared = Memory { compared_with: Some("b".parse().unwrap()), ..Memory::default() };
    let stopped = |finished, leader_timeline| View {
        postgres: down(MemberRole::Demoted, PostgresState::Stopped, ControlState::ShutDownInRecovery),
        finished,
        ..replica(led_on(leader_timeline))
    };
    let forked = check("forked", &stopped(forked_from(2), 2), &compared, &[], "RWD-5");
    let forked = check("and still", &stopped(Vec::new(), 2), &forked, &[], "RWD-5");
    let compare = [Effect::CheckDivergence { leader: "b".parse().unwrap() }];
    let checks = check("the leader is on timeline 3 now", &stopped(Vec::new(), 3), &forked, &compare, "RWD-3");
    let rewind = [Effect::Rewind { source: "b".parse().unwrap() }];
    let rewinds = check("which pg_rewind can tell apart", &stopped(forked_from(3), 3), &checks, &rewind, "RWD-9");
    let failed = vec![Finished { kind: ActionKind::Rewind, outcome: Outcome::Failed("no WAL".to_owned()) }];
    check("it failed", &stopped(failed, 3), &rewinds, &[], "RWD-5");
    let alone = View { store: Store::Current(Arc::new(three(None, &[]))), ..stopped(Vec::new(), 2) };
    check(
        "nobody leads: there is nobody to stream from",
        &alone,
        &forked,
        &[Effect::Start(StartAs::Standby { upstream: None })],
        "REC-11",
    );
}

#[test]
fn a_replica_on_a_timeline_with_the_number_of_the_leaders_compares_once() {
    let facts = Facts { timeline: Timeline::new(2), ..facts(true) };
    let postgres = Postgres { facts: Some(facts), ..postgres(MemberRole::Replica) };
    let view = View { postgres, ..replica(led_on(2)) };
    let compare = [Effect::CheckDivergence { leader: "b".parse().unwrap() }];
    let moved = View { postgres: Postgres { recovery: RecoveryDiff::Reload, ..view.postgres.clone() }, ..view.clone() };
    check("about to follow it: compares before", &moved, &Memory::default(), &compare, "RWD-3");
    let asked = check("it streams already", &view, &Memory::default(), &compare, "RWD-3");
    let mut finished = forked_from(2);
    for end in &mut finished {
        if let Outcome::Divergence(facts) = &mut end.outcome
            && let DivergenceFacts::Known { local_history, leader_history, .. } = &mut **facts
        {
            *local_history = Some(leader_history.clone());
        }
    }
    let same = check("the same one: follows", &View { finished, ..view.clone() }, &asked, &[], "OWN-7");
    check("and does not compare again", &view, &same, &[], "OWN-7");
    let elsewhere = Memory { compared_with: Some("c".parse().unwrap()), ..same };
    check("unless that was with another leader", &view, &elsewhere, &compare, "RWD-3");
    let first =
        View { store: Store::Current(Arc::new(led_on(1))), postgres: super::postgres(MemberRole::Replica), ..view };
    check("the first timeline has no namesake", &first, &Memory::default(), &[], "OWN-7");
}
