//! Rollouts on a small fleet that does what it is ordered, second by second: each strategy, each way of doing badly, and people in between.

use std::collections::BTreeMap;

use edgeward_model::{Amount, FunctionId, Gate, NodeId, Selector, Strategy, StrategyKind};
use jiff::Timestamp;

use super::{Approval, NodeFacts, Order, Phase, Rollout, RolloutState, Sample, Scope, Served, decide};

/// What a revision does on a node.
type Does = fn(revision: u64, node: &str) -> Outcome;

#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Well,
    CannotStart,
    Errs,
    Slow,
    /// Says neither that it serves nor that it cannot.
    Stuck,
    /// Is silent from then on.
    Silent,
}

struct Fleet {
    rollout: Rollout,
    strategy: Strategy,
    wanted: Option<usize>,
    is_superseded: bool,
    facts: BTreeMap<NodeId, NodeFacts>,
    does: Does,
    calls_per_second: u64,
    /// For how many seconds each node has served what it serves now.
    served_seconds: BTreeMap<NodeId, f64>,
    now: i64,
    /// Each node and what it was ordered, in turn.
    orders: Vec<(String, Order)>,
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("valid")
}

fn well(_: u64, _: &str) -> Outcome {
    Outcome::Well
}

fn errs(revision: u64, _: &str) -> Outcome {
    if revision == 2 { Outcome::Errs } else { Outcome::Well }
}

fn cannot_start(revision: u64, _: &str) -> Outcome {
    if revision == 2 { Outcome::CannotStart } else { Outcome::Well }
}

impl Fleet {
    /// So many nodes that serve revision 1, and a rollout of revision 2.
    fn of(count: usize, strategy: Strategy) -> Self {
        let mut fleet = Self::without_former(count, strategy);
        fleet.rollout.from = Some(1);
        for facts in fleet.facts.values_mut() {
            facts.ordered = Some(Order::confirmed(1));
            facts.observed.served = Served::Ready;
            facts.observed.sample = Sample { calls: 1000, errors: 0, p95_ms: 10.0 };
        }
        fleet
    }

    fn without_former(count: usize, strategy: Strategy) -> Self {
        strategy.validate().expect("valid");
        let fact = NodeFacts { in_target: true, is_reachable: true, ..NodeFacts::default() };
        let mut fleet = Self {
            rollout: Rollout::new(FunctionId::new("f").expect("valid"), 7, None, 2, Timestamp::UNIX_EPOCH),
            strategy,
            wanted: None,
            is_superseded: false,
            facts: (0..count).map(|n| (id(&format!("n{n}")), fact.clone())).collect(),
            does: well,
            calls_per_second: 10,
            served_seconds: BTreeMap::new(),
            now: 1000,
            orders: Vec::new(),
        };
        fleet.rollout.progressed_at = fleet.clock();
        fleet
    }

    fn doing(mut self, does: Does) -> Self {
        self.does = does;
        self
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_second(self.now).expect("a time")
    }

    fn node(&mut self, name: &str) -> &mut NodeFacts {
        self.facts.get_mut(&id(name)).expect("it is there")
    }

    /// Nodes that are to serve this revision.
    fn serving(&self, revision: u64) -> Vec<&str> {
        self.facts.iter().filter(|(_, facts)| facts.serves() == Some(revision)).map(|(id, _)| id.as_str()).collect()
    }

    /// What a node was ordered, where that is another than before.
    fn orders_of(&self, name: &str) -> Vec<(Option<u64>, Option<u64>)> {
        let mut orders: Vec<_> = self.orders.iter().filter(|(node, _)| node == name).map(|(_, order)| (order.serve, order.warm)).collect();
        orders.dedup();
        orders
    }

