//! Replication slots: which ones a member keeps (SLT-1…4, SLT-8), what is to be done for that with those that it has
//! ([`plan`]), and when a logical slot of a standby can be used after a failover ([`standby`]).

pub mod plan;
pub mod standby;

use std::collections::BTreeMap;

use crate::cluster::{Cluster, Member};
use crate::config::{ClusterType, PermanentSlot, SlotPattern};
use crate::names::MemberName;
use crate::wal::Lsn;

use super::view::OwnTags;

/// The first major version of PostgreSQL that keeps logical slots on standbys by itself (SLT-7).
pub const FAILOVER_SLOTS_SINCE: u32 = 17;

/// A slot that this member shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSlot {
    /// What it is.
    pub kind: WantedKind,
    /// Somebody is expected to stream from it; while nobody does, it stays where it is (SLT-4).
    pub expected_active: bool,
    /// Where an inactive slot may be moved forward to (SLT-5, SLT-8).
    pub advance_to: Option<Lsn>,
}

/// What a wanted slot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedKind {
    /// For a standby.
    Physical,
    /// For a consumer of logical decoding.
    Logical {
        /// Its database.
        database: String,
        /// Its output plugin.
        plugin: String,
        /// The server keeps it on standbys (SLT-7).
        failover: bool,
    },
}

/// A logical slot that a standby lacks and the primary has.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogicalSlot {
    /// Its database.
    pub database: String,
    /// Its output plugin.
    pub plugin: String,
}

/// What decides besides the cluster which slots a member keeps.
#[derive(Clone, Copy, Debug)]
pub struct SlotPolicy<'a> {
    /// This member.
    pub me: &'a MemberName,
    /// Its tags.
    pub tags: &'a OwnTags,
    /// `use_slots`.
    pub use_slots: bool,
    /// `member_slots_ttl` is not zero: members have a slot everywhere, also while they are away (SLT-2).
    pub retains: bool,
    /// The permanent slots.
    pub permanent: &'a BTreeMap<String, PermanentSlot>,
    /// Slots that are left alone.
    pub ignored: &'a [SlotPattern],
    /// The cluster follows another one.
    pub standby_cluster: bool,
    /// The major version of the server.
    pub major: u32,
    /// Maintenance mode: nothing is dropped (PAU-11).
    pub paused: bool,
}

/// The slots that a member shall have, and what has to be known to get there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The slots by name.
    pub wanted: BTreeMap<String, WantedSlot>,
    /// Slots that are left alone.
    pub ignored: Vec<SlotPattern>,
    /// This member holds the leader key.
    pub leads: bool,
    /// What is not wanted may be dropped.
    pub may_drop: bool,
    /// The slot of the primary through which it hears what is needed here (SLT-9).
    pub feedback_slot: String,
}

