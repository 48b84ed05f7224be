//! Logical slots on standbys: the parameters that they need, and when one can be used after a failover (SLT-9, SLT-10).

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Cluster;
use crate::config::PermanentSlot;
use crate::names::MemberName;

use super::{FAILOVER_SLOTS_SINCE, SlotPolicy, cascade, is_cut_off};

/// Parameters of PostgreSQL that slots ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotParameters {
    /// `hot_standby_feedback`: the primary keeps the catalogue rows that a slot here needs (SLT-10).
    pub hot_standby_feedback: bool,
    /// `sync_replication_slots`: the server keeps failover slots here (SLT-7).
    pub sync_replication_slots: bool,
    /// `synchronized_standby_slots`: a consumer of a failover slot gets nothing that these standbys do not have (SLT-7).
    pub synchronized_standby_slots: Vec<String>,
}

impl SlotPolicy<'_> {
    /// The parameters that the permanent logical slots ask for on this member.
    pub fn parameters(&self, cluster: &Cluster) -> SlotParameters {
        let logical = |slot: &PermanentSlot| slot.is_logical();
        if !self.use_slots || self.standby_cluster || !self.permanent.values().any(logical) {
            return SlotParameters::default();
        }
        let fails_over = |slot: &PermanentSlot| matches!(slot, PermanentSlot::Logical { failover: true, .. });
        let synchronises = self.major >= FAILOVER_SLOTS_SINCE && self.permanent.values().any(fails_over);
        let is_cut_off = is_cut_off(cluster, self.me, self.tags);
        let cascades = !cascade(cluster, self.me, self.tags).is_empty();
        SlotParameters {
            hot_standby_feedback: !is_cut_off && (!self.tags.nofailover || self.feeds_somebody(cluster)),
            // A server takes over slots only from a primary.
            sync_replication_slots: synchronises && !is_cut_off && !cascades && !self.tags.nofailover,
            synchronized_standby_slots: match synchronises {
                true => self.candidates(cluster),
                false => Vec::new(),
            },
        }
    }

    /// Another member gets its WAL through this one.
    fn feeds_somebody(&self, cluster: &Cluster) -> bool {
        cluster.members.values().any(|member| member.replicatefrom() == Some(self.me.as_str()))
    }

    /// The slots of those that stream and could be promoted: one that does not stream would hold up every consumer for as
    /// long as it is away.
    fn candidates(&self, cluster: &Cluster) -> Vec<String> {
        let others = cluster.members.values().filter(|member| member.name != *self.me);
        let streams = others.filter(|member| {
            let is_candidate = !member.is_nofailover() && !member.is_nostream() && member.replicatefrom().is_none();
            is_candidate && member.is_running() && member.replication_state() == Some("streaming")
        });
        streams.map(|member| member.name.slot_name()).collect()
    }
}

/// The slot on the primary through which the feedback of `me` arrives there: its own, or that of the first member of its
/// cascade (SLT-9).
pub fn feedback_slot(cluster: &Cluster, me: &MemberName, tags: &super::OwnTags) -> String {
    cascade(cluster, me, tags).last().map_or(me, |member| &member.name).slot_name()
}

/// True when `a` comes before `b`, in the circle of 32-bit transaction numbers.
fn precedes(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

/// Slots by name, and the oldest catalogue transaction that each holds.
pub type CatalogXmins = BTreeMap<String, Option<u32>>;

/// Which logical slots of a standby could be used after a failover. A copied one cannot at first: the primary may have
/// removed catalogue rows that it needs, before this standby asked to keep them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    ready: BTreeSet<String>,
    /// With what the primary's slot of that name held when the feedback of this standby had arrived there.
    unready: CatalogXmins,
}

impl Readiness {
    /// Takes up the slots that are new here, and forgets those that are gone.
    pub fn observe(&mut self, here: &CatalogXmins) {
        self.ready.retain(|name| here.contains_key(name));
        self.unready.retain(|name, _| here.contains_key(name));
        for name in here.keys().filter(|name| !self.ready.contains(*name)) {
            self.unready.entry(name.clone()).or_insert(None);
        }
    }

    /// A slot was copied: what was known of the one before says nothing about it.
    pub fn forget(&mut self, name: &str) {
        self.ready.remove(name);
        self.unready.remove(name);
    }

    /// The slots that cannot be used after a failover yet.
    pub fn unready(&self) -> Vec<String> {
        self.unready.keys().cloned().collect()
    }

    /// SLT-9: a slot can be used when the primary holds for this standby, under `feedback_slot`, what the slot here needs,
    /// and no more than its own slot held when that began. Returns those that became ready.
    pub fn compare(&mut self, primary: &CatalogXmins, feedback_slot: &str, here: &CatalogXmins) -> Vec<String> {
        let Some(held) = primary.get(feedback_slot).copied().flatten() else { return Vec::new() };
        let mut became_ready = Vec::new();
        for (name, remembered) in &mut self.unready {
            if remembered.is_none() {
                *remembered = primary.get(name).copied().flatten();
            }
            let (Some(remembered), Some(needed)) = (*remembered, here.get(name).copied().flatten()) else { continue };
            if !precedes(held, remembered) && !precedes(needed, held) {
                became_ready.push(name.clone());
            }
        }
        self.unready.retain(|name, _| !became_ready.contains(name));
        self.ready.extend(became_ready.iter().cloned());
        became_ready
    }
}
