//! End-to-end tests of the real executable with real PostgreSQL and etcd: one binary, a module for each subject.

mod failover;
