//! The circuit breaker of one node: closed while it does well, open while it gets no calls, half open while a few calls try it again.
//!
//! A call that began before the breaker changed says nothing to it afterwards.

use edgeward_model::Breaker;
use serde::{Deserialize, Serialize};

use super::{
    nanos,
    window::{Counts, Window},
};
use crate::planted::{self, Bug};

/// So many times the calls without which it does not judge are enough to judge by; older ones no longer tell.
const ENOUGH: u64 = 10;

/// How a breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go through.
    #[default]
    Closed,
    /// None does.
    Open,
    /// So many do as it takes to know more.
    HalfOpen,
}

impl BreakerState {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// By what a call was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticket {
    Call,
    /// It tries the node again, after so many openings.
    Probe(u64),
}

/// What a call says of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    Unknown,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: u64,
    },
    HalfOpen {
        running: u32,
        succeeded: u32,
    },
}

/// The breaker.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    state: State,
    window: Window,
    /// Failures since a call did well.
    in_a_row: u32,
    openings: u64,
    /// How often the time for which it opens was doubled.
    doublings: u32,
    closed_at: Option<u64>,
}

impl Circuit {
    /// The moment from which a call may come through; 0 while it is closed, and never 0 otherwise.
    pub(super) fn gate(&self, breaker: &Breaker) -> u64 {
        match self.state {
            State::Closed => 0,
            State::Open { until } => until.max(1),
            State::HalfOpen { running, succeeded } if has_room(breaker, running, succeeded) => 1,
            State::HalfOpen { .. } => u64::MAX,
        }
    }

