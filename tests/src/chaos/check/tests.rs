//! Histories written by hand: each holds one anomaly, and a clean one holds none.

use super::*;
use crate::chaos::history::{Disturbance, Server};

fn ms(at: u64) -> Duration {
    Duration::from_millis(at)
}

/// An operation on key 1 that takes from `sent` to `ended` milliseconds.
fn operation(request: Request, (sent, ended): (u64, u64), outcome: Outcome) -> Operation {
    Operation { client: 0, key: 1, request, sent: ms(sent), ended: ms(ended), outcome }
}

fn by(node: usize, timeline: u32, list: &[u64]) -> Outcome {
    Outcome::Done { by: Server { node, timeline: Some(timeline) }, list: list.to_vec() }
}

fn append(value: u64, at: u64, outcome: Outcome) -> Operation {
    operation(Request::Append(value), (at, at + 5), outcome)
}

fn read(at: u64, outcome: Outcome) -> Operation {
    operation(Request::Read, (at, at + 5), outcome)
}

fn history(operations: Vec<Operation>, last: &[u64]) -> History {
    History { operations, last: BTreeMap::from([(1, last.to_vec())]), disturbances: Vec::new() }
}

/// Two reigns: node 0 on timeline 1 until 30 ms, node 1 on timeline 2 from 1000 ms.
fn two_reigns() -> Vec<Operation> {
    vec![
        append(1, 10, by(0, 1, &[1])),
        append(2, 20, by(0, 1, &[1, 2])),
        read(25, by(0, 1, &[1, 2])),
        append(3, 1000, by(1, 2, &[1, 2, 3])),
        append(4, 1010, by(1, 2, &[1, 2, 3, 4])),
    ]
}

/// The history of [`two_reigns`], changed.
fn with(change: impl FnOnce(&mut History)) -> History {
    let mut history = history(two_reigns(), &[1, 2, 3, 4]);
    change(&mut history);
    history
}

fn anomalies(history: &History) -> Vec<Anomaly> {
    check(history).anomalies
}

#[test]
fn a_clean_history_passes() {
    let history = with(|h| {
        h.operations.push(append(5, 40, Outcome::Failed));
        h.operations.push(append(6, 45, Outcome::Unknown));
        let replica = Server { node: 2, timeline: None };
        h.operations.push(read(1020, Outcome::Done { by: replica, list: vec![1, 2] }));
    });
    let verdict = check(&history);
    assert_eq!(verdict.anomalies, []);
    assert!(verdict.is_clean());
    assert_eq!((verdict.acked, verdict.failed, verdict.unknown, verdict.reads), (4, 1, 1, 2));
    assert_eq!(verdict.reigns.len(), 2);
    assert_eq!(verdict.loss_window, []);
}

#[test]
fn a_run_without_an_acknowledged_append_is_not_clean() {
    assert!(!check(&history(vec![append(1, 10, Outcome::Unknown)], &[1])).is_clean());
}

#[test]
fn an_append_of_unknown_outcome_may_be_there_or_not() {
    let unknown = || with(|h| h.operations.push(append(7, 50, Outcome::Unknown)));
    assert_eq!(anomalies(&unknown()), []);
    let mut there = unknown();
    there.last.insert(1, vec![1, 2, 3, 4, 7]);
    assert_eq!(anomalies(&there), []);
}

#[test]
fn a_lost_append_is_found() {
    let lost = Anomaly::Lost { value: 4, node: 1, at: ms(1015) };
    assert_eq!(anomalies(&with(|h| h.last = BTreeMap::from([(1, vec![1, 2, 3])]))), [lost]);
}

/// Number 2 is lost in the failover from node 0 to node 1.
fn lossy(disturbances: Vec<Disturbance>) -> History {
    History {
        disturbances,
        ..history(
            vec![
                append(1, 10, by(0, 1, &[1])),
                append(2, 20, by(0, 1, &[1, 2])),
                append(3, 9000, by(1, 2, &[1, 3])),
                append(4, 9010, by(1, 2, &[1, 3, 4])),
            ],
            &[1, 3, 4],
        )
    }
}

#[test]
fn a_crash_of_the_primary_excuses_its_last_moment_only() {
    let crash = |node, from, until| Disturbance { node, harm: Harm::Crash, from: ms(from), until: ms(until) };
    let excused = Excused { value: 2, node: 0, acked: ms(25), before_the_end: ms(0) };
    let verdict = check(&lossy(vec![crash(0, 30, 5000)]));
    assert_eq!((verdict.anomalies, verdict.loss_window), (vec![], vec![excused]));

    let lost = Anomaly::Lost { value: 2, node: 0, at: ms(25) };
    for (name, disturbance) in [
        ("a crash of another node", crash(1, 30, 5000)),
        ("a crash that was over before", crash(0, 0, 10)),
        ("a crash that came much later", crash(0, 30 + 2001, 5000)),
    ] {
        assert_eq!(anomalies(&lossy(vec![disturbance])), std::slice::from_ref(&lost), "{name}");
    }

    // The reign went on for more than the last moment after number 2 was acknowledged.
    let mut long = lossy(vec![crash(0, 3000, 5000)]);
    long.operations.push(append(
        5,
        2900,
        Outcome::Done { by: Server { node: 0, timeline: Some(1) }, list: vec![1, 2, 5] },
    ));
    assert_eq!(anomalies(&long), [lost]);
    assert_eq!(check(&long).loss_window.len(), 1, "number 5 is within the last moment");
}

#[test]
fn a_cut_primary_may_lose_what_it_acknowledges_meanwhile() {
    let cut = |from, until| Disturbance { node: 0, harm: Harm::Cut, from: ms(from), until: ms(until) };
    assert_eq!(anomalies(&lossy(vec![cut(15, 5000)])), []);
    assert_eq!(anomalies(&lossy(vec![cut(4000, 5000)])).len(), 1, "the cut came later");
}

