//! Promoting (section 16).

use std::time::Duration;

use pgward_core::cluster::MemberRole;
use pgward_core::decide::view::Outcome;
use pgward_core::mutant::{Mutant, leaves_out};
use tracing::info;

use crate::action::Progress;
use crate::lease::LeaseHandle;
use crate::local::Local;
use crate::server::Server;

/// Promotes the local server. The fencer guards it already.
pub(crate) struct Promote<L: Server> {
    /// The server.
    pub server: L,
    /// Its shared state.
    pub local: Local<L::Postmaster>,
    /// The lease that allows it.
    pub lease: LeaseHandle,
    /// How long the end of recovery is awaited before the cycle takes over the waiting.
    pub limit: Duration,
}

impl<L: Server> Promote<L> {
    /// PRO-7. Until promote is issued it can be cancelled without a trace.
    pub(crate) async fn run(self, progress: Progress) -> Outcome {
        if !progress.commit() {
            return Outcome::Cancelled;
        }
        // PRO-12: the last look before the step that cannot be taken back.
        if !self.lease.is_safe() && !leaves_out(Mutant::PromoteWithoutLease) {
            return Outcome::Failed("the leader lease ran out before the promotion".to_owned());
        }
        self.local.set_role(MemberRole::Promoted);
        info!("promotes PostgreSQL");
        if let Err(problem) = self.server.promote().await {
            self.local.set_role(MemberRole::Replica);
            // A full or read-only disk, say: others may be able to (PRO-3).
            return Outcome::Refused(problem.to_string());
        }
        let promoted = tokio::select! {
            biased;
            promoted = self.server.wait_promoted(self.limit) => promoted,
            () = progress.cancel.cancelled() => return Outcome::Cancelled,
        };
        match promoted {
            Ok(()) => {
                info!("PostgreSQL is primary");
                self.local.set_role(MemberRole::Primary);
                Outcome::Done
            }
            Err(problem) => Outcome::Failed(problem.to_string()),
        }
    }
}
