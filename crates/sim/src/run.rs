//! One run: a cluster is created, things go wrong, everything is mended, and the cluster has to be whole again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{FailoverRequest, Initialize};
use pgward_core::names::MemberName;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::dice::Dice;
use crate::faults::{Cut, Fault, Plan, Planned, Trouble, names};
use crate::host::Clocks;
use crate::machine::{Machine, Surroundings, configuration};
use crate::network::{Kind, Network, Place};
use crate::observer::{Invariant, Observer, Violation, World};
use crate::peers::Directory;
use crate::postgres::{Faults, Fleet, Postgres, PromotionFault, RewindFault, StartFault, StopHang, Truth};
use crate::store::Etcd;

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The first broken invariant.
    pub violation: Option<Violation>,
    /// How long the cluster lived, in its own time.
    pub simulated: Duration,
    /// Commits that clients were told of, and how many of them are gone.
    pub acknowledged: usize,
    /// See `acknowledged`.
    pub lost: usize,
    /// How often the leader changed.
    pub leader_changes: u32,
    /// Who did what when, as one number: two runs that differ in what was decided differ in it.
    pub course: u64,
}

/// A fresh cluster has this long to become whole.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(180);

/// After everything was mended: leases run out, copies are made, members come back.
const MEND_LIMIT: Duration = Duration::from_secs(600);

/// Nothing may change in a whole cluster for this long (L10).
const QUIET: Duration = Duration::from_secs(300);

/// In this time an agent that runs has replaced a fencer that was killed. Until then it is not stopped: who loses both its
/// agent and its fencer has nothing left that could stop it, which is outside of what is assumed.
const FENCER_REPLACED: Duration = Duration::from_secs(1);

/// Runs `plan` with the chances of `seed`, in a time of its own.
///
/// # Errors
/// When the run could not be made: a mistake in the simulator.
pub fn run(seed: u64, plan: &Plan) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let began = Instant::now();
        let run = Run::new(seed, plan)?;
        tokio::select! {
            biased;
            () = run.observer.broken() => {}
            () = run.live(plan) => {}
        }
        let (acknowledged, lost) = run.whole().map(|primary| run.observer.losses(primary)).unwrap_or_default();
        Ok(Outcome {
            violation: run.observer.violation(),
            simulated: began.elapsed(),
            acknowledged,
            lost,
            leader_changes: run.observer.changes().0,
            course: run.observer.course(),
        })
    })
}

struct Run {
    machines: BTreeMap<MemberName, Machine>,
    etcd: Etcd,
    network: Network,
    observer: Observer,
    dice: Dice,
    ttl: Duration,
    may_leave_broken: bool,
    may_leave_forked: bool,
}

impl Run {
    fn new(seed: u64, plan: &Plan) -> anyhow::Result<Run> {
        let dice = Dice::new(seed);
        let observer = Observer::new();
        let network = Network::new(dice.fork());
        let store_observer = observer.clone();
        let etcd = Etcd::new(network.clone(), Arc::new(move |event| store_observer.store_did(event)));
        drop(tokio::spawn(etcd.clone().run()));
        let (fleet, directory) = (Fleet::default(), Directory::default());
        let around = Surroundings { etcd: etcd.clone(), network: network.clone(), directory: directory.clone() };
        let (mut machines, mut servers) = (BTreeMap::new(), BTreeMap::new());
        let mut nofailover = std::collections::BTreeSet::new();
        for (number, name) in names(plan.members).into_iter().enumerate() {
            let tags = plan.tags.get(number).map_or("{}", String::as_str);
            let config = configuration(number + 1, &plan.dcs, tags)?;
            if config.tags.is_nofailover() {
                nofailover.insert(name.clone());
            }
            let boot = dice.between(Duration::from_secs(60), Duration::from_secs(40 * 86_400));
            let fast = i64::try_from(dice.below(2001)).unwrap_or(1000) - 1000;
            let clocks = Clocks::new(Instant::now(), boot, fast);
            let server_observer = observer.clone();
            let hook = Arc::new(move |who: &MemberName, event: crate::postgres::Event| {
                server_observer.server_did(who, &event);
            });
            let postgres = Postgres::new(&name, &fleet, network.clone(), dice.fork(), hook);
            servers.insert(name.clone(), postgres.clone());
            machines.insert(name, Machine::new(config, clocks, postgres, around.clone()));
        }
        observer.observe(World {
            etcd: etcd.clone(),
            servers,
            directory,
            check_timeline: plan.dcs.contains("check_timeline: true"),
            nofailover,
        });
        let (may_leave_broken, may_leave_forked) = (plan.may_leave_broken(), plan.may_leave_forked());
        Ok(Run { machines, etcd, network, observer, dice, ttl: plan.ttl, may_leave_broken, may_leave_forked })
    }

