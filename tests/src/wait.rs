//! Waiting for a condition, with a deadline; never for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at. Fine enough for the shortest time we measure by looking (tens of milliseconds).
pub const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` returns something. Its errors are not fatal: the last one is reported at the deadline.
///
/// # Errors
/// When `limit` has passed; says what the last look returned.
pub async fn until<T>(limit: Duration, mut condition: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut last = "no answer in time".to_owned();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => "not yet".clone_into(&mut last),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => bail!("not within {limit:?}; last look: {last}"),
        }
        if Instant::now() >= deadline {
            bail!("not within {limit:?}; last look: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until `condition` holds; like [`until`].
///
/// # Errors
/// When `limit` has passed.
pub async fn until_true(limit: Duration, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    until(limit, async || Ok(condition().await?.then_some(()))).await
}
