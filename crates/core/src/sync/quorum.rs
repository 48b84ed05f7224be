//! Mode `quorum`: the way from what is stored and loaded to what is wanted (section 20).
//!
//! Commits are confirmed by any `count` of the `listed` standbys. A candidate needs `quorum` votes from the voters besides
//! its own. A confirmed commit is lost only if a candidate finds its votes among those that do not have it, so both sets
//! have to be large enough to meet (QRM-I1). The planner moves through states in each of which they do.

use std::fmt;

use crate::cluster::SyncState;

use super::{Method, Names, StandbyNames, Step, Wanted, count_of, holds_out};

/// What a primary sees (section 20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// This member.
    pub me: String,
    /// `/sync`.
    pub stored: SyncState,
    /// What is loaded.
    pub loaded: StandbyNames,
    /// Fit standbys that are connected.
    pub active: Names,
    /// How many of them are known to have everything up to the last change of what commits wait for.
    pub confirmed: usize,
    /// What is wanted.
    pub wanted: Wanted,
}

/// The way to the wanted state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In their order.
    pub steps: Vec<Step>,
    /// QRM-H2: the sets do not meet and nothing can be proven of any standby. Nothing is changed; commits may block.
    pub stuck: bool,
}

/// QRM-D1…D5: the way to the wanted state.
pub fn plan(situation: &Situation) -> Plan {
    let Situation { me, stored, loaded, active, wanted, .. } = situation;
    let Some(leader) = &stored.leader else {
        let alone = SyncState { leader: Some(me.clone()), quorum: 0, voters: Vec::new() };
        return Plan { steps: vec![Step::Store(alone)], stuck: false }; // QRM-D1
    };
    let leads = leader.eq_ignore_ascii_case(me);
    if leads && active.len() < wanted.minimum() {
        let names = holds_out(stored, Method::Quorum, wanted.minimum());
        let steps = if names.is_same(loaded) { Vec::new() } else { vec![Step::Load(names)] };
        return Plan { steps, stuck: false }; // QRM-D2, SST-1
    }
    let mut planner = Planner::new(situation, leader);
    let outcome = planner.run();
    if outcome.is_err() {
        return planner.anchor(situation); // QRM-H2
    }
    let steps = merged(planner.steps);
    if steps.is_empty() && leads && loaded.method != Method::Quorum && !loaded.names.is_empty() {
        let same = StandbyNames::new(Method::Quorum, loaded.count, loaded.names.clone());
        return Plan { steps: vec![Step::Load(same)], stuck: false }; // QRM-D5
    }
    Plan { steps, stuck: false }
}

/// The step to take now, when it is known which standbys are `ready` (see [`is_proven`]). `None` when there is nothing to do;
/// [`Step::LookAgain`] when it has to be waited for.
pub fn next_step(situation: &Situation, ready: &Names) -> Option<Step> {
    let Situation { me, stored, loaded, active, .. } = situation;
    let plan = plan(situation);
    match plan.steps.first()? {
        Step::Store(next) if !is_proven(me, stored, loaded, ready, next) => {
            // What commits wait for can be changed without a proof. It brings those that are needed for one closer.
            let planned = plan.steps.iter().filter_map(|step| match step {
                Step::Load(names) => Some(names.clone()),
                Step::Store(_) | Step::LookAgain => None,
            });
            let joining = Names::from(&stored.voters).within(active).union(&loaded.names);
            let joined = StandbyNames::new(Method::Quorum, loaded.count.max(1), joining);
            let useful = |names: &StandbyNames| !names.is_same(loaded) && overlap(me, stored, names);
            Some(std::iter::once(joined).chain(planned).find(useful).map_or(Step::LookAgain, Step::Load))
        }
        step @ (Step::Store(_) | Step::Load(_) | Step::LookAgain) => Some(step.clone()),
    }
}

/// QRM-I1 and QRM-I2: whether every set of voters that can elect meets every set that can confirm.
pub fn overlap(me: &str, stored: &SyncState, loaded: &StandbyNames) -> bool {
    let voters = Names::from(&stored.voters);
    if voters.is_empty() {
        return true; // Only the leader of the key can be elected.
    }
    let leader = stored.leader.as_deref().unwrap_or_default();
    let all = voters.with(leader).union(&loaded.names.with(me));
    let quorum = usize::try_from(stored.quorum).unwrap_or(usize::MAX);
    let meets = all.len() <= quorum.saturating_add(loaded.effective_count()).saturating_add(1);
    let (voting, confirming) = (voters.with(leader), loaded.names.with(me));
    meets && (voting.is_subset(&confirming) || confirming.is_subset(&voting))
}