    async fn live(&self, plan: &Plan) {
        for (number, machine) in (0..).zip(self.machines.values()) {
            let drawn = || self.dice.between(Duration::ZERO, Duration::from_secs(3));
            let pause = if plan.is_in_order { Duration::from_secs(number) } else { drawn() };
            let machine = machine.clone();
            drop(tokio::spawn(async move {
                sleep(pause).await;
                machine.start_agent();
            }));
        }
        if !plan.is_early && !self.becomes_whole(BOOTSTRAP_LIMIT, "after the first start").await {
            return;
        }
        for machine in self.machines.values() {
            let pauses = if plan.is_busy { BUSY } else { USUAL };
            drop(tokio::spawn(write(machine.clone(), self.observer.clone(), self.dice.fork(), pauses)));
        }
        tracing::info!("is whole");
        self.etcd.back_up();
        let (began, before) = (Instant::now(), self.observer.upheavals());
        for planned in &plan.faults {
            sleep_until(began + planned.at).await;
            self.look_for_panics();
            tracing::info!(fault = ?planned.fault, lasts = ?planned.lasts, "begins");
            self.begin(planned);
            if matches!(planned.fault, Fault::KillFencer(_)) {
                sleep(FENCER_REPLACED).await;
            }
        }
        let longest = plan.faults.iter().map(|planned| planned.at + planned.lasts).max().unwrap_or_default();
        sleep_until(began + longest + Duration::from_secs(1)).await;
        self.mend();
        tracing::info!("everything is mended");
        if !self.becomes_whole(MEND_LIMIT, "after everything was mended").await {
            return;
        }
        let after = self.observer.upheavals();
        if plan.only_loses_keys() && !plan.is_early && before != after {
            let text = format!("(leader changes, ends) went from {before:?} to {after:?} although only keys were lost");
            self.observer.report(Invariant::S20, text);
        }
        if let Some(primary) = self.whole()
            && plan.is_lossless()
        {
            let (acknowledged, lost) = self.observer.losses(primary);
            if lost > 0 {
                let text = format!("{lost} of {acknowledged} acknowledged commits are gone, although nothing crashed");
                self.observer.report(Invariant::Switchover, text);
            }
        }
        self.stays_the_same().await;
    }

    /// L10.
    async fn stays_the_same(&self) {
        sleep(self.ttl).await; // What the last fault caused may still be under way: a new copy, a checkpoint.
        if !self.becomes_whole(MEND_LIMIT, "after it was whole once").await {
            return;
        }
        let before = self.observer.changes();
        sleep(QUIET).await;
        let after = self.observer.changes();
        // A member that cannot be repaired is started again and again.
        if before.0 != after.0 || !self.may_leave_broken && before != after {
            let text = format!("(leader changes, starts) went from {before:?} to {after:?} although nothing happened");
            self.observer.report(Invariant::Stable, text);
        }
        self.look_for_panics();
        self.look_at_the_store();
    }

    /// S17 and S20: a request that was carried out, or cannot be, is gone; and what the store has lost is back.
    fn look_at_the_store(&self) {
        let cluster = self.etcd.cluster();
        if let Some(request) = &cluster.failover {
            let text = format!("{:?} is still there, {QUIET:?} after the cluster was whole", request.value);
            self.observer.report(Invariant::S17, text);
        }
        let lost = [
            ("initialize", cluster.initialize.system_id().is_none()),
            ("config", cluster.config.is_none()),
            ("a member", cluster.members.len() < self.machines.values().filter(|machine| machine.runs()).count()),
        ];
        if let Some((key, _)) = lost.into_iter().find(|(_, is_lost)| *is_lost) {
            self.observer.report(Invariant::S20, format!("the store has lost {key} and nobody has restored it"));
        }
    }

