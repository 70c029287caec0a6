//! Spans: what took how long, and as a part of what. They wait in a bounded queue until they are exported; past it they are dropped and counted.
//!
//! There is one tracer for the process, or none. Without one, [`begin`] looks at it and does nothing else.

use std::{
    collections::VecDeque,
    sync::OnceLock,
    time::{Duration, Instant},
};

use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{SPAN_TEXT_BYTES_MAX, SPANS_BATCH_MAX, SPANS_WAITING_MAX},
};
use http::HeaderMap;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::trace::{TRACEPARENT, TRACESTATE, TraceContext};

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// What a span is to whoever caused it, as OpenTelemetry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Nobody else is involved.
    Internal,
    /// A request is answered.
    Server,
    /// A request is sent.
    Client,
    /// A message is published.
    Producer,
    /// A message is handled.
    Consumer,
}

/// Which traces are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether who sent a trace decides whether it is kept.
    pub is_parent_based: bool,
    /// The part of all others that is kept: 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { is_parent_based: true, ratio: 1.0 }
    }
}

impl Sampler {
    /// By the trace alone, so that all members decide alike.
    fn keeps(self, trace_id: u128, parent: Option<TraceContext>) -> bool {
        match parent {
            Some(parent) if self.is_parent_based => parent.is_sampled,
            _ => {
                // The last 56 bits are the random ones, by W3C.
                let random = (trace_id & 0xff_ffff_ffff_ffff) as f64 / (1_u64 << 56) as f64;
                random < self.ratio
            }
        }
    }
}

/// What a span says of itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text, cut at [`SPAN_TEXT_BYTES_MAX`].
    Text(String),
    /// A whole number.
    Whole(i64),
    /// Yes or no.
    Is(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(cut(text))
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Is(is_so)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its trace, and its own id.
    pub context: TraceContext,
    /// The id of the span above it.
    pub parent: Option<u64>,
    /// What was done, and on what.
    pub name: String,
    /// What it is to whoever caused it.
    pub kind: SpanKind,
    /// When it began.
    pub began_at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What it says of itself, by the names of OpenTelemetry's conventions.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// A span that goes on. It ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    context: TraceContext,
    /// None of a trace that is not kept.
    kept: Option<Box<Kept>>,
}

#[derive(Debug)]
struct Kept {
    tracer: &'static Tracer,
    began: Instant,
    ended: Ended,
}

/// Begins a span, below this one if there is any; none while nobody traces.
pub fn begin(parent: Option<TraceContext>, kind: SpanKind, name: impl FnOnce() -> String) -> Option<Span> {
    TRACER.get().map(|tracer| tracer.begin(parent, kind, name))
}

/// A span, if there is one, failed by this error.
pub fn fail(span: &mut Option<Span>, error: &EdgeError) {
    if let Some(span) = span {
        span.fail(error);
    }
}

/// The tracer of this process.
pub fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

/// Has this process trace from now on.
///
/// # Errors
/// [`ErrorKind::Conflict`] when it does already.
pub fn install(sampler: Sampler) -> Result<&'static Tracer, EdgeError> {
    let mut is_new = false;
    let tracer = TRACER.get_or_init(|| {
        is_new = true;
        Tracer::new(sampler)
    });
    if is_new { Ok(tracer) } else { Err(EdgeError::new(ErrorKind::Conflict, "this process traces already")) }
}

impl Span {
    /// Where in its trace it is: for those below it.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// The same, of a span that is kept.
    pub fn kept_context(&self) -> Option<TraceContext> {
        self.kept.is_some().then_some(self.context)
    }

    /// Tells whoever gets this request that it is below this span.
    pub fn carry(&self, headers: &mut HeaderMap) {
        let is_new = !headers.get(&TRACEPARENT).and_then(|value| TraceContext::parse(value.to_str().ok()?)).is_some_and(|before| {
            // The state is of the trace that it came with.
            before.trace_id == self.context.trace_id
        });
        if is_new {
            headers.remove(&TRACESTATE);
        }
        headers.insert(TRACEPARENT.clone(), self.context.to_value());
    }

