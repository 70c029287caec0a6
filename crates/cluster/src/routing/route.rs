//! The way of one function's calls: its nodes in the order in which they are asked, and what all its calls share.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use edgeward_model::{Balance, EdgeError, ErrorKind, FunctionId, Locality, NodeId, Resilience};

use super::{
    RouteSpec,
    budget::Budget,
    candidate::{Candidate, Nearness},
    choice::{Choice, Class},
    link::Link,
    nanos,
    picked::Picked,
    random::Random,
    view::WhyNot,
};
use crate::planted::{self, Bug};

/// So often another node of a class is looked for when the one that was chosen was taken meanwhile.
const CHOICES: usize = 3;
/// So many nodes an error names.
const NAMED_MAX: usize = 3;

/// A node of a route.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) candidate: Candidate,
    pub(super) nearness: Nearness,
    pub(super) link: Arc<Link>,
}

impl Entry {
    /// Where it is among those that are asked as early.
    fn place(&self) -> (Option<&str>, &NodeId) {
        (self.candidate.site.as_deref(), &self.candidate.node)
    }
}

/// What all calls of a function share, whatever nodes it has.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) in_flight: AtomicU32,
    pub(super) budget: Budget,
    pub(super) calls: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) refused_unavailable: AtomicU64,
    cursor: AtomicUsize,
}

/// The way of one function's calls.
#[derive(Debug)]
pub(super) struct Route {
    here: Arc<Here>,
    pub(super) function: FunctionId,
    pub(super) resilience: Resilience,
    /// How long one run of it may take.
    pub(super) timeout: Duration,
    /// How long a call may take with all its attempts.
    pub(super) deadline: Duration,
    /// In the order of their classes; then those that are in none.
    pub(super) entries: Vec<Entry>,
    classes: Vec<Class>,
    /// For the weighted policy: the sums of the weights up to each node that is in a class.
    sums: Vec<u64>,
    pub(super) shared: Arc<Shared>,
}

/// What a router is to all its routes.
#[derive(Debug)]
pub(super) struct Here {
    /// When time began.
    pub(super) epoch: Instant,
    pub(super) site: Option<String>,
    pub(super) is_cut_off: AtomicBool,
}

/// What a node is asked about.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// Where the caller stands, when that is not here.
    from: Option<&'a str>,
    tried: &'a [NodeId],
    now: u64,
}

impl Route {
    /// A route that goes on where the one before was.
    pub(super) fn new(function: FunctionId, spec: RouteSpec, here: &Arc<Here>, before: Option<&Self>) -> Self {
        let RouteSpec { resilience, timeout, candidates } = spec;
        let known: HashMap<&NodeId, &Arc<Link>> =
            before.into_iter().flat_map(|route| &route.entries).map(|entry| (&entry.candidate.node, &entry.link)).collect();
        let locality = resilience.locality;
        let mut ranked: Vec<_> = candidates
            .into_iter()
            .map(|candidate| {
                let nearness = candidate.nearness(here.site.as_deref());
                let is_weightless = resilience.balance == Balance::Weighted && candidate.weight == 0;
                let rank = if is_weightless { None } else { candidate.rank(nearness, locality) };
                let link = known.get(&candidate.node).map_or_else(Arc::default, |link| Arc::clone(link));
                (rank, Entry { candidate, nearness, link })
            })
            .collect();
        ranked.sort_by(|(one, a), (other, b)| {
            let key = |rank: &Option<_>| (rank.is_none(), *rank);
            key(one).cmp(&key(other)).then_with(|| a.place().cmp(&b.place()))
        });
        let mut sums = Vec::new();
        let mut classes: Vec<Class> = Vec::new();
        let mut last = None;
        for (index, (rank, entry)) in ranked.iter().enumerate().filter(|(_, (rank, _))| rank.is_some()) {
            if last != *rank {
                let (health, _) = rank.expect("those without one are left out");
                classes.push(Class { health, range: index..index });
                last = *rank;
            }
            let class = classes.last_mut().expect("one was just pushed, or before");
            class.range.end = index + 1;
            if resilience.balance == Balance::Weighted {
                let sum = sums.last().copied().unwrap_or(0);
                sums.push(sum + u64::from(entry.candidate.weight));
            }
        }
        Self {
            here: Arc::clone(here),
            function,
            timeout,
            deadline: resilience.deadline(timeout),
            resilience,
            entries: ranked.into_iter().map(|(_, entry)| entry).collect(),
            classes,
            sums,
            shared: before.map_or_else(Arc::default, |before| Arc::clone(&before.shared)),
        }
    }

