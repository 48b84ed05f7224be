//! From a request to its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use pgward_core::cluster::Cluster;
use pgward_core::wal::Lsn;
use pgward_store::boot_now;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tracing::debug;

use super::access::{self, Members, Peer};
use super::cluster::cluster_document;
use super::config;
use super::explain::explain_document;
use super::health::{health_status, is_alive, is_ready};
use super::metrics::{decision_metrics, metrics_text};
use super::modes::Modes;
use super::operations::Operations;
use super::query::Query;
use super::reply::{Reply, server_header};
use super::restart;
use super::server::RestConfig;
use super::status::status_document;
use super::switchover::{self, Action, store_unreachable};
use super::view::{NodeView, WalPosition};
use crate::consent::{ConsentReply, ConsentRequest};
use crate::ring::Recorder;

/// The longest body of a request that is read.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How long a client may take to send the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections share.
pub(super) struct Router {
    pub(super) config: RestConfig,
    pub(super) extra_headers: HeaderMap,
    pub(super) node: watch::Receiver<NodeView>,
    pub(super) operations: Arc<dyn Operations>,
}

impl Router {
    /// Answers one request. Can be cancelled at any `.await`: a request that was already written to the store is then
    /// carried out without anybody waiting for its outcome.
    pub(super) async fn answer<B>(
        &self,
        request: Request<B>,
        client: SocketAddr,
        has_certificate: bool,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let peer = Peer { address: client.ip().to_canonical(), has_certificate };
        let reply = match *request.method() {
            Method::GET => self.get(&request).await,
            Method::HEAD | Method::OPTIONS => Reply::StatusOnly(self.health(&request)),
            _ => self.act(request, peer).await,
        };
        let server = server_header(self.config.server_tokens, &self.node.borrow().version);
        let response = reply.into_response(server, &self.extra_headers);
        debug!(client = %client, status = response.status().as_u16(), "answered");
        response
    }

    fn health<B>(&self, request: &Request<B>) -> StatusCode {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        status_code(health_status(request.uri().path(), &query, &self.node.borrow(), boot_now()))
    }

    async fn get<B>(&self, request: &Request<B>) -> Reply {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match first_segment(request.uri().path()) {
            "liveness" => Reply::StatusOnly(ok_or_unavailable(is_alive(&self.node.borrow(), boot_now()))),
            "readiness" => Reply::StatusOnly(ok_or_unavailable(is_ready(&query, &self.fresh_node().await, boot_now()))),
            "patroni" => Reply::json(StatusCode::OK, &status_document(&self.fresh_node().await)),
            "metrics" => {
                let node = self.fresh_node().await;
                let ours = decision_metrics(&node, &self.operations.recorder().lock().phases);
                Reply::metrics(metrics_text(&node) + &ours)
            }
            "explain" => {
                let node = self.fresh_node().await;
                let explain =
                    move |recorder: &Recorder| Reply::json(StatusCode::OK, &explain_document(&node, recorder, &query));
                let explained = self.operations.recorder().in_turn(explain).await;
                explained.unwrap_or_else(|| Reply::error(StatusCode::INTERNAL_SERVER_ERROR))
            }
            "cluster" => match self.operations.read_cluster().await {
                Ok(cluster) => {
                    let node = self.node.borrow();
                    let document = cluster_document(&cluster, &node.scope, Modes::of(&cluster, &node));
                    Reply::json(StatusCode::OK, &document)
                }
                Err(error) => store_unreachable(&error),
            },
            "history" => {
                self.with_cluster(|cluster| match &cluster.history {
                    Some(history) => Reply::json(StatusCode::OK, &history.value),
                    None => Reply::json(StatusCode::OK, &Value::Array(Vec::new())),
                })
                .await
            }
            "config" => {
                self.with_cluster(|cluster| match &cluster.config {
                    Some(config) => Reply::json(StatusCode::OK, &config.value),
                    None => Reply::error(StatusCode::BAD_GATEWAY),
                })
                .await
            }
            "failsafe" => match &self.node.borrow().failsafe {
                Some(failsafe) => Reply::json(StatusCode::OK, failsafe),
                None => Reply::error(StatusCode::BAD_GATEWAY),
            },
            _ => Reply::json(self.health(request), &status_document(&self.node.borrow())),
        }
    }

    /// The view with what PostgreSQL says now. Positions must not be of the last cycle where they are compared: other
    /// members decide by them who may lead (PEER-1).
    async fn fresh_node(&self) -> NodeView {
        let asks = self.node.borrow().current_server().is_some() || self.node.borrow().is_running();
        let server = if asks { self.operations.fresh_facts().await } else { None };
        let node = self.node.borrow().clone();
        NodeView { server: server.or_else(|| node.server.clone().filter(|_| !asks)), ..node }
    }

    /// Answers from the last view of the cluster, or from a fresh read when there is none.
    async fn with_cluster(&self, answer: impl FnOnce(&Cluster) -> Reply) -> Reply {
        let seen = self.node.borrow().cluster.clone();
        match seen {
            Some(cluster) => answer(&cluster),
            None => match self.operations.read_cluster().await {
                Ok(cluster) => answer(&cluster),
                Err(error) => store_unreachable(&error),
            },
        }
    }

