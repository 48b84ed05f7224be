//! The one HTTP request that the demo needs: GET on the loopback address, with a deadline.

use std::net::SocketAddrV4;
use std::time::Duration;

use pgward_core::time::rounded;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// On one machine an answer takes milliseconds; a process that needs longer is as good as not there.
const LIMIT: Duration = Duration::from_secs(2);
/// More than a cluster of nine nodes ever answers.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The body of a successful answer. HTTP/1.0, so that it comes in one piece.
pub(super) async fn get(address: SocketAddrV4, path: &str) -> anyhow::Result<String> {
    timeout(LIMIT, exchange(address, path))
        .await
        .with_context(|| format!("no answer from {address} in {}", rounded(LIMIT)))?
}

async fn exchange(address: SocketAddrV4, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut stream = stream.take(ANSWER_BYTES_MAX);
    let mut answer = Vec::new();
    // A starting etcd answers at once and leaves the connection open: the length says when the answer is complete.
    while !is_complete(&answer) && stream.read_buf(&mut answer).await? > 0 {}
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{address}{path} answered {status}");
    }
    Ok(body.to_owned())
}

/// True when the answer has a length and has reached it; without one it ends with the connection.
fn is_complete(answer: &[u8]) -> bool {
    let Some(head_bytes) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..head_bytes]);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| answer.len() - head_bytes - 4 >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_its_length_is_reached() {
        for (answer, want) in [
            ("", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\na", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", true),
            ("HTTP/1.0 200 OK\r\n\r\nab", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: many\r\n\r\nab", false),
        ] {
            assert_eq!(is_complete(answer.as_bytes()), want, "{answer:?}");
        }
    }
}
