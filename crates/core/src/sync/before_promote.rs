//! What `/sync` and the setting have to say before a member is promoted (SPP-1…4).

use crate::cluster::SyncState;

use super::quorum::{self, Plan};
use super::{Method, Names, StandbyNames, Step, Wanted, count_of};

/// The steps before `me` is promoted in mode `on`, in their order; none when both places say so already.
///
/// Not strict: `me` alone may win from now on, and commits wait for nobody until standbys are chosen anew (SPP-1). Strict:
/// commits wait for all of those who might have everything (SPP-2).
pub fn priority(me: &str, stored: &SyncState, loaded: &StandbyNames, strict: bool) -> Vec<Step> {
    let mut others = Names::from(&stored.voters);
    others = stored.leader.iter().fold(others, |others, leader| others.with(leader)).without(me);
    let keep = if strict { others } else { Names::default() };
    let wanted = StandbyNames::new(Method::Priority, count_of(keep.len().max(usize::from(strict))), keep.clone());
    let leads = stored.leader.as_ref().is_some_and(|leader| leader.eq_ignore_ascii_case(me));
    // Our own entry from an attempt that was interrupted stands; who was kept then is kept now.
    let is_stored = leads && stored.quorum == 0 && Names::from(&stored.voters) == keep;
    let state = SyncState { leader: Some(me.to_owned()), quorum: 0, voters: keep.to_vec() };
    let mut steps = Vec::new();
    if !is_stored {
        steps.push(Step::Store(state));
    }
    if !wanted.is_same(loaded) {
        steps.push(Step::Load(wanted));
    }
    steps
}

/// The steps before `me` is promoted in mode `quorum` (SPP-3, QRM-1, QRK-10): commits wait for so many of the former
/// members of `/sync` that every set that can elect meets them, and `/sync` names `me` before the first commit.
pub fn quorum(me: &str, stored: &SyncState, loaded: &StandbyNames, strict: bool) -> Vec<Step> {
    let Some(leader) = &stored.leader else {
        let names = StandbyNames::new(Method::Quorum, u32::from(strict), Names::default());
        let alone = SyncState { leader: Some(me.to_owned()), quorum: 0, voters: Vec::new() };
        let load = (!names.is_same(loaded)).then_some(Step::Load(names));
        return std::iter::once(Step::Store(alone)).chain(load).collect(); // QRM-D1
    };
    if leader.eq_ignore_ascii_case(me) {
        // An attempt that was interrupted, or a leader that comes back: what its voters demand.
        let voters = Names::from(&stored.voters);
        let demanded = voters.len().saturating_sub(usize::try_from(stored.quorum).unwrap_or(usize::MAX));
        let names = StandbyNames::new(Method::Quorum, count_of(demanded.max(usize::from(strict))), voters);
        return if names.is_same(loaded) { Vec::new() } else { vec![Step::Load(names)] };
    }
    // What a standby has loaded says nothing about anybody's commits: it is replaced.
    let situation = quorum::Situation {
        me: me.to_owned(),
        stored: stored.clone(),
        loaded: StandbyNames::nobody(),
        active: Names::default(),
        confirmed: 0,
        wanted: Wanted { count: 1, strict: false },
    };
    let Plan { mut steps, .. } = quorum::plan(&situation);
    let is_loaded = |step: &Step| matches!(step, Step::Load(names) if names.is_same(loaded));
    steps.retain(|step| !is_loaded(step));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(letters: &str) -> Names {
        letters.chars().map(|c| c.to_string()).collect::<Vec<_>>().into()
    }

    fn state(leader: &str, quorum: u32, voters: &str) -> SyncState {
        SyncState { leader: Some(leader.to_owned()), quorum, voters: names(voters).to_vec() }
    }

    fn store(leader: &str, quorum: u32, voters: &str) -> Step {
        Step::Store(state(leader, quorum, voters))
    }

    fn load(method: Method, count: u32, listed: &str) -> Step {
        Step::Load(StandbyNames::new(method, count, names(listed)))
    }

    #[test]
    fn a_member_is_promoted_only_after_both_places_say_so() {
        use Method::{Priority, Quorum};
        let nobody = StandbyNames::nobody();
        let loaded = |method, count, listed: &str| StandbyNames::new(method, count, names(listed));
        for (rule, stored, before, strict, want) in [
            ("SPP-1: alone", state("a", 0, "bc"), nobody.clone(), false, vec![store("b", 0, "")]),
            (
                "SPP-1: what is loaded goes, too",
                state("a", 0, "b"),
                loaded(Priority, 1, "x"),
                false,
                vec![store("b", 0, ""), load(Priority, 0, "")],
            ),
            ("SPP-1: done before", state("b", 0, ""), nobody.clone(), false, vec![]),
            (
                "SPP-2: all of them",
                state("a", 0, "bc"),
                nobody.clone(),
                true,
                vec![store("b", 0, "ac"), load(Priority, 2, "ac")],
            ),
            ("SPP-2: nobody is left", state("b", 0, ""), nobody.clone(), true, vec![load(Priority, 1, "")]),
            ("SPP-2: interrupted before", state("b", 0, "ac"), nobody.clone(), true, vec![load(Priority, 2, "ac")]),
            (
                "SPP-2: an override, strict",
                state("a", 0, "c"),
                nobody.clone(),
                true,
                vec![store("b", 0, "ac"), load(Priority, 2, "ac")],
            ),
        ] {
            assert_eq!(priority("b", &stored, &before, strict), want, "{rule}");
        }
        for (rule, stored, before, strict, want) in [
            (
                "SPP-3, QV-26",
                state("a", 2, "bcd"),
                nobody.clone(),
                false,
                vec![load(Quorum, 1, "acd"), store("b", 2, "acd")],
            ),
            (
                "SPP-3: an outsider, QV-29",
                state("a", 1, "cd"),
                nobody.clone(),
                false,
                vec![load(Quorum, 2, "acd"), store("b", 1, "acd")],
            ),
            (
                "SPP-3: the setting is there",
                state("a", 2, "bcd"),
                loaded(Quorum, 1, "acd"),
                false,
                vec![store("b", 2, "acd")],
            ),
            ("QRK-10: interrupted after both", state("b", 2, "acd"), loaded(Quorum, 1, "acd"), false, vec![]),
            ("QRK-10: a restarted leader", state("b", 2, "acd"), nobody.clone(), false, vec![load(Quorum, 1, "acd")]),
            (
                "QRM-D1: nobody was stored",
                SyncState::default(),
                nobody,
                true,
                vec![store("b", 0, ""), load(Quorum, 1, "")],
            ),
        ] {
            assert_eq!(quorum("b", &stored, &before, strict), want, "{rule}");
        }
    }
}
