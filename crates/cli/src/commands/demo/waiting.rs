//! Waiting for what must come true, and times as they are told.

use std::time::{Duration, Instant};

const POLL_EVERY: Duration = Duration::from_millis(2);
/// Longest wait for anything that must come true.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until something is so.
pub(super) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so().await? {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "it did not come true within {PATIENCE:?} that {what}");
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// As people read it.
pub(super) fn time(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.2} s", ms as f64 / 1e3) }
}
