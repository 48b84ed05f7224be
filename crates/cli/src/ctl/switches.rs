//! `pause`, `resume`, `demote-cluster` and `promote-cluster`: switches of the dynamic configuration that take effect on
//! every member.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::bail;
use pgward_core::cluster::{Cluster, Member};
use pgward_core::names::MemberName;
use serde_json::{Value, json};

use super::args::{DemoteClusterArguments, SwitchArguments};
use super::members::{self, Extra, Named};
use super::schedule;
use super::sheet::Format;
use super::terminal::{Terminal, confirm};
use super::view::{is_paused, is_standby_cluster};
use super::world::{Answer, ClusterName, NoAnswer, Request, World, endpoint};

/// How long a member may take to change the configuration.
const PATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a change is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Turns maintenance mode on or off.
///
/// # Errors
/// When it is so already, or no member can be asked.
pub(super) async fn set_pause(
    paused: bool,
    wanted: &SwitchArguments,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let cluster = world.read(name).await?;
    if is_paused(&cluster) == paused {
        bail!("{}", if paused { "Cluster is already paused" } else { "Cluster is not paused" });
    }
    let change = json!({"pause": if paused { Value::Bool(true) } else { Value::Null }});
    let answer = match change_by_any_member(&cluster, &change, world, terminal).await {
        Some(answer) => answer,
        None => bail!("Can not find accessible cluster member"),
    };
    let (command, done) = if paused { ("pause", "paused") } else { ("resume", "resumed") };
    if answer.status != 200 {
        let Answer { status, body } = answer;
        return Ok(terminal.print(&format!("Failed: {command} cluster management status code={status}, ({body})\n"))?);
    }
    if wanted.wait {
        let text = format!("'{command}' request sent, waiting until it is recognized by all nodes\n");
        terminal.print(&text)?;
        wait_until_known(paused, name, &cluster, world, terminal).await?;
    }
    Ok(terminal.print(&format!("Success: cluster management is {done}\n"))?)
}

/// Waits for every member to publish that it knows, for one cycle at most.
async fn wait_until_known(
    paused: bool,
    name: &ClusterName,
    before: &Cluster,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let loop_wait = loop_wait(before);
    let knows = |member: &Member| member.fields.get("pause").and_then(Value::as_bool).unwrap_or(false) == paused;
    let mut missing: BTreeSet<MemberName> = BTreeSet::new();
    for _ in 0..=loop_wait {
        world.sleep(LOOK_AGAIN).await;
        let cluster = world.read(name).await?;
        missing = cluster.members.values().filter(|member| !knows(member)).map(|member| member.name.clone()).collect();
        if missing.is_empty() {
            return Ok(());
        }
    }
    let names: Vec<&str> = missing.iter().map(MemberName::as_str).collect();
    let names = names.join(", ");
    Ok(terminal.print(&format!("{names} members didn't recognized pause state after {loop_wait} seconds\n"))?)
}

/// The tick of the cycle, in seconds.
fn loop_wait(cluster: &Cluster) -> u64 {
    let loop_wait = cluster.config.as_ref().and_then(|config| config.value.get("loop_wait")).and_then(Value::as_u64);
    loop_wait.unwrap_or(10).clamp(1, 3600)
}

