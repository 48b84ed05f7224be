//! A small client: log in, run statements in the simple protocol, read text.
//!
//! One client for monitoring, administration and replication commands, so that time-outs, TLS and passwords are handled
//! in one place. It deliberately has no prepared statements, no COPY and no pool.

mod login;
mod tls;
mod wire;
#[cfg(any(test, fuzzing))]
pub(crate) use wire::properties as wire_properties;

use std::io;
use std::str::FromStr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::conninfo::ConnInfo;
use crate::error::SqlError;
use tls::SslMode;
use wire::{Stream, Wire, columns, described, server_error};

/// How to behave on a connection.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Speak the replication protocol instead of SQL.
    pub replication: bool,
    /// The server ends a statement after this; `None` leaves it without limit.
    pub statement_timeout: Option<Duration>,
    /// Limit for connecting and logging in, all hosts together.
    pub limit: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            application_name: "pgward".to_owned(),
            replication: false,
            statement_timeout: Some(STATEMENT_TIMEOUT),
            limit: CONNECT_LIMIT,
        }
    }
}

/// Statements of the agent are small; what takes longer is stuck.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that works answers a log-in at once.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Beyond the server's own limit, for its answer to arrive.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);
/// Where libpq looks for the socket when no host is given: Debian's build, then everybody else's.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// Rejected by `pg_hba.conf`: with `hostssl` lines only, an encrypted attempt may still succeed.
const INVALID_AUTHORIZATION: &str = "28000";

/// What a server says to somebody who knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It would talk.
    Accepting,
    /// It starts, stops or recovers.
    Rejecting,
    /// Nobody answered.
    NoResponse,
}

/// One open connection.
pub struct Connection {
    wire: Wire,
    statement_timeout: Option<Duration>,
    /// Set while an answer is under way, so that a dropped statement leaves the connection unusable.
    busy: bool,
    server_version: u32,
}

/// A row as text, column by column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Vec<Option<Bytes>>);

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The object identifier of its type, as in `pg_type`.
    pub type_oid: u32,
}

/// The answer to one statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its columns; none for a statement without rows.
    pub columns: Vec<Column>,
    /// Its rows.
    pub rows: Vec<Row>,
}

impl Row {
    /// The text of a column; `None` for NULL, for a column that does not exist, and for what is not UTF-8.
    pub fn text(&self, column: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes(column)?).ok()
    }

    /// The bytes of a column.
    pub fn bytes(&self, column: usize) -> Option<&[u8]> {
        self.0.get(column)?.as_deref()
    }

    /// The column as a value; `None` when it is NULL or reads differently.
    pub fn parse<T: FromStr>(&self, column: usize) -> Option<T> {
        self.text(column)?.parse().ok()
    }

    /// True for `t`.
    pub fn is_true(&self, column: usize) -> bool {
        self.text(column) == Some("t")
    }

    /// The text, for keeping.
    pub(crate) fn owned(&self, column: usize) -> Option<String> {
        self.text(column).map(str::to_owned)
    }
}

impl Connection {
    /// Connects and logs in, to the first host that accepts.
    ///
    /// # Errors
    /// The error of the last host; [`SqlError::Timeout`] when the limit passes.
    pub async fn open(info: &ConnInfo, options: &ConnectOptions) -> Result<Connection, SqlError> {
        let attempts = async {
            let mut last = None;
            for address in addresses(info) {
                match open_at(&address, info, options).await {
                    Ok(mut connection) => match connection.wants_other_host(info).await {
                        Ok(false) => return Ok(connection),
                        Ok(true) => last = Some(connection.wire.broken("the session is read-only")),
                        Err(error) => last = Some(error),
                    },
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| SqlError::Unreachable {
                target: info.to_string(),
                source: io::ErrorKind::AddrNotAvailable.into(),
            }))
        };
        match tokio::time::timeout(options.limit, attempts).await {
            Ok(result) => result,
            Err(_) => Err(SqlError::Timeout { target: info.to_string(), after: options.limit }),
        }
    }

    async fn wants_other_host(&mut self, info: &ConnInfo) -> Result<bool, SqlError> {
        if info.target_session_attrs.as_deref() != Some("read-write") {
            return Ok(false);
        }
        let rows = self.query("SHOW transaction_read_only").await?;
        Ok(rows.first().and_then(|row| row.text(0)) == Some("on"))
    }

