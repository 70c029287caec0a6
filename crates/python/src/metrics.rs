//! `InvocationRecord` and `EdgeMetrics`.

use std::sync::Arc;

use edgeward::{Filter, FunctionId, NodeId};
use jiff::Timestamp;
use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};

use crate::{errors::OrRaise, moments, node::text};

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
    /// When it was made, in microseconds; a `datetime` is made of it when somebody looks.
    made_us: i64,
    timestamp: Option<Py<PyAny>>,
    /// None stands for the empty text.
    error: Option<Py<PyAny>>,
}

#[pymethods]
impl InvocationRecord {
    #[new]
    #[pyo3(signature = (function_id, node_id, duration_ms, success, timestamp=None, error=None))]
    fn __new__(
        function_id: Py<PyAny>,
        node_id: Py<PyAny>,
        duration_ms: Py<PyAny>,
        success: Py<PyAny>,
        timestamp: Option<Py<PyAny>>,
        error: Option<Py<PyAny>>,
    ) -> Self {
        Self { function_id, node_id, duration_ms, success, made_us: Timestamp::now().as_microsecond(), timestamp, error }
    }

    #[getter]
    fn timestamp(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(timestamp) = &self.timestamp {
            return Ok(timestamp.clone_ref(py));
        }
        let made = Timestamp::from_microsecond(self.made_us).expect("it came from a timestamp");
        let timestamp = moments::to_python(py, made)?;
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
pub(crate) struct EdgeMetrics(pub(crate) Arc<edgeward::EdgeMetrics>);

#[pymethods]
impl EdgeMetrics {
    #[new]
    fn __new__() -> Self {
        Self(Arc::default())
    }

    /// Counts one invocation.
    fn record(&self, record: &Bound<'_, InvocationRecord>) -> PyResult<()> {
        let py = record.py();
        let record = record.borrow();
        let counted = edgeward::InvocationRecord {
            function_id: FunctionId::new(text(record.function_id.bind(py), "function id")?).or_raise(py)?,
            node_id: NodeId::new(text(record.node_id.bind(py), "node id")?).or_raise(py)?,
            duration_ms: record.duration_ms.extract(py)?,
            success: record.success.bind(py).is_truthy()?,
            timestamp: Timestamp::UNIX_EPOCH,
            error: String::new(),
            error_kind: None,
            cold_start: false,
        };
        self.0.record(&counted);
        Ok(())
    }

    /// Number of invocations: all, those of a function, of a node, or both.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn total_invocations(&self, function_id: Option<&str>, node_id: Option<&str>) -> u64 {
        self.0.total_invocations(Filter { function_id, node_id })
    }

    /// Successful invocations in percent, 0 to 100; 100 with no records.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn success_rate(&self, function_id: Option<&str>, node_id: Option<&str>) -> f64 {
        self.0.success_rate(Filter { function_id, node_id })
    }

    /// Mean duration in milliseconds; 0 with no records.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn avg_latency_ms(&self, function_id: Option<&str>, node_id: Option<&str>) -> f64 {
        self.0.avg_latency_ms(Filter { function_id, node_id })
    }

    /// Number of failed invocations.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn error_count(&self, function_id: Option<&str>, node_id: Option<&str>) -> u64 {
        self.0.error_count(Filter { function_id, node_id })
    }

    /// All of these in one consistent reading, with percentiles, cold starts and kinds of errors.
    #[pyo3(signature = (function_id=None, node_id=None))]
    fn summary<'py>(&self, py: Python<'py>, function_id: Option<&str>, node_id: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
        let summary = self.0.summary(Filter { function_id, node_id });
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
        self.0.prometheus()
    }

    fn __repr__(&self) -> String {
        format!("<EdgeMetrics of {} invocations>", self.0.total_invocations(Filter::ALL))
    }
}
