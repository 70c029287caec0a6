//! `EdgeCluster` in one process: nodes, their status, and what they should run.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use edgeward::{
    CallOptions, ClusterHealth, EdgeCluster, EdgeError, EdgeFunction, EdgeNode, EdgeNodeStatus, ErrorKind, FunctionId, Handler,
    HandlerName, NativeHandler, Terms,
};
use edgeward_model::Balance;

fn node(id: &str) -> EdgeNode {
    EdgeNode::new(id, "warehouse").expect("valid")
}

fn double() -> EdgeFunction {
    EdgeFunction::new("double", "double", Handler::Native(HandlerName::new("double").expect("valid"))).expect("valid")
}

/// Registers nodes that have the handler.
fn register(cluster: &EdgeCluster, ids: &[&str]) {
    for id in ids {
        let runtime = cluster.register_node(node(id)).expect("registers");
        let handler = NativeHandler::json(async |n: i64| Ok::<_, std::io::Error>(2 * n));
        runtime.register(HandlerName::new("double").expect("valid"), handler).expect("it is here");
    }
}

async fn doubles(cluster: &EdgeCluster, id: &str) -> Result<String, ErrorKind> {
    let answer = cluster.get_runtime(id).expect("registered").invoke("double", "21").await.map_err(|error| error.kind())?;
    Ok(String::from_utf8(answer.to_vec()).expect("text"))
}

#[test]
fn nodes_come_report_and_go() {
    let cluster = EdgeCluster::new().expect("opens");
    assert_eq!((cluster.list_nodes(None), cluster.get_node("edge-01"), cluster.health()), (Vec::new(), None, ClusterHealth::default()));
    let mut second = node("edge-02");
    (second.status, second.location) = (EdgeNodeStatus::Offline, "Berlin".to_owned());
    second.capabilities.push("gpu".to_owned());
    cluster.register_node(node("edge-01")).expect("registers");
    cluster.register_node(second.clone()).expect("registers");
    let ids = |status| cluster.list_nodes(status).into_iter().map(|node| node.id.to_string()).collect::<Vec<_>>();
    assert_eq!(
        (ids(None), ids(Some(EdgeNodeStatus::Offline))),
        (vec!["edge-01".to_owned(), "edge-02".to_owned()], vec!["edge-02".to_owned()])
    );
    assert_eq!(cluster.get_node("edge-02"), Some(second.clone()));

    cluster.heartbeat("edge-02");
    cluster.heartbeat("edge-09");
    cluster.heartbeat("no id");
    let reported = cluster.get_node("edge-02").expect("registered");
    assert_eq!((reported.status, &reported.location), (EdgeNodeStatus::Online, &second.location));
    assert!(reported.last_heartbeat > second.last_heartbeat);
    assert_eq!(cluster.health(), ClusterHealth { nodes: 2, online: 2, ..ClusterHealth::default() });

    let runtime = cluster.get_runtime("edge-01").expect("registered");
    let again = cluster.register_node(EdgeNode { name: "renamed".to_owned(), ..node("edge-01") }).expect("registers again");
    assert!(std::sync::Arc::ptr_eq(runtime.here().expect("here"), again.here().expect("here")), "its functions go on");
    assert_eq!(cluster.get_node("edge-01").expect("registered").name, "renamed");

    assert_eq!(["edge-01", "edge-01", "no id"].map(|id| cluster.deregister_node(id).expect("writes")), [true, false, false]);
    assert!(cluster.get_runtime("edge-01").is_none() && ids(None) == ["edge-02"]);
}

#[tokio::test]
async fn a_function_goes_to_all_nodes_or_to_one_and_from_all() {
    let cluster = EdgeCluster::new().expect("opens");
    assert_eq!(cluster.deploy_to_all(double()).await.expect("nobody is there"), 0);
    register(&cluster, &["a", "b"]);
    cluster.deploy_to_node("b", double()).await.expect("deploys");
    assert_eq!((doubles(&cluster, "a").await, doubles(&cluster, "b").await), (Err(ErrorKind::NotFound), Ok("42".to_owned())));
    assert_eq!(cluster.deploy_to_all(double()).await.expect("deploys"), 2);
    assert_eq!((doubles(&cluster, "a").await, cluster.health().assignments), (Ok("42".to_owned()), 2));

    let unknown = cluster.deploy_to_node("c", double()).await.expect_err("there is no such node");
    assert_eq!((unknown.kind(), unknown.to_string()), (ErrorKind::NotFound, "node not found: `c`".to_owned()));
    let id = FunctionId::new("double").expect("valid");
    assert_eq!(cluster.undeploy_from_all(&id).await.expect("undeploys"), 2);
    assert_eq!(cluster.undeploy_from_all(&id).await.expect("has none"), 0);
    assert_eq!((doubles(&cluster, "a").await, cluster.health().assignments), (Err(ErrorKind::NotFound), 0));
}

#[tokio::test]
async fn what_one_node_cannot_run_no_node_gets() {
    let cluster = EdgeCluster::new().expect("opens");
    register(&cluster, &["a"]);
    cluster.register_node(node("bare")).expect("registers");
    let refused = cluster.deploy_to_all(double()).await.expect_err("one has no such handler");
    assert!(refused.to_string().contains("node `bare` cannot run function `double`"), "{refused}");
    assert_eq!((doubles(&cluster, "a").await, cluster.health().assignments), (Err(ErrorKind::NotFound), 0));
}

