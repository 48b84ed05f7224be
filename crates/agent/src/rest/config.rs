//! `PATCH /config` and `PUT /config`: changing the dynamic configuration of the cluster.
//!
//! A change is refused when the cluster could not act on what comes out of it: the members would keep their last good
//! configuration, and whoever asked would believe otherwise.

use std::sync::Arc;

use hyper::StatusCode;
use pgward_core::cluster::{Cluster, Member};
use pgward_core::config::{DynamicConfig, patch};
use pgward_core::json;
use pgward_store::{Condition, Key, StoreError};
use serde_json::{Map, Value};

use super::operations::Operations;
use super::reply::Reply;
use super::switchover::store_unreachable;

/// Merges `change` into the configuration: null removes a key, mappings merge, anything else is replaced.
pub(super) async fn merge(change: &Map<String, Value>, operations: &Arc<dyn Operations>) -> Reply {
    let cluster = match operations.read_cluster().await {
        Ok(cluster) => cluster,
        Err(error) => return store_unreachable(&error),
    };
    let Some(config) = &cluster.config else {
        return Reply::error(StatusCode::SERVICE_UNAVAILABLE);
    };
    let mut document = config.value.clone();
    if !patch(&mut document, change) {
        return Reply::json(StatusCode::OK, &document);
    }
    if let Some(refusal) = refuse(&cluster, Some(&config.value), &document) {
        return refusal;
    }
    let condition = Condition::Revision(config.revision);
    match operations.write(&Key::Config, &json::compact(&document), condition).await {
        Ok(_) => {
            operations.wake();
            Reply::json(StatusCode::OK, &document)
        }
        Err(StoreError::Conflict { .. }) => Reply::error(StatusCode::CONFLICT),
        Err(error) => store_unreachable(&error),
    }
}

/// Replaces the configuration as a whole, whatever it was.
pub(super) async fn replace(document: &Map<String, Value>, operations: &Arc<dyn Operations>) -> Reply {
    let cluster = match operations.read_cluster().await {
        Ok(cluster) => cluster,
        Err(error) => return store_unreachable(&error),
    };
    let present = cluster.config.as_ref().map(|config| &config.value);
    if present == Some(document) {
        return Reply::json(StatusCode::OK, document);
    }
    if let Some(refusal) = refuse(&cluster, present, document) {
        return refusal;
    }
    match operations.write(&Key::Config, &json::compact(document), Condition::Always).await {
        Ok(_) => {
            operations.wake();
            Reply::json(StatusCode::OK, document)
        }
        Err(_) => Reply::error(StatusCode::BAD_GATEWAY),
    }
}

fn refuse(cluster: &Cluster, present: Option<&Map<String, Value>>, document: &Map<String, Value>) -> Option<Reply> {
    let problem = match DynamicConfig::check_change(present, document) {
        Ok(changed) => slot_of_a_member(cluster, &changed).or_else(|| follows_itself(cluster, &changed))?,
        Err(problem) => problem.to_string(),
    };
    Some(Reply::text(StatusCode::UNPROCESSABLE_ENTITY, format!("The configuration was not changed: {problem}")))
}

/// STB-2: a cluster that follows one of its own members follows nobody.
fn follows_itself(cluster: &Cluster, changed: &DynamicConfig) -> Option<String> {
    changed.standby_cluster.as_ref()?.addresses().find_map(|(host, port)| {
        let is_there = |member: &&Member| member.address().is_some_and(|at| at.host == host && at.port == port);
        let member = cluster.members.values().find(is_there)?;
        let name = &member.name;
        Some(format!(
            "standby_cluster.host: {host}: is member {name} of this cluster itself (STB-2); name the cluster to follow"
        ))
    })
}

/// SLT-1: the slot of a member is physical; a logical one of that name would be dropped and made in turns.
fn slot_of_a_member(cluster: &Cluster, changed: &DynamicConfig) -> Option<String> {
    let of = |slot: &String| cluster.members.keys().find(|member| member.slot_name() == *slot);
    let logical = changed.slots.iter().filter(|(_, slot)| slot.is_logical());
    let (slot, member) = logical.map(|(slot, _)| slot).find_map(|slot| Some((slot, of(slot)?)))?;
    Some(format!(
        "slots.{slot}: is logical and has the name of the slot of member {member}, which is physical (SLT-1); rename it"
    ))
}
