//! The keys of a cluster, with anything in each of them.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use pgward_core::properties::cluster;

const KEYS: [&str; 13] = [
    "initialize",
    "config",
    "leader",
    "status",
    "optime/leader",
    "failover",
    "sync",
    "history",
    "failsafe",
    "members/a",
    "members/b",
    "x/bootstrap",
    "x/bootstrap_alive",
];

fuzz_target!(|input: Vec<(u8, &str, Vec<u8>)>| {
    let mut seen = BTreeSet::new();
    let named = |(key, own, value): (u8, &str, Vec<u8>)| match KEYS.get(usize::from(key % 16)) {
        Some(key) => ((*key).to_owned(), value),
        None => (own.to_owned(), value),
    };
    // A store has a key once.
    let keys: Vec<_> = input.into_iter().map(named).filter(|(key, _)| seen.insert(key.clone())).collect();
    cluster::keys(&keys);
});
