//! The hub of the simulation: what it keeps (the rollout, the deployments, the orders) and what it only remembers (what nodes report). It does
//! what the hub of a fleet does around the decisions, and can end at any moment in between.

use std::collections::BTreeMap;

use edgeward_model::{FunctionId, NodeId, Strategy};
use jiff::Timestamp;

use super::node::{Node, Report};
use crate::rollout::{NodeFacts, Observed, Order, Rollout, Scope};

/// Seconds without a report after which a node counts as silent.
const SILENT_AFTER: u64 = 5;

/// What should run where, as somebody said.
pub(super) struct Deployment {
    pub(super) revision: u64,
    pub(super) strategy: Strategy,
    /// The nodes of its target now.
    pub(super) target: Vec<bool>,
    /// How many there are to be, if that is what was said.
    pub(super) wanted: Option<usize>,
}

#[derive(Clone)]
struct Heard {
    report: Report,
    at: u64,
}

/// A hub, with what its disk has.
pub(super) struct Hub {
    pub(super) deployments: Vec<Deployment>,
    pub(super) rollout: Option<Rollout>,
    /// The orders of nodes, with their numbers.
    pub(super) orders: Vec<(u64, Order)>,
    /// Until when there is none.
    pub(super) down_until: u64,
    /// How many seconds its clock is ahead.
    pub(super) ahead: u64,
    heard: Vec<Option<Heard>>,
}

impl Hub {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            deployments: Vec::new(),
            rollout: None,
            orders: vec![(0, Order::default()); nodes],
            down_until: 0,
            ahead: 0,
            heard: vec![None; nodes],
        }
    }

    /// Another process takes over: what was only remembered is gone.
    pub(super) fn forget(&mut self) {
        self.heard.fill(None);
    }

    pub(super) fn clock(&self, now: u64) -> Timestamp {
        Timestamp::from_second(i64::try_from(1_700_000_000 + now + self.ahead).expect("a time")).expect("a time")
    }

    /// The deployment that the rollout is of.
    pub(super) fn current(&self) -> Option<&Deployment> {
        let rollout = self.rollout.as_ref()?;
        self.deployments.get(usize::try_from(rollout.generation).expect("few") - 1)
    }

    pub(super) fn scope(&self) -> Option<Scope<'_>> {
        let is_superseded = self.rollout.as_ref().is_some_and(|rollout| rollout.generation < self.deployments.len() as u64);
        self.current().map(|deployment| Scope { strategy: &deployment.strategy, wanted: deployment.wanted, is_superseded })
    }

    pub(super) fn hear(&mut self, report: Report, now: u64) {
        let heard = &mut self.heard[report.node];
        if heard.as_ref().is_some_and(|heard| heard.report.number >= report.number) {
            return;
        }
        *heard = Some(Heard { report, at: now });
    }

    /// Begins the rollout of the newest deployment once the one before is over.
    pub(super) fn renew(&mut self, now: u64) {
        let newest = self.deployments.len() as u64;
        let clock = self.clock(now);
        match &mut self.rollout {
            Some(rollout) if rollout.generation == newest || !rollout.state.is_over() => {}
            rollout => {
                let from = rollout.as_ref().and_then(Rollout::goal);
                let to = self.deployments[self.deployments.len() - 1].revision;
                *rollout = Some(Rollout::new(FunctionId::new("f").expect("valid"), newest, from, to, clock));
            }
        }
    }

    /// What it knows of the nodes.
    pub(super) fn facts(&self, nodes: &[Node], now: u64) -> BTreeMap<NodeId, NodeFacts> {
        let target = self.current().map_or_else(|| vec![false; nodes.len()], |deployment| deployment.target.clone());
        let facts = |node: &Node| {
            let (number, order) = self.orders[node.index];
            let heard = &self.heard[node.index];
            let is_reachable = heard.as_ref().is_some_and(|heard| now - heard.at <= SILENT_AFTER);
            let observed = heard.as_ref().filter(|heard| heard.report.order == number).map(|Heard { report, .. }| Observed {
                served: report.served,
                message: "it says so".to_owned(),
                warm: report.warm,
                sample: report.sample,
                before: report.before,
                has_baked: report.has_baked,
            });
            NodeFacts {
                in_target: target[node.index],
                wave: node.wave,
                is_reachable,
                holds: heard.as_ref().is_some_and(|heard| heard.report.holds),
                ordered: (order != Order::default()).then_some(order),
                order_failure: None,
                observed: observed.unwrap_or_default(),
            }
        };
        nodes.iter().map(facts).zip(nodes).map(|(facts, node)| (node.id.clone(), facts)).collect()
    }

    /// Gives an order.
    pub(super) fn order(&mut self, node: usize, order: Order) {
        let (number, kept) = &mut self.orders[node];
        (*number, *kept) = (*number + 1, order);
    }
}
