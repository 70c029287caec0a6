//! What is acknowledged is durable, and the log opens after every crash: shown by injected faults.
//!
//! Disks are mounted for the test, which needs root; the harness is that of the store's tests.

#[path = "../../../sync/tests/faults/child.rs"]
#[expect(dead_code, reason = "the tests of the store use the rest")]
mod child;
#[path = "../../../sync/tests/faults/cut.rs"]
mod cut;
mod full_disk;
mod killed;
#[path = "../../../sync/tests/faults/mount.rs"]
mod mount;
mod power_cut;
