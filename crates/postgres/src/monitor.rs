//! What the running server says about itself, in one round trip.

use std::time::Duration;

use pgward_core::wal::{Lsn, Timeline};

use crate::client::{CONNECT_LIMIT, ConnectOptions, Connection, Row, STATEMENT_TIMEOUT};
use crate::error::SqlError;
use crate::instance::Instance;

/// What to ask for beyond the basics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonitorOptions {
    /// The replication slots.
    pub slots: bool,
    /// Who streams from this server.
    pub walsenders: bool,
}

/// One observation of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Monitoring {
    /// Such as 150004.
    pub server_version: u32,
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// The timeline that a primary writes; `None` in recovery.
    pub timeline: Option<Timeline>,
    /// The flush position of a primary; `None` in recovery.
    pub flushed: Option<Lsn>,
    /// Replayed by a standby.
    pub replayed: Option<Lsn>,
    /// Received and flushed by a standby.
    pub received: Option<Lsn>,
    /// Replay is paused. `None` on a primary.
    pub replay_paused: Option<bool>,
    /// The commit time of the last replayed transaction, as `YYYY-MM-DD HH:MM:SS.ffffff+00:00`.
    pub replayed_timestamp: Option<String>,
    /// The timeline of the last checkpoint in the control file.
    pub control_timeline: Option<Timeline>,
    /// The WAL receiver, when one runs.
    pub receiver: Option<Receiver>,
    /// `restore_command`; empty when not set.
    pub restore_command: String,
    /// `synchronous_commit`.
    pub synchronous_commit: String,
    /// `synchronous_standby_names`.
    pub synchronous_standby_names: String,
    /// Start of the server, as `YYYY-MM-DD HH:MM:SS.ffffff+00:00`.
    pub postmaster_start_time: String,
    /// The slots that are not temporary, when asked for.
    pub slots: Vec<Slot>,
    /// The connections that stream from here, when asked for.
    pub walsenders: Vec<Walsender>,
}

impl Monitoring {
    /// The position that members compare: the flush position of a primary; of a standby the larger of received and
    /// replayed (IN-P5).
    pub fn position(&self) -> Lsn {
        let received = self.received_or_written().max(self.replayed);
        if self.in_recovery { received } else { self.flushed }.unwrap_or_default()
    }

    /// What a standby has received: what its receiver has written, when that is further than what it has flushed.
    pub fn received_or_written(&self) -> Option<Lsn> {
        self.received.max(self.receiver.as_ref().and_then(|receiver| receiver.written))
    }

    /// True when a WAL receiver streams.
    pub fn is_streaming(&self) -> bool {
        self.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming")
    }

    /// `streaming`, `in archive recovery`, or nothing, as members publish it.
    pub fn replication_state(&self) -> Option<&'static str> {
        match (self.in_recovery, self.is_streaming(), self.restore_command.is_empty()) {
            (true, true, _) => Some("streaming"),
            (true, false, false) => Some("in archive recovery"),
            (true, false, true) | (false, _, _) => None,
        }
    }
}

/// `pg_stat_wal_receiver`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receiver {
    /// `streaming` while WAL may arrive.
    pub status: String,
    /// The timeline it receives; `None` until something has been received. It may be ahead of replay.
    pub timeline: Option<Timeline>,
    /// Written and not necessarily flushed.
    pub written: Option<Lsn>,
    /// The end of the upstream's WAL as last reported.
    pub latest_end: Option<Lsn>,
    /// The slot it uses there.
    pub slot: Option<String>,
    /// Its connection string, with the password masked.
    pub conninfo: String,
}

/// The type of a replication slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// For a standby.
    Physical,
    /// For a logical subscriber.
    Logical {
        /// Its output plugin.
        plugin: String,
        /// Its database.
        database: String,
        /// Confirmed by the subscriber.
        confirmed_flush: Option<Lsn>,
        /// 17 and later: kept on standbys by the server itself.
        failover: bool,
        /// 17 and later: copied from the primary by the server itself.
        synced: bool,
    },
}

/// A replication slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: SlotKind,
    /// Somebody uses it.
    pub active: bool,
    /// The oldest transaction it holds.
    pub xmin: Option<String>,
    /// The oldest catalogue transaction it holds.
    pub catalog_xmin: Option<String>,
    /// The oldest WAL it holds; `None` when it reserves nothing.
    pub restart: Option<Lsn>,
    /// Its WAL is gone.
    pub lost: bool,
}