    fn look_for_panics(&self) {
        for machine in self.machines.values() {
            if let Some(panic) = machine.panic() {
                self.observer.report(Invariant::S26, format!("the agent of {} panicked: {panic}", machine.name()));
            }
        }
    }

    /// Waits until the cluster is whole; reports when it does not become so.
    async fn becomes_whole(&self, limit: Duration, when: &str) -> bool {
        let wait = async {
            while self.whole().is_none() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        if timeout(limit, wait).await.is_ok() {
            return true;
        }
        self.look_for_panics();
        if self.waits_for_an_operator() {
            return false;
        }
        let states: Vec<String> = self.machines.values().map(describe).collect();
        let leader = self.etcd.cluster().leader.map(|leader| leader.name.to_string());
        let text = format!("not whole {limit:?} {when}; leader key: {leader:?}; {}", states.join("; "));
        self.observer.report(Invariant::Whole, text);
        false
    }

    /// DIR-5: the one member that may create the cluster lost its power in the middle of it. It touches nothing and says so.
    fn waits_for_an_operator(&self) -> bool {
        let may_not = |machine: &Machine| machine.config().tags.is_nofailover() || is_unreadable(machine);
        self.etcd.cluster().initialize == Initialize::Absent
            && self.machines.values().all(may_not)
            && self.machines.values().any(is_unreadable)
    }

    /// The primary of a whole cluster: one writable member that holds the key, and all others stream from somebody, or say
    /// visibly why they cannot.
    fn whole(&self) -> Option<&Postgres> {
        let cluster = self.etcd.cluster();
        let leader = &cluster.leader.as_ref()?.name;
        let primary = self.machines.get(leader)?.postgres();
        let truth = primary.truth();
        let others = self.machines.values().filter(|machine| machine.name() != leader);
        let follow = others.into_iter().all(|machine| {
            let other = machine.postgres().truth();
            other.is_streaming && other.timeline == truth.timeline && !other.is_writable
                || self.is_excused(machine, &truth, self.machines.len())
        });
        (truth.is_writable && follow).then_some(primary)
    }

    /// Visibly broken, and rightly so; or tagged to stream from such a member (NTF-3).
    fn is_excused(&self, machine: &Machine, primary: &Truth, depth: usize) -> bool {
        let upstream = machine.config().tags.replicatefrom().and_then(|name| name.parse().ok());
        let upstream = upstream.and_then(|name: MemberName| self.machines.get(&name)).filter(|_| depth > 0);
        let leader = self.etcd.cluster().leader.and_then(|leader| self.machine(&leader.name));
        self.may_leave_broken && is_broken(machine)
            || is_unreadable(machine)
            || is_foreign(machine, primary)
            || self.may_leave_forked && is_forked(machine, primary)
            || leader.is_some_and(|leader| is_forked_unseen(machine, primary, leader.postgres()))
            || upstream.is_some_and(|upstream| self.is_excused(upstream, primary, depth - 1))
    }

    fn machine(&self, name: &MemberName) -> Option<Machine> {
        self.machines.get(name).cloned()
    }

    fn begin(&self, planned: &Planned) {
        let lasts = planned.lasts;
        let later = |undo: Box<dyn FnOnce() + Send>| {
            drop(tokio::spawn(async move {
                sleep(lasts).await;
                undo();
            }));
        };
        match &planned.fault {
            Fault::KillAgent(name) => {
                if let Some(machine) = self.machine(name) {
                    machine.keep_down(true);
                    if let Some(agent) = machine.agent() {
                        agent.kill();
                    }
                    later(Box::new(move || machine.keep_down(false)));
                }
            }
            Fault::StopAgent(name) => {
                if let Some(agent) = self.machine(name).and_then(|machine| machine.agent()) {
                    agent.stop();
                    later(Box::new(move || agent.go_on()));
                }
            }
            Fault::StopWinner => {
                let (observer, machines) = (self.observer.clone(), self.machines.clone());
                drop(tokio::spawn(async move {
                    let winner = observer.next_winner().await.and_then(|name| machines.get(&name).cloned());
                    if let Some(agent) = winner.and_then(|machine| machine.agent()) {
                        agent.stop();
                        sleep(lasts).await;
                        agent.go_on();
                    }
                }));
            }
            Fault::PromoteByHand(name) => {
                if let Some(machine) = self.machine(name).filter(|machine| machine.postgres().truth().is_in_recovery) {
                    self.observer.promoted_by_hand(name);
                    // What pg_ctl says is for the operator.
                    let _ = machine.postgres().pg_ctl_promote();
                }
            }
            Fault::StaleReads(name) => {
                self.etcd.show_late(name, self.dice.between(Duration::from_millis(500), Duration::from_secs(10)));
                let (etcd, name) = (self.etcd.clone(), name.clone());
                later(Box::new(move || etcd.show_late(&name, Duration::ZERO)));
            }
            Fault::StoreRestored => {
                self.etcd.go_away();
                let etcd = self.etcd.clone();
                later(Box::new(move || etcd.restore()));
            }
            Fault::DeleteAll => self.etcd.delete_all(),
            Fault::OlderVersion => self.etcd.put_as_older_versions_do(),
            Fault::TerminateAgent(name) => {
                if let Some(machine) = self.machine(name) {
                    machine.keep_down(true);
                    machine.terminate_agent();
                    later(Box::new(move || machine.keep_down(false)));
                }
            }
            Fault::KillServer(name) => self.machine(name).into_iter().for_each(|machine| machine.postgres().kill()),
            Fault::KillPostmaster(name) => {
                self.machine(name).into_iter().for_each(|machine| machine.postgres().kill_postmaster_only());
            }
            Fault::StopServer(name) => {
                if let Some(machine) = self.machine(name) {
                    machine.stop_server();
                    later(Box::new(move || machine.let_server_go_on()));
                }
            }
            Fault::KillFencer(name) => {
                let machine = self.machine(name).filter(Machine::runs); // See `FENCER_REPLACED`.
                machine.and_then(|machine| machine.fencer()).into_iter().for_each(|fencer| fencer.kill());
            }
            Fault::StopMachine(name) => {
                if let Some(machine) = self.machine(name) {
                    let processes: Vec<_> = machine.agent().into_iter().chain(machine.fencer()).collect();
                    machine.stop_server();
                    processes.iter().for_each(crate::host::Process::stop);
                    drop(tokio::spawn(async move {
                        sleep(lasts).await;
                        processes.iter().for_each(crate::host::Process::go_on);
                        // Whoever runs first when a machine goes on is chance; a client's answer takes longer than the
                        // fencer's timer, which is due at once.
                        sleep(Duration::from_millis(5)).await;
                        machine.let_server_go_on();
                    }));
                }
            }
            Fault::Crash(name) => {
                if let Some(machine) = self.machine(name) {
                    crash(&machine);
                    later(Box::new(move || come_back(&machine)));
                }
            }
            Fault::CrashAll => {
                for machine in self.machines.values() {
                    crash(machine);
                    let machine = machine.clone();
                    let pause = lasts + self.dice.between(Duration::ZERO, Duration::from_secs(30));
                    drop(tokio::spawn(async move {
                        sleep(pause).await;
                        come_back(&machine);
                    }));
                }
            }
            Fault::Partition(name, cut) => {
                self.partition(name, *cut);
                let network = self.network.clone();
                later(Box::new(move || network.heal()));
            }
            Fault::Slow(name) => {
                let place = Place::Member(name.clone());
                self.network.slow(&place, Duration::from_millis(50), Duration::from_secs(4));
                let network = self.network.clone();
                later(Box::new(move || network.heal()));
            }
            Fault::StoreAway => {
                self.etcd.go_away();
                let etcd = self.etcd.clone();
                later(Box::new(move || etcd.elect()));
            }
            Fault::StoreElects => self.etcd.elect(),
            Fault::WatchesSilent => {
                self.etcd.silence_watches(true);
                let etcd = self.etcd.clone();
                later(Box::new(move || etcd.silence_watches(false)));
            }
            Fault::StepWall(name, seconds) => {
                self.machine(name).into_iter().for_each(|machine| machine.clocks().step_wall(*seconds));
            }
            Fault::Trouble(name, trouble) => {
                if let Some(machine) = self.machine(name) {
                    set_trouble(machine.postgres(), *trouble, true);
                    let trouble = *trouble;
                    later(Box::new(move || set_trouble(machine.postgres(), trouble, false)));
                }
            }
            Fault::Switchover(candidate) => self.switch_over(candidate.as_ref()),
            Fault::DeleteKey(key) => self.etcd.delete(key),
            Fault::Garbage(key) => self.etcd.put(key, "{garbage: \u{1}["),
        }
    }

    /// What `ctl switchover` writes when no member answers it.
    fn switch_over(&self, candidate: Option<&MemberName>) {
        let Some(leader) = self.etcd.cluster().leader.map(|leader| leader.name) else { return };
        let candidate = candidate.filter(|candidate| **candidate != leader);
        let request =
            FailoverRequest { leader: Some(leader), candidate: candidate.cloned(), ..FailoverRequest::default() };
        self.etcd.put("failover", &request.to_value());
    }

    fn partition(&self, name: &MemberName, cut: Cut) {
        let here = Place::Member(name.clone());
        let others: Vec<Place> =
            self.machines.keys().filter(|other| *other != name).map(|other| Place::Member(other.clone())).collect();
        let both = |there: &Place, kind: Kind| {
            self.network.cut(&here, there, kind);
            self.network.cut(there, &here, kind);
        };
        match cut {
            Cut::Everything => {
                both(&Place::Store, Kind::Store);
                for other in &others {
                    both(other, Kind::Rest);
                    both(other, Kind::Replication);
                }
            }
            Cut::Store => both(&Place::Store, Kind::Store),
            Cut::StoreAnswers => self.network.cut(&Place::Store, &here, Kind::Store),
            Cut::StoreRequests => self.network.cut(&here, &Place::Store, Kind::Store),
            Cut::Rest => others.iter().for_each(|other| both(other, Kind::Rest)),
            Cut::Replication => others.iter().for_each(|other| both(other, Kind::Replication)),
            Cut::Outgoing => {
                for other in &others {
                    self.network.cut(&here, other, Kind::Rest);
                    self.network.cut(&here, other, Kind::Replication);
                }
            }
        }
    }

    /// Ends every fault that still lasts.
    fn mend(&self) {
        self.network.heal();
        self.etcd.silence_watches(false);
        self.etcd.elect();
        for machine in self.machines.values() {
            machine.postgres().change_faults(|faults| *faults = Faults::default());
            machine.postgres().set_mounted(true);
            self.etcd.show_late(machine.name(), Duration::ZERO);
            machine.postgres().power_on();
            machine.keep_down(false);
        }
    }
}

fn crash(machine: &Machine) {
    machine.keep_down(true);
    for process in machine.agent().into_iter().chain(machine.fencer()) {
        process.kill();
    }
    machine.postgres().power_off();
}

fn come_back(machine: &Machine) {
    machine.postgres().power_on();
    machine.keep_down(false);
}

/// The pause of a client between two writes, at least and at most.
const USUAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));
const BUSY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(60));

