//! What must hold for every text that PostgreSQL, its tools, its files or an operator can show us: one function for each
//! property. The property tests below call them with random values, the targets in `fuzz/` with what libFuzzer comes up
//! with. A function returns when its property holds and panics, as a test does, when it does not. Compiled for tests and
//! for fuzzing only.

use pgward_core::cluster::{History, HistoryLine};
use pgward_core::wal::{Lsn, Timeline};

use crate::client::wire_properties;
use crate::clone::parse_progress;
use crate::command::split_words;
use crate::config::quote;
use crate::conninfo::{ConnInfo, join, parse as parse_conninfo, pgpass_lines};
use crate::control::{ClusterState, ControlData, decode_head};
use crate::process::{PidFile, ServerStatus, Stat};
use crate::replication::parse_history;
use crate::settings::Credentials;
use crate::single_user::parse_opts;
use crate::waldump::{Record, end_from_error, end_within_page, parse_record};

/// A history file: refused, or timelines that rise, as the server itself demands of it; and what was understood is
/// understood in the same way when it is written as the server writes it.
pub fn history_file(text: &str) {
    let Some(history) = parse_history(text) else { return };
    assert!(rises(&history), "a history whose timelines do not rise: {history:?}");
    let again = parse_history(&history_text(&history.lines));
    assert_eq!(again.as_ref(), Some(&history), "{text:?}");
}

/// The history of these switches, in this order: accepted when the timelines rise, and refused when they do not.
pub fn switches(switches: &[(u32, u64, String)]) {
    let line = |(timeline, lsn, reason): &(u32, u64, String)| {
        let reason = reason.chars().filter(|character| !character.is_control()).collect::<String>().trim().to_owned();
        let timeline = Timeline::new(*timeline)?;
        Some(HistoryLine { timeline, lsn: Lsn(*lsn), reason, timestamp: None, new_leader: None })
    };
    let lines: Vec<HistoryLine> = switches.iter().filter_map(line).collect();
    let history = History { lines };
    let read = parse_history(&history_text(&history.lines));
    assert_eq!(read, rises(&history).then_some(history));
}

fn rises(history: &History) -> bool {
    history.lines.windows(2).all(|pair| pair[0].timeline < pair[1].timeline)
}

fn history_text(lines: &[HistoryLine]) -> String {
    let line = |line: &HistoryLine| format!("{}\t{}\t{}\n\n", line.timeline, line.lsn, line.reason);
    lines.iter().map(line).collect()
}

/// The output of pg_controldata: any text is read, what is not there is not made up.
pub fn control_data(text: &str) {
    let data = ControlData::parse(text);
    assert_eq!(ControlData::parse(&text.replace('\n', "\r\n")), data, "line ends do not matter");
    assert_ne!(data.min_recovery_end, Some(Lsn::INVALID), "0/0 is no position");
    if let Some(id) = &data.system_id {
        assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()), "{id:?}");
    }
    let has = |part: &str| text.contains(part);
    assert!(data.state.is_none() || has("Database cluster state"));
    assert!(data.checkpoint.is_none() || has("Latest checkpoint location"));
    assert!(!data.allows_rewind() || has("wal_log_hints setting") || has("Data page checksum version"));
    if !text.contains("on") && !text.contains(|c| matches!(c, '1'..='9')) {
        assert!(!data.allows_rewind(), "neither hints nor checksums are on");
    }
}

/// What pg_controldata prints of these values is read as them.
pub fn control_fields(state: usize, system_id: u64, checkpoint: u64, timeline: u32, minimum: u64, flags: u8) {
    let state = ClusterState::ALL[state % ClusterState::ALL.len()];
    let (hints, checksums) = (flags & 1 != 0, flags & 2 != 0);
    let text = format!(
        "Database system identifier:           {system_id}\nDatabase cluster state:               {state}\n\
         pg_control last modified:             Mon 01 Jan 2024 10:11:12 AM UTC\nLatest checkpoint location:           {}\n\
         Latest checkpoint's REDO location:    0/1\nLatest checkpoint's TimeLineID:       {timeline}\nMinimum recovery \
         ending location:     {}\nMin recovery ending loc's timeline:   {timeline}\nwal_log_hints setting:                \
         {}\nmax_connections setting:              {}\nData page checksum version:           {}\n",
        Lsn(checkpoint),
        Lsn(minimum),
        if hints { "on" } else { "off" },
        u64::from(timeline),
        u8::from(checksums)
    );
    let data = ControlData::parse(&text);
    assert_eq!((data.state, data.system_id.as_deref()), (Some(state), Some(system_id.to_string().as_str())));
    assert_eq!((data.checkpoint, data.checkpoint_timeline), (Some(Lsn(checkpoint)), Timeline::new(timeline)));
    assert_eq!(data.min_recovery_end, Some(Lsn(minimum)).filter(|lsn| *lsn != Lsn::INVALID));
    assert_eq!((data.wal_log_hints, data.data_checksums), (hints, checksums));
    assert_eq!(data.settings.get("max_connections"), Some(&u64::from(timeline)));
}

