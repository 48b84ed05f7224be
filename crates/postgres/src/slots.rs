//! Physical replication slots for other members.

use std::time::Duration;

use pgward_core::wal::Lsn;

use crate::client::{ConnectOptions, Connection, literal};
use crate::error::SqlError;
use crate::instance::Instance;

/// A physical slot is advanced without reading WAL; a standby's disk may be slow.
const ADVANCE_LIMIT: Duration = Duration::from_secs(30);

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
}
