//! Synchronous replication: who has to confirm commits, and who may therefore take over (sections 19 and 20).
//!
//! Two places have to agree: the setting `synchronous_standby_names` of the primary says whose confirmation a commit
//! waits for, the key `/sync` says who has every confirmed commit and may be promoted. They cannot be changed together,
//! so the order of the changes is what keeps a confirmed commit from being lost. Everything here is a pure function of
//! both and of what the primary sees: it computes the whole way to the wanted state as a list of [`Step`]s, of which the
//! caller carries out the first one and looks again (BEY-22). So it does not matter after which of them it is interrupted.
//!
//! - [`Names`]: sets of member names as PostgreSQL compares them;
//! - [`StandbyNames`]: the text of the setting;
//! - [`pick`]: which standbys are fit, and which of them have everything;
//! - [`priority`]: mode `on`, in which each named standby confirms each commit;
//! - [`quorum`]: mode `quorum`, in which any so many of them do;
//! - [`before_promote`]: what both places have to say before a member is promoted.

mod names;
mod setting;

pub mod before_promote;
pub mod pick;
pub mod priority;
pub mod quorum;

#[cfg(test)]
mod tests;

use crate::cluster::SyncState;

pub use names::Names;
pub use setting::{Method, StandbyNames, UnreadableSetting};

/// The name that no standby can have: commits that wait for it wait for ever (SYN-6).
pub const PLACEHOLDER: &str = "__patroni_strict_sync_replica_placeholder__";

/// One change on the way to the wanted state. Each leaves both places in agreement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write `/sync`, if it still is what it was.
    Store(SyncState),
    /// Let commits wait for these.
    Load(StandbyNames),
    /// Nothing until the standbys are known to have more: look again.
    LookAgain,
}

/// How many standbys there have to be, and what is to be done when there are fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `synchronous_node_count`; at least 1.
    pub count: u32,
    /// Rather block commits than go on without a standby.
    pub strict: bool,
}

impl Wanted {
    /// Below this many fit standbys nothing is taken away from those that are stored (SST-1).
    pub fn minimum(self) -> usize {
        usize::from(self.strict)
    }
}

/// SST-1: fewer fit standbys than allowed. Commits wait for those that are stored, whatever happens to them, or for
/// nobody that exists.
pub(crate) fn holds_out(stored: &SyncState, method: Method, minimum: usize) -> StandbyNames {
    let names = Names::from(&stored.voters);
    let needed = names.len().saturating_sub(usize::try_from(stored.quorum).unwrap_or(usize::MAX));
    StandbyNames::new(method, count_of(needed.max(minimum)), names)
}

fn count_of(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
