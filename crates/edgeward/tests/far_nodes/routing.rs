//! Calls by the name of a function, which find their node by themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use edgeward::{
    CallOptions, DeploymentSpec, DocumentName, EdgeCluster, EdgeError, EdgeFunction, EdgeNode, ErrorKind, EventKind, FunctionId,
    HandlerName, NativeHandler, NodeId, Resilience, Terms,
    cluster::routing::{BreakerState, CandidateView, RouteView},
    document::Precondition,
};
use edgeward_model::{
    Breaker, Retry,
    limits::{FAR_PRESENCE_PATIENCE, FAR_SILENCE_MAX, FAR_SILENCE_MIN},
};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    site::{Site, eventually},
    support::{AtHub, AtNode, id, native},
};

const FUNCTION: &str = "where";

fn function() -> FunctionId {
    FunctionId::new(FUNCTION).expect("valid")
}

/// What becomes of calls on one node.
#[derive(Clone, Default)]
struct Switch {
    fails: Arc<AtomicBool>,
    runs: Arc<AtomicU64>,
    /// Calls that nobody waited for any longer.
    dropped: Arc<AtomicU64>,
}

/// Counts itself when it is dropped, unless it is forgotten.
struct Dropped(Arc<AtomicU64>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Switch {
    /// A handler that says where it runs, or fails.
    fn says(&self, node: &'static str) -> NativeHandler {
        let Self { fails, runs, .. } = self.clone();
        NativeHandler::new(move |_| {
            let (fails, runs) = (Arc::clone(&fails), Arc::clone(&runs));
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(1)).await;
                if fails.load(Ordering::SeqCst) { Err(std::io::Error::other("it is broken")) } else { Ok(node.into()) }
            }
        })
    }

    /// A handler that takes longer than anybody waits.
    fn hangs(&self) -> NativeHandler {
        let Self { runs, dropped, .. } = self.clone();
        NativeHandler::new(move |_| {
            let (runs, dropped) = (Arc::clone(&runs), Dropped(Arc::clone(&dropped)));
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_mins(1)).await;
                std::mem::forget(dropped);
                Ok::<_, std::io::Error>("at last".into())
            }
        })
    }
}

fn handler(name: &str) -> HandlerName {
    HandlerName::new(name).expect("valid")
}

async fn start(site: &Site, hub: &AtHub, name: &'static str) -> (AtNode, Switch) {
    let node = AtNode::start(site, hub, name).await;
    let switch = Switch::default();
    node.node.runtime().register(handler(FUNCTION), switch.says(name));
    node.node.runtime().register(handler("hangs"), switch.hangs());
    (node, switch)
}

/// A function that says where it runs, and how its calls are routed.
fn routed(resilience: Resilience) -> EdgeFunction {
    EdgeFunction { resilience, ..native(FUNCTION, FUNCTION) }
}

fn quick_breaker() -> Breaker {
    Breaker { open_seconds: Some(0.5), open_seconds_max: Some(1.0), ..Breaker::default() }
}

async fn call(cluster: &EdgeCluster) -> Result<String, EdgeError> {
    call_within(cluster, Terms::default()).await
}

async fn call_within(cluster: &EdgeCluster, terms: Terms) -> Result<String, EdgeError> {
    let output = cluster.call(&function(), "", CallOptions::default(), terms).await?;
    Ok(String::from_utf8(output.body.to_vec()).expect("text"))
}

async fn call_from(node: &AtNode) -> Result<String, EdgeError> {
    let output = node.node.call(&function(), "", CallOptions::default(), Terms::default()).await?;
    Ok(String::from_utf8(output.body.to_vec()).expect("text"))
}

fn candidates(cluster: &EdgeCluster) -> Vec<CandidateView> {
    let routes = cluster.routes().expect("reads");
    routes.into_iter().find(|route| route.function == function()).map(|route| route.candidates).unwrap_or_default()
}

fn breaker(cluster: &EdgeCluster, node: &str) -> Option<BreakerState> {
    candidates(cluster).into_iter().find(|candidate| candidate.node == id(node)).map(|candidate| candidate.breaker)
}

