//! Timeline history files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_postgres::properties;

fuzz_target!(|input: (&str, Vec<(u32, u64, String)>)| {
    properties::history_file(input.0);
    properties::switches(&input.1);
});
