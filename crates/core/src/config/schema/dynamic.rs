//! The keys of the dynamic configuration.

use super::{Key, POSTGRESQL, Place, State, Type};

const fn shared(name: &'static str, kind: Type) -> Key {
    Key { name, kind, place: Place::Dynamic, state: State::Used }
}

/// The top level.
pub(in crate::config) const DYNAMIC: &[Key] = &[
    shared("ttl", Type::Integer(20, i64::MAX)),
    shared("loop_wait", Type::Integer(1, i64::MAX)),
    shared("retry_timeout", Type::Integer(3, i64::MAX)),
    shared("maximum_lag_on_failover", Type::Integer(0, i64::MAX)),
    shared("maximum_lag_on_syncnode", Type::Integer(-1, i64::MAX)),
    shared("max_timelines_history", Type::Integer(0, i64::MAX)),
    shared("check_timeline", Type::Flag),
    shared("primary_start_timeout", Type::Seconds(0)),
    shared("master_start_timeout", Type::Seconds(0)),
    shared("primary_stop_timeout", Type::Seconds(0)),
    shared("master_stop_timeout", Type::Seconds(0)),
    shared("primary_race_backoff", Type::Seconds(0)),
    shared("synchronous_mode", Type::SynchronousMode),
    shared("synchronous_mode_strict", Type::Flag),
    shared("synchronous_node_count", Type::Integer(1, i64::MAX)),
    shared("failsafe_mode", Type::Flag),
    shared("pause", Type::Flag),
    shared("member_slots_ttl", Type::Seconds(0)),
    shared("slots", Type::Slots),
    shared("permanent_slots", Type::Slots),
    shared("permanent_replication_slots", Type::Slots),
    shared("ignore_slots", Type::SlotPatterns),
    shared("standby_cluster", Type::Section(STANDBY_CLUSTER)),
    shared("postgresql", Type::Section(POSTGRESQL)),
];

const STANDBY_CLUSTER: &[Key] = &[
    shared("host", Type::Text),
    shared("port", Type::Any),
    shared("primary_slot_name", Type::Text),
    shared("create_replica_methods", Type::Lines).pending_unless(&["[\"basebackup\"]"]),
    shared("restore_command", Type::Text),
    shared("archive_cleanup_command", Type::Text),
    shared("recovery_min_apply_delay", Type::Any),
];
