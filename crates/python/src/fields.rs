//! What fields and arguments of Python say, as values of Rust. What is wrong with one is told with its name.

use edgeward::EdgeError;
use pyo3::{
    Borrowed,
    conversion::FromPyObjectOwned,
    exceptions::{PyOverflowError, PyTypeError},
    prelude::*,
    types::PyString,
};

use crate::errors::{OrRaise, exception};

/// The value of a field.
pub(crate) fn field<'py, T: FromPyObjectOwned<'py>>(value: &Bound<'py, PyAny>, name: &str) -> PyResult<T> {
    value.extract().map_err(|error: T::Error| of_field(value.py(), name, error.into()))
}

/// An error about what a field holds.
fn of_field(py: Python<'_>, name: &str, error: PyErr) -> PyErr {
    if error.is_instance_of::<PyOverflowError>(py) {
        exception(py, &EdgeError::invalid(format!("`{name}` is not valid: the number is out of range")))
    } else if error.is_instance_of::<PyTypeError>(py) {
        PyTypeError::new_err(format!("`{name}` is not valid: {}", error.value(py)))
    } else {
        error
    }
}

/// The id that a field or an argument says; anything but text names nothing.
pub(crate) fn text<'a>(id: &'a Bound<'_, PyAny>, what: &str) -> PyResult<&'a str> {
    let text = id.cast::<PyString>().map_err(|_| {
        let class = id.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("a {what} must be a str, not {class}"))
    })?;
    text.to_str().map_err(|_| EdgeError::invalid(format!("the {what} is not valid: it holds a lone surrogate"))).or_raise(id.py())
}

/// A version of a state, as an argument.
#[derive(Clone, Copy)]
pub(crate) struct Version(pub(crate) u64);

impl FromPyObject<'_, '_> for Version {
    type Error = PyErr;

    fn extract(version: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        field(&version.to_owned(), "version").map(Self)
    }
}
