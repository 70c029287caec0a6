//! Counts of invocations: what ran, how long, how often it failed and why.
//!
//! Memory is constant however many records: one fixed-size series per function and node, at most
//! [`SERIES_MAX`] of them, the rest counted together. Each thread writes to its own shard, so recording never
//! waits for another core; reading adds the shards up.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::BTreeMap,
    hash::BuildHasher,
    sync::atomic::{AtomicUsize, Ordering},
};

use edgeward_model::{ErrorKind, FunctionId, InvocationRecord, NodeId};
use edgeward_telemetry::{Histogram, Number, OTHERS, Reading, instruments};
use hashbrown::HashTable;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Function and node pairs that are counted apart in one shard; later ones share one series.
pub const SERIES_MAX: usize = 1024;
const SHARDS: usize = 4;

/// Chooses which records a query counts: all, those of a function, of a node, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// Only this function, when given.
    pub function_id: Option<&'a str>,
    /// Only this node, when given.
    pub node_id: Option<&'a str>,
}

impl<'a> Filter<'a> {
    /// Every record.
    pub const ALL: Self = Self { function_id: None, node_id: None };

    /// The records of one function.
    pub fn function(id: &'a str) -> Self {
        Self { function_id: Some(id), node_id: None }
    }

    /// The same, on one node only.
    #[must_use]
    pub fn on_node(self, id: &'a str) -> Self {
        Self { node_id: Some(id), ..self }
    }

    fn matches(&self, series: &Series) -> bool {
        self.function_id.is_none_or(|id| series.function_id.as_str() == id) && self.node_id.is_none_or(|id| series.node_id.as_str() == id)
    }
}

/// What the records of a query add up to. Durations are in milliseconds, rates in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Invocations.
    pub total: u64,
    /// The same under the name of its method.
    pub total_invocations: u64,
    /// Successful invocations in percent, 0 to 100; 100 with no records.
    pub success_rate: f64,
    /// Mean duration; 0 with no records.
    pub avg_latency: f64,
    /// The same under the name of its method.
    pub avg_latency_ms: f64,
    /// Failed invocations.
    pub error_count: u64,
    /// Median duration, within 3.2 %.
    pub p50_ms: f64,
    /// 95th percentile, within 3.2 %.
    pub p95_ms: f64,
    /// 99th percentile, within 3.2 %.
    pub p99_ms: f64,
    /// Invocations that needed a new sandbox.
    pub cold_starts: u64,
    /// Failed invocations by kind; `other` has those that named none.
    pub errors: BTreeMap<Cow<'static, str>, u64>,
}

/// What had been counted up to one moment.
#[derive(Clone, Default)]
pub struct Mark(Totals);

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Mark").field(&self.0.count).finish()
    }
}

/// What was counted from one moment to another.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// Invocations that ended.
    pub calls: u64,
    /// How many of them failed.
    pub errors: u64,
    /// Their 95th percentile in milliseconds, within 3.2 %; 0 with none.
    pub p95_ms: f64,
}

impl Mark {
    /// What was counted from this moment to a later one, by the same filter.
    pub fn until(&self, later: &Self) -> Span {
        let (from, to) = (&self.0, &later.0);
        Span {
            calls: to.count.saturating_sub(from.count),
            errors: to.errors.saturating_sub(from.errors),
            p95_ms: to.histogram.without(&from.histogram).quantile(0.95) as f64 / 1e6,
        }
    }
}

/// What is counted of one invocation.
pub(crate) struct Observation<'a> {
    pub(crate) function_id: &'a FunctionId,
    pub(crate) node_id: &'a NodeId,
    pub(crate) duration_ms: f64,
    pub(crate) success: bool,
    pub(crate) error_kind: Option<ErrorKind>,
    pub(crate) cold_start: bool,
}

#[derive(Clone)]
struct Series {
    function_id: FunctionId,
    node_id: NodeId,
    totals: Totals,
}

#[derive(Clone, Default)]
struct Totals {
    count: u64,
    errors: u64,
    cold_starts: u64,
    duration_ns: u128,
    kinds: [u64; ErrorKind::ALL.len()],
    histogram: Histogram,
}

