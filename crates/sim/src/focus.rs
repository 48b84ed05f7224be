//! Plans of what is dangerous together: combinations that chance alone draws too rarely.

use std::time::Duration;

use anyhow::Context as _;
use pgward_core::names::MemberName;

use crate::dice::Dice;
use crate::faults::{Cut, Fault, Plan, Planned, Trouble, names};

/// What a plan is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// The winner of a race is stopped at the instant of its victory.
    StoppedWinners,
    /// The leader key is deleted while the leader cannot see it.
    LostLeaderKey,
    /// Somebody promotes a standby that was left behind, when nobody else is there.
    PromotedByHand,
    /// Members leave the history and come back, with leave to replace their data, while leaders die.
    Rejoins,
    /// One switchover after the other.
    Switchovers,
    /// The same with clients that write all the time.
    BusySwitchovers,
    /// The cluster is created while machines and agents stop.
    Bootstrap,
    /// Keys are lost, and nothing else happens.
    LostKeys,
    /// Wall clocks jump.
    WallClocks,
    /// Members are told to stream from one another.
    Circles,
}

const SECOND: Duration = Duration::from_secs(1);

impl Focus {
    /// All of them.
    pub const ALL: [Focus; 10] = [
        Focus::StoppedWinners,
        Focus::LostLeaderKey,
        Focus::PromotedByHand,
        Focus::Rejoins,
        Focus::Switchovers,
        Focus::BusySwitchovers,
        Focus::Bootstrap,
        Focus::LostKeys,
        Focus::WallClocks,
        Focus::Circles,
    ];

    /// The focus of a name as `Debug` prints it.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> anyhow::Result<Focus> {
        let focus = Focus::ALL.into_iter().find(|focus| format!("{focus:?}") == name);
        focus.with_context(|| format!("no focus is named {name}; there are {:?}", Focus::ALL))
    }

    /// Draws a plan.
    pub fn draw(self, dice: &Dice) -> Plan {
        let plan = Drawing { dice, members: 3, ttl: SECOND * 30, faults: Vec::new() };
        match self {
            Focus::StoppedWinners => plan.stopped_winners(),
            Focus::LostLeaderKey => plan.lost_leader_key(),
            Focus::PromotedByHand => plan.promoted_by_hand(),
            Focus::Rejoins => plan.rejoins(),
            Focus::Switchovers => plan.switchovers(),
            Focus::BusySwitchovers => Plan { is_busy: true, ..plan.switchovers() },
            Focus::Bootstrap => plan.bootstrap(),
            Focus::LostKeys => plan.lost_keys(),
            Focus::WallClocks => plan.wall_clocks(),
            Focus::Circles => plan.circles(),
        }
    }
}

struct Drawing<'d> {
    dice: &'d Dice,
    members: usize,
    ttl: Duration,
    faults: Vec<Planned>,
}

