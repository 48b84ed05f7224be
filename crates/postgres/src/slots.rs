//! Replication slots: physical ones for other members, and logical ones that outlive a change of leader.

use std::time::Duration;

use pgward_core::wal::Lsn;

use crate::client::{ConnectOptions, Connection, identifier, literal};
use crate::error::SqlError;
use crate::instance::Instance;

/// A physical slot is advanced without reading WAL; a standby's disk may be slow.
const ADVANCE_LIMIT: Duration = Duration::from_secs(30);
/// A logical slot is created when every transaction under way has ended, and advanced by reading all WAL in between.
const DECODE_LIMIT: Duration = Duration::from_secs(600);
/// What connections that decode are called in `pg_stat_activity`.
const DECODER: &str = "pgward logical slots";

impl Instance {
    /// Creates a physical slot that reserves WAL at once; false when there is one of that name.
    ///
    /// # Errors
    /// When the server does not answer, or has no slot left.
    pub async fn create_physical_slot(&self, name: &str) -> Result<bool, SqlError> {
        let name = literal(name);
        let rows = self
            .query(&format!(
                "SELECT pg_create_physical_replication_slot({name}, true) \
                 WHERE NOT EXISTS (SELECT FROM pg_get_replication_slots() s WHERE s.slot_name = {name})"
            ))
            .await?;
        Ok(!rows.is_empty())
    }

    /// Drops a slot unless somebody uses it; false when somebody does, or when there is none.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn drop_slot(&self, name: &str) -> Result<bool, SqlError> {
        let sql = format!(
            "SELECT pg_drop_replication_slot(s.slot_name) FROM pg_get_replication_slots() s \
             WHERE s.slot_name = {} AND NOT s.active",
            literal(name)
        );
        match self.query(&sql).await {
            Ok(rows) => Ok(!rows.is_empty()),
            // Somebody began to use it in between (55006).
            Err(error) if error.code() == Some("55006") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves an unused slot forward, never back, so that it does not hold WAL that nobody needs; false when there was
    /// nothing to move.
    ///
    /// # Errors
    /// When the server does not answer, or the position is beyond what it has.
    pub async fn advance_slot(&self, name: &str, to: Lsn) -> Result<bool, SqlError> {
        let options = ConnectOptions {
            application_name: "pgward slots".to_owned(),
            statement_timeout: Some(ADVANCE_LIMIT),
            ..ConnectOptions::default()
        };
        let mut connection = Connection::open(&self.settings().local(), &options).await?;
        let sql = format!(
            "SELECT pg_replication_slot_advance(s.slot_name, '{to}') FROM pg_get_replication_slots() s \
             WHERE s.slot_name = {} AND NOT s.active AND s.restart_lsn < '{to}'",
            literal(name)
        );
        let rows = connection.query(&sql).await?;
        connection.close().await;
        Ok(!rows.is_empty())
    }

    /// Creates a logical slot; false when there is one of that name. Waits until every transaction under way has ended, ten
    /// minutes at most. With `failover`, for version 17 and later, the server keeps it on standbys.
    ///
    /// # Errors
    /// When the server does not answer, has no slot left, does not know the database or the plugin, or `wal_level` is not
    /// `logical`.
    pub async fn create_logical_slot(
        &self,
        name: &str,
        database: &str,
        plugin: &str,
        failover: bool,
    ) -> Result<bool, SqlError> {
        let (name, plugin) = (literal(name), literal(plugin));
        let options = if failover { ", false, false, true" } else { "" };
        let sql = format!(
            "SELECT pg_create_logical_replication_slot({name}, {plugin}{options}) \
             WHERE NOT EXISTS (SELECT FROM pg_get_replication_slots() s WHERE s.slot_name = {name})"
        );
        Ok(!self.decode(database, &sql).await?.is_empty())
    }

    /// Moves an unused logical slot forward, never back; false when there was nothing to move. Reads all WAL in between.
    ///
    /// # Errors
    /// When the server does not answer, or some of that WAL is gone (58P01) or the slot is not usable any more (55000).
    pub async fn advance_logical_slot(&self, name: &str, database: &str, to: Lsn) -> Result<bool, SqlError> {
        let sql = format!(
            "SELECT pg_replication_slot_advance(s.slot_name, '{to}') FROM pg_get_replication_slots() s \
             WHERE s.slot_name = {} AND NOT s.active AND s.confirmed_flush_lsn < '{to}'",
            literal(name)
        );
        Ok(!self.decode(database, &sql).await?.is_empty())
    }

    async fn decode(&self, database: &str, sql: &str) -> Result<Vec<crate::Row>, SqlError> {
        let target = crate::ConnInfo { database: Some(database.to_owned()), ..self.settings().local() };
        let options = ConnectOptions {
            application_name: DECODER.to_owned(),
            statement_timeout: Some(DECODE_LIMIT),
            ..ConnectOptions::default()
        };
        let mut connection = Connection::open(&target, &options).await?;
        let rows = connection.query(sql).await?;
        connection.close().await;
        Ok(rows)
    }

    /// Tells the server, version 17 or later, to keep a logical slot on standbys, or not to.
    ///
    /// # Errors
    /// When the server does not answer, or somebody uses the slot.
    pub async fn set_slot_failover(&self, name: &str, failover: bool) -> Result<(), SqlError> {
        let options = ConnectOptions {
            application_name: DECODER.to_owned(),
            replication: true,
            statement_timeout: Some(ADVANCE_LIMIT),
            ..ConnectOptions::default()
        };
        let mut connection = Connection::open(&self.settings().local_replication(), &options).await?;
        connection.query(&format!("ALTER_REPLICATION_SLOT {} ( FAILOVER {failover} )", identifier(name))).await?;
        connection.close().await;
        Ok(())
    }

    /// Ends what still decodes here for the agent: a slot that is in use keeps its consumer out.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn end_decoding(&self) -> Result<(), SqlError> {
        let sql = format!(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_get_activity(NULL) a WHERE a.application_name = {}",
            literal(DECODER)
        );
        self.query(&sql).await.map(drop)
    }
}
