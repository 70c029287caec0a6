//! Calls that an experiment makes: so many begin in a second, whether those before have ended or not.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{chaos::CallsByDue, routing::Terms};
use edgeward_model::{Experiment, chaos::Load};
use edgeward_runtime::CallOptions;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::fleet::WeakCluster;

/// Calls that have ended and were not looked at.
type Ended = Arc<Mutex<CallsByDue>>;

/// Loads that are made, to the end of an experiment. Dropped, they end, and calls under way are cut off.
pub(super) struct Loads {
    ended: Ended,
    making: Vec<AbortOnDropHandle<()>>,
}

impl Loads {
    /// Those of an experiment that began then.
    pub(super) fn begin(cluster: &WeakCluster, experiment: &Experiment, begun: Instant) -> Self {
        let (ended, seconds) = (Ended::default(), experiment.total().as_secs());
        let make =
            |load: &Load| AbortOnDropHandle::new(tokio::spawn(make(cluster.clone(), load.clone(), begun, seconds, Arc::clone(&ended))));
        Self { making: experiment.loads.iter().map(make).collect(), ended }
    }

    /// Calls that ended since the last time.
    pub(super) fn take(&self) -> CallsByDue {
        std::mem::take(&mut self.ended.lock())
    }

    /// Waits until every call has ended, so long at most.
    pub(super) async fn settle(&mut self, time_max: Duration) {
        // What has not ended by then, its end is not waited for.
        let _ = timeout(time_max, join_all(&mut self.making)).await;
    }
}

/// Makes the calls of so many seconds, and returns when they have ended.
async fn make(cluster: WeakCluster, load: Load, begun: Instant, seconds: u64, ended: Ended) {
    let room = Arc::new(Semaphore::new(usize::try_from(load.concurrency).expect("32 bits fit")));
    let mut calls = JoinSet::new();
    for number in 0..seconds * u64::from(load.per_second) {
        let due_after = due_after(number, load.per_second);
        let due = begun + due_after;
        sleep_until(due).await;
        let place = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        while calls.try_join_next().is_some() {}
        let Some(cluster) = cluster.upgrade() else { return };
        let (load, ended) = (load.clone(), Arc::clone(&ended));
        calls.spawn(async move {
            let _place = place;
            let terms = Terms { left: None, is_idempotent: load.idempotent };
            let called = cluster.call(&load.function, load.payload, CallOptions::default(), terms).await;
            if let Err(error) = &called {
                tracing::debug!(function = %load.function, error = error.chain(), "a call of an experiment failed");
            }
            let millis = due.elapsed().as_secs_f64() * 1e3;
            ended.lock().entry(due_after.as_secs()).or_default().entry(load.function).or_default().add(called.is_ok(), millis);
        });
    }
    while calls.join_next().await.is_some() {}
}

/// When a call is due after the beginning. Each second has as many as are to begin in it.
fn due_after(number: u64, per_second: u32) -> Duration {
    let (second, rest) = (number / u64::from(per_second), number % u64::from(per_second));
    Duration::from_secs(second) + Duration::from_nanos(rest * 1_000_000_000 / u64::from(per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_as_many_calls_as_are_to_begin_in_it() {
        for per_second in [1, 3, 7, 999, 10_000] {
            let due: Vec<_> = (0..3 * u64::from(per_second)).map(|number| due_after(number, per_second).as_secs()).collect();
            for second in 0..3 {
                assert_eq!(due.iter().filter(|due| **due == second).count(), usize::try_from(per_second).expect("small"), "{per_second}");
            }
        }
    }
}
