//! The store does not answer (section 6.1). "Unknown" is not "no": the lease decides, by our own clock.

use super::effect::{Decision, DemoteMode, Effect};
use super::failsafe;
use super::memory::Memory;
use super::reason::Reason;
use super::view::{ActionKind, Store, View};

/// DCSF-1…7.
pub(super) fn decide(view: &View, memory: &mut Memory) -> Decision {
    let error = match &view.store {
        Store::Lost { error } => error.clone(),
        Store::Current(_) => String::new(),
    };
    if view.settings.paused {
        return Reason::StoreSilentPaused { error }.alone();
    }
    if let Some(action) = &view.action {
        if matches!(action.kind, ActionKind::Demote | ActionKind::Stop) {
            return Reason::StoreSilentDemoting { error }.alone();
        }
        if action.kind == ActionKind::Bootstrap {
            return Reason::Busy { action: action.kind }.alone(); // ASY-3: it looks at its claim before it ends.
        }
        if becomes_primary(view) && !view.lease.is_safe(view.now) {
            // QRK-14: the deadline counts in any state, during a promotion too.
            return Reason::StoreSilentDemote { error }.with([Effect::CancelAction, demote()]);
        }
    }
    if !view.postgres.alive {
        return Reason::StoreSilentDown { error }.alone();
    }
    if !becomes_primary(view) {
        return Reason::StoreSilentReplica { error }.alone();
    }
    if let Some(decision) = failsafe::decide(view, memory) {
        return decision; // DCSF-4
    }
    match view.demote_at() {
        Some(deadline) if view.now < deadline => Reason::StoreSilentLeaseGood { error }.wake_at(deadline),
        Some(_) | None => Reason::StoreSilentDemote { error }.with([demote()]),
    }
}

/// True for a server that is primary, is being promoted, or is starting as primary.
fn becomes_primary(view: &View) -> bool {
    view.postgres.is_primary() || view.action.as_ref().is_some_and(|action| action.kind == ActionKind::Promote)
}

fn demote() -> Effect {
    Effect::Demote { mode: DemoteMode::Offline, upstream: None }
}
