//! `pgward ctl`, also known as `patronictl`: shows a cluster, moves its leader, and explains what it decided.
//!
//! Texts, prompts and exit codes are those of patronictl 4.1, because scripts read them. What is printed is computed from
//! the cluster as read ([`members`], [`history`], [`plan`]); only [`outside`] talks to the store and to members, and every
//! conversation has a deadline: a store that is away is an error after `--timeout`, not an endless wait.

mod args;
mod dcs_url;
mod dsn;
mod edit_config;
mod editor;
mod explain;
mod history;
mod members;
mod move_leader;
mod operate;
mod outside;
mod plan;
mod python;
mod query;
mod remove;
mod report;
mod schedule;
mod settings;
mod sheet;
mod sql;
mod switches;
mod table;
mod target;
mod terminal;
mod version;
mod view;
mod world;
pub(crate) mod yaml;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use serde_json::Value;

use self::args::{Arguments, Command, Watch};
use self::members::{Extra, Named};
use self::outside::Outside;
use self::plan::{Action, Dialogue, Wishes};
use self::terminal::{Aborted, Console, Terminal};
use self::world::{ClusterName, World};
use self::yaml::Layout;

/// The exit code of a command line that makes no sense.
const USAGE: u8 = 2;

/// A command line that makes no sense.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Runs one command. The first argument is the name under which it was called.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(message) => {
            // Help goes to the standard output and is no failure; there is nobody to tell when it cannot be printed.
            let _ = message.print();
            return if message.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let mut terminal = Console;
    let outcome = start(arguments, &mut terminal);
    ExitCode::from(conclude(outcome, &mut terminal))
}

/// One thread is enough, and starts faster.
fn start(arguments: Arguments, terminal: &mut impl Terminal) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let outcome = runtime.block_on(async {
        let world = Outside::new(arguments.global)?;
        execute(arguments.command, &world, terminal).await
    });
    // A name that is still being looked up in DNS must not hold up the end of the process.
    runtime.shutdown_background();
    outcome
}

/// Tells how it ended and returns the exit code.
fn conclude(outcome: anyhow::Result<()>, terminal: &mut impl Terminal) -> u8 {
    let Err(error) = outcome else { return 0 };
    if error.is::<Aborted>() {
        terminal.warn("Aborted!");
    } else if !is_closed_pipe(&error) {
        terminal.warn(&format!("Error: {error:#}"));
    }
    if error.is::<UsageError>() { USAGE } else { 1 }
}

