//! The output of pg_controldata, and the head of the control file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_postgres::properties;

fuzz_target!(|text: &str| {
    properties::control_data(text);
    if let Some(head) = text.as_bytes().first_chunk() {
        properties::control_head(head);
    }
});
