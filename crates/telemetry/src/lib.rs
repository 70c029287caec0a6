//! Telemetry: what is counted and how it is named ([`instruments`]), where in a trace something happens ([`trace`]), and how both leave the
//! process, as text for Prometheus and over OTLP.
//!
//! Nothing here asks for anything: who owns a number reads it into [`Reading`]s when somebody wants to see it. A span costs one load of an
//! atomic while nobody traces.

pub mod histogram;
pub mod instruments;
pub mod otlp;
mod prometheus;
mod reading;
pub mod span;
pub mod trace;

pub use histogram::{DURATION_SECONDS, Histogram};
pub use instruments::{Instrument, Kind};
pub use otlp::{Exporter, OtlpOptions, options::OtlpUrl};
pub use prometheus::text;
pub use reading::{Distribution, Number, OTHERS, Point, Reading};
pub use span::{Sampler, Span, SpanKind, Tracer, begin};
pub use trace::TraceContext;
