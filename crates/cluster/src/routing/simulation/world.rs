//! Callers, a router and nodes in a time of their own, and what must hold at every moment.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

use edgeward_model::{EdgeNode, FunctionId, NodeId};

use super::{
    super::{CallFailure, Candidate, Leave, Next, Picked, RetryPlan, RouteSpec, RouteView, Router, Terms, random::Random},
    node::{Arrival, Fault, Job, Node, exponential},
    scenario::{Outcome, Scenario},
};
use crate::error::BackboneError;

/// One way between a caller and a node.
const WAY: Duration = Duration::from_micros(500);
/// So long after it began a call that may leave its node does so, when that has been silent since.
const SILENCE: Duration = Duration::from_millis(125);
/// One in so many calls is given up by who called.
const CANCELLED_ONE_IN: u64 = 200;

#[derive(Clone, Copy, Debug)]
enum Event {
    Calls(usize),
    Tries(usize, u64),
    Arrives(usize, Job),
    Done(usize, Job),
    Answers(Job),
    TimesOut(Job),
    Leaves(usize, Job),
    Cancels(usize, u64),
    FaultBegins,
    FaultEnds,
    LastFifth,
}

#[derive(Default)]
struct Caller {
    call: u64,
    begun: Duration,
    plan: Option<RetryPlan>,
    attempt: u64,
    picked: Option<(Picked, usize)>,
    /// What the attempt was given.
    time: Duration,
    leave: Option<Leave>,
    answer: Option<Result<(), BackboneError>>,
    runs: u32,
}

pub(super) struct World {
    scenario: Scenario,
    router: Router,
    function: FunctionId,
    epoch: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    pending: BTreeMap<u64, Event>,
    numbers: u64,
    nodes: Vec<Node>,
    ids: Vec<NodeId>,
    callers: Vec<Caller>,
    random: Random,
    outcome: Outcome,
    before: Vec<u64>,
}

type Checked = Result<(), String>;

impl World {
    pub(super) fn new(scenario: Scenario, seed: u64) -> Self {
        let epoch = Instant::now();
        let router = Router::new(None, epoch);
        let function = FunctionId::new("f").expect("valid");
        let nodes: Vec<_> = (0..scenario.nodes).map(|n| EdgeNode::new(format!("n{n}"), "node").expect("valid")).collect();
        let candidates = nodes.iter().map(|node| Candidate::far(node, false)).collect();
        let spec = RouteSpec { resilience: scenario.resilience.clone(), timeout: scenario.deadline, candidates };
        router.set(function.clone(), spec).expect("valid");
        let outcome = Outcome { in_fault: vec![0; scenario.nodes], at_end: vec![0; scenario.nodes], ..Outcome::default() };
        let mut world = Self {
            router,
            function,
            epoch,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            pending: BTreeMap::new(),
            numbers: 0,
            nodes: nodes.iter().map(|_| Node::new()).collect(),
            ids: nodes.into_iter().map(|node| node.id).collect(),
            callers: (0..scenario.callers).map(|_| Caller::default()).collect(),
            random: Random::new(seed),
            outcome,
            before: vec![0; scenario.nodes],
            scenario,
        };
        let Scenario { from, until, end, pause, .. } = world.scenario;
        for caller in 0..world.callers.len() {
            let first = exponential(pause, &mut world.random);
            world.later(first, Event::Calls(caller));
        }
        world.later(from, Event::FaultBegins);
        world.later(until, Event::FaultEnds);
        world.later(end * 4 / 5, Event::LastFifth);
        world
    }

    /// Runs to the end, and until the last call has ended.
    pub(super) fn run(mut self) -> Result<Outcome, String> {
        while let Some(Reverse((at, number))) = self.events.pop() {
            self.now = at;
            let event = self.pending.remove(&number).expect("each is there once");
            self.handle(event).map_err(|why| format!("at {at:?}: {why}"))?;
        }
        for (node, in_flight) in self.nodes.iter().map(|node| node.in_flight).enumerate() {
            assert_eq!(in_flight, 0, "the simulation has lost an attempt on node {node}");
        }
        let view = self.view();
        let leaked = view.in_flight + view.candidates.iter().map(|candidate| candidate.in_flight).sum::<u32>();
        if leaked > 0 {
            return Err(format!("{leaked} places were not given back"));
        }
        for (sum, (node, before)) in self.outcome.at_end.iter_mut().zip(self.nodes.iter().zip(&self.before)) {
            *sum = node.attempts - before;
        }
        self.outcome.micros.sort_unstable();
        self.outcome.view = Some(view);
        Ok(self.outcome)
    }

