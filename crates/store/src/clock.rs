//! The clock that leases are counted on.

use std::time::Duration;

use pgward_core::time::BootInstant;
use rustix::time::{ClockId, clock_gettime};

/// Now on `CLOCK_BOOTTIME`, which keeps running while the machine is suspended (TIM-4).
pub fn boot_now() -> BootInstant {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
    BootInstant(Duration::new(seconds, nanoseconds))
}
