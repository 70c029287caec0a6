//! Looks at deployments, one after the other, at times that the test says.

use edgeward_model::{EdgeNode, Handler, HandlerName, Strategy};
use edgeward_runtime::NativeHandler;

use super::*;
use crate::deployments::{DeploymentSpec, stored::Wish};

/// A cluster with a node that has the handler, and who looks after it.
fn steersman() -> Steersman {
    let cluster = EdgeCluster::new().expect("opens");
    let runtime = cluster.register_node(EdgeNode::new("a", "a").expect("valid")).expect("registers");
    let handler = NativeHandler::new(async |payload| Ok::<_, std::io::Error>(payload));
    runtime.register(HandlerName::new("h").expect("valid"), handler).expect("it is here");
    Steersman { cluster, wanted: Arc::default(), allotments: Arc::default(), failures: Mutex::default() }
}

/// A function whose environment takes so many bytes, and six times that as JSON.
fn function(bytes: usize) -> EdgeFunction {
    let mut function = EdgeFunction::new("f", "f", Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid");
    function.environment = [("LARGE", "\u{1}".repeat(bytes))].into_iter().collect();
    function
}

fn wish(bytes: usize) -> Wish {
    let strategy = Strategy { bake_seconds: Some(0.0), progress_seconds: Some(10.0), ..Strategy::default() };
    let spec = DeploymentSpec { strategy, ..DeploymentSpec::new(function(bytes)) };
    Wish { spec, generation: None, adopted: Vec::new(), at_once: false }
}

#[tokio::test]
async fn an_order_that_cannot_be_written_pauses_the_rollout_in_the_end() {
    let steersman = steersman();
    let store = steersman.cluster.deployment_store().clone();
    let mut now = Timestamp::UNIX_EPOCH;
    // No deployment is so large, and what a node is assigned has two of them.
    store.apply(wish(30_000), now).expect("applies");
    for revision in [1, 2] {
        for _ in 0..20 {
            now += Duration::from_secs(1);
            steersman.look(now).await.expect("looks");
        }
        let rollout = store.find(&function(0).id).expect("there").rollout;
        assert_eq!(rollout.to, revision);
        if revision == 1 {
            assert_eq!((rollout.state, rollout.reason.as_str()), (RolloutState::Completed, ""));
            store.apply(wish(31_000), now).expect("applies");
        } else {
            assert_eq!(rollout.state, RolloutState::Paused, "{rollout:?}");
            assert!(rollout.reason.contains("node `a`: the value of key `f` is"), "{}", rollout.reason);
        }
    }
}
