//! How a projection ends, and why for each member.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::decide::Reason;
use crate::names::MemberName;

/// How it ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// The primary in the end, when there is one.
    pub primary: Option<MemberName>,
    /// When it became that, at the latest and without the time that PostgreSQL needs. `None`: it was primary before.
    #[serde(serialize_with = "as_seconds")]
    pub primary_after: Option<Duration>,
    /// Who may win as well, because they are as fit: whoever writes first.
    pub contenders: Vec<MemberName>,
    /// Until when a former primary may accept writes, at the latest.
    #[serde(serialize_with = "as_seconds")]
    pub former_writable_until: Option<Duration>,
    /// What each member that is left decided when the leadership was free. Empty when it never was.
    pub verdicts: BTreeMap<MemberName, Verdict>,
}

/// Whether a member would lead.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It stands, for this reason, and wins.
    Wins(Reason),
    /// It stands, for this reason, and another one may be faster.
    Stands(Reason),
    /// It does not stand, for this reason.
    DoesNot(Reason),
    /// It is not known: the member told nothing.
    Unknown,
}

fn as_seconds<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(serializer)
}
