//! The kernel's watchdog: a timer that resets the machine when nobody feeds it (section 25).
//!
//! It stands beside the fencer and is told the same things: it runs while PostgreSQL is, or may become, writable, and is
//! fed after every renewal that the store confirmed. So it fires when neither the agent nor the fencer gets to run, which is
//! when only a reset helps.
//!
//! Invariants:
//! - it never lives longer than the lease that it was fed under (INV-S18);
//! - it is stopped only together with the guard of the fencer, when PostgreSQL is proven not to be writable (WDG-6);
//! - a member that requires it and cannot have it does not lead (WDG-7).

mod device;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_core::config::{WatchdogConfig, WatchdogMode};
use pgward_core::time::{BootInstant, rounded};
use tracing::{debug, info, warn};

pub use device::{Device, DeviceError, FileDevice, KernelDevice, OpenDevice, device_of};

/// The watchdog of a member.
pub struct Watchdog {
    mode: WatchdogMode,
    margin: Option<Duration>,
    device: Arc<dyn Device>,
    state: Mutex<State>,
}

struct State {
    ttl: Duration,
    loop_wait: Duration,
    is_paused: bool,
    open: Option<Box<dyn OpenDevice>>,
    /// When it fires without another keep-alive, once it runs, counted from the last one.
    timeout: Duration,
    /// Why it could not be started the last time.
    failure: Option<String>,
}

impl Watchdog {
    /// A watchdog that does not run.
    pub fn new(config: &WatchdogConfig, device: Arc<dyn Device>, ttl: Duration, loop_wait: Duration) -> Self {
        let state = State { ttl, loop_wait, is_paused: false, open: None, timeout: Duration::ZERO, failure: None };
        Watchdog { mode: config.mode, margin: config.safety_margin, device, state: Mutex::new(state) }
    }

    /// No watchdog.
    pub fn off() -> Self {
        let config = WatchdogConfig { mode: WatchdogMode::Off, ..WatchdogConfig::default() };
        Watchdog::new(&config, Arc::new(KernelDevice::new(config.device.clone())), Duration::ZERO, Duration::ZERO)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The times that it follows from here on; applied with the next keep-alive (WDG-8). In maintenance mode it is not
    /// started, whatever is promoted by request (PAU-14).
    pub fn set_times(&self, ttl: Duration, loop_wait: Duration, is_paused: bool) {
        let mut state = self.lock();
        (state.ttl, state.loop_wait, state.is_paused) = (ttl, loop_wait, is_paused);
    }

    /// WDG-2: when it has to fire after a keep-alive, and whether that leaves a whole tick.
    fn wanted(&self, state: &State) -> Result<Duration, String> {
        let timeout = match self.margin {
            Some(margin) => state.ttl.saturating_sub(margin),
            None => state.ttl / 2,
        };
        // Devices count whole seconds.
        let timeout = Duration::from_secs(timeout.as_secs());
        if timeout.is_zero() || timeout < state.loop_wait {
            let (timeout, loop_wait) = (rounded(timeout), rounded(state.loop_wait));
            return Err(format!(
                "ttl and watchdog.safety_margin leave it {timeout}, less than one loop_wait ({loop_wait})"
            ));
        }
        Ok(timeout)
    }

    /// WDG-7: why this member must not lead; `None` when it may, as far as the watchdog is concerned.
    pub fn failure(&self) -> Option<String> {
        if self.mode != WatchdogMode::Required {
            return None;
        }
        let state = self.lock();
        if state.open.is_some() {
            return state.failure.clone();
        }
        if let Err(problem) = self.wanted(&state) {
            return Some(problem);
        }
        self.device.is_usable().err().map(|problem| problem.to_string())
    }

    /// WDG-4: starts it, before PostgreSQL becomes writable. `Err` only where it is required.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub fn activate(&self) -> Result<(), String> {
        if self.mode == WatchdogMode::Off {
            return Ok(());
        }
        let mut state = self.lock();
        if state.open.is_some() || state.is_paused {
            return Ok(());
        }
        match self.start(&mut state) {
            Ok(()) => {
                state.failure = None;
                info!(timeout = %rounded(state.timeout), device = %self.device, "the watchdog runs");
                Ok(())
            }
            Err(problem) if self.mode == WatchdogMode::Required => {
                state.failure = Some(problem.clone());
                Err(problem)
            }
            Err(problem) => {
                if state.failure.as_ref() != Some(&problem) {
                    debug!(error = %problem, "goes on without a watchdog"); // Most machines have none.
                }
                state.failure = Some(problem);
                Ok(())
            }
        }
    }

