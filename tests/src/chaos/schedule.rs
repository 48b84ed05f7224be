//! What is done to the cluster and when: a pure function of the seed.
//!
//! A schedule names its victims by what they are ("the primary", "a replica"), because who is primary when a step begins
//! depends on the run. All kinds of faults come once before any comes again, in an order that the seed gives.

use std::fmt;
use std::time::Duration;

use super::dice::Dice;

/// What is done. Every fault is undone at the end of its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The agent is killed; started again at the end.
    KillAgent,
    /// PostgreSQL's main process is killed.
    KillPostmaster,
    /// Agent, fencer and PostgreSQL are killed at one instant; the agent is started again at the end.
    KillNode,
    /// The fencer is killed.
    KillFencer,
    /// The agent is stopped (SIGSTOP), and continued at the end.
    FreezeAgent,
    /// PostgreSQL's main process is stopped; its sessions go on.
    FreezePostmaster,
    /// All of PostgreSQL's processes are stopped.
    FreezePostgres,
    /// The cable of the host is pulled, with the etcd member on it.
    Isolate,
    /// Nothing that the host sends arrives.
    Mute,
    /// Nothing arrives that is sent to the host.
    Deafen,
    /// Packets of streaming replication, base backup and rewind are dropped, to and from the host.
    CutReplication,
    /// Packets between the agent and etcd are dropped.
    CutStore,
    /// Everything between the agent and etcd arrives later.
    SlowStore(Duration),
    /// Connections between the agent and etcd stay open, and nothing moves on them.
    StallStore,
    /// Replication arrives later.
    SlowReplication(Duration),
    /// Connections for replication stay open, and nothing moves on them.
    StallReplication,
    /// The wall clock of the host jumps by these seconds, and back at the end.
    ShiftClock(i64),
    /// The file system of the data directory is filled up.
    FillDisk,
    /// `fsync` and `fdatasync` of PostgreSQL fail with EIO.
    FailSync,
    /// Members of etcd are killed; started again at the end.
    KillStore,
    /// Members of etcd are stopped, and continued at the end.
    FreezeStore,
    /// An operator asks for a switchover.
    Switchover,
}

impl Fault {
    /// All kinds, with one strength each.
    pub const ALL: [Self; 22] = [
        Self::KillAgent,
        Self::KillPostmaster,
        Self::KillNode,
        Self::KillFencer,
        Self::FreezeAgent,
        Self::FreezePostmaster,
        Self::FreezePostgres,
        Self::Isolate,
        Self::Mute,
        Self::Deafen,
        Self::CutReplication,
        Self::CutStore,
        Self::SlowStore(Duration::from_millis(300)),
        Self::StallStore,
        Self::SlowReplication(Duration::from_millis(500)),
        Self::StallReplication,
        Self::ShiftClock(3600),
        Self::FillDisk,
        Self::FailSync,
        Self::KillStore,
        Self::FreezeStore,
        Self::Switchover,
    ];

