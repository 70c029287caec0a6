//! Messages as parts of traces: the trace of a message is its attribute `traceparent`, as `CloudEvents` has it.

use edgeward_model::Trigger;
use edgeward_telemetry::{Span, SpanKind, TraceContext, begin, instruments::MESSAGING_SYSTEM, span::tracer};
use edgeward_topics::Message;

const TRACEPARENT: &str = "traceparent";

/// The trace of a message.
pub(super) fn trace_of(message: &Message) -> Option<TraceContext> {
    message.attributes.iter().find(|(name, _)| name == TRACEPARENT).and_then(|(_, value)| TraceContext::parse(value))
}

/// The span of publishing a message that is part of a trace, which the message is below from now on. Another begins no trace: sensors
/// publish all the time.
pub(crate) fn publish(message: &mut Message) -> Option<Span> {
    tracer()?;
    let parent = trace_of(message)?;
    let mut span = begin(Some(parent), SpanKind::Producer, || format!("publish {}", message.topic))?;
    describe(&mut span, "publish", message);
    let trace = message.attributes.iter_mut().find(|(name, _)| name == TRACEPARENT);
    if let Some((_, trace)) = trace {
        *trace = span.context().to_string();
    }
    Some(span)
}

/// The span of an attempt to handle a message.
pub(super) fn process(trigger: &Trigger, message: &Message) -> Option<Span> {
    tracer()?;
    let mut span = begin(trace_of(message), SpanKind::Consumer, || format!("process {}", message.topic))?;
    describe(&mut span, "process", message);
    span.set("messaging.consumer.group.name", trigger.id.as_str());
    if let Some(position) = message.position {
        span.set("messaging.message.id", position.to_string().as_str());
    }
    span.set("faas.trigger", "pubsub");
    Some(span)
}

fn describe(span: &mut Span, operation: &str, message: &Message) {
    span.set("messaging.system", MESSAGING_SYSTEM);
    span.set("messaging.operation.name", operation);
    span.set("messaging.operation.type", if operation == "publish" { "send" } else { operation });
    span.set("messaging.destination.name", message.topic.as_str());
    span.set("messaging.message.body.size", message.payload.len() as u64);
}
