//! A primary that nobody can prove to lead: PostgreSQL was left running, and the agent that comes back finds no store.
//!
//! Until the store has answered once there is no cycle, and so nobody who would stop such a primary (DCSF-5): it would go
//! on while the others, for whom its lease has run out, elect another.

use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::fence::Fence;
use crate::local::Local;
use crate::server::{Server, StopHow};

/// How long the stop may take: clients are let go at once, and the last checkpoint is not worth a second primary.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Pause before a stop that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Waits for the store. A primary that runs meanwhile gets `patience`; then it is made read-only (DCSF-8).
pub(crate) async fn wait_for_store<L: Server, T>(
    server: &L,
    local: &Local<L::Postmaster>,
    fence: &Fence,
    patience: Duration,
    connected: impl Future<Output = T>,
) -> T {
    tokio::pin!(connected);
    let mut pause = patience;
    loop {
        tokio::select! {
            biased;
            connected = &mut connected => return connected,
            () = sleep(pause) => {}
        }
        // Outside `select!`: a server that is being stopped is stopped.
        if step_aside(server, local, fence).await {
            return connected.await;
        }
        pause = RETRY_PAUSE;
    }
}

/// False when it has to be tried again.
async fn step_aside<L: Server>(server: &L, local: &Local<L::Postmaster>, fence: &Fence) -> bool {
    if !server.may_be_writable(local).await {
        return true;
    }
    warn!(
        "PostgreSQL runs as a primary and the store does not answer: nobody can prove that it leads, so it is stopped"
    );
    if let Err(problem) = server.stop(local, StopHow::Fast, Some(STOP_LIMIT), None).await {
        error!(error = %problem, "a primary that nobody can prove to lead did not stop");
        return false;
    }
    fence.disarm().await;
    match server.start_standby(None).await {
        Ok(_) => info!("PostgreSQL goes on read-only until the store answers"),
        Err(problem) => warn!(error = %problem, "PostgreSQL was not started read-only"),
    }
    true
}
