//! The local server as the agent uses it: `pgward_postgres` with this member's configuration applied.

mod api;
mod look;
mod operate;
mod rejoin;
mod settings;
mod slots;
mod standby_names;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgward_core::cluster::Member;
use pgward_core::config::{DynamicConfig, EffectivePostgresql, LocalConfig, StandbyCluster};
use pgward_core::decide::slots::standby::{Readiness, SlotParameters};
use pgward_core::wal::{Lsn, Timeline};
use pgward_postgres::{ConnInfo, Instance, RecoveryDiff, RecoverySettings};
use serde_json::{Map, Value};
use tracing::warn;

use crate::cache;

pub use api::{
    LastRecord, Policy, Postmaster, Server, ServerControl, ServerError, ServerRejoin, ServerSettings, ServerSight,
    SlotCopy, StopHow, Stopped,
};
pub use look::{Details, Look, Seen};
use standby_names::StandbyNames;

/// The local server. Cloning gives another handle to the same one.
#[derive(Clone)]
pub(crate) struct LocalServer(Arc<Inner>);

struct Inner {
    instance: Instance,
    /// For REST alone: the cycle must not queue behind the questions of others, or a slow server and a few of them would
    /// cost the lease.
    for_rest: Instance,
    /// For looking at standbys between two cycles.
    for_standbys: Instance,
    config: Arc<LocalConfig>,
    launcher: PathBuf,
    conn_url: String,
    api_url: String,
    proxy_url: Option<String>,
    state: Mutex<State>,
}

struct State {
    effective: Arc<EffectivePostgresql>,
    pending_restart: Map<String, Value>,
    /// The timeline that the server replayed when it was asked on a replication connection, and the leader's then.
    timeline: Option<(Option<Timeline>, Timeline)>,
    /// The comparison of recovery settings that found no difference, and what it was made of.
    compared: Option<(RecoverySettings, i32, String)>,
    diff: RecoveryDiff,
    /// Members that the slots were made for last.
    slots_for: Vec<String>,
    /// The cluster that this one follows.
    standby_cluster: Option<StandbyCluster>,
    /// Parameters that slots ask for.
    slot_parameters: SlotParameters,
    /// Which copied slots could be used after a failover.
    slot_readiness: Readiness,
    /// What takes long and is done with slots beside the cycle.
    slot_work: Option<tokio::task::JoinHandle<()>>,
    /// What commits wait for.
    standby_names: StandbyNames,
    /// Synchronous replication is requested.
    is_synchronous: bool,
    /// What kept the server from answering when it was last asked.
    problem: Option<String>,
}