/// QRM-H3: whether it is proven that nobody who would be elected by `next` lacks a confirmed commit.
///
/// The steps of the plan count how many standbys have everything, not which ones: those that do may be the very ones that
/// are about to be dropped. So a change of `/sync` waits until one of these holds. Either what is stored already implies
/// it: voters were only added with a vote more each, or dropped without lowering the quorum. Or so many of the new voters
/// are `ready`, which have all that was confirmed before the present setting, and the setting takes care of the rest.
pub fn is_proven(me: &str, stored: &SyncState, loaded: &StandbyNames, ready: &Names, next: &SyncState) -> bool {
    let (before, after) = (Names::from(&stored.voters), Names::from(&next.voters));
    // So many of the new voters must have a commit for every set that elects to hold one of them.
    let needed = size(&after) - i64::from(next.quorum);
    if after.is_empty() || needed <= 0 {
        return true; // Nobody but the leader can be elected, or nobody at all.
    }
    let leads = stored.leader.as_ref().is_some_and(|leader| leader.eq_ignore_ascii_case(me));
    let stored_have = size(&before) - i64::from(stored.quorum);
    if !leads {
        // QRM-1: the former leader, who has everything, takes the place of this member, who has it as well.
        let former = stored.leader.as_deref().unwrap_or_default();
        return next.quorum == stored.quorum && after == before.without(me).with(former);
    }
    if !before.is_empty() && needed <= stored_have - size(&before.minus(&after)) {
        return true;
    }
    let confirming = signed(loaded.effective_count()) - size(&loaded.names.minus(&after));
    needed <= size(&ready.within(&after)).min(confirming)
}

/// A step would break an invariant, or an assumption does not hold: the plan is no good.
#[derive(Debug)]
struct Broken;

type Planned = Result<(), Broken>;

/// Whether a quorum is raised by what the standbys still lack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Adjust {
    Yes,
    No,
}

impl Adjust {
    fn when(holds: bool) -> Adjust {
        if holds { Adjust::Yes } else { Adjust::No }
    }
}

/// The letters of section 20, as numbers that may fall below zero on the way.
struct Planner {
    me: String,
    leader: String,
    quorum: i64,
    voters: Names,
    count: i64,
    listed: Names,
    confirmed: i64,
    active: Names,
    wanted: i64,
    steps: Vec<Step>,
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

fn size(names: &Names) -> i64 {
    signed(names.len())
}

impl Planner {
    fn new(situation: &Situation, leader: &str) -> Planner {
        Planner {
            me: situation.me.clone(),
            leader: leader.to_owned(),
            quorum: i64::from(situation.stored.quorum),
            voters: Names::from(&situation.stored.voters),
            count: signed(situation.loaded.effective_count()),
            listed: situation.loaded.names.clone(),
            confirmed: signed(situation.confirmed),
            active: situation.active.clone(),
            wanted: i64::from(situation.wanted.count),
            steps: Vec::new(),
        }
    }

    fn run(&mut self) -> Planned {
        if !self.leader.eq_ignore_ascii_case(&self.me) {
            self.take_over()?; // QRM-1
            if self.listed.within(&self.active).is_empty() {
                return Ok(()); // Right after a promotion nobody is connected yet.
            }
        } else if !self.holds() {
            self.store(size(&self.listed) - self.count, self.listed.clone(), Adjust::Yes)?; // QRM-2
        }
        let in_reach = size(&self.listed.within(&self.active));
        if self.confirmed == 0 && in_reach > 0 {
            self.confirmed = in_reach.min(size(&self.voters) - self.quorum); // QRM-3
        }
        self.finish_what_was_begun()?;
        self.drop_gone()?;
        self.add_new()?;
        self.change_count()
    }

    /// QRM-1: the former leader becomes a voter. What commits wait for comes first where nothing is loaded yet.
    fn take_over(&mut self) -> Planned {
        let voters = self.voters.without(&self.me).with(&self.leader);
        if self.listed.is_empty() {
            self.load(size(&voters) - self.quorum, voters.clone())?;
        }
        self.leader.clone_from(&self.me);
        self.stored(self.quorum, voters)
    }

