//! What is to be done with the slots that a server has, so that it has those it shall have (SLT-5…8).

use std::collections::BTreeMap;

use crate::config::SlotPattern;
use crate::wal::Lsn;

use super::{LogicalSlot, Slots, WantedKind, WantedSlot};

/// A slot that the server has. Temporary ones do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentSlot {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: PresentKind,
    /// Somebody uses it.
    pub active: bool,
    /// It holds rows for a standby's queries.
    pub has_xmin: bool,
    /// The oldest catalogue transaction that it holds.
    pub catalog_xmin: Option<u32>,
    /// The oldest WAL that it holds; `None` when it reserves nothing.
    pub restart: Option<Lsn>,
    /// Its WAL is gone.
    pub lost: bool,
}

/// What a present slot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresentKind {
    /// For a standby.
    Physical,
    /// For a consumer of logical decoding.
    Logical {
        /// Its database.
        database: String,
        /// Its output plugin.
        plugin: String,
        /// Confirmed by the consumer.
        confirmed: Option<Lsn>,
        /// 17 and later: kept on standbys by the server.
        failover: bool,
        /// 17 and later: made by the server, from the primary's.
        synced: bool,
    },
}

/// The server, as far as its slots are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// It is a standby.
    pub in_recovery: bool,
    /// Flushed by a primary, replayed by a standby: no slot is moved beyond it (INV-S19).
    pub lsn: Lsn,
}

/// One thing to do with a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotStep {
    /// Drop it, unless somebody uses it by then.
    Drop {
        /// Its name.
        slot: String,
        /// Why.
        why: Why,
    },
    /// Create a physical one that reserves WAL at once.
    CreatePhysical {
        /// Its name.
        slot: String,
    },
    /// Create a logical one. Takes until every transaction under way has ended.
    CreateLogical {
        /// Its name.
        slot: String,
        /// Its database.
        database: String,
        /// Its output plugin.
        plugin: String,
        /// The server shall keep it on standbys.
        failover: bool,
    },
    /// Have the server keep it on standbys, or not.
    SetFailover {
        /// Its name.
        slot: String,
        /// Whether.
        failover: bool,
    },
    /// Move an unused physical one forward.
    Advance {
        /// Its name.
        slot: String,
        /// To where.
        to: Lsn,
    },
    /// Move an unused logical one forward. Reads all WAL in between.
    AdvanceLogical {
        /// Its name.
        slot: String,
        /// Its database.
        database: String,
        /// To where.
        to: Lsn,
    },
}

impl SlotStep {
    /// True for what may take long: it is done beside the cycle.
    pub fn is_slow(&self) -> bool {
        match self {
            SlotStep::CreateLogical { .. } | SlotStep::SetFailover { .. } | SlotStep::AdvanceLogical { .. } => true,
            SlotStep::Drop { .. } | SlotStep::CreatePhysical { .. } | SlotStep::Advance { .. } => false,
        }
    }
}

/// Why a slot is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Nobody has asked for it.
    #[error("no member and no entry of `slots` has that name")]
    Unknown,
    /// Its WAL is gone.
    #[error("the WAL that it needs is gone")]
    Lost,
    /// It holds no WAL.
    #[error("it reserves no WAL")]
    ReservesNothing,
    /// It holds back vacuum for a standby that does not stream from here.
    #[error("it holds back vacuum, and its member does not stream from here")]
    HoldsRows,
    /// It is something else than was asked for.
    #[error("it is of another type, database or plugin than wanted")]
    Differs,
    /// The server of a standby shall make it anew, from the primary's.
    #[error("it is in the way of the primary's slot of that name")]
    InTheWay,
}

impl SlotPattern {
    /// True when a slot has everything that is set here.
    pub fn matches(&self, slot: &PresentSlot) -> bool {
        let (kind, database, plugin) = match &slot.kind {
            PresentKind::Physical => ("physical", None, None),
            PresentKind::Logical { database, plugin, .. } => ("logical", Some(database), Some(plugin)),
        };
        self.name.as_ref().is_none_or(|name| *name == slot.name)
            && self.kind.as_deref().is_none_or(|wanted| wanted == kind)
            && self.database.as_ref().is_none_or(|wanted| Some(wanted) == database)
            && self.plugin.as_ref().is_none_or(|wanted| Some(wanted) == plugin)
    }
}

