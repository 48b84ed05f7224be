//! `reload`, `restart`, `reinit` and `flush`: asks members for something, one after the other.

use std::time::Duration;

use anyhow::bail;
use jiff::Zoned;
use pgward_core::cluster::{FailoverRequest, Member};
use pgward_core::config::units;
use pgward_store::{Condition, Key};
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

use super::args::{FlushArguments, Flushed, ReinitArguments, ReloadArguments, RestartArguments, WantedRole};
use super::python;
use super::schedule;
use super::switches::leader_first;
use super::target::{self, Target, confirm_for, names};
use super::terminal::{Terminal, confirm, prompt};
use super::view::is_paused;
use super::world::{Answer, NoAnswer, Request, World, endpoint};

/// How long a member may take to answer what it only has to note.
const NOTE_TIMEOUT: Duration = Duration::from_secs(10);

/// Added to the time that a member itself allows for a restart.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a member that is being copied is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What a member answers while something else is under way.
const IN_PROGRESS: &str = " already in progress";

/// Sends one request to a member. A member that cannot be reached ends the command, as those after it may depend on it.
async fn ask(
    member: &Member,
    path: &str,
    request: Request,
    timeout: Duration,
    world: &impl World,
) -> anyhow::Result<Answer> {
    let Some(api_url) = member.api_url() else {
        bail!("member {} has published no api_url", member.name);
    };
    match world.call(&endpoint(api_url, path), request, timeout).await {
        Ok(answer) => Ok(answer),
        Err(NoAnswer::Unsent(error)) => Err(error.context(format!("cannot ask member {}", member.name))),
        Err(NoAnswer::Lost(error)) => {
            Err(error
                .context(format!("the answer of member {} was lost; it may have done what was asked", member.name)))
        }
    }
}

fn failed(action: &str, member: &Member, answer: &Answer) -> String {
    format!("Failed: {action} for member {}, status code={}, ({})\n", member.name, answer.status, answer.body)
}

/// Makes members read their configuration files again.
///
/// # Errors
/// When no member fits, the person declines, or a member cannot be reached.
pub(super) async fn reload(
    wanted: ReloadArguments,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let target = target::find(wanted.words, wanted.group.group, world).await?;
    target.show(terminal)?;
    let members = target.choose(wanted.role, &python::quoted(wanted.role.word()), terminal)?;
    if !wanted.force {
        confirm_for(&members, "reload", None, terminal)?;
    }
    let config = target.cluster.config.as_ref();
    let loop_wait = config.and_then(|config| config.value.get("loop_wait")).and_then(Value::as_u64).unwrap_or(10);
    for member in members {
        let answer = ask(member, "/reload", Request { body: None, ..Request::post(Value::Null) }, NOTE_TIMEOUT, world);
        let line = match answer.await? {
            Answer { status: 200, .. } => format!("No changes to apply on member {}\n", member.name),
            Answer { status: 202, .. } => {
                format!(
                    "Reload request received for member {} and will be processed within {loop_wait} seconds\n",
                    member.name
                )
            }
            answer => failed("reload", member, &answer),
        };
        terminal.print(&line)?;
    }
    Ok(())
}

