//! `Documents` and `Document`: named maps that replicas share, in memory or in a folder.

use edgeward::{
    DocumentName, EdgeError, Epoch, ErrorKind, NodeId, Store, Watch,
    document::{self, Precondition},
};
use pyo3::{
    exceptions::PyKeyError,
    prelude::*,
    types::{PyDict, PyIterator, PyList},
};

use crate::{
    errors::OrRaise,
    fields::Version,
    moments,
    state::SyncState,
    values::{object_of, object_to_python, to_python, value_of},
    waiting::{awaitable, blocking},
};

/// The documents of one replica.
#[pyclass(module = "edgeward", frozen, weakref)]
pub(crate) struct Documents(pub(crate) edgeward::Documents);

#[pymethods]
impl Documents {
    /// The documents in a folder, which is made when it is missing, and which one process opens at a time; without one they end with
    /// the process.
    #[new]
    #[pyo3(signature = (path=None, *, node_id="local"))]
    fn __new__(py: Python<'_>, path: Option<std::path::PathBuf>, node_id: &str) -> PyResult<Self> {
        let store = blocking(py, || {
            let (node, epoch) = (NodeId::new(node_id)?, Epoch::draw()?);
            match path {
                Some(path) => Store::open(&path, node, epoch),
                None => Store::in_memory(node, epoch),
            }
        })?;
        Ok(Self(edgeward::Documents::new(store)))
    }

    /// The names of the documents that exist, sorted.
    fn list(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let documents = blocking(py, || self.0.list())?;
        Ok(documents.into_iter().filter(|info| !info.name.is_reserved()).map(|info| info.name.to_string()).collect())
    }

    /// The document of this name, whether it exists or not: the first change makes it.
    fn document(&self, py: Python<'_>, name: &str) -> PyResult<Document> {
        let name = DocumentName::new(name).or_raise(py)?;
        if name.is_reserved() {
            let message = format!("document `{name}` is the node's own; choose a name that does not begin with `edgeward.`");
            return Err(EdgeError::new(ErrorKind::Forbidden, message)).or_raise(py);
        }
        Ok(Document(self.0.document(name)))
    }

    fn __getitem__(&self, py: Python<'_>, name: &str) -> PyResult<Document> {
        self.document(py, name)
    }

    fn __contains__(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        let document = self.document(py, name)?;
        Ok(blocking(py, || document.0.info())?.is_some())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.list(py)?.into_pyobject(py)?.try_iter()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.list(py)?.len())
    }

    fn __repr__(&self) -> String {
        format!("<Documents of {}>", self.0.store().node())
    }
}

/// One document.
#[pyclass(module = "edgeward", frozen, weakref)]
pub(crate) struct Document(document::Document);

/// What must hold for a change: the version that the caller read, 0 for a document that does not exist.
fn precondition(if_version: Option<Version>) -> Precondition {
    match if_version {
        None => Precondition::None,
        Some(Version(0)) => Precondition::Absent,
        Some(Version(version)) => Precondition::Version(version),
    }
}

