//! Errors of the product as Python's exceptions, and exceptions of handlers as errors of the product: here and nowhere else.
//!
//! Every exception carries `kind`, the one word by which the product tells its errors apart.

use std::{error::Error, fmt};

use edgeward::{EdgeError, ErrorKind};
use pyo3::{
    exceptions::{PyBaseException, PyConnectionError, PyPermissionError, PyRuntimeError, PyValueError},
    prelude::*,
    sync::PyOnceLock,
    types::PyType,
};

static EXECUTION: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static TIMEOUT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
const MODULE: &str = "edgeward._errors";

/// What a Python handler raised.
#[derive(Debug)]
struct Raised {
    text: String,
    exception: Py<PyBaseException>,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Raised {}

/// The error of an invocation whose handler raised.
pub(crate) fn raised(py: Python<'_>, function: &str, error: PyErr) -> EdgeError {
    let text = error.to_string();
    let message = format!("function `{function}` failed: {text}");
    EdgeError::new(ErrorKind::ExecutionFailed, message).with_source(Raised { text, exception: error.into_value(py) })
}

/// The exception of an error.
pub(crate) fn exception(py: Python<'_>, error: &EdgeError) -> PyErr {
    made(py, error).unwrap_or_else(|defect| defect)
}

fn made(py: Python<'_>, error: &EdgeError) -> PyResult<PyErr> {
    let kind = error.kind();
    let class = match kind {
        ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::TooLarge | ErrorKind::RefusedArtifact | ErrorKind::Conflict => {
            py.get_type::<PyValueError>()
        }
        ErrorKind::Timeout => TIMEOUT.import(py, MODULE, "EdgeTimeoutError")?.clone(),
        ErrorKind::ExecutionFailed | ErrorKind::MemoryLimit | ErrorKind::Overloaded => {
            EXECUTION.import(py, MODULE, "EdgeExecutionError")?.clone()
        }
        ErrorKind::Unavailable => py.get_type::<PyConnectionError>(),
        ErrorKind::Forbidden | ErrorKind::Unauthenticated => py.get_type::<PyPermissionError>(),
        ErrorKind::Internal => py.get_type::<PyRuntimeError>(),
    };
    let cause = error.source().and_then(|source| source.downcast_ref::<Raised>());
    let message = if cause.is_some() { error.to_string() } else { error.chain() };
    let exception = class.call1((message,))?;
    exception.setattr("kind", kind.as_str())?;
    if matches!(kind, ErrorKind::Timeout | ErrorKind::ExecutionFailed | ErrorKind::MemoryLimit | ErrorKind::Overloaded) {
        let failure = error.failure();
        exception.setattr("status", failure.status)?;
        exception.setattr("exit_code", failure.exit_code)?;
        exception.setattr("stderr_tail", &failure.stderr_tail)?;
    }
    let made = PyErr::from_value(exception);
    if let Some(cause) = cause {
        made.set_cause(py, Some(PyErr::from_value(cause.exception.bind(py).clone().into_any())));
    }
    Ok(made)
}

/// Turns the error of a result into its exception.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T, EdgeError> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, &error))
    }
}
