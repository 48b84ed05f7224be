//! Connection strings, command lines, and what is quoted in files and on command lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_postgres::properties;

fuzz_target!(|input: (&str, Vec<String>)| {
    let (text, values) = input;
    properties::conninfo(text);
    properties::command_line(text);
    // Neither the server nor libpq can hold these in a value.
    let writable = |value: &String| !value.contains(['\0', '\n', '\r']);
    properties::quoting(&values.into_iter().filter(writable).collect::<Vec<_>>());
});