impl Totals {
    fn add(&mut self, seen: &Observation<'_>) {
        // A negative or endless duration is a defect of the caller's clock: it counts as 0 or as the longest.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
        let nanos = (seen.duration_ms * 1e6) as u64;
        self.count += 1;
        self.errors += u64::from(!seen.success);
        self.cold_starts += u64::from(seen.cold_start);
        self.duration_ns += u128::from(nanos);
        if let (false, Some(kind)) = (seen.success, seen.error_kind) {
            self.kinds[kind as usize] += 1;
        }
        self.histogram.record(nanos);
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.errors += other.errors;
        self.cold_starts += other.cold_starts;
        self.duration_ns += other.duration_ns;
        for (mine, theirs) in self.kinds.iter_mut().zip(other.kinds) {
            *mine += theirs;
        }
        self.histogram.merge(&other.histogram);
    }

    /// Failures by kind, and under `other` those that named none.
    fn errors_by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let other = self.errors - self.kinds.iter().sum::<u64>();
        let kinds = ErrorKind::ALL.into_iter().map(ErrorKind::as_str).zip(self.kinds);
        kinds.chain([("other", other)]).filter(|(_, count)| *count > 0)
    }

    fn mean_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.duration_ns as f64 / 1e6 / self.count as f64 }
    }

    fn success_rate(&self) -> f64 {
        if self.count == 0 { 100.0 } else { (self.count - self.errors) as f64 * 100.0 / self.count as f64 }
    }
}

#[derive(Default)]
struct Shard {
    series: HashTable<Series>,
    /// Records of pairs past [`SERIES_MAX`].
    overflow: Totals,
}

/// Aligned so that two cores never write to one cache line.
#[derive(Default)]
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

/// Tracks invocation metrics and answers queries. Thread-safe; cheap to record into from any thread.
///
/// ```
/// use edgeward_model::{FunctionId, InvocationRecord, NodeId};
/// use edgeward_runtime::{EdgeMetrics, Filter};
///
/// let metrics = EdgeMetrics::new();
/// metrics.record(&InvocationRecord::new(FunctionId::new("fn-1")?, NodeId::new("edge-01")?, 42.5, true));
/// assert_eq!(metrics.total_invocations(Filter::function("fn-1")), 1);
/// assert_eq!(metrics.success_rate(Filter::ALL), 100.0);
/// # Ok::<(), edgeward_model::EdgeError>(())
/// ```
#[derive(Default)]
pub struct EdgeMetrics {
    shards: [Aligned; SHARDS],
    hasher: foldhash::fast::RandomState,
}

impl std::fmt::Debug for EdgeMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeMetrics").field("total", &self.total_invocations(Filter::ALL)).finish_non_exhaustive()
    }
}

fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

impl EdgeMetrics {
    /// No records yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one invocation.
    pub fn record(&self, record: &InvocationRecord) {
        let InvocationRecord { function_id, node_id, duration_ms, success, error_kind, cold_start, .. } = record;
        let seen = Observation {
            function_id,
            node_id,
            duration_ms: *duration_ms,
            success: *success,
            error_kind: *error_kind,
            cold_start: *cold_start,
        };
        self.observe(&seen);
    }

    /// Counts one invocation of which nobody keeps a record.
    pub(crate) fn observe(&self, seen: &Observation<'_>) {
        let hash = self.hasher.hash_one((seen.function_id.as_str(), seen.node_id.as_str()));
        let mut shard = self.shards[shard_of_this_thread()].0.lock();
        let same = |series: &Series| series.function_id == *seen.function_id && series.node_id == *seen.node_id;
        if let Some(series) = shard.series.find_mut(hash, same) {
            series.totals.add(seen);
        } else if shard.series.len() < SERIES_MAX {
            let mut totals = Totals::default();
            totals.add(seen);
            let series = Series { function_id: seen.function_id.clone(), node_id: seen.node_id.clone(), totals };
            let rehash = |series: &Series| self.hasher.hash_one((series.function_id.as_str(), series.node_id.as_str()));
            shard.series.insert_unique(hash, series, rehash);
        } else {
            shard.overflow.add(seen);
        }
    }

    /// Where more than half of the series are taken, adds those of functions that are not live to the rest: they are
    /// then counted in the total only, and new functions are counted apart again.
    pub fn make_room(&self, is_live: impl Fn(&str) -> bool) {
        for shard in &self.shards {
            let Shard { series, overflow } = &mut *shard.0.lock();
            if series.len() > SERIES_MAX / 2 {
                series.retain(|series| {
                    let keep = is_live(series.function_id.as_str());
                    if !keep {
                        overflow.merge(&series.totals);
                    }
                    keep
                });
            }
        }
    }

