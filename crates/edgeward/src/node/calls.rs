//! Calls by the name of a function on a node: here when it is here, else its hub finds a node for it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use edgeward_cluster::{
    Backbone, BackboneError, Subject,
    routing::{Terms, too_late},
};
use edgeward_model::{EdgeError, ErrorKind, FunctionId, limits::REQUEST_TIMEOUT_MAX};
use edgeward_runtime::{CallOptions, Output};
use edgeward_telemetry::{SpanKind, begin, span};
use parking_lot::RwLock;
use tokio::time::timeout;

use super::Node;
use crate::services::{
    CALL,
    invocation::{Invocation, read_output},
};

/// The way to the hub, while there is an [`Uplink`](crate::Uplink).
#[derive(Default)]
pub(super) struct WayToHub(RwLock<Option<Arc<dyn Backbone>>>);

impl fmt::Debug for WayToHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WayToHub").field(&self.0.read().is_some()).finish()
    }
}

/// Keeps the way of a node to its hub. Dropped, the node calls only what it has.
pub(crate) struct KeptWay {
    node: Arc<Node>,
    backbone: Arc<dyn Backbone>,
}

impl KeptWay {
    pub(crate) fn new(node: &Arc<Node>, backbone: &Arc<dyn Backbone>) -> Self {
        *node.hub.0.write() = Some(Arc::clone(backbone));
        Self { node: Arc::clone(node), backbone: Arc::clone(backbone) }
    }
}

impl Drop for KeptWay {
    fn drop(&mut self) {
        // Another may have come in its place.
        self.node.hub.0.write().take_if(|known| Arc::ptr_eq(known, &self.backbone));
    }
}

impl Node {
    /// Calls a function: on this node when it is here and may run, else wherever the hub finds it, within the time that its caller leaves and the
    /// function's own deadline. The hub retries; the node does not.
    ///
    /// # Errors
    /// Those of the function; [`ErrorKind::NotFound`] when no node of the fleet has it, or this one has it not and is alone;
    /// [`ErrorKind::Unavailable`] when the hub or the nodes with it cannot be reached, [`ErrorKind::Timeout`] when its time is up.
    pub async fn call(
        &self,
        function: &FunctionId,
        payload: impl Into<Bytes>,
        options: CallOptions,
        terms: Terms,
    ) -> Result<Output, EdgeError> {
        let hub = if self.runs_here(function) { None } else { self.hub.0.read().clone() };
        if terms.left == Some(Duration::ZERO) {
            return Err(too_late(function));
        }
        if let Some(hub) = hub {
            let mut span = begin(options.trace(), SpanKind::Client, || format!("call {function} by the hub"));
            let (payload, options, is_idempotent) = (payload.into(), options.below(span.as_ref()), terms.is_idempotent);
            let invocation = Invocation { function: function.clone(), payload, options, is_idempotent };
            let left = terms.left.unwrap_or(REQUEST_TIMEOUT_MAX);
            return self.call_by_hub(&*hub, invocation, left).await.inspect_err(|error| span::fail(&mut span, error));
        }
        // What is not here, of a node that is alone, is not found here.
        let deployed = self.runtime().find(function.as_str())?;
        let function = deployed.function();
        let deadline = function.resilience.deadline(function.timeout());
        let time = terms.left.map_or(deadline, |left| left.min(deadline));
        timeout(time, self.runtime().invoke_with(function.id.as_str(), payload, options)).await.unwrap_or_else(|_| {
            let message = format!("function `{}` did not answer within {time:?}; the call may have run", function.id);
            Err(EdgeError::new(ErrorKind::Timeout, message))
        })
    }

    /// Whether a function is here, and is not another node's to run now.
    fn runs_here(&self, function: &FunctionId) -> bool {
        let Ok(deployed) = self.runtime().find(function.as_str()) else { return false };
        !deployed.is_leased() || self.installer.leases().why_waiting(function).is_none()
    }

    async fn call_by_hub(&self, hub: &dyn Backbone, invocation: Invocation, time: Duration) -> Result<Output, EdgeError> {
        let (to, function) = (Subject::to_hub(self.runtime().node().id.clone(), CALL), invocation.function.clone());
        let answer = hub.request(&to, invocation.write()?, time.min(REQUEST_TIMEOUT_MAX)).await;
        answer.map(read_output).map_err(|error| {
            let why = match &error {
                BackboneError::Answered(_) => return error.into(),
                BackboneError::Timeout(_) => {
                    format!("function `{function}` was called by the hub, which did not answer within {time:?}; it may have run")
                }
                BackboneError::NoResponder(_) | BackboneError::Disconnected(_) => {
                    format!("function `{function}` is not on this node, and the hub, which would find it, cannot be reached")
                }
                _ => format!("failed to call function `{function}` by the hub"),
            };
            EdgeError::new(error.kind(), why).with_source(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use edgeward_cluster::{Call, LocalNetwork, Message, Subjects, handler};
    use edgeward_model::{EdgeNode, NodeId};

    use super::*;
    use crate::node::NodeOptions;

    #[tokio::test]
    async fn who_names_no_time_leaves_the_function_all_that_it_may_take() {
        let (network, folder) = (LocalNetwork::new(), tempfile::tempdir().expect("a folder"));
        let node = Node::open(NodeOptions::new(EdgeNode::new("a", "a").expect("valid"), folder.path())).expect("opens");
        let member = |id: &str| network.member(NodeId::new(id).expect("valid"));
        let backbone: Arc<dyn Backbone> = Arc::new(member("a"));
        let _way = KeptWay::new(&node, &backbone);
        let told = handler(|Call { deadline, .. }: Call| async move {
            let left = deadline - tokio::time::Instant::now();
            Ok::<_, EdgeError>(Message::new(left.as_secs().to_string()))
        });
        let _hub = member("hub").serve(&Subjects::to_hub(CALL), 1, told).await.expect("serves");
        let seconds = async |left| {
            let (function, terms) = (FunctionId::new("f").expect("valid"), Terms { left, ..Terms::default() });
            let output = node.call(&function, "", CallOptions::default(), terms).await.expect("the hub answers");
            String::from_utf8_lossy(&output.body).parse::<u64>().expect("a number")
        };
        assert!(seconds(None).await >= 3600);
        assert!(seconds(Some(Duration::from_secs(100))).await <= 100);
    }
}
