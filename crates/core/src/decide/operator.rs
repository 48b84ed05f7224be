//! What an operator asks of this member's PostgreSQL: a restart, or a new copy (section 24).
//!
//! A request is in the view until a decision answers it. Conditions of a restart (role, version, pending changes) are
//! judged by whoever takes the request; what is judged here is whether it can be carried out now.

use std::time::Duration;

use crate::cluster::Cluster;

use super::effect::{Decision, Effect, StartAs};
use super::follow;
use super::is_owner;
use super::memory::Memory;
use super::reason::Reason;
use super::view::{ActionKind, DataDir, View};

/// A request of an operator to this member.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Request {
    /// Stop PostgreSQL in order and start it again.
    Restart {
        /// How long the start may take before others are asked to take over; `None` for `primary_start_timeout`.
        timeout: Option<Duration>,
    },
    /// Remove the data directory and copy another member.
    Reinitialize {
        /// Cancel what is under way.
        force: bool,
        /// Copy the leader, even when another member offers itself.
        from_leader: bool,
    },
}

/// RST-2, RST-3, RNT-1, RNT-2. `None`: nobody asked for anything.
pub(super) fn decide(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    let request = view.request.as_ref()?;
    let busy = view.action.as_ref().map(|action| action.kind).filter(|kind| *kind != ActionKind::Checkpoint);
    Some(match request {
        Request::Restart { timeout } => match busy {
            Some(action) => refused(format!("{action} already in progress")),
            None => restart(view, cluster, memory, *timeout),
        },
        Request::Reinitialize { force, from_leader } => {
            if let Some(refusal) = refuses_copy(view, cluster) {
                return Some(refusal);
            }
            match busy {
                Some(action) if !force => refused(format!("{action} already in progress")),
                // What promotes or steps down is never broken off for this.
                Some(action @ (ActionKind::Promote | ActionKind::Demote | ActionKind::Stop)) => {
                    refused(format!("{action} already in progress"))
                }
                Some(action) => match view.action.as_ref().is_some_and(|action| action.cancelled) {
                    true => Reason::RequestWaits { action }.alone(),
                    false => Reason::RequestWaits { action }.with([Effect::CancelAction]),
                },
                None => reinitialize(view, cluster, *from_leader),
            }
        }
    })
}

fn refused(why: String) -> Decision {
    Reason::RequestRefused { why }.alone()
}

fn restart(view: &View, cluster: &Cluster, memory: &mut Memory, timeout: Option<Duration>) -> Decision {
    if !matches!(view.data_dir, DataDir::Present { .. }) || !view.postgres.alive {
        return refused("PostgreSQL does not run".to_owned());
    }
    let primary = view.postgres.is_primary();
    if primary && !(is_owner(view, cluster) && view.lease.is_safe(view.now)) {
        // It could not be started as a primary again (REC-3).
        return refused("PostgreSQL is primary, and this member does not hold the leader lease".to_owned());
    }
    if primary && view.settings.standby_cluster {
        return refused("PostgreSQL is primary in a standby cluster".to_owned()); // INV-S25
    }
    memory.recovering = true;
    memory.start_timeout = timeout;
    let start = if primary {
        StartAs::Primary
    } else {
        let upstream = follow::upstream(&view.me, &view.tags, &view.settings, cluster);
        StartAs::Standby { upstream: upstream.filter(|name| name.is_remote() || cluster.members.contains_key(name)) }
    };
    Reason::RestartsOnRequest.with([Effect::Restart(start)])
}

/// RNT-1: the leader, or without one, nobody can be copied.
fn refuses_copy(view: &View, cluster: &Cluster) -> Option<Decision> {
    if is_owner(view, cluster) || cluster.is_led_by(&view.me) {
        return Some(refused("I am the leader, can not reinitialize".to_owned()));
    }
    if cluster.leader_member().is_none() {
        return Some(refused("Cluster has no leader, can not reinitialize".to_owned()));
    }
    if view.postgres.is_primary() {
        return Some(refused("PostgreSQL is primary, can not reinitialize".to_owned())); // INV-S11
    }
    None
}

fn reinitialize(view: &View, cluster: &Cluster, from_leader: bool) -> Decision {
    let leader = cluster.leader_member().map(|leader| leader.name.clone());
    let offered = super::bootstrap::clone_source(view, cluster);
    let source = if from_leader { leader } else { offered.or(leader) };
    match source {
        Some(source) => {
            Reason::ReinitializesOnRequest { member: source.clone() }.with([Effect::Clone { source, wipe: true }])
        }
        None => refused("Cluster has no leader, can not reinitialize".to_owned()),
    }
}
