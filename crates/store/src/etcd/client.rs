//! One request to etcd: which member to ask, for how long, with which token, and what its answer proves.
//!
//! A request goes from member to member, each with a share of the time, and round again until the time is over. A
//! member that is unreachable, silent, without a leader or behind the others is left; only an answer that will be the
//! same everywhere ends the request early (DCS-8, DCS-E6, DCS-E8).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgward_core::time::BootInstant;
use prost::Message;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;
use tracing::debug;

use super::fault::Fault;
use super::pool::{Node, Pool};
use super::proto::{self, MemberListRequest, MemberListResponse, ResponseHeader, WatchRequest, WatchResponse};
use super::session::Session;
use super::term::TermGuard;
use crate::{StoreError, boot_now};

/// The least time that one member gets to answer, even if others are then not asked at all.
const SHARE_MIN: Duration = Duration::from_secs(1);
/// Pauses between rounds.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often to ask which members there are, when all is well and after a failure.
const DISCOVER_EVERY: Duration = Duration::from_secs(300);
const DISCOVER_AFTER_FAILURE: Duration = Duration::from_secs(2);
const DISCOVER_TIME: Duration = Duration::from_secs(5);
/// How much longer than we wait etcd may work on a request.
const SERVER_GRACE: Duration = Duration::from_millis(500);
/// Larger than any answer of a sane cluster, small enough to be harmless.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A procedure of etcd's interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    path: &'static str,
    /// The procedure is a conversation of which we need one question and one answer.
    is_stream: bool,
}

impl Method {
    pub(super) const fn unary(path: &'static str) -> Method {
        Method { path, is_stream: false }
    }

    pub(super) const fn first_of_stream(path: &'static str) -> Method {
        Method { path, is_stream: true }
    }
}

/// An answer with etcd's header.
pub(super) trait Headed {
    fn header(&self) -> Option<&ResponseHeader>;
}

/// An answer and what is known about how it came.
#[derive(Debug)]
pub(super) struct Answer<R> {
    pub body: R,
    /// Taken just before the request was sent that this is the answer to.
    pub sent: BootInstant,
    /// An earlier attempt may have been carried out, too.
    pub is_repeat: bool,
}

impl<R: Headed> Answer<R> {
    pub(super) fn header(&self) -> ResponseHeader {
        self.body.header().copied().unwrap_or_default()
    }
}

#[derive(Clone)]
pub(super) struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    session: Session,
    terms: Mutex<TermGuard>,
    discovery: Option<Mutex<Discovery>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

#[derive(Default)]
struct Discovery {
    started: Option<Instant>,
    is_running: bool,
}