/// Waits until the function can be called on so many nodes.
async fn comes_to(hub: &AtHub, count: usize) {
    eventually(&format!("{count} nodes have it"), async || candidates(&hub.cluster).len() == count).await;
}

pub(crate) async fn a_call_runs_in_this_process_first_and_elsewhere_when_it_is_not_there(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (_node, _) = start(&site, &hub, "edge-01").await;
    assert_eq!(call(&hub.cluster).await.expect_err("nobody was ever assigned it").kind(), ErrorKind::NotFound);
    hub.cluster.register_handler(handler(FUNCTION), Switch::default().says("here"));
    hub.cluster.register_node(EdgeNode::new("here", "in the hub").expect("valid")).expect("it is new");
    hub.cluster.deploy_to_all(routed(Resilience::default())).await.expect("assigns");
    assert_eq!(call(&hub.cluster).await.expect("it is here at once"), "here");
    comes_to(&hub, 2).await;
    for _ in 0..20 {
        assert_eq!(call(&hub.cluster).await.expect("runs"), "here");
    }
    hub.cluster.undeploy_from_node("here", &function()).await.expect("takes it");
    assert_eq!(call(&hub.cluster).await.expect("the other has it"), "edge-01");
    hub.cluster.undeploy_from_node("edge-01", &function()).await.expect("takes it");
    eventually("nobody knows it", async || call(&hub.cluster).await.is_err_and(|error| error.kind() == ErrorKind::NotFound)).await;
}

pub(crate) async fn of_three_nodes_one_may_fall_silent_under_load(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let _nodes = [start(&site, &hub, "a").await, start(&site, &hub, "b").await, start(&site, &hub, "c").await];
    // As it is for whoever says nothing of attempts.
    hub.cluster.deploy_to_all(routed(Resilience { idempotent: true, ..Resilience::default() })).await.expect("assigns");
    comes_to(&hub, 3).await;
    let silenced = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (cluster, silenced) = (hub.cluster.clone(), Arc::clone(&silenced));
            tokio::spawn(async move {
                let (mut times, mut left) = (Vec::new(), 250);
                while left > 0 {
                    left -= usize::from(silenced.load(Ordering::SeqCst));
                    let begun = Instant::now();
                    call(&cluster).await.expect("another takes it");
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    eventually("the one gets calls", async || candidates(&hub.cluster).iter().all(|candidate| candidate.picks > 20)).await;
    site.silence("c").await;
    silenced.store(true, Ordering::SeqCst);
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.expect("no call fails"));
    }
    times.sort();
    let (p99, last) = (times[times.len() * 99 / 100], times[times.len() - 1]);
    // In one process it is known at once who cannot be reached; the broker notices after four seconds at least.
    assert!(last >= FAR_SILENCE_MIN || matches!(site, Site::InProcess(_)), "none was under way there: {last:?}");
    assert!(
        p99 < FAR_SILENCE_MAX && last < Duration::from_secs(3),
        "of {} calls the 99th percentile is {p99:?}, and the last one took {last:?}",
        times.len()
    );
}

pub(crate) async fn what_a_node_has_not_is_called_at_its_own_site_first(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let nodes =
        [start(&site, &hub, "b1").await, start(&site, &hub, "b2").await, start(&site, &hub, "t1").await, start(&site, &hub, "t2").await];
    for node in ["t1", "t2"] {
        hub.cluster.label_node(node, [("site".to_owned(), Some("tokyo".to_owned()))].into()).expect("labels");
    }
    for node in ["b2", "t2"] {
        hub.cluster.deploy_to_node(node, routed(Resilience::default())).await.expect("assigns");
    }
    comes_to(&hub, 2).await;
    for (caller, near) in [(&nodes[0].0, "b2"), (&nodes[2].0, "t2")] {
        for _ in 0..20 {
            assert_eq!(call_from(caller).await.expect("it is found"), near);
        }
    }
    site.cut_off("t2").await;
    hub.is("t2", edgeward::EdgeNodeStatus::Offline).await;
    assert_eq!(call_from(&nodes[2].0).await.expect("the other site has it"), "b2");
}

pub(crate) async fn of_three_nodes_one_may_fail_or_vanish_under_load(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let nodes = [start(&site, &hub, "a").await, start(&site, &hub, "b").await, start(&site, &hub, "c").await];
    let retry = Retry { attempt_seconds: Some(2.0), ..Retry::default() };
    hub.cluster
        .deploy_to_all(routed(Resilience { idempotent: true, retry, breaker: quick_breaker(), ..Resilience::default() }))
        .await
        .expect("assigns");
    comes_to(&hub, 3).await;

    let (stop, well, badly) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (cluster, stop, well, badly) = (hub.cluster.clone(), Arc::clone(&stop), Arc::clone(&well), Arc::clone(&badly));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match call(&cluster).await {
                        Ok(_) => well.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            eprintln!("{}", error.chain());
                            badly.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                }
            })
        })
        .collect();
    let calls = async |count: u64| {
        let goal = well.load(Ordering::SeqCst) + count;
        eventually(&format!("{count} calls end well"), async || well.load(Ordering::SeqCst) >= goal).await;
    };
    calls(1000).await;
    let (_, erring) = &nodes[1];
    erring.fails.store(true, Ordering::SeqCst);
    eventually("the breaker of the one that fails opens", async || breaker(&hub.cluster, "b") == Some(BreakerState::Open)).await;
    calls(1000).await;
    erring.fails.store(false, Ordering::SeqCst);
    eventually("it closes when that does well again", async || breaker(&hub.cluster, "b") == Some(BreakerState::Closed)).await;
    site.cut_off("c").await;
    eventually("one that vanished gets no calls", async || {
        candidates(&hub.cluster).iter().any(|candidate| candidate.node == id("c") && candidate.why_not.is_some())
    })
    .await;
    calls(1000).await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("it ends");
    }
    let (well, badly) = (well.load(Ordering::SeqCst), badly.load(Ordering::SeqCst));
    assert!(badly * 1000 <= well, "{badly} calls failed, and {well} ended well");
    let told = hub.cluster.events().list(None, 1000).expect("reads");
    let told: Vec<_> = told.iter().filter(|event| event.kind == EventKind::BreakerChanged && event.node == Some(id("b"))).collect();
    assert!(
        told.iter().any(|event| event.message.contains("pass it by")) && told.iter().any(|event| event.message.contains("again")),
        "{told:?}"
    );
}

