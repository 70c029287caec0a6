//! Calls that an experiment makes: so many begin in a second, whether those before have ended or not.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use edgeward_cluster::{chaos::Calls, routing::Terms};
use edgeward_model::{FunctionId, chaos::Load};
use edgeward_runtime::CallOptions;
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use crate::fleet::WeakCluster;

/// Calls that have ended and were not looked at.
pub(super) type Ended = Arc<Mutex<BTreeMap<FunctionId, Calls>>>;

/// Loads that are made. Dropped, they end, and calls under way are cut off.
pub(super) struct Loads {
    ended: Ended,
    _making: Vec<AbortOnDropHandle<()>>,
}

impl Loads {
    pub(super) fn begin(cluster: &WeakCluster, loads: &[Load]) -> Self {
        let ended = Ended::default();
        let make = |load: &Load| AbortOnDropHandle::new(tokio::spawn(make(cluster.clone(), load.clone(), Arc::clone(&ended))));
        Self { _making: loads.iter().map(make).collect(), ended }
    }

    /// Calls that ended since the last time.
    pub(super) fn take(&self) -> BTreeMap<FunctionId, Calls> {
        std::mem::take(&mut self.ended.lock())
    }
}

async fn make(cluster: WeakCluster, load: Load, ended: Ended) {
    let (begun, pause) = (Instant::now(), Duration::from_secs(1) / load.per_second);
    let room = Arc::new(Semaphore::new(usize::try_from(load.concurrency).expect("32 bits fit")));
    let mut calls = JoinSet::new();
    for number in 0..u32::MAX {
        let due = begun + pause * number;
        sleep_until(due).await;
        let place = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        while calls.try_join_next().is_some() {}
        let Some(cluster) = cluster.upgrade() else { return };
        let (load, ended) = (load.clone(), Arc::clone(&ended));
        calls.spawn(async move {
            let _place = place;
            // It is there to see how the fleet does, so it may run twice.
            let terms = Terms { left: None, is_idempotent: true };
            let called = cluster.call(&load.function, load.payload, CallOptions::default(), terms).await;
            if let Err(error) = &called {
                tracing::debug!(function = %load.function, error = error.chain(), "a call of an experiment failed");
            }
            let millis = due.elapsed().as_secs_f64() * 1e3;
            ended.lock().entry(load.function).or_default().add(called.is_ok(), millis);
        });
    }
}
