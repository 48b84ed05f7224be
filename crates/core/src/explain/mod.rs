//! Why it did, or did not: decisions kept with what they were taken from, told in words, taken again, and tried ahead.
//!
//! [`Step`] is one decision with its inputs, and [`ring::Ring`] the last of them. [`words`] says it to people.
//! [`document`] is what a member answers when it is asked, [`mod@file`] what survives it. [`replay()`] takes a recorded decision again, [`what_if`] takes those that a loss would lead to. All of it runs the
//! same [`decide`](crate::decide::decide) that the agents run, and nothing else decides anything here.
//!
//! Invariants:
//! - a password never enters a record: only what decisions read is written, and free text is [cleaned](clean) of secrets;
//! - what is written is enough: a record taken again gives the same decision.

pub mod clean;
pub mod document;
pub mod file;
pub mod phases;
pub mod record;
pub mod replay;
pub mod ring;
pub mod what_if;
pub mod words;

#[cfg(test)]
mod tests;

pub use phases::{Change, Phases};
pub use record::Step;
pub use replay::replay;