/// The first answer to a change of the configuration, from the leader when it can be reached.
async fn change_by_any_member(
    cluster: &Cluster,
    change: &Value,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> Option<Answer> {
    for member in leader_first(cluster) {
        let Some(api_url) = member.api_url() else { continue };
        match world.call(&endpoint(api_url, "/config"), Request::patch(change.clone()), PATCH_TIMEOUT).await {
            Ok(answer) => return Some(answer),
            Err(no_answer) => {
                let now = schedule::seconds(&world.now());
                terminal.warn(&format!("{now} - WARNING - member {}: {:#}", member.name, no_answer.error()));
            }
        }
    }
    None
}

/// All members, the leader before the others.
pub(super) fn leader_first(cluster: &Cluster) -> impl Iterator<Item = &Member> {
    let is_leader = |member: &&Member| cluster.is_led_by(&member.name);
    cluster.members.values().filter(is_leader).chain(cluster.members.values().filter(move |member| !is_leader(member)))
}

/// Makes the cluster a standby of another one.
///
/// # Errors
/// When it is one already, has no leader, or nothing says which cluster to follow.
pub(super) async fn demote_cluster(
    wanted: &DemoteClusterArguments,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let options = [
        ("host", wanted.host.clone().map(Value::from)),
        ("port", wanted.port.map(Value::from)),
        ("restore_command", wanted.restore_command.clone().map(Value::from)),
    ];
    if options.iter().all(|(_, value)| value.is_none()) {
        bail!("At least --host, --port or --restore-command should be specified");
    }
    let slot = ("primary_slot_name", wanted.primary_slot_name.clone().map(Value::from));
    let given = options.into_iter().chain([slot]).filter_map(|(key, value)| Some((key.to_owned(), value?)));
    change_kind(Kind::Standby, Value::Object(given.collect()), wanted.force, name, world, terminal).await
}

/// Makes a standby cluster a cluster of its own.
///
/// # Errors
/// When it is one already, or has no leader.
pub(super) async fn promote_cluster(
    force: bool,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    change_kind(Kind::Own, Value::Null, force, name, world, terminal).await
}

/// What a cluster shall be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It follows another one.
    Standby,
    /// It follows nobody.
    Own,
}

async fn change_kind(
    kind: Kind,
    source: Value,
    force: bool,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let (verb, noun, done, role) = match kind {
        Kind::Standby => ("demote", "demotion", "demoted", "standby_leader"),
        Kind::Own => ("promote", "promotion", "promoted", "primary"),
    };
    let cluster = world.read(name).await?;
    let scope = &name.scope;
    if is_standby_cluster(&cluster) == (kind == Kind::Standby) {
        bail!("Cluster is already in the required state");
    }
    let Some(leader) = cluster.leader_member() else { bail!("Cluster has no leader, {noun} is not possible") };
    terminal.print("Current cluster topology\n")?;
    show(&cluster, name, terminal)?;
    if !force && !confirm(terminal, &format!("Are you sure you want to {verb} {scope} cluster?"))? {
        bail!("Aborted cluster {noun}");
    }
    let url = endpoint(leader.api_url().unwrap_or_default(), "/config");
    let change = json!({"standby_cluster": source});
    match world.call(&url, Request::patch(change), PATCH_TIMEOUT).await {
        Ok(Answer { status: 200, .. }) => {}
        Ok(Answer { status, body }) => {
            bail!("Failed to {verb} {scope} cluster: {url} PATCH status code={status}, ({body})")
        }
        Err(NoAnswer::Unsent(error) | NoAnswer::Lost(error)) => {
            return Err(error.context(format!("cannot ask the leader {}", leader.name)));
        }
    }
    let former = leader.name.clone();
    loop {
        world.sleep(LOOK_AGAIN).await;
        let now = world.read(name).await?;
        let stamp = schedule::seconds(&world.now());
        let field = |member: Option<&Member>, key: &str| {
            let text = member.and_then(|member| member.fields.get(key)).and_then(Value::as_str);
            text.unwrap_or("None").to_owned()
        };
        let leader = now.leader_member();
        let (is_role, state) = (field(leader, "role"), field(leader, "state"));
        let previous = now.members.get(&former).filter(|_| leader.is_none_or(|leader| leader.name != former));
        let is_settled = previous.is_none_or(|previous| field(Some(previous), "state") == "running");
        if is_role == role && state == "running" && is_settled {
            terminal.print(&format!("{stamp} cluster is successfully {done}\n"))?;
            return show(&now, name, terminal);
        }
        let unlocked = if leader.is_none() { "True" } else { "False" };
        let mut line =
            format!("{stamp} cluster is unlocked: {unlocked}, leader role: {is_role}, leader state: {state}");
        if let Some(previous) = previous {
            line.push_str(&format!(", previous leader state: '{}'", field(Some(previous), "state")));
        }
        terminal.print(&(line + "\n"))?;
    }
}

fn show(cluster: &Cluster, name: &ClusterName, terminal: &mut impl Terminal) -> anyhow::Result<()> {
    let named = Named { scope: &name.scope, group: name.group, cluster };
    Ok(terminal.print(&members::list(named, Extra::WhereUsed, Format::Pretty))?)
}
