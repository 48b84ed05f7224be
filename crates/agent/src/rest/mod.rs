//! The REST API: what load balancers, monitoring, other members and the command line ask a member.
//!
//! Answers are rendered from one [`NodeView`], which the agent's loop publishes after each observation. Health checks
//! take it as it is; `/patroni`, `/readiness`, `/metrics` and `/explain` ask PostgreSQL anew, because positions are compared by them;
//! the store is waited for only where the answer must be fresh (`/cluster`, a switchover).
//! Paths, status codes, bodies and texts are those of Patroni 4.1. On purpose, different are: HTTP/1.1 with lengths and
//! kept connections; and an error page with 503 where the store is needed and unreachable, where Patroni closes the
//! connection without an answer.
//!
//! Invariants:
//! - rendering is pure: a view, a request and an instant in, an answer out;
//! - nothing here writes to the store except the `failover` and the `config` key;
//! - access is checked before anything else about an unsafe request is.

mod access;
mod cluster;
mod config;
mod explain;
mod health;
mod metrics;
mod modes;
mod operations;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod query;
mod reply;
mod restart;
mod route;
mod schedule;
pub mod server;
mod status;
mod switchover;
mod tls;
pub mod view;

pub use access::{AllowList, InvalidNetwork};
pub use cluster::cluster_document;
pub use explain::explain_document;
pub use health::{health_status, is_alive, is_ready};
pub use metrics::{decision_metrics, metrics_text};
pub use modes::Modes;
pub use operations::{OperationFuture, Operations};
pub use query::Query;
pub use server::{RestConfig, RestError, RestServer, serve};
pub use status::status_document;
pub use tls::ServerTls;
pub use view::NodeView;
