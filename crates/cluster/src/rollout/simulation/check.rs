//! What must hold of each decision, of each node at every moment, and when everything has come to rest. It is computed from what is true of
//! the nodes, and not through the decisions.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_model::{NodeId, Strategy, StrategyKind};

use super::{fault::Kind, node::Node, world::World};
use crate::rollout::{Approval, Decision, NodeFacts, Observed, Order, Phase, Rollout, RolloutState, Scope, Served, decide};

/// What is known of a rollout beside what it says of itself.
#[derive(Default)]
pub(super) struct Model {
    pub(super) generation: u64,
    /// Nodes that really served the revision for the bake time.
    proven: BTreeSet<usize>,
    pub(super) is_approved: bool,
}

/// A decision with all that it was made from.
pub(super) struct Decided<'a> {
    pub(super) world: &'a World,
    pub(super) before: &'a Rollout,
    pub(super) scope: Scope<'a>,
    pub(super) facts: &'a BTreeMap<NodeId, NodeFacts>,
    pub(super) decision: &'a Decision,
}

impl Model {
    /// Looks which nodes have proved the revision.
    pub(super) fn watch(&mut self, rollout: &Rollout, nodes: &[Node], now: u64) {
        if self.generation != rollout.generation {
            *self = Self { generation: rollout.generation, ..Self::default() };
        }
        self.proven.extend(nodes.iter().filter(|node| has_served(node, rollout.to, now)).map(|node| node.index));
    }
}

/// Whether a node really served a revision for as long as its order wants.
fn has_served(node: &Node, revision: u64, now: u64) -> bool {
    node.serves == Some(revision) && now - node.serves_since >= node.bake_seconds
}

/// How many nodes of a wave may have a revision that so many proved: the least sum of batches that is more.
fn allowed(strategy: &Strategy, proven: usize, total: usize) -> usize {
    let first = strategy.batch().at_least_one_of(total).max(1);
    match strategy.kind {
        StrategyKind::BlueGreen => total,
        StrategyKind::Canary if proven >= first => total,
        StrategyKind::Canary => first,
        StrategyKind::Rolling => {
            let (mut sum, mut batch) = (first, first);
            while sum <= proven {
                batch *= strategy.growth.unwrap_or(1) as usize;
                sum += batch;
            }
            sum.min(total.max(first))
        }
    }
}

