//! Decides what this member does next.
//!
//! [`decide`] reads one [`View`], taken at the start of a cycle, and what the last decision remembered, and returns one
//! [`Decision`] with the next [`Memory`]. It is total and deterministic: any input gives a decision, the same input
//! gives the same one (INV-S26). `decide` in this file holds the order of the cycle (CYC-1…22); each situation has a
//! file of its own. To find the line that promotes: `leader::decide` → `promote::promote`.
//!
//! Invariants:
//! - a primary that cannot prove its lease stops before the lease can be given away;
//! - a member is promoted, or started as primary, only while it holds the lease;
//! - the leader key is released only when PostgreSQL is proven not to run as primary;
//! - nothing is wiped that an operator has not allowed to wipe.

pub mod effect;
pub mod failsafe;
pub mod follow;
pub mod memory;
pub mod peers;
#[cfg(any(test, fuzzing))]
pub mod properties;
pub mod reason;
pub mod rewind;
pub mod slots;
pub mod view;

pub mod bootstrap;
mod busy;
mod leader;
mod manual;
pub mod operator;
mod promote;
mod race;
mod recover;
mod starting;
mod store_lost;
pub(crate) mod sync;
mod system_id;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::cluster::{Cluster, Initialize, PostgresState, Revision};
use crate::mutant::{Mutant, leaves_out};

pub use effect::{Decision, DemoteMode, Effect, StartAs};
pub use memory::{CheckpointState, Memory, RewindState, SameHistory};
pub use reason::Reason;
pub use view::View;

use view::{DataDir, Lease, Store};

/// Decides what this member does next.
pub fn decide(view: &View, memory: &Memory) -> (Decision, Memory) {
    let mut next = memory.clone();
    next.absorb(view);
    let mut decision = situation(view, &mut next);
    decision.epoch = match &view.lease {
        Lease::Held { epoch, .. } => Some(*epoch),
        Lease::None | Lease::NotOurs { .. } => None,
    };
    // Whatever was decided, look again when the lease runs out (CYC-22, QRK-14): a promotion may be under way.
    let deadlines = [
        view.demote_at(),
        next.unproven_since.map(|since| since + view.settings.retry_timeout),
        failsafe::wake_at(view, &next),
    ];
    for deadline in deadlines.into_iter().flatten().filter(|deadline| *deadline > view.now) {
        decision = decision.and_wake_at(Some(deadline));
    }
    next.conclude(view);
    (decision, next)
}

/// The order of the cycle: the first situation that applies decides.
fn situation(view: &View, memory: &mut Memory) -> Decision {
    let Store::Current(cluster) = &view.store else {
        return store_lost::decide(view, memory); // CYC-1, CYC-20
    };
    assert!(cluster.warnings.is_empty() || !leaves_out(Mutant::PanicOnGarbage), "garbage in the store");
    if let Some(error) = &memory.bootstrap_failed {
        return Reason::BootstrapFailed { error: error.clone() }
            .with([Effect::Exit { code: 1, leave_postgres: false }]);
    }
    if let Some(decision) = operator::decide(view, cluster, memory) {
        return decision; // RST-2, RNT-1: also while something else is under way.
    }
    let decision = in_order(view, cluster, memory);
    // CYC-7, CYC-8. Nothing waits for it: whoever has to promote, restart, or step down does that first.
    if decision.effects.is_empty()
        && let Some(restores) = restore_keys(view, cluster)
    {
        return restores.and_wake_at(decision.wake_at);
    }
    decision
}

/// CYC-9 to CYC-17.
fn in_order(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if let Some(action) = &view.action
        && let Some(decision) = busy::decide(view, cluster, action)
    {
        return decision; // CYC-9
    }
    if view.postgres.alive
        && matches!(view.postgres.state, PostgresState::Starting | PostgresState::Restarting)
        && let Some(decision) = starting::decide(view, cluster, memory)
    {
        return decision; // CYC-10
    }
    if memory.recovering && !view.settings.paused {
        memory.recovering = false; // CYC-12
        if !view.postgres.alive
            && let Some(decision) = recover::after_failed_start(view, cluster, memory)
        {
            return decision;
        }
    }
    let system_id = match &view.data_dir {
        DataDir::Empty | DataDir::Inaccessible { .. } => return bootstrap::decide(view, cluster, memory), // CYC-13
        DataDir::Present { system_id } => system_id.as_deref(),
    };
    if let Some(decision) = leader::time_is_up(view, memory) {
        return decision; // CYC-22, QRK-14: whatever else is the matter.
    }
    if let Some(decision) = system_id::decide(view, cluster, memory, system_id) {
        return decision; // CYC-14
    }
    if !view.postgres.alive {
        return recover::decide(view, cluster, memory); // CYC-15
    }
    if let Some(decision) = failsafe::keeps_promise(view, cluster) {
        return decision; // FS-7
    }
    if is_owner(view, cluster) || cluster.is_led_by(&view.me) {
        leader::decide(view, cluster, memory) // CYC-17
    } else if cluster.is_unlocked() {
        race::decide(view, cluster, memory) // CYC-16
    } else {
        failsafe::in_its_place(view, cluster, follow::decide(view, cluster, memory)) // CYC-17, CYC-2
    }
}

/// True when this member holds the leader key as far as anybody can know: it has proved so, and no newer state of the
/// store says otherwise. A view from before our own acquisition says nothing about it.
fn is_owner(view: &View, cluster: &Cluster) -> bool {
    match &view.lease {
        Lease::Held { epoch, .. } => {
            view.lease.is_exclusive(view.now) && (cluster.is_led_by(&view.me) || cluster.revision < *epoch)
        }
        Lease::None | Lease::NotOurs { .. } => false,
    }
}

/// CYC-7, CYC-8: only the owner restores what the store lost. As long as it holds the key nobody needs what is lost:
/// nobody creates a cluster, and everybody keeps the configuration that was in force.
fn restore_keys(view: &View, cluster: &Cluster) -> Option<Decision> {
    if !is_owner(view, cluster) || view.action.is_some() || !cluster.is_led_by(&view.me) {
        return None;
    }
    if leaves_out(Mutant::LostKeysStay) {
        return None;
    }
    if !view.lease.is_safe(view.now) {
        return None; // Writes may hang as renewals do: stepping down in time comes first.
    }
    if let (None, DataDir::Present { system_id: Some(_) }) = (cluster.initialize.system_id(), &view.data_dir)
        && !view.settings.paused
    {
        let over = match &cluster.initialize {
            Initialize::Absent => None,
            Initialize::Bootstrapping | Initialize::Invalid(_) | Initialize::SystemId(_) => {
                Some(cluster.initialize_revision)
            }
        };
        return Some(Reason::StoresSystemId.with([Effect::StoreSystemId { over }]));
    }
    if cluster.config.is_none() {
        let over = Some(cluster.config_revision).filter(|revision| *revision != Revision::default());
        return Some(Reason::StoresConfig.with([Effect::StoreConfig { over }]));
    }
    None
}