impl SlotPolicy<'_> {
    /// The slots that this member shall have (SLT-1…4, SLT-8).
    ///
    /// `nofailover` members keep slots only for those who cascade from them, unless they lead all the same.
    pub fn slots(&self, cluster: &Cluster) -> Slots {
        let leads = cluster.is_led_by(self.me);
        let wanted = if self.use_slots { self.wanted(cluster, leads) } else { BTreeMap::new() };
        let feedback_slot = standby::feedback_slot(cluster, self.me, self.tags);
        Slots { wanted, ignored: self.ignored.to_vec(), leads, may_drop: !self.paused, feedback_slot }
    }

    fn wanted(&self, cluster: &Cluster, leads: bool) -> BTreeMap<String, WantedSlot> {
        let own_slot = self.me.slot_name();
        let may_lead = leads || !self.tags.nofailover;
        let mut slots = BTreeMap::new();
        for member in cluster.members.values().filter(|member| member.name != *self.me && !member.is_nostream()) {
            let slot = member.name.slot_name();
            // A collision of names; a slot for oneself would hold back WAL for ever.
            if slot != own_slot && self.keeps_for(cluster, member, leads, may_lead) {
                let wanted = WantedSlot {
                    kind: WantedKind::Physical,
                    expected_active: self.expects(cluster, member, leads),
                    advance_to: advance(cluster, member, &slot),
                };
                slots.insert(slot, wanted);
            }
        }
        if !may_lead {
            return slots;
        }
        if self.retains {
            for slot in cluster.status.retain_slots.iter().flatten().filter(|slot| **slot != own_slot) {
                let wanted = WantedSlot {
                    kind: WantedKind::Physical,
                    expected_active: false,
                    advance_to: published(cluster, slot),
                };
                slots.entry(slot.clone()).or_insert(wanted);
            }
        }
        let decodes = !self.standby_cluster && !is_cut_off(cluster, self.me, self.tags);
        for (name, slot) in self.permanent.iter().filter(|(name, _)| **name != own_slot) {
            let kind = match slot {
                PermanentSlot::Physical { cluster_type } if self.is_for(*cluster_type) => WantedKind::Physical,
                PermanentSlot::Logical { database, plugin, failover } if decodes => WantedKind::Logical {
                    database: database.clone(),
                    plugin: plugin.clone(),
                    failover: *failover && self.major >= FAILOVER_SLOTS_SINCE,
                },
                PermanentSlot::Physical { .. } | PermanentSlot::Logical { .. } => continue,
            };
            // The slot of a member is physical, whatever else is to have its name; validation says so.
            let wanted = WantedSlot { kind, expected_active: leads, advance_to: published(cluster, name) };
            slots.entry(name.clone()).or_insert(wanted);
        }
        slots
    }

    fn is_for(&self, cluster_type: Option<ClusterType>) -> bool {
        match cluster_type {
            None => true,
            Some(ClusterType::Primary) => !self.standby_cluster,
            Some(ClusterType::Standby) => self.standby_cluster,
        }
    }

    /// SLT-2, SLT-3.
    fn keeps_for(&self, cluster: &Cluster, member: &Member, leads: bool, may_lead: bool) -> bool {
        let cascades_from_me = member.replicatefrom() == Some(self.me.as_str());
        match self.retains {
            true => may_lead || cascades_from_me,
            false => self.expects(cluster, member, leads),
        }
    }

    /// SLT-4.
    fn expects(&self, cluster: &Cluster, member: &Member, leads: bool) -> bool {
        match member.replicatefrom() {
            Some(source) if source == self.me.as_str() => !cluster.is_led_by(&member.name),
            Some(source) => leads && !cluster.members.keys().any(|name| name.as_str() == source),
            None => leads,
        }
    }
}

/// SLT-5.
fn advance(cluster: &Cluster, member: &Member, slot: &str) -> Option<Lsn> {
    let own = member.replicatefrom().and_then(|_| member.lsn_location());
    published(cluster, slot).max(own)
}

fn published(cluster: &Cluster, slot: &str) -> Option<Lsn> {
    cluster.status.slots.as_ref().and_then(|slots| slots.get(slot)).copied()
}

/// The members that `me` gets its WAL through, the nearest first, as far as the tags say: those that it cascades from
/// before the leader.
fn cascade<'c>(cluster: &'c Cluster, me: &MemberName, tags: &OwnTags) -> Vec<&'c Member> {
    let find = |name: &str| cluster.members.values().find(|member| member.name.as_str() == name && member.name != *me);
    let next = |member: &&'c Member| match cluster.is_led_by(&member.name) {
        true => None,
        false => member.replicatefrom().and_then(find),
    };
    let first = tags.replicatefrom.as_deref().and_then(find);
    // As many steps as there are members: others may follow one another in a circle.
    let chain = std::iter::successors(first, next).take(cluster.members.len());
    chain.filter(|member| !cluster.is_led_by(&member.name)).collect()
}

/// True when `me` does not stream, or gets its WAL through a member that does not: no feedback reaches the primary, so that
/// no logical slot could be kept here (SLT-10).
fn is_cut_off(cluster: &Cluster, me: &MemberName, tags: &OwnTags) -> bool {
    tags.nostream || cascade(cluster, me, tags).iter().any(|member| member.is_nostream())
}

#[cfg(test)]
mod tests;
