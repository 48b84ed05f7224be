//! Every random choice of a run comes from one seed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A stream of random numbers. Clones draw from the same stream.
#[derive(Clone, Debug)]
pub struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of its own for one part of the world: what one part draws does not change what another one gets.
    pub fn fork(&self) -> Dice {
        let seed = self.rng().u64(..);
        Dice::new(seed)
    }

    /// True in `per_mille` of a thousand cases.
    pub fn chance(&self, per_mille: u32) -> bool {
        self.rng().u32(..1000) < per_mille
    }

    /// A number below `end`; zero when there is none.
    pub fn below(&self, end: usize) -> usize {
        if end == 0 { 0 } else { self.rng().usize(..end) }
    }

    /// A time from `least` to `most`, in microseconds.
    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (least, most) = (micros(least), micros(most));
        Duration::from_micros(if least >= most { least } else { self.rng().u64(least..=most) })
    }

    /// One of `choices`; `None` when there is none.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_a_fork_others() {
        let draw = |dice: &Dice| (0..20).map(|_| dice.below(1000)).collect::<Vec<_>>();
        assert_eq!(draw(&Dice::new(7)), draw(&Dice::new(7)));
        let dice = Dice::new(7);
        assert_ne!(draw(&dice.fork()), draw(&dice));
    }
}
