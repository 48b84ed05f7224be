//! Programs that work on the data directory while no server runs: initdb, pg_basebackup, pg_rewind, single-user recovery.

use std::future::Future;
use std::time::Duration;

use pgward_core::decide::rewind::ControlState;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::disk::{Damage, DataDirectory};
use super::rejoin::SERVER_TIMEOUT;
use super::state::{State, Tool, is_shut_down};
use super::wal::{Payload, switch_point};
use super::{Contents, Event, Postgres, RewindFault};

/// Why a program did not do what it was for.
pub(super) type Problem = String;

/// The first system identifier. Each cluster has one of its own.
const FIRST_SYSTEM_ID: u64 = 7_000_000_000_000_000_000;

/// Kills the program when nobody waits for it any more, as the end of the agent's task does.
struct Leash {
    postgres: Postgres,
    number: u64,
}

impl Drop for Leash {
    fn drop(&mut self) {
        let is_kept = self.postgres.state().faults.do_tools_outlive_agent;
        if !is_kept {
            self.postgres.change(|state| state.kill_tool(self.number));
        }
    }
}

impl Postgres {
    /// Runs a program to its end, or until it is killed. It goes on by itself: the agent only waits for it.
    pub(super) async fn run_tool<T: Send + 'static>(
        &self,
        name: &'static str,
        is_server: bool,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        if cancel.is_cancelled() {
            return Err("cancelled".to_owned());
        }
        let kill = CancellationToken::new();
        let number = self.change(|state| {
            state.enter_data_directory(name);
            let number = state.next_number();
            state.tools.insert(number, Tool { name, is_server, kill: kill.clone() });
            number
        });
        let leash = Leash { postgres: self.clone(), number };
        let (tell, told) = oneshot::channel();
        let this = self.clone();
        drop(tokio::spawn(async move {
            let result = tokio::select! {
                biased;
                () = kill.cancelled() => Err(format!("{name} was killed")),
                result = work => result,
            };
            this.change(|state| state.tools.remove(&number));
            // Nobody waits any more when the agent is gone.
            let _ = tell.send(result);
        }));
        tokio::select! {
            biased;
            result = told => result.unwrap_or_else(|_| Err(format!("{name} ended without a word"))),
            () = cancel.cancelled() => {
                leash.postgres.change(|state| state.kill_tool(number));
                Err("cancelled".to_owned())
            }
        }
    }

    pub(super) async fn run_initdb(self) -> Result<(), Problem> {
        self.change(|state| match state.visible_data() {
            None if state.data.is_none() && !state.faults.is_data_dir_inaccessible => {
                let unfinished = DataDirectory::new(0);
                state.data = Some(DataDirectory { damage: Some(Damage::ControlFile), ..unfinished });
                Ok(())
            }
            Some(_) | None => Err("initdb: error: directory exists but is not empty".to_owned()),
        })?;
        sleep(self.between(500, 3000)).await;
        let system_id = FIRST_SYSTEM_ID + u64::try_from(self.0.dice.below(1 << 32)).unwrap_or(0);
        self.change(|state| {
            if state.faults.is_disk_full {
                state.data = None;
                return Err("initdb: error: No space left on device".to_owned());
            }
            state.data = Some(DataDirectory::new(system_id));
            state.events.push(Event::InitdbDone { system_id });
            Ok(())
        })
    }

    /// pg_basebackup into an empty directory.
    pub(super) async fn run_clone(self, source: Postgres) -> Result<(), Problem> {
        let pid = source.begin_backup().await?;
        self.change(|state| {
            let unfinished = DataDirectory::new(0);
            state.data = Some(DataDirectory { damage: Some(Damage::ControlFile), ..unfinished });
        });
        let timeline = source.state().data.as_ref().map(DataDirectory::timeline);
        let longer = self.state().faults.clone_takes;
        self.transfer(&source, pid, self.between(1000, 6000) + longer).await?;
        let copy = {
            let state = source.state();
            let data = state.data.as_ref().filter(|data| Some(data.timeline()) == timeline);
            data.map(DataDirectory::copy).ok_or("the standby was promoted during online backup")?
        };
        self.change(|state| {
            if state.faults.clone_fails || state.faults.is_disk_full {
                return Err("pg_basebackup: error: could not write to file: No space left on device".to_owned());
            }
            let mut copy = copy;
            // Only the file of the timeline that was streamed comes along.
            copy.histories.retain(|line, _| Some(*line) == timeline);
            state.data = Some(copy);
            state.events.push(Event::Cloned { source: source.name().clone() });
            Ok(())
        })
    }

    /// pg_backup_start with a fast checkpoint. Returns the run of the server.
    async fn begin_backup(&self) -> Result<i32, Problem> {
        let refused = || "pg_basebackup: error: connection to server failed".to_owned();
        let pid = self.state().process.as_ref().filter(|process| process.lets_in()).map(|process| process.pid);
        let pid = pid.ok_or_else(refused)?;
        self.write_checkpoint(pid).await.ok_or_else(refused)?;
        Ok(pid)
    }

    /// Lets a transfer from one run of `source` take its time. It outlives short interruptions of the network.
    async fn transfer(&self, source: &Postgres, pid: i32, time: Duration) -> Result<(), Problem> {
        let (mut life, mut network) = (source.0.life.subscribe(), self.0.network.changes());
        let end = Instant::now() + time;
        let mut silent_since: Option<Instant> = None;
        loop {
            let (is_there, is_silent) = {
                let state = source.state();
                let process = state.process.as_ref().filter(|process| process.pid == pid && process.has_sessions);
                (process.is_some(), state.is_off || process.is_some_and(|process| process.is_frozen))
            };
            if !is_there && !is_silent {
                return Err("server closed the connection unexpectedly".to_owned());
            }
            let is_silent = is_silent || !self.connects_to(source);
            if is_silent {
                silent_since.get_or_insert_with(Instant::now);
            } else if Instant::now() >= end {
                return Ok(());
            } else {
                silent_since = None;
            }
            let due = silent_since.map_or(end, |since| since + SERVER_TIMEOUT * 5);
            tokio::select! {
                biased;
                () = life.changed() => {}
                _ = network.changed() => {}
                () = sleep_until(due) => if silent_since.is_some() {
                    return Err("could not receive data: connection timed out".to_owned());
                }
            }
        }
    }

    /// `postgres --single`, until it has recovered and shut down.
    pub(super) async fn run_single_user(self) -> Result<(), Problem> {
        let is_whole = self.state().readable_data().is_some_and(|data| data.damage.is_none());
        if !is_whole {
            return Err("PANIC:  could not locate a valid checkpoint record".to_owned());
        }
        self.change(|state| {
            if let Some(data) = &mut state.data {
                data.has_standby_signal = false;
                if data.control.state.needs_crash_recovery() {
                    data.control.state = ControlState::InCrashRecovery;
                }
            }
        });
        let longer = self.state().faults.start_takes;
        sleep(self.between(200, 1500) + longer).await;
        self.change(|state| {
            if state.faults.is_disk_full {
                return Err("FATAL:  could not write to file: No space left on device".to_owned());
            }
            let data = state.data.as_mut().ok_or("the data directory is gone")?;
            data.checkpoint(Payload::ShutdownCheckpoint);
            data.has_backup_label = false;
            data.control.minimum_recovery = None;
            data.control.state = ControlState::ShutDown;
            Ok(())
        })
    }

    /// pg_rewind.
    pub(super) async fn run_rewind(self, source: Postgres) -> Result<(), Problem> {
        let pid = source.rewind_source()?;
        let is_source_checkpointed_primary = {
            let truth = source.truth();
            !truth.is_in_recovery && truth.is_checkpointed
        };
        let began = Event::RewindBegan { source: source.name().clone(), is_source_checkpointed_primary };
        self.change(|state| state.events.push(began));
        let is_clean = self.state().readable_data().is_some_and(|data| is_shut_down(data.control.state));
        if !is_clean {
            self.clone().run_single_user().await?;
        }
        let fault = self.state().faults.rewind;
        let longer = self.state().faults.rewind_takes;
        self.transfer(&source, pid, self.between(200, 1000)).await?;
        match fault {
            Some(RewindFault::Fails) => return Err("pg_rewind: fatal: simulated: it fails".to_owned()),
            Some(RewindFault::WalMissing) => {
                return Err("pg_rewind: error: could not find previous WAL record: could not open file".to_owned());
            }
            Some(RewindFault::FailsHalfWay | RewindFault::LosesControlFile) | None => {}
        }
        let theirs = source.state().data.clone().ok_or("the source is gone")?;
        let outcome = self.state().what_rewind_leaves(&theirs, MODELLED_MAJOR)?;
        if let Rewound::Copy(copy) = outcome {
            let damage = match fault {
                Some(RewindFault::LosesControlFile) => Damage::ControlFile,
                Some(RewindFault::Fails | RewindFault::WalMissing | RewindFault::FailsHalfWay) | None => Damage::Files,
            };
            self.change(|state| {
                if let Some(data) = &mut state.data {
                    data.damage = Some(damage);
                }
            });
            self.transfer(&source, pid, self.between(500, 4000) + longer).await?;
            if fault.is_some() {
                return Err("pg_rewind: error: simulated: it fails half-way".to_owned());
            }
            // The mark of the agent is no file that pg_rewind would remove.
            self.change(|state| state.data = Some(DataDirectory { is_half_rewound: true, ..*copy }));
        }
        self.change(|state| state.events.push(Event::Rewound { source: source.name().clone() }));
        Ok(())
    }

    fn rewind_source(&self) -> Result<i32, Problem> {
        let state = self.state();
        let process = state.process.as_ref().filter(|process| process.lets_in());
        let process = process.ok_or("pg_rewind: error: could not connect to server")?;
        if process.is_in_recovery {
            return Err("pg_rewind: error: session is read-only".to_owned());
        }
        Ok(process.pid)
    }
}

