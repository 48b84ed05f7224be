//! The end-to-end harness: real agents, real PostgreSQL and real etcd as ordinary processes on this machine.
//!
//! A [`cluster::Cluster`] is a topology (etcd members, nodes, a network) in one scratch folder. Its nodes are run by
//! `pgward agent` or by Patroni from the same YAML, so that everything here is proved against both and the benchmark
//! compares like with like. Writers ([`writers`]) keep a record of what was acknowledged when and by which node;
//! [`verdict`] counts from it what was lost, doubled, or accepted by two nodes at one instant.
//!
//! [`chaos`] puts all of it together: seeded faults of every kind, clients that append to lists, a checker of their
//! history, and a picture of the run.
//!
//! Nothing here is shipped, and nothing outlives its test: the scratch folder has a janitor process that ends whatever
//! runs in it once the test is gone, however the test ended.

pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod consumer;
pub mod direct;
pub mod etcd;
pub mod http;
pub mod machine;
pub mod network;
pub mod node;
pub mod patroni;
pub mod process;
pub mod reign;
pub mod scratch;
pub mod sql;
pub mod verdict;
pub mod wait;
pub mod writers;
pub mod yaml;
