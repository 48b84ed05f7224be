//! The lease task of the model: renews under a permit, tells the fencer first, and is the only one that touches the
//! leader key.

use std::time::Duration;

use pgward_core::cluster::{LeaseId, Revision};
use pgward_core::decide::view::Lease;
use pgward_core::names::MemberName;
use pgward_core::time::fence_deadline;

use crate::store::{Proof, Refused};
use crate::world::{Armed, Trouble, World};

/// Pause before a failed renewal is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

impl World {
    fn renew_within(&self, name: &MemberName) -> Duration {
        let timing = self.agent(name).dynamic.timing;
        timing.retry_timeout.min(timing.ttl / 6)
    }

    fn renew_every(&self, name: &MemberName) -> Duration {
        let timing = self.agent(name).dynamic.timing;
        timing.loop_wait.min(timing.ttl / 5)
    }

    /// One round: renews the leader key if we hold it, else the lease of our record.
    pub(crate) fn keep(&mut self, name: &MemberName) {
        let now = self.now;
        if now >= self.agent(name).permit_until {
            self.agent_mut(name).renew_at = now + RETRY_PAUSE;
            return;
        }
        self.agent_mut(name).renew_at = now + self.renew_every(name);
        if self.renew_once(name).is_err() {
            let waited = if self.reaches_store(name) { Duration::ZERO } else { self.renew_within(name) };
            self.agent_mut(name).renew_at = now + waited + RETRY_PAUSE;
        }
    }

    fn renew_once(&mut self, name: &MemberName) -> Result<(), Trouble> {
        let lease = self.lease_id(name)?;
        if matches!(self.agent(name).lease, Lease::Held { .. }) {
            return self.renew(name, false).map(|_| ());
        }
        if self.ask(name, |store, now| Ok(store.keep_alive(now, lease)))?.is_none() {
            self.leave_lease(name);
            self.lease_id(name)?;
            self.wake(name); // The record has to be bound to the new lease.
        }
        Ok(())
    }

    /// The present lease, or a new one.
    pub(crate) fn lease_id(&mut self, name: &MemberName) -> Result<LeaseId, Trouble> {
        if let Some(id) = self.agent(name).lease_id {
            return Ok(id);
        }
        let ttl = self.agent(name).dynamic.timing.ttl;
        let id = self.ask(name, |store, now| Ok(store.grant(now, ttl)))?;
        self.agent_mut(name).lease_id = Some(id);
        Ok(id)
    }

    fn leave_lease(&mut self, name: &MemberName) {
        let agent = self.agent_mut(name);
        agent.former.extend(agent.lease_id.take());
    }

    fn with_lease<T>(
        &mut self,
        name: &MemberName,
        request: impl Fn(&mut World, LeaseId) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let lease = self.lease_id(name)?;
        match request(self, lease) {
            Err(Trouble::Refused(Refused::LeaseGone)) => {
                self.leave_lease(name);
                let lease = self.lease_id(name)?;
                request(self, lease)
            }
            other => other,
        }
    }

    /// DCS-2: renews with proof.
    fn renew(&mut self, name: &MemberName, adopts: bool) -> Result<bool, Trouble> {
        let me = name.as_str();
        let (ttl, proof) = self.with_lease(name, |world, lease| {
            let agent = world.agent(name);
            let legacy = agent.legacy.filter(|_| adopts);
            let former: Vec<LeaseId> = agent.former.iter().copied().chain(legacy).collect();
            world.ask(name, |store, now| store.renew(now, me, lease, &former))
        })?;
        self.agent_mut(name).legacy = None;
        match proof {
            Proof::Ours(epoch) => {
                self.hold(name, ttl, epoch);
                Ok(true)
            }
            Proof::NotOurs(holder) => {
                let holder = holder.and_then(|holder| holder.parse().ok());
                self.set_lease(name, Lease::NotOurs { holder });
                let now = self.now;
                self.agent_mut(name).renew_at = now;
                Ok(false)
            }
        }
    }

    /// A confirmed renewal: the fencer learns of it first (BEY-2).
    fn hold(&mut self, name: &MemberName, ttl: Duration, epoch: Revision) {
        let (sent, every) = (self.now, self.renew_every(name));
        let agent = self.agent_mut(name);
        agent.deadline = Some(fence_deadline(sent, ttl));
        agent.renew_at = sent + every;
        self.arm(name);
        let lease = Lease::Held { sent, ttl, epoch };
        self.proven(name, &lease);
        self.set_lease(name, lease);
    }

    fn set_lease(&mut self, name: &MemberName, lease: Lease) {
        let agent = self.agent_mut(name);
        agent.lease = lease;
        agent.consent = None;
        if agent.lease_kind() != agent.decided_kind {
            self.wake(name);
        }
    }

    /// DCS-1.
    pub(crate) fn acquire(&mut self, name: &MemberName) -> Result<bool, Trouble> {
        let me = name.as_str();
        let acquired =
            self.with_lease(name, |world, lease| world.ask(name, |store, now| store.acquire(now, me, lease)))?;
        if let Some((ttl, epoch)) = acquired {
            self.hold(name, ttl, epoch);
        }
        Ok(acquired.is_some())
    }

    /// DCS-E2, after a restart of the agent.
    pub(crate) fn adopt(&mut self, name: &MemberName) -> Result<bool, Trouble> {
        self.renew(name, true)
    }

    /// DCS-4.
    pub(crate) fn take(&mut self, name: &MemberName) -> Result<(), Trouble> {
        let me = name.as_str();
        let (ttl, epoch) =
            self.with_lease(name, |world, lease| world.ask(name, |store, now| store.take(now, me, lease)))?;
        self.hold(name, ttl, epoch);
        Ok(())
    }

    /// DCS-3. Whatever the store answers, this member does not believe to lead any more.
    pub(crate) fn release(&mut self, name: &MemberName) -> Result<bool, Trouble> {
        self.check_release(name);
        self.set_lease(name, Lease::None);
        let me = name.as_str();
        let agent = self.agent(name);
        let leases: Vec<LeaseId> = agent.former.iter().copied().chain(agent.legacy).chain(agent.lease_id).collect();
        self.ask(name, |store, _| Ok(store.release(me, &leases)))
    }

    /// DEM-13: the key expires by time.
    pub(crate) fn forget(&mut self, name: &MemberName) {
        self.set_lease(name, Lease::None);
    }

    // The fencer's orders.

    /// Protects a server, or one that is about to be started. False: there is no lease to do it by.
    pub(crate) fn protect(&mut self, name: &MemberName, process: Option<u64>) -> bool {
        self.agent_mut(name).protected = Some(process);
        self.arm(name)
    }

    pub(crate) fn arm(&mut self, name: &MemberName) -> bool {
        let node = self.node_mut(name);
        let Some(agent) = &node.agent else { return false };
        match (agent.deadline, agent.protected) {
            (Some(deadline), Some(process)) => {
                node.fencer = Some(Armed { deadline, process });
                true
            }
            (None, _) => false,
            (_, None) => true,
        }
    }

    pub(crate) fn disarm(&mut self, name: &MemberName) {
        if self.agent_mut(name).protected.take().is_some() {
            self.node_mut(name).fencer = None;
        }
    }
}
