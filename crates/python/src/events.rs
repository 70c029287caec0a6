//! Messages and events as Python's dictionaries: as the HTTP API tells messages, and as handlers get events.

use std::sync::Arc;

use bytes::Bytes;
use edgeward::{CloudEvent, EdgeError, ErrorKind, Message, NativeHandler, Permit, cloud_event};
use http::request::Parts;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyTuple},
};
use tokio::time::Instant;

use crate::{
    errors::raised,
    workers::{self, Arguments, Callable},
};

/// The code of a function that is a callable. A request that is an event calls it with the event; what else there is to call it with are
/// objects of Python.
pub(crate) fn handler_of(callable: Arc<Callable>) -> NativeHandler {
    NativeHandler::foreign_serving(callable, serve)
}

async fn serve(callable: Arc<Callable>, parts: Parts, body: Bytes, permit: Permit, deadline: Instant) -> Result<(), EdgeError> {
    let event = event_of(&parts, body)?
        .ok_or_else(|| EdgeError::invalid(format!("function `{}` is a callable: of requests it takes events only", callable.function)))?;
    let arguments = Python::try_attach(|py| {
        let positional = event_to_python(py, &event, parts.extensions.get::<Arc<Message>>().map(AsRef::as_ref))
            .and_then(|event| PyTuple::new(py, [event]))
            .map_err(|error| raised(py, &callable.function, error))?;
        Ok(Arguments { positional: positional.unbind(), named: None })
    });
    let arguments = arguments.unwrap_or_else(|| Err(EdgeError::new(ErrorKind::Unavailable, "the interpreter ends")))?;
    workers::call(callable, arguments, permit, deadline.into_std()).await.map(drop)
}

/// The event of a request, in either mode; none where it is none.
fn event_of(parts: &Parts, body: Bytes) -> Result<Option<CloudEvent>, EdgeError> {
    let is_structured = parts.headers.get(http::header::CONTENT_TYPE).is_some_and(|value| value == cloud_event::STRUCTURED);
    if is_structured {
        return CloudEvent::from_json(&body).map(Some);
    }
    let fields = parts.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    Ok(CloudEvent::from_headers(fields, body))
}

/// An event with its attributes by name, its data, and of which message it is.
fn event_to_python<'py>(py: Python<'py>, event: &CloudEvent, message: Option<&Message>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in &event.attributes {
        dict.set_item(name, value)?;
    }
    set(&dict, "datacontenttype", event.content_type.as_deref())?;
    if let Some(message) = message {
        dict.set_item("topic", message.topic.as_str())?;
        dict.set_item("position", message.position)?;
    }
    set_data(&dict, event.content_type.as_deref(), &event.data)?;
    Ok(dict)
}

/// A message as the HTTP API tells it.
pub(crate) fn message_to_python<'py>(py: Python<'py>, message: &Message) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    set(&dict, "position", message.position)?;
    dict.set_item("topic", message.topic.as_str())?;
    dict.set_item("published_at", message.published_at.to_string())?;
    set(&dict, "publisher", message.publisher.as_deref())?;
    set(&dict, "node", message.origin.as_ref().map(|origin| origin.node.as_str()))?;
    set(&dict, "key", message.key.as_deref())?;
    set(&dict, "content_type", message.content_type.as_deref())?;
    set(&dict, "expires_at", message.expires_at.map(|at| at.to_string()))?;
    if !message.attributes.is_empty() {
        let pairs = message.attributes.iter().map(|(name, value)| [name.as_str(), value.as_str()]);
        dict.set_item("attributes", pairs.collect::<Vec<_>>())?;
    }
    set_data(&dict, message.content_type.as_deref(), &message.payload)?;
    Ok(dict)
}

fn set<'py>(dict: &Bound<'py, PyDict>, name: &str, value: Option<impl IntoPyObject<'py>>) -> PyResult<()> {
    value.map_or(Ok(()), |value| dict.set_item(name, value))
}

/// Sets `data`: what the JSON says where it is some, else the text; of what is no text `data_base64`.
fn set_data(dict: &Bound<'_, PyDict>, content_type: Option<&str>, payload: &Bytes) -> PyResult<()> {
    let py = dict.py();
    let Ok(text) = std::str::from_utf8(payload) else {
        let encoded = py.import("base64")?.call_method1("b64encode", (PyBytes::new(py, payload),))?.call_method0("decode")?;
        return dict.set_item("data_base64", encoded);
    };
    if content_type.is_some_and(cloud_event::is_json)
        && let Ok(data) = py.import("json")?.call_method1("loads", (text,))
    {
        return dict.set_item("data", data);
    }
    dict.set_item("data", text)
}
