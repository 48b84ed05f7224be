//! The decision core: any views and memory, a few decisions in a row (INV-S26), and judging divergence.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_core::properties::choices::Choices;
use pgward_core::properties::decision;

fuzz_target!(|bytes: &[u8]| {
    decision::decisions(&mut Choices::new(bytes));
    decision::divergence(&mut Choices::new(bytes));
});