impl Drawing<'_> {
    fn add(&mut self, at: Duration, lasts: Duration, fault: Fault) {
        self.faults.push(Planned { at, lasts, fault });
    }

    fn between(&self, least: u64, most: u64) -> Duration {
        self.dice.between(SECOND * u32::try_from(least).unwrap_or(0), SECOND * u32::try_from(most).unwrap_or(0))
    }

    fn anybody(&self) -> Option<MemberName> {
        self.dice.pick(&names(self.members)).cloned()
    }

    /// The plan with these settings; `more` is added to the dynamic configuration.
    fn finish(mut self, more: &str) -> Plan {
        self.faults.sort_by_key(|planned| planned.at);
        let check_timeline = self.dice.chance(500);
        let dcs = format!(
            "{{ttl: {}, loop_wait: 10, retry_timeout: 10, maximum_lag_on_failover: 1048576, \
             check_timeline: {check_timeline}, postgresql: {{use_pg_rewind: true, use_slots: true{more}}}}}",
            self.ttl.as_secs(),
        );
        Plan {
            members: self.members,
            dcs,
            tags: vec!["{}".to_owned(); self.members],
            ttl: self.ttl,
            is_early: false,
            is_busy: false,
            is_in_order: false,
            faults: self.faults,
        }
    }

    fn stopped_winners(mut self) -> Plan {
        for round in 0..3 {
            let begin = SECOND * 100 * round + self.between(0, 20);
            let lasts = self.dice.between(self.ttl / 2, self.ttl * 3 / 2);
            self.add(begin, lasts, Fault::StopWinner);
            self.add(begin + self.between(1, 5), Duration::ZERO, Fault::Switchover(None));
        }
        self.finish("")
    }

    fn lost_leader_key(mut self) -> Plan {
        let begin = self.between(5, 30);
        let cut = *self.dice.pick(&[Cut::Store, Cut::StoreAnswers, Cut::StoreRequests]).unwrap_or(&Cut::Store);
        if let Some(who) = self.anybody() {
            self.add(begin, self.ttl * 2, Fault::Partition(who, cut));
        }
        let later = self.dice.between(SECOND / 2, SECOND * 4);
        self.add(begin + later, Duration::ZERO, Fault::DeleteKey("leader"));
        self.finish("")
    }

    fn promoted_by_hand(mut self) -> Plan {
        let names = names(self.members);
        let left_behind = self.dice.below(self.members);
        let lasts = SECOND * 400;
        for (number, name) in names.into_iter().enumerate() {
            if number == left_behind {
                // It learns of the later timelines, or not even that.
                let stuck = Fault::Trouble(name.clone(), Trouble::ReceiverStuck);
                let cut = Fault::Partition(name.clone(), Cut::Replication);
                self.add(self.between(5, 50), lasts, if self.dice.chance(500) { stuck } else { cut });
                let at = SECOND * 150 + self.ttl + self.between(5, 60);
                self.add(at, Duration::ZERO, Fault::PromoteByHand(name));
            } else {
                self.add(self.between(150, 152), self.ttl + SECOND * 120, Fault::Crash(name));
            }
        }
        self.add(SECOND * 10, Duration::ZERO, Fault::Switchover(None));
        self.add(SECOND * 60, Duration::ZERO, Fault::Switchover(None));
        self.add(SECOND * 100, Duration::ZERO, Fault::Switchover(None));
        self.finish("")
    }

    fn rejoins(mut self) -> Plan {
        for round in 0..4 {
            let begin = SECOND * 60 * round;
            for _ in 0..2 {
                let Some(who) = self.anybody() else { continue };
                let cut = self.between(0, 20);
                self.add(begin + cut, self.between(5, 30), Fault::Partition(who.clone(), Cut::Replication));
                self.add(begin + cut + self.between(2, 10), self.between(1, 60), Fault::Crash(who));
            }
            if let Some(who) = self.anybody() {
                self.add(begin + self.between(30, 60), self.between(1, 60), Fault::Crash(who));
            }
        }
        let rewind = if self.dice.chance(500) { "" } else { ", use_pg_rewind: false" };
        let more = ", remove_data_directory_on_rewind_failure: true, remove_data_directory_on_diverged_timelines: true";
        let mut plan = self.finish(more);
        if !rewind.is_empty() {
            plan.dcs = plan.dcs.replace("use_pg_rewind: true", "use_pg_rewind: false");
        }
        plan
    }

    fn switchovers(mut self) -> Plan {
        let stuck = self.dice.below(self.members);
        if let Some(who) = names(self.members).get(stuck).filter(|_| self.dice.chance(500)).cloned() {
            self.add(Duration::ZERO, SECOND * 400, Fault::Trouble(who, Trouble::ReceiverStuck));
        }
        for round in 0..4 {
            self.add(SECOND * 30 * round + self.between(5, 25), Duration::ZERO, Fault::Switchover(None));
        }
        self.finish("")
    }

    fn bootstrap(mut self) -> Plan {
        for _ in 0..3 {
            let Some(who) = self.anybody() else { continue };
            let fault = if self.dice.chance(500) { Fault::StopMachine(who) } else { Fault::StopAgent(who) };
            self.add(
                self.dice.between(Duration::ZERO, SECOND * 6),
                self.dice.between(self.ttl / 2, self.ttl * 3),
                fault,
            );
        }
        Plan { is_early: true, ..self.finish("") }
    }

    fn lost_keys(mut self) -> Plan {
        let keys = ["status", "history", "config", "sync", "failsafe", "initialize", "members/n1", "members/n2"];
        for _ in 0..1 + self.dice.below(4) {
            let key = self.dice.pick(&keys).copied().unwrap_or("status");
            let fault = match self.dice.below(8) {
                0 => Fault::OlderVersion,
                1..=3 => Fault::Garbage(key),
                _ => Fault::DeleteKey(key),
            };
            self.add(self.between(5, 60), Duration::ZERO, fault);
        }
        self.finish("")
    }

    fn wall_clocks(mut self) -> Plan {
        for _ in 0..3 {
            let Some(who) = self.anybody() else { continue };
            let seconds = *self.dice.pick(&[-86_400, -3600, -40, 40, 3600, 86_400]).unwrap_or(&3600);
            self.add(self.between(5, 120), Duration::ZERO, Fault::StepWall(who, seconds));
        }
        if let Some(who) = self.anybody() {
            self.add(self.between(5, 120), self.between(1, 60), Fault::Crash(who));
        }
        self.finish("")
    }

    fn circles(mut self) -> Plan {
        if let Some(who) = self.anybody() {
            self.add(self.between(5, 30), self.between(1, 60), Fault::KillAgent(who));
        }
        self.add(self.between(30, 60), Duration::ZERO, Fault::Switchover(None));
        let dice = self.dice;
        let mut plan = self.finish("");
        // Two are to stream from one another, whoever leads.
        let third = dice.below(plan.members);
        for (number, tag) in plan.tags.iter_mut().enumerate().filter(|(number, _)| *number != third) {
            let other = (0..plan.members).find(|other| *other != third && *other != number).unwrap_or(third);
            *tag = format!("{{replicatefrom: n{}}}", other + 1);
        }
        plan
    }
}
