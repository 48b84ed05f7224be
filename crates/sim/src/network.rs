//! Who reaches whom, and how fast.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::dice::Dice;
use crate::postgres::signal::{Listener, Signal};
use pgward_core::names::MemberName;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A member's machine.
    Member(MemberName),
    /// The cluster store.
    Store,
}

/// What travels. Each kind can be cut off alone (FLT-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Requests to the store and their answers.
    Store,
    /// REST requests between members.
    Rest,
    /// Streaming replication, base backups, rewinds, and SQL between members.
    Replication,
}

/// The network of a run. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Network {
    state: Arc<Mutex<State>>,
    changes: Signal,
    dice: Dice,
}

#[derive(Debug, Default)]
struct State {
    /// Messages that do not arrive: from, to, and what.
    cut: BTreeSet<(Place, Place, Kind)>,
    /// Messages that take longer, by place: the least and the most.
    slow: BTreeMap<Place, (Duration, Duration)>,
}

/// The usual time of one message on its way.
const DELAY: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(3));

impl Network {
    /// A network without faults.
    pub fn new(dice: Dice) -> Network {
        Network { state: Arc::default(), changes: Signal::default(), dice }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts one direction.
    pub fn cut(&self, from: &Place, to: &Place, kind: Kind) {
        self.state().cut.insert((from.clone(), to.clone(), kind));
        self.changes.raise();
    }

    /// Slows down everything to and from a place.
    pub fn slow(&self, place: &Place, least: Duration, most: Duration) {
        self.state().slow.insert(place.clone(), (least, most));
    }

    /// Mends everything.
    pub fn heal(&self) {
        let mut state = self.state();
        state.cut.clear();
        state.slow.clear();
        drop(state);
        self.changes.raise();
    }

    /// True when messages from `from` arrive at `to`.
    pub fn carries(&self, from: &Place, to: &Place, kind: Kind) -> bool {
        from == to || !self.state().cut.contains(&(from.clone(), to.clone(), kind))
    }

    /// True when a connection can be made and used: both directions carry.
    pub fn connects(&self, one: &Place, other: &Place, kind: Kind) -> bool {
        self.carries(one, other, kind) && self.carries(other, one, kind)
    }

    /// How long the next message takes.
    pub fn delay(&self, one: &Place, other: &Place) -> Duration {
        let (least, most) = {
            let state = self.state();
            [one, other].into_iter().filter_map(|place| state.slow.get(place).copied()).max().unwrap_or(DELAY)
        };
        self.dice.between(least, most)
    }

    /// Wakes when something was cut or mended.
    pub fn changes(&self) -> Listener {
        self.changes.subscribe()
    }
}
