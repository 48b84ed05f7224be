//! Ends, kills and stops.

use pgward_agent::server::Stopped;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_loss_of_power_takes_what_was_not_flushed_and_a_kill_does_not() {
    for (name, is_power_lost) in [("power", true), ("kill", false)] {
        let mut world = World::cluster(4).await;
        let kept = world.commit(0).await.unwrap();
        let postgres = world.nodes[0].postgres.clone();
        postgres.change_faults(|faults| faults.is_flush_stalled = true);
        let doubtful = CommitId(99);
        let client = tokio::spawn({
            let postgres = postgres.clone();
            async move { postgres.commit(doubtful).await }
        });
        world.until(|world| world.nodes[0].postgres.holds(doubtful)).await;
        if is_power_lost {
            postgres.power_off();
        } else {
            postgres.kill();
        }
        assert_eq!(client.await.unwrap(), Err(NotCommitted::Unknown), "{name}");
        assert!(postgres.holds(kept), "{name}");
        assert_eq!(postgres.holds(doubtful), !is_power_lost, "{name}");
        assert!(!world.truth(0).has_processes, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_primary_recovers_on_its_timeline() {
    let mut world = World::cluster(5).await;
    let id = world.commit(0).await.unwrap();
    world.nodes[0].postgres.kill();
    assert_eq!(world.commit(0).await, Err(NotCommitted::Refused));
    let postmaster = world.nodes[0].server.start_primary().await.unwrap();
    world.nodes[0].server.wait_accepting(&postmaster).await.unwrap();
    let truth = world.truth(0);
    assert!(truth.is_writable && truth.is_checkpointed && world.nodes[0].postgres.holds(id));
    assert_eq!(truth.timeline, Some(Timeline::FIRST));
    world.until(|world| world.truth(1).is_streaming && world.truth(2).is_streaming).await;
    world.until(World::is_level).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_hangs_becomes_an_immediate_one() {
    for hang in [StopHang::Checkpoint, StopHang::Walsender, StopHang::Archiving] {
        let world = World::cluster(6).await;
        let node = &world.nodes[0];
        node.postgres.change_faults(|faults| faults.stop_hangs_in = Some(hang));
        let (announce, announced) = tokio::sync::oneshot::channel();
        let began = Instant::now();
        let stop = node.server.stop(&node.local, StopHow::Fast, Some(second() * 10), Some(announce));
        let stopped = stop.await.unwrap();
        assert!((second() * 10..second() * 11).contains(&began.elapsed()), "{hang:?}");
        let writes_last_record = hang != StopHang::Checkpoint;
        assert_eq!(announced.await.is_ok(), writes_last_record, "{hang:?}");
        assert_eq!(stopped.published.is_some(), writes_last_record, "{hang:?}");
        assert!(!world.truth(0).is_alive, "{hang:?}");
        assert!(world.log().iter().any(|line| line.contains("NotWritable")), "{hang:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn processes_in_the_kernel_survive_every_signal() {
    let world = World::cluster(7).await;
    let node = &world.nodes[0];
    node.postgres.change_faults(|faults| faults.is_unkillable = true);
    node.server.stop(&node.local, StopHow::Immediate, None, None).await.unwrap_err();
    assert!(world.truth(0).is_alive && !world.truth(0).is_writable, "killed, and not gone");
    node.postgres.change_faults(|faults| *faults = Faults::default());
    assert!(!world.truth(0).is_alive);
}

#[tokio::test(start_paused = true)]
async fn backends_outlive_their_postmaster_for_a_moment() {
    let mut world = World::cluster(8).await;
    world.nodes[0].postgres.kill_postmaster_only();
    let truth = world.truth(0);
    assert!(!truth.is_alive && truth.has_processes && truth.is_writable);
    world.until(|world| !world.truth(0).has_processes).await;
    assert_eq!(world.commit(0).await, Err(NotCommitted::Refused));

    let mut world = World::cluster(9).await;
    world.nodes[0].postgres.kill_postmaster_only();
    world.nodes[0].server.end_leftovers().await.unwrap();
    assert!(!world.truth(0).has_processes);
    assert_eq!(world.commit(0).await, Err(NotCommitted::Refused));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_server_answers_when_it_goes_on_unless_it_was_struck() {
    let mut world = World::cluster(10).await;
    let postgres = world.nodes[0].postgres.clone();
    let server = world.nodes[0].server.clone();
    postgres.set_frozen(true);
    assert!(!world.truth(0).is_writable && world.truth(0).is_alive);
    assert!(server.fresh_facts(None).await.is_none(), "nobody answers");
    postgres.set_frozen(false);
    assert!(world.truth(0).is_writable);
    world.commit(0).await.unwrap();
    postgres.set_frozen(true);
    assert!(postgres.strike(None));
    postgres.set_frozen(false);
    assert!(!world.truth(0).has_processes);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_archives_publishes_the_position_before_its_segment_switch() {
    let mut world = World::new(11);
    let dynamic = r#"{"postgresql": {"parameters": {"archive_mode": "on"}}}"#;
    let dynamic = serde_json::from_str(dynamic).unwrap();
    use pgward_agent::server::ServerSettings;
    world.nodes[0].server.set_dynamic(&DynamicConfig::from_map(&dynamic).unwrap());
    world.bootstrap(0).await;
    world.commit(0).await.unwrap();
    let before = world.truth(0).written;
    let node = &world.nodes[0];
    let stopped = node.server.stop(&node.local, StopHow::Fast, None, None).await.unwrap();
    assert_eq!(stopped, Stopped { published: Some(before) });
    assert!(world.truth(0).control.unwrap().checkpoint > before);
}

#[tokio::test(start_paused = true)]
async fn a_server_goes_on_without_its_data_directory_until_it_is_stopped() {
    use pgward_agent::server::Look;
    use pgward_core::decide::view::DataDir;

    let mut world = World::cluster(12).await;
    for node in [0, 1] {
        let node = &world.nodes[node];
        let look = Look { upstream: None, leader_timeline: None, busy: None };
        node.local.started(node.server.look(&node.local, &look).await.postmaster.unwrap());
        node.postgres.change_faults(|faults| faults.is_data_dir_inaccessible = true);
        let seen = node.server.look(&node.local, &look).await;
        assert!(matches!(seen.data_dir, DataDir::Inaccessible { .. }), "{:?}", seen.data_dir);
        assert!(seen.alive && seen.accepting && seen.facts.is_none(), "it answers, and cannot tell");
    }
    world.commit(0).await.unwrap();
    world.nodes[1].server.promote().await.unwrap_err();
    assert!(world.nodes[0].server.may_be_writable(&world.nodes[0].local).await);
    world.stop(0, StopHow::Immediate).await;
    assert!(!world.nodes[0].server.may_be_writable(&world.nodes[0].local).await);
    world.nodes[0].server.start_primary().await.unwrap_err();
    world.nodes[0].postgres.change_faults(|faults| *faults = Faults::default());
    let postmaster = world.nodes[0].server.start_primary().await.unwrap();
    world.nodes[0].server.wait_accepting(&postmaster).await.unwrap();
    assert!(world.truth(0).is_writable);
}
