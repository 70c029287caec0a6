//! A full disk, and one that may not be written: a clear error, nothing half, and the data stays.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    thread,
};

use edgeward::{
    EdgeError, ErrorKind,
    backup::{create, restore},
};
use rustix::{
    fs::Uid,
    mount::{MountFlags, mount_remount},
    thread::set_thread_uid,
};

use crate::{
    mount::{self, Mount},
    support::{NOW, backed_up, deploy, functions},
};

const DISK_KIB: u32 = 1024;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).expect("there").map(|entry| entry.expect("readable").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

fn assert_says_full(error: &EdgeError) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(error.to_string().contains("the disk is full; free some space"), "{error}");
}

#[test]
fn a_backup_or_restore_on_a_full_disk_fails_clearly_and_leaves_nothing() {
    if !mount::is_allowed() {
        return;
    }
    let place = tempfile::tempdir().expect("temp folder");
    let (data, whole) = backed_up(place.path());
    let (mut failed, mut done) = (0, 0);
    for free_kib in (0..400).step_by(8) {
        let disk = Mount::small(DISK_KIB);
        let folder = disk.folder();
        fs::write(folder.join("filler"), vec![1; (DISK_KIB as usize - free_kib) << 10]).expect("it fits exactly");
        for (name, result) in [
            ("backup", create(&data, &folder.join("backup"), NOW, |_| {}).map(drop)),
            ("restored", restore(&whole, &folder.join("restored"), false, NOW, |_| {}).map(drop)),
        ] {
            match result {
                Ok(()) => done += 1,
                Err(error) => {
                    failed += 1;
                    assert_says_full(&error);
                    assert_eq!(names(&folder).iter().filter(|found| found.starts_with(name)).count(), 0, "{:?}", names(&folder));
                }
            }
        }
    }
    assert!(failed > 5 && done > 5, "{failed} failed, {done} were done");
    assert_eq!(functions(&data), ["a"]);
}

/// Runs `work` in a thread that has the rights of nobody.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            set_thread_uid(Uid::from_raw(65_534)).expect("root may");
            work()
        });
        worker.join().expect("it ends")
    })
}

#[test]
fn who_may_not_read_or_write_is_told_and_leaves_nothing() {
    if !mount::is_allowed() {
        return;
    }
    let place = tempfile::tempdir().expect("temp folder");
    let (data, whole) = backed_up(place.path());
    let free = place.path().join("free");
    fs::create_dir(&free).expect("made");
    for open in [place.path(), &free] {
        fs::set_permissions(open, Permissions::from_mode(0o755)).expect("set");
    }
    chown(&free, Some(65_534), None).expect("root may");
    let refused = |what: &str, words: &[&str], work: &(dyn Fn() -> Result<(), EdgeError> + Sync)| {
        let error = as_nobody(work).expect_err(what);
        assert!(words.iter().all(|words| error.chain().contains(words)), "{what}: {}", error.chain());
        assert!(names(&free).is_empty() && names(place.path()) == ["backup", "data", "free"], "{what}");
    };
    let back_up = || create(&data, &free.join("backup"), NOW, |_| {}).map(drop);
    refused("the data", &["failed to open the store", "Permission denied"], &back_up);
    refused("the backup", &["failed to read the backup", "Permission denied"], &|| {
        restore(&whole, &free.join("data"), false, NOW, |_| {}).map(drop)
    });
    for (path, mode) in [("", 0o755), ("documents", 0o755), ("documents/documents.sqlite3", 0o644)] {
        fs::set_permissions(data.join(path), Permissions::from_mode(mode)).expect("set");
        fs::set_permissions(whole.join(path), Permissions::from_mode(mode)).expect("set");
    }
    refused("a store that may only be read", &["which needs the right to write there"], &back_up);
    assert_eq!(functions(&data), ["a"]);
}

#[test]
fn a_place_that_may_not_be_written_is_named_and_the_data_stays() {
    if !mount::is_allowed() {
        return;
    }
    let place = tempfile::tempdir().expect("temp folder");
    let (data, whole) = backed_up(place.path());
    let disk = Mount::small(DISK_KIB);
    deploy(&disk.folder().join("data"), "old");
    // A mount point is none of the folders that can be put in place.
    let error = restore(&whole, &disk.folder(), true, NOW, |_| {}).expect_err("no data folder");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
    mount_remount(disk.folder(), MountFlags::RDONLY, "").expect("remounts");
    for error in [
        create(&data, &disk.folder().join("backup"), NOW, |_| {}).expect_err("read-only"),
        restore(&whole, &disk.folder().join("data"), true, NOW, |_| {}).expect_err("read-only"),
    ] {
        let path = disk.folder().display().to_string();
        assert!(error.chain().contains("Read-only file system") && error.to_string().contains(&path), "{}", error.chain());
    }
    assert_eq!(names(&disk.folder()), ["data"]);
    mount_remount(disk.folder(), MountFlags::empty(), "").expect("remounts");
    assert_eq!(functions(&disk.folder().join("data")), ["old"]);
}
