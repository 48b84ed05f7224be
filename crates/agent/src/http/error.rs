//! How a request, or the preparation of TLS, can fail.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use pgward_core::time::rounded;

/// No complete answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not `http://host[:port]/path` or the same with `https`.
    #[error("{url:?} is not an http:// or https:// URL with a host")]
    Url {
        /// The text.
        url: String,
    },
    /// No connection to any address of the host.
    #[error("cannot connect to {authority}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the last attempt met.
        source: io::Error,
    },
    /// Connected, but the two sides do not trust or understand each other.
    #[error("the TLS handshake with {authority} failed")]
    Handshake {
        /// Host and port.
        authority: String,
        /// What was wrong.
        source: io::Error,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("no complete answer from {authority}")]
    Exchange {
        /// Host and port.
        authority: String,
        /// What was wrong.
        source: hyper::Error,
    },
    /// The answer is longer than any that we expect.
    #[error("the answer of {authority} is longer than {bytes_max} bytes")]
    TooLong {
        /// Host and port.
        authority: String,
        /// The limit.
        bytes_max: usize,
    },
    /// The deadline passed.
    #[error("{authority} did not answer within {}", rounded(*.after))]
    Timeout {
        /// Host and port.
        authority: String,
        /// The time that the whole request was given.
        after: Duration,
    },
}

impl HttpError {
    /// True when the request was certainly not received, so that it may be sent elsewhere.
    pub fn is_unsent(&self) -> bool {
        match self {
            HttpError::Url { .. } | HttpError::Connect { .. } | HttpError::Handshake { .. } => true,
            HttpError::Exchange { .. } | HttpError::TooLong { .. } | HttpError::Timeout { .. } => false,
        }
    }
}

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds nothing of the kind that is needed.
    #[error("{} holds no {wanted} in PEM form", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The key is encrypted.
    #[error("the private key in {} is encrypted, which is not supported; remove its passphrase with `openssl pkey`", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The parts do not fit together.
    #[error("cannot use the certificate, key or CA: {0}")]
    Unusable(#[from] rustls::Error),
    /// The verifier of the other side's certificates cannot be built.
    #[error("cannot verify certificates with {}: {reason}", path.display())]
    Verifier {
        /// The CA file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
