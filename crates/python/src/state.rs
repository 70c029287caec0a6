//! `SyncState`: a state with its version and checksum.

use edgeward::checksum_of;
use jiff::Timestamp;
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyDict, PyTuple, PyType},
};

use crate::{
    fields::field,
    moments,
    values::{not_a_dict, object_of, object_to_python, write},
};

/// State synchronization snapshot: `version`, `data`, `checksum` and `updated_at`.
#[pyclass(module = "edgeward", subclass, dict, weakref)]
pub(crate) struct SyncState {
    #[pyo3(get, set)]
    version: Py<PyAny>,
    #[pyo3(get, set)]
    data: Py<PyAny>,
    #[pyo3(get, set)]
    checksum: Py<PyAny>,
    updated_at: Moment,
}

/// A moment that becomes a `datetime` when somebody looks at it.
enum Moment {
    Known(Timestamp),
    Shown(Py<PyAny>),
}

impl SyncState {
    fn of(py: Python<'_>, version: Py<PyAny>, data: Py<PyAny>, checksum: &str, updated_at: Timestamp) -> PyResult<Self> {
        let checksum = checksum.into_pyobject(py)?.into_any().unbind();
        Ok(Self { version, data, checksum, updated_at: Moment::Known(updated_at) })
    }

    /// A state of the product.
    pub(crate) fn of_state(py: Python<'_>, state: &edgeward::SyncState) -> PyResult<Self> {
        let version = state.version.into_pyobject(py)?.into_any().unbind();
        let data = object_to_python(py, &state.data)?.into_any().unbind();
        Self::of(py, version, data, &state.checksum, state.updated_at)
    }

    /// As the product keeps it, whatever its fields are now.
    pub(crate) fn to_state(&self, py: Python<'_>) -> PyResult<edgeward::SyncState> {
        let updated_at = match &self.updated_at {
            Moment::Known(moment) => *moment,
            Moment::Shown(datetime) => moments::of_python(datetime.bind(py), "updated_at")?,
        };
        Ok(edgeward::SyncState {
            version: field(self.version.bind(py), "version")?,
            data: object_of(self.data.bind(py))?,
            checksum: field(self.checksum.bind(py), "checksum")?,
            updated_at,
        })
    }
}

fn checksum(data: &Bound<'_, PyAny>) -> PyResult<String> {
    if !data.is_instance_of::<PyDict>() {
        return Err(not_a_dict(data));
    }
    checksum_of(|writer| write(writer, data)).map_err(|refused| refused.into_exception(data.py()))
}

#[pymethods]
impl SyncState {
    #[new]
    #[pyo3(signature = (*_arguments, **_named), text_signature = "(version, data, checksum, updated_at=...)")]
    fn __new__(py: Python<'_>, _arguments: &Bound<'_, PyTuple>, _named: Option<&Bound<'_, PyDict>>) -> Self {
        Self { version: py.None(), data: py.None(), checksum: py.None(), updated_at: Moment::Known(Timestamp::UNIX_EPOCH) }
    }

    #[pyo3(signature = (version, data, checksum, updated_at=None))]
    fn __init__(&mut self, version: Py<PyAny>, data: Py<PyAny>, checksum: Py<PyAny>, updated_at: Option<Py<PyAny>>) {
        let updated_at = updated_at.map_or_else(|| Moment::Known(Timestamp::now()), Moment::Shown);
        *self = Self { version, data, checksum, updated_at };
    }

    /// A state of now, with the checksum of `data`.
    #[classmethod]
    fn from_data(class: &Bound<'_, PyType>, data: Bound<'_, PyAny>, version: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let py = class.py();
        let checksum = checksum(&data)?;
        let own = py.get_type::<Self>();
        if class.is(&own) {
            return Ok(Py::new(py, Self::of(py, version, data.unbind(), &checksum, Timestamp::now())?)?.into_any());
        }
        Ok(class.call1((version, data, checksum))?.unbind())
    }

    /// Whether the checksum is that of the data.
    fn verify(&self, py: Python<'_>) -> PyResult<bool> {
        match checksum(self.data.bind(py)) {
            Ok(checksum) => self.checksum.bind(py).eq(checksum),
            // What has no checksum has not this one.
            Err(error) if error.is_instance_of::<PyTypeError>(py) => Err(error),
            Err(_) => Ok(false),
        }
    }

    #[getter]
    fn updated_at(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Moment::Known(moment) = self.updated_at {
            self.updated_at = Moment::Shown(moments::to_python(py, moment)?);
        }
        match &self.updated_at {
            Moment::Shown(datetime) => Ok(datetime.clone_ref(py)),
            Moment::Known(moment) => moments::to_python(py, *moment),
        }
    }

    #[setter]
    fn set_updated_at(&mut self, updated_at: Py<PyAny>) {
        self.updated_at = Moment::Shown(updated_at);
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.data)
    }

    fn __clear__(&mut self, py: Python<'_>) {
        self.data = py.None();
    }
}
