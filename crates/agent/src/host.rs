//! What an agent needs of the machine below it: clocks, and somebody to run its tasks.
//!
//! Production has [`System`]. Everything else that an agent touches is behind a trait too ([`crate::server::Server`],
//! [`crate::fence::Fencer`], [`crate::peers::Peers`], [`pgward_store::Store`]), so that the same loop runs under
//! simulation, where no clock and no task is the operating system's. Waiting itself goes through `tokio::time`, whose
//! clock a test can pause.

use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

use pgward_core::time::{BootInstant, WallTime};
use tokio::task::JoinHandle;

/// A future on the heap, for the traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The machine below an agent.
pub trait Host: Send + Sync {
    /// Now on `CLOCK_BOOTTIME` (TIM-4).
    fn boot_now(&self) -> BootInstant;

    /// Now on the wall clock: for schedules and people.
    fn wall_now(&self) -> WallTime;

    /// Runs a task beside the others of this agent.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> JoinHandle<()>;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Host for System {
    fn boot_now(&self) -> BootInstant {
        pgward_store::boot_now()
    }

    fn wall_now(&self) -> WallTime {
        // Before 1970 only a broken clock is; it decides nothing but schedules.
        WallTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> JoinHandle<()> {
        tokio::spawn(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_agrees_with_the_kernels_uptime() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((System.boot_now().0.as_secs_f64() - seconds).abs() < 5.0, "{uptime}");
    }
}
