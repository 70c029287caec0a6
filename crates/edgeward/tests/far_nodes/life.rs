//! Nodes come, fall silent, come back, and are removed.

use edgeward::{DocumentName, EdgeNodeStatus, ErrorKind, Value, events::EventKind};

use crate::{
    site::{Site, eventually},
    support::{A_WHILE, AtHub, AtNode, id, native, set},
};

pub(crate) async fn a_node_joins_reports_what_it_is_and_falls_silent(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    hub.cluster.admit(&id("edge-01"), None).expect("joins");
    assert_eq!(hub.view("edge-01").node.status, EdgeNodeStatus::Offline);
    let _node = AtNode::start(&site, &hub, "edge-01").await;
    eventually("it says what it is", async || hub.view("edge-01").node.location == "Berlin").await;
    let view = hub.view("edge-01");
    assert_eq!((view.node.capabilities.as_slice(), view.node.labels["site"].as_str()), (["gpu".to_owned()].as_slice(), "berlin"));
    assert!(view.load.is_some_and(|load| load.memory_total_bytes > 0) && !view.release.is_empty(), "{view:?}");
    assert!(view.reasons.is_empty() && view.connectivity == "heard");

    let label = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
    hub.cluster.label_node("edge-01", [label("site", Some("hamburg")), label("rack", Some("7"))].into()).expect("labels");
    let labels = hub.view("edge-01").node.labels;
    assert_eq!((labels["site"].as_str(), labels["rack"].as_str()), ("hamburg", "7"));
    hub.cluster.label_node("edge-01", [label("site", None)].into()).expect("labels");
    assert_eq!(hub.view("edge-01").node.labels["site"], "berlin");

    site.cut_off("edge-01").await;
    hub.is("edge-01", EdgeNodeStatus::Offline).await;
    let view = hub.view("edge-01");
    assert!(view.connectivity == "silent" && !view.reasons.is_empty() && view.since > view.node.last_heartbeat, "{view:?}");
    assert_eq!(view.node.location, "Berlin", "silence deletes nothing");
    assert_eq!(hub.cluster.list_nodes(Some(EdgeNodeStatus::Offline)).len(), 1);
    site.bring_back("edge-01").await;
    hub.is("edge-01", EdgeNodeStatus::Online).await;
    let statuses: Vec<_> = hub.events(EventKind::NodeStatus).into_iter().filter_map(|event| event.status).collect();
    assert!(statuses.ends_with(&[EdgeNodeStatus::Online]) && statuses.contains(&EdgeNodeStatus::Offline), "{statuses:?}");
}

pub(crate) async fn a_node_that_was_away_serves_writes_and_then_takes_only_the_newest(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = AtNode::start(&site, &hub, "edge-01").await;
    assert_eq!(hub.cluster.deploy_to_all(native("double", "double")).await.expect("assigns"), 1);
    hub.serves("edge-01", "double").await;

    site.cut_off("edge-01").await;
    hub.is("edge-01", EdgeNodeStatus::Offline).await;
    assert_eq!(node.invoke("double", "21").await, "42", "it goes on by itself");
    set(&node.document("cellar"), "celsius", 12).await;
    // Three revisions, of which the node sees the last.
    for handler in ["first", "second", "double"] {
        hub.cluster.deploy_to_node("edge-01", native("again", handler)).await.expect("assigns while it is away");
    }
    assert_eq!(node.node.function("again").expect_err("it has not heard of it").kind(), ErrorKind::NotFound);
    site.bring_back("edge-01").await;
    hub.serves("edge-01", "again").await;
    assert_eq!(node.invoke("again", "4").await, "8");
    let at_hub = hub.cluster.documents().document(DocumentName::new("cellar").expect("valid"));
    eventually("its write is at the hub", async || at_hub.get("celsius").expect("reads") == Some(Value::from(12_i64))).await;
    hub.is("edge-01", EdgeNodeStatus::Online).await;
    assert!(hub.events(EventKind::FunctionFailed).is_empty(), "it tried an older one: {:?}", hub.events(EventKind::FunctionFailed));
    // What the hub assigned is not changed on the node.
    let id = edgeward::FunctionId::new("again").expect("valid");
    let refused = node.node.delete_function(&id, edgeward::Precondition::None).await.expect_err("it is the hub's");
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
}

pub(crate) async fn a_node_that_was_removed_is_refused_and_its_hub_tells_so(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = AtNode::start(&site, &hub, "edge-01").await;
    hub.cluster.deploy_to_all(native("double", "double")).await.expect("assigns");
    hub.serves("edge-01", "double").await;
    assert!(hub.cluster.deregister_node("edge-01").expect("removes"));
    assert!(!hub.cluster.deregister_node("edge-01").expect("is gone"));
    assert!(hub.cluster.get_node("edge-01").is_none() && hub.cluster.get_runtime("edge-01").is_none());
    set(&node.document("cellar"), "celsius", 13).await;
    eventually("it is refused, and the hub tells so", async || !hub.events(EventKind::Refused).is_empty()).await;
    assert_eq!(hub.events(EventKind::Refused)[0].node, Some(id("edge-01")));
    let at_hub = hub.cluster.documents().document(DocumentName::new("cellar").expect("valid"));
    assert_eq!(at_hub.get("celsius").expect("reads"), None);
    assert_eq!(node.invoke("double", "21").await, "42", "it serves whom it always served");
    hub.cluster.admit(&id("edge-01"), None).expect("joins again");
    eventually("its write is at the hub", async || at_hub.get("celsius").expect("reads") == Some(Value::from(13_i64))).await;
}

pub(crate) async fn a_hub_that_starts_again_knows_its_nodes_and_what_they_should_run(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = AtNode::start(&site, &hub, "edge-01").await;
    hub.cluster.deploy_to_all(native("double", "double")).await.expect("assigns");
    hub.serves("edge-01", "double").await;
    drop(hub);
    set(&node.document("cellar"), "celsius", 14).await;
    tokio::time::sleep(A_WHILE).await;
    let hub = AtHub::start(&site, folder.path()).await;
    assert_eq!(hub.cluster.assigned(&id("edge-01")).await.expect("reads").len(), 1);
    hub.is("edge-01", EdgeNodeStatus::Online).await;
    let at_hub = hub.cluster.documents().document(DocumentName::new("cellar").expect("valid"));
    eventually("its write is at the hub", async || at_hub.get("celsius").expect("reads") == Some(Value::from(14_i64))).await;
    assert_eq!(hub.cluster.undeploy_from_all(&edgeward::FunctionId::new("double").expect("valid")).await.expect("takes it"), 1);
    eventually("it is gone", async || node.node.function("double").is_err()).await;
}

pub(crate) async fn what_happened_on_a_node_while_its_hub_was_away_is_told_when_it_is_back(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = AtNode::start(&site, &hub, "edge-01").await;
    eventually("its start is told", async || hub.events(EventKind::NodeStarted).len() == 1).await;
    drop(hub);
    let mut node = AtNode::open("edge-01", node.stop().await);
    node.connect(&site).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(node.waiting_events(), 1);
    let hub = AtHub::start(&site, folder.path()).await;
    eventually("its second start is told", async || hub.events(EventKind::NodeStarted).len() == 2).await;
    eventually("nothing waits", async || node.waiting_events() == 0).await;
    hub.is("edge-01", EdgeNodeStatus::Online).await;
    let starts = hub.events(EventKind::NodeStarted);
    let back = hub.events(EventKind::NodeStatus).last().expect("it is online").at;
    assert!(starts[1].at < back && starts.iter().all(|event| event.node == Some(id("edge-01"))), "{starts:?}");
}
