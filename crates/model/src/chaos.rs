//! Chaos engineering: faults as data, and experiments that say what must hold while they are injected.
//!
//! A fault says what goes wrong, where, how often, for how long and on how many nodes at most. It ends by itself.

mod experiment;
mod fault;
mod hypothesis;
mod known;
mod scenario;
#[cfg(test)]
mod tests;

pub use self::{
    experiment::{Experiment, Load, PlannedFault},
    fault::{Fault, FaultKind, Side},
    hypothesis::{AbortCondition, Demanded, Expectation, Hypothesis},
    known::Known,
    scenario::Scenario,
};
