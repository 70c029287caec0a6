//! Moments: naive local `datetime`s outside, as `datetime.now()` makes them, and UTC inside.

use jiff::Timestamp;
use pyo3::{
    exceptions::{PyOverflowError, PyTypeError, PyValueError},
    prelude::*,
    sync::PyOnceLock,
    types::{PyFloat, PyType},
};

static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The moments that a naive `datetime` can be in every time zone, in seconds since 1970: from 3 January of the year 1 to 29 December 9999.
const SECONDS: (f64, f64) = (-62_135_424_000.0, 253_402_041_600.0);

/// A moment as a naive local `datetime`.
pub(crate) fn to_python(py: Python<'_>, moment: Timestamp) -> PyResult<Py<PyAny>> {
    let class = DATETIME.import(py, "datetime", "datetime")?;
    // Microseconds of this century are exact to a quarter of one in a float, and `fromtimestamp` rounds to the nearest.
    let seconds = moment.as_microsecond() as f64 / 1e6;
    Ok(class.call_method1("fromtimestamp", (PyFloat::new(py, seconds),))?.unbind())
}

/// The moment of the `datetime` of a field: a naive one is local. `datetime.min` and `datetime.max` stand for "long ago" and "one day".
pub(crate) fn of_python(datetime: &Bound<'_, PyAny>, name: &str) -> PyResult<Timestamp> {
    let py = datetime.py();
    if !datetime.is_instance(DATETIME.import(py, "datetime", "datetime")?)? {
        let class = datetime.get_type().name()?;
        return Err(PyTypeError::new_err(format!("`{name}` is not valid: it must be a datetime, not {class}")));
    }
    let seconds = match datetime.call_method0("timestamp") {
        Ok(seconds) => seconds.extract()?,
        // So near to the ends the platform may not know the time zone.
        Err(error) if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyOverflowError>(py) => {
            if datetime.getattr("year")?.extract::<u32>()? < 1970 { f64::MIN } else { f64::MAX }
        }
        Err(error) => return Err(error),
    };
    #[expect(clippy::cast_possible_truncation, reason = "it is within the bounds")]
    let microseconds = (seconds.clamp(SECONDS.0, SECONDS.1) * 1e6).round() as i64;
    Ok(Timestamp::from_microsecond(microseconds).expect("years 1 to 9999 are moments"))
}
