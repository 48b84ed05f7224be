//! What can go wrong with the local server.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use pgward_core::time::rounded;

/// A failed operation on a PostgreSQL server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An external program failed; the text has the end of its output.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A connection or a statement failed.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No server runs on this data directory.
    #[error("PostgreSQL is not running")]
    NotRunning,
    /// The server ended while its answer was waited for.
    #[error("PostgreSQL ended meanwhile{}", appended(output))]
    Ended {
        /// The end of the server's own output.
        output: String,
    },
    /// The server did not come to the wanted state in time.
    #[error("{what} within {}", rounded(*.after))]
    Timeout {
        /// What did not happen.
        what: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Processes of a dead server outlive SIGKILL, which only a call into the kernel that does not return can do. While
    /// one lives, what it has begun to write may still reach the disk (DEM-12).
    #[error(
        "processes of a dead server did not end within {} of SIGKILL: {processes}; one in state D hangs in the kernel, \
         mostly on storage that does not answer: bring the storage back, or reset the machine",
        rounded(*.after)
    )]
    Unkillable {
        /// Their process ids and states.
        processes: String,
        /// The limit.
        after: Duration,
    },
    /// `PG_VERSION` cannot be read: nothing may be written yet (pitfall: a volume that is not mounted).
    #[error("the version of the data directory {} cannot be read", .0.display())]
    UnknownVersion(PathBuf),
    /// The operation is not possible in this state; the text says why.
    #[error("{0}")]
    Refused(String),
    /// The caller cancelled it.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Wraps an I/O error with what was tried on which path.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { action, path, source }
    }
}

/// A failed external program.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("cannot run {program} (postgresql.bin_dir names the directory of PostgreSQL's programs): {source}")]
    Spawn {
        /// The program, with the directory it was looked for in.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed with {status}{}", appended(output))]
    Failed {
        /// The program.
        program: String,
        /// `exit status: 1`, `signal: 9 (SIGKILL)`.
        status: String,
        /// The end of what it printed, errors last.
        output: String,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not end within {} and was killed{}", rounded(*.after), appended(output))]
    Timeout {
        /// The program.
        program: String,
        /// The limit.
        after: Duration,
        /// The end of what it printed.
        output: String,
    },
    /// It was stopped because the caller asked so.
    #[error("{program} was cancelled")]
    Cancelled {
        /// The program.
        program: String,
    },
}

/// A failed connection or statement.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// Nobody answers there, or the connection broke.
    #[error("cannot reach PostgreSQL at {target}: {source}")]
    Unreachable {
        /// Where.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("PostgreSQL at {target} did not answer within {}", rounded(*.after))]
    Timeout {
        /// Where.
        target: String,
        /// The limit.
        after: Duration,
    },
    /// The server answered with an error.
    #[error("{severity}: {message} (SQLSTATE {code})")]
    Server {
        /// `ERROR`, `FATAL` or `PANIC`.
        severity: String,
        /// SQLSTATE.
        code: String,
        /// The message.
        message: String,
    },
    /// The answer is none that the protocol allows here.
    #[error("PostgreSQL at {target} broke the protocol: {problem}")]
    Protocol {
        /// Where.
        target: String,
        /// What is wrong.
        problem: String,
    },
    /// An encrypted connection was asked for and could not be made.
    #[error("cannot use TLS with {target}: {problem}")]
    Tls {
        /// Where.
        target: String,
        /// What is wrong.
        problem: String,
    },
    /// The server wants a kind of authentication that is not supported, or a password that is not configured.
    #[error("cannot log in at {target} as {user:?}: {problem}")]
    Login {
        /// Where.
        target: String,
        /// As whom.
        user: String,
        /// What is wrong.
        problem: String,
    },
}

impl SqlError {
    /// The SQLSTATE, when the server sent one.
    pub fn code(&self) -> Option<&str> {
        match self {
            SqlError::Server { code, .. } => Some(code),
            SqlError::Unreachable { .. }
            | SqlError::Timeout { .. }
            | SqlError::Protocol { .. }
            | SqlError::Tls { .. }
            | SqlError::Login { .. } => None,
        }
    }

    /// True when the server says that it starts, stops or recovers (57P03).
    pub fn is_cannot_connect_now(&self) -> bool {
        self.code() == Some("57P03")
    }
}

/// Output to append to a message, when there is any.
fn appended(output: &str) -> String {
    let output = output.trim();
    if output.is_empty() { String::new() } else { format!(": {output}") }
}
