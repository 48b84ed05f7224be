//! The local PostgreSQL server, as a library of operations: start, stop, promote, follow, clone, rewind, configure,
//! observe. Versions 13 to 18.
//!
//! It decides nothing: each operation does one thing when asked and returns what came of it, with the output of whatever
//! failed in the error. Everything to the outside has a deadline or can be cancelled. The server is started detached, so
//! that it outlives the agent, and its end is noticed at once through a pidfd.
//!
//! Start at [`Instance`].
//!
//! Invariants:
//! - no signal reaches a process that has not been recognised as the server of this data directory, or its descendant;
//! - no lock file of PostgreSQL is ever deleted;
//! - nothing is written into a data directory whose version cannot be read.

mod archive;
mod bootstrap;
mod client;
mod clone;
mod command;
mod config;
mod conninfo;
mod control;
mod error;
mod instance;
mod launch;
mod monitor;
mod operate;
mod parameters;
mod process;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod recovery;
mod replication;
mod rewind;
mod secret;
mod settings;
mod single_user;
mod slot_copies;
mod slots;
mod start;
mod stop;
mod waldump;
mod wipe;

pub use bootstrap::{InitdbOptions, RoleKind};
pub use client::{Answer, Column, ConnectOptions, Connection, Ready, Row};
pub use clone::{BasebackupOptions, CloneProgress, Replace};
pub use command::{ToolOutput, split_words};
pub use config::ServerConfig;
pub use conninfo::ConnInfo;
pub use control::{ClusterState, ControlData, QuickLook};
pub use error::{CommandError, Error, SqlError};
pub use instance::{DataDirState, Instance};
pub use launch::launch_main;
pub use monitor::{MonitorError, MonitorOptions, Monitoring, Receiver, Slot, SlotKind, Walsender};
pub use parameters::{ParameterFilter, PendingChange, raise_for_standby};
pub use process::{Postmaster, Process};
pub use recovery::{RecoveryDiff, RecoverySettings};
pub use replication::{
    SystemIdentity, checkpoint_at, identify_system, is_checkpointed, is_in_recovery, query_once, timeline_history,
};
pub use rewind::{LocalPosition, RewindOptions};
pub use settings::{Credentials, ServerOutput, Settings};
pub use slot_copies::{SlotCopy, catalog_xmins, fetch_slots};
pub use start::StartOutcome;
pub use stop::{ShutdownCheckpoint, StopMode, StopOptions, StopOutcome};