    fn handle(&mut self, event: Event) -> Checked {
        match event {
            Event::Calls(caller) => self.call(caller),
            Event::Tries(caller, call) if self.callers[caller].call == call => self.attempt(caller),
            Event::Arrives(node, job) => self.arrive(node, job),
            Event::Done(node, job) => {
                if let Some((next, time)) = self.nodes[node].done(&mut self.random) {
                    self.run_on(node, next, time)?;
                }
                if self.nodes[node].fault != Fault::Silent {
                    self.answer(job, WAY, Ok(()));
                }
                Ok(())
            }
            Event::Answers(job) if self.is_awaited(job) => {
                let result = self.callers[job.caller].answer.take().expect("it was put there");
                self.end_attempt(job.caller, result.map_err(|error| (CallFailure::from(&error), error.to_string())))
            }
            Event::TimesOut(job) if self.is_awaited(job) => {
                let error = BackboneError::Timeout("node".to_owned());
                self.end_attempt(job.caller, Err((CallFailure::from(&error), error.to_string())))
            }
            Event::Leaves(node, job) if self.is_awaited(job) && self.nodes[node].fault == Fault::Silent => {
                let has_retry = self.callers[job.caller].leave.as_ref().is_some_and(|leave| leave.take(self.instant()));
                if has_retry { self.end_attempt(job.caller, Err((CallFailure::left(), "it is silent".to_owned()))) } else { Ok(()) }
            }
            Event::Cancels(caller, call) if self.callers[caller].call == call => {
                self.let_go(caller);
                self.outcome.cancelled += 1;
                self.outcome.calls -= 1;
                self.pause(caller);
                Ok(())
            }
            Event::FaultBegins => {
                self.set_fault(self.scenario.fault);
                Ok(())
            }
            Event::FaultEnds => {
                self.set_fault(Fault::None);
                Ok(())
            }
            Event::LastFifth => {
                self.before = self.nodes.iter().map(|node| node.attempts).collect();
                Ok(())
            }
            Event::Tries(..) | Event::Answers(_) | Event::TimesOut(_) | Event::Leaves(..) | Event::Cancels(..) => Ok(()),
        }
    }

    fn set_fault(&mut self, fault: Fault) {
        for (count, node) in self.outcome.in_fault.iter_mut().zip(&self.nodes) {
            *count = node.attempts - *count;
        }
        self.nodes[..self.scenario.faulty].iter_mut().for_each(|node| node.fault = fault);
    }

    fn call(&mut self, caller: usize) -> Checked {
        if self.now >= self.scenario.end {
            return Ok(());
        }
        self.numbers += 1;
        let plan = self.router.plan(&self.function, Terms::default(), self.instant()).map_err(|error| error.to_string())?;
        let call = self.numbers;
        self.callers[caller] = Caller { call, begun: self.now, plan: Some(plan), ..Caller::default() };
        self.outcome.calls += 1;
        if self.random.below(CANCELLED_ONE_IN) == 0 {
            let time = exponential(Duration::from_millis(4), &mut self.random);
            self.later(time, Event::Cancels(caller, call));
        }
        self.attempt(caller)
    }

    fn attempt(&mut self, caller: usize) -> Checked {
        let (now, random) = (self.instant(), self.random.next());
        let tried = self.plan(caller).tried().to_vec();
        let others = if tried.is_empty() { 0 } else { self.may_take(&tried) };
        let picked = match self.router.pick(&self.function, &tried, now, random) {
            Ok(picked) => picked,
            Err(error) => {
                return self.finish(caller, Err(error.to_string().split(':').next().unwrap_or_default().to_owned()));
            }
        };
        if others > 0 && tried.contains(picked.node()) {
            return Err(format!("node {} is tried again, and {others} others were not tried", picked.node()));
        }
        let (time, leave) = (self.plan(caller).attempt_time(now), self.plan(caller).leave(picked.node(), now));
        let node = self.ids.iter().position(|id| id == picked.node()).expect("it is one of them");
        self.numbers += 1;
        let job = Job { caller, attempt: self.numbers };
        self.enter(node, picked.is_probe())?;
        let state = &mut self.callers[caller];
        let may_leave = leave.is_some();
        (state.attempt, state.picked, state.time, state.leave) = (job.attempt, Some((picked, node)), time, leave);
        self.outcome.attempts += 1;
        self.later(WAY, Event::Arrives(node, job));
        self.later(time, Event::TimesOut(job));
        if may_leave {
            self.later(SILENCE, Event::Leaves(node, job));
        }
        let budget = self.scenario.resilience.retry.budget();
        let free = 100.0 * (self.now.as_secs_f64() / 10.0 + 2.0);
        let most = (self.outcome.calls + self.outcome.cancelled) as f64 * (1.0 + budget) + free;
        if self.outcome.attempts as f64 > most { Err(format!("{} attempts, and {most} may be", self.outcome.attempts)) } else { Ok(()) }
    }

    /// How many nodes could take a call that were not tried.
    fn may_take(&self, tried: &[NodeId]) -> usize {
        self.view().candidates.iter().filter(|candidate| candidate.why_not.is_none() && !tried.contains(&candidate.node)).count()
    }

