//! The long actions. Each does one thing from beginning to end and says how it went; what follows from that is for the
//! next decision. Only [`Demote`], [`Promote`] and [`Bootstrap`] touch the leader key.

mod bootstrap;
mod copy_slots;
mod demote;
mod promote;

use std::time::Duration;

use pgward_core::cluster::{Member, MemberRole, PostgresState};
use pgward_core::decide::view::Outcome;
use pgward_core::mutant::{Mutant, leaves_out};
use tracing::{error, info};

pub(crate) use bootstrap::Bootstrap;
pub(crate) use copy_slots::CopySlots;
pub(crate) use demote::Demote;
pub(crate) use promote::Promote;

use crate::action::Progress;
use crate::fence::{Fence, Protected};
use crate::lease::LeaseHandle;
use crate::local::Local;
use crate::server::{Postmaster, Server, ServerError, StopHow};

fn outcome(result: Result<(), ServerError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(problem) => Outcome::Failed(problem.to_string()),
    }
}

/// Copies a member (BOO-5). Without `replaces` only an empty directory is filled (INV-S11). With it, the data directory is
/// removed: an operator's setting or request allowed it, and the leader that it names has what is removed.
pub(crate) async fn clone<L: Server>(
    server: L,
    local: Local<L::Postmaster>,
    source: Member,
    replaces: Option<Member>,
    progress: Progress,
) -> Outcome {
    let wipe = replaces.is_some();
    if let Some(leader) = replaces {
        // INV-S21: what is removed may be the only copy.
        if !server.is_primary_reachable(&leader).await && !leaves_out(Mutant::WipeWithoutLooking) {
            let name = &leader.name;
            return Outcome::Failed(format!("the data directory is kept, because {name} cannot be copied now"));
        }
        if let Err(problem) = server.stop(&local, StopHow::Immediate, None, None).await {
            return Outcome::Failed(format!("the data directory is kept, because PostgreSQL did not stop: {problem}"));
        }
        local.ended(PostgresState::Stopped);
    }
    local.set_state(PostgresState::CreatingReplica);
    local.set_role(if wipe { MemberRole::Replica } else { MemberRole::Uninitialized });
    let cloned = server.clone_from(&source, wipe, &progress.cancel).await;
    local.set_state(PostgresState::Stopped);
    match cloned {
        Ok(()) => {
            info!(source = %source.name, "copied the cluster");
            local.set_role(MemberRole::Replica);
            local.update(|local| local.managed = true);
            Outcome::Done
        }
        Err(problem) => Outcome::Failed(problem.to_string()),
    }
}

/// Starts the server as primary on its timeline (REC-3). The fencer was armed before.
pub(crate) async fn start_primary<L: Server>(
    server: L,
    local: Local<L::Postmaster>,
    fence: Fence,
    lease: LeaseHandle,
) -> Outcome {
    local.set_role(MemberRole::Primary);
    match server.start_primary().await {
        Ok(postmaster) => {
            let protected = Protected::Postmaster { pid: postmaster.pid(), start_ticks: postmaster.start_ticks() };
            local.started(postmaster);
            let guarded = fence.protect(protected).await;
            if !lease.is_safe() {
                return give_up_start(&server, &local).await;
            }
            match guarded {
                Ok(()) => Outcome::Done,
                // Armed for whatever runs there already; the next renewal repeats the order.
                Err(problem) => Outcome::Failed(problem.to_string()),
            }
        }
        Err(problem) => {
            local.ended(PostgresState::StartFailed);
            Outcome::Failed(problem.to_string())
        }
    }
}

/// Stops a primary in order and starts it again (RST-3). The fencer guards whatever runs there meanwhile.
pub(crate) async fn restart_primary<L: Server>(
    server: L,
    local: Local<L::Postmaster>,
    fence: Fence,
    lease: LeaseHandle,
    progress: Progress,
) -> Outcome {
    local.set_state(PostgresState::Restarting);
    let stopped = tokio::select! {
        biased;
        () = progress.cancel.cancelled() => server.stop(&local, StopHow::Immediate, None, None).await,
        stopped = server.stop(&local, StopHow::FastWithCheckpoint, None, None) => stopped,
    };
    if let Err(problem) = stopped {
        local.set_state(PostgresState::StopFailed);
        return Outcome::Failed(problem.to_string());
    }
    local.ended(PostgresState::Restarting);
    if progress.cancel.is_cancelled() || !lease.is_safe() {
        local.ended(PostgresState::Stopped);
        return Outcome::Cancelled; // PRO-12: it would run as a primary without a lease.
    }
    start_primary(server, local, fence, lease).await
}

