//! Time as decisions see it: durations since boot, on a clock that keeps running while the machine is suspended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant of `CLOCK_BOOTTIME` (TIM-4). The wall clock decides nothing but schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootInstant(pub Duration);

impl BootInstant {
    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: BootInstant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for BootInstant {
    type Output = BootInstant;

    fn add(self, duration: Duration) -> BootInstant {
        BootInstant(self.0.saturating_add(duration))
    }
}

/// Wall-clock time as seconds since 1970 UTC with nanoseconds: for people, logs and schedules only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub Duration);
