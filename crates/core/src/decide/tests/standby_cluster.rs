//! A cluster that follows another one: nobody in it is ever writable (INV-S25).

use super::*;

fn standby() -> Settings {
    Settings { standby_cluster: true, ..settings() }
}

fn remote() -> Option<MemberName> {
    Some(MemberName::remote())
}

#[test]
fn the_owner_follows_the_other_cluster_and_the_others_follow_the_owner() {
    let led = || three(Some("a"), &[]);
    let owner = || View { lease: held(1), settings: standby(), ..replica(led()) };
    let differs =
        |view: View| View { postgres: Postgres { recovery: RecoveryDiff::Reload, ..view.postgres.clone() }, ..view };
    let cut_off = |view: View| View {
        postgres: Postgres { facts: Some(Facts { streaming: false, ..facts(true) }), ..view.postgres.clone() },
        ..view
    };
    let compared = Memory { remote_compared_at: Some(at(95)), ..Memory::default() };
    let demote = demote(DemoteMode::Cluster);
    let follower = || View { settings: standby(), ..replica(three(Some("b"), &[])) };
    for (name, view, memory, effects, rule) in [
        ("it streams", owner(), Memory::default(), &[][..], "STB-1"),
        (
            "it was pointed elsewhere",
            differs(owner()),
            Memory::default(),
            &[Effect::ReloadUpstream { upstream: remote() }],
            "FOL-10",
        ),
        ("STB-3: it is primary", View { settings: standby(), ..primary(led()) }, Memory::default(), &[demote], "STB-4"),
        (
            "it is primary in maintenance mode",
            View { settings: Settings { paused: true, ..standby() }, ..primary(led()) },
            Memory::default(),
            &[],
            "PAU-7",
        ),
        (
            "STB-7: it keeps the key in maintenance mode",
            View { settings: Settings { paused: true, ..standby() }, ..owner() },
            Memory::default(),
            &[],
            "STB-1",
        ),
        (
            "FOL-5: nothing arrives: its primary may be another one",
            cut_off(owner()),
            Memory::default(),
            &[Effect::CheckDivergence { leader: MemberName::remote() }],
            "RWD-3",
        ),
        ("not again at once", cut_off(owner()), compared, &[], "STB-1"),
        (
            "a section that was removed: promotes",
            View { settings: settings(), ..owner() },
            Memory::default(),
            &[Effect::Promote],
            "PRO-7",
        ),
        ("another member follows the owner", follower(), Memory::default(), &[], "OWN-7"),
        (
            "STB-5: unlocked, and nobody is fitter: takes the key as usual",
            View {
                settings: Settings { check_timeline: true, ..standby() },
                poll: poll(&[("b", Some(answer(1000))), ("c", None)]),
                ..replica(three(None, &[("history", "[[7,100,\"x\"]]")]))
            },
            Memory { last_led: Some(Arc::new(three(Some("b"), &[]))), ..Memory::default() },
            &[Effect::Acquire],
            "UNL-3",
        ),
        (
            "REC-10: it is down and nobody leads",
            View {
                settings: standby(),
                postgres: down(MemberRole::Replica, PostgresState::Stopped, rewind::ControlState::ShutDownInRecovery),
                ..replica(three(None, &[]))
            },
            Memory { rewind: RewindState::NotNeeded, ..Memory::default() },
            &[Effect::Start(StartAs::Standby { upstream: remote() })],
            "NTF-2",
        ),
    ] {
        check(name, &view, &memory, effects, rule);
    }
}

#[test]
fn a_member_that_left_the_history_of_the_other_cluster_is_rewound_from_it() {
    let led = three(Some("a"), &[]);
    let stopped = down(MemberRole::Demoted, PostgresState::Stopped, rewind::ControlState::ShutDown);
    let owner = View { lease: held(1), settings: standby(), postgres: stopped, ..replica(led) };
    let needed = Memory { rewind: RewindState::Needed, ..Memory::default() };
    let rewind = [Effect::Rewind { source: MemberName::remote() }];
    check("the owner", &owner, &needed, &rewind, "RWD-9");
    let other = View { lease: Lease::None, ..View { store: replica(three(Some("b"), &[])).store, ..owner.clone() } };
    check("another member", &other, &needed, &rewind, "RWD-9");
    let wipes = Settings { wipe_on_divergence: true, use_pg_rewind: false, ..standby() };
    let start = [Effect::Start(StartAs::Standby { upstream: remote() })];
    check("RWD-13: its data is not removed", &View { settings: wipes, ..owner }, &needed, &start, "REC-9");
}
