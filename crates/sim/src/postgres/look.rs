//! Looking at the server, as the agent does: by files, by its processes, by SQL.

use std::time::Duration;

use pgward_agent::local::Local;
use pgward_agent::rest::view::{ReplicationState, ServerFacts, WalPosition, Walsender};
use pgward_agent::server::{Details, Look, Postmaster, Seen, ServerError, ServerSight};
use pgward_core::cluster::{Cluster, History, HistoryLine, Member, MemberRole, PostgresState};
use pgward_core::decide::view::{ActionKind, Control, DataDir, Facts, RecoveryDiff};
use pgward_core::names::MemberName;
use pgward_core::sync::pick::{self, Rank, Replication};
use pgward_core::sync::{Method, StandbyNames};
use pgward_core::wal::{Lsn, Timeline};
use tokio::time::sleep;

use super::model_server::{ModelServer, unusable};
use super::rejoin::SERVER_TIMEOUT;
use super::state::State;
use super::{ModelPostmaster, Postgres, Upstream};

/// The modelled version, as the server prints it.
const SERVER_VERSION: u32 = 150_004;

/// From this version on a reload takes another upstream over.
const RELOADS_UPSTREAM_SINCE: u32 = 130_000;

/// Why the monitoring got no answer.
enum Unanswered {
    /// There was no connection: with what a new one is told.
    NotConnected(Ready),
    /// The server let the agent in, and did not answer in time.
    Late,
    /// The server answered that it cannot tell.
    Failed,
}

/// What a new connection is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    Rejecting,
    NoResponse,
}

/// What the server says of itself in one answer.
struct Monitoring {
    is_in_recovery: bool,
    flushed: Lsn,
    replayed: Lsn,
    received: Option<Lsn>,
    is_replay_paused: bool,
    control_timeline: Timeline,
    own_timeline: Timeline,
    replayed_timeline: Timeline,
    receiver: Option<super::process::Receiver>,
    upstream: Option<Upstream>,
    started_at: tokio::time::Instant,
    walsenders: Vec<(MemberName, Lsn)>,
    standby_names: StandbyNames,
    slots: Vec<(String, Lsn)>,
    history: Vec<(Timeline, Lsn)>,
}

impl Monitoring {
    /// The larger of received and replayed of a standby, the flush position of a primary (IN-P5).
    fn position(&self) -> Lsn {
        if self.is_in_recovery { self.received.unwrap_or_default().max(self.replayed) } else { self.flushed }
    }
}

impl Monitoring {
    /// IN-P10.
    fn replication(&self) -> Replication {
        let setting = &self.standby_names;
        let rank = |name: &MemberName| match (setting.names.contains(name.as_str()), setting.method) {
            (false, _) => Rank::Async,
            (true, Method::Quorum) => Rank::Quorum,
            (true, Method::Priority) => Rank::Sync,
        };
        let walsender = |(name, flushed): &(MemberName, Lsn)| pick::Walsender {
            application_name: name.to_string(),
            slot: None,
            streaming: true,
            rank: rank(name),
            written: Some(*flushed),
            flushed: Some(*flushed),
            replayed: Some(*flushed),
        };
        Replication {
            loaded: setting.to_string(),
            walsenders: self.walsenders.iter().map(walsender).collect(),
            ..Replication::default()
        }
    }
}

impl State {
    fn monitoring(&self) -> Option<Monitoring> {
        let process = self.process.as_ref()?;
        let data = self.visible_data()?;
        let replayed_timeline = data.wal.ending_at(process.replayed).map_or(data.timeline(), |record| record.timeline);
        Some(Monitoring {
            is_in_recovery: process.is_in_recovery,
            flushed: data.wal.flushed(),
            replayed: process.replayed,
            received: process.received.map(|flushed| match process.receiver {
                Some(_) => flushed.max(data.wal.written()),
                None => flushed,
            }),
            is_replay_paused: process.is_in_recovery && self.faults.is_replay_paused,
            control_timeline: data.control.checkpoint_timeline,
            own_timeline: data.timeline(),
            replayed_timeline,
            receiver: process.receiver,
            upstream: process.upstream.clone(),
            started_at: process.started_at,
            walsenders: process.walsenders.values().map(|it| (it.member.clone(), it.flushed)).collect(),
            standby_names: self.standby_names.clone().unwrap_or_else(StandbyNames::nobody),
            slots: data.slots.iter().filter_map(|(name, slot)| Some((name.clone(), slot.restart?))).collect(),
            history: data.history().to_vec(),
        })
    }

    /// What a client of this machine gets, if it does not have to wait.
    fn answer(&self) -> Result<Monitoring, Unanswered> {
        let process = self.process.as_ref().filter(|process| process.has_postmaster);
        let process = process.ok_or(Unanswered::NotConnected(Ready::NoResponse))?;
        if process.is_frozen || process.is_killed {
            return Err(Unanswered::Late);
        }
        if !process.lets_in() {
            return Err(Unanswered::NotConnected(Ready::Rejecting));
        }
        self.monitoring().ok_or(Unanswered::Failed)
    }
}

