//! The agent ends (section 26).

use std::time::Duration;

use pgward_core::cluster::{MemberRole, PostgresState, Status};
use pgward_core::decide::view::Lease;
use pgward_store::{Condition, Key, Store};
use tracing::{error, info, warn};

use super::Cycle;
use crate::server::StopHow;

impl<S: Store> Cycle<S> {
    /// SHD-1…6: stops PostgreSQL, proves it, then gives up the leader key. In pause it leaves both alone.
    pub(super) async fn step_down(&mut self) {
        self.actions.cancel_and_wait().await;
        if self.dynamic.pause {
            info!("ends in pause: PostgreSQL keeps running");
            self.fence.disarm().await; // SHD-1
            return;
        }
        self.local.set_state(PostgresState::Stopping);
        let stopped = match self.server.stop(&self.local, StopHow::Fast, None).await {
            Ok(stopped) => stopped,
            Err(problem) => {
                // SHD-6: the key expires by time, and the fencer stays armed.
                error!(error = %problem, "PostgreSQL did not stop: the leader key is kept");
                self.local.set_state(PostgresState::StopFailed);
                return;
            }
        };
        info!("PostgreSQL has stopped");
        self.local.ended(PostgresState::Stopped);
        if matches!(self.lease.now().key, Lease::Held { .. }) {
            self.local.set_role(MemberRole::Demoted);
            let within = self.dynamic.timing.retry_timeout.min(Duration::from_secs(5));
            if let Some(position) = stopped.published {
                let known = self.store_view.borrow().latest().map(|cluster| cluster.status.clone());
                let status = Status { optime: Some(position), ..known.unwrap_or_default() };
                let value = status.to_value();
                let written = self.store.write(&Key::Status, &value, Condition::Always, None, within);
                if let Err(problem) = written.await {
                    warn!(error = %problem, "the position at the end could not be published");
                }
            }
            if let Err(problem) = self.lease.release().await {
                warn!(error = %problem, "the leader key could not be released: it expires by time");
            }
        }
        self.fence.disarm().await;
        self.decided_on = self.store_view.borrow().clone();
        self.last_seen = None;
        let (view, _) = self.observe().await;
        self.publish(&view).await;
    }
}
