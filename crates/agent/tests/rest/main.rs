//! The REST API and its client: against recorded answers, and over real connections.

mod client;
mod golden;
mod moving;
mod secure;
mod serving;
mod support;