    /// One decision, and its orders are there.
    fn decide(&mut self) {
        let scope = Scope { strategy: &self.strategy, wanted: self.wanted, is_superseded: self.is_superseded };
        let decision = decide(&self.rollout, scope, &self.facts, self.clock());
        self.rollout = decision.rollout;
        for (id, order) in decision.orders {
            let facts = self.facts.get_mut(&id).expect("it is known");
            self.orders.push((id.to_string(), order));
            let (was, sample) = (facts.serves(), facts.observed.sample);
            let goes_on = was == order.serve && facts.observed.served == Served::Ready;
            facts.ordered = (order != Order::default()).then_some(order);
            facts.observed.warm = Served::Pending;
            if !goes_on {
                facts.observed.served = Served::Pending;
                facts.observed.has_baked = false;
                self.served_seconds.insert(id, 0.0);
                (facts.observed.sample, facts.observed.before) = (Sample::default(), sample);
            }
        }
    }

    /// A second passes on the nodes.
    fn pass(&mut self) {
        self.now += 1;
        for (id, facts) in &mut self.facts {
            let Some(order) = facts.ordered.filter(|_| facts.is_reachable) else { continue };
            let outcome = |revision: Option<u64>| revision.map_or(Outcome::Well, |revision| (self.does)(revision, id.as_str()));
            let observed = &mut facts.observed;
            observed.warm = if outcome(order.warm) == Outcome::CannotStart { Served::Failed } else { Served::Ready };
            let outcome = outcome(order.serve);
            if observed.served == Served::Ready {
                let seconds = self.served_seconds.entry(id.clone()).or_default();
                *seconds += 1.0;
                observed.has_baked = *seconds >= self.strategy.bake().as_secs_f64();
                observed.sample.calls += self.calls_per_second;
                observed.sample.errors += if outcome == Outcome::Errs { self.calls_per_second } else { 0 };
                observed.sample.p95_ms = if outcome == Outcome::Slow { 90.0 } else { 11.0 };
            }
            match outcome {
                Outcome::CannotStart => {
                    (observed.served, observed.message) = (Served::Failed, "no memory".to_owned());
                }
                Outcome::Stuck => {}
                Outcome::Silent => facts.is_reachable = false,
                Outcome::Well | Outcome::Errs | Outcome::Slow => observed.served = Served::Ready,
            }
        }
    }

    fn run(&mut self, seconds: usize) {
        for _ in 0..seconds {
            self.decide();
            self.pass();
        }
        self.decide();
    }

    /// Runs until it is over; how many nodes had the revision after each second.
    fn run_until_over(&mut self) -> Vec<usize> {
        let mut steps = vec![0];
        for _ in 0..1000 {
            self.decide();
            let has = self.serving(2).len();
            if steps[steps.len() - 1] != has {
                steps.push(has);
            }
            if self.rollout.state.is_over() {
                self.run(10);
                return steps;
            }
            self.pass();
        }
        panic!("it does not end: {:?}", self.rollout);
    }
}

fn rolling(batch: u32) -> Strategy {
    Strategy { batch: Some(Amount::Count(batch)), bake_seconds: Some(5.0), ..Strategy::new(StrategyKind::Rolling) }
}

fn canary() -> Strategy {
    Strategy { batch: Some(Amount::Count(1)), bake_seconds: Some(5.0), ..Strategy::new(StrategyKind::Canary) }
}

#[test]
fn a_rolling_rollout_grows_from_batch_to_batch() {
    let mut fleet = Fleet::of(7, Strategy { growth: Some(2), ..rolling(1) });
    assert_eq!(fleet.run_until_over(), [0, 1, 3, 7]);
    assert_eq!(fleet.rollout.state, RolloutState::Completed);
    assert!(fleet.facts.values().all(|facts| facts.ordered == Some(Order::confirmed(2))), "nothing stays warm: {:?}", fleet.facts);
    assert_eq!(fleet.orders_of("n0"), [(Some(2), Some(1)), (Some(2), None)]);
}

#[test]
fn a_batch_waits_for_the_bake_time_of_the_one_before() {
    let mut fleet = Fleet::of(4, rolling(1));
    fleet.run(5);
    assert_eq!((fleet.serving(2).len(), fleet.orders.len()), (1, 1));
    fleet.run(1);
    assert_eq!(fleet.serving(2).len(), 2);
}

#[test]
fn a_canary_comes_first_and_then_the_rest() {
    let mut fleet = Fleet::of(9, canary());
    assert_eq!(fleet.run_until_over(), [0, 1, 9]);
}

