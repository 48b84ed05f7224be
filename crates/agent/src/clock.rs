//! The clock that leases and deadlines are measured with.

use std::time::Duration;

use pgward_core::time::BootInstant;
use rustix::time::{ClockId, clock_gettime};

/// The present instant of `CLOCK_BOOTTIME`: it goes on while the machine is suspended, and nobody can set it (TIM-4).
pub fn boot_now() -> BootInstant {
    let now = clock_gettime(ClockId::Boottime);
    // The kernel never returns a negative time or more than a second of nanoseconds for this clock.
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
    BootInstant(Duration::new(now.tv_sec.unsigned_abs(), nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_agrees_with_the_kernels_uptime() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((boot_now().0.as_secs_f64() - seconds).abs() < 5.0, "{uptime}");
    }
}
