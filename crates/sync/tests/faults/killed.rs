//! A process that dies at exactly the nth sync or write: what it acknowledged is there, and one more change at most.

use std::fs;

use edgeward_model::Object;
use edgeward_sync::EdgeSynchronizer;

use crate::{
    changes::{Seen, assert_same, changes, dots, expected, seen},
    child,
};

const CHILD: &str = "killed::child_that_makes_the_changes";

/// Makes the changes, with an opening in the middle and one at the end, and tells which were acknowledged.
#[test]
fn child_that_makes_the_changes() {
    let Some(folder) = child::store() else { return };
    let open = || EdgeSynchronizer::open(&folder).expect("opens");
    let mut sync = open();
    for (index, change) in changes().iter().enumerate() {
        if index == 6 {
            drop(sync);
            sync = open();
        }
        change.apply(&sync).expect("changes");
        child::tell(&format!("acknowledged {}", index + 1));
    }
    drop(sync);
    open();
    child::tell("done");
}

/// Kills the child at these calls. Returns how many changes it told of, or none when it came to its end.
fn killed_at(call: &str, n: usize, expected: &[Seen]) -> Option<usize> {
    let place = tempfile::tempdir().expect("temp folder");
    let folder = place.path().join("store");
    let log = place.path().join("calls");
    let output = child::run(&mut child::traced(CHILD, &folder, &log, Some(&format!("{call}:signal=KILL:when={n}"))));
    let told = String::from_utf8_lossy(&output.stdout);
    let what = format!("killed at call {n} of {call}");
    let ended = told.lines().filter_map(child::told).any(|line| line == "done");
    assert!(
        ended || fs::read_to_string(&log).expect("the calls").contains("killed by SIGKILL"),
        "{what}: the child failed of itself: {told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut acknowledged = told.lines().filter_map(child::told).filter_map(|line| line.strip_prefix("acknowledged "));
    let acknowledged = acknowledged.next_back().map_or(0, |count| count.parse::<usize>().expect("a number"));
    let sync = EdgeSynchronizer::open(&folder).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let found = seen(&sync);
    // One more may be there without a word of it.
    if expected.get(acknowledged + 1) != Some(&found) {
        assert_same(&found, &expected[acknowledged], &what);
    }
    sync.patch_local(Object::from_iter([("after", true)])).expect("it goes on");
    dots(&folder);
    (!ended).then_some(acknowledged)
}

/// Sweeps over the calls of this kind, every `step`th.
fn sweep(call: &str, step: usize) {
    let expected = expected(&changes());
    let calls = child::count(CHILD, call);
    assert!(calls > changes().len(), "{calls} calls of {call} do not cover the changes");
    let kills = (1..=calls).step_by(step);
    let acknowledged: Vec<_> = kills.map(|n| killed_at(call, n, &expected).expect("it was killed")).collect();
    assert!(acknowledged.is_sorted(), "a later kill, fewer changes: {acknowledged:?}");
    assert!(acknowledged.first() == Some(&0) && acknowledged.last() >= Some(&(changes().len() - 1)), "{acknowledged:?}");
    assert_eq!(killed_at(call, calls + 1, &expected), None, "there are no more calls");
    eprintln!("killed at {} of {calls} calls of {call}", acknowledged.len());
}

#[test]
fn no_acknowledged_change_is_lost_to_a_kill_at_any_sync() {
    sweep("fsync", 1);
}

#[test]
fn no_acknowledged_change_is_lost_to_a_kill_at_a_write() {
    sweep("pwrite64", 23);
}

#[test]
fn long_no_acknowledged_change_is_lost_to_a_kill_at_any_write() {
    sweep("pwrite64", 1);
}
