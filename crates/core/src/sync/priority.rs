//! Mode `on`: each of the listed standbys confirms each commit, so each of them may take over (19.3, 19.4).
//!
//! A standby is a voter of `/sync` only while commits wait for it (SYN-2). So it is removed from `/sync` before commits stop
//! waiting for it, and added after it has everything that was confirmed without it.

use crate::cluster::SyncState;

use super::{Method, Names, StandbyNames, Step, Wanted, holds_out};

/// What a primary sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// This member.
    pub me: String,
    /// `/sync`.
    pub stored: SyncState,
    /// What is loaded.
    pub loaded: StandbyNames,
    /// The standbys that shall confirm commits.
    pub active: Names,
    /// Those of them that do, and have everything.
    pub confirmed: Names,
    /// What was loaded last is so new that PostgreSQL may not show yet whom it takes for what.
    pub settling: bool,
    /// What is wanted.
    pub wanted: Wanted,
}

/// SON-1…9, SST-1…3: the next step, if there is one.
pub fn plan(situation: &Situation) -> Option<Step> {
    let Situation { me, stored, loaded, active, confirmed, settling, wanted } = situation;
    let store =
        |voters: &Names| Some(Step::Store(SyncState { leader: Some(me.clone()), quorum: 0, voters: voters.to_vec() }));
    let leads = stored.leader.as_ref().is_some_and(|leader| leader.eq_ignore_ascii_case(me));
    if !leads {
        return store(&Names::default()); // SON-1, SON-2
    }
    let voters = Names::from(&stored.voters);
    // What mode `quorum` left says nothing about any single standby: each one has to show anew what it has.
    let by_quorum =
        stored.quorum > 0 || (!voters.is_empty() && loaded.method == Method::Quorum && !loaded.requires_all());
    if by_quorum {
        return store(&Names::default());
    }
    if !settling && voters == *active && voters != *confirmed {
        return store(confirmed); // SON-3: somebody has changed the setting.
    }
    if active.len() < wanted.minimum() {
        let names = holds_out(stored, Method::Priority, wanted.minimum());
        return (!names.is_same(loaded)).then_some(Step::Load(names)); // SON-4, SST-1
    }
    let remaining = voters.within(active);
    let remaining = if *settling { remaining } else { remaining.within(confirmed) };
    if remaining != voters {
        return store(&remaining); // SON-6, SST-3
    }
    let wanted = StandbyNames::all_of(active.clone());
    if !wanted.is_same(loaded) {
        return Some(Step::Load(wanted)); // SON-5, SON-7, SST-2
    }
    (!settling && !confirmed.is_empty() && *confirmed != voters).then(|| store(confirmed)).flatten() // SON-8, SON-9
}

#[cfg(test)]
mod tests {
    use super::super::Names;
    use super::*;

    fn names(letters: &str) -> Names {
        letters.chars().map(|c| c.to_string()).collect::<Vec<_>>().into()
    }

    fn store(voters: &str) -> Option<Step> {
        Some(Step::Store(SyncState { leader: Some("a".to_owned()), quorum: 0, voters: names(voters).to_vec() }))
    }

    fn load(listed: &str) -> Option<Step> {
        Some(Step::Load(StandbyNames::all_of(names(listed))))
    }

    /// Leader `a`: voters, listed, active, confirmed; one standby is wanted.
    fn situation(voters: &str, listed: &str, active: &str, confirmed: &str) -> Situation {
        Situation {
            me: "a".to_owned(),
            stored: SyncState { leader: Some("a".to_owned()), quorum: 0, voters: names(voters).to_vec() },
            loaded: StandbyNames::all_of(names(listed)),
            active: names(active),
            confirmed: names(confirmed),
            settling: false,
            wanted: Wanted { count: 1, strict: false },
        }
    }