    /// Lets a call through, if it may come.
    pub(super) fn admit(&mut self, breaker: &Breaker, now: u64) -> Option<Ticket> {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.state = State::HalfOpen { running: 0, succeeded: 0 };
        }
        match &mut self.state {
            State::Closed => Some(Ticket::Call),
            State::HalfOpen { running, succeeded } if has_room(breaker, *running, *succeeded) => {
                *running += 1;
                Some(Ticket::Probe(self.openings))
            }
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Whether a call that began then tells of the node as it is now: not one from before the breaker opened or closed.
    pub(super) fn counts(&self, ticket: Ticket, begun: u64) -> bool {
        match ticket {
            Ticket::Call => self.closed_at.is_none_or(|at| begun >= at),
            Ticket::Probe(opening) => opening == self.openings,
        }
    }

    /// Takes what a call says, if it counts.
    pub(super) fn record(&mut self, ticket: Ticket, verdict: Verdict, breaker: &Breaker, now: u64) {
        match (ticket, &mut self.state) {
            (Ticket::Call, State::Closed) if verdict != Verdict::Unknown => {
                let counts = Counts { calls: 1, marked: u64::from(verdict == Verdict::Bad) };
                self.window.add(counts, breaker.window(), now);
                self.in_a_row = if verdict == Verdict::Bad { self.in_a_row.saturating_add(1) } else { 0 };
                if verdict == Verdict::Bad && self.is_bad(breaker, now) {
                    let again = self.closed_at.is_some_and(|at| now.saturating_sub(at) < nanos(breaker.window()));
                    self.open(again, breaker, now);
                }
            }
            (Ticket::Probe(opening), State::HalfOpen { running, succeeded }) if opening == self.openings => {
                *running = running.saturating_sub(1);
                match verdict {
                    Verdict::Unknown => {}
                    Verdict::Good if planted::has(Bug::ProbesNotCounted) => {}
                    Verdict::Good => {
                        *succeeded += 1;
                        if *succeeded >= breaker.probes() {
                            self.state = State::Closed;
                            self.closed_at = Some(now);
                        }
                    }
                    Verdict::Bad => self.open(true, breaker, now),
                }
            }
            _ => {}
        }
    }

    /// How it stands. One whose time is over waits for its first probe.
    pub(super) fn state(&self, now: u64) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// How often it opened.
    pub(super) fn openings(&self) -> u64 {
        self.openings
    }

    /// Whether too many of the last calls failed, or so many one after the other that the many good ones before them tell nothing any more.
    fn is_bad(&mut self, breaker: &Breaker, now: u64) -> bool {
        let min_calls = u64::from(breaker.min_calls());
        let Counts { calls, marked } = self.window.newest(min_calls * ENOUGH, breaker.window(), now);
        let is_share = calls >= min_calls && marked as f64 >= breaker.failures() * calls as f64;
        (is_share || u64::from(self.in_a_row) >= min_calls) && !planted::has(Bug::BreakerNeverOpens)
    }

    fn open(&mut self, again: bool, breaker: &Breaker, now: u64) {
        self.doublings = if again && !planted::has(Bug::OpenTimeNotDoubled) { (self.doublings + 1).min(31) } else { 0 };
        let time = breaker.open().saturating_mul(1 << self.doublings).min(breaker.open_max());
        self.state = State::Open { until: now.saturating_add(nanos(time)) };
        self.openings += 1;
        self.in_a_row = 0;
        self.window.clear();
    }
}

/// Whether it may be tried once more. One that nobody tries may in any case: fewer probes may be enough than when it was tried.
fn has_room(breaker: &Breaker, running: u32, succeeded: u32) -> bool {
    running == 0 || running + succeeded < breaker.probes() || planted::has(Bug::ProbesNotBounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn breaker() -> Breaker {
        Breaker { min_calls: Some(4), probes: Some(2), open_seconds: Some(1.0), open_seconds_max: Some(5.0), ..Breaker::default() }
    }

    fn call(circuit: &mut Circuit, verdict: Verdict, now: u64) {
        let ticket = circuit.admit(&breaker(), now).expect("it is let through");
        circuit.record(ticket, verdict, &breaker(), now);
    }

    /// Lets it open at a moment.
    fn opened(now: u64) -> Circuit {
        let mut circuit = Circuit::default();
        (0..4).for_each(|_| call(&mut circuit, Verdict::Bad, now));
        circuit
    }

    #[test]
    fn it_opens_when_enough_calls_fail_and_not_before() {
        let mut circuit = Circuit::default();
        (0..3).for_each(|_| call(&mut circuit, Verdict::Bad, 0));
        assert_eq!(circuit.state(0), BreakerState::Closed, "three calls say too little");
        call(&mut circuit, Verdict::Bad, 0);
        assert_eq!((circuit.state(0), circuit.gate(&breaker())), (BreakerState::Open, SECOND));
        assert_eq!(circuit.admit(&breaker(), SECOND - 1), None);
        assert_eq!(circuit.openings(), 1);
    }

    #[test]
    fn failures_that_are_few_or_old_do_not_open_it() {
        let mut circuit = Circuit::default();
        for second in 0..100 {
            (0..3).for_each(|_| call(&mut circuit, Verdict::Good, second * SECOND));
            (0..2).for_each(|_| call(&mut circuit, Verdict::Bad, second * SECOND));
        }
        assert_eq!(circuit.state(100 * SECOND), BreakerState::Closed, "two of five fail");
        let mut circuit = Circuit::default();
        for nth in 0..20 {
            call(&mut circuit, if nth % 4 == 3 { Verdict::Good } else { Verdict::Bad }, nth * 4 * SECOND);
        }
        assert_eq!(circuit.state(80 * SECOND), BreakerState::Closed, "never four in ten seconds, nor one after the other");
    }

    #[test]
    fn a_node_that_dies_under_load_is_not_excused_by_the_calls_before() {
        for (good, bad, is_open) in [(10_000, 4, true), (10_000, 3, false)] {
            let mut circuit = Circuit::default();
            (0..good).for_each(|_| call(&mut circuit, Verdict::Good, 0));
            (0..bad).for_each(|_| call(&mut circuit, Verdict::Bad, SECOND));
            assert_eq!(circuit.state(SECOND) == BreakerState::Open, is_open, "{bad} in a row");
        }
        let mut circuit = Circuit::default();
        (0..10_000).for_each(|_| call(&mut circuit, Verdict::Good, 0));
        let verdicts = [Verdict::Bad, Verdict::Bad, Verdict::Good];
        verdicts.iter().cycle().take(39).for_each(|verdict| call(&mut circuit, *verdict, 5 * SECOND));
        assert_eq!(circuit.state(5 * SECOND), BreakerState::Closed, "39 calls of the last tenths say too little");
        call(&mut circuit, Verdict::Bad, 5 * SECOND);
        assert_eq!(circuit.state(5 * SECOND), BreakerState::Open, "two of three failed");
    }

    #[test]
    fn a_few_probes_close_it_and_one_that_fails_opens_it_for_twice_as_long() {
        let mut circuit = opened(0);
        let mut until = SECOND;
        for seconds in [2, 4, 5, 5] {
            assert_eq!(circuit.state(until), BreakerState::HalfOpen);
            call(&mut circuit, Verdict::Bad, until);
            assert_eq!((circuit.state(until), circuit.gate(&breaker())), (BreakerState::Open, until + seconds * SECOND));
            until += seconds * SECOND;
        }
        let probes: Vec<_> = (0..2).map(|_| circuit.admit(&breaker(), until).expect("a probe")).collect();
        assert_eq!((circuit.admit(&breaker(), until), circuit.gate(&breaker())), (None, u64::MAX), "two at once");
        for probe in probes {
            circuit.record(probe, Verdict::Good, &breaker(), until);
        }
        assert_eq!((circuit.state(until), circuit.gate(&breaker())), (BreakerState::Closed, 0));
    }

    #[test]
    fn one_for_which_fewer_probes_are_enough_now_is_tried_once_more_and_closes() {
        let mut circuit = opened(0);
        call(&mut circuit, Verdict::Good, SECOND);
        let fewer = Breaker { probes: Some(1), ..breaker() };
        assert_eq!(circuit.gate(&fewer), 1);
        let probe = circuit.admit(&fewer, SECOND).expect("a probe");
        assert_eq!(circuit.admit(&fewer, SECOND), None, "one at once");
        circuit.record(probe, Verdict::Unknown, &fewer, SECOND);
        assert_eq!(circuit.gate(&fewer), 1, "one that tells nothing does not stand in its way");
        let probe = circuit.admit(&fewer, SECOND).expect("a probe");
        circuit.record(probe, Verdict::Good, &fewer, SECOND);
        assert_eq!(circuit.state(SECOND), BreakerState::Closed);
    }

    #[test]
    fn one_that_opens_again_at_once_opens_for_longer_and_one_that_was_closed_for_long_does_not() {
        for (later, seconds) in [(1, 2), (20, 1)] {
            let mut circuit = opened(0);
            (0..2).for_each(|_| call(&mut circuit, Verdict::Good, SECOND));
            let again = SECOND + later * SECOND;
            (0..4).for_each(|_| call(&mut circuit, Verdict::Bad, again));
            assert_eq!(circuit.gate(&breaker()), again + seconds * SECOND, "{later}");
        }
    }

    #[test]
    fn a_call_that_began_before_says_nothing_and_a_probe_that_tells_nothing_gives_its_place_back() {
        let mut circuit = Circuit::default();
        let early = circuit.admit(&breaker(), 0).expect("closed");
        (0..4).for_each(|_| call(&mut circuit, Verdict::Bad, 0));
        circuit.record(early, Verdict::Good, &breaker(), 1);
        let probe = circuit.admit(&breaker(), SECOND).expect("its time is over");
        circuit.record(early, Verdict::Good, &breaker(), SECOND);
        circuit.record(early, Verdict::Bad, &breaker(), SECOND);
        assert_eq!(circuit.state(SECOND), BreakerState::HalfOpen);
        circuit.record(probe, Verdict::Unknown, &breaker(), SECOND);
        let probes: Vec<_> = (0..2).map(|_| circuit.admit(&breaker(), SECOND).expect("a place")).collect();
        circuit.record(probes[0], Verdict::Bad, &breaker(), SECOND);
        circuit.record(probes[1], Verdict::Good, &breaker(), SECOND);
        assert_eq!(circuit.state(2 * SECOND), BreakerState::Open, "a probe of the opening before");
    }
}
