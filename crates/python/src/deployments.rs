//! `Deployments`: what should run where in a cluster of this process, and how it gets there.
//!
//! Answers are what the HTTP API of a hub says, as dictionaries.

use std::{process, sync::Arc, time::Duration};

use edgeward::{ClusterDeployments, DeploymentSpec, EdgeError, FunctionId, Handler, Steering, Strategy, Target, deployments::MOVES_MAX};
use parking_lot::Mutex;
use pyo3::{
    prelude::*,
    types::{PyDict, PyString},
};

use crate::{
    errors::OrRaise,
    function::{Code, EdgeFunction, Prepared},
    json::{self, shown},
    kept::{Kept, Known},
    runtime::EdgeRuntime,
    waiting::{starting, wait},
    workers::Callable,
};

/// The deployments of a cluster.
#[pyclass(module = "edgeward", frozen, weakref)]
pub(crate) struct Deployments {
    cluster: edgeward::EdgeCluster,
    /// The runtime of each node, by id.
    runtimes: Py<PyDict>,
    kept: Arc<Kept>,
    /// Held while deployments come and go, so that what one needs is not forgotten by another.
    changing: tokio::sync::Mutex<()>,
    /// Makes them real, from the first one on; and the process that began it.
    steering: Mutex<Option<(u32, Steering)>>,
}

impl Deployments {
    pub(crate) fn new(cluster: edgeward::EdgeCluster, runtimes: Py<PyDict>, kept: Arc<Kept>) -> Self {
        Self { cluster, runtimes, kept, changing: tokio::sync::Mutex::default(), steering: Mutex::default() }
    }

    pub(crate) fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }

    /// The deployments, as they are read.
    fn all(&self) -> ClusterDeployments {
        self.cluster.deployments()
    }

    /// The same, to be changed: somebody makes them real.
    fn steered(&self) -> PyResult<ClusterDeployments> {
        let mut steering = self.steering.lock();
        if steering.as_ref().is_none_or(|(process, _)| *process != process::id()) {
            let begun = starting(|| self.cluster.steer())?;
            // In a process that was forked the threads of the former one are gone.
            std::mem::forget(steering.replace((process::id(), begun)));
        }
        Ok(self.cluster.deployments())
    }

    /// What nodes run under this id by themselves: it may be gone back to.
    fn alone(&self, py: Python<'_>, id: &FunctionId) -> PyResult<Vec<Known>> {
        let mut found: Vec<Known> = Vec::new();
        for runtime in self.runtimes.bind(py).values() {
            let runtime = runtime.cast_into::<EdgeRuntime>()?;
            let Some((function, callable, object)) = runtime.get().deployed(py, id)? else { continue };
            if self.kept.object_of(py, &function).is_none() && !found.iter().any(|known| known.function == function) {
                found.push(Known { function, object, callable });
            }
        }
        Ok(found)
    }

    fn spec(&self, prepared: Prepared, target: Target, strategy: Strategy) -> (DeploymentSpec, Code) {
        let Prepared { mut function, code, .. } = prepared;
        // The same callable is the same code.
        if let Code::Callable(handler) = &code
            && let Some(name) = self.kept.name_of(&function.id, handler)
        {
            function.handler = Handler::Native(name);
        }
        (DeploymentSpec { function, target, strategy }, code)
    }

    pub(crate) fn deploy<'py>(
        &self,
        function: &Bound<'py, EdgeFunction>,
        target: Target,
        strategy: Strategy,
        if_generation: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let (mut spec, code) = self.spec(function.borrow().prepare(py)?, target, strategy);
        let alone = self.alone(py, &spec.function.id)?;
        let (deployments, object) = (self.steered()?, function.clone().unbind());
        let view = wait(py, async {
            let _changing = self.changing.lock().await;
            let callable = match code {
                Code::Callable(handler) => Some(Arc::new(Callable { function: spec.function.id.to_string(), handler })),
                Code::Artifact(bytes) => {
                    spec.function.handler = Handler::Artifact(self.cluster.add_artifact(bytes).await?);
                    None
                }
            };
            // Known first: a node may be told to run it before `apply` returns.
            for known in alone.into_iter().chain([Known { function: spec.function.clone(), object, callable }]) {
                self.kept.keep(&self.cluster, known);
            }
            let applied = deployments.apply(spec, if_generation).await;
            self.kept.prune(&self.cluster).await;
            applied
        })?;
        shown(py, &view)
    }

    /// Does something about a rollout, and shows the present one.
    fn act<'py>(&self, py: Python<'py>, work: impl Future<Output = Result<(), EdgeError>> + Send, id: &str) -> PyResult<Bound<'py, PyAny>> {
        let deployments = self.all();
        let view = wait(py, async {
            let function = deployments.rollout(id).await?.rollout.function;
            work.await?;
            deployments.rollout(function.as_str()).await
        })?;
        shown(py, &view)
    }
}

/// A strategy by its kind, or by a dictionary of its fields.
fn strategy_of(strategy: Option<&Bound<'_, PyAny>>) -> PyResult<Strategy> {
    let Some(strategy) = strategy else { return Ok(Strategy::default()) };
    let py = strategy.py();
    if let Ok(kind) = strategy.cast::<PyString>() {
        return Ok(Strategy::new(kind.to_str()?.parse().or_raise(py)?));
    }
    json::read(strategy, "strategy")
}

