//! `EdgeSynchronizer`: one state, the changes of it that are not confirmed, and what comes from elsewhere.

use std::path::PathBuf;

use pyo3::{prelude::*, types::PyList};

use crate::{documents::changes, fields::Version, state::SyncState, values::object_of, waiting::blocking};

/// Keeps one state. Thread-safe.
#[pyclass(module = "edgeward", frozen, weakref)]
pub(crate) struct EdgeSynchronizer(edgeward::EdgeSynchronizer);

#[pymethods]
impl EdgeSynchronizer {
    /// The state in a folder, which is made when it is missing, and which one process opens at a time; without one it ends with the
    /// process.
    #[new]
    #[pyo3(signature = (path=None))]
    fn __new__(py: Python<'_>, path: Option<PathBuf>) -> PyResult<Self> {
        let opened = blocking(py, || match path {
            Some(path) => edgeward::EdgeSynchronizer::open(path),
            None => Ok(edgeward::EdgeSynchronizer::new()),
        });
        opened.map(Self)
    }

    /// Makes `data` the whole state; returns it, one version on.
    fn update_local(&self, data: &Bound<'_, PyAny>) -> PyResult<SyncState> {
        let (py, data) = (data.py(), object_of(data)?);
        SyncState::of_state(py, &blocking(py, || self.0.update_local(data))?)
    }

    /// Changes the state by a JSON merge patch (RFC 7396): None deletes a key. Returns it, one version on.
    fn patch_local(&self, patch: &Bound<'_, PyAny>) -> PyResult<SyncState> {
        let (py, patch) = (patch.py(), object_of(patch)?);
        SyncState::of_state(py, &blocking(py, || self.0.patch_local(patch))?)
    }

    /// Takes over a remote state when its version is higher; says whether it did.
    fn apply_remote(&self, remote: &Bound<'_, SyncState>) -> PyResult<bool> {
        let py = remote.py();
        let state = remote.borrow().to_state(py)?;
        blocking(py, || self.0.apply_remote(&state))
    }

    /// The local changes that are not confirmed, oldest first.
    fn get_pending_changes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        changes(py, &blocking(py, || self.0.get_pending_changes())?)
    }

    /// Confirms the pending changes up to this version.
    fn confirm_sync(&self, py: Python<'_>, up_to_version: Version) -> PyResult<()> {
        blocking(py, || self.0.confirm_sync(up_to_version.0))
    }

    /// The state, or None before the first one.
    fn get_local_state(&self, py: Python<'_>) -> PyResult<Option<SyncState>> {
        blocking(py, || self.0.get_local_state())?.map(|state| SyncState::of_state(py, &state)).transpose()
    }
}
