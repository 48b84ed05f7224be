//! Messages between agent and fencer, and `/proc/PID/stat`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_agent::fencer::properties;

fuzz_target!(|input: (&str, [u64; 8], i32, u8, &[u8])| {
    let (text, numbers, pid, kind, bytes) = input;
    properties::message(text);
    properties::messages(numbers, pid, kind);
    properties::stat(bytes.get(..15).unwrap_or(bytes), pid, numbers[0], bytes);
});
