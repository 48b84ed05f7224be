//! The winner of a race becomes primary, and what is owed afterwards.

use super::*;

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
            "STB-1",
        ),
        (
            "synchronous mode: a member that /sync does not name gives the key up",
            View {
                lease: held(1),
                settings: Settings { sync: synchronous_on(), ..settings() },
                ..replica(three(Some("a"), &[("sync", r#"{"leader":"b","sync_standby":"c"}"#)]))
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
fn a_refusal_that_is_known_late_gives_nothing_up_under_a_primary() {
    let memory = Memory { refused: Some("the script said no".to_owned()), ..Memory::default() };
    let (decision, next) = decide(&primary(three(Some("a"), &[])), &memory);
    assert!(!decision.effects.contains(&Effect::Release), "INV-S12: {}", decision.reason);
    assert_eq!(next.refused, None, "it is not kept for the next promotion either");
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
fn a_promotion_that_does_not_end_is_given_up_where_another_member_can_lead() {
    let promoting = |seconds: u64| View {
        now: at(seconds),
        lease: Lease::Held { sent: at(seconds - 1), ttl: Duration::from_secs(30), epoch: Revision(5) },
        settings: Settings { primary_start_timeout: Duration::from_secs(60), ..settings() },
        postgres: postgres(MemberRole::Promoted),
        ..replica(three(Some("a"), &[]))
    };
    let fit = || poll(&[("b", Some(answer(1000))), ("c", None)]);
    let nobody = || poll(&[("b", None), ("c", None)]);
    let (_, memory) = decide(&promoting(100), &Memory::default());
    let late = || promoting(160);
    for (name, view, effects, rule) in [
        ("there is time left", View { poll: fit(), ..promoting(159) }, &[][..], "PRO-5"),
        ("too long: asks whether another could lead", late(), &[ask(&["b", "c"])], "FP-3"),
        (
            "too long and another can: stops what may become writable, then gives the key up",
            View { poll: fit(), ..late() },
            &[demote(DemoteMode::Immediate)],
            "ASY-9",
        ),
        ("too long, but nobody can", View { poll: nobody(), ..late() }, &[], "PRO-5"),
        (
            "the action that waits for its end has not ended",
            View { poll: fit(), action: action(ActionKind::Promote, 100, true), ..late() },
            &[],
            "ASY-2",
        ),
        (
            "in pause it is waited for",
            View { poll: fit(), settings: Settings { paused: true, ..late().settings }, ..late() },
            &[],
            "PRO-5",
        ),
    ] {
        check(name, &view, &memory, effects, rule);
    }
    let (_, memory) = decide(&primary(three(Some("a"), &[])), &memory);
    check("a later promotion has its own time", &View { poll: fit(), ..late() }, &memory, &[], "PRO-5");
}

#[test]
fn who_requires_a_watchdog_and_cannot_have_it_gives_the_key_up() {
    let fails = |view: View| View { watchdog_failure: Some("no such file".to_owned()), ..view };
    let led = || three(Some("a"), &[]);
    let demote = Effect::Demote { mode: DemoteMode::Immediate, upstream: None };
    let paused = View { settings: Settings { paused: true, ..settings() }, ..primary(led()) };
    for (name, view, effects, rule) in [
        ("a primary", fails(primary(led())), &[demote][..], "PRO-1"),
        ("a replica", fails(View { lease: held(1), ..replica(led()) }), &[Effect::Release], "PRO-2"),
        ("in pause (PAU-14)", fails(paused), &[], "OWN-3"),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
}
