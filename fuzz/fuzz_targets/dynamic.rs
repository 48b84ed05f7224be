//! The dynamic configuration in the store, changes of it, and tags.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_core::properties::configuration;
use serde_json::{Map, Value};

fuzz_target!(|input: (&str, &str)| {
    let read = |text| serde_json::from_str::<Map<String, Value>>(text);
    let (Ok(document), Ok(change)) = (read(input.0), read(input.1)) else { return };
    configuration::dynamic(&document);
    configuration::patches(&document, &change);
    configuration::tags(&document);
});