    #[test]
    fn a_standby_is_removed_first_and_added_last() {
        let strict = |situation: Situation| Situation { wanted: Wanted { count: 1, strict: true }, ..situation };
        let settling = |situation: Situation| Situation { settling: true, ..situation };
        let some = |count: u32, listed: &str| StandbyNames::new(Method::Priority, count, names(listed));
        let blocked = Some(Step::Load(some(1, "")));
        let base = || situation("b", "b", "b", "b");
        for (rule, situation, want) in [
            ("SON-1: nothing is stored", Situation { stored: SyncState::default(), ..base() }, store("")),
            (
                "SON-2: another leader's",
                Situation { me: "A2".to_owned(), ..base() },
                Some(Step::Store(SyncState { leader: Some("A2".to_owned()), quorum: 0, voters: Vec::new() })),
            ),
            ("SON-2: names are compared without regard to case", Situation { me: "A".to_owned(), ..base() }, None),
            ("SON-3: the setting was tampered with", situation("bc", "bc", "bc", "b"), store("b")),
            ("SON-3: not judged before it has settled", settling(situation("bc", "bc", "bc", "b")), None),
            ("SON-5: nothing to do", base(), None),
            (
                "SON-5: the form is put right",
                Situation { loaded: some(1, "bc"), ..situation("bc", "", "bc", "bc") },
                load("bc"),
            ),
            ("SON-6: removed from the store first", situation("b", "b", "c", ""), store("")),
            ("SON-6: even while it settles", settling(situation("bc", "bc", "c", "")), store("c")),
            ("SON-7: then commits wait for another one", situation("", "b", "c", ""), load("c")),
            ("SON-8: who does not have everything waits", situation("", "c", "c", ""), None),
            ("SON-8: and so does what has not settled", settling(situation("", "c", "c", "c")), None),
            ("SON-9: added to the store last", situation("", "c", "c", "c"), store("c")),
            ("SON-9: one of two", situation("b", "bc", "bc", "bc"), store("bc")),
            ("SST-3: the last one is removed", situation("b", "b", "", ""), store("")),
            ("SST-2: and commits wait for nobody", situation("", "b", "", ""), load("")),
            (
                "SST-2: also when that was everybody",
                Situation { loaded: some(1, "*"), ..situation("", "", "", "") },
                load(""),
            ),
            ("SON-4, SST-1: strict: nothing is taken away", strict(situation("b", "b", "", "")), None),
            ("SST-1: strict: all voters", strict(situation("bc", "b", "", "")), load("bc")),
            ("SST-1: strict: nobody who exists", strict(situation("", "", "", "")), blocked),
            (
                "SST-1: strict: and so it stays",
                strict(Situation { loaded: some(1, ""), ..situation("", "", "", "") }),
                None,
            ),
            (
                "SON-7: strict: somebody comes back",
                strict(Situation { loaded: some(1, ""), ..situation("", "", "b", "") }),
                load("b"),
            ),
            (
                "SON-2: voters of a quorum are no synchronous standbys",
                Situation {
                    stored: SyncState { quorum: 1, ..situation("bc", "", "", "").stored },
                    loaded: StandbyNames::new(Method::Quorum, 1, names("bc")),
                    ..situation("", "", "b", "")
                },
                store(""),
            ),
        ] {
            assert_eq!(plan(&situation), want, "{rule}");
        }
    }

    /// SYN-2, INV-S6: wherever it is interrupted, a voter is somebody for whom each commit waits.
    #[test]
    fn every_way_keeps_voters_among_those_whom_commits_wait_for() {
        let sets = ["", "b", "c", "bc", "cd", "bcd"];
        for (voters, active, strict) in sets
            .iter()
            .flat_map(|voters| sets.iter().flat_map(move |active| [(voters, active, false), (voters, active, true)]))
        {
            let mut now = situation(voters, voters, active, "");
            now.wanted = Wanted { count: 2, strict };
            now.active = now.active.first(2);
            for round in 0.. {
                assert!(round < 8, "{voters} to {active} does not end: {now:?}");
                // Connected standbys confirm what they are asked for.
                now.confirmed = now.active.within(&now.loaded.names);
                match plan(&now) {
                    Some(Step::Store(state)) => now.stored = state,
                    Some(Step::Load(names)) => now.loaded = names,
                    Some(Step::LookAgain) | None => break,
                }
                let stored = Names::from(&now.stored.voters);
                assert!(
                    stored.is_subset(&now.loaded.names) && (stored.is_empty() || now.loaded.requires_all()),
                    "SYN-2: {now:?}"
                );
            }
            let held = strict && now.active.is_empty();
            let end = if held { names(voters) } else { now.active.clone() };
            assert_eq!(Names::from(&now.stored.voters), end, "{voters} to {active}");
            assert_eq!(now.loaded.names, end);
            assert_eq!(now.loaded.is_in_force(), strict || !end.is_empty());
        }
    }
}
