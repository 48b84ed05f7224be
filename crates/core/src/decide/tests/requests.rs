//! Requests to move the leadership, as the leader sees them.

use super::*;

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
fn a_request_has_its_effect_once_whoever_was_to_clear_it() {
    let asked = |request: &str| primary(three(Some("a"), &[("failover", request)]));
    let fit = poll(&[("b", Some(answer(1000))), ("c", Some(answer(1000)))]);
    let to_b = || View { poll: fit.clone(), ..asked(r#"{"leader":"a","member":"b"}"#) };
    let clear = [Effect::RewriteFailover { request: None, seen: Some(Revision(5)) }];
    let steps_down = [demote(DemoteMode::Graceful)];
    let memory = check("steps down", &to_b(), &Memory::default(), &steps_down, "MAN-L7");

    // The key could not be released, and names this member again.
    let after = |outcome| View { finished: ended(ActionKind::Demote, outcome), ..to_b() };
    let done = check("it did, and leads again", &after(Outcome::Done), &memory, &clear, "INV-S17");
    check("the write that clears it is lost, too", &to_b(), &done, &clear, "INV-S17");
    let failed = after(Outcome::Failed("it did not stop".to_owned()));
    check("it did not: goes on to step down", &failed, &memory, &steps_down, "MAN-L7");
    let mut again = three(Some("a"), &[("failover", r#"{"leader":"a","member":"b"}"#)]);
    again.failover.as_mut().unwrap().revision = Revision(9);
    let again = View { poll: fit.clone(), ..primary(again) };
    check("another request of the same words counts", &again, &done, &steps_down, "MAN-L7");

    // Nobody led, this member took the key, and its write that clears the request was lost.
    let unlocked = replica(three(None, &[("failover", r#"{"member":"b"}"#)]));
    let silent = poll(&[("b", None), ("c", None)]);
    let take = [Effect::Acquire, Effect::RewriteFailover { request: None, seen: None }];
    let memory = check("the candidate is gone", &View { poll: silent, ..unlocked }, &Memory::default(), &take, "UNL-3");
    let back = View { poll: fit, ..asked(r#"{"member":"b"}"#) };
    check("the candidate is back, and the request still there", &back, &memory, &clear, "INV-S17");
}

#[test]
fn a_schedule_is_judged_by_a_tick_of_any_length() {
    let request = r#"{"leader":"a","member":"b","scheduled_at":"2026-01-01T00:00:00Z"}"#;
    let mut view = primary(three(Some("a"), &[("failover", request)]));
    view.settings.loop_wait = Duration::MAX;
    let (decision, _) = decide(&view, &Memory::default());
    assert!(matches!(decision.reason, Reason::AsksWhetherFailoverPossible), "TIM-8: {}", decision.reason);
}
