//! What can go wrong (FLT-1 to FLT-22, as far as the present features reach), drawn from a seed as a schedule.

use std::fmt;
use std::time::Duration;

use pgward_core::names::MemberName;

use crate::dice::Dice;
use crate::focus::Focus;

/// Something that happens to a run at a given time, and how long it lasts.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Counted from the end of the bootstrap.
    pub at: Duration,
    /// How long it lasts, where it lasts.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

/// Which traffic a partition stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A member from everything.
    Everything,
    /// A member from the store, in both directions.
    Store,
    /// The store's answers to a member.
    StoreAnswers,
    /// A member's requests to the store.
    StoreRequests,
    /// REST between a member and all others.
    Rest,
    /// Replication between a member and all others.
    Replication,
    /// What a member sends to the others: they are heard, and do not hear.
    Outgoing,
}

/// A misbehaviour of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It takes long to start.
    StartSlow,
    /// It does not start.
    StartFails,
    /// It runs and lets nobody in.
    StartRejects,
    /// It does not stop in order.
    StopHangs,
    /// Its archive hangs when it stops.
    ArchiveHangs,
    /// The end of recovery takes long.
    PromoteSlow,
    /// Promote is refused.
    PromoteRefused,
    /// It dies while it is promoted, before the new timeline exists.
    PromoteDies,
    /// It dies while it is promoted, when the new timeline exists.
    PromoteDiesLate,
    /// Checkpoints take long.
    CheckpointSlow,
    /// A rewind fails and leaves the data as it was.
    RewindFails,
    /// A rewind fails in the middle.
    RewindHalfWay,
    /// A copy fails.
    CloneFails,
    /// Commits do not reach the disk.
    FsyncStalls,
    /// The disk is full: it crashes, and does not start.
    DiskFull,
    /// It does not answer questions.
    MonitorTimesOut,
    /// It receives no WAL.
    ReceiverStuck,
    /// Replay is paused.
    ReplayPaused,
    /// The data directory cannot be looked at.
    DataInaccessible,
    /// The data directory is not mounted: it looks empty.
    Unmounted,
    /// pg_rewind and the like go on when the agent that started them is killed.
    ToolsOutliveAgent,
    /// Its processes hang in the kernel: even SIGKILL has to wait. Breaks the assumption that a kill takes two seconds at
    /// most, so it is not drawn at random.
    Unkillable,
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// `pg_ctl promote` by somebody who asked nobody (FLT-19).
    PromoteByHand(MemberName),
    /// A member is shown the store as it was seconds ago (FLT-8).
    StaleReads(MemberName),
    /// The store is away, and comes back as it was in the beginning (FLT-11). Not drawn at random: the member that the copy
    /// names as the leader still takes the key without asking whether it is behind.
    StoreRestored,
    /// An operator deletes every key.
    DeleteAll,
    /// An older version writes its keys in their older form (FLT-22).
    OlderVersion,
    /// SIGKILL of the agent; it is started again afterwards.
    KillAgent(MemberName),
    /// SIGSTOP of the agent.
    StopAgent(MemberName),
    /// SIGSTOP of whichever agent is the next to take the leader key, at that very instant (FLT-3).
    StopWinner,
    /// SIGTERM of the agent; it is started again afterwards.
    TerminateAgent(MemberName),
    /// SIGKILL of all processes of PostgreSQL.
    KillServer(MemberName),
    /// SIGKILL of the postmaster; its backends live on for a moment.
    KillPostmaster(MemberName),
    /// SIGSTOP of all processes of PostgreSQL.
    StopServer(MemberName),
    /// SIGKILL of the fencer.
    KillFencer(MemberName),
    /// The virtual machine is paused: everything on it stops at once.
    StopMachine(MemberName),
    /// The machine loses power.
    Crash(MemberName),
    /// All machines lose power at once.
    CrashAll,
    /// A part of the network is cut.
    Partition(MemberName, Cut),
    /// The network of a member is slow.
    Slow(MemberName),
    /// The store loses its quorum.
    StoreAway,
    /// The store elects another leader.
    StoreElects,
    /// Watches say nothing.
    WatchesSilent,
    /// The wall clock of a machine jumps.
    StepWall(MemberName, i64),
    /// A server misbehaves.
    Trouble(MemberName, Trouble),
    /// An operator asks for a switchover, to anybody or to a member.
    Switchover(Option<MemberName>),
    /// An operator deletes a key.
    DeleteKey(&'static str),
    /// An operator, or a broken tool, writes garbage into a key.
    Garbage(&'static str),
}

impl Fault {
    /// True when an acknowledged write may be lost by it, because replication is asynchronous.
    pub fn may_lose(&self) -> bool {
        !matches!(
            self,
            Fault::Switchover(_)
                | Fault::StaleReads(_)
                | Fault::OlderVersion
                | Fault::StepWall(..)
                | Fault::StoreElects
                | Fault::WatchesSilent
                | Fault::KillFencer(_)
        )
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:>7.1}s  {:?}  for {:.1}s", self.at.as_secs_f64(), self.fault, self.lasts.as_secs_f64())
    }
}

