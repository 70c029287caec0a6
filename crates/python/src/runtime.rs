//! `EdgeRuntime`: the product's runtime, with Python's callables as its native handlers.

use std::sync::Arc;

use bytes::Bytes;
use edgeward::{CallOptions, EdgeError, ErrorKind, FunctionDocuments, FunctionId, NativeHandler, NodeRuntime, RuntimeOptions};
use http::HeaderValue;
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple},
};

use crate::{
    documents::Documents,
    errors::OrRaise,
    events::handler_of,
    function::{Code, EdgeFunction, Prepared},
    kept::Kept,
    metrics::EdgeMetrics,
    node::EdgeNode,
    waiting::{awaitable, wait},
    workers::{self, Arguments, Callable},
};

/// Runs functions on one node.
#[pyclass(module = "edgeward", frozen, weakref)]
pub(crate) struct EdgeRuntime {
    node: Mutex<Py<EdgeNode>>,
    runtime: Arc<edgeward::EdgeRuntime>,
    /// The way to its cluster, where it has one: what it is told to run is assigned there.
    member: Option<NodeRuntime>,
    /// What its cluster deploys by itself.
    kept: Arc<Kept>,
    /// The very objects that were deployed, by id; those that its cluster deployed are noted when somebody looks.
    functions: Py<PyDict>,
}

/// A function as it was deployed, its code where that is a callable, and the object.
type Deployed = (edgeward::EdgeFunction, Option<Arc<Callable>>, Py<EdgeFunction>);

/// What an invocation does.
pub(crate) enum Work {
    Call(Arc<edgeward::Deployed>, Arc<Callable>, Arguments),
    Payload(Arc<edgeward::EdgeRuntime>, String, Bytes, Option<HeaderValue>),
}

/// What comes of it.
pub(crate) enum Answer {
    Object(Py<PyAny>),
    Bytes(Bytes),
}

impl Answer {
    pub(crate) fn show(self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Self::Object(object) => object,
            Self::Bytes(bytes) => PyBytes::new(py, &bytes).into_any().unbind(),
        }
    }
}

impl Work {
    pub(crate) async fn run(self) -> Result<Answer, EdgeError> {
        match self {
            Self::Call(deployed, callable, arguments) => deployed
                .run_foreign(|permit, deadline| workers::call(callable, arguments, permit, deadline.into_std()))
                .await
                .map(Answer::Object),
            Self::Payload(runtime, id, payload, content_type) => {
                // Boxed, so that a call of a callable does not carry the room for a guest's.
                Box::pin(async move { runtime.invoke_with(&id, payload, CallOptions { content_type, ..CallOptions::default() }).await })
                    .await
                    .map(|output| Answer::Bytes(output.body))
            }
        }
    }
}

impl EdgeRuntime {
    /// The runtime of a node of a cluster.
    pub(crate) fn of_member(py: Python<'_>, node: Py<EdgeNode>, member: NodeRuntime, kept: &Arc<Kept>) -> PyResult<Self> {
        let runtime =
            Arc::clone(member.here().ok_or_else(|| EdgeError::new(ErrorKind::Internal, "the node is not in this process")).or_raise(py)?);
        let (kept, functions) = (Arc::clone(kept), PyDict::new(py).unbind());
        Ok(Self { node: Mutex::new(node), runtime, member: Some(member), kept, functions })
    }

    pub(crate) fn set_node(&self, node: Py<EdgeNode>) {
        *self.node.lock() = node;
    }

    pub(crate) fn node_of(&self, py: Python<'_>) -> Py<EdgeNode> {
        self.node.lock().clone_ref(py)
    }

    /// The product's runtime.
    pub(crate) fn inner(&self) -> &Arc<edgeward::EdgeRuntime> {
        &self.runtime
    }

    /// Notes the object that was deployed.
    pub(crate) fn note(&self, function: &Bound<'_, EdgeFunction>) -> PyResult<()> {
        let py = function.py();
        self.functions.bind(py).set_item(function.borrow().id.bind(py), function)
    }

