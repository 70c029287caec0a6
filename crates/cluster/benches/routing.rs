//! What routing a call costs, in nanoseconds: its plan, the choice of a node and what is told of the attempt. Run by hand:
//! `cargo bench -p edgeward-cluster --bench routing -- run`.

use std::{
    thread,
    time::{Duration, Instant},
};

use edgeward_cluster::{
    Router,
    routing::{Candidate, RouteSpec, Terms},
};
use edgeward_model::{Balance, EdgeError, EdgeNode, FunctionId, Resilience};

const WARM_UP_CALLS: u64 = 100_000;
const CALLS: u64 = 2_000_000;

fn main() -> Result<(), EdgeError> {
    // As `cargo test --benches` calls it there is nothing to do.
    if !std::env::args().any(|argument| argument == "run") {
        return Ok(());
    }
    let function = FunctionId::new("function-of-the-benchmark")?;
    let router = |balance, local: bool, nodes: usize| -> Result<Router, EdgeError> {
        let router = Router::new(None, Instant::now());
        let mut candidates = Vec::new();
        for index in 0..nodes {
            let node = EdgeNode::new(format!("node-{index}"), "node")?;
            candidates.push(if local && index == 0 { Candidate::local(&node, false) } else { Candidate::far(&node, false) });
        }
        let resilience = Resilience { balance, ..Resilience::default() };
        router.set(function.clone(), RouteSpec { resilience, timeout: Duration::from_secs(30), candidates })?;
        // Others are known too.
        for index in 0..200 {
            let candidates = vec![Candidate::far(&EdgeNode::new("other", "node")?, false)];
            let spec = RouteSpec { resilience: Resilience::default(), timeout: Duration::from_secs(30), candidates };
            router.set(FunctionId::new(format!("other-{index}"))?, spec)?;
        }
        Ok(router)
    };
    let local = router(Balance::PowerOfTwo, true, 3)?;
    let tell = |what: &str, nanos: f64| println!("{what}: {nanos:.0} ns");
    tell("two readings of the clock, which are part of each line", clock());
    tell("local, pick and outcome", calls(&local, &function, false));
    tell("local, plan, pick and outcome", calls(&local, &function, true));
    tell("the same by two threads at once", by_two_threads(&local, &function));
    for balance in Balance::ALL {
        tell(&format!("far, {balance} of 3, plan, pick and outcome"), calls(&router(balance, false, 3)?, &function, true));
    }
    tell("far, power_of_two of 10,000", calls(&router(Balance::PowerOfTwo, false, 10_000)?, &function, true));
    Ok(())
}

fn clock() -> f64 {
    let begun = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box((Instant::now(), Instant::now()));
    }
    begun.elapsed().as_nanos() as f64 / CALLS as f64
}

/// The mean over many calls, each of which ends at once.
fn calls(router: &Router, function: &FunctionId, is_planned: bool) -> f64 {
    let mut begun = Instant::now();
    for number in 0..WARM_UP_CALLS + CALLS {
        if number == WARM_UP_CALLS {
            begun = Instant::now();
        }
        let now = Instant::now();
        let plan = is_planned.then(|| router.plan(function, Terms::default(), now).expect("it is known"));
        let picked = router.pick(function, plan.as_ref().map_or(&[], |plan| plan.tried()), now, number).expect("there is a node");
        std::hint::black_box(picked.node());
        picked.succeed(Instant::now());
    }
    begun.elapsed().as_nanos() as f64 / CALLS as f64
}

fn by_two_threads(router: &Router, function: &FunctionId) -> f64 {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| calls(router, function, true))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).fold(0.0, f64::max)
    })
}
