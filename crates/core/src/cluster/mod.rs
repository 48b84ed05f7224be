//! The cluster as stored: typed values of the keys below `/<namespace>/<scope>/`, byte-compatible with Patroni 4.1.
//!
//! Reading is lenient: garbage in a key becomes a [`KeyWarning`] that names it and the value that means "absent" (the
//! IN-D rules), never an error and never a panic. Writing keeps the field order that Patroni writes, because peers
//! compare values as text.

mod failover;
mod history;
mod member;
#[cfg(any(test, fuzzing))]
pub mod properties;
pub(crate) mod shared;
mod status;
mod sync;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use failover::FailoverRequest;
pub use history::{History, HistoryLine};
pub use member::{ConnUrl, Member, MemberRole, PostgresState};
pub use status::Status;
pub use sync::SyncState;

use crate::names::MemberName;

/// A revision of the store. Only equality and order mean anything; there is no arithmetic on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Revision(pub i64);

/// The identifier of a lease in the store; zero means that a key is bound to none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

/// One key of the cluster as the store returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawKey {
    /// The key without the cluster's prefix, such as `leader` or `members/n1`.
    pub suffix: String,
    /// The value as stored.
    pub value: Vec<u8>,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision that changed the key last: what a compare-and-set is conditional on.
    pub mod_revision: Revision,
    /// The lease that the key is bound to.
    pub lease: LeaseId,
}

/// A value together with the revision that a conditional write has to name.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Versioned<T> {
    /// The parsed value.
    pub value: T,
    /// The revision that changed it last.
    pub revision: Revision,
}

/// What the `initialize` key says (IN-D1).
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Initialize {
    /// The cluster was never initialised, or the store was wiped.
    #[default]
    Absent,
    /// The key is empty: a member is bootstrapping.
    Bootstrapping,
    /// A system identifier: ten digits or more.
    SystemId(String),
    /// Something else, treated as "no valid identifier".
    Invalid(String),
}

impl Initialize {
    /// The identifier when it is valid.
    pub fn system_id(&self) -> Option<&str> {
        match self {
            Initialize::SystemId(id) => Some(id),
            Initialize::Absent | Initialize::Bootstrapping | Initialize::Invalid(_) => None,
        }
    }
}

/// The holder of the leader key (IN-D3).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Leader {
    /// The value of the key.
    pub name: MemberName,
    /// The lease that the key is bound to.
    pub lease: LeaseId,
    /// The revision that created the key: the epoch of this leadership.
    pub epoch: Revision,
    /// The revision that changed the key last.
    pub revision: Revision,
}

/// A key that could not be understood, named for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct KeyWarning {
    /// The key without the cluster's prefix.
    pub key: String,
    /// What is wrong and what it is taken for.
    pub problem: String,
}

/// One consistent read of the whole cluster prefix.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Cluster {
    /// The revision of the store at which this was read.
    pub revision: Revision,
    /// `initialize`.
    pub initialize: Initialize,
    /// The revision that changed `initialize` last.
    pub initialize_revision: Revision,
    /// The lease that `initialize` is bound to: only a claim of pgward's is bound to one.
    #[serde(default)]
    pub initialize_lease: LeaseId,
    /// The revision that changed `config` last, whatever it holds; zero when it is absent.
    #[serde(default)]
    pub config_revision: Revision,
    /// `config`, when it is a JSON object.
    pub config: Option<Versioned<Map<String, Value>>>,
    /// `leader`. `None` means unlocked.
    pub leader: Option<Leader>,
    /// `status`, or the old `optime/leader`.
    pub status: Status,
    /// `members/*`, by name.
    pub members: BTreeMap<MemberName, Member>,
    /// `failover`, when it asks for something.
    pub failover: Option<Versioned<FailoverRequest>>,
    /// `sync`. Its default is the empty state.
    pub sync: Versioned<SyncState>,
    /// `history`, when present and readable.
    pub history: Option<Versioned<History>>,
    /// `failsafe`: member name to REST URL.
    pub failsafe: Option<BTreeMap<String, String>>,
    /// The revision that changed `failsafe` last, readable or not; zero: there is none.
    #[serde(default)]
    pub failsafe_revision: Revision,
    /// Keys of our own, below `x/`, by the rest of their name; Patroni ignores them.
    pub own: BTreeMap<String, Versioned<String>>,
    /// Keys that could not be understood.
    pub warnings: Vec<KeyWarning>,
}

