//! The runtime of a node of a cluster, as a handle with the same methods wherever the node is.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use edgeward_cluster::schedule::Try;
use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, FunctionId, HandlerName, NodeId, ScheduleId, TriggerId, limits::CALL_TIMEOUT};
use edgeward_runtime::{CallOptions, EdgeRuntime, Filter, LogLine, NativeHandler, Output, Summary};
use edgeward_topics::DeadLetter;

use super::{
    EdgeCluster,
    far::FarNode,
    routing::{attempt_span, call_span},
};
use crate::{schedules::ScheduleHistory, topics::TriggerView};

/// What a call may take beside the function's own time: the way there and back.
const WAY: Duration = Duration::from_secs(5);

/// The runtime of one node.
#[derive(Clone)]
pub struct NodeRuntime {
    pub(super) cluster: EdgeCluster,
    pub(super) place: Place,
}

/// Where a node is.
#[derive(Clone)]
pub(super) enum Place {
    /// In this process.
    Here(Arc<EdgeRuntime>),
    /// On another machine.
    Far(FarNode),
}

impl std::fmt::Debug for NodeRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NodeRuntime").field(self.node_id()).finish()
    }
}

impl NodeRuntime {
    /// The node.
    pub fn node_id(&self) -> &NodeId {
        match &self.place {
            Place::Here(runtime) => &runtime.node().id,
            Place::Far(far) => &far.id,
        }
    }

    /// The runtime itself, of a node in this process.
    pub fn here(&self) -> Option<&Arc<EdgeRuntime>> {
        match &self.place {
            Place::Here(runtime) => Some(runtime),
            Place::Far(_) => None,
        }
    }

    /// Makes native code available to functions of this node under a name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the node is far away: native code runs only in the process where it is registered.
    pub fn register(&self, name: HandlerName, handler: NativeHandler) -> Result<(), EdgeError> {
        match &self.place {
            Place::Here(runtime) => {
                runtime.register(name, handler);
                Ok(())
            }
            Place::Far(far) => Err(EdgeError::invalid(format!(
                "handler `{name}` cannot be registered on node `{}`, which is another process; deploy an artifact, or register it there",
                far.id
            ))),
        }
    }

    /// Assigns a function to this node, as [`EdgeCluster::deploy_to_node`] does.
    pub async fn deploy(&self, function: EdgeFunction) -> Result<(), EdgeError> {
        self.cluster.deploy_to_node(self.node_id().as_str(), function).await
    }

    /// Takes a function from this node; returns whether it was assigned.
    pub async fn undeploy(&self, id: &str) -> Result<bool, EdgeError> {
        match FunctionId::new(id) {
            Ok(id) => self.cluster.undeploy_from_node(self.node_id().as_str(), &id).await,
            Err(_) => Ok(false),
        }
    }

    /// The functions that this node should run, by id.
    pub async fn list_functions(&self) -> Result<Vec<EdgeFunction>, EdgeError> {
        match &self.place {
            Place::Here(runtime) => Ok(runtime.list_functions()),
            Place::Far(far) => self.cluster.assigned(&far.id).await,
        }
    }

    /// Invokes a function as [`EdgeRuntime::invoke`] does.
    ///
    /// # Errors
    /// Those of the function; and of a far node [`ErrorKind::Unavailable`] when it is not connected, [`ErrorKind::Timeout`] when it did
    /// not answer, [`ErrorKind::TooLarge`] past [`edgeward_model::limits::MESSAGE_BYTES_MAX`].
    pub async fn invoke(&self, id: &str, payload: impl Into<Bytes>) -> Result<Bytes, EdgeError> {
        self.invoke_with(id, payload, CallOptions::default()).await.map(|output| output.body)
    }

