//! `EdgeCluster`: the product's cluster, whose nodes here are Python's own objects.
//!
//! What Python shows of a node is the object that was registered, so its fields are the truth of this face; a heartbeat goes through the
//! cluster and is then written into that object.

use std::{sync::Arc, time::Duration};

use edgeward::{Attempt, EdgeError, ErrorKind, FunctionId, NodeId, Selector, Strategy, Target, Terms, Veto};
use jiff::Timestamp;
use pyo3::{
    prelude::*,
    types::{PyDict, PyList, PyTuple},
};
use tokio::time::timeout;

use crate::{
    chaos,
    deployments::Deployments,
    documents::Documents,
    errors::OrRaise,
    function::{Code, EdgeFunction, Prepared},
    json::shown,
    moments,
    node::{EdgeNode, status_of_python, status_to_python},
    runtime::{Answer, EdgeRuntime, Work, callable},
    waiting::{awaitable, blocking, wait},
};

/// Nodes and what they should run.
#[pyclass(module = "edgeward", frozen, weakref)]
pub(crate) struct EdgeCluster {
    cluster: edgeward::EdgeCluster,
    /// The runtime of each node, by id, in the order of their registration.
    runtimes: Py<PyDict>,
    deployments: Py<Deployments>,
}

/// Assigns what was prepared to one node, or to all; says to how many.
async fn deploy(
    cluster: edgeward::EdgeCluster,
    runtimes: Vec<Arc<edgeward::EdgeRuntime>>,
    node: Option<String>,
    prepared: Prepared,
) -> Result<usize, EdgeError> {
    let Prepared { mut function, name, code } = prepared;
    let mut registered = &[][..];
    match code {
        Code::Callable(handler) => {
            let handler = callable(&function, handler);
            for runtime in &runtimes {
                runtime.register(name.clone(), handler.clone());
            }
            registered = &runtimes;
        }
        Code::Artifact(bytes) => function.handler = edgeward::Handler::Artifact(cluster.add_artifact(bytes).await?),
    }
    let deployed = match node {
        Some(node) => cluster.deploy_to_node(&node, function).await.map(|()| 1),
        None => cluster.deploy_to_all(function).await,
    };
    for runtime in registered {
        runtime.unregister(&name);
    }
    deployed
}

impl EdgeCluster {
    fn runtime<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, EdgeRuntime>>> {
        Ok(self.runtimes.bind(py).get_item(id)?.map(Bound::cast_into).transpose()?)
    }

    /// The runtimes that a deployment goes to: of one node, or of all.
    fn targets<'py>(&self, py: Python<'py>, node: Option<&str>) -> PyResult<Vec<Bound<'py, EdgeRuntime>>> {
        match node {
            Some(id) => Ok(self.runtime(py, id)?.into_iter().collect()),
            None => self.runtimes.bind(py).values().iter().map(|runtime| Ok(runtime.cast_into::<EdgeRuntime>()?)).collect(),
        }
    }

    fn deploy_now(&self, node: Option<&str>, function: &Bound<'_, EdgeFunction>) -> PyResult<usize> {
        let py = function.py();
        let targets = self.targets(py, node)?;
        let count = wait(py, self.deploy(&targets, node, function.borrow().prepare(py)?))?;
        targets.iter().try_for_each(|runtime| runtime.get().note(function))?;
        Ok(count)
    }

    fn deploy(
        &self,
        targets: &[Bound<'_, EdgeRuntime>],
        node: Option<&str>,
        prepared: Prepared,
    ) -> impl Future<Output = Result<usize, EdgeError>> + Send + use<> {
        let runtimes = targets.iter().map(|runtime| Arc::clone(runtime.get().inner())).collect();
        deploy(self.cluster.clone(), runtimes, node.map(str::to_owned), prepared)
    }

    fn begin_call(
        &self,
        terms: Terms,
        function: &str,
        arguments: Bound<'_, PyTuple>,
        named: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Calling> {
        let py = arguments.py();
        let missing = |_| EdgeError::new(ErrorKind::NotFound, format!("Function not found: {function}"));
        let function = FunctionId::new(function).map_err(missing).or_raise(py)?;
        let (cluster, runtimes) = (self.cluster.clone(), self.runtimes.clone_ref(py));
        Ok(Calling { cluster, runtimes, terms, function, arguments: arguments.unbind(), named: named.map(Bound::unbind) })
    }

    fn deploy_soon<'py>(&self, node: Option<&str>, function: &Bound<'py, EdgeFunction>) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let targets = self.targets(py, node)?;
        let work = self.deploy(&targets, node, function.borrow().prepare(py)?);
        let targets: Vec<_> = targets.into_iter().map(Bound::unbind).collect();
        let (is_one, function) = (node.is_some(), function.clone().unbind());
        awaitable(py, work, move |py, count| {
            targets.iter().try_for_each(|runtime| runtime.get().note(function.bind(py)))?;
            if is_one { Ok(py.None()) } else { Ok(count.into_pyobject(py)?.into_any().unbind()) }
        })
    }
}

