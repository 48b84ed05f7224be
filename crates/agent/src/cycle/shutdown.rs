//! The agent ends (section 26).

use std::future::Future;
use std::time::Duration;

use pgward_core::cluster::{MemberRole, PostgresState, Status};
use pgward_core::decide::DemoteMode;
use pgward_core::decide::view::{Lease, View};
use pgward_core::wal::Lsn;
use pgward_store::{Condition, Key, Store};
use tracing::{error, info, warn};

use super::Cycle;
use crate::lease::LeaseHandle;
use crate::server::{Server, ServerError, StopHow, Stopped};

/// How long a fast stop of a server without the lease may take: nobody waits for what it would still write.
const STOP_LIMIT: Duration = Duration::from_secs(60);

impl<S: Store, L: Server> Cycle<S, L> {
    /// SHD-1…6: stops PostgreSQL, proves it, then gives up the leader key. In pause it leaves both alone.
    pub(super) async fn step_down(&mut self) {
        let (lease, patience) = (self.lease.clone(), self.patience());
        permitted(&lease, patience, self.actions.cancel_and_wait()).await;
        if self.dynamic.pause {
            info!("ends in pause: PostgreSQL keeps running");
            self.fence.disarm().await; // SHD-1
            return;
        }
        let (view, _) = self.observe().await;
        self.local.set_state(PostgresState::Stopping);
        let stopped = match permitted(&lease, patience, self.stop_at_the_end(&view)).await {
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
            if let Some(position) = stopped.published {
                self.publish_end(position).await;
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

    /// SHD-3, SHD-4: in order as long as that is safe, without the checkpoint before that a switchover makes.
    async fn stop_at_the_end(&self, view: &View) -> Result<Stopped, ServerError> {
        match view.lease {
            Lease::Held { .. } => {
                let demotion = self.demotion(DemoteMode::Graceful, view);
                demotion.stop(StopHow::Fast, demotion.stop_timeout).await.0
            }
            Lease::NotOurs { .. } if view.postgres.is_primary() => {
                self.server.stop(&self.local, StopHow::Immediate, None, None).await
            }
            Lease::None | Lease::NotOurs { .. } => {
                self.server.stop(&self.local, StopHow::Fast, Some(STOP_LIMIT), None).await
            }
        }
    }

    /// SHD-5: how far the last primary was.
    async fn publish_end(&self, position: Lsn) {
        let known = self.store_view.borrow().latest().map(|cluster| cluster.status.clone());
        let value = Status { optime: Some(position), ..known.unwrap_or_default() }.to_value();
        let within = self.dynamic.timing.retry_timeout.min(Duration::from_secs(5));
        let written = match self.lease.leadership() {
            Ok(leader) => self.store.write_as_leader(leader, &Key::Status, &value, Condition::Always, within).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = written {
            warn!(error = %problem, "the position at the end could not be published");
        }
    }
}

/// How long the lease is renewed while the member steps down. The last checkpoint may take minutes; an archive that does not
/// answer, or an action that does not hear that it shall end, must not keep the key from the others for ever: without
/// the lease the stop becomes an immediate one, and the fencer sees to the rest.
const STEP_DOWN_LIMIT: Duration = Duration::from_secs(300);

/// Does `work` with the lease permitted to be renewed: a member that steps down is not hung, and a fencer that ends its
/// PostgreSQL in the middle of the last checkpoint would cost more than the time.
async fn permitted<T>(lease: &LeaseHandle, patience: Duration, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let end = lease.boot_now() + STEP_DOWN_LIMIT;
    loop {
        lease.permit_until(end.min(lease.boot_now() + patience));
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(patience / 4) => {}
        }
    }
}
