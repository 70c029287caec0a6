//! What comes next: from a rollout as it is kept and its nodes as they are, to the rollout as it is to be kept and the orders that follow.

use std::{collections::BTreeMap, time::Duration};

use edgeward_model::{NodeId, Strategy, StrategyKind};
use jiff::Timestamp;

use super::{
    Approval, Phase, Rollout, RolloutState,
    facts::{NodeFacts, Order, Served, named},
    gate::{Verdict, judge},
    since,
};

/// Nodes that a reason names.
const NAMED_MAX: usize = 3;

/// What a deployment asks of its rollouts.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// How a revision gets to the nodes.
    pub strategy: &'a Strategy,
    /// How many nodes there are to be; none for every one in the target. With a number, a node that is to leave stays until others serve.
    pub wanted: Option<usize>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The rollout, which is to be kept before any order is given.
    pub rollout: Rollout,
    /// What nodes are to have, of those that have something else.
    pub orders: BTreeMap<NodeId, Order>,
}

/// Decides, once. It is to be asked again after each change of what is known, and when time has passed.
pub fn decide(rollout: &Rollout, scope: Scope<'_>, nodes: &BTreeMap<NodeId, NodeFacts>, now: Timestamp) -> Decision {
    let mut deciding = Deciding { next: rollout.clone(), scope, nodes, now, orders: BTreeMap::new() };
    if deciding.next.state.is_over() {
        deciding.keep();
    } else {
        if deciding.next.phase != Phase::Restoring {
            deciding.watch();
        }
        match (deciding.next.state, deciding.next.phase) {
            (_, Phase::Restoring) => deciding.restore(),
            (RolloutState::Paused, _) => {}
            _ => deciding.advance(),
        }
    }
    deciding.leave();
    let Deciding { next, mut orders, .. } = deciding;
    orders.retain(|id, order| nodes.get(id).is_some_and(|node| node.ordered.unwrap_or_default() != *order));
    Decision { rollout: next, orders }
}

struct Deciding<'a> {
    next: Rollout,
    scope: Scope<'a>,
    nodes: &'a BTreeMap<NodeId, NodeFacts>,
    now: Timestamp,
    orders: BTreeMap<NodeId, Order>,
}