/// A call of a function wherever it is, with the arguments of Python.
struct Calling {
    cluster: edgeward::EdgeCluster,
    runtimes: Py<PyDict>,
    terms: Terms,
    function: FunctionId,
    arguments: Py<PyTuple>,
    named: Option<Py<PyDict>>,
}

impl Calling {
    async fn run(self) -> Result<Answer, EdgeError> {
        self.cluster.call_with(&self.function, self.terms, |attempt| self.attempt(attempt)).await
    }

    /// One attempt, on one node of this process.
    async fn attempt(&self, Attempt { node, time, .. }: Attempt) -> Result<Answer, EdgeError> {
        let work = self.work(&node)?;
        timeout(time, work.run()).await.unwrap_or_else(|_elapsed| {
            let why = format!("function `{}` did not answer within {time:?} on node `{node}`; the call may have run", self.function);
            Err(EdgeError::new(ErrorKind::Timeout, why))
        })
    }

    fn work(&self, node: &NodeId) -> Result<Work, EdgeError> {
        let id = self.function.as_str();
        let work = Python::try_attach(|py| {
            let wrong = |error: PyErr| EdgeError::invalid(format!("function `{id}` cannot be called so: {}", error.value(py)));
            let runtime = self.runtimes.bind(py).get_item(node.as_str()).map_err(wrong)?;
            let runtime = runtime.ok_or_else(|| EdgeError::node_not_found(node.as_str()))?;
            let runtime = runtime.cast_into::<EdgeRuntime>().map_err(|error| wrong(error.into()))?;
            runtime.get().inner().find(id)?;
            let (arguments, named) = (self.arguments.bind(py).clone(), self.named.as_ref().map(|named| named.bind(py).clone()));
            runtime.get().work(py, id, arguments, named).map_err(wrong)
        });
        // An interpreter that ends runs nothing more.
        work.unwrap_or_else(|| Err(EdgeError::new(ErrorKind::Unavailable, format!("function `{id}` is called while the interpreter ends"))))
    }
}

#[pymethods]
impl EdgeCluster {
    #[new]
    fn __new__(py: Python<'_>) -> PyResult<Self> {
        let cluster = blocking(py, edgeward::EdgeCluster::new)?;
        let runtimes = PyDict::new(py).unbind();
        let deployments = Py::new(py, Deployments::new(cluster.clone(), runtimes.clone_ref(py), Arc::default()))?;
        Ok(Self { cluster, runtimes, deployments })
    }

