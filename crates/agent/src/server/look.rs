//! One look at the local server.

use std::time::Duration;

use pgward_core::cluster::{Cluster, Member, MemberRole, PostgresState};
use pgward_core::decide::rewind::ControlState;
use pgward_core::decide::slots::plan::PresentSlot;
use pgward_core::decide::view::{self, ActionKind, Control, DataDir, Facts};
use pgward_core::sync::pick::{self, CommitLevel, Rank, Replication};
use pgward_core::wal::{Lsn, Timeline};
use pgward_postgres::{
    ClusterState, DataDirState, MonitorError, MonitorOptions, Monitoring, Postmaster, Ready, RecoveryDiff, SlotKind,
};
use tracing::{debug, warn};

use super::{LocalServer, ServerError, ServerSight, SlotPositions};
use crate::local::Local;
use crate::rest::view::{ReplicationState, ServerFacts, WalPosition, Walsender};

/// What a look is for.
pub struct Look {
    /// The upstream that a standby should have; the outer `None`: not known, do not compare.
    pub upstream: Option<Option<Member>>,
    /// The timeline that the leader has published.
    pub leader_timeline: Option<Timeline>,
    /// The action that works on the server.
    pub busy: Option<ActionKind>,
}

/// What was seen.
#[derive(Clone)]
pub struct Seen<P> {
    /// The data directory.
    pub data_dir: DataDir,
    /// A postmaster is alive.
    pub alive: bool,
    /// It.
    pub postmaster: Option<P>,
    /// It accepts connections.
    pub accepting: bool,
    /// What it answered.
    pub facts: Option<Facts>,
    /// Control data, when it is down.
    pub control: Option<Control>,
    /// Its recovery settings against those for the wanted upstream.
    pub recovery: view::RecoveryDiff,
    /// What is published besides.
    pub details: Details,
}

/// What decisions do not need and others want to know.
#[derive(Clone, Default)]
pub struct Details {
    /// What a standby has received.
    pub received: Option<Lsn>,
    /// `streaming` or `in archive recovery`.
    pub replication_state: Option<String>,
    /// Slots and their positions.
    pub slots: SlotPositions,
    /// The same slots with all that is known of them.
    pub present_slots: Vec<PresentSlot>,
    /// For REST.
    pub server: Option<ServerFacts>,
}

/// Actions during which the server is not asked: it is being stopped, or is not there.
fn leaves_alone(busy: Option<ActionKind>) -> bool {
    match busy {
        Some(
            ActionKind::Bootstrap
            | ActionKind::Clone
            | ActionKind::Demote
            | ActionKind::Stop
            | ActionKind::CrashRecovery
            | ActionKind::Rewind
            | ActionKind::ChangeUpstream
            | ActionKind::Restart
            | ActionKind::CopySlots,
        ) => true,
        Some(ActionKind::Start | ActionKind::Promote | ActionKind::CheckDivergence | ActionKind::Checkpoint) | None => {
            false
        }
    }
}

impl ServerSight for LocalServer {
    /// As far as files tell (management of states, section 1).
    fn role_at_start(&self) -> MemberRole {
        let instance = &self.0.instance;
        if instance.control_quick_look().is_none() {
            MemberRole::Uninitialized
        } else if instance.has_signal_file() {
            MemberRole::Replica
        } else if instance.postmaster().ok().flatten().is_some() {
            MemberRole::Primary
        } else {
            MemberRole::Demoted
        }
    }