impl<'a> Deciding<'a> {
    /// Nodes that were ordered to serve the new revision.
    fn taken(&self) -> impl Iterator<Item = (&'a NodeId, &'a NodeFacts)> + use<'a> {
        let to = self.next.to;
        self.nodes.iter().filter(move |(_, node)| node.serves() == Some(to))
    }

    /// The nodes of the present wave.
    fn here(&self) -> impl Iterator<Item = (&'a NodeId, &'a NodeFacts)> + use<'a> {
        let wave = self.next.wave;
        self.nodes.iter().filter(move |(_, node)| node.in_target && node.wave == wave)
    }

    fn waves(&self) -> usize {
        self.scope.strategy.waves.len() + 1
    }

    fn order(&mut self, id: &NodeId, order: Order) {
        self.orders.insert(id.clone(), order);
    }

    /// Looks whether the revision does badly, and turns back if so.
    fn watch(&mut self) {
        let to = self.next.to;
        let has = |node: &NodeFacts| node.serves() == Some(to) || node.warm() == Some(to);
        let fails = |node: &NodeFacts| {
            (node.serves() == Some(to) && node.observed.served == Served::Failed)
                || (node.warm() == Some(to) && node.observed.warm == Served::Failed)
        };
        let concerned = self.nodes.values().filter(|node| has(node)).count();
        let failing: Vec<_> = self.nodes.iter().filter(|(_, node)| fails(node)).collect();
        if failing.len() > self.scope.strategy.max_unavailable().at_most_of(concerned) {
            let (first, node) = failing[0];
            let what = named(&self.next.function, to);
            let why = format!("{} of {concerned} nodes cannot run {what}; node `{first}`: {}", failing.len(), node.observed.message);
            return self.next.restore(why, self.now);
        }
        let samples = self.taken().map(|(_, node)| (node.observed.sample, node.observed.before));
        if let Verdict::Bad(why) = judge(&self.scope.strategy.gate, samples) {
            self.next.restore(why, self.now);
        }
    }

    /// Goes on as far as it may.
    fn advance(&mut self) {
        if !self.nodes.values().any(|node| node.in_target && (node.can_take() || node.serves() == Some(self.next.to))) {
            let has_nodes = self.nodes.values().any(|node| node.in_target);
            let why = if has_nodes { "no node of its target can be reached" } else { "no node is in its target" };
            why.clone_into(&mut self.next.reason);
            return;
        }
        // Each turn of the loop comes to another batch or wave, or ends it.
        loop {
            let total = self.here().count();
            if total > 0 {
                if !self.begin(total) || !self.fill(total) || !self.is_done() || !self.is_approved(self.next.allowed < total) {
                    return;
                }
                if self.next.allowed < total {
                    self.next.allowed = self.scope.strategy.next(self.next.allowed, total);
                    self.progress();
                    continue;
                }
            }
            if self.next.wave + 1 < self.waves() {
                self.next.wave += 1;
                self.next.allowed = 0;
                self.next.phase = self.first_phase();
                self.progress();
                continue;
            }
            if self.taken().any(|(_, node)| node.in_target) {
                self.next.reason.clear();
                self.next.end(RolloutState::Completed, self.now);
                self.keep();
            } else {
                // Those that could be reached went away before their turn.
                (self.next.wave, self.next.allowed, self.next.phase) = (0, 0, self.first_phase());
                self.next.state = RolloutState::Pending;
                "no node of its target can be reached".clone_into(&mut self.next.reason);
            }
            return;
        }
    }

    fn first_phase(&self) -> Phase {
        if self.scope.strategy.kind == StrategyKind::BlueGreen { Phase::Preparing } else { Phase::Updating }
    }

    fn progress(&mut self) {
        self.next.progressed_at = self.now;
    }

    /// Begins a wave: allows its first nodes, when the revision is prepared where it is to be. Says whether nodes may take it.
    fn begin(&mut self, total: usize) -> bool {
        if self.next.state == RolloutState::Pending {
            self.next.state = RolloutState::InProgress;
            self.next.phase = self.first_phase();
            self.next.reason.clear();
            self.progress();
        }
        if self.next.phase == Phase::Preparing && !self.prepare() {
            return false;
        }
        if self.next.allowed == 0 {
            self.next.phase = Phase::Updating;
            self.next.allowed = self.scope.strategy.next(0, total);
            self.progress();
        }
        true
    }

    /// Has the revision made ready on the nodes of the wave; says whether it is.
    fn prepare(&mut self) -> bool {
        let to = self.next.to;
        let lacking: Vec<_> = self.here().filter(|(_, node)| node.can_take() && node.serves().is_some_and(|serves| serves != to)).collect();
        let mut waiting = Vec::new();
        for (id, node) in lacking {
            if node.warm() != Some(to) {
                self.order(id, Order { serve: node.serves(), warm: Some(to) });
                waiting.push(id);
            } else if node.observed.warm == Served::Pending {
                waiting.push(id);
            }
        }
        if waiting.is_empty() {
            return true;
        }
        let why = format!("{} it ready", have_not(&waiting, "made"));
        self.wait(why);
        false
    }

    /// Orders as many nodes of the wave to take the revision as may have it; says whether all of those were ordered before.
    fn fill(&mut self, total: usize) -> bool {
        let to = self.next.to;
        let taken = self.here().filter(|(_, node)| node.serves() == Some(to)).count();
        let mut free: Vec<_> = self.here().filter(|(_, node)| node.can_take() && node.serves() != Some(to)).collect();
        let now = free.len().min(self.next.allowed.saturating_sub(taken));
        let later = free.split_off(now);
        for (id, node) in &free {
            self.order(id, Order { serve: Some(to), warm: node.serves() });
        }
        // What is to serve at all serves the former revision until its turn comes.
        if let Some(from) = self.next.from {
            let wave = self.next.wave;
            let beyond = self.nodes.iter().filter(|(_, node)| node.in_target && node.wave > wave && node.can_take());
            for (id, _) in later.into_iter().chain(beyond).filter(|(_, node)| node.serves().is_none()) {
                self.order(id, Order::only(Some(from)));
            }
        }
        self.fill_earlier(total);
        if free.is_empty() {
            return true;
        }
        self.next.reason.clear();
        false
    }

    /// Orders nodes of earlier waves that came late, so many at once as a batch has.
    fn fill_earlier(&mut self, total: usize) {
        let (to, wave) = (self.next.to, self.next.wave);
        let earlier = || self.nodes.iter().filter(move |(_, node)| node.in_target && node.wave < wave);
        let on_their_way = earlier().filter(|(_, node)| node.serves() == Some(to) && !has_passed(node)).count();
        let room = self.scope.strategy.batch().at_least_one_of(total).saturating_sub(on_their_way);
        let late: Vec<_> = earlier().filter(|(_, node)| node.can_take() && node.serves() != Some(to)).take(room).collect();
        for (id, node) in late {
            self.order(id, Order { serve: Some(to), warm: node.serves() });
        }
    }

    /// Whether the nodes that took it have done well for long enough. If not, it waits, and is paused when that takes too long.
    fn is_done(&mut self) -> bool {
        let to = self.next.to;
        let taken: Vec<_> = self.here().filter(|(_, node)| node.serves() == Some(to)).collect();
        let unsure: Vec<_> =
            taken.iter().filter(|(_, node)| node.observed.served != Served::Failed && !has_passed(node)).copied().collect();
        let (heard, silent): (Vec<_>, Vec<_>) = unsure.into_iter().partition(|(_, node)| node.is_reachable);
        let baking = heard.iter().filter(|(_, node)| node.observed.served == Served::Ready).count();
        let why = if baking < heard.len() {
            let ids: Vec<_> = heard.iter().filter(|(_, node)| node.observed.served != Served::Ready).map(|(id, _)| *id).collect();
            have_not(&ids, "said that they serve it")
        } else if baking > 0 {
            // This ends by itself.
            self.next.reason.clear();
            return false;
        } else if silent.len() > self.scope.strategy.max_unavailable().at_most_of(taken.len()) {
            let ids: Vec<_> = silent.iter().map(|(id, _)| *id).collect();
            format!("{} since they took it", have_not(&ids, "been heard"))
        } else {
            let samples = self.taken().map(|(_, node)| (node.observed.sample, node.observed.before));
            match judge(&self.scope.strategy.gate, samples) {
                Verdict::TooFew(calls) => {
                    format!("there were {calls} invocations, and {} are needed to judge", self.scope.strategy.gate.min_samples())
                }
                Verdict::Good | Verdict::Bad(_) => return true,
            }
        };
        self.wait(why);
        false
    }

    /// Whether it may go on without anybody's agreement, or has it.
    fn is_approved(&mut self, is_batch_left: bool) -> bool {
        let is_last = !is_batch_left && self.next.wave + 1 >= self.waves();
        let is_due = match self.scope.strategy.kind {
            StrategyKind::BlueGreen => is_last,
            // After the first batch: where that is all there is, before the end.
            StrategyKind::Rolling | StrategyKind::Canary => true,
        };
        if !self.scope.strategy.approve || self.next.approval == Approval::Given || !is_due || self.taken().next().is_none() {
            return true;
        }
        self.next.approval = Approval::Awaited;
        "it waits for approval".clone_into(&mut self.next.reason);
        false
    }

    /// Says what it waits for; past the time for progress it is paused.
    fn wait(&mut self, why: String) {
        let patience = self.scope.strategy.bake().saturating_add(self.scope.strategy.progress());
        if since(self.next.progressed_at, self.now) > patience {
            self.next.state = RolloutState::Paused;
            self.next.reason = format!("paused, as it did not get on for {}: {why}", shown(self.scope.strategy.progress()));
        } else {
            self.next.reason = why;
        }
    }

    /// Brings the former revision back where the new one is.
    fn restore(&mut self) {
        let (to, from) = (self.next.to, self.next.from);
        self.take_back();
        let is_back = |node: &NodeFacts| node.serves() == from && node.warm() != Some(to);
        let waits = |node: &NodeFacts| {
            node.can_take() && from.is_some() && is_back(node) && node.in_target && node.observed.served == Served::Pending
        };
        let is_on_its_way = self.nodes.values().any(|node| node.serves() == Some(to) || node.warm() == Some(to) || waits(node));
        let is_late = since(self.next.progressed_at, self.now) > self.scope.strategy.progress();
        if !self.orders.is_empty() || (is_on_its_way && !is_late) {
            return;
        }
        let state = match from {
            None => RolloutState::Failed,
            Some(_) if is_on_its_way => {
                self.next.reason.push_str("; some nodes have not said that they serve the former revision again");
                RolloutState::Failed
            }
            Some(_) => RolloutState::RolledBack,
        };
        self.next.end(state, self.now);
    }

    /// Orders the former revision where the new one is, heard or not: whoever is away takes the newest order when it returns.
    fn take_back(&mut self) {
        let (to, from) = (self.next.to, self.next.from);
        for (id, node) in self.nodes {
            if node.serves() == Some(to) {
                self.order(id, Order::only(from));
            } else if node.warm() == Some(to) {
                self.order(id, Order::only(node.serves()));
            }
        }
    }

    /// Keeps the nodes at what the rollout came to: those that come late take it, are judged by themselves, and are confirmed.
    fn keep(&mut self) {
        if self.next.state != RolloutState::Completed {
            self.take_back();
        }
        let Some(goal) = self.next.goal() else { return };
        let in_target = || self.nodes.iter().filter(|(_, node)| node.in_target);
        let mut on_their_way = 0;
        let mut refused = Vec::new();
        let settling: Vec<_> = in_target().filter(|(_, node)| node.serves() == Some(goal) && node.warm().is_some()).collect();
        for (id, node) in settling {
            let why = match node.observed.served {
                Served::Failed => Some(node.observed.message.clone()),
                _ => match judge(&self.scope.strategy.gate, [(node.observed.sample, node.observed.before)]) {
                    Verdict::Bad(why) => Some(why),
                    Verdict::Good | Verdict::TooFew(_) => None,
                },
            };
            if let Some(why) = why {
                self.order(id, Order::only(node.warm()));
                refused.push((id.clone(), why));
            } else if has_passed(node) {
                self.order(id, Order::only(Some(goal)));
            } else {
                on_their_way += 1;
            }
        }
        for (id, why) in refused {
            self.next.refuse(id, why);
        }
        let total = in_target().count();
        let room = self.scope.strategy.batch().at_least_one_of(total).saturating_sub(on_their_way);
        let is_late = |id: &NodeId, node: &NodeFacts| node.can_take() && node.serves() != Some(goal) && !self.next.refused.contains_key(id);
        let late: Vec<_> = in_target().filter(|(id, node)| is_late(id, node) && !self.orders.contains_key(*id)).take(room).collect();
        for (id, node) in late {
            self.order(id, Order { serve: Some(goal), warm: node.serves() });
        }
    }

    /// Takes the function from nodes that the deployment does not want it on, in so far as others serve in their place.
    fn leave(&mut self) {
        let serves = |node: &NodeFacts| node.is_reachable && node.serves().is_some() && node.observed.served == Served::Ready;
        let leaving: Vec<_> = self.nodes.iter().filter(|(_, node)| !node.in_target && node.ordered.is_some()).collect();
        let surplus = match self.scope.wanted {
            None => leaving.len(),
            Some(wanted) => {
                let staying = self.nodes.values().filter(|node| node.in_target && serves(node)).count();
                let until_then = leaving.iter().filter(|(_, node)| serves(node)).count();
                if staying >= wanted { leaving.len() } else { (staying + until_then).saturating_sub(wanted).min(until_then) }
            }
        };
        let all = surplus == leaving.len();
        let going: Vec<_> = leaving.into_iter().filter(|(_, node)| all || serves(node)).take(surplus).collect();
        for (id, _) in going {
            self.order(id, Order::only(None));
        }
    }
}

/// Whether a node has served for long enough.
fn has_passed(node: &NodeFacts) -> bool {
    node.observed.served == Served::Ready && node.observed.has_baked
}

/// That nodes have not done something, with some of their names.
fn have_not(ids: &[&NodeId], done: &str) -> String {
    let names: Vec<_> = ids.iter().take(NAMED_MAX).map(|id| format!("`{id}`")).collect();
    let more = if ids.len() > NAMED_MAX { ", …" } else { "" };
    format!("{} of the nodes ({}{more}) have not {done}", ids.len(), names.join(", "))
}

/// A time for people.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 120 && seconds.is_multiple_of(60) { format!("{} minutes", seconds / 60) } else { format!("{} s", time.as_secs_f64()) }
}
