//! The messages of OTLP 1: field numbers are those of `opentelemetry-proto`, package `opentelemetry.proto`, version 1.

use bytes::Bytes;
use jiff::Timestamp;

use super::protobuf::Message;
use crate::{
    instruments::Kind,
    reading::{Distribution, Number, Point, Reading},
    span::{Ended, SpanKind, Value},
};

/// Who counts and traces.
const SCOPE: &str = "edgeward";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;
/// `SPAN_FLAGS_TRACE_FLAGS_MASK` has the flags of W3C; this one says that the trace is kept.
const SAMPLED: u32 = 1;
/// Bytes that a point takes, about, and those of a bucket.
const POINT_BYTES: usize = 128;
const BUCKET_BYTES: usize = 16;

/// What this process is, as it is written.
#[derive(Debug)]
pub(super) struct Resource(Vec<u8>);

impl Resource {
    /// Of these attributes; the second ones replace the first ones.
    pub(super) fn new(attributes: &[(String, String)], chosen: &[(String, String)]) -> Self {
        let mut message = Message::default();
        let kept = attributes.iter().filter(|(key, _)| chosen.iter().all(|(other, _)| other != key));
        for (key, value) in kept.chain(chosen) {
            message.message(1, |pair| attribute(pair, key, &Value::Text(value.clone())));
        }
        Self(message.into_bytes())
    }
}

/// A `KeyValue`.
fn attribute(pair: &mut Message, key: &str, value: &Value) {
    pair.text(1, key);
    pair.message(2, |any| match value {
        Value::Text(text) => any.bytes_always(1, text.as_bytes()),
        Value::Is(is_so) => any.number_always(2, (*is_so).into()),
        Value::Whole(number) => any.number_always(3, number.cast_unsigned()),
    });
}

fn scope(message: &mut Message) {
    message.message(1, |scope| {
        scope.text(1, SCOPE);
        scope.text(2, VERSION);
    });
}

fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or(0)
}

/// An `ExportTraceServiceRequest`.
pub(super) fn traces(resource: &Resource, spans: &[Ended]) -> Bytes {
    let mut request = Message::default();
    request.message(1, |of_resource| {
        of_resource.bytes_always(1, &resource.0);
        of_resource.message(2, |of_scope| {
            scope(of_scope);
            for ended in spans {
                of_scope.message(2, |message| span(message, ended));
            }
        });
    });
    request.into_bytes().into()
}

fn span(message: &mut Message, span: &Ended) {
    let Ended { context, parent, name, kind, began_at, took, attributes, failure } = span;
    message.bytes(1, &context.trace_id.to_be_bytes());
    message.bytes(2, &context.span_id.to_be_bytes());
    if let Some(parent) = parent {
        message.bytes(4, &parent.to_be_bytes());
    }
    message.text(5, name);
    message.number(
        6,
        match kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
            SpanKind::Producer => 4,
            SpanKind::Consumer => 5,
        },
    );
    let began = nanos(*began_at);
    message.fixed64(7, began);
    message.fixed64(8, began.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)));
    for (key, value) in attributes {
        message.message(9, |pair| attribute(pair, key, value));
    }
    if let Some(why) = failure {
        message.message(15, |status| {
            status.text(2, why);
            status.number(3, ERROR);
        });
    }
    message.fixed32(16, if context.is_sampled { SAMPLED } else { 0 });
}

/// The readings in parts of about so many bytes each.
pub(super) fn parts(readings: &[Reading], bytes_max: usize) -> impl Iterator<Item = &[Reading]> {
    let mut rest = readings;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |reading: &&Reading| {
            let buckets = |point: &Point| match &point.number {
                Number::Distribution(values) => values.counts.len() * BUCKET_BYTES,
                Number::Whole(_) | Number::Real(_) => 0,
            };
            bytes += reading.points.iter().map(|point| POINT_BYTES + buckets(point)).sum::<usize>();
            bytes <= bytes_max
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (part, others) = rest.split_at(count);
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// An `ExportMetricsServiceRequest`. Instruments without numbers are left out.
pub(super) fn metrics(resource: &Resource, readings: &[Reading], began_at: Timestamp, now: Timestamp) -> Bytes {
    let times = (nanos(began_at), nanos(now));
    let mut request = Message::default();
    request.message(1, |of_resource| {
        of_resource.bytes_always(1, &resource.0);
        of_resource.message(2, |of_scope| {
            scope(of_scope);
            for reading in readings.iter().filter(|reading| !reading.points.is_empty()) {
                of_scope.message(2, |message| metric(message, reading, times));
            }
        });
    });
    request.into_bytes().into()
}

fn metric(message: &mut Message, reading: &Reading, times: (u64, u64)) {
    let instrument = reading.instrument;
    // Nobody knows since when all starts are; a false moment would make a restart look like a burst.
    let times = if instrument.kind == Kind::Total { (0, times.1) } else { times };
    message.text(1, instrument.name);
    message.text(2, instrument.help);
    message.text(3, instrument.unit);
    let (field, is_monotonic) = match instrument.kind {
        Kind::Gauge => (5, None),
        Kind::Counter | Kind::Total => (7, Some(true)),
        Kind::UpDownCounter => (7, Some(false)),
        Kind::Histogram => (9, None),
    };
    message.message(field, |data| {
        for point in &reading.points {
            data.message(1, |message| write_point(message, reading, point, times));
        }
        if instrument.kind != Kind::Gauge {
            data.number(2, CUMULATIVE);
        }
        data.number(3, is_monotonic.unwrap_or(false).into());
    });
}

fn write_point(message: &mut Message, reading: &Reading, point: &Point, (began, now): (u64, u64)) {
    let attributes_field = if matches!(point.number, Number::Distribution(_)) { 9 } else { 7 };
    for (key, value) in reading.instrument.attributes.iter().zip(&point.attributes) {
        message.message(attributes_field, |pair| attribute(pair, key, &Value::Text(value.clone())));
    }
    message.fixed64(2, began);
    message.fixed64(3, now);
    match &point.number {
        Number::Whole(number) => message.fixed64_always(6, *number),
        Number::Real(number) => message.double_always(4, *number),
        Number::Distribution(Distribution { count, sum, bounds, counts }) => {
            message.fixed64(4, *count);
            message.double_always(5, *sum);
            message.packed(6, counts.iter().map(|count| count.to_le_bytes()));
            message.packed(7, bounds.iter().map(|bound| bound.to_le_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruments::{DOCUMENTS, INVOCATIONS, UPTIME};

    #[test]
    fn many_readings_go_in_parts_and_each_goes_once() {
        let mut large = Reading::new(&INVOCATIONS);
        (0..100).for_each(|number| large.push([&*format!("f{number}"), "n"], 1_u64));
        let readings = [Reading::of(&DOCUMENTS, 1_u64), large, Reading::of(&UPTIME, 1.0), Reading::of(&DOCUMENTS, 2_u64)];
        let split = |bytes| parts(&readings, bytes).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!((split(1 << 20), split(POINT_BYTES * 10), split(0)), (vec![4], vec![1, 1, 2], vec![1; 4]));
        assert_eq!(parts(&[], 10).count(), 0);
    }

    #[test]
    fn what_is_chosen_replaces_what_is_known() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let of = |attributes: &[_], chosen: &[_]| Resource::new(attributes, chosen).0;
        let expected = of(&[pair("b", "2"), pair("a", "3")], &[]);
        assert_eq!(of(&[pair("a", "1"), pair("b", "2")], &[pair("a", "3")]), expected);
    }
}
