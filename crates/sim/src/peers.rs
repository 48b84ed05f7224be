//! Asking other members how they are: the documents are made and read by the code that makes and reads them in
//! production; only the wire between is a model.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_agent::consent::{ConsentReply, ConsentRequest, Promises};
use pgward_agent::host::BoxFuture;
use pgward_agent::http::{PEER_TIMEOUT, parse_status};
use pgward_agent::peers::Peers;
use pgward_agent::rest::{NodeView, status_document};
use pgward_agent::server::ServerSight;
use pgward_core::cluster::Member;
use pgward_core::decide::failsafe::ConsentAnswer;
use pgward_core::decide::peers::{PeerAnswer, PeerPoll};
use pgward_core::names::MemberName;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::host::Process;
use crate::network::{Kind, Network, Place};
use crate::postgres::ModelServer;

/// Who answers under which name, and what was answered last.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    members: BTreeMap<MemberName, Answering>,
    last: BTreeMap<MemberName, PeerPoll>,
    /// To whom a member promised to wait, and until when by its `ttl` in true time.
    promised: BTreeMap<MemberName, Vec<(MemberName, Instant)>>,
}

/// An agent that serves REST.
#[derive(Clone)]
pub struct Answering {
    /// Its process.
    pub process: Process,
    /// What its cycle published last.
    pub node: watch::Receiver<NodeView>,
    /// Its server.
    pub server: ModelServer,
    /// What it promises to a primary without the store.
    pub promises: Promises,
}

impl Directory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent begins to serve.
    pub fn enter(&self, name: &MemberName, answering: Answering) {
        self.state().members.insert(name.clone(), answering);
    }

    /// What `name` was told when it asked last.
    pub fn last_poll(&self, name: &MemberName) -> Option<PeerPoll> {
        self.state().last.get(name).cloned()
    }

    /// Until when `name` has promised `leader` to wait; without a leader, whoever it was.
    pub fn promised(&self, name: &MemberName, leader: Option<&MemberName>) -> Option<Instant> {
        let state = self.state();
        let promises = state.promised.get(name).into_iter().flatten();
        promises.filter(|(to, _)| leader.is_none_or(|leader| leader == to)).map(|(_, until)| *until).max()
    }

    fn note_promise(&self, name: MemberName, leader: MemberName, until: Instant) {
        let mut state = self.state();
        let promises = state.promised.entry(name).or_default();
        promises.retain(|(to, _)| *to != leader);
        promises.push((leader, until));
    }

    fn find(&self, name: &MemberName) -> Option<Answering> {
        self.state().members.get(name).cloned()
    }
}

/// How one member reaches the others.
#[derive(Clone)]
pub struct SimPeers {
    /// This member.
    pub me: MemberName,
    /// Who can be asked.
    pub directory: Directory,
    /// What is in between.
    pub network: Network,
}

impl SimPeers {
    async fn ask(me: MemberName, member: Member, directory: Directory, network: Network) -> PeerAnswer {
        let (here, there) = (Place::Member(me), Place::Member(member.name.clone()));
        if !network.connects(&here, &there, Kind::Rest) {
            sleep(PEER_TIMEOUT).await;
            return PeerAnswer::Unreachable;
        }
        sleep(network.delay(&here, &there)).await;
        let Some(other) = directory.find(&member.name).filter(|other| other.process.is_alive()) else {
            return PeerAnswer::Unreachable; // Refused at once.
        };
        while !other.process.runs() {
            // It accepts the connection and says nothing.
            sleep(PEER_TIMEOUT).await;
        }
        let node = other.node.borrow().clone();
        let node = if node.current_server().is_some() || node.is_running() {
            let leader = node.cluster.as_ref().and_then(|cluster| cluster.leader_member().and_then(Member::timeline));
            NodeView { server: other.server.fresh_facts(leader).await, ..node }
        } else {
            node
        };
        let document = status_document(&node);
        sleep(network.delay(&there, &here)).await;
        if !network.connects(&here, &there, Kind::Rest) {
            sleep(PEER_TIMEOUT).await;
        }
        parse_status(&member, document.to_string().as_bytes())
    }
}

impl SimPeers {
    async fn ask_for_consent(self, request: ConsentRequest, member: MemberName) -> ConsentAnswer {
        let (here, there) = (Place::Member(self.me.clone()), Place::Member(member.clone()));
        let cut = !self.network.connects(&here, &there, Kind::Rest);
        sleep(if cut { PEER_TIMEOUT } else { self.network.delay(&here, &there) }).await;
        let Some(other) = self.directory.find(&member).filter(|other| !cut && other.process.is_alive()) else {
            return ConsentAnswer::Unreachable("no answer".to_owned());
        };
        while !other.process.runs() {
            sleep(PEER_TIMEOUT).await;
        }
        let ttl = other.node.borrow().ttl;
        let answer = match other.promises.answer(&request).await {
            ConsentReply::Accepted => {
                self.directory.note_promise(member, self.me.clone(), Instant::now() + ttl);
                ConsentAnswer::Agreed { position: None }
            }
            ConsentReply::ModeOff => ConsentAnswer::Refused("502".to_owned()),
            ConsentReply::Refused(why) => ConsentAnswer::Refused(why),
        };
        sleep(self.network.delay(&there, &here)).await;
        if !self.network.connects(&here, &there, Kind::Rest) {
            sleep(PEER_TIMEOUT).await;
        }
        answer
    }
}

impl Peers for SimPeers {
    fn ask_consent<'a>(
        &'a self,
        request: &'a ConsentRequest,
        members: BTreeMap<String, String>,
        within: Duration,
    ) -> BoxFuture<'a, BTreeMap<String, ConsentAnswer>> {
        Box::pin(async move {
            let limit = within.min(PEER_TIMEOUT);
            let silent = |name: &String| (name.clone(), ConsentAnswer::Unreachable("no answer".to_owned()));
            let mut answers: BTreeMap<String, ConsentAnswer> = members.keys().map(silent).collect();
            let mut asked = JoinSet::new();
            for name in members.into_keys() {
                let Ok(member) = name.parse() else { continue };
                let answer = self.clone().ask_for_consent(request.clone(), member);
                asked.spawn(async move { (name, timeout(limit, answer).await) });
            }
            while let Some(Ok((name, answer))) = asked.join_next().await {
                if let Ok(answer) = answer {
                    answers.insert(name, answer);
                }
            }
            answers
        })
    }

    fn poll<'a>(&'a self, members: Vec<&'a Member>) -> BoxFuture<'a, PeerPoll> {
        Box::pin(async move {
            let mut asked = JoinSet::new();
            for member in members {
                let name = member.name.clone();
                let answer =
                    SimPeers::ask(self.me.clone(), member.clone(), self.directory.clone(), self.network.clone());
                asked.spawn(async move {
                    let answer = timeout(PEER_TIMEOUT, answer).await.unwrap_or(PeerAnswer::Unreachable);
                    (name, answer)
                });
            }
            let mut poll = PeerPoll::default();
            while let Some(Ok((name, answer))) = asked.join_next().await {
                poll.answers.insert(name, answer);
            }
            self.directory.state().last.insert(self.me.clone(), poll.clone());
            poll
        })
    }
}
