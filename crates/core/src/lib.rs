//! The pure heart of pgward: what a cluster is, what the configuration means, and what a member does next.
//!
//! Nothing in this crate performs I/O, reads a clock or spawns a task: it has no async runtime among its
//! dependencies. Everything it needs, time included, is an argument.

pub mod cluster;
pub mod config;
pub mod decide;
pub mod explain;
pub mod json;
pub mod mutant;
pub mod names;
#[cfg(any(test, fuzzing))]
pub mod properties;
pub mod sync;
pub mod time;
pub mod wal;
