//! Calls by the name of a function on a node: here when it is here, and where that is not so or fails, its hub finds a node for it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use edgeward_cluster::{
    Backbone, BackboneError, Subject,
    routing::{CallFailure, Fault, Terms, too_late},
};
use edgeward_model::{EdgeError, ErrorKind, FunctionId, Resilience, limits::REQUEST_TIMEOUT_MAX};
use edgeward_runtime::{CallOptions, Output};
use edgeward_telemetry::{SpanKind, begin, span};
use parking_lot::RwLock;
use tokio::time::{Instant, timeout};

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
    /// function's own deadline. When this node is full, or it fails here and may run twice, the hub finds another for it. The hub retries; the node
    /// runs it once.
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
        if terms.left == Some(Duration::ZERO) {
            return Err(too_late(function));
        }
        let (function, payload) = (function.clone(), payload.into());
        if !self.runs_here(&function)
            && let Some(hub) = self.way_to_hub()
        {
            let invocation = Invocation { function, payload, options, is_idempotent: terms.is_idempotent, was_tried: false };
            return self.call_by_hub(&*hub, invocation, terms.left.unwrap_or(REQUEST_TIMEOUT_MAX)).await.map_err(|(error, _)| error);
        }
        // What is not here, of a node that is alone, is not found here.
        let deployed = self.runtime().find(function.as_str())?;
        let Resilience { retry, idempotent, .. } = &deployed.function().resilience;
        let is_idempotent = terms.is_idempotent || *idempotent;
        let deadline = deployed.function().resilience.deadline(deployed.function().timeout());
        let left = terms.left.map_or(deadline, |left| left.min(deadline));
        let until = Instant::now() + left;
        // Another node has the fleet's function of this name, which need not be one that is this node's own.
        let is_of_fleet = self.assigned.load().contains_key(&function);
        let attempt = retry.attempt().filter(|_| is_idempotent && is_of_fleet && self.way_to_hub().is_some());
        let time = attempt.map_or(left, |attempt| attempt.min(left));
        let running = timeout(time, self.runtime().invoke_with(function.as_str(), payload.clone(), options.clone()));
        let ran = running.await.unwrap_or_else(|_| {
            let message = format!("function `{function}` did not answer within {time:?}; the call may have run");
            Err(EdgeError::new(ErrorKind::Timeout, message))
        });
        let Err(error) = ran else { return ran };
        let failure = CallFailure::answered(error.kind());
        let may_run_elsewhere =
            is_of_fleet && failure.fault != Fault::Call && (is_idempotent || !failure.may_have_run) && retry.attempts() > 1;
        let left = until.saturating_duration_since(Instant::now());
        let Some(hub) = self.way_to_hub().filter(|hub| may_run_elsewhere && !left.is_zero() && hub.connection().borrow().is_up) else {
            return Err(error);
        };
        tracing::debug!(%function, error = error.chain(), "a call that failed here is the hub's");
        let invocation = Invocation { function, payload, options, is_idempotent, was_tried: true };
        let called = self.call_by_hub(&*hub, invocation, left).await;
        // That nobody else took it tells less than what went wrong here.
        called.map_err(|(theirs, nobody_took_it)| if nobody_took_it { error } else { theirs })
    }

    fn way_to_hub(&self) -> Option<Arc<dyn Backbone>> {
        self.hub.0.read().clone()
    }

    /// Whether a function is here, and is not another node's to run now.
    fn runs_here(&self, function: &FunctionId) -> bool {
        let Ok(deployed) = self.runtime().find(function.as_str()) else { return false };
        !deployed.is_leased() || self.installer.leases().why_waiting(function).is_none()
    }

    /// An error tells also whether nobody took the call for certain.
    async fn call_by_hub(&self, hub: &dyn Backbone, mut invocation: Invocation, time: Duration) -> Result<Output, (EdgeError, bool)> {
        let (to, function) = (Subject::to_hub(self.runtime().node().id.clone(), CALL), invocation.function.clone());
        let mut span = begin(invocation.options.trace(), SpanKind::Client, || format!("call {function} by the hub"));
        invocation.options = invocation.options.below(span.as_ref());
        let answer = match invocation.write() {
            Ok(message) => hub.request(&to, message, time.min(REQUEST_TIMEOUT_MAX)).await,
            Err(error) => Err(BackboneError::Answered(error)),
        };
        let answer = answer.map(read_output).map_err(|error| {
            // Of a node that vanished the hub says that it is unavailable, and it may have run there.
            let nobody_took_it = match &error {
                BackboneError::Answered(error) => {
                    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Overloaded | ErrorKind::RefusedArtifact)
                }
                other => matches!(other, BackboneError::NoResponder(_)),
            };
            let why = match &error {
                BackboneError::Answered(_) => return (error.into(), nobody_took_it),
                BackboneError::Timeout(_) => {
                    format!("function `{function}` was called by the hub, which did not answer within {time:?}; it may have run")
                }
                BackboneError::NoResponder(_) | BackboneError::Disconnected(_) => {
                    format!("function `{function}` is not on this node, and the hub, which would find it, cannot be reached")
                }
                _ => format!("failed to call function `{function}` by the hub"),
            };
            (EdgeError::new(error.kind(), why).with_source(error), nobody_took_it)
        });
        answer.inspect_err(|(error, _)| span::fail(&mut span, error))
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
