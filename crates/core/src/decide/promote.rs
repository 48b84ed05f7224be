//! The holder of the lease becomes, or is, primary (section 16).

use std::time::Duration;

use crate::cluster::{Cluster, History, MemberRole};
use crate::mutant::{Mutant, leaves_out};

use super::effect::{Decision, DemoteMode, Effect};
use super::failsafe;
use super::memory::Memory;
use super::peers::{Asked, Bound, Candidates, failover_possible};
use super::reason::Reason;
use super::sync::{self, Led};
use super::view::View;

/// How often a promotion is looked at whose action has ended before recovery did.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// PRO-2…12. Called only with a lease that has time left.
pub(super) fn promote(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if let Some(why) = memory.refused.take()
        && !view.settings.paused
        && !view.postgres.is_primary()
    {
        memory.refused_at = Some(view.now);
        return Reason::PromotionRefused { why }.with([Effect::Release]); // PRO-3. Never under a primary: INV-S12.
    }
    if let Some(decision) = without_watchdog(view) {
        return decision;
    }
    let in_recovery = view.postgres.facts.as_ref().map(|facts| facts.in_recovery);
    if in_recovery.is_none() && view.postgres.is_primary() {
        return Reason::DoesNotAnswer.alone(); // CYC-21
    }
    if in_recovery == Some(false) {
        return lead(view, cluster, memory); // PRO-4
    }
    let promoting = view.action.as_ref().is_some_and(|action| action.kind == super::view::ActionKind::Promote);
    if promoting || view.postgres.role == MemberRole::Promoted {
        return wait_for_promotion(view, cluster, memory, promoting);
    }
    if !sync::may_be_complete(view, cluster) && !memory.overrides_sync {
        return Reason::MayLackCommits.with([Effect::Release]); // PRO-6, SYN-3
    }
    if !view.lease.is_safe(view.now) && !leaves_out(Mutant::PromoteWithoutLease) {
        return Reason::TooLateToPromote.alone(); // PRO-12
    }
    let Some(facts) = &view.postgres.facts else {
        return Reason::DoesNotAnswer.alone(); // PRO-6: it has to be known what it has loaded.
    };
    let mut effects = sync::before_promotion(view, cluster, facts); // PRO-6
    effects.push(Effect::Promote); // PRO-7
    Reason::Promotes.with(effects)
}

/// PRO-4, PRO-11: what a primary that leads has to do. A standby that is gone keeps commits waiting, so that comes first.
fn lead(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    memory.overrides_sync = false;
    let looks_again = match view.postgres.facts.as_ref().map(|facts| sync::lead(view, cluster, facts, memory)) {
        Some(Led::First(decision)) => return decision,
        Some(Led::Settled(looks_again)) => looks_again,
        None => None,
    };
    let decision = match history_to_write(view, cluster) {
        Some(history) => Reason::WritesHistory.with([Effect::StoreHistory(history)]),
        None => failsafe::write_map(view, cluster, memory).unwrap_or_else(|| Reason::Leads.alone()),
    };
    decision.and_wake_at(looks_again)
}

/// PRO-5, PRO-9: recovery has not ended. Where it takes longer than a start may take, it is treated like one: the server
/// counts as a primary since promote was issued (ASY-9), so it is stopped before the key is given up.
fn wait_for_promotion(view: &View, cluster: &Cluster, memory: &Memory, promoting: bool) -> Decision {
    let patience_ends = memory.promotes_since.unwrap_or(view.now) + view.settings.primary_start_timeout;
    // Its end wakes nobody.
    let waits = || Reason::WaitsForPromotion.wake_at(view.now + LOOK_AGAIN);
    if promoting || view.settings.paused || view.now < patience_ends {
        return waits();
    }
    match failover_possible(view, cluster, Bound::Lag, Candidates::AsRequested) {
        Asked::Ask(members) => Reason::AsksWhetherFailoverPossible.with([Effect::PollPeers(members)]),
        Asked::Known(true) => {
            Reason::PromotionTooLong.with([Effect::Demote { mode: DemoteMode::Immediate, upstream: None }])
        }
        Asked::Known(false) => waits(),
    }
}

/// PRO-1, PRO-2: who requires a watchdog and cannot have it does not lead.
fn without_watchdog(view: &View) -> Option<Decision> {
    let why = view.watchdog_failure.clone().filter(|_| !view.settings.paused)?;
    let effect = if view.postgres.is_primary() {
        Effect::Demote { mode: DemoteMode::Immediate, upstream: None }
    } else {
        Effect::Release
    };
    Some(Reason::LeadsWithoutWatchdog { why }.with([effect]))
}

/// HIS-1, HIS-2: the history to store when the last stored line is not the timeline before ours.
fn history_to_write(view: &View, cluster: &Cluster) -> Option<History> {
    let facts = view.postgres.facts.as_ref()?;
    let timeline = facts.timeline?;
    let stored = cluster.history.as_ref().map(|history| &history.value);
    if timeline == crate::wal::Timeline::FIRST {
        return stored.filter(|stored| !stored.lines.is_empty()).map(|_| History::default());
    }
    let is_complete = stored
        .and_then(|stored| stored.lines.last())
        .is_some_and(|line| line.timeline.next() == timeline && line.new_leader.is_some() && line.timestamp.is_some());
    if is_complete {
        return None;
    }
    let mut history = facts.history.clone()?;
    if leaves_out(Mutant::HistoryForgotten) {
        history.lines.drain(..history.lines.len().saturating_sub(1));
    }
    let newest = history.lines.len().checked_sub(1)?;
    for (index, line) in history.lines.iter_mut().enumerate() {
        let known = stored.and_then(|stored| {
            stored.lines.iter().find(|known| known.timeline == line.timeline && known.lsn == line.lsn)
        });
        if let Some(known) = known {
            line.timestamp.clone_from(&known.timestamp);
            line.new_leader.clone_from(&known.new_leader);
        } else if index != newest {
            line.timestamp = None; // Only the newest line's file time is the time of its switch.
        }
        // A line without its time has no place for the leader (IN-D8).
        if index == newest && line.timestamp.is_some() && line.new_leader.is_none() {
            line.new_leader = Some(view.me.to_string());
        }
    }
    // What is stored already is not written again, even when it does not lead up to our timeline: PostgreSQL skips a
    // timeline that it finds in the archive.
    let is_stored = stored.is_some_and(|stored| stored.to_value() == history.to_value());
    (!is_stored).then_some(history)
}