/// The head of the control file: any bytes are read or refused.
pub fn control_head(head: &[u8; 64]) {
    if let Some(look) = decode_head(head) {
        let version = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        assert!((1300..1900).contains(&version), "a layout that is known: {look:?}");
        assert_eq!(look.system_id.to_ne_bytes(), head[..8]);
    }
}

/// The output of pg_waldump: any line is a record or none, and an end is a place that the text names.
pub fn waldump(text: &str) {
    for line in text.lines() {
        if let Some(record) = parse_record(line) {
            assert!(line.starts_with("rmgr:") && line.ends_with(&record.description), "{line:?} is {record:?}");
            assert_eq!(parse_record(&printed(&record)).as_ref(), Some(&record));
            assert_end_of(&record);
        }
    }
    if let Some(end) = end_from_error(text) {
        let (high, low) = (end.0 >> 32, end.0 & 0xffff_ffff);
        let text = text.to_ascii_uppercase();
        let names_it = text.contains(&end.to_string()) || text.contains(&format!("{high:X}/{low:08X}"));
        let padded = text.split(|c: char| !(c.is_ascii_hexdigit() || c == '/')).any(|word| word.parse() == Ok(end));
        assert!(names_it || padded, "{end} is not in {text:?}");
    }
}

/// A record is read as pg_waldump prints it, and its end is found in its error messages.
pub fn record(lsn: u64, prev: u64, bytes: u64, description: &str) {
    let description: String = description.chars().filter(|character| !character.is_control()).collect();
    let record = Record { lsn: Lsn(lsn), prev: Lsn(prev), bytes, description: description.trim_start().to_owned() };
    assert_eq!(parse_record(&printed(&record)), Some(record.clone()));
    assert_end_of(&record);
    for words in [
        "invalid record length at {}: wanted 24, got 0",
        "invalid record length at {}: expected at least 24, got 0",
        "record with incorrect prev-link 4D/1000 at {}",
        "invalid resource manager ID 87 at {}",
        "there is no contrecord flag at {}",
    ] {
        let text =
            format!("pg_waldump: error: error in WAL record at 0/28: {}\n", words.replace("{}", &Lsn(lsn).to_string()));
        assert_eq!(end_from_error(&text), Some(Lsn(lsn)), "{text}");
    }
}

fn printed(record: &Record) -> String {
    let Record { lsn, prev, bytes, description } = record;
    format!(
        "rmgr: XLOG        len (rec/tot):    {bytes}/   {bytes}, tx:          0, lsn: {lsn}, prev {prev}, desc: {description}"
    )
}

/// A record ends behind itself, at a multiple of eight bytes, on its own page; else its end is not guessed.
fn assert_end_of(record: &Record) {
    if let Some(end) = end_within_page(record) {
        let bytes = record.lsn.bytes_behind(end);
        assert!(
            end >= record.lsn && (record.bytes..record.bytes.saturating_add(8)).contains(&bytes),
            "{end} for {record:?}"
        );
        assert!(end.0 % 8 == 0 && end.0 / 8192 == record.lsn.0 / 8192, "{end} for {record:?}");
    }
}

/// `postmaster.pid` and `/proc/PID/stat`: any text is read or refused, and a process has a number that can be one.
pub fn process_files(text: &str) {
    if let Some(file) = PidFile::parse(text) {
        assert!(file.pid != 0 && file.pid.checked_abs().is_some(), "{file:?}");
        let words = text.lines().nth(7).map(str::trim);
        assert_eq!(file.status.is_some(), matches!(words, Some("starting" | "stopping" | "ready" | "standby")));
    }
    let _ = Stat::parse(text);
    for (name, _) in parse_opts(text) {
        assert!(!name.contains('-') && text.contains("--"), "{name:?} in {text:?}");
    }
    if let Some(progress) = parse_progress(text) {
        assert!(progress.done_bytes % 1024 == 0 || progress.done_bytes == u64::MAX, "whole kilobytes");
    }
}

