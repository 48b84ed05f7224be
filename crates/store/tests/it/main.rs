//! The stores against the conformance suite, and the etcd store against everything that can happen to etcd.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

mod auth;
mod etcd;
mod heal;
mod suite;
mod tls;
