//! Starting, stopping, promoting, copying, as the agent asks for it.

use std::collections::BTreeMap;
use std::time::Duration;

use pgward_agent::local::Local;
use pgward_agent::server::{LastRecord, Postmaster, ServerControl, ServerError, SlotCopy, StopHow, Stopped};
use pgward_core::cluster::{Cluster, Member};
use pgward_core::decide::rewind::ControlState;
use pgward_core::decide::slots::plan::{Position, PresentKind, PresentSlot, SlotStep};
use pgward_core::decide::slots::{LogicalSlot, Slots};
use pgward_core::mutant::{Mutant, leaves_out};
use pgward_core::sync::StandbyNames;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::disk::{DataDirectory, Slot};
use super::model_server::{ModelServer, unusable};
use super::process::Stop;
use super::recovery::StartAs;
use super::state::{BASEBACKUP, State};
use super::wal::Payload;
use super::{ModelPostmaster, Postgres};

/// How long an immediate stop may take before every process is killed.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// The pause before a copy that has failed is tried once more.
const BETWEEN_COPIES: Duration = Duration::from_secs(5);

/// How long the operating system may take to carry out a SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What is left of a killed server ends at once, or hangs in the kernel.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(2);

impl Postgres {
    /// Waits until a server accepts connections: true; or has ended: false.
    pub(super) async fn wait_accepting(&self, postmaster: &ModelPostmaster) -> bool {
        let is_open =
            self.until(postmaster.pid(), |state| state.process.as_ref().is_some_and(super::process::Process::lets_in));
        tokio::select! {
            biased;
            () = postmaster.exited() => false,
            open = is_open => open.is_some(),
        }
    }

    /// Kills backends whose postmaster has died.
    async fn kill_leftovers(&self) -> Result<(), ServerError> {
        self.change(|state| {
            if state.process.as_ref().is_some_and(|process| !process.has_postmaster) {
                state.kill();
            }
        });
        let is_left = || self.state().process.as_ref().is_some_and(|process| !process.has_postmaster);
        self.wait_while(is_left, LEFTOVERS_LIMIT)
            .await
            .ok_or_else(|| unusable(format!("the processes of a dead server did not end within {LEFTOVERS_LIMIT:?}")))
    }

    /// Waits until something is not true any more. `None`: it still is after `limit`.
    async fn wait_while(&self, is_true: impl Fn() -> bool, limit: Duration) -> Option<()> {
        let mut life = self.0.life.subscribe();
        let wait = async {
            while is_true() {
                life.changed().await;
            }
        };
        timeout(limit, wait).await.ok()
    }

    /// The last record of a primary that has stopped in order.
    fn last_record(&self) -> Option<LastRecord> {
        let state = self.state();
        let data = state.readable_data().filter(|data| data.control.state == ControlState::ShutDown)?;
        let checkpoint = data.control.checkpoint;
        let before = data.wal.ending_at(checkpoint).filter(|record| record.payload == Payload::SegmentSwitch);
        Some(LastRecord { checkpoint, published: before.map_or(checkpoint, |record| record.start) })
    }

    /// Waits for the end of a server that stops, and tells when its last record is written. False: `deadline` passed.
    async fn wait_stopped(
        &self,
        postmaster: &ModelPostmaster,
        deadline: Option<Instant>,
        announce: Option<oneshot::Sender<LastRecord>>,
    ) -> bool {
        let mut life = self.0.life.subscribe();
        let passed = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(passed);
        let mut announce = announce;
        loop {
            if announce.is_some()
                && let Some(last) = self.last_record()
                && let Some(announce) = announce.take()
            {
                // Who does not wait for it any more does not need it.
                let _ = announce.send(last);
            }
            if !postmaster.is_alive() {
                return true;
            }
            tokio::select! {
                biased;
                () = postmaster.exited() => {}
                () = &mut passed => return false,
                () = life.changed() => {}
            }
        }
    }

    /// A checkpoint as SQL.
    async fn sql_checkpoint(&self) -> Result<(), ServerError> {
        let pid = self.state().process.as_ref().filter(|process| process.lets_in()).map(|process| process.pid);
        let pid =
            pid.ok_or_else(|| unusable("cannot reach PostgreSQL: the database system does not accept connections"))?;
        self.write_checkpoint(pid).await.ok_or_else(|| unusable("PostgreSQL ended during the checkpoint"))
    }