/// How long what is slow takes longer.
const SLOW: Duration = Duration::from_secs(25);

fn set_trouble(postgres: &Postgres, trouble: Trouble, on: bool) {
    if trouble == Trouble::Unmounted {
        postgres.set_mounted(!on);
    }
    let time = if on { SLOW } else { Duration::ZERO };
    postgres.change_faults(|faults| match trouble {
        Trouble::StartSlow => faults.start_takes = time,
        Trouble::StartFails => faults.start = on.then_some(StartFault::Fails),
        Trouble::StartRejects => faults.start = on.then_some(StartFault::Rejects),
        Trouble::StopHangs => faults.stop_hangs_in = on.then_some(StopHang::Checkpoint),
        Trouble::ArchiveHangs => faults.stop_hangs_in = on.then_some(StopHang::Archiving),
        Trouble::Unkillable => faults.is_unkillable = on,
        Trouble::PromoteSlow => faults.promotion_takes = time,
        Trouble::PromoteRefused => faults.promotion = on.then_some(PromotionFault::Refused),
        Trouble::PromoteDies => faults.promotion = on.then_some(PromotionFault::DiesBefore),
        Trouble::PromoteDiesLate => faults.promotion = on.then_some(PromotionFault::DiesAfter),
        Trouble::CheckpointSlow => faults.checkpoint_takes = time,
        Trouble::RewindFails => faults.rewind = on.then_some(RewindFault::Fails),
        Trouble::RewindHalfWay => faults.rewind = on.then_some(RewindFault::FailsHalfWay),
        Trouble::CloneFails => faults.clone_fails = on,
        Trouble::FsyncStalls => faults.is_flush_stalled = on,
        Trouble::DiskFull => faults.is_disk_full = on,
        Trouble::MonitorTimesOut => faults.is_monitoring_silent = on,
        Trouble::ReceiverStuck => faults.is_receiver_stuck = on,
        Trouble::ReplayPaused => faults.is_replay_paused = on,
        Trouble::DataInaccessible => faults.is_data_dir_inaccessible = on,
        Trouble::Unmounted => {}
        Trouble::ToolsOutliveAgent => faults.do_tools_outlive_agent = on,
    });
}

