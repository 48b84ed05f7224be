//! A long action is under way (section 7).

use crate::cluster::{Cluster, MemberRole};

use super::effect::{Decision, DemoteMode, Effect};
use super::is_owner;
use super::peers::{Asked, Bound, Candidates, failover_possible};
use super::reason::Reason;
use super::view::{ActionKind, RunningAction, View};

/// ASY-1…9. `None`: the action does not keep the cycle from going on.
pub(super) fn decide(view: &View, cluster: &Cluster, action: &RunningAction) -> Option<Decision> {
    let owner = is_owner(view, cluster);
    let busy = Reason::Busy { action: action.kind };
    match action.kind {
        ActionKind::Checkpoint => return None, // It only reads and flushes; everything else goes on.
        ActionKind::Demote | ActionKind::Stop => return Some(busy.alone()),
        ActionKind::Bootstrap
        | ActionKind::Clone
        | ActionKind::Start
        | ActionKind::Promote
        | ActionKind::CrashRecovery
        | ActionKind::CheckDivergence
        | ActionKind::Rewind
        | ActionKind::ChangeUpstream
        | ActionKind::Restart
        | ActionKind::CopySlots => {}
    }
    if owner && view.lease.is_safe(view.now) {
        let too_long = action.kind == ActionKind::CrashRecovery
            && view.now.since(action.since) >= view.settings.primary_start_timeout
            && !action.cancelled
            && !view.settings.paused; // INV-S14
        return Some(if too_long { recovery_too_long(view, cluster) } else { busy.alone() }); // ASY-1, ASY-2
    }
    if action.kind == ActionKind::Bootstrap {
        return Some(busy.alone()); // ASY-3
    }
    if view.settings.paused {
        return Some(Reason::BusyUndisturbed { action: action.kind }.alone()); // ASY-3
    }
    if action.kind == ActionKind::Promote && !action.committed {
        if action.cancelled {
            return Some(busy.alone());
        }
        return Some(Reason::PromotionCancelled.with([Effect::CancelAction])); // ASY-4
    }
    let as_primary = matches!(view.postgres.role, MemberRole::Primary | MemberRole::Promoted);
    // A promotion that is committed issues promote at any moment: the role may not show it yet.
    if action.kind == ActionKind::Promote
        || (as_primary && matches!(action.kind, ActionKind::Start | ActionKind::Restart))
    {
        // ASY-5, ASY-9
        let demote = Effect::Demote { mode: DemoteMode::ImmediateNoLock, upstream: None };
        return Some(Reason::LostLockWhileBusy { action: action.kind }.with([Effect::CancelAction, demote]));
    }
    Some(busy.alone()) // ASY-6
}

fn recovery_too_long(view: &View, cluster: &Cluster) -> Decision {
    match failover_possible(view, cluster, Bound::Lag, Candidates::AsRequested) {
        Asked::Ask(members) => Reason::AsksWhetherFailoverPossible.with([Effect::PollPeers(members)]),
        Asked::Known(true) => Reason::CrashRecoveryTooLong
            .with([Effect::CancelAction, Effect::Demote { mode: DemoteMode::Immediate, upstream: None }]),
        Asked::Known(false) => Reason::Busy { action: ActionKind::CrashRecovery }.alone(),
    }
}
