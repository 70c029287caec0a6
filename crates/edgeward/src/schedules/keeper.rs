//! What starts the runs of a node's schedules and notes how they ended.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use edgeward_cluster::backoff;
use edgeward_model::{EdgeError, ErrorKind, Schedule, limits::DRAIN_TIMEOUT};
use edgeward_runtime::{EdgeRuntime, blocking};
use futures::FutureExt;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Schedules, event,
    ledger::{Ended, Start},
};
use crate::allotments::given;

/// Longest wait for the next run: a clock that jumps is noticed after it.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Why a run tells its end.
const ENDS: &str = "a run catches its panics, and nobody ends it";

/// Runs the schedules until it is told to stop; then what runs may end, for a while. Dropped, it ends at once.
pub(super) async fn keep(schedules: &Schedules, stop: &CancellationToken) {
    let mut failures = 0;
    let ledger = Arc::clone(&schedules.ledger);
    while let Err(error) = blocking({
        let ledger = Arc::clone(&ledger);
        move || ledger.recover(ledger.now())
    })
    .await
    {
        failures += 1;
        tracing::warn!(error = error.chain(), "the runs that the last end interrupted could not be noted; no schedule runs until they are");
        if stop.run_until_cancelled(tokio::time::sleep(backoff::pause(failures))).await.is_none() {
            return;
        }
    }
    let mut keeper = Keeper { schedules, runs: JoinSet::new(), ended: Vec::new(), failures: 0 };
    let running = async {
        loop {
            let pause = keeper.turn().await;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = keeper.runs.join_next() => keeper.ended.push(ended.expect(ENDS)),
                () = schedules.changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        keeper.drain().await;
    };
    let take = || async {
        let ledger = Arc::clone(&schedules.ledger);
        let taken = blocking(move || ledger.read_assigned()).await;
        schedules.changed.notify_one();
        taken
    };
    tokio::select! {
        () = running => {}
        () = given::follow::<Schedule, _>(schedules.ledger.assigned(), take) => {}
    }
}

struct Keeper<'a> {
    schedules: &'a Schedules,
    runs: JoinSet<Ended>,
    /// Runs whose end is not noted.
    ended: Vec<Ended>,
    /// Changes that failed, one after the other.
    failures: u32,
}

impl Keeper<'_> {
    /// Notes what ended and starts what is due; returns the longest time until the next turn.
    async fn turn(&mut self) -> Duration {
        while let Some(ended) = self.runs.try_join_next() {
            self.ended.push(ended.expect(ENDS));
        }
        let (ledger, ended) = (Arc::clone(&self.schedules.ledger), self.ended.clone());
        match blocking(move || ledger.turn(&ended, ledger.now())).await {
            Ok(turn) => {
                self.failures = 0;
                self.ended.clear();
                for start in turn.starts {
                    self.runs.spawn(run(Arc::clone(&self.schedules.runtime), start));
                }
                let now = self.schedules.ledger.now();
                let wait = turn.next_look.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
                wait.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
            }
            Err(error) => {
                self.failures += 1;
                tracing::warn!(error = error.chain(), "how the schedules stand could not be kept; nothing starts until it is");
                backoff::pause(self.failures)
            }
        }
    }

    /// Waits for the runs and notes their ends; starts nothing. What has not ended by then is found as interrupted.
    async fn drain(mut self) {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.runs.join_next()).await {
            self.ended.push(ended.expect(ENDS));
        }
        let (ledger, ended) = (Arc::clone(&self.schedules.ledger), self.ended);
        if let Err(error) = blocking(move || ledger.finish(&ended, ledger.now())).await {
            tracing::warn!(
                error = error.chain(),
                "how the last runs of schedules ended could not be noted; they will be told as interrupted"
            );
        }
    }
}

async fn run(runtime: Arc<EdgeRuntime>, Start { record, run }: Start) -> Ended {
    let schedule = &record.wanted;
    let called = AssertUnwindSafe(event::call(&runtime, schedule, &run)).catch_unwind().await;
    let result = called.unwrap_or_else(|_| Err(EdgeError::new(ErrorKind::Internal, "the run panicked")));
    let result = result.map_err(|error| {
        tracing::warn!(schedule = %schedule.id, function = %schedule.function, error = error.chain(), "a run failed");
        error.to_string()
    });
    Ended { id: schedule.id.clone(), run, result }
}
