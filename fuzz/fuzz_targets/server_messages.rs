//! Bytes that a PostgreSQL server sends, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_postgres::properties;

fuzz_target!(|input: (&[u8], &[u8])| {
    properties::server_bytes(input.0, input.1);
});
