//! The router as whoever calls sees it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use edgeward_model::{
    Balance, Bulkhead, EdgeNode, EdgeNodeStatus, ErrorKind, FunctionId, Locality, NodeId, Resilience, Retry, limits::WEIGHT_MAX,
};
use proptest::prelude::*;

use super::{
    BreakerState, CallFailure, Candidate, Fault, GiveUp, Nearness, Next, Picked, RetryPlan, RouteSpec, RouteView, Router, Terms,
    random::Random,
};
use crate::error::BackboneError;

const MS: Duration = Duration::from_millis(1);

fn function() -> FunctionId {
    FunctionId::new("f").expect("valid")
}

fn id(text: &str) -> NodeId {
    NodeId::new(text).expect("valid")
}

fn far(node: &str, site: &str) -> Candidate {
    let mut node = EdgeNode::new(node, "node").expect("valid");
    node.labels.insert("site".to_owned(), site.to_owned());
    Candidate::far(&node, false)
}

fn spec(resilience: Resilience, candidates: Vec<Candidate>) -> RouteSpec {
    RouteSpec { resilience, timeout: Duration::from_secs(30), candidates }
}

/// A router at the site `berlin`, and its beginning.
fn router(resilience: Resilience, candidates: Vec<Candidate>) -> (Router, Instant) {
    let begun = Instant::now();
    let router = Router::new(Some("berlin".to_owned()), begun);
    router.set(function(), spec(resilience, candidates)).expect("valid");
    (router, begun)
}

fn by(balance: Balance) -> Resilience {
    Resilience { balance, ..Resilience::default() }
}

fn three() -> Vec<Candidate> {
    ["a", "b", "c"].map(|node| far(node, "berlin")).to_vec()
}

fn pick(router: &Router, now: Instant, random: u64) -> Picked {
    router.pick(&function(), &[], now, random).expect("there is a node")
}

/// Fails all that a node gets until its breaker opens.
fn open_breaker(router: &Router, node: &str, now: Instant) -> Result<(), String> {
    let others: Vec<_> = router.view(&function(), now).expect("known").candidates.into_iter().map(|candidate| candidate.node).collect();
    let others: Vec<_> = others.into_iter().filter(|id| id.as_str() != node).collect();
    for random in 0..10 {
        let picked = router.pick(&function(), &others, now, random).expect("it is closed");
        if picked.node().as_str() != node {
            return Err(format!("{} is asked, which was tried", picked.node()));
        }
        let changed = picked.fail(CallFailure::answered(ErrorKind::ExecutionFailed), "it fails", now);
        if changed != (random == 9).then_some(BreakerState::Open) {
            return Err(format!("after {} failures the breaker has become {changed:?}", random + 1));
        }
    }
    Ok(())
}

/// How often each node was chosen, when each call ends at once.
fn chosen(router: &Router, now: Instant, calls: u64, seed: u64) -> BTreeMap<String, u64> {
    let (mut random, mut counts) = (Random::new(seed), BTreeMap::new());
    for _ in 0..calls {
        let picked = pick(router, now, random.next());
        *counts.entry(picked.node().to_string()).or_default() += 1;
        picked.succeed(now + MS);
    }
    counts
}

/// Whether the nodes got these shares of the calls, within two of a hundred.
fn is_spread(what: &str, counts: &BTreeMap<String, u64>, shares: &[(&str, f64)]) -> Result<(), String> {
    let calls: u64 = counts.values().sum();
    for (node, share) in shares {
        let had = counts.get(*node).copied().unwrap_or(0) as f64 / calls as f64;
        if (had - share).abs() > 0.02 {
            return Err(format!("{what}: node {node} had {had:.3} of the calls, and its share is {share}: {counts:?}"));
        }
    }
    Ok(())
}

