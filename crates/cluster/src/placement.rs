//! Which nodes get a function of which there are to be so many. Pure.
//!
//! Who has it keeps it as long as it is fit. Others are chosen so that they spread over sites, then by their load. What cannot be placed says
//! why.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use edgeward_model::{EdgeNode, FunctionId, Load, NodeId, Selector};

/// The label that names the site of a node.
pub const SITE: &str = "site";

/// A node that a function may be placed on.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a EdgeNode,
    /// What its machine had to do when it was last heard.
    pub load: Option<Load>,
    /// Functions that it has.
    pub functions: usize,
    /// Whether it is heard, or was until a short time ago.
    pub is_there: bool,
    /// Whether it is to be left.
    pub is_draining: bool,
}

/// What a function needs of its node.
#[derive(Clone, Copy, Debug)]
pub struct Needs<'a> {
    /// Labels and capabilities.
    pub selector: &'a Selector,
    /// Memory of one invocation, in bytes.
    pub memory_bytes: u64,
}

/// Why a node does not get a function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// It is silent.
    Offline,
    /// It is being drained.
    Draining,
    /// It lacks a capability.
    Capability(String),
    /// It has not this value of this label.
    Label(String, String),
    /// It has so many bytes of memory left.
    Memory,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline => f.write_str("offline"),
            Self::Draining => f.write_str("draining"),
            Self::Capability(name) => write!(f, "without `{name}`"),
            Self::Label(name, value) => write!(f, "without `{name}={value}`"),
            Self::Memory => f.write_str("without enough memory"),
        }
    }
}

/// Where a function goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The nodes.
    pub nodes: BTreeSet<NodeId>,
    /// How many are missing.
    pub missing: usize,
    /// Why other nodes were not chosen, with how many there are of each kind.
    pub unfit: BTreeMap<Unfit, usize>,
}

impl Placement {
    /// Why some are missing, for people; none when there are enough.
    pub fn why_missing(&self) -> Option<String> {
        if self.missing == 0 {
            return None;
        }
        let nobody_has = self.unfit.keys().find_map(|unfit| match unfit {
            Unfit::Capability(name) => Some(format!("`{name}`")),
            Unfit::Label(name, value) => Some(format!("`{name}={value}`")),
            _ => None,
        });
        let why = match (self.nodes.is_empty() && self.unfit.len() == 1, nobody_has) {
            (true, Some(what)) => format!("no node has {what}"),
            _ if self.unfit.is_empty() => "there are no other nodes".to_owned(),
            _ => {
                let kinds: Vec<_> = self.unfit.iter().map(|(unfit, count)| format!("{count} {unfit}")).collect();
                format!("of the other nodes are {}", kinds.join(", "))
            }
        };
        Some(format!("{} could not be placed: {why}", self.missing))
    }
}

/// Why a node cannot have it, if it cannot.
pub fn fitness(needs: Needs<'_>, candidate: &Candidate<'_>) -> Result<(), Unfit> {
    let Candidate { node, load, is_there, is_draining, .. } = candidate;
    if let Some(name) = needs.selector.capabilities.iter().find(|name| !node.capabilities.contains(name)) {
        return Err(Unfit::Capability(name.clone()));
    }
    if let Some((name, value)) = needs.selector.labels.iter().find(|(name, value)| node.labels.get(*name) != Some(value)) {
        return Err(Unfit::Label(name.clone(), value.clone()));
    }
    if !is_there {
        return Err(Unfit::Offline);
    }
    if *is_draining {
        return Err(Unfit::Draining);
    }
    // Of a node that has not told, nothing speaks against it.
    let is_short = load.is_some_and(|load| {
        load.memory_total_bytes > 0 && load.memory_total_bytes.saturating_sub(load.memory_used_bytes) < needs.memory_bytes
    });
    if is_short { Err(Unfit::Memory) } else { Ok(()) }
}

/// Chooses so many nodes. Of holders that are fit as many stay as are wanted.
pub fn place(wanted: usize, needs: Needs<'_>, candidates: &[Candidate<'_>], holders: &BTreeSet<NodeId>) -> Placement {
    let mut placement = Placement::default();
    let mut fit = Vec::new();
    for candidate in candidates {
        let is_holder = holders.contains(&candidate.node.id);
        match fitness(needs, candidate) {
            // What a holder has in memory is the function itself.
            Ok(()) => fit.push(candidate),
            Err(Unfit::Memory) if is_holder => fit.push(candidate),
            Err(unfit) => *placement.unfit.entry(unfit).or_default() += 1,
        }
    }
    let mut at_site: BTreeMap<&str, usize> = BTreeMap::new();
    while placement.nodes.len() < wanted {
        let best = fit.iter().enumerate().min_by_key(|(_, candidate)| {
            let id = &candidate.node.id;
            (Reverse(holders.contains(id)), at_site.get(site(candidate.node)).copied().unwrap_or(0), pressure(candidate), id.clone())
        });
        let Some((index, _)) = best else { break };
        let chosen = fit.swap_remove(index);
        *at_site.entry(site(chosen.node)).or_default() += 1;
        placement.nodes.insert(chosen.node.id.clone());
    }
    placement.missing = wanted - placement.nodes.len();
    placement
}