impl LocalServer {
    /// The server that `config` describes. `launcher` is this program. Touches nothing.
    pub(crate) fn new(config: Arc<LocalConfig>, dynamic: &DynamicConfig, launcher: PathBuf) -> LocalServer {
        let effective = Arc::new(EffectivePostgresql::merge(&config, dynamic));
        let url = |address: &dyn std::fmt::Display| format!("postgres://{address}/{}", effective.database);
        let conn_url = url(&config.postgresql.published_address());
        let proxy_url = config.postgresql.proxy_address.as_ref().map(|address| url(address));
        let api_url = config.restapi.api_url();
        let settings = settings::settings(&config, &effective, &launcher);
        let for_rest = Instance::named(settings.clone(), "pgward restapi");
        let for_standbys = Instance::named(settings.clone(), "pgward standbys");
        let instance = Instance::new(settings);
        let state = State {
            effective,
            pending_restart: Map::new(),
            timeline: None,
            compared: None,
            diff: RecoveryDiff::Same,
            slots_for: Vec::new(),
            standby_cluster: dynamic.standby_cluster.clone(),
            slot_parameters: SlotParameters::default(),
            slot_readiness: Readiness::default(),
            slot_work: None,
            problem: None,
            standby_names: StandbyNames::Unknown,
            is_synchronous: dynamic.is_synchronous(),
        };
        LocalServer(Arc::new(Inner {
            instance,
            for_rest,
            for_standbys,
            config,
            launcher,
            conn_url,
            api_url,
            proxy_url,
            state: Mutex::new(state),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle to the server's operations.
    pub(crate) fn instance(&self) -> &Instance {
        &self.0.instance
    }

    fn effective(&self) -> Arc<EffectivePostgresql> {
        Arc::clone(&self.state().effective)
    }

    /// How to reach a member's server as the replication user.
    fn replication_to(&self, member: &Member) -> Result<ConnInfo, ServerError> {
        let settings = self.0.instance.settings();
        self.reach(member, settings.replication.clone())
    }

    fn reach(&self, member: &Member, credentials: pgward_postgres::Credentials) -> Result<ConnInfo, ServerError> {
        let address = member
            .address()
            .ok_or_else(|| ServerError::Unusable(format!("member {} has published no usable conn_url", member.name)))?;
        let settings = self.0.instance.settings();
        // STB-2: whichever of them is the primary.
        let several = member.name.is_remote() && address.host.contains(',');
        Ok(ConnInfo {
            host: Some(address.host),
            port: address.port,
            database: Some(address.database.unwrap_or_else(|| settings.database.clone())),
            credentials,
            target_session_attrs: several.then(|| "read-write".to_owned()),
        })
    }

    /// The recovery settings for an upstream; without one the server streams from nobody.
    fn recovery(&self, upstream: Option<&Member>) -> RecoverySettings {
        let effective = self.effective();
        let primary = upstream.and_then(|member| self.replication_to(member).ok());
        let standby_cluster = self.state().standby_cluster.clone();
        let is_remote = upstream.is_some_and(|member| member.name.is_remote());
        let own_slot = || effective.use_slots.then(|| self.0.config.name.slot_name());
        let slot = match (&primary, is_remote) {
            (None, _) => None,
            (Some(_), true) => standby_cluster.as_ref().and_then(|standby| standby.primary_slot_name.clone()), // STB-2
            (Some(_), false) => own_slot(),
        };
        let mut extra = effective.recovery.clone();
        if let Some(standby) = standby_cluster {
            let delay = standby.recovery_min_apply_delay.filter(|_| is_remote);
            // NTF-6: whoever it streams from, the archive is the other cluster's.
            for (name, value) in [
                ("restore_command", standby.restore_command),
                ("archive_cleanup_command", standby.archive_cleanup_command),
                ("recovery_min_apply_delay", delay),
            ] {
                extra.extend(value.map(|value| (name.to_owned(), value)));
            }
        }
        RecoverySettings { primary, slot, extra }
    }
}

impl ServerSettings for LocalServer {
    type Postmaster = pgward_postgres::Postmaster;

    fn set_dynamic(&self, dynamic: &DynamicConfig) -> bool {
        let effective = Arc::new(EffectivePostgresql::merge(&self.0.config, dynamic));
        let changed = {
            let mut state = self.state();
            let changed = *state.effective != *effective || state.standby_cluster != dynamic.standby_cluster;
            state.effective = Arc::clone(&effective);
            state.is_synchronous = dynamic.is_synchronous();
            state.standby_cluster.clone_from(&dynamic.standby_cluster);
            changed
        };
        if changed {
            for warning in &effective.warnings {
                warn!("configuration of PostgreSQL: {warning}");
            }
            let settings = settings::settings(&self.0.config, &effective, &self.0.launcher);
            self.0.for_rest.replace_settings(settings.clone());
            self.0.for_standbys.replace_settings(settings.clone());
            self.0.instance.replace_settings(settings);
        }
        changed
    }

    fn set_slot_parameters(&self, parameters: SlotParameters) -> bool {
        let mut state = self.state();
        let changed = state.slot_parameters != parameters;
        state.slot_parameters = parameters;
        changed
    }

    fn policy(&self) -> Policy {
        let effective = self.effective();
        Policy {
            use_pg_rewind: effective.use_pg_rewind,
            wipe_on_rewind_failure: effective.remove_data_directory_on_rewind_failure,
            wipe_on_divergence: effective.remove_data_directory_on_diverged_timelines,
            use_slots: effective.use_slots,
        }
    }

    fn own_standby_names(&self) -> String {
        standby_names::configured(&self.effective().parameters)
    }

    fn conn_url(&self) -> &str {
        &self.0.conn_url
    }

    fn api_url(&self) -> &str {
        &self.0.api_url
    }

    fn proxy_url(&self) -> Option<&str> {
        self.0.proxy_url.as_deref()
    }

    fn pending_restart(&self) -> Map<String, Value> {
        self.state().pending_restart.clone()
    }

    fn keep_dynamic(&self, document: &Map<String, Value>) {
        cache::write(&self.0.config.postgresql.data_dir, document);
    }
}

impl Postmaster for pgward_postgres::Postmaster {
    fn pid(&self) -> i32 {
        self.pid()
    }

    fn start_ticks(&self) -> u64 {
        self.start_ticks()
    }

    fn is_alive(&self) -> bool {
        self.is_alive()
    }

    async fn exited(&self) {
        self.exited().await;
    }
}

/// Slots by name, with the positions that are published for them.
pub type SlotPositions = std::collections::BTreeMap<String, Lsn>;