#[tokio::test]
async fn assignments_outlast_the_process_until_their_node_is_removed() {
    let folder = tempfile::tempdir().expect("temp folder");
    let open = |path: &Path| {
        let cluster = EdgeCluster::open(path).expect("opens");
        register(&cluster, &["a", "b"]);
        cluster
    };
    open(folder.path()).deploy_to_all(double()).await.expect("deploys");
    let cluster = open(folder.path());
    assert_eq!(doubles(&cluster, "a").await, Err(ErrorKind::NotFound));
    cluster.register_node(node("c")).expect("registers");
    assert!(cluster.reconcile().await.expect("reads").is_empty());
    assert_eq!((doubles(&cluster, "a").await, doubles(&cluster, "c").await), (Ok("42".to_owned()), Err(ErrorKind::NotFound)));
    assert!(cluster.deregister_node("b").expect("writes"));
    drop(cluster);
    let cluster = open(folder.path());
    assert!(cluster.reconcile().await.expect("reads").is_empty());
    assert_eq!((doubles(&cluster, "a").await, doubles(&cluster, "b").await), (Ok("42".to_owned()), Err(ErrorKind::NotFound)));
    assert_eq!(cluster.health().assignments, 1);
}

#[tokio::test]
async fn a_call_finds_a_node_of_this_process_by_itself() {
    let cluster = EdgeCluster::new().expect("opens");
    register(&cluster, &["edge-01", "edge-02"]);
    let mut function = double();
    function.resilience.balance = Balance::RoundRobin;
    let call = async || {
        let called = cluster.call(&double().id, "21", CallOptions::default(), Terms::default()).await;
        called.map(|output| output.body).map_err(|error| error.kind())
    };
    let picks = || {
        let routes = cluster.routes().expect("reads");
        let candidates = routes.into_iter().flat_map(|route| route.candidates);
        candidates.map(|candidate| (candidate.node.to_string(), candidate.picks)).collect::<Vec<_>>()
    };
    assert_eq!(call().await, Err(ErrorKind::NotFound));
    cluster.deploy_to_all(function).await.expect("assigns");
    for _ in 0..10 {
        assert_eq!(call().await.expect("runs"), "42");
    }
    assert_eq!(picks(), [("edge-01".to_owned(), 5), ("edge-02".to_owned(), 5)]);
    cluster.drain_node("edge-02", true).expect("there");
    assert_eq!(picks().len(), 2);
    for _ in 0..10 {
        call().await.expect("runs");
    }
    assert_eq!(picks(), [("edge-01".to_owned(), 15), ("edge-02".to_owned(), 5)], "who is to be left comes last");
    cluster.undeploy_from_node("edge-01", &double().id).await.expect("takes it");
    assert_eq!(call().await.expect("the other is there still"), "42");
    cluster.undeploy_from_all(&double().id).await.expect("takes it");
    assert!(picks().is_empty());
    assert_eq!(call().await, Err(ErrorKind::NotFound));
}

#[tokio::test]
async fn a_handler_that_returns_the_error_of_a_call_of_its_own_runs_once() {
    let cluster = EdgeCluster::new().expect("opens");
    register(&cluster, &["edge-01", "edge-02"]);
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let asks = NativeHandler::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            let nobody = edgeward::cluster::BackboneError::NoResponder("another".to_owned());
            Err(EdgeError::new(ErrorKind::Unavailable, "another function is away").with_source(nobody))
        }
    });
    cluster.register_handler(HandlerName::new("double").expect("valid"), asks);
    cluster.deploy_to_all(double()).await.expect("assigns");
    let function = FunctionId::new("double").expect("valid");
    let error = cluster.call(&function, "21", CallOptions::default(), Terms::default()).await.expect_err("it fails");
    assert_eq!((error.kind(), runs.load(Ordering::SeqCst)), (ErrorKind::ExecutionFailed, 1), "{}", error.chain());
}

#[tokio::test]
async fn a_call_whose_time_is_over_before_it_is_sent_does_not_run() {
    let cluster = EdgeCluster::new().expect("opens");
    register(&cluster, &["edge-01"]);
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let counts = NativeHandler::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, std::io::Error>("1".into()) }
    });
    cluster.register_handler(HandlerName::new("double").expect("valid"), counts);
    cluster.deploy_to_all(double()).await.expect("assigns");
    let function = FunctionId::new("double").expect("valid");
    let terms = Terms { left: Some(Duration::from_nanos(1)), ..Terms::default() };
    for _ in 0..3 {
        let error = cluster.call(&function, "21", CallOptions::default(), terms).await.expect_err("a nanosecond is over");
        assert_eq!((error.kind(), runs.load(Ordering::SeqCst)), (ErrorKind::Timeout, 0), "{error}");
        cluster.call(&function, "21", CallOptions::default(), Terms::default()).await.expect("there is time");
        runs.store(0, Ordering::SeqCst);
    }
}