    async fn look(&self, local: &Local<Postmaster>, look: &Look) -> Seen<Postmaster> {
        let known = local.get();
        let mut seen = Seen {
            data_dir: self.data_dir(),
            alive: false,
            postmaster: None,
            accepting: false,
            facts: None,
            control: None,
            recovery: view::RecoveryDiff::Unknown,
            details: Details::default(),
        };
        seen.postmaster = match self.0.instance.postmaster() {
            // A server whose pid file has vanished with its directory is still a server.
            Ok(None) => known.postmaster.filter(|postmaster| postmaster.is_alive()),
            Ok(found) => found.filter(|postmaster| !postmaster.is_single_user()),
            Err(problem) => {
                warn!(error = %problem, "cannot tell whether PostgreSQL runs; the last known answer counts");
                known.postmaster.filter(|postmaster| postmaster.is_alive())
            }
        };
        seen.alive = seen.postmaster.is_some();
        if leaves_alone(look.busy) {
            return seen;
        }
        if !seen.alive {
            if matches!(seen.data_dir, DataDir::Present { .. }) {
                seen.control = self.control().await;
            }
            return seen;
        }
        let options = MonitorOptions { slots: true, walsenders: true };
        match self.0.instance.monitor(&options).await {
            Ok(monitoring) => {
                seen.accepting = true;
                self.state().problem = None;
                self.read(&mut seen, &monitoring, look).await;
            }
            Err(problem) => {
                self.say_once(&problem.to_string());
                // A server that ran goes on running until it says that it does not (IN-P4).
                seen.accepting = match problem {
                    MonitorError::Connection(_) => match self.0.instance.ready_state().await {
                        Ready::Accepting => true,
                        Ready::Rejecting => false,
                        Ready::NoResponse => known.state == PostgresState::Running,
                    },
                    // It let us in, or told why it does not: a wrong password is no reason to think that it starts.
                    MonitorError::Timeout(_) | MonitorError::Other(_) => true,
                };
            }
        }
        seen
    }

    async fn standbys_change(&self, before: &Replication) {
        let options = MonitorOptions { slots: false, walsenders: true };
        loop {
            tokio::time::sleep(STANDBYS_PAUSE).await;
            // Who does not answer is looked at by the cycle, in its own time.
            let seen = self.0.for_standbys.monitor(&options).await;
            if seen.is_ok_and(|monitoring| replication(&monitoring).differs_in_kind(before)) {
                return;
            }
        }
    }

    async fn fresh_facts(&self, leader_timeline: Option<Timeline>) -> Option<ServerFacts> {
        let options = MonitorOptions { slots: false, walsenders: true };
        let monitoring = self.0.for_rest.monitor(&options).await.ok()?;
        let timeline = self.timeline(&monitoring, leader_timeline).await;
        Some(server_facts(&monitoring, timeline))
    }

    async fn becomes_ready(&self, starting: Option<Postmaster>) {
        const FOREVER: Duration = Duration::from_secs(86_400);
        match starting {
            Some(postmaster) => drop(self.0.instance.wait_accepting(&postmaster, FOREVER).await),
            None => std::future::pending().await,
        }
    }

    async fn may_be_writable(&self, local: &Local<Postmaster>) -> bool {
        match self.0.instance.postmaster() {
            Ok(None) => local.get().postmaster.is_some_and(|postmaster| postmaster.is_alive()),
            // It will be at any moment.
            Ok(Some(_)) if local.get().role == MemberRole::Promoted => true,
            Ok(Some(_)) => {
                let known = local.get().role == MemberRole::Primary;
                !self.0.instance.is_in_recovery().await.unwrap_or(!known)
            }
            Err(_) => true,
        }
    }

    fn output_tail(&self) -> String {
        self.0.instance.server_output_tail()
    }

    async fn system_id(&self) -> Result<String, ServerError> {
        let control = self.0.instance.control_data().await?;
        control.system_id.ok_or_else(|| ServerError::Unusable("the control data holds no system identifier".to_owned()))
    }

    fn slots_are_for_others(&self, cluster: &Cluster) -> bool {
        let members = cluster.members.keys().map(ToString::to_string);
        !members.eq(self.state().slots_for.iter().cloned())
    }
}

impl LocalServer {
    /// Warns of what keeps PostgreSQL from answering, once for each cause. While it starts that is no news.
    fn say_once(&self, problem: &str) {
        let mut state = self.state();
        if state.problem.as_deref() != Some(problem) {
            if problem.contains("the database system is") || problem.contains("Connection refused") {
                debug!(error = %problem, "PostgreSQL did not answer");
            } else {
                warn!(error = %problem, "PostgreSQL did not answer");
            }
            state.problem = Some(problem.to_owned());
        }
    }

