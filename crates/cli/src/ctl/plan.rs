//! From what was asked for and what the cluster is to one request for a switchover or failover, with the questions that
//! a person answers on the way. Nothing is sent here.

use std::fmt;

use anyhow::bail;
use jiff::Zoned;
use pgward_core::cluster::{Cluster, FailoverRequest};
use pgward_core::names::MemberName;

use super::members::{self, Extra, Named};
use super::sheet::Format;
use super::terminal::{Terminal, confirm, prompt};
use super::view::{self, Role, SyncMode};
use super::{python, schedule};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Planned: the leader hands over.
    Switchover,
    /// To a named member, whether or not there is a leader.
    Failover,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Switchover => "switchover",
            Action::Failover => "failover",
        })
    }
}

/// Whether a person is there to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialogue {
    /// Ask for what is missing and for confirmation.
    Ask,
    /// Never ask (`--force`).
    Force,
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// The member that is believed to lead.
    pub(super) leader: Option<String>,
    /// The member that shall lead.
    pub(super) candidate: Option<String>,
    /// When.
    pub(super) scheduled: Option<String>,
}

/// A request that makes sense for the cluster as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// What is asked for.
    pub(super) action: Action,
    /// The leader that hands over; only a switchover names one.
    pub(super) leader: Option<MemberName>,
    /// The member that shall lead; a switchover may leave the choice to the cluster.
    pub(super) candidate: Option<MemberName>,
    /// When, in ISO 8601; at once when absent.
    pub(super) scheduled_at: Option<String>,
    /// Whose REST API receives the request.
    pub(super) receiver: MemberName,
}

impl Plan {
    /// The body of the REST request.
    pub(super) fn body(&self) -> serde_json::Value {
        let mut body = serde_json::json!({ "candidate": self.candidate });
        if self.action == Action::Switchover {
            body["leader"] = serde_json::json!(self.leader);
            if let Some(at) = &self.scheduled_at {
                body["scheduled_at"] = at.as_str().into();
            }
        }
        body
    }

    /// The same request for the store.
    pub(super) fn stored(&self) -> FailoverRequest {
        FailoverRequest {
            leader: self.leader.clone(),
            candidate: self.candidate.clone(),
            scheduled_at: self.scheduled_at.clone(),
        }
    }
}

/// Shows the cluster, completes the wishes by asking, and checks them.
///
/// # Errors
/// The first rule that the request breaks, in the words that scripts know, or an aborted dialogue.
pub(super) fn make(
    action: Action,
    wishes: Wishes,
    dialogue: Dialogue,
    named: Named<'_>,
    now: &Zoned,
    terminal: &mut impl Terminal,
) -> anyhow::Result<Plan> {
    let cluster = named.cluster;
    terminal.print("Current cluster topology\n")?;
    terminal.print(&members::list(named, Extra::WhereUsed, Format::Pretty))?;

    let leader = match action {
        Action::Switchover => Some(leader_of_switchover(wishes.leader, dialogue, named, terminal)?),
        Action::Failover => None,
    };
    let candidate = candidate(action, wishes.candidate, dialogue, named, terminal)?;
    if let Some(name) = &candidate
        && action == Action::Failover
        && dialogue == Dialogue::Ask
        && is_asynchronous(cluster, name)
        && !confirm(terminal, &format!("Are you sure you want to failover to the asynchronous node {name}?"))?
    {
        bail!("Aborting failover");
    }
    let scheduled_at = match action {
        Action::Switchover => schedule_of(wishes.scheduled, dialogue, named, now, terminal)?,
        Action::Failover => None,
    };
    if dialogue == Dialogue::Ask {
        confirm_all(action, scheduled_at.as_deref(), named, terminal)?;
    }
    let current = cluster.leader.as_ref().map(|leader| leader.name.clone());
    let Some(receiver) = current.or_else(|| candidate.clone()) else {
        bail!("This cluster has no leader"); // A failover has a candidate, a switchover a leader.
    };
    Ok(Plan { action, leader, candidate, scheduled_at, receiver })
}

