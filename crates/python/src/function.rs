//! `EdgeFunction`: what a function is in Python, and the two things it may be to the runtime: a callable, or a component.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use edgeward::{DocumentGrant, Handler, HandlerName};
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyTuple},
};

use crate::{
    errors::OrRaise,
    fields::{field, text},
    json,
};

/// A function deployable to edge nodes.
#[pyclass(module = "edgeward", subclass, dict, weakref)]
pub(crate) struct EdgeFunction {
    #[pyo3(get, set)]
    pub(crate) id: Py<PyAny>,
    #[pyo3(get, set)]
    name: Py<PyAny>,
    #[pyo3(get, set)]
    handler: Py<PyAny>,
    #[pyo3(get, set)]
    memory_mb: Py<PyAny>,
    #[pyo3(get, set)]
    timeout_seconds: Py<PyAny>,
    #[pyo3(get, set)]
    environment: Py<PyAny>,
    #[pyo3(get, set)]
    artifact: Py<PyAny>,
    #[pyo3(get, set)]
    allowed_hosts: Py<PyAny>,
    #[pyo3(get, set)]
    documents: Py<PyAny>,
    #[pyo3(get, set)]
    max_concurrency: Py<PyAny>,
    #[pyo3(get, set)]
    max_queue: Py<PyAny>,
    #[pyo3(get, set)]
    max_reuse: Py<PyAny>,
    #[pyo3(get, set)]
    resilience: Py<PyAny>,
}

/// What runs.
pub(crate) enum Code {
    /// A Python callable.
    Callable(Py<PyAny>),
    /// The bytes of a component.
    Artifact(Bytes),
}

/// A function as it is handed to the runtime: a copy of what its fields say now.
pub(crate) struct Prepared {
    /// The function; of a component, its handler is yet to be told.
    pub(crate) function: edgeward::EdgeFunction,
    /// The name under which a callable is registered.
    pub(crate) name: HandlerName,
    pub(crate) code: Code,
}

/// Numbers the callables that were deployed.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl EdgeFunction {
    /// Checks the fields and reads the artifact.
    pub(crate) fn prepare(&self, py: Python<'_>) -> PyResult<Prepared> {
        let id = self.id.bind(py);
        let id = text(id, "function id")?;
        let code = match (self.handler.is_none(py), self.artifact.is_none(py)) {
            (false, true) if self.handler.bind(py).is_callable() => Code::Callable(self.handler.clone_ref(py)),
            (false, true) => return Err(PyTypeError::new_err(format!("the handler of function `{id}` is not callable"))),
            (true, false) => Code::Artifact(read(self.artifact.bind(py))?),
            (true, true) => return Err(PyTypeError::new_err(format!("function `{id}` has neither a handler nor an artifact"))),
            (false, false) => return Err(PyTypeError::new_err(format!("function `{id}` has both a handler and an artifact; choose one"))),
        };
        // A name of its own, so that two deployments of one id at once do not take each other's handler.
        let name = HandlerName::new(format!("python-{}", NEXT.fetch_add(1, Ordering::Relaxed))).or_raise(py)?;
        let mut function =
            edgeward::EdgeFunction::new(id, field::<String>(self.name.bind(py), "name")?, Handler::Native(name.clone())).or_raise(py)?;
        function.memory_mb = field(self.memory_mb.bind(py), "memory_mb")?;
        function.timeout_seconds = field(self.timeout_seconds.bind(py), "timeout_seconds")?;
        function.environment = field::<BTreeMap<String, String>>(self.environment.bind(py), "environment")?.into_iter().collect();
        function.allowed_hosts = field(self.allowed_hosts.bind(py), "allowed_hosts")?;
        let grants: Vec<String> = field(self.documents.bind(py), "documents")?;
        function.documents = grants.iter().map(|grant| grant.parse::<DocumentGrant>()).collect::<Result<_, _>>().or_raise(py)?;
        function.max_concurrency = field(self.max_concurrency.bind(py), "max_concurrency")?;
        function.max_queue = field(self.max_queue.bind(py), "max_queue")?;
        function.max_reuse = field(self.max_reuse.bind(py), "max_reuse")?;
        function.resilience = json::read(self.resilience.bind(py), "resilience")?;
        function.validate().or_raise(py)?;
        Ok(Prepared { function, name, code })
    }
}