    fn totals(&self, filter: Filter<'_>) -> Totals {
        let mut sum = Totals::default();
        for shard in &self.shards {
            let shard = shard.0.lock();
            shard.series.iter().filter(|series| filter.matches(series)).for_each(|series| sum.merge(&series.totals));
            if filter == Filter::ALL {
                sum.merge(&shard.overflow);
            }
        }
        sum
    }

    /// What has been counted up to now.
    pub fn mark(&self, filter: Filter<'_>) -> Mark {
        Mark(self.totals(filter))
    }

    /// Number of invocations.
    pub fn total_invocations(&self, filter: Filter<'_>) -> u64 {
        self.totals(filter).count
    }

    /// Successful invocations in percent, 0 to 100; 100 with no records.
    pub fn success_rate(&self, filter: Filter<'_>) -> f64 {
        self.totals(filter).success_rate()
    }

    /// Mean duration in milliseconds; 0 with no records.
    pub fn avg_latency_ms(&self, filter: Filter<'_>) -> f64 {
        self.totals(filter).mean_ms()
    }

    /// Number of failed invocations.
    pub fn error_count(&self, filter: Filter<'_>) -> u64 {
        self.totals(filter).errors
    }

    /// Everything above in one consistent reading, with percentiles, cold starts and kinds of errors.
    pub fn summary(&self, filter: Filter<'_>) -> Summary {
        let totals = self.totals(filter);
        let quantile_ms = |quantile| totals.histogram.quantile(quantile) as f64 / 1e6;
        Summary {
            total: totals.count,
            total_invocations: totals.count,
            success_rate: totals.success_rate(),
            avg_latency: totals.mean_ms(),
            avg_latency_ms: totals.mean_ms(),
            error_count: totals.errors,
            p50_ms: quantile_ms(0.5),
            p95_ms: quantile_ms(0.95),
            p99_ms: quantile_ms(0.99),
            cold_starts: totals.cold_starts,
            errors: totals.errors_by_kind().map(|(kind, count)| (kind.into(), count)).collect(),
        }
    }

    /// The records in the text format of Prometheus (version 0.0.4), with the names of OpenTelemetry's `faas.*`
    /// conventions. The records that are not counted apart have the labels `(others)`.
    pub fn prometheus(&self) -> String {
        edgeward_telemetry::text(&self.readings())
    }

