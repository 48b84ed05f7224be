//! WAL from one server to another.

use super::*;

#[tokio::test(start_paused = true)]
async fn commits_reach_every_standby_and_an_idle_cluster_has_no_timer() {
    let mut world = World::cluster(1).await;
    let id = world.commit(0).await.unwrap();
    world.until(World::is_level).await;
    assert!(world.nodes.iter().all(|node| node.postgres.holds(id)));
    assert_eq!(world.truth(1).replayed, world.truth(0).flushed);
    let events = world.log().len();
    sleep(second() * 86_400).await;
    assert_eq!(world.log().len(), events, "{:#?}", world.log());
}

#[tokio::test(start_paused = true)]
async fn a_standby_follows_a_promoted_one_to_its_timeline() {
    let mut world = World::cluster(2).await;
    world.commit(0).await.unwrap();
    world.until(World::is_level).await;
    world.stop(0, StopHow::Fast).await;
    world.promote(1).await;
    let truth = world.truth(1);
    assert_eq!((truth.timeline, truth.is_writable), (Timeline::new(2), true));
    assert_eq!(truth.history, [(Timeline::FIRST, world.truth(0).flushed)], "it has the shutdown checkpoint");
    world.nodes[2].server.reload_upstream(Some(&world.nodes[1].member)).await.unwrap();
    world.start_standby(0, 1).await;
    let id = world.commit(1).await.unwrap();
    world.until(World::is_level).await;
    assert!(world.nodes.iter().all(|node| node.postgres.holds(id)));
    assert!(world.truth(0).is_accepting && world.truth(0).is_in_recovery);
}

#[tokio::test(start_paused = true)]
async fn a_cascade_goes_on_across_a_promotion_of_its_middle() {
    let mut world = World::cluster(3).await;
    world.make_slots(1).await;
    world.nodes[2].server.reload_upstream(Some(&world.nodes[1].member)).await.unwrap();
    world
        .until(|world| {
            world.truth(2).is_streaming && world.truth(2).upstream.as_ref() == Some(&world.nodes[1].member.name)
        })
        .await;
    world.commit(0).await.unwrap();
    world.until(World::is_level).await;
    world.nodes[0].postgres.kill();
    world.promote(1).await;
    let id = world.commit(1).await.unwrap();
    world.until(|world| world.nodes[2].postgres.holds(id)).await;
    assert_eq!(world.truth(2).timeline, Timeline::new(2));
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends_after_a_minute_and_is_made_anew() {
    let mut world = World::cluster(40).await;
    world.cut(0, 1);
    let id = world.commit(0).await.unwrap();
    world.until(|world| world.nodes[2].postgres.holds(id)).await;
    sleep(second() * 50).await;
    assert!(world.truth(1).is_streaming && !world.nodes[1].postgres.holds(id), "nobody has noticed");
    sleep(second() * 15).await;
    assert!(!world.truth(1).is_streaming);
    world.network.heal();
    world.until(|world| world.nodes[1].postgres.holds(id)).await;
    assert!(world.truth(1).is_streaming);
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_taken_as_long_as_its_lost_connection_is_not_missed() {
    let world = World::cluster(41).await;
    world.nodes[1].postgres.power_off();
    world.nodes[1].postgres.power_on();
    let began = Instant::now();
    world.start_standby(1, 0).await;
    world.until(|world| world.truth(1).is_accepting).await;
    assert!(!world.truth(1).is_streaming);
    world.until(|world| world.truth(1).is_streaming).await;
    assert!((second() * 25..second() * 45).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn paused_replay_falls_behind_and_a_stuck_receiver_too() {
    let mut world = World::cluster(42).await;
    world.until(World::is_level).await;
    world.nodes[1].postgres.change_faults(|faults| faults.is_replay_paused = true);
    world.nodes[2].postgres.change_faults(|faults| faults.is_receiver_stuck = true);
    let before = world.truth(0).flushed;
    let id = world.commit(0).await.unwrap();
    world.until(|world| world.nodes[1].postgres.holds(id)).await;
    sleep(second()).await;
    assert_eq!((world.truth(1).replayed, world.truth(1).flushed), (before, world.truth(0).flushed));
    assert!(world.truth(2).is_streaming && !world.nodes[2].postgres.holds(id));
    world.nodes[1].server.resume_replay().await.unwrap();
    assert_eq!(world.truth(1).replayed, world.truth(0).flushed);
    world.nodes[2].postgres.change_faults(|faults| *faults = Faults::default());
    world.until(World::is_level).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_tells_what_a_standby_lacks() {
    use pgward_agent::server::Look;
    use pgward_core::decide::view::RecoveryDiff;

    let world = World::cluster(43).await;
    let node = &world.nodes[2];
    for (upstream, want) in [(0, RecoveryDiff::Same), (1, RecoveryDiff::Reload)] {
        let upstream = Some(Some(world.nodes[upstream].member.clone()));
        let seen = node.server.look(&node.local, &Look { upstream, leader_timeline: None, busy: None }).await;
        let facts = seen.facts.unwrap();
        assert!(seen.alive && seen.accepting && facts.in_recovery && facts.streaming);
        assert_eq!((facts.position, facts.timeline), (world.truth(0).flushed, Some(Timeline::FIRST)));
        assert_eq!(seen.recovery, want);
    }
    node.postgres.change_faults(|faults| faults.is_monitoring_silent = true);
    let began = Instant::now();
    let seen = node.server.look(&node.local, &Look { upstream: None, leader_timeline: None, busy: None }).await;
    assert!(seen.accepting && seen.facts.is_none() && began.elapsed() >= second() * 3);
    node.postgres.kill();
    let seen = node.server.look(&node.local, &Look { upstream: None, leader_timeline: None, busy: None }).await;
    let control = seen.control.unwrap();
    assert!(!seen.alive && control.has_signal_file && control.rewind_possible);
    assert_eq!(control.state, ControlState::InArchiveRecovery);
}
