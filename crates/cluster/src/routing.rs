//! Which node takes a call, and whether it is tried again when it fails. Decisions only: time and chance are arguments, and nothing is sent.
//!
//! A router knows of each function which nodes have it; who knows the fleet tells it. A call is planned once ([`Router::plan`]). For each
//! attempt a node is chosen ([`Router::pick`]), whoever called tells how the attempt went, and the plan says what is next
//! ([`RetryPlan::next_attempt`]). Choosing takes no lock that all calls share.

mod budget;
mod candidate;
mod choice;
mod circuit;
mod failure;
mod latency;
mod link;
mod picked;
mod random;
mod retry;
mod route;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod view;
mod window;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use edgeward_model::{
    EdgeError, ErrorKind, FunctionId, NodeId, Resilience,
    limits::{NODES_MAX, ROUTES_MAX},
};
use parking_lot::Mutex;

use self::route::{Here, Route};
pub use self::{
    candidate::{Candidate, Nearness, WEIGHT},
    circuit::BreakerState,
    failure::{CallFailure, Fault},
    picked::Picked,
    retry::{GiveUp, Leave, Next, RetryPlan, Terms},
    view::{CandidateView, ErrorView, RouteView},
};

/// What a router is told of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSpec {
    /// How its calls are routed.
    pub resilience: Resilience,
    /// How long one run of it may take.
    pub timeout: Duration,
    /// The nodes that have it.
    pub candidates: Vec<Candidate>,
}

/// Chooses nodes for calls.
#[derive(Debug)]
pub struct Router {
    here: Arc<Here>,
    routes: ArcSwap<HashMap<FunctionId, Arc<Route>>>,
    /// Held while routes change.
    changing: Mutex<()>,
}

impl Router {
    /// A router at a site, which knows of no function. `now` is when its time begins.
    pub fn new(site: Option<String>, now: Instant) -> Self {
        let here = Arc::new(Here { epoch: now, site, is_cut_off: AtomicBool::new(false) });
        Self { here, routes: ArcSwap::default(), changing: Mutex::new(()) }
    }

    /// Says which nodes have a function now, and how its calls are routed. What is known of nodes that had it before stays.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when something is past its bound, [`ErrorKind::TooLarge`] past [`ROUTES_MAX`] or [`NODES_MAX`].
    pub fn set(&self, function: FunctionId, spec: RouteSpec) -> Result<(), EdgeError> {
        self.set_all([(function, spec)]).pop().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The same of many functions, in one step. What is wrong with one keeps none of the others; returns those, with why they stay as they were.
    pub fn set_all(&self, specs: impl IntoIterator<Item = (FunctionId, RouteSpec)>) -> Vec<(FunctionId, EdgeError)> {
        let _changing = self.changing.lock();
        let mut routes = HashMap::clone(&self.routes.load());
        let mut refused = Vec::new();
        for (function, spec) in specs {
            let before = routes.get(&function);
            if let Err(error) = check(&function, &spec, before.is_none() && routes.len() >= ROUTES_MAX) {
                refused.push((function, error));
                continue;
            }
            let route = Route::new(function.clone(), spec, &self.here, before.map(Arc::as_ref));
            routes.insert(function, Arc::new(route));
        }
        self.routes.store(Arc::new(routes));
        refused
    }

    /// Forgets the functions of which this is false. Calls that are under way go on.
    pub fn retain(&self, keep: impl Fn(&FunctionId) -> bool) {
        let _changing = self.changing.lock();
        let mut routes = HashMap::clone(&self.routes.load());
        routes.retain(|function, _| keep(function));
        self.routes.store(Arc::new(routes));
    }

    /// Says whether this member is connected to the others. While it is not, only its own node takes calls.
    pub fn set_connected(&self, is_connected: bool) {
        self.here.is_cut_off.store(!is_connected, Ordering::Relaxed);
    }

    /// Plans a call: its deadline, and its part in the budget of retries.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when no such function is known, [`ErrorKind::Timeout`] when its caller has no time left.
    pub fn plan(&self, function: &FunctionId, terms: Terms, now: Instant) -> Result<RetryPlan, EdgeError> {
        let route = self.route(function)?;
        if terms.left == Some(Duration::ZERO) {
            return Err(too_late(function));
        }
        route.shared.calls.fetch_add(1, Ordering::Relaxed);
        route.shared.budget.call(route.moment(now));
        Ok(RetryPlan::new(route, terms, now))
    }

    /// Chooses a node for an attempt, one that was not tried if there is one, and takes a place there. `random` is any number.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when no such function is known, [`ErrorKind::Unavailable`] when no node can take it now,
    /// [`ErrorKind::Overloaded`] when places are missing.
    pub fn pick(&self, function: &FunctionId, tried: &[NodeId], now: Instant, random: u64) -> Result<Picked, EdgeError> {
        self.route(function)?.pick(None, tried, now, random)
    }

    /// The same for a caller at another site: those there come before others that are equally well.
    ///
    /// # Errors
    /// Those of [`pick`](Self::pick).
    pub fn pick_for(&self, site: &str, function: &FunctionId, tried: &[NodeId], now: Instant, random: u64) -> Result<Picked, EdgeError> {
        self.route(function)?.pick(Some(site), tried, now, random)
    }

    /// What people see of a function; none when it is not known.
    pub fn view(&self, function: &FunctionId, now: Instant) -> Option<RouteView> {
        self.routes.load().get(function).map(|route| RouteView::new(route, route.moment(now)))
    }

    /// What people see of all functions, by id.
    pub fn views(&self, now: Instant) -> Vec<RouteView> {
        let mut views: Vec<_> = self.routes.load().values().map(|route| RouteView::new(route, route.moment(now))).collect();
        views.sort_by(|one, other| one.function.cmp(&other.function));
        views
    }

    fn route(&self, function: &FunctionId) -> Result<Arc<Route>, EdgeError> {
        let routes = self.routes.load();
        routes.get(function).cloned().ok_or_else(|| EdgeError::function_not_found(function.as_str()))
    }
}

/// The error of a call for which there is no time left.
pub fn too_late(function: &FunctionId) -> EdgeError {
    EdgeError::new(ErrorKind::Timeout, format!("the deadline of the call of function `{function}` has passed"))
}

fn check(function: &FunctionId, spec: &RouteSpec, is_one_too_many: bool) -> Result<(), EdgeError> {
    if is_one_too_many {
        let message = format!("function `{function}` is one too many to route to, the most is {ROUTES_MAX}");
        return Err(EdgeError::new(ErrorKind::TooLarge, message));
    }
    spec.resilience.validate()?;
    spec.candidates.iter().try_for_each(Candidate::validate)?;
    if spec.candidates.len() > NODES_MAX {
        let message = format!("function `{function}` has {} nodes to call, the most is {NODES_MAX}", spec.candidates.len());
        return Err(EdgeError::new(ErrorKind::TooLarge, message));
    }
    match twice(&spec.candidates) {
        Some(node) => Err(EdgeError::invalid(format!("function `{function}` is to have node `{node}` twice"))),
        None => Ok(()),
    }
}

/// A node that is there twice.
fn twice(candidates: &[Candidate]) -> Option<&NodeId> {
    let mut seen = HashSet::new();
    candidates.iter().map(|candidate| &candidate.node).find(|node| !seen.insert(*node))
}

/// Nanoseconds of a time, which last for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