pub(crate) async fn a_breaker_opens_is_tried_and_closes(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (_node, switch) = start(&site, &hub, "a").await;
    hub.cluster.deploy_to_all(routed(Resilience { breaker: quick_breaker(), ..Resilience::default() })).await.expect("assigns");
    comes_to(&hub, 1).await;
    assert_eq!(call(&hub.cluster).await.expect("runs"), "a");
    switch.fails.store(true, Ordering::SeqCst);
    let begun = switch.runs.load(Ordering::SeqCst);
    let mut failed = 0;
    while breaker(&hub.cluster, "a") == Some(BreakerState::Closed) {
        assert_eq!(call(&hub.cluster).await.expect_err("it is broken").kind(), ErrorKind::ExecutionFailed);
        failed += 1;
        assert_eq!(switch.runs.load(Ordering::SeqCst) - begun, failed, "what may not run twice ran twice");
        assert!(failed < 50, "it does not open");
    }
    let refused = call(&hub.cluster).await.expect_err("its breaker is open");
    assert!(refused.kind() == ErrorKind::Unavailable && refused.to_string().contains("failed too often"), "{refused}");
    assert_eq!(switch.runs.load(Ordering::SeqCst) - begun, failed);
    eventually("it is to be tried", async || breaker(&hub.cluster, "a") == Some(BreakerState::HalfOpen)).await;
    switch.fails.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        call(&hub.cluster).await.expect("it is tried");
    }
    assert_eq!(breaker(&hub.cluster, "a"), Some(BreakerState::Closed));
}

