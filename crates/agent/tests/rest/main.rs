//! The REST API and its client: against recorded answers, and over real connections.

#![expect(clippy::unwrap_used, reason = "a test that meets something else than it expects has failed")]

mod changing;
mod client;
mod golden;
mod moving;
mod restarting;
mod secure;
mod serving;
mod support;
