//! A machine's fencer process: the real one's rules ([`Duty`]) on the machine's clock, and a model of its kill.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_agent::fence::{Fencer, Order, Protected};
use pgward_agent::fencer::{Duty, FencerError, Lost, Orders, ProcessIdentity, State};
use pgward_agent::host::BoxFuture;
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use tokio::time::sleep;

use crate::host::{Clocks, Process};
use crate::postgres::Postgres;
use crate::postgres::signal::Signal;

/// How often a fencer that is on guard looks for processes again.
const GUARD_PAUSE: Duration = Duration::from_millis(25);

/// How long an agent waits for a reply.
const REPLY_TIME: Duration = Duration::from_millis(500);

/// A fencer process. Clones are the same process.
#[derive(Clone)]
pub struct SimFencer {
    shared: Arc<Mutex<Shared>>,
    wake: Signal,
    process: Process,
    clocks: Clocks,
    postgres: Postgres,
    machine: MemberName,
    slot: FencerSlot,
}

/// Where a machine keeps its present fencer.
pub type FencerSlot = Arc<Mutex<Option<SimFencer>>>;

struct Shared {
    duty: Duty,
    /// The agent that is connected: its number.
    agent: Option<u64>,
}

impl SimFencer {
    /// Starts one.
    pub fn start(machine: &MemberName, clocks: &Clocks, postgres: &Postgres, slot: &FencerSlot) -> SimFencer {
        let fencer = SimFencer {
            shared: Arc::new(Mutex::new(Shared { duty: Duty::default(), agent: None })),
            wake: Signal::default(),
            process: Process::new(machine),
            clocks: clocks.clone(),
            postgres: postgres.clone(),
            machine: machine.clone(),
            slot: Arc::clone(slot),
        };
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(fencer.clone());
        drop(fencer.process.spawn(fencer.clone().run()));
        fencer
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process, to be stopped or killed.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// An agent connects, in place of the one before.
    pub fn connect(&self, agent: u64) -> Connection {
        {
            let mut shared = self.shared();
            shared.agent = Some(agent);
            shared.duty.hear(); // An agent begins by asking for the state.
        }
        self.wake.raise();
        Connection { fencer: self.clone(), agent }
    }

    /// The agent has ended: its connection breaks.
    pub fn disconnect(&self, agent: u64) {
        let mut shared = self.shared();
        if shared.agent == Some(agent) {
            shared.agent = None;
        }
    }

    /// True when a deadline is set that a former agent has given.
    pub fn is_armed(&self) -> bool {
        matches!(self.shared().duty.state(), State::Armed(_))
    }

    /// It has struck.
    fn note(&self, is_left: bool) {
        let mut shared = self.shared();
        let has_agent = shared.agent.is_some();
        shared.duty.struck(is_left, has_agent);
    }

    async fn run(self) {
        let mut wake = self.wake.subscribe();
        loop {
            let now = self.clocks.boot_now();
            let (overdue, due) = {
                let shared = self.shared();
                let due = match shared.duty.state() {
                    State::Armed(orders) => Some(orders.deadline),
                    State::Fenced if shared.duty.is_on_guard() => Some(now + GUARD_PAUSE),
                    State::Disarmed | State::Fenced => None,
                };
                (shared.duty.overdue(now), due)
            };
            if let Some(orders) = overdue {
                let is_left = !self.postgres.strike(orders.postmaster.map(|server| (server.pid, server.start_ticks)));
                self.note(is_left);
                continue;
            }
            let due = async {
                match due {
                    Some(due) => self.clocks.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = wake.changed() => {}
                () = due => {
                    if self.shared().duty.is_on_guard() {
                        let is_left = !self.postgres.strike(None);
                        self.note(is_left);
                    }
                }
            }
        }
    }
}

/// One agent's side.
pub struct Connection {
    fencer: SimFencer,
    agent: u64,
}

impl Connection {
    /// Asks the process, which answers only while it runs.
    async fn ask(
        &self,
        change: impl FnOnce(&mut Duty, BootInstant) -> Result<(), FencerError>,
    ) -> Result<(), FencerError> {
        sleep(Duration::from_micros(100)).await;
        if !self.fencer.process.runs() || self.fencer.shared().agent != Some(self.agent) {
            sleep(REPLY_TIME).await;
            return Err(FencerError::Unacknowledged);
        }
        let done = {
            let mut shared = self.fencer.shared();
            shared.duty.hear();
            change(&mut shared.duty, self.fencer.clocks.boot_now())
        };
        self.fencer.wake.raise();
        done
    }
}

impl Fencer for Connection {
    fn arm(&self, order: Order) -> BoxFuture<'_, Result<(), FencerError>> {
        let postmaster = match order.protected {
            Protected::BeforeStart => None,
            Protected::Postmaster { pid, start_ticks } => Some(ProcessIdentity { pid, start_ticks }),
        };
        let orders = Orders { postmaster, deadline: order.deadline, epoch: order.epoch };
        Box::pin(self.ask(move |duty, now| duty.arm(orders, now).map_err(FencerError::Refused)))
    }

    fn disarm(&self) -> BoxFuture<'_, Result<(), FencerError>> {
        Box::pin(self.ask(|duty, _| {
            duty.disarm();
            Ok(())
        }))
    }

    fn lost(&self) -> BoxFuture<'_, Lost> {
        Box::pin(async {
            self.fencer.process.ended().await;
            Lost::Ended
        })
    }

    fn replacement(&self) -> BoxFuture<'_, Result<Arc<dyn Fencer>, FencerError>> {
        Box::pin(async {
            sleep(Duration::from_millis(5)).await;
            let SimFencer { machine, clocks, postgres, slot, .. } = &self.fencer;
            let next = SimFencer::start(machine, clocks, postgres, slot);
            Ok(Arc::new(next.connect(self.agent)) as Arc<dyn Fencer>)
        })
    }
}