pub(crate) async fn the_deadline_of_a_call_reaches_the_node(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (asking, _) = start(&site, &hub, "a").await;
    let (_node, switch) = start(&site, &hub, "b").await;
    let slow = EdgeFunction { timeout_seconds: 50.0, ..native(FUNCTION, "hangs") };
    hub.cluster.deploy_to_node("b", slow).await.expect("assigns");
    comes_to(&hub, 1).await;
    let terms = Terms { left: Some(Duration::from_millis(300)), ..Terms::default() };
    let begun = Instant::now();
    assert_eq!(call_within(&hub.cluster, terms).await.expect_err("it hangs").kind(), ErrorKind::Timeout);
    eventually("the node ends it", async || switch.dropped.load(Ordering::SeqCst) == 1).await;
    let late = asking.node.call(&function(), "", CallOptions::default(), terms).await.expect_err("it hangs");
    assert_eq!(late.kind(), ErrorKind::Timeout, "{late}");
    eventually("the node ends it, over the hub too", async || switch.dropped.load(Ordering::SeqCst) == 2).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "it is the caller's deadline, not the function's");
    assert_eq!(switch.runs.load(Ordering::SeqCst), 2, "what may have run is not run again");
    let none = Terms { left: Some(Duration::ZERO), ..Terms::default() };
    for refused in [
        call_within(&hub.cluster, none).await.expect_err("no time"),
        asking.node.call(&function(), "", CallOptions::default(), none).await.map(drop).expect_err("no time"),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Timeout, "{refused}");
    }
    assert_eq!(switch.runs.load(Ordering::SeqCst), 2);
    let own = Resilience { deadline_seconds: Some(0.2), ..Resilience::default() };
    let own = EdgeFunction { resilience: own, timeout_seconds: 50.0, ..native("own", "hangs") };
    hub.cluster.deploy_to_node("a", own).await.expect("assigns");
    hub.serves("a", "own").await;
    let begun = Instant::now();
    let own = FunctionId::new("own").expect("valid");
    let late = asking.node.call(&own, "", CallOptions::default(), Terms::default()).await.expect_err("it hangs");
    assert!(late.kind() == ErrorKind::Timeout && begun.elapsed() < Duration::from_secs(30), "{late}");
}

pub(crate) async fn a_node_calls_what_it_has_and_its_hub_finds_the_rest(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (mut a, _) = start(&site, &hub, "a").await;
    let (_b, _) = start(&site, &hub, "b").await;
    assert_eq!(call_from(&a).await.expect_err("nobody has it").kind(), ErrorKind::NotFound);
    hub.cluster.deploy_to_node("b", routed(Resilience::default())).await.expect("assigns");
    comes_to(&hub, 1).await;
    assert_eq!(call_from(&a).await.expect("the hub finds it"), "b");
    hub.cluster.deploy_to_node("a", routed(Resilience::default())).await.expect("assigns");
    hub.serves("a", FUNCTION).await;
    for _ in 0..20 {
        assert_eq!(call_from(&a).await.expect("it is here"), "a");
    }
    site.cut_off("a").await;
    assert_eq!(call_from(&a).await.expect("it needs nobody"), "a");
    site.bring_back("a").await;
    hub.is("a", edgeward::EdgeNodeStatus::Online).await;
    hub.cluster.undeploy_from_node("a", &function()).await.expect("takes it");
    eventually("it is gone from there", async || call_from(&a).await.is_ok_and(|said| said == "b")).await;

    hub.cluster.deregister_node("a").expect("removes");
    assert_eq!(call_from(&a).await.expect_err("it is no member").kind(), ErrorKind::Forbidden);
    a.disconnect();
    assert_eq!(call_from(&a).await.expect_err("it is alone").kind(), ErrorKind::NotFound);
}

