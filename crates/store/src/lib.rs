//! The cluster store: what a member may ask of it, and the stores that answer.
//!
//! [`Store`] speaks of what the cluster means (read it, acquire, renew and release the leader key, compare-and-set a
//! key, follow every change), not of keys and bytes. [`EtcdStore`] is etcd 3.4 and later over gRPC, with keys that are
//! byte-compatible with Patroni 4.1; [`MemoryStore`] is the same thing without network and clock, for simulation and
//! tests. Both pass the functions in `conformance`.
//!
//! What this crate deliberately does not do: it decides nothing, it renews nothing on its own, and it never recreates
//! a key that has disappeared.
//!
//! Invariants:
//! - an answer that could not be obtained is an `Err` for which [`StoreError::is_unknown`] is true, never a "no";
//! - the time in a [`Renewal`] was taken before the request that extended the lease was sent (TIM-4);
//! - every call ends within the time it was given.

mod api;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod etcd;
mod memory;
mod picture;

pub use api::{AcquireOutcome, Condition, KeptAlive, Key, RenewOutcome, Renewal, Store, StoreView, prefix_of};
pub use clock::boot_now;
pub use error::StoreError;
pub use etcd::{EtcdOptions, EtcdStore};
pub use memory::{MemoryBackup, MemoryFault, MemoryServer, MemoryStore};
