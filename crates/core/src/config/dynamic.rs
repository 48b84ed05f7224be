//! The dynamic configuration: what all members of a cluster share in the store's `config` key.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::finding::{Finding, Origin, Severity};
use super::slots::{PermanentSlot, SlotPattern, SlotProblem, ignored_slots, permanent_slots};
use super::units::{bool_of, parse_int, seconds_of, text_of};
use crate::cluster::{LeaseId, Member};
use crate::json::is_truthy;
use crate::names::MemberName;

/// What the whole cluster shares (IN-C). Every key has a default; unknown ones are kept in [`DynamicConfig::document`].
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicConfig {
    /// The lease and the rhythm, already corrected (TIM-1).
    pub timing: Timing,
    /// How far behind the leader's last known position a candidate may be.
    pub maximum_lag_on_failover_bytes: u64,
    /// Replace a synchronous standby that lags more than this; `None` never does.
    pub maximum_lag_on_syncnode_bytes: Option<u64>,
    /// Lines kept in the `history` key; `None` keeps all.
    pub max_timelines_history: Option<usize>,
    /// How long a crashed primary may take to start before others are asked; zero fails over at once.
    pub primary_start_timeout: Duration,
    /// How long a primary may take to stop. Only counts while synchronous mode is requested (IN-C21); `None` is no limit.
    pub primary_stop_timeout: Option<Duration>,
    /// How long a race waits while WAL still arrives; zero does not wait.
    pub primary_race_backoff: Duration,
    /// Candidates must be on the newest known timeline.
    pub check_timeline: bool,
    /// Synchronous replication as asked for. In a standby cluster it is [`SynchronousMode::Off`] (IN-C22).
    pub synchronous_mode: SynchronousMode,
    /// Rather block commits than go on without a synchronous standby.
    pub synchronous_mode_strict: bool,
    /// How many synchronous standbys are wanted; at least 1.
    pub synchronous_node_count: u32,
    /// Keep the primary while the store is away and every member answers.
    pub failsafe_mode: bool,
    /// Maintenance mode.
    pub pause: bool,
    /// How long the slot of a vanished member is kept; zero drops it at once.
    pub member_slots_ttl: Duration,
    /// Set when the cluster follows another one.
    pub standby_cluster: Option<StandbyCluster>,
    /// Permanent slots by name.
    pub slots: BTreeMap<String, PermanentSlot>,
    /// Slots that are left alone.
    pub ignore_slots: Vec<SlotPattern>,
    /// The `postgresql` section without the keys that only a local file may set.
    pub postgresql: Map<String, Value>,
    /// The whole document, unknown keys included, with corrected timing: what is written to the cache and, at bootstrap,
    /// to the store.
    pub document: Map<String, Value>,
    /// What was corrected, ignored or not understood.
    pub warnings: Vec<Finding>,
}

/// The lease and the rhythm of the cycle. `loop_wait + 2 * retry_timeout <= ttl` holds (TIM-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Length of the leader lease.
    pub ttl: Duration,
    /// The tick of the cycle.
    pub loop_wait: Duration,
    /// Budget of one operation on the store or PostgreSQL.
    pub retry_timeout: Duration,
}

/// Synchronous replication as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SynchronousMode {
    /// Asynchronous.
    #[default]
    Off,
    /// Named synchronous standbys.
    On,
    /// Any of several standbys.
    Quorum,
}

/// The cluster that this one follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StandbyCluster {
    /// Its hosts, comma-separated.
    pub host: Option<String>,
    /// Its port or ports.
    pub port: Option<String>,
    /// The slot to use there; none without it.
    pub primary_slot_name: Option<String>,
    /// Methods for the clone of the standby leader.
    pub create_replica_methods: Option<Vec<String>>,
    /// `restore_command` on every member.
    pub restore_command: Option<String>,
    /// `archive_cleanup_command` on every member.
    pub archive_cleanup_command: Option<String>,
    /// Delay of the standby leader.
    pub recovery_min_apply_delay: Option<String>,
}

impl StandbyCluster {
    /// The addresses that it names; none where only an archive is named.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, u16)> {
        let port = self.port.as_deref().map_or(Some(5432), |port| port.parse().ok()).unwrap_or_default();
        let hosts = self.host.as_deref().unwrap_or_default().split(',').map(str::trim);
        hosts.filter(|host| !host.is_empty()).map(move |host| (host, port))
    }

    /// The other cluster as a member to stream from. Without a host there is nobody to stream from, only an archive.
    pub fn as_member(&self) -> Member {
        let port = self.port.as_deref().unwrap_or("5432");
        let conn_url = self.host.as_ref().map(|host| format!("postgres://{}:{port}", host.replace(' ', "")));
        let fields = [("conn_url", conn_url), ("role", Some("primary".to_owned()))];
        let fields = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Value::from(value?))));
        Member { name: MemberName::remote(), lease: LeaseId::default(), fields: fields.collect() }
    }
}

