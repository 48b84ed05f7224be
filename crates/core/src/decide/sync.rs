//! Synchronous replication as decisions see it (section 19): what a primary changes, and what comes before a member
//! accepts writes. The plans are those of [`crate::sync`].

use std::time::Duration;

use crate::cluster::{Cluster, SyncState};
use crate::sync::pick::{self, standing_voters};
use crate::sync::{Method, StandbyNames, Step, before_promote, priority, quorum};
use crate::time::BootInstant;

use super::effect::{Decision, Effect};
use super::memory::Memory;
use super::peers::sync_is_active;
use super::reason::Reason;
use super::view::{Facts, View};

/// How often it is looked whether a standby has what it lacked.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a running primary does about synchronous replication.
pub(super) enum Led {
    /// This comes first.
    First(Decision),
    /// Nothing now; look again then.
    Settled(Option<BootInstant>),
}

/// PRO-4: the next step of a primary that holds the lease (SON-1…9, QRM-D1…D5, SYN-7). One at a time: what it changes is
/// seen by the next decision, and a write that loses its compare changes nothing (QRM-D3).
pub(super) fn lead(view: &View, cluster: &Cluster, facts: &Facts, memory: &mut Memory) -> Led {
    let settings = &view.settings.sync;
    let Some(method) = settings.method() else {
        return switched_off(view, cluster, facts, memory);
    };
    let (me, stored, loaded) = (view.me.as_str(), &cluster.sync.value, facts.replication.setting());
    memory.standby_names_managed = true;
    let fit = pick::fit(&facts.replication, cluster, &view.me, facts.position, settings.lag_bytes_max);
    let voters = standing_voters(stored, me, method);
    memory.readiness.note(view.now, &loaded, facts.position, &fit, &voters, method);
    let (wanted, active) = (settings.wanted(), fit.active(method, settings.wanted()));
    let confirmed = memory.readiness.confirmed(&active, &fit, method);
    let settles_at = memory.readiness.settles_at().filter(|at| view.now < *at);
    let ready = memory.readiness.ready_under(&loaded);
    let lacks_something = confirmed != active || settles_at.is_some();
    let step = match method {
        Method::Priority => priority::plan(&priority::Situation {
            me: me.to_owned(),
            stored: stored.clone(),
            loaded,
            active,
            confirmed,
            settling: settles_at.is_some(),
            wanted,
        }),
        Method::Quorum => {
            let situation = quorum::Situation {
                me: me.to_owned(),
                stored: stored.clone(),
                loaded,
                active,
                confirmed: confirmed.len(),
                wanted,
            };
            quorum::next_step(&situation, &ready)
        }
    };
    match step {
        Some(Step::Store(state)) => {
            let listed = if state.voters.is_empty() { "nobody".to_owned() } else { state.voters.join(", ") };
            Led::First(Reason::StoresSyncState { voters: listed }.with([store(cluster, state)]))
        }
        Some(Step::Load(names)) => {
            let listed = names.to_string();
            Led::First(Reason::LoadsStandbyNames { names: listed }.with([load(&names)]))
        }
        Some(Step::LookAgain) | None if lacks_something => {
            Led::Settled(Some(settles_at.unwrap_or(view.now + LOOK_AGAIN))) // QRM-D4, SON-8
        }
        Some(Step::LookAgain) | None => Led::Settled(None),
    }
}

/// SYN-7: `/sync` goes first, then what commits wait for becomes what the user has configured.
fn switched_off(view: &View, cluster: &Cluster, facts: &Facts, memory: &mut Memory) -> Led {
    memory.readiness = pick::Readiness::default();
    if !cluster.sync.value.is_empty() {
        memory.standby_names_managed = true;
        return Led::First(Reason::EndsSynchronousMode.with([remove(cluster)]));
    }
    let is_own = own_names(view).is_some_and(|own| own.is_same(&facts.replication.setting()));
    if !memory.standby_names_managed || is_own {
        memory.standby_names_managed = false;
        memory.standby_names_restored_at = None;
        return Led::Settled(None);
    }
    // Something else may have the last word, an override in postgresql.auto.conf say.
    if let Some(at) = memory.standby_names_restored_at.filter(|at| view.now.since(*at) < view.settings.loop_wait) {
        return Led::Settled(Some(at + view.settings.loop_wait));
    }
    memory.standby_names_restored_at = Some(view.now);
    Led::First(Reason::EndsSynchronousMode.with([Effect::LoadStandbyNames { names: None }]))
}