/// That each policy spreads calls as it says, with all nodes and with one whose breaker is open.
pub(super) fn check_spread(seed: u64) -> Result<(), String> {
    let third = 1.0 / 3.0;
    for balance in Balance::ALL {
        let candidates = [("a", 1), ("b", 2), ("c", 5), ("d", 0)].map(|(node, weight)| Candidate { weight, ..far(node, "berlin") });
        let count = if balance == Balance::Weighted { 4 } else { 3 };
        let (router, now) = router(by(balance), candidates[..count].to_vec());
        let shares = if balance == Balance::Weighted { [0.125, 0.25, 0.625] } else { [third; 3] };
        is_spread(
            balance.as_str(),
            &chosen(&router, now, 20_000, seed),
            &[("a", shares[0]), ("b", shares[1]), ("c", shares[2]), ("d", 0.0)],
        )?;
        open_breaker(&router, "b", now)?;
        let rest = shares[0] + shares[2];
        let counts = chosen(&router, now, 20_000, seed);
        is_spread(&format!("{balance}, without b"), &counts, &[("a", shares[0] / rest), ("b", 0.0), ("c", shares[2] / rest)])?;
    }
    Ok(())
}

#[test]
fn each_policy_spreads_calls_as_it_says() {
    (0..3).for_each(|seed| check_spread(seed).expect("holds"));
}

#[test]
fn many_nodes_get_calls_by_every_policy() {
    for balance in Balance::ALL {
        let candidates: Vec<_> = (0..500).map(|node| far(&format!("n{node}"), "berlin")).collect();
        let (router, now) = router(by(balance), candidates);
        let counts = chosen(&router, now, 10_000, 1);
        assert!(counts.len() > 490 && counts.values().all(|count| *count < 60), "{balance}: {} nodes", counts.len());
    }
}

#[test]
fn the_one_with_fewest_calls_under_way_gets_the_next() {
    let (router, now) = router(by(Balance::LeastConnections), three());
    let held: Vec<_> = (0..9).map(|random| pick(&router, now, random)).collect();
    let view = router.view(&function(), now).expect("known");
    assert!(view.candidates.iter().all(|candidate| candidate.in_flight == 3), "{view:?}");
    let first = held.into_iter().find(|picked| picked.node().as_str() == "b").expect("it has three");
    first.succeed(now);
    assert_eq!(pick(&router, now, 77).node().as_str(), "b");
}

#[test]
fn of_two_the_one_with_less_to_do_takes_the_call() {
    let (router, now) = router(by(Balance::PowerOfTwo), vec![far("a", "x"), far("b", "x")]);
    for random in 0..20 {
        let picked = pick(&router, now, random);
        let time = if picked.node().as_str() == "a" { MS } else { MS * 10 };
        picked.succeed(now + time);
    }
    let later = now + MS * 10;
    let held: Vec<_> = (0..9).map(|random| pick(&router, later, random)).collect();
    assert!(held.iter().all(|picked| picked.node().as_str() == "a"), "a is ten times faster");
    let tenth: Vec<_> = (0..4).map(|random| pick(&router, later, random)).collect();
    assert!(tenth.iter().any(|picked| picked.node().as_str() == "b"), "and has nine calls under way");
}

#[test]
fn a_call_goes_to_the_nearest_node_that_is_well() {
    let here = Candidate { is_local: true, ..far("here", "berlin") };
    let mut candidates = vec![far("away", "paris"), far("near", "berlin"), here];
    let (router, now) = router(Resilience::default(), candidates.clone());
    let nearest = || (0..50).map(|random| pick(&router, now, random)).map(|picked| picked.nearness()).collect::<Vec<_>>();
    assert_eq!(nearest(), vec![Nearness::Here; 50]);
    open_breaker(&router, "here", now).expect("it is asked");
    assert_eq!(nearest(), vec![Nearness::SameSite; 50]);
    candidates[1].status = EdgeNodeStatus::Degraded;
    router.set(function(), spec(Resilience::default(), candidates.clone())).expect("valid");
    assert_eq!(nearest(), vec![Nearness::Elsewhere; 50], "what is known of a node stays when its status changes");
    candidates[0].is_draining = true;
    router.set(function(), spec(Resilience::default(), candidates.clone())).expect("valid");
    assert_eq!(nearest(), vec![Nearness::SameSite; 50]);
    candidates[1].status = EdgeNodeStatus::Offline;
    router.set(function(), spec(Resilience::default(), candidates)).expect("valid");
    assert_eq!(nearest(), vec![Nearness::Elsewhere; 50], "one that is to be left is better than none");
}