/// A dynamic configuration that is refused as a whole: the caller keeps the one it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDynamicConfig {
    /// A timing key is not a number.
    #[error("{key} is {value}, which is not a whole number of seconds")]
    NotANumber {
        /// The key.
        key: &'static str,
        /// Its value as JSON.
        value: String,
    },
    /// `postgresql` is there and not a mapping.
    #[error("{key} is {value}, which is not a mapping")]
    NotAMapping {
        /// The key.
        key: &'static str,
        /// Its value as JSON.
        value: String,
    },
}

/// A change of the dynamic configuration that is not stored: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct InvalidChange(Vec<String>);

/// Defaults and minimums of the timing keys, in seconds.
const TTL: (i64, i64) = (30, 20);
const LOOP_WAIT: (i64, i64) = (10, 1);
const RETRY_TIMEOUT: (i64, i64) = (10, 3);

/// The largest number of seconds taken for a duration: a thousand years, far from any overflow.
const SECONDS_MAX: i64 = 31_536_000_000;

/// Keys below `postgresql` that only a local file may set.
pub(super) const LOCAL_ONLY: [&str; 7] =
    ["connect_address", "proxy_address", "listen", "config_dir", "data_dir", "pgpass", "authentication"];

/// Names under which permanent slots are found; the first one present wins.
const SLOT_KEYS: [&str; 3] = ["permanent_replication_slots", "permanent_slots", "slots"];

impl Default for DynamicConfig {
    fn default() -> Self {
        DynamicConfig::from_map(&Map::new()).expect("an empty document has nothing that could be refused")
    }
}

impl DynamicConfig {
    /// Reads the document of the `config` key, of the cache, or of `bootstrap.dcs`.
    ///
    /// # Errors
    /// Only what makes the whole document unusable; anything smaller is a warning and the default is taken.
    pub fn from_map(document: &Map<String, Value>) -> Result<DynamicConfig, InvalidDynamicConfig> {
        let mut reader = Reader { document, warnings: Vec::new() };
        let (timing, corrected) = reader.timing()?;
        let standby_cluster = reader.standby_cluster();
        let strict = reader.flag("synchronous_mode_strict");
        let mode = reader.synchronous_mode();
        let synchronous_mode = if standby_cluster.is_some() { SynchronousMode::Off } else { mode };
        reader.name_pending();
        let stop = reader.aliased_seconds("primary_stop_timeout", "master_stop_timeout", 0);
        Ok(DynamicConfig {
            timing,
            maximum_lag_on_failover_bytes: reader.int("maximum_lag_on_failover", 1_048_576).max(0).unsigned_abs(),
            maximum_lag_on_syncnode_bytes: positive(reader.int("maximum_lag_on_syncnode", -1)),
            max_timelines_history: positive(reader.int("max_timelines_history", 0))
                .map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            primary_start_timeout: reader.aliased_seconds("primary_start_timeout", "master_start_timeout", 300),
            primary_stop_timeout: (!stop.is_zero() && synchronous_mode != SynchronousMode::Off).then_some(stop),
            primary_race_backoff: reader.seconds("primary_race_backoff", 0),
            check_timeline: reader.flag("check_timeline"),
            synchronous_mode,
            synchronous_mode_strict: strict,
            synchronous_node_count: reader.synchronous_node_count(),
            failsafe_mode: reader.flag("failsafe_mode"),
            pause: reader.flag("pause"),
            member_slots_ttl: reader.seconds("member_slots_ttl", 1800),
            standby_cluster,
            slots: reader.slots(),
            ignore_slots: reader.ignore_slots(),
            postgresql: reader.postgresql()?,
            document: corrected,
            warnings: reader.warnings,
        })
    }

