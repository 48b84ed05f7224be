//! Logical slots copied from the primary to a standby: version 13 to 16 know no other way.
//!
//! The state file of the primary is written below `pg_replslot` while the standby is down. The data of both are the same, so
//! that what the file says of its database and of WAL is true here too. Whether the catalogue rows that it needs will still
//! be there is for the caller to follow up.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use pgward_core::wal::Lsn;

use crate::client::{ConnectOptions, Connection, literal};
use crate::config::sync_directory;
use crate::conninfo::ConnInfo;
use crate::error::{Error, SqlError};
use crate::instance::Instance;

/// A logical slot as its server keeps it on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotCopy {
    /// Its name.
    pub name: String,
    /// Its database.
    pub database: String,
    /// Its output plugin.
    pub plugin: String,
    /// The oldest WAL that it needs, by its file.
    pub restart: Lsn,
    state: Vec<u8>,
}

/// What a state file begins with (`SLOT_MAGIC` of slot.c).
const MAGIC: u32 = 0x0105_1CA1;
/// Where the name begins in it, after magic number, checksum, version and length.
const NAME_AT: usize = 16;
/// Where the position begins: after the name of 64 bytes, database, persistency, and two transaction numbers.
const RESTART_AT: usize = NAME_AT + 64 + 4 * 4;

