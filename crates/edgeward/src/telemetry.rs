//! What a node and a hub measure, read when somebody asks: for Prometheus, and for OTLP.
//!
//! The instruments are those of `edgeward_telemetry::instruments`. What cannot be read now shows no numbers, and keeps nothing else from being
//! shown.

mod fleet;
mod schedules;
mod topics;

use std::{sync::Arc, time::Instant};

use edgeward_cluster::Connection;
use edgeward_model::EdgeError;
use edgeward_runtime::{EdgeRuntime, blocking};
use edgeward_sync::{Documents, SessionState};
use edgeward_telemetry::{instruments, otlp};
use jiff::Timestamp;
use rustix::param::page_size;

pub use self::fleet::hub_readings;
use crate::{
    node::{FunctionState, Node},
    uplink::Uplink,
};
pub use edgeward_telemetry::{
    Exporter, Instrument, Kind, Number, OtlpOptions, OtlpUrl, Point, Reading, Sampler, Span, SpanKind, TraceContext, begin,
    instruments::ALL as INSTRUMENTS, span, text, trace,
};

/// What a node measures, and when it is a member how it stands to its hub.
pub async fn node_readings(node: &Arc<Node>, membership: Option<(&Uplink, &Connection)>, started: Instant) -> Vec<Reading> {
    let mut readings = node.runtime().metrics().readings();
    readings.extend(functions(node));
    readings.extend(process(started));
    readings.extend(documents(node.documents().clone()).await);
    readings.push(unsent(node).await);
    readings.extend(topics::readings(node.topics()).await);
    readings.extend(schedules::readings(node.schedules()));
    if let Some((uplink, connection)) = membership {
        readings.extend(member(uplink, connection));
    }
    readings.extend(otlp::readings());
    readings
}

fn functions(node: &Node) -> Vec<Reading> {
    let views = node.functions();
    let mut states = Reading::new(&instruments::FUNCTIONS);
    for (state, name) in [(FunctionState::Pending, "pending"), (FunctionState::Ready, "ready"), (FunctionState::Failed, "failed")] {
        states.push([name], views.iter().filter(|view| view.state == state).count());
    }
    let faults = Reading::of(&instruments::CHAOS_FAULTS, node.chaos().injected().len());
    let mut readings = vec![states, Reading::of(&instruments::NODE_READY, node.is_ready()), faults];
    readings.extend(crowds(node.runtime()));
    readings
}

fn crowds(runtime: &EdgeRuntime) -> [Reading; 3] {
    let mut crowds = runtime.crowds();
    crowds.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut running = Reading::new(&instruments::FUNCTION_RUNNING);
    let mut waiting = Reading::new(&instruments::FUNCTION_WAITING);
    let mut limit = Reading::new(&instruments::FUNCTION_CONCURRENCY);
    for (id, crowd) in &crowds {
        running.push([id.as_str()], crowd.running);
        waiting.push([id.as_str()], crowd.waiting);
        limit.push([id.as_str()], crowd.running_max);
    }
    [running, waiting, limit]
}

fn process(started: Instant) -> [Reading; 2] {
    let mut memory = Reading::new(&instruments::MEMORY);
    if let Some(bytes) = resident_bytes() {
        memory.push([], bytes);
    }
    [memory, Reading::of(&instruments::UPTIME, started.elapsed().as_secs_f64())]
}

/// Memory of the process that is in RAM: the second number of `/proc/self/statm` is the resident size in pages.
pub fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

async fn documents(documents: Documents) -> [Reading; 2] {
    let commits = *documents.store().commits().borrow();
    let count = read("the documents", blocking(move || documents.list().map(|list| list.len())).await);
    [optional(Reading::new(&instruments::DOCUMENTS), count), Reading::of(&instruments::COMMITS, commits)]
}

async fn unsent(node: &Node) -> Reading {
    let store = Arc::clone(node.documents().store());
    let count = read("the rows that no hub has", blocking(move || store.unsent()).await);
    optional(Reading::new(&instruments::UNSENT), count)
}

fn member(uplink: &Uplink, connection: &Connection) -> Vec<Reading> {
    let replication = uplink.replication().borrow().clone();
    let mut states = Reading::new(&instruments::SYNC_STATE);
    for state in [SessionState::Connecting, SessionState::Syncing, SessionState::Synced, SessionState::ClockAhead] {
        states.push([state.as_str()], replication.state == state);
    }
    let age = replication.synced_at.map(|at| if replication.state == SessionState::Synced { 0.0 } else { seconds_since(at) });
    let outbox = uplink.outbox();
    let topics = uplink.topics().borrow().clone();
    vec![
        Reading::of(&instruments::TOPICS_FORWARDED, topics.forwarded),
        Reading::of(&instruments::TOPICS_IMPORTED, topics.imported),
        Reading::of(&instruments::TOPICS_SHARING_LOST, topics.lost),
        Reading::of(&instruments::SYNC_CONNECTED, connection.is_up),
        states,
        optional(Reading::new(&instruments::SYNC_AGE), age),
        // Of a store that cannot be read nothing is known to wait.
        optional(Reading::new(&instruments::OUTBOX), read("the outbox", outbox.len())),
        Reading::of(&instruments::OUTBOX_DROPPED, outbox.dropped()),
    ]
}

fn seconds_since(at: Timestamp) -> f64 {
    Timestamp::now().duration_since(at).as_secs_f64()
}

fn optional(mut reading: Reading, number: Option<impl Into<edgeward_telemetry::Number>>) -> Reading {
    if let Some(number) = number {
        reading.push([], number);
    }
    reading
}

fn read<T>(what: &str, result: Result<T, EdgeError>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(error = error.chain(), "the metrics of {what} could not be read")).ok()
}
