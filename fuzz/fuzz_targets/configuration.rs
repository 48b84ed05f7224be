//! Whole configurations: a file alone, and laid over a complete one.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use pgward_core::properties::configuration;

/// The smallest complete file; what follows is laid beside it.
const COMPLETE: &str = "scope: demo\nname: n1\netcd3: {host: e1}\nrestapi: {listen: 127.0.0.1:8008, connect_address: \
                        127.0.0.1:8008}\npostgresql:\n  listen: 127.0.0.1:5432\n  connect_address: 127.0.0.1:5432\n  \
                        data_dir: /data\n  authentication: {superuser: {username: s}, replication: {username: r}}\n";

fuzz_target!(|text: &str| {
    configuration::document(text, &BTreeMap::new());
    configuration::document(&format!("{COMPLETE}{text}"), &BTreeMap::new());
});
