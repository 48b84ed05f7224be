//! Requests to the REST API: method, target and body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_agent::rest::properties;

const METHODS: [&str; 8] = ["GET", "HEAD", "OPTIONS", "POST", "DELETE", "PATCH", "PUT", "BREW"];

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (method, target, body) = input;
    let method = METHODS[usize::from(method) % METHODS.len()];
    properties::request(method, target, body);
    properties::request("POST", "/switchover", body);
    properties::request("POST", "/failover", body);
});
