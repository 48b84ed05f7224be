//! The last decisions of a member, repeated ones counted instead of kept.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::record::Step;
use crate::decide::Memory;
use crate::time::WallTime;

/// A decision and how often it was taken in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The first time.
    pub step: Step,
    /// How often, and when last.
    pub tally: Tally,
}

/// How often a decision was taken in a row, and when last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// At least one.
    pub times: u64,
    /// The last time.
    pub last: WallTime,
}

impl Entry {
    /// A decision that was taken once.
    pub fn of(step: Step) -> Entry {
        let tally = Tally { times: 1, last: step.view.wall };
        Entry { step, tally }
    }
}

/// The last decisions, oldest first, and the very last one with what it remembered.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    entries: VecDeque<Entry>,
    latest: Option<Latest>,
    /// A decision to ask the other members: kept only when its answers lead to something else than the last time.
    question: Option<Step>,
}

/// The very last decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    /// The decision and its inputs.
    pub step: Step,
    /// What the next one will remember.
    pub memory: Memory,
}

/// What noting a decision changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Noted {
    /// Nothing yet: a question, whose answers come first.
    Waits,
    /// The last entry counts one more.
    Again(Tally),
    /// New entries, in their order.
    New(Vec<Step>),
}

impl Ring {
    /// How many entries are kept: with what they saw some kilobytes each, and many times what one failover takes.
    pub const ENTRIES_MAX: usize = 256;

    /// Notes a decision and what it remembered.
    pub fn note(&mut self, step: Step, memory: Memory) -> Noted {
        self.latest = Some(Latest { step: step.clone(), memory });
        if step.decision.only_asks() {
            self.question = Some(step);
            return Noted::Waits;
        }
        let question = self.question.take();
        if let Some(last) = self.entries.back_mut()
            && last.step.is_same_decision(&step)
        {
            last.tally = Tally { times: last.tally.times + 1, last: step.view.wall };
            return Noted::Again(last.tally);
        }
        let new: Vec<Step> = question.into_iter().chain([step]).collect();
        self.entries.extend(new.iter().cloned().map(Entry::of));
        self.trim();
        Noted::New(new)
    }

    /// Puts what an earlier run of the agent has left before what there is.
    pub fn put_before(&mut self, earlier: Vec<Entry>) {
        for entry in earlier.into_iter().rev() {
            self.entries.push_front(entry);
        }
        self.trim();
    }

    fn trim(&mut self) {
        let excess = self.entries.len().saturating_sub(Self::ENTRIES_MAX);
        self.entries.drain(..excess);
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter()
    }

    /// The very last decision.
    pub fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }
}