pub(crate) async fn a_node_that_is_full_or_fails_has_its_hub_find_another(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (a, at_a) = start(&site, &hub, "a").await;
    let (_b, at_b) = start(&site, &hub, "b").await;
    let runs = |at: &Switch| at.runs.load(Ordering::SeqCst);
    let call_with = async |terms: Terms| {
        let output = a.node.call(&function(), "", CallOptions::default(), terms).await?;
        Ok::<_, EdgeError>(String::from_utf8(output.body.to_vec()).expect("text"))
    };
    let idempotent = Terms { is_idempotent: true, ..Terms::default() };
    let picks_of_a = || candidates(&hub.cluster).iter().find(|candidate| candidate.node == id("a")).expect("it has it").picks;

    // Full.
    hub.cluster.deploy_to_node("b", routed(Resilience::default())).await.expect("assigns");
    let hangs = EdgeFunction { max_concurrency: 1, max_queue: 0, ..native(FUNCTION, "hangs") };
    hub.cluster.deploy_to_node("a", hangs.clone()).await.expect("assigns");
    comes_to(&hub, 2).await;
    let runtime = Arc::clone(a.node.runtime());
    let busy = AbortOnDropHandle::new(tokio::spawn(async move { runtime.invoke(FUNCTION, "").await.map(drop) }));
    eventually("it is full", async || runs(&at_a) == 1).await;
    for _ in 0..20 {
        assert_eq!(call_from(&a).await.expect("the other has room"), "b");
    }
    assert_eq!((runs(&at_a), runs(&at_b), picks_of_a()), (1, 20, 0), "the hub asks nobody who just said no");
    site.cut_off("a").await;
    eventually("what went wrong here is told, as nobody else can be asked", async || {
        let terms = Terms { left: Some(Duration::from_secs(1)), ..Terms::default() };
        call_with(terms).await.is_err_and(|error| error.kind() == ErrorKind::Overloaded)
    })
    .await;
    site.bring_back("a").await;
    hub.is("a", edgeward::EdgeNodeStatus::Online).await;
    eventually("the way is there again", async || call_from(&a).await.is_ok_and(|said| said == "b")).await;
    drop(busy);

    // Late, of a call that may run twice.
    let retry = Retry { attempt_seconds: Some(0.2), ..Retry::default() };
    let late = EdgeFunction { resilience: Resilience { retry, ..Resilience::default() }, timeout_seconds: 50.0, ..hangs };
    hub.cluster.deploy_to_node("a", late.clone()).await.expect("assigns");
    runs_as(&a, &late).await;
    let begun = Instant::now();
    assert_eq!(call_with(idempotent).await.expect("the other is in time"), "b");
    assert!((Duration::from_millis(200)..Duration::from_secs(20)).contains(&begun.elapsed()), "{:?}", begun.elapsed());

    // Failing.
    let quick = routed(Resilience::default());
    hub.cluster.deploy_to_node("a", quick.clone()).await.expect("assigns");
    runs_as(&a, &quick).await;
    assert_eq!(call_from(&a).await.expect("it is here"), "a");
    at_a.fails.store(true, Ordering::SeqCst);
    let before = runs(&at_b);
    assert_eq!(call_from(&a).await.expect_err("it may not run twice").kind(), ErrorKind::ExecutionFailed);
    assert_eq!(runs(&at_b), before);
    assert_eq!(call_with(idempotent).await.expect("it may"), "b");
    let once = routed(Resilience { retry: Retry { attempts: Some(1), ..Retry::default() }, ..Resilience::default() });
    hub.cluster.deploy_to_node("a", once.clone()).await.expect("assigns");
    runs_as(&a, &once).await;
    assert_eq!(call_with(idempotent).await.expect_err("it is tried once").kind(), ErrorKind::ExecutionFailed);

    // What is a node's own may be another function than that of the fleet.
    hub.cluster.undeploy_from_node("a", &function()).await.expect("takes it");
    eventually("it has it no more", async || a.node.runtime().find(FUNCTION).is_err()).await;
    a.node.put_function(quick, edgeward::Precondition::None).await.expect("its own");
    assert_eq!(call_with(idempotent).await.expect_err("nobody else has it").kind(), ErrorKind::ExecutionFailed);
}

/// Waits until a node runs the function as it is said here.
async fn runs_as(node: &AtNode, function: &EdgeFunction) {
    let is_so = || node.node.runtime().find(FUNCTION).is_ok_and(|deployed| deployed.function().resilience == function.resilience);
    let handler = || node.node.runtime().find(FUNCTION).is_ok_and(|deployed| deployed.function().handler == function.handler);
    eventually("it runs as it is said now", async || is_so() && handler()).await;
}

