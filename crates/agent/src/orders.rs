//! What operators ask of this member, on its way from REST to the cycle, and the answers on their way back.

use std::time::Duration;

use pgward_core::decide::operator::Request;
use pgward_core::time::WallTime;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use crate::rest::NodeView;

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out. A restart has started the server then, which need not accept connections yet.
    Done,
    /// It was begun and failed.
    Failed(String),
    /// It was not begun.
    Refused(String),
}

/// Conditions under which a restart is carried out (RST-1). All that are set have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The member has this role: `primary`, `standby_leader` or `replica`.
    pub role: Option<String>,
    /// The server is older than this version, such as 150004.
    pub older_than: Option<u32>,
    /// A parameter waits for a restart.
    pub pending: bool,
}

impl Conditions {
    /// Whether they hold for the member as it was seen last.
    pub fn hold(&self, node: &NodeView) -> bool {
        let is_older = |version: u32| node.server.as_ref().is_some_and(|server| server.server_version < version);
        self.role.as_ref().is_none_or(|role| role == node.role.as_str())
            && self.older_than.is_none_or(is_older)
            && (!self.pending || !node.pending_restart.is_empty())
    }
}

/// A restart for later (RST-5). It is lost when the agent ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledRestart {
    /// When.
    pub at: WallTime,
    /// Looked at then.
    pub conditions: Conditions,
    /// How long the start may take; `None` for `primary_start_timeout`.
    pub timeout: Option<Duration>,
    /// The accepted request, as it is published, with `postmaster_start_time`: a server that was restarted meanwhile is
    /// not restarted again.
    pub published: Map<String, Value>,
}

impl ScheduledRestart {
    /// When the server had been started that shall be restarted.
    pub(crate) fn postmaster_start_time(&self) -> Option<&str> {
        self.published.get("postmaster_start_time").and_then(Value::as_str)
    }
}

/// What the cycle is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Do this now.
    Carry { request: Request, answer: oneshot::Sender<Answer> },
    /// Keep this restart for later. Answered with false when another one is kept already.
    Schedule { restart: Box<ScheduledRestart>, answer: oneshot::Sender<bool> },
    /// Forget the restart that is kept. Answered with false when there is none.
    Unschedule { answer: oneshot::Sender<bool> },
}

/// Orders that wait for the cycle: more operators than that at once are turned away.
const WAITING_MAX: usize = 4;

/// Tells the cycle.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

/// Hears what the cycle is told.
#[derive(Debug)]
pub struct Inbox(pub(crate) mpsc::Receiver<Order>);

/// Both ends.
pub fn channel() -> (Orders, Inbox) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Orders(sender), Inbox(receiver))
}

impl Orders {
    /// How many more orders can wait.
    pub fn room(&self) -> usize {
        self.0.capacity()
    }

    /// Asks for something and waits until it has been done or refused.
    pub async fn carry(&self, request: Request) -> Answer {
        let (answer, answered) = oneshot::channel();
        let refused = || Answer::Refused("the agent is busy with other requests, or ends".to_owned());
        match self.0.try_send(Order::Carry { request, answer }) {
            Ok(()) => answered.await.unwrap_or_else(|_| refused()),
            Err(_) => refused(),
        }
    }

    /// Keeps a restart for later; false when another one is kept already, `None` when the agent cannot be told.
    pub async fn schedule(&self, restart: ScheduledRestart) -> Option<bool> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Order::Schedule { restart: Box::new(restart), answer }).ok()?;
        answered.await.ok()
    }

    /// Forgets the restart that is kept; false when there is none, `None` when the agent cannot be told.
    pub async fn unschedule(&self) -> Option<bool> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Order::Unschedule { answer }).ok()?;
        answered.await.ok()
    }
}

/// Without a cycle behind it: every request is refused.
impl Default for Orders {
    fn default() -> Self {
        channel().0
    }
}
