//! A full disk: the message says so, reads go on, nothing acknowledged is lost, and changes work again with some space.

use std::fs;

use edgeward_model::{EdgeError, ErrorKind, Object, Value};
use edgeward_sync::EdgeSynchronizer;

use crate::{
    changes::{Dots, assert_same, remember, seen},
    mount::{self, Mount},
};

const DISK_KIB: u32 = 1024;

fn assert_says_full(error: &EdgeError) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(error.to_string().contains("the disk is full; free some space"), "{error}");
}

/// Makes one more change, of a store that only grows, and then the same in its mirror.
fn make(sync: &EdgeSynchronizer, mirror: &EdgeSynchronizer, made: &mut usize, bytes: usize) -> Result<(), EdgeError> {
    assert!(*made < 300, "the disk does not fill");
    let patch = Object::from_iter([(format!("k{made}"), Value::from("x".repeat(bytes)))]);
    sync.patch_local(patch.clone())?;
    mirror.patch_local(patch).expect("nothing fails in memory");
    *made += 1;
    Ok(())
}

#[test]
fn on_a_full_disk_changes_fail_clearly_and_reads_go_on() {
    if !mount::is_allowed() {
        return;
    }
    // Different fillings, so that the disk is full at different moments: in the log, in the database, in its index.
    for filler_kib in [400, 500, 604, 650, 700, 716, 732, 760] {
        let disk = Mount::small(DISK_KIB);
        let (folder, filler) = (disk.folder().join("store"), disk.folder().join("filler"));
        fs::write(&filler, vec![1; filler_kib << 10]).expect("there is space at first");
        let mut sync = EdgeSynchronizer::open(&folder).expect("there is space at first");
        // What was acknowledged.
        let mirror = EdgeSynchronizer::new();
        let (mut made, mut history) = (0, Dots::new());
        for left_kib in [filler_kib / 2, 0] {
            // Large ones first, until not even a small one fits.
            for bytes in [20_000, 3000, 10] {
                let error = loop {
                    if let Err(error) = make(&sync, &mirror, &mut made, bytes) {
                        break error;
                    }
                };
                assert_says_full(&error);
                assert_same(&seen(&sync), &seen(&mirror), "on the full disk");
            }
            remember(&mut history, &folder);
            if left_kib == 0 {
                // Closing may find no space for the log either, and opening none for its index.
                drop(sync);
                match EdgeSynchronizer::open(&folder) {
                    Ok(again) => assert_same(&seen(&again), &seen(&mirror), "opened on the full disk"),
                    Err(error) => assert_says_full(&error),
                }
                fs::remove_file(&filler).expect("removed");
                sync = EdgeSynchronizer::open(&folder).expect("there is space again");
            } else {
                fs::write(&filler, vec![1; left_kib << 10]).expect("a smaller one fits");
            }
            make(&sync, &mirror, &mut made, 2000).expect("there is space again");
            remember(&mut history, &folder);
            assert_same(&seen(&sync), &seen(&mirror), "with space again");
        }
        drop(sync);
        assert_same(&seen(&EdgeSynchronizer::open(&folder).expect("opens")), &seen(&mirror), "opened again");
        remember(&mut history, &folder);
    }
}

#[test]
fn a_store_that_finds_no_space_at_its_first_opening_says_so() {
    if !mount::is_allowed() {
        return;
    }
    let mut failures = 0;
    for free_kib in (0..80).step_by(4) {
        let disk = Mount::small(DISK_KIB);
        let (folder, filler) = (disk.folder().join("store"), disk.folder().join("filler"));
        fs::write(&filler, vec![1; (DISK_KIB as usize - free_kib) << 10]).expect("it fits exactly");
        match EdgeSynchronizer::open(&folder) {
            Ok(_) => {}
            Err(error) => {
                failures += 1;
                assert_says_full(&error);
            }
        }
        fs::remove_file(&filler).expect("removed");
        let sync = EdgeSynchronizer::open(&folder).expect("there is space again");
        make(&sync, &EdgeSynchronizer::new(), &mut 0, 2000).expect("changes");
    }
    assert!(failures > 3, "the disk was full only {failures} times");
}
