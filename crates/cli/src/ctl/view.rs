//! What the commands read from a cluster: who plays which role, and the switches of the dynamic configuration.

use std::fmt;

use pgward_core::cluster::{Cluster, Initialize, Member};
use pgward_core::names::MemberName;

use super::python::is_on;

/// The role of a member as the leader key and the sync key give it; what the member says of itself does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Holds the leader key.
    Leader,
    /// Holds the leader key of a standby cluster.
    StandbyLeader,
    /// A synchronous standby.
    SyncStandby,
    /// One of the standbys of which a quorum confirms commits.
    QuorumStandby,
    /// Any other member.
    Replica,
}

impl Role {
    /// True for the holder of the leader key.
    pub(super) fn leads(self) -> bool {
        match self {
            Role::Leader | Role::StandbyLeader => true,
            Role::SyncStandby | Role::QuorumStandby | Role::Replica => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Leader => "Leader",
            Role::StandbyLeader => "Standby Leader",
            Role::SyncStandby => "Sync Standby",
            Role::QuorumStandby => "Quorum Standby",
            Role::Replica => "Replica",
        })
    }
}

/// What commits wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncMode {
    /// Nothing.
    Off,
    /// Every synchronous standby.
    Priority,
    /// A quorum of the standbys.
    Quorum,
}

/// Maintenance mode is on.
pub(super) fn is_paused(cluster: &Cluster) -> bool {
    is_on(setting(cluster, "pause"))
}

/// The cluster follows another one.
pub(super) fn is_standby_cluster(cluster: &Cluster) -> bool {
    let source = setting(cluster, "standby_cluster").and_then(|value| value.as_object());
    source.is_some_and(|source| {
        ["host", "port", "restore_command"].iter().any(|key| source.get(*key).is_some_and(|value| !value.is_null()))
    })
}

/// The mode of synchronous replication, which a standby cluster never has.
pub(super) fn sync_mode(cluster: &Cluster) -> SyncMode {
    let mode = setting(cluster, "synchronous_mode");
    let is_quorum = mode.and_then(|mode| mode.as_str()).is_some_and(|mode| mode.eq_ignore_ascii_case("quorum"));
    match () {
        () if is_standby_cluster(cluster) => SyncMode::Off,
        () if is_quorum => SyncMode::Quorum,
        () if is_on(mode) => SyncMode::Priority,
        () => SyncMode::Off,
    }
}

fn setting<'a>(cluster: &'a Cluster, key: &str) -> Option<&'a serde_json::Value> {
    cluster.config.as_ref()?.value.get(key)
}

/// The role of one member.
pub(super) fn role(cluster: &Cluster, name: &MemberName) -> Role {
    if cluster.is_led_by(name) {
        return if is_standby_cluster(cluster) { Role::StandbyLeader } else { Role::Leader };
    }
    let is_voter = cluster.sync.value.has_voter(name.as_str());
    match sync_mode(cluster) {
        SyncMode::Quorum if is_voter => Role::QuorumStandby,
        SyncMode::Priority if is_voter => Role::SyncStandby,
        SyncMode::Off | SyncMode::Priority | SyncMode::Quorum => Role::Replica,
    }
}

/// The state that is shown for a member. Empty when the member says nothing.
pub(super) fn state(member: &Member, role: Role) -> &str {
    let replication = member.replication_state().filter(|_| role != Role::Leader);
    replication.unwrap_or_else(|| if member.fields.contains_key("state") { member.state() } else { "" })
}

/// What stands in parentheses behind the name of the cluster.
pub(super) fn identity(cluster: &Cluster) -> &str {
    match &cluster.initialize {
        Initialize::Absent => "uninitialized",
        Initialize::Bootstrapping => "initializing",
        Initialize::SystemId(text) | Initialize::Invalid(text) => text,
    }
}

