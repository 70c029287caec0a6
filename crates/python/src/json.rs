//! What the HTTP API says as JSON, as dictionaries of Python, and back.

use edgeward::EdgeError;
use pyo3::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use crate::errors::OrRaise;

/// As the HTTP API says it.
pub(crate) fn shown<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(value).expect("views are objects with keys of text");
    py.import("json")?.call_method1("loads", (text,))
}

/// What an object of Python says to JSON; `what` names it.
pub(crate) fn read<T: DeserializeOwned>(object: &Bound<'_, PyAny>, what: &str) -> PyResult<T> {
    let py = object.py();
    let text: String = py.import("json")?.call_method1("dumps", (object,))?.extract()?;
    serde_json::from_str(&text).map_err(|error| EdgeError::invalid(format!("the {what} is not valid: {error}"))).or_raise(py)
}
