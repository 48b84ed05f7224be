//! The fencer: a small process of its own that kills PostgreSQL when a deadline passes, whatever the agent is doing.
//!
//! The agent may be stopped, swapped out or dead just when its lease runs out, and PostgreSQL would go on to accept
//! writes beside the next primary. So the agent tells the fencer how long PostgreSQL may live ([`FencerHandle::arm`],
//! again after each renewal), and the fencer needs nobody to keep that promise: no network, no store, no agent
//! (TIM-5, BEY-2). [`FencerHandle`] is the agent's side, [`fencer_main`] the process.
//!
//! Invariants:
//! - a deadline is only ever replaced by a message; an agent that ends or hangs leaves it armed;
//! - the agent may believe in its lease no longer than up to the last deadline that was *acknowledged*;
//! - a signal goes only through a file descriptor of a process that was verified after it was opened, so a recycled
//!   process identifier is never hit;
//! - between the deadline and the last kill nothing is read from the file system of the data directory: it may hang;
//! - one fencer per data directory: it owns a socket name derived from the canonical path, and the newest
//!   connection to it is the agent.
//!
//! It deliberately knows nothing about leases, roles and the store, and it never starts anything. Its socket name
//! belongs to the network namespace: an agent that is restarted in another one cannot adopt it.

mod client;
mod duty;
mod kill;
mod process;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod protocol;
mod server;
mod shelter;

pub use client::{FencerError, FencerHandle, FencerSettings, Lost};
pub use duty::Duty;
pub use process::ProcessIdentity;
pub use protocol::{Fencing, InvalidMessage, Orders, Refusal, State};
pub use server::fencer_main;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The data directory under the one name by which the agent, the fencer and the kernel know it.
///
/// What does not exist yet is appended to the canonical form of what does.
fn canonical_data_dir(data_dir: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(data_dir)?;
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        match existing.canonicalize() {
            Ok(canonical) => return Ok(missing.iter().rev().fold(canonical, |path, name| path.join(name))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match existing.components().next_back() {
                    Some(Component::Normal(name)) => missing.push(name.to_owned()),
                    Some(Component::ParentDir | Component::CurDir | Component::RootDir | Component::Prefix(_))
                    | None => {
                        return Err(error);
                    }
                }
                existing = existing.parent().unwrap_or(Path::new("/"));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The abstract socket name of the fencer of this (canonical) data directory.
///
/// The 64-bit FNV-1a hash keeps it short whatever the path, and the same in every version of this program.
fn socket_name(canonical_data_dir: &Path) -> String {
    let hash = canonical_data_dir
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("pgward-fencer-{hash:016x}")
}

/// The hidden subcommand that starts the process.
fn subcommand() -> &'static OsStr {
    OsStr::new("__fencer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_data_directory_has_the_same_socket() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, root.path().join("link")).unwrap();
        let name = |path: PathBuf| socket_name(&canonical_data_dir(&path).unwrap());
        assert_eq!(name(real.clone()), name(root.path().join("link")));
        assert_eq!(name(real.clone()), name(root.path().join("link/../real/")));
        assert_ne!(name(real.clone()), name(root.path().to_owned()));
        assert_eq!(name(real.join("new/data")), name(root.path().join("link/new/data")), "not created yet");
        assert!(name(real).len() < 100, "the kernel allows 107 bytes");
    }
}