/// The bytes of an artifact: itself, or what the file holds that it names.
fn read(artifact: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = artifact.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    let path = artifact.py().import("pathlib")?.getattr("Path")?.call1((artifact,))?;
    let bytes = path.call_method0("read_bytes")?;
    Ok(Bytes::copy_from_slice(bytes.cast::<PyBytes>()?.as_bytes()))
}

#[pymethods]
impl EdgeFunction {
    #[new]
    #[pyo3(
        signature = (*_arguments, **_named),
        text_signature = "(id, name, handler=None, memory_mb=128, timeout_seconds=30, environment=..., *, artifact=None, \
                          allowed_hosts=..., documents=..., max_concurrency=128, max_queue=256, max_reuse=1, resilience=...)"
    )]
    fn __new__(py: Python<'_>, _arguments: &Bound<'_, PyTuple>, _named: Option<&Bound<'_, PyDict>>) -> Self {
        let none = || py.None();
        Self {
            id: none(),
            name: none(),
            handler: none(),
            memory_mb: none(),
            timeout_seconds: none(),
            environment: none(),
            artifact: none(),
            allowed_hosts: none(),
            documents: none(),
            max_concurrency: none(),
            max_queue: none(),
            max_reuse: none(),
            resilience: none(),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the specification, each of them an argument in Python")]
    #[pyo3(signature = (
        id, name, handler=None, memory_mb=None, timeout_seconds=None, environment=None, *, artifact=None, allowed_hosts=None,
        documents=None, max_concurrency=None, max_queue=None, max_reuse=None, resilience=None
    ))]
    fn __init__(
        &mut self,
        py: Python<'_>,
        id: Py<PyAny>,
        name: Py<PyAny>,
        handler: Option<Py<PyAny>>,
        memory_mb: Option<Py<PyAny>>,
        timeout_seconds: Option<Py<PyAny>>,
        environment: Option<Py<PyAny>>,
        artifact: Option<Py<PyAny>>,
        allowed_hosts: Option<Py<PyAny>>,
        documents: Option<Py<PyAny>>,
        max_concurrency: Option<Py<PyAny>>,
        max_queue: Option<Py<PyAny>>,
        max_reuse: Option<Py<PyAny>>,
        resilience: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        if handler.is_none() && artifact.is_none() {
            return Err(PyTypeError::new_err("EdgeFunction() needs a `handler`, or the `artifact` of a component"));
        }
        let number = |value: Option<Py<PyAny>>, default: u32| match value {
            Some(value) => Ok::<_, PyErr>(value),
            None => Ok(default.into_pyobject(py)?.into_any().unbind()),
        };
        let list = |value: Option<Py<PyAny>>| value.unwrap_or_else(|| PyList::empty(py).into_any().unbind());
        let dict = |value: Option<Py<PyAny>>| value.unwrap_or_else(|| PyDict::new(py).into_any().unbind());
        let optional = |value: Option<Py<PyAny>>| value.unwrap_or_else(|| py.None());
        *self = Self {
            id,
            name,
            handler: optional(handler),
            memory_mb: number(memory_mb, edgeward::limits::MEMORY_MB_DEFAULT)?,
            timeout_seconds: number(timeout_seconds, 30)?,
            environment: dict(environment),
            artifact: optional(artifact),
            allowed_hosts: list(allowed_hosts),
            documents: list(documents),
            max_concurrency: number(max_concurrency, edgeward::limits::CONCURRENCY_DEFAULT)?,
            max_queue: number(max_queue, edgeward::limits::QUEUE_DEFAULT)?,
            max_reuse: number(max_reuse, 1)?,
            resilience: dict(resilience),
        };
        Ok(())
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.handler)?;
        visit.call(&self.environment)
    }

    fn __clear__(&mut self, py: Python<'_>) {
        (self.handler, self.environment) = (py.None(), py.None());
    }
}
