//! Connections to PostgreSQL for checks and writers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_postgres::{Client, Config, NoTls};

/// How long one statement of a check may take.
pub const LIMIT: Duration = Duration::from_secs(3);

/// Password of the superuser `postgres` in every test cluster.
pub const SUPERUSER_PASSWORD: &str = "super-secret";

/// Where a server is reached.
#[derive(Clone, Debug)]
pub enum Target {
    /// Over TCP, as clients do.
    Tcp {
        /// Address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Through its Unix socket: works from every network namespace, even when the node is cut off.
    Socket {
        /// Folder of the socket.
        dir: std::path::PathBuf,
        /// Port, which is part of the socket's name.
        port: u16,
    },
}

impl Target {
    /// Through the socket in `dir`.
    pub fn socket(dir: &Path, port: u16) -> Self {
        Self::Socket { dir: dir.to_owned(), port }
    }

    /// Connects as superuser within `limit`.
    ///
    /// # Errors
    /// When the server does not let us in by then.
    pub async fn connect(&self, limit: Duration) -> Result<Client> {
        let mut config = Config::new();
        config.user("postgres").password(SUPERUSER_PASSWORD).dbname("postgres").application_name("pgward test");
        config.connect_timeout(limit);
        match self {
            Self::Tcp { host, port } => config.host(host).port(*port),
            Self::Socket { dir, port } => config.host_path(dir).port(*port),
        };
        let connecting = tokio::time::timeout(limit, config.connect(NoTls)).await;
        let (client, connection) = connecting.with_context(|| format!("no connection within {limit:?}"))??;
        // Ends with the client, or with an error that the client then reports.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Connects as superuser, if the server accepts writes.
    ///
    /// # Errors
    /// When the server does not let us in, does not answer within `limit`, or is read-only.
    pub async fn connect_writable(&self, limit: Duration) -> Result<Client> {
        let client = self.connect(limit).await?;
        let answer = tokio::time::timeout(limit, client.query_one("SHOW transaction_read_only", &[])).await;
        let read_only: String = answer.with_context(|| format!("no answer within {limit:?}"))??.try_get(0)?;
        ensure!(read_only == "off", "the server is read-only");
        Ok(client)
    }

    /// Runs statements and returns the first column of the rows as text.
    ///
    /// # Errors
    /// When it fails or takes longer than [`LIMIT`].
    pub async fn query(&self, statements: &str) -> Result<Vec<String>> {
        let client = self.connect(LIMIT).await?;
        let messages = tokio::time::timeout(LIMIT, client.simple_query(statements)).await;
        let messages = messages.with_context(|| format!("no answer to {statements:?} within {LIMIT:?}"))??;
        let mut rows = Vec::new();
        for message in &messages {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                rows.push(row.get(0).unwrap_or("").to_owned());
            }
        }
        Ok(rows)
    }
}
