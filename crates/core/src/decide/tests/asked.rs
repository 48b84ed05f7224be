//! What an operator asks of a member's PostgreSQL.

use super::operator::Request;
use super::*;

const RESTART: Request = Request::Restart { timeout: None };

fn asked(view: View, request: Request) -> View {
    View { request: Some(request), ..view }
}

fn copy(force: bool) -> Request {
    Request::Reinitialize { force, from_leader: false }
}

fn behind(leader: &str) -> View {
    replica(three(Some(leader), &[]))
}

#[test]
fn a_restart_keeps_the_role_and_needs_the_lease_of_a_primary() {
    let restart = |start: StartAs| [Effect::Restart(start)];
    let under_b = || restart(StartAs::Standby { upstream: Some(name("b")) });
    for (title, view, effects, rule) in [
        ("a primary", primary(three(Some("a"), &[])), &restart(StartAs::Primary)[..], "RST-3"),
        (
            "a primary in pause",
            View { settings: paused(), ..primary(three(Some("a"), &[])) },
            &restart(StartAs::Primary),
            "RST-3",
        ),
        ("a replica", behind("b"), &under_b(), "RST-3"),
        (
            "a replica whose cluster nobody leads",
            replica(three(None, &[])),
            &restart(StartAs::Standby { upstream: None }),
            "RST-3",
        ),
        ("a primary without the lease", View { lease: Lease::None, ..primary(three(Some("b"), &[])) }, &[], "RST-2"),
        (
            "a primary whose lease has nearly run out",
            View { lease: held(25), ..primary(three(Some("a"), &[])) },
            &[],
            "RST-2",
        ),
        (
            "a server that is down",
            View {
                postgres: down(
                    MemberRole::Replica,
                    PostgresState::Stopped,
                    super::rewind::ControlState::ShutDownInRecovery,
                ),
                ..behind("b")
            },
            &[],
            "RST-2",
        ),
        (
            "something else is under way",
            View { action: action(ActionKind::Rewind, 90, false), ..behind("b") },
            &[],
            "RST-2",
        ),
        (
            "the checkpoint after a promotion is no hindrance",
            View { action: action(ActionKind::Checkpoint, 90, false), ..primary(three(Some("a"), &[])) },
            &restart(StartAs::Primary),
            "RST-3",
        ),
    ] {
        check(title, &asked(view, RESTART), &Memory::default(), effects, rule);
    }
}

#[test]
fn a_refusal_says_what_is_in_the_way() {
    let view = View { action: action(ActionKind::Rewind, 90, false), ..behind("b") };
    let (decision, _) = decide(&asked(view, RESTART), &Memory::default());
    assert_eq!(decision.reason, Reason::RequestRefused { why: "rewind already in progress".to_owned() });
}

#[test]
fn a_restart_that_takes_as_long_as_it_was_allowed_to_is_waited_for() {
    let request = Request::Restart { timeout: Some(Duration::from_secs(600)) };
    let (_, memory) = decide(&asked(primary(three(Some("a"), &[])), request), &Memory::default());
    // The action has begun, and PostgreSQL does not know it yet.
    let begun = View { action: action(ActionKind::Restart, 100, false), ..primary(three(Some("a"), &[])) };
    let (_, memory) = decide(&begun, &memory);
    let late = Postgres { starting_since: Some(at(0)), ..starting(MemberRole::Primary) };
    let view = View {
        now: at(400),
        lease: Lease::Held { sent: at(399), ttl: Duration::from_secs(30), epoch: Revision(5) },
        postgres: late,
        ..primary(three(Some("a"), &[]))
    };
    check("600 s are allowed", &view, &memory, &[], "STA-6");
    check("300 s are the default", &view, &Memory::default(), &[ask(&["b", "c"])], "FP-3");
}

#[test]
fn a_primary_that_loses_its_lease_in_a_restart_is_stopped_at_once() {
    let view = View {
        lease: Lease::NotOurs { holder: Some(name("b")) },
        action: action(ActionKind::Restart, 99, false),
        ..primary(three(Some("b"), &[]))
    };
    let effects = [Effect::CancelAction, demote(DemoteMode::ImmediateNoLock)];
    check("cancelled and stopped", &view, &Memory::default(), &effects, "ASY-5");
}

#[test]
fn only_a_replica_of_a_leader_is_copied_anew() {
    let from = |source: &str| [Effect::Clone { source: name(source), wipe: true }];
    let offers = r#"{"conn_url":"postgres://c:5432/postgres","api_url":"http://c:8008/patroni","state":"running","role":"replica","tags":{"clonefrom":true}}"#;
    let offered = || replica(three(Some("b"), &[("members/c", offers)]));
    let cancelled = |kind| Some(RunningAction { kind, since: at(90), committed: false, cancelled: true });
    for (title, view, request, effects, rule) in [
        ("from the leader", behind("b"), copy(false), &from("b")[..], "RNT-2"),
        ("in pause", View { settings: paused(), ..behind("b") }, copy(false), &from("b"), "RNT-2"),
        ("from a member that offers itself", offered(), copy(false), &from("c"), "RNT-2"),
        (
            "from the leader when asked for",
            offered(),
            Request::Reinitialize { force: false, from_leader: true },
            &from("b"),
            "RNT-2",
        ),
        ("not the leader", primary(three(Some("a"), &[])), copy(true), &[], "RNT-1"),
        ("not without a leader", replica(three(None, &[])), copy(true), &[], "RNT-1"),
        ("not a primary", View { lease: Lease::None, ..primary(three(Some("b"), &[])) }, copy(true), &[], "RNT-1"),
        (
            "not while something else is under way",
            View { action: action(ActionKind::Clone, 90, false), ..behind("b") },
            copy(false),
            &[],
            "RNT-1",
        ),
        (
            "by force: what is under way is cancelled",
            View { action: action(ActionKind::Clone, 90, false), ..behind("b") },
            copy(true),
            &[Effect::CancelAction],
            "RNT-1",
        ),
        ("by force: once", View { action: cancelled(ActionKind::Clone), ..behind("b") }, copy(true), &[], "RNT-1"),
        (
            "by force, but never a demotion",
            View { action: action(ActionKind::Demote, 90, false), ..behind("b") },
            copy(true),
            &[],
            "RNT-1",
        ),
    ] {
        check(title, &asked(view, request), &Memory::default(), effects, rule);
    }
}
