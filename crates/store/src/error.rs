//! How a request to the store can fail.

use std::time::Duration;

use pgward_core::time::rounded;

/// A failure of the cluster store.
///
/// The most important question about one is [`is_unknown`](StoreError::is_unknown): did the store say no, or did
/// nobody answer (DCS-E8)?
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer changed the key first: read again and decide anew. The write did not happen.
    #[error("{key} changed since it was read")]
    Conflict {
        /// The key without the cluster's prefix.
        key: String,
    },
    /// No quorum answered in time; a write may or may not have happened.
    #[error("the store did not answer within {} ({last})", rounded(*.after))]
    Timeout {
        /// The time that the request was given.
        after: Duration,
        /// What the last attempt met.
        last: String,
    },
    /// No endpoint could be reached, or none of them has a leader. A write may or may not have happened.
    #[error("cannot reach the store at {endpoint}: {reason}")]
    Unreachable {
        /// The endpoint tried last.
        endpoint: String,
        /// What was met there.
        reason: String,
    },
    /// The store refuses us: wrong password, missing permission, authentication required, a request it does not
    /// accept. The write did not happen.
    #[error("the store refuses the request: {reason}")]
    Rejected {
        /// The store's own words.
        reason: String,
    },
    /// The lease named in the request does not exist any more. The write did not happen, and every key that was bound
    /// to the lease is gone or bound to another.
    #[error("the lease has expired or was revoked")]
    LeaseGone,
    /// The options cannot work: nothing was sent.
    #[error("{0}")]
    Options(String),
    /// The store answered something that we do not understand; a write may or may not have happened.
    #[error("unexpected answer of the store: {0}")]
    Other(String),
}

impl StoreError {
    /// True when nothing is proven: the request may have been carried out, may still be, or not at all.
    ///
    /// A member that holds the leader lease must not read an unknown answer as the loss of it (DCS-2).
    pub fn is_unknown(&self) -> bool {
        match self {
            StoreError::Timeout { .. } | StoreError::Unreachable { .. } | StoreError::Other(_) => true,
            StoreError::Conflict { .. }
            | StoreError::Rejected { .. }
            | StoreError::LeaseGone
            | StoreError::Options(_) => false,
        }
    }
}
