//! Single WAL records, as `pg_waldump` prints them.

use std::time::Duration;

use pgward_core::wal::{Lsn, Timeline};

use crate::command::{Tool, ToolOutput};
use crate::control::ControlData;
use crate::error::{CommandError, Error};
use crate::instance::Instance;

/// Two records at a known place.
const WALDUMP_LIMIT: Duration = Duration::from_secs(10);
/// The header of the first page of a segment, after which its first record begins.
const LONG_HEADER_BYTES: u64 = 40;
/// WAL is written in pages of this size unless the server was built otherwise.
const PAGE_BYTES: u64 = 8192;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) lsn: Lsn,
    pub(crate) prev: Lsn,
    pub(crate) bytes: u64,
    pub(crate) description: String,
}

impl Instance {
    /// Where the record after the shutdown checkpoint would begin (9.4): up to there, and no further, this server wrote
    /// what a new primary may have replayed. `None` when the record is not a shutdown checkpoint.
    ///
    /// # Errors
    /// When WAL cannot be read.
    pub async fn shutdown_checkpoint_end(&self, control: &ControlData) -> Result<Option<Lsn>, Error> {
        let (Some(checkpoint), Some(timeline)) = (control.checkpoint, control.checkpoint_timeline) else {
            return Ok(None);
        };
        let (output, failure) = self.waldump(timeline, checkpoint, 2).await?;
        let mut records = output.stdout.lines().filter_map(parse_record);
        let Some(record) = records.next() else {
            return Err(Error::Refused(format!("cannot read the shutdown checkpoint at {checkpoint}: {failure}")));
        };
        if !record.description.starts_with("CHECKPOINT_SHUTDOWN") {
            return Ok(None);
        }
        let next = records.next().map(|record| record.lsn);
        Ok(next.or_else(|| end_from_error(&failure)).or_else(|| end_within_page(&record)))
    }

    /// The position before a segment switch that directly precedes the shutdown checkpoint (3.6).
    pub(crate) async fn position_before_switch(&self, control: &ControlData, checkpoint: Lsn) -> Option<Lsn> {
        let (timeline, segment) = (control.checkpoint_timeline?, control.wal_segment_bytes?);
        // A switch fills its segment, so that the checkpoint can only be the first record of the next one.
        if checkpoint.0.checked_rem(segment)? != LONG_HEADER_BYTES {
            return None;
        }
        let before = self.record_at(timeline, checkpoint).await?.prev;
        let record = self.record_at(timeline, before).await?;
        (record.description.trim() == "SWITCH").then_some(before)
    }

    async fn record_at(&self, timeline: Timeline, at: Lsn) -> Option<Record> {
        let (output, _) = self.waldump(timeline, at, 1).await.ok()?;
        output.stdout.lines().find_map(parse_record)
    }

    /// What it printed, and why it stopped: the end of WAL is an error to it.
    async fn waldump(&self, timeline: Timeline, from: Lsn, count: u32) -> Result<(ToolOutput, String), Error> {
        let settings = self.settings();
        let tool = Tool::new(&settings, "pg_waldump")
            .arg("-p")
            .arg(settings.data_dir.join("pg_wal"))
            .args(["-t", &timeline.to_string(), "-s", &from.to_string(), "-n", &count.to_string()])
            .limit(WALDUMP_LIMIT);
        match tool.run().await {
            Ok(output) => {
                let failure = output.stderr.clone();
                Ok((output, failure))
            }
            Err(CommandError::Failed { output, .. }) => {
                Ok((ToolOutput { stdout: output.clone(), stderr: String::new() }, output))
            }
            Err(other) => Err(other.into()),
        }
    }
}

