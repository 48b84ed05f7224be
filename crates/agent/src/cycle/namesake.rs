//! Another agent with the name of this member (BEY-31): seen by the lease that the leader key is bound to.

use pgward_core::cluster::{Cluster, Leader, LeaseId};
use pgward_core::decide::view::{Lease, View};
use pgward_core::time::BootInstant;
use pgward_store::Store;
use tracing::error;

use super::Cycle;
use crate::lease::LeaseState;
use crate::server::Server;

/// A lease that is none of ours, under which the leader key holds our name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Namesake {
    seen: Option<(LeaseId, BootInstant)>,
    was_told: bool,
}

impl Namesake {
    /// The leader key holds our name under a lease that is none of ours: the member record is not ours to write either.
    pub(super) fn leads(&self) -> bool {
        self.seen.is_some()
    }
}

impl<S: Store, L: Server> Cycle<S, L> {
    /// Tells what is wrong where two members have one name, once it is certain: a lease that a former agent left behind
    /// runs out within its ttl. A leader that sees its key change hands asks the store at once.
    pub(super) fn look_for_namesake(&mut self, view: &View, cluster: &Cluster) {
        let state = self.lease.now();
        let leader = cluster.leader.as_ref().filter(|leader| leader.name == view.me);
        if leader.is_some_and(|leader| has_changed_hands(leader, &state)) {
            self.lease.check();
        }
        let Some(lease) = leader.filter(|leader| is_foreign(leader, &state)).map(|leader| leader.lease) else {
            self.namesake = Namesake::default();
            return;
        };
        let since = match self.namesake.seen {
            Some((known, since)) if known == lease => since,
            Some(_) | None => {
                self.namesake.seen = Some((lease, view.now));
                view.now
            }
        };
        if view.now.since(since) > self.dynamic.timing.ttl + self.dynamic.timing.loop_wait && !self.namesake.was_told {
            self.namesake.was_told = true;
            error!(
                member = %view.me,
                "another agent keeps the leader key under the name of this member: two members have one name; give one \
                 of them another `name` and restart its agent"
            );
        }
    }
}

/// The key was written since it was proven ours.
fn has_changed_hands(leader: &Leader, state: &LeaseState) -> bool {
    matches!(state.key, Lease::Held { .. }) && state.revision.is_some_and(|proven| leader.revision > proven)
}

/// A key without a lease is the one that it names may have.
fn is_foreign(leader: &Leader, state: &LeaseState) -> bool {
    let is_ours = state.id == Some(leader.lease) || state.revision == Some(leader.revision);
    leader.lease != LeaseId::default() && !is_ours
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pgward_core::cluster::Revision;

    use super::*;

    #[test]
    fn the_lease_and_the_revision_tell_whose_a_key_with_our_name_is() {
        let held = Lease::Held { sent: BootInstant::default(), ttl: Duration::from_secs(30), epoch: Revision(5) };
        let ours =
            LeaseState { id: Some(LeaseId(1)), key: held, revision: Some(Revision(6)), consent: None, error: None };
        let key = |lease, revision| Leader {
            name: "a".parse().unwrap(),
            lease: LeaseId(lease),
            epoch: Revision(5),
            revision: Revision(revision),
        };
        for (name, key, changed, foreign) in [
            ("as it was proven", key(1, 6), false, false),
            ("an older picture", key(9, 5), false, true),
            ("bound to the lease before a change of the ttl", key(9, 6), false, false),
            ("another agent has bound it to its lease", key(9, 7), true, true),
            ("an operator wrote it", key(0, 7), true, false),
        ] {
            assert_eq!((has_changed_hands(&key, &ours), is_foreign(&key, &ours)), (changed, foreign), "{name}");
        }
        let nothing = LeaseState { id: Some(LeaseId(1)), key: Lease::None, revision: None, consent: None, error: None };
        assert!(!has_changed_hands(&key(9, 7), &nothing), "nothing was proven that could be lost");
        assert!(is_foreign(&key(9, 7), &nothing));
    }
}