fn leader_of_switchover(
    wish: Option<String>,
    dialogue: Dialogue,
    Named { scope, cluster, .. }: Named<'_>,
    terminal: &mut impl Terminal,
) -> anyhow::Result<MemberName> {
    let Some(leader) = &cluster.leader else { bail!("This cluster has no leader") };
    if leader.name.as_str().parse::<MemberName>().is_err() {
        bail!("The leader key of cluster {scope} does not hold the name of a member, so nobody can hand over");
    }
    let name = match (wish, dialogue) {
        (Some(name), _) => name,
        (None, Dialogue::Force) => return Ok(leader.name.clone()),
        (None, Dialogue::Ask) => {
            let role = match view::is_standby_cluster(cluster) {
                true => Role::StandbyLeader.to_string(),
                false => "Primary".to_owned(),
            };
            prompt(terminal, &role, leader.name.as_str())?
        }
    };
    if name != leader.name.as_str() {
        bail!("Member {name} is not the leader of cluster {scope}");
    }
    Ok(leader.name.clone())
}

fn candidate(
    action: Action,
    wish: Option<String>,
    dialogue: Dialogue,
    Named { scope, cluster, .. }: Named<'_>,
    terminal: &mut impl Terminal,
) -> anyhow::Result<Option<MemberName>> {
    let candidates =
        cluster.members.values().filter(|member| !cluster.is_led_by(&member.name) && !member.is_nofailover());
    let candidates: Vec<String> = candidates.map(|member| member.name.to_string()).collect();
    if candidates.is_empty() {
        bail!("No candidates found to {action} to");
    }
    let name = match (wish, dialogue) {
        (Some(name), _) => name,
        (None, Dialogue::Force) => String::new(),
        (None, Dialogue::Ask) => prompt(terminal, &format!("Candidate {}", python::list(&candidates)), "")?,
    };
    if name.is_empty() {
        match action {
            Action::Switchover => return Ok(None),
            Action::Failover => bail!("Failover could be performed only to a specific candidate"),
        }
    }
    if cluster.leader.as_ref().is_some_and(|leader| leader.name.as_str() == name) {
        bail!("Member {name} is already the leader of cluster {scope}");
    }
    if !candidates.contains(&name) {
        bail!("Member {name} does not exist in cluster {scope} or is tagged as nofailover");
    }
    Ok(Some(name.parse()?))
}

/// True when commits may be missing on `name`, although the cluster replicates synchronously.
fn is_asynchronous(cluster: &Cluster, name: &MemberName) -> bool {
    let sync = &cluster.sync.value;
    view::sync_mode(cluster) != SyncMode::Off && !sync.is_empty() && !sync.contains(name.as_str())
}

fn schedule_of(
    wish: Option<String>,
    dialogue: Dialogue,
    Named { cluster, .. }: Named<'_>,
    now: &Zoned,
    terminal: &mut impl Terminal,
) -> anyhow::Result<Option<String>> {
    let text = match (wish, dialogue) {
        (Some(text), _) => text,
        (None, Dialogue::Force) => return Ok(None),
        (None, Dialogue::Ask) => {
            let question = format!("When should the switchover take place (e.g. {} ) ", schedule::example(now));
            prompt(terminal, &question, "now")?
        }
    };
    let moment = schedule::parse(&text, now)?;
    if moment.is_some() && view::is_paused(cluster) {
        bail!("Can't schedule switchover in the paused state");
    }
    Ok(moment.as_ref().map(schedule::iso))
}

fn confirm_all(
    action: Action,
    scheduled_at: Option<&str>,
    Named { scope, cluster, .. }: Named<'_>,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let demoting =
        cluster.leader.as_ref().map(|leader| format!(", demoting current leader {}", leader.name)).unwrap_or_default();
    let (question, refusal) = match scheduled_at {
        Some(at) => (
            format!("Are you sure you want to schedule {action} of cluster {scope} at {at}{demoting}?"),
            format!("Aborting scheduled {action}"),
        ),
        None => (format!("Are you sure you want to {action} cluster {scope}{demoting}?"), format!("Aborting {action}")),
    };
    if !confirm(terminal, &question)? {
        bail!(refusal);
    }
    Ok(())
}