/// What the server and the kernel write about a process is read as it was meant.
pub fn process(pid: i32, started_at: i64, name: &str, parent: i32, start_ticks: u64) {
    for (word, status) in [
        ("starting", ServerStatus::Starting),
        ("stopping", ServerStatus::Stopping),
        ("ready   ", ServerStatus::Ready),
        ("standby ", ServerStatus::Standby),
    ] {
        let text = format!("{pid}\n/data\n{started_at}\n5432\n/run\n*\n  5432001         4\n{word}\n");
        let file = PidFile { pid, started_at: Some(started_at), status: Some(status) };
        assert_eq!(PidFile::parse(&text), (pid != 0 && pid != i32::MIN).then_some(file));
    }
    let between = (5..=21).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
    let stat = Stat::parse(&format!("{pid} ({name}) S {parent} {between} {start_ticks} 0 0"));
    let stat = stat.map(|stat| (stat.parent, stat.start_ticks));
    // A name that ends like the rest of the line cannot be told from it; the kernel limits it to 15 bytes.
    assert_eq!(stat, Some((parent, start_ticks)), "{name:?}");
}

/// Connection strings: any text is read or refused, and what was read means the same written again.
pub fn conninfo(text: &str) {
    let Some(pairs) = parse_conninfo(text) else { return };
    let written = join(&pairs);
    assert_eq!(parse_conninfo(&written).as_ref(), Some(&pairs), "{written}");
    assert_eq!(join(&parse_conninfo(&written).unwrap_or_default()), written);
}

/// Any values survive in a connection string, in a password file, in postgresql.conf and on a command line.
pub fn quoting(values: &[String]) {
    const KEYS: [&str; 4] = ["user", "password", "host", "application_name"];
    let pairs: Vec<(String, String)> =
        KEYS.iter().zip(values).map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    assert_eq!(parse_conninfo(&join(&pairs)), Some(pairs));
    for value in values {
        let one_line: String = value.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }).collect();
        assert_eq!(unquoted(&quote(value)), Some(one_line.clone()), "{value:?} in postgresql.conf");
        let credentials =
            Credentials { username: Some(value.clone()), password: Some(value.clone()), ..Credentials::default() };
        let target = ConnInfo { host: Some("h1,h2".to_owned()), port: 5432, credentials, ..ConnInfo::default() };
        for line in pgpass_lines(&target) {
            let fields = pgpass_fields(&line);
            assert_eq!(fields.len(), 5, "{line:?}");
            assert_eq!((fields[1].as_str(), &fields[4]), ("5432", &not_empty(value)), "{line:?}");
        }
    }
    let line: Vec<String> = values.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    assert_eq!(split_words(&line.join(" ")).as_deref(), Some(values), "as a shell reads it");
}

fn not_empty(value: &str) -> String {
    if value.is_empty() { "*".to_owned() } else { value.to_owned() }
}

/// A command line is words without blanks that nobody quoted, or is refused.
pub fn command_line(text: &str) {
    let Some(words) = split_words(text) else { return };
    assert!(words.iter().map(String::len).sum::<usize>() <= text.len(), "{words:?} out of {text:?}");
    if !text.contains(['\'', '"', '\\']) {
        assert!(words.iter().map(String::as_str).eq(text.split_ascii_whitespace()), "{words:?} out of {text:?}");
    }
}

/// A value as the server reads it in postgresql.conf; `None` when the line would be an error or would not end there.
fn unquoted(text: &str) -> Option<String> {
    let mut rest = text.strip_prefix('\'')?.strip_suffix('\'')?.chars();
    let mut value = String::new();
    while let Some(character) = rest.next() {
        value.push(match character {
            '\'' => rest.next().filter(|next| *next == '\'')?,
            '\\' => rest.next().filter(|next| *next == '\\')?,
            '\n' | '\r' => return None,
            other => other,
        });
    }
    Some(value)
}

/// The fields of a line of a password file, as libpq reads them.
fn pgpass_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut rest = line.chars();
    while let Some(character) = rest.next() {
        let field = match character {
            ':' => {
                fields.push(String::new());
                continue;
            }
            '\\' => rest.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(last) = fields.last_mut() {
            last.push(field);
        }
    }
    fields
}

