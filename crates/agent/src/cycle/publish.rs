//! Tells the others: the member record, the status while leading, the slots, and the view that REST serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, Status};
use pgward_core::decide::failsafe::Consent;
use pgward_core::decide::memory::CheckpointState;
use pgward_core::decide::slots::{LogicalSlot, SlotPolicy};
use pgward_core::decide::view::{ActionKind, DataDir, Lease, Store as SeenStore, View};
use pgward_core::time::{BootInstant, lease_end};
use pgward_store::{Condition, Key, Store, StoreError, StoreView};
use tokio::time::{Instant, timeout};
use tracing::{debug, error, info, warn};

use super::Cycle;
use crate::record::{Record, Retained, status};
use crate::rest::view::{NodeView, PendingRestart};
use crate::server::{Seen, Server};

/// What was written last, and when.
#[derive(Default)]
pub(crate) struct Published {
    record: String,
    /// The record without its positions: a change of these is told at once, a change of a position once a tick.
    essence: String,
    record_at: Option<Instant>,
    lease: Option<pgward_core::cluster::LeaseId>,
    status: Option<Status>,
    status_at: Option<Instant>,
    slots_at: Option<Instant>,
    retained: Retained,
    /// Members that other members' records show to be primary beside the leader, and since when.
    rivals: Option<(Vec<String>, BootInstant)>,
}

/// Records of a change of leader may overlap for a moment: that is no split brain.
const RECORDS_OVERLAP: Duration = Duration::from_secs(1);

impl<S: Store, L: Server> Cycle<S, L> {
    /// CYC-19 and DCS-10. Failures undo nothing; the next cycle tries again.
    pub(super) async fn publish(&mut self, view: &View) {
        self.publish_node(view);
        let SeenStore::Current(cluster) = &view.store else { return };
        let cluster = Arc::clone(cluster);
        self.publish_record(view, &cluster).await;
        let leads = matches!(view.lease, Lease::Held { .. }) && cluster.is_led_by(&view.me);
        let is_told = |in_recovery: bool| !in_recovery || view.settings.standby_cluster;
        if leads && view.postgres.facts.as_ref().is_some_and(|facts| is_told(facts.in_recovery)) {
            self.publish_status(view, &cluster).await;
        } else if !leads {
            self.published.retained.clear();
        }
    }

    async fn publish_record(&mut self, view: &View, cluster: &Cluster) {
        let lease = self.lease.now().id;
        let Some(lease_id) = lease else { return };
        if self.namesake.leads() {
            return; // BEY-31: replicas follow the leader by this record.
        }
        let local = self.local.get();
        let seen = self.last_seen.as_ref();
        let problem = self.memory.rejoin_problem(view);
        let essential = Record {
            conn_url: self.server.conn_url(),
            api_url: self.server.api_url(),
            proxy_url: self.server.proxy_url(),
            state: local.state,
            role: local.role,
            tags: &self.config.tags.published(),
            pending_restart: &self.server.pending_restart(),
            lacks_checkpoint: self.memory.checkpoint != CheckpointState::Done
                && matches!(view.lease, Lease::Held { .. })
                && !view.settings.standby_cluster
                || view.action.as_ref().is_some_and(|action| action.kind == ActionKind::Promote),
            facts: None,
            received: None,
            replication_state: None,
            scheduled_restart: self.requests.scheduled().map(|restart| &restart.published),
            paused: view.settings.paused,
            problem: problem.as_deref(),
        };
        let timeline = view.postgres.facts.as_ref().and_then(|facts| facts.timeline);
        let replication_state = seen.and_then(|seen| seen.details.replication_state.as_deref());
        let essence = format!("{} {timeline:?} {replication_state:?}", essential.to_value());
        let full = Record {
            facts: view.postgres.facts.as_ref(),
            received: seen.and_then(|seen| seen.details.received),
            replication_state,
            ..essential
        };
        let value = full.to_value();
        let missing = !cluster.members.contains_key(&view.me);
        let urgent = missing || essence != self.published.essence || lease != self.published.lease;
        let due = value != self.published.record && self.published.record_at.is_none_or(|at| self.is_due(at));
        if !urgent && !due {
            return;
        }
        let key = Key::Member(view.me.clone());
        match self.store.write(&key, &value, Condition::Always, Some(lease_id), self.brief()).await {
            Ok(_) => {
                self.published.record = value;
                self.published.essence = essence;
                self.published.record_at = Some(Instant::now());
                self.published.lease = lease;
            }
            Err(StoreError::LeaseGone) => self.lease.check(),
            Err(problem) => warn!(error = %problem, "the member record could not be written"),
        }
    }