    /// The same, with what goes with the payload and comes with the result.
    pub async fn invoke_with(&self, id: &str, payload: impl Into<Bytes>, options: CallOptions) -> Result<Output, EdgeError> {
        match &self.place {
            Place::Here(runtime) => runtime.invoke_with(id, payload, options).await,
            Place::Far(far) => {
                // It may wait in its queue for as long as it may run.
                let time = self.cluster.deadline(&far.id, id).await?.map_or(CALL_TIMEOUT, |deadline| deadline * 2 + WAY);
                let function = FunctionId::new(id)?;
                let mut call = call_span(&function, options.trace());
                let options = options.below(call.as_ref());
                let mut attempt = attempt_span(&function, &far.id, options.trace(), 1);
                let called = far.invoke(function, payload.into(), options.below(attempt.as_ref()), time).await;
                called
                    .map_err(|failed| failed.error)
                    .inspect_err(|error| call.iter_mut().chain(&mut attempt).for_each(|span| span.fail(error)))
            }
        }
    }

    /// The lines of a function's log after one, oldest first; when there are none yet, it waits so long for one.
    pub async fn logs(&self, id: &FunctionId, after: u64, wait: Duration) -> Result<Vec<LogLine>, EdgeError> {
        match &self.place {
            Place::Here(runtime) => {
                let log = runtime.log(id.as_str()).ok_or_else(|| EdgeError::function_not_found(id.as_str()))?;
                Ok(log.after(after, wait).await)
            }
            Place::Far(far) => far.logs(id.clone(), after, wait).await,
        }
    }

    /// What ran of a schedule on this node, and what did not.
    pub async fn schedule_history(&self, id: &ScheduleId) -> Result<ScheduleHistory, EdgeError> {
        self.far("schedules")?.schedule_history(id.clone()).await
    }

    /// Starts a run of a schedule on this node, as [`Schedules::run_now`](crate::Schedules::run_now) does.
    pub async fn run_schedule(&self, id: &ScheduleId) -> Result<Try, EdgeError> {
        self.far("schedules")?.run_schedule(id.clone()).await
    }

    /// Every trigger of this node by id, and how it does: those of the fleet and its own.
    pub async fn triggers(&self) -> Result<Vec<TriggerView>, EdgeError> {
        self.far("triggers")?.triggers().await
    }

    /// One trigger of this node, and how it does.
    pub async fn trigger(&self, id: &TriggerId) -> Result<TriggerView, EdgeError> {
        self.far("triggers")?.trigger(id.clone()).await
    }

    /// Messages that functions of triggers could not handle on this node, of one trigger or of all, by id: those after this id that fit into one
    /// answer. Where there are none, it was the last.
    pub async fn dead_letters(&self, trigger: Option<&TriggerId>, after: u64) -> Result<Vec<DeadLetter>, EdgeError> {
        self.far("triggers")?.dead_letters(trigger.cloned(), after).await
    }

    /// Has a dead letter of this node tried again, as [`Topics::retry_dead_letter`](crate::Topics::retry_dead_letter) does.
    pub async fn retry_dead_letter(&self, id: u64) -> Result<(), EdgeError> {
        self.far("triggers")?.retry_dead_letter(id).await
    }

    /// Removes a dead letter of this node for good.
    pub async fn discard_dead_letter(&self, id: u64) -> Result<(), EdgeError> {
        self.far("triggers")?.discard_dead_letter(id).await
    }

    /// What ran on this node so far.
    pub async fn summary(&self) -> Result<Summary, EdgeError> {
        match &self.place {
            Place::Here(runtime) => Ok(runtime.metrics().summary(Filter::ALL)),
            Place::Far(far) => far.summary().await,
        }
    }

    /// The node, when it is far: the others run none of these.
    fn far(&self, what: &str) -> Result<&FarNode, EdgeError> {
        match &self.place {
            Place::Here(runtime) => {
                let message = format!("node `{}` is in the hub's own process, where no {what} run", runtime.node().id);
                Err(EdgeError::new(ErrorKind::NotFound, message))
            }
            Place::Far(far) => Ok(far),
        }
    }
}

/// The error of who has no way to a node.
pub(super) fn no_way(id: &NodeId) -> EdgeError {
    EdgeError::new(ErrorKind::Unavailable, format!("node `{id}` is far away, and this cluster is not connected to a backbone"))
}
