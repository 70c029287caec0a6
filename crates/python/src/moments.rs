//! Moments: naive local `datetime`s outside, as `datetime.now()` makes them, and UTC inside.

use edgeward::EdgeError;
use jiff::Timestamp;
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyFloat, PyType},
};

use crate::errors::OrRaise;

static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// A moment as a naive local `datetime`.
pub(crate) fn to_python(py: Python<'_>, moment: Timestamp) -> PyResult<Py<PyAny>> {
    let class = DATETIME.import(py, "datetime", "datetime")?;
    // Microseconds of this century are exact to a quarter of one in a float, and `fromtimestamp` rounds to the nearest.
    let seconds = moment.as_microsecond() as f64 / 1e6;
    Ok(class.call_method1("fromtimestamp", (PyFloat::new(py, seconds),))?.unbind())
}

/// The moment of a `datetime`: a naive one is local.
pub(crate) fn of_python(datetime: &Bound<'_, PyAny>) -> PyResult<Timestamp> {
    let seconds: f64 = datetime.call_method0("timestamp")?.extract()?;
    #[expect(clippy::cast_possible_truncation, reason = "out of range it saturates, and is refused")]
    let microseconds = (seconds * 1e6).round() as i64;
    let moment = Timestamp::from_microsecond(microseconds);
    moment.map_err(|_| EdgeError::invalid("the moment is not valid: it is too far away")).or_raise(datetime.py())
}
