//! Listening and connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pgward_core::config::{BasicAuth, ListenAddress, RestApiConfig, ServerTokens};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::access::{AllowList, InvalidNetwork};
use super::operations::Operations;
use super::reply::parse_headers;
use super::route::Router;
use super::tls::{ServerTls, server_config};
use super::view::NodeView;
use crate::http::TlsError;

/// Connections at a time: far above what load balancers and monitoring open, far below the default limit of 1024 open
/// files. Further ones wait in the backlog of the listener.
const CONNECTIONS_MAX: usize = 256;

/// How long a connection may stay without a complete request, also between two.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest header of a request, in bytes.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// How long a client may leave sent bytes unacknowledged, so that nobody who stops reading holds a connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// How long a connection may go on after the server was asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after an `accept` that failed because of a limit of the system: nothing tells when that is over.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the API is served.
#[derive(Clone, Debug, Default)]
pub struct RestConfig {
    /// User and password for unsafe requests; `None` admits everybody.
    pub auth: Option<BasicAuth>,
    /// Serve `https` instead of `http`.
    pub tls: Option<ServerTls>,
    /// Who may send unsafe requests.
    pub allowlist: AllowList,
    /// What the `Server` header tells.
    pub server_tokens: ServerTokens,
    /// Headers added to documents and texts.
    pub http_extra_headers: Vec<(String, String)>,
    /// Headers added on top of those when TLS is on.
    pub https_extra_headers: Vec<(String, String)>,
}

impl RestConfig {
    /// What the configuration file says. Names in the allow list are resolved now.
    ///
    /// # Errors
    /// When an entry of the allow list is no address, network or name.
    pub async fn from_config(config: &RestApiConfig) -> Result<RestConfig, InvalidNetwork> {
        let tls = config.certfile.as_ref().map(|certfile| ServerTls {
            certfile: certfile.clone(),
            keyfile: config.keyfile.clone(),
            cafile: config.cafile.clone(),
            verify_client: config.verify_client,
        });
        Ok(RestConfig {
            auth: config.auth.clone(),
            tls,
            allowlist: AllowList::resolve(&config.allowlist, config.allowlist_include_members).await?,
            server_tokens: config.server_tokens,
            http_extra_headers: config.http_extra_headers.clone(),
            https_extra_headers: config.https_extra_headers.clone(),
        })
    }
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen} (restapi.listen): {reason}")]
    Listen {
        /// The setting.
        listen: String,
        /// What the system said, and what to do.
        reason: String,
        /// Which kind of failure it is.
        kind: io::ErrorKind,
    },
    /// The certificate or key cannot be used.
    #[error("cannot serve https (restapi.certfile, keyfile, cafile)")]
    Tls(#[from] TlsError),
    /// A configured header is not one.
    #[error(
        "restapi.http_extra_headers or https_extra_headers: {name:?} is not a header name, or its value is not header text"
    )]
    Header {
        /// The name as configured.
        name: String,
    },
}

/// A listener that is ready to serve.
pub struct RestServer {
    listeners: Vec<TcpListener>,
    tls: Option<TlsAcceptor>,
    config: RestConfig,
    extra_headers: HeaderMap,
}

impl RestServer {
    /// Checks everything and listens on all hosts of `listen`.
    ///
    /// # Errors
    /// When the address is in use, or a file or setting cannot be used.
    pub async fn bind(listen: &ListenAddress, config: RestConfig) -> Result<RestServer, RestError> {
        let header = |name| RestError::Header { name };
        let mut extra_headers = parse_headers(&config.http_extra_headers).map_err(header)?;
        let secure = parse_headers(&config.https_extra_headers).map_err(header)?;
        let tls = config.tls.as_ref().map(server_config).transpose()?;
        if tls.is_some() {
            for (name, value) in &secure {
                extra_headers.insert(name.clone(), value.clone());
            }
        }
        let mut listeners = Vec::new();
        for host in &listen.hosts {
            listeners.push(bind(host, listen.port, listen).await?);
        }
        Ok(RestServer { listeners, tls: tls.map(TlsAcceptor::from), config, extra_headers })
    }

