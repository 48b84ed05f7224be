//! A model of PostgreSQL: of one machine's disk, of the processes on it, and of what they do to each other over the
//! network. [`Postgres`] is what is there whether an agent runs or not; [`ModelServer`] is what one agent sees of it.
//!
//! It knows neither pages nor SQL. It keeps what decides about safety: which records are where and on which timeline, what
//! survives which end, who may commit, and how long things take.
//!
//! Invariants:
//! - nothing happens without an event: a server that is idle has no timer;
//! - the observer is called after every change, and never while a lock is held;
//! - every random choice comes from the [`Dice`].

mod disk;
mod faults;
mod fleet;
mod look;
mod model_server;
mod operate;
mod process;
mod recovery;
mod rejoin;
mod replication;
mod sessions;
mod shutdown;
pub mod signal;
mod state;
#[cfg(test)]
mod tests;
mod tools;
mod wal;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_core::decide::rewind::ControlState;
use pgward_core::names::MemberName;
use pgward_core::sync::StandbyNames;
use pgward_core::wal::{Lsn, Timeline};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, sleep_until};

use crate::dice::Dice;
use crate::network::{Network, Place};

pub use disk::{ControlFile, SystemId, Upstream};
pub use faults::{Faults, PromotionFault, RewindFault, StartFault, StopHang};
pub use fleet::Fleet;
pub use model_server::ModelServer;
pub use process::ModelPostmaster;
pub use sessions::NotCommitted;
pub use signal::{Listener, Signal};
pub use wal::{CommitId, Payload, Record, TimelineHistory};

use state::{Glance, State};

/// Told of everything that happens. Called after the change, never while a lock is held.
pub type Hook = Arc<dyn Fn(&MemberName, Event) + Send + Sync>;

/// What happened to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A postmaster was started.
    Started {
        /// Without a standby signal.
        as_primary: bool,
    },
    /// It lets clients in.
    Accepting,
    /// A promotion was asked for.
    PromoteIssued,
    /// A commit can be acknowledged from here on.
    Writable {
        /// On which timeline.
        timeline: Timeline,
        /// The end of its WAL at that moment.
        from: Lsn,
    },
    /// No commit can be acknowledged any more.
    NotWritable,
    /// The postmaster has ended.
    Ended,
    /// initdb has made a cluster.
    InitdbDone {
        /// Its identifier.
        system_id: SystemId,
    },
    /// The data directory was emptied.
    Wiped {
        /// What was in it, unless that was a copy that was not finished.
        had: Option<Contents>,
    },
    /// The data directory was renamed, and is empty now.
    MovedAside {
        /// What was in it.
        had: Option<Contents>,
    },
    /// A copy is complete.
    Cloned {
        /// Of whom.
        source: MemberName,
    },
    /// pg_rewind has begun.
    RewindBegan {
        /// From whom.
        source: MemberName,
        /// INV-S21: the source is out of recovery, and has written a checkpoint since.
        is_source_checkpointed_primary: bool,
    },
    /// pg_rewind has ended with success.
    Rewound {
        /// From whom.
        source: MemberName,
    },
    /// A running standby has another upstream.
    Upstream(Option<MemberName>),
    /// INV-S13: two work on the data directory at once. What was there, and what has come.
    DataDirectoryShared(&'static str, &'static str),
}

/// What a data directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The cluster.
    pub system_id: SystemId,
    /// The timeline of the last record.
    pub timeline: Timeline,
    /// The end of the last record.
    pub written: Lsn,
    /// What the control file says of the last run.
    pub state: ControlState,
}

/// What is true of a server, whatever anybody believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// A postmaster lives.
    pub is_alive: bool,
    /// A process of the server lives, if only a backend.
    pub has_processes: bool,
    /// Its processes are stopped.
    pub is_frozen: bool,
    /// New connections are let in.
    pub is_accepting: bool,
    /// In recovery; false when nothing runs.
    pub is_in_recovery: bool,
    /// A commit can be acknowledged.
    pub is_writable: bool,
    /// The WAL receiver is connected.
    pub is_streaming: bool,
    /// Whom a running standby streams from.
    pub upstream: Option<MemberName>,
    /// What works on the data directory besides the server.
    pub busy: Vec<&'static str>,
    /// The cluster in the data directory; nothing more is known without one.
    pub system_id: Option<SystemId>,
    /// The timeline of the last record.
    pub timeline: Option<Timeline>,
    /// The end of the last record.
    pub written: Lsn,
    /// What survives a loss of power.
    pub flushed: Lsn,
    /// What a running standby has replayed.
    pub replayed: Lsn,
    /// The checkpoint after the last promotion is written.
    pub is_checkpointed: bool,
    /// The control file, when it can be read.
    pub control: Option<ControlFile>,
    /// Where the earlier timelines ended.
    pub history: TimelineHistory,
    /// The replication slots.
    pub slots: Vec<String>,
}

