//! What the commands need from outside: the store, the members' REST API and the time.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Zoned;
use pgward_core::cluster::{Cluster, Member};
use pgward_store::{Condition, Key};
use serde_json::Value;

/// An answer of a member's REST API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: String,
}

/// No answer of a member's REST API.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The request was certainly not received.
    Unsent(anyhow::Error),
    /// The member may have acted on it, or still be acting.
    Lost(anyhow::Error),
}

impl NoAnswer {
    /// What was met.
    pub(super) fn error(&self) -> &anyhow::Error {
        match self {
            NoAnswer::Unsent(error) | NoAnswer::Lost(error) => error,
        }
    }
}

/// A request to a member's REST API.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// What to do.
    pub(super) method: Method,
    /// A JSON document, where the method takes one.
    pub(super) body: Option<Value>,
}

impl Request {
    /// Reads.
    pub(super) fn get() -> Request {
        Request { method: Method::GET, body: None }
    }

    /// Starts something.
    pub(super) fn post(body: Value) -> Request {
        Request { method: Method::POST, body: Some(body) }
    }

    /// Changes something.
    pub(super) fn patch(body: Value) -> Request {
        Request { method: Method::PATCH, body: Some(body) }
    }

    /// Takes something back.
    pub(super) fn delete() -> Request {
        Request { method: Method::DELETE, body: None }
    }
}

/// As whom SQL is run. What is left out is taken from the variables of libpq (PostgreSQL manual, section 34.15).
#[derive(Clone, Debug, Default)]
pub(super) struct Login {
    /// The user.
    pub(super) user: Option<String>,
    /// The database.
    pub(super) database: Option<String>,
    /// The password.
    pub(super) password: Option<String>,
}

/// Why SQL was not run.
#[derive(Debug)]
pub(super) enum QueryFailed {
    /// The member cannot be reached, or is not of the kind that was asked for.
    NotConnected(String),
    /// The server refused the statement.
    Refused {
        /// Its SQLSTATE.
        code: String,
    },
}

/// Which cluster a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterName {
    /// Its name.
    pub(super) scope: String,
    /// The Citus group, whose keys are one level deeper.
    pub(super) group: Option<u32>,
}

/// Everything outside of a command. Each call ends within a time that the implementation states.
pub(super) trait World {
    /// The cluster of the configuration.
    fn configured_scope(&self) -> Option<String>;
    /// The Citus group of the configuration.
    fn configured_group(&self) -> Option<u32>;
    /// The REST API of the member whose configuration was given.
    fn own_api_url(&self) -> Option<String>;
    /// The logs that its configuration names.
    fn own_logs(&self) -> Vec<PathBuf>;
    /// The time, in the local zone.
    fn now(&self) -> Zoned;
    /// Reads a cluster as it is now.
    fn read(&self, name: &ClusterName) -> impl Future<Output = anyhow::Result<Arc<Cluster>>>;
    /// Asks a member.
    fn call(&self, url: &str, request: Request, timeout: Duration) -> impl Future<Output = Result<Answer, NoAnswer>>;
    /// Writes a key of the store. False when the condition does not hold: somebody else was faster.
    fn write(
        &self,
        name: &ClusterName,
        key: &Key,
        value: &str,
        condition: Condition,
    ) -> impl Future<Output = anyhow::Result<bool>>;
    /// Removes a key of the store; one that does not exist is fine.
    fn delete(&self, name: &ClusterName, key: &Key) -> impl Future<Output = anyhow::Result<()>>;
    /// Removes everything that the store has about a cluster.
    fn delete_cluster(&self, name: &ClusterName) -> impl Future<Output = anyhow::Result<()>>;
    /// Runs SQL on a member; `recovers` says whether it has to be a standby (true) or a primary (false).
    fn query(
        &self,
        member: &Member,
        login: &Login,
        recovers: Option<bool>,
        sql: &str,
    ) -> impl Future<Output = Result<Vec<pgward_postgres::Answer>, QueryFailed>>;
    /// Reads a file, or the standard input for `-`.
    fn read_text(&self, path: &Path) -> anyhow::Result<String>;
    /// Lets the person edit a text, and returns what is saved.
    fn edit(&self, text: &str, name: &ClusterName) -> anyhow::Result<String>;
    /// Waits.
    fn sleep(&self, pause: Duration) -> impl Future<Output = ()>;
}

/// The URL of another endpoint of the member that published `api_url`.
pub(super) fn endpoint(api_url: &str, path: &str) -> String {
    let authority = api_url.find("://").map_or(0, |at| at + 3);
    let end = api_url[authority..].find('/').map_or(api_url.len(), |at| authority + at);
    format!("{}{path}", &api_url[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_replaces_the_path_of_the_published_url() {
        for url in ["http://[::1]:8008/patroni", "http://[::1]:8008", "http://[::1]:8008/a/b"] {
            assert_eq!(endpoint(url, "/switchover"), "http://[::1]:8008/switchover", "{url}");
        }
    }
}