impl Postgres {
    /// Waits as long as a statement may take, or until the server is gone.
    async fn statement_time(&self) {
        let pid = self.state().process.as_ref().map(|process| process.pid);
        let gone = async {
            match pid {
                Some(pid) => while self.until(pid, |_| false).await.is_some() {},
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = gone => {}
            () = sleep(SERVER_TIMEOUT) => {}
        }
    }

    async fn monitor(&self) -> Result<Monitoring, Unanswered> {
        sleep(Duration::from_millis(1)).await;
        let answer = {
            let state = self.state();
            match state.answer() {
                Ok(_) if state.faults.is_monitoring_silent => Err(Unanswered::Late),
                answer => answer,
            }
        };
        if matches!(answer, Err(Unanswered::Late)) {
            self.statement_time().await;
        }
        answer
    }

    /// `pg_is_in_recovery()` of the local server; `None` when it does not answer.
    pub(super) async fn is_in_recovery(&self) -> Option<bool> {
        self.monitor().await.ok().map(|monitoring| monitoring.is_in_recovery)
    }

    /// The timeline that a standby has replayed.
    async fn replayed_timeline(&self) -> Option<Timeline> {
        sleep(Duration::from_millis(1)).await;
        self.state().answer().ok().map(|monitoring| monitoring.replayed_timeline)
    }
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

impl ServerSight for ModelServer {
    fn role_at_start(&self) -> MemberRole {
        let state = self.postgres().state();
        match state.readable_data() {
            None => MemberRole::Uninitialized,
            Some(data) if data.has_standby_signal => MemberRole::Replica,
            Some(_) if state.postmaster().is_some() => MemberRole::Primary,
            Some(_) => MemberRole::Demoted,
        }
    }

    async fn look(&self, local: &Local<ModelPostmaster>, look: &Look) -> Seen<ModelPostmaster> {
        let known = local.get();
        let postgres = self.postgres();
        let mut seen = Seen {
            data_dir: self.data_dir(),
            alive: false,
            postmaster: None,
            accepting: false,
            facts: None,
            control: None,
            recovery: RecoveryDiff::Unknown,
            details: Details::default(),
        };
        let by_pid_file = postgres.state().postmaster();
        // A server whose pid file has vanished with its directory is still a server.
        seen.postmaster = by_pid_file.or_else(|| known.postmaster.filter(Postmaster::is_alive));
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
        match postgres.monitor().await {
            Ok(monitoring) => {
                seen.accepting = true;
                self.read(&mut seen, &monitoring, look).await;
            }
            Err(Unanswered::NotConnected(Ready::Rejecting)) => seen.accepting = false,
            Err(Unanswered::NotConnected(Ready::NoResponse)) => seen.accepting = known.state == PostgresState::Running,
            Err(Unanswered::Late | Unanswered::Failed) => seen.accepting = true,
        }
        seen
    }

    async fn standbys_change(&self, before: &Replication) {
        loop {
            sleep(Duration::from_millis(200)).await;
            let seen = self.postgres().state().answer().ok().map(|monitoring| monitoring.replication());
            if seen.is_some_and(|seen| seen.differs_in_kind(before)) {
                return;
            }
        }
    }

    async fn fresh_facts(&self, leader_timeline: Option<Timeline>) -> Option<ServerFacts> {
        let monitoring = self.postgres().monitor().await.ok()?;
        let timeline = self.timeline(&monitoring, leader_timeline).await;
        Some(self.server_facts(&monitoring, timeline))
    }

    async fn becomes_ready(&self, starting: Option<ModelPostmaster>) {
        match starting {
            Some(postmaster) => drop(self.postgres().wait_accepting(&postmaster).await),
            None => std::future::pending().await,
        }
    }

    async fn may_be_writable(&self, local: &Local<ModelPostmaster>) -> bool {
        let known = local.get();
        let found = self.postgres().state().postmaster();
        match found {
            None => known.postmaster.is_some_and(|postmaster| postmaster.is_alive()),
            // It will be at any moment.
            Some(_) if known.role == MemberRole::Promoted => true,
            Some(_) => {
                let was_primary = known.role == MemberRole::Primary;
                !self.postgres().is_in_recovery().await.unwrap_or(!was_primary)
            }
        }
    }

    fn output_tail(&self) -> String {
        self.postgres().state().output.clone()
    }

    async fn system_id(&self) -> Result<String, ServerError> {
        sleep(Duration::from_millis(3)).await;
        let system_id = self.postgres().state().readable_data().map(|data| data.system_id.to_string());
        system_id.ok_or_else(|| unusable("the control data cannot be read"))
    }

    fn slots_are_for_others(&self, cluster: &Cluster) -> bool {
        let members = cluster.members.keys().map(ToString::to_string);
        !members.eq(self.known().slots_for.iter().cloned())
    }
}

impl ModelServer {
    pub(super) fn data_dir(&self) -> DataDir {
        let state = self.postgres().state();
        if state.faults.is_data_dir_inaccessible {
            return DataDir::Inaccessible { problem: "Transport endpoint is not connected".to_owned() };
        }
        match &state.data {
            None => DataDir::Empty,
            Some(_) => DataDir::Present { system_id: state.readable_data().map(|data| data.system_id.to_string()) },
        }
    }

    async fn control(&self) -> Option<Control> {
        sleep(Duration::from_millis(3)).await;
        let state = self.postgres().state();
        let data = state.readable_data()?;
        Some(Control {
            state: data.control.state,
            rewind_possible: data.allows_rewind,
            has_signal_file: data.has_standby_signal,
            has_backup_label: data.has_backup_label,
            checkpoint: Some(data.control.checkpoint),
        })
    }

    async fn read(&self, seen: &mut Seen<ModelPostmaster>, monitoring: &Monitoring, look: &Look) {
        let timeline = self.timeline(monitoring, look.leader_timeline).await;
        let is_new_timeline = timeline.is_some_and(|timeline| timeline > Timeline::FIRST);
        seen.facts = Some(Facts {
            in_recovery: monitoring.is_in_recovery,
            position: monitoring.position(),
            replayed: if monitoring.is_in_recovery { monitoring.replayed } else { Lsn::INVALID },
            timeline,
            streaming: monitoring.receiver.is_some(),
            replay_paused: monitoring.is_replay_paused,
            history: (is_new_timeline && !monitoring.is_in_recovery).then(|| self.history(monitoring)),
            replication: monitoring.replication(),
            checkpointed: Some(monitoring.control_timeline) == timeline,
        });
        if monitoring.is_in_recovery
            && let Some(upstream) = &look.upstream
        {
            seen.recovery = self.compare_recovery(upstream.as_ref(), monitoring);
        }
        seen.details = Details {
            received: monitoring.received,
            replication_state: replication_state(monitoring).map(|state| state.as_str().to_owned()),
            slots: monitoring.slots.iter().cloned().collect(),
            present_slots: Vec::new(),
            server: Some(self.server_facts(monitoring, timeline)),
        };
    }

    /// IN-P6: of a primary its own; of a standby the receiver's, else what the server says on a replication connection,
    /// asked again when the leader's timeline changes.
    async fn timeline(&self, monitoring: &Monitoring, leader: Option<Timeline>) -> Option<Timeline> {
        if !monitoring.is_in_recovery {
            return Some(monitoring.own_timeline);
        }
        if let Some(receiver) = &monitoring.receiver {
            return Some(receiver.timeline);
        }
        if let Some((asked_under, timeline)) = self.known().timeline
            && asked_under == leader
        {
            return Some(timeline);
        }
        let timeline = self.postgres().replayed_timeline().await?;
        self.known().timeline = Some((leader, timeline));
        Some(timeline)
    }

    fn history(&self, monitoring: &Monitoring) -> History {
        let line = |(timeline, lsn): &(Timeline, Lsn)| HistoryLine {
            timeline: *timeline,
            lsn: *lsn,
            reason: "no recovery target specified".to_owned(),
            timestamp: None,
            new_leader: None,
        };
        History { lines: monitoring.history.iter().map(line).collect() }
    }

    /// FOL-10.
    fn compare_recovery(&self, wanted: Option<&Member>, monitoring: &Monitoring) -> RecoveryDiff {
        let has_signal = self.postgres().state().data.as_ref().is_some_and(|data| data.has_standby_signal);
        let (wanted, running) = (self.upstream(wanted), &monitoring.upstream);
        if !has_signal {
            RecoveryDiff::Restart
        } else if wanted == *running {
            RecoveryDiff::Same
        } else if SERVER_VERSION >= RELOADS_UPSTREAM_SINCE {
            RecoveryDiff::Reload
        } else {
            RecoveryDiff::Restart
        }
    }

    fn server_facts(&self, monitoring: &Monitoring, timeline: Option<Timeline>) -> ServerFacts {
        let wal = if monitoring.is_in_recovery {
            WalPosition::Replica {
                received: monitoring.received.unwrap_or(monitoring.replayed),
                replayed: monitoring.replayed,
                replayed_timestamp: None,
                paused: monitoring.is_replay_paused,
            }
        } else {
            WalPosition::Primary { location: monitoring.flushed }
        };
        let walsender = |(member, _): &(MemberName, Lsn)| Walsender {
            usename: "replicator".to_owned(),
            application_name: member.to_string(),
            client_addr: None,
            state: "streaming".to_owned(),
            sync_state: "async".to_owned(),
            sync_priority: 0,
        };
        ServerFacts {
            postmaster_start_time: self.postgres().0.fleet.timestamp(monitoring.started_at),
            server_version: SERVER_VERSION,
            wal,
            timeline,
            replication_state: replication_state(monitoring),
            latest_end_lsn: monitoring.receiver.map(|receiver| receiver.latest_end),
            replication: monitoring.walsenders.iter().map(walsender).collect(),
        }
    }
}

/// Nothing is archived that could be restored: a standby streams, or it gets nothing.
fn replication_state(monitoring: &Monitoring) -> Option<ReplicationState> {
    (monitoring.is_in_recovery && monitoring.receiver.is_some()).then_some(ReplicationState::Streaming)
}
