//! The sequences of section 20, in its own notation: they pass through every phase of the planner (QRM-1…14).

use super::super::quorum::{Situation, overlap, plan};
use super::super::*;
use super::{names, state};

/// `Q,V / K,S / C / A / W`; the leader is `a`, unless it is named.
fn situation(me: &str, text: &str) -> Situation {
    let parts: Vec<&str> = text.split(" / ").collect();
    let [stored, loaded, confirmed, active, wanted] = parts[..] else { panic!("{text}") };
    let pair = |text: &str| {
        let (number, list) = text.split_once(',').unwrap();
        (number.parse::<u32>().unwrap(), list.to_owned())
    };
    let (stored, leader) = stored.split_once('@').unwrap_or((stored, "a"));
    let ((quorum, voters), (count, listed)) = (pair(stored), pair(loaded));
    Situation {
        me: me.to_owned(),
        stored: state(leader, quorum, &voters),
        loaded: StandbyNames::new(Method::Quorum, count, names(&listed)),
        active: names(active),
        confirmed: confirmed.parse().unwrap(),
        wanted: Wanted { count: wanted.parse().unwrap(), strict: false },
    }
}

/// Steps as section 20 writes them.
fn told(steps: &[Step], before: &str) -> String {
    let list = |names: &Names| if names.is_empty() { "∅".to_owned() } else { names.to_vec().concat() };
    let mut leader = before.to_owned();
    let told = steps.iter().map(|step| match step {
        Step::Load(loaded) => format!("s({},{})", loaded.count, list(&loaded.names)),
        Step::Store(state) => {
            let now = state.leader.clone().unwrap();
            let moved = if now == leader { String::new() } else { format!("; leader {now}") };
            leader = now;
            format!("q({},{}{moved})", state.quorum, list(&Names::from(&state.voters)))
        }
        Step::LookAgain => "R".to_owned(),
    });
    told.collect::<Vec<_>>().join(" ")
}

const VECTORS: [(&str, &str, &str, &str); 31] = [
    ("QV-1", "a", "0,∅ / 0,∅ / 0 / b / 2", "s(1,b) R"),
    ("QV-2", "a", "0,∅ / 1,b / 1 / b / 2", "q(0,b)"),
    ("QV-3", "a", "0,∅ / 0,∅ / 0 / bcde / 2", "s(2,bcde) R"),
    ("QV-4", "a", "0,∅ / 2,bcde / 1 / bcde / 2", "q(3,bcde)"),
    ("QV-5", "a", "0,b / 1,b / 1 / b / 2", ""),
    ("QV-6", "a", "0,b / 1,b / 1 / BC / 1", "q(1,bC) s(1,bC)"),
    ("QV-7", "a", "0,b / 1,b / 1 / bc / 2", "s(2,bc) q(1,bc)"),
    ("QV-8", "a", "1,bc / 2,bc / 2 / bc / 2", "q(0,bc)"),
    ("QV-9", "a", "0,b / 1,b / 1 / bcde / 2", "s(2,bc) q(3,bcde) s(2,bcde)"),
    ("QV-10", "a", "0,b / 1,b / 0 / ∅ / 1", "q(0,∅) s(0,∅)"),
    ("QV-11", "a", "0,b / 1,b / 0 / c / 1", "q(0,∅) s(1,c) R"),
    ("QV-12", "a", "0,b / 2,bc / 1 / b / 2", "s(1,b)"),
    ("QV-13", "a", "0,b / 2,bc / 1 / bcd / 2", "q(2,bcd) s(2,bcd)"),
    ("QV-14", "a", "0,b / 2,bc / 1 / bc / 1", "q(1,bc) s(1,bc)"),
    ("QV-15", "a", "1,bc / 1,b / 1 / b / 1", "q(0,b)"),
    ("QV-16", "a", "1,bc / 1,b / 1 / bcd / 1", "s(1,bc) q(2,bcd) s(1,bcd)"),
    ("QV-17", "a", "2,bcde / 2,bcde / 2 / bc / 2", "s(2,bc) q(0,bc)"),
    ("QV-18", "a", "2,bcde / 2,bcde / 2 / bc / 1", "s(2,bc) q(1,bc) s(1,bc)"),
    ("QV-19", "a", "1,bcde / 3,bcde / 2 / bc / 1", "s(3,bcd) q(1,bc) s(1,bc)"),
    ("QV-20", "a", "2,bcde / 2,bcde / 2 / bcdef / 1", "q(4,bcdef) s(1,bcdef)"),
    ("QV-21", "a", "2,bcde / 2,bcde / 2 / bcd / 3", "s(3,bcd) q(1,bcd)"),
    ("QV-22", "a", "0,bc / 2,bc / 1 / b / 2", "q(0,b) s(1,b)"),
    ("QV-23", "a", "0,bc / 2,bc / 1 / bd / 2", "q(0,b) s(2,bd) q(1,bd)"),
    ("QV-24", "a", "2,bcdef / 4,bcdef / 3 / bcdef / 2", "q(3,bcdef) s(2,bcdef)"),
    ("QV-25", "a", "1,bcdef / 4,bcdef / 2 / bcd / 2", "s(4,bcde) q(1,bcd) s(2,bcd)"),
    ("QV-26", "c", "2,bcd / 0,∅ / 0 / ∅ / 1", "s(1,abd) q(2,abd; leader c)"),
    ("QV-27", "c", "2,abd@c / 1,abd / 0 / b / 1", "s(1,b) q(0,b)"),
    ("QV-28", "c", "2,abd@c / 1,abd / 0 / ∅ / 1", "q(0,∅) s(0,∅)"),
    ("QV-29", "d", "1,bc / 0,∅ / 0 / ∅ / 1", "s(2,abc) q(1,abc; leader d)"),
    ("QV-30", "a", "0,bc / 1,bc / 1 / bc / 1", "q(1,bc)"),
    ("QV-31", "a", "1,bc / 2,bd / 1 / bd / 1", "q(1,bd) s(1,bd)"),
];

