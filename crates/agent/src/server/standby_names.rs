//! `synchronous_standby_names`: what commits wait for, as decisions manage it.

use std::collections::BTreeMap;
use std::time::Duration;

use pgward_postgres::Postmaster;
use tracing::{debug, info};

use super::{LocalServer, ServerError};

const NAME: &str = "synchronous_standby_names";

/// How long a reload may take to show. Processes read the file within milliseconds.
const RELOAD_LIMIT: Duration = Duration::from_secs(2);

/// Between two looks whether it shows.
const RELOAD_PAUSE: Duration = Duration::from_millis(5);

/// What is written into the configuration of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StandbyNames {
    /// This agent has not decided yet. With synchronous replication what is in the file stays: its absence would let
    /// commits pass that somebody has to confirm.
    Unknown,
    /// What the user has configured.
    Own,
    /// What was decided.
    Managed(String),
}

/// The user's own.
pub(super) fn configured(parameters: &BTreeMap<String, String>) -> String {
    let own = parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(NAME));
    own.map(|(_, value)| value.clone()).unwrap_or_default()
}

impl LocalServer {
    /// Puts it among the parameters that are written.
    pub(super) async fn add_standby_names(&self, parameters: &mut BTreeMap<String, String>) {
        let (names, is_synchronous) = {
            let state = self.state();
            (state.standby_names.clone(), state.is_synchronous)
        };
        let names = match names {
            StandbyNames::Managed(names) => names,
            StandbyNames::Unknown if is_synchronous => match self.0.instance.configured_value(NAME).await {
                Ok(names) => names,
                Err(problem) => {
                    debug!(error = %problem, "{NAME} of a server without a configuration is empty");
                    String::new()
                }
            },
            StandbyNames::Own | StandbyNames::Unknown => return,
        };
        parameters.retain(|name, _| !name.eq_ignore_ascii_case(NAME));
        parameters.insert(NAME.to_owned(), names);
    }

    /// REC-11, DEM-9: a standby waits for nobody; what it waits for as a primary is decided before it becomes one.
    pub(super) fn forget_standby_names(&self) {
        let mut state = self.state();
        state.standby_names =
            if state.is_synchronous { StandbyNames::Managed(String::new()) } else { StandbyNames::Own };
    }

    /// Writes, reloads, and sees that the server has taken it over.
    pub(super) async fn change_standby_names(&self, names: Option<&str>) -> Result<(), ServerError> {
        let wanted = names.map_or_else(|| configured(&self.effective().parameters), str::to_owned);
        self.state().standby_names = names.map_or(StandbyNames::Own, |names| StandbyNames::Managed(names.to_owned()));
        let instance = &self.0.instance;
        let Ok(Some(_)) = instance.postmaster().map(|found| found.filter(|found: &Postmaster| !found.is_single_user()))
        else {
            return Ok(()); // It is written before the next start.
        };
        let in_recovery = instance.is_in_recovery().await?;
        let config = self.server_config(in_recovery.then_some(None)).await?;
        instance.write_configuration(&config).await?;
        instance.reload().await?;
        self.state().compared = None;
        let shows = async {
            loop {
                let rows = instance.query(&format!("SELECT current_setting('{NAME}')")).await?;
                if rows.first().and_then(|row| row.text(0)).unwrap_or_default() == wanted {
                    return Ok::<(), ServerError>(());
                }
                tokio::time::sleep(RELOAD_PAUSE).await;
            }
        };
        match tokio::time::timeout(RELOAD_LIMIT, shows).await {
            Ok(shown) => shown?,
            Err(_) => {
                return Err(ServerError::Unusable(format!(
                    "{NAME} was written to postgresql.conf and is not in force; if it was changed by ALTER SYSTEM, run \
                     ALTER SYSTEM RESET {NAME}"
                )));
            }
        }
        if !in_recovery {
            // PICK-8: a standby that has everything already says so only when more arrives, and commits that wait for it
            // would wait for that.
            instance.query("SELECT set_config('synchronous_commit', 'local', true), txid_current()").await?;
        }
        info!(names = %wanted, "changed what commits wait for");
        Ok(())
    }
}