pub(crate) async fn a_function_for_one_node_is_called_where_its_lease_is(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (a, at_a) = start(&site, &hub, "a").await;
    let (b, at_b) = start(&site, &hub, "b").await;
    let spec = DeploymentSpec {
        target: "one".parse().expect("valid"),
        ..DeploymentSpec::new(EdgeFunction { timeout_seconds: 1.0, ..routed(Resilience::default()) })
    };
    hub.cluster.deployments().apply(spec, None).await.expect("applies");
    eventually("it is called where its lease is", async || call(&hub.cluster).await.is_ok()).await;
    let holder = |of: &AtHub| {
        let cluster = of.cluster.clone();
        async move { cluster.deployments().get(&function()).await.expect("there").lease }
    };
    let first: NodeId = holder(&hub).await.expect("somebody has it");
    assert_eq!(candidates(&hub.cluster).len(), 1);
    for node in [&a, &b] {
        assert_eq!(call_from(node).await.expect("whoever asks"), first.as_str());
    }
    let drained = first.clone();
    let cluster = hub.cluster.clone();
    edgeward::blocking(move || cluster.drain_node(drained.as_str(), true)).await.expect("there");
    eventually("it moved, and its calls with it", async || call(&hub.cluster).await.is_ok_and(|said| said != first.as_str())).await;
    let second = holder(&hub).await.expect("the other has it");
    let former = if first == id("a") { &at_a } else { &at_b };
    let before = former.runs.load(Ordering::SeqCst);
    for node in [&a, &b] {
        assert_eq!(call_from(node).await.expect("whoever asks"), second.as_str());
    }
    assert_eq!(former.runs.load(Ordering::SeqCst), before, "it ran without its lease");
}

pub(crate) async fn nodes_that_are_full_are_not_asked_over_and_over(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let nodes = [start(&site, &hub, "a").await, start(&site, &hub, "b").await];
    let full = EdgeFunction { max_concurrency: 1, max_queue: 0, ..native(FUNCTION, "hangs") };
    hub.cluster.deploy_to_all(full).await.expect("assigns");
    comes_to(&hub, 2).await;
    let busy: Vec<_> = nodes
        .iter()
        .map(|(node, _)| {
            let runtime = Arc::clone(node.node.runtime());
            tokio::spawn(async move { runtime.invoke(FUNCTION, "").await.map(drop) })
        })
        .collect();
    eventually("both are full", async || nodes.iter().all(|(_, switch)| switch.runs.load(Ordering::SeqCst) == 1)).await;
    let refused = call_within(&hub.cluster, Terms { is_idempotent: true, ..Terms::default() }).await.expect_err("nobody has room");
    assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
    let asked: u64 = candidates(&hub.cluster).iter().map(|candidate| candidate.failures).sum();
    assert_eq!(asked, 3, "each attempt, and no more");
    assert!(candidates(&hub.cluster).iter().all(|candidate| candidate.breaker == BreakerState::Closed), "who is busy is not broken");
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}

pub(crate) async fn what_serves_is_called_while_what_is_to_follow_fails(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (_node, _) = start(&site, &hub, "a").await;
    hub.cluster.deploy_to_node("a", routed(Resilience::default())).await.expect("assigns");
    comes_to(&hub, 1).await;
    hub.cluster.deploy_to_node("a", native(FUNCTION, "nobody-has-it")).await.expect("assigns");
    eventually("it fails", async || hub.says("a", FUNCTION).is_some_and(|said| said.starts_with("failed"))).await;
    for _ in 0..10 {
        assert_eq!(call(&hub.cluster).await.expect("the former serves"), "a");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(candidates(&hub.cluster).len(), 1);
}

pub(crate) async fn a_function_that_hangs_leaves_room_for_another_on_its_node(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (_node, switch) = start(&site, &hub, "a").await;
    let hangs = EdgeFunction { max_concurrency: 1000, max_queue: 0, ..native("hangs", "hangs") };
    hub.cluster.deploy_to_all(hangs).await.expect("assigns");
    hub.cluster.deploy_to_all(routed(Resilience::default())).await.expect("assigns");
    comes_to(&hub, 1).await;
    hub.serves("a", "hangs").await;
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let runtime = hub.cluster.runtime("a").expect("it is registered");
            AbortOnDropHandle::new(tokio::spawn(async move { runtime.invoke("hangs", "").await.map(drop) }))
        })
        .collect();
    eventually("what is too much is told so", async || calls.iter().filter(|call| call.is_finished()).count() >= 500).await;
    let runs = switch.runs.load(Ordering::SeqCst);
    assert!(runs >= 256, "and what fits runs: {runs}");
    let terms = Terms { left: Some(Duration::from_secs(10)), ..Terms::default() };
    assert_eq!(call_within(&hub.cluster, terms).await.expect("there is room"), "a");
}