impl Decided<'_> {
    /// What must hold of a decision.
    pub(super) fn check(&self) -> Result<(), String> {
        let next = &self.decision.rollout;
        self.is_repeatable()?;
        for (id, order) in &self.decision.orders {
            let (node, facts) = (self.node(id), &self.facts[id]);
            self.may_be_ordered(node, facts, *order).map_err(|why| {
                format!(
                    "{why}: {id} had {:?} and gets {order:?}; from {:?} to {} {:?} {:?}",
                    facts.ordered, next.from, next.to, next.state, next.phase
                )
            })?;
        }
        self.keeps_to_batches()?;
        self.keeps_to_waves()?;
        self.is_approved()?;
        self.keeps_the_count()?;
        self.is_judged_right()
    }

    fn node(&self, id: &NodeId) -> &Node {
        self.world.nodes.iter().find(|node| node.id == *id).expect("it is known")
    }

    fn kind(&self, revision: u64) -> Kind {
        self.world.kinds.of(revision)
    }

    fn strategy(&self) -> &Strategy {
        self.scope.strategy
    }

    /// The same facts again give nothing new.
    fn is_repeatable(&self) -> Result<(), String> {
        let now = self.world.hub.clock(self.world.now);
        let again = decide(&self.decision.rollout, self.scope, self.facts, now);
        let is_new = again.orders.iter().find(|(id, order)| self.decision.orders.get(*id) != Some(*order));
        match is_new {
            Some((id, order)) => Err(format!("deciding again gives {id} {order:?}, not {:?}", self.decision.orders.get(id))),
            None if again.rollout != self.decision.rollout => Err("deciding again changes the rollout".to_owned()),
            None => Ok(()),
        }
    }

    fn may_be_ordered(&self, node: &Node, facts: &NodeFacts, order: Order) -> Result<(), &'static str> {
        let Rollout { from, to, state, phase, .. } = &self.decision.rollout;
        let (from, to) = (*from, *to);
        let old = facts.ordered.unwrap_or_default();
        let is_back = *phase == Phase::Restoring;
        let is_over = state.is_over();
        let can_take = facts.is_reachable && !facts.holds && facts.in_target;
        let had = |revision: Option<u64>| revision.is_some() && (revision == old.serve || revision == old.warm);
        if order == Order::default() {
            let is_failed_first = is_back && from.is_none() && old.serve == Some(to);
            return if !facts.in_target || is_failed_first { Ok(()) } else { Err("what served is taken away") };
        }
        if order.serve.is_none() || order.serve == order.warm {
            return Err("an order makes no sense");
        }
        if order.is_confirmed
            && (!is_over || order.warm.is_some() || !order.serve.is_some_and(|serve| has_served(node, serve, self.world.now)))
        {
            return Err("it is confirmed before its time");
        }
        let is_taken_back = is_back && old.serve == Some(to) && order.serve == if old.warm.is_some() { old.warm } else { from };
        if !had(order.serve) && !is_taken_back {
            if !can_take {
                return Err("one that cannot take anything is ordered something new");
            }
            let is_its_turn = order.serve == Some(to) && !is_back && matches!(state, RolloutState::InProgress | RolloutState::Completed);
            let is_bridged = order.serve == from && old.serve.is_none() && !is_over;
            let is_late = order.serve == from && is_back && is_over;
            if !is_its_turn && !is_bridged && !is_late {
                return Err("it is ordered a revision that is not for it");
            }
        }
        if order.serve == Some(to) && old.serve != Some(to) && (is_back || !can_take) && from != Some(to) {
            return Err("it is ordered the revision that goes back, or cannot take it");
        }
        if order.warm.is_some() && !had(order.warm) && (order.warm != Some(to) || *phase != Phase::Preparing || !can_take) {
            return Err("it is ordered to prepare a revision that is not for it");
        }
        if order.serve == old.serve
            && old.warm.is_some_and(|warm| warm != to || !is_back)
            && order.warm.is_none()
            && !order.serve.is_some_and(|serve| has_served(node, serve, self.world.now))
        {
            return Err("the former revision goes before the bake time is over");
        }
        let (now, before) = (facts.observed.sample, facts.observed.before);
        let is_bad = now.calls >= 20 && now.errors * 2 > now.calls && before.errors * 5 < before.calls;
        if is_over && order.serve == old.serve && old.warm.is_some() && order.warm.is_none() && is_bad {
            return Err("a node is confirmed on which most invocations fail");
        }
        if order.serve != old.serve && !had(order.serve) && old.serve.is_some() && !is_taken_back && !had(order.warm) {
            return Err("what served is not kept");
        }
        // A node that has not got to its order goes back to what it has.
        if node.serves.is_some() && node.serves == old.warm && !had(Some(to)) && [order.serve, order.warm].contains(&Some(to)) {
            let kept = if order.serve == Some(to) { order.warm } else { order.serve };
            if kept != node.serves {
                return Err("what it serves is not what it goes back to");
            }
        }
        Ok(())
    }

    /// Nodes of the target, with what they will have been ordered.
    fn target(&self) -> impl Iterator<Item = (&Node, &NodeFacts, Option<u64>)> {
        self.facts.iter().filter(|(_, facts)| facts.in_target).map(|(id, facts)| {
            let ordered = self.decision.orders.get(id).map_or(facts.serves(), |order| order.serve);
            (self.node(id), facts, ordered)
        })
    }

    fn keeps_to_batches(&self) -> Result<(), String> {
        let next = &self.decision.rollout;
        let strategy = self.strategy();
        let lacking = |total: usize| strategy.max_unavailable().at_most_of(total);
        let is_taken_back = |facts: &NodeFacts| next.phase == Phase::Restoring && facts.serves() == Some(next.to);
        let is_given = |revision: u64, wave: &dyn Fn(usize) -> bool| {
            let is_new = |facts: &NodeFacts, ordered| ordered == Some(revision) && facts.serves() != ordered && !is_taken_back(facts);
            self.target().any(|(node, facts, ordered)| wave(node.wave) && is_new(facts, ordered))
        };
        let unproven = |revision: u64, wave: &dyn Fn(usize) -> bool| {
            let is_open = |node: &Node, facts: &NodeFacts| {
                let has_failed = facts.serves() == Some(revision) && facts.observed.served == Served::Failed;
                facts.is_reachable && !has_failed && !has_served(node, revision, self.world.now)
            };
            self.target().filter(|(node, facts, ordered)| wave(node.wave) && *ordered == Some(revision) && is_open(node, facts)).count()
        };
        let of_wave = |wave: usize| self.target().filter(|(node, ..)| node.wave == wave).count();
        if let Some(goal) = next.goal() {
            let total = self.target().count();
            let (open, most) = (unproven(goal, &|_| true), strategy.batch().at_least_one_of(total) + lacking(total));
            if is_given(goal, &|_| true) && open > most {
                return Err(format!("{open} nodes that came late are on their way, and {most} may be"));
            }
            return Ok(());
        }
        if next.phase == Phase::Restoring {
            return Ok(());
        }
        if is_given(next.to, &|wave| wave > next.wave) {
            return Err("a node of a later wave gets it".to_owned());
        }
        let here = |wave| wave == next.wave;
        if is_given(next.to, &here) {
            let taken = self.target().filter(|(node, _, ordered)| here(node.wave) && *ordered == Some(next.to)).count();
            let proven = self.world.model.proven.iter().filter(|index| here(self.world.nodes[**index].wave)).count();
            let of_all = self.facts.values().filter(|facts| facts.serves() == Some(next.to)).count();
            let most = allowed(strategy, proven + lacking(taken) + lacking(of_all), of_wave(next.wave));
            if taken > most {
                return Err(format!("{taken} nodes of wave {} have it, {proven} proved it, and {most} may have it", next.wave));
            }
        }
        let earlier = |wave| wave < next.wave;
        if is_given(next.to, &earlier) {
            let total = of_wave(next.wave).max(1);
            let (open, most) = (unproven(next.to, &earlier), strategy.batch().at_least_one_of(total) + lacking(total));
            if open > most {
                return Err(format!("{open} nodes of earlier waves are on their way, and {most} may be"));
            }
        }
        Ok(())
    }

    fn keeps_to_waves(&self) -> Result<(), String> {
        let (before, next) = (self.before, &self.decision.rollout);
        if next.wave <= before.wave {
            return Ok(());
        }
        for (node, facts, _) in self.target() {
            if (before.wave..next.wave).contains(&node.wave) && facts.can_take() && facts.serves() != Some(next.to) {
                return Err(format!("wave {} begins, and {} of wave {} has not got it", next.wave, node.id, node.wave));
            }
        }
        let taken: Vec<_> = self.target().filter(|(node, facts, _)| node.wave == before.wave && facts.serves() == Some(next.to)).collect();
        let open = taken.iter().filter(|(node, ..)| !self.world.model.proven.contains(&node.index)).count();
        let lacking = 2 * self.strategy().max_unavailable().at_most_of(self.facts.len());
        if open > lacking { Err(format!("wave {} begins, and {open} nodes of the one before did not prove it", next.wave)) } else { Ok(()) }
    }

    fn is_approved(&self) -> Result<(), String> {
        let (before, next) = (self.before, &self.decision.rollout);
        if !self.strategy().approve || self.world.model.is_approved || before.state.is_over() || next.phase == Phase::Restoring {
            return Ok(());
        }
        let is_taken = |facts: &NodeFacts| facts.in_target && facts.wave <= before.wave && facts.serves() == Some(next.to);
        let has_taken = before.approval == Approval::Awaited || self.facts.values().any(is_taken);
        let goes_on = next.allowed > before.allowed && before.allowed > 0 && next.wave == before.wave;
        let is_wave = next.wave > before.wave;
        if next.state == RolloutState::Completed || (self.strategy().kind != StrategyKind::BlueGreen && has_taken && (goes_on || is_wave)) {
            return Err("it goes on, and nobody approved".to_owned());
        }
        Ok(())
    }

    fn keeps_the_count(&self) -> Result<(), String> {
        let Some(wanted) = self.scope.wanted else { return Ok(()) };
        let next = &self.decision.rollout;
        let serves = |facts: &NodeFacts| facts.is_reachable && facts.serves().is_some() && facts.observed.served == Served::Ready;
        let is_emptied = |id: &NodeId| self.decision.orders.get(id) == Some(&Order::default());
        let before = self.facts.values().filter(|facts| serves(facts)).count();
        let after = self.facts.iter().filter(|(id, facts)| serves(facts) && !is_emptied(id)).count();
        if after < before && after < wanted && !(next.phase == Phase::Restoring && next.from.is_none()) {
            return Err(format!("{before} nodes served, then {after}, and {wanted} are wanted"));
        }
        Ok(())
    }

    fn is_judged_right(&self) -> Result<(), String> {
        let (before, next) = (self.before, &self.decision.rollout);
        let kind = self.kind(next.to);
        let is_superseded = self.scope.is_superseded && next.from.is_some();
        if before.phase != Phase::Restoring && next.phase == Phase::Restoring && kind == Kind::Good && !is_superseded {
            return Err(format!("a good revision goes back: {}", next.reason));
        }
        if next.refused.len() > before.refused.len() && next.goal().is_some_and(|goal| self.kind(goal) == Kind::Good) {
            return Err(format!("a good revision is refused: {:?}", next.refused));
        }
        if next.state != RolloutState::Completed || before.state == RolloutState::Completed || next.from == Some(next.to) {
            return Ok(());
        }
        let taken: Vec<_> = self.facts.values().filter(|facts| facts.serves() == Some(next.to)).map(|facts| &facts.observed).collect();
        let sum = |of: fn(&Observed) -> u64| taken.iter().map(|observed| of(observed)).sum::<u64>();
        let (calls, errors) = (sum(|observed| observed.sample.calls), sum(|observed| observed.sample.errors));
        // A node that came late may have run something bad before.
        let was_bad = sum(|observed| observed.before.errors) * 10 > sum(|observed| observed.before.calls);
        let is_after_good = !was_bad && next.from.is_none_or(|from| self.kind(from) == Kind::Good);
        let is_slow = !taken.is_empty()
            && taken.iter().all(|observed| observed.sample.calls >= 20 && observed.before.calls >= 20 && observed.before.p95_ms < 20.0);
        match kind {
            Kind::CannotStart => Err("a revision that cannot start is completed".to_owned()),
            Kind::Errs if is_after_good && (calls >= 20 || (calls > 0 && calls == errors)) => {
                Err(format!("a revision is completed of which {errors} of {calls} invocations failed"))
            }
            Kind::Slow if is_after_good && is_slow => Err("a slow revision is completed".to_owned()),
            _ => Ok(()),
        }
    }
}