/// The version of the tools that is modelled.
const MODELLED_MAJOR: u32 = 15;

/// The version from which on pg_rewind knows a promotion that no checkpoint followed.
const MAJOR_THAT_KNOWS_PROMOTIONS: u32 = 16;

/// What pg_rewind makes of a data directory.
enum Rewound {
    /// It finds that nothing has to be done.
    Unchanged,
    /// A copy of the source, which begins to recover at the common ancestor.
    Copy(Box<DataDirectory>),
}

impl State {
    /// Compares control files, as pg_rewind does. Before version 16 it takes a primary that has not written a checkpoint
    /// since its promotion for one on its former timeline.
    fn what_rewind_leaves(&self, theirs: &DataDirectory, major: u32) -> Result<Rewound, Problem> {
        let mine = self.readable_data().ok_or("pg_rewind: error: could not open file \"global/pg_control\"")?;
        if mine.system_id != theirs.system_id {
            return Err("pg_rewind: error: source and target clusters are from different systems".to_owned());
        }
        if !mine.allows_rewind {
            return Err("pg_rewind: error: target server needs to use data checksums or wal_log_hints".to_owned());
        }
        let knows = major >= MAJOR_THAT_KNOWS_PROMOTIONS;
        let timeline = |data: &DataDirectory| if knows { data.timeline() } else { data.control.checkpoint_timeline };
        let (my_timeline, their_timeline) = (timeline(mine), timeline(theirs));
        if my_timeline == their_timeline {
            return Ok(Rewound::Unchanged);
        }
        let my_end = mine.wal.written();
        // It is an ancestor of the source, and has written nothing of its own.
        if their_timeline == theirs.timeline()
            && switch_point(theirs.history(), my_timeline).is_some_and(|end| end == my_end)
        {
            return Ok(Rewound::Unchanged);
        }
        let mut copy = theirs.copy();
        copy.control.state = ControlState::InArchiveRecovery;
        if their_timeline != theirs.timeline() {
            // The files are newer than the WAL that leads to them on the timeline that the control file names.
            copy.control.minimum_recovery = Some((copy.wal.written(), their_timeline));
            if let Some(end) = switch_point(theirs.history(), their_timeline) {
                copy.wal.truncate(end);
            }
        }
        Ok(Rewound::Copy(Box::new(copy)))
    }

    /// Empties the data directory. Returns what was there.
    pub(super) fn wipe(&mut self) -> Result<Option<Contents>, Problem> {
        self.require_stopped()?;
        let had = self.contents();
        if self.data.take().is_some() {
            self.enter_data_directory("wipe");
            self.events.push(Event::Wiped { had });
        }
        Ok(had)
    }

    /// Renames the data directory.
    pub(super) fn move_aside(&mut self) -> Result<(), Problem> {
        self.require_stopped()?;
        let had = self.contents();
        if self.data.take().is_some() {
            self.enter_data_directory("move");
            self.events.push(Event::MovedAside { had });
        }
        Ok(())
    }

    fn require_stopped(&self) -> Result<(), Problem> {
        if self.faults.is_data_dir_inaccessible {
            return Err("cannot remove the data directory: Input/output error".to_owned());
        }
        if self.postmaster().is_some() || self.recovers_alone() {
            return Err("a server runs on the data directory: it is not removed".to_owned());
        }
        Ok(())
    }
}
