//! What a demo's processes and members do at the moment.

use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;

use super::http;
use super::layout::{Layout, Node};
use super::process::Process;

/// A member as `GET /cluster` describes it; what it leaves out is empty.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) state: String,
}

impl Member {
    pub(super) fn is_leader(&self) -> bool {
        self.role == "leader"
    }

    /// True for a primary that runs and a replica that receives WAL.
    pub(super) fn is_well(&self) -> bool {
        self.state == if self.is_leader() { "running" } else { "streaming" }
    }
}

#[derive(Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

/// The members as the first node that answers sees them; none when no node answers.
pub(super) async fn members(layout: &Layout) -> Vec<Member> {
    for node in layout.nodes() {
        if let Ok(body) = http::get(layout.rest_address(node), "/cluster").await
            && let Ok(cluster) = serde_json::from_str::<Cluster>(&body)
        {
            return cluster.members;
        }
    }
    Vec::new()
}

/// The member of this node, once it has registered.
pub(super) fn member_of(members: &[Member], node: Node) -> Option<&Member> {
    members.iter().find(|member| member.name == node.to_string())
}

/// True when every node is a member and does what its role asks, and one of them leads.
pub(super) fn is_complete(layout: &Layout, members: &[Member]) -> bool {
    members.iter().any(Member::is_leader)
        && layout.nodes().all(|node| member_of(members, node).is_some_and(Member::is_well))
}

/// True when these nodes themselves say that their PostgreSQL runs: what the store says may be of before a crash.
pub(super) async fn answer(layout: &Layout, nodes: impl IntoIterator<Item = Node>) -> bool {
    for node in nodes {
        if http::get(layout.rest_address(node), "/health").await.is_err() {
            return false;
        }
    }
    true
}

/// `pgward demo status`: success only when everything runs.
pub(super) async fn print(dir: &Path) -> anyhow::Result<ExitCode> {
    let layout = Layout::existing(dir)?;
    let mut all_run = true;
    let mut process = |name: &dyn std::fmt::Display| match Process::of(&layout.pid_file(&name)) {
        Some(process) => format!("process {process}"),
        None => {
            all_run = false;
            "not running".to_owned()
        }
    };
    for member in layout.etcd_members() {
        say!("{member}  etcd        {:<22}  {}", layout.etcd_client_address(member), process(&member));
    }
    let members = members(&layout).await;
    for node in layout.nodes() {
        let seen = match member_of(&members, node) {
            Some(member) => format!("{}, {}", member.role, member.state),
            None => "not a member".to_owned(),
        };
        say!("{node}  PostgreSQL  {:<22}  {}; {seen}", layout.postgres_address(node), process(&node));
    }
    let all_well = all_run && is_complete(&layout, &members) && answer(&layout, layout.nodes()).await;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::layout::Settings;

    #[test]
    fn a_cluster_is_complete_when_one_leads_and_all_are_well() {
        let settings = Settings { nodes: 2, base_port: 15400, pg_bin: "/".into() };
        let layout = Layout { dir: "/d".into(), settings };
        let member =
            |name: &str, role: &str, state: &str| Member { name: name.into(), role: role.into(), state: state.into() };
        let leader = member("n1", "leader", "running");
        for (name, members, want) in [
            ("nobody", vec![], false),
            ("a leader alone", vec![leader.clone()], false),
            ("both well", vec![leader.clone(), member("n2", "replica", "streaming")], true),
            ("a replica that does not stream yet", vec![leader.clone(), member("n2", "replica", "running")], false),
            (
                "a leader that is starting",
                vec![member("n1", "leader", "starting"), member("n2", "replica", "streaming")],
                false,
            ),
            ("no leader", vec![member("n1", "replica", "streaming"), member("n2", "replica", "streaming")], false),
        ] {
            assert_eq!(is_complete(&layout, &members), want, "{name}");
        }
    }
}