    /// Takes another configuration over, in the files and in a standby that runs.
    fn follow(&self, start: StartAs) {
        let is_standby = start != StartAs::Primary;
        let upstream = match start {
            StartAs::Primary => None,
            StartAs::Standby(upstream) => upstream,
        };
        self.change(|state| {
            if let Some(data) = &mut state.data {
                data.upstream.clone_from(&upstream);
                data.has_standby_signal = is_standby;
            }
            if let Some(process) = state.process.as_mut().filter(|process| process.is_in_recovery) {
                process.upstream = upstream;
            }
        });
    }
}

impl ModelServer {
    async fn launch(&self, start: StartAs) -> Result<ModelPostmaster, ServerError> {
        let postgres = self.postgres();
        postgres.kill_leftovers().await?;
        // The configuration is written, and the launcher run.
        sleep(postgres.between(15, 60)).await;
        postgres.start(start, self.archives()).map_err(unusable)
    }

    /// INV-S21: what is about to be removed may be the only copy, so a new one must be within reach.
    async fn require_same_cluster(&self, source: &Member) -> Result<(), ServerError> {
        let theirs = self.reach(source).await.map_err(unusable)?.truth().system_id;
        let ours = self.postgres().state().readable_data().map(|data| data.system_id);
        match ours {
            Some(ours) if Some(ours) != theirs => {
                Err(unusable("the data directory is kept: the source is of another cluster"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// One attempt to copy a member into the empty data directory. What it has written is removed when it fails.
    async fn copy(&self, source: &Member, cancel: &CancellationToken) -> Result<(), ServerError> {
        let postgres = self.postgres();
        let source = self.reach(source).await.map_err(unusable)?;
        let copied = postgres.run_tool(BASEBACKUP, false, cancel, postgres.clone().run_clone(source)).await;
        if copied.is_err()
            && let Err(problem) = postgres.change(State::wipe)
        {
            tracing::warn!(%problem, "what a failed copy has written was not removed");
        }
        copied.map_err(unusable)
    }

    /// Waits for a stop that was asked for; an immediate stop, and SIGKILL, follow when it does not come.
    async fn see_it_end(
        &self,
        postmaster: &ModelPostmaster,
        how: StopHow,
        limit: Option<Duration>,
        announce: Option<oneshot::Sender<LastRecord>>,
    ) -> Result<(), ServerError> {
        let postgres = self.postgres();
        if how == StopHow::Immediate {
            postgres.ask_to_stop(Stop::Immediate);
        } else {
            postgres.ask_to_stop(Stop::Fast);
            let deadline = limit.map(|limit| Instant::now() + limit);
            if postgres.wait_stopped(postmaster, deadline, announce).await {
                return Ok(());
            }
            postgres.ask_to_stop(Stop::Immediate);
        }
        if timeout(KILL_AFTER, postmaster.exited()).await.is_ok() {
            return Ok(());
        }
        postgres.kill();
        let gone = timeout(KILL_LIMIT, postmaster.exited()).await;
        gone.map_err(|_| {
            unusable(format!("the processes of PostgreSQL did not end after SIGKILL within {KILL_LIMIT:?}"))
        })
    }
}

impl ServerControl for ModelServer {
    async fn check_port(&self) -> Result<(), ServerError> {
        Ok(())
    }

    async fn start_primary(&self) -> Result<ModelPostmaster, ServerError> {
        self.launch(StartAs::Primary).await
    }

    async fn start_standby(&self, upstream: Option<&Member>) -> Result<ModelPostmaster, ServerError> {
        if self.known().is_synchronous {
            self.postgres().set_standby_names(StandbyNames::nobody()); // REC-11
        }
        self.launch(StartAs::Standby(self.upstream(upstream))).await
    }

    async fn wait_accepting(&self, postmaster: &ModelPostmaster) -> Result<(), ServerError> {
        let limit = self.effective().pg_ctl_timeout;
        match timeout(limit, self.postgres().wait_accepting(postmaster)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ServerError::DidNotStart(self.postgres().state().output.clone())),
            Err(_) => Err(ServerError::DidNotStart(format!("it does not accept connections after {limit:?}"))),
        }
    }

    async fn stop(
        &self,
        local: &Local<ModelPostmaster>,
        how: StopHow,
        limit: Option<Duration>,
        announce: Option<oneshot::Sender<LastRecord>>,
    ) -> Result<Stopped, ServerError> {
        let postgres = self.postgres();
        let known = local.get().postmaster.filter(Postmaster::is_alive);
        let found = {
            let state = postgres.state();
            if state.recovers_alone() {
                return Err(unusable("a single-user server is not stopped by signals"));
            }
            state.postmaster()
        };
        if let Some(postmaster) = found.or(known) {
            if how == StopHow::FastWithCheckpoint {
                let checkpoint = timeout(limit.unwrap_or(Duration::MAX), postgres.sql_checkpoint());
                tokio::select! {
                    biased;
                    () = postmaster.exited() => {}
                    // Errors do not matter: the stop writes its own checkpoint.
                    _ = checkpoint => {}
                }
            }
            self.see_it_end(&postmaster, how, limit, announce).await?;
        }
        postgres.kill_leftovers().await?;
        let published = postgres.last_record().filter(|_| how != StopHow::Immediate).map(|last| last.published);
        Ok(Stopped { published })
    }

    async fn end_leftovers(&self) -> Result<(), ServerError> {
        self.postgres().kill_leftovers().await
    }

    async fn promote(&self) -> Result<(), ServerError> {
        self.postgres().promote_now().map_err(unusable)
    }

    async fn wait_promoted(&self, limit: Duration) -> Result<(), ServerError> {
        let postgres = self.postgres();
        let postmaster = postgres.state().postmaster().ok_or_else(|| unusable("PostgreSQL is not running"))?;
        let is_primary = postgres.until(postmaster.pid(), |state| {
            state.process.as_ref().is_some_and(|process| !process.is_in_recovery && process.lets_in())
        });
        let promoted = async {
            tokio::select! {
                biased;
                () = postmaster.exited() => None,
                promoted = is_primary => promoted,
            }
        };
        match timeout(limit, promoted).await {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(unusable(format!("PostgreSQL ended meanwhile: {}", postgres.state().output))),
            Err(_) => Err(unusable(format!("PostgreSQL did not end recovery after its promotion within {limit:?}"))),
        }
    }

    async fn archive_last_wal(&self) -> Result<(), ServerError> {
        Ok(())
    }

    async fn checkpoint(&self) -> Result<(), ServerError> {
        self.postgres().sql_checkpoint().await
    }

    async fn resume_replay(&self) -> Result<(), ServerError> {
        if self.postgres().is_in_recovery().await != Some(true) {
            return Err(unusable("recovery is not in progress"));
        }
        self.postgres().change(|state| {
            state.faults.is_replay_paused = false;
            if let Some(pid) = state.process.as_ref().map(|process| process.pid) {
                state.replay(pid);
            }
        });
        Ok(())
    }

    async fn reload_upstream(&self, upstream: Option<&Member>) -> Result<(), ServerError> {
        sleep(self.postgres().between(2, 15)).await;
        if self.postgres().state().postmaster().is_none() {
            return Err(unusable("PostgreSQL is not running"));
        }
        self.postgres().follow(StartAs::Standby(self.upstream(upstream)));
        Ok(())
    }

    async fn load_standby_names(&self, names: Option<&str>) -> Result<(), ServerError> {
        let names = StandbyNames::parse(names.unwrap_or_default()).map_err(|problem| unusable(problem.to_string()))?;
        sleep(self.postgres().between(2, 30)).await;
        self.postgres().set_standby_names(names);
        Ok(())
    }

    async fn apply_configuration(&self, upstream: Option<Option<&Member>>) -> Result<(), ServerError> {
        sleep(self.postgres().between(2, 15)).await;
        let wanted = match upstream {
            Some(upstream) => StartAs::Standby(self.upstream(upstream)),
            None => StartAs::Primary,
        };
        let is_other = self.postgres().state().data.as_ref().is_some_and(|data| data.start_as() != wanted);
        if is_other {
            self.postgres().follow(wanted);
        }
        Ok(())
    }

    async fn clone_from(&self, source: &Member, wipe: bool, cancel: &CancellationToken) -> Result<(), ServerError> {
        let postgres = self.postgres();
        postgres.change(|state| state.kill_tools(false));
        sleep(postgres.between(5, 50)).await;
        if wipe {
            if !leaves_out(Mutant::WipeWithoutLooking) {
                self.require_same_cluster(source).await?;
            }
            sleep(postgres.between(5, 300)).await;
            postgres.change(|state| state.wipe().map_err(unusable))?;
        }
        let is_empty = {
            let state = postgres.state();
            state.data.is_none() && !state.faults.is_data_dir_inaccessible
        };
        if !is_empty {
            return Err(unusable("the data directory is not empty: it is not touched"));
        }
        let first = self.copy(source, cancel).await;
        if first.is_ok() || cancel.is_cancelled() {
            return first;
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return first,
            () = sleep(BETWEEN_COPIES) => {}
        }
        self.copy(source, cancel).await
    }

    async fn initdb(&self, cancel: &CancellationToken) -> Result<(), ServerError> {
        let postgres = self.postgres();
        postgres.run_tool("initdb", true, cancel, postgres.clone().run_initdb()).await.map_err(unusable)
    }

    async fn post_bootstrap(&self, _: &CancellationToken) -> Result<(), ServerError> {
        sleep(self.postgres().between(5, 50)).await;
        match self.postgres().is_in_recovery().await {
            Some(_) => Ok(()),
            None => Err(unusable("cannot reach PostgreSQL")),
        }
    }

    async fn move_aside(&self) -> Result<(), ServerError> {
        self.postgres().change(|state| state.move_aside().map_err(unusable))
    }

    async fn sync_slots(&self, cluster: &Cluster, slots: &Slots) -> Result<(), ServerError> {
        if self.postgres().is_in_recovery().await.is_none() {
            return Err(unusable("cannot reach PostgreSQL"));
        }
        let plan = |state: &State| {
            let (process, data) = (state.process.as_ref()?, state.data.as_ref()?);
            let lsn = if process.is_in_recovery { process.replayed } else { data.wal.flushed() };
            Some(slots.plan(&data.present_slots(), Position { in_recovery: process.is_in_recovery, lsn }))
        };
        let steps = plan(&self.postgres().state()).unwrap_or_default();
        if !steps.is_empty() {
            self.postgres().change(|state| {
                if let Some(data) = &mut state.data {
                    steps.iter().for_each(|step| data.carry_out(step));
                }
            });
        }
        self.known().slots_for = cluster.members.keys().map(ToString::to_string).collect();
        Ok(())
    }

    async fn fetch_slots(&self, _: &Member, _: &BTreeMap<String, LogicalSlot>) -> Result<Vec<SlotCopy>, ServerError> {
        Err(unusable("there are no logical slots here"))
    }

    async fn install_slots(&self, _: &[SlotCopy]) -> Result<(), ServerError> {
        Err(unusable("there are no logical slots here"))
    }
}

impl DataDirectory {
    /// What the configuration files say.
    fn start_as(&self) -> StartAs {
        if self.has_standby_signal { StartAs::Standby(self.upstream.clone()) } else { StartAs::Primary }
    }

    fn present_slots(&self) -> Vec<PresentSlot> {
        let present = |(name, slot): (&String, &Slot)| PresentSlot {
            name: name.clone(),
            kind: PresentKind::Physical,
            active: slot.used_by.is_some(),
            has_xmin: false,
            catalog_xmin: None,
            restart: slot.restart,
            lost: false,
        };
        self.slots.iter().map(present).collect()
    }

    /// There are only physical slots here.
    fn carry_out(&mut self, step: &SlotStep) {
        let flushed = self.wal.flushed();
        match step {
            SlotStep::Drop { slot, .. } => drop(self.slots.remove(slot)),
            SlotStep::CreatePhysical { slot } => {
                self.slots.insert(slot.clone(), Slot { restart: Some(flushed), used_by: None });
            }
            SlotStep::Advance { slot, to } => {
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.restart = slot.restart.max(Some(*to));
                }
            }
            SlotStep::CreateLogical { .. } | SlotStep::SetFailover { .. } | SlotStep::AdvanceLogical { .. } => {}
        }
    }
}
