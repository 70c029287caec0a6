//! A node's heartbeats: that it is there, how it is, and what it has still to exchange.

use std::{collections::HashMap, sync::Arc, time::Duration};

use edgeward_cluster::{
    Backbone, Subject,
    membership::{Report, Timing},
};
use edgeward_model::{ErrorKind, FunctionId, limits::METRICS_SAMPLE_EVERY};
use edgeward_runtime::{Filter, blocking};
use edgeward_sync::SessionState;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    events::{EventKind, FleetEvent},
    node::{FunctionState, Node},
    replication::Replication,
    services::{self, HEARTBEAT},
    uplink::{load::Meter, outbox::Outbox},
};

/// Invocations between two samples from which a function can be judged.
const JUDGED_INVOCATIONS_MIN: u64 = 10;
/// Time between two measurements of the machine, at least.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What a heartbeat tells beside what the node itself knows.
pub(super) struct Sources {
    pub(super) replication: watch::Receiver<Replication>,
    /// Functions that fail more often than not.
    pub(super) failing: watch::Receiver<u32>,
    pub(super) outbox: Arc<Outbox>,
}

/// Sends heartbeats, for ever.
pub(super) async fn send(node: Arc<Node>, backbone: Arc<dyn Backbone>, timing: Timing, sources: Sources) {
    let Sources { replication, failing, outbox } = sources;
    let to = Subject::to_hub(node.runtime().node().id.clone(), HEARTBEAT);
    let mut beat = interval(timing.heartbeat());
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = backbone.connection();
    let mut meter = Meter::new();
    let mut load = meter.measure(node.data_dir(), 0);
    let mut measured = tokio::time::Instant::now();
    let mut overloads = 0;
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            // Who is back is heard at once.
            changed = connection.changed() => if changed.is_err() { return },
        }
        if !connection.borrow().is_up {
            continue;
        }
        if measured.elapsed() >= MEASURE_EVERY {
            measured = tokio::time::Instant::now();
            load = meter.measure(node.data_dir(), node.runtime().running());
        }
        let refused = node.runtime().metrics().summary(Filter::ALL).errors.get(ErrorKind::Overloaded.as_str()).copied().unwrap_or(0);
        let is_overloaded = refused > std::mem::replace(&mut overloads, refused);
        let views = node.functions();
        let count = |state| views.iter().filter(|view| view.state == state).count();
        let failing = u32::try_from(count(FunctionState::Failed)).unwrap_or(u32::MAX).saturating_add(*failing.borrow());
        let store = Arc::clone(node.documents().store());
        let sent_at = store.now();
        // Of a store that cannot be read nothing is known to wait.
        let unsent = blocking(move || store.unsent()).await.unwrap_or(0);
        let report = Report {
            sent_at,
            is_overloaded,
            failing_functions: failing,
            behind: unsent + count(FunctionState::Pending) as u64,
            is_syncing: replication.borrow().state != SessionState::Synced,
            load: Some(load),
            dropped_events: outbox.dropped(),
        };
        // One that is lost is followed by another.
        let _ = backbone.publish(&to, services::write(&report)).await;
    }
}

/// Samples what ran, for ever: for the hub, and to see which functions fail more often than not.
pub(super) async fn sample(node: Arc<Node>, outbox: Arc<Outbox>, failing: watch::Sender<u32>) {
    let mut sampled = interval(METRICS_SAMPLE_EVERY);
    sampled.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sampled.tick().await;
    let metrics = Arc::clone(node.runtime().metrics());
    let mut before: HashMap<FunctionId, (u64, u64)> = HashMap::new();
    let mut total = 0;
    loop {
        sampled.tick().await;
        let mut sick = 0;
        let mut now = HashMap::new();
        for function in node.runtime().list_functions() {
            let filter = Filter::function(function.id.as_str());
            let (calls, errors) = (metrics.total_invocations(filter), metrics.error_count(filter));
            let (calls_before, errors_before) = before.get(&function.id).copied().unwrap_or((0, 0));
            let (called, failed) = (calls.saturating_sub(calls_before), errors.saturating_sub(errors_before));
            sick += u32::from(called >= JUDGED_INVOCATIONS_MIN && failed * 2 > called);
            now.insert(function.id, (calls, errors));
        }
        before = now;
        failing.send_replace(sick);
        let summary = metrics.summary(Filter::ALL);
        if std::mem::replace(&mut total, summary.total) != summary.total {
            let mut event = FleetEvent::new(EventKind::MetricsSampled, "");
            event.data = serde_json::to_value(&summary).ok();
            outbox.tell(event).await;
        }
    }
}
