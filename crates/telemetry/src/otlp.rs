//! OTLP: metrics and spans as OpenTelemetry's collectors take them, by HTTP with protobuf.
//!
//! What is exported is a batch at a time, within a bound of time. While the receiver is away spans wait in their bounded queue, and metrics
//! are what they are at the next time. No call ever waits for it.

mod http_post;
mod messages;
pub mod options;
mod protobuf;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use edgeward_model::{
    EdgeError,
    limits::{OTLP_PAUSE_MAX, OTLP_PAUSE_MIN, OTLP_REQUEST_BYTES, OTLP_STOP_TIMEOUT},
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use options::OtlpOptions;

use self::{
    http_post::{Outcome, Sender},
    messages::Resource,
};
use crate::{
    instruments::{OTLP_REQUESTS, OTLP_SPANS, OTLP_WAITING},
    reading::Reading,
    span::{self, Tracer},
};

/// What this process exported, since it began.
static COUNTS: Counts = Counts {
    spans_exported: AtomicU64::new(0),
    spans_rejected: AtomicU64::new(0),
    spans_dropped: AtomicU64::new(0),
    requests: [const { AtomicU64::new(0) }; 4],
};

struct Counts {
    spans_exported: AtomicU64,
    spans_rejected: AtomicU64,
    /// Beside those that the tracer counts.
    spans_dropped: AtomicU64,
    /// Of traces that did well and failed, then of metrics.
    requests: [AtomicU64; 4],
}

/// What there is to export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Traces,
    Metrics,
}

/// Exports what this process measures and traces.
#[derive(Debug)]
pub struct Exporter {
    options: OtlpOptions,
    resource: Resource,
    /// None when spans go nowhere: then nothing is traced.
    tracer: Option<&'static Tracer>,
    began_at: Timestamp,
}

impl Exporter {
    /// Has this process trace from now on, if spans are to go anywhere. `attributes` say what it is, beside what the options say.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](edgeward_model::ErrorKind::Conflict) when it traces already,
    /// [`ErrorKind::InvalidInput`](edgeward_model::ErrorKind::InvalidInput) when a URL is of `https` and nobody said whom to trust.
    pub fn new(options: OtlpOptions, attributes: &[(String, String)]) -> Result<Self, EdgeError> {
        if options.needs_tls() && options.tls.is_none() {
            return Err(EdgeError::invalid(
                "the receiver of OTLP is reached by `https://`, and whom to trust is not said: set `tls` of the options",
            ));
        }
        let tracer = options.traces.as_ref().map(|_| span::install(options.sampler)).transpose()?;
        Ok(Self { resource: Resource::new(attributes, &options.attributes), options, tracer, began_at: Timestamp::now() })
    }

    /// Exports until `stop`, and then what waits, for a few seconds at most. `gather` reads the metrics.
    pub async fn run<F: Future<Output = Vec<Reading>>>(self, gather: impl Fn() -> F, stop: CancellationToken) {
        let exporting = async { tokio::join!(self.send_spans(&stop), self.send_metrics(gather, &stop)) };
        let too_long = async {
            stop.cancelled().await;
            sleep(OTLP_STOP_TIMEOUT).await;
        };
        tokio::select! {
            _ = exporting => {}
            () = too_long => tracing::warn!("not all telemetry was exported before the stop: the receiver took too long"),
        }
    }