pub(crate) async fn of_calls_on_a_node_that_vanishes_one_that_may_run_twice_waits_least(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (_node, switch) = start(&site, &hub, "a").await;
    let (_other, spare) = start(&site, &hub, "b").await;
    hub.cluster.deploy_to_all(native("hangs", "hangs")).await.expect("assigns");
    hub.serves("a", "hangs").await;
    hub.serves("b", "hangs").await;
    // It comes after the first one.
    hub.cluster.drain_node("b", true).expect("drains");
    let is_last =
        |route: &RouteView| route.function.as_str() == "hangs" && route.candidates.last().is_some_and(|last| last.node == id("b"));
    eventually("the other is asked last", async || hub.cluster.routes().expect("reads").iter().any(is_last)).await;
    let ends = async |is_idempotent: bool| {
        let terms = Terms { is_idempotent, ..Terms::default() };
        let called = hub.cluster.call(&FunctionId::new("hangs").expect("valid"), "", CallOptions::default(), terms).await;
        (called.expect_err("its node vanishes").to_string(), Instant::now())
    };
    let leaves = async {
        tokio::select! {
            ended = ends(true) => panic!("the other node runs it: {ended:?}"),
            () = eventually("the other node runs it", async || spare.runs.load(Ordering::SeqCst) == 1) => Instant::now(),
        }
    };
    let cut = async {
        eventually("both run", async || switch.runs.load(Ordering::SeqCst) == 2).await;
        site.cut_off("a").await;
        Instant::now()
    };
    let (twice_at, (once, once_at), cut_at) = tokio::join!(leaves, ends(false), cut);
    assert!(once.contains("vanished"), "{once}");
    assert!(once_at.duration_since(twice_at) >= FAR_PRESENCE_PATIENCE / 2, "a node may connect again meanwhile");
    // Without a look they would wait for the 30 seconds of the function.
    assert!(once_at.duration_since(cut_at) < Duration::from_secs(20), "{:?}", once_at.duration_since(cut_at));
}

pub(crate) async fn a_node_cannot_make_itself_one_that_is_called(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (_a, _) = start(&site, &hub, "a").await;
    let (b, _) = start(&site, &hub, "b").await;
    hub.cluster.deploy_to_node("a", routed(Resilience::default())).await.expect("assigns");
    comes_to(&hub, 1).await;
    let forged = serde_json::json!({
        "format": 1, "generation": 1, "id": FUNCTION, "name": FUNCTION, "handler": {"native": FUNCTION},
        "resilience": {"balance": "random", "bulkhead": {"calls_max": 1}},
        "deployed": {"revision": u64::MAX},
    });
    let forged = edgeward_model::python_json::read(&forged.to_string()).expect("JSON");
    let document = b.document("edgeward.assignments.b");
    let edit = move || document.edit(Precondition::None, move |draft| draft.set(FUNCTION, &forged));
    edgeward::blocking(edit).await.expect("a node may write anything to its store");
    hub.serves("b", FUNCTION).await;
    let at_hub = hub.cluster.documents().document(DocumentName::new("edgeward.assignments.b").expect("valid"));
    eventually("the hub has it", async || at_hub.get(FUNCTION).expect("reads").is_some()).await;
    let routes = hub.cluster.routes().expect("reads");
    let route = routes.iter().find(|route| route.function == function()).expect("a has it");
    assert_eq!((route.balance, route.candidates.len()), (edgeward_model::Balance::PowerOfTwo, 1), "{route:?}");
    for _ in 0..10 {
        assert_eq!(call(&hub.cluster).await.expect("runs"), "a");
    }
    hub.cluster.deploy_to_node("b", routed(Resilience::default())).await.expect("assigns");
    comes_to(&hub, 2).await;
}
