//! The library with a real server. `PG_BIN` chooses the binaries; the newest installed ones are the default.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends a test")]

mod lifecycle;
mod replication;
mod server;
mod stop;
mod tls;
