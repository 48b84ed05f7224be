//! Carries a schedule out on a real cluster, and undoes every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};

use super::filter::{Drop as Dropped, Filter};
use super::ground::{Ground, SMALL_DISK};
use super::history::{Disturbance, Harm};
use super::proxy::Link;
use super::schedule::{Fault, Schedule, Step, Victim};
use crate::cluster::Cluster;
use crate::http::Request;
use crate::machine::program;
use crate::node::REST_AUTH;
use crate::process::{self, Process, Spec};

/// How long after a cut link has healed its connections may still be silent: TCP waits longer and longer between its
/// attempts while nothing gets through.
const RECONNECTS: Duration = Duration::from_secs(25);

/// A step as it was carried out. Times count from the beginning of the run.
#[derive(Clone, Debug)]
pub struct Injected {
    /// The step.
    pub step: Step,
    /// Which nodes it hit; for etcd, which members.
    pub hosts: Vec<usize>,
    /// When it had been done.
    pub begun: Duration,
    /// When it had been undone.
    pub healed: Duration,
    /// What is to be said of it: why it was left out, or what came of it.
    pub note: String,
}

impl Injected {
    /// Whether it hit etcd and not a member.
    pub fn hits_store(&self) -> bool {
        matches!(self.step.victim, Victim::StoreLeader | Victim::StoreQuorum)
    }

    /// What it may have cost with asynchronous replication. `ttl` is the length of the lease: the time within which a
    /// fencer strikes or a member that cannot go on steps down.
    fn disturbances(&self, ttl: Duration) -> Vec<Disturbance> {
        let each = |harm: Harm, after: Duration| {
            let of =
                move |node: &usize| Disturbance { node: *node, harm, from: self.begun, until: self.healed + after };
            self.hosts.iter().map(of).collect::<Vec<_>>()
        };
        match self.step.fault {
            Fault::KillAgent
            | Fault::KillPostmaster
            | Fault::KillNode
            | Fault::FreezeAgent
            | Fault::FreezePostmaster
            | Fault::FreezePostgres
            | Fault::FillDisk
            | Fault::FailSync => each(Harm::Crash, ttl),
            Fault::Isolate
            | Fault::Mute
            | Fault::Deafen
            | Fault::CutReplication
            | Fault::SlowReplication(_)
            | Fault::StallReplication => [each(Harm::Cut, RECONNECTS), each(Harm::Crash, ttl)].concat(),
            // A member that loses etcd steps down in good order; an operator and a clock cost nothing at all.
            Fault::KillFencer
            | Fault::CutStore
            | Fault::SlowStore(_)
            | Fault::StallStore
            | Fault::ShiftClock(_)
            | Fault::KillStore
            | Fault::FreezeStore
            | Fault::Switchover => Vec::new(),
        }
    }
}

/// What the steps may have cost.
pub(super) fn disturbances(injected: &[Injected], ttl: Duration) -> Vec<Disturbance> {
    injected.iter().flat_map(|one| one.disturbances(ttl)).collect()
}

/// How a step is undone.
enum Undo {
    Nothing,
    StartAgent(usize),
    ContinueAgent(usize),
    Continue(BTreeSet<u32>),
    Connect(usize),
    Lift(Vec<Filter>),
    RestoreStore(usize),
    RestoreReplication(usize),
    RestoreClock(usize),
    EmptyDisk,
    EndTrace(Process),
    StartStore(Vec<usize>),
    ContinueStore(Vec<usize>),
    Answer(JoinHandle<String>),
}

/// The one who does all this.
pub(super) struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    ground: &'a Ground,
    origin: Instant,
    /// Who was primary when that could last be told.
    primary: usize,
}

impl<'a> Nemesis<'a> {
    pub(super) fn new(cluster: &'a mut Cluster, ground: &'a Ground, origin: Instant, primary: usize) -> Self {
        Self { cluster, ground, origin, primary }
    }