/// Bytes from a server, cut anywhere.
pub fn server_bytes(bytes: &[u8], cuts: &[u8]) {
    wire_properties::stream(bytes, cuts);
    wire_properties::bodies(bytes);
    wire_properties::bodies(bytes.get(5..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    /// The same cases in every run, so that none fails by chance; `PROPTEST_RNG_SEED` lets a developer look further.
    fn repeatable() -> ProptestConfig {
        let from_environment = ProptestConfig::default();
        let rng_seed = match from_environment.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            chosen @ RngSeed::Fixed(_) => chosen,
        };
        ProptestConfig { rng_seed, failure_persistence: None, ..from_environment }
    }

    proptest! {
        #![proptest_config(repeatable())]

        #[test]
        fn a_history_file_rises_or_is_refused(
            text in "(([0-9]{1,2}|4294967295|-1|\\+1|x)(\t| |)([0-9A-F]{1,3}/[0-9A-F]{1,8}|0/)(\t| |)\\PC{0,6}\r?\n|#\\PC{0,4}\n|\n){0,5}",
            lines in vec((0u32..6, any::<u64>(), "\\PC{0,12}"), 0..4),
        ) {
            history_file(&text);
            switches(&lines);
        }

        #[test]
        fn control_data_is_read_as_it_is_printed(
            state: usize, system_id: u64, checkpoint: u64, timeline: u32, minimum: u64, flags: u8,
        ) {
            control_fields(state, system_id, checkpoint, timeline, minimum, flags);
            control_fields(state, system_id, checkpoint, timeline, 0, flags);
        }

        #[test]
        fn any_control_data_is_read(
            text in "((Database cluster state|Database system identifier|Latest checkpoint location|wal_log_hints setting|\
                     Minimum recovery ending location|Data page checksum version|max_connections setting|\\PC{0,4}): *\
                     (on|off|[0-9]{1,21}|[0-9A-F]{0,9}/[0-9A-F]{0,9}|shut down|\\PC{0,5})\n){0,6}",
            head in vec(any::<u8>(), 64), version in 1300u32..1900, state in 0u8..9,
        ) {
            control_data(&text);
            let mut head: [u8; 64] = head.try_into().expect("64 bytes");
            control_head(&head);
            head[8..12].copy_from_slice(&version.to_ne_bytes());
            head[16..20].copy_from_slice(&u32::from(state).to_ne_bytes());
            control_head(&head);
        }

        #[test]
        fn a_wal_record_is_read_as_it_is_printed(
            lsn: u64, prev: u64, bytes in prop_oneof![0u64..10_000, any::<u64>()], description in "\\PC{0,30}",
            text in "(rmgr: |len \\(rec/tot\\): |[0-9]{1,20}/ ?|lsn: |prev |[0-9A-F]{1,9}/[0-9A-F]{1,9}|, |desc: | at |\
                     invalid record length at |record with incorrect prev-link |\\PC|\n){0,14}",
        ) {
            record(lsn, prev, bytes, &description);
            waldump(&text);
        }

        #[test]
        fn processes_are_read_as_they_are_written(
            pid: i32, started_at: i64, name in "[a-z() 0-9]{0,15}", parent: i32, start_ticks: u64,
            text in "(-?[0-9]{0,11}\n)?(\\PC{0,6}\n){0,6}(ready|starting|standby|stopping)? *\n?|\\PC{0,40}",
            report in "([0-9]{0,22}/[0-9]{0,22} kB \\([0-9]{1,3}%\\), 0/1 tablespace[\r\n]| kB \\(|\"--[a-z-]{1,5}=?\"|\\PC){0,4}",
        ) {
            process(pid, started_at, &name, parent, start_ticks);
            process_files(&text);
            process_files(&report);
        }

        #[test]
        fn a_connection_string_means_the_same_written_again(
            text in "([a-z]{1,3}|=|'|\\\\| |\t|\u{b}|\n|\\PC){0,20}",
        ) {
            conninfo(&text);
        }

        #[test]
        fn every_value_survives_quoting(values in vec("[^\u{0}\n\r]{0,12}", 0..5), text in "([a-z]|'|\"|\\\\| |\t|\\PC){0,20}") {
            quoting(&values);
            command_line(&text);
        }

        #[test]
        fn messages_are_the_same_however_they_are_cut(
            messages in vec((any::<u8>(), vec(any::<u8>(), 0..20)), 0..5), garbage in vec(any::<u8>(), 0..20), cuts in vec(any::<u8>(), 0..10),
        ) {
            let mut bytes = Vec::new();
            for (tag, body) in &messages {
                bytes.push(*tag);
                bytes.extend(u32::try_from(body.len() + 4).expect("short").to_be_bytes());
                bytes.extend(body);
            }
            bytes.extend(garbage);
            server_bytes(&bytes, &cuts);
        }
    }
}