#[test]
fn blue_green_is_prepared_everywhere_and_then_switched_at_once() {
    let mut fleet = Fleet::of(5, Strategy { bake_seconds: Some(5.0), ..Strategy::new(StrategyKind::BlueGreen) });
    fleet.decide();
    assert!(fleet.facts.values().all(|facts| facts.ordered == Some(Order::beside(Some(1), Some(2)))));
    assert_eq!(fleet.rollout.phase, Phase::Preparing);
    assert_eq!(fleet.run_until_over(), [0, 5]);
    assert_eq!(fleet.orders_of("n4"), [(Some(1), Some(2)), (Some(2), Some(1)), (Some(2), None)]);
}

#[test]
fn blue_green_that_cannot_be_prepared_never_serves() {
    let does = |revision, node: &str| if revision == 2 && node == "n3" { Outcome::CannotStart } else { Outcome::Well };
    let mut fleet = Fleet::of(5, Strategy::new(StrategyKind::BlueGreen)).doing(does);
    assert_eq!(fleet.run_until_over(), [0]);
    assert_eq!((fleet.rollout.state, fleet.serving(1).len()), (RolloutState::RolledBack, 5));
}

#[test]
fn waves_come_one_after_the_other() {
    let waves = vec!["site=a".parse::<Selector>().expect("valid"), "site=b".parse().expect("valid")];
    let mut fleet = Fleet::of(6, Strategy { waves, ..rolling(2) });
    for (name, wave) in [("n0", 1), ("n1", 1), ("n2", 0), ("n3", 0), ("n4", 2), ("n5", 0)] {
        fleet.node(name).wave = wave;
    }
    fleet.run_until_over();
    let taken: Vec<_> = fleet.orders.iter().filter(|(_, order)| order.warm == Some(1)).map(|(node, _)| node.as_str()).collect();
    assert_eq!(taken, ["n2", "n3", "n5", "n0", "n1", "n4"]);
}

#[test]
fn what_is_bad_in_one_wave_does_not_hide_behind_the_others() {
    let does = |revision, node: &str| if revision == 2 && node > "n7" { Outcome::Errs } else { Outcome::Well };
    let mut fleet = Fleet::of(10, Strategy { waves: vec![Selector::default()], ..rolling(8) }).doing(does);
    fleet.node("n8").wave = 1;
    fleet.node("n9").wave = 1;
    fleet.run(5);
    // The first wave had many more invocations.
    fleet.facts.values_mut().filter(|facts| facts.wave == 0).for_each(|facts| facts.observed.sample.calls = 1_000_000);
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(2).len()), (RolloutState::RolledBack, 0));
}

#[test]
fn a_canary_waits_for_approval_before_the_rest() {
    let mut fleet = Fleet::of(4, Strategy { approve: true, ..canary() });
    fleet.run(100);
    assert_eq!((fleet.rollout.approval, fleet.serving(2).len()), (Approval::Awaited, 1));
    assert_eq!(fleet.rollout.reason, "it waits for approval");
    let now = fleet.clock();
    fleet.rollout.approve(now).expect("it waits");
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(2).len()), (RolloutState::Completed, 4));
}

#[test]
fn blue_green_keeps_the_former_revision_warm_until_it_is_approved_also_where_the_last_wave_is_empty() {
    let mut fleet = Fleet::of(3, Strategy { approve: true, waves: vec![Selector::default()], ..Strategy::new(StrategyKind::BlueGreen) });
    fleet.run(100);
    assert_eq!((fleet.rollout.approval, fleet.rollout.state), (Approval::Awaited, RolloutState::InProgress));
    assert!(fleet.facts.values().all(|facts| facts.ordered == Some(Order::beside(Some(2), Some(1)))));
    let now = fleet.clock();
    fleet.rollout.approve(now).expect("it waits");
    fleet.run_until_over();
    assert_eq!(fleet.orders_of("n0")[2..], [(Some(2), None)]);
}

