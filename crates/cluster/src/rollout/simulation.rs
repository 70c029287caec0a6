//! Rollouts under every fault at once: a hub that crashes between what it keeps and what it orders, nodes that go away, hold and restart, a
//! network that loses and reorders what they report, people who change their minds, and revisions that do badly in each way; driven by a seed.
//! The same seed gives the same run.
//!
//! What must hold is checked against what the nodes really run, kept beside the decisions and not through them.

mod check;
mod fault;
mod hub;
mod node;
mod world;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use self::{fault::Fault, world::World};
use crate::planted::{self, Bug};

/// Seeds of the default run.
const SEEDS: u64 = 10_000;
/// Within so many seeds each planted bug must be found.
const SEEDS_TO_CATCH: u64 = 2_000;

/// Runs a seed; an error is what did not hold.
fn run(seed: u64) -> Result<BTreeMap<Fault, u64>, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed);
        world.is_traced = std::env::var_os("EDGEWARD_SIMULATION_TRACE").is_some();
        let outcome = world.run();
        world.trace.iter().for_each(|line| println!("{line}"));
        outcome.map_err(|why| format!("at {}: {why} {:?}", world.now, world.faults.keys().collect::<Vec<_>>())).map(|()| world.faults)
    }));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("without a text")))
    })
}

/// Runs seeds on all processors; returns the faults that they had, and the seeds that failed.
fn run_all(seeds: std::ops::Range<u64>, bug: Option<Bug>, stop_at_first: bool) -> (BTreeMap<Fault, u64>, Vec<(u64, String)>) {
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = thread::scope(|scope| {
        let work = || {
            planted::plant(bug);
            let (mut faults, mut failed) = (BTreeMap::<Fault, u64>::new(), Vec::new());
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return (faults, failed);
                }
                match run(seed) {
                    Ok(known) => {
                        assert!(known.len() >= 3, "seed {seed} has {known:?}");
                        for fault in known.into_keys() {
                            *faults.entry(fault).or_default() += 1;
                        }
                    }
                    Err(why) => {
                        failed.push((seed, why));
                        if stop_at_first {
                            next.store(seeds.end, Ordering::Relaxed);
                        }
                    }
                }
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().expect("a run does not panic")).collect()
    });
    let (mut faults, mut failed) = (BTreeMap::<Fault, u64>::new(), Vec::new());
    for (seen, why) in results {
        for (fault, count) in seen {
            *faults.entry(fault).or_default() += count;
        }
        failed.extend(why);
    }
    failed.sort();
    (faults, failed)
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("EDGEWARD_SIMULATION_SEED").unwrap_or(0);
    first..first + number("EDGEWARD_SIMULATION_SEEDS").unwrap_or(SEEDS)
}

#[test]
fn alone_every_seed_ends_where_it_should() {
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    let (faults, failed) = run_all(seeds, None, false);
    for (fault, seen) in &faults {
        println!("{fault:?}: in {seen} of {count} seeds");
    }
    for (seed, why) in failed.iter().take(60) {
        println!("seed {seed}: {why}");
    }
    assert!(failed.is_empty(), "{} of {count} seeds failed, the first is {}: {}", failed.len(), failed[0].0, failed[0].1);
    if count >= 1000 {
        for fault in Fault::ALL {
            let seen = faults.get(&fault).copied().unwrap_or(0);
            assert!(seen * 20 >= count, "{fault:?} was in {seen} of {count} seeds, which is too few");
        }
    }
}

#[test]
fn alone_every_planted_bug_is_found() {
    let only = std::env::var("EDGEWARD_SIMULATION_BUG").ok();
    let mut missed = Vec::new();
    for bug in Bug::OF_ROLLOUTS {
        if only.as_ref().is_some_and(|only| *only != format!("{bug:?}")) {
            continue;
        }
        let (_, failed) = run_all(0..SEEDS_TO_CATCH, Some(bug), true);
        match failed.first() {
            Some((seed, why)) => println!("{bug:?}: seed {seed}: {why}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_TO_CATCH} seeds: {missed:?}");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..20 {
        let trace = || {
            let mut world = World::new(seed);
            world.is_traced = true;
            world.run().expect("holds");
            world.trace
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
