//! The functions of the revisions that a cluster keeps, as Python's objects and callables.
//!
//! A deployment reaches its nodes after the call that wants it, and may go back to a revision of long ago. So the callable of each revision
//! that is kept stays registered on every node of the cluster, under the name that the revision says.

use std::{collections::BTreeSet, sync::Arc};

use edgeward::{ErrorKind, FunctionId, Handler, HandlerName};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::{events::handler_of, function::EdgeFunction, workers::Callable};

/// A function as it was deployed.
pub(crate) struct Known {
    pub(crate) function: edgeward::EdgeFunction,
    /// The very object.
    pub(crate) object: Py<EdgeFunction>,
    /// Its code, where that is a callable.
    pub(crate) callable: Option<Arc<Callable>>,
}

/// Those of one cluster.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Vec<Known>>);

impl Kept {
    /// The object that was deployed as this function.
    pub(crate) fn object_of(&self, py: Python<'_>, function: &edgeward::EdgeFunction) -> Option<Py<EdgeFunction>> {
        self.0.lock().iter().find(|known| known.function == *function).map(|known| known.object.clone_ref(py))
    }

    /// The name under which a callable is registered for a function already.
    pub(crate) fn name_of(&self, id: &FunctionId, handler: &Py<PyAny>) -> Option<HandlerName> {
        let known = self.0.lock();
        let is_it = |known: &&Known| {
            known.function.id == *id && known.callable.as_ref().is_some_and(|callable| callable.handler.as_ptr() == handler.as_ptr())
        };
        known.iter().find(is_it).and_then(|known| native(&known.function).cloned())
    }

    /// Keeps a function, in place of an equal one, and has every node of the cluster know its callable.
    pub(crate) fn keep(&self, cluster: &edgeward::EdgeCluster, known: Known) {
        if let (Some(name), Some(callable)) = (native(&known.function), &known.callable) {
            cluster.register_handler(name.clone(), handler_of(Arc::clone(callable)));
        }
        let mut kept = self.0.lock();
        kept.retain(|other| other.function != known.function);
        kept.push(known);
    }

    /// Forgets what is no revision any more.
    pub(crate) async fn prune(&self, cluster: &edgeward::EdgeCluster) {
        let ids: BTreeSet<_> = self.0.lock().iter().map(|known| known.function.id.clone()).collect();
        for id in ids {
            let revisions = match cluster.deployments().revisions(&id).await {
                Ok(revisions) => revisions,
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                // The next time tells.
                Err(_) => continue,
            };
            let is_revision = |function: &edgeward::EdgeFunction| {
                let shown = edgeward::EdgeFunction { environment: function.environment.redacted(), ..function.clone() };
                revisions.iter().any(|revision| revision.function == shown)
            };
            let mut kept = self.0.lock();
            let gone: Vec<_> = kept.extract_if(.., |known| known.function.id == id && !is_revision(&known.function)).collect();
            for name in gone.iter().filter_map(|known| native(&known.function)) {
                if !kept.iter().any(|known| native(&known.function) == Some(name)) {
                    cluster.unregister_handler(name);
                }
            }
        }
    }
}

/// The name of the callable of a function.
fn native(function: &edgeward::EdgeFunction) -> Option<&HandlerName> {
    match &function.handler {
        Handler::Native(name) => Some(name),
        Handler::Artifact(_) => None,
    }
}