/// True when whoever reads our output, such as `head`, has read enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn execute(command: Command, world: &impl World, terminal: &mut impl Terminal) -> anyhow::Result<()> {
    match command {
        Command::List(wanted) => {
            let extra = if wanted.extended { Extra::All } else { Extra::WhereUsed };
            let names = clusters(wanted.clusters, wanted.group.group, world, terminal);
            let print = |named: Named<'_>| members::list(named, extra, wanted.format);
            show(names, wanted.watch, wanted.timestamp, print, world, terminal).await
        }
        Command::Topology(wanted) => {
            let names = clusters(wanted.clusters, wanted.group.group, world, terminal);
            show(names, wanted.watch, false, members::topology, world, terminal).await
        }
        Command::Switchover(wanted) => {
            if wanted.master.is_some() {
                terminal.warn("Warning: --master is the former name of --leader and will go away");
            }
            let dialogue = if wanted.force { Dialogue::Force } else { Dialogue::Ask };
            let wishes = wanted.wishes();
            let name = cluster_name(wanted.cluster, wanted.group.group, world)?;
            move_leader(Action::Switchover, wishes, dialogue, &name, world, terminal).await
        }
        Command::Failover(wanted) => {
            let dialogue = if wanted.force { Dialogue::Force } else { Dialogue::Ask };
            let wishes = Wishes { candidate: wanted.candidate, ..Wishes::default() };
            let name = cluster_name(wanted.cluster, wanted.group.group, world)?;
            move_leader(Action::Failover, wishes, dialogue, &name, world, terminal).await
        }
        Command::History(wanted) => {
            let group = wanted.group.group.or_else(|| world.configured_group());
            let cluster = world.read(&cluster_name(wanted.cluster, group, world)?).await?;
            Ok(terminal.print(&history::print(&cluster, wanted.format))?)
        }
        Command::ShowConfig(wanted) => {
            let group = wanted.group.group.or_else(|| world.configured_group());
            let cluster = world.read(&cluster_name(wanted.cluster, group, world)?).await?;
            match &cluster.config {
                Some(config) => {
                    let text = yaml::write(&Value::Object(config.value.clone()), Layout::Block);
                    Ok(terminal.print(&(text + "\n"))?)
                }
                None => Ok(()),
            }
        }
        Command::EditConfig(wanted) => {
            let group = wanted.group.group.or_else(|| world.configured_group());
            let name = cluster_name(wanted.cluster.clone(), group, world)?;
            edit_config::edit_config(&wanted, &name, world, terminal).await
        }
        Command::Pause(wanted) => {
            let group = wanted.group.group.or_else(|| world.configured_group());
            let name = cluster_name(wanted.cluster.clone(), group, world)?;
            switches::set_pause(true, &wanted, &name, world, terminal).await
        }
        Command::Resume(wanted) => {
            let group = wanted.group.group.or_else(|| world.configured_group());
            let name = cluster_name(wanted.cluster.clone(), group, world)?;
            switches::set_pause(false, &wanted, &name, world, terminal).await
        }
        Command::Reload(wanted) => operate::reload(wanted, world, terminal).await,
        Command::Restart(wanted) => operate::restart(wanted, world, terminal).await,
        Command::Reinit(wanted) => operate::reinit(wanted, world, terminal).await,
        Command::Flush(wanted) => operate::flush(wanted, world, terminal).await,
        Command::Remove(wanted) => remove::remove(wanted, world, terminal).await,
        Command::Query(wanted) => {
            let name = cluster_name(wanted.cluster.clone(), wanted.group.group, world)?;
            query::query(&wanted, &name, world, terminal).await
        }
        Command::DemoteCluster(wanted) => {
            let name = cluster_name(wanted.cluster.clone(), None, world)?;
            switches::demote_cluster(&wanted, &name, world, terminal).await
        }
        Command::PromoteCluster(wanted) => {
            let name = cluster_name(wanted.cluster, None, world)?;
            switches::promote_cluster(wanted.force, &name, world, terminal).await
        }
        Command::Dsn(wanted) => {
            let cluster = world.read(&cluster_name(wanted.cluster, wanted.group.group, world)?).await?;
            Ok(terminal.print(&dsn::print(&cluster, wanted.role, wanted.member.as_deref())?)?)
        }
        Command::Version(wanted) => {
            terminal.print(&version::ours())?;
            let Some(scope) = wanted.cluster else { return Ok(()) };
            let cluster = world.read(&ClusterName { scope, group: wanted.group.group }).await?;
            version::of_members(&cluster, &wanted.members, world, terminal).await
        }
        Command::Explain(wanted) => {
            let name = cluster_name(wanted.of.cluster.clone(), wanted.of.group.group, world)?;
            explain::explain(wanted, &name, world, terminal).await
        }
        Command::WhatIf(wanted) => {
            let name = cluster_name(wanted.of.cluster.clone(), wanted.of.group.group, world)?;
            explain::try_ahead(wanted, &name, world, terminal).await
        }
        Command::Report(wanted) => {
            let name = cluster_name(wanted.of.cluster.clone(), wanted.of.group.group, world)?;
            report::report(wanted, &name, world, terminal).await
        }
        Command::Other(words) => {
            let word = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
            Err(UsageError(format!("No such command '{word}'. See --help")).into())
        }
    }
}

/// The clusters that were named, or else the configured one.
fn clusters(
    scopes: Vec<String>,
    group: Option<u32>,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> Vec<ClusterName> {
    let scopes = if scopes.is_empty() { world.configured_scope().into_iter().collect() } else { scopes };
    if scopes.is_empty() {
        let now = schedule::seconds(&world.now());
        terminal.warn(&format!("{now} - WARNING - Listing members: No cluster names were provided"));
    }
    scopes.into_iter().map(|scope| ClusterName { scope, group }).collect()
}

fn cluster_name(scope: Option<String>, group: Option<u32>, world: &impl World) -> anyhow::Result<ClusterName> {
    match scope.or_else(|| world.configured_scope()) {
        Some(scope) => Ok(ClusterName { scope, group }),
        None => bail!("no cluster is named: give its name, or set `scope` in the configuration"),
    }
}

/// Prints clusters, once or again and again.
async fn show(
    names: Vec<ClusterName>,
    watch: Watch,
    with_time: bool,
    print: impl Fn(Named<'_>) -> String,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    const CLEAR: &str = "\x1b[2J\x1b[1;1H";
    let mut is_first = true;
    loop {
        let mut text = String::new();
        if with_time {
            text = schedule::seconds(&world.now()) + "\n";
        }
        for name in &names {
            match world.read(name).await {
                Ok(cluster) => text += &print(Named { scope: &name.scope, group: name.group, cluster: &cluster }),
                Err(error) if is_first => return Err(error),
                // Whoever watches wants to see the store come back.
                Err(error) => text += &format!("Error: {error:#}\n"),
            }
        }
        if watch.pause().is_some() && terminal.is_screen() {
            terminal.print(CLEAR)?;
        }
        terminal.print(&text)?;
        let Some(pause) = watch.pause() else { return Ok(()) };
        is_first = false;
        tokio::time::sleep(pause).await;
    }
}

async fn move_leader(
    action: Action,
    wishes: Wishes,
    dialogue: Dialogue,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let cluster = world.read(name).await?;
    let named = Named { scope: &name.scope, group: name.group, cluster: &cluster };
    let plan = plan::make(action, wishes, dialogue, named, &world.now(), terminal)?;
    move_leader::carry_out(&plan, name, &cluster, world, terminal).await
}