    /// Carries the schedule out. Whatever happens, everything is undone afterwards.
    pub(super) async fn run(&mut self, schedule: &Schedule) -> Result<Vec<Injected>> {
        let mut injected = Vec::new();
        let outcome = self.follow(schedule, &mut injected).await;
        self.heal_all()?;
        outcome.map(|()| injected)
    }

    async fn follow(&mut self, schedule: &Schedule, injected: &mut Vec<Injected>) -> Result<()> {
        let mut open: BTreeMap<usize, Undo> = BTreeMap::new();
        let mut answers = Vec::new();
        loop {
            let next = schedule.steps.get(injected.len());
            let ending = open.keys().copied().min_by_key(|index| schedule.steps[*index].until);
            let ending = ending.filter(|index| next.is_none_or(|step| schedule.steps[*index].until <= step.at));
            if let Some(index) = ending {
                sleep_until((self.origin + schedule.steps[index].until).into()).await;
                let undo = open.remove(&index).unwrap_or(Undo::Nothing);
                if let Undo::Answer(answer) = undo {
                    answers.push((index, answer));
                } else {
                    self.undo(undo).await.with_context(|| format!("cannot undo {}", schedule.steps[index]))?;
                }
                injected[index].healed = self.origin.elapsed();
            } else if let Some(step) = next {
                sleep_until((self.origin + step.at).into()).await;
                let (one, undo) = self.begin(injected.len(), step).await;
                println!("{:6.1} s  {}", one.begun.as_secs_f64(), describe(&one));
                open.insert(injected.len(), undo);
                injected.push(one);
            } else {
                break;
            }
        }
        for (index, answer) in answers {
            let said = timeout(Duration::from_secs(1), answer).await;
            injected[index].note = said.map_or_else(|_| "no answer yet".to_owned(), |said| said.unwrap_or_default());
        }
        Ok(())
    }

    /// Does a step. One that cannot be done now, such as killing what is dead already, is noted and left out.
    async fn begin(&mut self, number: usize, step: &Step) -> (Injected, Undo) {
        let (hosts, outcome) = match self.hosts(step.victim).await {
            Ok(hosts) => match self.ground.missing(step.fault) {
                Some(why) => (hosts, Err(anyhow::anyhow!("{why}"))),
                None => {
                    let outcome = self.inject(number, step, &hosts).await;
                    (hosts, outcome)
                }
            },
            Err(error) => (Vec::new(), Err(error)),
        };
        let begun = self.origin.elapsed();
        let (undo, note) = match outcome {
            Ok(undo) => (undo, String::new()),
            Err(error) => (Undo::Nothing, format!("left out: {error:#}")),
        };
        (Injected { step: *step, hosts, begun, healed: begun, note }, undo)
    }

    /// Who the victim is now.
    async fn hosts(&mut self, victim: Victim) -> Result<Vec<usize>> {
        if let Ok(Ok(Some(leader))) = timeout(Duration::from_secs(1), self.cluster.leader()).await {
            self.primary = leader;
        }
        let others = (0..self.cluster.nodes.len()).filter(|node| *node != self.primary);
        let store_leader = async || {
            let leader = timeout(Duration::from_secs(3), self.cluster.etcd.leader_member()).await;
            leader.context("etcd does not say who leads")?
        };
        Ok(match victim {
            Victim::Primary => vec![self.primary],
            Victim::Replica(index) => others.skip(index).take(1).collect(),
            Victim::SmallDisk => vec![SMALL_DISK],
            Victim::StoreLeader => vec![store_leader().await?],
            Victim::StoreQuorum => {
                let leader = store_leader().await?;
                vec![leader, (leader + 1) % self.cluster.nodes.len()]
            }
        })
    }