/// PRO-12, for a start: writing the configuration took longer than the lease lasted.
async fn give_up_start<L: Server>(server: &L, local: &Local<L::Postmaster>) -> Outcome {
    match server.stop(local, StopHow::Immediate, None, None).await {
        Ok(_) => local.ended(PostgresState::StartFailed),
        Err(problem) => {
            error!(error = %problem, "a primary without a lease did not stop");
            local.set_state(PostgresState::StopFailed);
        }
    }
    Outcome::Failed("the leader lease ran out during the start".to_owned())
}

/// Starts the server as a standby (REC-7, REC-11).
pub(crate) async fn start_standby<L: Server>(
    server: L,
    local: Local<L::Postmaster>,
    upstream: Option<Member>,
) -> Outcome {
    local.set_role(MemberRole::Replica);
    match server.start_standby(upstream.as_ref()).await {
        Ok(postmaster) => {
            local.started(postmaster);
            Outcome::Done
        }
        Err(problem) => {
            local.ended(PostgresState::StartFailed);
            Outcome::Failed(problem.to_string())
        }
    }
}

/// How long a standby may take to stop in order; it has nothing to hand over.
const STANDBY_STOP_LIMIT: Duration = Duration::from_secs(60);

/// Stops a standby and starts it with another upstream (FOL-10).
pub(crate) async fn restart_standby<L: Server>(
    server: L,
    local: Local<L::Postmaster>,
    upstream: Option<Member>,
) -> Outcome {
    local.set_state(PostgresState::Stopping);
    if let Err(problem) = server.stop(&local, StopHow::Fast, Some(STANDBY_STOP_LIMIT), None).await {
        local.set_state(PostgresState::StopFailed);
        return Outcome::Failed(problem.to_string());
    }
    local.ended(PostgresState::Stopped);
    start_standby(server, local, upstream).await
}

/// Stops a server that must not run on this directory (DIR-1).
pub(crate) async fn stop_immediately<L: Server>(server: L, local: Local<L::Postmaster>) -> Outcome {
    local.set_state(PostgresState::Stopping);
    match server.stop(&local, StopHow::Immediate, None, None).await {
        Ok(_) => {
            local.ended(PostgresState::Stopped);
            local.set_role(MemberRole::Uninitialized);
            Outcome::Done
        }
        Err(problem) => {
            // It is not forgotten: as long as it lives the leader key is kept.
            local.set_state(PostgresState::StopFailed);
            Outcome::Failed(problem.to_string())
        }
    }
}

/// Recovers a crashed server in single-user mode (REC-13).
pub(crate) async fn crash_recover<L: Server>(server: L, progress: Progress) -> Outcome {
    outcome(server.crash_recover(&progress.cancel).await)
}

/// Collects what [`pgward_core::decide::rewind::judge`] needs (RWD-3, RWD-4).
pub(crate) async fn check_divergence<L: Server>(server: L, leader: Member) -> Outcome {
    Outcome::Divergence(Box::new(server.divergence_facts(&leader).await))
}

/// Rewinds from the leader (RWD-9). The server is stopped first, in order.
pub(crate) async fn rewind<L: Server>(
    server: L,
    local: Local<L::Postmaster>,
    source: Member,
    progress: Progress,
) -> Outcome {
    local.set_state(PostgresState::Stopping);
    if let Err(problem) = server.stop(&local, StopHow::Fast, Some(STANDBY_STOP_LIMIT), None).await {
        local.set_state(PostgresState::StopFailed);
        return Outcome::SourceLost(format!("PostgreSQL did not stop before the rewind: {problem}"));
    }
    local.ended(PostgresState::Stopped);
    match server.rewind(&source, &progress.cancel).await {
        Ok(()) => Outcome::Done,
        // What was broken off on purpose says nothing about whether it can be done.
        Err(_) if progress.cancel.is_cancelled() => Outcome::Cancelled,
        Err(ServerError::NotReady(problem)) => Outcome::SourceLost(problem),
        Err(problem) if server.is_primary_reachable(&source).await => Outcome::Failed(problem.to_string()),
        // RWD-11: the source went away in the middle. Damaged control data is no reason to wait for it.
        Err(problem) if server.allows_rewind().await => Outcome::SourceLost(problem.to_string()),
        Err(problem) => Outcome::Failed(problem.to_string()),
    }
}

/// The checkpoint that those who rewind from a new primary wait for (RWD-15).
pub(crate) async fn checkpoint<L: Server>(server: L) -> Outcome {
    outcome(server.checkpoint().await)
}
