//! What a record of a deployment holds at most, and what becomes of one that cannot be read.

use edgeward_model::{
    EdgeNode, Handler, HandlerName,
    limits::{DEPLOYMENT_BYTES_MAX, NODE_MESSAGE_BYTES_MAX, REFUSED_NODES_MAX, VALUE_BYTES_MAX},
};

use super::*;
use crate::{fleet::EdgeCluster, stored::bytes_of};

fn deployment(id: &str) -> Deployment {
    let (function, now) = (FunctionId::new(id).expect("valid"), Timestamp::UNIX_EPOCH);
    Deployment {
        function: function.clone(),
        generation: u64::MAX,
        observed_generation: u64::MAX,
        revision: u64::MAX,
        target: Target::all(),
        strategy: Strategy::default(),
        updated_at: now,
        leaving: BTreeSet::new(),
        missing: String::new(),
        at_once: false,
        deleted: false,
        rollout: Rollout::new(function, u64::MAX, Some(u64::MAX), u64::MAX, now),
    }
}

#[test]
fn a_deployment_fits_into_a_value_however_many_nodes_refused_and_whatever_they_said() {
    let mut deployment = deployment(&"f".repeat(64));
    let empty = bytes_of(&deployment).expect("JSON");
    // The characters that take the most as JSON.
    let why = "\u{e9}".repeat(NODE_MESSAGE_BYTES_MAX / 2);
    deployment.rollout.reason = why.repeat(8);
    deployment.rollout.refused = (0..REFUSED_NODES_MAX).map(|n| (NodeId::new(format!("{n:064}")).expect("valid"), why.clone())).collect();
    let bytes = bytes_of(&deployment).expect("JSON") + DEPLOYMENT_BYTES_MAX;
    assert!(empty < 1024 && bytes < VALUE_BYTES_MAX, "{empty} and {bytes}");
}

#[tokio::test]
async fn a_deployment_that_cannot_be_read_keeps_no_other_and_can_be_removed() {
    let cluster = EdgeCluster::new().expect("opens");
    let node = NodeId::new("a").expect("valid");
    cluster.register_node(EdgeNode::new("a", "a").expect("valid")).expect("registers");
    let function = EdgeFunction::new("f", "f", Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid");
    let (id, store) = (function.id.clone(), cluster.deployment_store().clone());
    let (mut bad, good) = (deployment("f"), deployment("g"));
    bad.target = Target::Nodes(BTreeSet::new());
    let rollout = Rollout { generation: 1, ..bad.rollout.clone() };
    let edited = store.document.edit(Precondition::None, move |draft| {
        draft.set("deployment/f", &to_value(&bad)?)?;
        draft.set("rollout/f/1", &to_value(&rollout)?)?;
        draft.set("rollout/f/2", &to_value(&"no rollout")?)?;
        draft.set("deployment/g", &to_value(&good)?)
    });
    edited.expect("edits");
    cluster.assignments().put(&node, &function, None).expect("writes");
    assert_eq!(store.all().expect("reads").keys().map(FunctionId::as_str).collect::<Vec<_>>(), ["g"]);
    let ids: Vec<_> = store.rollouts().expect("reads").iter().map(|rollout| rollout.function.to_string()).collect();
    assert_eq!(ids, ["f", "g"]);
    assert!(store.get(&id).expect_err("it cannot be read").to_string().contains("`edgeward deployments remove f`"));
    assert!(cluster.deployments().remove(&id).await.expect("removes"));
    assert!(!cluster.deployments().remove(&id).await.expect("is gone"));
    assert!(cluster.assignments().of(&node).expect("reads").is_empty());
    assert_eq!(store.rollouts().expect("reads").len(), 1);
}
