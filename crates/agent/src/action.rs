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
            | ActionKind::ChangeUpstream => self.running = Some(running),
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

    /// Waits for an action to end. Can be cancelled.
    pub(crate) async fn next_ended(&mut self) -> Finished {
        loop {
            let crashed = async {
                match &mut self.running {
                    Some(running) => (&mut running.task).await.is_err(),
                    None => std::future::pending().await,
                }
            };
            let finished = tokio::select! {
                biased;
                Some(finished) = self.ended.recv() => finished,
                panicked = crashed => {
                    // A report that was sent just before the task ended comes first.
                    match self.ended.try_recv() {
                        Ok(finished) => finished,
                        Err(_) => {
                            let Some(running) = self.running.take() else { continue };
                            let outcome = if panicked { "it panicked" } else { "it ended without a word" };
                            return Finished { kind: running.kind, outcome: Outcome::Failed(outcome.to_owned()) };
                        }
                    }
                }
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
