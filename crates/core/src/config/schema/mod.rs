//! Every key that is understood: its type, where it may be set, and whether this program acts on it.

mod check;
mod dynamic;
mod local;

pub(super) use check::{Checker, pending_in};
pub(super) use dynamic::DYNAMIC;
pub(super) use local::LOCAL;

/// One key of a section.
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// What its value has to be.
    pub(super) kind: Type,
    /// Where it may be set.
    place: Place,
    /// What becomes of it.
    state: State,
}

/// What a value has to be.
#[derive(Clone, Copy)]
pub(super) enum Type {
    /// Text.
    Text,
    /// A boolean, or a word for one.
    Flag,
    /// A whole number within these limits.
    Integer(i64, i64),
    /// A number or a duration with a unit, in seconds, of at least this.
    Seconds(i64),
    /// `host:port`.
    Address,
    /// `host:port` that other machines can use.
    PublicAddress,
    /// `host,host:port` to listen on.
    Listen,
    /// A list of lines.
    Lines,
    /// A list, or text with commas.
    Hosts,
    /// One of these words; upper and lower case are equal.
    Choice(&'static [&'static str]),
    /// A boolean or the word `quorum`.
    SynchronousMode,
    /// Any mapping.
    Mapping,
    /// Permanent replication slots.
    Slots,
    /// A list of what slots have that are left alone.
    SlotPatterns,
    /// Options of a tool.
    Options,
    /// A mapping with these keys.
    Section(&'static [Key]),
    /// Anything.
    Any,
}

/// Where a key may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The local file and environment.
    Local,
    /// The dynamic configuration.
    Dynamic,
    /// Either.
    Both,
}

/// What becomes of a key.
#[derive(Clone, Copy)]
enum State {
    /// It is acted on.
    Used,
    /// It is understood and not acted on yet, unless its value is false, empty or one of these.
    Pending(&'static [&'static str]),
    /// It is accepted and has no effect: why, and what to do.
    Ignored(&'static str, &'static str),
}

const fn both(name: &'static str, kind: Type) -> Key {
    Key { name, kind, place: Place::Both, state: State::Used }
}

const fn local(name: &'static str, kind: Type) -> Key {
    Key { name, kind, place: Place::Local, state: State::Used }
}

impl Key {
    const fn pending(self) -> Key {
        self.pending_unless(&[])
    }

    const fn pending_unless(self, inert: &'static [&'static str]) -> Key {
        Key { state: State::Pending(inert), ..self }
    }

    const fn ignored(self, problem: &'static str, remedy: &'static str) -> Key {
        Key { state: State::Ignored(problem, remedy), ..self }
    }

    const fn dynamic(self) -> Key {
        Key { place: Place::Dynamic, ..self }
    }
}

/// The `postgresql` section, local and dynamic.
const POSTGRESQL: &[Key] = &[
    local("listen", Type::Listen),
    local("connect_address", Type::PublicAddress),
    local("proxy_address", Type::Address),
    local("data_dir", Type::Text),
    local("config_dir", Type::Text),
    local("config_base_name", Type::Text),
    both("database", Type::Text),
    both("bin_dir", Type::Text),
    both("bin_name", Type::Mapping),
    local("pgpass", Type::Text),
    local("authentication", Type::Section(local::AUTHENTICATION)),
    both("parameters", Type::Mapping),
    both("parameters_primary", Type::Mapping).pending(),
    both("parameters_replica", Type::Mapping).pending(),
    both("parameters_standby_leader", Type::Mapping).pending(),
    both("pg_hba", Type::Lines),
    both("pg_hba_primary", Type::Lines).pending(),
    both("pg_hba_replica", Type::Lines).pending(),
    both("pg_hba_standby_leader", Type::Lines).pending(),
    both("pg_ident", Type::Lines),
    both("pg_ident_primary", Type::Lines).pending(),
    both("pg_ident_replica", Type::Lines).pending(),
    both("pg_ident_standby_leader", Type::Lines).pending(),
    both("recovery_conf", Type::Mapping),
    both("custom_conf", Type::Text),
    both("callbacks", Type::Mapping).pending(),
    both("create_replica_methods", Type::Lines).pending_unless(&["[\"basebackup\"]"]),
    both("create_replica_method", Type::Any).pending_unless(&["[\"basebackup\"]", "basebackup"]),
    both("basebackup", Type::Options),
    both("use_pg_rewind", Type::Flag),
    both("rewind", Type::Options),
    both("remove_data_directory_on_rewind_failure", Type::Flag),
    both("remove_data_directory_on_diverged_timelines", Type::Flag),
    both("use_slots", Type::Flag).dynamic(),
    both("use_unix_socket", Type::Flag),
    both("use_unix_socket_repl", Type::Flag),
    both("pg_ctl_timeout", Type::Seconds(0)),
    both("pre_promote", Type::Text).pending(),
    both("before_stop", Type::Text).pending(),
    both("krbsrvname", Type::Text),
    // What files of old versions have in place of `authentication`, `name` and `scope`.
    local("superuser", Type::Section(local::USER)),
    local("replication", Type::Section(local::USER)),
    local("pg_rewind", Type::Section(local::USER)),
    local("name", Type::Text),
    local("scope", Type::Text),
];
