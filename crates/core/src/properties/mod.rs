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

/// A text can be shown on one line of a terminal or a log: nothing in it ends the line or moves the cursor.
pub(crate) fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
