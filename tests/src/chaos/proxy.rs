//! TCP proxies inside the test that make links slow or stall them.
//!
//! The kernel of a test machine may have no delay in its packet scheduler, so the agents are configured to reach etcd
//! and one another's PostgreSQL through these. A connection through a stalled link stays open and nothing moves on it,
//! which is what a peer sees of a machine that hangs; packets that are dropped are another matter, see
//! [`super::filter`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How a link behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// How much later everything arrives.
    pub(super) delay: Duration,
    /// Whether nothing moves.
    pub(super) stalled: bool,
}

/// Pieces on their way through a slow link: 64 of 16 KiB, enough for a megabyte a second at a delay of one second.
const PIECES: usize = 64;
const PIECE: usize = 16 * 1024;

/// A proxy for one server. Dropping it ends its connections.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Where it listens.
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on `address` (any port) and connects to `target` for whoever comes. `links` are those that traffic of a
    /// client with this address passes: the worst of them counts.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(super) async fn start(
        address: &str,
        target: String,
        links: impl Fn(SocketAddr) -> Vec<watch::Receiver<Link>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).await.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((client, from)) = listener.accept().await else { continue };
                connections.spawn(pass(client, target.clone(), links(from)));
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes everything in both directions until one side closes; then the other is closed too.
async fn pass(client: TcpStream, target: String, links: Vec<watch::Receiver<Link>>) {
    // A stalled link does not even connect.
    let mut way = Way(links);
    way.is_open().await;
    let Ok(server) = TcpStream::connect(&target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let there = tokio::spawn(one_way(client_read, server_write, way.clone()));
    let back = tokio::spawn(one_way(server_read, client_write, way));
    let (there, back) = (Ended(there), Ended(back));
    there.wait().await;
    back.wait().await;
}

/// A task that ends with its owner.
struct Ended(JoinHandle<()>);

impl Ended {
    async fn wait(mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Everything that a connection passes.
#[derive(Clone)]
struct Way(Vec<watch::Receiver<Link>>);

impl Way {
    fn delay(&self) -> Duration {
        self.0.iter().map(|link| link.borrow().delay).max().unwrap_or_default()
    }

    async fn is_open(&mut self) {
        for link in &mut self.0 {
            // An error means that the run is over.
            let _ = link.wait_for(|link| !link.stalled).await;
        }
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: Way) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let delays = way.clone();
    let reader = tokio::spawn(async move {
        loop {
            let mut piece = vec![0; PIECE];
            match from.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    piece.truncate(length);
                    if sender.send((Instant::now() + delays.delay(), piece)).await.is_err() {
                        break;
                    }
                }
            }
        }
    });
    let reader = Ended(reader);
    while let Some((due, piece)) = receiver.recv().await {
        tokio::time::sleep_until(due.into()).await;
        way.is_open().await;
        if to.write_all(&piece).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
    drop(reader);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that returns what it gets, and a client of it through a proxy with this link.
    async fn echo(link: watch::Receiver<Link>) -> (Proxy, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let proxy = Proxy::start("127.0.0.1", target, move |_| vec![link.clone()]).await.unwrap();
        let client = TcpStream::connect(proxy.address).await.unwrap();
        (proxy, client)
    }

    async fn ask(client: &mut TcpStream) -> Duration {
        let asked = Instant::now();
        client.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
        asked.elapsed()
    }

    #[tokio::test]
    async fn a_slow_link_delays_both_ways() {
        let (links, link) = watch::channel(Link::default());
        let (_proxy, mut client) = echo(link).await;
        ask(&mut client).await;
        let delay = Duration::from_millis(60);
        links.send(Link { delay, stalled: false }).unwrap();
        assert!(ask(&mut client).await >= delay * 2);
    }

    #[tokio::test]
    async fn a_stalled_link_keeps_the_connection_and_delivers_everything_afterwards() {
        let (links, link) = watch::channel(Link::default());
        let (_proxy, mut client) = echo(link).await;
        ask(&mut client).await;
        links.send(Link { stalled: true, ..Link::default() }).unwrap();
        let stalled = tokio::time::timeout(Duration::from_millis(200), ask(&mut client)).await;
        assert!(stalled.is_err(), "answered within {stalled:?}");
        links.send(Link::default()).unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
    }

    #[tokio::test]
    async fn a_connection_that_the_server_refuses_is_closed() {
        let (_links, link) = watch::channel(Link::default());
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let proxy = Proxy::start("127.0.0.1", gone, move |_| vec![link.clone()]).await.unwrap();
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let read = client.read(&mut [0; 1]).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}
