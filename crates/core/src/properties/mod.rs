//! What must hold for every input, however odd: one function for each property.
//!
//! The property tests beside them call them with random values, the targets in `fuzz/` with what libFuzzer comes up
//! with; so there is one statement of a property, and two who try to break it. A function returns when its property
//! holds and panics, as a test does, when it does not. Compiled for tests and for fuzzing only.

pub mod choices;
pub mod values;

pub use crate::cluster::properties as cluster;
pub use crate::config::properties as configuration;
pub use crate::decide::properties as decision;

/// How the property tests run: as many cases as there is time for in every run of the tests, and the same ones each time,
/// so that no run fails by chance. What else there is to find is for the fuzz targets; `PROPTEST_RNG_SEED` and
/// `PROPTEST_CASES` let a developer look further.
#[cfg(test)]
pub(crate) fn repeatable(cases: u32) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    let from_environment = Config::default();
    let rng_seed = match from_environment.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        chosen @ RngSeed::Fixed(_) => chosen,
    };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { from_environment.cases } else { cases };
    Config { cases, rng_seed, failure_persistence: None, ..from_environment }
}

/// A text can be shown on one line of a terminal or a log: nothing in it ends the line or moves the cursor.
pub(crate) fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
