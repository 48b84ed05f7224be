use anyhow::Result;
use pgward_tests::cluster::{Topology, with_running};
use pgward_tests::node::Agent;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probe() -> Result<()> {
    with_running(Topology::of(Agent::Patroni, 3), async |cluster| {
        let primary = cluster.at_rest(std::time::Duration::from_secs(30)).await?;
        println!("{}", cluster.ctl(Agent::Patroni, &["list"]).await?.text());
        let w = pgward_tests::writers::Writers::start(cluster).await?;
        let d = pgward_tests::direct::DirectWriters::start(cluster).await?;
        let t = std::time::Instant::now();
        cluster.switchover(primary, (primary + 1) % 3).await?;
        cluster.all_streaming(std::time::Duration::from_secs(30)).await?;
        println!("whole after {:?}", t.elapsed());
        let w = w.stop().await;
        let d = d.stop().await;
        println!("{}", pgward_tests::verdict::Verdict::of(cluster, &w).await?);
        println!("{}", pgward_tests::verdict::DirectVerdict::of(cluster, &d).await?);
        println!("{:?}", pgward_tests::verdict::interruption(&w, t));
        Ok(())
    })
    .await
}