    async fn read(&self, seen: &mut Seen<Postmaster>, monitoring: &Monitoring, look: &Look) {
        let timeline = self.timeline(monitoring, look.leader_timeline).await;
        let history = match timeline.filter(|_| !monitoring.in_recovery) {
            Some(timeline) if timeline > Timeline::FIRST => self.history(timeline),
            Some(_) | None => None,
        };
        seen.facts = Some(Facts {
            in_recovery: monitoring.in_recovery,
            position: monitoring.position(),
            replayed: monitoring.replayed.unwrap_or_default(),
            timeline,
            streaming: monitoring.is_streaming(),
            replay_paused: monitoring.in_recovery && monitoring.replay_paused == Some(true),
            history,
            replication: replication(monitoring),
            checkpointed: monitoring.control_timeline == timeline,
        });
        if monitoring.in_recovery
            && let Some(upstream) = &look.upstream
        {
            seen.recovery = self.compare_recovery(upstream.as_ref(), monitoring, seen.postmaster.as_ref()).await;
        }
        let position = |slot: &pgward_postgres::Slot| match &slot.kind {
            SlotKind::Physical => slot.restart,
            SlotKind::Logical { confirmed_flush, .. } => *confirmed_flush,
        };
        seen.details = Details {
            received: monitoring.received_or_written(),
            replication_state: monitoring.replication_state().map(str::to_owned),
            slots: monitoring.slots.iter().filter_map(|slot| Some((slot.name.clone(), position(slot)?))).collect(),
            present_slots: monitoring.slots.iter().map(super::slots::present).collect(),
            server: Some(server_facts(monitoring, timeline)),
        };
    }

    fn data_dir(&self) -> DataDir {
        match self.0.instance.data_dir_state() {
            DataDirState::Empty => DataDir::Empty,
            DataDirState::Inaccessible(problem) => DataDir::Inaccessible { problem },
            DataDirState::Present { .. } => {
                let system_id = self.0.instance.control_quick_look().map(|look| look.system_id.to_string());
                DataDir::Present { system_id: system_id.filter(|id| pgward_core::cluster::is_system_id(id)) }
            }
        }
    }

    async fn control(&self) -> Option<Control> {
        let control = match self.0.instance.control_data().await {
            Ok(control) => control,
            Err(problem) => {
                warn!(error = %problem, "the control data cannot be read");
                return None;
            }
        };
        let state = match control.state {
            Some(ClusterState::ShutDown) => ControlState::ShutDown,
            Some(ClusterState::ShutDownInRecovery) => ControlState::ShutDownInRecovery,
            Some(ClusterState::ShuttingDown) => ControlState::ShuttingDown,
            Some(ClusterState::InCrashRecovery) => ControlState::InCrashRecovery,
            Some(ClusterState::InArchiveRecovery) => ControlState::InArchiveRecovery,
            Some(ClusterState::InProduction) => ControlState::InProduction,
            Some(ClusterState::StartingUp) | None => ControlState::Other,
        };
        Some(Control {
            state,
            rewind_possible: control.allows_rewind(),
            has_signal_file: self.0.instance.has_signal_file(),
            has_backup_label: self.0.instance.has_backup_label(),
            checkpoint: control.checkpoint,
        })
    }

    /// IN-P6: of a primary its own; of a standby the receiver's once it has received something, else what the server
    /// says on a replication connection, asked again when the leader's timeline changes.
    async fn timeline(&self, monitoring: &Monitoring, leader: Option<Timeline>) -> Option<Timeline> {
        if !monitoring.in_recovery {
            return monitoring.timeline;
        }
        if let Some(timeline) = monitoring.receiver.as_ref().and_then(|receiver| receiver.timeline) {
            return Some(timeline);
        }
        if let Some((asked_under, timeline)) = self.state().timeline
            && asked_under == leader
        {
            return Some(timeline);
        }
        match self.0.instance.identify_system().await {
            Ok(identity) => {
                self.state().timeline = Some((leader, identity.timeline));
                Some(identity.timeline)
            }
            Err(problem) => {
                debug!(error = %problem, "the timeline could not be asked for");
                None
            }
        }
    }

