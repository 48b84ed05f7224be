//! What no decision may ask for, whatever the view.

use std::sync::Arc;

use super::super::failsafe::ConsentAnswer;
use super::super::operator::Request;
use super::super::view::{DataDir, Lease, Store, View};
use super::super::{Decision, DemoteMode, Effect, StartAs};
use crate::cluster::properties::rises;
use crate::cluster::{Cluster, MemberRole, SyncState};
use crate::names::MemberName;

/// What holds for each decision alone, whatever the view.
pub(super) fn assert_allowed(view: &View, decision: &Decision) {
    let context = || format!("{decision:#?}\nin {view:#?}");
    assert!(!decision.reason.rules().is_empty() && !decision.reason.to_string().is_empty(), "{}", context());
    let epoch = match &view.lease {
        Lease::Held { epoch, .. } => Some(*epoch),
        Lease::None | Lease::NotOurs { .. } => None,
    };
    assert_eq!(decision.epoch, epoch, "INV-S28: {}", context());
    if let Some(wake_at) = decision.wake_at {
        assert!(wake_at > view.now || view.settings.loop_wait.is_zero(), "wakes in the past: {}", context());
    }
    if let Some(deadline) = view.demote_at().filter(|deadline| *deadline > view.now) {
        assert!(decision.wake_at.is_some_and(|wake_at| wake_at <= deadline), "CYC-22: {}", context());
    }
    let actions = decision.effects.iter().filter(|effect| is_action(effect)).count();
    let ends_with_it = decision.effects.last().is_some_and(is_action);
    assert!(actions == 0 || (actions == 1 && ends_with_it), "ASY-7, INV-S13: {}", context());
    for effect in &decision.effects {
        if let Err(rule) = allows(view, effect) {
            panic!("{rule}: {}", context());
        }
    }
}

fn is_action(effect: &Effect) -> bool {
    match effect {
        Effect::Bootstrap
        | Effect::Clone { .. }
        | Effect::Start(_)
        | Effect::Restart(_)
        | Effect::Promote
        | Effect::Demote { .. }
        | Effect::StopImmediately
        | Effect::RestartForUpstream { .. }
        | Effect::CopySlots { .. }
        | Effect::CrashRecover
        | Effect::CheckDivergence { .. }
        | Effect::Rewind { .. }
        | Effect::Checkpoint => true,
        Effect::Acquire
        | Effect::Adopt
        | Effect::Release
        | Effect::StoreSystemId { .. }
        | Effect::StoreConfig { .. }
        | Effect::RewriteFailover { .. }
        | Effect::StoreHistory(_)
        | Effect::ClearInitialize { .. }
        | Effect::PollPeers(_)
        | Effect::AskConsent { .. }
        | Effect::LiveOnConsent { .. }
        | Effect::StoreFailsafe { .. }
        | Effect::CancelAction
        | Effect::ReloadUpstream { .. }
        | Effect::StoreSync { .. }
        | Effect::LoadStandbyNames { .. }
        | Effect::ResumeReplay
        | Effect::Exit { .. } => false,
    }
}