#[test]
fn a_call_for_another_site_goes_there_first_and_then_where_ours_would() {
    let here = Candidate { is_local: true, ..far("here", "berlin") };
    let degraded = Candidate { status: EdgeNodeStatus::Degraded, ..far("sick", "tokyo") };
    let candidates = vec![here, far("near", "berlin"), far("t1", "tokyo"), Candidate { weight: 3, ..far("t2", "tokyo") }, degraded];
    for (balance, share) in [(Balance::PowerOfTwo, 0.5), (Balance::RoundRobin, 0.5), (Balance::Random, 0.5), (Balance::Weighted, 0.25)] {
        let (router, now) = router(by(balance), candidates.clone());
        let of_tokyo = |tried: &[NodeId], random| router.pick_for("tokyo", &function(), tried, now, random).expect("one is there");
        let mut chosen = BTreeMap::new();
        (0..10_000).for_each(|random| *chosen.entry(of_tokyo(&[], random).node().to_string()).or_default() += 1);
        is_spread("tokyo", &chosen, &[("t1", share), ("t2", 1.0 - share)]).expect("those of the caller's site");
        let both = [id("t1"), id("t2")];
        assert_eq!(of_tokyo(&both, 0).node().as_str(), "here", "one that is well comes before one that is near");
        let elsewhere = router.pick_for("rome", &function(), &[], now, 0).expect("one is there");
        assert_eq!(elsewhere.node().as_str(), "here");
        assert_eq!(pick(&router, now, 0).node().as_str(), "here");
    }
}

#[test]
fn without_a_preference_all_nodes_are_as_near() {
    let resilience = Resilience { locality: Locality::Any, ..by(Balance::Random) };
    let (router, now) = router(resilience, vec![Candidate { is_local: true, ..far("a", "berlin") }, far("b", "paris")]);
    is_spread("any", &chosen(&router, now, 10_000, 1), &[("a", 0.5), ("b", 0.5)]).expect("half");
}

#[test]
fn a_member_that_is_cut_off_calls_itself_only() {
    let (router, now) = router(Resilience::default(), vec![Candidate { is_local: true, ..far("here", "berlin") }, far("b", "berlin")]);
    router.set_connected(false);
    assert!(pick(&router, now, 0).is_local());
    let error = router.set(function(), spec(Resilience::default(), three())).and_then(|()| router.pick(&function(), &[], now, 0));
    let error = error.expect_err("all are far");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("`a` is out of reach, as this member is cut off"), "{error}");
    router.set_connected(true);
    pick(&router, now, 0).succeed(now);
}

#[test]
fn a_place_is_given_back_however_the_attempt_ends() {
    let bulkhead = Bulkhead { calls_per_node_max: Some(2), calls_max: Some(5) };
    let (router, now) = router(Resilience { bulkhead, ..Resilience::default() }, three());
    for round in 0..3 {
        let mut held: Vec<_> = (0..5).map(|random| pick(&router, now, random)).collect();
        let error = router.pick(&function(), &[], now, 0).expect_err("five are under way");
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.to_string().contains("as many calls under way as it may, 5"), "{error}");
        held.remove(0).succeed(now);
        held.remove(0).fail(CallFailure::answered(ErrorKind::Timeout), "late", now);
        drop(held);
        let view = router.view(&function(), now).expect("known");
        assert_eq!((view.in_flight, view.refused_full), (0, round + 1));
        assert!(view.candidates.iter().all(|candidate| candidate.in_flight == 0), "{view:?}");
    }
    let view = router.view(&function(), now).expect("known");
    let sums = view.candidates.iter().map(|of| [of.picks, of.successes, of.failures, of.cancelled]);
    assert_eq!(sums.reduce(|a, b| std::array::from_fn(|n| a[n] + b[n])), Some([15, 3, 3, 9]));
}

