//! Chaos: seeded faults of every kind on real PostgreSQL and etcd, clients that append to lists, and a checker.
//!
//! [`schedule::Schedule`] says what is done when, and is a pure function of the seed; the nemesis carries it
//! out. [`check`](check::check) judges what the clients saw; it is pure too. [`picture`] draws the run for a person.

mod clients;
mod dice;
mod filter;
mod ground;
mod nemesis;
mod observer;
mod proxy;

pub mod check;
pub mod history;
pub mod picture;
pub mod report;
pub mod schedule;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::cluster::{BOOTSTRAP_LIMIT, Cluster, Outcome, Topology, with};
use crate::node::Agent;
use crate::wait::{until, until_true};
use check::check;
use clients::Clients;
use ground::Ground;
use history::{History, List};
use nemesis::{Nemesis, disturbances};
use observer::Observer;
use report::Report;
use schedule::Schedule;

pub use nemesis::Injected;
pub use observer::{Lease, Role, Track};

/// How long the cluster may take to be whole again after the last fault has been undone: a lease, an election, a new
/// base backup, and the time that connections need to notice.
const WHOLE: Duration = Duration::from_secs(180);

/// The seed and the length of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What the schedule is made from.
    pub seed: u64,
    /// How long faults are injected.
    pub length: Duration,
}

impl Settings {
    /// These, unless `PGWARD_CHAOS_SEED` and `PGWARD_CHAOS_SECONDS` say otherwise.
    ///
    /// # Errors
    /// When one of them is not a number.
    pub fn from_environment(seed: u64, length: Duration) -> Result<Self> {
        let number = |name: &str| -> Result<Option<u64>> {
            let text = std::env::var(name).ok().filter(|text| !text.is_empty());
            text.map(|text| text.parse().with_context(|| format!("{name}={text} is not a number"))).transpose()
        };
        Ok(Self {
            seed: number("PGWARD_CHAOS_SEED")?.unwrap_or(seed),
            length: number("PGWARD_CHAOS_SECONDS")?.map_or(length, Duration::from_secs),
        })
    }
}

/// Does one run, draws it, and fails when something happened that must not.
///
/// # Errors
/// With the verdict, the schedule and the path of the picture.
pub async fn run(settings: Settings) -> Outcome {
    // A disk that is full in the middle of a rewind leaves nothing that could be rewound again: it may be copied anew (RWD-12).
    let postgresql = json!({"use_pg_rewind": true, "use_slots": true, "remove_data_directory_on_rewind_failure": true});
    let topology = Topology::of(Agent::Pgward, 3).in_namespaces().dynamic("postgresql", postgresql);
    let ttl = Duration::from_secs(topology.dynamic["ttl"].as_u64().unwrap_or(20));
    let schedule = Schedule::new(settings.seed, settings.length, ttl);
    println!("chaos: PGWARD_CHAOS_SEED={} PGWARD_CHAOS_SECONDS={}", settings.seed, settings.length.as_secs());
    println!("{schedule}");
    with(topology, async |cluster| {
        let ground = Ground::prepare(cluster).await?;
        cluster.start_all()?;
        let primary = cluster.at_rest(BOOTSTRAP_LIMIT * 2).await.context("before the first fault")?;
        let report = inject(cluster, &ground, primary, &schedule, ttl).await?;
        let path = report.write()?;
        println!("{report}\npicture: {}", path.display());
        ensure!(report.is_good(), "{schedule}\n{report}\npicture: {}", path.display());
        Ok(())
    })
    .await
}

/// Clients, faults, and a look at what is left.
async fn inject(
    cluster: &mut Cluster,
    ground: &Ground,
    primary: usize,
    schedule: &Schedule,
    ttl: Duration,
) -> Result<Report> {
    let origin = Instant::now();
    let clients = Clients::start(cluster, origin).await?;
    let observer = Observer::start(cluster, origin);
    until_true(BOOTSTRAP_LIMIT, async || Ok(clients.acknowledged() > 20)).await.context("appends do not begin")?;
    let injected = Nemesis::new(cluster, ground, origin, primary).run(schedule).await?;

    let healed = origin.elapsed();
    let mut trouble = Vec::new();
    for node in &mut cluster.nodes {
        if node.agent_pid().is_none() {
            trouble.push(format!("the agent of {} has ended by itself", node.name()));
        }
    }
    let whole = cluster.at_rest(WHOLE).await;
    let recovered = origin.elapsed();
    let acknowledged = clients.acknowledged();
    if whole.is_ok() {
        let more = async || Ok(clients.acknowledged() > acknowledged + 200);
        if let Err(error) = until_true(WHOLE, more).await {
            trouble.push(format!("appends do not come back: {error:#}"));
        }
    }
    let operations = clients.stop().await;
    let last = match whole {
        Ok(primary) => match same_lists(cluster, primary).await {
            Ok(lists) => Some(lists),
            Err(error) => {
                trouble.push(format!("{error:#}"));
                None
            }
        },
        Err(error) => {
            trouble.push(format!("{error:#}"));
            None
        }
    };
    let history =
        last.map(|last| History { operations: operations.clone(), last, disturbances: disturbances(&injected, ttl) });
    let verdict = history.as_ref().map(check);
    Ok(Report {
        seed: schedule.seed,
        names: cluster.nodes.iter().map(|node| node.name().to_owned()).collect(),
        length: origin.elapsed(),
        healed,
        recovered,
        injected,
        operations,
        roles: observer.roles(),
        lease: observer.lease(),
        verdict,
        trouble,
    })
}

/// The lists on the primary, once every replica has the same.
async fn same_lists(cluster: &Cluster, primary: usize) -> Result<BTreeMap<i32, List>> {
    until(WHOLE, async || {
        let lists = clients::lists(&cluster.nodes[primary].socket()).await?;
        for node in &cluster.nodes {
            let same = clients::lists(&node.socket()).await? == lists;
            ensure!(same, "{} has other lists than the primary {}", node.name(), cluster.nodes[primary].name());
        }
        Ok(Some(lists))
    })
    .await
    .context("the members do not agree on the lists")
}
