//! End-to-end tests of the real executable with real PostgreSQL and etcd.
