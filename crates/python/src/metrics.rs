//! `InvocationRecord` and `EdgeMetrics`.

use std::sync::Arc;

use edgeward::{Filter, FunctionId, NodeId};
use jiff::Timestamp;
use parking_lot::Mutex;
use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};

use crate::{errors::OrRaise, fields::text, moments};

/// Record of a single function invocation.
#[pyclass(module = "edgeward", subclass, weakref)]
pub(crate) struct InvocationRecord {
    #[pyo3(get, set)]
    function_id: Py<PyAny>,
    #[pyo3(get, set)]
    node_id: Py<PyAny>,
    #[pyo3(get, set)]
    duration_ms: Py<PyAny>,
    #[pyo3(get, set)]
    success: Py<PyAny>,
    /// When it was made; a `datetime` is made of it when somebody looks.
    made: Timestamp,
    timestamp: Option<Py<PyAny>>,
    /// None stands for the empty text.
    error: Option<Py<PyAny>>,
}

#[pymethods]
impl InvocationRecord {
    #[new]
    #[pyo3(
        signature = (function_id, node_id, duration_ms, success, timestamp=None, error=None),
        text_signature = "(function_id, node_id, duration_ms, success, timestamp=..., error='')"
    )]
    fn __new__(
        function_id: Py<PyAny>,
        node_id: Py<PyAny>,
        duration_ms: Py<PyAny>,
        success: Py<PyAny>,
        timestamp: Option<Py<PyAny>>,
        error: Option<Py<PyAny>>,
    ) -> Self {
        Self { function_id, node_id, duration_ms, success, made: Timestamp::now(), timestamp, error }
    }

    #[getter]
    fn timestamp(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(timestamp) = &self.timestamp {
            return Ok(timestamp.clone_ref(py));
        }
        let timestamp = moments::to_python(py, self.made)?;
        Ok(self.timestamp.insert(timestamp).clone_ref(py))
    }

    #[setter]
    fn set_timestamp(&mut self, timestamp: Py<PyAny>) {
        self.timestamp = Some(timestamp);
    }

    #[getter]
    fn error(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.error {
            Some(error) => Ok(error.clone_ref(py)),
            None => Ok("".into_pyobject(py)?.into_any().unbind()),
        }
    }

    #[setter]
    fn set_error(&mut self, error: Py<PyAny>) {
        self.error = Some(error);
    }

    fn __getnewargs__<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let (timestamp, error) = (self.timestamp(py)?, self.error(py)?);
        let fields = [&self.function_id, &self.node_id, &self.duration_ms, &self.success, &timestamp, &error];
        PyTuple::new(py, fields.map(|field| field.clone_ref(py)))
    }
}

/// Tracks invocation metrics and answers queries.
#[pyclass(module = "edgeward", frozen, weakref)]
pub(crate) struct EdgeMetrics {
    metrics: Arc<edgeward::EdgeMetrics>,
    /// The last record: the next one mostly has the very same objects as its ids, which are checked then.
    last: Mutex<Option<Counted>>,
}

struct Counted {
    function_id: Py<PyAny>,
    node_id: Py<PyAny>,
    record: edgeward::InvocationRecord,
}

impl Counted {
    fn of(py: Python<'_>, record: &InvocationRecord) -> PyResult<Self> {
        let (function_id, node_id) = (record.function_id.clone_ref(py), record.node_id.clone_ref(py));
        let counted = edgeward::InvocationRecord {
            function_id: FunctionId::new(text(function_id.bind(py), "function id")?).or_raise(py)?,
            node_id: NodeId::new(text(node_id.bind(py), "node id")?).or_raise(py)?,
            duration_ms: 0.0,
            success: true,
            timestamp: record.made,
            error: String::new(),
            error_kind: None,
            cold_start: false,
        };
        Ok(Self { function_id, node_id, record: counted })
    }
}

impl EdgeMetrics {
    pub(crate) fn of(metrics: &Arc<edgeward::EdgeMetrics>) -> Self {
        Self { metrics: Arc::clone(metrics), last: Mutex::default() }
    }
}

#[pymethods]
impl EdgeMetrics {
    #[new]
    fn __new__() -> Self {
        Self::of(&Arc::default())
    }

    /// Counts one invocation.
    fn record(&self, record: &Bound<'_, InvocationRecord>) -> PyResult<()> {
        let py = record.py();
        let record = record.borrow();
        let (duration_ms, success) = (record.duration_ms.extract(py)?, record.success.bind(py).is_truthy()?);
        let mut last = self.last.lock();
        if let Some(last) = &mut *last
            && last.function_id.is(&record.function_id)
            && last.node_id.is(&record.node_id)
        {
            (last.record.duration_ms, last.record.success) = (duration_ms, success);
            self.metrics.record(&last.record);
            return Ok(());
        }
        // What calls Python does so without the lock: another thread would wait for it with the interpreter held.
        drop(last);
        let mut counted = Counted::of(py, &record)?;
        (counted.record.duration_ms, counted.record.success) = (duration_ms, success);
        self.metrics.record(&counted.record);
        let _before = self.last.lock().replace(counted);
        Ok(())
    }

    /// Number of invocations: all, those of a function, of a node, or both.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn total_invocations(&self, function_id: Option<&str>, node_id: Option<&str>) -> u64 {
        self.metrics.total_invocations(Filter { function_id, node_id })
    }

    /// Successful invocations in percent, 0 to 100; 100 with no records.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn success_rate(&self, function_id: Option<&str>, node_id: Option<&str>) -> f64 {
        self.metrics.success_rate(Filter { function_id, node_id })
    }

    /// Mean duration in milliseconds; 0 with no records.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn avg_latency_ms(&self, function_id: Option<&str>, node_id: Option<&str>) -> f64 {
        self.metrics.avg_latency_ms(Filter { function_id, node_id })
    }

    /// Number of failed invocations.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn error_count(&self, function_id: Option<&str>, node_id: Option<&str>) -> u64 {
        self.metrics.error_count(Filter { function_id, node_id })
    }

    /// All of these in one consistent reading, with percentiles, cold starts and kinds of errors.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn summary<'py>(&self, py: Python<'py>, function_id: Option<&str>, node_id: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
        let summary = self.metrics.summary(Filter { function_id, node_id });
        let dict = PyDict::new(py);
        dict.set_item("total", summary.total)?;
        dict.set_item("total_invocations", summary.total_invocations)?;
        dict.set_item("success_rate", summary.success_rate)?;
        dict.set_item("avg_latency", summary.avg_latency)?;
        dict.set_item("avg_latency_ms", summary.avg_latency_ms)?;
        dict.set_item("error_count", summary.error_count)?;
        dict.set_item("p50_ms", summary.p50_ms)?;
        dict.set_item("p95_ms", summary.p95_ms)?;
        dict.set_item("p99_ms", summary.p99_ms)?;
        dict.set_item("cold_starts", summary.cold_starts)?;
        let errors = PyDict::new(py);
        summary.errors.iter().try_for_each(|(kind, count)| errors.set_item(kind.as_ref(), count))?;
        dict.set_item("errors", errors)?;
        Ok(dict)
    }

    /// The records in the text format of Prometheus.
    fn prometheus(&self) -> String {
        self.metrics.prometheus()
    }

    fn __repr__(&self) -> String {
        format!("<EdgeMetrics of {} invocations>", self.metrics.total_invocations(Filter::ALL))
    }
}