    /// Adds a node and returns its runtime. Of an id that is registered already the node is replaced, and its runtime stays.
    fn register_node<'py>(&self, node: &Bound<'py, EdgeNode>) -> PyResult<Bound<'py, EdgeRuntime>> {
        let py = node.py();
        let model = node.borrow().to_model(py)?;
        let id = model.id.clone();
        let member = self.cluster.register_node(model).or_raise(py)?;
        if let Some(runtime) = self.runtime(py, id.as_str())? {
            runtime.get().set_node(node.clone().unbind());
            return Ok(runtime);
        }
        let runtime = Bound::new(py, EdgeRuntime::of_member(py, node.clone().unbind(), member, self.deployments.get().kept())?)?;
        self.runtimes.bind(py).set_item(id.as_str(), &runtime)?;
        Ok(runtime)
    }

    /// Removes a node; says whether it was there.
    fn deregister_node(&self, py: Python<'_>, node_id: &str) -> PyResult<bool> {
        let was_there = blocking(py, || self.cluster.deregister_node(node_id))?;
        let runtimes = self.runtimes.bind(py);
        if runtimes.contains(node_id)? {
            runtimes.del_item(node_id)?;
        }
        Ok(was_there)
    }

    /// Notes that a node reported now: its `last_heartbeat` is now and its `status` ONLINE. Of an unknown id it changes nothing.
    fn heartbeat(&self, py: Python<'_>, node_id: &str) -> PyResult<()> {
        self.cluster.heartbeat(node_id);
        if let (Some(runtime), Some(known)) = (self.runtime(py, node_id)?, self.cluster.get_node(node_id)) {
            let node = runtime.get().node_of(py);
            let (status, last_heartbeat) = (status_to_python(py, known.status)?, moments::to_python(py, known.last_heartbeat)?);
            let mut node = node.borrow_mut(py);
            (node.status, node.last_heartbeat) = (status, last_heartbeat);
        }
        Ok(())
    }

    /// The very object that was registered, or None.
    fn get_node(&self, py: Python<'_>, node_id: &str) -> PyResult<Option<Py<EdgeNode>>> {
        Ok(self.runtime(py, node_id)?.map(|runtime| runtime.get().node_of(py)))
    }

    /// The runtime of a node, or None.
    fn get_runtime<'py>(&self, py: Python<'py>, node_id: &str) -> PyResult<Option<Bound<'py, EdgeRuntime>>> {
        self.runtime(py, node_id)
    }

    /// The nodes with this status, or all, in the order of their registration.
    #[pyo3(signature = (status=None))]
    fn list_nodes<'py>(&self, py: Python<'py>, status: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyList>> {
        let wanted = status.map(status_of_python).transpose()?;
        let nodes = PyList::empty(py);
        for runtime in self.targets(py, None)? {
            let node = runtime.get().node_of(py);
            let status = node.borrow(py).status.clone_ref(py);
            if wanted.is_none() || wanted == Some(status_of_python(status.bind(py))?) {
                nodes.append(node)?;
            }
        }
        Ok(nodes)
    }

    /// How the nodes are, in numbers: `nodes`, how many are `online`, `degraded`, `syncing` and `offline`, and `assignments`.
    fn health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let health = PyDict::new(py);
        let nodes = self.list_nodes(py, None)?;
        health.set_item("nodes", nodes.len())?;
        for status in edgeward::EdgeNodeStatus::ALL {
            let member = status_to_python(py, status)?;
            health.set_item(status.as_str(), self.list_nodes(py, Some(member.bind(py)))?.len())?;
        }
        health.set_item("assignments", py.detach(|| self.cluster.health()).assignments)?;
        Ok(health)
    }

    /// The documents of the cluster, which functions of its nodes may be granted.
    #[getter]
    fn documents(&self) -> Documents {
        Documents(self.cluster.documents().clone())
    }

    /// Deploys a function to every node; returns to how many. What one node cannot run, no node gets.
    fn deploy_to_all(&self, function: &Bound<'_, EdgeFunction>) -> PyResult<usize> {
        self.deploy_now(None, function)
    }

    /// The same, to be awaited.
    fn deploy_to_all_async<'py>(&self, function: &Bound<'py, EdgeFunction>) -> PyResult<Bound<'py, PyAny>> {
        self.deploy_soon(None, function)
    }

    /// Deploys a function to one node.
    fn deploy_to_node(&self, node_id: &str, function: &Bound<'_, EdgeFunction>) -> PyResult<()> {
        self.deploy_now(Some(node_id), function).map(drop)
    }

    /// The same, to be awaited.
    fn deploy_to_node_async<'py>(&self, node_id: &str, function: &Bound<'py, EdgeFunction>) -> PyResult<Bound<'py, PyAny>> {
        self.deploy_soon(Some(node_id), function)
    }

    /// Calls a function on the node that takes the call best, and on another one when that fails and it does no harm, as the `resilience` of the function
    /// says. The arguments are those of `invoke` of a runtime.
    #[pyo3(signature = (function_id, *args, **kwargs))]
    fn call(&self, py: Python<'_>, function_id: &str, args: Bound<'_, PyTuple>, kwargs: Option<Bound<'_, PyDict>>) -> PyResult<Py<PyAny>> {
        Ok(wait(py, self.begin_call(Terms::default(), function_id, args, kwargs)?.run())?.show(py))
    }

    /// The same, to be awaited.
    #[pyo3(signature = (function_id, *args, **kwargs))]
    fn call_async<'py>(
        &self,
        py: Python<'py>,
        function_id: &str,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.begin_call(Terms::default(), function_id, args, kwargs)?.run(), |py, answer| Ok(answer.show(py)))
    }

    /// Calls with less time than their functions may take, or which may run twice, as all arguments of `call` are those of the function.
    #[pyo3(signature = (timeout_seconds=None, *, idempotent=false))]
    fn calling(slf: Py<Self>, py: Python<'_>, timeout_seconds: Option<f64>, idempotent: bool) -> PyResult<Calls> {
        let left = timeout_seconds
            .map(|seconds| Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()))
            .transpose()
            .map_err(|error| EdgeError::invalid(format!("`timeout_seconds` is not valid: {error}")))
            .or_raise(py)?;
        Ok(Calls { cluster: slf, terms: Terms { left, is_idempotent: idempotent } })
    }

    /// How the calls of each function are routed: its nodes in the order in which they are asked, and how they do.
    fn routes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        shown(py, &blocking(py, || self.cluster.routes())?)
    }

    /// What should run where, and how it gets there.
    #[getter]
    fn deployments(&self, py: Python<'_>) -> Py<Deployments> {
        self.deployments.clone_ref(py)
    }

    /// Deploys a function to the node with the least to do; returns the deployment.
    fn deploy_least_loaded<'py>(&self, function: &Bound<'py, EdgeFunction>) -> PyResult<Bound<'py, PyAny>> {
        let target = Target::Count { count: 1, among: Selector::default() };
        self.deployments.get().deploy(function, target, Strategy::default(), None)
    }

    /// Has deployed functions with a number of nodes leave a node: first there, then gone here.
    fn drain_node(&self, py: Python<'_>, node_id: &str) -> PyResult<()> {
        blocking(py, || self.cluster.drain_node(node_id, true))
    }

    /// Lets them come again.
    fn undrain_node(&self, py: Python<'_>, node_id: &str) -> PyResult<()> {
        blocking(py, || self.cluster.drain_node(node_id, false))
    }

    /// Lets a node get no new revisions, for so long or until `unhold_node`; what it runs goes on.
    #[pyo3(signature = (node_id, reason="", *, seconds=None))]
    fn hold_node(&self, py: Python<'_>, node_id: &str, reason: &str, seconds: Option<u64>) -> PyResult<()> {
        blocking(py, || {
            let veto = Veto::new(reason, seconds.map(Duration::from_secs), Timestamp::now())?;
            self.cluster.hold_node(node_id, Some(veto))
        })
    }

    /// Lets experiments inject faults on the nodes of this cluster.
    fn allow_chaos(&self) {
        self.cluster.allow_chaos();
    }

    /// Runs an experiment of chaos engineering: the text of its file, or a dictionary. Returns its report once it is over. Interrupted, it is ended.
    fn run_experiment<'py>(&self, py: Python<'py>, experiment: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (chaos, experiment) = (self.cluster.chaos(), chaos::experiment_of(experiment)?);
        let begun = wait(py, async { chaos.start(experiment).await })?;
        let report = wait(py, async {
            chaos.until_ended(&begun.id).await?;
            chaos.report(&begun.id).await
        });
        match report {
            Ok(report) => chaos::shown(py, &report),
            Err(error) => {
                wait(py, async { chaos.stop(&begun.id, "who waited for it was interrupted").await })?;
                Err(error)
            }
        }
    }

    /// The same, to be awaited. Cancelled, it runs on; `stop_experiment` ends it.
    fn run_experiment_async<'py>(&self, py: Python<'py>, experiment: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (chaos, experiment) = (self.cluster.chaos(), chaos::experiment_of(experiment)?);
        awaitable(py, async move { chaos.run(experiment).await }, |py, report| Ok(chaos::shown(py, &report)?.unbind()))
    }

    /// The experiments that this cluster runs or ran, the newest first.
    fn experiments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let chaos = self.cluster.chaos();
        chaos::shown(py, &wait(py, async { chaos.list().await })?)
    }

    /// Ends an experiment before its time, and returns it once its faults have ended.
    fn stop_experiment<'py>(&self, py: Python<'py>, experiment_id: &str) -> PyResult<Bound<'py, PyAny>> {
        let chaos = self.cluster.chaos();
        chaos::shown(py, &wait(py, async { chaos.stop(experiment_id, "somebody ended it").await })?)
    }

    /// Lets a node get new revisions again.
    fn unhold_node(&self, py: Python<'_>, node_id: &str) -> PyResult<()> {
        blocking(py, || self.cluster.hold_node(node_id, None))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<EdgeCluster of {} nodes>", self.runtimes.bind(py).len())
    }
}

/// Calls of a cluster on terms of their own.
#[pyclass(module = "edgeward", frozen)]
pub(crate) struct Calls {
    cluster: Py<EdgeCluster>,
    terms: Terms,
}

#[pymethods]
impl Calls {
    /// Calls a function as `EdgeCluster.call` does.
    #[pyo3(signature = (function_id, *args, **kwargs))]
    fn call(&self, py: Python<'_>, function_id: &str, args: Bound<'_, PyTuple>, kwargs: Option<Bound<'_, PyDict>>) -> PyResult<Py<PyAny>> {
        Ok(wait(py, self.cluster.get().begin_call(self.terms, function_id, args, kwargs)?.run())?.show(py))
    }

    /// The same, to be awaited.
    #[pyo3(signature = (function_id, *args, **kwargs))]
    fn call_async<'py>(
        &self,
        py: Python<'py>,
        function_id: &str,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let calling = self.cluster.get().begin_call(self.terms, function_id, args, kwargs)?;
        awaitable(py, calling.run(), |py, answer| Ok(answer.show(py)))
    }
}