    /// QRM-4…7: one of the two sets is ahead of the other, or the counts are.
    fn finish_what_was_begun(&mut self) -> Planned {
        if self.listed != self.voters && self.listed.is_subset(&self.voters) {
            self.voters_are_ahead()?;
        } else if self.listed != self.voters && self.voters.is_subset(&self.listed) {
            self.listed_are_ahead()?;
        }
        if self.voters != self.listed {
            return Err(Broken);
        }
        if self.quorum + self.count.min(self.confirmed) - size(&self.voters) > 0 {
            if self.count > self.wanted {
                self.load(self.wanted.max(size(&self.voters) - self.quorum), self.listed.clone()) // QRM-6
            } else {
                self.store(size(&self.listed) - self.count, self.voters.clone(), Adjust::Yes) // QRM-6
            }
        } else if self.count == self.wanted
            && self.quorum + self.count > size(&self.voters)
            && self.count > self.confirmed
        {
            self.store(size(&self.listed) - self.count, self.voters.clone(), Adjust::Yes) // QRM-7
        } else {
            Ok(())
        }
    }

    /// QRM-4.
    fn voters_are_ahead(&mut self) -> Planned {
        let gone = self.voters.minus(&self.listed.union(&self.active));
        if !gone.is_empty() {
            let all_are_there = self.listed.is_subset(&self.active);
            let rest = self.voters.minus(&gone);
            self.store(size(&rest) - self.count, rest, Adjust::when(all_are_there))?;
        }
        let joining = self.voters.within(&self.active).minus(&self.listed);
        if joining.is_empty() { Ok(()) } else { self.load(self.count, self.listed.union(&joining)) }
    }

    /// QRM-5.
    fn listed_are_ahead(&mut self) -> Planned {
        let there = self.listed.within(&self.active);
        let gone = self.listed.minus(&there);
        let still_meets = self.voters.is_empty() || !there.within(&self.voters).is_empty();
        if !gone.is_empty() && !there.is_empty() && still_meets {
            self.load(self.count.min(size(&there)), there)?;
        }
        let joining = self.listed.within(&self.active).minus(&self.voters);
        if !joining.is_empty() {
            let voters = self.voters.union(&joining);
            self.store(size(&voters) - self.count, voters, Adjust::Yes)?;
        }
        let left_over = self.listed.minus(&self.voters);
        if left_over.is_empty() {
            return Ok(());
        }
        let rest = self.listed.minus(&left_over);
        self.load(self.count.min(size(&rest)), rest)
    }

    /// QRM-8…10.
    fn drop_gone(&mut self) -> Planned {
        let mut gone = self.listed.minus(&self.active);
        if gone.is_empty() {
            return Ok(());
        }
        if gone == self.listed {
            self.store(0, Names::default(), Adjust::No)?; // QRM-8
            return self.load(0, Names::default());
        }
        if self.quorum > 0 {
            let dropped = gone.last(unsigned(self.quorum));
            let rest = self.listed.minus(&dropped);
            self.load(self.count.max(self.wanted).min(size(&rest)), rest)?; // QRM-9
            gone = gone.within(&self.listed);
            let voters = self.voters.minus(&dropped);
            self.store(size(&voters) - self.count, voters, Adjust::when(gone.is_empty()))?;
        }
        if gone.is_empty() {
            return Ok(());
        }
        if self.quorum != 0 {
            return Err(Broken);
        }
        let count = self.count - size(&gone); // QRM-10
        let rest = self.listed.minus(&gone);
        let voters = self.voters.minus(&gone);
        let less = count - self.wanted.min(size(&rest));
        let quorum = if less == 0 { 0 } else { less.min(size(&voters) - 1) };
        self.store(quorum, voters, Adjust::No)?;
        self.load(count, rest)
    }

    /// QRM-11 with QRM-H1: the voters follow the count that was reached, not the one that is wanted in the end.
    fn add_new(&mut self) -> Planned {
        let mut joining = self.active.minus(&self.listed);
        if joining.is_empty() {
            return Ok(());
        }
        let wanted = self.wanted.min(size(&self.listed.union(&joining)));
        if self.count < wanted {
            let first =
                if self.listed.is_empty() { joining.clone() } else { joining.first(unsigned(wanted - self.count)) };
            let count = if self.listed.is_empty() { wanted } else { self.count + size(&first) };
            self.load(count, self.listed.union(&first))?;
            let voters = self.voters.union(&first);
            self.store(size(&voters) - self.count, voters, Adjust::Yes)?;
            joining = joining.minus(&self.listed);
        }
        if joining.is_empty() {
            return Ok(());
        }
        let voters = self.voters.union(&joining);
        self.store(size(&voters) - wanted, voters, Adjust::when(wanted > self.confirmed))?;
        self.load(wanted, self.listed.union(&joining))
    }