impl Client {
    pub(super) fn new(
        pool: Pool,
        credentials: Option<(String, String)>,
        discover_members: bool,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Client {
        let discovery = discover_members.then(Mutex::default);
        let inner =
            Inner { pool, session: Session::new(credentials), terms: Mutex::default(), discovery, tasks, shutdown };
        Client { inner: Arc::new(inner) }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.inner.shutdown
    }

    /// Asks until somebody answers or `within` is over.
    pub(super) async fn call<Q, R>(
        &self,
        method: Method,
        request: &Q,
        within: Duration,
    ) -> Result<Answer<R>, StoreError>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + Headed + 'static,
    {
        self.discover_if_older_than(DISCOVER_EVERY);
        let answer = self.ask_around(method, request, within).await;
        if answer.as_ref().is_err_and(StoreError::is_unknown) || answer.as_ref().is_ok_and(|answer| answer.is_repeat) {
            self.discover_if_older_than(DISCOVER_AFTER_FAILURE);
        }
        answer
    }

    async fn ask_around<Q, R>(&self, method: Method, request: &Q, within: Duration) -> Result<Answer<R>, StoreError>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + Headed + 'static,
    {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut is_repeat = false;
        let mut pause = PAUSE_FIRST;
        let mut last = StoreError::Timeout { after: within, last: "no time was left to ask".to_owned() };
        loop {
            let round = self.inner.pool.round();
            for (position, node) in round.iter().enumerate() {
                let share = share_of(left(), round.len(), position);
                if share.is_zero() {
                    return Err(last);
                }
                let fault = match self.attempt(node, method, request, share).await {
                    Ok((body, sent)) => {
                        self.inner.pool.worked(node);
                        return Ok(Answer { body, sent, is_repeat });
                    }
                    Err(fault @ (Fault::Final(_) | Fault::Token(_))) => return Err(fault.into_error(&node.url)),
                    Err(fault @ (Fault::Node { .. } | Fault::Silent(_))) => fault,
                };
                is_repeat |= fault.may_have_worked();
                self.inner.pool.failed(node, matches!(fault, Fault::Silent(_)));
                last = fault.into_error(&node.url);
                if let StoreError::Timeout { after, .. } = &mut last {
                    *after = within;
                }
                debug!(error = &last as &dyn std::error::Error, "an etcd endpoint failed");
            }
            // A new member may have to be found before anybody can answer.
            self.discover_if_older_than(DISCOVER_AFTER_FAILURE);
            sleep(pause.min(left())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks one member, for no longer than `within`.
    async fn attempt<Q, R>(
        &self,
        node: &Node,
        method: Method,
        request: &Q,
        within: Duration,
    ) -> Result<(R, BootInstant), Fault>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + Headed + 'static,
    {
        let limited = timeout(within, self.attempt_with_token(node, method, request, within)).await;
        limited.unwrap_or(Err(Fault::Silent(within)))
    }

    /// Asks one member; once more when it does not like the token any longer.
    async fn attempt_with_token<Q, R>(
        &self,
        node: &Node,
        method: Method,
        request: &Q,
        within: Duration,
    ) -> Result<(R, BootInstant), Fault>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + Headed + 'static,
    {
        let token = self.inner.session.token(node, within).await?;
        let answer = exchange(node, method, request.clone(), &token, within).await;
        let (body, sent): (R, BootInstant) = match answer {
            Err(Fault::Token(reason)) if self.inner.session.is_used() => {
                debug!(endpoint = node.url, reason, "logs in again");
                self.inner.session.forget(&token).await;
                let token = self.inner.session.token(node, within).await?;
                exchange(node, method, request.clone(), &token, within).await?
            }
            other => other?,
        };
        self.check_term(&body)?;
        Ok((body, sent))
    }

    /// Refuses answers of a member that has been left behind (DCS-E6).
    pub(super) fn check_term(&self, answer: &impl Headed) -> Result<(), Fault> {
        let Some(header) = answer.header().filter(|header| header.raft_term != 0) else { return Ok(()) };
        let mut terms = self.inner.terms.lock().unwrap_or_else(PoisonError::into_inner);
        terms
            .check(header.cluster_id, header.raft_term, boot_now())
            .map_err(|reason| Fault::Node { reason, was_sent: true })
    }

    /// Opens a watch at the preferred node and waits until etcd confirms it.
    pub(super) async fn open_watch(
        &self,
        node: &Node,
        request: WatchRequest,
        within: Duration,
    ) -> Result<Streaming<WatchResponse>, Fault> {
        let opening = async {
            let token = self.inner.session.token(node, within).await?;
            let opened = open_stream(node, request, &token).await;
            if matches!(opened, Err(Fault::Token(_))) {
                self.inner.session.forget(&token).await;
            }
            opened
        };
        timeout(within, opening).await.unwrap_or(Err(Fault::Silent(within)))
    }

    /// Forgets the token, so that the next request logs in again.
    pub(super) async fn log_in_again(&self) {
        self.inner.session.forget_any().await;
    }

    fn discover_if_older_than(&self, age: Duration) {
        let Some(discovery) = &self.inner.discovery else { return };
        {
            let mut discovery = discovery.lock().unwrap_or_else(PoisonError::into_inner);
            let is_fresh = discovery.started.is_some_and(|started| started.elapsed() < age);
            if discovery.is_running || is_fresh || self.inner.shutdown.is_cancelled() {
                return;
            }
            *discovery = Discovery { started: Some(Instant::now()), is_running: true };
        }
        let client = self.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = client.inner.shutdown.cancelled() => {}
                () = client.discover() => {}
            }
            if let Some(discovery) = &client.inner.discovery {
                discovery.lock().unwrap_or_else(PoisonError::into_inner).is_running = false;
            }
        });
    }

    /// Asks for the members of etcd. When nobody knows, what is known stays.
    async fn discover(&self) {
        let answer: Result<Answer<MemberListResponse>, _> =
            self.ask_once(proto::MEMBER_LIST, &MemberListRequest {}, DISCOVER_TIME).await;
        match answer {
            Ok(answer) => {
                let members = answer.body.members.into_iter().filter(|member| !member.is_learner);
                self.inner.pool.advertised(members.flat_map(|member| member.client_urls).collect());
            }
            Err(error) => debug!(error = &error as &dyn std::error::Error, "cannot ask for the members of etcd"),
        }
    }

    /// Like [`Client::call`] with one round and without asking for members.
    async fn ask_once<Q, R>(&self, method: Method, request: &Q, within: Duration) -> Result<Answer<R>, StoreError>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + Headed + 'static,
    {
        let deadline = Instant::now() + within;
        let mut last = StoreError::Timeout { after: within, last: "nobody was asked".to_owned() };
        for node in self.inner.pool.round() {
            let share = SHARE_MIN.min(deadline.saturating_duration_since(Instant::now()));
            match self.attempt(&node, method, request, share).await {
                Ok((body, sent)) => return Ok(Answer { body, sent, is_repeat: false }),
                Err(fault) => last = fault.into_error(&node.url),
            }
        }
        Err(last)
    }
}

/// The share of the time that one member of a round gets: an equal part of what is left for those not yet asked, and
/// enough to be worth asking. A single member is asked three times, two are asked twice.
fn share_of(left: Duration, nodes: usize, position: usize) -> Duration {
    let turns = match nodes {
        0 | 1 => 3,
        2 => 4 - position,
        more => more - position,
    };
    let turns = u32::try_from(turns).unwrap_or(u32::MAX).max(1);
    (left / turns).max(SHARE_MIN).min(left)
}

pub(super) type Token = Option<MetadataValue<tonic::metadata::Ascii>>;

/// Sends one request to one member and reads one answer.
pub(super) async fn exchange<Q, R>(
    node: &Node,
    method: Method,
    message: Q,
    token: &Token,
    within: Duration,
) -> Result<(R, BootInstant), Fault>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    let sent = boot_now();
    let mut request = Request::new(message);
    // For etcd's sake only: our own clock, which ends sooner, decides that a member is silent.
    request.set_timeout(within + SERVER_GRACE);
    decorate(&mut request, token);
    let mut grpc = ready(node).await?;
    let path = http::uri::PathAndQuery::from_static(method.path);
    let codec = ProstCodec::<Q, R>::default();
    if !method.is_stream {
        let answer = grpc.unary(request, path, codec).await.map_err(Fault::of)?;
        return Ok((answer.into_inner(), sent));
    }
    let mut answers =
        grpc.streaming(request.map(tokio_stream::once), path, codec).await.map_err(Fault::of)?.into_inner();
    match answers.message().await.map_err(Fault::of)? {
        Some(answer) => Ok((answer, sent)),
        None => {
            Err(Fault::Node { reason: "the endpoint ended the conversation without an answer".into(), was_sent: true })
        }
    }
}

