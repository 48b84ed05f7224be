//! Which members an action is about: from the words of the command line and the cluster as it was read.

use std::sync::Arc;

use anyhow::bail;
use pgward_core::cluster::{Cluster, Member};

use super::args::WantedRole;
use super::dsn::has_role;
use super::members::{self, Extra, Named};
use super::sheet::Format;
use super::terminal::{Terminal, confirm};
use super::world::{ClusterName, World};

/// A cluster, and the members of it that were named.
pub(super) struct Target {
    /// How the cluster is called.
    pub(super) name: ClusterName,
    /// As it was read.
    pub(super) cluster: Arc<Cluster>,
    /// The names as typed; none stands for all members.
    pub(super) members: Vec<String>,
}

/// Reads the words behind a command: `CLUSTER MEMBER...`.
///
/// People leave the cluster out when the configuration names it: nothing at all, and a first word that is a member of
/// the configured cluster, are about that cluster.
///
/// # Errors
/// When no cluster is named anywhere, or the store cannot be read.
pub(super) async fn find(mut words: Vec<String>, group: Option<u32>, world: &impl World) -> anyhow::Result<Target> {
    let named = |scope: String| ClusterName { scope, group };
    if let Some(scope) = world.configured_scope().filter(|scope| words.first() != Some(scope)) {
        let name = named(scope);
        let first = match words.first() {
            None => return Ok(Target { cluster: world.read(&name).await?, name, members: words }),
            Some(first) => first,
        };
        let cluster = world.read(&name).await?;
        if cluster.members.keys().any(|member| member.as_str() == first) {
            return Ok(Target { name, cluster, members: words });
        }
    }
    if words.is_empty() {
        bail!("no cluster is named: give its name, or set `scope` in the configuration");
    }
    let name = named(words.remove(0));
    Ok(Target { cluster: world.read(&name).await?, name, members: words })
}

impl Target {
    /// Shows the cluster.
    pub(super) fn show(&self, terminal: &mut impl Terminal) -> anyhow::Result<()> {
        let named = Named { scope: &self.name.scope, group: self.name.group, cluster: &self.cluster };
        Ok(terminal.print(&members::list(named, Extra::WhereUsed, Format::Pretty))?)
    }

    /// The members that were named and have the role.
    ///
    /// # Errors
    /// When the cluster has no members, or none of those that were named fits; `role_shown` is how the message calls it.
    pub(super) fn choose(
        &self,
        role: WantedRole,
        role_shown: &str,
        terminal: &mut impl Terminal,
    ) -> anyhow::Result<Vec<&Member>> {
        if self.cluster.members.is_empty() {
            bail!("{} cluster doesn't have any members", self.name.scope);
        }
        let is_named =
            |member: &&Member| self.members.is_empty() || self.members.iter().any(|name| name == member.name.as_str());
        let fits = |member: &&Member| is_named(member) && has_role(&self.cluster, member, role);
        let chosen: Vec<&Member> = self.cluster.members.values().filter(fits).collect();
        if chosen.is_empty() {
            bail!("No {role_shown} among provided members");
        }
        let is_member = |name: &str| self.cluster.members.keys().any(|member| member.as_str() == name);
        for name in self.members.iter().filter(|name| !is_member(name)) {
            terminal.warn(&format!("Warning: cluster {} has no member {name}", self.name.scope));
        }
        Ok(chosen)
    }
}

/// Asks before something is done to members.
///
/// # Errors
/// When the person does not want it.
pub(super) fn confirm_for(
    members: &[&Member],
    action: &str,
    at: Option<&str>,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let names = names(members);
    let (question, aborted) = match at {
        Some(at) => (
            format!("Are you sure you want to schedule {action} of members {names} at {at}?"),
            format!("Aborted scheduled {action}"),
        ),
        None => (format!("Are you sure you want to {action} members {names}?"), format!("Aborted {action}")),
    };
    if !confirm(terminal, &question)? {
        bail!("{aborted}");
    }
    Ok(())
}

/// `pg1, pg2`.
pub(super) fn names(members: &[&Member]) -> String {
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.join(", ")
}