#[test]
fn a_paused_rollout_goes_no_further_until_it_is_resumed_and_is_still_judged() {
    let mut fleet = Fleet::of(6, rolling(2));
    fleet.run(2);
    fleet.rollout.pause("somebody said so").expect("it is in progress");
    fleet.run(100);
    assert_eq!((fleet.serving(2).len(), fleet.rollout.reason.as_str()), (2, "somebody said so"));
    assert!(fleet.rollout.pause("again").is_err() && fleet.rollout.clone().approve(fleet.clock()).is_err());
    let now = fleet.clock();
    let mut other = Fleet { rollout: fleet.rollout.clone(), facts: fleet.facts.clone(), ..Fleet::of(0, rolling(2)) };
    other.now = fleet.now;
    other.does = errs;
    fleet.rollout.resume(now).expect("it is paused");
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(2).len()), (RolloutState::Completed, 6));
    other.run_until_over();
    assert_eq!((other.rollout.state, other.serving(1).len()), (RolloutState::RolledBack, 6));
}

#[test]
fn an_aborted_rollout_goes_back_and_takes_no_other_word() {
    let mut fleet = Fleet::of(6, rolling(3));
    fleet.run(2);
    let now = fleet.clock();
    fleet.rollout.abort("superseded", now).expect("it is in progress");
    let mut rollout = fleet.rollout.clone();
    assert!(rollout.abort("again", now).is_err() && rollout.pause("no").is_err() && rollout.resume(now).is_err());
    assert!(rollout.pause("no").expect_err("refused").to_string().contains("is going back"));
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.rollout.reason.as_str()), (RolloutState::RolledBack, "superseded"));
    assert_eq!((fleet.serving(1).len(), fleet.rollout.goal()), (6, Some(1)));
    assert_eq!(fleet.orders_of("n5"), []);
}

#[test]
fn a_rollout_that_is_paused_keeps_saying_why_when_it_is_approved() {
    let mut fleet = Fleet::of(4, Strategy { approve: true, ..canary() });
    fleet.run(20);
    fleet.rollout.pause("it is friday").expect("it is in progress");
    let now = fleet.clock();
    fleet.rollout.approve(now).expect("it waits");
    fleet.run(20);
    assert_eq!((fleet.rollout.state, fleet.rollout.reason.as_str()), (RolloutState::Paused, "it is friday"));
}

#[test]
fn nodes_that_are_away_do_not_block_and_get_only_the_newest_later() {
    let mut fleet = Fleet::of(4, rolling(1));
    fleet.node("n1").is_reachable = false;
    fleet.node("n1").ordered = Some(Order::only(Some(0)));
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(2)), (RolloutState::Completed, vec!["n0", "n2", "n3"]));
    fleet.node("n1").is_reachable = true;
    fleet.run(10);
    assert_eq!(fleet.orders_of("n1"), [(Some(2), Some(0)), (Some(2), None)]);
}

#[test]
fn a_node_that_comes_late_is_judged_by_itself_and_keeps_what_it_had() {
    let mut fleet = Fleet::of(4, rolling(1)).doing(|revision, node| match (revision, node) {
        (2, "n1") => Outcome::Errs,
        (2, "n2") => Outcome::CannotStart,
        _ => Outcome::Well,
    });
    fleet.node("n1").is_reachable = false;
    fleet.node("n2").is_reachable = false;
    fleet.run_until_over();
    fleet.node("n1").is_reachable = true;
    fleet.node("n2").is_reachable = true;
    fleet.run(60);
    assert_eq!(
        (fleet.orders_of("n1"), fleet.orders_of("n2")),
        (vec![(Some(2), Some(1)), (Some(1), None)], vec![(Some(2), Some(1)), (Some(1), None)])
    );
    assert_eq!(fleet.rollout.state, RolloutState::Completed);
    assert!(fleet.rollout.refused[&id("n1")].contains("failed") && fleet.rollout.refused[&id("n2")] == "no memory");
}

#[test]
fn nodes_that_come_late_do_not_come_all_at_once_and_silent_ones_do_not_keep_them() {
    let mut fleet = Fleet::of(6, rolling(1));
    (1..6).for_each(|n| fleet.node(&format!("n{n}")).is_reachable = false);
    fleet.run_until_over();
    (1..6).for_each(|n| fleet.node(&format!("n{n}")).is_reachable = true);
    fleet.run(1);
    assert_eq!(fleet.serving(2), ["n0", "n1"]);
    fleet.node("n1").is_reachable = false;
    fleet.run(1);
    assert_eq!(fleet.serving(2), ["n0", "n1", "n2"]);
}

