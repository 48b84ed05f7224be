//! `postmaster.pid`, `postmaster.opts`, `/proc/PID/stat`, reports of pg_basebackup.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_postgres::properties;

fuzz_target!(|text: &str| {
    properties::process_files(text);
});
