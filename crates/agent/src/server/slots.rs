//! Replication slots of the local server: what [`pgward_core::decide::slots`] has planned is carried out here.

use std::collections::BTreeMap;

use pgward_core::cluster::{Cluster, Member};
use pgward_core::decide::slots::plan::{Position, PresentKind, PresentSlot, SlotStep};
use pgward_core::decide::slots::standby::CatalogXmins;
use pgward_core::decide::slots::{FAILOVER_SLOTS_SINCE, LogicalSlot, Slots};
use pgward_postgres::{Instance, MonitorOptions, Slot, SlotCopy, SlotKind, catalog_xmins, fetch_slots};
use tracing::{debug, info, warn};

use super::{LocalServer, ServerError};

/// A slot as decisions know it.
pub(super) fn present(slot: &Slot) -> PresentSlot {
    let xmin = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
    PresentSlot {
        name: slot.name.clone(),
        kind: match &slot.kind {
            SlotKind::Physical => PresentKind::Physical,
            SlotKind::Logical { plugin, database, confirmed_flush, failover, synced } => PresentKind::Logical {
                database: database.clone(),
                plugin: plugin.clone(),
                confirmed: *confirmed_flush,
                failover: *failover,
                synced: *synced,
            },
        },
        active: slot.active,
        has_xmin: slot.xmin.is_some(),
        catalog_xmin: xmin(&slot.catalog_xmin),
        restart: slot.restart,
        lost: slot.lost,
    }
}