/// The settings and the faults of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How many members.
    pub members: usize,
    /// `bootstrap.dcs`, as YAML.
    pub dcs: String,
    /// The tags of each member, as YAML.
    pub tags: Vec<String>,
    /// Length of the lease.
    pub ttl: Duration,
    /// Faults begin with the first start instead of after it.
    pub is_early: bool,
    /// Clients write all the time, instead of now and then.
    pub is_busy: bool,
    /// The members start one after the other: the first of them leads at first.
    pub is_in_order: bool,
    /// What happens, in the order of time.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// True when nothing that happens explains the loss of an acknowledged write. Where there are others to take over, one
    /// standby that receives nothing is no explanation.
    pub fn is_lossless(&self) -> bool {
        let stuck = |planned: &&Planned| matches!(planned.fault, Fault::Trouble(_, Trouble::ReceiverStuck));
        let may_one_be_stuck = self.members > 2 && self.faults.iter().filter(stuck).count() == 1;
        self.faults.iter().all(|planned| !planned.fault.may_lose() || may_one_be_stuck && stuck(&planned))
            && !self
                .faults
                .iter()
                .any(|planned| may_one_be_stuck && matches!(planned.fault, Fault::Switchover(Some(_))))
    }

    /// True when nothing happens but that keys are lost or garbled which the holder of the leader key restores, or does
    /// without (INV-S20).
    pub fn only_loses_keys(&self) -> bool {
        let loses_a_key = |fault: &Fault| {
            matches!(fault, Fault::DeleteAll | Fault::OlderVersion)
                || matches!(fault, Fault::DeleteKey(key) | Fault::Garbage(key) if !["leader", "failover"].contains(key))
        };
        self.faults.iter().all(|planned| loses_a_key(&planned.fault))
    }

    /// The same plan in a world where no wall clock jumps (INV-S27). `None`: none does.
    pub fn without_jumps(&self) -> Option<Plan> {
        let mut plan = self.clone();
        for planned in &mut plan.faults {
            if let Fault::StepWall(_, seconds) = &mut planned.fault {
                *seconds = 0;
            }
        }
        (plan != *self).then_some(plan)
    }

    /// True when a member may stay broken for good: what came of it cannot be rewound, and no setting allows to replace it.
    pub fn may_leave_broken(&self) -> bool {
        let is_on = |flag: &str| self.dcs.contains(&format!("{flag}: true"));
        let breaks = |planned: &Planned| {
            matches!(planned.fault, Fault::Trouble(_, Trouble::RewindFails | Trouble::RewindHalfWay))
        };
        let rewinds = is_on("use_pg_rewind") && !self.faults.iter().any(breaks);
        let replaces =
            is_on("remove_data_directory_on_rewind_failure") && is_on("remove_data_directory_on_diverged_timelines");
        // Before version 16 pg_rewind finds nothing to do on a server that has left its new timeline without a checkpoint.
        let promotes = |planned: &Planned| matches!(planned.fault, Fault::PromoteByHand(_));
        !rewinds && !replaces || self.faults.iter().any(promotes)
    }

    /// True when a member may stay down because its timeline only has the number of the leader's: pg_rewind does not see
    /// that, and no setting allows to replace it (RWD-5).
    pub fn may_leave_forked(&self) -> bool {
        let is_on = |flag: &str| self.dcs.contains(&format!("{flag}: true"));
        let replaces = is_on("use_pg_rewind") && is_on("remove_data_directory_on_rewind_failure");
        !replaces && !is_on("remove_data_directory_on_diverged_timelines")
    }
}

/// The names of `members` members.
pub fn names(members: usize) -> Vec<MemberName> {
    (1..=members).filter_map(|number| format!("n{number}").parse().ok()).collect()
}

const SECOND: Duration = Duration::from_secs(1);

