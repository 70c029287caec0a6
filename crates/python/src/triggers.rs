//! `TopicTrigger`: has a function of this process called for each message of some filters.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use edgeward::{EdgeError, EdgeRuntime, ErrorKind, ProgramTrigger, TopicLog, Trigger, TriggerId, TriggerView, topics::program};
use parking_lot::Mutex;
use pyo3::{
    prelude::*,
    types::{PyAny, PyTuple},
};

use crate::{
    json,
    waiting::{awaitable, wait},
};

/// The triggers that run of some topics.
#[derive(Default)]
pub(crate) struct Running(Mutex<State>);

#[derive(Default)]
struct State {
    triggers: BTreeMap<TriggerId, Arc<ProgramTrigger>>,
    /// Ids that nobody may use just now: of what starts, ends or is forgotten.
    busy: BTreeSet<TriggerId>,
}

/// An id that is busy as long as this lives.
struct Busy<'a>(&'a Running, TriggerId);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.0.lock().busy.remove(&self.1);
    }
}

impl Running {
    fn reserve(&self, id: &TriggerId) -> Result<Busy<'_>, EdgeError> {
        let mut state = self.0.lock();
        if state.triggers.contains_key(id) || !state.busy.insert(id.clone()) {
            let why = format!("trigger `{id}` runs; close it first, or give this one a `trigger_id` of its own");
            return Err(EdgeError::new(ErrorKind::Conflict, why));
        }
        Ok(Busy(self, id.clone()))
    }

    /// Starts a trigger.
    pub(crate) async fn start(
        self: Arc<Self>,
        log: Arc<TopicLog>,
        trigger: Trigger,
        runtime: Arc<EdgeRuntime>,
    ) -> Result<Arc<ProgramTrigger>, EdgeError> {
        let id = trigger.id.clone();
        let _busy = self.reserve(&id)?;
        let started = Arc::new(ProgramTrigger::start(log, trigger, runtime).await?);
        self.0.lock().triggers.insert(id, Arc::clone(&started));
        Ok(started)
    }

    /// How each does.
    pub(crate) async fn views(&self) -> Result<Vec<TriggerView>, EdgeError> {
        let triggers: Vec<_> = self.0.lock().triggers.values().cloned().collect();
        let mut views = Vec::new();
        for trigger in triggers {
            views.push(trigger.view().await?);
        }
        Ok(views)
    }

    /// Forgets how far a trigger got that does not run.
    pub(crate) async fn forget(&self, log: &TopicLog, id: &TriggerId) -> Result<bool, EdgeError> {
        let _busy = self.reserve(id)?;
        program::forget(log, id).await
    }

    /// Ends a trigger and waits for it.
    async fn stop(&self, trigger: &Arc<ProgramTrigger>) {
        trigger.stop().await;
        let mut state = self.0.lock();
        // Another one of its id may run by now.
        if state.triggers.get(trigger.id()).is_some_and(|running| Arc::ptr_eq(running, trigger)) {
            state.triggers.remove(trigger.id());
        }
    }

    /// Ends all, and waits for none.
    pub(crate) fn stop_all(&self) {
        let triggers = std::mem::take(&mut self.0.lock().triggers);
        for trigger in triggers.values() {
            trigger.cancel();
        }
    }
}

/// One trigger that runs until it is closed, or its topics are gone.
#[pyclass(module = "edgeward", frozen, weakref)]
pub(crate) struct TopicTrigger {
    trigger: Arc<ProgramTrigger>,
    running: Arc<Running>,
}

impl TopicTrigger {
    pub(crate) fn new(trigger: Arc<ProgramTrigger>, running: Arc<Running>) -> Self {
        Self { trigger, running }
    }
}

#[pymethods]
impl TopicTrigger {
    /// Its id.
    #[getter]
    fn id(&self) -> &str {
        self.trigger.id().as_str()
    }

    /// What it is, and how it does.
    fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let view = wait(py, self.trigger.view())?;
        json::shown(py, &view)
    }

    /// Ends it: waits for calls under way, for a while.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let stopped = async {
            self.running.stop(&self.trigger).await;
            Ok(())
        };
        wait(py, stopped)
    }

    /// The same, to be awaited.
    fn close_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (running, trigger) = (Arc::clone(&self.running), Arc::clone(&self.trigger));
        let stopped = async move {
            running.stop(&trigger).await;
            Ok(())
        };
        awaitable(py, stopped, |py, ()| Ok(py.None()))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __aenter__(slf: Py<Self>, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        awaitable(py, async { Ok(()) }, move |_, ()| Ok(slf.into_any()))
    }

    #[pyo3(signature = (*_raised))]
    fn __aexit__<'py>(&self, py: Python<'py>, _raised: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.close_async(py)
    }

    fn __repr__(&self) -> String {
        format!("<TopicTrigger '{}'>", self.trigger.id())
    }
}