    /// What runs under an id: as it was deployed, its callable, and the object.
    pub(crate) fn deployed(&self, py: Python<'_>, id: &FunctionId) -> PyResult<Option<Deployed>> {
        let (Ok(deployed), Some(object)) = (self.runtime.find(id.as_str()), self.functions(py)?.get_item(id.as_str())?) else {
            return Ok(None);
        };
        Ok(Some((deployed.function().clone(), deployed.foreign::<Callable>(), object.cast_into::<EdgeFunction>()?.unbind())))
    }

    /// The objects of what is deployed here now, by id.
    fn functions<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<&'a Bound<'py, PyDict>> {
        let functions = self.functions.bind(py);
        for function in self.runtime.list_functions() {
            if let Some(object) = self.kept.object_of(py, &function) {
                functions.set_item(function.id.as_str(), object)?;
            }
        }
        for id in functions.keys() {
            if self.runtime.find(id.extract::<&str>()?).is_err() {
                functions.del_item(id)?;
            }
        }
        Ok(functions)
    }

    pub(crate) fn work(&self, py: Python<'_>, id: &str, arguments: Bound<'_, PyTuple>, named: Option<Bound<'_, PyDict>>) -> PyResult<Work> {
        let deployed =
            self.runtime.find(id).map_err(|_| EdgeError::new(ErrorKind::NotFound, format!("Function not found: {id}"))).or_raise(py)?;
        if let Some(callable) = deployed.foreign::<Callable>() {
            let arguments = Arguments { positional: arguments.unbind(), named: named.map(Bound::unbind) };
            return Ok(Work::Call(deployed, callable, arguments));
        }
        let (payload, content_type) = payload_of(&arguments, named.as_ref())?;
        Ok(Work::Payload(Arc::clone(&self.runtime), id.to_owned(), payload, content_type))
    }
}

/// What a component is sent: bytes as they are, text as UTF-8, nothing for no argument.
fn payload_of(arguments: &Bound<'_, PyTuple>, named: Option<&Bound<'_, PyDict>>) -> PyResult<(Bytes, Option<HeaderValue>)> {
    let refused =
        |why: &str| PyTypeError::new_err(format!("a component takes one payload of type bytes or str, and `content_type`: {why}"));
    let payload = match arguments.len() {
        0 => Bytes::new(),
        1 => {
            let payload = arguments.get_item(0)?;
            match bytes_of(&payload)? {
                Some(bytes) => bytes,
                None => return Err(refused(&format!("not {}", payload.get_type().name()?))),
            }
        }
        more => return Err(refused(&format!("{more} were given"))),
    };
    let mut content_type = None;
    for (name, value) in named.iter().flat_map(|named| named.iter()) {
        if name.extract::<&str>()? != "content_type" {
            return Err(refused(&format!("not `{name}`")));
        }
        let text: String = value.extract()?;
        let valid =
            HeaderValue::from_str(&text).map_err(|_| EdgeError::invalid("the content type is not valid: it is no value of a header"));
        content_type = Some(valid.or_raise(arguments.py())?);
    }
    Ok((payload, content_type))
}

/// Bytes as they are, and text as UTF-8; none for anything else.
fn bytes_of(payload: &Bound<'_, PyAny>) -> PyResult<Option<Bytes>> {
    Ok(if let Ok(bytes) = payload.cast::<PyBytes>() {
        Some(Bytes::copy_from_slice(bytes.as_bytes()))
    } else if let Ok(bytes) = payload.cast::<PyByteArray>() {
        Some(bytes.to_vec().into())
    } else if let Ok(text) = payload.cast::<PyString>() {
        Some(text.to_str()?.to_owned().into())
    } else {
        None
    })
}

/// What a message is published with: the same, and nothing where nothing is given.
pub(crate) fn payload_bytes(payload: Option<&Bound<'_, PyAny>>) -> PyResult<Bytes> {
    let Some(payload) = payload else { return Ok(Bytes::new()) };
    match bytes_of(payload)? {
        Some(bytes) => Ok(bytes),
        None => Err(PyTypeError::new_err(format!("a payload is bytes or str, not {}", payload.get_type().name()?))),
    }
}

