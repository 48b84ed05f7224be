//! The data directory is empty or cannot be looked at (sections 9 and 10).

use crate::cluster::{Cluster, Initialize, LeaseId};
use crate::mutant::{Mutant, leaves_out};
use crate::names::MemberName;

use super::effect::{Decision, Effect};
use super::memory::{Memory, RewindState};
use super::reason::Reason;
use super::view::{DataDir, View};

/// The key below `x/` that names the member which claimed `initialize`, written after the claim; it stays when that
/// member dies (QRK-11).
pub const INTENT_KEY: &str = "bootstrap";

/// The key below `x/` that is bound to the bootstrapper's lease: while it exists, the bootstrapper lives.
pub const INTENT_ALIVE_KEY: &str = "bootstrap_alive";

/// DIR-1…4, BOO-1…7.
pub(super) fn decide(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if view.postgres.alive {
        return if view.settings.paused {
            Reason::EmptyInPause.alone() // DIR-4. INV-S12: the key stays with a server that may be writable.
        } else {
            Reason::StopsWithoutData.with([Effect::StopImmediately]) // DIR-1
        };
    }
    if cluster.is_led_by(&view.me) {
        return Reason::ReleasesWithoutData.with([Effect::Release]); // DIR-2, after DIR-1
    }
    if let DataDir::Inaccessible { problem } = &view.data_dir {
        return Reason::DataDirInaccessible { problem: problem.clone() }.alone(); // DIR-3
    }
    if view.settings.paused {
        return Reason::EmptyInPause.alone(); // DIR-4
    }
    memory.rewind = RewindState::Initial;
    if !cluster.is_unlocked() {
        return clone(view, cluster, memory);
    }
    if leaves_out(Mutant::BootstrapAgain) {
        return Reason::Bootstraps.with([Effect::Bootstrap]);
    }
    match &cluster.initialize {
        Initialize::Absent if !view.may_bootstrap || view.tags.nofailover => Reason::MayNotBootstrap.alone(),
        Initialize::Absent if view.watchdog_failure.is_some() && !view.settings.standby_cluster => no_watchdog(view), // BOO-11
        Initialize::Absent if was_created(memory) => Reason::WasCreated.alone(), // INV-S20
        Initialize::Absent if is_about_to_be_claimed(view, cluster) => Reason::WaitsForBootstrap.alone(), // BOO-4
        Initialize::Absent if view.settings.standby_cluster => {
            Reason::BootstrapsStandby.with([Effect::Bootstrap]) // BOO-1, BOO-2
        }
        Initialize::Absent => Reason::Bootstraps.with([Effect::Bootstrap]), // BOO-1, BOO-3
        Initialize::Bootstrapping if is_abandoned(cluster) || is_left_by_us(view, cluster) => {
            Reason::BootstrapAbandoned.with([Effect::ClearInitialize { seen: cluster.initialize_revision }])
        }
        Initialize::Bootstrapping => Reason::WaitsForBootstrap.alone(), // BOO-4
        Initialize::SystemId(_) | Initialize::Invalid(_) => Reason::WaitsForLeaderToClone.alone(), // BOO-7
    }
}

fn no_watchdog(view: &View) -> Decision {
    Reason::NoWatchdog { why: view.watchdog_failure.clone().unwrap_or_default() }.alone()
}

/// QRK-11: the claim was made by a member that announces its life, and that announcement is gone. A claim without an
/// announcement is Patroni's, and only an operator may judge it; so is one that is newer than what pgward wrote about its
/// own.
fn is_abandoned(cluster: &Cluster) -> bool {
    let claim = cluster.own.get(INTENT_KEY);
    claim.is_some_and(|claim| claim.revision > cluster.initialize_revision)
        && !cluster.own.contains_key(INTENT_ALIVE_KEY)
}

/// QRK-11: the claim is bound to the lease of this member, which is not creating anything: the answer to the claim was
/// lost. It would live as long as this agent, and keep everybody from creating the cluster.
fn is_left_by_us(view: &View, cluster: &Cluster) -> bool {
    let ours = cluster.members.get(&view.me).map(|member| member.lease).filter(|lease| *lease != LeaseId::default());
    ours == Some(cluster.initialize_lease)
}

/// INV-S20: this cluster has had a leader while this agent ran. A store that has lost it all is no reason to create an
/// empty cluster in its place; the members that have the data restore it.
pub(super) fn was_created(memory: &Memory) -> bool {
    let had_leader = |last: &Cluster| last.leader.is_some() && last.initialize.system_id().is_some();
    memory.last_led.as_ref().is_some_and(|last| had_leader(last))
}

/// Another member has announced itself and has not claimed `initialize` yet.
fn is_about_to_be_claimed(view: &View, cluster: &Cluster) -> bool {
    cluster.own.get(INTENT_ALIVE_KEY).is_some_and(|alive| alive.value != view.me.as_str())
}

/// BOO-5: a running member that offers itself by `clonefrom`, else the leader.
fn clone(view: &View, cluster: &Cluster, memory: &Memory) -> Decision {
    if let (Some(error), Some(retry_at)) = (&memory.start_error, memory.retry_at)
        && view.now < retry_at
    {
        return Reason::CloneFailed { error: error.clone() }.wake_at(retry_at); // BOO-12
    }
    match clone_source(view, cluster) {
        Some(source) => Reason::Clones { member: source.clone() }.with([Effect::Clone { source, wipe: false }]),
        None => Reason::WaitsForLeaderToClone.alone(),
    }
}

/// BOO-5: whom to copy.
pub(super) fn clone_source(view: &View, cluster: &Cluster) -> Option<MemberName> {
    let leader = cluster.leader.as_ref()?;
    let offering: Vec<&MemberName> = cluster
        .members
        .values()
        .filter(|member| member.name != view.me && member.name != leader.name)
        .filter(|member| member.has_tag("clonefrom") && member.is_running() && member.address().is_some())
        .map(|member| &member.name)
        .collect();
    // Members that come up together spread over those who offer themselves, without a random number.
    let mine = view.me.as_str().bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    match offering.len() {
        0 => cluster.leader_member().and_then(|leader| leader.address()).map(|_| leader.name.clone()),
        count => offering.get(mine % count).map(|name| (*name).clone()),
    }
}
