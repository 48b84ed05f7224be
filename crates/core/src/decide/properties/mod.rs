//! The decision core: any view and memory give a decision, and what no decision may ask for.

mod allowed;
mod generate;

use super::rewind::{DivergenceFacts, LocalPosition, LocalRole, judge, switch_points};
use super::{Memory, decide};
use crate::cluster::properties::history;
use crate::properties::choices::Choices;
use crate::wal::Lsn;

use allowed::assert_allowed;
use generate::{any_memory, any_view, timeline};

/// A few decisions in a row, each with the memory of the one before (INV-S26).
pub fn decisions(choices: &mut Choices<'_>) {
    let mut memory = if choices.rarely(3) { any_memory(choices) } else { Memory::default() };
    for _ in 0..4 {
        let view = any_view(choices);
        let (decision, next) = decide(&view, &memory);
        let (again, next_again) = decide(&view.clone(), &memory.clone());
        assert_eq!(decision, again, "INV-S26: the same input gives the same decision");
        assert_eq!(next, next_again, "INV-S26: the same input is remembered in the same way");
        assert_allowed(&view, &decision);
        assert_kept(&view);
        assert_kept(&next);
        assert_kept(&decision);
        memory = next;
        if choices.is_exhausted() {
            break;
        }
    }
}

/// What is kept to explain or replay a decision is the same when it is read again.
fn assert_kept<T>(value: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string(value).expect("it can be written");
    let again: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(again, *value);
}

/// Where two histories part (RWD-5…7): a server that is farther than another one has not diverged less.
pub fn divergence(choices: &mut Choices<'_>) {
    let leader = history(choices);
    let leader_timeline = leader.next_timeline();
    let local_timeline = timeline(choices);
    let lines_before = leader.lines.iter().filter(|line| line.timeline < local_timeline).cloned().collect::<Vec<_>>();
    let others = history(choices);
    let is_ours = choices.flag();
    let local_history = choices.maybe(|_| switch_points(if is_ours { &lines_before } else { &others.lines }));
    let at = |lsn: u64| DivergenceFacts::Known {
        local: LocalPosition { timeline: local_timeline, lsn: Lsn(lsn), was: LocalRole::Standby },
        local_history: local_history.clone(),
        leader_timeline,
        leader_history: switch_points(&leader.lines),
    };
    let (one, other) = (choices.number(), choices.number());
    let (near, far) = (judge(&at(one.min(other))), judge(&at(one.max(other))));
    assert!(near != super::rewind::Divergence::Diverged || near == far, "{near:?} at {one}, {far:?} at {other}");
    let later = leader.lines.iter().filter(|line| line.timeline >= local_timeline);
    let has_all = later.clone().all(|line| Lsn(one.min(other)) <= line.lsn);
    if near == super::rewind::Divergence::SameHistory && local_timeline < leader_timeline {
        assert!(later.count() > 0 && has_all, "RWD-5, RWD-6: the leader has what was replayed here");
    }
    if local_timeline > leader_timeline {
        assert_eq!(near, super::rewind::Divergence::Diverged, "RWD-5: a timeline that the leader does not have");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::properties::repeatable(2000))]

        #[test]
        fn any_view_and_memory_give_a_decision_that_breaks_no_rule(bytes in vec(any::<u8>(), 0..900)) {
            decisions(&mut Choices::new(&bytes));
        }

        #[test]
        fn who_is_farther_has_not_diverged_less(bytes in vec(any::<u8>(), 0..120)) {
            divergence(&mut Choices::new(&bytes));
        }
    }

    /// The generator is worth something only if it comes to most decisions.
    #[test]
    fn generated_views_lead_to_most_decisions() {
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 56) as u8
        };
        let mut seen: BTreeSet<&'static str> = BTreeSet::new();
        for _ in 0..6000 {
            let bytes: Vec<u8> = (0..700).map(|_| next()).collect();
            let mut choices = Choices::new(&bytes);
            let (memory, view) = (any_memory(&mut choices), any_view(&mut choices));
            seen.insert(decide(&view, &memory).0.reason.name());
            seen.insert(decide(&view, &Memory::default()).0.reason.name());
        }
        assert!(seen.len() > 70, "only {} of all reasons: {seen:?}", seen.len());
    }
}
