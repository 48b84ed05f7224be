//! Stopping the server, and making sure that it has stopped.

use std::time::Duration;

use pgward_core::time::rounded;
use pgward_core::wal::Lsn;
use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::control::{ClusterState, ControlData};
use crate::error::Error;
use crate::instance::Instance;
use crate::process::{Postmaster, Process, all_exited};

/// How the server is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Waits for clients to leave.
    Smart,
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// Ends everything at once; the next start recovers.
    Immediate,
}

/// How to stop.
#[derive(Clone, Debug)]
pub struct StopOptions {
    /// How it is asked.
    pub mode: StopMode,
    /// Write a checkpoint first, while clients still work, so that the one at the end is short.
    pub checkpoint: bool,
    /// When to ask for an immediate stop; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// How long an immediate stop may take before every process is killed.
    pub kill_after: Duration,
}

impl Default for StopOptions {
    fn default() -> Self {
        StopOptions {
            mode: StopMode::Fast,
            checkpoint: false,
            timeout: None,
            // An immediate stop needs milliseconds; a machine that is slow may need a few seconds.
            kill_after: Duration::from_secs(5),
        }
    }
}

/// How the server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOutcome {
    /// There was none.
    NotRunning,
    /// As it was asked.
    Stopped,
    /// It had to be asked for an immediate stop.
    Immediate,
    /// Its processes had to be killed.
    Killed,
}

/// The server has written its last record. From here on no session exists, even while it still archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownCheckpoint {
    /// Where the shutdown checkpoint is: what a replica must have received to be promoted without loss.
    pub checkpoint: Lsn,
    /// The position to publish (3.6): before a segment switch that only archiving caused.
    pub published: Lsn,
    /// The control data at that moment.
    pub control: ControlData,
}

/// How often the control file is looked at while a stop goes on.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long the operating system may take to carry out a SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Instance {
    /// Stops the server and waits for its end. A fast or smart stop that exceeds `timeout` becomes an immediate one, and
    /// that one, after `kill_after`, the end of every process.
    ///
    /// `on_shutdown_checkpoint` is sent the moment the control file says "shut down", which with slow archiving is long
    /// before the end. It is dropped unsent when that never happens.
    ///
    /// Dropping the future leaves the server stopping.
    ///
    /// # Errors
    /// When the server is a single-user one, may not be signalled, or survives a SIGKILL.
    pub async fn stop(
        &self,
        options: &StopOptions,
        on_shutdown_checkpoint: Option<oneshot::Sender<ShutdownCheckpoint>>,
    ) -> Result<StopOutcome, Error> {
        let found = self.postmaster().map_err(Error::file("look for", "postmaster.pid"))?;
        let Some(postmaster) = found else { return Ok(StopOutcome::NotRunning) };
        self.stop_postmaster(&postmaster, options, on_shutdown_checkpoint).await
    }

    /// The same for a server that is known already, also when its data directory has vanished meanwhile.
    ///
    /// # Errors
    /// As [`Instance::stop`].
    pub async fn stop_postmaster(
        &self,
        postmaster: &Postmaster,
        options: &StopOptions,
        on_shutdown_checkpoint: Option<oneshot::Sender<ShutdownCheckpoint>>,
    ) -> Result<StopOutcome, Error> {
        if postmaster.is_single_user() {
            let pid = postmaster.pid();
            return Err(Error::Refused(format!(
                "process {pid} is a single-user server, which is not stopped by signals"
            )));
        }
        if options.checkpoint && options.mode != StopMode::Immediate {
            self.checkpoint_before_stop(postmaster, options.timeout).await;
        }
        self.close_connections().await;
        let signal = match options.mode {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        if !self.signal(postmaster, signal)? {
            return Ok(StopOutcome::NotRunning);
        }
        if options.mode != StopMode::Immediate {
            let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
            if self.wait_stopped(postmaster, deadline, on_shutdown_checkpoint).await {
                return Ok(StopOutcome::Stopped);
            }
            warn!(timeout = options.timeout.map(rounded), "PostgreSQL did not stop in time, stopping it immediately");
            self.signal(postmaster, Signal::QUIT)?;
        }
        if postmaster.exited_within(options.kill_after).await {
            let asked = options.mode == StopMode::Immediate;
            return Ok(if asked { StopOutcome::Stopped } else { StopOutcome::Immediate });
        }
        warn!(after = rounded(options.kill_after), "PostgreSQL did not stop immediately, killing its processes");
        let children =
            postmaster.process().kill_tree().map_err(Error::file("kill the server of", &self.settings().data_dir))?;
        if postmaster.exited_within(KILL_LIMIT).await && all_exited(&children, KILL_LIMIT).await {
            Ok(StopOutcome::Killed)
        } else {
            let all = children.iter().chain([postmaster.process()]);
            let living = all.filter(|process| process.is_alive()).map(Process::describe);
            Err(Error::Unkillable { processes: living.collect::<Vec<_>>().join(", "), after: KILL_LIMIT })
        }
    }

    /// Errors do not matter: the stop writes its own checkpoint.
    async fn checkpoint_before_stop(&self, postmaster: &Postmaster, limit: Option<Duration>) {
        let checkpoint = async {
            if let Err(error) = self.checkpoint(limit).await {
                debug!(%error, "no checkpoint before the stop");
            }
        };
        tokio::select! {
            () = checkpoint => {}
            () = postmaster.exited() => {}
        }
    }

    /// False when the deadline passed first.
    async fn wait_stopped(
        &self,
        postmaster: &Postmaster,
        deadline: Option<Instant>,
        mut notify: Option<oneshot::Sender<ShutdownCheckpoint>>,
    ) -> bool {
        let passed = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(passed);
        loop {
            tokio::select! {
                () = postmaster.exited() => {
                    self.notify_shutdown_checkpoint(&mut notify).await;
                    return true;
                }
                () = &mut passed => return false,
                () = tokio::time::sleep(LOOK_EVERY), if notify.is_some() => {}
            }
            self.notify_shutdown_checkpoint(&mut notify).await;
        }
    }

    /// Sends once the control file says so: first a look at its head, then the verified reading.
    async fn notify_shutdown_checkpoint(&self, notify: &mut Option<oneshot::Sender<ShutdownCheckpoint>>) {
        let is_shut_down = self.control_quick_look().is_some_and(|look| look.state == ClusterState::ShutDown);
        if notify.is_none() || !is_shut_down {
            return;
        }
        match self.shutdown_checkpoint().await {
            Ok(Some(checkpoint)) => {
                if let Some(notify) = notify.take() {
                    // Nobody may listen any more, which is fine.
                    let _ = notify.send(checkpoint);
                }
            }
            Ok(None) => {}
            Err(error) => debug!(%error, "cannot read the shutdown checkpoint"),
        }
    }

    /// The shutdown checkpoint, when the control file says "shut down".
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub async fn shutdown_checkpoint(&self) -> Result<Option<ShutdownCheckpoint>, Error> {
        let control = self.control_data().await?;
        let (Some(ClusterState::ShutDown), Some(checkpoint)) = (control.state, control.checkpoint) else {
            return Ok(None);
        };
        let published = self.position_before_switch(&control, checkpoint).await.unwrap_or(checkpoint);
        Ok(Some(ShutdownCheckpoint { checkpoint, published, control }))
    }

    fn signal(&self, postmaster: &Postmaster, signal: Signal) -> Result<bool, Error> {
        let failed = Error::file("signal the server of", self.settings().data_dir.clone());
        postmaster.process().signal(signal).map_err(failed)
    }
}
