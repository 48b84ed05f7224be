//! The one HTTP request that the demo needs: GET on the loopback address, with a deadline.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// On one machine an answer takes milliseconds; a process that needs longer is as good as not there.
const LIMIT: Duration = Duration::from_secs(2);
/// More than a cluster of nine nodes ever answers.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// The body of a successful answer. HTTP/1.0, so that the body ends with the connection.
pub(super) async fn get(address: SocketAddrV4, path: &str) -> anyhow::Result<String> {
    timeout(LIMIT, exchange(address, path)).await.with_context(|| format!("no answer from {address} in {LIMIT:?}"))?
}

async fn exchange(address: SocketAddrV4, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(BODY_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{address}{path} answered {status}");
    }
    Ok(body.to_owned())
}