    /// What a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillAgent => "kill agent",
            Self::KillPostmaster => "kill postmaster",
            Self::KillNode => "kill agent, fencer, PostgreSQL",
            Self::KillFencer => "kill fencer",
            Self::FreezeAgent => "freeze agent",
            Self::FreezePostmaster => "freeze postmaster",
            Self::FreezePostgres => "freeze all of PostgreSQL",
            Self::Isolate => "pull the cable",
            Self::Mute => "drop what it sends",
            Self::Deafen => "drop what is sent to it",
            Self::CutReplication => "cut replication",
            Self::CutStore => "cut off from etcd",
            Self::SlowStore(_) => "slow link to etcd",
            Self::StallStore => "stall link to etcd",
            Self::SlowReplication(_) => "slow replication",
            Self::StallReplication => "stall replication",
            Self::ShiftClock(_) => "shift wall clock",
            Self::FillDisk => "fill disk",
            Self::FailSync => "fail fsync",
            Self::KillStore => "kill etcd",
            Self::FreezeStore => "freeze etcd",
            Self::Switchover => "switchover",
        }
    }

    /// How long it lasts at least and at most, in tenths of the lease. Those that have a second pair are long in four of
    /// ten cases: longer than the lease, so that another member may take over.
    fn lengths(self) -> (Span, Option<Span>) {
        let (moment, short, long) = (Span(1, 2), Span(1, 5), Span(11, 14));
        match self {
            Self::KillPostmaster | Self::KillFencer | Self::Switchover => (moment, None),
            Self::FailSync => (Span(1, 3), None),
            Self::FillDisk | Self::ShiftClock(_) | Self::SlowStore(_) | Self::SlowReplication(_) => (Span(3, 8), None),
            Self::KillAgent
            | Self::KillNode
            | Self::FreezeAgent
            | Self::FreezePostmaster
            | Self::FreezePostgres
            | Self::Isolate
            | Self::Mute
            | Self::Deafen
            | Self::CutReplication
            | Self::CutStore
            | Self::StallStore
            | Self::StallReplication
            | Self::KillStore
            | Self::FreezeStore => (short, Some(long)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::SlowStore(delay) | Self::SlowReplication(delay) => write!(f, " by {} ms", delay.as_millis()),
            Self::ShiftClock(seconds) => write!(f, " by {seconds} s"),
            Self::KillAgent
            | Self::KillPostmaster
            | Self::KillNode
            | Self::KillFencer
            | Self::FreezeAgent
            | Self::FreezePostmaster
            | Self::FreezePostgres
            | Self::Isolate
            | Self::Mute
            | Self::Deafen
            | Self::CutReplication
            | Self::CutStore
            | Self::StallStore
            | Self::StallReplication
            | Self::FillDisk
            | Self::FailSync
            | Self::KillStore
            | Self::FreezeStore
            | Self::Switchover => Ok(()),
        }
    }
}

/// From so many to so many tenths of the lease.
#[derive(Clone, Copy)]
struct Span(u32, u32);

/// Whom a step hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Whoever is primary when the step begins.
    Primary,
    /// The first or second of the others.
    Replica(usize),
    /// The member whose data directory lies on the small file system.
    SmallDisk,
    /// One member of etcd: the one that leads.
    StoreLeader,
    /// Two of the three members of etcd, the one that leads among them.
    StoreQuorum,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("the primary"),
            Self::Replica(0) => f.write_str("the first replica"),
            Self::Replica(_) => f.write_str("the second replica"),
            Self::SmallDisk => f.write_str("the member with the small disk"),
            Self::StoreLeader => f.write_str("the leader of etcd"),
            Self::StoreQuorum => f.write_str("two of three etcd members"),
        }
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it begins, since the beginning of the run.
    pub at: Duration,
    /// When it is undone.
    pub until: Duration,
    /// What is done.
    pub fault: Fault,
    /// To whom.
    pub victim: Victim,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, until) = (self.at.as_secs_f64(), self.until.as_secs_f64());
        write!(f, "{at:6.1} s to {until:6.1} s  {} ({})", self.fault, self.victim)
    }
}

/// All steps of a run, in the order in which they begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What it was made from.
    pub seed: u64,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Schedule {
    /// The schedule of a seed: begins after a few quiet seconds, and everything is undone before `length` is over.
    /// `ttl` is the length of the lease.
    pub fn new(seed: u64, length: Duration, ttl: Duration) -> Self {
        let mut dice = Dice::new(seed);
        let mut bag: Vec<Fault> = Vec::new();
        let mut steps: Vec<Step> = Vec::new();
        let mut at = Duration::from_secs(4);
        loop {
            if bag.is_empty() {
                bag = Fault::ALL.to_vec();
                dice.shuffle(&mut bag);
            }
            let Some(fault) = bag.pop().map(|fault| strengthen(fault, &mut dice)) else { break };
            let lasts = length_of(fault, ttl, &mut dice);
            let victim = victim_of(fault, &mut dice);
            if at + lasts > length {
                break;
            }
            steps.push(Step { at, until: at + lasts, fault, victim });
            // Now and then the next one begins before this one is over; else the cluster gets a little time to recover.
            let pause = dice.between(Duration::from_secs(3), ttl.mul_f64(0.4));
            at = if dice.chance(40) { at + lasts / 2 } else { at + lasts + pause };
        }
        Self { seed, steps }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schedule of seed {}:", self.seed)?;
        self.steps.iter().try_for_each(|step| write!(f, "\n  {step}"))
    }
}

