//! `switchover` and `failover`: sends a plan to a member, or writes it to the store when no member can be asked.

use std::time::Duration;

use pgward_core::cluster::Cluster;
use pgward_store::{Condition, Key};
use serde_json::Value;

use super::members::{self, Extra, Named};
use super::plan::{Action, Plan};
use super::schedule;
use super::sheet::Format;
use super::terminal::Terminal;
use super::world::{Answer, ClusterName, NoAnswer, Request, World, endpoint};

/// Added to the time for which a member itself waits for the result.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a member answers that has no such endpoint.
const UNSUPPORTED: &str = "Server does not support this operation";

/// Carries a plan out. A refusal by the member is an answer, not an error.
///
/// # Errors
/// When neither the member nor the store could be reached.
pub(super) async fn carry_out(
    plan: &Plan,
    name: &ClusterName,
    cluster: &Cluster,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    match send(plan, cluster, world).await {
        Ok(Answer { status: 200 | 202, body }) => {
            terminal.print(&format!("{} {body}\n", schedule::stamp(&world.now())))?;
        }
        Ok(Answer { status, body }) => {
            let outcome = if body.contains("status unknown") { "result unknown" } else { "failed" };
            terminal.print(&format!("{} {outcome}, details: {status}, {body}\n", title(plan.action)))?;
            return Ok(());
        }
        Err(no_answer) => write_instead(plan, name, cluster, &no_answer, world, terminal).await?,
    }
    let after = world.read(name).await?;
    let named = Named { scope: &name.scope, group: name.group, cluster: &after };
    terminal.print(&members::list(named, Extra::WhereUsed, Format::Pretty))?;
    Ok(())
}

fn title(action: Action) -> &'static str {
    match action {
        Action::Switchover => "Switchover",
        Action::Failover => "Failover",
    }
}

async fn send(plan: &Plan, cluster: &Cluster, world: &impl World) -> Result<Answer, NoAnswer> {
    let receiver = cluster.members.get(&plan.receiver);
    let Some(api_url) = receiver.and_then(|member| member.api_url()) else {
        return Err(NoAnswer::Unsent(anyhow::anyhow!("member {} has published no api_url", plan.receiver)));
    };
    let post = async |path: &str| {
        world.call(&endpoint(api_url, path), Request::post(plan.body()), server_patience(cluster) + PATIENCE).await
    };
    match plan.action {
        Action::Failover => post("/failover").await,
        Action::Switchover => match post("/switchover").await? {
            // Members older than 1.5 know only the other endpoint, with the same body.
            Answer { status: 501, body } if body.contains(UNSUPPORTED) => post("/failover").await,
            answer => Ok(answer),
        },
    }
}

/// How long a member waits for the result before it answers that it does not know it.
fn server_patience(cluster: &Cluster) -> Duration {
    let loop_wait = cluster.config.as_ref().and_then(|config| config.value.get("loop_wait")).and_then(Value::as_u64);
    // An absurd value must not make us wait for ever.
    Duration::from_secs(2 * loop_wait.unwrap_or(10).clamp(10, 3600))
}

/// Writes the plan to the store, unless the lost request was carried out after all.
async fn write_instead(
    plan: &Plan,
    name: &ClusterName,
    before: &Cluster,
    no_answer: &NoAnswer,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    terminal.warn(&format!("{} - WARNING - {:#}", schedule::seconds(&world.now()), no_answer.error()));
    match no_answer {
        NoAnswer::Unsent(_) => {}
        NoAnswer::Lost(_) => {
            let holder = |cluster: &Cluster| cluster.leader.as_ref().map(|leader| leader.name.clone());
            let now = holder(&*world.read(name).await?);
            if let Some(now) = now.filter(|now| holder(before).as_ref() != Some(now)) {
                let stamp = schedule::stamp(&world.now());
                terminal.print(&format!("{stamp} The answer was lost, but the leader is \"{now}\" now\n"))?;
                return Ok(());
            }
        }
    }
    let stamp = schedule::stamp(&world.now());
    terminal.print(&format!("{stamp} Could not {} using Patroni api, falling back to DCS\n", plan.action))?;
    world.write(name, &Key::Failover, &plan.stored().to_value(), Condition::Always).await?;
    Ok(())
}
