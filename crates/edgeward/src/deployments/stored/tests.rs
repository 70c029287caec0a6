//! What a record of a deployment holds at most, and what becomes of one that cannot be read.

use edgeward_model::limits::{DEPLOYMENT_BYTES_MAX, NODE_MESSAGE_BYTES_MAX, REFUSED_NODES_MAX, VALUE_BYTES_MAX};

use super::*;
use crate::stored::bytes_of;

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