#[test]
fn a_node_that_holds_is_left_alone_until_it_does_not() {
    let mut fleet = Fleet::of(3, rolling(1));
    fleet.node("n0").holds = true;
    fleet.run_until_over();
    assert_eq!((fleet.serving(2), fleet.orders_of("n0")), (vec!["n1", "n2"], vec![]));
    fleet.node("n0").holds = false;
    fleet.run(10);
    assert_eq!(fleet.serving(2), ["n0", "n1", "n2"]);
}

#[test]
fn nobody_there_means_pending_and_it_begins_when_somebody_is() {
    let mut fleet = Fleet::of(2, Strategy { waves: vec![Selector::default()], ..rolling(1) });
    fleet.facts.values_mut().for_each(|facts| facts.is_reachable = false);
    fleet.run(2000);
    assert_eq!((fleet.rollout.state, fleet.rollout.reason.as_str()), (RolloutState::Pending, "no node of its target can be reached"));
    fleet.node("n1").is_reachable = true;
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(2)), (RolloutState::Completed, vec!["n1"]));
}

#[test]
fn a_wave_whose_nodes_are_all_away_waits_for_no_invocations() {
    let gate = Gate { min_samples: Some(20), ..Gate::default() };
    let mut fleet = Fleet::of(3, Strategy { waves: vec![Selector::default()], gate, ..rolling(1) });
    fleet.node("n0").is_reachable = false;
    fleet.node("n1").wave = 1;
    fleet.node("n2").wave = 1;
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(2)), (RolloutState::Completed, vec!["n1", "n2"]));
}

#[test]
fn the_first_deployment_comes_in_batches_too_and_one_that_fails_leaves_nothing() {
    let mut fleet = Fleet::without_former(4, rolling(2));
    assert_eq!(fleet.run_until_over(), [0, 2, 4]);
    let mut fleet = Fleet::without_former(4, rolling(2)).doing(|_, _| Outcome::Errs);
    assert_eq!(fleet.run_until_over(), [0, 2, 0]);
    assert_eq!((fleet.rollout.state, fleet.rollout.goal()), (RolloutState::Failed, None));
    assert!(fleet.facts.values().all(|facts| facts.ordered.is_none()));
}

#[test]
fn a_first_revision_that_is_superseded_serves_on_until_the_next_takes_its_place() {
    let mut fleet = Fleet::without_former(4, rolling(2));
    fleet.run(3);
    fleet.is_superseded = true;
    fleet.decide();
    assert_eq!(
        (fleet.rollout.state, fleet.rollout.goal(), fleet.rollout.reason.as_str()),
        (RolloutState::Failed, None, "superseded by a newer generation")
    );
    assert_eq!(fleet.serving(2), ["n0", "n1"]);
    // The next one may fail, too.
    let next = Rollout::new(fleet.rollout.function.clone(), 8, fleet.rollout.goal(), 3, fleet.clock());
    let mut other = Fleet { rollout: next.clone(), facts: fleet.facts.clone(), ..Fleet::of(0, rolling(3)) };
    other.now = fleet.now;
    other.does = |revision, _| if revision == 3 { Outcome::Errs } else { Outcome::Well };
    other.run(60);
    assert_eq!((other.rollout.state, other.serving(2), other.serving(3).len()), (RolloutState::Failed, vec!["n0", "n1"], 0));
    (fleet.rollout, fleet.is_superseded) = (next, false);
    fleet.orders.clear();
    fleet.run(60);
    assert_eq!((fleet.rollout.state, fleet.serving(3).len()), (RolloutState::Completed, 4));
    assert_eq!((fleet.orders_of("n0"), fleet.orders_of("n3")), (vec![(Some(3), Some(2)), (Some(3), None)], vec![(Some(3), None)]));
}

