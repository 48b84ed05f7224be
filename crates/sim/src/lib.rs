//! A deterministic simulator of whole clusters: the real agent against models of everything below it.

pub mod dice;
pub mod network;