/// Deploys what was prepared, on a runtime by itself or through its cluster.
async fn deploy(runtime: Arc<edgeward::EdgeRuntime>, member: Option<NodeRuntime>, prepared: Prepared) -> Result<(), EdgeError> {
    let Prepared { mut function, name, code } = prepared;
    let is_callable = matches!(code, Code::Callable(_));
    match code {
        Code::Callable(handler) => runtime.register(name.clone(), callable(&function, handler)),
        Code::Artifact(bytes) => function.handler = edgeward::Handler::Artifact(runtime.add_artifact(bytes).await?),
    }
    let deployed = match member {
        Some(member) => member.deploy(function).await,
        None => runtime.deploy(function).await,
    };
    if is_callable {
        // What is deployed has its handler; the name would only keep a later one alive.
        runtime.unregister(&name);
    }
    deployed
}

/// The handler of a callable.
pub(crate) fn callable(function: &edgeward::EdgeFunction, handler: Py<PyAny>) -> NativeHandler {
    handler_of(Arc::new(Callable { function: function.id.to_string(), handler }))
}

#[pymethods]
impl EdgeRuntime {
    #[new]
    #[pyo3(signature = (node, *, documents=None))]
    fn __new__(py: Python<'_>, node: Bound<'_, EdgeNode>, documents: Option<&Bound<'_, Documents>>) -> PyResult<Self> {
        let documents = documents.map(|documents| Arc::new(FunctionDocuments(documents.get().0.clone())) as _);
        let options = RuntimeOptions { documents, ..RuntimeOptions::default() };
        let runtime = Arc::new(edgeward::EdgeRuntime::with_options(node.borrow().to_model(py)?, options));
        Ok(Self { node: Mutex::new(node.unbind()), runtime, member: None, kept: Arc::default(), functions: PyDict::new(py).unbind() })
    }

    /// The node that this runtime is.
    #[getter]
    fn node(&self, py: Python<'_>) -> Py<EdgeNode> {
        self.node_of(py)
    }

    /// What ran here so far.
    #[getter]
    fn metrics(&self) -> EdgeMetrics {
        EdgeMetrics::of(self.runtime.metrics())
    }

    /// Deploys a function as its fields say now; one of the same id is replaced.
    fn deploy(&self, py: Python<'_>, function: &Bound<'_, EdgeFunction>) -> PyResult<()> {
        let prepared = function.borrow().prepare(py)?;
        wait(py, deploy(Arc::clone(&self.runtime), self.member.clone(), prepared))?;
        self.note(function)
    }

    /// The same, to be awaited.
    fn deploy_async<'py>(slf: &Bound<'py, Self>, function: &Bound<'py, EdgeFunction>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let prepared = function.borrow().prepare(py)?;
        let (slf, function) = (slf.clone().unbind(), function.clone().unbind());
        awaitable(py, deploy(Arc::clone(&this.runtime), this.member.clone(), prepared), move |py, ()| {
            slf.get().note(function.bind(py))?;
            Ok(py.None())
        })
    }

    /// Removes a function; says whether it was there. What runs of it ends undisturbed.
    fn undeploy(&self, py: Python<'_>, function_id: &str) -> PyResult<bool> {
        let was_there = match &self.member {
            Some(member) => wait(py, member.undeploy(function_id))?,
            None => self.runtime.undeploy(function_id),
        };
        let functions = self.functions.bind(py);
        if functions.contains(function_id)? {
            functions.del_item(function_id)?;
        }
        Ok(was_there)
    }

    /// The functions that are deployed here, in the order in which they first were.
    fn list_functions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        Ok(self.functions(py)?.values())
    }

    /// Invokes a function: a callable with these arguments, whose result this returns; a component with one payload, whose answer it
    /// returns as bytes.
    #[pyo3(signature = (function_id, *args, **kwargs))]
    fn invoke(
        &self,
        py: Python<'_>,
        function_id: &str,
        args: Bound<'_, PyTuple>,
        kwargs: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        Ok(wait(py, self.work(py, function_id, args, kwargs)?.run())?.show(py))
    }

    /// The same, to be awaited.
    #[pyo3(signature = (function_id, *args, **kwargs))]
    fn invoke_async<'py>(
        &self,
        py: Python<'py>,
        function_id: &str,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.work(py, function_id, args, kwargs)?.run(), |py, answer| Ok(answer.show(py)))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let id = self.node_of(py).borrow(py).id.bind(py).repr()?;
        Ok(format!("<EdgeRuntime of node {id} with {} functions>", self.functions(py)?.len()))
    }
}