    /// QRM-12, QRM-13.
    fn change_count(&mut self) -> Planned {
        let more = self.wanted.min(size(&self.listed)) - self.count;
        if more > 0 {
            self.load(self.count + more, self.listed.clone())?;
            self.store(size(&self.voters) - self.count, self.voters.clone(), Adjust::Yes)
        } else if more < 0 {
            if self.quorum - more < size(&self.voters) {
                let adjust = Adjust::when(self.wanted > self.confirmed);
                self.store(size(&self.voters) - self.count - more, self.voters.clone(), adjust)?;
            }
            self.load(self.count + more, self.listed.clone())
        } else {
            Ok(())
        }
    }

    /// The primitive `DCS`, without a change of leader.
    fn store(&mut self, quorum: i64, voters: Names, adjust: Adjust) -> Planned {
        if quorum < 0 || (quorum > 0 && quorum >= size(&voters)) {
            return Err(Broken);
        }
        let (mut quorum, mut voters) = (quorum, voters);
        if self.confirmed == 0 && self.voters.is_empty() {
            (quorum, voters) = (0, Names::default());
        } else if adjust == Adjust::Yes {
            quorum += (self.count - self.confirmed).max(0);
        }
        if quorum == self.quorum && voters == self.voters {
            if voters.is_empty() {
                self.steps.push(Step::LookAgain);
            }
            return Ok(());
        }
        self.stored(quorum, voters)
    }

    fn stored(&mut self, quorum: i64, voters: Names) -> Planned {
        self.quorum = quorum;
        self.voters = voters;
        self.steps.push(Step::Store(self.state()?));
        self.check()
    }

    /// The primitive `SSN`.
    fn load(&mut self, count: i64, listed: Names) -> Planned {
        if count < 0 || count > size(&listed) {
            return Err(Broken);
        }
        self.count = count;
        self.listed = listed;
        self.steps.push(Step::Load(self.setting()));
        self.check()
    }

    fn state(&self) -> Result<SyncState, Broken> {
        let quorum = u32::try_from(self.quorum).map_err(|_| Broken)?;
        Ok(SyncState { leader: Some(self.leader.clone()), quorum, voters: self.voters.to_vec() })
    }

    fn setting(&self) -> StandbyNames {
        StandbyNames::new(Method::Quorum, count_of(unsigned(self.count)), self.listed.clone())
    }

    fn holds(&self) -> bool {
        self.state().is_ok_and(|state| overlap(&self.me, &state, &self.setting()))
    }

    fn check(&self) -> Planned {
        if self.holds() { Ok(()) } else { Err(Broken) }
    }

    /// QRM-H2: voters become those who confirm, with a quorum that is right for what is known of them. Every commit that
    /// was confirmed before is on the leader and on the confirmed standbys, every later one on `count` of those listed.
    fn anchor(&self, situation: &Situation) -> Plan {
        let listed = &situation.loaded.names;
        let proven = situation.loaded.effective_count().min(situation.confirmed).min(listed.len());
        if proven == 0 {
            return Plan { steps: Vec::new(), stuck: true };
        }
        let quorum = count_of(listed.len() - proven);
        let anchored = SyncState { leader: Some(self.me.clone()), quorum, voters: listed.to_vec() };
        let is_there = Names::from(&situation.stored.voters) == *listed
            && situation.stored.quorum == quorum
            && situation.stored.leader.as_ref().is_some_and(|leader| leader.eq_ignore_ascii_case(&self.me));
        Plan { steps: if is_there { Vec::new() } else { vec![Step::Store(anchored)] }, stuck: is_there }
    }
}

/// QRM-14: of adjacent steps of one kind the last one counts, and nothing follows a look.
fn merged(steps: Vec<Step>) -> Vec<Step> {
    let mut kept: Vec<Step> = Vec::new();
    for step in steps {
        if kept.last().is_some_and(|last| std::mem::discriminant(last) == std::mem::discriminant(&step)) {
            kept.pop();
        }
        let ends = step == Step::LookAgain;
        kept.push(step);
        if ends {
            break;
        }
    }
    kept
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Store(state) => write!(f, "stores {}", state.to_value()),
            Step::Load(names) => write!(f, "loads '{names}'"),
            Step::LookAgain => f.write_str("looks again"),
        }
    }
}
