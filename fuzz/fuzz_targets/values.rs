//! Positions, timelines, names, addresses, numbers with units.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_core::properties::values;

fuzz_target!(|input: (&str, &str, u64, u64)| {
    let (text, other, one, two) = input;
    values::positions(one, two);
    values::wal_texts(text);
    values::names(text);
    values::addresses(text);
    values::connection_urls(text);
    values::settings(text, other);
});
