//! Seeds instead of scripts: everything that can go wrong, at any moment, in any order.
//!
//! A walk lets a seed pick faults and requests, one step after the other, with random durations for everything that
//! takes time. The invariants hold after every event. At its end everything is healed, and the cluster has to come back.
//! `SEED=123 cargo test` plays one walk again and prints its story; `WALKS=1000` plays more of them, from `FIRST` on.

use std::time::Duration;

use pgward_core::names::MemberName;
use serde_json::{Value, json};

use crate::pace::{Dice, Pace};
use crate::world::World;

/// Steps of one walk.
const STEPS: u32 = 60;

/// Walks of an ordinary test run.
const WALKS: u64 = 40;

/// A cluster that is left alone has to be whole again after so long: several leases, and a tick for each thing to do.
const HEALS_WITHIN: Duration = Duration::from_secs(600);

/// Pause of the service manager before it starts an agent again.
const RESTARTS_AFTER: Duration = Duration::from_secs(10);

#[test]
fn whatever_happens_nobody_writes_beside_the_leader_and_the_cluster_comes_back() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SEED") {
        let world = walk(seed);
        println!("{}", world.story.join("\n"));
        return;
    }
    let first = number("FIRST").unwrap_or(0);
    for seed in first..first + number("WALKS").unwrap_or(WALKS) {
        walk(seed);
    }
}

fn walk(seed: u64) -> World {
    let names: Vec<MemberName> = ["a", "b", "c"].iter().filter_map(|name| name.parse().ok()).collect();
    let mut dice = Dice::new(seed);
    let mut world = World::new(&names, Pace::random(seed));
    let context = |step: u32| format!("SEED={seed}, step {step}");
    for step in 0..STEPS {
        one_thing(&mut world, &mut dice, &names);
        let time = match dice.below(4) {
            0 => dice.between(Duration::ZERO, Duration::from_millis(500)),
            1 | 2 => dice.between(Duration::ZERO, Duration::from_secs(8)),
            _ => dice.between(Duration::ZERO, Duration::from_secs(45)),
        };
        world.advance(time);
        world.assert_sound(&context(step));
    }
    heal(&mut world, &names);
    let whole = comes_back(&mut world, &names);
    world.assert_sound(&context(STEPS));
    assert!(whole, "SEED={seed}: the cluster did not come back:\n{}\n{}", states(&world), world.tail());
    world
}

/// Waits for the cluster to be whole. Agents that end by their own decision are started again, as a service manager does.
fn comes_back(world: &mut World, names: &[MemberName]) -> bool {
    let last = world.now + HEALS_WITHIN;
    while world.now < last {
        let next = world.now + RESTARTS_AFTER;
        if world.advance_until(next, is_whole) {
            return true;
        }
        start_all(world, names);
        clear_orphaned_claim(world);
    }
    false
}

/// A bootstrap that lost the answer to its last write has moved its data aside and may have left an identifier that
/// belongs to nobody. Only an operator can know that, and says so by removing it.
fn clear_orphaned_claim(world: &mut World) {
    let Some(id) = world.store.get("initialize").filter(|id| !id.is_empty()).map(str::to_owned) else { return };
    let owners = world.nodes.values().filter_map(|node| node.postgres.data.as_ref());
    if world.leader().is_none() && !owners.into_iter().any(|data| data.system_id.as_ref() == Some(&id)) {
        world.change_store(|store| store.delete(["initialize".to_owned()]));
    }
}

/// One fault, one repair or one request. The store may fail in the middle of anything (UNL-6, CYC-20).
fn one_thing(world: &mut World, dice: &mut Dice, names: &[MemberName]) {
    let name = dice.pick(names).clone();
    let other = dice.pick(names).clone();
    let does = |world: &mut World, words: &[&str]| {
        world.happens(words).expect("the commands of this file exist");
    };
    let which = dice.below(32);
    world.tell("walk", &format!("{which} {name} {other}"));
    match which {
        0 | 1 => does(world, &["crash", "postgres", name.as_str()]),
        2 => world.kill_machine(&name),
        3..=5 => start_all(world, names),
        6 => world.kill_agent(&name),
        7 => world.shut_down_if_able(&name),
        8 | 9 => world.set_frozen(&name, true),
        10 | 11 => names.iter().for_each(|name| world.set_frozen(name, false)),
        12 => does(world, &["partition", name.as_str()]),
        13 | 14 => mend_network(world, names),
        15 => does(world, &["store", "down"]),
        16 | 17 => does(world, &["store", "up"]),
        18 => world.node_mut(&name).loses_answers = true,
        19 | 20 => names.iter().for_each(|name| world.node_mut(name).loses_answers = false),
        21 if name < other => {
            world.broken.insert((name, other));
        }
        21 => world.broken.clear(),
        22 | 23 if name != other => does(world, &["switchover", name.as_str(), other.as_str()]),
        22 | 23 => does(world, &["switchover", name.as_str()]),
        24 => does(world, &["failover", name.as_str()]),
        25 => pause_or_resume(world, dice, names),
        26 | 27 => setting(world, dice),
        28 => world.node_mut(&name).postgres.refuses_to_start = true,
        29 => names.iter().for_each(|name| world.node_mut(name).postgres.refuses_to_start = false),
        30 => world.node_mut(&name).postgres.start_time = dice.between(Duration::ZERO, Duration::from_secs(60)),
        _ => garbage(world, dice, names),
    }
}

