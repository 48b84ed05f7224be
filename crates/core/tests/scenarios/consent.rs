//! Failsafe mode: a primary without the store asks the others, and they keep what they promise.

use std::collections::BTreeSet;

use pgward_core::cluster::MemberRole;
use pgward_core::decide::failsafe::{Consent, ConsentAnswer, Promise, Round};
use pgward_core::names::MemberName;
use pgward_core::time::{BootInstant, fence_deadline};

use crate::world::World;

impl World {
    /// One round. Who agrees has made its promise before its answer is on its way.
    pub(crate) fn consent_of(&mut self, asker: &MemberName, members: &BTreeSet<String>) -> Round {
        let sent = self.now;
        let answers = members.iter().map(|name| (name.clone(), self.answer_to_primary(asker, name)));
        Round { sent, answers: answers.collect() }
    }

    fn answer_to_primary(&mut self, asker: &MemberName, member: &str) -> ConsentAnswer {
        let silent = || ConsentAnswer::Unreachable("timed out".to_owned());
        let Ok(member) = member.parse::<MemberName>() else { return silent() };
        let (now, is_silent) = (self.now, self.is_silent(asker, &member));
        let Some(node) = self.nodes.get_mut(&member).filter(|_| !is_silent) else { return silent() };
        let Some(agent) = &node.agent else { return ConsentAnswer::Unreachable("connection refused".to_owned()) };
        if !agent.dynamic.failsafe_mode {
            return ConsentAnswer::Refused("502".to_owned());
        }
        let leads = matches!(agent.local.role, MemberRole::Primary | MemberRole::Promoted);
        if leads || agent.lease.is_exclusive(now) {
            return ConsentAnswer::Refused("Running as a leader".to_owned());
        }
        let (conn_url, api_url) = (format!("postgres://{asker}:5432/postgres"), format!("http://{asker}:8008/patroni"));
        let until = now + agent.dynamic.timing.ttl;
        node.promise = Some(Promise { leader: asker.clone(), conn_url, api_url, until });
        ConsentAnswer::Agreed { position: node.postgres.facts(now).map(|facts| facts.position) }
    }

    /// All others agreed: what a renewal allows, this allows, too. The fencer learns of it first.
    pub(crate) fn live_on_consent(&mut self, name: &MemberName, sent: BootInstant) {
        let agent = self.agent_mut(name);
        let consent = Consent { sent, ttl: agent.dynamic.timing.ttl };
        let deadline = fence_deadline(sent, consent.ttl);
        agent.deadline = agent.deadline.max(Some(deadline));
        agent.consent = Some(consent);
        self.arm(name);
        let node = self.node_mut(name);
        node.proven_until = node.proven_until.max(consent.end());
    }

    /// INV-S15.
    pub(crate) fn check_promise(&mut self, name: &MemberName) {
        let now = self.now;
        if let Some(promise) = self.node(name).promise.as_ref().filter(|promise| now < promise.until) {
            let text = format!("INV-S15: {name} stands, although it has promised {} to wait", promise.leader);
            self.observer.report(text);
        }
    }
}
