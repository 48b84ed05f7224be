//! The one long action (ASY-7): a task that the cycle starts, watches and can cancel.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgward_core::decide::view::{ActionKind, Finished, Outcome, RunningAction};
use pgward_core::time::BootInstant;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::host::Host;

/// What a running action shares with the cycle.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    committed: Arc<AtomicBool>,
    /// Asks the action to end before its critical part is over.
    pub cancel: CancellationToken,
}

impl Progress {
    /// The part that can be cancelled without a trace is over. False: it was cancelled before.
    pub(crate) fn commit(&self) -> bool {
        self.committed.store(true, Ordering::SeqCst);
        !self.cancel.is_cancelled()
    }
}

struct Running {
    kind: ActionKind,
    since: BootInstant,
    progress: Progress,
    task: JoinHandle<()>,
}

/// Starts actions and collects how they ended.
pub(crate) struct Actions {
    running: Option<Running>,
    /// The checkpoint after a promotion runs beside other actions.
    beside: Option<Running>,
    ended: mpsc::Receiver<Finished>,
    report: mpsc::Sender<Finished>,
    host: Arc<dyn Host>,
}

/// Actions report once each and at most two run.
const REPORTS: usize = 4;

impl Actions {
    /// Nothing runs yet.
    pub(crate) fn new(host: Arc<dyn Host>) -> Self {
        let (report, ended) = mpsc::channel(REPORTS);
        Actions { running: None, beside: None, ended, report, host }
    }

    /// Starts an action. The caller has made sure that none runs.
    pub(crate) fn start<F>(&mut self, kind: ActionKind, work: impl FnOnce(Progress) -> F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let progress = Progress::default();
        let (report, work) = (self.report.clone(), work(progress.clone()));
        let task = self.host.spawn(Box::pin(async move {
            let outcome = work.await;
            // The cycle that would read it is gone only when the agent ends.
            let _ = report.send(Finished { kind, outcome }).await;
        }));
        let running = Running { kind, since: self.host.boot_now(), progress, task };
        match kind {
            ActionKind::Checkpoint => self.beside = Some(running),
            ActionKind::Bootstrap
            | ActionKind::Clone
            | ActionKind::Start
            | ActionKind::Promote
            | ActionKind::Demote
            | ActionKind::Stop
            | ActionKind::CrashRecovery
            | ActionKind::CheckDivergence
            | ActionKind::Rewind
            | ActionKind::ChangeUpstream
            | ActionKind::Restart
            | ActionKind::CopySlots => self.running = Some(running),
        }
    }

    /// The action that keeps others from starting.
    pub(crate) fn running(&self) -> Option<RunningAction> {
        self.running.as_ref().map(|running| RunningAction {
            kind: running.kind,
            since: running.since,
            committed: running.progress.committed.load(Ordering::SeqCst),
            cancelled: running.progress.cancel.is_cancelled(),
        })
    }

    /// Asks the running action to end.
    pub(crate) fn cancel(&self) {
        if let Some(running) = &self.running {
            running.progress.cancel.cancel();
        }
    }

    /// Cancels whatever runs and waits until it has ended: before a demotion that cannot wait its turn. Returns what ended
    /// meanwhile, for the next decision.
    pub(crate) async fn cancel_and_wait(&mut self) -> Vec<Finished> {
        self.cancel();
        let mut ended = Vec::new();
        while self.running.is_some() {
            ended.push(self.next_ended().await);
        }
        ended
    }

    /// Ends whatever runs, in the middle of what it does: for an agent that has lost its right to the data directory. The
    /// programs that it has started are killed.
    pub(crate) async fn abort(&mut self) {
        for running in [self.running.take(), self.beside.take()].into_iter().flatten() {
            running.task.abort();
            // The error is that it was ended.
            let _ = running.task.await;
        }
    }

    /// Waits for an action to end. Can be cancelled.
    pub(crate) async fn next_ended(&mut self) -> Finished {
        loop {
            let finished = tokio::select! {
                biased;
                Some(finished) = self.ended.recv() => finished,
                panicked = crashed(&mut self.running) => match died(&mut self.running, panicked) {
                    Some(finished) => finished,
                    None => continue,
                },
                panicked = crashed(&mut self.beside) => match died(&mut self.beside, panicked) {
                    Some(finished) => finished,
                    None => continue,
                },
            };
            if finished.kind == ActionKind::Checkpoint {
                self.beside = None;
            } else {
                self.running = None;
            }
            return finished;
        }
    }
}

/// Waits for the end of a task. True: it panicked.
async fn crashed(running: &mut Option<Running>) -> bool {
    match running {
        Some(running) => (&mut running.task).await.is_err(),
        None => std::future::pending().await,
    }
}

/// How an action ended whose task panicked. `None`: it did not, and its report, sent before its end, is heard next.
fn died(running: &mut Option<Running>, panicked: bool) -> Option<Finished> {
    let kind = running.take_if(|_| panicked)?.kind;
    Some(Finished { kind, outcome: Outcome::Failed("it panicked".to_owned()) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::System;

    async fn next(actions: &mut Actions) -> Finished {
        tokio::time::timeout(Duration::from_secs(10), actions.next_ended()).await.expect("its end is noticed")
    }

    #[tokio::test]
    async fn an_action_that_panics_has_failed_also_when_it_runs_beside_another() {
        let mut actions = Actions::new(Arc::new(System));
        for kind in [ActionKind::Checkpoint, ActionKind::Rewind] {
            actions.start(kind, |_| async { panic!("on purpose") });
            let failed = Finished { kind, outcome: Outcome::Failed("it panicked".to_owned()) };
            assert_eq!(next(&mut actions).await, failed);
            actions.start(kind, |_| async { Outcome::Done });
            assert_eq!(next(&mut actions).await, Finished { kind, outcome: Outcome::Done });
        }
    }

    #[tokio::test]
    async fn an_action_that_is_aborted_goes_no_further() {
        let mut actions = Actions::new(Arc::new(System));
        let alive = Arc::new(());
        for kind in [ActionKind::Checkpoint, ActionKind::Rewind] {
            let held = Arc::clone(&alive);
            actions.start(kind, |_| async move {
                let _held = held;
                std::future::pending().await
            });
        }
        actions.abort().await;
        assert_eq!(Arc::strong_count(&alive), 1);
        assert!(actions.running().is_none());
    }
}
