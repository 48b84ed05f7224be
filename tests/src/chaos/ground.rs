//! What has to be prepared before the cluster starts, so that faults can be brought about later: proxies on the links
//! that can be slow, a small disk, a clock that can be shifted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde_json::json;
use tokio::sync::watch;

use super::proxy::{Link, Proxy};
use super::schedule::Fault;
use crate::cluster::Cluster;
use crate::machine::program;

/// The member whose data directory lies on a small file system.
pub(super) const SMALL_DISK: usize = 1;
/// Its size: a fresh cluster takes about 100 MiB of it, and slots may keep some WAL.
const SMALL_DISK_MEBIBYTES: u32 = 512;

/// The prepared ground. Dropping it closes the proxies.
#[derive(Debug)]
pub(super) struct Ground {
    proxies: Vec<Proxy>,
    /// The link between each agent and etcd.
    store: Vec<watch::Sender<Link>>,
    /// The link between each member's PostgreSQL and the others.
    replication: Vec<watch::Sender<Link>>,
    /// The ports at which each agent reaches etcd.
    pub(super) store_ports: Vec<Vec<u16>>,
    /// The port at which each member's PostgreSQL is reached by the others.
    pub(super) replication_ports: Vec<u16>,
    disk: PathBuf,
    /// The file that says how far each member's clock is off; none when the clocks cannot be shifted.
    clocks: Option<Vec<PathBuf>>,
}

impl Ground {
    /// Prepares a cluster of which nothing but etcd runs.
    ///
    /// # Errors
    /// When a proxy cannot listen or the disk cannot be mounted.
    pub(super) async fn prepare(cluster: &mut Cluster) -> Result<Self> {
        let count = cluster.nodes.len();
        let links = || (0..count).map(|_| watch::channel(Link::default()).0).collect::<Vec<_>>();
        let mut ground = Self {
            proxies: Vec::new(),
            store: links(),
            replication: links(),
            store_ports: Vec::new(),
            replication_ports: Vec::new(),
            disk: cluster.small_disk(&format!("{}/disk", cluster.nodes[SMALL_DISK].name()), SMALL_DISK_MEBIBYTES)?,
            clocks: None,
        };
        ground.route(cluster).await?;
        cluster.nodes[SMALL_DISK].config["postgresql"]["data_dir"] = json!(ground.disk.join("data"));
        for node in &mut cluster.nodes {
            // So that a full disk is felt soon, and replicas that were away for a while still find their WAL by the slots.
            let parameters = &mut node.config["postgresql"]["parameters"];
            for (name, value) in [("min_wal_size", "32MB"), ("max_wal_size", "64MB"), ("wal_recycle", "off")] {
                parameters[name] = json!(value);
            }
        }
        if let Some(library) = clock_library() {
            ground.clocks = Some(with_clocks(cluster, &library)?);
        }
        Ok(ground)
    }

