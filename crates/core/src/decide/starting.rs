//! A postmaster is up and does not accept connections yet (section 8).

use crate::cluster::{Cluster, MemberRole};

use super::effect::{Decision, DemoteMode, Effect};
use super::memory::Memory;
use super::peers::{Asked, Bound, Candidates, failover_possible};
use super::reason::Reason;
use super::view::{Lease, View};
use super::{is_owner, manual};

/// STA-3…8. `None`: the cycle goes on, as a standby.
pub(super) fn decide(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    if view.settings.paused {
        return None; // STA-3
    }
    let as_primary = matches!(view.postgres.role, MemberRole::Primary | MemberRole::Promoted);
    if as_primary && cluster.is_led_by(&view.me) && view.lease == Lease::None {
        return Some(Reason::AdoptsLease.with([Effect::Adopt])); // After a restart of the agent: nothing is proven yet.
    }
    if !is_owner(view, cluster) {
        // STA-4: an owner that cannot renew, or a primary whose key is gone. STA-8: a standby goes on.
        let demote = Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None };
        return as_primary.then(|| Reason::StartingWithoutLock.with([demote]));
    }
    if as_primary && !view.lease.is_safe(view.now) {
        let demote = Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None };
        return Some(Reason::RenewalsFail.with([demote]));
    }
    let late_at = view.postgres.starting_since.unwrap_or(view.now)
        + memory.start_timeout.unwrap_or(view.settings.primary_start_timeout);
    if view.now >= late_at {
        return Some(match failover_possible(view, cluster, Bound::Lag, Candidates::AsRequested) {
            Asked::Ask(members) => Reason::AsksWhetherFailoverPossible.with([Effect::PollPeers(members)]),
            Asked::Known(true) => {
                Reason::StartTooLong.with([Effect::Demote { mode: DemoteMode::Immediate, upstream: None }])
            } // STA-5
            Asked::Known(false) => Reason::Starting.alone(), // STA-6
        });
    }
    Some(manual::as_leader(view, cluster, memory).unwrap_or_else(|| Reason::Starting.wake_at(late_at))) // STA-7
}
