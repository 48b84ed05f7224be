//! Failsafe mode in a tried cluster: whom a primary without the store reaches, agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::world::World;
use crate::decide::failsafe::{Consent, ConsentAnswer, Promise, Round};
use crate::names::MemberName;

impl World {
    /// One round of questions (FS-4, FS-5). Who agrees makes its promise.
    pub(super) fn consent_of(
        &mut self,
        asker: &MemberName,
        members: &BTreeSet<String>,
        now: Duration,
    ) -> Option<Round> {
        let (is_apart, sent) = self.machines.get(asker).map(|asker| (asker.is_apart, asker.boot + now))?;
        let mut answers = BTreeMap::new();
        for name in members {
            let member = name.parse().ok().and_then(|name: MemberName| self.machines.get_mut(&name));
            let reached = member.filter(|member| member.is_apart == is_apart && !member.is_over);
            let answer = match reached {
                None => ConsentAnswer::Unreachable("does not answer".to_owned()),
                Some(member) if !member.view.settings.failsafe_mode => {
                    ConsentAnswer::Refused("its failsafe mode is off".to_owned())
                }
                Some(member) if member.view.postgres.is_primary() => {
                    ConsentAnswer::Refused("it is primary, too".to_owned())
                }
                Some(member) => {
                    let until = member.boot + now + member.view.settings.ttl;
                    let (conn_url, api_url) = (String::new(), String::new());
                    member.view.failsafe.promise = Some(Promise { leader: asker.clone(), conn_url, api_url, until });
                    ConsentAnswer::Agreed { position: member.view.postgres.position() }
                }
            };
            answers.insert(name.clone(), answer);
        }
        Some(Round { sent, answers })
    }

    /// All others agreed.
    pub(super) fn live_on_consent(&mut self, name: &MemberName, sent: crate::time::BootInstant) {
        if let Some(machine) = self.machines.get_mut(name) {
            let ttl = machine.view.settings.ttl;
            machine.view.failsafe.consent = Some(Consent { sent, ttl });
        }
    }
}
