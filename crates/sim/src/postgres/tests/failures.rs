//! Divergence and the way back.

use pgward_core::decide::view::DataDir;

use pgward_core::sync::StandbyNames;

use super::*;

/// A is cut off with a commit that nobody else has, and b leads on timeline 2.
async fn diverged(seed: u64) -> (World, CommitId) {
    let mut world = World::cluster(seed).await;
    world.commit(0).await.unwrap();
    world.until(World::is_level).await;
    world.cut(0, 1);
    world.cut(0, 2);
    let lost = world.commit(0).await.unwrap();
    world.nodes[0].postgres.kill();
    world.promote(1).await;
    world.network.heal();
    (world, lost)
}

async fn recover(world: &World, node: usize) {
    world.nodes[node].server.crash_recover(&CancellationToken::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_diverged_primary_does_not_stream_until_it_is_rewound() {
    let (mut world, lost) = diverged(20).await;
    assert_eq!(world.judge(0, 1).await, Divergence::Unknown, "a crashed primary tells no position");
    world.start_standby(0, 1).await;
    world.until(|world| world.truth(0).is_accepting).await;
    sleep(second() * 60).await;
    assert!(!world.truth(0).is_streaming, "it has WAL that b does not have");
    assert_eq!(world.judge(0, 1).await, Divergence::Diverged);
    world.stop(0, StopHow::Fast).await;
    world.nodes[1].server.checkpoint().await.unwrap();
    world.rewind(0, 1).await.unwrap();
    assert!(!world.nodes[0].postgres.holds(lost));
    world.start_standby(0, 1).await;
    let id = world.commit(1).await.unwrap();
    world.until(|world| world.truth(0).is_streaming && world.nodes[0].postgres.holds(id)).await;
}

#[tokio::test(start_paused = true)]
async fn a_rewind_before_the_checkpoint_of_the_new_primary_changes_nothing_and_says_that_it_did() {
    let (world, lost) = diverged(21).await;
    recover(&world, 0).await;
    assert_eq!(world.judge(0, 1).await, Divergence::Diverged);
    world.rewind(0, 1).await.unwrap();
    assert!(world.nodes[0].postgres.holds(lost), "no rewind required, as it thinks");
    let shown = "RewindBegan { source: MemberName(\"b\"), is_source_checkpointed_primary: false }";
    assert!(world.log().iter().any(|line| line.contains(shown)), "{:#?}", world.log());
}

#[tokio::test(start_paused = true)]
async fn a_rewind_that_fails_half_way_leaves_nothing_that_starts() {
    for (fault, starts) in [
        (RewindFault::Fails, true),
        (RewindFault::WalMissing, true),
        (RewindFault::FailsHalfWay, false),
        (RewindFault::LosesControlFile, false),
    ] {
        let (world, _) = diverged(22).await;
        world.nodes[1].server.checkpoint().await.unwrap();
        world.nodes[0].postgres.change_faults(|faults| faults.rewind = Some(fault));
        recover(&world, 0).await;
        world.rewind(0, 1).await.unwrap_err();
        assert_eq!(world.nodes[0].server.allows_rewind().await, fault != RewindFault::LosesControlFile, "{fault:?}");
        match world.nodes[0].server.start_standby(None).await {
            Ok(postmaster) if starts => world.nodes[0].server.wait_accepting(&postmaster).await.unwrap(),
            Ok(_) => panic!("{fault:?}: a server runs on half a rewind"),
            Err(problem) => assert!(!starts, "{fault:?}: {problem}"),
        }
        if starts {
            continue;
        }
        assert_eq!(world.judge(0, 1).await, Divergence::Diverged, "{fault:?}");
        world.nodes[0].postgres.change_faults(|faults| *faults = Faults::default());
        let again = world.rewind(0, 1).await;
        assert_eq!(again.is_ok(), fault == RewindFault::FailsHalfWay, "{fault:?}: {again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_promotions_of_the_same_timeline_do_not_mix() {
    let mut world = World::cluster(23).await;
    world.commit(0).await.unwrap();
    world.until(World::is_level).await;
    world.cut(1, 2);
    world.nodes[0].postgres.kill();
    world.nodes[2].postgres.pg_ctl_promote().unwrap();
    world.promote(1).await;
    world.until(|world| world.truth(2).is_writable).await;
    let (mine, theirs) = (world.commit(1).await.unwrap(), world.commit(2).await.unwrap());
    world.commit(2).await.unwrap();
    world.network.heal();
    world.stop(2, StopHow::Fast).await;
    world.start_standby(2, 1).await;
    for _ in 0..20 {
        world.commit(1).await.unwrap();
    }
    sleep(second() * 30).await;
    assert!(world.nodes[2].postgres.holds(theirs) && !world.nodes[2].postgres.holds(mine));
    assert_eq!(world.truth(2).timeline, world.truth(1).timeline, "the same number");
}

#[tokio::test(start_paused = true)]
async fn a_promotion_that_goes_wrong_leaves_no_writer() {
    for (fault, timeline) in
        [(PromotionFault::Refused, 1), (PromotionFault::DiesBefore, 1), (PromotionFault::DiesAfter, 2)]
    {
        let world = World::cluster(24).await;
        world.nodes[0].postgres.kill();
        world.nodes[1].postgres.change_faults(|faults| faults.promotion = Some(fault));
        let promoted = world.nodes[1].server.promote().await;
        assert_eq!(promoted.is_err(), fault == PromotionFault::Refused, "{fault:?}");
        if promoted.is_ok() {
            world.nodes[1].server.wait_promoted(second() * 10).await.unwrap_err();
        }
        assert!(!world.truth(1).is_writable, "{fault:?}");
        assert_eq!(world.truth(1).timeline, Timeline::new(timeline), "{fault:?}");
        assert!(!world.log().iter().any(|line| line.contains("b Writable")), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_leaves_an_empty_directory() {
    let world = World::new(25);
    world.bootstrap(0).await;
    world.nodes[1].postgres.change_faults(|faults| faults.clone_fails = true);
    let cancel = CancellationToken::new();
    world.nodes[1].server.clone_from(&world.nodes[0].member, false, &cancel).await.unwrap_err();
    assert_eq!(world.truth(1).system_id, None);
    world.nodes[1].postgres.change_faults(|faults| *faults = Faults::default());
    world.clone(1, 0).await;
    world.until(|world| world.truth(1).is_streaming).await;
    assert_eq!(world.truth(1).system_id, world.truth(0).system_id);
    let refused = world.nodes[1].server.clone_from(&world.nodes[0].member, false, &cancel).await;
    assert!(refused.is_err() && world.truth(1).is_alive, "INV-S11: it is not empty");
}

#[tokio::test(start_paused = true)]
async fn a_killed_agent_leaves_half_a_copy_and_an_orphan_is_told_of() {
    for outlives in [false, true] {
        let world = World::new(26);
        world.bootstrap(0).await;
        world.nodes[1].postgres.change_faults(|faults| faults.do_tools_outlive_agent = outlives);
        let cancel = CancellationToken::new();
        let copy = world.nodes[1].server.clone_from(&world.nodes[0].member, false, &cancel);
        assert!(timeout(Duration::from_millis(900), copy).await.is_err());
        assert_eq!(world.nodes[1].server.data_dir(), DataDir::Present { system_id: None });
        sleep(Duration::from_millis(10)).await;
        assert_eq!(world.truth(1).busy.is_empty(), !outlives);
        let started = world.nodes[1].server.start_standby(Some(&world.nodes[0].member)).await;
        assert_eq!(started.is_err(), outlives, "INV-S13");
        assert!(!world.log().iter().any(|line| line.contains("DataDirectoryShared")));
        world.nodes[1].postgres.kill();
        world.nodes[1].server.move_aside().await.unwrap();
        let told = world.log().iter().any(|line| line.contains("DataDirectoryShared(\"pg_basebackup\", \"move\")"));
        assert_eq!(told, outlives, "INV-S13");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_ends_the_server_and_it_does_not_start() {
    let mut world = World::cluster(27).await;
    world.nodes[0].postgres.change_faults(|faults| faults.is_disk_full = true);
    world.commit(0).await.unwrap_err();
    assert!(!world.truth(0).is_alive);
    let postmaster = world.nodes[0].server.start_primary().await.unwrap();
    world.nodes[0].server.wait_accepting(&postmaster).await.unwrap_err();
    assert!(world.nodes[0].server.output_tail().contains("No space left"));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_has_to_be_confirmed_waits_for_the_standby() {
    let mut world = World::cluster(28).await;
    world.nodes[0].postgres.set_standby_names(StandbyNames::parse(world.nodes[1].member.name.as_str()).unwrap());
    world.commit(0).await.unwrap();
    world.nodes[1].postgres.set_frozen(true);
    assert_eq!(world.commit(0).await, Err(NotCommitted::Unknown), "it waits");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_not_removed_before_its_copy_is_within_reach() {
    let (world, lost) = diverged(29).await;
    let cancel = CancellationToken::new();
    world.cut(0, 1);
    world.nodes[0].server.clone_from(&world.nodes[1].member, true, &cancel).await.unwrap_err();
    assert!(world.nodes[0].postgres.holds(lost), "INV-S21");
    world.network.heal();
    world.nodes[0].server.clone_from(&world.nodes[1].member, true, &cancel).await.unwrap();
    assert!(!world.nodes[0].postgres.holds(lost));
    assert!(world.log().iter().any(|line| line.contains("a Wiped { had: Some")), "{:#?}", world.log());
}

/// Faults, kills and commits by a dice: everything that happened.
async fn turmoil(seed: u64) -> Vec<String> {
    let mut world = World::cluster(seed).await;
    let dice = Dice::new(seed);
    for _ in 0..30 {
        let node = dice.below(3);
        let postgres = world.nodes[node].postgres.clone();
        match dice.below(5) {
            0 => postgres.kill(),
            1 => postgres.set_frozen(dice.chance(300)),
            2 => drop(postgres.pg_ctl_promote()),
            3 => drop(world.nodes[node].server.start_standby(Some(&world.nodes[0].member)).await),
            _ => drop(world.commit(node).await),
        }
        sleep(dice.between(Duration::ZERO, second() * 20)).await;
    }
    world.log()
}

#[tokio::test(start_paused = true)]
async fn a_seed_gives_the_same_story_again() {
    let mut events = 0;
    for seed in 0..20 {
        let (one, other) = (turmoil(seed).await, turmoil(seed).await);
        assert_eq!(one, other);
        events += one.len();
    }
    assert!(events > 20 * 15, "{events}");
}
