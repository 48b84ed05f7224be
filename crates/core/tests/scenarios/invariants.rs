//! What must hold after every event, whatever happened before.

use std::collections::BTreeMap;
use std::time::Duration;

use pgward_core::cluster::{Revision, is_system_id};
use pgward_core::decide::view::{ActionKind, DataDir, Store as SeenStore, View};
use pgward_core::decide::{Decision, DemoteMode, Effect, Reason};
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use pgward_core::wal::Timeline;

use crate::store::Store;
use crate::world::World;

/// Sees everything at once, which no member can, and remembers what went wrong.
#[derive(Default)]
pub(crate) struct Observer {
    /// What was violated.
    pub(crate) violations: Vec<String>,
    /// The identifier that the cluster was created with.
    system_id: Option<String>,
    /// An operator has meddled with the keys of the leadership: until then nobody can promise a single primary.
    pub(crate) excused_until: BootInstant,
    /// An operator has named who leads: until then it may be somebody on an old timeline.
    named_until: BootInstant,
    /// How often each request made a leader step down.
    step_downs: BTreeMap<Revision, u32>,
}

impl Observer {
    pub(crate) fn report(&mut self, violation: String) {
        if !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    /// INV-S10: the identifier of a cluster never changes once somebody has proven to lead.
    pub(crate) fn saw_store(&mut self, store: &Store) {
        let Some(now) = store.get("initialize").filter(|id| is_system_id(id)).map(str::to_owned) else { return };
        match &self.system_id {
            Some(known) if *known != now => self.report(format!("INV-S10: initialize changed from {known} to {now}")),
            Some(_) | None => {}
        }
    }

    /// A member has proven that it leads: from now on the cluster exists.
    pub(crate) fn saw_proof(&mut self, store: &Store) {
        if self.system_id.is_none() {
            self.system_id = store.get("initialize").filter(|id| is_system_id(id)).map(str::to_owned);
        }
    }

    pub(crate) fn saw_promotion(&mut self, name: &MemberName, timeline: Option<Timeline>) {
        if timeline.is_none() {
            self.report(format!("{name} was promoted without a timeline"));
        }
    }
}

impl World {
    /// True while maintenance mode is on anywhere: the operator decides then.
    pub(crate) fn is_paused(&self) -> bool {
        let stored = self.store.get("config").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        stored.is_some_and(|config| config["pause"] == true)
            || self.nodes.values().any(|node| node.agent.as_ref().is_some_and(|agent| agent.dynamic.pause))
    }

    /// After every event.
    pub(crate) fn check_invariants(&mut self) {
        if self.now < self.observer.excused_until || self.is_paused() {
            return;
        }
        let ours = |name: &MemberName| {
            let data = self.node(name).postgres.data.as_ref();
            data.is_some_and(|data| data.system_id.is_some() && data.system_id == self.observer.system_id)
        };
        let writable: Vec<MemberName> =
            self.names().into_iter().filter(|name| ours(name) && self.is_writable(name)).collect();
        if writable.len() > 1 {
            self.observer.report(format!("INV-S1: {writable:?} accept writes at once"));
        }
        for name in writable {
            if self.now >= self.node(&name).proven_until {
                self.observer.report(format!("INV-S2: {name} accepts writes without a lease"));
            }
            let timeline = self.node(&name).postgres.data.as_ref().map(|data| data.wal.timeline);
            let newest = self.picture().timeline();
            if timeline < newest && self.now >= self.observer.named_until {
                self.observer.report(format!("INV-S9: {name} is writable on timeline {timeline:?} after {newest:?}"));
            }
        }
        for (name, node) in &self.nodes {
            if node.postgres.process.as_ref().is_some_and(|process| process.upstream.as_ref() == Some(name)) {
                self.observer.report(format!("INV-S22: {name} follows itself"));
            }
        }
    }