    /// The addresses that are listened on, as far as the system tells.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `shutdown`, and then for at most a second more.
    pub async fn run(
        self,
        node: watch::Receiver<NodeView>,
        operations: Arc<dyn Operations>,
        shutdown: CancellationToken,
    ) {
        let Self { listeners, tls, config, extra_headers } = self;
        let router = Arc::new(Router { config, extra_headers, node, operations });
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut doors = JoinSet::new();
        for listener in listeners {
            let door = Door { listener, tls: tls.clone(), router: router.clone(), slots: slots.clone() };
            doors.spawn(door.run(shutdown.clone()));
        }
        while doors.join_next().await.is_some() {}
    }
}

/// One listener and the connections that came through it.
struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Arc<Router>,
    slots: Arc<Semaphore>,
}

impl Door {
    async fn run(self, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.listener, &self.slots) => accepted,
            };
            let Some((stream, client, slot)) = accepted else { continue };
            let (router, tls, shutdown) = (self.router.clone(), self.tls.clone(), shutdown.clone());
            connections.spawn(async move {
                serve_stream(stream, client, tls, router, shutdown).await;
                drop(slot);
            });
        }
        drop(self.listener); // Whoever connects from now on is refused, not left waiting.
        while connections.join_next().await.is_some() {}
    }
}

/// Listens and serves: [`RestServer::bind`] and [`RestServer::run`] in one.
///
/// # Errors
/// Those of [`RestServer::bind`].
pub async fn serve(
    listen: &ListenAddress,
    config: RestConfig,
    node: watch::Receiver<NodeView>,
    operations: Arc<dyn Operations>,
    shutdown: CancellationToken,
) -> Result<(), RestError> {
    RestServer::bind(listen, config).await?.run(node, operations, shutdown).await;
    Ok(())
}

async fn bind(host: &str, port: u16, listen: &ListenAddress) -> Result<TcpListener, RestError> {
    let bound = match host {
        "*" => match TcpListener::bind(("::", port)).await {
            // Without IPv6 in the system, "all addresses" are those of IPv4.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(("0.0.0.0", port)).await,
            result => result,
        },
        host => TcpListener::bind((host, port)).await,
    };
    bound.map_err(|source| {
        let kind = source.kind();
        let reason = if kind == io::ErrorKind::AddrInUse {
            let find = format!("`ss -ltnp 'sport = :{port}'` shows it");
            format!("address in use; stop the program that listens there ({find}) or choose another port")
        } else if kind == io::ErrorKind::AddrNotAvailable {
            "this machine does not have that address; listen on one that it has, or on *".to_owned()
        } else if kind == io::ErrorKind::PermissionDenied {
            "permission denied; ports below 1024 need a privilege, choose a higher one".to_owned()
        } else {
            source.to_string()
        };
        RestError::Listen { listen: listen.to_string(), reason, kind }
    })
}

/// The next connection, once there is room for it. Can be cancelled at any `.await`.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, client)) => Some((stream, client, slot)),
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "cannot accept a connection to the REST API");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve_stream(
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Arc<Router>,
    shutdown: CancellationToken,
) {
    // These only shorten waits; a socket that refuses one still works.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_tcp_user_timeout(&stream, u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX));
    let Some(tls) = tls else {
        return serve_http(stream, client, false, router, shutdown).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            serve_http(stream, client, has_certificate, router, shutdown).await;
        }
        Ok(Err(error)) => debug!(%client, error = &error as &dyn std::error::Error, "TLS handshake failed"),
        Err(_) => debug!(%client, "TLS handshake took too long"),
    }
}

async fn serve_http<S>(
    stream: S,
    client: SocketAddr,
    has_certificate: bool,
    router: Arc<Router>,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, std::convert::Infallible>(router.answer(request, client, has_certificate).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return info!(%client, "closed a REST connection that was still busy at shutdown"),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%client, error = &error as &dyn std::error::Error, "REST connection broke");
    }
}