#[test]
fn a_first_revision_that_does_badly_is_taken_away_also_when_it_is_superseded() {
    let mut fleet = Fleet::without_former(4, rolling(2)).doing(|_, _| Outcome::Errs);
    fleet.run(1);
    fleet.pass();
    fleet.is_superseded = true;
    fleet.run(10);
    assert_eq!((fleet.rollout.state, fleet.serving(2).len()), (RolloutState::Failed, 0));
}

#[test]
fn a_node_is_confirmed_when_the_rollout_has_completed_and_not_before() {
    let mut fleet = Fleet::without_former(4, rolling(2));
    fleet.run(8);
    assert_eq!((fleet.rollout.state, fleet.serving(2).len()), (RolloutState::InProgress, 4));
    assert!(fleet.facts.values().all(|facts| facts.ordered == Some(Order::only(Some(2)))), "{:?}", fleet.facts);
    fleet.run_until_over();
    assert!(fleet.facts.values().all(|facts| facts.ordered == Some(Order::confirmed(2))), "{:?}", fleet.facts);
    fleet.orders.clear();
    fleet.run(10);
    assert_eq!(fleet.orders, []);
}

#[test]
fn a_revision_that_cannot_start_goes_back_from_the_first_batch() {
    let mut fleet = Fleet::of(20, rolling(2)).doing(cannot_start);
    assert_eq!(fleet.run_until_over(), [0, 2, 0]);
    assert_eq!(fleet.rollout.state, RolloutState::RolledBack);
    assert_eq!(fleet.rollout.reason, "2 of 2 nodes cannot run revision 2 of function `f`; node `n0`: no memory");
}

#[test]
fn some_nodes_may_fail_but_never_all() {
    let one = |revision, node: &str| if revision == 2 && node == "n0" { Outcome::CannotStart } else { Outcome::Well };
    let lenient = |batch| Strategy { max_unavailable: Some(Amount::Count(2)), ..rolling(batch) };
    let mut fleet = Fleet::of(6, lenient(2)).doing(one);
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(2).len()), (RolloutState::Completed, 5));
    assert_eq!(fleet.rollout.refused[&id("n0")], "no memory");
    let mut fleet = Fleet::of(6, lenient(1)).doing(cannot_start);
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(1).len()), (RolloutState::RolledBack, 6));
}

#[test]
fn a_revision_that_errs_or_is_slow_goes_back_before_others_see_it() {
    let slow: Does = |revision, _| if revision == 2 { Outcome::Slow } else { Outcome::Well };
    for (does, word) in [(errs as Does, "invocations failed"), (slow, "95th percentile")] {
        let mut fleet = Fleet::of(10, canary()).doing(does);
        assert_eq!(fleet.run_until_over(), [0, 1, 0]);
        assert!(fleet.rollout.state == RolloutState::RolledBack && fleet.rollout.reason.contains(word), "{}", fleet.rollout.reason);
        assert_eq!(fleet.orders_of("n0"), [(Some(2), Some(1)), (Some(1), None)]);
    }
}

#[test]
fn with_too_few_invocations_it_waits_and_is_paused_in_the_end() {
    let gate = Gate { min_samples: Some(20), ..Gate::default() };
    let mut fleet = Fleet::of(4, Strategy { gate, progress_seconds: Some(60.0), ..canary() });
    fleet.calls_per_second = 0;
    fleet.run(30);
    assert_eq!((fleet.rollout.state, fleet.serving(2).len()), (RolloutState::InProgress, 1));
    fleet.run(60);
    assert_eq!(fleet.rollout.state, RolloutState::Paused);
    assert_eq!(fleet.rollout.reason, "paused, as it did not get on for 60 s: there were 0 invocations, and 20 are needed to judge");
    fleet.calls_per_second = 20;
    let now = fleet.clock();
    fleet.rollout.resume(now).expect("it is paused");
    fleet.run_until_over();
    assert_eq!(fleet.rollout.state, RolloutState::Completed);
}

#[test]
fn a_revision_of_which_nothing_succeeded_is_not_passed_for_want_of_invocations() {
    let mut fleet = Fleet::of(4, canary()).doing(errs);
    fleet.calls_per_second = 1;
    fleet.run(2);
    fleet.calls_per_second = 0;
    fleet.run(30);
    assert_eq!((fleet.serving(2).len(), fleet.rollout.reason.as_str()), (1, "all of 1 invocations failed, which are too few to judge"));
}

