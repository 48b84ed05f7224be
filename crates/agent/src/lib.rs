//! The agent: observes, lets the core decide, and carries the decision out.
//!
//! It holds no rule of its own: what to do is decided in `pgward_core::decide`; how PostgreSQL and the store are
//! operated is in their crates. This crate wires them ([`run()`]), runs the cycle, keeps the lease, keeps the fencer
//! armed, and serves REST.

mod action;
mod cache;
pub mod consent;
mod cycle;
pub mod fence;
pub mod fencer;
pub mod host;
pub mod http;
pub mod lease;
pub mod local;
mod operations;
pub mod orders;
mod parts;
pub mod peers;
mod record;
pub mod rest;
pub mod ring;
mod run;
pub mod server;
mod unproven;
pub mod watchdog;
mod work;

pub use cycle::{Cycle, Ended};
pub use parts::Parts;
pub use record::COMPATIBLE_VERSION;
pub use run::{AgentError, etcd_options, run};