fn start_all(world: &mut World, names: &[MemberName]) {
    for name in names {
        world.node_mut(name).is_up = true;
        world.connections_changed();
        world.start_agent(name);
    }
}

fn mend_network(world: &mut World, names: &[MemberName]) {
    for name in names {
        world.node_mut(name).is_cut_off = false;
    }
    world.broken.clear();
    world.connections_changed();
}

fn mend_everything(world: &mut World, names: &[MemberName]) {
    world.store_is_up = true;
    mend_network(world, names);
    for name in names {
        let node = world.node_mut(name);
        node.loses_answers = false;
        node.postgres.refuses_to_start = false;
        node.postgres.start_time = Duration::from_millis(400);
    }
    start_all(world, names);
    names.iter().for_each(|name| world.set_frozen(name, false));
}

/// Maintenance mode takes the fencer away. Its end finds all agents at work, or nobody would guard the primary.
fn pause_or_resume(world: &mut World, dice: &mut Dice, names: &[MemberName]) {
    if world.store.get("config").is_none() {
        return;
    }
    if !world.is_paused() && dice.below(2) == 0 {
        return world.configure("pause", json!(true));
    }
    if world.is_paused() {
        mend_everything(world, names);
        world.configure("pause", Value::Null);
        // Whoever was primary without a lease is found and stopped, or takes the key, in this time.
        world.observer.excused_until = world.now + Duration::from_secs(60);
        world.advance(Duration::from_secs(60));
    }
}

fn setting(world: &mut World, dice: &mut Dice) {
    if world.store.get("config").is_none() {
        return;
    }
    let choices = [
        ("primary_start_timeout", json!(0)),
        ("primary_start_timeout", json!(300)),
        ("primary_start_timeout", json!(20)),
        ("check_timeline", json!(true)),
        ("check_timeline", json!(false)),
        ("primary_race_backoff", json!(15)),
        ("primary_race_backoff", json!(0)),
        ("maximum_lag_on_failover", json!(4096)),
        ("maximum_lag_on_failover", json!(1_048_576)),
        ("ttl", json!(20)),
        ("ttl", json!(30)),
        ("ttl", json!(60)),
        ("loop_wait", json!(2)),
        ("loop_wait", json!(10)),
        ("retry_timeout", json!(5)),
        ("retry_timeout", json!(10)),
        ("postgresql.remove_data_directory_on_diverged_timelines", json!(true)),
        ("postgresql.remove_data_directory_on_diverged_timelines", json!(false)),
    ];
    let (key, value) = dice.pick(&choices).clone();
    world.configure(key, value);
}

/// Somebody damages a key that is not about the leadership (INV-S20).
fn garbage(world: &mut World, dice: &mut Dice, names: &[MemberName]) {
    let member = format!("members/{}", dice.pick(names));
    let key = *dice.pick(&["status", "history", "failover", "sync", "failsafe", member.as_str()]);
    let value = *dice.pick(&["", "{", "[]", "null", "\"x\"", "{\"leader\":1}"]);
    world.change_store(|store| store.put(key, value, Default::default()));
}

/// Ends every fault. What an operator would have to judge stays excluded: no wishes, the lag no hindrance.
fn heal(world: &mut World, names: &[MemberName]) {
    if world.is_paused() {
        world.observer.excused_until = world.now + Duration::from_secs(60);
    }
    mend_everything(world, names);
    for (key, value) in [
        ("pause", Value::Null),
        ("check_timeline", json!(false)),
        ("maximum_lag_on_failover", json!(1_048_576)),
        ("postgresql.remove_data_directory_on_diverged_timelines", json!(true)),
    ] {
        if world.store.get("config").is_some() {
            world.configure(key, value);
        }
    }
}

/// One primary, and everybody else streams from it.
fn is_whole(world: &World) -> bool {
    let Some(leader) = world.leader().and_then(|name| name.parse::<MemberName>().ok()) else { return false };
    if !world.nodes.contains_key(&leader) || !world.is_writable(&leader) {
        return false;
    }
    world
        .nodes
        .keys()
        .filter(|name| **name != leader)
        .all(|name| world.streams(name, &leader) || needs_an_operator(world, name, &leader))
}

/// What no rule repairs, because it may be somebody's data.
fn needs_an_operator(world: &World, name: &MemberName, leader: &MemberName) -> bool {
    let node = world.node(name);
    let (Some(ours), Some(theirs)) = (&node.postgres.data, &world.node(leader).postgres.data) else { return false };
    // Remains of an initdb that was killed (DIR-5), or a cluster that was never registered (DIR-6).
    let foreign = ours.system_id != theirs.system_id;
    // Two members promoted from the same past, one of them without anybody having seen its timeline: the numbers are
    // equal, the histories are not, and PostgreSQL's tools cannot tell.
    let same_number = ours.wal.branch != theirs.wal.branch
        && (ours.wal.timeline == theirs.wal.timeline || !theirs.wal.knows(ours.wal.branch));
    foreign || same_number
}

fn states(world: &World) -> String {
    let state = |name: &MemberName| {
        let node = world.node(name);
        let data = node.postgres.data.as_ref().map(|data| (&data.wal, data.state));
        let memory = node.agent.as_ref().map(|agent| (&agent.last_reason, &agent.memory.rewind, &agent.lease));
        format!("{name}: {data:?} {:?} exited {:?} {memory:?}", node.postgres.process, node.exited)
    };
    world.nodes.keys().map(state).collect::<Vec<_>>().join("\n")
}
