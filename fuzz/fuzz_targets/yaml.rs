//! Configuration files: any text as YAML, and as the scalar of one key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_core::properties::configuration;

fuzz_target!(|text: &str| {
    configuration::yaml(text);
    configuration::scalar(text);
});
