//! Answers, from what they say to the bytes of their header.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use pgward_core::config::ServerTokens;
use pgward_core::json;
use pgward_core::wal::Lsn;
use serde::Serialize;

/// The `Server` header.
pub(super) fn server_header(tokens: ServerTokens, version: &str) -> HeaderValue {
    let text = match tokens {
        ServerTokens::Original => concat!("pgward/", env!("CARGO_PKG_VERSION")).to_owned(),
        ServerTokens::ProductOnly => "Patroni".to_owned(),
        ServerTokens::Minimal => format!("Patroni/{version}"),
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("Patroni"))
}

/// An answer before it has headers.
#[derive(Debug)]
pub(super) enum Reply {
    /// No body, no headers of ours: what HEAD, OPTIONS and the probes of orchestrators get.
    StatusOnly(StatusCode),
    /// A document or a short text.
    Body { status: StatusCode, content_type: &'static str, body: Bytes, challenge: bool },
    /// Yes to a primary without the store, and how far this member is (FS-5).
    Accepted(Option<Lsn>),
    /// A page for people: the request could not be handled.
    Error(ErrorPage),
}

/// An error as an HTML page.
#[derive(Debug)]
pub(super) struct ErrorPage {
    status: StatusCode,
    /// In place of the standard reason, when given.
    reason: Option<String>,
    /// In place of the standard explanation, when given.
    explanation: Option<String>,
}

impl Reply {
    pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Reply {
        Reply::body(status, "application/json", json::spaced(document))
    }

    pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Reply {
        Reply::body(status, "text/html", text.into())
    }

    pub(super) fn metrics(text: String) -> Reply {
        Reply::body(StatusCode::OK, "text/plain", text)
    }

    /// 401, with the header that makes a client ask for a password.
    pub(super) fn challenge(text: &str) -> Reply {
        Reply::Body {
            status: StatusCode::UNAUTHORIZED,
            content_type: "text/html",
            body: Bytes::copy_from_slice(text.as_bytes()),
            challenge: true,
        }
    }

    pub(super) fn error(status: StatusCode) -> Reply {
        Reply::Error(ErrorPage { status, reason: None, explanation: None })
    }

    /// An error page whose explanation is our own.
    pub(super) fn explained(status: StatusCode, explanation: String) -> Reply {
        Reply::Error(ErrorPage { status, reason: None, explanation: Some(explanation) })
    }

    /// A method that means nothing on this path.
    pub(super) fn unsupported(method: &hyper::Method) -> Reply {
        let reason = Some(format!("Unsupported method ('{method}')"));
        Reply::Error(ErrorPage { status: StatusCode::NOT_IMPLEMENTED, reason, explanation: None })
    }

    fn body(status: StatusCode, content_type: &'static str, body: String) -> Reply {
        Reply::Body { status, content_type, body: Bytes::from(body), challenge: false }
    }

    /// Adds the headers. `extra` are those that the configuration wants on documents and texts.
    pub(super) fn into_response(self, server: HeaderValue, extra: &HeaderMap) -> Response<Full<Bytes>> {
        match self {
            Reply::StatusOnly(status) => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = status;
                response
            }
            Reply::Body { status, content_type, body, challenge } => {
                let mut response = Response::new(Full::new(body));
                *response.status_mut() = status;
                let headers = response.headers_mut();
                headers.insert(header::SERVER, server);
                if challenge {
                    let realm = HeaderValue::from_static("Basic realm=\"Patroni\"");
                    headers.insert(header::WWW_AUTHENTICATE, realm);
                }
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
                headers.extend(extra.iter().map(|(name, value)| (name.clone(), value.clone())));
                response
            }
            Reply::Accepted(position) => {
                let text = Reply::text(StatusCode::OK, "Accepted");
                let mut response = text.into_response(server, extra);
                if let Some(lsn) = position {
                    response.headers_mut().insert("lsn", HeaderValue::from(lsn.0));
                }
                response
            }
            Reply::Error(page) => {
                let mut response = Response::new(Full::new(Bytes::from(page.html())));
                *response.status_mut() = page.status;
                if let Some(phrase) = page.reason.as_ref().and_then(|reason| reason.as_bytes().try_into().ok()) {
                    response.extensions_mut().insert::<hyper::ext::ReasonPhrase>(phrase);
                }
                let headers = response.headers_mut();
                headers.insert(header::SERVER, server);
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html;charset=utf-8"));
                response
            }
        }
    }
}

impl ErrorPage {
    fn html(&self) -> String {
        let code = self.status.as_u16();
        let reason = self.reason.as_deref().unwrap_or_else(|| standard_reason(self.status));
        let explanation = self.explanation.as_deref().unwrap_or_else(|| standard_explanation(self.status));
        let (reason, explanation) = (escape(reason), escape(explanation));
        format!(
            r#"<!DOCTYPE HTML>
<html lang="en">
    <head>
        <meta charset="utf-8">
        <title>Error response</title>
    </head>
    <body>
        <h1>Error response</h1>
        <p>Error code: {code}</p>
        <p>Message: {reason}.</p>
        <p>Error code explanation: {code} - {explanation}.</p>
    </body>
</html>
"#
        )
    }
}

fn standard_reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

fn standard_explanation(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "Bad request syntax or unsupported method",
        StatusCode::REQUEST_TIMEOUT => "Request timed out; try again later",
        StatusCode::CONFLICT => "Request conflict",
        StatusCode::LENGTH_REQUIRED => "Client must specify Content-Length",
        StatusCode::PAYLOAD_TOO_LARGE => "Entity is too large",
        StatusCode::NOT_IMPLEMENTED => "Server does not support this operation",
        StatusCode::BAD_GATEWAY => "Invalid responses from another server/proxy",
        StatusCode::SERVICE_UNAVAILABLE => "The server cannot process the request now",
        _ => "Server got itself in trouble",
    }
}

/// What a browser must not take for markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Headers from the configuration.
///
/// # Errors
/// The name of the first one that is not a header.
pub(super) fn parse_headers(pairs: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let parsed = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
        let (parsed_name, parsed_value) = parsed.ok_or_else(|| name.clone())?;
        headers.insert(parsed_name, parsed_value);
    }
    Ok(headers)
}
