//! A small HTTP/1.1 client: one request on one connection, closed afterwards, as health checks do it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long any request of the tests may take, unless it says otherwise.
pub const LIMIT: Duration = Duration::from_secs(3);

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// A request to `host:port`.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// `host:port`.
    pub address: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// User and password.
    pub auth: Option<(&'a str, &'a str)>,
    /// Body.
    pub json: Option<&'a Value>,
}

impl<'a> Request<'a> {
    /// A plain GET.
    pub fn get(address: &'a str, path: &'a str) -> Self {
        Self { method: "GET", address, path, auth: None, json: None }
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// When there is no complete answer within `limit`.
    pub async fn send(&self, limit: Duration) -> Result<Response> {
        let exchange = async {
            let mut stream = self.open().await?;
            let head = Head::read(&mut stream).await?;
            let mut body = Vec::new();
            if head.chunked {
                while let Some(chunk) = read_chunk(&mut stream).await? {
                    body.extend(chunk);
                }
            } else if let Some(length) = head.length {
                body.resize(length, 0);
                stream.read_exact(&mut body).await?;
            } else {
                stream.read_to_end(&mut body).await?;
            }
            Ok(Response { status: head.status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        let answer = tokio::time::timeout(limit, exchange).await;
        answer
            .unwrap_or_else(|_| bail!("no answer within {limit:?}"))
            .with_context(|| format!("{} http://{}{}", self.method, self.address, self.path))
    }

    /// Connects and sends the request, leaving the answer to be read.
    pub(crate) async fn open(&self) -> Result<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.path, self.address);
        text.push_str("Connection: close\r\n");
        if let Some((user, password)) = self.auth {
            text.push_str(&format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}"))));
        }
        if let Some(json) = self.json {
            let body = json.to_string();
            text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        } else {
            text.push_str("\r\n");
        }
        stream.write_all(text.as_bytes()).await?;
        Ok(BufReader::new(stream))
    }
}

/// Status line and the headers that matter for reading the body.
pub(crate) struct Head {
    pub(crate) status: u16,
    length: Option<usize>,
    chunked: bool,
}

impl Head {
    pub(crate) async fn read(stream: &mut BufReader<TcpStream>) -> Result<Self> {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|code| code.trim().parse().ok());
        let status = status.with_context(|| format!("no status line, but {line:?}"))?;
        let mut head = Self { status, length: None, chunked: false };
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                return Ok(head);
            }
            if let Some(length) = header.strip_prefix("content-length:") {
                head.length = Some(length.trim().parse().with_context(|| format!("bad header {header:?}"))?);
            }
            head.chunked |= header.strip_prefix("transfer-encoding:").is_some_and(|v| v.contains("chunked"));
        }
    }
}

/// The next chunk of a chunked body; none at its end.
pub(crate) async fn read_chunk(stream: &mut BufReader<TcpStream>) -> Result<Option<Vec<u8>>> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let size = usize::from_str_radix(line.trim(), 16).with_context(|| format!("bad chunk size {line:?}"))?;
    if size == 0 {
        return Ok(None);
    }
    let mut chunk = vec![0; size];
    stream.read_exact(&mut chunk).await?;
    let mut end = [0; 2];
    stream.read_exact(&mut end).await?;
    Ok(Some(chunk))
}
