//! Does the data directory belong to this cluster (DIR-5…10)?

use crate::cluster::{Cluster, Initialize};

use super::bootstrap::{self, INTENT_ALIVE_KEY};
use super::effect::{Decision, Effect};
use super::is_owner;
use super::memory::Memory;
use super::reason::Reason;
use super::view::View;

/// `None`: it does, or a running replica may go on.
pub(super) fn decide(view: &View, cluster: &Cluster, memory: &Memory, ours: Option<&str>) -> Option<Decision> {
    let Some(ours) = ours else {
        if view.postgres.is_primary() && !view.settings.paused && !is_owner(view, cluster) {
            return None; // INV-S1: a running primary goes on or stops by its lease, not by what can be read of its files.
        }
        // DIR-5. Without a server the key would only keep others from leading.
        let idle_key = !view.postgres.alive && (cluster.is_led_by(&view.me) || is_owner(view, cluster));
        return Some(Reason::InvalidDataDir.with(idle_key.then_some(Effect::Release)));
    };
    let paused = view.settings.paused;
    let over = match &cluster.initialize {
        Initialize::SystemId(theirs) if theirs == ours => return None,
        Initialize::SystemId(theirs) => {
            let (theirs, ours) = (theirs.clone(), ours.to_owned());
            if !paused {
                let exit = Effect::Exit { code: 1, leave_postgres: false };
                return Some(Reason::ForeignDataDir { theirs, ours }.with([exit])); // DIR-6
            }
            let reason = Reason::ForeignDataDirInPause { theirs, ours };
            return cluster.is_led_by(&view.me).then(|| reason.with([Effect::Release])); // DIR-7
        }
        Initialize::Absent => None,
        Initialize::Bootstrapping | Initialize::Invalid(_) => Some(cluster.initialize_revision),
    };
    if !cluster.is_unlocked() || paused {
        return None; // DIR-10: the owner restores it, in `restore_keys`.
    }
    // INV-S20: a claim that somebody made after the store had lost our cluster does not end it. Its maker finds that out
    // before it stores an identifier.
    let ours_was_lost = memory.last_led.as_ref().is_some_and(|last| last.initialize.system_id() == Some(ours));
    let is_restored = bootstrap::was_created(memory) && ours_was_lost;
    if cluster.initialize == Initialize::Bootstrapping && cluster.own.contains_key(INTENT_ALIVE_KEY) && !is_restored {
        return Some(Reason::WaitsForBootstrap.alone()); // QRK-11: somebody is at it, alive
    }
    if view.postgres.managed && !view.postgres.is_primary() {
        // DIR-10: only an owner restores the identifier. So this member may stand, unless somebody creates a cluster.
        let claimed = cluster.initialize == Initialize::Bootstrapping;
        return claimed.then(|| Reason::WaitsForSystemId.alone());
    }
    if view.postgres.alive && !view.postgres.is_primary() {
        let exit = Effect::Exit { code: 1, leave_postgres: true };
        return Some(Reason::AttachAborted.with([exit])); // DIR-8
    }
    Some(Reason::StoresSystemId.with([Effect::StoreSystemId { over }])) // DIR-9
}
