//! Replication slots of the local server: what [`pgward_core::decide::slots`] has planned is carried out here.

use std::collections::BTreeMap;

use pgward_core::cluster::Cluster;
use pgward_core::decide::slots::plan::{Position, PresentKind, PresentSlot, SlotStep};
use pgward_core::decide::slots::{FAILOVER_SLOTS_SINCE, Slots};
use pgward_postgres::{Instance, MonitorOptions, Slot, SlotKind};
use tracing::{info, warn};

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
                    }
                }
            }));
        }
        Ok(())
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
