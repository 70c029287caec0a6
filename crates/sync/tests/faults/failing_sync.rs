//! A disk that fails for a while: what fails is not acknowledged, reads go on, and so do changes when the cause is gone.

use crate::{
    changes::{Dots, assert_same, changes, dots, expected, remember, seen},
    child,
};
use edgeward_sync::EdgeSynchronizer;

const CHILD: &str = "failing_sync::child_that_tries_again_what_fails";
/// More than the faults of one run.
const ATTEMPTS_MAX: usize = 10;

/// Makes each change until it works, and looks at the store after each attempt.
#[test]
fn child_that_tries_again_what_fails() {
    let Some(folder) = child::store() else { return };
    let mut faults = 0;
    let open = || {
        for _ in 0..ATTEMPTS_MAX {
            match EdgeSynchronizer::open(&folder) {
                Ok(sync) => return sync,
                Err(error) => child::tell(&format!("fault {}", error.chain())),
            }
        }
        panic!("the store does not open after the cause is gone");
    };
    let changes = changes();
    let expected = expected(&changes);
    let mut history = Dots::new();
    let mut sync = open();
    for (index, change) in changes.iter().enumerate() {
        // An opening in the middle.
        if index == 6 {
            drop(sync);
            sync = open();
        }
        loop {
            assert_same(&seen(&sync), &expected[index], "before a change");
            match change.apply(&sync) {
                Ok(()) => break,
                Err(error) => {
                    child::tell(&format!("fault {}", error.chain()));
                    faults += 1;
                    assert!(faults < ATTEMPTS_MAX, "it does not work after the cause is gone: {}", error.chain());
                }
            }
        }
        assert_same(&seen(&sync), &expected[index + 1], "after a change");
        remember(&mut history, &folder);
    }
    drop(sync);
    let sync = open();
    assert_same(&seen(&sync), &expected[changes.len()], "opened again");
    remember(&mut history, &folder);
}

/// Runs the child with these faults and returns how many it heard of.
fn faults(injection: &str) -> usize {
    let place = tempfile::tempdir().expect("temp folder");
    let folder = place.path().join("store");
    let output = child::run(&mut child::traced(CHILD, &folder, &place.path().join("calls"), Some(injection)));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{injection}: {told}{}", String::from_utf8_lossy(&output.stderr));
    dots(&folder);
    let faults: Vec<_> = told.lines().filter_map(child::told).filter(|line| line.starts_with("fault ")).collect();
    let says_why = |fault: &&str| !injection.contains("ENOSPC") || fault.contains("the disk is full");
    assert!(faults.iter().all(says_why), "{injection}: {faults:?}");
    faults.len()
}

#[test]
fn a_change_whose_sync_fails_is_not_acknowledged_and_works_again_later() {
    let syncs = child::count(CHILD, "fsync");
    assert!(syncs > changes().len(), "{syncs} syncs do not cover the changes");
    let heard: usize = (1..=syncs).map(|n| faults(&format!("fsync,fdatasync:error=EIO:when={n}"))).sum();
    // A log that does not go into the database fails nobody's change: it is durable in the log.
    assert!(heard >= changes().len(), "{heard} of {syncs} failed syncs were heard of");
    // A disk that fails for longer.
    for n in (2..=syncs).step_by(6) {
        assert!(faults(&format!("fsync,fdatasync:error=EIO:when={n}..{}", n + 4)) > 0);
    }
    eprintln!("{syncs} syncs failed, one each run, and {heard} failures were told to the caller");
}

#[test]
fn long_a_change_whose_write_fails_is_not_acknowledged_and_works_again_later() {
    for error in ["EIO", "ENOSPC"] {
        for call in ["pwrite64", "ftruncate"] {
            let calls = child::count(CHILD, call);
            let heard: usize = (1..=calls).step_by(5).map(|n| faults(&format!("{call}:error={error}:when={n}"))).sum();
            eprintln!("of {calls} times {call} each fifth failed with {error}, one each run, and {heard} failures were told to the caller");
        }
    }
}