    /// What a decision may ask for at all.
    pub(crate) fn check_decision(&mut self, name: &MemberName, view: &View, decision: &Decision, is_same: bool) {
        let mut report = |rule: &str| self.observer.report(format!("{rule}: {name} decided {decision:?}"));
        if !is_same {
            report("INV-S26, the same view gave another decision");
        }
        let led_by_me = matches!(&view.store, SeenStore::Current(cluster) if cluster.is_led_by(&view.me));
        let is_primary = view.postgres.is_primary();
        let asks_for = |wanted: fn(&Effect) -> bool| decision.effects.iter().any(wanted);
        if asks_for(|effect| matches!(effect, Effect::Clone { wipe: false, .. })) && view.data_dir != DataDir::Empty {
            report("INV-S11, copies over a directory that is not empty");
        }
        let may_wipe = view.settings.wipe_on_divergence || view.settings.wipe_on_rewind_failure;
        if asks_for(|effect| matches!(effect, Effect::Clone { wipe: true, .. }))
            && (!may_wipe || led_by_me || is_primary || view.lease.is_exclusive(view.now))
        {
            report("INV-S11, wipes without leave");
        }
        if asks_for(|effect| *effect == Effect::Release) && is_primary && !view.settings.paused {
            report("INV-S12, gives up the key as a primary");
        }
        if asks_for(|effect| *effect == Effect::Promote) && !view.lease.is_safe(view.now) {
            report("INV-S3, promotes without time left");
        }
        if asks_for(|effect| *effect == Effect::Acquire) && view.tags.nofailover && !is_primary {
            report("INV-S24, stands although it is tagged nofailover");
        }
        let disturbs = |effect: &Effect| {
            let demotes = matches!(effect, Effect::Demote { mode, .. } if *mode != DemoteMode::Graceful);
            demotes || matches!(effect, Effect::Clone { .. } | Effect::Bootstrap | Effect::StopImmediately)
        };
        if view.settings.paused && asks_for(disturbs) {
            report("INV-S14, acts in pause");
        }
        if matches!(decision.reason, Reason::StandsAsCandidate | Reason::TakesKeyInPause) {
            self.observer.named_until = self.now + Duration::from_secs(60);
        }
        self.check_request(name, view, decision);
    }

    /// INV-S17: one request makes a primary step down at most once.
    fn check_request(&mut self, name: &MemberName, view: &View, decision: &Decision) {
        if let (Reason::StepsDown { .. }, SeenStore::Current(cluster)) = (&decision.reason, &view.store)
            && let Some(request) = cluster.failover.as_ref().filter(|_| view.postgres.is_primary())
        {
            let count = self.observer.step_downs.entry(request.revision).or_default();
            *count += 1;
            if *count > 1 {
                self.observer.report(format!("INV-S17: {name} steps down again for the same request"));
            }
        }
    }

    /// INV-S13: at most one action at a time.
    pub(crate) fn check_one_action(&mut self, name: &MemberName, kind: ActionKind) {
        let running = self.agent(name).action.as_ref().map(|action| action.kind);
        if let Some(running) = running.filter(|_| kind != ActionKind::Checkpoint) {
            self.observer.report(format!("INV-S13: {name} starts {kind} during {running}"));
        }
    }

    /// INV-S12: whoever gives up the key does not accept writes.
    pub(crate) fn check_release(&mut self, name: &MemberName) {
        if self.is_writable(name) && !self.is_paused() {
            self.observer.report(format!("INV-S12: {name} gives up the key while it accepts writes"));
        }
    }

    /// INV-S3: a promotion is issued only with lease left.
    pub(crate) fn check_promotion(&mut self, name: &MemberName) {
        if self.now >= self.node(name).proven_until {
            self.observer.report(format!("INV-S3: {name} promotes without a lease"));
        }
    }

    /// Panics with the story when something was violated.
    pub(crate) fn assert_sound(&self, context: &str) {
        let violations = self.observer.violations.join("\n");
        assert!(violations.is_empty(), "{context}: violated\n{violations}\n\nthe story so far:\n{}", self.tail());
    }
}