    fn start(&self, state: &mut State) -> Result<(), String> {
        let wanted = self.wanted(state)?;
        let mut open = self.device.open().map_err(|problem| problem.to_string())?;
        let timeout = set_timeout(&mut *open, wanted);
        let usable = match &timeout {
            Ok(timeout) if *timeout < state.loop_wait => {
                Err(format!("it fires after {}, less than one loop_wait", rounded(*timeout)))
            }
            // WDG-3.
            Ok(timeout) if *timeout > wanted && self.mode == WatchdogMode::Required => Err(format!(
                "it fires after {} at the earliest, later than the {} that the lease allows",
                rounded(*timeout),
                rounded(wanted)
            )),
            Ok(timeout) => Ok(*timeout),
            Err(problem) => Err(problem.clone()),
        };
        match usable.and_then(|timeout| open.keep_alive().map(|()| timeout).map_err(|problem| problem.to_string())) {
            Ok(timeout) => {
                if timeout > wanted {
                    warn!(timeout = %rounded(timeout), wanted = %rounded(wanted), "the watchdog fires late");
                }
                state.timeout = timeout;
                state.open = Some(open);
                Ok(())
            }
            Err(problem) => {
                stop(open);
                Err(problem)
            }
        }
    }

    /// Feeds it after a renewal that was sent at `sent` was confirmed. Not when it would then live longer than the lease.
    pub fn keep_alive(&self, sent: BootInstant, ttl: Duration, now: BootInstant) {
        let mut state = self.lock();
        let wanted = self.wanted(&state).ok();
        let State { open: Some(open), timeout, failure, .. } = &mut *state else { return };
        if let Some(wanted) = wanted.filter(|wanted| *wanted < *timeout) {
            match set_timeout(&mut **open, wanted) {
                Ok(set) => *timeout = set,
                Err(problem) => warn!(error = %problem, "the watchdog keeps its timeout"),
            }
        }
        let is_late = now.since(sent) > ttl.saturating_sub(*timeout);
        if is_late && *timeout < ttl {
            return warn!("a renewal took too long to feed the watchdog by");
        }
        *failure = open.keep_alive().err().map(|problem| problem.to_string());
        if let Some(problem) = failure {
            warn!(error = %problem, "the watchdog could not be fed");
        }
    }

    /// WDG-5: stops it. PostgreSQL is proven not to be writable, or an operator has taken over in pause.
    pub fn disable(&self) {
        let open = self.lock().open.take();
        if let Some(open) = open {
            stop(open);
        }
    }
}

/// The timeout that the device has after it was asked for this one.
fn set_timeout(open: &mut dyn OpenDevice, wanted: Duration) -> Result<Duration, String> {
    match open.set_timeout(wanted) {
        Ok(timeout) => Ok(timeout),
        // Some devices have one timeout only.
        Err(_) => open.timeout().map_err(|problem| problem.to_string()),
    }
}

fn stop(open: Box<dyn OpenDevice>) {
    match open.disable() {
        Ok(()) => info!("the watchdog has stopped"),
        Err(problem) => warn!(error = %problem, "the watchdog cannot be stopped: it will reset this machine"),
    }
}

#[cfg(test)]
mod tests;
