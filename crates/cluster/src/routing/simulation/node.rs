//! A node as the calls find it: so many places to run, a queue, and what is wrong with it for a while.

use std::{collections::VecDeque, time::Duration};

use edgeward_model::{EdgeError, ErrorKind};

use super::super::random::Random;
use crate::error::BackboneError;

/// Runs that it has room for.
const SLOTS: usize = 16;
/// Runs that may wait.
const QUEUE_MAX: usize = 200;

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Its process is gone: the network says so at once.
    Gone,
    /// Its process is gone in every second one of these seconds, and then there again.
    Flaps(u64),
    /// Its power is gone: nobody answers, and nobody says so.
    Silent,
    /// So many percent of its runs fail, quickly.
    Errs(u64),
    /// Its runs take so many times longer.
    Slow(u32),
}

/// An attempt on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) caller: usize,
    pub(super) attempt: u64,
}

/// What becomes of a job when it comes to a node.
pub(super) enum Arrival {
    /// It ends after so long, and then so.
    Ends(Duration, Result<(), BackboneError>),
    /// It runs for so long.
    Runs(Duration),
    /// It waits, or nobody will ever hear of it.
    Waits,
}

pub(super) struct Node {
    pub(super) fault: Fault,
    pub(super) busy: usize,
    waiting: VecDeque<Job>,
    /// Attempts that the router has under way here, as the simulation counts them.
    pub(super) in_flight: u32,
    pub(super) probes: u32,
    pub(super) attempts: u64,
}

impl Node {
    pub(super) fn new() -> Self {
        Self { fault: Fault::None, busy: 0, waiting: VecDeque::new(), in_flight: 0, probes: 0, attempts: 0 }
    }

    pub(super) fn arrive(&mut self, job: Job, now: Duration, random: &mut Random) -> Arrival {
        let is_gone = match self.fault {
            Fault::Gone => true,
            Fault::Flaps(seconds) => now.as_secs() / seconds % 2 == 1,
            _ => false,
        };
        match self.fault {
            _ if is_gone => Arrival::Ends(Duration::ZERO, Err(BackboneError::NoResponder("node".to_owned()))),
            Fault::Silent => Arrival::Waits,
            Fault::Errs(percent) if random.below(100) < percent => {
                let error = EdgeError::new(ErrorKind::ExecutionFailed, "it fails");
                Arrival::Ends(Duration::from_micros(300), Err(BackboneError::Answered(error)))
            }
            _ if self.busy < SLOTS => {
                self.busy += 1;
                Arrival::Runs(self.time(random))
            }
            _ if self.waiting.len() < QUEUE_MAX => {
                self.waiting.push_back(job);
                Arrival::Waits
            }
            _ => Arrival::Ends(Duration::ZERO, Err(BackboneError::Answered(EdgeError::new(ErrorKind::Overloaded, "it is full")))),
        }
    }

    /// A run has ended; the next one begins.
    pub(super) fn done(&mut self, random: &mut Random) -> Option<(Job, Duration)> {
        self.busy -= 1;
        let next = self.waiting.pop_front()?;
        self.busy += 1;
        Some((next, self.time(random)))
    }

    /// How long a run takes: 2 ms, and an exponential time of 3 ms.
    fn time(&self, random: &mut Random) -> Duration {
        let time = Duration::from_millis(2) + exponential(Duration::from_millis(3), random);
        if let Fault::Slow(factor) = self.fault { time * factor } else { time }
    }
}

/// A time that is this on average, however long one has waited.
pub(super) fn exponential(mean: Duration, random: &mut Random) -> Duration {
    let uniform = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
    mean.mul_f64(-(1.0 - uniform).ln())
}