    async fn publish_status(&mut self, view: &View, cluster: &Cluster) {
        let (Some(facts), Some(seen)) = (&view.postgres.facts, &self.last_seen) else { return };
        let ttl = self.dynamic.member_slots_ttl;
        let retained = (!ttl.is_zero()).then(|| self.published.retained.update(cluster, &view.me, view.now, ttl));
        let status = status(&view.me, facts.position, &seen.details.slots, &self.dynamic.slots, retained);
        if self.published.status.as_ref() == Some(&status) && cluster.status == status {
            return;
        }
        let same_slots = self.published.status.as_ref().is_some_and(|before| {
            before.retain_slots == status.retain_slots
                && before.slots.as_ref().map(|slots| slots.len()) == status.slots.as_ref().map(|slots| slots.len())
        });
        if same_slots && self.published.status_at.is_some_and(|at| !self.is_due(at)) {
            return;
        }
        let Ok(leader) = self.lease.leadership() else { return };
        let value = status.to_value();
        match self.store.write_as_leader(leader, &Key::Status, &value, Condition::Always, self.brief()).await {
            Ok(_) => {
                self.published.status = Some(status);
                self.published.status_at = Some(Instant::now());
            }
            Err(StoreError::Conflict { .. }) => self.lease.check(), // BEY-32: not the leader's to write any more.
            Err(problem) => warn!(error = %problem, "the status could not be written"),
        }
    }

