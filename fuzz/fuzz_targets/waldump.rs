//! The output of pg_waldump.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_postgres::properties;

fuzz_target!(|input: (&str, u64, u64, u64)| {
    let (text, lsn, prev, bytes) = input;
    properties::waldump(text);
    properties::record(lsn, prev, bytes, text);
});
