//! Messages as parts of traces: the trace of a message is its attribute `traceparent`, as `CloudEvents` has it, with `tracestate` beside it.

use edgeward_model::Trigger;
use edgeward_telemetry::{
    Span, SpanKind, TraceContext, begin,
    instruments::MESSAGING_SYSTEM,
    span::tracer,
    trace::{TRACEPARENT, TRACESTATE},
};
use edgeward_topics::Message;
use http::{HeaderMap, HeaderValue};

/// The trace of a message.
fn trace_of(message: &Message) -> Option<TraceContext> {
    TraceContext::parse(attribute(message, TRACEPARENT.as_str())?)
}

fn attribute<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
}

/// Makes a call that handles a message a part of its trace, below this span where there is one.
pub(super) fn carry(message: &Message, span: Option<&Span>, headers: &mut HeaderMap) {
    if let Some(trace) = trace_of(message) {
        headers.insert(TRACEPARENT.clone(), trace.to_value());
        let state = attribute(message, TRACESTATE.as_str()).and_then(|state| HeaderValue::try_from(state).ok());
        headers.extend(state.map(|state| (TRACESTATE.clone(), state)));
    }
    if let Some(span) = span {
        span.carry(headers);
    }
}

/// The span of publishing a message that is part of a trace, which the message is below from now on. Another begins no trace: sensors
/// publish all the time.
pub(crate) fn publish(message: &mut Message) -> Option<Span> {
    tracer()?;
    let parent = trace_of(message)?;
    let mut span = begin(Some(parent), SpanKind::Producer, || format!("publish {}", message.topic))?;
    describe(&mut span, "publish", message);
    let trace = message.attributes.iter_mut().find(|(name, _)| name == TRACEPARENT.as_str());
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

#[cfg(test)]
mod tests {
    use edgeward_model::TopicName;
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn the_call_for_a_message_has_its_trace_with_its_state() {
        const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let carried = |attributes: &[(&str, &str)]| {
            let mut message = Message::new(TopicName::new("a").expect("valid"), "", Timestamp::UNIX_EPOCH);
            message.attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let mut headers = HeaderMap::new();
            carry(&message, None, &mut headers);
            let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().expect("text").to_owned());
            (text(&TRACEPARENT), text(&TRACESTATE))
        };
        let both = [("traceparent", TRACE), ("tracestate", "a=1")];
        assert_eq!(carried(&both), (Some(TRACE.to_owned()), Some("a=1".to_owned())));
        assert_eq!(carried(&[both[0], ("tracestate", "a\n")]), (Some(TRACE.to_owned()), None));
        assert_eq!(carried(&both[1..]), (None, None), "it says nothing by itself");
    }
}
