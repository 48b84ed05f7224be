//! What this program writes into the store.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_core::properties::choices::Choices;
use pgward_core::properties::cluster;

fuzz_target!(|bytes: &[u8]| {
    cluster::values(&mut Choices::new(bytes));
});