#[test]
fn a_doubled_append_is_found_at_the_end_and_in_a_read() {
    let found = anomalies(&with(|h| h.last = BTreeMap::from([(1, vec![1, 2, 3, 4, 2])])));
    assert_eq!(found, [Anomaly::Doubled { value: 2, at: ms(1015) }]);
    let found = anomalies(&with(|h| h.operations.push(read(1020, by(1, 2, &[1, 2, 3, 4, 4])))));
    assert!(found.contains(&Anomaly::Doubled { value: 4, at: ms(1025) }), "{found:?}");
}

#[test]
fn a_number_that_nobody_appended_or_whose_append_failed_is_found() {
    let found = anomalies(&with(|h| h.last = BTreeMap::from([(1, vec![1, 2, 3, 4, 9])])));
    assert_eq!(found, [Anomaly::Phantom { value: 9, at: ms(1015) }]);
    let found = anomalies(&with(|h| {
        h.operations.push(append(9, 30, Outcome::Failed));
        h.last = BTreeMap::from([(1, vec![1, 2, 9, 3, 4])]);
    }));
    assert!(found.contains(&Anomaly::Phantom { value: 9, at: ms(1015) }), "{found:?}");
}

#[test]
fn a_number_in_the_list_of_another_key_is_found() {
    let found = anomalies(&with(|h| drop(h.last.insert(2, vec![1]))));
    assert_eq!(found, [Anomaly::Phantom { value: 1, at: ms(1015) }]);
}

#[test]
fn a_list_that_contradicts_the_list_at_the_end_is_found() {
    let found = anomalies(&with(|h| h.last = BTreeMap::from([(1, vec![2, 1, 3, 4])])));
    assert!(found.iter().all(|a| matches!(a, Anomaly::Order { with: "the list at the end", .. })), "{found:?}");
    assert_eq!(found.len(), 5);
    // A replica that lost a number cannot show one behind it that survived.
    let replica = Server { node: 2, timeline: None };
    let found = anomalies(&with(|h| h.operations.push(read(1020, Outcome::Done { by: replica, list: vec![1, 3] }))));
    assert_eq!(found, [Anomaly::Order { key: 1, at: ms(1025), with: "the list at the end" }]);
}

#[test]
fn lists_of_one_timeline_that_contradict_each_other_are_found() {
    // Both numbers are lost in the end, so that only their order among themselves tells.
    let mut history = lossy(vec![Disturbance { node: 0, harm: Harm::Cut, from: ms(0), until: ms(5000) }]);
    history.operations.push(append(5, 30, by(0, 1, &[1, 5])));
    let found = anomalies(&history);
    let order = Anomaly::Order { key: 1, at: ms(35), with: "another list of the same timeline" };
    assert!(found.contains(&order), "{found:?}");
}

#[test]
fn an_answer_to_an_append_that_does_not_end_with_it_is_found() {
    let found = anomalies(&with(|h| h.operations.push(append(5, 1020, by(1, 2, &[1, 2, 3, 4])))));
    let order = Anomaly::Order { key: 1, at: ms(1025), with: "the append that it answers" };
    assert!(found.contains(&order), "{found:?}");
}

#[test]
fn a_stale_read_of_a_primary_is_found_and_one_of_a_replica_is_none() {
    let found = anomalies(&with(|h| h.operations.push(read(1030, by(1, 2, &[1, 2, 3])))));
    assert_eq!(found, [Anomaly::StaleRead { value: 4, node: 1, at: ms(1035) }]);
    let replica = Server { node: 0, timeline: None };
    let list = vec![1, 2, 3];
    assert_eq!(anomalies(&with(|h| h.operations.push(read(1030, Outcome::Done { by: replica, list })))), []);
    // Sent before the acknowledgement: it may or may not see it.
    assert_eq!(anomalies(&with(|h| h.operations.push(read(1012, by(1, 2, &[1, 2, 3]))))), []);
}

#[test]
fn a_stale_primary_and_two_writable_nodes_are_found() {
    // Node 0 goes on after node 1 has acknowledged its first commit.
    let found = anomalies(&with(|h| h.operations.push(append(5, 1012, by(0, 1, &[1, 2, 5])))));
    let stale = Anomaly::StaleAcks { node: 0, timeline: 1, successor: 1, count: 1, at: ms(1017) };
    let two = Anomaly::TwoWritable { nodes: (0, 1), at: ms(1005), time: ms(5) };
    assert!(found.contains(&stale) && found.contains(&two), "{found:?}");

    // An acknowledgement that arrives late, of a commit sent in time, is not stale.
    let late = operation(Request::Append(5), (990, 1020), by(0, 1, &[1, 2, 5]));
    let mut history = with(|h| h.operations.push(late));
    history.disturbances.push(Disturbance { node: 0, harm: Harm::Cut, from: ms(0), until: ms(2000) });
    assert_eq!(anomalies(&history), []);
}

#[test]
fn a_node_that_only_answers_reads_as_primary_beside_another_is_found() {
    let found = anomalies(&with(|h| h.operations.push(read(1012, by(0, 1, &[1, 2])))));
    assert!(found.contains(&Anomaly::TwoWritable { nodes: (0, 1), at: ms(1005), time: ms(5) }), "{found:?}");
}

#[test]
fn two_nodes_on_one_timeline_are_found() {
    let found = anomalies(&with(|h| h.operations.push(append(5, 2000, by(2, 2, &[1, 2, 3, 4, 5])))));
    let shared = Anomaly::SharedTimeline { timeline: 2, nodes: (1, 2), at: ms(2005) };
    assert!(found.contains(&shared), "{found:?}");
}