/// A connection that streams from this server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walsender {
    /// Its process.
    pub pid: i32,
    /// User.
    pub usename: String,
    /// The member's name.
    pub application_name: String,
    /// The replication slot that it uses.
    pub slot: Option<String>,
    /// `None` for a local socket.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, `backup`, …
    pub state: String,
    /// `async`, `potential`, `sync` or `quorum`.
    pub sync_state: String,
    /// Its place in the list of synchronous standbys.
    pub sync_priority: i32,
    /// Written there.
    pub written: Option<Lsn>,
    /// Flushed there.
    pub flushed: Option<Lsn>,
    /// Replayed there.
    pub replayed: Option<Lsn>,
}

/// Why nothing could be observed.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// There is no connection, and none could be opened.
    #[error(transparent)]
    Connection(SqlError),
    /// The server did not answer in time, or ended the statement (57014).
    #[error(transparent)]
    Timeout(SqlError),
    /// The server answered with another error.
    #[error(transparent)]
    Other(SqlError),
}

impl From<SqlError> for MonitorError {
    fn from(error: SqlError) -> Self {
        match &error {
            SqlError::Timeout { .. } => MonitorError::Timeout(error),
            SqlError::Server { code, .. } if code == "57014" => MonitorError::Timeout(error),
            // Class 57P: shutting down, crashed, starting; 53300: no connection is left.
            SqlError::Server { code, .. } if code.starts_with("57P") || code == "53300" => {
                MonitorError::Connection(error)
            }
            SqlError::Server { .. } => MonitorError::Other(error),
            SqlError::Unreachable { .. }
            | SqlError::Protocol { .. }
            | SqlError::Tls { .. }
            | SqlError::Login { .. } => MonitorError::Connection(error),
        }
    }
}

/// Time stamps as Patroni publishes them.
const TIMESTAMP: &str = "'YYYY-MM-DD HH24:MI:SS.USTZH:TZM'";

fn basics() -> String {
    format!(
        "SELECT r.recovery, \
         CASE WHEN NOT r.recovery THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END, \
         CASE WHEN NOT r.recovery THEN pg_current_wal_flush_lsn() END, \
         pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn(), \
         CASE WHEN r.recovery THEN pg_is_wal_replay_paused() END, \
         to_char(pg_last_xact_replay_timestamp(), {TIMESTAMP}), \
         (SELECT timeline_id FROM pg_control_checkpoint()), \
         current_setting('restore_command'), current_setting('synchronous_commit'), \
         current_setting('synchronous_standby_names'), to_char(pg_postmaster_start_time(), {TIMESTAMP}), \
         w.pid, w.status, CASE WHEN w.latest_end_lsn IS NOT NULL THEN w.received_tli END, w.written_lsn, \
         w.latest_end_lsn, w.slot_name, w.conninfo \
         FROM (SELECT pg_is_in_recovery() AS recovery) r LEFT JOIN pg_stat_get_wal_receiver() w ON true"
    )
}

fn slots(version: u32) -> String {
    let newer = if version >= 170_000 { "s.failover, s.synced" } else { "false, false" };
    format!(
        "SELECT s.slot_name, s.slot_type, s.active, s.xmin, s.catalog_xmin, s.restart_lsn, s.wal_status = 'lost', \
         s.plugin, (SELECT datname FROM pg_database d WHERE d.oid = s.datoid), s.confirmed_flush_lsn, {newer} \
         FROM pg_get_replication_slots() s WHERE NOT s.temporary ORDER BY s.slot_name"
    )
}

/// The functions behind the view: cheaper, and readable with fewer privileges.
const WALSENDERS: &str = "SELECT w.pid, pg_get_userbyid(a.usesysid), a.application_name, host(a.client_addr), w.state, \
     w.sync_state, w.sync_priority, w.write_lsn, w.flush_lsn, w.replay_lsn, \
     (SELECT s.slot_name FROM pg_get_replication_slots() s WHERE s.active_pid = w.pid LIMIT 1) \
     FROM pg_stat_get_wal_senders() w, LATERAL pg_stat_get_activity(w.pid) a ORDER BY w.pid";

impl Instance {
    /// Observes the server on the kept connection, which is opened when there is none and replaced once when broken. The
    /// server ends a statement after two seconds, and one more is waited for its answer.
    ///
    /// # Errors
    /// [`MonitorError`]: what is known from before stays true until something says otherwise.
    pub async fn monitor(&self, options: &MonitorOptions) -> Result<Monitoring, MonitorError> {
        let sql = |version: u32| {
            let mut statements = vec![basics()];
            if options.slots {
                statements.push(slots(version));
            }
            if options.walsenders {
                statements.push(WALSENDERS.to_owned());
            }
            statements.join(";")
        };
        let (version, mut sets) = self.with_heartbeat(sql).await?;
        let walsenders = if options.walsenders { sets.pop() } else { None };
        let slots = if options.slots { sets.pop() } else { None };
        let row = sets.pop().and_then(|rows| rows.into_iter().next());
        let broken = || SqlError::Protocol {
            target: self.settings().local().to_string(),
            problem: "no row for the state of the server".to_owned(),
        };
        let mut monitoring = read_basics(&row.ok_or_else(broken)?);
        monitoring.server_version = version;
        monitoring.slots = slots.unwrap_or_default().iter().filter_map(read_slot).collect();
        monitoring.walsenders = walsenders.unwrap_or_default().iter().map(read_walsender).collect();
        Ok(monitoring)
    }