#[test]
fn nodes_that_get_nowhere_or_fall_silent_pause_it_with_their_names() {
    let stuck: Does = |revision, node| if revision == 2 && node == "n1" { Outcome::Stuck } else { Outcome::Well };
    let silent: Does = |revision, node| if revision == 2 && node == "n1" { Outcome::Silent } else { Outcome::Well };
    for (does, why) in [(stuck, "(`n1`) have not said that they serve it"), (silent, "(`n1`) have not been heard since they took it")] {
        let mut fleet = Fleet::of(6, rolling(2)).doing(does);
        fleet.run(700);
        assert_eq!((fleet.rollout.state, fleet.serving(2).len()), (RolloutState::Paused, 2));
        assert!(fleet.rollout.reason.contains("10 minutes") && fleet.rollout.reason.contains(why), "{}", fleet.rollout.reason);
    }
}

#[test]
fn an_order_that_cannot_be_written_pauses_it_and_is_no_progress() {
    let mut fleet = Fleet::of(3, rolling(1));
    for _ in 0..700 {
        let (orders, facts) = (fleet.orders.clone(), fleet.facts.clone());
        fleet.decide();
        (fleet.orders, fleet.facts) = (orders, facts);
        fleet.node("n0").order_failure = Some("the disk is full".to_owned());
        fleet.pass();
    }
    let why = "1 of the nodes could not be ordered to take it; node `n0`: the disk is full";
    assert_eq!(
        (fleet.rollout.state, fleet.rollout.reason),
        (RolloutState::Paused, format!("paused, as it did not get on for 10 minutes: {why}"))
    );
}

#[test]
fn within_what_may_be_unavailable_it_goes_on_without_a_node_that_gets_nowhere() {
    let does = |revision, node: &str| if revision == 2 && node == "n1" { Outcome::Stuck } else { Outcome::Well };
    let strategy = Strategy { max_unavailable: Some(Amount::Count(1)), progress_seconds: Some(20.0), ..rolling(3) };
    let mut fleet = Fleet::of(6, strategy).doing(does);
    fleet.run(10);
    assert_eq!(fleet.serving(2).len(), 3, "it waits first");
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(2).len()), (RolloutState::Completed, 6));
}

#[test]
fn what_is_taken_back_is_taken_back_everywhere_also_from_those_that_are_away_or_hold() {
    let mut fleet = Fleet::of(6, rolling(3));
    fleet.run(2);
    fleet.node("n0").is_reachable = false;
    fleet.node("n1").holds = true;
    let now = fleet.clock();
    fleet.rollout.abort("no", now).expect("it is in progress");
    fleet.run_until_over();
    assert_eq!((fleet.rollout.state, fleet.serving(1).len()), (RolloutState::RolledBack, 6));
}

#[test]
fn a_rollout_has_gone_back_without_nodes_that_hold() {
    let mut fleet = Fleet::of(4, rolling(2));
    fleet.run(2);
    fleet.does = |_, node| if node == "n0" { Outcome::Stuck } else { Outcome::Well };
    fleet.node("n0").holds = true;
    let now = fleet.clock();
    fleet.rollout.abort("no", now).expect("it is in progress");
    fleet.run(3);
    assert_eq!((fleet.rollout.state, fleet.rollout.reason.as_str()), (RolloutState::RolledBack, "no"));
    assert_eq!(fleet.serving(1).len(), 4);
}

#[test]
fn a_former_revision_that_does_not_come_back_makes_it_fail() {
    let mut fleet = Fleet::of(4, rolling(2));
    fleet.run(2);
    fleet.does = |revision, node| if revision == 1 && node == "n0" { Outcome::CannotStart } else { Outcome::Well };
    let now = fleet.clock();
    fleet.rollout.abort("no", now).expect("it is in progress");
    fleet.run_until_over();
    assert_eq!(fleet.rollout.state, RolloutState::Failed);
    assert_eq!(fleet.rollout.reason, "no; some nodes do not serve the former revision again");
    assert_eq!(fleet.rollout.goal(), Some(1));
}