    /// CYC-18: the slots that members need here, at most once a second.
    pub(super) async fn sync_slots(&mut self, view: &View) {
        let SeenStore::Current(cluster) = &view.store else { return };
        if view.action.is_some() || !view.postgres.is_running() || cluster.is_unlocked() {
            return;
        }
        let recently = self.published.slots_at.is_some_and(|at| at.elapsed() < Duration::from_secs(1));
        let members_changed = self.server.slots_are_for_others(cluster);
        if recently && !members_changed {
            return;
        }
        self.published.slots_at = Some(Instant::now());
        let seen = self.last_seen.as_ref();
        let Some(slots) = self.with_slot_policy(view, seen, |policy| policy.slots(cluster)) else { return };
        let synced = self.server.sync_slots(cluster, &slots);
        match timeout(self.brief(), synced).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => debug!(error = %problem, "the replication slots could not be brought in line"),
            Err(_) => warn!("bringing the replication slots in line took too long"),
        }
    }

    /// Parameters of PostgreSQL that slots ask for follow the members and the configuration (SLT-7, SLT-10).
    pub(super) fn refresh_slot_parameters(&mut self, view: &View) {
        let SeenStore::Current(cluster) = &view.store else { return };
        if !view.postgres.is_running() || cluster.is_unlocked() {
            return;
        }
        let seen = self.last_seen.as_ref();
        if let Some(parameters) = self.with_slot_policy(view, seen, |policy| policy.parameters(cluster)) {
            self.server_config_due |= self.server.set_slot_parameters(parameters);
        }
    }

    /// Logical slots that this standby has to copy from the primary (SLT-8).
    pub(super) fn lacking_slots(&self, view: &View, seen: &Seen<L::Postmaster>) -> BTreeMap<String, LogicalSlot> {
        let SeenStore::Current(cluster) = &view.store else { return BTreeMap::new() };
        let lacking = |policy: SlotPolicy<'_>| policy.slots(cluster).to_copy(&seen.details.present_slots);
        self.with_slot_policy(view, Some(seen), lacking).unwrap_or_default()
    }

    /// Asks with what decides on slots; `None` while the server's version is not known.
    fn with_slot_policy<T>(
        &self,
        view: &View,
        seen: Option<&Seen<L::Postmaster>>,
        ask: impl FnOnce(SlotPolicy<'_>) -> T,
    ) -> Option<T> {
        let server = seen.and_then(|seen| seen.details.server.as_ref())?;
        let answer = ask(SlotPolicy {
            me: &view.me,
            tags: &view.tags,
            use_slots: self.server.policy().use_slots,
            retains: !self.dynamic.member_slots_ttl.is_zero(),
            permanent: &self.dynamic.slots,
            ignored: &self.dynamic.ignore_slots,
            standby_cluster: view.settings.standby_cluster,
            major: server.server_version / 10_000,
            paused: view.settings.paused,
        });
        Some(answer)
    }

    /// The view that REST answers from.
    pub(super) fn publish_node(&mut self, view: &View) {
        let local = self.local.get();
        let (cluster, read_at) = match &self.decided_on {
            StoreView::Current { cluster, .. } => (Some(Arc::clone(cluster)), Some(self.wall_seconds())),
            StoreView::Connecting { .. } | StoreView::Lost { .. } => (None, None),
        };
        let lease_until = match &view.lease {
            Lease::Held { sent, ttl, .. } => Some(lease_end(*sent, *ttl)).max(view.failsafe.consent.map(Consent::end)),
            Lease::None | Lease::NotOurs { .. } => None,
        };
        let pending_restart = self.server.pending_restart();
        let text = |value: &serde_json::Value, key: &str| {
            value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        let dynamic = Arc::clone(&self.dynamic);
        let failsafe = cluster.as_ref().and_then(|cluster| cluster.failsafe.clone());
        let before = self.node.borrow().clone();
        let split_brain = self.split_brain(view);
        if split_brain != before.split_brain {
            match split_brain.is_empty() {
                false => {
                    error!(members = ?split_brain, "split brain: primary beside the holder of the leader key (SPL-1)")
                }
                true => info!("the split brain is over"),
            }
        }
        let problem = self.memory.rejoin_problem(view);
        if let Some(problem) = problem.as_ref().filter(|_| problem != before.problem) {
            error!(problem, "this member cannot come back (RWD-12)");
        }
        let is_new = !split_brain.is_empty() && before.split_brain.is_empty();
        let node = NodeView {
            split_brains: before.split_brains + u64::from(is_new),
            split_brain,
            problem,
            state: local.state,
            role: local.role,
            server: self.last_seen.as_ref().and_then(|seen| seen.details.server.clone()),
            lease_until,
            cluster,
            dcs_last_seen: read_at.unwrap_or(before.dcs_last_seen),
            paused: dynamic.pause,
            tags: self.config.tags.published(),
            system_id: match &view.data_dir {
                DataDir::Present { system_id } => system_id.clone(),
                DataDir::Empty | DataDir::Inaccessible { .. } => None,
            },
            pending_restart: pending_restart
                .iter()
                .map(|(parameter, change)| PendingRestart {
                    parameter: parameter.clone(),
                    old_value: text(change, "old_value"),
                    new_value: text(change, "new_value"),
                })
                .collect(),
            scheduled_restart: self.requests.scheduled().map(|restart| restart.published.clone()),
            watchdog_failed: view.watchdog_failure.is_some(),
            failsafe_active: view.failsafe.consent.is_some_and(|consent| view.now < consent.end())
                || view.failsafe.promise_at(view.now).is_some(),
            failsafe_mode: dynamic.failsafe_mode,
            failsafe: failsafe
                .map(|members| members.into_iter().map(|(name, url)| (name, url.into())).collect())
                .or(before.failsafe.clone()),
            next_run: view.now + dynamic.timing.loop_wait,
            ttl: dynamic.timing.ttl,
            loop_wait: dynamic.timing.loop_wait,
            lag_on_failover_bytes_max: dynamic.maximum_lag_on_failover_bytes,
            synchronous: dynamic.synchronous_mode,
            standby_cluster: dynamic.standby_cluster.is_some(),
            ..before
        };
        self.node.send_replace(node);
    }

    /// SPL-1, SPL-2: this member at once, others when the store has shown them for longer than a change of leader takes.
    fn split_brain(&mut self, view: &View) -> Vec<String> {
        let SeenStore::Current(cluster) = &view.store else { return Vec::new() };
        let others = cluster.rivals().filter(|name| **name != view.me).map(ToString::to_string).collect::<Vec<_>>();
        let since = match &self.published.rivals {
            Some((known, since)) if *known == others => *since,
            Some(_) | None => view.now,
        };
        let last = view.now.since(since) >= RECORDS_OVERLAP;
        let mut members = if last { others.clone() } else { Vec::new() };
        self.published.rivals = Some((others, since));
        let is_led_by_another = cluster.leader.as_ref().is_some_and(|leader| leader.name != view.me);
        let is_primary = view.postgres.facts.as_ref().is_some_and(|facts| !facts.in_recovery);
        if is_primary && is_led_by_another && matches!(view.lease, Lease::None) {
            members.push(view.me.to_string());
        }
        members
    }

    fn wall_seconds(&self) -> u64 {
        self.host.wall_now().0.as_secs()
    }

    /// Once a tick, with some slack for ticks that come a little early.
    fn is_due(&self, at: Instant) -> bool {
        at.elapsed() + Duration::from_millis(200) >= self.dynamic.timing.loop_wait
    }

    /// Budget for what is written along the way: a slow store must not hold up the cycle for a whole retry_timeout.
    fn brief(&self) -> Duration {
        self.dynamic.timing.retry_timeout.min(Duration::from_secs(3))
    }
}