fn strengthen(fault: Fault, dice: &mut Dice) -> Fault {
    let millis = |least: u64, most: u64, dice: &mut Dice| {
        dice.between(Duration::from_millis(least), Duration::from_millis(most))
    };
    if let Fault::SlowStore(_) = fault {
        return Fault::SlowStore(millis(100, 1000, dice));
    }
    if let Fault::SlowReplication(_) = fault {
        return Fault::SlowReplication(millis(100, 2000, dice));
    }
    if let Fault::ShiftClock(_) = fault {
        return Fault::ShiftClock([-86_400, -60, 60, 3600, 86_400][dice.below(5)]);
    }
    fault
}

fn length_of(fault: Fault, ttl: Duration, dice: &mut Dice) -> Duration {
    let (short, long) = fault.lengths();
    let Span(least, most) = long.filter(|_| dice.chance(40)).unwrap_or(short);
    dice.between(ttl * least / 10, ttl * most / 10)
}

fn victim_of(fault: Fault, dice: &mut Dice) -> Victim {
    match fault {
        Fault::FillDisk => Victim::SmallDisk,
        Fault::Switchover => Victim::Primary,
        Fault::KillStore | Fault::FreezeStore => {
            if dice.chance(50) {
                Victim::StoreLeader
            } else {
                Victim::StoreQuorum
            }
        }
        Fault::KillAgent
        | Fault::KillPostmaster
        | Fault::KillNode
        | Fault::KillFencer
        | Fault::FreezeAgent
        | Fault::FreezePostmaster
        | Fault::FreezePostgres
        | Fault::Isolate
        | Fault::Mute
        | Fault::Deafen
        | Fault::CutReplication
        | Fault::CutStore
        | Fault::SlowStore(_)
        | Fault::StallStore
        | Fault::SlowReplication(_)
        | Fault::StallReplication
        | Fault::ShiftClock(_)
        | Fault::FailSync => match dice.below(10) {
            0..=6 => Victim::Primary,
            7 | 8 => Victim::Replica(0),
            _ => Victim::Replica(1),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const TTL: Duration = Duration::from_secs(20);

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_seed_another_one() {
        let of = |seed| Schedule::new(seed, Duration::from_secs(600), TTL);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn a_longer_run_begins_like_a_shorter_one() {
        let of = |seconds| Schedule::new(7, Duration::from_secs(seconds), TTL).steps;
        assert!(of(600).starts_with(&of(120)));
    }

    #[test]
    fn everything_is_undone_before_the_end_and_steps_are_in_order() {
        let length = Duration::from_secs(120);
        let mut all = 0;
        for seed in 0..200 {
            let steps = Schedule::new(seed, length, TTL).steps;
            assert!(steps.len() >= 3, "seed {seed} has {} steps", steps.len());
            all += steps.len();
            assert!(steps.iter().all(|s| s.at < s.until && s.until <= length), "seed {seed}");
            assert!(steps.windows(2).all(|pair| pair[0].at < pair[1].at), "seed {seed}");
        }
        assert!(all / 200 >= 7, "{} steps on average", all / 200);
    }

    #[test]
    fn ten_minutes_hold_every_fault() {
        let steps = Schedule::new(1, Duration::from_secs(600), TTL).steps;
        let names: BTreeSet<&str> = steps.iter().map(|s| s.fault.name()).collect();
        let missing: Vec<_> = Fault::ALL.iter().filter(|f| !names.contains(f.name())).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
    }
}