/// A machine's disk and its PostgreSQL. Clones are the same one.
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    name: MemberName,
    place: Place,
    fleet: Fleet,
    network: Network,
    dice: Dice,
    hook: Hook,
    state: Mutex<State>,
    /// Counts changes other than the growth of WAL.
    life: Signal,
    /// Counts flushes.
    flushes: Signal,
    /// Counts what standbys have confirmed.
    confirmations: Signal,
}

impl Postgres {
    /// An empty disk. The others of the run find it in `fleet`.
    pub fn new(name: &MemberName, fleet: &Fleet, network: Network, dice: Dice, hook: Hook) -> Postgres {
        let postgres = Postgres(Arc::new(Inner {
            name: name.clone(),
            place: Place::Member(name.clone()),
            fleet: fleet.clone(),
            network,
            dice,
            hook,
            state: Mutex::default(),
            life: Signal::default(),
            flushes: Signal::default(),
            confirmations: Signal::default(),
        }));
        fleet.add(&postgres);
        postgres
    }

    /// The member that it belongs to.
    pub fn name(&self) -> &MemberName {
        &self.0.name
    }

    /// What is true now.
    pub fn truth(&self) -> Truth {
        self.state().truth()
    }

    /// Whether a transaction is in the WAL that is here.
    pub fn holds(&self, id: CommitId) -> bool {
        self.state().data.as_ref().is_some_and(|data| data.wal.holds(id))
    }

    /// Whether the last record that is here is in the WAL of `other`, too.
    pub fn has_nothing_of_its_own(&self, other: &Postgres) -> bool {
        let last = self.state().data.as_ref().and_then(|data| data.wal.last().copied());
        let is_there = |last: Record| {
            let state = other.state();
            state.data.as_ref().is_some_and(|data| data.wal.ending_at(last.end) == Some(&last))
        };
        last.is_none_or(is_there)
    }

    /// The mount of the data directory goes away, or comes back (FLT-16). What is below it looks empty; a server that ran
    /// does not survive either.
    pub fn set_mounted(&self, is_mounted: bool) {
        self.change(|state| state.set_mounted(is_mounted));
    }

    /// All transactions in the WAL that is here, in their order.
    pub fn commits(&self) -> Vec<CommitId> {
        self.state().data.as_ref().map(|data| data.wal.commits().collect()).unwrap_or_default()
    }

    /// The dynamic configuration that an agent has kept beside the data.
    pub fn kept_dynamic(&self) -> Option<Map<String, Value>> {
        self.state().visible_data().and_then(|data| data.kept_dynamic.clone())
    }

    /// The faults in force.
    pub fn faults(&self) -> Faults {
        self.state().faults.clone()
    }

