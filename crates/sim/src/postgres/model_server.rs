//! The local server as one agent sees it, from the agent's start to its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgward_agent::server::{Policy, ServerError, ServerSettings};
use pgward_core::cluster::Member;
use pgward_core::config::{DynamicConfig, EffectivePostgresql, LocalConfig};
use pgward_core::decide::slots::standby::SlotParameters;
use pgward_core::wal::Timeline;
use serde_json::{Map, Value};

use super::{ModelPostmaster, Postgres, Upstream};

/// The server of one agent. Clones are the same one.
#[derive(Clone)]
pub struct ModelServer(Arc<Inner>);

struct Inner {
    postgres: Postgres,
    config: Arc<LocalConfig>,
    conn_url: String,
    api_url: String,
    proxy_url: Option<String>,
    state: Mutex<Known>,
}

/// What the agent's side remembers between two calls.
pub(super) struct Known {
    pub effective: Arc<EffectivePostgresql>,
    /// The timeline that the server replayed when it was asked, and the leader's then.
    pub timeline: Option<(Option<Timeline>, Timeline)>,
    /// Synchronous replication is requested.
    pub is_synchronous: bool,
    /// Members that the slots were made for last.
    pub slots_for: Vec<String>,
}

impl ModelServer {
    /// The server that `config` describes, on the machine of `postgres`, which has power.
    pub fn new(postgres: &Postgres, config: Arc<LocalConfig>, dynamic: &DynamicConfig) -> ModelServer {
        let effective = Arc::new(EffectivePostgresql::merge(&config, dynamic));
        let url = |address: &dyn std::fmt::Display| format!("postgres://{address}/{}", effective.database);
        let conn_url = url(&config.postgresql.published_address());
        let proxy_url = config.postgresql.proxy_address.as_ref().map(|address| url(address));
        let api_url = config.restapi.api_url();
        postgres.power_on();
        let state = Mutex::new(Known {
            effective,
            timeline: None,
            is_synchronous: dynamic.is_synchronous(),
            slots_for: Vec::new(),
        });
        ModelServer(Arc::new(Inner { postgres: postgres.clone(), config, conn_url, api_url, proxy_url, state }))
    }

    pub(super) fn postgres(&self) -> &Postgres {
        &self.0.postgres
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn effective(&self) -> Arc<EffectivePostgresql> {
        Arc::clone(&self.known().effective)
    }

    /// What the configuration of a standby says of its upstream. Without a usable address it streams from nobody.
    pub(super) fn upstream(&self, member: Option<&Member>) -> Option<Upstream> {
        let member = member.filter(|member| member.address().is_some())?;
        let slot = self.effective().use_slots.then(|| self.0.config.name.slot_name());
        Some(Upstream { member: member.name.clone(), slot })
    }

    /// True when WAL is archived.
    pub(super) fn archives(&self) -> bool {
        self.effective().parameters.get("archive_mode").is_some_and(|mode| mode != "off")
    }
}

/// An error of the model in the words of the real server.
pub(super) fn unusable(problem: impl Into<String>) -> ServerError {
    ServerError::Unusable(problem.into())
}

impl ServerSettings for ModelServer {
    type Postmaster = ModelPostmaster;

    fn set_dynamic(&self, dynamic: &DynamicConfig) -> bool {
        let effective = Arc::new(EffectivePostgresql::merge(&self.0.config, dynamic));
        let mut known = self.known();
        let has_changed = *known.effective != *effective;
        known.effective = effective;
        known.is_synchronous = dynamic.is_synchronous();
        has_changed
    }

    fn keep_dynamic(&self, document: &Map<String, Value>) {
        if let Some(data) = &mut self.postgres().state().data {
            data.kept_dynamic = Some(document.clone());
        }
    }

    fn set_slot_parameters(&self, _: SlotParameters) -> bool {
        false // There are no logical slots here.
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
        String::new()
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
        Map::new()
    }
}
