//! What a refusal by one etcd member means: for the request, for the token, or only for that member.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, ConnectError, Status};

use super::pool::chain;
use crate::StoreError;

/// Why one attempt at one member failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Every member would answer this.
    Final(StoreError),
    /// The member wants a (new) token.
    Token(String),
    /// The member cannot answer; another may.
    Node {
        reason: String,
        /// False when the request certainly never left us.
        was_sent: bool,
    },
    /// The member said nothing for this long; its connection may be dead.
    Silent(Duration),
}

impl Fault {
    /// Reads a status. Codes and texts are etcd's; a text matters only where the code says too little.
    pub(super) fn of(status: Status) -> Fault {
        let text = status.message();
        let says = |part: &str| text.contains(part);
        let wants_token =
            says("user name is empty") || says("invalid auth token") || says("revision of auth store is old");
        let rejected = || Fault::Final(StoreError::Rejected { reason: text.to_owned() });
        match status.code() {
            _ if wants_token => Fault::Token(text.to_owned()),
            Code::PermissionDenied | Code::Unauthenticated => Fault::Token(text.to_owned()),
            Code::NotFound if says("lease not found") => Fault::Final(StoreError::LeaseGone),
            Code::ResourceExhausted if says("space exceeded") => rejected(),
            Code::InvalidArgument | Code::AlreadyExists | Code::NotFound => rejected(),
            Code::OutOfRange => Fault::Final(StoreError::Other(text.to_owned())),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Fault::Node { reason: describe(&status), was_sent: !is_refused_connection(&status) },
        }
    }

    /// What to report when no other member is asked.
    pub(super) fn into_error(self, endpoint: &str) -> StoreError {
        match self {
            Fault::Final(error) => error,
            Fault::Token(reason) => StoreError::Rejected { reason },
            Fault::Node { reason, .. } => StoreError::Unreachable { endpoint: endpoint.to_owned(), reason },
            Fault::Silent(after) => StoreError::Timeout { after, last: format!("{endpoint} is silent") },
        }
    }

    /// True when the request may have been carried out.
    pub(super) fn may_have_worked(&self) -> bool {
        match self {
            Fault::Node { was_sent, .. } => *was_sent,
            Fault::Silent(_) => true,
            Fault::Final(_) | Fault::Token(_) => false,
        }
    }
}

fn is_refused_connection(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(cause) = source {
        if cause.is::<ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

fn describe(status: &Status) -> String {
    match status.source() {
        Some(source) if !status.message().is_empty() && chain(source).contains(status.message()) => chain(source),
        Some(source) => format!("{}: {}", status.message(), chain(source)),
        None => format!("{}: {}", status.code(), status.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: Code, text: &str) -> &'static str {
        match Fault::of(Status::new(code, text)) {
            Fault::Final(StoreError::LeaseGone) => "lease gone",
            Fault::Final(StoreError::Rejected { .. }) => "rejected",
            Fault::Final(_) => "final",
            Fault::Token(_) => "token",
            Fault::Node { .. } | Fault::Silent(_) => "node",
        }
    }

    #[test]
    fn only_answers_that_are_the_same_everywhere_are_final() {
        for (code, text, want) in [
            (Code::NotFound, "etcdserver: requested lease not found", "lease gone"),
            (Code::Unauthenticated, "etcdserver: invalid auth token", "token"),
            (Code::InvalidArgument, "etcdserver: user name is empty", "token"),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", "token"),
            (Code::PermissionDenied, "etcdserver: permission denied", "token"),
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", "rejected"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "rejected"),
            (Code::ResourceExhausted, "etcdserver: too many requests", "node"),
            (Code::Unavailable, "etcdserver: no leader", "node"),
            (Code::Unavailable, "etcdserver: request timed out", "node"),
            (Code::Unavailable, "etcdserver: leader changed", "node"),
            (Code::Unknown, "not a primary lessor", "node"),
            (Code::DeadlineExceeded, "context deadline exceeded", "node"),
            (Code::FailedPrecondition, "etcdserver: not leader", "node"),
        ] {
            assert_eq!(kind(code, text), want, "{text}");
        }
    }
}