/// Restarts PostgreSQL on members, now or later.
///
/// # Errors
/// When no member fits, a time or version cannot be used, the person declines, or a member cannot be reached.
pub(super) async fn restart(
    wanted: RestartArguments,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let target = target::find(wanted.words, wanted.group.group, world).await?;
    target.show(terminal)?;
    let mut members = target.choose(wanted.role, &python::quoted(wanted.role.word()), terminal)?;
    let asked = match (&wanted.scheduled, wanted.force) {
        (Some(scheduled), _) => scheduled.clone(),
        (None, true) => "now".to_owned(),
        (None, false) => {
            let example = schedule::example(&world.now());
            prompt(terminal, &format!("When should the restart take place (e.g. {example}) "), "now")?
        }
    };
    let at = schedule::parse(&asked, &world.now())?;
    if !wanted.force {
        confirm_restart(&members, at.as_ref(), wanted.pending, terminal)?;
    }
    if wanted.any {
        members = members.choose(&mut rand::rng()).into_iter().copied().collect();
    }
    let version = match (&wanted.pg_version, wanted.force) {
        (Some(version), _) => version.clone(),
        (None, true) => String::new(),
        (None, false) => prompt(terminal, "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ", "")?,
    };
    let mut body = Map::new();
    if wanted.pending {
        body.insert("restart_pending".to_owned(), Value::Bool(true));
    }
    if !version.is_empty() {
        check_version(&version)?;
        body.insert("postgres_version".to_owned(), Value::from(version));
    }
    if let Some(at) = &at {
        if is_paused(&target.cluster) {
            bail!("Can't schedule restart in the paused state");
        }
        body.insert("schedule".to_owned(), Value::from(schedule::iso(at)));
    }
    let mut patience = primary_start_timeout(&target);
    if let Some(timeout) = &wanted.timeout {
        body.insert("timeout".to_owned(), Value::from(timeout.as_str()));
        patience = units::seconds_of(&Value::from(timeout.as_str())).map_or(patience, seconds);
    }
    for member in members {
        if at.is_some() && wanted.force && member.fields.contains_key("scheduled_restart") {
            let answer = ask(member, "/restart", Request::delete(), NOTE_TIMEOUT, world).await?;
            if answer.status != 200 {
                terminal.print(&failed("flush scheduled restart", member, &answer))?;
            }
        }
        let request = Request::post(Value::Object(body.clone()));
        let line = match ask(member, "/restart", request, patience + PATIENCE, world).await? {
            Answer { status: 200, .. } => format!("Success: restart on member {}\n", member.name),
            Answer { status: 202, .. } => format!("Success: restart scheduled on member {}\n", member.name),
            Answer { status: 409, .. } => {
                format!("Failed: another restart is already scheduled on member {}\n", member.name)
            }
            answer => failed("restart", member, &answer),
        };
        terminal.print(&line)?;
    }
    Ok(())
}

fn confirm_restart(
    members: &[&Member],
    at: Option<&Zoned>,
    pending: bool,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let Some(at) = at else { return confirm_for(members, "restart", None, terminal) };
    let at = at.strftime("%Y-%m-%d %H:%M:%S%:z").to_string();
    if !pending {
        return confirm_for(members, "restart", Some(&at), terminal);
    }
    let question = format!(
        "Restart of members {} is scheduled at {at}; which of them are restarted is determined then, by what is pending. \
         Is this fine?",
        names(members)
    );
    if !confirm(terminal, &question)? {
        bail!("Aborted scheduled restart");
    }
    Ok(())
}

/// How long a member waits for PostgreSQL to start.
fn primary_start_timeout(target: &Target) -> Duration {
    let config = target.cluster.config.as_ref();
    let value = config.and_then(|config| config.value.get("primary_start_timeout"));
    seconds(value.and_then(units::seconds_of).unwrap_or(300))
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(number.clamp(1, 86_400).unsigned_abs())
}

/// A version that a restart may be bound to: `X.Y`, or `X.Y.Z` before version 10.
fn check_version(version: &str) -> anyhow::Result<()> {
    let parts: Vec<&str> = version.split('.').collect();
    let are_numbers = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if !are_numbers {
        bail!("Invalid PostgreSQL version: {version}");
    }
    if !(2..=3).contains(&parts.len()) {
        bail!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {version}");
    }
    Ok(())
}

/// Copies replicas anew.
///
/// # Errors
/// When no replica fits, the person declines, or a member cannot be reached.
pub(super) async fn reinit(
    wanted: ReinitArguments,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let mut target = target::find(wanted.words, wanted.group.group, world).await?;
    target.show(terminal)?;
    if target.members.is_empty() {
        let replicas = target.choose(WantedRole::Replica, "replica", terminal)?;
        if wanted.force {
            return Ok(()); // Copying every replica at once is nothing to be done for a forgotten word.
        }
        let question = format!("Which member do you want to reinitialize [{}]?", names(&replicas));
        target.members = vec![prompt(terminal, &question, "")?];
    }
    let members = target.choose(WantedRole::Replica, "replica", terminal)?;
    if !wanted.force {
        confirm_for(&members, "reinitialize", None, terminal)?;
    }
    let mut started = Vec::new();
    for member in members {
        let mut force = wanted.force;
        loop {
            let body = json!({"force": force, "from_leader": wanted.from_leader});
            let answer = ask(member, "/reinitialize", Request::post(body), NOTE_TIMEOUT, world).await?;
            if answer.status == 200 {
                terminal.print(&format!("Success: reinitialize for member {}\n", member.name))?;
                started.push(member);
                break;
            }
            terminal.print(&failed("reinitialize", member, &answer))?;
            let is_busy = answer.body.ends_with(IN_PROGRESS) && !force;
            if !is_busy || !confirm(terminal, "Do you want to cancel it and reinitialize anyway?")? {
                break;
            }
            force = true;
        }
    }
    if wanted.wait { wait_until_copied(started, world, terminal).await } else { Ok(()) }
}