    /// Everything that changes something.
    async fn act<B>(&self, request: Request<B>, peer: Peer) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let method = request.method().as_str();
        let route = match (method, first_segment(request.uri().path())) {
            ("POST", "switchover") => Route::Move(Action::Switchover),
            ("POST", "failover") => Route::Move(Action::Failover),
            ("DELETE", "switchover") => Route::Cancel,
            ("POST", "failsafe") => Route::Failsafe,
            ("POST", "reload" | "citus" | "sigterm") => Route::NotYet,
            ("POST", "restart") => Route::Restart,
            ("DELETE", "restart") => Route::Unschedule,
            ("POST", "reinitialize") => Route::Reinitialize,
            ("PATCH", "config") => Route::MergeConfig,
            ("PUT", "config") => Route::ReplaceConfig,
            // The one unsafe path that asks nobody for a password.
            ("POST", "mpp") => return Reply::error(StatusCode::NOT_IMPLEMENTED),
            _ => return Reply::unsupported(request.method()),
        };
        let members = if route == Route::Failsafe { Members::DoNotCount } else { Members::Count };
        let cluster = self.node.borrow().cluster.clone();
        let refusal = access::refuse(&self.config, peer, request.headers(), cluster.as_deref(), members).await;
        if let Some(refusal) = refusal {
            return refusal;
        }
        match route {
            Route::Move(action) => match read_object(request).await {
                Ok(body) => switchover::start(action, &body, self.node.clone(), &self.operations).await,
                Err(reply) => reply,
            },
            Route::MergeConfig => match read_object(request).await {
                Ok(change) => config::merge(&change, &self.operations).await,
                Err(reply) => reply,
            },
            Route::ReplaceConfig => match read_object(request).await {
                Ok(document) => config::replace(&document, &self.operations).await,
                Err(reply) => reply,
            },
            Route::Restart => match read_optional_object(request).await {
                Ok(body) => restart::restart(&body, self.node.clone(), &self.operations).await,
                Err(reply) => reply,
            },
            Route::Unschedule => restart::unschedule(&self.operations).await,
            Route::Reinitialize => match read_optional_object(request).await {
                Ok(body) => restart::reinitialize(&body, &self.operations).await,
                Err(reply) => reply,
            },
            Route::Cancel => switchover::cancel(&self.operations).await,
            Route::Failsafe => self.failsafe(request).await,
            Route::NotYet => Reply::error(StatusCode::NOT_IMPLEMENTED),
        }
    }

    /// How far the server was when it was asked last (FS-5).
    fn position(&self) -> Option<Lsn> {
        match &self.node.borrow().current_server()?.wal {
            WalPosition::Primary { location } => Some(*location),
            WalPosition::Replica { received, replayed, .. } => Some(*received.max(replayed)),
        }
    }

    /// A primary without a store asks whether it may go on (FS-5).
    async fn failsafe<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !self.node.borrow().failsafe_mode {
            return Reply::error(StatusCode::BAD_GATEWAY);
        }
        let body = match read_object(request).await {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let Some(request) = ConsentRequest::from_object(&body) else {
            return Reply::error(StatusCode::BAD_REQUEST);
        };
        match self.operations.consent(&request).await {
            ConsentReply::ModeOff => Reply::error(StatusCode::BAD_GATEWAY),
            ConsentReply::Refused(why) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, why),
            ConsentReply::Accepted => Reply::Accepted(self.position()),
        }
    }
}

/// The unsafe requests that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Move(Action),
    Cancel,
    MergeConfig,
    ReplaceConfig,
    Restart,
    Unschedule,
    Reinitialize,
    Failsafe,
    /// Known, and refused until it is built.
    NotYet,
}

/// What is between the first and the second slash.
fn first_segment(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

fn ok_or_unavailable(is_ok: bool) -> StatusCode {
    if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn status_code(code: u16) -> StatusCode {
    ok_or_unavailable(code == 200)
}

/// Reads a body that may be left out, or be an object without anything in it.
async fn read_optional_object<B>(request: Request<B>) -> Result<Map<String, Value>, Reply>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let length = request.headers().get(header::CONTENT_LENGTH).map(|length| length.as_bytes());
    if length.is_none_or(|length| length == b"0") {
        return Ok(Map::new());
    }
    match read_bytes(request).await.map(|body| serde_json::from_slice(&body)) {
        Ok(Ok(Value::Object(object))) => Ok(object),
        Ok(Ok(_) | Err(_)) => Err(Reply::error(StatusCode::BAD_REQUEST)),
        Err(reply) => Err(reply),
    }
}

/// Reads a body that has to be a JSON object with something in it.
async fn read_object<B>(request: Request<B>) -> Result<Map<String, Value>, Reply>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !request.headers().contains_key(header::CONTENT_LENGTH) {
        return Err(Reply::error(StatusCode::LENGTH_REQUIRED));
    }
    match serde_json::from_slice(&read_bytes(request).await?) {
        Ok(Value::Object(object)) if !object.is_empty() => Ok(object),
        Ok(_) | Err(_) => Err(Reply::error(StatusCode::BAD_REQUEST)),
    }
}

async fn read_bytes<B>(request: Request<B>) -> Result<Bytes, Reply>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Reply::error(StatusCode::PAYLOAD_TOO_LARGE)); // Known beforehand: nothing is waited for.
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Reply::error(StatusCode::PAYLOAD_TOO_LARGE)),
        Ok(Err(_)) => Err(Reply::error(StatusCode::BAD_REQUEST)),
        Err(_) => Err(Reply::error(StatusCode::REQUEST_TIMEOUT)),
    }
}
