//! The compiled part of the Python package `edgeward`: the specification's classes over the Rust types.
//!
//! This is a face as the others are: it turns objects and errors of Python into those of the product and back, and decides nothing. The
//! rest of the package, which is plain Python, lies in `python/edgeward`.

mod chaos;
mod cluster;
mod deployments;
mod documents;
mod errors;
mod events;
mod fields;
mod followed;
mod function;
mod json;
mod kept;
mod metrics;
mod moments;
mod node;
mod runtime;
mod state;
mod synchronizer;
mod topics;
mod triggers;
mod values;
mod waiting;
mod workers;

use pyo3::prelude::*;

/// The compiled part of `edgeward`.
#[pymodule]
mod _edgeward {
    use super::{pyfunction, waiting, workers};

    #[pymodule_export]
    use super::{
        cluster::{Calls, EdgeCluster},
        deployments::Deployments,
        documents::{Document, DocumentWatch, Documents},
        followed::FollowedTopics,
        function::EdgeFunction,
        metrics::{EdgeMetrics, InvocationRecord},
        node::EdgeNode,
        runtime::EdgeRuntime,
        state::SyncState,
        synchronizer::EdgeSynchronizer,
        topics::Topics,
        triggers::TopicTrigger,
    };

    /// Forgets the threads of the parent in a process that was forked.
    #[pyfunction]
    fn after_fork_in_child() {
        waiting::forget_threads();
        workers::forget_threads();
    }
}
