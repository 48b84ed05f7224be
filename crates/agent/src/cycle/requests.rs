//! Requests of operators: from the order to the decision, and back with what came of it.

use std::time::Duration;

use pgward_core::decide::operator::Request;
use pgward_core::decide::view::{ActionKind, Finished, Outcome};
use pgward_core::decide::{Decision, Effect, Reason};
use pgward_store::Store;
use tokio::sync::oneshot;
use tracing::info;

use super::Cycle;
use crate::orders::{Answer, Order, ScheduledRestart};
use crate::server::Server;

/// The requests under way. At most one at a time.
#[derive(Default)]
pub(crate) struct Requests {
    /// No decision has answered it yet.
    asked: Option<(Request, Option<oneshot::Sender<Answer>>)>,
    /// Its action runs.
    running: Option<(ActionKind, Option<oneshot::Sender<Answer>>)>,
    /// Its action has ended, which is told once the view that REST serves shows it.
    ended: Option<(Answer, Option<oneshot::Sender<Answer>>)>,
    /// For later.
    scheduled: Option<ScheduledRestart>,
}

impl Requests {
    /// What the next decision has to answer.
    pub(super) fn asked(&self) -> Option<Request> {
        self.asked.as_ref().map(|(request, _)| request.clone())
    }

    /// The restart that is kept for later.
    pub(super) fn scheduled(&self) -> Option<&ScheduledRestart> {
        self.scheduled.as_ref()
    }

    /// Takes an order. What cannot be taken is answered.
    fn take(&mut self, order: Order, postmaster_start_time: Option<&str>) {
        match order {
            Order::Carry { request, answer } => {
                if self.asked.is_some() {
                    let why = "another request is already in progress".to_owned();
                    return tell(Some(answer), Answer::Refused(why));
                }
                self.asked = Some((request, Some(answer)));
            }
            Order::Schedule { mut restart, answer } => {
                let is_free = self.scheduled.is_none();
                if is_free {
                    if let Some(started) = postmaster_start_time {
                        restart.published.insert("postmaster_start_time".to_owned(), started.into());
                    }
                    self.scheduled = Some(*restart);
                }
                let _ = answer.send(is_free); // Whoever asked may have gone.
            }
            Order::Unschedule { answer } => {
                let _ = answer.send(self.scheduled.take().is_some());
            }
        }
    }

    /// What the decision made of the request.
    pub(super) fn decided(&mut self, decision: &Decision) {
        if let Reason::RequestRefused { why } = &decision.reason
            && let Some((_, answer)) = self.asked.take()
        {
            return tell(answer, Answer::Refused(why.clone()));
        }
        let kind = if matches!(decision.reason, Reason::RestartsOnRequest) {
            ActionKind::Restart
        } else if matches!(decision.reason, Reason::ReinitializesOnRequest { .. }) {
            ActionKind::Clone
        } else {
            return;
        };
        self.running = self.asked.take().map(|(_, answer)| (kind, answer));
        // A copy may take hours: whoever asked for it is told that it has begun.
        if kind == ActionKind::Clone
            && let Some((_, answer)) = self.running.take()
        {
            tell(answer, Answer::Done);
        }
    }

    /// The decisions have settled. A request that none of them answered cannot be answered now.
    pub(super) fn settled(&mut self, decision: &Decision) {
        if matches!(decision.reason, Reason::RequestWaits { .. }) {
            return;
        }
        if let Some((_, answer)) = self.asked.take() {
            tell(answer, Answer::Refused(decision.reason.to_string()));
        }
    }

    /// The effect of an answered request could not be carried out.
    pub(super) fn not_begun(&mut self, effects: &[Effect], problem: &str) {
        if effects.iter().any(|effect| matches!(effect, Effect::Restart(_)))
            && let Some((_, answer)) = self.running.take()
        {
            tell(answer, Answer::Failed(problem.to_owned()));
        }
    }

    /// The view that REST serves is newer than the end of the action.
    pub(super) fn published(&mut self) {
        if let Some((what, answer)) = self.ended.take() {
            tell(answer, what);
        }
    }

    /// An action has ended.
    pub(super) fn ended(&mut self, finished: &Finished) {
        let Some((_, answer)) = self.running.take_if(|(kind, _)| *kind == finished.kind) else { return };
        let what = match &finished.outcome {
            Outcome::Done => Answer::Done,
            Outcome::Failed(problem) | Outcome::Refused(problem) | Outcome::SourceLost(problem) => {
                Answer::Failed(problem.clone())
            }
            Outcome::Cancelled | Outcome::Divergence(_) => Answer::Failed("it was cancelled".to_owned()),
        };
        self.ended = Some((what, answer));
    }
}

fn tell(answer: Option<oneshot::Sender<Answer>>, what: Answer) {
    if let Some(answer) = answer {
        let _ = answer.send(what); // Whoever asked may have gone.
    }
}

impl<S: Store, L: Server> Cycle<S, L> {
    /// Takes an order; the next decision answers it.
    pub(super) fn take_order(&mut self, order: Order) {
        let node = self.node.borrow();
        let started = node.server.as_ref().map(|server| server.postmaster_start_time.as_str());
        self.requests.take(order, started);
    }

    /// RST-5: asks for the scheduled restart when its time has come, and forgets it when it is of no use any more.
    pub(super) fn check_schedule(&mut self) {
        let Some(restart) = &self.requests.scheduled else { return };
        let node = self.node.borrow().clone();
        let started = node.server.as_ref().map(|server| server.postmaster_start_time.as_str());
        if let (Some(then), Some(now)) = (restart.postmaster_start_time(), started)
            && then != now
        {
            info!("PostgreSQL was restarted meanwhile: the scheduled restart is dropped");
            self.requests.scheduled = None;
            return;
        }
        let now = self.host.wall_now().0;
        let Some(late) = now.checked_sub(restart.at.0) else { return };
        if late > self.dynamic.timing.loop_wait * 3 / 2 {
            info!("the scheduled restart was not carried out in time and is dropped");
            self.requests.scheduled = None;
            return;
        }
        if self.dynamic.pause || self.actions.running().is_some() || self.requests.asked.is_some() {
            return; // PAU-10
        }
        let (holds, timeout) = (restart.conditions.hold(&node), restart.timeout);
        self.requests.scheduled = None;
        if holds {
            info!("carries out the scheduled restart");
            self.requests.asked = Some((Request::Restart { timeout }, None));
        } else {
            info!("the conditions of the scheduled restart do not hold: it is dropped");
        }
    }

    /// How long until the scheduled restart is due; `None` without one.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let restart = self.requests.scheduled()?;
        Some(restart.at.0.saturating_sub(self.host.wall_now().0)).filter(|due| !due.is_zero())
    }
}
