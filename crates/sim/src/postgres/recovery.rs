//! Starting, the end of recovery, and checkpoints: what the server does with its own disk.

use std::time::Duration;

use pgward_core::decide::rewind::ControlState;

use super::disk::Damage;
use super::process::Process;
use super::state::State;
use super::wal::Payload;
use super::{Event, ModelPostmaster, Postgres, PromotionFault, StartFault, Upstream};

/// How a server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StartAs {
    /// Without a standby signal.
    Primary,
    /// With one.
    Standby(Option<Upstream>),
}

/// The first process number. Later ones follow, also after a loss of power, so that each is unique.
const FIRST_PID: u64 = 1000;

impl Postgres {
    /// Starts a postmaster, or returns the one that runs.
    ///
    /// # Errors
    /// When nothing could be started.
    pub(super) fn start(&self, start: StartAs, archives: bool) -> Result<ModelPostmaster, String> {
        let ticks = self.0.fleet.ticks();
        let (postmaster, is_new) = self.change(|state| {
            if let Some(running) = state.postmaster() {
                return Ok((running, false));
            }
            if state.process.is_some() {
                return Err("pre-existing shared memory block is still in use".to_owned());
            }
            if state.recovers_alone() {
                return Err("a single-user server recovers the data directory".to_owned());
            }
            state.require_undisturbed()?;
            if state.visible_data().is_none() {
                return Err("the version of the data directory cannot be read".to_owned());
            }
            state.enter_data_directory("server");
            let pid = i32::try_from(FIRST_PID + state.next_number()).unwrap_or(i32::MAX);
            let is_standby = start != StartAs::Primary;
            let process = Process::new(pid, ticks, is_standby, archives);
            let postmaster = process.postmaster();
            state.process = Some(process);
            state.output.clear();
            if let Some(data) = &mut state.data {
                data.has_standby_signal = is_standby;
                data.upstream = match start {
                    StartAs::Primary => None,
                    StartAs::Standby(upstream) => upstream,
                };
            }
            state.events.push(Event::Started { as_primary: !is_standby });
            Ok((postmaster, true))
        })?;
        if is_new {
            let pid = pgward_agent::server::Postmaster::pid(&postmaster);
            self.spawn(self.clone().recover(pid));
        }
        Ok(postmaster)
    }

    /// From the start to the moment at which local WAL is replayed.
    async fn recover(self, pid: i32) -> Option<()> {
        self.pass(pid, self.between(10, 40)).await?;
        let needs_crash_recovery = self.change(|state| state.begin_recovery(pid))?;
        let usual = if needs_crash_recovery { self.between(100, 900) } else { self.between(30, 200) };
        self.pass(pid, usual).await?;
        self.hold_up(pid, |faults| faults.start_takes).await?;
        let streams = self.change(|state| state.finish_recovery(pid, needs_crash_recovery))?;
        if streams {
            self.spawn(self.clone().receive(pid));
        }
        Some(())
    }

    /// Asks for a promotion, and returns at once.
    pub(super) fn promote_now(&self) -> Result<(), String> {
        let asked = self.change(|state| {
            let not_running = || "PostgreSQL is not running".to_owned();
            let control = state.readable_data().map(|data| data.control.state);
            let is_refused =
                state.faults.promotion == Some(PromotionFault::Refused) || state.faults.is_data_dir_inaccessible;
            let process = state.process.as_mut().filter(|process| process.has_postmaster).ok_or_else(not_running)?;
            match control {
                Some(ControlState::InProduction) => return Ok(None),
                Some(ControlState::InArchiveRecovery) | None => {}
                Some(
                    other @ (ControlState::ShutDown
                    | ControlState::ShutDownInRecovery
                    | ControlState::ShuttingDown
                    | ControlState::InCrashRecovery
                    | ControlState::Other),
                ) => return Err(format!("PostgreSQL cannot be promoted while it is {other:?}")),
            }
            if is_refused {
                return Err("cannot write the promote file".to_owned());
            }
            let is_first = !std::mem::replace(&mut process.is_promoting, true);
            let pid = process.pid;
            state.events.push(Event::PromoteIssued);
            Ok(is_first.then_some(pid))
        })?;
        if let Some(pid) = asked {
            self.spawn(self.clone().end_recovery(pid));
        }
        Ok(())
    }

    async fn end_recovery(self, pid: i32) -> Option<()> {
        self.pass(pid, self.between(5, 60)).await?;
        self.until(pid, |state| state.process.as_ref().is_some_and(|process| process.has_recovered)).await?;
        self.hold_up(pid, |faults| faults.promotion_takes).await?;
        self.pass(pid, self.between(20, 150)).await?;
        self.change(|state| state.leave_recovery(pid))?;
        // PostgreSQL writes the checkpoint by itself, and takes its time.
        self.pass(pid, self.between(5_000, 30_000)).await?;
        let is_due = self.state().run(pid).is_some_and(|(_, data)| data.control.checkpoint_timeline != data.timeline());
        if is_due { self.write_checkpoint(pid).await } else { Some(()) }
    }