impl Slots {
    /// The steps from what is there to what shall be, in their order. Slots that are in use, ignored, or unknown in
    /// maintenance mode are left alone.
    pub fn plan(&self, present: &[PresentSlot], server: Position) -> Vec<SlotStep> {
        let is_ignored = |slot: &PresentSlot| self.ignored.iter().any(|pattern| pattern.matches(slot));
        let mut steps = Vec::new();
        let mut kept = BTreeMap::new();
        for slot in present {
            let why = self.useless(slot, server).filter(|_| self.may_drop && !slot.active && !is_ignored(slot));
            match why {
                Some(why) => steps.push(SlotStep::Drop { slot: slot.name.clone(), why }),
                None => drop(kept.insert(slot.name.as_str(), slot)),
            }
        }
        for (name, wanted) in &self.wanted {
            match kept.get(name.as_str()) {
                Some(slot) if is_ignored(slot) => {}
                Some(slot) => steps.extend(keep(slot, wanted, server)),
                None => steps.extend(create(name, wanted, server)),
            }
        }
        steps
    }

    /// SLT-6, SLT-7: why a slot is of no use here.
    fn useless(&self, slot: &PresentSlot, server: Position) -> Option<Why> {
        let wanted = self.wanted.get(&slot.name);
        if slot.lost {
            return Some(Why::Lost);
        }
        if let PresentKind::Logical { failover: true, synced, .. } = slot.kind {
            // A former primary's: the server of a standby takes over no slot that it has not made itself.
            return (server.in_recovery && !self.leads && !synced).then_some(Why::InTheWay);
        }
        let Some(wanted) = wanted else { return Some(Why::Unknown) };
        match (&slot.kind, &wanted.kind) {
            (PresentKind::Physical, WantedKind::Physical) if slot.restart.is_none() => Some(Why::ReservesNothing),
            (PresentKind::Physical, WantedKind::Physical) => {
                let is_settled = !(self.leads && server.in_recovery);
                (slot.has_xmin && !wanted.expected_active && is_settled).then_some(Why::HoldsRows)
            }
            (
                PresentKind::Logical { database, plugin, .. },
                WantedKind::Logical { database: other, plugin: different, .. },
            ) => (database != other || plugin != different).then_some(Why::Differs),
            (PresentKind::Physical, WantedKind::Logical { .. })
            | (PresentKind::Logical { .. }, WantedKind::Physical) => Some(Why::Differs),
        }
    }

    /// The logical slots that a standby lacks and that the primary has: to be copied (SLT-8).
    pub fn to_copy(&self, present: &[PresentSlot]) -> BTreeMap<String, LogicalSlot> {
        let is_missing = |name: &String| !present.iter().any(|slot| slot.name == *name);
        let lacking = |(name, wanted): (&String, &WantedSlot)| match &wanted.kind {
            WantedKind::Logical { database, plugin, failover: false }
                if wanted.advance_to.is_some() && is_missing(name) =>
            {
                let (database, plugin) = (database.clone(), plugin.clone());
                Some((name.clone(), LogicalSlot { database, plugin }))
            }
            WantedKind::Logical { .. } | WantedKind::Physical => None,
        };
        if self.leads { BTreeMap::new() } else { self.wanted.iter().filter_map(lacking).collect() }
    }
}

fn create(name: &str, wanted: &WantedSlot, server: Position) -> Option<SlotStep> {
    let slot = name.to_owned();
    match &wanted.kind {
        WantedKind::Physical => Some(SlotStep::CreatePhysical { slot }),
        // A standby's is copied, or made by its server.
        WantedKind::Logical { .. } if server.in_recovery => None,
        WantedKind::Logical { database, plugin, failover } => Some(SlotStep::CreateLogical {
            slot,
            database: database.clone(),
            plugin: plugin.clone(),
            failover: *failover,
        }),
    }
}

/// SLT-5, SLT-8: never beyond what this server has, and never backwards (INV-S19).
fn keep(slot: &PresentSlot, wanted: &WantedSlot, server: Position) -> Option<SlotStep> {
    let name = slot.name.clone();
    let to = wanted.advance_to.map(|to| to.min(server.lsn)).filter(|_| !slot.active && !wanted.expected_active);
    match (&slot.kind, &wanted.kind) {
        (PresentKind::Physical, WantedKind::Physical) => {
            let to = to.filter(|to| slot.restart.is_some_and(|restart| *to > restart))?;
            Some(SlotStep::Advance { slot: name, to })
        }
        (PresentKind::Logical { failover, .. }, WantedKind::Logical { failover: wanted, .. })
            if !server.in_recovery && failover != wanted && !slot.active =>
        {
            Some(SlotStep::SetFailover { slot: name, failover: *wanted })
        }
        (PresentKind::Logical { database, confirmed, failover: false, .. }, WantedKind::Logical { .. })
            if server.in_recovery =>
        {
            let to = to.filter(|to| confirmed.is_some_and(|confirmed| *to > confirmed))?;
            Some(SlotStep::AdvanceLogical { slot: name, database: database.clone(), to })
        }
        (PresentKind::Physical | PresentKind::Logical { .. }, _) => None,
    }
}