/// `rmgr: XLOG len (rec/tot): 114/ 114, tx: 0, lsn: 0/03000028, prev 0/02000110, desc: CHECKPOINT_SHUTDOWN redo …`
pub(crate) fn parse_record(line: &str) -> Option<Record> {
    let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest.trim_start());
    let word = |text: &str| text.split([',', ' ', ';']).next().map(str::to_owned);
    line.starts_with("rmgr:").then_some(())?;
    let total = after("len (rec/tot):")?.split_once('/')?.1.trim_start();
    Some(Record {
        lsn: word(after("lsn: ")?)?.parse().ok()?,
        prev: word(after("prev ")?)?.parse().ok()?,
        bytes: word(total)?.parse().ok()?,
        description: after("desc: ")?.to_owned(),
    })
}

/// The end of valid WAL, named in the error about what follows it. The words differ between versions:
/// `invalid record length at 0/30000A0: wanted 24, got 0` up to 15, `… expected at least 24, got 0` from 16 on, and there
/// are other kinds of rubbish that may follow.
pub(crate) fn end_from_error(text: &str) -> Option<Lsn> {
    const KINDS: [&str; 5] = [
        "invalid record length at ",
        "record with incorrect prev-link ",
        "record with zero length at ",
        "invalid resource manager ID ",
        "there is no contrecord flag at ",
    ];
    let kind = KINDS.iter().find_map(|kind| text.split_once(kind).map(|(_, rest)| (*kind, rest)));
    let (kind, rest) = kind?;
    let place = if kind.ends_with(" at ") { rest } else { rest.split_once(" at ")?.1 };
    let end = place.find(|c: char| !(c.is_ascii_hexdigit() || c == '/')).unwrap_or(place.len());
    place[..end].parse().ok()
}

/// Records are padded to eight bytes. One that goes over a page boundary has a header in between, and is not guessed.
pub(crate) fn end_within_page(record: &Record) -> Option<Lsn> {
    let end = record.lsn.0.checked_add(record.bytes)?.checked_next_multiple_of(8)?;
    (record.lsn.0 / PAGE_BYTES == end / PAGE_BYTES).then_some(Lsn(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/03000028, prev \
                          0/02000110, desc: CHECKPOINT_SHUTDOWN redo 0/3000028; tli 1; prev tli 1; fpw true";

    #[test]
    fn a_record_is_read() {
        let record = parse_record(RECORD).unwrap();
        assert_eq!((record.lsn, record.prev, record.bytes), (Lsn(0x300_0028), Lsn(0x200_0110), 114));
        assert!(record.description.starts_with("CHECKPOINT_SHUTDOWN"));
        assert_eq!(end_within_page(&record), Some(Lsn(0x300_00A0)));
        assert!(parse_record("pg_waldump: error: lsn: 0/1").is_none());
    }

    #[test]
    fn the_end_is_found_in_the_words_of_all_versions() {
        let prefix = "pg_waldump: error: error in WAL record at 0/3000028: ";
        for (text, lsn) in [
            ("invalid record length at 0/30000A0: wanted 24, got 0", 0x300_00A0),
            ("invalid record length at 0/30000A0: expected at least 24, got 0", 0x300_00A0),
            ("invalid record length at 0/030000A0: expected at least 24, got 0", 0x300_00A0),
            ("record with incorrect prev-link 4D/1000 at 0/30000A0", 0x300_00A0),
            ("invalid resource manager ID 87 at 0/30000A0", 0x300_00A0),
        ] {
            assert_eq!(end_from_error(&format!("{prefix}{text}\n")), Some(Lsn(lsn)), "{text}");
        }
        for text in ["could not find a valid record after 0/3", "invalid magic number 0000", ""] {
            assert_eq!(end_from_error(text), None, "{text}");
        }
    }

    #[test]
    fn a_record_over_a_page_boundary_is_not_guessed() {
        let record = Record { lsn: Lsn(8192 - 16), prev: Lsn(0), bytes: 114, description: String::new() };
        assert_eq!(end_within_page(&record), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_read(text in ".*", place in "[0-9A-F/ ]{0,20}") {
            let _ = parse_record(&text);
            let _ = end_from_error(&format!("invalid record length at {place}{text}"));
            let _ = parse_record(&format!("rmgr: len (rec/tot): {place}, lsn: {place}, prev {place}, desc: {text}"));
        }
    }
}
