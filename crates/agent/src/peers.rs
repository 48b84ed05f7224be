//! Asks other members for their status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{Cluster, Member};
use pgward_core::decide::Memory;
use pgward_core::decide::failsafe::ConsentAnswer;
use pgward_core::decide::peers::{PeerAnswer, PeerPoll, reachable_as};
use pgward_core::names::MemberName;

use crate::consent::ConsentRequest;
use crate::host::BoxFuture;
use crate::http::{HttpClient, ask_consent, poll_peers};

/// Reaches other members.
pub trait Peers: Send + Sync {
    /// Asks all of `members` at once; there is one answer for each, after a bounded time.
    fn poll<'a>(&'a self, members: Vec<&'a Member>) -> BoxFuture<'a, PeerPoll>;

    /// Asks all of `members`, given with the URLs of their REST API, to wait for a primary without the store (FS-4); there
    /// is one answer for each, after `within` at the latest.
    fn ask_consent<'a>(
        &'a self,
        request: &'a ConsentRequest,
        members: BTreeMap<String, String>,
        within: Duration,
    ) -> BoxFuture<'a, BTreeMap<String, ConsentAnswer>>;
}

impl Peers for HttpClient {
    fn poll<'a>(&'a self, members: Vec<&'a Member>) -> BoxFuture<'a, PeerPoll> {
        Box::pin(poll_peers(self, members))
    }

    fn ask_consent<'a>(
        &'a self,
        request: &'a ConsentRequest,
        members: BTreeMap<String, String>,
        within: Duration,
    ) -> BoxFuture<'a, BTreeMap<String, ConsentAnswer>> {
        Box::pin(async move { ask_consent(self, &request.to_value(), members, within).await })
    }
}

/// Polls `names`, by the addresses that the store has for them now, or had when there last was a leader.
pub(crate) async fn poll(
    client: &dyn Peers,
    cluster: &Arc<Cluster>,
    memory: &Memory,
    names: &BTreeSet<MemberName>,
) -> PeerPoll {
    let members: Vec<_> = names.iter().filter_map(|name| reachable_as(cluster, memory, name)).collect();
    let members = members.iter().map(|member| &**member).collect();
    let mut poll = client.poll(members).await;
    for name in names {
        // Whoever has no address anywhere was asked in vain: the decision must not ask again for ever.
        poll.answers.entry(name.clone()).or_insert(PeerAnswer::Unreachable);
    }
    poll
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use pgward_core::cluster::{LeaseId, RawKey, Revision};

    use super::*;

    /// Notes at which address it was told to ask, and gets no answer.
    #[derive(Default)]
    struct Asked(Mutex<Vec<(MemberName, String)>>);

    impl Peers for Asked {
        fn poll<'a>(&'a self, members: Vec<&'a Member>) -> BoxFuture<'a, PeerPoll> {
            let addressed =
                members.iter().filter_map(|member| Some((member.name.clone(), member.api_url()?.to_owned())));
            self.0.lock().unwrap().extend(addressed);
            Box::pin(async { PeerPoll::default() })
        }

        fn ask_consent<'a>(
            &'a self,
            _request: &'a ConsentRequest,
            _members: BTreeMap<String, String>,
            _within: Duration,
        ) -> BoxFuture<'a, BTreeMap<String, ConsentAnswer>> {
            Box::pin(async { BTreeMap::new() })
        }
    }

    fn cluster(records: &[(&str, &str)]) -> Arc<Cluster> {
        let key = |(name, record): &(&str, &str)| RawKey {
            suffix: format!("members/{name}"),
            value: record.as_bytes().to_vec(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            lease: LeaseId(1),
        };
        Arc::new(Cluster::from_keys(Revision(1), records.iter().map(key)))
    }

    /// INV-S20: who is to be asked can be asked: the decision and the question take the same record.
    #[tokio::test]
    async fn a_member_is_asked_at_the_address_that_it_had_when_its_record_has_none_now() {
        let before = cluster(&[
            ("b", r#"{"api_url":"http://b:8008/patroni"}"#),
            ("c", r#"{"api_url":"http://c:8008/patroni"}"#),
            ("d", r#"{"api_url":"http://d-before:8008/patroni"}"#),
        ]);
        let now = cluster(&[("b", "{garbage"), ("d", r#"{"api_url":"http://d:8008/patroni"}"#)]);
        let memory = Memory { last_led: Some(before), ..Memory::default() };
        let names: BTreeSet<MemberName> = ["b", "c", "d", "e"].map(|name| name.parse().unwrap()).into();
        let asked = Asked::default();
        let poll = poll(&asked, &now, &memory, &names).await;
        let at: Vec<String> =
            asked.0.into_inner().unwrap().into_iter().map(|(name, at)| format!("{name} {at}")).collect();
        assert_eq!(at, ["b http://b:8008/patroni", "c http://c:8008/patroni", "d http://d:8008/patroni"]);
        assert_eq!(poll.answers.keys().cloned().collect::<BTreeSet<_>>(), names, "nobody is asked about for ever");
    }
}