impl Plan {
    /// Draws a plan: mostly of anything, sometimes of what is dangerous together.
    pub fn draw(dice: &Dice) -> Plan {
        let mut plan = Plan::of_anything(dice);
        // Drawn last, so that a seed of before that is not concerned is still the same run.
        match dice.below(10) {
            0 => Focus::ALL.get(dice.below(Focus::ALL.len())).map_or(plan, |focus| focus.draw(dice)),
            1 | 2 => {
                let more = 1 + dice.below(2);
                plan.faults.extend((0..more).map(|_| Plan::rare_fault(dice, plan.members, plan.ttl)));
                plan.faults.sort_by_key(|planned| planned.at);
                plan
            }
            _ => plan,
        }
    }

    /// One of the faults that are drawn apart from the others.
    fn rare_fault(dice: &Dice, members: usize, ttl: Duration) -> Planned {
        let names = names(members);
        let who = dice.pick(&names).cloned();
        let at = dice.between(Duration::ZERO, SECOND * 120);
        let lasts = dice.between(SECOND, ttl);
        let Some(who) = who else { return Planned { at, lasts, fault: Fault::OlderVersion } };
        match dice.below(8) {
            0 | 1 => Planned { at, lasts, fault: Fault::PromoteByHand(who) },
            2 | 3 => Planned { at, lasts, fault: Fault::StaleReads(who) },
            4 | 5 => Planned { at, lasts: Duration::ZERO, fault: Fault::OlderVersion },
            _ => Planned { at, lasts, fault: Fault::Trouble(who, Trouble::Unmounted) },
        }
    }

    fn of_anything(dice: &Dice) -> Plan {
        let members = *dice.pick(&[3, 3, 3, 2, 4, 5]).unwrap_or(&3);
        let (ttl, loop_wait, retry) =
            *dice.pick(&[(30, 10, 10), (30, 10, 10), (20, 5, 5), (60, 10, 20)]).unwrap_or(&(30, 10, 10));
        let flag = |per_mille: u32| if dice.chance(per_mille) { "true" } else { "false" };
        let start_timeout = *dice.pick(&[300, 300, 0, 20]).unwrap_or(&300);
        let dcs = format!(
            "{{ttl: {ttl}, loop_wait: {loop_wait}, retry_timeout: {retry}, maximum_lag_on_failover: 1048576, \
             primary_start_timeout: {start_timeout}, check_timeline: {}, postgresql: {{use_pg_rewind: {}, use_slots: {}, \
             remove_data_directory_on_rewind_failure: {}, remove_data_directory_on_diverged_timelines: {}}}}}",
            flag(500),
            flag(900),
            flag(900),
            flag(500),
            flag(500),
        );
        let tag = |number: usize| match dice.below(12) {
            0 if number > 1 => "{nofailover: true}".to_owned(),
            1 => format!("{{replicatefrom: n{}}}", 1 + dice.below(members)),
            _ => "{}".to_owned(),
        };
        let tags = (1..=members).map(tag).collect();
        let count = 1 + dice.below(8);
        let mut faults: Vec<Planned> =
            (0..count).map(|_| Self::fault(dice, members, Duration::from_secs(ttl))).collect();
        let slow: Vec<Planned> =
            faults.iter().filter(|planned| matches!(planned.fault, Fault::Slow(_))).cloned().collect();
        for planned in slow {
            // What was slow to arrive counts for less: an agent that stops just then shows it.
            if let Fault::Slow(name) = planned.fault {
                let at = planned.at + dice.between(SECOND, planned.lasts.max(SECOND));
                faults.push(Planned { at, lasts: Duration::from_secs(ttl) * 2, fault: Fault::StopAgent(name) });
            }
        }
        faults.sort_by_key(|planned| planned.at);
        if dice.chance(30) {
            // Deleting the leader key breaks the store's promise: whoever is cut off at that moment cannot know. So it comes alone.
            let at = dice.between(Duration::ZERO, SECOND * 60);
            faults = vec![Planned { at, lasts: Duration::ZERO, fault: Fault::DeleteKey("leader") }];
        }
        let is_early = dice.chance(150);
        let dcs = Self::with_failsafe(dice, dcs, members, &mut faults);
        Plan { members, dcs, tags, ttl: Duration::from_secs(ttl), is_early, is_busy: false, is_in_order: false, faults }
    }

