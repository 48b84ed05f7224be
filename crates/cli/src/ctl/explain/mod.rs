//! `explain` and `what-if`: what the members decided, and what they would decide.
//!
//! The store tells who is a member, the members tell what they saw and decided, and [`pgward_core::explain`] does the rest.

pub(super) mod gather;
pub(super) mod print;
pub(super) mod wrap;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use pgward_core::explain::what_if::{Loss, what_if};
use pgward_core::names::MemberName;

use self::gather::{Heard, Inputs, hear};
use super::UsageError;
use super::args::{ExplainArguments, Shape, WhatIfArguments};
use super::terminal::Terminal;
use super::world::{ClusterName, World};

/// `explain [MEMBER]`.
pub(super) async fn explain(
    wanted: ExplainArguments,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let heard = hear(name, Inputs::LeaveOut, world).await?;
    let text = match (&wanted.member, wanted.format) {
        (Some(member), shape) => {
            let member = member_of(&heard, member)?;
            match shape {
                Shape::Pretty => print::member(&heard, &member, &world.now()),
                Shape::Json => print::member_json(&heard, &member),
            }
        }
        (None, shape) => {
            let loss = print::loss_of_leader(&heard);
            let projection = heard.live().map(|live| what_if(&live, &loss));
            match shape {
                Shape::Pretty => print::cluster(&heard, &loss, projection.as_ref(), &world.now()),
                Shape::Json => print::cluster_json(&heard, projection.as_ref()),
            }
        }
    };
    Ok(terminal.print(&text)?)
}

/// `what-if`.
pub(super) async fn try_ahead(
    wanted: WhatIfArguments,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let heard = hear(name, Inputs::LeaveOut, world).await?;
    let loss = match (&wanted.lose, wanted.lose_store, wanted.partition.is_empty()) {
        (Some(member), false, true) => Loss::Member(member_of(&heard, member)?),
        (None, true, true) => Loss::Store,
        (None, false, false) => {
            let members = wanted.partition.iter().map(|member| member_of(&heard, member));
            Loss::Partition(members.collect::<anyhow::Result<BTreeSet<_>>>()?)
        }
        _ => return Err(UsageError("give one of --lose MEMBER, --lose-store and --partition A,B".to_owned()).into()),
    };
    let live = heard.live().context("no member told what it sees, so nothing can be foretold")?;
    let projection = what_if(&live, &loss);
    let text = match wanted.format {
        Shape::Pretty => print::projection(&heard, &loss, &projection),
        Shape::Json => print::json(&projection),
    };
    Ok(terminal.print(&text)?)
}

fn member_of(heard: &Heard, name: &str) -> anyhow::Result<MemberName> {
    match heard.cluster.members.keys().find(|member| member.as_str() == name) {
        Some(member) => Ok(member.clone()),
        None => {
            let known: Vec<&str> = heard.cluster.members.keys().map(MemberName::as_str).collect();
            bail!("there is no member {name}; the members are {}", known.join(", "))
        }
    }
}
