//! Whose signatures the nodes of a fleet trust.

use std::{collections::BTreeSet, sync::Arc};

use edgeward::{
    Digest, EdgeFunction, EdgeNodeStatus, ErrorKind, Handler, PublicKey, Uplink, UplinkOptions, blocking, events::EventKind,
    signing::SigningKey,
};

use crate::{
    site::{Site, eventually},
    support::{AtHub, AtNode, command, id, timing},
};

fn key() -> SigningKey {
    SigningKey::generate().expect("random")
}

fn function(artifact: Digest) -> EdgeFunction {
    EdgeFunction::new("f", "f", Handler::Artifact(artifact)).expect("valid")
}

fn signed(artifact: Digest, key: &SigningKey, counter: u64) -> EdgeFunction {
    let function = function(artifact);
    EdgeFunction { signature: Some(key.sign(&function.id, &artifact, counter)), ..function }
}

async fn trust(hub: &AtHub, key: PublicKey) {
    let cluster = hub.cluster.clone();
    blocking(move || cluster.trust_key(key, "release".to_owned())).await.expect("trusts");
}

async fn distrust(hub: &AtHub, key: PublicKey) {
    let cluster = hub.cluster.clone();
    blocking(move || cluster.distrust_key(&key, false)).await.expect("trusts no more");
}

async fn refuses(hub: &AtHub, why: &str) {
    let is_refused = || hub.says("edge-01", "f").is_some_and(|said| said.starts_with("failed") && said.contains(why));
    eventually(&format!("the node says: {why}"), async || is_refused()).await;
}

async fn is_stopped(node: &AtNode) {
    let kind = node.node.runtime().invoke("f", "").await.expect_err("it must not run").kind();
    assert_eq!(kind, ErrorKind::NotFound);
}

pub(crate) async fn a_fleet_with_a_trusted_key_runs_what_it_signed_and_stops_the_rest(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = AtNode::start(&site, &hub, "edge-01").await;
    let one = hub.cluster.add_artifact(command("one", 0)).await.expect("stored");
    let two = hub.cluster.add_artifact(command("two", 0)).await.expect("stored");
    hub.cluster.deploy_to_all(function(one)).await.expect("nothing need be signed yet");
    hub.serves("edge-01", "f").await;

    let (first, second) = (key(), key());
    trust(&hub, first.public_key()).await;
    refuses(&hub, "is not signed").await;
    is_stopped(&node).await;
    for refused in [function(one), signed(one, &second, 1)] {
        let error = hub.cluster.deploy_to_all(refused).await.expect_err("the hub knows it already");
        assert_eq!(error.kind(), ErrorKind::RefusedArtifact);
    }
    hub.cluster.deploy_to_all(signed(one, &first, 5)).await.expect("assigns");
    hub.serves("edge-01", "f").await;

    // The hub does not know what ran on each node; the node does.
    hub.cluster.deploy_to_all(signed(two, &first, 4)).await.expect("assigns");
    refuses(&hub, "an old image is not run again").await;
    let running = node.node.runtime().list_functions();
    assert_eq!((running.len(), running[0].handler.artifact()), (1, Some(one)), "what ran before goes on");
    hub.cluster.deploy_to_all(signed(two, &first, 6)).await.expect("assigns");
    hub.serves("edge-01", "f").await;

    trust(&hub, second.public_key()).await;
    distrust(&hub, first.public_key()).await;
    refuses(&hub, "not trusted here").await;
    is_stopped(&node).await;
    trust(&hub, first.public_key()).await;
    hub.serves("edge-01", "f").await;
    assert_eq!(hub.events(EventKind::TrustChanged).len(), 4);
}

pub(crate) async fn a_node_with_keys_of_its_own_trusts_no_other_whatever_its_hub_says(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    hub.cluster.admit(&id("edge-01"), None).expect("joins");
    let (own, of_fleet) = (key(), key());
    let keys = BTreeSet::from([own.public_key()]);
    let mut node = AtNode::open_trusting("edge-01", tempfile::tempdir().expect("a folder"), keys);
    node.connect(&site).await;
    hub.is("edge-01", EdgeNodeStatus::Online).await;
    let artifact = hub.cluster.add_artifact(command("hello", 0)).await.expect("stored");
    hub.cluster.deploy_to_all(function(artifact)).await.expect("the hub has no keys");
    refuses(&hub, "is not signed").await;
    is_stopped(&node).await;
    trust(&hub, of_fleet.public_key()).await;
    hub.cluster.deploy_to_all(signed(artifact, &of_fleet, 1)).await.expect("assigns");
    refuses(&hub, "not trusted here").await;
    is_stopped(&node).await;
    trust(&hub, own.public_key()).await;
    hub.cluster.deploy_to_all(signed(artifact, &own, 1)).await.expect("assigns");
    hub.serves("edge-01", "f").await;
}

pub(crate) async fn a_node_that_wants_few_documents_hears_of_the_trusted_keys_all_the_same(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    hub.cluster.admit(&id("edge-01"), None).expect("joins");
    let node = AtNode::open("edge-01", tempfile::tempdir().expect("a folder"));
    let options = UplinkOptions { timing: timing(), documents: vec!["prices".parse().expect("valid")], ..UplinkOptions::default() };
    let member = site.member("edge-01").await;
    let _uplink = Uplink::start(Arc::clone(&node.node), member, options).await.expect("starts");
    trust(&hub, key().public_key()).await;
    eventually("it requires signatures", async || node.node.trust().requires_signatures()).await;
}