#[test]
fn a_node_whose_places_are_taken_says_so() {
    let bulkhead = Bulkhead { calls_per_node_max: Some(1), calls_max: None };
    let (router, now) = router(Resilience { bulkhead, ..Resilience::default() }, three());
    let _held: Vec<_> = (0..3).map(|random| pick(&router, now, random)).collect();
    let error = router.pick(&function(), &[], now, 0).expect_err("each has one");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(
        error.to_string(),
        "no node can take a call of function `f` now: `a` has as many calls under way as it may, `b` has as many calls under way as it may, \
         `c` has as many calls under way as it may"
    );
}

#[test]
fn who_fails_is_left_alone_and_tried_again_later() {
    let (router, now) = router(Resilience::default(), vec![far("a", "x")]);
    open_breaker(&router, "a", now).expect("it is asked");
    let error = router.pick(&function(), &[], now + MS * 1500, 0).expect_err("it is open");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().ends_with("`a` failed too often (execution_failed) and is tried again in 3.5 s"), "{error}");
    let view = router.view(&function(), now + MS * 1500).expect("known");
    let of = &view.candidates[0];
    assert_eq!((of.breaker, of.openings, of.failures, view.refused_unavailable), (BreakerState::Open, 1, 10, 1));
    let json = serde_json::to_string(&view).expect("JSON");
    assert!(json.contains(r#""nearness":"elsewhere","status":"online""#) && json.contains(r#""breaker":"open""#), "{json}");
    assert_eq!(serde_json::from_str::<RouteView>(&json).expect("its own JSON"), view);
    let error = of.last_error.as_ref().expect("it failed");
    assert_eq!((error.kind, error.message.as_str(), error.seconds_ago), (ErrorKind::ExecutionFailed, "it fails", 1.5));
    let later = now + MS * 5000;
    let probes: Vec<_> = (0..3).map(|random| pick(&router, later, random)).collect();
    assert!(probes.iter().all(Picked::is_probe));
    assert!(router.pick(&function(), &[], later, 0).expect_err("three try it").to_string().contains("is just being tried again"));
    let changed: Vec<_> = probes.into_iter().map(|probe| probe.succeed(later + MS)).collect();
    assert_eq!(changed, [None, None, Some(BreakerState::Closed)]);
    assert!(!pick(&router, later, 0).is_probe());
    assert_eq!(router.view(&function(), later).expect("known").candidates[0].breaker, BreakerState::Closed);
}

#[test]
fn a_node_that_is_well_again_gets_its_share_at_once() {
    let (router, now) = router(Resilience::default(), vec![far("a", "x"), far("b", "x")]);
    for random in 0..10 {
        router.pick(&function(), &[id("b")], now, random).expect("a").fail(
            CallFailure::answered(ErrorKind::Timeout),
            "late",
            now + MS * 1000,
        );
    }
    is_spread("without a", &chosen(&router, now + MS * 1000, 1000, 1), &[("a", 0.0)]).expect("it is open");
    let later = now + MS * 6000;
    for random in 0..3 {
        router.pick(&function(), &[id("b")], later, random).expect("a probe").succeed(later + MS);
    }
    is_spread("both", &chosen(&router, later + MS, 20_000, 1), &[("a", 0.5)]).expect("how slow it was is forgotten");
}

#[test]
fn a_function_that_nobody_knows_or_has_is_told_apart() {
    let (router, now) = router(Resilience::default(), Vec::new());
    assert_eq!(router.pick(&function(), &[], now, 0).expect_err("nobody has it").to_string(), "no node has function `f` now");
    router.retain(|_| false);
    assert_eq!(router.pick(&function(), &[], now, 0).expect_err("unknown").kind(), ErrorKind::NotFound);
    assert_eq!(router.plan(&function(), Terms::default(), now).expect_err("unknown").kind(), ErrorKind::NotFound);
    assert!(router.view(&function(), now).is_none() && router.views(now).is_empty());
}

#[test]
fn what_is_past_its_bound_is_refused() {
    let (router, _) = router(Resilience::default(), three());
    let heavy = vec![Candidate { weight: WEIGHT_MAX + 1, ..far("a", "x") }];
    assert!(router.set(function(), spec(Resilience::default(), heavy)).is_err());
    let twice = vec![far("a", "x"), far("b", "x"), far("a", "y")];
    assert!(router.set(function(), spec(Resilience::default(), twice)).expect_err("twice").to_string().contains("node `a` twice"));
    let wrong = Resilience { retry: Retry { attempts: Some(99), ..Retry::default() }, ..Resilience::default() };
    assert!(router.set(function(), spec(wrong, three())).is_err());
}

fn plan(router: &Router, terms: Terms, now: Instant) -> RetryPlan {
    router.plan(&function(), terms, now).expect("known")
}

#[test]
fn what_may_have_run_is_retried_only_when_that_does_no_harm() {
    let timeout = CallFailure::answered(ErrorKind::Timeout);
    let no_responder = CallFailure::from(&BackboneError::NoResponder("x".to_owned()));
    let wrong = CallFailure::answered(ErrorKind::InvalidInput);
    let (router, now) = router(Resilience::default(), three());
    let next =
        |is_idempotent, failure| plan(&router, Terms { is_idempotent, left: None }, now).next_attempt(&id("a"), failure, now, u64::MAX);
    assert_eq!(next(false, timeout), Next::GiveUp(GiveUp::MayHaveRun));
    assert_eq!(next(true, timeout), Next::After(MS * 20));
    assert_eq!(next(false, no_responder), Next::After(Duration::ZERO), "to another node at once");
    assert_eq!(next(true, wrong), Next::GiveUp(GiveUp::SameEverywhere));
}

#[test]
fn pauses_grow_with_full_jitter_and_a_call_is_tried_so_often() {
    let (min, max) = (Some(0.1), Some(0.3));
    let retry =
        Retry { attempts: Some(5), backoff_min_seconds: min, backoff_max_seconds: max, budget_percent: Some(100.0), attempt_seconds: None };
    let (router, now) = router(Resilience { idempotent: true, retry, ..Resilience::default() }, three());
    let failure = CallFailure::answered(ErrorKind::ExecutionFailed);
    for (random, part) in [(u64::MAX, 1.0), (u64::MAX / 2, 0.5), (0, 0.0)] {
        let mut plan = plan(&router, Terms::default(), now);
        for most in [100, 200, 300, 300] {
            let Next::After(pause) = plan.next_attempt(&id("a"), failure, now, random) else { panic!("there is a budget") };
            assert!((pause.as_secs_f64() * 1000.0 - f64::from(most) * part).abs() < 0.01, "{pause:?} of {most} ms");
        }
        assert_eq!(plan.next_attempt(&id("a"), failure, now, random), Next::GiveUp(GiveUp::Attempts));
        assert_eq!(plan.tried(), [id("a")]);
    }
}

#[test]
fn a_deadline_is_the_least_of_all_and_bounds_each_attempt() {
    let retry = Retry { attempt_seconds: Some(2.0), ..Retry::default() };
    let resilience = Resilience { deadline_seconds: Some(10.0), idempotent: true, retry, ..Resilience::default() };
    let (router, now) = router(resilience, three());
    let whole = plan(&router, Terms::default(), now);
    assert_eq!((whole.left(now), whole.attempt_time(now)), (MS * 10_000, MS * 2000));
    assert_eq!(whole.attempt_time(now + MS * 9000), MS * 1000);
    let mut short = plan(&router, Terms { left: Some(MS * 15), ..Terms::default() }, now);
    assert_eq!((short.left(now), short.deadline()), (MS * 15, now + MS * 15));
    let failure = CallFailure::answered(ErrorKind::Timeout);
    assert_eq!(short.next_attempt(&id("a"), failure, now, u64::MAX), Next::GiveUp(GiveUp::Deadline), "the pause is 20 ms");
    let error = router.plan(&function(), Terms { left: Some(Duration::ZERO), ..Terms::default() }, now).expect_err("it has passed");
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[test]
fn a_timeout_is_the_nodes_fault_when_it_had_the_time_that_its_function_may_take() {
    let fault = |resilience: &Resilience, terms: Terms, after: Duration| {
        let (router, now) = router(resilience.clone(), three());
        let plan = plan(&router, terms, now);
        plan.judge(CallFailure::answered(ErrorKind::Timeout), plan.attempt_time(now + after)).fault
    };
    let left = |left| Terms { left: Some(left), ..Terms::default() };
    let usual = Resilience::default();
    assert_eq!(fault(&usual, Terms::default(), MS), Fault::Node);
    assert_eq!(fault(&usual, left(MS * 3_600_000), MS), Fault::Node);
    assert_eq!(fault(&usual, left(MS), Duration::ZERO), Fault::Caller, "nobody answers within a millisecond");
    assert_eq!(fault(&usual, Terms::default(), MS * 20_000), Fault::Caller, "an attempt with what another left");
    let short = Resilience { deadline_seconds: Some(2.0), ..Resilience::default() };
    assert_eq!(fault(&short, Terms::default(), MS), Fault::Node, "it says so itself");
    let long = Resilience { deadline_seconds: Some(100.0), ..Resilience::default() };
    assert_eq!(fault(&long, Terms::default(), MS * 60_000), Fault::Node, "there is time for another attempt");
    let retry = Retry { attempt_seconds: Some(0.5), ..Retry::default() };
    let quick = Resilience { idempotent: true, retry, ..Resilience::default() };
    assert_eq!((fault(&quick, left(MS * 600), MS), fault(&quick, left(MS * 300), MS)), (Fault::Node, Fault::Caller));
    let (router, now) = router(usual, three());
    let plan = plan(&router, left(MS), now);
    let silent = CallFailure::from(&BackboneError::NoResponder("x".to_owned()));
    assert_eq!(plan.judge(silent, MS), silent, "who is away is so at any time");
}

#[test]
fn callers_who_do_not_wait_open_no_breaker_and_show_that_a_node_is_slow() {
    let (router, now) = router(Resilience::default(), vec![far("a", "x"), far("b", "x")]);
    for random in 0..50 {
        let plan = plan(&router, Terms { left: Some(MS * 200), ..Terms::default() }, now);
        let picked = router.pick(&function(), &[id("b")], now, random).expect("it is closed");
        let failure = plan.judge(CallFailure::answered(ErrorKind::Timeout), plan.attempt_time(now));
        assert_eq!(picked.fail(failure, "late", now + MS * 200), None);
    }
    assert_eq!(pick(&router, now + MS * 200, 1).node().as_str(), "b", "a takes 200 ms at least");
}

#[test]
fn a_call_that_cannot_be_sent_says_nothing_of_its_node_and_is_not_tried_elsewhere() {
    let (router, now) = router(Resilience::default(), vec![far("a", "x")]);
    let large = BackboneError::TooLarge { subject: "x".to_owned(), bytes: 2, bytes_max: 1 };
    for nth in 0..10 {
        let failure = CallFailure::from(&large);
        assert_eq!(plan(&router, Terms::default(), now).next_attempt(&id("a"), failure, now, 0), Next::GiveUp(GiveUp::SameEverywhere));
        pick(&router, now, nth).fail(failure, "large", now);
    }
    for nth in 0..9 {
        pick(&router, now, nth).fail(CallFailure::answered(ErrorKind::Internal), "oh", now);
    }
    let view = router.view(&function(), now).expect("known");
    assert_eq!(view.candidates[0].latency_ms, None, "nothing was measured");
    pick(&router, now, 1).fail(CallFailure::from(&large), "large", now);
    let changed = pick(&router, now, 1).fail(CallFailure::answered(ErrorKind::Internal), "oh", now);
    assert_eq!(changed, Some(BreakerState::Open), "ten failures one after the other, whatever was not sent between");
}

#[test]
fn a_call_from_before_the_breaker_opened_tells_nothing_after_it_closed() {
    let (router, now) = router(Resilience::default(), vec![far("a", "x")]);
    let old: Vec<_> = (0..30).map(|random| pick(&router, now, random)).collect();
    open_breaker(&router, "a", now).expect("it is asked");
    let later = now + MS * 5000;
    for random in 0..3 {
        pick(&router, later, random).succeed(later);
    }
    for picked in old {
        assert_eq!(picked.fail(CallFailure::answered(ErrorKind::Timeout), "late", later + MS), None);
    }
    let view = router.view(&function(), later + MS).expect("known");
    let of = &view.candidates[0];
    assert!(of.breaker == BreakerState::Closed && of.cost < 1_000_000.0, "{of:?}");
}

#[test]
fn a_first_retry_pauses_when_nobody_else_could_take_the_call() {
    let mut candidates = vec![far("a", "x"), far("b", "x"), far("c", "x")];
    candidates[2].status = EdgeNodeStatus::Offline;
    let bulkhead = Bulkhead { calls_per_node_max: Some(1), calls_max: None };
    let (router, now) = router(Resilience { bulkhead, ..Resilience::default() }, candidates);
    let gone = CallFailure::from(&BackboneError::NoResponder("x".to_owned()));
    let next = || plan(&router, Terms::default(), now).next_attempt(&id("a"), gone, now, u64::MAX);
    assert_eq!(next(), Next::After(Duration::ZERO), "b could");
    let full = router.pick(&function(), &[id("a")], now, 0).expect("b");
    assert_eq!(next(), Next::After(MS * 20), "b is full, and c is offline");
    full.succeed(now);
    router.set_connected(false);
    assert_eq!(next(), Next::After(MS * 20), "this member is cut off");
}

#[test]
fn an_attempt_of_what_must_not_run_twice_may_use_all_the_time() {
    let retry = Retry { attempt_seconds: Some(2.0), ..Retry::default() };
    let (router, now) = router(Resilience { retry, ..Resilience::default() }, three());
    assert_eq!(plan(&router, Terms::default(), now).attempt_time(now), Duration::from_secs(30));
}

#[test]
fn a_retry_goes_to_another_node_while_there_is_one() {
    let (router, now) = router(Resilience::default(), three());
    for random in 0..100 {
        let other = router.pick(&function(), &[id("a"), id("b")], now, random).expect("c is left");
        assert_eq!(other.node().as_str(), "c");
    }
    let again = router.pick(&function(), &[id("a"), id("b"), id("c")], now, 0).expect("one of them again");
    again.succeed(now);
}

#[test]
fn threads_that_choose_at_once_keep_to_the_bulkhead_and_leave_nothing_behind() {
    let bulkhead = Bulkhead { calls_per_node_max: Some(3), calls_max: Some(7) };
    for balance in Balance::ALL {
        let (router, now) = router(Resilience { balance, bulkhead: bulkhead.clone(), ..Resilience::default() }, three());
        let under_way: [AtomicU32; 3] = Default::default();
        let work = |seed: u64| {
            let mut random = Random::new(seed);
            for nth in 0..2000_u32 {
                let Ok(picked) = router.pick(&function(), &[], now + MS * nth, random.next()) else { continue };
                let at = &under_way[usize::from(picked.node().as_str().as_bytes()[0] - b'a')];
                assert!(at.fetch_add(1, Ordering::SeqCst) < 3);
                if nth % 7 == 0 {
                    thread::yield_now();
                }
                at.fetch_sub(1, Ordering::SeqCst);
                match random.below(10) {
                    0 => drop(picked),
                    1 => drop(picked.fail(CallFailure::answered(ErrorKind::Internal), "oh", now + MS * nth)),
                    _ => drop(picked.succeed(now + MS * nth)),
                }
            }
        };
        thread::scope(|scope| (0..8).for_each(|seed| drop(scope.spawn(move || work(seed)))));
        let view = router.view(&function(), now).expect("known");
        assert_eq!((view.in_flight, view.candidates.iter().map(|of| of.in_flight).sum::<u32>()), (0, 0), "{balance}");
        assert!(view.candidates.iter().map(|of| of.picks).sum::<u64>() > 1000, "{balance}");
    }
}

proptest! {
    /// Whatever is told and however calls end, a pick is of a node that may be called, and nothing is left behind.
    #[test]
    fn a_node_that_is_chosen_may_be_called(
        nodes in proptest::collection::vec((0_usize..4, any::<bool>(), any::<bool>(), 0_u32..4), 0..8),
        balance in 0_usize..5,
        is_connected in any::<bool>(),
        steps in proptest::collection::vec((any::<u64>(), 0_u64..3000, 0_usize..5), 0..120),
    ) {
        let candidates: Vec<_> = nodes.iter().enumerate().map(|(index, (status, is_draining, is_local, weight))| Candidate {
            status: EdgeNodeStatus::ALL[*status],
            is_draining: *is_draining,
            is_local: *is_local,
            weight: *weight,
            ..far(&format!("n{index}"), if index % 2 == 0 { "berlin" } else { "paris" })
        }).collect();
        let balance = Balance::ALL[balance];
        let bulkhead = Bulkhead { calls_per_node_max: Some(2), calls_max: Some(9) };
        let (router, begun) = router(Resilience { balance, bulkhead, ..Resilience::default() }, candidates.clone());
        router.set_connected(is_connected);
        let (mut now, mut held) = (begun, Vec::new());
        for (random, pause, what) in steps {
            now += MS * u32::try_from(pause).expect("small");
            let before = router.view(&function(), now).expect("known");
            let open: Vec<_> = before.candidates.iter().filter(|of| of.why_not.is_none()).map(|of| of.node.clone()).collect();
            match router.pick(&function(), &[], now, random) {
                Ok(picked) => {
                    let candidate = candidates.iter().find(|candidate| candidate.node == *picked.node()).expect("one of them");
                    prop_assert!(candidate.is_local || (is_connected && candidate.status != EdgeNodeStatus::Offline));
                    prop_assert!(balance != Balance::Weighted || candidate.weight > 0);
                    prop_assert!(open.contains(picked.node()));
                    match what {
                        0 => held.push(picked),
                        1 => drop(picked),
                        2 => drop(picked.succeed(now + MS)),
                        _ => drop(picked.fail(CallFailure::answered(ErrorKind::ALL[usize::try_from(random % 13).expect("small")]), "oh", now)),
                    }
                }
                Err(error) => {
                    prop_assert!(open.is_empty() || held.len() >= 9, "{} although {:?}", error, open);
                    prop_assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Overloaded));
                }
            }
            if what == 4 {
                held.pop();
            }
        }
        drop(held);
        let view = router.view(&function(), now).expect("known");
        prop_assert_eq!((view.in_flight, view.candidates.iter().map(|of| of.in_flight).sum::<u32>()), (0, 0));
    }
}