/// DIR-5: what is left of a copy that a loss of power ended is not touched; an operator reinitialises the member.
fn is_unreadable(machine: &Machine) -> bool {
    let truth = machine.postgres().truth();
    truth.system_id.is_some() && truth.control.is_none() && !truth.is_alive
}

/// RWD-12: it has data, and neither streams nor accepts writes.
fn is_broken(machine: &Machine) -> bool {
    let truth = machine.postgres().truth();
    !truth.is_writable && truth.system_id.is_some() && !truth.is_streaming
}

/// RWD-5: it is kept down, because its timeline is another one than the primary's of the same number.
fn is_forked(machine: &Machine, primary: &Truth) -> bool {
    let truth = machine.postgres().truth();
    !truth.is_alive && truth.timeline == primary.timeline && truth.history != primary.history
}

/// Two branches of history that began at the same position have the same history files: they are not told apart.
fn is_forked_unseen(machine: &Machine, primary: &Truth, leader: &Postgres) -> bool {
    let truth = machine.postgres().truth();
    let end = primary.history.iter().find(|(timeline, _)| Some(*timeline) == truth.timeline).map(|(_, end)| *end);
    let looks_the_same = match end {
        Some(end) => truth.written <= end && primary.history.starts_with(&truth.history),
        None => truth.timeline == primary.timeline && truth.history == primary.history,
    };
    truth.control.is_some() && looks_the_same && !machine.postgres().has_nothing_of_its_own(leader)
}

/// DIR-6: it had created a cluster when it lost its power, and another member has created the one that is there now.
fn is_foreign(machine: &Machine, primary: &Truth) -> bool {
    let truth = machine.postgres().truth();
    truth.control.is_some() && truth.system_id != primary.system_id && !truth.is_alive
}

fn describe(machine: &Machine) -> String {
    let truth = machine.postgres().truth();
    let node = machine.node().map(|node| format!("{:?}/{:?}", node.state, node.role));
    format!("{}: {truth:?}, agent alive: {:?}, says {node:?}", machine.name(), machine.agent().map(|a| a.is_alive()))
}

/// A client on a machine: writes whenever its server accepts writes.
async fn write(machine: Machine, observer: Observer, dice: Dice, (least, most): (Duration, Duration)) {
    loop {
        sleep(dice.between(least, most)).await;
        let commit = observer.next_commit();
        if machine.postgres().truth().is_writable && machine.postgres().commit(commit).await.is_ok() {
            observer.acknowledged(commit, machine.name());
        }
    }
}