    /// The local history file, its newest line with the time of the file (HIS-2).
    fn history(&self, timeline: Timeline) -> Option<pgward_core::cluster::History> {
        let mut history = self.0.instance.local_history(timeline)?;
        let path = self.0.instance.settings().data_dir.join(format!("pg_wal/{:08X}.history", timeline.get()));
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        if let (Some(line), Some(modified)) = (history.lines.last_mut(), modified)
            && let Ok(at) = jiff::Timestamp::try_from(modified)
        {
            line.timestamp = Some(at.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string());
        }
        Some(history)
    }

    /// FOL-10. A comparison costs a query and files; while the WAL receiver runs as it did when nothing differed, it is
    /// not repeated.
    async fn compare_recovery(
        &self,
        upstream: Option<&Member>,
        monitoring: &Monitoring,
        postmaster: Option<&Postmaster>,
    ) -> view::RecoveryDiff {
        let wanted = self.recovery(upstream);
        let receiver = monitoring
            .receiver
            .as_ref()
            .map(|receiver| format!("{} {}", receiver.conninfo, receiver.slot.as_deref().unwrap_or_default()));
        let made_of = (wanted.clone(), postmaster.map_or(0, Postmaster::pid), receiver.unwrap_or_default());
        if self.state().compared.as_ref() == Some(&made_of) {
            return view::RecoveryDiff::Same;
        }
        match self.0.instance.recovery_diff(&wanted).await {
            Ok(RecoveryDiff::Same) => {
                let mut state = self.state();
                state.compared = Some(made_of);
                state.diff = RecoveryDiff::Same;
                view::RecoveryDiff::Same
            }
            Ok(RecoveryDiff::Reload) => view::RecoveryDiff::Reload,
            Ok(RecoveryDiff::Restart) => view::RecoveryDiff::Restart,
            Err(problem) => {
                debug!(error = %problem, "the recovery settings could not be compared");
                view::RecoveryDiff::Unknown
            }
        }
    }
}

/// Between two looks at who streams from a primary whose commits wait for them. A dead standby blocks commits for so long.
const STANDBYS_PAUSE: Duration = Duration::from_millis(200);

/// IN-P10.
fn replication(monitoring: &Monitoring) -> Replication {
    let walsender = |walsender: &pgward_postgres::Walsender| pick::Walsender {
        application_name: walsender.application_name.clone(),
        slot: walsender.slot.clone(),
        streaming: walsender.state == "streaming",
        rank: Rank::of(&walsender.sync_state),
        written: walsender.written,
        flushed: walsender.flushed,
        replayed: walsender.replayed,
    };
    Replication {
        loaded: monitoring.synchronous_standby_names.clone(),
        level: CommitLevel::of(&monitoring.synchronous_commit),
        walsenders: monitoring.walsenders.iter().map(walsender).collect(),
    }
}

fn server_facts(monitoring: &Monitoring, timeline: Option<Timeline>) -> ServerFacts {
    let wal = if monitoring.in_recovery {
        WalPosition::Replica {
            received: monitoring.received_or_written().or(monitoring.replayed).unwrap_or_default(),
            replayed: monitoring.replayed.unwrap_or_default(),
            replayed_timestamp: monitoring.replayed_timestamp.clone(),
            paused: monitoring.replay_paused == Some(true),
        }
    } else {
        WalPosition::Primary { location: monitoring.flushed.unwrap_or_default() }
    };
    ServerFacts {
        postmaster_start_time: monitoring.postmaster_start_time.clone(),
        server_version: monitoring.server_version,
        wal,
        timeline,
        replication_state: match monitoring.replication_state() {
            Some("streaming") => Some(ReplicationState::Streaming),
            Some(_) => Some(ReplicationState::InArchiveRecovery),
            None => None,
        },
        latest_end_lsn: monitoring.receiver.as_ref().and_then(|receiver| receiver.latest_end),
        replication: monitoring
            .walsenders
            .iter()
            .map(|walsender| Walsender {
                usename: walsender.usename.clone(),
                application_name: walsender.application_name.clone(),
                client_addr: walsender.client_addr.clone(),
                state: walsender.state.clone(),
                sync_state: walsender.sync_state.clone(),
                sync_priority: walsender.sync_priority.into(),
            })
            .collect(),
    }
}
