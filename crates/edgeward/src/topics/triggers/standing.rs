//! How a trigger does: what it has done since the node started, and what waits.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use edgeward_model::Trigger;
use edgeward_telemetry::{Distribution, Histogram};
use edgeward_topics::DeliveryCounts;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::node::Source;

/// A trigger, and what it has done since the node started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TriggerView {
    /// The trigger.
    #[serde(flatten)]
    pub trigger: Trigger,
    /// Who wants it here.
    pub source: Source,
    /// Names what the trigger is, for [`Expected::Tag`](super::Expected::Tag).
    pub tag: String,
    /// Up to where every message of its filters was handled, or is a dead letter.
    pub acknowledged: u64,
    /// Positions of the log after that, of whatever topic.
    pub behind: u64,
    /// Messages that were handled.
    pub delivered: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Dead letters that gave way to newer ones.
    pub dead_dropped: u64,
    /// Messages, of whatever topic, that were gone from the log before it came to them.
    pub lost: u64,
    /// Messages that were not durable, and came while too many waited already.
    pub dropped: u64,
    /// Messages that wait for the function to be deployed here.
    pub waiting: u64,
    /// Why it does not run, if it should and cannot.
    pub failure: Option<String>,
}

/// How a trigger does.
#[derive(Debug, Default)]
pub(in crate::topics) struct Standing {
    pub(in crate::topics) counts: DeliveryCounts,
    pub(super) waiting: AtomicU64,
    pub(in crate::topics) failure: Mutex<Option<String>>,
    attempts: Mutex<Attempts>,
}

/// How long attempts took.
#[derive(Debug, Default)]
struct Attempts {
    histogram: Histogram,
    nanos: u128,
}

/// A message that waits for its function.
pub(in crate::topics) struct Waiting<'a>(&'a AtomicU64);

impl Standing {
    /// Counts an attempt that took so long.
    pub(in crate::topics) fn attempted(&self, took: Duration) {
        let mut attempts = self.attempts.lock();
        attempts.histogram.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        attempts.nanos += took.as_nanos();
    }

    /// How long attempts took.
    pub(super) fn attempts(&self) -> Distribution {
        let attempts = self.attempts.lock();
        attempts.histogram.in_seconds(attempts.nanos)
    }

    /// Counts a message that waits, until what is returned is dropped.
    pub(in crate::topics) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
