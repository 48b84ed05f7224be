//! Timestamps of scheduled operations.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

/// When something shall happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// The instant.
    pub(super) at: Timestamp,
    /// As it is stored: ISO 8601 in the zone of whoever asked.
    pub(super) text: String,
}

/// Why a text is not a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidSchedule {
    /// No timestamp.
    Unreadable,
    /// A timestamp that means another instant in each zone.
    NoZone,
}

impl Schedule {
    /// Reads a date and time with a zone: `2030-01-02T03:04:05+00:00`, with a space or without seconds, with `Z`,
    /// `UTC`, `+02` or `+0200`.
    pub(super) fn parse(text: &str) -> Result<Schedule, InvalidSchedule> {
        let (local, offset) = split_offset(text.trim());
        let local = parse_local(local.trim_end()).ok_or(InvalidSchedule::Unreadable)?;
        let offset = offset.ok_or(InvalidSchedule::NoZone)?;
        let zoned = local.to_zoned(TimeZone::fixed(offset)).map_err(|_| InvalidSchedule::Unreadable)?;
        Ok(Schedule { at: zoned.timestamp(), text: iso_format(local, offset) })
    }
}

/// A date, or a date and a time, and nothing else: the parser below would read past another zone. Years are those that
/// members written in Python can hold.
fn parse_local(text: &str) -> Option<DateTime> {
    let (date, time) = text.split_once([' ', 'T', 't']).map_or((text, None), |(date, time)| (date, Some(time)));
    let is_made_of = |text: &str, marks: &[u8]| text.bytes().all(|byte| byte.is_ascii_digit() || marks.contains(&byte));
    if !is_made_of(date, b"-") || !time.is_none_or(|time| is_made_of(time, b":.,")) {
        return None;
    }
    let local = match time {
        Some(_) => text.parse().ok()?,
        None => text.parse::<Date>().ok()?.at(0, 0, 0, 0),
    };
    (local.year() >= 1).then_some(local)
}

/// The text before the zone, and the zone when there is one.
fn split_offset(text: &str) -> (&str, Option<Offset>) {
    for utc in ["UTC", "GMT", "Z", "z"] {
        if let Some(local) = text.strip_suffix(utc) {
            return (local, Some(Offset::UTC));
        }
    }
    // A sign in the date is not that of a zone.
    let Some(time) = text.find([' ', 'T', 't']) else {
        return (text, None);
    };
    match text[time..].rfind(['+', '-']).map(|sign| text.split_at(time + sign)) {
        Some((local, offset)) => match parse_offset(offset) {
            Some(offset) => (local, Some(offset)),
            None => (text, None),
        },
        None => (text, None),
    }
}

/// `+02`, `+2`, `+0230` or `+02:30`.
fn parse_offset(text: &str) -> Option<Offset> {
    let (sign, digits) = text.split_at_checked(1)?;
    let number =
        |digits: &[u8]| digits.iter().try_fold(0, |sum, digit| Some(sum * 10 + char::from(*digit).to_digit(10)?));
    let (hours, minutes) = match digits.as_bytes() {
        hours @ ([_] | [_, _]) => (number(hours)?, 0),
        [hours @ .., b':', tens, ones] if hours.len() == 2 => (number(hours)?, number(&[*tens, *ones])?),
        [a, b, tens, ones] => (number(&[*a, *b])?, number(&[*tens, *ones])?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    Offset::from_seconds(if sign == "-" { -seconds } else { seconds }).ok()
}

fn iso_format(local: DateTime, offset: Offset) -> String {
    let micros = local.subsec_nanosecond() / 1000;
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    let minutes = offset.seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    let minutes = minutes.abs();
    format!("{}{fraction}{sign}{:02}:{:02}", local.strftime("%Y-%m-%dT%H:%M:%S"), minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_in_the_forms_people_write_and_stored_in_one() {
        for (text, want) in [
            ("2030-01-02T03:04:05+00:00", Ok("2030-01-02T03:04:05+00:00")),
            ("2031-01-01T00:00:00Z", Ok("2031-01-01T00:00:00+00:00")),
            ("2031-01-01T00:00Z", Ok("2031-01-01T00:00:00+00:00")),
            ("2031-01-01 00:00 UTC", Ok("2031-01-01T00:00:00+00:00")),
            (" 2031-01-01 10:11:12.5+02 ", Ok("2031-01-01T10:11:12.500000+02:00")),
            ("2031-01-01T10:11:12-0330", Ok("2031-01-01T10:11:12-03:30")),
            ("2031-01-01T10:11:12 +0530", Ok("2031-01-01T10:11:12+05:30")),
            ("2031-01-01T00:00", Err(InvalidSchedule::NoZone)),
            ("2031-01-01T00:00:00", Err(InvalidSchedule::NoZone)),
            ("2031-01-01", Err(InvalidSchedule::NoZone)),
            ("garbage", Err(InvalidSchedule::Unreadable)),
            ("", Err(InvalidSchedule::Unreadable)),
            ("2031-13-01T00:00Z", Err(InvalidSchedule::Unreadable)),
            ("2031-01-01T00:00+99", Err(InvalidSchedule::Unreadable)),
            ("é 2031+é", Err(InvalidSchedule::Unreadable)),
            ("2031-01-01T00:00+1é1", Err(InvalidSchedule::Unreadable)),
            ("2031-01-01T00:00+24:00", Err(InvalidSchedule::Unreadable)),
            ("2031-01-01T00:00+00:60", Err(InvalidSchedule::Unreadable)),
            ("2031-01-01T00:00+1:2", Err(InvalidSchedule::Unreadable)),
            ("2031-01-01T00:00+05:00 +02", Err(InvalidSchedule::Unreadable)),
            ("2031-01-01T00:00+05:00Z", Err(InvalidSchedule::Unreadable)),
            ("-002031-01-01T00:00Z", Err(InvalidSchedule::Unreadable)),
            ("0000-01-01T00:00Z", Err(InvalidSchedule::Unreadable)),
            ("20310101T1000Z", Ok("2031-01-01T10:00:00+00:00")),
        ] {
            let read = Schedule::parse(text);
            assert_eq!(read.as_ref().map(|schedule| schedule.text.as_str()).map_err(|error| *error), want, "{text:?}");
        }
        let utc = Schedule::parse("2031-01-01T10:00+02:00").unwrap().at;
        assert_eq!(utc, Schedule::parse("2031-01-01T08:00Z").unwrap().at);
    }
}