    /// Says something of it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(kept) = &mut self.kept {
            kept.ended.attributes.push((key, value.into()));
        }
    }

    /// It failed, by this error.
    pub fn fail(&mut self, error: &EdgeError) {
        self.fail_as(error.kind(), &error.to_string());
    }

    /// It failed, in this way and for this reason.
    pub fn fail_as(&mut self, kind: ErrorKind, why: &str) {
        if let Some(kept) = &mut self.kept {
            kept.ended.failure = Some(cut(why));
            kept.ended.attributes.push(("error.type", kind.as_str().into()));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            let Kept { tracer, began, mut ended } = *kept;
            ended.took = began.elapsed();
            tracer.push(ended);
        }
    }
}

/// What keeps spans until they are exported.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    waiting: Mutex<Waiting>,
    /// Told when a batch is full.
    full: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    ended: VecDeque<Ended>,
    dropped: u64,
}

impl Tracer {
    pub(crate) fn new(sampler: Sampler) -> Self {
        Self { sampler, waiting: Mutex::default(), full: Notify::new() }
    }

    fn begin(&'static self, parent: Option<TraceContext>, kind: SpanKind, name: impl FnOnce() -> String) -> Span {
        let (mut trace_id, mut span_id) = random_ids();
        if let Some(parent) = parent {
            trace_id = parent.trace_id;
        }
        let is_sampled = self.sampler.keeps(trace_id, parent);
        // Where nothing is kept below what is not kept, all passes as it came. One id never says both that it is kept and that it is not.
        if let Some(parent) = parent.filter(|parent| !is_sampled && !parent.is_sampled) {
            span_id = parent.span_id;
        }
        let context = TraceContext { trace_id, span_id, is_sampled };
        let kept = is_sampled.then(|| {
            let ended = Ended {
                context,
                parent: parent.map(|parent| parent.span_id),
                name: cut(&name()),
                kind,
                began_at: Timestamp::now(),
                took: Duration::ZERO,
                attributes: Vec::with_capacity(4),
                failure: None,
            };
            Box::new(Kept { tracer: self, began: Instant::now(), ended })
        });
        Span { context, kept }
    }

    fn push(&self, span: Ended) {
        let mut waiting = self.waiting.lock();
        if waiting.ended.len() >= SPANS_WAITING_MAX {
            waiting.dropped += 1;
            return;
        }
        waiting.ended.push_back(span);
        let is_full = waiting.ended.len() == SPANS_BATCH_MAX;
        drop(waiting);
        if is_full {
            self.full.notify_one();
        }
    }

    /// Takes the oldest ones, a batch at most.
    pub fn take(&self) -> Vec<Ended> {
        let mut waiting = self.waiting.lock();
        let count = waiting.ended.len().min(SPANS_BATCH_MAX);
        waiting.ended.drain(..count).collect()
    }

    /// Returns soon after there is a full batch.
    pub(crate) async fn until_full(&self) {
        self.full.notified().await;
    }

    /// Spans that wait, and those that were dropped as too many did.
    pub fn counts(&self) -> (usize, u64) {
        let waiting = self.waiting.lock();
        (waiting.ended.len(), waiting.dropped)
    }
}

