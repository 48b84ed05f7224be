//! End-to-end tests of the real executable with real PostgreSQL and etcd: one binary, a module for each subject.
//!
//! Most subjects are not particular about the agent: `PGWARD_TEST_AGENT=patroni` runs them with Patroni, which tells
//! whether a surprise is ours or the harness's. What only pgward does is left out then.

mod archiver;
mod bad_input;
mod bootstrap;
mod chaos;
mod explain;
mod failover;
mod failsafe;
mod fencing;
mod garbage;
mod identity;
mod leader_key;
mod mixed;
mod operations;
mod partition;
mod pause;
mod slots;
mod soak;
mod split_brain;
mod standby_cluster;
mod store;
mod support;
mod switchover;
mod synchronous;
mod watchdog;
