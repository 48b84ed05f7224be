//! Which physical replication slots a member keeps for the others (SLT-1…5, for members).

use std::collections::BTreeMap;

use crate::cluster::{Cluster, Member};
use crate::names::MemberName;
use crate::wal::Lsn;

/// A slot that this member shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSlot {
    /// Somebody is expected to stream from it; while nobody does, it stays where it is (SLT-4).
    pub expected_active: bool,
    /// Where an inactive slot may be moved forward to (SLT-5).
    pub advance_to: Option<Lsn>,
}

/// The physical member slots that `me` shall have (SLT-2).
///
/// `nofailover` members keep slots only for those who cascade from them.
pub fn wanted(cluster: &Cluster, me: &MemberName, nofailover: bool) -> BTreeMap<String, WantedSlot> {
    let leads = cluster.is_led_by(me);
    let own_slot = me.slot_name();
    let mut slots = BTreeMap::new();
    for member in cluster.members.values().filter(|member| member.name != *me && !member.is_nostream()) {
        let cascades_from_me = member.replicatefrom() == Some(me.as_str());
        if nofailover && !leads && !cascades_from_me {
            continue;
        }
        let slot = member.name.slot_name();
        if slot == own_slot {
            continue; // A collision of names; a slot for oneself would hold back WAL for ever.
        }
        let wanted = WantedSlot {
            expected_active: expected_active(cluster, me, member, leads),
            advance_to: advance(cluster, member, &slot),
        };
        slots.insert(slot, wanted);
    }
    if !nofailover {
        for slot in cluster.status.retain_slots.iter().flatten().filter(|slot| **slot != own_slot) {
            let advance_to = cluster.status.slots.as_ref().and_then(|slots| slots.get(slot)).copied();
            slots.entry(slot.clone()).or_insert(WantedSlot { expected_active: false, advance_to });
        }
    }
    slots
}

/// SLT-4.
fn expected_active(cluster: &Cluster, me: &MemberName, member: &Member, leads: bool) -> bool {
    match member.replicatefrom() {
        Some(source) if source == me.as_str() => !cluster.is_led_by(&member.name),
        Some(source) => leads && !cluster.members.keys().any(|name| name.as_str() == source),
        None => leads,
    }
}

/// SLT-5.
fn advance(cluster: &Cluster, member: &Member, slot: &str) -> Option<Lsn> {
    let published = cluster.status.slots.as_ref().and_then(|slots| slots.get(slot)).copied();
    let own = member.replicatefrom().and_then(|_| member.lsn_location());
    published.max(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{LeaseId, RawKey, Revision};

    fn cluster(keys: &[(&str, &str)]) -> Cluster {
        let keys = keys.iter().map(|(suffix, value)| RawKey {
            suffix: (*suffix).to_owned(),
            value: value.as_bytes().to_vec(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            lease: LeaseId(1),
        });
        Cluster::from_keys(Revision(1), keys)
    }

    #[test]
    fn every_promotable_member_keeps_a_slot_for_every_other_one() {
        let cluster = cluster(&[
            ("leader", "a"),
            ("members/a", "{}"),
            ("members/b", "{}"),
            ("members/c", r#"{"tags":{"replicatefrom":"b"},"xlog_location":70}"#),
            ("members/d", r#"{"tags":{"nostream":true}}"#),
            ("status", r#"{"optime":100,"slots":{"a":100,"b":90,"c":60,"gone":50},"retain_slots":["gone"]}"#),
        ]);
        let names =
            |me: &str, nofailover| wanted(&cluster, &me.parse().unwrap(), nofailover).into_keys().collect::<Vec<_>>();
        assert_eq!(names("a", false), ["b", "c", "gone"], "SLT-2: the leader, also for members that are away");
        assert_eq!(names("b", false), ["a", "c", "gone"], "SLT-2: a replica");
        assert_eq!(names("b", true), ["c"], "SLT-2: nofailover, only for those who cascade from it");
        let of_b = wanted(&cluster, &"b".parse().unwrap(), false);
        assert_eq!(of_b["c"], WantedSlot { expected_active: true, advance_to: Some(Lsn(70)) }, "SLT-4, SLT-5");
        assert_eq!(of_b["a"], WantedSlot { expected_active: false, advance_to: Some(Lsn(100)) });
    }
}
