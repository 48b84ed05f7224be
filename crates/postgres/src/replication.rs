//! Questions to a server, local or not, about its identity and history.

use std::fs;
use std::time::Duration;

use pgward_core::cluster::{History, HistoryLine};
use pgward_core::wal::{Lsn, Timeline};

use crate::client::{ConnectOptions, Connection};
use crate::conninfo::ConnInfo;
use crate::error::SqlError;
use crate::instance::Instance;

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The system identifier, in decimal digits.
    pub system_id: String,
    /// The timeline; of a standby the one it replays.
    pub timeline: Timeline,
    /// The position up to which WAL could be sent.
    pub position: Lsn,
}

impl Instance {
    /// `IDENTIFY_SYSTEM` on the local server.
    ///
    /// # Errors
    /// When the server does not answer, or refuses a replication connection.
    pub async fn identify_system(&self) -> Result<SystemIdentity, SqlError> {
        identify_system(&self.settings().local_replication()).await
    }

    /// The history of a timeline from the local directory of WAL; `None` when there is no readable file.
    pub fn local_history(&self, timeline: Timeline) -> Option<History> {
        let name = format!("pg_wal/{:08X}.history", timeline.get());
        parse_history(&fs::read_to_string(self.in_data_dir(name)).ok()?)
    }
}

/// `IDENTIFY_SYSTEM` on any server, as the replication user.
///
/// # Errors
/// When the server does not answer, or refuses a replication connection.
pub async fn identify_system(server: &ConnInfo) -> Result<SystemIdentity, SqlError> {
    let mut connection = replication_connection(server).await?;
    let rows = connection.query("IDENTIFY_SYSTEM").await?;
    connection.close().await;
    let read = |row: &crate::Row| {
        Some(SystemIdentity { system_id: row.owned(0)?, timeline: row.parse(1)?, position: row.parse(2)? })
    };
    rows.first().and_then(read).ok_or_else(|| odd_answer(server, "IDENTIFY_SYSTEM"))
}

/// The history of a timeline from any server, as the replication user.
///
/// # Errors
/// When the server does not answer or has no such timeline.
pub async fn timeline_history(server: &ConnInfo, timeline: Timeline) -> Result<History, SqlError> {
    if timeline == Timeline::FIRST {
        return Ok(History::default());
    }
    let mut connection = replication_connection(server).await?;
    let rows = connection.query(&format!("TIMELINE_HISTORY {timeline}")).await?;
    connection.close().await;
    let content = rows.first().and_then(|row| row.bytes(1)).map(String::from_utf8_lossy);
    content.and_then(|text| parse_history(&text)).ok_or_else(|| odd_answer(server, "TIMELINE_HISTORY"))
}

/// Whether a server is in recovery, asked as the user in `server`.
///
/// # Errors
/// When the server does not answer.
pub async fn is_in_recovery(server: &ConnInfo) -> Result<bool, SqlError> {
    let rows = query_once(server, "SELECT pg_is_in_recovery()").await?;
    rows.first().map(|row| row.is_true(0)).ok_or_else(|| odd_answer(server, "pg_is_in_recovery()"))
}

/// Whether the control file of a primary is on its present timeline: only then can others be rewound from it.
///
/// # Errors
/// When the server does not answer.
pub async fn is_checkpointed(server: &ConnInfo) -> Result<bool, SqlError> {
    let sql = "SELECT NOT pg_is_in_recovery() AND timeline_id = \
               ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint FROM pg_control_checkpoint()";
    let rows = query_once(server, sql).await?;
    rows.first().map(|row| row.is_true(0)).ok_or_else(|| odd_answer(server, "pg_control_checkpoint()"))
}

/// Writes a checkpoint on any server, as a user that may: afterwards others can be rewound from it.
///
/// # Errors
/// When the server does not answer within `limit`.
pub async fn checkpoint_at(server: &ConnInfo, limit: Option<Duration>) -> Result<(), SqlError> {
    let application_name = "pgward checkpoint".to_owned();
    let options = ConnectOptions { application_name, statement_timeout: limit, ..ConnectOptions::default() };
    let mut connection = Connection::open(server, &options).await?;
    connection.query("CHECKPOINT").await?;
    connection.close().await;
    Ok(())
}

/// Runs statements on a connection of their own, with the usual time-outs.
///
/// # Errors
/// When the server does not answer, or answers with an error.
pub async fn query_once(server: &ConnInfo, sql: &str) -> Result<Vec<crate::Row>, SqlError> {
    let mut connection = Connection::open(server, &ConnectOptions::default()).await?;
    let rows = connection.query(sql).await?;
    connection.close().await;
    Ok(rows)
}

async fn replication_connection(server: &ConnInfo) -> Result<Connection, SqlError> {
    let options = ConnectOptions { replication: true, ..ConnectOptions::default() };
    Connection::open(server, &options).await
}

fn odd_answer(server: &ConnInfo, question: &str) -> SqlError {
    SqlError::Protocol { target: server.to_string(), problem: format!("an answer to {question} that makes no sense") }
}

/// Reads a history file: a timeline, where it ended, and why, on each line that is no comment. `None` for what the
/// server would refuse too: a line of another form, or timelines that do not rise. The positions may stay or even fall,
/// when recovery ended at a target before the switch that it was to follow.
pub(crate) fn parse_history(text: &str) -> Option<History> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &str| {
        let mut fields = line.splitn(3, ['\t', ' ']).map(str::trim);
        Some(HistoryLine {
            timeline: fields.next()?.parse().ok()?,
            lsn: fields.next()?.parse().ok()?,
            reason: fields.next().unwrap_or_default().to_owned(),
            timestamp: None,
            new_leader: None,
        })
    };
    let lines = lines.map(parse).collect::<Option<Vec<_>>>()?;
    lines.is_sorted_by(|one, next| one.timeline < next.timeline).then_some(History { lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_is_read_as_the_server_writes_it() {
        let text = "1\t0/3000060\tno recovery target specified\n\n# comment\n2\t0/5000000\tbefore 2024-01-01\n";
        let history = parse_history(text).unwrap();
        assert_eq!(history.lines.len(), 2);
        assert_eq!(history.lines[0].reason, "no recovery target specified");
        assert_eq!((history.lines[1].timeline.get(), history.lines[1].lsn), (2, Lsn(0x500_0000)));
        assert!(parse_history("x\t0/1\t\n").is_none());
        assert!(parse_history("1\n").is_none());
        for timelines in ["2\t0/1\n1\t0/2\n", "1\t0/1\n1\t0/2\n"] {
            assert!(parse_history(timelines).is_none(), "INV-S23: {timelines:?}");
        }
        assert!(parse_history("1\t0/5\t\n2\t0/3\tbefore the switch\n").is_some(), "recovery to a point in time");
    }
}