/// Members in the order of a tree, each with its level: the leader at level 0, and below each member those that
/// replicate from it.
///
/// Members whose `replicatefrom` names no other replica are below the leader. So are members that name each other in a
/// circle: nobody is left out.
pub(super) fn tree(cluster: &Cluster) -> Vec<(usize, &Member)> {
    let is_leader = |member: &Member| cluster.is_led_by(&member.name);
    let upstream = |member: &Member| {
        let source: MemberName = member.replicatefrom()?.parse().ok()?;
        let source = cluster.members.get(&source)?;
        (!is_leader(source) && !is_leader(member) && source.name != member.name).then(|| source.name.clone())
    };
    let replicas: Vec<(&Member, Option<MemberName>)> = cluster
        .members
        .values()
        .filter(|member| !is_leader(member))
        .map(|member| (member, upstream(member).filter(|_| !is_in_a_circle(member, &upstream, cluster))))
        .collect();
    let mut order: Vec<(usize, &Member)> = cluster.leader_member().map(|leader| (0, leader)).into_iter().collect();
    // Depth first, by a stack of members in reverse order.
    let children = |parent: Option<&MemberName>, level: usize| {
        let below = replicas.iter().rev().filter(move |(_, source)| source.as_ref() == parent);
        below.map(move |(member, _)| (level, *member)).collect::<Vec<_>>()
    };
    let mut stack = children(None, 1);
    while let Some((level, member)) = stack.pop() {
        order.push((level, member));
        stack.extend(children(Some(&member.name), level + 1));
    }
    order
}

/// True when following `replicatefrom` from `member` comes back to it.
fn is_in_a_circle(member: &Member, upstream: &impl Fn(&Member) -> Option<MemberName>, cluster: &Cluster) -> bool {
    let mut at = upstream(member);
    // A path longer than the number of members has entered some other circle.
    for _ in 0..cluster.members.len() {
        match at {
            Some(name) if name == member.name => return true,
            Some(name) => at = cluster.members.get(&name).and_then(upstream),
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use pgward_core::cluster::{LeaseId, RawKey, Revision};

    use super::*;

    fn cluster(keys: &[(&str, &str)]) -> Cluster {
        let key = |(suffix, value): &(&str, &str)| RawKey {
            suffix: (*suffix).to_owned(),
            value: value.as_bytes().to_vec(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            lease: LeaseId(1),
        };
        Cluster::from_keys(Revision(1), keys.iter().map(key))
    }

    fn drawn(keys: &[(&str, &str)]) -> String {
        let cluster = cluster(keys);
        let line = |(level, member): (usize, &Member)| format!("{level}{}", member.name);
        tree(&cluster).into_iter().map(line).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_member_has_one_place_in_the_tree() {
        let from = |name: &str| format!(r#"{{"tags":{{"replicatefrom":"{name}"}}}}"#);
        for (name, members, tree) in [
            ("cascade", [("a", ""), ("b", "a"), ("c", "b"), ("d", "")], "0a 1b 2c 1d"),
            ("a source that does not exist", [("a", ""), ("b", "x"), ("c", "a/b"), ("d", "d")], "0a 1b 1c 1d"),
            ("a circle", [("a", ""), ("b", "c"), ("c", "b"), ("d", "c")], "0a 1b 1c 2d"),
            ("the leader names a replica", [("a", "b"), ("b", ""), ("c", "b"), ("d", "")], "0a 1b 2c 1d"),
        ] {
            let values: Vec<(String, String)> =
                members.iter().map(|(name, source)| (format!("members/{name}"), from(source))).collect();
            let mut keys: Vec<(&str, &str)> =
                values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            keys.push(("leader", "a"));
            assert_eq!(drawn(&keys), tree, "{name}");
        }
        assert_eq!(drawn(&[("members/a", "{}"), ("members/b", "{}")]), "1a 1b", "nobody leads");
    }

    #[test]
    fn roles_follow_the_keys_and_not_the_members() {
        let sync = ("sync", r#"{"leader":"a","quorum":1,"sync_standby":"B"}"#);
        for (config, role_of_a, role_of_b) in [
            ("{\"ttl\":30}", Role::Leader, Role::Replica),
            ("{\"synchronous_mode\":true}", Role::Leader, Role::SyncStandby),
            ("{\"synchronous_mode\":\"on\"}", Role::Leader, Role::SyncStandby),
            ("{\"synchronous_mode\":\"quorum\"}", Role::Leader, Role::QuorumStandby),
            ("{\"synchronous_mode\":true,\"standby_cluster\":{\"port\":1}}", Role::StandbyLeader, Role::Replica),
            ("{\"standby_cluster\":{\"host\":null}}", Role::Leader, Role::Replica),
        ] {
            let cluster = cluster(&[("leader", "a"), sync, ("config", config)]);
            let role_of = |name: &str| role(&cluster, &name.parse().unwrap());
            assert_eq!((role_of("a"), role_of("b")), (role_of_a, role_of_b), "{config}");
        }
    }
}
