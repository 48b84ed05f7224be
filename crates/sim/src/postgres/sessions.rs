//! Clients that commit.

use pgward_core::wal::Lsn;

use super::Postgres;
use super::recovery::CHECKPOINT_EVERY;
use super::state::State;
use super::wal::{CommitId, Payload};

/// Why a client got no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCommitted {
    /// The transaction has certainly not happened.
    Refused,
    /// The connection broke: it may have happened.
    Unknown,
}

impl Postgres {
    /// A client on a connection of its own commits a transaction. It waits as long as the server does: for a disk that
    /// does not flush, or for a standby that has to confirm. Dropped, it is a client that went away; what it asked for
    /// may happen all the same.
    ///
    /// # Errors
    /// When no success was reported.
    pub async fn commit(&self, id: CommitId) -> Result<(), NotCommitted> {
        let pid = self.state().writable_run().ok_or(NotCommitted::Refused)?;
        self.pass(pid, self.between(1, 3)).await.ok_or(NotCommitted::Refused)?;
        let extra = u64::try_from(self.0.dice.below(32)).unwrap_or(0) * 8;
        // Nothing is committed when the session ended before.
        let end = self.progress(|state| state.write_commit(pid, id, extra)).ok_or(NotCommitted::Refused)?;
        self.confirm(pid, end).await.ok_or(NotCommitted::Unknown)
    }

    /// Waits until a record is where it has to be. `None`: the session has ended before it could say so.
    async fn confirm(&self, pid: i32, end: Lsn) -> Option<()> {
        self.pass(pid, self.between(1, 4)).await?;
        self.until(pid, |state| !state.faults.is_flush_stalled).await?;
        self.progress(|state| {
            if let Some(data) = &mut state.data {
                data.wal.flush(end);
            }
        });
        self.until(pid, |state| state.is_confirmed(end)).await?;
        let has_session = self.state().process.as_ref().is_some_and(|process| process.has_sessions);
        has_session.then_some(())
    }
}

impl State {
    fn writable_run(&self) -> Option<i32> {
        let process = self.process.as_ref().filter(|process| process.is_writable())?;
        // A session that was there before the postmaster died can go on; a new one is not let in.
        (process.lets_in() || !process.has_postmaster).then_some(process.pid)
    }

    fn write_commit(&mut self, pid: i32, id: CommitId, extra: u64) -> Option<Lsn> {
        self.run(pid).filter(|(process, _)| process.is_writable())?;
        if self.faults.is_disk_full {
            self.end_if(pid, "PANIC:  could not write to file: No space left on device");
            return None;
        }
        let (process, data) = self.run(pid)?;
        if process.checkpointed_at.elapsed() > CHECKPOINT_EVERY {
            process.checkpointed_at = tokio::time::Instant::now();
            data.checkpoint(Payload::Checkpoint);
        }
        Some(data.wal.append(data.timeline(), Payload::Commit(id), extra).end)
    }

    fn is_confirmed(&self, end: Lsn) -> bool {
        let Some(process) = &self.process else { return false };
        let Some(setting) = self.standby_names.as_ref().filter(|setting| setting.is_in_force()) else { return true };
        let listed = process.walsenders.values().filter(|it| setting.names.contains(it.member.as_str()));
        let has_it = listed.filter(|it| it.flushed >= end).count();
        has_it >= usize::try_from(setting.count).unwrap_or(usize::MAX)
    }
}
