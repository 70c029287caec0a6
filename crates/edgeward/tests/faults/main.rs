//! A data folder after every crash and on a failing disk: moved, backed up, restored, changed. Shown by injected faults.
//!
//! System calls are made to fail with strace, disks are mounted for the test; the latter needs root.

mod backup;
#[path = "../../../sync/tests/faults/child.rs"]
#[expect(dead_code, reason = "the tests of the store use the rest")]
mod child;
mod desired;
mod full_disk;
#[path = "../../../sync/tests/faults/mount.rs"]
mod mount;
mod power_cut;
mod rollout;
mod support;