    /// Runs a statement on a new connection: an old one can live on in a server that no longer accepts.
    ///
    /// # Errors
    /// As [`Instance::monitor`].
    pub async fn probe(&self) -> Result<Duration, MonitorError> {
        let began = tokio::time::Instant::now();
        let options = ConnectOptions {
            application_name: "pgward probe".to_owned(),
            replication: false,
            statement_timeout: Some(STATEMENT_TIMEOUT),
            limit: CONNECT_LIMIT,
        };
        let mut connection = Connection::open(&self.settings().local(), &options).await?;
        connection.query("SELECT 1").await?;
        connection.close().await;
        Ok(began.elapsed())
    }
}

fn read_basics(row: &Row) -> Monitoring {
    let text = |column: usize| row.owned(column).unwrap_or_default();
    let timeline = |column: usize| row.parse::<Timeline>(column);
    let receiver = || Receiver {
        status: text(13),
        timeline: timeline(14),
        written: row.parse(15),
        latest_end: row.parse(16),
        slot: row.owned(17).filter(|slot| !slot.is_empty()),
        conninfo: text(18),
    };
    Monitoring {
        server_version: 0,
        in_recovery: row.is_true(0),
        timeline: timeline(1),
        flushed: row.parse(2),
        replayed: row.parse(3),
        received: row.parse(4),
        replay_paused: row.text(5).map(|text| text == "t"),
        replayed_timestamp: row.owned(6),
        control_timeline: timeline(7),
        restore_command: text(8),
        synchronous_commit: text(9),
        synchronous_standby_names: text(10),
        postmaster_start_time: text(11),
        receiver: row.text(12).is_some().then(receiver),
        slots: Vec::new(),
        walsenders: Vec::new(),
    }
}

fn read_slot(row: &Row) -> Option<Slot> {
    let kind = match row.text(1)? {
        "logical" => SlotKind::Logical {
            plugin: row.owned(7).unwrap_or_default(),
            database: row.owned(8).unwrap_or_default(),
            confirmed_flush: row.parse(9),
            failover: row.is_true(10),
            synced: row.is_true(11),
        },
        _ => SlotKind::Physical,
    };
    Some(Slot {
        name: row.owned(0)?,
        kind,
        active: row.is_true(2),
        xmin: row.owned(3),
        catalog_xmin: row.owned(4),
        restart: row.parse(5),
        lost: row.is_true(6),
    })
}

fn read_walsender(row: &Row) -> Walsender {
    let text = |column: usize| row.owned(column).unwrap_or_default();
    Walsender {
        pid: row.parse(0).unwrap_or_default(),
        usename: text(1),
        application_name: text(2),
        client_addr: row.owned(3),
        state: text(4),
        sync_state: text(5),
        sync_priority: row.parse(6).unwrap_or_default(),
        written: row.parse(7),
        flushed: row.parse(8),
        replayed: row.parse(9),
        slot: row.owned(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_of_a_standby_is_the_furthest_it_has() {
        let at = |lsn: u64| Some(Lsn(lsn));
        let standby = Monitoring { in_recovery: true, replayed: at(5), received: at(7), ..Monitoring::default() };
        assert_eq!(standby.position(), Lsn(7));
        let receiver = Some(Receiver { written: at(9), status: "streaming".into(), ..Receiver::default() });
        assert_eq!(Monitoring { receiver, ..standby.clone() }.position(), Lsn(9));
        assert_eq!(Monitoring { received: None, ..standby }.position(), Lsn(5), "from the archive only");
        assert_eq!(Monitoring { flushed: at(3), ..Monitoring::default() }.position(), Lsn(3));
    }

    #[test]
    fn a_cancelled_statement_counts_as_a_time_out() {
        let server = |code: &str| {
            let code = code.to_owned();
            MonitorError::from(SqlError::Server { severity: "ERROR".into(), code, message: "m".into() })
        };
        assert!(matches!(server("57014"), MonitorError::Timeout(_)));
        assert!(matches!(server("57P01"), MonitorError::Connection(_)));
        assert!(matches!(server("42501"), MonitorError::Other(_)));
    }
}