    /// Changes the faults.
    pub fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        self.change(|state| {
            change(&mut state.faults);
            state.settle();
            if let Some(pid) = state.process.as_ref().map(|process| process.pid) {
                state.replay(pid);
            }
        });
    }

    /// SIGKILL for every process of the server. What was written to files stays.
    pub fn kill(&self) {
        self.change(State::kill);
    }

    /// SIGKILL for the postmaster alone: its backends notice that after a moment, and can commit until then.
    pub fn kill_postmaster_only(&self) {
        let Some(pid) = self.change(State::kill_postmaster_only) else { return };
        let this = self.clone();
        let lingers = self.between(5, 1500);
        drop(tokio::spawn(async move {
            if this.pass(pid, lingers).await.is_some() {
                this.change(|state| state.end_if(pid, "the postmaster has died"));
            }
        }));
    }

    /// A loss of power: nothing of the processes is left, and of files only what was flushed.
    pub fn power_off(&self) {
        self.change(State::power_off);
    }

    /// The machine is back. Nothing runs on it.
    pub fn power_on(&self) {
        self.change(|state| state.is_off = false);
    }

    /// SIGSTOP, or SIGCONT, for every process of the server.
    pub fn set_frozen(&self, is_frozen: bool) {
        self.change(|state| {
            if let Some(process) = &mut state.process {
                process.is_frozen = is_frozen;
            }
        });
    }

    /// What a fencer does: kills every process that works with the data directory as PostgreSQL. `postmaster` is the one
    /// that was to be guarded; the others are found without it. Returns whether none is left.
    pub fn strike(&self, postmaster: Option<(i32, u64)>) -> bool {
        self.change(|state| {
            let is_other = state
                .process
                .as_ref()
                .is_some_and(|process| postmaster.is_some_and(|guarded| guarded != (process.pid, process.start_ticks)));
            if is_other {
                state.output = "killed by a fencer that guarded an earlier server".to_owned();
            }
            state.kill_tools(true);
            state.kill();
            state.process.is_none()
        })
    }

    /// `pg_ctl promote`, by somebody who asked nobody.
    ///
    /// # Errors
    /// What `pg_ctl` would say.
    pub fn pg_ctl_promote(&self) -> Result<(), String> {
        self.promote_now()
    }

    /// Whom a commit waits for: they have to have flushed it.
    pub fn set_standby_names(&self, names: StandbyNames) {
        self.change(|state| state.standby_names = Some(names));
    }

    /// Whom a commit waits for.
    pub fn standby_names(&self) -> StandbyNames {
        self.state().standby_names.clone().unwrap_or_else(StandbyNames::nobody)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, wakes whom it concerns, and tells the observer.
    fn change<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        self.act(true, act)
    }

    /// The same for what only moves positions: nobody but those who wait for WAL is woken.
    fn progress<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        self.act(false, act)
    }

    fn act<R>(&self, is_life: bool, act: impl FnOnce(&mut State) -> R) -> R {
        let (result, mut events, before, after) = {
            let mut state = self.state();
            let before = Glance::of(&state);
            let result = act(&mut state);
            (result, std::mem::take(&mut state.events), before, Glance::of(&state))
        };
        before.events_until(&after, &mut events);
        if before.flushed != after.flushed {
            self.0.flushes.raise();
        }
        if is_life || !events.is_empty() {
            self.0.life.raise();
        }
        for event in events {
            (self.0.hook)(&self.0.name, event);
        }
        result
    }

    fn between(&self, least_ms: u64, most_ms: u64) -> Duration {
        self.0.dice.between(Duration::from_millis(least_ms), Duration::from_millis(most_ms))
    }

    /// Lets time pass for the processes of one run of the server. `None`: it has ended meanwhile.
    async fn pass(&self, pid: i32, time: Duration) -> Option<()> {
        sleep(time).await;
        self.until(pid, |_| true).await
    }

    /// Waits until something is true of the server, which is looked at only while it is not frozen. `None`: it has ended.
    async fn until(&self, pid: i32, is_true: impl Fn(&State) -> bool) -> Option<()> {
        let (mut life, mut confirmations) = (self.0.life.subscribe(), self.0.confirmations.subscribe());
        loop {
            {
                let state = self.state();
                let process = state.process.as_ref().filter(|process| process.pid == pid)?;
                if !process.is_frozen && !process.is_killed && is_true(&state) {
                    return Some(());
                }
            }
            tokio::select! {
                biased;
                () = life.changed() => {}
                () = confirmations.changed() => {}
            }
        }
    }

    /// Waits as long as a fault says, or until it is over. `None`: the server has ended.
    async fn hold_up(&self, pid: i32, longer: fn(&Faults) -> Duration) -> Option<()> {
        let (began, mut life) = (Instant::now(), self.0.life.subscribe());
        loop {
            self.until(pid, |_| true).await?;
            let end = began + longer(&self.state().faults);
            if Instant::now() >= end {
                return Some(());
            }
            tokio::select! {
                biased;
                () = life.changed() => {}
                () = sleep_until(end) => {}
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = Option<()>> + Send + 'static) {
        drop(tokio::spawn(async move {
            // `None`: the server ended before it was done.
            let _ = task.await;
        }));
    }
}