    async fn send_spans(&self, stop: &CancellationToken) {
        let (Some(target), Some(tracer)) = (&self.options.traces, self.tracer) else { return };
        let mut sender = Sender::new(&self.options, target, "traces");
        let mut failures = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tracer.until_full() => {}
                () = sleep(self.options.span_delay) => {}
            }
            loop {
                let batch = tracer.take();
                if batch.is_empty() {
                    break;
                }
                let request = messages::traces(&self.resource, &batch);
                let count = batch.len() as u64;
                drop(batch);
                loop {
                    let was_stopped = stop.is_cancelled();
                    let outcome = sender.send(request.clone()).await;
                    count_request(Signal::Traces, &outcome);
                    match outcome {
                        Outcome::Taken { rejected } => {
                            failures = 0;
                            COUNTS.spans_rejected.fetch_add(rejected.min(count), Ordering::Relaxed);
                            COUNTS.spans_exported.fetch_add(count.saturating_sub(rejected), Ordering::Relaxed);
                            break;
                        }
                        Outcome::Refused => {
                            COUNTS.spans_dropped.fetch_add(count, Ordering::Relaxed);
                            break;
                        }
                        Outcome::Away { retry_after } => {
                            // Who stops tries once more.
                            if was_stopped {
                                COUNTS.spans_dropped.fetch_add(count, Ordering::Relaxed);
                                return;
                            }
                            failures = failures.saturating_add(1);
                            stop.run_until_cancelled(sleep(pause(failures, retry_after, random()))).await;
                        }
                    }
                }
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    async fn send_metrics<F: Future<Output = Vec<Reading>>>(&self, gather: impl Fn() -> F, stop: &CancellationToken) {
        let Some(target) = &self.options.metrics else { return };
        let mut sender = Sender::new(&self.options, target, "metrics");
        // The first ones soon, so that who sets it up sees them.
        let mut next = Instant::now() + self.options.span_delay.min(self.options.metric_interval);
        loop {
            let is_stopping = stop.run_until_cancelled(tokio::time::sleep_until(next)).await.is_none();
            next = Instant::now() + self.options.metric_interval;
            let readings = gather().await;
            let now = Timestamp::now();
            for part in messages::parts(&readings, OTLP_REQUEST_BYTES) {
                let request = messages::metrics(&self.resource, part, self.began_at, now);
                let outcome = sender.send(request).await;
                count_request(Signal::Metrics, &outcome);
                if let Outcome::Away { .. } = outcome {
                    // The next time tells all that this one would have.
                    break;
                }
            }
            if is_stopping {
                return;
            }
        }
    }
}

/// How long a receiver that is away is left alone. When it does not say so itself, up to half of the time is left off, as `random` says, so that a fleet
/// does not come back all at once.
fn pause(failures: u32, retry_after: Option<Duration>, random: u8) -> Duration {
    if let Some(said) = retry_after {
        return said.clamp(OTLP_PAUSE_MIN, OTLP_PAUSE_MAX);
    }
    let doubled = OTLP_PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(OTLP_PAUSE_MAX);
    doubled.mul_f64(1.0 - f64::from(random) / 512.0)
}

/// Any number. Without chance the pauses are only longer.
fn random() -> u8 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

fn count_request(signal: Signal, outcome: &Outcome) {
    let is_failed = !matches!(outcome, Outcome::Taken { .. });
    let at = 2 * usize::from(signal == Signal::Metrics) + usize::from(is_failed);
    COUNTS.requests[at].fetch_add(1, Ordering::Relaxed);
}

/// What this process exported, as metrics of its own.
pub fn readings() -> Vec<Reading> {
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (waiting, dropped) = span::tracer().map(Tracer::counts).unwrap_or_default();
    let mut spans = Reading::new(&OTLP_SPANS);
    spans.push(["exported"], get(&COUNTS.spans_exported));
    spans.push(["rejected"], get(&COUNTS.spans_rejected));
    spans.push(["dropped"], get(&COUNTS.spans_dropped) + dropped);
    let mut requests = Reading::new(&OTLP_REQUESTS);
    for (count, attributes) in
        COUNTS.requests.iter().zip([["traces", "ok"], ["traces", "failed"], ["metrics", "ok"], ["metrics", "failed"]])
    {
        requests.push(attributes, get(count));
    }
    vec![spans, Reading::of(&OTLP_WAITING, waiting), requests]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_is_away_is_left_alone_for_longer_and_longer_within_a_bound() {
        assert_eq!(pause(1, None, 0), OTLP_PAUSE_MIN);
        assert_eq!(pause(3, None, 0), OTLP_PAUSE_MIN * 4);
        assert_eq!(pause(u32::MAX, None, 0), OTLP_PAUSE_MAX);
        assert_eq!(pause(1, Some(Duration::from_secs(5)), u8::MAX), Duration::from_secs(5));
        assert_eq!(pause(1, Some(Duration::from_hours(5)), u8::MAX), OTLP_PAUSE_MAX);
        assert_eq!(pause(3, None, 128), OTLP_PAUSE_MIN * 3, "not all come back at once");
        assert!(pause(u32::MAX, None, u8::MAX) >= OTLP_PAUSE_MAX / 2);
    }

    #[test]
    fn whom_to_trust_is_said_before_anything_is_sent_by_tls() {
        let secret = |name: &str| (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| "authorization=c2VjcmV0".to_owned());
        let options = OtlpOptions::read(Some("https://otel.example"), None, secret).expect("valid").expect("on");
        let refused = Exporter::new(options, &[]).expect_err("it would be sent in the clear");
        assert!(refused.to_string().contains("whom to trust"), "{refused}");
        assert!(span::tracer().is_none(), "nothing began");
    }
}
