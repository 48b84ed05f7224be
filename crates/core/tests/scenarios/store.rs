//! A store in a few lines: keys with revisions, and leases that take their keys with them.
//!
//! It answers as the etcd client of `pgward-store` does, without time of its own: whoever calls brings the instant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, LeaseId, RawKey, Revision};
use pgward_core::time::BootInstant;

/// The leader key.
pub(crate) const LEADER: &str = "leader";

/// What a write depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Condition {
    Always,
    Absent,
    At(Revision),
}

/// The store answered, and the answer is no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The condition does not hold.
    Conflict,
    /// The lease does not exist.
    LeaseGone,
}

/// What a renewal proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The key is ours, under this epoch.
    Ours(Revision),
    /// It is not; its value, when there is one.
    NotOurs(Option<String>),
}

struct Lease {
    ttl: Duration,
    end: BootInstant,
}

/// The store.
#[derive(Default)]
pub(crate) struct Store {
    revision: i64,
    keys: BTreeMap<String, RawKey>,
    leases: BTreeMap<i64, Lease>,
    granted: i64,
    picture: Option<Arc<Cluster>>,
    /// Its clock runs faster than those of the members by the largest error that they allow for (TIM-5).
    pub(crate) is_hasty: bool,
}

impl Store {
    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// All keys as a member reads them.
    pub(crate) fn cluster(&mut self) -> Arc<Cluster> {
        let (revision, keys) = (Revision(self.revision), &self.keys);
        Arc::clone(self.picture.get_or_insert_with(|| Arc::new(Cluster::from_keys(revision, keys.values().cloned()))))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).and_then(|key| std::str::from_utf8(&key.value).ok())
    }

    fn end(&self, now: BootInstant, ttl: Duration) -> BootInstant {
        now + if self.is_hasty { ttl * 1000 / 1001 } else { ttl }
    }

    pub(crate) fn grant(&mut self, now: BootInstant, ttl: Duration) -> LeaseId {
        self.granted += 1;
        let end = self.end(now, ttl);
        self.leases.insert(self.granted, Lease { ttl, end });
        LeaseId(self.granted)
    }

    /// Extends a lease; its length, or `None` when it is gone.
    pub(crate) fn keep_alive(&mut self, now: BootInstant, id: LeaseId) -> Option<Duration> {
        let ttl = self.leases.get(&id.0)?.ttl;
        let end = self.end(now, ttl);
        self.leases.insert(id.0, Lease { ttl, end });
        Some(ttl)
    }

    pub(crate) fn next_lease_end(&self) -> Option<BootInstant> {
        self.leases.values().map(|lease| lease.end).min()
    }

    /// Ends the lease that is due; whether the leader key went with it.
    pub(crate) fn expire(&mut self, now: BootInstant) -> bool {
        let due = self.leases.iter().find(|(_, lease)| lease.end <= now).map(|(id, _)| *id);
        let Some(id) = due else { return false };
        self.leases.remove(&id);
        let bound: Vec<String> =
            self.keys.values().filter(|key| key.lease.0 == id).map(|key| key.suffix.clone()).collect();
        let had_leader = bound.iter().any(|key| key == LEADER);
        self.delete(bound);
        had_leader
    }

    pub(crate) fn put(&mut self, suffix: &str, value: &str, lease: LeaseId) -> Revision {
        self.revision += 1;
        self.picture = None;
        let mod_revision = Revision(self.revision);
        let create_revision = self.keys.get(suffix).map_or(mod_revision, |known| known.create_revision);
        let value = value.as_bytes().to_vec();
        let key = RawKey { suffix: suffix.to_owned(), value, create_revision, mod_revision, lease };
        self.keys.insert(suffix.to_owned(), key);
        mod_revision
    }

    pub(crate) fn delete(&mut self, suffixes: impl IntoIterator<Item = String>) {
        let deleted = suffixes.into_iter().filter(|suffix| self.keys.remove(suffix).is_some()).count();
        if deleted > 0 {
            self.revision += 1;
            self.picture = None;
        }
    }

    pub(crate) fn wipe(&mut self) {
        let all: Vec<String> = self.keys.keys().cloned().collect();
        self.delete(all);
    }

    fn check(&self, suffix: &str, condition: Condition) -> Result<(), Refused> {
        let known = self.keys.get(suffix);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => known.is_none(),
            Condition::At(revision) => known.map(|key| key.mod_revision).unwrap_or_default() == revision,
        };
        if holds { Ok(()) } else { Err(Refused::Conflict) }
    }

    pub(crate) fn write(
        &mut self,
        suffix: &str,
        value: &str,
        condition: Condition,
        lease: Option<LeaseId>,
    ) -> Result<(), Refused> {
        self.check(suffix, condition)?;
        if lease.is_some_and(|lease| !self.leases.contains_key(&lease.0)) {
            return Err(Refused::LeaseGone);
        }
        self.put(suffix, value, lease.unwrap_or_default());
        Ok(())
    }

    pub(crate) fn remove(&mut self, suffix: &str, condition: Condition) -> Result<(), Refused> {
        self.check(suffix, condition)?;
        self.delete([suffix.to_owned()]);
        Ok(())
    }

    fn epoch(&self) -> Revision {
        self.keys.get(LEADER).map(|key| key.create_revision).unwrap_or_default()
    }

    /// DCS-1.
    pub(crate) fn acquire(
        &mut self,
        now: BootInstant,
        me: &str,
        lease: LeaseId,
    ) -> Result<Option<(Duration, Revision)>, Refused> {
        let ttl = self.keep_alive(now, lease).ok_or(Refused::LeaseGone)?;
        let is_ours = match self.keys.get(LEADER) {
            Some(known) => known.value == me.as_bytes() && known.lease == lease,
            None => {
                self.put(LEADER, me, lease);
                true
            }
        };
        Ok(is_ours.then(|| (ttl, self.epoch())))
    }

    /// DCS-4.
    pub(crate) fn take(&mut self, now: BootInstant, me: &str, lease: LeaseId) -> Result<(Duration, Revision), Refused> {
        let ttl = self.keep_alive(now, lease).ok_or(Refused::LeaseGone)?;
        self.put(LEADER, me, lease);
        Ok((ttl, self.epoch()))
    }

    /// DCS-2, with the verification of QRK-9.
    pub(crate) fn renew(
        &mut self,
        now: BootInstant,
        me: &str,
        lease: LeaseId,
        former: &[LeaseId],
    ) -> Result<(Duration, Proof), Refused> {
        let ttl = self.keep_alive(now, lease);
        let Some(known) = self.keys.get(LEADER) else { return Ok((Duration::ZERO, Proof::NotOurs(None))) };
        let is_ours = known.lease == lease || known.lease == LeaseId::default() || former.contains(&known.lease);
        if known.value != me.as_bytes() || !is_ours {
            let holder = String::from_utf8_lossy(&known.value).into_owned();
            return Ok((Duration::ZERO, Proof::NotOurs(Some(holder))));
        }
        let is_bound_elsewhere = known.lease != lease;
        let ttl = ttl.ok_or(Refused::LeaseGone)?;
        if is_bound_elsewhere {
            self.put(LEADER, me, lease);
        }
        Ok((ttl, Proof::Ours(self.epoch())))
    }

    /// DCS-3.
    pub(crate) fn release(&mut self, me: &str, leases: &[LeaseId]) -> bool {
        let is_ours = self.keys.get(LEADER).is_some_and(|known| {
            known.value == me.as_bytes() && (known.lease == LeaseId::default() || leases.contains(&known.lease))
        });
        if is_ours {
            self.delete([LEADER.to_owned()]);
        }
        is_ours
    }
}
