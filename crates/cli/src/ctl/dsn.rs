//! `dsn`: the address of a member that was chosen by name or by role.

use anyhow::bail;
use pgward_core::cluster::{Cluster, Member, MemberRole};

use super::args::WantedRole;

/// What `dsn` prints.
///
/// # Errors
/// When both a role and a name are given, or no such member has an address.
pub(super) fn print(cluster: &Cluster, role: Option<WantedRole>, name: Option<&str>) -> anyhow::Result<String> {
    if role.is_some() && name.is_some() {
        bail!("--role and --member are mutually exclusive options");
    }
    let is_chosen = |member: &&Member| match name {
        Some(name) => member.name.as_str() == name,
        None => has_role(cluster, member, role.unwrap_or(WantedRole::Leader)),
    };
    match cluster.members.values().filter(is_chosen).find_map(Member::address) {
        Some(address) => Ok(format!("host={} port={}\n", address.host, address.port)),
        None => bail!("Can not find a suitable member"),
    }
}

/// True for a member with this role, by the leader key first and by what it says of itself second.
pub(super) fn has_role(cluster: &Cluster, member: &Member, role: WantedRole) -> bool {
    let leads = cluster.is_led_by(&member.name);
    match role {
        WantedRole::Leader => leads,
        WantedRole::Primary => leads && member.role() != Some(MemberRole::StandbyLeader),
        WantedRole::StandbyLeader => leads && member.role() != Some(MemberRole::Primary),
        WantedRole::Replica | WantedRole::Standby => !leads,
        WantedRole::Any => true,
    }
}