    /// Some clusters run in failsafe mode. In some of those, one member loses the store while another is silent.
    fn with_failsafe(dice: &Dice, dcs: String, members: usize, faults: &mut Vec<Planned>) -> String {
        if !dice.chance(350) {
            return dcs;
        }
        let names = names(members);
        if let (Some(blind), Some(silent), true) = (dice.pick(&names), dice.pick(&names), dice.chance(500)) {
            let at = dice.between(Duration::ZERO, SECOND * 120);
            let lasts = dice.between(SECOND * 30, SECOND * 150);
            faults.push(Planned { at, lasts, fault: Fault::Partition(blind.clone(), Cut::Store) });
            let kind = dice.below(3);
            let silence = match kind {
                0 => Fault::Partition(silent.clone(), Cut::Rest),
                1 => Fault::Crash(blind.clone()),
                _ => Fault::KillAgent(silent.clone()),
            };
            let at = at + dice.between(Duration::ZERO, lasts);
            faults.push(Planned { at, lasts: SECOND * 90, fault: silence });
            faults.sort_by_key(|planned| planned.at);
        }
        dcs.replacen('{', "{failsafe_mode: true, ", 1)
    }

    fn fault(dice: &Dice, members: usize, ttl: Duration) -> Planned {
        let names = names(members);
        // Faults that meet are the dangerous ones: often within seconds of each other, sometimes minutes apart.
        let at = dice.between(Duration::ZERO, if dice.chance(700) { SECOND * 120 } else { SECOND * 900 });
        let lasts = match dice.below(4) {
            0 => dice.between(Duration::from_millis(10), SECOND * 3),
            1 => dice.between(SECOND, SECOND * 15),
            2 => dice.between(ttl / 2, ttl * 2),
            _ => dice.between(SECOND * 10, SECOND * 120),
        };
        Planned { at, lasts, fault: Self::kind(dice, &names) }
    }

    fn kind(dice: &Dice, names: &[MemberName]) -> Fault {
        let Some(who) = dice.pick(names).cloned() else { return Fault::StoreElects };
        let cuts = [
            Cut::Everything,
            Cut::Everything,
            Cut::Store,
            Cut::StoreAnswers,
            Cut::StoreRequests,
            Cut::Rest,
            Cut::Replication,
            Cut::Outgoing,
        ];
        let troubles = [
            Trouble::StartSlow,
            Trouble::StartFails,
            Trouble::StartRejects,
            Trouble::StopHangs,
            Trouble::ArchiveHangs,
            Trouble::PromoteDiesLate,
            Trouble::CheckpointSlow,
            Trouble::ReplayPaused,
            Trouble::ToolsOutliveAgent,
            Trouble::PromoteSlow,
            Trouble::PromoteRefused,
            Trouble::PromoteDies,
            Trouble::RewindFails,
            Trouble::RewindHalfWay,
            Trouble::CloneFails,
            Trouble::FsyncStalls,
            Trouble::DiskFull,
            Trouble::MonitorTimesOut,
            Trouble::ReceiverStuck,
            Trouble::DataInaccessible,
        ];
        match dice.below(42) {
            40..=41 => Fault::StopWinner,
            0..=2 => Fault::KillAgent(who),
            3..=5 => Fault::StopAgent(who),
            6 => Fault::TerminateAgent(who),
            7..=9 => Fault::KillServer(who),
            10 => Fault::KillPostmaster(who),
            11 => Fault::StopServer(who),
            12 => Fault::KillFencer(who),
            13..=14 => Fault::StopMachine(who),
            15..=17 => Fault::Crash(who),
            18 => Fault::CrashAll,
            19..=24 => Fault::Partition(who, dice.pick(&cuts).copied().unwrap_or(Cut::Everything)),
            25 => Fault::Slow(who),
            26..=27 => Fault::StoreAway,
            28 => Fault::StoreElects,
            29 => Fault::WatchesSilent,
            30 => Fault::StepWall(who, if dice.chance(500) { 3600 } else { -3600 }),
            31..=34 => Fault::Trouble(who, dice.pick(&troubles).copied().unwrap_or(Trouble::StartSlow)),
            35..=37 => Fault::Switchover(dice.chance(500).then_some(who)),
            38 => Fault::DeleteKey(
                dice.pick(&["status", "history", "config", "failover", "sync"]).copied().unwrap_or("status"),
            ),
            _ => Fault::Garbage(
                dice.pick(&["status", "history", "config", "failover", "sync"]).copied().unwrap_or("status"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan() {
        let draw = |seed| Plan::draw(&Dice::new(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