fn own_names(view: &View) -> Option<StandbyNames> {
    StandbyNames::parse(&view.settings.sync.own).ok()
}

/// SPP-1…4, QRK-10: what has to be stored and loaded before this member is promoted, in this order.
pub(super) fn before_promotion(view: &View, cluster: &Cluster, facts: &Facts) -> Vec<Effect> {
    let (settings, stored, loaded) = (&view.settings.sync, &cluster.sync.value, facts.replication.setting());
    let (me, strict) = (view.me.as_str(), settings.strict);
    let steps = match settings.method() {
        None => {
            let mut effects: Vec<Effect> = (!stored.is_empty()).then(|| remove(cluster)).into_iter().collect();
            if own_names(view).is_none_or(|own| !own.is_same(&loaded)) {
                effects.push(Effect::LoadStandbyNames { names: None });
            }
            return effects; // SPP-4
        }
        Some(Method::Priority) if stored.quorum > 0 => before_promote::quorum(me, stored, &loaded, strict),
        Some(Method::Priority) => before_promote::priority(me, stored, &loaded, strict),
        Some(Method::Quorum) => before_promote::quorum(me, stored, &loaded, strict),
    };
    effects(cluster, steps)
}

/// SYN-1, SYN-2: what has to be stored and loaded before this member is started as primary again (REC-3).
pub(super) fn before_start(view: &View, cluster: &Cluster) -> Vec<Effect> {
    let (settings, stored) = (&view.settings.sync, &cluster.sync.value);
    let Some(method) = settings.method() else { return Vec::new() };
    if stored.leader.as_ref().is_some_and(|leader| leader.eq_ignore_ascii_case(view.me.as_str())) {
        let method = if stored.quorum > 0 { Method::Quorum } else { method };
        return vec![load(&crate::sync::holds_out(stored, method, settings.wanted().minimum()))];
    }
    let nobody = StandbyNames::nobody();
    let steps = match method {
        Method::Priority => before_promote::priority(view.me.as_str(), stored, &nobody, settings.strict),
        Method::Quorum => before_promote::quorum(view.me.as_str(), stored, &nobody, settings.strict),
    };
    let mut effects = effects(cluster, steps);
    if !effects.iter().any(|effect| matches!(effect, Effect::LoadStandbyNames { .. })) {
        effects.push(load(&nobody)); // Nothing is left of an earlier leadership.
    }
    effects
}

/// SYN-3, INV-S7: whether this member may have every confirmed commit. In mode `quorum` the votes say so; in mode `on` only a
/// member of `/sync` can.
pub(super) fn may_be_complete(view: &View, cluster: &Cluster) -> bool {
    !sync_is_active(view, cluster) || is_by_votes(view, cluster) || cluster.sync.value.contains(view.me.as_str())
}

/// RACE-4, RACE-10: whether a member that wins needs votes. A quorum that is stored counts in every mode: while the mode is
/// being changed its voters need not have everything each.
pub(super) fn is_by_votes(view: &View, cluster: &Cluster) -> bool {
    let by_mode = view.settings.sync.method() == Some(Method::Quorum);
    sync_is_active(view, cluster) && (by_mode || cluster.sync.value.quorum > 0)
}

fn effects(cluster: &Cluster, steps: Vec<Step>) -> Vec<Effect> {
    let effect = |step| match step {
        Step::Store(state) => Some(store(cluster, state)),
        Step::Load(names) => Some(load(&names)),
        Step::LookAgain => None,
    };
    steps.into_iter().filter_map(effect).collect()
}

fn store(cluster: &Cluster, state: SyncState) -> Effect {
    Effect::StoreSync { state: Some(state), seen: cluster.sync.revision }
}

fn remove(cluster: &Cluster) -> Effect {
    Effect::StoreSync { state: None, seen: cluster.sync.revision }
}

fn load(names: &StandbyNames) -> Effect {
    Effect::LoadStandbyNames { names: Some(names.to_string()) }
}