#[test]
fn a_counted_function_comes_to_its_new_node_before_it_leaves_the_old() {
    let mut fleet = Fleet::of(3, rolling(1));
    fleet.wanted = Some(2);
    fleet.run_until_over();
    *fleet.node("n2") = NodeFacts { in_target: false, is_reachable: true, ..NodeFacts::default() };
    fleet.orders.clear();
    fleet.node("n0").in_target = false;
    fleet.node("n2").in_target = true;
    fleet.run(10);
    let new = fleet.orders.iter().filter(|(_, order)| !order.is_confirmed);
    let orders: Vec<_> = new.map(|(node, order)| (node.as_str(), order.serve)).collect();
    assert_eq!(orders, [("n2", Some(2)), ("n0", None)]);
}

#[test]
fn a_function_leaves_nodes_that_are_not_counted_at_once() {
    let mut fleet = Fleet::of(3, rolling(1));
    fleet.node("n2").in_target = false;
    fleet.node("n2").is_reachable = false;
    fleet.decide();
    assert_eq!(fleet.orders_of("n2"), [(None, None)]);
}

#[test]
fn a_node_that_comes_to_the_target_serves_the_former_revision_until_its_turn_also_while_it_is_paused() {
    let mut fleet = Fleet::of(4, Strategy { approve: true, ..canary() });
    fleet.run(20);
    fleet.facts.insert(id("n9"), NodeFacts { in_target: true, is_reachable: true, ..NodeFacts::default() });
    fleet.run(1);
    assert_eq!(fleet.orders_of("n9"), [(Some(1), None)]);
    fleet.rollout.pause("no").expect("it is in progress");
    fleet.facts.insert(id("n8"), NodeFacts { in_target: true, is_reachable: true, ..NodeFacts::default() });
    fleet.run(1);
    assert_eq!(fleet.orders_of("n8"), [(Some(1), None)]);
}

#[test]
fn a_revision_that_only_comes_to_more_nodes_stays_where_it_was_when_it_is_called_off() {
    let mut fleet = Fleet::of(4, rolling(1));
    (fleet.rollout.from, fleet.rollout.to) = (Some(1), 1);
    *fleet.node("n2") = NodeFacts { in_target: true, is_reachable: true, ..NodeFacts::default() };
    *fleet.node("n3") = NodeFacts { in_target: true, is_reachable: true, ..NodeFacts::default() };
    fleet.run(7);
    let now = fleet.clock();
    fleet.rollout.abort("no", now).expect("it is in progress");
    fleet.run(100);
    assert_eq!((fleet.rollout.state, fleet.rollout.goal()), (RolloutState::RolledBack, Some(1)));
    assert_eq!(fleet.serving(1), ["n0", "n1", "n2"]);
}

#[test]
fn a_rollout_is_read_as_it_was_written() {
    let mut fleet = Fleet::of(4, Strategy { approve: true, ..canary() });
    fleet.run(20);
    fleet.rollout.refused.insert(id("n3"), "no memory".to_owned());
    let text = serde_json::to_string(&fleet.rollout).expect("JSON");
    assert_eq!(serde_json::from_str::<Rollout>(&text).expect("valid"), fleet.rollout);
    assert_eq!(fleet.rollout.id(), "f:7");
}

#[test]
fn a_rollout_that_cannot_be_taken_back_ends_and_goes_on_trying() {
    let mut fleet = Fleet::of(4, rolling(2));
    fleet.run(2);
    let now = fleet.clock();
    fleet.rollout.abort("no", now).expect("it is in progress");
    let decide = |fleet: &Fleet| {
        decide(&fleet.rollout, Scope { strategy: &fleet.strategy, wanted: None, is_superseded: false }, &fleet.facts, fleet.clock())
    };
    let first = decide(&fleet);
    fleet.now += 601;
    let last = decide(&fleet);
    assert_eq!((first.rollout.state, last.rollout.state), (RolloutState::InProgress, RolloutState::Failed));
    assert_eq!(first.orders.keys().collect::<Vec<_>>(), [&id("n0"), &id("n1")]);
    assert_eq!(first.orders, last.orders);
}