#[pymethods]
impl Deployments {
    /// Wants a function to run on the nodes of a target, in place of an earlier deployment of it. What is the same as before changes nothing.
    #[pyo3(signature = (function, to="all", strategy=None, *, if_generation=None, dry_run=false))]
    fn put<'py>(
        &self,
        function: &Bound<'py, EdgeFunction>,
        to: &str,
        strategy: Option<&Bound<'py, PyAny>>,
        if_generation: Option<u64>,
        dry_run: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let (target, strategy) = (to.parse().or_raise(py)?, strategy_of(strategy)?);
        if !dry_run {
            return self.deploy(function, target, strategy, if_generation);
        }
        let (mut spec, code) = self.spec(function.borrow().prepare(py)?, target, strategy);
        let plan = wait(py, async {
            if let Code::Artifact(bytes) = code {
                spec.function.handler = Handler::Artifact(self.cluster.add_artifact(bytes).await?);
            }
            self.all().plan(spec).await
        })?;
        shown(py, &plan)
    }

    /// Every deployment, by function.
    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        shown(py, &wait(py, async { self.all().list().await })?)
    }

    /// One deployment.
    fn get<'py>(&self, py: Python<'py>, function_id: &str) -> PyResult<Bound<'py, PyAny>> {
        let id = FunctionId::new(function_id).or_raise(py)?;
        shown(py, &wait(py, async { self.all().get(&id).await })?)
    }

    /// Removes a deployment: its function is taken from every node. Says whether there was one.
    fn delete(&self, py: Python<'_>, function_id: &str) -> PyResult<bool> {
        let (id, deployments) = (FunctionId::new(function_id).or_raise(py)?, self.steered()?);
        wait(py, async {
            let _changing = self.changing.lock().await;
            let was_there = deployments.remove(&id).await?;
            self.kept.prune(&self.cluster).await;
            Ok(was_there)
        })
    }

    /// The revisions of a function that are kept, oldest first.
    fn revisions<'py>(&self, py: Python<'py>, function_id: &str) -> PyResult<Bound<'py, PyAny>> {
        let id = FunctionId::new(function_id).or_raise(py)?;
        shown(py, &wait(py, async { self.all().revisions(&id).await })?)
    }

    /// In what two revisions of a function differ.
    fn diff<'py>(&self, py: Python<'py>, function_id: &str, from_revision: u64, to_revision: u64) -> PyResult<Bound<'py, PyAny>> {
        let id = FunctionId::new(function_id).or_raise(py)?;
        shown(py, &wait(py, async { self.all().diff(&id, from_revision, to_revision).await })?)
    }

    /// Every rollout that is kept, the newest of each function first.
    fn rollouts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        shown(py, &wait(py, async { self.all().rollouts().await })?)
    }

    /// One rollout, by its id or by its function, of which it is then the present one.
    fn rollout<'py>(&self, py: Python<'py>, rollout_id: &str) -> PyResult<Bound<'py, PyAny>> {
        shown(py, &wait(py, async { self.all().rollout(rollout_id).await })?)
    }

    /// Waits until the rollout of what is wanted now has ended, is paused or awaits approval; returns it.
    #[pyo3(signature = (function_id, timeout_seconds=600.0))]
    fn wait<'py>(&self, py: Python<'py>, function_id: &str, timeout_seconds: f64) -> PyResult<Bound<'py, PyAny>> {
        let id = FunctionId::new(function_id).or_raise(py)?;
        let time = Duration::try_from_secs_f64(timeout_seconds)
            .map_err(|error| EdgeError::invalid(format!("`timeout_seconds` is not valid: {error}")))
            .or_raise(py)?;
        let deployments = self.steered()?;
        shown(py, &wait(py, async { deployments.until_settled(&id, time).await })?)
    }

    /// Lets no further node get the revision of a rollout.
    fn pause<'py>(&self, py: Python<'py>, rollout_id: &str) -> PyResult<Bound<'py, PyAny>> {
        let deployments = self.steered()?;
        self.act(py, async { deployments.pause(rollout_id).await }, rollout_id)
    }

    /// Lets a paused rollout go on.
    fn resume<'py>(&self, py: Python<'py>, rollout_id: &str) -> PyResult<Bound<'py, PyAny>> {
        let deployments = self.steered()?;
        self.act(py, async { deployments.resume(rollout_id).await }, rollout_id)
    }

    /// Agrees to what a rollout waits for.
    fn approve<'py>(&self, py: Python<'py>, rollout_id: &str) -> PyResult<Bound<'py, PyAny>> {
        let deployments = self.steered()?;
        self.act(py, async { deployments.approve(rollout_id).await }, rollout_id)
    }

    /// Ends a rollout, and brings the former revision back.
    fn abort<'py>(&self, py: Python<'py>, rollout_id: &str) -> PyResult<Bound<'py, PyAny>> {
        let deployments = self.steered()?;
        self.act(py, async { deployments.abort(rollout_id).await }, rollout_id)
    }

    /// Goes back to the revision before, or to one that is kept, on all nodes at once; returns the deployment.
    #[pyo3(signature = (rollout_id, revision=None))]
    fn rollback<'py>(&self, py: Python<'py>, rollout_id: &str, revision: Option<u64>) -> PyResult<Bound<'py, PyAny>> {
        let deployments = self.steered()?;
        shown(py, &wait(py, async { deployments.rollback(rollout_id, revision).await })?)
    }

    /// Moves functions of which there are to be so many from nodes with many functions to nodes with few; returns the moves.
    #[pyo3(signature = (moves_max=MOVES_MAX))]
    fn rebalance<'py>(&self, py: Python<'py>, moves_max: usize) -> PyResult<Bound<'py, PyAny>> {
        let deployments = self.steered()?;
        shown(py, &wait(py, async { deployments.rebalance(moves_max).await })?)
    }
}