    /// The server's version, such as 150004.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// False after an error or a dropped statement: open a new connection.
    pub fn is_usable(&self) -> bool {
        !self.busy
    }

    /// Runs one or more statements and returns the rows of all of them. The connection's statement time-out, and a
    /// second for the answer, is the limit; without a time-out there is none, and dropping the future gives up.
    ///
    /// # Errors
    /// [`SqlError::Server`] leaves the connection usable unless the server closed it; every other error does not.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, SqlError> {
        let sets = self.query_sets(sql).await?;
        Ok(sets.into_iter().flatten().collect())
    }

    /// Runs several statements in one round trip and returns their rows, statement by statement.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn query_sets(&mut self, sql: &str) -> Result<Vec<Vec<Row>>, SqlError> {
        Ok(self.answers(sql).await?.into_iter().map(|answer| answer.rows).collect())
    }

    /// Runs several statements in one round trip and returns their answers, statement by statement.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn answers(&mut self, sql: &str) -> Result<Vec<Answer>, SqlError> {
        let Some(limit) = self.statement_timeout.map(|timeout| timeout + ANSWER_MARGIN) else {
            return self.exchange(sql).await;
        };
        match tokio::time::timeout(limit, self.exchange(sql)).await {
            Ok(result) => result,
            Err(_) => Err(SqlError::Timeout { target: self.wire.target.clone(), after: limit }),
        }
    }

    async fn exchange(&mut self, sql: &str) -> Result<Vec<Answer>, SqlError> {
        if self.busy {
            return Err(self.wire.unreachable(io::ErrorKind::NotConnected.into()));
        }
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message).map_err(|error| self.wire.broken(error.to_string()))?;
        self.busy = true;
        self.wire.send(&message).await?;
        let mut answers = Vec::new();
        let mut answer = Answer::default();
        let mut failure = None;
        loop {
            let message = match (self.wire.receive().await, failure) {
                (Ok(message), earlier) => {
                    failure = earlier;
                    message
                }
                // The server closes after a fatal error: the error it sent says more than the closed connection.
                (Err(_), Some(error)) => return Err(error),
                (Err(error), None) => return Err(error),
            };
            match message.tag {
                b'D' => match columns(message.body) {
                    Some(columns) => answer.rows.push(Row(columns)),
                    None => return Err(self.wire.broken("a row of impossible length")),
                },
                b'T' => match described(message.body) {
                    Some(columns) => answer.columns = columns,
                    None => return Err(self.wire.broken("a description of columns that is cut")),
                },
                b'C' | b'I' => answers.push(std::mem::take(&mut answer)),
                b'E' => failure = failure.or_else(|| Some(server_error(&message.body))),
                b'Z' => {
                    self.busy = false;
                    return failure.map_or(Ok(answers), Err);
                }
                b'N' | b'S' | b'A' => {}
                other => return Err(self.wire.broken(format!("an unexpected message {:?}", char::from(other)))),
            }
        }
    }

    /// Says good-bye, so that the server does not log a broken connection.
    pub async fn close(mut self) {
        let mut message = BytesMut::new();
        frontend::terminate(&mut message);
        let _ = tokio::time::timeout(ANSWER_MARGIN, self.wire.send(&message)).await;
    }
}

/// Knocks at a server without logging in, as `pg_isready` does.
pub(crate) async fn knock(info: &ConnInfo, options: &ConnectOptions) -> Ready {
    let attempt = async {
        let mut last = Ready::NoResponse;
        for address in addresses(info) {
            let Ok(stream) = address.dial().await else { continue };
            let mut wire = Wire::new(stream, address.to_string());
            let Ok(message) = login::startup_message(info, options) else { continue };
            if wire.send(&message).await.is_err() {
                continue;
            }
            last = match wire.receive().await {
                Ok(message) if message.tag == b'E' && server_error(&message.body).is_cannot_connect_now() => {
                    Ready::Rejecting
                }
                Ok(message) => {
                    // Asked for a password, the server takes a closed connection in silence and a good-bye for a fault.
                    if message.tag != b'R' || message.body.starts_with(&[0; 4]) {
                        let mut message = BytesMut::new();
                        frontend::terminate(&mut message);
                        let _ = wire.send(&message).await;
                    }
                    return Ready::Accepting;
                }
                Err(_) => last,
            };
        }
        last
    };
    tokio::time::timeout(options.limit, attempt).await.unwrap_or(Ready::NoResponse)
}

