//! Stopping: what the server does when it is told to.

use pgward_core::decide::rewind::ControlState;

use super::process::Stop;
use super::wal::Payload;
use super::{Postgres, StopHang};

impl Postgres {
    /// Sends SIGINT or SIGQUIT to the postmaster. What follows happens by itself.
    pub(super) fn ask_to_stop(&self, stop: Stop) {
        let asked = self.change(|state| {
            let process = state.process.as_mut().filter(|process| process.has_postmaster)?;
            if process.stop >= Some(stop) {
                return None;
            }
            process.stop = Some(stop);
            Some(process.pid)
        });
        match (asked, stop) {
            (Some(pid), Stop::Fast) => self.spawn(self.clone().stop_fast(pid)),
            (Some(pid), Stop::Immediate) => self.spawn(self.clone().stop_immediately(pid)),
            (None, _) => {}
        }
    }

    async fn stop_immediately(self, pid: i32) -> Option<()> {
        self.pass(pid, self.between(2, 30)).await?;
        self.until(pid, |state| !state.faults.is_unkillable).await?;
        self.change(|state| state.end_if(pid, "LOG:  received immediate shutdown request"));
        Some(())
    }

    async fn stop_fast(self, pid: i32) -> Option<()> {
        self.pass(pid, self.between(2, 20)).await?;
        self.until(pid, |state| !state.faults.is_unkillable).await?;
        let is_primary = self.change(|state| {
            let (process, data) = state.run(pid)?;
            process.has_sessions = false;
            process.is_accepting = false;
            process.receiver = None;
            let is_primary = process.has_recovered && !process.is_in_recovery;
            if is_primary {
                data.control.state = ControlState::ShuttingDown;
            }
            Some(is_primary)
        })?;
        if is_primary {
            self.write_last_record(pid).await?;
        } else {
            self.pass(pid, self.between(10, 60)).await?;
        }
        self.change(|state| {
            let (process, data) = state.run(pid)?;
            if process.is_in_recovery && process.has_recovered {
                data.restartpoint(process.replayed);
                let end = data.wal.written();
                data.wal.flush(end);
                data.control.state = ControlState::ShutDownInRecovery;
            }
            state.end_if(pid, "LOG:  database system is shut down");
            Some(())
        })
    }

    /// The shutdown checkpoint of a primary, and the wait until every standby that is connected has it.
    async fn write_last_record(&self, pid: i32) -> Option<()> {
        self.until(pid, |state| state.faults.stop_hangs_in != Some(StopHang::Checkpoint)).await?;
        self.pass(pid, self.between(10, 150)).await?;
        self.hold_up(pid, |faults| faults.checkpoint_takes).await?;
        self.until(pid, |state| !state.faults.is_flush_stalled).await?;
        let end = self.change(|state| {
            let is_full = state.faults.is_disk_full;
            let (process, data) = state.run(pid)?;
            if is_full {
                state.end_if(pid, "PANIC:  could not write to file: No space left on device");
                return None;
            }
            if process.archives && !data.wal.is_at_segment_start() {
                data.wal.append(data.timeline(), Payload::SegmentSwitch, 0);
            }
            let record = data.checkpoint(Payload::ShutdownCheckpoint);
            data.control.state = ControlState::ShutDown;
            Some(record.end)
        })?;
        self.until(pid, |state| {
            let behind = |process: &super::process::Process| process.walsenders.values().any(|it| it.flushed < end);
            !state.process.as_ref().is_some_and(behind) && state.faults.stop_hangs_in != Some(StopHang::Walsender)
        })
        .await?;
        self.until(pid, |state| state.faults.stop_hangs_in != Some(StopHang::Archiving)).await?;
        self.pass(pid, self.between(5, 30)).await
    }
}
