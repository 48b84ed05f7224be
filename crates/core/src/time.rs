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

/// The largest relative error assumed between two clocks: 0.1 % (assumption set A).
const DRIFT_PER_MILLE: u32 = 1;

/// How long killing PostgreSQL may take: K in TIM-5 and BEY-2.
pub const KILL_TIME: Duration = Duration::from_secs(2);

/// When somebody else may be granted a lease that was renewed by a request sent at `sent` (TIM-4, TIM-5).
///
/// The store starts to count when it processes the request, which is not before it was sent; dividing by `1 + drift`
/// covers a store whose clock runs faster than ours.
pub fn lease_end(sent: BootInstant, ttl: Duration) -> BootInstant {
    sent + ttl.saturating_mul(1000) / (1000 + DRIFT_PER_MILLE)
}

/// When the fencer has to begin killing PostgreSQL so that it is silent before [`lease_end`] (BEY-2).
pub fn fence_deadline(sent: BootInstant, ttl: Duration) -> BootInstant {
    BootInstant(lease_end(sent, ttl).0.saturating_sub(KILL_TIME))
}

/// When a primary that cannot renew has to begin an orderly stop: early enough to be done before [`fence_deadline`].
pub fn demote_deadline(sent: BootInstant, ttl: Duration) -> BootInstant {
    let stop_time = Duration::from_secs(2).max(ttl / 8);
    BootInstant(fence_deadline(sent, ttl).0.saturating_sub(stop_time))
}

/// A duration for people: `150 ms`, `6.7 s`, `20 s`. Rounded, since nobody reads `6.666666666s`.
pub fn rounded(duration: Duration) -> String {
    let milliseconds = (duration.as_nanos() + 500_000) / 1_000_000;
    let tenths = (milliseconds + 50) / 100;
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..9950 if !tenths.is_multiple_of(10) => format!("{}.{} s", tenths / 10, tenths % 10),
        _ => format!("{} s", (milliseconds + 500) / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_to_what_a_person_reads() {
        for (nanoseconds, text) in [
            (0, "0 ms"),
            (150_000_000, "150 ms"),
            (999_499_999, "999 ms"),
            (999_500_000, "1 s"),
            (1_049_000_000, "1 s"),
            (3_333_333_333, "3.3 s"),
            (6_666_666_666, "6.7 s"),
            (9_949_000_000, "9.9 s"),
            (9_960_000_000, "10 s"),
            (20_000_000_000, "20 s"),
            (300_400_000_000, "300 s"),
        ] {
            assert_eq!(rounded(Duration::from_nanos(nanoseconds)), text);
        }
        assert_eq!(rounded(Duration::MAX), "18446744073709551616 s");
    }

    #[test]
    fn a_primary_stops_before_it_is_fenced_and_is_fenced_before_the_lease_ends() {
        for seconds in [5, 20, 30, 300] {
            let (sent, ttl) = (BootInstant(Duration::from_secs(1000)), Duration::from_secs(seconds));
            let end = lease_end(sent, ttl);
            assert!(end < sent + ttl, "the store may count faster than we do");
            assert_eq!(end.since(fence_deadline(sent, ttl)), KILL_TIME);
            assert!(demote_deadline(sent, ttl) + Duration::from_secs(2) <= fence_deadline(sent, ttl));
        }
    }
    #[test]
    fn deadlines_exist_for_any_ttl() {
        let sent = BootInstant(Duration::from_secs(1000));
        for ttl in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
            assert!(demote_deadline(sent, ttl) <= fence_deadline(sent, ttl));
            assert!(fence_deadline(sent, ttl) <= lease_end(sent, ttl));
        }
        assert!(fence_deadline(sent, Duration::from_secs(1)) < sent, "too short a lease to be fenced is over at once");
    }
}
