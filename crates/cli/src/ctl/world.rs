//! What the commands need from outside: the store, the members' REST API and the time.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Zoned;
use pgward_core::cluster::{Cluster, FailoverRequest};

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
pub(super) enum Request {
    /// GET.
    Get,
    /// POST with a JSON body.
    Post(serde_json::Value),
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
    /// Writes a request for a switchover or failover to the store.
    fn request_failover(
        &self,
        name: &ClusterName,
        request: &FailoverRequest,
    ) -> impl Future<Output = anyhow::Result<()>>;
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