    fn enter(&mut self, node: usize, is_probe: bool) -> Checked {
        let (bulkhead, breaker) = (&self.scenario.resilience.bulkhead, &self.scenario.resilience.breaker);
        let node = &mut self.nodes[node];
        node.in_flight += 1;
        node.attempts += 1;
        node.probes += u32::from(is_probe);
        if node.in_flight > bulkhead.calls_per_node_max() {
            return Err(format!("{} calls are under way to one node", node.in_flight));
        }
        if is_probe && node.probes > breaker.probes() {
            return Err(format!("{} probes at once", node.probes));
        }
        let all = self.nodes.iter().map(|node| node.in_flight).sum::<u32>();
        if all > bulkhead.calls_max() { Err(format!("{all} calls are under way")) } else { Ok(()) }
    }

    fn arrive(&mut self, node: usize, job: Job) -> Checked {
        match self.nodes[node].arrive(job, self.now, &mut self.random) {
            Arrival::Waits => {}
            Arrival::Runs(time) => self.run_on(node, job, time)?,
            Arrival::Ends(time, result) => {
                if matches!(self.nodes[node].fault, Fault::Errs(_)) {
                    self.has_begun(job)?;
                }
                self.answer(job, time + WAY, result);
            }
        }
        Ok(())
    }

    fn run_on(&mut self, node: usize, job: Job, time: Duration) -> Checked {
        self.later(time, Event::Done(node, job));
        self.has_begun(job)
    }

    /// The function runs for a call.
    fn has_begun(&mut self, job: Job) -> Checked {
        let caller = &mut self.callers[job.caller];
        // Of a call that is over nobody knows any more what it was.
        caller.runs += u32::from(caller.attempt >= job.attempt && caller.call < job.attempt);
        if caller.runs > 1 && !self.scenario.resilience.idempotent {
            Err("a call that is not idempotent ran twice".to_owned())
        } else {
            Ok(())
        }
    }

    fn answer(&mut self, job: Job, time: Duration, result: Result<(), BackboneError>) {
        if self.is_awaited(job) {
            self.callers[job.caller].answer = Some(result);
            self.later(time, Event::Answers(job));
        }
    }

    fn is_awaited(&self, job: Job) -> bool {
        let caller = &self.callers[job.caller];
        caller.attempt == job.attempt && caller.picked.is_some()
    }

    fn end_attempt(&mut self, caller: usize, result: Result<(), (CallFailure, String)>) -> Checked {
        let now = self.instant();
        let (picked, node) = self.callers[caller].picked.take().expect("it waits for an answer");
        self.leave(node, picked.is_probe());
        let Err((failure, message)) = result else {
            picked.succeed(now);
            return self.finish(caller, Ok(()));
        };
        let (id, random) = (picked.node().clone(), self.random.next());
        let failure = self.plan(caller).judge(failure, self.callers[caller].time);
        picked.fail(failure, &message, now);
        let plan = self.callers[caller].plan.as_mut().expect("a call has one");
        match plan.next_attempt(&id, failure, now, random) {
            Next::GiveUp(why) => self.finish(caller, Err(format!("{}: {why}", failure.kind))),
            Next::After(pause) if pause >= plan.left(now) => Err("another attempt is to begin past the deadline".to_owned()),
            Next::After(pause) => {
                let call = self.callers[caller].call;
                self.later(pause, Event::Tries(caller, call));
                Ok(())
            }
        }
    }

    fn finish(&mut self, caller: usize, result: Result<(), String>) -> Checked {
        let time = self.now.saturating_sub(self.callers[caller].begun);
        if time > self.scenario.deadline {
            return Err(format!("a call took {time:?}"));
        }
        match result {
            Ok(()) => self.outcome.micros.push(u64::try_from(time.as_micros()).expect("it fits")),
            Err(why) => *self.outcome.failed.entry(why).or_default() += 1,
        }
        self.pause(caller);
        Ok(())
    }

    fn pause(&mut self, caller: usize) {
        self.callers[caller] = Caller::default();
        let pause = exponential(self.scenario.pause, &mut self.random);
        self.later(pause, Event::Calls(caller));
    }

    fn let_go(&mut self, caller: usize) {
        if let Some((picked, node)) = self.callers[caller].picked.take() {
            self.leave(node, picked.is_probe());
        }
    }

    fn leave(&mut self, node: usize, is_probe: bool) {
        self.nodes[node].in_flight -= 1;
        self.nodes[node].probes -= u32::from(is_probe);
    }

    fn plan(&self, caller: usize) -> &RetryPlan {
        self.callers[caller].plan.as_ref().expect("a call has one")
    }

    fn view(&self) -> RouteView {
        self.router.view(&self.function, self.instant()).expect("it is known")
    }

    fn instant(&self) -> Instant {
        self.epoch + self.now
    }

    fn later(&mut self, time: Duration, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((self.now + time, self.numbers)));
        self.pending.insert(self.numbers, event);
    }
}
