//! Names: of members, and of the replication slots derived from them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a member: a store key and the `application_name` of its replication connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct MemberName(String);

/// Why a text is not a member name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMemberName {
    /// The text is empty.
    #[error("a member name is not empty")]
    Empty,
    /// The name would not be one key below `members/`.
    #[error("the member name {0:?} contains '/' or a control character")]
    Character(String),
}

impl MemberName {
    /// Stands for the holder of a leader key whose value is not a member name; equal to no real member.
    pub(crate) fn unreadable() -> Self {
        MemberName("(unreadable)/".to_owned())
    }

    /// Stands for the cluster that a standby cluster follows; equal to no real member.
    pub fn remote() -> Self {
        MemberName("(remote cluster)/".to_owned())
    }

    /// True for the stand-in of the cluster that a standby cluster follows.
    pub fn is_remote(&self) -> bool {
        *self == MemberName::remote()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The physical replication slot that belongs to this member (SLT-1): lower case, `-` and `.` become `_`, any other
    /// character outside `[a-z0-9_]` becomes `u` and its code point in at least four decimal digits, cut to 63 bytes.
    pub fn slot_name(&self) -> String {
        let mut slot = String::with_capacity(self.0.len());
        for character in self.0.chars().flat_map(char::to_lowercase) {
            match character {
                'a'..='z' | '0'..='9' | '_' => slot.push(character),
                '-' | '.' => slot.push('_'),
                other => slot.push_str(&format!("u{:04}", u32::from(other))),
            }
        }
        slot.truncate(63);
        slot
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MemberName {
    type Err = InvalidMemberName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            Err(InvalidMemberName::Empty)
        } else if text.chars().any(|c| c == '/' || c.is_control()) {
            Err(InvalidMemberName::Character(text.to_owned()))
        } else {
            Ok(MemberName(text.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for MemberName {
    /// Reads what was written, the stand-ins included.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let stand_ins = [MemberName::unreadable(), MemberName::remote()];
        match stand_ins.into_iter().find(|stand_in| stand_in.0 == text) {
            Some(stand_in) => Ok(stand_in),
            None => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl From<MemberName> for String {
    fn from(name: MemberName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_follow_the_rule_that_peers_apply_too() {
        for (name, slot) in [("pg1", "pg1"), ("Node-1.a", "node_1_a"), ("a b", "au0032b"), ("é", "u0233")] {
            assert_eq!(name.parse::<MemberName>().unwrap().slot_name(), slot, "{name}");
        }
        let long = "x".repeat(80);
        assert_eq!(long.parse::<MemberName>().unwrap().slot_name().len(), 63);
    }

    #[test]
    fn a_name_is_one_key_below_members() {
        for bad in ["", "a/b", "a\nb"] {
            assert!(bad.parse::<MemberName>().is_err(), "{bad:?}");
        }
    }
}