    /// A moment, in nanoseconds since time began.
    pub(super) fn moment(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.here.epoch))
    }

    /// Chooses a node and takes a place there, for a caller at this site; for one here without.
    pub(super) fn pick(self: &Arc<Self>, from: Option<&str>, tried: &[NodeId], now: Instant, random: u64) -> Result<Picked, EdgeError> {
        let now = self.moment(now);
        let place = Place::take(self)?;
        let mut random = Random::new(random);
        let from = from.filter(|site| self.resilience.locality == Locality::Nearest && self.here.site.as_deref() != Some(site));
        let untried = Asked { from, tried: if planted::has(Bug::TriedAskedAgain) { &[] } else { tried }, now };
        let found = self.choose(untried, &mut random).or_else(|| {
            let any = Asked { tried: &[], ..untried };
            // When there is no other node, the same one may do better now.
            if tried.is_empty() { None } else { self.choose(any, &mut random) }
        });
        match found {
            Some(picked) => {
                place.keep();
                Ok(picked)
            }
            None => Err(self.nobody(now)),
        }
    }

    fn choose(self: &Arc<Self>, asked: Asked<'_>, random: &mut Random) -> Option<Picked> {
        // Of those that are equally well, first who is near the caller.
        for equally_well in self.classes.chunk_by(|one, other| one.health == other.health) {
            let near = asked.from.into_iter().flat_map(|site| equally_well.iter().map(move |class| class.at_site(site, &self.entries)));
            for range in near.chain(equally_well.iter().map(|class| class.range.clone())).filter(|range| !range.is_empty()) {
                if let Some(picked) = self.choose_of(range, asked, random) {
                    return Some(picked);
                }
            }
        }
        (0..self.ranked()).filter(|index| self.fits(*index, asked)).find_map(|index| self.take(index, asked.now))
    }

    fn choose_of(self: &Arc<Self>, range: Range<usize>, asked: Asked<'_>, random: &mut Random) -> Option<Picked> {
        let fits = |index: usize| self.fits(index, asked);
        let choice = Choice { entries: &self.entries, range, sums: &self.sums, fits, cursor: &self.shared.cursor, now: asked.now };
        for _ in 0..CHOICES {
            let index = choice.make(self.resilience.balance, random)?;
            if let Some(picked) = self.take(index, asked.now) {
                return Some(picked);
            }
        }
        None
    }

    fn take(self: &Arc<Self>, index: usize, now: u64) -> Option<Picked> {
        let ticket = self.entries[index].link.enter(&self.resilience, now)?;
        Some(Picked::new(Arc::clone(self), index, ticket, now))
    }

    fn fits(&self, index: usize, asked: Asked<'_>) -> bool {
        let Entry { candidate, link, .. } = &self.entries[index];
        let is_reachable = candidate.is_local || !self.is_cut_off();
        let has_room = link.has_room(self.resilience.bulkhead.calls_per_node_max()) || planted::has(Bug::BulkheadIgnored);
        is_reachable && has_room && asked.now >= link.gate() && !asked.tried.contains(&candidate.node)
    }

    /// Why a node gets no call now, if it does not.
    pub(super) fn why_not(&self, entry: &Entry, now: u64) -> Option<WhyNot> {
        let Entry { candidate, nearness, link } = entry;
        if self.resilience.balance == Balance::Weighted && candidate.weight == 0 {
            Some(WhyNot::Weightless)
        } else if candidate.rank(*nearness, self.resilience.locality).is_none() {
            Some(WhyNot::Offline)
        } else if self.is_cut_off() && !candidate.is_local {
            Some(WhyNot::CutOff)
        } else if !link.has_room(self.resilience.bulkhead.calls_per_node_max()) {
            Some(WhyNot::Full)
        } else if link.gate() == u64::MAX {
            Some(WhyNot::Probed)
        } else {
            let wait = link.gate().saturating_sub(now);
            (wait > 0).then(|| WhyNot::Open { millis: wait.div_ceil(1_000_000), kind: link.last_kind().unwrap_or(ErrorKind::Unavailable) })
        }
    }

    /// Whether a node could take a call now that it was not tried on.
    pub(super) fn has_other(&self, tried: &[NodeId], now: Instant) -> bool {
        let asked = Asked { from: None, tried, now: self.moment(now) };
        (0..self.ranked()).any(|index| self.fits(index, asked))
    }

    /// The same beside this node.
    pub(super) fn has_other_than(&self, node: &NodeId, tried: &[NodeId], now: Instant) -> bool {
        let asked = Asked { from: None, tried, now: self.moment(now) };
        (0..self.ranked()).any(|index| self.entries[index].candidate.node != *node && self.fits(index, asked))
    }

    /// So many nodes are in a class; the others get nothing.
    fn ranked(&self) -> usize {
        self.classes.last().map_or(0, |class| class.range.end)
    }

    fn is_cut_off(&self) -> bool {
        self.here.is_cut_off.load(Ordering::Relaxed)
    }

    fn nobody(&self, now: u64) -> EdgeError {
        let function = &self.function;
        if self.entries.is_empty() {
            self.shared.refused_unavailable.fetch_add(1, Ordering::Relaxed);
            return EdgeError::new(ErrorKind::Unavailable, format!("no node has function `{function}` now"));
        }
        let mut is_full = false;
        let mut first_try = None;
        let mut named = Vec::new();
        for entry in &self.entries {
            let why = self.why_not(entry, now);
            if let Some(WhyNot::Open { millis, .. }) = why {
                first_try = Some(first_try.map_or(millis, |first: u64| first.min(millis)));
            }
            is_full |= why == Some(WhyNot::Full);
            if let Some(why) = why.filter(|_| named.len() < NAMED_MAX) {
                named.push(format!("`{}` {why}", entry.candidate.node));
            }
        }
        if named.is_empty() {
            named.push("others were quicker; try again".to_owned());
        } else if self.entries.len() > named.len() {
            named.push(format!("and {} more", self.entries.len() - named.len()));
        }
        let (kind, counter) = if is_full {
            (ErrorKind::Overloaded, &self.shared.refused_full)
        } else {
            (ErrorKind::Unavailable, &self.shared.refused_unavailable)
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let error = EdgeError::new(kind, format!("no node can take a call of function `{function}` now: {}", named.join(", ")));
        match first_try.filter(|_| !is_full) {
            Some(millis) => error.with_retry_after(Duration::from_millis(millis)),
            None => error,
        }
    }
}

/// A place among the calls of a function. It is given back when it is dropped, unless a [`Picked`] has it.
struct Place<'a>(&'a Route);

impl<'a> Place<'a> {
    fn take(route: &'a Route) -> Result<Self, EdgeError> {
        let (shared, calls_max) = (&route.shared, route.resilience.bulkhead.calls_max());
        if shared.in_flight.fetch_add(1, Ordering::Relaxed) >= calls_max {
            shared.in_flight.fetch_sub(1, Ordering::Relaxed);
            shared.refused_full.fetch_add(1, Ordering::Relaxed);
            let message = format!("function `{}` has as many calls under way as it may, {calls_max}; try again later", route.function);
            return Err(EdgeError::new(ErrorKind::Overloaded, message));
        }
        Ok(Self(route))
    }

    /// Leaves the place to the call that has it.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