/// Whether this effect may be decided in this view; if not, the rule that it breaks.
fn allows(view: &View, effect: &Effect) -> Result<(), &'static str> {
    let cluster = match &view.store {
        Store::Current(cluster) => Some(cluster),
        Store::Lost { .. } => None,
    };
    let is_primary = view.postgres.is_primary();
    let led_by_me = cluster.is_some_and(|cluster| cluster.is_led_by(&view.me));
    let paused = view.settings.paused;
    let require = |holds: bool, rule: &'static str| if holds { Ok(()) } else { Err(rule) };
    let without_store = matches!(
        effect,
        Effect::Demote { mode: DemoteMode::Offline, .. }
            | Effect::CancelAction
            | Effect::AskConsent { .. }
            | Effect::LiveOnConsent { .. }
    );
    require(cluster.is_some() || without_store, "DCSF: without a store only the lease counts")?;
    let not_me = |name: &MemberName, rule| require(*name != view.me, rule);
    let has_promised = view.failsafe.promise_at(view.now).is_some() && !is_primary;
    match effect {
        Effect::Acquire => {
            require(!has_promised, "INV-S15: a promise is kept")?;
            require(cluster.is_some_and(|cluster| cluster.is_unlocked()), "DCS-1: the key is free")?;
            require(!view.tags.nofailover || is_primary, "INV-S24: never by itself")
        }
        Effect::Promote => {
            require(!has_promised, "INV-S15: a promise is kept")?;
            require(view.watchdog_failure.is_none() || paused, "INV-S18: a required watchdog can be armed")?;
            require(view.lease.is_safe(view.now), "INV-S3: with time left on the lease")?;
            require(!view.settings.standby_cluster, "INV-S25: nobody is promoted in a standby cluster")
        }
        Effect::Start(StartAs::Primary) => {
            require(view.lease.is_safe(view.now), "INV-S2: with time left on the lease")?;
            require(!view.settings.standby_cluster, "INV-S25: nobody is a primary in a standby cluster")?;
            require(!paused, "INV-S14: nothing is started in pause")
        }
        Effect::Restart(start) => {
            require(matches!(view.request, Some(Request::Restart { .. })), "RST-3: somebody asked for it")?;
            require(*start != StartAs::Primary || view.lease.is_safe(view.now), "INV-S2: with time left on the lease")?;
            require(
                *start != StartAs::Primary || !view.settings.standby_cluster,
                "INV-S25: nobody is a primary in a standby cluster",
            )?;
            require((*start == StartAs::Primary) == is_primary, "RST-3: a restart changes no role")
        }
        Effect::Release => {
            require(!is_primary || paused, "INV-S12: whoever gives up the key does not accept writes")?;
            require(led_by_me || view.lease.is_exclusive(view.now), "DCS-3: what is released is held")
        }
        Effect::Clone { source, wipe } => {
            let asked = matches!(view.request, Some(Request::Reinitialize { .. }));
            let allowed = view.settings.wipe_on_divergence || view.settings.wipe_on_rewind_failure || asked;
            require(*wipe || view.data_dir == DataDir::Empty, "INV-S11: an empty directory")?;
            require(!wipe || allowed, "INV-S11: only with leave")?;
            require(!paused || asked, "INV-S14: nothing is copied in pause")?;
            require(!led_by_me && !is_primary, "INV-S11: never by the owner, never under a primary")?;
            not_me(source, "BOO-5: a copy of somebody else")
        }
        Effect::Bootstrap => {
            require(view.data_dir == DataDir::Empty && !view.postgres.alive, "BOO-1: into an empty directory")?;
            require(view.may_bootstrap && !view.tags.nofailover && !paused, "BOO-1: who may")?;
            let is_new = |cluster: &Arc<Cluster>| cluster.is_unlocked() && cluster.initialize.system_id().is_none();
            require(cluster.is_some_and(is_new), "BOO-1: no cluster yet")
        }
        Effect::StopImmediately => require(!paused, "INV-S14: nothing is stopped in pause"),
        Effect::Demote { mode, upstream } => {
            let by_request = *mode == DemoteMode::Graceful;
            require(!paused || by_request, "INV-S14: nothing is stopped in pause")?;
            require(upstream.as_ref() != Some(&view.me), "INV-S22: nobody follows itself")
        }
        Effect::Start(StartAs::Standby { upstream })
        | Effect::ReloadUpstream { upstream }
        | Effect::RestartForUpstream { upstream } => {
            require(upstream.as_ref() != Some(&view.me), "INV-S22: nobody follows itself")
        }
        Effect::CopySlots { source, upstream, .. } => {
            not_me(source, "SLT-8: from somebody else")?;
            require(upstream.as_ref() != Some(&view.me), "INV-S22: nobody follows itself")?;
            require(!paused && !is_primary, "INV-S14: no standby is restarted in pause")
        }
        Effect::CheckDivergence { leader: source } => not_me(source, "RWD-3: compared with somebody else"),
        Effect::Rewind { source } => {
            not_me(source, "RWD-9: from somebody else")?;
            let name_is_remote = source.is_remote();
            let source = cluster.and_then(|cluster| cluster.members.get(source));
            let is_ready = source.is_some_and(|member| {
                member.role() == Some(MemberRole::Primary) && !member.lacks_checkpoint_after_promote()
            });
            // The server that is rewound asks the other cluster itself.
            let is_remote = view.settings.standby_cluster && name_is_remote;
            require(is_ready || is_remote, "INV-S21: from a primary that has made its checkpoint")
        }
        Effect::StoreSync { state, .. } => {
            require(view.lease.is_safe(view.now), "INV-S16: by the owner, with time left on the lease")?;
            let by_me = |state: &SyncState| {
                state.leader.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(view.me.as_str()))
            };
            require(state.as_ref().is_none_or(by_me), "SYN-1: in its own name")?;
            require(state.is_some() == view.settings.sync.method().is_some(), "SYN-7: removed when the mode is off")
        }
        Effect::StoreHistory(history) => require(rises(history), "INV-S23: the timelines rise"),
        Effect::StoreSystemId { .. } => {
            let has_none = cluster.is_some_and(|cluster| cluster.initialize.system_id().is_none());
            require(has_none, "INV-S10: a cluster keeps its system identifier")
        }
        Effect::PollPeers(members) => {
            require(!members.is_empty() && !members.contains(&view.me), "PEER-1: others are asked")
        }
        Effect::AskConsent { members, until } => {
            require(view.settings.failsafe_mode && is_primary && !paused, "FS-1: a primary, with the mode on")?;
            require(!members.is_empty() && !members.contains(view.me.as_str()), "FS-4: others are asked")?;
            require(view.now < *until && Some(*until) == view.demote_at(), "FS-4: before the time is up")
        }
        Effect::LiveOnConsent { sent } => {
            require(view.settings.failsafe_mode && is_primary && !paused, "FS-1: a primary, with the mode on")?;
            let answers = view.failsafe.round.iter().flat_map(|round| round.answers.values());
            let agreed = |answer: &ConsentAnswer| matches!(answer, ConsentAnswer::Agreed { .. });
            let began = view.failsafe.round.as_ref().map_or(view.now, |round| round.sent);
            require(*sent == began, "FS-4: counted from before the round")?;
            require(view.failsafe.round.is_none() || answers.into_iter().any(agreed), "FS-4: somebody agreed")
        }
        Effect::StoreFailsafe { members, .. } => {
            require(members.contains_key(view.me.as_str()), "FS-1: the leader is in the map")?;
            require(led_by_me && view.settings.failsafe_mode, "FS-1: only the leader writes it")
        }
        Effect::Adopt
        | Effect::StoreConfig { .. }
        | Effect::LoadStandbyNames { .. }
        | Effect::RewriteFailover { .. }
        | Effect::ClearInitialize { .. }
        | Effect::CancelAction
        | Effect::ResumeReplay
        | Effect::CrashRecover
        | Effect::Checkpoint
        | Effect::Exit { .. } => Ok(()),
    }
}
