//! Positions and timelines of the write-ahead log.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A byte position in the write-ahead log, printed as PostgreSQL prints it (`16/B374D848`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Position zero, which PostgreSQL calls invalid.
    pub const INVALID: Lsn = Lsn(0);

    /// Bytes of WAL that `self` still has to receive to reach `target`; zero when already there.
    pub fn bytes_behind(self, target: Lsn) -> u64 {
        target.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Text that PostgreSQL would not print as an LSN or a timeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWalText {
    /// Not two hexadecimal numbers around a slash.
    #[error("{0:?} is not a WAL position such as 16/B374D848")]
    Lsn(String),
    /// Not a positive number.
    #[error("{0:?} is not a timeline number (1 or larger)")]
    Timeline(String),
}

impl FromStr for Lsn {
    type Err = InvalidWalText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidWalText::Lsn(text.to_owned());
        let (high, low) = text.trim().split_once('/').ok_or_else(invalid)?;
        let part = |digits: &str| match digits.len() {
            1..=8 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
            _ => None,
        };
        match (part(high), part(low)) {
            (Some(high), Some(low)) => Ok(Lsn(high << 32 | low)),
            _ => Err(invalid()),
        }
    }
}

/// A timeline number. Positions on two timelines are not comparable without their history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(NonZeroU32);

impl Timeline {
    /// The timeline that initdb creates.
    pub const FIRST: Timeline = Timeline(NonZeroU32::MIN);

    /// `None` for zero, which PostgreSQL and Patroni use for "unknown".
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Timeline)
    }

    /// The number as PostgreSQL prints it.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The timeline after this one.
    pub fn next(self) -> Timeline {
        Timeline(self.0.saturating_add(1))
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Timeline {
    type Err = InvalidWalText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = Some(text.trim()).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number: Option<u32> = digits.and_then(|digits| digits.parse().ok());
        number.and_then(Timeline::new).ok_or_else(|| InvalidWalText::Timeline(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_read_and_printed_as_postgresql_does() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!((lsn.0, lsn.to_string().as_str()), (0x16_B374_D848, "16/B374D848"));
        for bad in ["", "16", "16/", "/1", "g/1", "1/123456789", "1/-1", "+1/1"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bytes_behind_is_never_negative() {
        assert_eq!(Lsn(10).bytes_behind(Lsn(30)), 20);
        assert_eq!(Lsn(30).bytes_behind(Lsn(10)), 0);
    }

    #[test]
    fn a_timeline_is_never_zero() {
        for bad in ["0", "", "+1", "-1", "4294967296"] {
            assert!(bad.parse::<Timeline>().is_err(), "{bad:?}");
        }
        assert_eq!("7".parse::<Timeline>().unwrap().next().get(), 8);
    }
}
