//! How long things take: always the same in a script, drawn from a seed in a random walk.

use std::time::Duration;

use pgward_core::decide::view::ActionKind;
use pgward_core::names::MemberName;

/// A small generator of pseudo-random numbers (SplitMix64): the same seed gives the same walk on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from((high.saturating_sub(low)).as_millis()).unwrap_or(u64::MAX);
        low + Duration::from_millis(self.below(span + 1))
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(u64::try_from(from.len()).unwrap_or(u64::MAX));
        &from[usize::try_from(index).unwrap_or_default()]
    }
}

/// Durations of the model.
pub(crate) struct Pace {
    dice: Option<Dice>,
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl Pace {
    /// Always the same.
    pub(crate) fn steady() -> Self {
        Pace { dice: None }
    }

    /// From a seed.
    pub(crate) fn random(seed: u64) -> Self {
        Pace { dice: Some(Dice::new(seed)) }
    }

    pub(crate) fn is_random(&self) -> bool {
        self.dice.is_some()
    }

    fn pick(&mut self, usual: Duration, low: Duration, high: Duration) -> Duration {
        self.dice.as_mut().map_or(usual, |dice| dice.between(low, high))
    }

    /// From a change in the store until a member has it in its picture.
    pub(crate) fn watch(&mut self, name: &MemberName) -> Duration {
        let offset = name.as_str().bytes().next().map_or(0, |byte| u64::from(byte % 16));
        self.pick(millis(10 + offset), millis(1), millis(900))
    }

    /// A round of questions to other members; one that says nothing at all is waited for.
    pub(crate) fn poll(&mut self, somebody_is_silent: bool) -> Duration {
        if somebody_is_silent { millis(2000) } else { self.pick(millis(5), millis(2), millis(300)) }
    }

    /// From the fencer's first signal until nothing of PostgreSQL is left: less than [`pgward_core::time::KILL_TIME`].
    pub(crate) fn kill(&mut self) -> Duration {
        self.pick(millis(50), millis(1), millis(1950))
    }

    /// The end of recovery after promote was issued.
    pub(crate) fn promotion(&mut self) -> Duration {
        self.pick(millis(200), millis(50), millis(6000))
    }

    /// A stop that waits for clients and writes a checkpoint.
    pub(crate) fn fast_stop(&mut self) -> Duration {
        self.pick(millis(300), millis(50), millis(8000))
    }

    /// From the decision until an action does what cannot be undone, or ends.
    pub(crate) fn action(&mut self, kind: ActionKind) -> Duration {
        let usual = match kind {
            ActionKind::Bootstrap | ActionKind::CrashRecovery => millis(1000),
            ActionKind::Clone | ActionKind::Rewind => millis(2000),
            ActionKind::Start | ActionKind::CheckDivergence | ActionKind::Stop => millis(50),
            ActionKind::Promote => millis(10),
            ActionKind::Demote | ActionKind::ChangeUpstream | ActionKind::Restart | ActionKind::CopySlots => {
                millis(100)
            }
            ActionKind::Checkpoint => millis(500),
        };
        self.pick(usual, usual / 4, usual * 5)
    }
}
