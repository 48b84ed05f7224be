//! Decisions kept, taken again and tried ahead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::phases::Kind;
use super::replay::Difference;
use super::ring::{Noted, Ring};
use super::what_if::{Event, Live, Loss, Observed, Projection, Verdict, what_if};
use super::{Phases, Step, replay, words};
use crate::cluster::{Cluster, MemberRole};
use crate::decide::testing::*;
use crate::decide::view::{ActionKind, Facts, Lease, Outcome, OwnTags, Postgres, Settings, Store, View};
use crate::decide::{Decision, Effect, Memory, Reason, decide};
use crate::names::MemberName;
use crate::wal::{Lsn, Timeline};

fn step(view: View) -> Step {
    let memory = Memory::default();
    let decision = decide(&view, &memory).0;
    Step { view, memory, decision }
}

#[test]
fn a_record_taken_again_gives_the_same_decision() {
    let request = [("failover", r#"{"leader":"b","member":"c"}"#), ("history", r#"[[1,100,"x","2026-01-01","b"]]"#)];
    let views = [
        replica(three(Some("b"), &[])),
        replica(three(None, &request)),
        replica(three(Some("not a/name"), &[])),
        primary(three(Some("a"), &request)),
        View { store: Store::Lost { error: "timeout".to_owned() }, ..primary(three(Some("a"), &[])) },
        View {
            finished: ended(ActionKind::Rewind, Outcome::Failed("password=hunter2 refused".to_owned())),
            poll: poll(&[("b", Some(answer(1000))), ("c", None)]),
            ..replica(three(None, &[]))
        },
    ];
    for view in views {
        let first = step(view);
        let read = Step::from_document(first.to_document()).unwrap();
        assert_eq!(read.to_document(), first.to_document());
        assert_eq!(replay(&read).differences, [], "{}", first.decision.reason);
    }
}

#[test]
fn a_decision_that_is_taken_otherwise_now_is_shown_part_by_part() {
    let mut recorded = step(replica(three(Some("b"), &[])));
    recorded.decision = Decision { effects: vec![Effect::Promote], ..Reason::Leads.alone() };
    let differences = replay(&recorded).differences;
    let difference = |part: &str, recorded: &str, now: &str| Difference {
        part: part.to_owned(),
        recorded: recorded.to_owned(),
        now: now.to_owned(),
    };
    let want = [
        difference("effects", r#"["Promote"]"#, "[]"),
        difference("reason", r#""Leads""#, r#"{"Follows":{"leader":"b"}}"#),
    ];
    assert_eq!(differences, want);
}

/// What a ring of decisions holds, as `times reason`.
fn held_by(ring: &Ring) -> Vec<String> {
    ring.entries().map(|entry| format!("{} {}", entry.tally.times, entry.step.decision.reason.name())).collect()
}

#[test]
fn what_is_repeated_is_counted_and_questions_count_only_when_the_answers_change_something() {
    let mut ring = Ring::default();
    let mut note = |view: View| ring.note(step(view), Memory::default());
    let asks = || replica(three(None, &[]));
    let answered =
        |theirs| View { poll: poll(&[("b", Some(answer(theirs))), ("c", None)]), ..replica(three(None, &[])) };
    assert!(matches!(note(replica(three(Some("b"), &[]))), Noted::New(new) if new.len() == 1));
    assert!(matches!(note(replica(three(Some("b"), &[]))), Noted::Again(tally) if tally.times == 2));
    assert_eq!(note(asks()), Noted::Waits);
    assert!(matches!(note(answered(2000)), Noted::New(new) if new.len() == 2), "the question comes with its answers");
    assert_eq!(note(asks()), Noted::Waits);
    assert!(matches!(note(answered(2000)), Noted::Again(tally) if tally.times == 2));
    assert_eq!(note(asks()), Noted::Waits);
    assert!(matches!(note(answered(10)), Noted::New(new) if new.len() == 2));
    assert_eq!(held_by(&ring), ["2 Follows", "1 AsksBeforeRace", "2 MemberAhead", "1 AsksBeforeRace", "1 Stands"]);
}

#[test]
fn a_ring_is_bounded_and_keeps_the_newest() {
    let mut ring = Ring::default();
    for number in 0..Ring::ENTRIES_MAX + 10 {
        let leader = if number % 2 == 0 { "b" } else { "c" };
        ring.note(step(replica(three(Some(leader), &[]))), Memory::default());
    }
    assert_eq!(ring.entries().len(), Ring::ENTRIES_MAX);
    let earlier = ring.entries().take(5).cloned().collect();
    ring.put_before(earlier);
    assert_eq!(ring.entries().len(), Ring::ENTRIES_MAX, "what an earlier run left makes room first");
}

/// Member `name` of three, as it is in `cluster`.
fn observed(name: &str, cluster: &Cluster, position: u64, tags: OwnTags) -> Observed {
    let me: MemberName = name.parse().unwrap();
    let leads = cluster.is_led_by(&me);
    let base = if leads { primary(cluster.clone()) } else { replica(cluster.clone()) };
    let facts = Facts { position: Lsn(position), replayed: Lsn(position), ..facts(!leads) };
    let postgres = Postgres { facts: Some(facts), ..base.postgres.clone() };
    let mut status = answer(position);
    (status.in_recovery, status.nofailover) = (!leads, tags.nofailover);
    Observed { view: View { me, tags, postgres, ..base }, memory: Memory::default(), status: Some(status) }
}

fn prefers(priority: i64) -> OwnTags {
    OwnTags { failover_priority: priority, nofailover: priority == 0, ..OwnTags::default() }
}

/// `a` leads, `b` is caught up, `c` is as the arguments say.
fn live(c_position: u64, c_tags: OwnTags) -> Live {
    let cluster = three(Some("a"), &[("status", r#"{"optime":100000000}"#)]);
    let members = [
        observed("a", &cluster, 100_000_000, prefers(1)),
        observed("b", &cluster, 100_000_000, prefers(1)),
        observed("c", &cluster, c_position, c_tags),
    ];
    let members = members.into_iter().map(|observed| (observed.view.me.clone(), observed)).collect();
    Live { cluster: Arc::new(cluster), members }
}

fn changed(mut live: Live, change: impl Fn(&mut View)) -> Live {
    live.members.values_mut().for_each(|observed| change(&mut observed.view));
    live
}

/// A projection as lines: seconds, member, what.
fn story(projection: &Projection) -> Vec<String> {
    let line = |step: &crate::explain::what_if::Step| {
        let what = match &step.event {
            Event::Lost => "lost".to_owned(),
            Event::CutOff => "cut off".to_owned(),
            Event::LeaseEnds { of } => format!("the lease of {of} ends"),
            Event::Decides { reason, effects } if effects.is_empty() => reason.name().to_owned(),
            Event::Decides { reason, effects } => format!("{}: {}", reason.name(), words::effects(effects)),
            Event::LosesRace { to } => format!("{to} was faster"),
            Event::IsPrimary => "is primary".to_owned(),
            Event::IsNoPrimary => "is no primary".to_owned(),
            Event::NotForeseen => "not foreseen".to_owned(),
        };
        let member = step.member.as_ref().map_or("-", MemberName::as_str);
        format!("{} {member} {what}", step.after.as_secs())
    };
    projection.steps.iter().map(line).collect()
}

fn verdict(projection: &Projection, member: &str) -> String {
    match &projection.outcome.verdicts[&name(member)] {
        Verdict::Wins(reason) => format!("wins: {}", reason.name()),
        Verdict::Stands(reason) => format!("stands: {}", reason.name()),
        Verdict::DoesNot(reason) => words::with_rules(reason),
        Verdict::Unknown => "unknown".to_owned(),
    }
}

fn lose(member: &str) -> Loss {
    Loss::Member(name(member))
}

#[test]
fn a_lost_leader_is_followed_by_the_fittest_when_its_lease_has_run_out() {
    let projection = what_if(&live(100_000_000, prefers(0)), &lose("a"));
    let want = [
        "0 a lost",
        "30 - the lease of a ends",
        "30 b Stands: acquire the leader key",
        "30 c NoFailover",
        "30 b Promotes: promote",
        "30 b is primary",
        "30 c ChangesUpstream: follow b by a reload",
        "30 b Checkpoints: checkpoint",
        "30 c ChecksDivergence: compare histories with b",
        "30 b Leads",
        "30 c Follows",
    ];
    assert_eq!(story(&projection), want);
    assert_eq!(projection.outcome.primary, Some(name("b")));
    assert_eq!(projection.outcome.primary_after, Some(Duration::from_secs(30)));
    assert_eq!(projection.outcome.contenders, []);
    assert_eq!(verdict(&projection, "b"), "wins: Stands");
}

#[test]
fn each_of_the_others_has_its_reason() {
    let paused = |view: &mut View| view.settings.paused = true;
    let synchronous = |view: &mut View| view.settings.sync = synchronous_on();
    let watched = live(100_000_000, prefers(1));
    for (what, live, c, winner) in [
        (
            "too far behind",
            live(100_000_000 - (48 << 20), prefers(1)),
            "48 MB behind the last leader, more than the 1 MB allowed [RACE-1]",
            Some("b"),
        ),
        (
            "behind another one",
            live(99_999_000, prefers(1)),
            "b is 1000 bytes ahead (0/5F5E100, this member has 0/5F5DD18) [RACE-6, QRK-4]",
            Some("b"),
        ),
        ("as fit: whoever is faster", watched.clone(), "stands: Stands", Some("b")),
        ("preferred", live(100_000_000, prefers(5)), "wins: Stands", Some("c")),
        (
            "in pause",
            changed(watched.clone(), paused),
            "nobody holds the leader key, and replicas do not stand in pause [HLT-6, PAU-6]",
            None,
        ),
        ("a setting without effect", changed(watched.clone(), synchronous), "stands: Stands", Some("b")),
        (
            "a member that said nothing",
            {
                let mut silent = watched;
                silent.members.remove(&name("c"));
                silent
            },
            "unknown",
            Some("b"),
        ),
    ] {
        let projection = what_if(&live, &lose("a"));
        assert_eq!(verdict(&projection, "c"), c, "{what}");
        let winner = winner.map(name);
        assert_eq!(projection.outcome.primary, winner, "{what}: {:?}", story(&projection));
    }
    let both = what_if(&live(100_000_000, prefers(1)), &lose("a"));
    assert_eq!(both.outcome.contenders, [name("c")], "it may win as well");
}

#[test]
fn without_the_store_the_primary_steps_down_before_its_lease_ends() {
    let projection = what_if(&live(100_000_000, prefers(1)), &Loss::Store);
    let want = [
        "0 - cut off",
        "0 a StoreSilentLeaseGood",
        "0 b StoreSilentReplica",
        "0 c StoreSilentReplica",
        "24 a StoreSilentDemote: stop in order, then start read-only",
        "24 a is no primary",
        "24 a StoreSilentReplica",
    ];
    assert_eq!(story(&projection), want);
    let outcome = projection.outcome;
    assert_eq!((outcome.primary, outcome.primary_after), (None, None));
    let writable_until = outcome.former_writable_until.unwrap();
    assert!(writable_until < Duration::from_secs(28), "{writable_until:?}");
}

#[test]
fn a_leader_that_is_cut_off_stops_before_the_others_elect() {
    let apart = Loss::Partition(BTreeSet::from([name("a")]));
    let projection = what_if(&live(100_000_000, prefers(0)), &apart);
    let outcome = &projection.outcome;
    assert_eq!(outcome.primary, Some(name("b")), "{:?}", story(&projection));
    assert!(outcome.former_writable_until < outcome.primary_after, "{:?}", story(&projection));
    assert!(!outcome.verdicts.contains_key(&name("a")));
    let minority = Loss::Partition(BTreeSet::from([name("b"), name("c")]));
    let projection = what_if(&live(100_000_000, prefers(1)), &minority);
    assert_eq!(projection.outcome.primary, Some(name("a")), "it goes on: {:?}", story(&projection));
    assert_eq!(projection.outcome.primary_after, None);
}

#[test]
fn the_loss_of_a_replica_changes_nothing() {
    let projection = what_if(&live(100_000_000, prefers(1)), &lose("c"));
    assert_eq!(story(&projection), ["0 c lost"]);
    assert_eq!(projection.outcome.primary, Some(name("a")));
    assert!(projection.outcome.verdicts.is_empty());
}

#[test]
fn what_goes_on_without_a_leader_is_told_too() {
    let mut live = live(100_000_000, prefers(0));
    live.members.remove(&name("a"));
    let mut cluster = three(None, &[]);
    cluster.members.remove(&name("a"));
    live.cluster = Arc::new(cluster);
    let projection = what_if(&live, &Loss::Nothing);
    assert_eq!(projection.outcome.primary, Some(name("b")), "{:?}", story(&projection));
    assert_eq!(projection.outcome.primary_after, Some(Duration::ZERO));
}

/// A member's own look at a change of leader, second by second.
struct Look {
    phases: Phases,
    cluster: Cluster,
}

impl Look {
    fn at_second(&mut self, second: u64, change: impl FnOnce(&mut View)) {
        let mut view = View { now: at(100 + second), ..replica(self.cluster.clone()) };
        change(&mut view);
        let decision = decide(&view, &Memory::default()).0;
        self.phases.note(&view, &decision);
    }
}

fn leads(second: u64) -> Lease {
    Lease::Held { sent: at(100 + second), ttl: Duration::from_secs(30), epoch: crate::cluster::Revision(11) }
}

#[test]
fn the_phases_of_a_failover_are_measured() {
    let mut look = Look { phases: Phases::default(), cluster: three(Some("b"), &[]) };
    look.at_second(0, |_| {});
    let without_stream = |view: &mut View| view.postgres.facts.as_mut().unwrap().streaming = false;
    look.at_second(10, without_stream);
    look.cluster = three(None, &[]);
    look.at_second(20, without_stream);
    look.at_second(22, |view| {
        without_stream(view);
        view.lease = leads(22);
    });
    assert_eq!(look.phases.changes().len(), 0, "a change counts once there is a primary");
    let follower = |timeline: u32| {
        let state = r#""state":"running","role":"replica","replication_state":"streaming""#;
        format!(r#"{{{state},"timeline":{timeline}}}"#)
    };
    let cluster = |timeline| three(Some("a"), &[("members/b", "{}"), ("members/c", &follower(timeline))]);
    let is_primary = |position: u64| {
        move |view: &mut View| {
            view.lease = leads(25);
            let facts = Facts { position: Lsn(position), timeline: Timeline::new(2), ..facts(false) };
            view.postgres = Postgres { facts: Some(facts), ..postgres(MemberRole::Primary) };
        }
    };
    look.cluster = cluster(1);
    look.at_second(25, is_primary(1000));
    look.at_second(26, is_primary(1500));
    look.cluster = cluster(2);
    look.at_second(27, is_primary(9000));
    look.at_second(40, is_primary(19_000));
    let change = look.phases.changes().next().unwrap().clone();
    assert_eq!((change.kind, change.from.as_str(), change.timeline), (Kind::Failover, "b", Timeline::new(2)));
    assert_eq!(change.stream_lost_before, Some(Duration::from_secs(10)));
    let seconds = |span: Option<Duration>| span.map(|span| span.as_secs());
    let ends: Vec<_> = change.phases().into_iter().map(|(phase, end)| (phase, seconds(end))).collect();
    let want = [("acquired", Some(2)), ("promoted", Some(5)), ("first_write", Some(7)), ("followed", Some(7))];
    assert_eq!(ends, want);
    assert_eq!((look.phases.count(Kind::Failover), look.phases.count(Kind::Switchover)), (1, 0));
}

#[test]
fn a_request_makes_it_a_switchover_and_a_primary_that_returns_no_change() {
    let mut look = Look { phases: Phases::default(), cluster: three(Some("b"), &[]) };
    look.at_second(0, |_| {});
    look.cluster = three(None, &[("failover", r#"{"leader":"b","member":"a"}"#)]);
    look.at_second(1, |_| {});
    look.cluster = three(Some("a"), &[]);
    look.at_second(2, |view| view.lease = leads(2));
    look.at_second(3, |view| *view = View { now: view.now, lease: leads(3), ..primary(three(Some("a"), &[])) });
    assert_eq!((look.phases.count(Kind::Failover), look.phases.count(Kind::Switchover)), (0, 1));
    look.cluster = three(None, &[]);
    look.at_second(4, |view| view.postgres = postgres(MemberRole::Primary));
    look.at_second(5, |view| *view = View { now: view.now, lease: leads(5), ..primary(three(Some("a"), &[])) });
    assert_eq!(look.phases.changes().len(), 1);
}

#[test]
fn a_refusal_counts_once_however_often_it_is_repeated() {
    let mut look = Look { phases: Phases::default(), cluster: three(None, &[]) };
    let tagged = |view: &mut View| view.tags.nofailover = true;
    look.at_second(0, tagged);
    look.at_second(10, |_| {}); // Asks the others.
    look.at_second(20, tagged);
    look.at_second(21, |view| view.settings = Settings { paused: true, ..settings() });
    look.cluster = three(Some("b"), &[]);
    look.at_second(30, |_| {});
    look.cluster = three(None, &[]);
    look.at_second(40, tagged);
    assert_eq!(look.phases.refusals().collect::<Vec<_>>(), [("HLT-6", 1), ("HLT-7", 2)]);
}
