//! What a hub deploys on a far node, and asks of it.

use std::{collections::HashSet, fs, time::Duration};

use edgeward::{CallOptions, ErrorKind, EventKind, FunctionId, Handler};
use http::HeaderValue;

use crate::{
    site::{Site, eventually},
    support::{AtHub, AtNode, command, native},
};

pub(crate) async fn a_function_is_deployed_called_and_undeployed_on_a_far_node(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = AtNode::start(&site, &hub, "edge-01").await;
    let runtime = hub.cluster.get_runtime("edge-01").expect("registered");
    runtime.deploy(native("double", "double")).await.expect("assigns");
    hub.serves("edge-01", "double").await;
    assert_eq!(runtime.invoke("double", "21").await.expect("runs there"), "42");
    let failed = runtime.invoke("double", "no number").await.expect_err("bad input");
    let here = node.node.runtime().invoke("double", "no number").await.expect_err("bad input");
    assert_eq!((failed.kind(), failed.to_string()), (here.kind(), here.to_string()), "the error is the function's own");
    let summary = runtime.summary().await.expect("asks");
    assert_eq!((summary.total, summary.errors.values().sum::<u64>()), (3, 2));
    assert_eq!(runtime.list_functions().await.expect("reads").len(), 1);
    assert!(runtime.undeploy("double").await.expect("takes it"));
    // It is no longer wanted a moment before it no longer runs.
    eventually("it is gone", async || node.node.runtime().list_functions().is_empty()).await;
    assert_eq!(runtime.invoke("double", "21").await.expect_err("it is gone").kind(), ErrorKind::NotFound);
}

pub(crate) async fn what_cannot_be_called_says_why(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let _node = AtNode::start(&site, &hub, "edge-01").await;
    let runtime = hub.cluster.get_runtime("edge-01").expect("registered");
    let missing = native("shout", "shout");
    runtime.deploy(missing).await.expect("assigns; the node judges");
    eventually("the node says why", async || hub.says("edge-01", "shout").is_some_and(|said| said.starts_with("failed"))).await;
    assert!(hub.says("edge-01", "shout").expect("said").contains("`shout`"));
    hub.is("edge-01", edgeward::EdgeNodeStatus::Degraded).await;
    let large = vec![b'1'; 3 << 20];
    let refused = runtime.invoke("shout", large).await.expect_err("it is too large");
    assert_eq!(refused.kind(), ErrorKind::TooLarge, "{refused}");
    site.cut_off("edge-01").await;
    hub.is("edge-01", edgeward::EdgeNodeStatus::Offline).await;
    let refused = runtime.invoke("shout", "1").await.expect_err("it is away");
    assert!(
        [ErrorKind::Unavailable, ErrorKind::Timeout].contains(&refused.kind()) && refused.to_string().contains("`edge-01`"),
        "{refused}"
    );
}

pub(crate) async fn the_trace_context_of_a_caller_reaches_the_guest_on_a_far_node(site: Site) {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let _node = AtNode::start(&site, &hub, "edge-01").await;
    // It answers with the request that it sees.
    let guest = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../functions/built/hostile.wasm")).expect("it is built");
    let digest = hub.cluster.add_artifact(guest).await.expect("it can run");
    let function = edgeward::EdgeFunction::new("f", "f", Handler::Artifact(digest)).expect("valid");
    hub.cluster.deploy_to_node("edge-01", function).await.expect("assigns");
    hub.serves("edge-01", "f").await;
    let runtime = hub.cluster.get_runtime("edge-01").expect("registered");
    let seen = async |traceparent: Option<&'static str>| {
        let traceparent = traceparent.map(HeaderValue::from_static);
        let options = CallOptions { traceparent, tracestate: Some(HeaderValue::from_static("a=1")), ..CallOptions::default() };
        let output = runtime.invoke_with("f", "x", options).await.expect("answers");
        let seen: serde_json::Value = serde_json::from_slice(&output.body).expect("JSON");
        let pairs = seen["headers"].as_array().expect("pairs").clone();
        pairs.into_iter().filter(|pair| pair[0].as_str().expect("text").starts_with("trace")).collect::<HashSet<_>>()
    };
    assert_eq!(
        seen(Some(TRACE)).await,
        HashSet::from([serde_json::json!(["traceparent", TRACE]), serde_json::json!(["tracestate", "a=1"])])
    );
    for none in [Some("no trace"), None] {
        assert!(seen(none).await.is_empty(), "without a trace its state says nothing: {none:?}");
    }
}

pub(crate) async fn an_artifact_whose_transfer_broke_off_is_fetched_from_where_it_was(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = AtNode::start(&site, &hub, "edge-01").await;
    let (whole, spoilt) = (command("hello", 3 << 20), command("hello again", 1 << 20));
    let fetching = node.folder.path().join("fetching");
    fs::create_dir(&fetching).expect("it is new");
    for (id, bytes, part) in [("whole", &whole, whole[..2_000_000].to_vec()), ("spoilt", &spoilt, vec![0; 600_000])] {
        let digest = hub.cluster.add_artifact(bytes.clone()).await.expect("it can run");
        fs::write(fetching.join(digest.hex()), part).expect("writes");
        let function = edgeward::EdgeFunction::new(id, id, Handler::Artifact(digest)).expect("valid");
        hub.cluster.deploy_to_node("edge-01", function).await.expect("assigns");
        hub.serves("edge-01", id).await;
        node.invoke(id, "").await;
        assert!(!fetching.join(digest.hex()).exists(), "what was fetched is not kept twice");
    }
    assert!(hub.events(EventKind::FunctionFailed).is_empty(), "what was spoilt says nothing about the artifact");
}

pub(crate) async fn the_log_of_a_far_function_is_followed(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = AtNode::start(&site, &hub, "edge-01").await;
    let digest = hub.cluster.add_artifact(command("hello", 0)).await.expect("it can run");
    let function = edgeward::EdgeFunction::new("hello", "hello", Handler::Artifact(digest)).expect("valid");
    hub.cluster.deploy_to_node("edge-01", function).await.expect("assigns");
    hub.serves("edge-01", "hello").await;
    let runtime = hub.cluster.get_runtime("edge-01").expect("registered");
    let id = FunctionId::new("hello").expect("valid");
    assert!(runtime.logs(&id, 0, Duration::ZERO).await.expect("asks").is_empty());
    let following = {
        let (runtime, id) = (runtime.clone(), id.clone());
        tokio::spawn(async move { runtime.logs(&id, 0, Duration::from_secs(20)).await })
    };
    node.invoke("hello", "").await;
    let lines = following.await.expect("it ends").expect("it is told");
    assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["hello"]);
    runtime.invoke("hello", "").await.expect("runs");
    let next = runtime.logs(&id, lines[0].seq, Duration::from_secs(20)).await.expect("asks");
    assert_eq!((next.len(), next[0].seq), (1, lines[0].seq + 1));
    let unknown = runtime.logs(&FunctionId::new("other").expect("valid"), 0, Duration::ZERO).await.expect_err("there is none");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}
