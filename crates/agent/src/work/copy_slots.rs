//! Copying logical slots from the primary to a standby (SLT-8).

use std::collections::BTreeMap;

use pgward_core::cluster::{Member, PostgresState};
use pgward_core::decide::slots::LogicalSlot;
use pgward_core::decide::view::Outcome;
use tracing::{info, warn};

use super::{STANDBY_STOP_LIMIT, start_standby};
use crate::local::Local;
use crate::server::{Server, StopHow};

/// Stops a standby, writes the slots, and starts it again. What can fail for the slots' sake is tried before the stop.
pub(crate) struct CopySlots<L: Server> {
    /// The server.
    pub server: L,
    /// Its shared state.
    pub local: Local<L::Postmaster>,
    /// The primary.
    pub source: Member,
    /// Which slots.
    pub slots: BTreeMap<String, LogicalSlot>,
    /// Whom to follow afterwards.
    pub upstream: Option<Member>,
}

impl<L: Server> CopySlots<L> {
    pub(crate) async fn run(self) -> Outcome {
        let CopySlots { server, local, source, slots, upstream } = self;
        let copies = match server.fetch_slots(&source, &slots).await {
            Ok(copies) => copies,
            Err(problem) => {
                warn!(source = %source.name, error = %problem, "logical slots cannot be copied");
                return Outcome::Failed(problem.to_string());
            }
        };
        local.set_state(PostgresState::Stopping);
        if let Err(problem) = server.stop(&local, StopHow::Fast, Some(STANDBY_STOP_LIMIT), None).await {
            local.set_state(PostgresState::StopFailed);
            return Outcome::Failed(problem.to_string());
        }
        local.ended(PostgresState::Stopped);
        let installed = server.install_slots(&copies).await;
        match &installed {
            Ok(()) => {
                let names: Vec<&str> = copies.iter().map(|copy| copy.name.as_str()).collect();
                info!(source = %source.name, slots = ?names, "copied logical slots");
            }
            Err(problem) => warn!(error = %problem, "logical slots could not be written"),
        }
        // Whatever became of the slots, the standby was running.
        match (start_standby(server, local, upstream).await, installed) {
            (Outcome::Done, Err(problem)) => Outcome::Failed(problem.to_string()),
            (outcome, _) => outcome,
        }
    }
}
