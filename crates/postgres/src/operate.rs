//! Promotion, reload, checkpoint: what a running server is asked to do.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::client::{ConnectOptions, Connection, Ready, Row, knock};
use crate::config::remove_if_present;
use crate::control::ClusterState;
use crate::error::{Error, SqlError};
use crate::instance::Instance;
use crate::process::Postmaster;
use crate::replication::checkpoint_at;

/// End of recovery is near when it is asked about: this is what a promotion waits at most for nothing.
const PROMOTION_POLL: Duration = Duration::from_millis(5);

impl Instance {
    /// Asks a standby to become primary and returns at once: see [`Instance::wait_promoted`].
    ///
    /// # Errors
    /// [`Error::NotRunning`], and when the server is not in recovery.
    pub async fn promote(&self) -> Result<(), Error> {
        let postmaster = self.running()?;
        match self.control_quick_look().map(|look| look.state) {
            Some(ClusterState::InArchiveRecovery) | None => {}
            Some(ClusterState::InProduction) => return Ok(()),
            Some(
                state @ (ClusterState::StartingUp
                | ClusterState::ShutDown
                | ClusterState::ShutDownInRecovery
                | ClusterState::ShuttingDown
                | ClusterState::InCrashRecovery),
            ) => return Err(Error::Refused(format!("PostgreSQL cannot be promoted while it is {state}"))),
        }
        // What pg_promote() and pg_ctl do, without a connection or a program.
        let path = self.in_data_dir("promote");
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.map_err(Error::file("write", &path))?;
        let signalled = postmaster.process().signal(Signal::USR1).map_err(Error::file("signal the server of", &path));
        if !matches!(signalled, Ok(true)) {
            // A server that was not told looks for the file at the next signal that it gets for whatever reason.
            remove_if_present(&path)?;
        }
        if signalled? { Ok(()) } else { Err(Error::NotRunning) }
    }

    /// Waits until the server is out of recovery and accepts writes, at most for `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], and [`Error::Ended`] the moment the server ends.
    pub async fn wait_promoted(&self, timeout: Duration) -> Result<(), Error> {
        let postmaster = self.running()?;
        let deadline = Instant::now() + timeout;
        loop {
            // The control file changes just before the server accepts writes, and costs nothing to look at.
            let is_near = self.control_quick_look().is_none_or(|look| look.state == ClusterState::InProduction);
            if is_near && !self.is_in_recovery().await.unwrap_or(true) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout {
                    what: "PostgreSQL did not end recovery after its promotion",
                    after: timeout,
                });
            }
            if postmaster.exited_within(PROMOTION_POLL).await {
                return Err(Error::Ended { output: self.server_output_tail() });
            }
        }
    }

    /// `pg_is_in_recovery()`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn is_in_recovery(&self) -> Result<bool, SqlError> {
        let rows = self.query("SELECT pg_is_in_recovery()").await?;
        Ok(rows.first().is_some_and(|row| row.is_true(0)))
    }

    /// Asks the server to read its configuration files again.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn reload(&self) -> Result<(), Error> {
        let postmaster = self.running()?;
        let failed = Error::file("signal the server of", self.settings().data_dir.clone());
        if postmaster.process().signal(Signal::HUP).map_err(failed)? { Ok(()) } else { Err(Error::NotRunning) }
    }

    /// Writes a checkpoint, on a connection of its own; `None` leaves it without limit. Dropping the future leaves the
    /// server at work.
    ///
    /// # Errors
    /// When the server does not answer in time.
    pub async fn checkpoint(&self, limit: Option<Duration>) -> Result<(), Error> {
        checkpoint_at(&self.settings().local(), limit).await?;
        Ok(())
    }

    /// Lets replay that was paused go on (FOL-7).
    ///
    /// # Errors
    /// When the server does not answer or is not in recovery.
    pub async fn resume_replay(&self) -> Result<(), Error> {
        self.query("SELECT pg_wal_replay_resume()").await?;
        Ok(())
    }

    /// What a new connection is told, without logging in: as `pg_isready` does.
    pub async fn ready_state(&self) -> Ready {
        knock(&self.settings().local(), &ConnectOptions::default()).await
    }

    /// Runs statements on the connection that the monitoring keeps, opened when needed. They have to be short.
    ///
    /// # Errors
    /// When the server cannot be reached, or does not answer within the statement time-out.
    pub async fn query(&self, sql: &str) -> Result<Vec<Row>, SqlError> {
        Ok(self.query_sets(sql).await?.into_iter().flatten().collect())
    }

    pub(crate) async fn query_sets(&self, sql: &str) -> Result<Vec<Vec<Row>>, SqlError> {
        self.with_heartbeat(|_| sql.to_owned()).await.map(|(_, sets)| sets)
    }

    /// Runs on the kept connection what `sql` makes for the version of its server. A kept connection that turns out to
    /// be broken is replaced, once.
    pub(crate) async fn with_heartbeat(&self, sql: impl Fn(u32) -> String) -> Result<(u32, Vec<Vec<Row>>), SqlError> {
        let mut slot = self.0.heartbeat.lock().await;
        let kept = slot.take().filter(Connection::is_usable);
        if let Some(mut connection) = kept {
            let version = connection.server_version();
            let result = connection.query_sets(&sql(version)).await;
            let is_broken = matches!(&result, Err(SqlError::Unreachable { .. }))
                || result.as_ref().is_err_and(|error| error.code().is_some_and(|code| code.starts_with("57P")));
            if !is_broken {
                if connection.is_usable() {
                    *slot = Some(connection);
                }
                return result.map(|sets| (version, sets));
            }
        }
        let options =
            ConnectOptions { application_name: self.0.connection_name.to_owned(), ..ConnectOptions::default() };
        let mut connection = Connection::open(&self.settings().local(), &options).await?;
        let version = connection.server_version();
        let result = connection.query_sets(&sql(version)).await;
        if connection.is_usable() {
            *slot = Some(connection);
        }
        result.map(|sets| (version, sets))
    }

    /// Closes the kept connection, so that it does not hold up a stop.
    pub(crate) async fn close_connections(&self) {
        // One that is in use is cut by the server.
        if let Ok(mut slot) = self.0.heartbeat.try_lock()
            && let Some(connection) = slot.take()
        {
            connection.close().await;
        }
    }

    fn running(&self) -> Result<Postmaster, Error> {
        let found = self.postmaster().map_err(Error::file("look for", "postmaster.pid"))?;
        found.filter(|postmaster| !postmaster.is_single_user()).ok_or(Error::NotRunning)
    }
}