    async fn inject(&mut self, number: usize, step: &Step, hosts: &[usize]) -> Result<Undo> {
        let host = *hosts.first().context("there is no such member")?;
        let node = &mut self.cluster.nodes[host];
        Ok(match step.fault {
            Fault::KillAgent => {
                node.kill_agent();
                Undo::StartAgent(host)
            }
            Fault::KillPostmaster => {
                node.kill_postmaster()?;
                Undo::Nothing
            }
            Fault::KillNode => {
                node.crash();
                Undo::StartAgent(host)
            }
            Fault::KillFencer => {
                let fencers = node.fencer_pids();
                anyhow::ensure!(!fencers.is_empty(), "{} has no fencer", node.name());
                fencers.iter().for_each(|pid| process::send(*pid, Signal::KILL));
                Undo::Nothing
            }
            Fault::FreezeAgent => {
                node.signal_agent(Signal::STOP);
                Undo::ContinueAgent(host)
            }
            Fault::FreezePostmaster => {
                let postmaster = node.postmaster_pid().context("there is no postmaster")?;
                freeze(BTreeSet::from([postmaster]))
            }
            Fault::FreezePostgres => {
                let postmaster = node.postmaster_pid().context("there is no postmaster")?;
                freeze(process::with_descendants(&process::all(), [postmaster]))
            }
            Fault::Isolate => {
                self.cluster.network.cut(host)?;
                Undo::Connect(host)
            }
            Fault::Mute => self.filter(number, &[(host, Dropped::Sent)])?,
            Fault::Deafen => self.filter(number, &[(host, Dropped::Received)])?,
            Fault::CutReplication => {
                let ports = &self.ground.replication_ports;
                let to_others = ports.iter().enumerate().filter(|(other, _)| *other != host).map(|(_, port)| *port);
                let mut drops = vec![(host, Dropped::SentTo(to_others.collect()))];
                let others = (0..ports.len()).filter(|other| *other != host);
                drops.extend(others.map(|other| (other, Dropped::SentTo(vec![ports[host]]))));
                self.filter(number, &drops)?
            }
            Fault::CutStore => {
                self.filter(number, &[(host, Dropped::SentTo(self.ground.store_ports[host].clone()))])?
            }
            Fault::SlowStore(delay) => {
                self.ground.set_store(host, Link { delay, stalled: false });
                Undo::RestoreStore(host)
            }
            Fault::StallStore => {
                self.ground.set_store(host, Link { stalled: true, ..Link::default() });
                Undo::RestoreStore(host)
            }
            Fault::SlowReplication(delay) => {
                self.ground.set_replication(host, Link { delay, stalled: false });
                Undo::RestoreReplication(host)
            }
            Fault::StallReplication => {
                self.ground.set_replication(host, Link { stalled: true, ..Link::default() });
                Undo::RestoreReplication(host)
            }
            Fault::ShiftClock(seconds) => {
                self.ground.set_clock(host, seconds)?;
                Undo::RestoreClock(host)
            }
            Fault::FillDisk => {
                self.ground.fill_disk()?;
                self.use_new_wal_files().await;
                Undo::EmptyDisk
            }
            Fault::FailSync => self.fail_sync(host)?,
            Fault::KillStore => {
                hosts.iter().for_each(|member| self.cluster.etcd.kill_member(*member));
                Undo::StartStore(hosts.to_vec())
            }
            Fault::FreezeStore => {
                hosts.iter().for_each(|member| self.cluster.etcd.signal_member(*member, Signal::STOP));
                Undo::ContinueStore(hosts.to_vec())
            }
            Fault::Switchover => self.switch_over(host),
        })
    }

    fn filter(&self, number: usize, drops: &[(usize, Dropped)]) -> Result<Undo> {
        let mut filters = Vec::new();
        for (host, drop) in drops {
            let namespace = self.cluster.network.namespace(*host).context("the hosts have no namespaces")?;
            filters.push(Filter::set(&namespace, &format!("chaos{number}"), drop)?);
        }
        Ok(Undo::Lift(filters))
    }

