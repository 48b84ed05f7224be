//! A deterministic simulator of whole clusters: the real agent (the cycle, the lease task, the actions, the fence, the
//! fencer's rules) against models of everything below it.
//!
//! Time advances only by events, every random choice comes from one seed, and the same seed gives the same run. An observer
//! that sees everything checks after every event what must never happen. `docs/testing.md` tells what is modelled and how
//! to repeat a run.

pub mod campaign;
pub mod dice;
pub mod faults;
pub mod fencer;
pub mod focus;
pub mod host;
pub mod machine;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod network;
pub mod observer;
pub mod peers;
pub mod postgres;
pub mod run;
pub mod store;
pub mod story;