/// Reads logical slots of a primary, as a user who may read its files. Slots that it does not have are left out.
///
/// # Errors
/// When the server does not answer, is in recovery, or does not let the user read files.
pub async fn fetch_slots(source: &ConnInfo, names: &[&str]) -> Result<Vec<SlotCopy>, SqlError> {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let sql = format!(
        "SELECT s.slot_name, d.datname, s.plugin, \
         encode(pg_read_binary_file('pg_replslot/' || s.slot_name || '/state'), 'hex') \
         FROM pg_get_replication_slots() s JOIN pg_database d ON d.oid = s.datoid \
         WHERE NOT pg_is_in_recovery() AND NOT s.temporary AND s.slot_type = 'logical' AND s.slot_name IN ({})",
        names.join(", ")
    );
    let rows = once(source, &sql).await?;
    let read = |row: &crate::Row| {
        let state = from_hex(row.text(3)?)?;
        let name = row.owned(0)?;
        let restart = restart_of(&state, &name)?;
        Some(SlotCopy { restart, name, database: row.owned(1)?, plugin: row.owned(2)?, state })
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// The oldest catalogue transaction that each of these slots of a primary holds. Empty when the server is in recovery.
///
/// # Errors
/// When the server does not answer.
pub async fn catalog_xmins(source: &ConnInfo, names: &[&str]) -> Result<BTreeMap<String, Option<u32>>, SqlError> {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let sql = format!(
        "SELECT s.slot_name, s.catalog_xmin FROM pg_get_replication_slots() s \
         WHERE NOT pg_is_in_recovery() AND s.slot_name IN ({})",
        names.join(", ")
    );
    let rows = once(source, &sql).await?;
    Ok(rows.iter().filter_map(|row| Some((row.owned(0)?, row.parse(1)))).collect())
}

async fn once(source: &ConnInfo, sql: &str) -> Result<Vec<crate::Row>, SqlError> {
    let options = ConnectOptions { application_name: "pgward slots".to_owned(), ..ConnectOptions::default() };
    let mut connection = Connection::open(source, &options).await?;
    let rows = connection.query(sql).await?;
    connection.close().await;
    Ok(rows)
}

impl Instance {
    /// Whether this server still has WAL from `position` on. It need not have been replayed.
    ///
    /// # Errors
    /// When the control file or the directory of WAL cannot be read.
    pub async fn has_wal_from(&self, position: Lsn) -> Result<bool, Error> {
        let bytes = self.control_data().await?.wal_segment_bytes.unwrap_or(16 << 20).max(1);
        let directory = self.in_data_dir("pg_wal");
        let entries = fs::read_dir(&directory).map_err(Error::file("list", &directory))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let oldest = names.filter_map(|name| segment_start(&name, bytes)).min();
        Ok(oldest.is_some_and(|oldest| oldest <= position.0))
    }

    /// Writes copied slots in place of whatever has their names. The server must be down.
    ///
    /// # Errors
    /// [`Error::Refused`] while a server runs; a file that cannot be written.
    pub fn install_slots(&self, copies: &[SlotCopy]) -> Result<(), Error> {
        if self.postmaster().map_err(Error::file("look for", "postmaster.pid"))?.is_some() {
            return Err(Error::Refused("a server runs on the data directory: it would not see the slots".to_owned()));
        }
        let parent = self.in_data_dir("pg_replslot");
        for copy in copies {
            // A directory that ends in .tmp is removed by a server that starts, whatever is in it.
            let (directory, temporary) = (parent.join(&copy.name), parent.join(format!("{}.tmp", copy.name)));
            for path in [&directory, &temporary] {
                match fs::remove_dir_all(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::file("remove", path)(error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            fs::create_dir(&temporary).map_err(Error::file("create", &temporary))?;
            let path = temporary.join("state");
            let write = || {
                let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                file.write_all(&copy.state)?;
                file.sync_all()
            };
            write().map_err(Error::file("write", &path))?;
            sync_directory(&temporary)?;
            fs::rename(&temporary, &directory).map_err(Error::file("rename", &temporary))?;
        }
        sync_directory(&parent)
    }
}

/// Where a WAL segment of that name begins; `None` for other files.
fn segment_start(name: &str, segment_bytes: u64) -> Option<u64> {
    let is_segment =
        name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
    let part = |from: usize| u64::from_str_radix(name.get(from..from + 8)?, 16).ok();
    let (high, low) = is_segment.then(|| Some((part(8)?, part(16)?))).flatten()?;
    Some((high << 32) + low * segment_bytes)
}

fn restart_of(state: &[u8], name: &str) -> Option<Lsn> {
    let magic = u32::from_le_bytes(state.get(..4)?.try_into().ok()?);
    let stored = state.get(NAME_AT..NAME_AT + 64)?.split(|byte| *byte == 0).next()?;
    let restart = u64::from_le_bytes(state.get(RESTART_AT..RESTART_AT + 8)?.try_into().ok()?);
    (magic == MAGIC && stored == name.as_bytes()).then_some(Lsn(restart))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::settings::tests::settings;

    /// As PostgreSQL 15 wrote it for a slot of test_decoding, up to the position.
    fn state(name: &str, restart: u64) -> Vec<u8> {
        let mut state = vec![0; 200];
        state[..4].copy_from_slice(&MAGIC.to_le_bytes());
        state[NAME_AT..NAME_AT + name.len()].copy_from_slice(name.as_bytes());
        state[RESTART_AT..RESTART_AT + 8].copy_from_slice(&restart.to_le_bytes());
        state
    }

    #[test]
    fn a_state_file_is_taken_only_for_the_slot_that_it_is_of() {
        assert_eq!(restart_of(&state("cdc", 7), "cdc"), Some(Lsn(7)));
        assert_eq!(restart_of(&state("cdc", 7), "cd"), None);
        assert_eq!(restart_of(&state("cdc", 7)[..90], "cdc"), None, "too short");
        assert_eq!(restart_of(&[0; 200], "cdc"), None, "no state file");
        assert_eq!(from_hex("00fF"), Some(vec![0, 255]));
        assert_eq!((from_hex("0"), from_hex("zz")), (None, None));
        assert_eq!(segment_start("000000030000000200000005", 16 << 20), Some((2 << 32) + 5 * (16 << 20)));
        assert_eq!(segment_start("00000003.history", 16 << 20), None);
    }

    #[test]
    fn a_copied_slot_replaces_what_has_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let slots = directory.path().join("pg_replslot");
        fs::create_dir_all(slots.join("cdc")).unwrap();
        fs::create_dir_all(slots.join("cdc.tmp")).unwrap();
        fs::write(slots.join("cdc/state"), "old").unwrap();
        let instance = Instance::new(Settings { data_dir: directory.path().to_owned(), ..settings() });
        let copy = SlotCopy {
            name: "cdc".into(),
            database: "app".into(),
            plugin: "p".into(),
            restart: Lsn(7),
            state: state("cdc", 7),
        };
        instance.install_slots(std::slice::from_ref(&copy)).unwrap();
        assert_eq!(fs::read(slots.join("cdc/state")).unwrap(), copy.state);
        assert!(!slots.join("cdc.tmp").exists());
    }
}