impl Cluster {
    /// Reads the keys below one cluster's prefix. Unknown keys are ignored, as Patroni does.
    pub fn from_keys(revision: Revision, keys: impl IntoIterator<Item = RawKey>) -> Cluster {
        let mut cluster = Cluster { revision, ..Cluster::default() };
        let mut legacy_optime = None;
        let mut has_status = false;
        for key in keys {
            let Ok(text) = std::str::from_utf8(&key.value) else {
                cluster.add_unreadable(&key);
                continue;
            };
            match key.suffix.as_str() {
                "initialize" => {
                    cluster.initialize = cluster.read_initialize(text);
                    cluster.initialize_revision = key.mod_revision;
                    cluster.initialize_lease = key.lease;
                }
                "config" => {
                    cluster.config = cluster.read_config(text, key.mod_revision);
                    cluster.config_revision = key.mod_revision;
                }
                "leader" => cluster.leader = cluster.read_leader(text, &key),
                "status" => {
                    has_status = true;
                    let (status, problem) = Status::parse(text);
                    cluster.status = status;
                    cluster.warn_if("status", problem);
                }
                "optime/leader" => legacy_optime = text.trim().parse().ok(),
                "failover" => {
                    let (request, problem) = FailoverRequest::parse(text);
                    cluster.failover = request.map(|value| Versioned { value, revision: key.mod_revision });
                    cluster.warn_if("failover", problem);
                }
                "sync" => {
                    let (value, problem) = SyncState::parse(text);
                    cluster.sync = Versioned { value, revision: key.mod_revision };
                    cluster.warn_if("sync", problem);
                }
                "history" => {
                    let (history, problem) = History::parse(text);
                    cluster.history = history.map(|value| Versioned { value, revision: key.mod_revision });
                    cluster.warn_if("history", problem);
                }
                "failsafe" => {
                    cluster.failsafe_revision = key.mod_revision;
                    match serde_json::from_str(text) {
                        Ok(map) => cluster.failsafe = Some(map),
                        Err(_) => cluster.warn("failsafe", "is not a JSON object of texts and counts as absent"),
                    }
                }
                other => {
                    if let Some(name) = other.strip_prefix("members/") {
                        cluster.add_member(name, text, &key);
                    } else if let Some(name) = other.strip_prefix("x/") {
                        let value = Versioned { value: text.to_owned(), revision: key.mod_revision };
                        cluster.own.insert(name.to_owned(), value);
                    }
                }
            }
        }
        if !has_status && let Some(optime) = legacy_optime {
            cluster.status.optime = Some(crate::wal::Lsn(optime));
        }
        cluster
    }

    fn warn(&mut self, key: &str, problem: &str) {
        self.warnings.push(KeyWarning { key: key.to_owned(), problem: problem.to_owned() });
    }

    fn warn_if(&mut self, key: &str, problem: Option<String>) {
        if let Some(problem) = problem {
            self.warn(key, &problem);
        }
    }

    fn read_initialize(&mut self, text: &str) -> Initialize {
        if text.is_empty() {
            Initialize::Bootstrapping
        } else if is_system_id(text) {
            Initialize::SystemId(text.to_owned())
        } else {
            self.warn("initialize", "is not a system identifier (ten digits or more) and counts as absent");
            Initialize::Invalid(text.to_owned())
        }
    }

    fn read_config(&mut self, text: &str, revision: Revision) -> Option<Versioned<Map<String, Value>>> {
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(value)) if !value.is_empty() => Some(Versioned { value, revision }),
            Ok(_) | Err(_) => {
                self.warn("config", "is not a non-empty JSON object; the last known configuration stays in force");
                None
            }
        }
    }

    fn read_leader(&mut self, text: &str, key: &RawKey) -> Option<Leader> {
        // Whatever it holds, an existing key is a lock: nobody can create it until it is gone.
        let name = text.parse().unwrap_or_else(|_| {
            self.warn("leader", "does not hold a member name; the lock counts as held by an unknown member");
            MemberName::unreadable()
        });
        Some(leader_of(name, key))
    }

    /// A value that is not text. The key exists all the same: a lock stays a lock, and a claim a claim.
    fn add_unreadable(&mut self, key: &RawKey) {
        self.warn(&key.suffix, "is not UTF-8 text and cannot be read");
        match key.suffix.as_str() {
            "leader" => self.leader = Some(leader_of(MemberName::unreadable(), key)),
            "initialize" => {
                self.initialize = Initialize::Invalid(String::from_utf8_lossy(&key.value).into_owned());
                self.initialize_revision = key.mod_revision;
            }
            "config" => self.config_revision = key.mod_revision,
            "failsafe" => self.failsafe_revision = key.mod_revision,
            other => {
                if let Some(name) = other.strip_prefix("members/") {
                    self.add_member(name, "", key);
                }
            }
        }
    }

    fn add_member(&mut self, name: &str, text: &str, key: &RawKey) {
        let Ok(member_name) = name.parse::<MemberName>() else {
            return; // Patroni, too, takes only keys with exactly one slash for members.
        };
        let (mut member, problem) = Member::parse(member_name.clone(), text);
        member.lease = key.lease;
        self.warn_if(&key.suffix, problem);
        self.members.insert(member_name, member);
    }

    /// True when nobody holds the leader key.
    pub fn is_unlocked(&self) -> bool {
        self.leader.is_none()
    }

    /// True when `name` is the value of the leader key.
    pub fn is_led_by(&self, name: &MemberName) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.name == *name)
    }

    /// SPL-2: members that say they run as primary beside the holder of the leader key, which says so, too. What a member
    /// that steps down wrote last may look like this for a moment.
    pub fn rivals(&self) -> impl Iterator<Item = &MemberName> {
        let is_primary = |member: &&Member| member.role() == Some(MemberRole::Primary) && member.is_running();
        let leader = self.leader_member().filter(is_primary).map(|leader| &leader.name);
        let others = self.members.values().filter(is_primary).map(|member| &member.name);
        others.filter(move |name| leader.is_some_and(|leader| leader != *name))
    }

    /// The record of the member that holds the leader key.
    pub fn leader_member(&self) -> Option<&Member> {
        self.leader.as_ref().and_then(|leader| self.members.get(&leader.name))
    }

    /// The timeline of the newest leadership that wrote `history` (IN-D10): the last line's successor, 1 for an empty
    /// list, `None` when the key is missing or unreadable.
    pub fn timeline(&self) -> Option<crate::wal::Timeline> {
        self.history.as_ref().map(|history| history.value.next_timeline())
    }
}

fn leader_of(name: MemberName, key: &RawKey) -> Leader {
    Leader { name, lease: key.lease, epoch: key.create_revision, revision: key.mod_revision }
}

/// True for a text that can be a system identifier: ten digits or more (IN-P9) that fit into PostgreSQL's 64 bits.
pub fn is_system_id(text: &str) -> bool {
    text.len() >= 10 && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests;
