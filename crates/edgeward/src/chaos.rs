//! Chaos engineering in the running product: what injects faults on a node, and what runs experiments on a hub.
//!
//! Nothing of it happens unless the owner of the node and that of the hub both allow it. Every fault ends by itself on the node that injects it, by
//! that node's own clock, whether anybody is there to end it or not.

pub(crate) mod experiments;
mod kept;
pub(crate) mod left_behind;
mod load;
pub(crate) mod node;
mod observe;
mod orders;
pub(crate) mod question;
mod running;
pub(crate) mod tie;

pub use edgeward_cluster::chaos::{FaultLine, Injected, Judged, Point, Report, Verdict};
pub use edgeward_model::chaos::{Experiment, Fault, FaultKind, Load, Scenario};

pub use self::{
    experiments::{ClusterChaos, ExperimentView, Phase},
    node::{Crash, NodeChaos},
};
