//! What would happen if: the real [`decide`](crate::decide::decide) on the live views of all members, after a loss.
//!
//! The views are those that the members took last; what the loss changes is changed in them. Everything but the
//! decisions is a simple model (`world`): a leader renews its lease until it is lost, every effect is carried out at
//! once and succeeds, and PostgreSQL needs no time. So the times that are told are those of leases and of waiting, and
//! what a promotion, a copy or a rewind takes comes on top.

mod consent;
mod outcome;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::cluster::{Cluster, MemberRole, PostgresState};
use crate::decide::failsafe::Failsafe;
use crate::decide::peers::PeerStatus;
use crate::decide::view::{Facts, Lease, OwnTags, Postgres, RecoveryDiff};
use crate::decide::{Effect, Memory, Reason, View};
use crate::names::MemberName;

pub use outcome::{Outcome, Verdict};

/// What a member told about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// What it saw last.
    pub view: View,
    /// What it remembers since.
    pub memory: Memory,
    /// What it answers to other members now. `None` when it does not answer.
    pub status: Option<PeerStatus>,
}

impl Observed {
    /// What a member would see that answers only for its status, such as one that Patroni runs: as `template` saw it,
    /// with its own role, position and tags.
    pub fn assumed(name: &MemberName, status: &PeerStatus, cluster: &Cluster, template: &View) -> Observed {
        let role = if status.in_recovery { MemberRole::Replica } else { MemberRole::Primary };
        let epoch = cluster.leader.as_ref().filter(|leader| leader.name == *name).map(|leader| leader.epoch);
        let (now, ttl) = (template.now, template.settings.ttl);
        let position = if status.in_recovery { status.position } else { cluster.status.optime.unwrap_or_default() };
        let facts = Facts {
            in_recovery: status.in_recovery,
            position,
            replayed: position,
            timeline: status.timeline,
            streaming: status.in_recovery,
            replay_paused: false,
            history: None,
            replication: crate::sync::pick::Replication::default(),
            checkpointed: true,
        };
        let view = View {
            me: name.clone(),
            tags: OwnTags {
                nofailover: status.nofailover,
                failover_priority: status.failover_priority,
                ..OwnTags::default()
            },
            lease: epoch.map_or(Lease::None, |epoch| Lease::Held { sent: now, ttl, epoch }),
            postgres: Postgres {
                state: PostgresState::Running,
                role,
                alive: true,
                starting_since: None,
                facts: Some(facts),
                control: None,
                managed: true,
                recovery: RecoveryDiff::Same,
                lacks_slots: BTreeMap::new(),
            },
            action: None,
            finished: Vec::new(),
            poll: None,
            failsafe: Failsafe::default(),
            watchdog_failure: None,
            ..template.clone()
        };
        Observed { view, memory: Memory::default(), status: Some(status.clone()) }
    }
}

/// A cluster at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// The store.
    pub cluster: Arc<Cluster>,
    /// The members that told what they see.
    pub members: BTreeMap<MemberName, Observed>,
}

/// What is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: how it goes on from here.
    Nothing,
    /// A member's machine, with everything on it.
    Member(MemberName),
    /// The store, for everybody.
    Store,
    /// These members are cut off from the store and from the others, not from each other.
    Partition(BTreeSet<MemberName>),
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Projection {
    /// What happens, in its order.
    pub steps: Vec<Step>,
    /// How it ends.
    pub outcome: Outcome,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// How long after the loss, at the latest.
    #[serde(serialize_with = "as_seconds")]
    pub after: Duration,
    /// To whom. `None`: to the cluster.
    pub member: Option<MemberName>,
    /// What.
    pub event: Event,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The member is lost.
    Lost,
    /// The member does not reach the store any more.
    CutOff,
    /// The lease of the leader runs out, and the store removes its key.
    LeaseEnds {
        /// Who held it.
        of: MemberName,
    },
    /// The member decides.
    Decides {
        /// Why.
        reason: Reason,
        /// What to do.
        effects: Vec<Effect>,
    },
    /// Another member was faster to take the leader key.
    LosesRace {
        /// Who has it.
        to: MemberName,
    },
    /// Its PostgreSQL is primary.
    IsPrimary,
    /// Its PostgreSQL stops, and is not primary any more.
    IsNoPrimary,
    /// The model ends here for this member: what follows takes long, or depends on what is found.
    NotForeseen,
}

fn as_seconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

/// What would happen after `loss`. Nothing is touched.
pub fn what_if(live: &Live, loss: &Loss) -> Projection {
    let mut world = world::World::new(live, loss);
    world.run();
    world.into_projection()
}