#[test]
fn the_planner_takes_the_steps_of_the_specification() {
    for (rule, me, given, want) in VECTORS {
        let situation = situation(me, given);
        let plan = plan(&situation);
        let before = situation.stored.leader.clone().unwrap();
        assert_eq!(told(&plan.steps, &before), want, "{rule}: {given}");
        assert!(!plan.stuck, "{rule}");
    }
}

#[test]
fn what_the_reference_cannot_plan_is_planned() {
    for (rule, given, want) in [
        ("QRK-15, QRM-H1", "1,bc / 1,bc / 2 / bcd / 3", "s(2,bcd) q(1,bcd) s(3,bcd)"),
        ("QRK-15, QRM-H2", "0,e / 3,bce / 1 / cf / 3", "q(2,bce)"),
        ("QRK-15, QRM-H2", "1,bcf / 4,bcef / 2 / bdef / 4", "q(2,bcef)"),
        ("QRK-15, QRM-H2", "1,cf / 3,bcf / 1 / cd / 3", "q(2,bcf)"),
    ] {
        let plan = plan(&situation("a", given));
        assert!(!plan.stuck && told(&plan.steps, "a") == want, "{rule}: {given}: {}", told(&plan.steps, "a"));
    }
}

#[test]
fn the_driver_begins_an_empty_state_holds_out_when_strict_and_puts_the_form_right() {
    let base = situation("a", "0,b / 1,b / 1 / b / 1");
    let empty = Situation { stored: SyncState::default(), ..base.clone() };
    assert_eq!(plan(&empty).steps, [Step::Store(state("a", 0, ""))], "QRM-D1");
    let strict = Wanted { count: 1, strict: true };
    let alone = Situation { active: Names::default(), confirmed: 0, wanted: strict, ..base.clone() };
    assert_eq!(plan(&alone).steps, [], "QRM-D2, SST-1: nothing is taken away");
    let gone = Situation { stored: state("a", 0, ""), loaded: StandbyNames::nobody(), ..alone.clone() };
    let placeholder = StandbyNames::new(Method::Quorum, 1, Names::default());
    assert_eq!(plan(&gone).steps, [Step::Load(placeholder.clone())], "SST-1: nobody to wait for");
    assert_eq!(plan(&Situation { loaded: placeholder, ..gone }).steps, [], "SST-1: and so it stays");
    let more = Situation { stored: state("a", 1, "bcd"), loaded: StandbyNames::nobody(), ..alone };
    let two_of_three = StandbyNames::new(Method::Quorum, 2, names("bcd"));
    assert_eq!(plan(&more).steps, [Step::Load(two_of_three)], "SST-1: as many as the voters demand");
    let other_form = Situation { loaded: StandbyNames::all_of(names("b")), ..base };
    let any = StandbyNames::new(Method::Quorum, 1, names("b"));
    assert_eq!(plan(&other_form).steps, [Step::Load(any)], "QRM-D5");
}

#[test]
fn sets_that_can_miss_each_other_are_seen() {
    for (rule, stored, loaded, holds) in [
        ("QRM-I1: one vote and one confirmation of two", "1,bc", "1,bc", true),
        ("QRM-I1: no vote and one of two", "0,bc", "1,bc", false),
        ("QRM-I2: sets of which neither holds the other", "1,bc", "2,bd", false),
        ("QRM-I1: nobody but the leader can be elected", "0,∅", "0,∅", true),
    ] {
        let situation = situation("a", &format!("{stored} / {loaded} / 0 / ∅ / 1"));
        assert_eq!(overlap("a", &situation.stored, &situation.loaded), holds, "{rule}");
    }
}
