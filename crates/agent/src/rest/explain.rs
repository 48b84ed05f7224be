//! `GET /explain`: what this member decided, and why.

use std::time::SystemTime;

use pgward_core::explain::document::{Document, Inputs, decisions, latest};
use pgward_core::time::WallTime;

use super::query::Query;
use super::status::status_document;
use super::view::NodeView;
use crate::ring::Recorder;

/// How many decisions are told unless the query says otherwise.
const DECISIONS: usize = 50;

/// Room for what the decisions saw: what clients read of an answer is bounded (4 MB).
const INPUT_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The last decision with its inputs, and the decisions before it in words; `?inputs=true` adds their inputs, as many as
/// have room, and `?limit=NUMBER` says how many decisions.
pub fn explain_document(node: &NodeView, recorder: &Recorder, query: &Query) -> Document {
    let inputs = match query.get("inputs") {
        None | Some("false") => Inputs::LeaveOut,
        Some(_) => Inputs::Within(INPUT_BYTES_MAX),
    };
    let count = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(DECISIONS);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (ring, changes) = {
        let kept = recorder.lock(); // For a copy: writing it all down takes longer than the cycle shall wait.
        (kept.ring.clone(), kept.phases.changes().cloned().collect())
    };
    Document {
        member: node.name.clone(),
        scope: node.scope.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: WallTime(now),
        status: status_document(node),
        latest: latest(&ring),
        decisions: decisions(&ring, count, inputs),
        changes,
    }
}
