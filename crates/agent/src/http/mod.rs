//! A small HTTP/1.1 client: one request, one bounded answer, one deadline for all of it.
//!
//! It is what members use to ask each other for their status, and what the command line uses to ask a member for a
//! switchover. It keeps no connections, follows no redirects and reads no proxy settings: a member is asked directly
//! or not at all.

mod auth;
mod consent;
mod error;
mod peer;
mod tls;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use pgward_core::config::{BasicAuth, CtlConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use auth::basic_auth_header;
pub(crate) use auth::basic_auth_matches;
pub use consent::ask_consent;
pub use error::{HttpError, TlsError};
pub use peer::{PEER_TIMEOUT, parse_status, poll_peers};
pub use tls::{ClientTls, ServerVerification};
pub(crate) use tls::{read_certificates, read_private_key, read_roots};

/// The longest body that is read. A status document is below 10 kB, and a dynamic configuration below 1 MB.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What the other side sees as `User-Agent`.
const USER_AGENT: &str = concat!("pgward/", env!("CARGO_PKG_VERSION"));

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// True for 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    tls: tls::Connector,
    auth: Option<BasicAuth>,
}

impl HttpClient {
    /// A client with `auth` on every request and `tls` for `https` URLs.
    ///
    /// # Errors
    /// When a certificate or key cannot be read.
    pub fn new(auth: Option<BasicAuth>, tls: ClientTls) -> Result<Self, TlsError> {
        Ok(HttpClient { tls: tls::Connector::new(tls)?, auth })
    }

    /// A client that calls members as the configuration says.
    ///
    /// # Errors
    /// When a certificate or key cannot be read.
    pub fn from_config(config: &CtlConfig) -> Result<Self, TlsError> {
        let verification = match (&config.cacert, config.insecure) {
            (_, true) => ServerVerification::Insecure,
            (Some(cacert), false) => ServerVerification::Authorities(cacert.clone()),
            (None, false) => ServerVerification::SystemRoots,
        };
        let identity = config.certfile.as_ref().map(|certfile| {
            let key = config.keyfile.as_ref().unwrap_or(certfile);
            (certfile.clone(), key.clone())
        });
        HttpClient::new(config.auth.clone(), ClientTls { verification, identity })
    }

    /// Sends one request and reads the whole answer within `timeout`.
    ///
    /// Any status code is an answer, not an error. Can be cancelled at any `.await`; the other side may then have
    /// acted on the request.
    ///
    /// # Errors
    /// When the URL cannot be used, or there was no complete answer in time.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        json: Option<&serde_json::Value>,
        timeout: Duration,
    ) -> Result<Response, HttpError> {
        let target = Target::parse(url)?;
        match tokio::time::timeout(timeout, self.exchange(method, &target, json)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Timeout { authority: target.authority(), after: timeout }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        target: &Target,
        json: Option<&serde_json::Value>,
    ) -> Result<Response, HttpError> {
        let request = self.build(method, target, json)?;
        let stream = connect(target).await?;
        if target.is_https {
            let stream = self.tls.connect(&target.host, stream).await;
            let stream = stream.map_err(|source| HttpError::Handshake { authority: target.authority(), source })?;
            send(target, stream, request).await
        } else {
            send(target, stream, request).await
        }
    }

    fn build(
        &self,
        method: Method,
        target: &Target,
        json: Option<&serde_json::Value>,
    ) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::builder()
            .method(method)
            .uri(target.path_and_query.as_str())
            .header(header::HOST, target.authority())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONNECTION, "close");
        if let Some(auth) = &self.auth {
            let mut value = HeaderValue::try_from(basic_auth_header(auth)).map_err(|_| target.invalid())?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let body = match json {
            Some(value) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(value.to_string())
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(|_| target.invalid())
    }
}

/// The parts of a URL that a request needs.
struct Target {
    url: String,
    is_https: bool,
    /// A name or an address; IPv6 without brackets.
    host: String,
    port: u16,
    path_and_query: String,
}

impl Target {
    fn parse(url: &str) -> Result<Target, HttpError> {
        let invalid = || HttpError::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(invalid()),
        };
        let address = uri.authority().map_or("", |authority| authority.as_str());
        let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
        let names_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.ends_with(']'));
        if names_port && uri.port_u16().is_none() {
            return Err(invalid()); // The default port would be another program's.
        }
        let host = uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned());
        Ok(Target {
            url: url.to_owned(),
            is_https,
            host: host.filter(|host| !host.is_empty()).ok_or_else(invalid)?,
            port: uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            path_and_query: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    fn invalid(&self) -> HttpError {
        HttpError::Url { url: self.url.clone() }
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Where a request to `url` goes, and what it asks for there.
#[cfg(any(test, fuzzing))]
pub(crate) fn target_of(url: &str) -> Option<(String, String)> {
    let target = Target::parse(url).ok()?;
    Some((target.authority(), target.path_and_query))
}

/// Connects to the first address of the host that accepts. The deadline is the caller's.
async fn connect(target: &Target) -> Result<TcpStream, HttpError> {
    let failed = |source| HttpError::Connect { authority: target.authority(), source };
    let addresses = tokio::net::lookup_host((target.host.as_str(), target.port)).await.map_err(failed)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Only saves a delay; a socket that refuses it still works.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

async fn send<S>(target: &Target, stream: S, request: Request<Full<Bytes>>) -> Result<Response, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |source| HttpError::Exchange { authority: target.authority(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // A set of one task, because dropping it ends the task: no connection outlives its request.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    let body =
        Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(source) => broken(*source),
            Err(other) => {
                debug_assert!(other.is::<LengthLimitError>(), "the only other error of a limited body");
                HttpError::TooLong { authority: target.authority(), bytes_max: BODY_BYTES_MAX }
            }
        })?;
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_as_members_publish_it() {
        for (url, authority, path) in [
            ("http://127.0.0.1:8008/patroni", "127.0.0.1:8008", "/patroni"),
            ("https://[::1]:8008/patroni?x=1", "[::1]:8008", "/patroni?x=1"),
            ("http://n1", "n1:80", "/"),
            ("https://n1/", "n1:443", "/"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.authority().as_str(), target.path_and_query.as_str()), (authority, path), "{url}");
        }
        for bad in [
            "",
            "n1:8008/patroni",
            "ftp://n1/",
            "http://",
            "http:///x",
            "http://n 1/",
            "http://n1:99999/",
            "http://n1:x/",
        ] {
            assert!(matches!(Target::parse(bad), Err(HttpError::Url { .. })), "{bad:?}");
        }
    }
}
