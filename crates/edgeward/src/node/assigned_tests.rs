//! What a node makes of what its hub assigns: what it tells of it, and when it has come to stay.

use edgeward_model::{Handler, HandlerName};
use edgeward_runtime::NativeHandler;

use super::*;
use crate::desired::record::{RevisionRecord, WarmRecord};

fn open() -> (tempfile::TempDir, Arc<Node>) {
    let folder = tempfile::tempdir().expect("temp folder");
    let node = Node::open(NodeOptions::new(EdgeNode::new("edge-01", "test").expect("valid"), folder.path())).expect("opens");
    (folder, node)
}

fn native(handler: &str) -> EdgeFunction {
    EdgeFunction::new("f", "f", Handler::Native(HandlerName::new(handler).expect("valid"))).expect("valid")
}

fn revision(revision: u64) -> RevisionRecord {
    RevisionRecord { revision, probe: None, bake_seconds: 0.0, judged_seconds: 60, warm: None }
}

fn beside(number: u64, function: &EdgeFunction, warm: u64) -> RevisionRecord {
    RevisionRecord { warm: Some(WarmRecord { revision: warm, function: function.clone() }), ..revision(number) }
}

/// Assigns a function as a hub does, and waits until the node has looked at it.
async fn assign(node: &Node, function: &EdgeFunction, deployed: RevisionRecord) {
    node.assignments.put(&node.runtime().node().id, function, Some(deployed)).expect("writes");
    node.reconcile().await;
}

fn report(node: &Node) -> FunctionReport {
    node.reports().remove("f").expect("it is assigned")
}

#[tokio::test]
async fn the_counts_of_what_serves_on_are_not_told_as_those_of_the_revision_that_failed() {
    let (_folder, node) = open();
    let broken = NativeHandler::new(async |_| Err::<Bytes, _>(std::io::Error::other("it is broken")));
    node.runtime().register(HandlerName::new("broken").expect("valid"), broken);
    assign(&node, &native("broken"), revision(1)).await;
    for _ in 0..5 {
        node.runtime().invoke("f", "").await.expect_err("it is broken");
    }
    assign(&node, &native("missing"), beside(2, &native("broken"), 1)).await;
    let report = report(&node);
    assert_eq!((report.state, report.sample, report.baked), (FunctionState::Failed, None, false));
}