/// One place to dial.
enum Address {
    Tcp { host: String, port: u16 },
    Socket(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Socket(path) => f.write_str(path),
        }
    }
}

impl Address {
    async fn dial(&self) -> Result<Box<dyn Stream>, SqlError> {
        Ok(match self {
            Address::Tcp { .. } => Box::new(self.dial_tcp().await?),
            Address::Socket(path) => Box::new(UnixStream::connect(path).await.map_err(|error| self.failed(error))?),
        })
    }

    async fn dial_tcp(&self) -> Result<TcpStream, SqlError> {
        let Address::Tcp { host, port } = self else {
            return Err(self.failed(io::ErrorKind::InvalidInput.into()));
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| self.failed(error))?;
        stream.set_nodelay(true).map_err(|error| self.failed(error))?;
        Ok(stream)
    }

    fn failed(&self, source: io::Error) -> SqlError {
        SqlError::Unreachable { target: self.to_string(), source }
    }

    fn is_loopback(&self) -> bool {
        match self {
            Address::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            Address::Socket(_) => true,
        }
    }
}

fn addresses(info: &ConnInfo) -> Vec<Address> {
    let socket = |directory: &str| Address::Socket(format!("{directory}/.s.PGSQL.{}", info.port));
    let explicit: Vec<Address> = info
        .hosts()
        .map(|host| match host.starts_with('/') {
            true => socket(host),
            false => Address::Tcp { host: host.to_owned(), port: info.port },
        })
        .collect();
    if explicit.is_empty() { SOCKET_DIRECTORIES.map(socket).into() } else { explicit }
}

async fn open_at(address: &Address, info: &ConnInfo, options: &ConnectOptions) -> Result<Connection, SqlError> {
    let tls_error = |problem: String| SqlError::Tls { target: address.to_string(), problem };
    let mode = match (address, SslMode::of(&info.credentials).map_err(tls_error)?) {
        (Address::Socket(_), _) => SslMode::Disable,
        // Nobody listens in on the loopback: encrypt there only when the server insists.
        (Address::Tcp { .. }, SslMode::Prefer) if address.is_loopback() => SslMode::Allow,
        (Address::Tcp { .. }, mode) => mode,
    };
    let plain = async || session(address.dial().await?, address, info, options).await;
    let encrypted = async || session(encrypt(address, mode, info).await?, address, info, options).await;
    match mode {
        SslMode::Disable => plain().await,
        SslMode::Allow => match plain().await {
            Err(error) if error.code() == Some(INVALID_AUTHORIZATION) => encrypted().await.map_err(|_| error),
            other => other,
        },
        SslMode::Prefer => match encrypted().await {
            Err(SqlError::Tls { .. }) => plain().await,
            Err(error) if error.code() == Some(INVALID_AUTHORIZATION) => plain().await.map_err(|_| error),
            other => other,
        },
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => encrypted().await,
    }
}

async fn session(
    stream: Box<dyn Stream>,
    address: &Address,
    info: &ConnInfo,
    options: &ConnectOptions,
) -> Result<Connection, SqlError> {
    let mut wire = Wire::new(stream, address.to_string());
    let server_version = login::log_in(&mut wire, info, options).await?;
    Ok(Connection { wire, statement_timeout: options.statement_timeout, busy: false, server_version })
}

async fn encrypt(address: &Address, mode: SslMode, info: &ConnInfo) -> Result<Box<dyn Stream>, SqlError> {
    let Address::Tcp { host, .. } = address else {
        return Err(address.failed(io::ErrorKind::InvalidInput.into()));
    };
    let tls_error = |problem: String| SqlError::Tls { target: address.to_string(), problem };
    let mut stream = address.dial_tcp().await?;
    if info.credentials.sslnegotiation.as_deref() != Some("direct") {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await.map_err(|error| address.failed(error))?;
        if stream.read_u8().await.map_err(|error| address.failed(error))? != b'S' {
            return Err(tls_error("the server does not offer it".to_owned()));
        }
    }
    Ok(Box::new(tls::wrap(stream, host, mode, &info.credentials).await.map_err(tls_error)?))
}

/// Text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text).trim_start().to_owned()
}

/// Text as an SQL identifier.
pub(crate) fn identifier(text: &str) -> String {
    postgres_protocol::escape::escape_identifier(text).trim_start().to_owned()
}