    /// Writes a checkpoint, or a restartpoint. `None`: the server has ended.
    pub(super) async fn write_checkpoint(&self, pid: i32) -> Option<()> {
        self.pass(pid, self.between(20, 200)).await?;
        self.hold_up(pid, |faults| faults.checkpoint_takes).await?;
        self.until(pid, |state| !state.faults.is_flush_stalled).await?;
        self.change(|state| state.checkpoint(pid))
    }
}

impl State {
    /// Looks at the control file. Returns whether the server was not stopped in order. `None`: it has ended.
    fn begin_recovery(&mut self, pid: i32) -> Option<bool> {
        self.run(pid)?;
        let data = self.data.as_mut()?;
        let problem = match data.damage {
            Some(Damage::ControlFile) => Some("FATAL:  could not open file \"global/pg_control\""),
            Some(Damage::Files) => Some("PANIC:  could not locate a valid checkpoint record"),
            None if self.faults.start == Some(StartFault::Fails) => Some("FATAL:  simulated: the start fails"),
            None if self.faults.is_disk_full => Some("FATAL:  could not write lock file: No space left on device"),
            None => None,
        };
        if let Some(problem) = problem {
            self.end_if(pid, problem);
            return None;
        }
        let needs_crash_recovery = data.control.state.needs_crash_recovery() && !data.has_backup_label;
        if needs_crash_recovery {
            data.control.state = ControlState::InCrashRecovery;
        } else if data.has_standby_signal {
            if data.control.state == ControlState::ShutDown && data.control.minimum_recovery.is_none() {
                data.control.minimum_recovery = Some((data.control.checkpoint, data.control.checkpoint_timeline));
            }
            if let Err(problem) = data.aim_at_newest_timeline() {
                self.end_if(pid, &problem);
                return None;
            }
            data.control.state = ControlState::InArchiveRecovery;
        }
        Some(needs_crash_recovery)
    }

    /// Local WAL is replayed. Returns whether the server goes on to stream. `None`: it has ended, or stops already.
    fn finish_recovery(&mut self, pid: i32, was_crash_recovery: bool) -> Option<bool> {
        self.run(pid).filter(|(process, _)| process.stop.is_none())?;
        if self.faults.is_disk_full {
            self.end_if(pid, "PANIC:  could not write to file: No space left on device");
            return None;
        }
        let (process, data) = self.run(pid)?;
        let end = data.wal.written();
        data.wal.flush(end);
        data.has_backup_label = false;
        process.replayed = end;
        process.has_recovered = true;
        let is_standby = process.is_in_recovery;
        if is_standby {
            if was_crash_recovery {
                data.control.minimum_recovery = Some((end, data.timeline()));
            }
            data.control.state = ControlState::InArchiveRecovery;
            process.upstream.clone_from(&data.upstream);
        } else {
            data.control.minimum_recovery = None;
            if was_crash_recovery || data.control.state != ControlState::ShutDown {
                data.checkpoint(Payload::Checkpoint);
            }
            data.control.state = ControlState::InProduction;
        }
        self.settle();
        Some(is_standby)
    }

    /// The end of recovery after a promotion: from here on the server writes on a timeline of its own.
    fn leave_recovery(&mut self, pid: i32) -> Option<()> {
        let fault = self.faults.promotion;
        let (process, data) = self.run(pid).filter(|(process, _)| process.stop.is_none())?;
        if fault == Some(PromotionFault::DiesBefore) {
            self.end_if(pid, "PANIC:  simulated: the server dies during its promotion");
            return None;
        }
        process.receiver = None;
        process.upstream = None;
        let end = data.wal.written();
        data.wal.flush(end);
        process.replayed = end;
        if !matches!(data.is_consistent_at(end), Ok(true)) {
            self.end_if(pid, "FATAL:  WAL ends before consistent recovery point");
            return None;
        }
        data.begin_timeline();
        process.replayed = data.wal.written();
        data.has_standby_signal = false;
        if fault == Some(PromotionFault::DiesAfter) {
            self.end_if(pid, "PANIC:  simulated: the server dies during its promotion");
            return None;
        }
        data.control.state = ControlState::InProduction;
        data.control.minimum_recovery = None;
        process.is_in_recovery = false;
        process.is_promoting = false;
        process.received = None;
        self.settle();
        Some(())
    }

    /// A checkpoint of a primary, a restartpoint of a standby.
    fn checkpoint(&mut self, pid: i32) -> Option<()> {
        self.run(pid)?;
        if self.faults.is_disk_full {
            self.end_if(pid, "PANIC:  could not write to file: No space left on device");
            return None;
        }
        let (process, data) = self.run(pid)?;
        process.checkpointed_at = tokio::time::Instant::now();
        if process.is_in_recovery {
            data.restartpoint(process.replayed);
        } else {
            data.checkpoint(Payload::Checkpoint);
        }
        Some(())
    }
}

/// How often a primary that has something to write writes a checkpoint.
pub(super) const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);