    /// Makes every agent reach etcd, and every PostgreSQL the others, through proxies on the test's own address.
    async fn route(&mut self, cluster: &mut Cluster) -> Result<()> {
        let own = cluster.network.own_address();
        let hosts: Vec<String> = (0..cluster.nodes.len()).map(|host| cluster.network.address(host)).collect();
        let endpoints = cluster.etcd.endpoints();
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            let mut addresses = Vec::new();
            for endpoint in &endpoints {
                let link = self.store[index].subscribe();
                let proxy = Proxy::start(&own, endpoint.clone(), move |_| vec![link.clone()]).await?;
                addresses.push(proxy.address);
                self.proxies.push(proxy);
            }
            let hosts_of_etcd: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            node.config["etcd3"] = json!({"hosts": hosts_of_etcd, "use_proxies": true});
            self.store_ports.push(addresses.iter().map(std::net::SocketAddr::port).collect());

            let links: BTreeMap<String, watch::Receiver<Link>> =
                hosts.iter().cloned().zip(self.replication.iter().map(watch::Sender::subscribe)).collect();
            let server = self.replication[index].subscribe();
            let target = format!("{}:{}", node.place.address, node.place.pg_port);
            let proxy = Proxy::start(&own, target, move |from| {
                let client = links.get(&from.ip().to_string()).cloned();
                client.into_iter().chain([server.clone()]).collect()
            })
            .await?;
            node.config["postgresql"]["connect_address"] = json!(proxy.address.to_string());
            self.replication_ports.push(proxy.address.port());
            self.proxies.push(proxy);
        }
        Ok(())
    }

    /// Why a fault cannot be brought about on this machine.
    pub(super) fn missing(&self, fault: Fault) -> Option<&'static str> {
        let needs = |name: &str, remedy: &'static str| program(name).is_none().then_some(remedy);
        match fault {
            Fault::ShiftClock(_) => self.clocks.is_none().then_some("libfaketime is not installed (package faketime)"),
            Fault::FailSync => needs("strace", "strace is not installed"),
            Fault::Mute | Fault::Deafen | Fault::CutReplication | Fault::CutStore => {
                needs("nft", "nft is not installed (package nftables)")
            }
            Fault::KillAgent
            | Fault::KillPostmaster
            | Fault::KillNode
            | Fault::KillFencer
            | Fault::FreezeAgent
            | Fault::FreezePostmaster
            | Fault::FreezePostgres
            | Fault::Isolate
            | Fault::SlowStore(_)
            | Fault::StallStore
            | Fault::SlowReplication(_)
            | Fault::StallReplication
            | Fault::FillDisk
            | Fault::KillStore
            | Fault::FreezeStore
            | Fault::Switchover => None,
        }
    }

    /// Makes the link of a member's agent to etcd behave so.
    pub(super) fn set_store(&self, node: usize, link: Link) {
        self.store[node].send_replace(link);
    }

    /// Makes the links of a member's PostgreSQL to the others behave so.
    pub(super) fn set_replication(&self, node: usize, link: Link) {
        self.replication[node].send_replace(link);
    }

    /// Moves a member's wall clock so many seconds away from the right time.
    pub(super) fn set_clock(&self, node: usize, seconds: i64) -> Result<()> {
        let file = self.clocks.as_ref().and_then(|clocks| clocks.get(node)).context("the clocks cannot be shifted")?;
        write_clock(file, seconds)
    }

    /// Leaves no free byte on the small disk.
    pub(super) fn fill_disk(&self) -> Result<()> {
        let ballast = fs::File::create(self.ballast())?;
        let mut taken = 0;
        // What is free is taken, until nothing is: something else may have been freed meanwhile.
        for _ in 0..20 {
            let state = statvfs(&self.disk)?;
            let free = state.f_bavail * state.f_frsize;
            if free == 0 {
                break;
            }
            if fallocate(&ballast, FallocateFlags::empty(), taken, free).is_ok() {
                taken += free;
            }
        }
        Ok(())
    }

    /// Gives the space back.
    pub(super) fn empty_disk(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("cannot free the small disk")
    }

    fn ballast(&self) -> PathBuf {
        self.disk.join("ballast")
    }

    /// Lifts everything that this ground can do to links and clocks.
    pub(super) fn calm(&self) -> Result<()> {
        for link in self.store.iter().chain(&self.replication) {
            link.send_replace(Link::default());
        }
        let _ = fs::remove_file(self.ballast());
        self.clocks.iter().flatten().try_for_each(|file| write_clock(file, 0))
    }
}

/// libfaketime in its variant for programs with threads.
fn clock_library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file())
}

/// Starts every agent, and with it its PostgreSQL, under libfaketime with a right clock. The monotonic clocks are left
/// alone, as they are when somebody sets the wall clock of a machine.
fn with_clocks(cluster: &mut Cluster, library: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for node in &mut cluster.nodes {
        let file = node.place.dir.join("clock");
        write_clock(&file, 0)?;
        let variables = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ];
        node.environment.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        files.push(file);
    }
    Ok(files)
}

fn write_clock(file: &Path, seconds: i64) -> Result<()> {
    // Written beside and renamed: a half-written file would be another time.
    let beside = file.with_extension("new");
    fs::write(&beside, format!("{seconds:+}s\n")).and_then(|()| fs::rename(&beside, file))?;
    Ok(())
}
