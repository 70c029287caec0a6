//! Chaos engineering: which faults are injected where, what a node's seams ask of them, and what an experiment comes to. Pure: what was seen and
//! the time go in, what to inject, whether to abort, and the verdict come out. What is not pure is small: [`Injector`] holds the faults of one
//! node with its clock, and [`FaultyLink`] has them happen to messages.

mod active;
mod blast;
mod chart;
mod injector;
mod judging;
mod latencies;
mod link;
mod observation;
mod report;
#[cfg(test)]
mod tests;
mod trial;

pub use self::{
    active::{ActiveFaults, CallFault, MessageFault, Peer},
    blast::{choose, resolve},
    injector::{Injected, Injector},
    judging::Judged,
    latencies::Latencies,
    link::FaultyLink,
    observation::{Calls, CallsByDue, Observation},
    report::{FaultLine, Point, Report, Verdict},
    trial::{Next, Trial},
};
