//! The agent: observes, lets the core decide, and carries the decision out.
//!
//! It holds no rule of its own: what to do is decided in `pgward_core::decide`; how PostgreSQL and the store are
//! operated is in their crates. This crate wires them, keeps the lease, keeps the fencer armed, and serves REST.

pub mod clock;
pub mod fence;
pub mod fencer;
pub mod http;
pub mod lease;
pub mod rest;
