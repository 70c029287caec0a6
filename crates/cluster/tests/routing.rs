//! Calls that are routed over a backbone, as whoever embeds a router makes them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use edgeward_cluster::{
    Backbone, BackboneError, LocalBackbone, LocalNetwork, Message, Name, Router, Service, Subject, Subjects, handler,
    routing::{BreakerState, CallFailure, Candidate, Next, RouteSpec, Terms},
};
use edgeward_model::{EdgeError, EdgeNode, ErrorKind, FunctionId, NodeId, Resilience};
use tokio::time::{Instant, sleep, timeout};

const INVOKE: Name = Name::new("invoke");

struct Caller {
    router: Router,
    backbone: LocalBackbone,
    function: FunctionId,
    random: AtomicU64,
}

impl Caller {
    /// One call with all its attempts.
    async fn call(&self, terms: Terms) -> Result<Message, EdgeError> {
        let now = || Instant::now().into_std();
        let random = || self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut plan = self.router.plan(&self.function, terms, now())?;
        let mut last = None;
        loop {
            let picked = match self.router.pick(&self.function, plan.tried(), now(), random()) {
                Ok(picked) => picked,
                // What went wrong before tells more than that nobody is left.
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let to = Subject::to_node(picked.node().clone(), INVOKE);
            let time = plan.attempt_time(now());
            match self.backbone.request(&to, Message::new("x"), time).await {
                Ok(answer) => {
                    picked.succeed(now());
                    return Ok(answer);
                }
                Err(error) => {
                    let (node, failure) = (picked.node().clone(), plan.judge(CallFailure::from(&error), time));
                    picked.fail(failure, &error.to_string(), now());
                    match plan.next_attempt(&node, failure, now(), random()) {
                        Next::After(pause) => sleep(pause).await,
                        Next::GiveUp(_) => return Err(error.into()),
                    }
                    last = Some(error.into());
                }
            }
        }
    }
}

struct Fleet {
    network: LocalNetwork,
    caller: Caller,
    runs: Arc<AtomicU32>,
    services: Vec<Service>,
}

fn id(node: &str) -> NodeId {
    NodeId::new(node).expect("valid")
}

/// Three nodes, of which each answers after 5 ms with the time that it was given, and who calls them.
async fn fleet(resilience: Resilience) -> Fleet {
    let (network, runs) = (LocalNetwork::new(), Arc::new(AtomicU32::new(0)));
    let (mut services, mut candidates) = (Vec::new(), Vec::new());
    for node in ["a", "b", "c"] {
        let runs = Arc::clone(&runs);
        let answer = handler(move |call: edgeward_cluster::Call| {
            runs.fetch_add(1, Ordering::Relaxed);
            async move {
                let left = call.deadline - Instant::now();
                sleep(Duration::from_millis(5)).await;
                Ok::<_, EdgeError>(Message::new(left.as_millis().to_string()))
            }
        });
        services.push(network.member(id(node)).serve(&Subjects::to_node(id(node), INVOKE), 64, answer).await.expect("it serves"));
        candidates.push(Candidate::far(&EdgeNode::new(node, node).expect("valid"), false));
    }
    let function = FunctionId::new("f").expect("valid");
    let router = Router::new(None, Instant::now().into_std());
    router.set(function.clone(), RouteSpec { resilience, timeout: Duration::from_secs(2), candidates }).expect("valid");
    let caller = Caller { router, backbone: network.member(id("hub")), function, random: AtomicU64::new(1) };
    Fleet { network, caller, runs, services }
}

impl Fleet {
    fn breaker(&self, node: &str) -> BreakerState {
        let view = self.caller.router.view(&self.caller.function, Instant::now().into_std()).expect("known");
        view.candidates.iter().find(|candidate| candidate.node.as_str() == node).expect("one of them").breaker
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_away_and_comes_back_is_not_noticed() {
    let fleet = fleet(Resilience::default()).await;
    for _ in 0..30 {
        fleet.caller.call(Terms::default()).await.expect("all are there");
    }
    fleet.network.cut_off(&id("b"));
    // The one that nobody waits for any longer is tried once in a while.
    let begun = Instant::now();
    while fleet.breaker("b") != BreakerState::Open {
        fleet.caller.call(Terms::default()).await.expect("two are left");
        assert!(begun.elapsed() < Duration::from_mins(1), "it does not open");
    }
    fleet.network.bring_back(&id("b"));
    let begun = Instant::now();
    while fleet.breaker("b") != BreakerState::Closed {
        fleet.caller.call(Terms::default()).await.expect("all are there");
        assert!(begun.elapsed() < Duration::from_mins(1), "it does not close");
    }
}

#[tokio::test(start_paused = true)]
async fn what_surely_did_not_run_is_retried_and_the_rest_is_not() {
    let mut fleet = fleet(Resilience::default()).await;
    fleet.services.drain(..2);
    for _ in 0..10 {
        fleet.caller.call(Terms::default()).await.expect("one serves");
    }
    assert_eq!(fleet.runs.swap(0, Ordering::Relaxed), 10);
    fleet.network.cut_off(&id("c"));
    let error = fleet.caller.call(Terms::default()).await.expect_err("nobody serves");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    fleet.network.bring_back(&id("c"));
    let short = Terms { left: Some(Duration::from_millis(2)), ..Terms::default() };
    let error = fleet.caller.call(short).await.expect_err("it takes 5 ms");
    assert_eq!((error.kind(), fleet.runs.load(Ordering::Relaxed)), (ErrorKind::Timeout, 1));
}

#[tokio::test(start_paused = true)]
async fn the_time_that_is_left_reaches_the_node() {
    let fleet = fleet(Resilience::default()).await;
    let answer = fleet.caller.call(Terms::default()).await.expect("they are there");
    assert_eq!(answer.payload, "2000", "the function's own timeout");
    let terms = Terms { left: Some(Duration::from_millis(700)), ..Terms::default() };
    assert_eq!(fleet.caller.call(terms).await.expect("they are there").payload, "700");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_drops_gives_its_place_back() {
    let fleet = fleet(Resilience::default()).await;
    timeout(Duration::from_millis(1), fleet.caller.call(Terms::default())).await.expect_err("it takes 5 ms");
    let view = fleet.caller.router.view(&fleet.caller.function, Instant::now().into_std()).expect("known");
    assert_eq!((view.in_flight, view.candidates.iter().map(|candidate| candidate.cancelled).sum::<u64>()), (0, 1));
}

#[test]
fn every_error_of_a_backbone_says_whether_the_call_may_have_run() {
    let of = |error: BackboneError| CallFailure::from(&error).may_have_run;
    assert!(!of(BackboneError::NoResponder("x".to_owned())) && !of(BackboneError::Overloaded(1)));
    assert!(of(BackboneError::Timeout("x".to_owned())) && of(BackboneError::Disconnected("x".to_owned())));
}
