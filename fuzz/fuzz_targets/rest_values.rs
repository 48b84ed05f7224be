//! Schedules, queries, networks, addresses of members and what they answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_agent::rest::properties;

fuzz_target!(|text: &str| {
    properties::schedule(text);
    properties::query(text);
    properties::url(text);
    properties::status(text.as_bytes());
    properties::network(text, std::net::Ipv4Addr::new(192, 0, 2, 1).into());
    if let Some((name, value)) = text.split_once('=') {
        properties::parameters(name, value);
    }
});
