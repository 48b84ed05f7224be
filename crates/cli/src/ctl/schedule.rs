//! Points in time as people type them and as they are sent and shown.

use anyhow::bail;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Reads what was given as the time of an action: `None` for `now` and for nothing.
///
/// A time without a zone is local time, a time without a date is today's, a date without a time is its midnight.
///
/// # Errors
/// For everything that is not ISO 8601, with a space instead of `T` allowed, or RFC 2822.
pub(super) fn parse(text: &str, now: &Zoned) -> anyhow::Result<Option<Zoned>> {
    let text = text.trim();
    if text.is_empty() || text == "now" {
        return Ok(None);
    }
    let zone = now.time_zone();
    let found = with_zone(text).or_else(|| without_zone(text, now)?.to_zoned(zone.clone()).ok());
    let Some(moment) = found else {
        bail!("Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format (e.g. ISO 8601)");
    };
    Ok(Some(moment))
}

fn with_zone(text: &str) -> Option<Zoned> {
    if let Ok(zoned) = jiff::fmt::rfc2822::parse(text) {
        return Some(zoned);
    }
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Some(zoned);
    }
    let moment: Timestamp = text.parse().ok()?;
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
    let offset = pieces.to_numeric_offset()?;
    Some(moment.to_zoned(TimeZone::fixed(offset)))
}

fn without_zone(text: &str, now: &Zoned) -> Option<DateTime> {
    if let Ok(moment) = text.parse::<DateTime>() {
        return Some(moment);
    }
    if let Ok(date) = text.parse::<Date>() {
        return Some(date.to_datetime(Time::midnight()));
    }
    text.parse::<Time>().ok().map(|time| now.date().to_datetime(time))
}

/// The form that is sent and stored: `2031-01-01T00:00:00+00:00`.
pub(super) fn iso(moment: &Zoned) -> String {
    let fraction = match moment.subsec_nanosecond() / 1000 {
        0 => String::new(),
        microseconds => format!(".{microseconds:06}"),
    };
    format!("{}{fraction}{}", moment.strftime("%Y-%m-%dT%H:%M:%S"), moment.strftime("%:z"))
}

/// A stored time in the form of [`iso`]; as it is when it cannot be read.
pub(super) fn normalised(stored: &str) -> String {
    with_zone(stored).map_or_else(|| stored.to_owned(), |moment| iso(&moment))
}

/// The time in front of a result: `2026-11-21 05:06:35.42013`.
pub(super) fn stamp(now: &Zoned) -> String {
    format!("{}.{:05}", seconds(now), now.subsec_nanosecond() / 10_000)
}

/// `2026-11-21 05:06:35`.
pub(super) fn seconds(now: &Zoned) -> String {
    now.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The example in a prompt: the same minute of the next hour.
pub(super) fn example(now: &Zoned) -> String {
    let later = now.checked_add(jiff::Span::new().hours(1)).unwrap_or_else(|_| now.clone());
    later.strftime("%Y-%m-%dT%H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2026-11-21T05:06:35.420139+02:00[+02:00]".parse().unwrap()
    }

    #[test]
    fn times_are_read_in_the_forms_that_people_type() {
        for (text, want) in [
            ("2031-01-01T00:00:00Z", "2031-01-01T00:00:00+00:00"),
            ("2031-01-01T00:00:00+00:00", "2031-01-01T00:00:00+00:00"),
            ("2031-01-01T00:00:00.5-05:30", "2031-01-01T00:00:00.500000-05:30"),
            ("2031-01-01 10:00:00+0100", "2031-01-01T10:00:00+01:00"),
            ("2031-01-01T10:00Z", "2031-01-01T10:00:00+00:00"),
            ("2031-01-01T10:00+01", "2031-01-01T10:00:00+01:00"),
            ("2031-01-01T10:00", "2031-01-01T10:00:00+02:00"),
            ("2031-01-01 10:00", "2031-01-01T10:00:00+02:00"),
            ("2031-01-01", "2031-01-01T00:00:00+02:00"),
            ("20310101T100000", "2031-01-01T10:00:00+02:00"),
            ("10:30", "2026-11-21T10:30:00+02:00"),
            ("Sat, 01 Feb 2031 10:00:00 +0100", "2031-02-01T10:00:00+01:00"),
            (" 2031-01-01T10:00 ", "2031-01-01T10:00:00+02:00"),
        ] {
            let parsed = parse(text, &now()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(iso(&parsed.unwrap()), want, "{text}");
        }
        for text in ["", "now", " "] {
            assert_eq!(parse(text, &now()).unwrap(), None, "{text:?}");
        }
        for text in ["tomorrow", "2031-13-01T00:00", "25:00", "1", "2031-01-01T10:00 o'clock"] {
            let error = parse(text, &now()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("Unable to parse scheduled timestamp ({text}).")), "{error}");
        }
    }

    #[test]
    fn times_are_shown_as_patronictl_shows_them() {
        assert_eq!(stamp(&now()), "2026-11-21 05:06:35.42013");
        assert_eq!(example(&now()), "2026-11-21T06:06");
        assert_eq!(normalised("2030-01-02T03:04:05Z"), "2030-01-02T03:04:05+00:00");
        assert_eq!(normalised("soon"), "soon");
    }
}
