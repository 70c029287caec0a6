//! What a node makes of what its hub assigns: what it tells of it, and when it has come to stay.

use edgeward_model::{Handler, HandlerName};
use edgeward_runtime::NativeHandler;

use super::*;
use crate::{
    desired::record::{RevisionRecord, WarmRecord},
    signing::SigningKey,
};

fn open(keys: &[&SigningKey]) -> (tempfile::TempDir, Arc<Node>) {
    let folder = tempfile::tempdir().expect("temp folder");
    let trusted_keys = keys.iter().map(|key| key.public_key()).collect();
    let options = NodeOptions::new(EdgeNode::new("edge-01", "test").expect("valid"), folder.path());
    (folder, Node::open(NodeOptions { trusted_keys, ..options }).expect("opens"))
}

fn native(handler: &str) -> EdgeFunction {
    EdgeFunction::new("f", "f", Handler::Native(HandlerName::new(handler).expect("valid"))).expect("valid")
}

fn revision(revision: u64) -> RevisionRecord {
    RevisionRecord { revision, probe: None, bake_seconds: 0.0, judged_seconds: 60, exclusive: false, confirmed: false, warm: None }
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
    let (_folder, node) = open(&[]);
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

/// A function that this key signed as the release of a counter.
async fn release(node: &Node, key: &SigningKey, counter: u64) -> EdgeFunction {
    let command = format!(r#"(module $release{counter} (memory (export "memory") 1) (func (export "_start")))"#);
    let artifact = node.add_artifact(wat::parse_str(command).expect("valid")).await.expect("runs here");
    let function = EdgeFunction::new("f", "f", Handler::Artifact(artifact)).expect("valid");
    EdgeFunction { signature: Some(key.sign(&function.id, &artifact, counter)), ..function }
}

#[tokio::test]
async fn a_node_that_holds_does_not_confirm_what_it_may_have_to_go_back_from() {
    let key = SigningKey::generate().expect("random");
    let (_folder, node) = open(&[&key]);
    let (old, new) = (release(&node, &key, 1).await, release(&node, &key, 2).await);
    assign(&node, &old, RevisionRecord { confirmed: true, ..revision(1) }).await;
    assign(&node, &new, beside(2, &old, 1)).await;
    assert_eq!(report(&node).state, FunctionState::Ready);
    node.set_veto(Some(Veto::new("inventory", None, Timestamp::now()).expect("valid"))).await.expect("holds");
    node.set_veto(None).await.expect("is free");
    assign(&node, &old, revision(1)).await;
    assert_eq!((report(&node).state, report(&node).message), (FunctionState::Ready, String::new()));
}

#[tokio::test]
async fn a_node_that_had_nothing_before_confirms_when_its_hub_says_so() {
    let key = SigningKey::generate().expect("random");
    let (_folder, node) = open(&[&key]);
    let (old, new) = (release(&node, &key, 1).await, release(&node, &key, 2).await);
    assign(&node, &new, revision(2)).await;
    assert_eq!(report(&node).state, FunctionState::Ready);
    assign(&node, &old, revision(1)).await;
    assert_eq!(report(&node).state, FunctionState::Ready, "its rollout may go back");
    assign(&node, &new, RevisionRecord { confirmed: true, ..revision(2) }).await;
    assign(&node, &old, revision(1)).await;
    let report = report(&node);
    assert!(report.state == FunctionState::Failed && report.message.contains("an old image is not run again"), "{report:?}");
}

#[tokio::test]
async fn a_former_revision_that_cannot_be_kept_ready_is_no_failure_of_what_serves() {
    let (_folder, node) = open(&[]);
    let says = NativeHandler::new(async |_| Ok::<_, std::io::Error>("it works".into()));
    node.runtime().register(HandlerName::new("works").expect("valid"), says);
    assign(&node, &native("works"), beside(2, &native("missing"), 1)).await;
    let report = report(&node);
    assert_eq!((report.state, report.warm), (FunctionState::Ready, Some(FunctionState::Failed)));
    assert!(report.message.contains("missing"), "{report:?}");
}
