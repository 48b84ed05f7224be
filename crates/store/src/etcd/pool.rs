//! The etcd members that we know, and which of them is asked first.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::seq::SliceRandom;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::options::{EtcdOptions, is_web_address};
use crate::StoreError;

/// How long setting up a connection may take, on top of which a request gets the rest of its share.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// etcd closes connections that are pinged more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(6);
/// A ping that is not answered for this long ends the connection, and every request on it.
const PING_TIME: Duration = Duration::from_secs(3);

/// One etcd member with its connection, which is made when it is first needed and again when it broke.
#[derive(Debug)]
pub(super) struct Node {
    pub url: String,
    pub channel: Channel,
    failures: AtomicU64,
}

impl Node {
    /// How often a request to this node failed: whoever sees it grow has a reason to go elsewhere.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

pub(super) struct Pool {
    options: EtcdOptions,
    configured: Vec<String>,
    state: Mutex<State>,
}

struct State {
    /// What was read from the files of certificates last.
    tls: ClientTlsConfig,
    nodes: Vec<Arc<Node>>,
    /// Index of the node that is asked first: the one that answered last.
    preferred: usize,
}

impl Pool {
    /// Must run inside an async runtime, which will carry the connections.
    pub(super) fn new(options: &EtcdOptions) -> Result<Pool, StoreError> {
        let tls = options.tls()?;
        let mut configured: Vec<String> = Vec::new();
        for url in options.endpoints.iter().map(|url| normal(url)) {
            if !configured.contains(&url) {
                configured.push(url);
            }
        }
        // So that not every member of the cluster asks the same etcd member.
        configured.shuffle(&mut rand::rng());
        let nodes = configured.iter().map(|url| node(url, &tls)).collect::<Result<Vec<_>, _>>()?;
        Ok(Pool { options: options.clone(), configured, state: Mutex::new(State { tls, nodes, preferred: 0 }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All nodes in the order in which to ask them.
    pub(super) fn round(&self) -> Vec<Arc<Node>> {
        let state = self.state();
        let mut nodes = state.nodes.clone();
        let first = state.preferred.min(nodes.len());
        nodes.rotate_left(first);
        nodes
    }

    /// The node that is asked first.
    pub(super) fn preferred(&self) -> Arc<Node> {
        let state = self.state();
        state.nodes[state.preferred].clone()
    }

    /// `node` answered: it is asked first from now on.
    pub(super) fn worked(&self, node: &Arc<Node>) {
        let mut state = self.state();
        if let Some(position) = state.nodes.iter().position(|other| other.url == node.url) {
            state.preferred = position;
        }
    }

    /// `node` did not answer: the next one is asked first from now on. A connection that fell silent is replaced, and
    /// one with certificates too, since those in the files may be newer.
    pub(super) fn failed(&self, node: &Arc<Node>, was_silent: bool) {
        node.failures.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let Some(position) = state.nodes.iter().position(|other| Arc::ptr_eq(other, node)) else {
            return;
        };
        let may_have_new_certificates = self.options.has_certificates() && node.url.starts_with("https:");
        if may_have_new_certificates && let Ok(tls) = self.options.tls() {
            state.tls = tls;
        }
        if (was_silent || may_have_new_certificates)
            && let Ok(fresh) = self::node(&node.url, &state.tls)
        {
            state.nodes[position] = fresh;
        }
        if state.preferred == position {
            state.preferred = (position + 1) % state.nodes.len();
        }
    }

    /// The members of etcd advertise these addresses: they come first, the configured ones stay as a reserve.
    pub(super) fn advertised(&self, mut urls: Vec<String>) {
        urls.retain(|url| is_web_address(url) && !is_unspecified(url));
        if urls.is_empty() {
            return;
        }
        urls.shuffle(&mut rand::rng());
        urls.extend(self.configured.iter().cloned());
        let mut state = self.state();
        let mut nodes: Vec<Arc<Node>> = Vec::with_capacity(urls.len());
        for url in urls.iter().map(|url| normal(url)) {
            if nodes.iter().any(|other| other.url == url) {
                continue;
            }
            match state.nodes.iter().find(|other| other.url == url) {
                Some(known) => nodes.push(known.clone()),
                None => nodes.extend(node(&url, &state.tls)),
            }
        }
        let preferred = &state.nodes[state.preferred].url;
        state.preferred = nodes.iter().position(|other| other.url == *preferred).unwrap_or(0);
        state.nodes = nodes;
    }
}

fn normal(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

fn node(url: &str, tls: &ClientTlsConfig) -> Result<Arc<Node>, StoreError> {
    let wrong = |error: tonic::transport::Error| {
        StoreError::Options(format!("cannot use the etcd endpoint {url}: {}", chain(&error)))
    };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(wrong)?
        .connect_timeout(CONNECT_TIME)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIME);
    if url.starts_with("https:") {
        endpoint = endpoint.tls_config(tls.clone()).map_err(wrong)?;
    }
    Ok(Arc::new(Node { url: url.to_owned(), channel: endpoint.connect_lazy(), failures: AtomicU64::new(0) }))
}

/// True for an address that a server listens on but nobody can connect to.
fn is_unspecified(url: &str) -> bool {
    url.parse::<http::Uri>()
        .ok()
        .and_then(|uri| uri.host()?.trim_matches(['[', ']']).parse::<IpAddr>().ok())
        .is_some_and(|address| address.is_unspecified())
}

/// An error with its causes, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(urls: &[&str]) -> Pool {
        let endpoints = urls.iter().map(|url| (*url).to_owned()).collect();
        Pool::new(&EtcdOptions { endpoints, ..EtcdOptions::default() }).unwrap()
    }

    fn urls(pool: &Pool) -> Vec<String> {
        pool.round().iter().map(|node| node.url.clone()).collect()
    }

    #[tokio::test]
    async fn the_node_that_answered_last_is_asked_first_until_it_fails() {
        let pool = pool(&["http://a:1", "http://b:1", "http://c:1"]);
        let order = pool.round();
        pool.worked(&order[1]);
        assert_eq!(pool.preferred().url, order[1].url);
        pool.failed(&order[1], true);
        assert_eq!(pool.preferred().url, order[2].url);
        assert_eq!(order[1].failures(), 1);
        pool.failed(&order[0], false);
        assert_eq!(pool.preferred().url, order[2].url, "a failure elsewhere changes nothing");
    }

    #[tokio::test]
    async fn advertised_addresses_come_first_and_the_configured_stay_in_reserve() {
        let pool = pool(&["http://proxy:1/"]);
        pool.advertised(vec![
            "http://b:1".into(),
            "http://0.0.0.0:2379".into(),
            "unix://x".into(),
            "http://b:1/".into(),
        ]);
        let mut sorted = urls(&pool);
        sorted.sort();
        assert_eq!(sorted, ["http://b:1", "http://proxy:1"]);
        assert_eq!(pool.preferred().url, "http://proxy:1", "what works is kept");
        pool.advertised(vec![]);
        assert_eq!(urls(&pool).len(), 2, "an empty answer changes nothing");
    }
}
