//! The control file: what the server last knew about itself, readable while it is down.
//!
//! [`ControlData::parse`] reads the text of `pg_controldata`, which verifies the checksum, and is the authority.
//! [`quick_look`] reads the few fields at the head of the file whose place is the same in all supported versions, for
//! loops that wait for a change and confirm it afterwards.

use std::collections::HashMap;
use std::path::Path;

use pgward_core::wal::{Lsn, Timeline};

/// `Database cluster state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// `starting up`.
    StartingUp,
    /// `shut down`.
    ShutDown,
    /// `shut down in recovery`.
    ShutDownInRecovery,
    /// `shutting down`.
    ShuttingDown,
    /// `in crash recovery`.
    InCrashRecovery,
    /// `in archive recovery`: a standby that runs or did not stop in order.
    InArchiveRecovery,
    /// `in production`: a primary that runs or did not stop in order.
    InProduction,
}

impl ClusterState {
    /// The text of `pg_controldata`.
    pub fn as_str(self) -> &'static str {
        match self {
            ClusterState::StartingUp => "starting up",
            ClusterState::ShutDown => "shut down",
            ClusterState::ShutDownInRecovery => "shut down in recovery",
            ClusterState::ShuttingDown => "shutting down",
            ClusterState::InCrashRecovery => "in crash recovery",
            ClusterState::InArchiveRecovery => "in archive recovery",
            ClusterState::InProduction => "in production",
        }
    }

    /// All states in the order of their numbers in the file.
    pub(crate) const ALL: [ClusterState; 7] = [
        ClusterState::StartingUp,
        ClusterState::ShutDown,
        ClusterState::ShutDownInRecovery,
        ClusterState::ShuttingDown,
        ClusterState::InCrashRecovery,
        ClusterState::InArchiveRecovery,
        ClusterState::InProduction,
    ];
}

impl std::fmt::Display for ClusterState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fields of the control file that matter here. Each is `None` when the output has no such line or an odd value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlData {
    /// Cluster state.
    pub state: Option<ClusterState>,
    /// System identifier, in decimal digits.
    pub system_id: Option<String>,
    /// Location of the latest checkpoint.
    pub checkpoint: Option<Lsn>,
    /// Its timeline.
    pub checkpoint_timeline: Option<Timeline>,
    /// The WAL file that holds its redo location.
    pub checkpoint_wal_file: Option<String>,
    /// Minimum recovery ending location; `None` for 0/0 as well.
    pub min_recovery_end: Option<Lsn>,
    /// Its timeline; `None` for 0 as well.
    pub min_recovery_end_timeline: Option<Timeline>,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// Data checksums are on.
    pub data_checksums: bool,
    /// The five settings that a standby must not have smaller than this, by parameter name (5.2).
    pub settings: HashMap<&'static str, u64>,
    /// Bytes in a WAL segment.
    pub wal_segment_bytes: Option<u64>,
}

/// `max_prepared_xacts` and so on, as the file spells them, and the parameters they are.
const SETTINGS: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

impl ControlData {
    /// Reads the output of `pg_controldata` in the C locale. Lines without a colon and unknown keys are skipped.
    pub fn parse(text: &str) -> ControlData {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let fields: HashMap<&str, &str> =
            lines.map(|(key, value)| (key.trim().trim_start_matches("Current "), value.trim())).collect();
        let lsn = |key: &str| fields.get(key).and_then(|text| text.parse::<Lsn>().ok());
        let timeline = |key: &str| fields.get(key).and_then(|text| text.parse::<Timeline>().ok());
        let is_on = |key: &str| fields.get(key).is_some_and(|text| *text == "on");
        let setting =
            |(key, name): (&str, &'static str)| fields.get(key).and_then(|text| Some((name, text.parse().ok()?)));
        ControlData {
            state: fields
                .get("Database cluster state")
                .and_then(|text| ClusterState::ALL.into_iter().find(|state| state.as_str() == *text)),
            system_id: fields
                .get("Database system identifier")
                .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
                .map(|text| (*text).to_owned()),
            checkpoint: lsn("Latest checkpoint location"),
            checkpoint_timeline: timeline("Latest checkpoint's TimeLineID"),
            checkpoint_wal_file: fields.get("Latest checkpoint's REDO WAL file").map(|text| (*text).to_owned()),
            min_recovery_end: lsn("Minimum recovery ending location").filter(|lsn| *lsn != Lsn::INVALID),
            min_recovery_end_timeline: timeline("Min recovery ending loc's timeline"),
            wal_log_hints: is_on("wal_log_hints setting"),
            data_checksums: fields.get("Data page checksum version").is_some_and(|text| *text != "0"),
            settings: SETTINGS.into_iter().filter_map(setting).collect(),
            wal_segment_bytes: fields.get("Bytes per WAL segment").and_then(|text| text.parse().ok()),
        }
    }

    /// pg_rewind can work on this data directory (9.2).
    pub fn allows_rewind(&self) -> bool {
        self.wal_log_hints || self.data_checksums
    }
}

/// The head of the control file, without its checksum having been verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuickLook {
    /// System identifier.
    pub system_id: u64,
    /// Cluster state.
    pub state: ClusterState,
    /// Location of the latest checkpoint.
    pub checkpoint: Lsn,
    /// Timeline of the latest checkpoint.
    pub checkpoint_timeline: Option<Timeline>,
}

