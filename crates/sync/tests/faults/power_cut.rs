//! A power cut: whatever the disk was not told to keep is gone. What was acknowledged before it is there.
//!
//! The store lies on a file system of its own, which is shut down under it. A store whose syncs do nothing must lose
//! changes by that, or the test would show nothing.

use std::{path::Path, process::Command};

use edgeward_model::{EdgeError, Object, Value};
use edgeward_sync::EdgeSynchronizer;

use crate::{
    changes::dots,
    child, cut,
    mount::{self, Mount},
};

const CHILD: &str = "power_cut::child_that_patches_until_its_disk_is_gone";
const KEYS: u64 = 7;

/// What is left after a power cut.
struct Cut {
    /// Changes that were acknowledged before it.
    acknowledged: u64,
    /// Changes that are there: the first so many.
    found: Result<u64, EdgeError>,
}

fn patch(n: u64) -> Object {
    Object::from_iter([(format!("k{}", n % KEYS), Value::from(n.cast_signed()))])
}

/// Patches without end, and tells which patches were acknowledged.
#[test]
fn child_that_patches_until_its_disk_is_gone() {
    let Some(folder) = child::store() else { return };
    let sync = EdgeSynchronizer::open(folder).expect("opens");
    child::tell(&format!("process {}", std::process::id()));
    for n in 1.. {
        // The error is the power cut.
        let Ok(state) = sync.patch_local(patch(n)) else { return };
        assert_eq!(state.version, n);
        child::tell(&format!("acknowledged {n}"));
    }
}

/// How many changes the store holds. Fails when they are not the first ones, whole.
fn changes_in(folder: &Path) -> Result<u64, EdgeError> {
    let sync = EdgeSynchronizer::open(folder)?;
    let Some(state) = sync.get_local_state()? else { return Ok(0) };
    let expected = (1..=state.version).rev().take(usize::try_from(KEYS).expect("small")).flat_map(|n| patch(n).0);
    assert_eq!(state.data.0, expected.collect(), "version {} is not of the first changes", state.version);
    assert_eq!(sync.get_pending_changes()?.last().expect("some").version, state.version);
    Ok(state.version)
}

/// Lets a child patch, cuts the power after it acknowledged so many changes, and looks at what is left.
fn cut_after(changes: usize, start: impl FnOnce(&Path) -> Command) -> Cut {
    let mut disk = Mount::image(48);
    let folder = disk.folder().join("store");
    let acknowledged = cut::after(changes, &disk, start(&folder));
    let before = acknowledged.last().expect("one at least").parse().expect("a number");
    disk.mount_again();
    let found = changes_in(&folder);
    if found.as_ref().is_ok_and(|found| *found >= before) {
        let sync = EdgeSynchronizer::open(&folder).expect("opens");
        sync.patch_local(patch(0)).expect("it goes on");
        dots(&folder);
    }
    Cut { acknowledged: before, found }
}

/// Cuts the power so many times, at different moments: around the times that the log goes into the database.
fn nothing_is_lost(trials: usize) {
    if !mount::is_allowed() {
        return;
    }
    for trial in 0..trials {
        let Cut { acknowledged, found } = cut_after(1 + trial * 13 % 151, |folder| child::command(CHILD, folder));
        let found = found.unwrap_or_else(|error| panic!("the store does not open after a power cut: {}", error.chain()));
        assert!(found >= acknowledged, "{acknowledged} changes were acknowledged before the power cut, {found} are there");
        eprintln!("acknowledged {acknowledged}, found {found}");
    }
}

#[test]
fn no_acknowledged_change_is_lost_to_a_power_cut() {
    nothing_is_lost(5);
}

#[test]
fn long_no_acknowledged_change_is_lost_to_a_hundred_power_cuts() {
    nothing_is_lost(100);
}

#[test]
fn a_power_cut_takes_what_a_store_without_syncs_acknowledged() {
    if !mount::is_allowed() {
        return;
    }
    let log = tempfile::NamedTempFile::new().expect("temp file");
    let lost = (0..5).any(|trial| {
        let without_syncs = |folder: &Path| {
            // With syncs, so that a store is there whatever the child does.
            assert_eq!(changes_in(folder).expect("opens"), 0);
            child::traced(CHILD, folder, log.path(), Some("fsync,fdatasync:retval=0"))
        };
        let Cut { acknowledged, found } = cut_after(20 + trial, without_syncs);
        eprintln!("acknowledged {acknowledged}, found {found:?}");
        !found.is_ok_and(|found| found >= acknowledged)
    });
    assert!(lost, "the power cuts of these tests take nothing, so that they show nothing");
}
