//! A machine's clocks, and processes that can be stopped, continued and killed.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pgward_agent::host::{BoxFuture, Host};
use pgward_core::mutant::{Mutant, leaves_out};
use pgward_core::names::MemberName;
use pgward_core::time::{BootInstant, WallTime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::Span;

use crate::postgres::signal::Signal;

/// The clocks of one machine. Clones are the same clocks.
#[derive(Clone, Debug)]
pub struct Clocks {
    began: Instant,
    /// The boot clock when the run began.
    boot: Duration,
    /// How many parts in a million the boot clock runs faster than true time.
    fast_ppm: i64,
    wall: Arc<Mutex<i64>>,
}

/// When every run begins, by the wall clock.
const BEGINNING: i64 = 1_800_000_000;

impl Clocks {
    /// Clocks of a machine that has been up for `boot`. `fast_ppm` may be negative.
    pub fn new(began: Instant, boot: Duration, fast_ppm: i64) -> Clocks {
        Clocks { began, boot, fast_ppm, wall: Arc::new(Mutex::new(BEGINNING)) }
    }

    /// Sets the wall clock off by this many seconds (FLT-6). The boot clock is not touched: nobody can.
    pub fn step_wall(&self, seconds: i64) {
        *self.wall.lock().unwrap_or_else(PoisonError::into_inner) += seconds;
    }

    /// The boot clock.
    pub fn boot_now(&self) -> BootInstant {
        let elapsed = i128::try_from(self.began.elapsed().as_nanos()).unwrap_or(i128::MAX);
        let shown = elapsed + elapsed * i128::from(self.fast_ppm) / 1_000_000;
        BootInstant(self.boot + Duration::from_nanos(u64::try_from(shown).unwrap_or(0)))
    }

    /// A boot clock that anybody could set: it jumps as the wall clock does.
    fn boot_with_jumps(&self) -> BootInstant {
        let jumped = *self.wall.lock().unwrap_or_else(PoisonError::into_inner) - BEGINNING;
        let (now, by) = (self.boot_now().0, Duration::from_secs(jumped.unsigned_abs()));
        BootInstant(if jumped < 0 { now.saturating_sub(by) } else { now + by })
    }

    /// The wall clock.
    pub fn wall_now(&self) -> WallTime {
        let beginning = *self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = self.began.elapsed();
        WallTime(Duration::from_secs(u64::try_from(beginning).unwrap_or(0)) + elapsed)
    }

    /// Waits until the boot clock shows `until`.
    pub async fn sleep_until(&self, until: BootInstant) {
        loop {
            let left = until.since(self.boot_now());
            if left.is_zero() {
                return;
            }
            // A fast clock gets there sooner: a little too early at first, then again for what is left.
            let sooner = left * 1000 / 1001;
            sleep(sooner.max(Duration::from_millis(1))).await;
        }
    }
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Runs,
    Stopped,
    Dead,
}

/// A process: tasks that stop, go on and die together.
#[derive(Clone, Debug)]
pub struct Process {
    shared: Arc<Mutex<Shared>>,
    ended: Signal,
    span: Span,
}

#[derive(Debug)]
struct Shared {
    life: Life,
    /// How many have stopped it and not let it go on.
    stops: u32,
    waiting: Vec<Waker>,
    panic: Option<String>,
}

impl Process {
    /// One that runs. What its tasks log carries the name of its machine.
    pub fn new(machine: &MemberName) -> Process {
        let shared = Shared { life: Life::Runs, stops: 0, waiting: Vec::new(), panic: None };
        Process {
            shared: Arc::new(Mutex::new(shared)),
            ended: Signal::default(),
            span: tracing::info_span!("on", machine = machine.as_str()),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, life: Life) {
        let waiting = {
            let mut shared = self.shared();
            if shared.life == Life::Dead {
                return;
            }
            shared.life = life;
            if life == Life::Stopped { Vec::new() } else { std::mem::take(&mut shared.waiting) }
        };
        if life == Life::Dead {
            self.ended.raise();
        }
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Resolves when it is dead.
    pub async fn ended(&self) {
        self.ended.raised().await;
    }

    /// Stops it: nothing of it runs until everybody who stopped it has let it go on.
    pub fn stop(&self) {
        self.shared().stops += 1;
        self.set(Life::Stopped);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        let is_free = {
            let mut shared = self.shared();
            shared.stops = shared.stops.saturating_sub(1);
            shared.stops == 0
        };
        if is_free {
            self.set(Life::Runs);
        }
    }

    /// SIGKILL: nothing of it runs ever again.
    pub fn kill(&self) {
        self.set(Life::Dead);
    }

    /// False from the moment it was killed.
    pub fn is_alive(&self) -> bool {
        self.shared().life != Life::Dead
    }

    /// False while it is stopped, or dead.
    pub fn runs(&self) -> bool {
        self.shared().life == Life::Runs
    }

    /// What a task of it panicked with.
    pub fn panic(&self) -> Option<String> {
        self.shared().panic.clone()
    }

    /// Runs a task in this process.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(Task { process: self.clone(), work: Some(Box::pin(task)) })
    }
}

/// A task that is polled only while its process runs.
struct Task {
    process: Process,
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let life = {
            let mut shared = self.process.shared();
            if shared.life != Life::Dead {
                // Killed or continued later, it has to be looked at again.
                shared.waiting.retain(|waker| !waker.will_wake(context.waker()));
                shared.waiting.push(context.waker().clone());
            }
            shared.life
        };
        match life {
            Life::Stopped => Poll::Pending,
            Life::Dead => {
                self.work = None;
                Poll::Ready(())
            }
            Life::Runs => {
                let Task { process, work } = &mut *self;
                let _entered = process.span.enter();
                let Some(work) = work else { return Poll::Ready(()) };
                match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(())) => Poll::Ready(()),
                    Err(panic) => {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                        process.shared().panic = Some(text.unwrap_or_else(|| "a panic without words".to_owned()));
                        process.kill();
                        Poll::Ready(())
                    }
                }
            }
        }
    }
}

/// The [`Host`] of a simulated agent.
pub struct SimHost {
    /// The machine's clocks.
    pub clocks: Clocks,
    /// The agent's process.
    pub process: Process,
}

impl Host for SimHost {
    fn boot_now(&self) -> BootInstant {
        if leaves_out(Mutant::LeaseByWallClock) {
            return self.clocks.boot_with_jumps();
        }
        self.clocks.boot_now()
    }

    fn wall_now(&self) -> WallTime {
        self.clocks.wall_now()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> JoinHandle<()> {
        self.process.spawn(task)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_stopped_process_does_nothing_and_a_killed_one_never_again() {
        let (process, ticks) = (Process::new(&"n1".parse().unwrap()), Arc::new(AtomicU32::new(0)));
        let counter = Arc::clone(&ticks);
        let task = process.spawn(async move {
            loop {
                sleep(SECOND).await;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        sleep(SECOND * 5 / 2).await;
        process.stop();
        sleep(SECOND * 10).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 2);
        process.go_on();
        sleep(SECOND * 2).await;
        assert!(ticks.load(Ordering::Relaxed) >= 3);
        process.kill();
        task.await.unwrap();
        assert!(!process.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_clock_reaches_its_instant_sooner() {
        let clocks = Clocks::new(Instant::now(), SECOND, 1000);
        let (began, until) = (Instant::now(), BootInstant(SECOND * 1002));
        clocks.sleep_until(until).await;
        assert!(clocks.boot_now() >= until);
        assert!(began.elapsed() < SECOND * 1001, "{:?}", began.elapsed());
    }
}