/// Reads the head of the control file; `None` when it is missing or of an unknown layout.
pub(crate) fn quick_look(data_dir: &Path) -> Option<QuickLook> {
    use std::io::Read;
    let mut head = [0; 64];
    std::fs::File::open(data_dir.join("global/pg_control")).ok()?.read_exact(&mut head).ok()?;
    decode_head(&head)
}

/// `ControlFileData` begins, in the order and alignment of the machine: system_identifier u64, pg_control_version u32,
/// catalog_version_no u32, state i32, time i64, checkPoint u64, and its copy: redo u64, ThisTimeLineID u32. Versions
/// 13 to 18 share this.
pub(crate) fn decode_head(head: &[u8; 64]) -> Option<QuickLook> {
    let bytes4 = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
    let bytes8 = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes);
    if !(1300..1900).contains(&bytes4(8)?) {
        return None;
    }
    Some(QuickLook {
        system_id: bytes8(0)?,
        state: *ClusterState::ALL.get(usize::try_from(bytes4(16)?).ok()?)?,
        checkpoint: Lsn(bytes8(32)?),
        checkpoint_timeline: Timeline::new(bytes4(48)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = "\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7345678901234567890
Database cluster state:               shut down in recovery
pg_control last modified:             Mon 01 Jan 2024 10:11:12 AM UTC
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's REDO WAL file:    000000010000000000000003
Latest checkpoint's TimeLineID:       1
Latest checkpoint's PrevTimeLineID:   1
Minimum recovery ending location:     0/30000D8
Min recovery ending loc's timeline:   1
wal_log_hints setting:                on
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
Bytes per WAL segment:                16777216
Data page checksum version:           0
";

    #[test]
    fn the_fields_of_all_supported_versions_are_read() {
        // 13-17 print the settings with their bare names; servers before 9.5 had put "Current " before them. 18 adds
        // lines, which are skipped.
        for text in [
            COMMON.to_owned(),
            COMMON.replace("max_", "Current max_").replace("wal_log_hints", "Current wal_log_hints"),
            format!("{COMMON}Default char data signedness:         signed\nMock authentication nonce: abc\n"),
            format!("pg_controldata: warning without colon-key\nWARNING\n\n{COMMON}"),
        ] {
            let data = ControlData::parse(&text);
            assert_eq!(data.state, Some(ClusterState::ShutDownInRecovery), "{text}");
            assert_eq!(data.system_id.as_deref(), Some("7345678901234567890"));
            assert_eq!(data.checkpoint, Some(Lsn(0x300_0060)));
            assert_eq!(data.checkpoint_timeline, Some(Timeline::FIRST));
            assert_eq!(data.min_recovery_end, Some(Lsn(0x300_00D8)));
            assert_eq!(data.settings["max_prepared_transactions"], 0);
            assert_eq!(data.settings.len(), 5);
            assert!(data.wal_log_hints && !data.data_checksums && data.allows_rewind());
            assert_eq!(data.wal_segment_bytes, Some(16 << 20));
        }
    }

    #[test]
    fn zero_means_unknown_and_garbage_is_not_an_error() {
        let zero = COMMON.replace("0/30000D8", "0/0").replace("timeline:   1", "timeline:   0");
        let data = ControlData::parse(&zero);
        assert_eq!((data.min_recovery_end, data.min_recovery_end_timeline), (None, None));
        assert_eq!(ControlData::parse("no colons\nDatabase cluster state: odd\n:::\n"), ControlData::default());
    }

    #[test]
    fn the_head_of_the_file_is_decoded_only_for_known_layouts() {
        let mut head = [0u8; 64];
        head[0..8].copy_from_slice(&7_u64.to_ne_bytes());
        head[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
        head[16..20].copy_from_slice(&6_u32.to_ne_bytes());
        head[32..40].copy_from_slice(&0x300_0060_u64.to_ne_bytes());
        head[48..52].copy_from_slice(&2_u32.to_ne_bytes());
        let look = decode_head(&head).unwrap();
        assert_eq!((look.system_id, look.state, look.checkpoint), (7, ClusterState::InProduction, Lsn(0x300_0060)));
        assert_eq!(look.checkpoint_timeline, Timeline::new(2));
        for (at, value) in [(8, 1201_u32), (8, 2000), (16, 7), (16, u32::MAX)] {
            let mut odd = head;
            odd[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            assert_eq!(decode_head(&odd), None, "{at} {value}");
        }
    }
}
