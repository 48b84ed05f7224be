//! Coming back after a change of leader, as the agent asks for it.

use std::time::Duration;

use pgward_agent::server::{ServerError, ServerRejoin};
use pgward_core::cluster::Member;
use pgward_core::decide::rewind::{ControlState, DivergenceFacts, LocalPosition, LocalRole};
use pgward_core::wal::{Lsn, Timeline};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Postgres;
use super::model_server::{ModelServer, unusable};
use super::state::{REWIND, SINGLE_USER, State};
use super::wal::{Payload, TimelineHistory};

/// How long a connection, or a statement, is waited for.
pub(super) const SERVER_TIMEOUT: Duration = Duration::from_secs(3);

/// A leader's timeline, and where the earlier ones ended. `None`: it is in recovery.
type LeaderHistory = Option<(Timeline, Vec<(Timeline, Lsn)>)>;

impl State {
    /// Where this server's own history ends (RWD-4).
    fn local_position(&self) -> Option<LocalPosition> {
        let data = self.readable_data()?;
        if let Some(process) = self.process.as_ref().filter(|process| process.lets_in() && !process.is_frozen) {
            let timeline = data.wal.ending_at(process.replayed).map_or(data.timeline(), |record| record.timeline);
            return Some(LocalPosition { timeline, lsn: process.replayed, was: LocalRole::Standby });
        }
        let former_primary = || {
            let checkpoint = data.wal.starting_at(data.control.checkpoint);
            let end =
                checkpoint.filter(|record| record.payload == Payload::ShutdownCheckpoint).map(|record| record.end);
            let was = LocalRole::FormerPrimary { checkpoint_end: end };
            LocalPosition { timeline: data.control.checkpoint_timeline, lsn: data.control.checkpoint, was }
        };
        match data.control.state {
            ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery => {
                Some(match data.control.minimum_recovery {
                    Some((lsn, timeline)) => LocalPosition { timeline, lsn, was: LocalRole::Standby },
                    None => former_primary(),
                })
            }
            ControlState::ShutDown => Some(former_primary()),
            ControlState::ShuttingDown
            | ControlState::InCrashRecovery
            | ControlState::InProduction
            | ControlState::Other => None,
        }
    }

    /// Where the timelines before `timeline` ended. `None`: there is no history file.
    fn own_history(&self, timeline: Timeline) -> Option<TimelineHistory> {
        if timeline == Timeline::FIRST {
            return Some(Vec::new());
        }
        self.readable_data()?.histories.get(&timeline).cloned()
    }

    fn leader_history(&self) -> Option<LeaderHistory> {
        let process = self.process.as_ref()?;
        let data = self.data.as_ref()?;
        Some((!process.is_in_recovery).then(|| (data.timeline(), data.history().to_vec())))
    }
}

impl Postgres {
    /// Whether a new connection from another machine gets a session, and how long it takes to know.
    async fn open_session(&self, other: &Postgres) -> Result<(), String> {
        sleep(self.delay_to(other) * 2).await;
        let target = other.name();
        let (is_silent, lets_in) = {
            let state = other.state();
            let process = state.process.as_ref();
            let is_frozen = process.is_some_and(|process| process.is_frozen || process.is_killed);
            (state.is_off || is_frozen, process.is_some_and(|process| process.lets_in()))
        };
        if is_silent || !self.connects_to(other) {
            sleep(SERVER_TIMEOUT).await;
            return Err(format!("PostgreSQL at {target} did not answer within {SERVER_TIMEOUT:?}"));
        }
        if lets_in { Ok(()) } else { Err(format!("cannot reach PostgreSQL at {target}: Connection refused")) }
    }
}

impl ModelServer {
    /// The server of a member, when a session can be opened there.
    pub(super) async fn reach(&self, member: &Member) -> Result<Postgres, String> {
        if member.address().is_none() {
            return Err(format!("member {} has published no usable conn_url", member.name));
        }
        let server = self.postgres().0.fleet.find(&member.name);
        let server = server.ok_or_else(|| format!("cannot find the host of {}", member.name))?;
        self.postgres().open_session(&server).await?;
        Ok(server)
    }
}

impl ServerRejoin for ModelServer {
    async fn divergence_facts(&self, leader: &Member) -> DivergenceFacts {
        let is_half_rewound = self.postgres().state().visible_data().is_some_and(|data| data.is_half_rewound);
        if is_half_rewound {
            return DivergenceFacts::HalfRewound;
        }
        sleep(self.postgres().between(3, 20)).await;
        let local = self.postgres().state().local_position();
        let Some(local) = local else {
            return DivergenceFacts::LocalUnknown("the control data tell no position".to_owned());
        };
        let local_history = self.postgres().state().own_history(local.timeline);
        let server = match self.reach(leader).await {
            Ok(server) => server,
            Err(problem) => return DivergenceFacts::LeaderNotReady(problem),
        };
        let answer = server.state().leader_history();
        match answer {
            Some(Some((leader_timeline, leader_history))) => {
                DivergenceFacts::Known { local, local_history, leader_timeline, leader_history }
            }
            Some(None) => DivergenceFacts::LeaderNotReady(format!("{} is still in recovery", leader.name)),
            None => DivergenceFacts::LeaderNotReady("server closed the connection unexpectedly".to_owned()),
        }
    }

    async fn crash_recover(&self, cancel: &CancellationToken) -> Result<(), ServerError> {
        pgward_agent::server::ServerControl::end_leftovers(self).await?;
        let postgres = self.postgres();
        let refused = {
            let state = postgres.state();
            let is_copy = state.visible_data().is_some_and(|data| data.has_backup_label);
            if state.postmaster().is_some() || state.recovers_alone() {
                Some("a server runs on the data directory".to_owned())
            } else if is_copy {
                Some("the data directory is a backup that was not started yet".to_owned())
            } else {
                state.require_undisturbed().err()
            }
        };
        if let Some(problem) = refused {
            return Err(unusable(problem));
        }
        let work = postgres.clone().run_single_user();
        postgres.run_tool(SINGLE_USER, true, cancel, work).await.map_err(unusable)
    }

    async fn rewind(&self, source: &Member, cancel: &CancellationToken) -> Result<(), ServerError> {
        let server = self.reach(source).await.map_err(ServerError::NotReady)?;
        if server.truth().is_in_recovery {
            return Err(ServerError::NotReady(format!("{} is still in recovery: it is no source", source.name)));
        }
        let postgres = self.postgres();
        let was_half_rewound = postgres.change(|state| {
            if state.postmaster().is_some() || state.recovers_alone() {
                return Err(unusable("a server runs on the data directory: stop it before a rewind"));
            }
            state.kill_tools(false);
            let data = state.data.as_mut().ok_or_else(|| unusable("there is nothing to rewind"))?;
            Ok(std::mem::replace(&mut data.is_half_rewound, true))
        })?;
        let work = postgres.clone().run_rewind(server);
        let result = postgres.run_tool(REWIND, false, cancel, work).await;
        postgres.change(|state| {
            if let Some(data) = &mut state.data {
                let has_changed_nothing = !was_half_rewound && !cancel.is_cancelled() && data.damage.is_none();
                data.is_half_rewound = result.is_err() && !has_changed_nothing;
            }
        });
        result.map_err(unusable)
    }

    async fn is_primary_reachable(&self, source: &Member) -> bool {
        let server = self.reach(source).await;
        server.is_ok_and(|server| !server.truth().is_in_recovery)
    }

    async fn allows_rewind(&self) -> bool {
        sleep(Duration::from_millis(3)).await;
        self.postgres().state().readable_data().is_some_and(|data| data.allows_rewind)
    }
}
