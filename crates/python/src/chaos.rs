//! Experiments of chaos engineering on the way between Python and the product: what they are, and what came of them.

use edgeward::{EdgeError, chaos::Experiment};
use pyo3::{prelude::*, types::PyString};

use crate::errors::OrRaise;

/// An experiment from the text of its file, or from a dictionary.
pub(crate) fn experiment_of(experiment: &Bound<'_, PyAny>) -> PyResult<Experiment> {
    let py = experiment.py();
    if let Ok(text) = experiment.cast::<PyString>() {
        return Experiment::read("experiment", text.to_str()?).or_raise(py);
    }
    let text: String = py.import("json")?.call_method1("dumps", (experiment,))?.extract()?;
    serde_json::from_str(&text).map_err(|error| EdgeError::invalid(format!("the experiment is not valid: {error}"))).or_raise(py)
}

/// As the HTTP API says it.
pub(crate) fn shown<'py>(py: Python<'py>, value: &impl serde::Serialize) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(value).expect("views are objects with keys of text");
    py.import("json")?.call_method1("loads", (text,))
}