    /// Reads a document that is about to be stored in place of `present`.
    ///
    /// # Errors
    /// What no member could act on: a document that is refused as a whole, or values that would count as their default.
    /// What `present` suffers from as well is not held against the change.
    pub fn check_change(
        present: Option<&Map<String, Value>>,
        document: &Map<String, Value>,
    ) -> Result<DynamicConfig, InvalidChange> {
        let read = DynamicConfig::from_map(document).map_err(|error| InvalidChange(vec![error.to_string()]))?;
        let before = present.and_then(|present| DynamicConfig::from_map(present).ok());
        let is_new = |finding: &&Finding| before.as_ref().is_none_or(|before| !before.warnings.contains(finding));
        let bad = read.warnings.iter().filter(|finding| finding.severity == Severity::Error).filter(is_new);
        let problems: Vec<String> = bad.map(Finding::to_string).collect();
        if problems.is_empty() { Ok(read) } else { Err(InvalidChange(problems)) }
    }

    /// Keys that are set and that this version does not act on.
    pub fn pending_keys(&self) -> Vec<String> {
        super::schema::pending_in(&self.document)
    }

    /// What decisions need to know of synchronous replication. `own` is the user's `synchronous_standby_names`.
    pub fn sync_settings(&self, own: String) -> crate::decide::view::SyncSettings {
        crate::decide::view::SyncSettings {
            mode: self.synchronous_mode,
            strict: self.synchronous_mode_strict,
            count: self.synchronous_node_count,
            lag_bytes_max: self.maximum_lag_on_syncnode_bytes,
            own,
        }
    }

    /// True when synchronous replication is requested.
    pub fn is_synchronous(&self) -> bool {
        self.synchronous_mode != SynchronousMode::Off
    }
}

fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

fn duration(seconds: i64) -> Duration {
    Duration::from_secs(seconds.clamp(0, SECONDS_MAX).unsigned_abs())
}

struct Reader<'a> {
    document: &'a Map<String, Value>,
    warnings: Vec<Finding>,
}