/// Numbers that nobody else draws, and that are not 0.
fn random_ids() -> (u128, u64) {
    let mut bytes = [0; 24];
    if getrandom::fill(&mut bytes).is_err() {
        // Spans that cannot be told apart are of no use to anybody, and no harm to the call.
        return (1, 1);
    }
    let (trace, span) = bytes.split_at(16);
    let trace = u128::from_ne_bytes(trace.try_into().expect("16 bytes"));
    let span = u64::from_ne_bytes(span.try_into().expect("8 bytes"));
    (trace.max(1), span.max(1))
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(SPAN_TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sampler: Sampler) -> &'static Tracer {
        Box::leak(Box::new(Tracer::new(sampler)))
    }

    fn parent(is_sampled: bool) -> TraceContext {
        TraceContext { trace_id: 7, span_id: 8, is_sampled }
    }

    #[test]
    fn while_nobody_traces_nothing_begins() {
        assert!(begin(Some(parent(true)), SpanKind::Server, || unreachable!("it has no name")).is_none());
    }

    #[test]
    fn a_span_is_below_its_parent_and_ends_when_it_is_dropped() {
        let tracer = tracer(Sampler::default());
        let mut outer = tracer.begin(None, SpanKind::Server, || "outer".to_owned());
        let inner = tracer.begin(Some(outer.context()), SpanKind::Internal, || "inner".to_owned());
        outer.fail(&EdgeError::invalid("no"));
        outer.set("count", 3_u64);
        let contexts = (outer.context(), inner.context());
        assert!(tracer.take().is_empty());
        drop((inner, outer));
        let [inner, outer] = tracer.take().try_into().expect("two");
        assert_eq!((outer.context, inner.context), contexts);
        assert_eq!((inner.context.trace_id, inner.parent, outer.parent), (outer.context.trace_id, Some(outer.context.span_id), None));
        assert_eq!((outer.failure.as_deref(), inner.failure), (Some("no"), None));
        assert_eq!(outer.attributes, [("error.type", Value::from("invalid_input")), ("count", Value::Whole(3))]);
    }

    #[test]
    fn who_sent_a_trace_decides_and_of_the_others_a_part_is_kept() {
        let begin = |sampler, parent| tracer(sampler).begin(parent, SpanKind::Server, || "a".to_owned());
        let never = Sampler { is_parent_based: true, ratio: 0.0 };
        let (kept, passed) = (begin(never, Some(parent(true))), begin(Sampler::default(), Some(parent(false))));
        assert_eq!((kept.kept_context(), passed.kept_context()), (Some(kept.context()), None));
        assert_eq!(passed.context(), parent(false), "those below are told what it was told");
        let root = begin(never, None);
        assert!(root.kept.is_none() && !root.context().is_sampled, "and nobody below decides anew");
        let ended = begin(Sampler { is_parent_based: false, ratio: 0.0 }, Some(parent(true)));
        assert!(ended.kept.is_none() && !ended.context().is_sampled);
        assert_eq!(ended.context().trace_id, parent(true).trace_id);
        assert_ne!(ended.context().span_id, parent(true).span_id, "who sent it said of this span that it is kept");
        let always = Sampler { is_parent_based: false, ratio: 1.0 };
        assert!(begin(always, Some(parent(false))).kept.is_some());
        let half = Sampler { is_parent_based: true, ratio: 0.5 };
        let kept = (0..1000).filter(|_| begin(half, None).kept.is_some()).count();
        assert!((400..600).contains(&kept), "{kept}");
    }

    #[test]
    fn spans_that_do_not_fit_are_dropped_and_counted() {
        let tracer = tracer(Sampler::default());
        for _ in 0..SPANS_WAITING_MAX + 5 {
            drop(tracer.begin(None, SpanKind::Server, || "x".repeat(2 * SPAN_TEXT_BYTES_MAX)));
        }
        assert_eq!(tracer.counts(), (SPANS_WAITING_MAX, 5));
        let batch = tracer.take();
        assert_eq!((batch.len(), batch[0].name.len()), (SPANS_BATCH_MAX, SPAN_TEXT_BYTES_MAX));
    }

    #[test]
    fn a_request_is_told_its_parent_and_keeps_the_state_of_its_own_trace_only() {
        let tracer = tracer(Sampler::default());
        let carried = |before: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(&TRACEPARENT, before.parse().expect("a value"));
            headers.insert(&TRACESTATE, "a=1".parse().expect("a value"));
            let span = tracer.begin(TraceContext::of(&headers), SpanKind::Server, String::new);
            span.carry(&mut headers);
            assert_eq!(TraceContext::of(&headers), Some(span.context()));
            headers.contains_key(&TRACESTATE)
        };
        assert!(carried(&parent(true).to_string()));
        assert!(!carried("no trace"));
    }
}