/// Opens a watch. The stream of requests stays open, because etcd takes its end for the end of the watch.
async fn open_stream(node: &Node, message: WatchRequest, token: &Token) -> Result<Streaming<WatchResponse>, Fault> {
    let mut request = Request::new(tokio_stream::once(message).chain(tokio_stream::pending()));
    decorate(&mut request, token);
    let mut grpc = ready(node).await?;
    let path = http::uri::PathAndQuery::from_static(proto::WATCH);
    let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
    Ok(grpc.streaming(request, path, codec).await.map_err(Fault::of)?.into_inner())
}

async fn ready(node: &Node) -> Result<Grpc<Channel>, Fault> {
    let mut grpc = Grpc::new(node.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let not_ready =
        |error: tonic::transport::Error| Fault::Node { reason: super::pool::chain(&error), was_sent: false };
    grpc.ready().await.map_err(not_ready)?;
    Ok(grpc)
}

fn decorate<T>(request: &mut Request<T>, token: &Token) {
    let metadata = request.metadata_mut();
    // A member that has lost its leader says so at once instead of letting us wait.
    metadata.insert("hasleader", MetadataValue::from_static("true"));
    if let Some(token) = token {
        metadata.insert("token", token.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_among_the_members_not_yet_asked() {
        let s = Duration::from_secs;
        for (left, nodes, position, want) in [
            (s(9), 3, 0, s(3)),
            (s(6), 3, 1, s(3)),
            (s(6), 3, 2, s(6)),
            (s(9), 1, 0, s(3)),
            (s(8), 2, 0, s(2)),
            (s(2), 5, 0, s(1)),
            (Duration::from_millis(400), 3, 0, Duration::from_millis(400)),
            (Duration::ZERO, 3, 0, Duration::ZERO),
        ] {
            assert_eq!(share_of(left, nodes, position), want, "{left:?} for {nodes} nodes at {position}");
        }
    }
}
