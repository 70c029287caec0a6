//! What is acknowledged is durable, and the store opens after every crash: shown by injected faults.
//!
//! System calls are made to fail with strace, disks are mounted for the test; the latter needs root. Each test works in
//! folders and on mounts of its own, which go when it ends.

mod changes;
mod child;
mod cut;
mod damage;
mod failing_sync;
mod full_disk;
mod killed;
mod mount;
mod power_cut;
