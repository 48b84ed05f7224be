//! The stores against the conformance suite, and the etcd store against everything that can happen to etcd.

mod auth;
mod etcd;
mod heal;
mod suite;
mod tls;