#[pymethods]
impl Document {
    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        self.0.name().as_str()
    }

    /// The whole document, or None when it does not exist.
    fn view(&self, py: Python<'_>) -> PyResult<Option<SyncState>> {
        blocking(py, || self.0.view())?.map(|state| SyncState::of_state(py, &state)).transpose()
    }

    /// The value of one key, or `default`.
    #[pyo3(signature = (key, default=None))]
    fn get(&self, py: Python<'_>, key: &str, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        match blocking(py, || self.0.get(key))? {
            Some(value) => Ok(to_python(py, &value)?.unbind()),
            None => Ok(default.unwrap_or_else(|| py.None())),
        }
    }

    fn __getitem__(&self, py: Python<'_>, key: &str) -> PyResult<Py<PyAny>> {
        let value = blocking(py, || self.0.get(key))?.ok_or_else(|| PyKeyError::new_err(key.to_owned()))?;
        Ok(to_python(py, &value)?.unbind())
    }

    fn __setitem__(&self, key: String, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, value) = (value.py(), value_of(value)?);
        blocking(py, || self.0.edit(Precondition::None, move |draft| draft.set(&key, &value)).map(drop))
    }

    fn __delitem__(&self, py: Python<'_>, key: String) -> PyResult<()> {
        let gone = key.clone();
        let was_there = blocking(py, || {
            self.0.edit(Precondition::None, move |draft| {
                let was_there = draft.get(&gone)?.is_some();
                draft.remove(&gone).map(|()| was_there)
            })
        })?;
        if was_there.result { Ok(()) } else { Err(PyKeyError::new_err(key)) }
    }

    fn __contains__(&self, py: Python<'_>, key: &str) -> PyResult<bool> {
        Ok(blocking(py, || self.0.get(key))?.is_some())
    }

    /// The keys that there are, sorted.
    fn keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        blocking(py, || self.0.keys(None, usize::MAX))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.keys(py)?.into_pyobject(py)?.try_iter()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.keys(py)?.len())
    }

    /// Makes `data` the whole document; returns its new state.
    #[pyo3(signature = (data, *, if_version=None))]
    fn replace(&self, data: &Bound<'_, PyAny>, if_version: Option<Version>) -> PyResult<SyncState> {
        let (py, data) = (data.py(), object_of(data)?);
        SyncState::of_state(py, &blocking(py, || self.0.replace(precondition(if_version), data))?)
    }

    /// Changes the document by a JSON merge patch (RFC 7396): None deletes a key. Returns its new state.
    #[pyo3(signature = (patch, *, if_version=None))]
    fn patch(&self, patch: &Bound<'_, PyAny>, if_version: Option<Version>) -> PyResult<SyncState> {
        let (py, patch) = (patch.py(), object_of(patch)?);
        SyncState::of_state(py, &blocking(py, || self.0.patch(precondition(if_version), patch))?)
    }

    /// Adds to a counter and returns the sum: what replicas count while apart adds up.
    #[pyo3(signature = (key, by=1))]
    fn increment(&self, py: Python<'_>, key: String, by: i64) -> PyResult<i64> {
        Ok(blocking(py, || self.0.edit(Precondition::None, move |draft| draft.increment(&key, by)))?.result)
    }

    /// Deletes every key; says whether there was one.
    #[pyo3(signature = (*, if_version=None))]
    fn clear(&self, py: Python<'_>, if_version: Option<Version>) -> PyResult<bool> {
        blocking(py, || self.0.clear(precondition(if_version)))
    }

    /// The changes that `confirm` has not covered, oldest first.
    fn pending<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        changes(py, &blocking(py, || self.0.pending())?)
    }

    /// The changes that are kept, oldest first: the pending ones, and a bounded number of those before.
    fn history<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        changes(py, &blocking(py, || self.0.history())?)
    }

    /// Confirms the pending changes up to this version.
    fn confirm(&self, py: Python<'_>, up_to_version: Version) -> PyResult<()> {
        blocking(py, || self.0.confirm(up_to_version.0))
    }

    /// Takes over a state of a higher version; says whether it was taken.
    fn take_over(&self, state: &Bound<'_, SyncState>) -> PyResult<bool> {
        let py = state.py();
        let state = state.borrow().to_state(py)?;
        blocking(py, || self.0.take_over(&state))
    }

    /// The states of this document as they come, the one of now first: for `async for`.
    fn watch(&self) -> DocumentWatch {
        DocumentWatch { document: self.0.clone(), watch: std::sync::Arc::new(tokio::sync::Mutex::new(self.0.watch())) }
    }

    fn __repr__(&self) -> String {
        format!("<Document '{}'>", self.0.name())
    }
}

/// Tells the states of one document.
#[pyclass(module = "edgeward", frozen)]
pub(crate) struct DocumentWatch {
    document: document::Document,
    watch: std::sync::Arc<tokio::sync::Mutex<Watch>>,
}

#[pymethods]
impl DocumentWatch {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (document, watch) = (self.document.clone(), std::sync::Arc::clone(&self.watch));
        let next = async move {
            let mut watch = watch.lock().await;
            loop {
                watch.changed().await?;
                let document = document.clone();
                if let Some(state) = edgeward::blocking(move || document.view()).await? {
                    return Ok::<_, EdgeError>(state);
                }
            }
        };
        awaitable(py, next, |py, state| Ok(Py::new(py, SyncState::of_state(py, &state)?)?.into_any()))
    }
}

/// Changes as Python's dictionaries.
pub(crate) fn changes<'py>(py: Python<'py>, changes: &[edgeward::Change]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for change in changes {
        let dict = PyDict::new(py);
        dict.set_item("type", &change.r#type)?;
        dict.set_item("version", change.version)?;
        dict.set_item("data", object_to_python(py, &change.data)?)?;
        dict.set_item("timestamp", moments::to_python(py, change.timestamp)?)?;
        dict.set_item("coalesced", change.coalesced)?;
        list.append(dict)?;
    }
    Ok(list)
}