impl LocalServer {
    /// SLT-7, SLT-10: adds what slots ask for. What an operator has set stays, except that feedback is on where a slot
    /// depends on it.
    pub(super) fn add_slot_parameters(&self, parameters: &mut BTreeMap<String, String>, is_standby: bool) {
        let wanted = self.state().slot_parameters.clone();
        let is_set = |parameters: &BTreeMap<String, String>, name: &str| {
            parameters.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned()
        };
        if wanted.hot_standby_feedback && is_standby {
            let name = is_set(parameters, "hot_standby_feedback").unwrap_or("hot_standby_feedback".to_owned());
            parameters.insert(name, "on".to_owned());
        }
        let major = self.instance().major_version().unwrap_or_default();
        if major < FAILOVER_SLOTS_SINCE {
            return;
        }
        let quoted = |name: &String| format!("\"{name}\"");
        let standbys = wanted.synchronized_standby_slots.iter().map(quoted).collect::<Vec<_>>().join(", ");
        let on = if wanted.sync_replication_slots { "on" } else { "" };
        for (name, value) in [("sync_replication_slots", on), ("synchronized_standby_slots", standbys.as_str())] {
            if !value.is_empty() && is_set(parameters, name).is_none() {
                parameters.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Carries out the plan for the slots that are there. What takes long is left to a task, one at a time.
    pub(super) async fn bring_slots_in_line(&self, cluster: &Cluster, slots: &Slots) -> Result<(), ServerError> {
        let options = MonitorOptions { slots: true, walsenders: false };
        let seen =
            self.instance().monitor(&options).await.map_err(|problem| ServerError::Unusable(problem.to_string()))?;
        let there: Vec<PresentSlot> = seen.slots.iter().map(present).collect();
        let lsn = if seen.in_recovery { seen.replayed } else { seen.flushed };
        let position = Position { in_recovery: seen.in_recovery, lsn: lsn.unwrap_or_default() };
        if seen.in_recovery
            && let Err(problem) = self.follow_readiness(cluster, slots, &there).await
        {
            debug!(error = %problem, "the primary could not be asked about logical slots");
        }
        let (slow, quick): (Vec<_>, Vec<_>) = slots.plan(&there, position).into_iter().partition(SlotStep::is_slow);
        for step in &quick {
            carry_out(self.instance(), step).await?;
        }
        self.state().slots_for = cluster.members.keys().map(ToString::to_string).collect();
        let mut state = self.state();
        let is_busy = state.slot_work.as_ref().is_some_and(|work| !work.is_finished());
        if !slow.is_empty() && !is_busy {
            let instance = self.instance().clone();
            state.slot_work = Some(tokio::spawn(async move {
                for step in &slow {
                    if let Err(problem) = carry_out(&instance, step).await {
                        warn!(?step, error = %problem, "a replication slot could not be brought in line");
                        drop_if_useless(&instance, step, &problem).await;
                    }
                }
            }));
        }
        Ok(())
    }

    /// SLT-8: copies of the primary's slots, as they are wanted, for which this server has the WAL.
    pub(super) async fn fetch_usable_slots(
        &self,
        source: &Member,
        slots: &BTreeMap<String, LogicalSlot>,
    ) -> Result<Vec<SlotCopy>, ServerError> {
        let connection = self.reach(source, self.instance().settings().rewind.clone())?;
        let names: Vec<&str> = slots.keys().map(String::as_str).collect();
        let fetched = fetch_slots(&connection, &names).await?;
        let mut usable = Vec::new();
        let mut lacks_wal = Vec::new();
        for copy in fetched {
            let is_wanted = |slot: &LogicalSlot| slot.database == copy.database && slot.plugin == copy.plugin;
            if !slots.get(&copy.name).is_some_and(is_wanted) {
                continue;
            }
            match self.instance().has_wal_from(copy.restart).await? {
                true => usable.push(copy),
                false => lacks_wal.push(format!("{} needs WAL from {} on", copy.name, copy.restart)),
            }
        }
        match usable.is_empty() {
            false => Ok(usable),
            true if !lacks_wal.is_empty() => Err(ServerError::Unusable(format!(
                "this member does not have the WAL of logical slots, which are copied once their consumer has moved on: {}",
                lacks_wal.join("; ")
            ))),
            true => Err(ServerError::Unusable(format!("{} has none of the wanted logical slots", source.name))),
        }
    }

    pub(super) fn install_copies(&self, copies: &[SlotCopy]) -> Result<(), ServerError> {
        self.instance().install_slots(copies)?;
        let mut state = self.state();
        copies.iter().for_each(|copy| state.slot_readiness.forget(&copy.name));
        Ok(())
    }

    /// SLT-9: asks the primary whether copied slots could be used after a failover by now.
    async fn follow_readiness(
        &self,
        cluster: &Cluster,
        slots: &Slots,
        there: &[PresentSlot],
    ) -> Result<(), ServerError> {
        let copied = there.iter().filter(|slot| matches!(slot.kind, PresentKind::Logical { failover: false, .. }));
        let here: CatalogXmins = copied.map(|slot| (slot.name.clone(), slot.catalog_xmin)).collect();
        let unready = {
            let mut state = self.state();
            state.slot_readiness.observe(&here);
            state.slot_readiness.unready()
        };
        let Some(leader) = cluster.leader_member().filter(|_| !unready.is_empty()) else { return Ok(()) };
        let connection = self.reach(leader, self.instance().settings().rewind.clone())?;
        let names = unready.iter().map(String::as_str).chain([slots.feedback_slot.as_str()]).collect::<Vec<_>>();
        let primary = catalog_xmins(&connection, &names).await?;
        for slot in self.state().slot_readiness.compare(&primary, &slots.feedback_slot, &here) {
            info!(slot, "the logical slot could be used after a failover from now on");
        }
        Ok(())
    }

    /// SLT-9: a promotion does not wait for slots.
    pub(super) fn warn_of_unready_slots(&self) {
        let unready = self.state().slot_readiness.unready();
        if !unready.is_empty() {
            warn!(
                slots = ?unready,
                "is promoted before these logical slots are safe: the former primary may have removed rows that they need"
            );
        }
    }

    /// Ends what works on slots beside the cycle.
    pub(super) async fn end_slot_work(&self) {
        let work = self.state().slot_work.take().filter(|work| !work.is_finished());
        let Some(work) = work else { return };
        work.abort();
        if let Err(problem) = self.instance().end_decoding().await {
            warn!(error = %problem, "a replication slot is still being moved forward");
        }
    }
}

/// A slot of a standby that cannot be moved forward, because WAL is gone (58P01) or it is not usable any more (55000), is
/// dropped, to be copied again.
async fn drop_if_useless(instance: &Instance, step: &SlotStep, problem: &ServerError) {
    let ServerError::Sql(problem) = problem else { return };
    let SlotStep::AdvanceLogical { slot, .. } = step else { return };
    if matches!(problem.code(), Some("58P01" | "55000")) && instance.drop_slot(slot).await.is_ok_and(|dropped| dropped)
    {
        info!(slot, "dropped a logical replication slot that cannot be moved forward, to copy it again");
    }
}

/// One step; says what it has changed.
async fn carry_out(instance: &Instance, step: &SlotStep) -> Result<(), ServerError> {
    match step {
        SlotStep::Drop { slot, why } => {
            if instance.drop_slot(slot).await? {
                info!(slot, why = %why, "dropped a replication slot");
            }
        }
        SlotStep::CreatePhysical { slot } => {
            if instance.create_physical_slot(slot).await? {
                info!(slot, "created a replication slot");
            }
        }
        SlotStep::CreateLogical { slot, database, plugin, failover } => {
            if instance.create_logical_slot(slot, database, plugin, *failover).await? {
                info!(slot, database, plugin, failover, "created a logical replication slot");
            }
        }
        SlotStep::SetFailover { slot, failover } => {
            instance.set_slot_failover(slot, *failover).await?;
            info!(slot, failover, "changed whether PostgreSQL keeps a logical replication slot on standbys");
        }
        SlotStep::Advance { slot, to } => {
            instance.advance_slot(slot, *to).await?;
        }
        SlotStep::AdvanceLogical { slot, database, to } => {
            instance.advance_logical_slot(slot, database, *to).await?;
        }
    }
    Ok(())
}