    /// Makes PostgreSQL want new files soon, as a busy database does: a full disk hurts only who needs more of it.
    async fn use_new_wal_files(&self) {
        let primary = self.cluster.nodes[self.primary].socket();
        for _ in 0..6 {
            // Fails as soon as the disk is felt.
            let _ = timeout(Duration::from_secs(1), primary.query("SELECT pg_switch_wal()")).await;
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Has strace answer PostgreSQL's fsync and fdatasync with EIO.
    fn fail_sync(&self, host: usize) -> Result<Undo> {
        let node = &self.cluster.nodes[host];
        let postmaster = node.postmaster_pid().context("there is no postmaster")?;
        let mut trace = Spec::new(program("strace").context("strace is not installed")?, self.cluster.dir());
        trace = trace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
        trace = trace.args(["-e", "inject=fsync,fdatasync:error=EIO"]);
        for pid in process::with_descendants(&process::all(), [postmaster]) {
            trace = trace.arg("-p").arg(pid.to_string());
        }
        Ok(Undo::EndTrace(trace.start(&self.cluster.dir().join("strace.log"))?))
    }

    /// Asks the primary's agent for a switchover to the next member; the answer comes later.
    fn switch_over(&self, from: usize) -> Undo {
        let nodes = &self.cluster.nodes;
        let candidate = nodes[(from + 1) % nodes.len()].name();
        let body = json!({"leader": nodes[from].name(), "candidate": candidate});
        let address = nodes[from].rest_address();
        Undo::Answer(tokio::spawn(async move {
            let path = Request::get(&address, "/switchover");
            let request = Request { method: "POST", auth: Some(REST_AUTH), json: Some(&body), ..path };
            match request.send(Duration::from_secs(40)).await {
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(error) => format!("{error:#}"),
            }
        }))
    }

    async fn undo(&mut self, undo: Undo) -> Result<()> {
        match undo {
            Undo::StartAgent(node) => self.start_agent(node)?,
            Undo::ContinueAgent(node) => self.cluster.nodes[node].signal_agent(Signal::CONT),
            Undo::Continue(pids) => pids.iter().for_each(|pid| process::send(*pid, Signal::CONT)),
            Undo::Connect(host) => self.cluster.network.heal(host)?,
            Undo::Lift(filters) => filters.into_iter().try_for_each(Filter::lift)?,
            Undo::RestoreStore(node) => self.ground.set_store(node, Link::default()),
            Undo::RestoreReplication(node) => self.ground.set_replication(node, Link::default()),
            Undo::RestoreClock(node) => self.ground.set_clock(node, 0)?,
            Undo::EmptyDisk => self.ground.empty_disk()?,
            Undo::EndTrace(mut trace) => {
                // SIGINT makes it let go of everything that it traces.
                trace.signal(Signal::INT);
                trace.ended(Duration::from_secs(5)).await?;
            }
            Undo::StartStore(members) => members.iter().try_for_each(|m| self.cluster.etcd.start_member(*m))?,
            Undo::ContinueStore(members) => {
                members.iter().for_each(|member| self.cluster.etcd.signal_member(*member, Signal::CONT));
            }
            // An answer is waited for at the end of the run.
            Undo::Nothing | Undo::Answer(_) => {}
        }
        Ok(())
    }

    /// Starts an agent that a step has killed, unless another step has started it meanwhile.
    fn start_agent(&mut self, node: usize) -> Result<()> {
        let node = &mut self.cluster.nodes[node];
        if node.agent_pid().is_none() { node.start() } else { Ok(()) }
    }

    /// Undoes whatever may be left when the schedule was broken off.
    fn heal_all(&mut self) -> Result<()> {
        self.ground.calm()?;
        for host in 0..self.cluster.nodes.len() {
            self.cluster.network.heal(host)?;
            self.cluster.nodes[host].signal_agent(Signal::CONT);
        }
        Ok(())
    }
}

fn freeze(pids: BTreeSet<u32>) -> Undo {
    pids.iter().for_each(|pid| process::send(*pid, Signal::STOP));
    Undo::Continue(pids)
}

/// A step as it was carried out, on one line.
pub(super) fn describe(one: &Injected) -> String {
    let letter = if one.hits_store() { 'e' } else { 'n' };
    let hosts: Vec<String> = one.hosts.iter().map(|host| format!("{letter}{}", host + 1)).collect();
    let note = if one.note.is_empty() { String::new() } else { format!("; {}", one.note) };
    format!("{} ({}: {}){note}", one.step.fault, one.step.victim, hosts.join(", "))
}
