//! `EdgeNode`: a node as Python's owner of it sees and changes it. The product gets a copy where it needs one.

use edgeward::{EdgeError, EdgeNodeStatus};
use jiff::Timestamp;
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyList, PyTuple, PyType},
};

use crate::{
    errors::OrRaise,
    fields::{field, text},
    moments,
};

static STATUS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The Python enumeration's member of a status.
pub(crate) fn status_to_python(py: Python<'_>, status: EdgeNodeStatus) -> PyResult<Py<PyAny>> {
    Ok(STATUS.import(py, "edgeward._status", "EdgeNodeStatus")?.call1((status.as_str(),))?.unbind())
}

/// The status that a member of the Python enumeration, or its value, is.
pub(crate) fn status_of_python(status: &Bound<'_, PyAny>) -> PyResult<EdgeNodeStatus> {
    let py = status.py();
    let member = STATUS.import(py, "edgeward._status", "EdgeNodeStatus")?.call1((status,));
    let member = member.map_err(|_| EdgeError::invalid(format!("{status:?} is no status of a node; see EdgeNodeStatus"))).or_raise(py)?;
    member.getattr("value")?.extract::<String>()?.parse().or_raise(py)
}

/// A physical or virtual edge node.
#[pyclass(module = "edgeward", subclass, dict, weakref)]
pub(crate) struct EdgeNode {
    #[pyo3(get, set)]
    pub(crate) id: Py<PyAny>,
    #[pyo3(get, set)]
    name: Py<PyAny>,
    #[pyo3(get, set)]
    location: Py<PyAny>,
    #[pyo3(get, set)]
    pub(crate) status: Py<PyAny>,
    #[pyo3(get, set)]
    capabilities: Py<PyAny>,
    #[pyo3(get, set)]
    metadata: Py<PyAny>,
    #[pyo3(get, set)]
    pub(crate) last_heartbeat: Py<PyAny>,
    #[pyo3(get, set)]
    labels: Py<PyAny>,
}

impl EdgeNode {
    /// As the product keeps it, checked against every bound. What `metadata` holds stays Python's.
    pub(crate) fn to_model(&self, py: Python<'_>) -> PyResult<edgeward::EdgeNode> {
        let id = self.id.bind(py);
        let mut node = edgeward::EdgeNode::new(text(id, "node id")?, field::<String>(self.name.bind(py), "name")?).or_raise(py)?;
        node.location = field(self.location.bind(py), "location")?;
        node.status = status_of_python(self.status.bind(py))?;
        node.capabilities = field(self.capabilities.bind(py), "capabilities")?;
        node.labels = field(self.labels.bind(py), "labels")?;
        node.last_heartbeat = moments::of_python(self.last_heartbeat.bind(py), "last_heartbeat")?;
        node.validate().or_raise(py)?;
        Ok(node)
    }
}

#[pymethods]
impl EdgeNode {
    #[new]
    #[pyo3(
        signature = (*_arguments, **_named),
        text_signature = "(id, name, location='', status=..., capabilities=..., metadata=..., last_heartbeat=..., labels=...)"
    )]
    fn __new__(py: Python<'_>, _arguments: &Bound<'_, PyTuple>, _named: Option<&Bound<'_, PyDict>>) -> Self {
        let none = || py.None();
        Self {
            id: none(),
            name: none(),
            location: none(),
            status: none(),
            capabilities: none(),
            metadata: none(),
            last_heartbeat: none(),
            labels: none(),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the specification, each of them an argument in Python")]
    #[pyo3(signature = (id, name, location=None, status=None, capabilities=None, metadata=None, last_heartbeat=None, labels=None))]
    fn __init__(
        &mut self,
        py: Python<'_>,
        id: Py<PyAny>,
        name: Py<PyAny>,
        location: Option<Py<PyAny>>,
        status: Option<Py<PyAny>>,
        capabilities: Option<Py<PyAny>>,
        metadata: Option<Py<PyAny>>,
        last_heartbeat: Option<Py<PyAny>>,
        labels: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let made = |value: Option<Py<PyAny>>, default: &dyn Fn() -> PyResult<Py<PyAny>>| value.map_or_else(default, Ok);
        *self = Self {
            id,
            name,
            location: made(location, &|| Ok("".into_pyobject(py)?.into_any().unbind()))?,
            status: made(status, &|| status_to_python(py, EdgeNodeStatus::Online))?,
            capabilities: made(capabilities, &|| Ok(PyList::empty(py).into_any().unbind()))?,
            metadata: made(metadata, &|| Ok(PyDict::new(py).into_any().unbind()))?,
            last_heartbeat: made(last_heartbeat, &|| moments::to_python(py, Timestamp::now()))?,
            labels: made(labels, &|| Ok(PyDict::new(py).into_any().unbind()))?,
        };
        Ok(())
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.capabilities)?;
        visit.call(&self.metadata)?;
        visit.call(&self.labels)
    }

    fn __clear__(&mut self, py: Python<'_>) {
        (self.capabilities, self.metadata, self.labels) = (py.None(), py.None(), py.None());
    }
}
