//! `PATRONI_*` variables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_core::properties::configuration;

fuzz_target!(|input: (&str, &str)| {
    let (name, text) = input;
    if !name.contains(['\0', '=']) {
        configuration::variable(name, text);
        configuration::variable(&format!("PATRONI_{}", name.to_ascii_uppercase()), text);
    }
});