    /// The same as readings.
    pub fn readings(&self) -> Vec<Reading> {
        let mut merged: BTreeMap<(String, String), Totals> = BTreeMap::new();
        let mut rest = Totals::default();
        for shard in &self.shards {
            let shard = shard.0.lock();
            for series in &shard.series {
                merged.entry((series.function_id.to_string(), series.node_id.to_string())).or_default().merge(&series.totals);
            }
            rest.merge(&shard.overflow);
        }
        let all = || {
            let apart = merged.iter().map(|((function, node), totals)| (Some([function.as_str(), node]), totals));
            apart.chain((rest.count > 0).then_some((None, &rest)))
        };
        let read = |instrument, number: &dyn Fn(&Totals) -> Number| {
            let mut reading = Reading::new(instrument);
            for (attributes, totals) in all() {
                match attributes {
                    Some(attributes) => reading.push(attributes, number(totals)),
                    None => reading.push_other(number(totals)),
                }
            }
            reading
        };
        let mut errors = Reading::new(&instruments::FUNCTION_ERRORS);
        for (attributes, totals) in all() {
            let [function, node] = attributes.unwrap_or([OTHERS; 2]);
            for (kind, count) in totals.errors_by_kind() {
                errors.push([function, node, kind], count);
            }
        }
        vec![
            read(&instruments::INVOCATIONS, &|totals| totals.count.into()),
            read(&instruments::ERRORS, &|totals| totals.errors.into()),
            read(&instruments::COLDSTARTS, &|totals| totals.cold_starts.into()),
            read(&instruments::TIMEOUTS, &|totals| totals.kinds[ErrorKind::Timeout as usize].into()),
            read(&instruments::INVOKE_DURATION, &|totals| Number::Distribution(totals.histogram.in_seconds(totals.duration_ns))),
            errors,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(function: &str, node: &str, duration_ms: f64, success: bool) -> InvocationRecord {
        InvocationRecord::new(FunctionId::new(function).expect("valid"), NodeId::new(node).expect("valid"), duration_ms, success)
    }

    #[test]
    fn with_no_records_the_success_rate_is_100_and_the_rest_is_0() {
        let summary = EdgeMetrics::new().summary(Filter::ALL);
        assert_eq!((summary.total, summary.error_count), (0, 0));
        assert!((summary.success_rate - 100.0).abs() < f64::EPSILON && summary.avg_latency == 0.0 && summary.p99_ms == 0.0);
    }

    #[test]
    fn queries_count_what_their_filter_names() {
        let metrics = EdgeMetrics::new();
        metrics.record(&record("a", "n1", 10.0, true));
        metrics.record(&record("a", "n2", 20.0, true));
        let mut failed = record("b", "n1", 60.0, false);
        failed.error_kind = Some(ErrorKind::Timeout);
        metrics.record(&failed);
        metrics.record(&record("b", "n1", 30.0, false));
        assert_eq!(metrics.total_invocations(Filter::ALL), 4);
        assert_eq!(metrics.total_invocations(Filter::function("a")), 2);
        assert_eq!(metrics.total_invocations(Filter::function("a").on_node("n2")), 1);
        assert_eq!(metrics.total_invocations(Filter::function("absent")), 0);
        assert!((metrics.success_rate(Filter::ALL) - 50.0).abs() < 1e-9);
        assert!((metrics.avg_latency_ms(Filter::ALL) - 30.0).abs() < 1e-9);
        assert_eq!(metrics.error_count(Filter::function("b")), 2);
        let summary = metrics.summary(Filter::ALL);
        assert_eq!(summary.errors, BTreeMap::from([("other".into(), 1), ("timeout".into(), 1)]));
    }

    #[test]
    fn what_is_counted_between_two_moments_says_nothing_of_before() {
        let metrics = EdgeMetrics::new();
        (0..100).for_each(|_| metrics.record(&record("a", "n", 1000.0, false)));
        let from = metrics.mark(Filter::function("a"));
        (0..100).for_each(|_| metrics.record(&record("a", "n", 10.0, true)));
        metrics.record(&record("b", "n", 1000.0, false));
        let span = from.until(&metrics.mark(Filter::function("a")));
        assert!((span.calls, span.errors) == (100, 0) && (9.5..10.5).contains(&span.p95_ms), "{span:?}");
        assert_eq!(from.until(&from), Span::default());
    }

    #[test]
    fn more_pairs_than_the_bound_are_still_counted_in_the_total() {
        let metrics = EdgeMetrics::new();
        for i in 0..SERIES_MAX + 50 {
            metrics.record(&record(&format!("f{i}"), "n", 1.0, true));
        }
        assert_eq!(metrics.total_invocations(Filter::ALL), SERIES_MAX as u64 + 50);
        assert_eq!(metrics.shards[shard_of_this_thread()].0.lock().series.len(), SERIES_MAX);
        let text = metrics.prometheus();
        assert!(text.contains("faas_invocations_total{faas_name=\"(others)\",edgeward_node_id=\"(others)\"} 50\n"), "{text}");
    }

    #[test]
    fn room_is_made_from_what_is_not_live_and_the_total_stays() {
        let metrics = EdgeMetrics::new();
        let count = |id: &str| metrics.total_invocations(Filter::function(id));
        metrics.record(&record("gone", "n", 1.0, true));
        metrics.make_room(|_| false);
        assert_eq!(count("gone"), 1, "there is room enough");
        for i in 0..SERIES_MAX {
            metrics.record(&record(&format!("f{i}"), "n", 1.0, true));
        }
        metrics.make_room(|id| id == "f0");
        metrics.record(&record("new", "n", 1.0, true));
        assert_eq!((count("f0"), count("gone"), count("new")), (1, 0, 1));
        assert_eq!(metrics.total_invocations(Filter::ALL), SERIES_MAX as u64 + 2);
    }

    #[test]
    fn records_from_many_threads_all_count() {
        let metrics = EdgeMetrics::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|_| metrics.record(&record("a", "n", 1.0, true))));
            }
        });
        assert_eq!(metrics.total_invocations(Filter::ALL), 80_000);
    }

    #[test]
    fn the_exported_text_has_each_family_once_and_cumulative_buckets() {
        let metrics = EdgeMetrics::new();
        metrics.record(&record("a", "n", 2.0, true));
        let text = metrics.prometheus();
        assert_eq!(text.matches("# TYPE").count(), 6);
        assert!(text.contains("faas_invocations_total{faas_name=\"a\",edgeward_node_id=\"n\"} 1\n"), "{text}");
        assert!(text.contains("le=\"0.001\"} 0\n") && text.contains("le=\"0.005\"} 1\n") && text.contains("le=\"+Inf\"} 1\n"), "{text}");
    }
}
