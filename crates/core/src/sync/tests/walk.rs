//! Random walks over everything that can happen to a quorum: standbys come and go and lag, the wanted number changes, any
//! step can be the last one before something else happens, and the leader can die between any two.
//!
//! What is checked is not only that the sets meet (QRM-I1, QRM-I2), but what they are for: no confirmed commit is missing on
//! anybody who could win (QRM-I4). And once everything is quiet, the wanted state is reached (QRM-I3).

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::pick::{Fit, Rank, Readiness, Standby};
use super::super::quorum::{Situation, next_step, overlap};
use super::super::*;
use crate::time::BootInstant;
use crate::wal::Lsn;

const MEMBERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

struct World {
    dice: fastrand::Rng,
    now: BootInstant,
    leader: String,
    stored: SyncState,
    loaded: StandbyNames,
    /// How far each member is, the leader too.
    positions: BTreeMap<&'static str, u64>,
    connected: Names,
    wanted: Wanted,
    readiness: Readiness,
    /// The last commit that somebody was told of.
    acknowledged: u64,
    story: Vec<String>,
    failovers: u32,
    steps: u32,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            dice: fastrand::Rng::with_seed(seed),
            now: BootInstant(Duration::from_secs(1000)),
            leader: "a".to_owned(),
            stored: SyncState::default(),
            loaded: StandbyNames::nobody(),
            positions: MEMBERS.map(|name| (name, 1)).into(),
            connected: Names::default(),
            wanted: Wanted { count: 1, strict: seed.is_multiple_of(4) },
            readiness: Readiness::default(),
            acknowledged: 1,
            story: Vec::new(),
            failovers: 0,
            steps: 0,
        }
    }

    fn one_in(&mut self, parts: u32) -> bool {
        self.dice.u32(..parts) == 0
    }

    fn ours(&self) -> u64 {
        self.positions[self.leader.as_str()]
    }

    fn tell(&mut self, what: String) {
        self.story.push(format!("{what}; {self}"));
    }

    /// Commits are confirmed when so many of those listed have them, or at once when nobody is waited for.
    fn acknowledge(&mut self) {
        let listed = self.loaded.names.iter().filter(|name| *name != self.leader);
        let mut positions: Vec<u64> = listed.map(|name| self.positions[name]).collect();
        positions.sort_unstable();
        let confirmed = match (self.loaded.is_in_force(), self.loaded.effective_count()) {
            (false, _) => Some(self.ours()),
            (true, 0) => None,
            (true, count) => positions.len().checked_sub(count).map(|place| positions[place]),
        };
        self.acknowledged = self.acknowledged.max(confirmed.unwrap_or(0).min(self.ours()));
    }

    /// Writes, and lets connected standbys receive some of what there is.
    fn traffic(&mut self, all: bool) {
        let ours = self.ours() + self.dice.u64(..3);
        let connected = self.connected.clone();
        for name in MEMBERS.into_iter().filter(|name| connected.contains(name)) {
            let has = self.positions[name];
            let more = if all { ours } else { self.dice.u64(has.min(ours)..=ours) };
            if all || self.one_in(2) {
                self.positions.insert(name, more);
            }
        }
        self.set_ours(ours);
        self.acknowledge();
    }

    fn set_ours(&mut self, position: u64) {
        let leader = MEMBERS.into_iter().find(|name| *name == self.leader).unwrap();
        self.positions.insert(leader, position);
    }

    fn churn(&mut self) {
        let name = MEMBERS[self.dice.usize(..MEMBERS.len())];
        if name == self.leader {
            return;
        }
        self.connected =
            if self.connected.contains(name) { self.connected.without(name) } else { self.connected.with(name) };
        self.tell(format!("{name} comes or goes"));
    }

    fn fit(&self) -> Fit {
        let rank = |name: &str| match (self.loaded.names.contains(name), self.loaded.method) {
            (false, _) => Rank::Async,
            (true, Method::Quorum) => Rank::Quorum,
            (true, Method::Priority) => Rank::Sync,
        };
        let standbys = self.connected.iter().map(|name| Standby {
            name: name.parse().unwrap(),
            position: Lsn(self.positions[name]),
            rank: rank(name),
            nofailover: false,
        });
        Fit { standbys: standbys.collect(), doubtful: Names::default() }
    }

    /// Looks, and takes the next step. True when there was nothing to do.
    fn manage(&mut self) -> bool {
        let fit = self.fit();
        let ours = Lsn(self.ours());
        self.readiness.note(self.now, &self.loaded, ours, &fit, &Names::default(), Method::Quorum);
        let active = fit.active(Method::Quorum, self.wanted);
        let confirmed = self.readiness.confirmed(&active, &fit, Method::Quorum).len();
        let situation = Situation {
            me: self.leader.clone(),
            stored: self.stored.clone(),
            loaded: self.loaded.clone(),
            active,
            confirmed,
            wanted: self.wanted,
        };
        // PostgreSQL goes on while the step is on its way.
        let step = next_step(&situation, &self.readiness.ready_under(&self.loaded));
        if self.one_in(2) {
            self.traffic(false);
        }
        step.map(|step| self.step(step)).is_none()
    }

    fn step(&mut self, step: Step) {
        self.steps += 1;
        let told = step.to_string();
        match step {
            Step::Store(state) => self.stored = state,
            Step::Load(names) => self.loaded = names,
            Step::LookAgain => {}
        }
        self.acknowledge();
        self.tell(told);
        assert!(overlap(&self.leader, &self.stored, &self.loaded), "QRM-I1, QRM-I2: {}", self.told());
        self.check();
    }

    /// QRM-I4: whoever finds the votes has every confirmed commit.
    fn check(&self) {
        let mut positions: Vec<u64> = self.stored.voters.iter().map(|name| self.positions[name.as_str()]).collect();
        positions.sort_unstable();
        let quorum = usize::try_from(self.stored.quorum).unwrap();
        if let Some(least) = positions.get(quorum) {
            assert!(*least >= self.acknowledged, "QRM-I4: {}", self.told());
        }
    }

    /// The leader dies; of those who are left, somebody who finds the votes takes over, perhaps after another one has begun
    /// to and died, too.
    fn fail_over(&mut self) {
        let Some(mut winner) = self.elect() else { return };
        'promotions: loop {
            self.leader = winner.to_owned();
            self.loaded = StandbyNames::nobody();
            self.connected = Names::default();
            self.tell(format!("{winner} wins"));
            for step in before_promote::quorum(winner, &self.stored, &self.loaded, self.wanted.strict) {
                match step {
                    Step::Store(state) => self.stored = state,
                    Step::Load(names) => self.loaded = names,
                    Step::LookAgain => {}
                }
                self.tell("before its promotion".to_owned());
                self.check();
                if self.one_in(6)
                    && let Some(other) = self.elect()
                {
                    winner = other;
                    continue 'promotions; // It died before it was promoted.
                }
            }
            break;
        }
        self.readiness = Readiness::default();
        // The others rewind to where the winner was.
        let ours = self.ours();
        self.positions.values_mut().for_each(|position| *position = (*position).min(ours));
        self.acknowledge();
        self.check();
    }

    /// Somebody who finds the votes among those that happen to be in reach.
    fn elect(&mut self) -> Option<&'static str> {
        let voters = Names::from(&self.stored.voters);
        let quorum = usize::try_from(self.stored.quorum).unwrap();
        let dead = self.leader.clone();
        let reachable: Vec<&str> = MEMBERS.into_iter().filter(|name| *name != dead && self.dice.bool()).collect();
        let is_former = |name: &str| self.stored.leader.as_deref() == Some(name);
        let votes = |candidate: &str| {
            let not_ahead = |name: &&&str| self.positions[**name] <= self.positions[candidate];
            let is_member = |name: &str| voters.contains(name) || is_former(name);
            let others = reachable.iter().filter(|name| **name != candidate && is_member(name));
            let votes = others.filter(not_ahead).count();
            if is_member(candidate) { votes >= quorum } else { votes > quorum }
        };
        let able: Vec<&str> = reachable.iter().copied().filter(|name| !voters.is_empty() && votes(name)).collect();
        let winner = able.get(self.dice.usize(..able.len().max(1))).copied()?;
        self.failovers += 1;
        assert!(self.positions[winner] >= self.acknowledged, "QRM-I4: {winner} wins: {}", self.told());
        Some(winner)
    }

    fn told(&self) -> String {
        let from = self.story.len().saturating_sub(14);
        format!("{self}\n{}", self.story[from..].join("\n"))
    }

    fn run(mut self) -> (u32, u32) {
        for _ in 0..self.dice.u32(5..60) {
            self.now = self.now + Duration::from_millis(self.dice.u64(20..200));
            match self.dice.u32(..20) {
                0..6 => self.churn(),
                6 => {
                    self.wanted.count = self.dice.u32(1..5);
                    self.tell(format!("wants {}", self.wanted.count));
                }
                7 => self.fail_over(),
                8..12 => self.traffic(false),
                _ => drop(self.manage()),
            }
            self.check();
        }
        self.tell("quiet".to_owned());
        for _ in 0..40 {
            self.now = self.now + Duration::from_millis(150);
            self.traffic(true);
            self.manage();
        }
        let active = self.connected.clone();
        if active.len() >= self.wanted.minimum() {
            let count = usize::try_from(self.wanted.count).unwrap().min(active.len());
            assert!(
                Names::from(&self.stored.voters) == active && self.loaded.names == active,
                "QRM-I3: {}",
                self.told()
            );
            assert_eq!(self.loaded.effective_count(), count, "QRM-I3: {}", self.told());
            let quorum = usize::try_from(self.stored.quorum).unwrap();
            assert_eq!(quorum, active.len() - count, "QRM-I3: {}", self.told());
        }
        assert!(self.manage(), "it is not at rest: {}", self.told());
        (self.steps, self.failovers)
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SyncState { leader, quorum, .. } = &self.stored;
        write!(
            f,
            "{} leads, acknowledged {}; stored {:?} {quorum},{:?}; loaded '{}'; connected {:?}; ready {:?}; {:?}",
            self.leader,
            self.acknowledged,
            leader,
            self.stored.voters,
            self.loaded,
            self.connected,
            self.readiness,
            self.positions
        )
    }
}

/// INV-S4, INV-S5, SYN-4, QRM-H3, BEY-22: `WALKS=200000` for more, from `WALK_SEED=0` on.
#[test]
fn no_walk_loses_a_commit_and_every_walk_comes_to_rest() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let walks = number("WALKS").unwrap_or(if std::env::var_os("PGWARD_SOAK").is_some() { 200_000 } else { 1_000 });
    let first = number("WALK_SEED").unwrap_or(0);
    let (mut steps, mut failovers) = (0u64, 0u64);
    for seed in first..first + walks {
        let walked = std::panic::catch_unwind(|| World::new(seed).run());
        let (more_steps, more_failovers) = walked.unwrap_or_else(|_| panic!("WALK_SEED={seed}"));
        steps += u64::from(more_steps);
        failovers += u64::from(more_failovers);
    }
    println!("{walks} walks from seed {first}: {steps} steps, {failovers} failovers");
    assert!(
        steps > walks * 3 && failovers > walks / 10,
        "the walks are too tame: {steps} steps, {failovers} failovers"
    );
}
