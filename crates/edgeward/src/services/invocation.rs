//! A call of a function and its result, as they go between members: the payload is the message's, all else are header fields.

use bytes::Bytes;
use edgeward_cluster::{
    Message,
    message::{TRACEPARENT, TRACESTATE},
};
use edgeward_model::{EdgeError, FunctionId};
use edgeward_runtime::{CallOptions, Output};
use http::HeaderValue;

use super::CONTENT_TYPE;

/// The header field that names a function.
const FUNCTION: &str = "function";
/// The header field of a call that may run twice.
const IDEMPOTENT: &str = "idempotent";
/// The header field of a call that failed on the node which asks its hub for another.
const TRIED: &str = "tried";

/// A call of a function.
pub(crate) struct Invocation {
    pub(crate) function: FunctionId,
    pub(crate) payload: Bytes,
    pub(crate) options: CallOptions,
    /// Whether its caller says that it may run twice.
    pub(crate) is_idempotent: bool,
    /// Whether it failed on the member that asks.
    pub(crate) was_tried: bool,
}

impl Invocation {
    /// The message of a call.
    pub(crate) fn write(self) -> Result<Message, EdgeError> {
        let Self { function, payload, options, is_idempotent, was_tried } = self;
        let mut message = Message::new(payload);
        message.headers.set(FUNCTION, function.as_str())?;
        for (name, holds) in [(IDEMPOTENT, is_idempotent), (TRIED, was_tried)] {
            if holds {
                message.headers.set(name, "true")?;
            }
        }
        if let Some(content_type) = options.content_type.as_ref().and_then(|value| value.to_str().ok()) {
            message.headers.set(CONTENT_TYPE, content_type)?;
        }
        for (name, value) in [(TRACEPARENT, &options.traceparent), (TRACESTATE, &options.tracestate)] {
            // One that is none is not passed on.
            if let Some(value) = value.as_ref().and_then(|value| value.to_str().ok()) {
                message.headers.set(name, value).unwrap_or_default();
            }
        }
        Ok(message)
    }

    /// The call of a message.
    pub(crate) fn read(message: Message) -> Result<Self, EdgeError> {
        let Message { headers, payload } = message;
        let function = headers.get(FUNCTION).ok_or_else(|| EdgeError::invalid("a call of another member names no function"))?;
        let function = FunctionId::new(function).map_err(|_| EdgeError::function_not_found(function))?;
        let value = |name| headers.get(name).and_then(|value| HeaderValue::from_str(value).ok());
        let traceparent = value(TRACEPARENT);
        let tracestate = value(TRACESTATE).filter(|_| traceparent.is_some());
        let options = CallOptions { content_type: value(CONTENT_TYPE), traceparent, tracestate };
        let holds = |name| headers.get(name) == Some("true");
        Ok(Self { function, payload, options, is_idempotent: holds(IDEMPOTENT), was_tried: holds(TRIED) })
    }

    /// The span in which it is answered.
    pub(crate) fn span(&self) -> tracing::Span {
        let traceparent = self.options.traceparent.as_ref().and_then(|value| value.to_str().ok());
        tracing::info_span!("far call", function = self.function.as_str(), traceparent)
    }
}

/// The message of a result.
pub(crate) fn write_output(output: Output) -> Message {
    let mut answer = Message::new(output.body);
    // What is not printable has no way through the backbone, and is no content type.
    if let Some(content_type) = output.content_type.as_ref().and_then(|value| value.to_str().ok()) {
        answer.headers.set(CONTENT_TYPE, content_type).unwrap_or_default();
    }
    answer
}

/// The result of a message.
pub(crate) fn read_output(answer: Message) -> Output {
    let content_type = answer.headers.get(CONTENT_TYPE).and_then(|value| HeaderValue::from_str(value).ok());
    Output { body: answer.payload, content_type }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn there(options: CallOptions, [is_idempotent, was_tried]: [bool; 2]) -> Invocation {
        let function = FunctionId::new("f").expect("valid");
        let message = Invocation { function, payload: "x".into(), options, is_idempotent, was_tried }.write().expect("valid");
        Invocation::read(message).expect("its own")
    }

    #[test]
    fn a_call_reads_back_with_its_type_and_its_trace() {
        let value = |text: &'static str| Some(HeaderValue::from_static(text));
        let options = CallOptions { content_type: value("text/plain"), traceparent: value(TRACE), tracestate: value("a=1") };
        let read = there(options.clone(), [true, false]);
        assert_eq!((read.function.as_str(), read.payload, read.is_idempotent, read.was_tried), ("f", Bytes::from("x"), true, false));
        let known = |options: CallOptions| (options.content_type, options.traceparent, options.tracestate);
        assert_eq!(known(read.options), known(options));
        let read = there(CallOptions { traceparent: value("no trace"), tracestate: value("a=1"), content_type: None }, [false, true]);
        assert_eq!(
            (known(read.options), read.is_idempotent, read.was_tried),
            ((None, None, None), false, true),
            "without a trace its state says nothing"
        );
    }

    #[test]
    fn a_call_that_names_no_function_is_refused() {
        assert!(Invocation::read(Message::new("x")).is_err());
    }
}
