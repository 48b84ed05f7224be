//! A standby lacks logical slots that the primary has.

use super::slots::LogicalSlot;
use super::*;

#[test]
fn a_standby_copies_logical_slots_only_when_its_restart_hurts_nobody() {
    let slots: std::collections::BTreeMap<String, LogicalSlot> =
        [("cdc".to_owned(), LogicalSlot { database: "app".to_owned(), plugin: "pgoutput".to_owned() })].into();
    let lacking = || Postgres { lacks_slots: slots.clone(), ..postgres(MemberRole::Replica) };
    let with = |postgres| View { postgres, ..replica(three(Some("b"), &[])) };
    let seen = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts(true);
        change(&mut facts);
        with(Postgres { facts: Some(facts), ..lacking() })
    };
    let copy = Effect::CopySlots { source: name("b"), slots: slots.clone(), upstream: Some(name("b")) };
    let tried = Memory { copy_slots_again_at: Some(at(101)), ..Memory::default() };
    for (case, view, memory, effects, rule) in [
        ("it streams and lacks one: copies it", with(lacking()), Memory::default(), &[copy.clone()][..], "SLT-8"),
        ("it lacks none", with(postgres(MemberRole::Replica)), Memory::default(), &[], "OWN-7"),
        ("it does not stream", seen(&|facts| facts.streaming = false), Memory::default(), &[], "OWN-7"),
        ("a moment after it was tried", with(lacking()), tried, &[], "OWN-7"),
        ("in pause", View { settings: paused(), ..with(lacking()) }, Memory::default(), &[], "OWN-7"),
        (
            "FS-13: it has promised a primary to wait",
            View {
                failsafe: super::super::failsafe::Failsafe {
                    promise: Some(super::super::failsafe::Promise {
                        leader: name("b"),
                        conn_url: String::new(),
                        api_url: String::new(),
                        until: at(120),
                    }),
                    ..Default::default()
                },
                ..with(lacking())
            },
            Memory::default(),
            &[],
            "OWN-7",
        ),
        (
            "while something else is under way",
            View { action: action(ActionKind::Checkpoint, 99, false), ..with(lacking()) },
            Memory::default(),
            &[],
            "OWN-7",
        ),
    ] {
        check(case, &view, &memory, effects, rule);
    }
    let failed = ended(ActionKind::CopySlots, Outcome::Failed("no WAL".to_owned()));
    let again = check("it failed", &View { finished: failed, ..with(lacking()) }, &Memory::default(), &[], "OWN-7");
    let later = |now| View { now: at(now), ..with(lacking()) };
    check("within a tick", &later(105), &again, &[], "OWN-7");
    check("after a tick", &later(110), &again, &[copy], "SLT-8");
}
