//! Coming back after a change of leader: comparing histories, recovering, rewinding (sections 9 of the rules on
//! divergence, RWD).

use pgward_core::cluster::Member;
use pgward_core::decide::rewind::{DivergenceFacts, LocalPosition, LocalRole, switch_points};
use pgward_core::wal::{Lsn, Timeline};
use pgward_postgres::{RewindOptions, identify_system, is_checkpointed, is_in_recovery, timeline_history};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{LocalServer, ServerError, ServerRejoin};

impl LocalServer {
    async fn leader_history(&self, leader: &Member) -> Result<Option<(Timeline, Vec<(Timeline, Lsn)>)>, ServerError> {
        if self.is_recovering(leader).await? {
            return Ok(None);
        }
        let connection = self.replication_to(leader)?;
        let identity = identify_system(&connection).await?;
        let history = timeline_history(&connection, identity.timeline).await?;
        Ok(Some((identity.timeline, switch_points(&history.lines))))
    }

    /// Where the timelines before `timeline` ended. `None`: its history file is not there, or cannot be read.
    fn own_history(&self, timeline: Timeline) -> Option<Vec<(Timeline, Lsn)>> {
        if timeline == Timeline::FIRST {
            return Some(Vec::new()); // It has no file.
        }
        self.instance().local_history(timeline).map(|history| switch_points(&history.lines))
    }

    async fn is_recovering(&self, member: &Member) -> Result<bool, ServerError> {
        let settings = self.instance().settings();
        let connection = self.reach(member, settings.rewind.clone())?;
        Ok(is_in_recovery(&connection).await?)
    }

    async fn local_position(&self) -> Result<Option<LocalPosition>, ServerError> {
        let Some(position) = self.instance().local_position().await? else { return Ok(None) };
        let was = if position.in_recovery {
            LocalRole::Standby
        } else {
            let control = self.instance().control_data().await?;
            let checkpoint_end = match self.instance().shutdown_checkpoint_end(&control).await {
                Ok(end) => end,
                Err(problem) => {
                    // Without it a divergence is assumed: a needless rewind is harmless, a missed one is not.
                    warn!(error = %problem, "the end of the shutdown checkpoint cannot be read");
                    None
                }
            };
            LocalRole::FormerPrimary { checkpoint_end }
        };
        Ok(Some(LocalPosition { timeline: position.timeline, lsn: position.lsn, was }))
    }
}

impl ServerRejoin for LocalServer {
    async fn divergence_facts(&self, leader: &Member) -> DivergenceFacts {
        if self.instance().is_half_rewound() {
            return DivergenceFacts::HalfRewound;
        }
        let local = match self.local_position().await {
            Ok(Some(local)) => local,
            Ok(None) => return DivergenceFacts::LocalUnknown("the control data tell no position".to_owned()),
            Err(problem) => return DivergenceFacts::LocalUnknown(problem.to_string()),
        };
        let local_history = self.own_history(local.timeline);
        match self.leader_history(leader).await {
            Ok(Some((leader_timeline, leader_history))) => {
                info!(?local, ?local_history, %leader_timeline, ?leader_history, "compared histories");
                DivergenceFacts::Known { local, local_history, leader_timeline, leader_history }
            }
            Ok(None) => DivergenceFacts::LeaderNotReady(format!("{} is still in recovery", leader.name)),
            Err(problem) => DivergenceFacts::LeaderNotReady(problem.to_string()),
        }
    }

    async fn crash_recover(&self, cancel: &CancellationToken) -> Result<(), ServerError> {
        self.instance().check_owner()?;
        self.instance().kill_leftovers(std::time::Duration::from_secs(2)).await?;
        self.instance().single_user_recovery(cancel).await?;
        info!("recovered PostgreSQL in single-user mode");
        Ok(())
    }

    async fn rewind(&self, source: &Member, cancel: &CancellationToken) -> Result<(), ServerError> {
        let settings = self.instance().settings();
        let connection = self.reach(source, settings.rewind.clone())?;
        // Its record may be older than its promotion. Before the checkpoint its control file is on the timeline before, and
        // pg_rewind would find that nothing is to be done.
        let name = &source.name;
        // Who cannot be asked is no source yet, and nothing has been changed here.
        let lost = |problem| ServerError::NotReady(format!("{name} cannot be asked for its checkpoint: {problem}"));
        if !is_checkpointed(&connection).await.map_err(lost)? {
            return Err(ServerError::NotReady(format!("{name} is no primary that has made its checkpoint: no source")));
        }
        if let Err(problem) = self.instance().archive_ready_segments(cancel).await {
            warn!(error = %problem, "the WAL that waits for archiving was not saved before the rewind");
        }
        let effective = self.effective();
        let options = RewindOptions {
            restore_command: effective.recovery.get("restore_command").cloned(),
            options: effective.rewind.clone(),
        };
        self.instance().rewind(&connection, &options, cancel).await?;
        info!(source = %source.name, "rewound");
        Ok(())
    }

    async fn is_primary_reachable(&self, source: &Member) -> bool {
        self.is_recovering(source).await.is_ok_and(|recovering| !recovering)
    }

    async fn allows_rewind(&self) -> bool {
        self.instance().control_data().await.is_ok_and(|control| control.allows_rewind())
    }
}