/// How much a node has to do: its functions first, as what they take shows later, then its processors and memory in steps of a tenth.
fn pressure(candidate: &Candidate<'_>) -> (usize, u64) {
    let busy = candidate.load.map_or(0, |load| {
        let memory = (load.memory_used_bytes * 10).checked_div(load.memory_total_bytes).unwrap_or(0);
        (u64::from(load.cpu_percent) / 10).max(memory)
    });
    (candidate.functions, busy)
}

fn site(node: &EdgeNode) -> &str {
    node.labels.get(SITE).unwrap_or(&node.location)
}

/// A function that is to go from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Move {
    /// The function.
    pub function: FunctionId,
    /// The node that it leaves.
    pub from: NodeId,
    /// The node that has room for it.
    pub to: NodeId,
}

/// A function of which there are to be so many, with where it is.
#[derive(Clone, Debug)]
pub struct Counted<'a> {
    /// The function.
    pub function: &'a FunctionId,
    /// What it needs.
    pub needs: Needs<'a>,
    /// Where it is.
    pub holders: BTreeSet<NodeId>,
}

/// At most so many moves, each from the node with the most functions to one that has at least two fewer, and none to a site that has more of
/// the function already.
pub fn rebalance(counted: &[Counted<'_>], candidates: &[Candidate<'_>], moves_max: usize) -> Vec<Move> {
    let mut functions: BTreeMap<&NodeId, usize> = candidates.iter().map(|candidate| (&candidate.node.id, candidate.functions)).collect();
    let mut holders: Vec<_> = counted.iter().map(|counted| counted.holders.clone()).collect();
    let mut moves = Vec::new();
    while moves.len() < moves_max {
        let mut best: Option<(usize, usize, &NodeId, &NodeId)> = None;
        for (index, counted) in counted.iter().enumerate() {
            let here = || candidates.iter().map(|candidate| candidate.node).filter(|node| holders[index].contains(&node.id));
            let Some(from) = here().max_by_key(|node| (functions[&node.id], Reverse(&node.id))) else { continue };
            let others_at = |at: &str| here().filter(|node| node.id != from.id && site(node) == at).count();
            let most = others_at(site(from));
            let is_target = |to: &&Candidate<'_>| {
                !holders[index].contains(&to.node.id) && fitness(counted.needs, to).is_ok() && others_at(site(to.node)) <= most
            };
            let targets = candidates.iter().filter(is_target);
            let Some(to) = targets.map(|to| &to.node.id).min_by_key(|id| functions[id]) else { continue };
            let from = &from.id;
            let gain = functions[from].saturating_sub(functions[to]);
            if gain >= 2 && best.is_none_or(|(most, ..)| gain > most) {
                best = Some((gain, index, from, to));
            }
        }
        let Some((_, index, from, to)) = best else { break };
        holders[index].remove(from);
        holders[index].insert(to.clone());
        *functions.entry(from).or_default() -= 1;
        *functions.entry(to).or_default() += 1;
        moves.push(Move { function: counted[index].function.clone(), from: from.clone(), to: to.clone() });
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, site: &str, capabilities: &[&str]) -> EdgeNode {
        let mut node = EdgeNode::new(id, id).expect("valid");
        node.labels.insert(SITE.to_owned(), site.to_owned());
        node.capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
        node
    }

    fn candidate(node: &EdgeNode, functions: usize) -> Candidate<'_> {
        Candidate { node, load: None, functions, is_there: true, is_draining: false }
    }

    fn ids(names: &[&str]) -> BTreeSet<NodeId> {
        names.iter().map(|name| NodeId::new(name).expect("valid")).collect()
    }

    fn needs(selector: &Selector) -> Needs<'_> {
        Needs { selector, memory_bytes: 1 << 20 }
    }

    #[test]
    fn functions_spread_over_sites_and_then_go_where_the_least_is() {
        let nodes = [node("a1", "a", &[]), node("a2", "a", &[]), node("b1", "b", &[]), node("b2", "b", &[])];
        let candidates: Vec<_> = nodes.iter().zip([0, 0, 5, 3]).map(|(node, functions)| candidate(node, functions)).collect();
        let any = Selector::default();
        let place = |wanted| place(wanted, needs(&any), &candidates, &BTreeSet::new()).nodes;
        assert_eq!((place(1), place(2), place(3)), (ids(&["a1"]), ids(&["a1", "b2"]), ids(&["a1", "a2", "b2"])));
    }

    #[test]
    fn who_has_it_keeps_it_while_it_is_fit() {
        let nodes = [node("a1", "a", &[]), node("a2", "a", &[]), node("b1", "b", &[])];
        let mut candidates: Vec<_> = nodes.iter().zip([9, 9, 0]).map(|(node, functions)| candidate(node, functions)).collect();
        let (any, holders) = (Selector::default(), ids(&["a1", "a2"]));
        assert_eq!(place(2, needs(&any), &candidates, &holders).nodes, holders);
        candidates[1].is_draining = true;
        assert_eq!(place(2, needs(&any), &candidates, &holders).nodes, ids(&["a1", "b1"]));
        candidates[0].is_there = false;
        assert_eq!(
            place(2, needs(&any), &candidates, &holders),
            Placement { nodes: ids(&["b1"]), missing: 1, unfit: [(Unfit::Offline, 1), (Unfit::Draining, 1)].into() }
        );
    }

    #[test]
    fn what_cannot_be_placed_says_why() {
        let nodes = [node("a", "x", &[]), node("b", "x", &["gpu"])];
        let mut candidates: Vec<_> = nodes.iter().map(|node| candidate(node, 0)).collect();
        let why = |wanted, selector: &str, candidates: &[Candidate<'_>]| {
            let selector = selector.parse().expect("valid");
            place(wanted, needs(&selector), candidates, &BTreeSet::new()).why_missing()
        };
        assert_eq!(why(1, "capability=gpu", &candidates), None);
        assert_eq!(why(1, "capability=arm", &candidates).expect("why"), "1 could not be placed: no node has `arm`");
        assert_eq!(why(3, "site=y", &candidates).expect("why"), "3 could not be placed: no node has `site=y`");
        assert_eq!(why(2, "capability=gpu", &candidates).expect("why"), "1 could not be placed: of the other nodes are 1 without `gpu`");
        assert_eq!(why(3, "all", &candidates).expect("why"), "1 could not be placed: there are no other nodes");
        candidates[1].load = Some(Load { memory_total_bytes: 100, memory_used_bytes: 99, ..Load::default() });
        assert_eq!(
            why(1, "capability=gpu", &candidates).expect("why"),
            "1 could not be placed: of the other nodes are 1 without `gpu`, 1 without enough memory"
        );
    }

    #[test]
    fn a_fleet_is_balanced_in_so_many_moves_and_then_left_alone() {
        let nodes = [node("a", "x", &[]), node("b", "x", &[]), node("c", "x", &[])];
        let functions: Vec<_> = (0..6).map(|n| FunctionId::new(format!("f{n}")).expect("valid")).collect();
        let any = Selector::default();
        let counted = |holders: &[&str]| -> Vec<Counted<'_>> {
            functions
                .iter()
                .zip(holders)
                .map(|(function, holder)| Counted { function, needs: needs(&any), holders: ids(&[holder]) })
                .collect()
        };
        let candidates = |numbers: [usize; 3]| -> Vec<_> { nodes.iter().zip(numbers).map(|(node, n)| candidate(node, n)).collect() };
        let moves = rebalance(&counted(&["a"; 6]), &candidates([6, 0, 0]), 100);
        assert_eq!(moves.len(), 4, "two stay: {moves:?}");
        assert!(moves.iter().all(|one| one.from.as_str() == "a"));
        assert_eq!(rebalance(&counted(&["a"; 6]), &candidates([6, 0, 0]), 1).len(), 1);
        assert!(rebalance(&counted(&["a", "a", "b", "b", "c", "c"]), &candidates([2, 2, 2]), 100).is_empty());
        assert!(rebalance(&counted(&["a", "a", "b", "b", "c", "a"]), &candidates([3, 2, 1]), 100).len() == 1);
    }

    #[test]
    fn what_is_spread_over_sites_stays_so_when_the_fleet_is_balanced() {
        let nodes = [node("a1", "a", &[]), node("a2", "a", &[]), node("b1", "b", &[]), node("b2", "b", &[])];
        let candidates: Vec<_> = nodes.iter().zip([1, 0, 9, 3]).map(|(node, functions)| candidate(node, functions)).collect();
        let (function, any) = (FunctionId::new("f").expect("valid"), Selector::default());
        let counted = [Counted { function: &function, needs: needs(&any), holders: ids(&["a1", "b1"]) }];
        let moves = rebalance(&counted, &candidates, 1);
        assert_eq!((moves[0].from.as_str(), moves[0].to.as_str()), ("b1", "b2"), "`a2` has less, but beside `a1`");
    }
}
