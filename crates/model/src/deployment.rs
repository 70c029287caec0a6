//! What should run where in a fleet, and how a new revision gets there: targets, strategies and gates.
//!
//! Every part has one form as text, which the command line, `edgeward.toml`, the API and documents share.

mod amount;
mod strategy;
mod target;

pub use self::{
    amount::Amount,
    strategy::{Gate, Probe, Strategy, StrategyKind},
    target::{Selector, Target},
};
