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