impl Reader<'_> {
    fn warn(&mut self, key: &str, problem: String, remedy: &str) {
        self.find(Severity::Warning, key, problem, remedy);
    }

    /// A value that cannot be meant: a member that finds it goes on with the default, a change to it is refused.
    fn refuse(&mut self, key: &str, problem: String, remedy: &str) {
        self.find(Severity::Error, key, problem, remedy);
    }

    fn find(&mut self, severity: Severity, key: &str, problem: String, remedy: &str) {
        let value = self.document.get(key).map(crate::json::compact);
        let origin = Origin::Store;
        self.warnings.push(Finding { severity, origin, key: key.into(), value, problem, remedy: remedy.into() });
    }

    /// One warning for all that is understood and not acted on.
    fn name_pending(&mut self) {
        let keys = super::schema::pending_in(self.document);
        if !keys.is_empty() {
            let problem = format!("understood, and not acted on by this version: {}", keys.join(", "));
            self.warn("", problem, "do not rely on them yet");
        }
    }

    /// TIM-1: minimums first, then room for two retries within the lease. Also returns the document with what was
    /// corrected written into it.
    fn timing(&mut self) -> Result<(Timing, Map<String, Value>), InvalidDynamicConfig> {
        let mut document = self.document.clone();
        let mut seconds = BTreeMap::new();
        for (key, (default, minimum)) in [("ttl", TTL), ("loop_wait", LOOP_WAIT), ("retry_timeout", RETRY_TIMEOUT)] {
            let given = match self.document.get(key) {
                Some(value) => whole_number(value)
                    .ok_or_else(|| InvalidDynamicConfig::NotANumber { key, value: crate::json::compact(value) })?,
                None => default,
            };
            let used = given.clamp(minimum, SECONDS_MAX);
            if used != given {
                self.warn(key, format!("is out of range; {used} is used"), "set it to at least the minimum");
                document.insert(key.to_owned(), Value::from(used));
            }
            seconds.insert(key, used);
        }
        let (ttl, mut loop_wait, mut retry) = (seconds["ttl"], seconds["loop_wait"], seconds["retry_timeout"]);
        if loop_wait + 2 * retry > ttl {
            if LOOP_WAIT.1 + 2 * retry > ttl {
                loop_wait = LOOP_WAIT.1;
                retry = (ttl - LOOP_WAIT.1) / 2;
                document.insert("retry_timeout".to_owned(), Value::from(retry));
            } else {
                loop_wait = ttl - 2 * retry;
            }
            document.insert("loop_wait".to_owned(), Value::from(loop_wait));
            let problem = format!(
                "loop_wait + 2 * retry_timeout is more than ttl {ttl}; loop_wait {loop_wait} and retry_timeout {retry} \
                 are used (TIM-1)"
            );
            self.warn("ttl", problem, "raise ttl, or lower retry_timeout");
        }
        let timing = Timing { ttl: duration(ttl), loop_wait: duration(loop_wait), retry_timeout: duration(retry) };
        Ok((timing, document))
    }

    fn flag(&mut self, key: &str) -> bool {
        match self.document.get(key) {
            None | Some(Value::Null) => false,
            Some(value) => bool_of(value).unwrap_or_else(|| {
                self.refuse(key, "is not a boolean and counts as off".to_owned(), "write true or false");
                false
            }),
        }
    }

    fn int(&mut self, key: &str, default: i64) -> i64 {
        self.number(key, default, |value| match value {
            Value::Number(_) | Value::String(_) => parse_int(&text_of(value), None),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        })
    }

    fn seconds(&mut self, key: &str, default: i64) -> Duration {
        duration(self.number(key, default, seconds_of))
    }

    fn number(&mut self, key: &str, default: i64, read: impl Fn(&Value) -> Option<i64>) -> i64 {
        match self.document.get(key) {
            None | Some(Value::Null) => default,
            Some(value) => read(value).unwrap_or_else(|| {
                self.refuse(key, format!("is not a number; {default} is used"), "write a whole number");
                default
            }),
        }
    }

    fn aliased_seconds(&mut self, key: &str, alias: &str, default: i64) -> Duration {
        let key = if self.document.contains_key(key) || !self.document.contains_key(alias) { key } else { alias };
        self.seconds(key, default)
    }

    fn synchronous_node_count(&mut self) -> u32 {
        let asked = self.int("synchronous_node_count", 1);
        if asked < 1 {
            let problem = "is less than one standby; 1 is used (IN-C13)".to_owned();
            self.refuse(
                "synchronous_node_count",
                problem,
                "write 1 or more; to wait for nobody set synchronous_mode: false",
            );
        }
        u32::try_from(asked.max(1)).unwrap_or(u32::MAX)
    }

    fn synchronous_mode(&mut self) -> SynchronousMode {
        match self.document.get("synchronous_mode") {
            Some(Value::String(text)) if text.eq_ignore_ascii_case("quorum") => SynchronousMode::Quorum,
            None | Some(Value::Null) => SynchronousMode::Off,
            Some(value) => match bool_of(value) {
                Some(true) => SynchronousMode::On,
                Some(false) => SynchronousMode::Off,
                None => {
                    let problem = "is no mode of synchronous replication and counts as off (IN-C11)".to_owned();
                    self.refuse("synchronous_mode", problem, "write true, false or quorum");
                    SynchronousMode::Off
                }
            },
        }
    }

    fn standby_cluster(&mut self) -> Option<StandbyCluster> {
        let value = self.document.get("standby_cluster").filter(|value| is_truthy(value))?;
        let section = value.as_object();
        let is_set = |key: &&str| section.and_then(|section| section.get(*key)).is_some_and(is_truthy);
        if !["host", "port", "restore_command"].iter().any(is_set) {
            let problem = "names neither host, port nor restore_command and is ignored".to_owned();
            self.warn("standby_cluster", problem, "name the cluster to follow, or remove the key");
            return None;
        }
        let text = |key: &str| section?.get(key).filter(|value| is_truthy(value)).map(text_of);
        if let Some(port) = text("port").filter(|port| port.parse::<u16>().is_err()) {
            let problem = format!("{port} is not a port: the hosts of a standby cluster share one (STB-2)");
            self.refuse("standby_cluster.port", problem, "write a number up to 65535");
        }
        let methods = section.and_then(|section| section.get("create_replica_methods")).and_then(Value::as_array);
        Some(StandbyCluster {
            host: text("host"),
            port: text("port"),
            primary_slot_name: text("primary_slot_name"),
            create_replica_methods: methods.map(|list| list.iter().map(text_of).collect()),
            restore_command: text("restore_command"),
            archive_cleanup_command: text("archive_cleanup_command"),
            recovery_min_apply_delay: text("recovery_min_apply_delay"),
        })
    }

    fn slots(&mut self) -> BTreeMap<String, PermanentSlot> {
        let Some(key) = SLOT_KEYS.into_iter().find(|key| self.document.get(*key).is_some_and(is_truthy)) else {
            return BTreeMap::new();
        };
        match &self.document[key] {
            Value::Object(slots) => {
                let (slots, problems) = permanent_slots(slots);
                problems.into_iter().for_each(|problem| self.about_slot(&format!("{key}."), problem));
                slots
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                self.refuse(key, "is not a mapping and is ignored".to_owned(), "write a mapping of slot names");
                BTreeMap::new()
            }
        }
    }

    fn about_slot(&mut self, section: &str, problem: SlotProblem) {
        let severity = if problem.is_error { Severity::Error } else { Severity::Warning };
        self.find(severity, &format!("{section}{}", problem.key), problem.text, problem.remedy);
    }

    fn ignore_slots(&mut self) -> Vec<SlotPattern> {
        match self.document.get("ignore_slots") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => {
                let (patterns, problems) = ignored_slots(list);
                problems.into_iter().for_each(|problem| self.about_slot("ignore_slots", problem));
                patterns
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                self.refuse("ignore_slots", "is not a list and is ignored".to_owned(), "write a list of mappings");
                Vec::new()
            }
        }
    }

    fn postgresql(&mut self) -> Result<Map<String, Value>, InvalidDynamicConfig> {
        let section = match self.document.get("postgresql") {
            None | Some(Value::Null) => return Ok(Map::new()),
            Some(Value::Object(section)) => section,
            Some(value) => {
                let value = crate::json::compact(value);
                return Err(InvalidDynamicConfig::NotAMapping { key: "postgresql", value });
            }
        };
        if let Some(parameters) = section.get("parameters").filter(|value| !value.is_object() && !value.is_null()) {
            let value = crate::json::compact(parameters);
            return Err(InvalidDynamicConfig::NotAMapping { key: "postgresql.parameters", value });
        }
        for place in ["parameters", "recovery_conf"] {
            for name in ["primary_conninfo", "primary_slot_name", "standby_mode"] {
                if section.get(place).and_then(|place| place.get(name)).is_some_and(is_truthy) {
                    let problem = "would make the primary of this cluster a standby elsewhere, and is ignored (STB-4)";
                    let remedy = "name the cluster to follow in standby_cluster";
                    self.refuse(&format!("postgresql.{place}.{name}"), problem.to_owned(), remedy);
                }
            }
        }
        let is_shared = |key: &String| !LOCAL_ONLY.contains(&key.as_str());
        Ok(section.iter().filter(|(key, _)| is_shared(key)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

/// A whole number as `int()` takes it: numbers lose their fraction, texts have to be digits.
fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64().filter(|float| float.abs() < 1e15)?;
            Some(float.trunc() as i64)
        }),
        Value::Bool(value) => Some(i64::from(*value)),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dynamic(value: Value) -> DynamicConfig {
        DynamicConfig::from_map(value.as_object().unwrap()).unwrap()
    }

    #[test]
    fn timing_leaves_room_for_two_retries_within_the_lease() {
        for (given, ttl, loop_wait, retry) in [
            (json!({}), 30, 10, 10),
            (json!({"ttl": 20, "loop_wait": 2}), 20, 1, 9),
            (json!({"ttl": 30, "loop_wait": 20}), 30, 10, 10),
            (json!({"ttl": 5, "loop_wait": 0, "retry_timeout": 0}), 20, 1, 3),
            (json!({"ttl": "45", "loop_wait": 10.9}), 45, 10, 10),
            (json!({"ttl": 20, "loop_wait": 3, "retry_timeout": 5}), 20, 3, 5),
        ] {
            let timing = dynamic(given.clone()).timing;
            let seconds = (timing.ttl.as_secs(), timing.loop_wait.as_secs(), timing.retry_timeout.as_secs());
            assert_eq!(seconds, (ttl, loop_wait, retry), "{given}");
        }
        let corrected = dynamic(json!({"ttl": 20, "loop_wait": 2, "mine": 1}));
        assert_eq!(
            Value::Object(corrected.document),
            json!({"ttl": 20, "loop_wait": 1, "mine": 1, "retry_timeout": 9})
        );
        assert_eq!(corrected.warnings.len(), 1);
    }

    #[test]
    fn a_timing_that_is_no_number_refuses_the_whole_document() {
        for bad in [json!({"ttl": "soon"}), json!({"loop_wait": null}), json!({"retry_timeout": [1]})] {
            let error = DynamicConfig::from_map(bad.as_object().unwrap()).unwrap_err();
            assert!(matches!(error, InvalidDynamicConfig::NotANumber { .. }), "{bad}");
        }
        let bad = json!({"postgresql": {"parameters": []}});
        assert!(DynamicConfig::from_map(bad.as_object().unwrap()).is_err());
    }

    #[test]
    fn a_change_is_judged_by_what_it_makes_worse() {
        let check = |present: Value, document: Value| {
            let present = present.as_object().unwrap().clone();
            DynamicConfig::check_change(Some(&present), document.as_object().unwrap())
                .map(drop)
                .map_err(|e| e.to_string())
        };
        for (name, present, document, refusal) in [
            ("unknown keys are the user's", json!({}), json!({"mine": [1]}), None),
            ("a timing that is corrected", json!({}), json!({"ttl": 5}), None),
            (
                "a timing that is none",
                json!({}),
                json!({"ttl": "soon"}),
                Some("ttl is \"soon\", which is not a whole number"),
            ),
            ("no switch", json!({}), json!({"pause": "often"}), Some("/config: pause: \"often\": is not a boolean")),
            ("no switch before either", json!({"pause": "often"}), json!({"pause": "often", "ttl": 20}), None),
            ("no number", json!({}), json!({"synchronous_node_count": "two"}), Some("synchronous_node_count: \"two\"")),
            (
                "IN-C13: nobody",
                json!({}),
                json!({"synchronous_node_count": 0}),
                Some("synchronous_node_count: 0: is less than"),
            ),
            (
                "IN-C11: no mode",
                json!({}),
                json!({"synchronous_mode": "maybe"}),
                Some("synchronous_mode: \"maybe\": is no mode"),
            ),
            ("no mapping", json!({}), json!({"slots": ["a"]}), Some("slots: [\"a\"]: is not a mapping")),
            (
                "a standby elsewhere",
                json!({}),
                json!({"postgresql": {"parameters": {"primary_conninfo": "host=x"}}}),
                Some("postgresql.parameters.primary_conninfo: would make the primary of this cluster a standby"),
            ),
            ("no port", json!({}), json!({"standby_cluster": {"host": "a", "port": "1,2"}}), Some("(STB-2)")),
            ("no name of a slot", json!({}), json!({"slots": {"A-b": null}}), Some("slots.A-b: is no name")),
            ("an odd option", json!({}), json!({"slots": {"a": {"colour": "red"}}}), None),
            (
                "no database",
                json!({}),
                json!({"permanent_slots": {"a": {"type": "logical"}}}),
                Some("a.database: is not set"),
            ),
        ] {
            match (check(present, document), refusal) {
                (Ok(()), None) => {}
                (Err(problem), Some(want)) => assert!(problem.contains(want), "{name}: {problem}"),
                (outcome, _) => panic!("{name}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn synchronous_mode_is_off_on_or_quorum_and_never_in_a_standby_cluster() {
        use SynchronousMode::*;
        for (given, want) in [
            (json!({}), Off),
            (json!({"synchronous_mode": true}), On),
            (json!({"synchronous_mode": "on"}), On),
            (json!({"synchronous_mode": "Quorum"}), Quorum),
            (json!({"synchronous_mode": "maybe"}), Off),
            (json!({"synchronous_mode": true, "standby_cluster": {"host": "a"}}), Off),
            (json!({"synchronous_mode": true, "standby_cluster": {}}), On),
        ] {
            assert_eq!(dynamic(given.clone()).synchronous_mode, want, "IN-C19, IN-C22: {given}");
        }
    }

    #[test]
    fn a_stop_timeout_counts_only_with_synchronous_mode() {
        assert_eq!(dynamic(json!({"primary_stop_timeout": 5})).primary_stop_timeout, None);
        let with = dynamic(json!({"master_stop_timeout": 5, "synchronous_mode": true}));
        assert_eq!(with.primary_stop_timeout, Some(Duration::from_secs(5)));
    }

    #[test]
    fn old_names_count_only_without_the_new_ones() {
        for (given, seconds) in [
            (json!({"master_start_timeout": 7}), 7),
            (json!({"master_start_timeout": 7, "primary_start_timeout": 9}), 9),
            (json!({"primary_start_timeout": 0}), 0),
            (json!({"primary_start_timeout": "5min"}), 300),
        ] {
            assert_eq!(dynamic(given.clone()).primary_start_timeout.as_secs(), seconds, "{given}");
        }
        let slots = dynamic(json!({"slots": {"a": null}, "permanent_slots": {"b": null}})).slots;
        assert!(slots.contains_key("b"));
    }

    #[test]
    fn local_keys_of_postgresql_are_not_taken_from_the_store() {
        let config = dynamic(json!({"postgresql": {"listen": "*:1", "use_slots": false, "data_dir": "/", "x": 1}}));
        assert_eq!(Value::Object(config.postgresql), json!({"use_slots": false, "x": 1}));
    }
}