/// What must hold of the nodes at every moment.
pub(super) fn nodes(world: &World) -> Result<(), String> {
    for node in &world.nodes {
        if node.serves.is_some() && node.serves == node.warm {
            return Err(format!("{} has the same twice", node.id));
        }
    }
    Ok(())
}

/// What must hold when nothing goes wrong any more and nothing changes.
pub(super) fn at_rest(world: &World) -> Result<(), String> {
    let hub = &world.hub;
    let (rollout, deployment) = (hub.rollout.as_ref().expect("there is one"), hub.current().expect("there is one"));
    let stands = format!("it stands at {} {:?}, wave {}, `{}`", rollout.state, rollout.phase, rollout.wave, rollout.reason);
    if rollout.generation != hub.deployments.len() as u64 {
        return Err(format!("the newest deployment has not begun: {stands}"));
    }
    match rollout.state {
        RolloutState::Completed | RolloutState::RolledBack | RolloutState::Failed => {}
        RolloutState::Paused if !rollout.reason.is_empty() => {}
        RolloutState::InProgress if rollout.approval == Approval::Awaited && rollout.phase != Phase::Restoring => {}
        _ => return Err(format!("a rollout does not end: {stands}")),
    }
    if world.is_willing && !rollout.state.is_over() {
        return Err(format!("a rollout does not end though everybody agrees: {stands}"));
    }
    let serves = |node: &&Node| deployment.target[node.index] && node.serves.is_some() && node.serves == node.order.serve;
    // Where no revision was before, nodes keep what they have of a first one that was superseded.
    let kept = |node: &Node| node.order.serve.filter(|serve| world.is_let_go && rollout.goal().is_none() && *serve != rollout.to);
    let all = world.nodes.iter().map(kept).chain([rollout.goal(), Some(rollout.to)]);
    let is_looping = all.into_iter().any(|one| world.kind_of(one) == Some(Kind::CrashLoops));
    // Nobody leaves before enough others serve.
    let is_short = deployment.wanted.is_some_and(|wanted| is_looping || wanted > world.nodes.iter().filter(serves).count());
    for node in &world.nodes {
        let is_refused = rollout.refused.contains_key(&node.id);
        if !deployment.target[node.index] {
            if node.serves.is_some() && !is_short {
                return Err(format!("{} still has {:?}; {stands}", node.id, node.serves));
            }
            continue;
        }
        let is_same = rollout.from == Some(rollout.to) && rollout.state != RolloutState::Completed;
        let goal = rollout.goal().or_else(|| kept(node));
        let runs = goal.is_none_or(|goal| world.kinds.of(goal).starts_on(node.index)) && !is_looping;
        // When all of a few invocations failed it stays open whether a node goes back.
        let is_doubtful = world.kind_of(goal).is_some_and(|kind| kind.errs_on(node.index, u64::MAX));
        if rollout.state.is_over() && node.warm.is_some() && runs && !is_doubtful && !is_same {
            return Err(format!("{} still has {:?} ready; {stands}", node.id, node.warm));
        }
        if rollout.state.is_over() && runs && !is_same && !is_refused && node.serves != goal {
            return Err(format!("{} serves {:?}, not {goal:?}; {stands}", node.id, node.serves));
        }
        if rollout.state.is_over()
            && rollout.goal().is_some()
            && runs
            && !is_doubtful
            && !is_same
            && !is_refused
            && !node.order.is_confirmed
        {
            return Err(format!("{} is never confirmed; {stands}", node.id));
        }
        let is_back = rollout.state.is_over() && rollout.state != RolloutState::Completed;
        let starts = |revision: u64| world.kinds.of(revision).starts_on(node.index);
        let can_serve = starts(rollout.to) && rollout.from.is_some_and(|from| from != rollout.to && starts(from));
        if !rollout.state.is_over() && can_serve && node.serves.is_none() && node.order.serve.is_none_or(starts) {
            return Err(format!("{} serves nothing; {stands}", node.id));
        }
        if is_back && runs && !is_same && node.has(rollout.to) {
            return Err(format!("{} still has the revision that went back; {stands}", node.id));
        }
    }
    Ok(())
}
