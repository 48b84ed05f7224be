//! Asks everybody who could know.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::bail;
use pgward_agent::http::parse_status;
use pgward_core::cluster::{Cluster, Member};
use pgward_core::decide::peers::{PeerAnswer, PeerStatus};
use pgward_core::decide::view::Store;
use pgward_core::explain::Step;
use pgward_core::explain::document::Document;
use pgward_core::explain::record::memory_of;
use pgward_core::explain::what_if::{Live, Observed};
use pgward_core::names::MemberName;

use crate::ctl::world::{Answer, ClusterName, NoAnswer, Request, World, endpoint};

/// How long one member may take; all are asked at once.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether the decisions come with what they saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ctl) enum Inputs {
    /// Words only.
    LeaveOut,
    /// All that there are.
    All,
}

impl Inputs {
    fn path(self) -> &'static str {
        match self {
            Inputs::LeaveOut => "/explain",
            Inputs::All => "/explain?inputs=true&limit=1000",
        }
    }
}

/// What a member said.
#[derive(Clone, Debug)]
pub(in crate::ctl) enum Said {
    /// It explained itself.
    Explained(Box<Document>),
    /// It answered, and does not know how to explain itself: Patroni, or another version.
    StatusOnly(Option<PeerStatus>),
    /// It could not be asked.
    Silent(String),
}

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub(in crate::ctl) struct Heard {
    /// Its name.
    pub(in crate::ctl) scope: String,
    /// The store, or what a member has last seen of it.
    pub(in crate::ctl) cluster: Arc<Cluster>,
    /// Why the store could not be read.
    pub(in crate::ctl) store_problem: Option<String>,
    /// Each member.
    pub(in crate::ctl) members: BTreeMap<MemberName, Said>,
}

/// Reads the store and asks all members.
///
/// # Errors
/// When the store cannot be read and no member can stand in for it.
pub(in crate::ctl) async fn hear(name: &ClusterName, inputs: Inputs, world: &impl World) -> anyhow::Result<Heard> {
    let (cluster, store_problem) = match world.read(name).await {
        Ok(cluster) => (cluster, None),
        Err(problem) => {
            let text = format!("{problem:#}");
            let Some(seen) = seen_by_own_member(world).await else {
                bail!("{text}; with -c FILE of a member that runs, that member is asked in place of the store");
            };
            (seen, Some(text))
        }
    };
    let asked = cluster.members.values().map(|member| Box::pin(ask(member, inputs, world))).collect();
    let members = cluster.members.keys().cloned().zip(all(asked).await).collect();
    Ok(Heard { scope: name.scope.clone(), cluster, store_problem, members })
}

/// What the member of the configuration file saw last of the store.
async fn seen_by_own_member(world: &impl World) -> Option<Arc<Cluster>> {
    let url = endpoint(&world.own_api_url()?, Inputs::LeaveOut.path());
    let answer = world.call(&url, Request::get(), MEMBER_TIMEOUT).await.ok()?;
    let document: Document = serde_json::from_str(&answer.body).ok()?;
    let latest = document.latest?;
    let memory = memory_of(latest.memory);
    match Step::from_document(latest.record).ok()?.view.store {
        Store::Current(cluster) => Some(cluster),
        Store::Lost { .. } => memory.last_led,
    }
}

async fn ask(member: &Member, inputs: Inputs, world: &impl World) -> Said {
    let Some(api_url) = member.api_url() else {
        return Said::Silent("it has published no api_url".to_owned());
    };
    match world.call(&endpoint(api_url, inputs.path()), Request::get(), MEMBER_TIMEOUT).await {
        Ok(Answer { body, .. }) => match serde_json::from_str(&body) {
            Ok(document) => Said::Explained(Box::new(document)),
            Err(_) => Said::StatusOnly(status(member, &body)),
        },
        Err(NoAnswer::Unsent(problem) | NoAnswer::Lost(problem)) => Said::Silent(format!("{problem:#}")),
    }
}

fn status(member: &Member, body: &str) -> Option<PeerStatus> {
    match parse_status(member, body.as_bytes()) {
        PeerAnswer::Status(status) => Some(status),
        PeerAnswer::Unreachable => None,
    }
}

impl Heard {
    /// The views of the members, for a trial. `None` when nobody told one.
    pub(in crate::ctl) fn live(&self) -> Option<Live> {
        let mut members = BTreeMap::new();
        for (name, said) in &self.members {
            if let Said::Explained(document) = said
                && let Some(observed) = self.observed(name, document)
            {
                members.insert(name.clone(), observed);
            }
        }
        let template = members.values().next()?.view.clone();
        for (name, said) in &self.members {
            let status = match said {
                Said::Explained(document) => self.status(name, document),
                Said::StatusOnly(status) => status.clone(),
                Said::Silent(_) => None,
            };
            if let Some(status) = status.filter(|_| !members.contains_key(name)) {
                members.insert(name.clone(), Observed::assumed(name, &status, &self.cluster, &template));
            }
        }
        Some(Live { cluster: Arc::clone(&self.cluster), members })
    }

    /// `None` when it has not decided yet, or when another version of pgward tells it in another form.
    pub(super) fn observed(&self, name: &MemberName, document: &Document) -> Option<Observed> {
        let latest = document.latest.as_ref()?;
        let view = Step::from_document(latest.record.clone()).ok()?.view;
        let memory = memory_of(latest.memory.clone());
        Some(Observed { view, memory, status: self.status(name, document) })
    }

    fn status(&self, name: &MemberName, document: &Document) -> Option<PeerStatus> {
        status(self.cluster.members.get(name)?, &document.status.to_string())
    }
}

/// Waits for all futures at once; the results are in the order of the futures.
async fn all<F: Future>(mut futures: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (future, result) in futures.iter_mut().zip(&mut results).filter(|(_, result)| result.is_none()) {
            if let Poll::Ready(ready) = future.as_mut().poll(context) {
                *result = Some(ready);
            }
        }
        if results.iter().any(Option::is_none) {
            return Poll::Pending;
        }
        Poll::Ready(results.drain(..).flatten().collect())
    })
    .await
}