async fn wait_until_copied(
    mut waiting: Vec<&Member>,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let mut shown = None;
    while !waiting.is_empty() {
        let now = names(&waiting);
        if shown.as_ref() != Some(&now) {
            terminal.print(&format!("Waiting for reinitialize to complete on: {now}\n"))?;
            shown = Some(now);
        }
        world.sleep(LOOK_AGAIN).await;
        let mut left = Vec::new();
        for member in waiting {
            let answer = ask(member, "/patroni", Request::get(), NOTE_TIMEOUT, world).await;
            let document: Value =
                answer.ok().and_then(|answer| serde_json::from_str(&answer.body).ok()).unwrap_or_default();
            // A member that does not answer is not done yet.
            match document.get("state").and_then(Value::as_str) {
                None | Some("creating replica") => left.push(member),
                Some(_) => terminal.print(&format!("Reinitialize is completed on: {}\n", member.name))?,
            }
        }
        waiting = left;
    }
    Ok(())
}

/// Takes scheduled restarts or a scheduled switchover back.
///
/// # Errors
/// When no member fits, the person declines, or neither a member nor the store can be reached.
pub(super) async fn flush(
    wanted: FlushArguments,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let (words, what) = wanted.split()?;
    let target = target::find(words, wanted.group.group, world).await?;
    match what {
        Flushed::Restart => flush_restart(&target, wanted.role, wanted.force, world, terminal).await,
        Flushed::Switchover => flush_switchover(&target, world, terminal).await,
    }
}

async fn flush_restart(
    target: &Target,
    role: WantedRole,
    force: bool,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    target.show(terminal)?;
    let members = target.choose(role, &python::quoted(role.word()), terminal)?;
    if !force {
        confirm_for(&members, "flush", None, terminal)?;
    }
    for member in members {
        if !member.fields.contains_key("scheduled_restart") {
            terminal.print(&format!("No scheduled restart for member {}\n", member.name))?;
            continue;
        }
        let line = match ask(member, "/restart", Request::delete(), NOTE_TIMEOUT, world).await? {
            Answer { status: 200, .. } => format!("Success: flush scheduled restart for member {}\n", member.name),
            answer => failed("flush scheduled restart", member, &answer),
        };
        terminal.print(&line)?;
    }
    Ok(())
}

async fn flush_switchover(target: &Target, world: &impl World, terminal: &mut impl Terminal) -> anyhow::Result<()> {
    let request = target.cluster.failover.as_ref().filter(|request| request.value.scheduled_at.is_some());
    let Some(request) = request else {
        return Ok(terminal.print("No pending scheduled switchover\n")?);
    };
    for member in leader_first(&target.cluster) {
        match ask(member, "/switchover", Request::delete(), NOTE_TIMEOUT, world).await {
            Ok(Answer { status: 200, body }) => return Ok(terminal.print(&format!("Success: {body}\n"))?),
            Ok(Answer { status: 404, body }) => return Ok(terminal.print(&format!("Failed: {body}\n"))?),
            Ok(Answer { status, body }) => {
                terminal.print(&format!("Failed: member={}, status_code={status}, ({body})\n", member.name))?;
            }
            Err(error) => {
                terminal.warn(&format!("{} - WARNING - {error:#}", schedule::seconds(&world.now())));
            }
        }
    }
    let now = schedule::seconds(&world.now());
    terminal.print(&format!("{now} Could not find any accessible member of cluster {}\n", target.name.scope))?;
    let condition = Condition::Revision(request.revision);
    if !world.write(&target.name, &Key::Failover, FailoverRequest::NONE, condition).await? {
        bail!("the scheduled switchover was changed meanwhile; look again");
    }
    Ok(())
}
