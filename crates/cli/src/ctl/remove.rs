//! `remove`: takes a cluster, or one member that is gone for good, out of the store.

use anyhow::bail;
use pgward_store::Key;

use super::args::RemoveArguments;
use super::members::{self, Extra, Named};
use super::sheet::Format;
use super::target::{self, Target};
use super::terminal::{Terminal, prompt_bare};
use super::world::World;

/// What has to be typed before everything goes.
const AWARE: &str = "Yes I am aware";

/// Asks three times, and removes.
///
/// # Errors
/// When an answer is not the expected one, or the store cannot be changed.
pub(super) async fn remove(
    wanted: RemoveArguments,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let words = [Some(wanted.cluster), wanted.member].into_iter().flatten().collect();
    let target = target::find(words, wanted.group.group, world).await?;
    show(&target, wanted.format, terminal)?;
    match target.members.first() {
        Some(member) => remove_member(member, &target, world, terminal).await,
        None => remove_cluster(&target, world, terminal).await,
    }
}

fn show(target: &Target, format: Format, terminal: &mut impl Terminal) -> anyhow::Result<()> {
    let named = Named { scope: &target.name.scope, group: target.name.group, cluster: &target.cluster };
    Ok(terminal.print(&members::list(named, Extra::WhereUsed, format))?)
}

async fn remove_cluster(target: &Target, world: &impl World, terminal: &mut impl Terminal) -> anyhow::Result<()> {
    let scope = &target.name.scope;
    if prompt_bare(terminal, "Please confirm the cluster name to remove")? != *scope {
        bail!("Cluster names specified do not match");
    }
    let question = format!("You are about to remove all information in DCS for {scope}, please type: \"{AWARE}\"");
    if prompt_bare(terminal, &question)? != AWARE {
        bail!("You did not exactly type \"{AWARE}\"");
    }
    if let Some(leader) = &target.cluster.leader {
        let question = "This cluster currently is healthy. Please specify the leader name to continue";
        if prompt_bare(terminal, question)? != leader.name.as_str() {
            bail!("You did not specify the current leader of the cluster");
        }
    }
    world.delete_cluster(&target.name).await
}

/// Only a member whose agent has ended: one that lives publishes itself again at once.
async fn remove_member(
    member: &str,
    target: &Target,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let scope = &target.name.scope;
    let Some(found) = target.cluster.members.values().find(|found| found.name.as_str() == member) else {
        bail!("cluster {scope} has no member {member}");
    };
    if target.cluster.is_led_by(&found.name) {
        bail!("{member} leads cluster {scope}: move the leadership first (pgward ctl switchover {scope})");
    }
    if !matches!(found.state(), "stopped" | "crashed" | "start failed") {
        bail!("{member} is not stopped ({}): stop its agent first, or it would publish itself again", found.state());
    }
    if prompt_bare(terminal, "Please confirm the member name to remove")? != member {
        bail!("Member names specified do not match");
    }
    world.delete(&target.name, &Key::Member(found.name.clone())).await?;
    let text = format!("Removed member {member}; its replication slot goes after member_slots_ttl at the latest\n");
    Ok(terminal.print(&text)?)
}
