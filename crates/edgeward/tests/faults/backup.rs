//! A process that dies while it backs up or restores leaves what was there, or all of the new.

use std::{fs, path::Path};

use edgeward::backup::{create, restore};
use jiff::Timestamp;
use tempfile::TempDir;

use crate::{
    child,
    support::{NOW, copied, count, deploy, functions, killed_at},
};

const RESTORING: &str = "backup::child_that_restores";
const CREATING: &str = "backup::child_that_backs_up";
const NEW: [&str; 2] = ["new", "newer"];
const REPLACED: &str = "data.replaced-19700101T000000Z";

#[test]
fn child_that_restores() {
    let Some(folder) = child::store() else { return };
    restore(&folder.join("backup"), &folder.join("data"), true, NOW, |_| {}).expect("restores");
}

#[test]
fn child_that_backs_up() {
    let Some(folder) = child::store() else { return };
    create(&folder.join("data"), &folder.join("target"), NOW, |_| {}).expect("backs up");
}

/// A data folder with the function `old`, where it is to be there, and the backup of another with `new` and `newer`.
fn template(with_old: bool) -> TempDir {
    let place = tempfile::tempdir().expect("temp folder");
    let path = |name: &str| place.path().join(name);
    for id in ["new", "newer"] {
        deploy(&path("data"), id);
    }
    create(&path("data"), &path("backup"), NOW, |_| {}).expect("backs up");
    fs::remove_dir_all(path("data")).expect("there");
    if with_old {
        deploy(&path("data"), "old");
    }
    place
}

/// Kills a restore at each of these calls, and restores again afterwards. Returns how often the old folder was left.
fn sweep(template: &Path, before: &[&str], call: &str) -> (usize, usize) {
    let calls = count(RESTORING, template, call);
    let mut found = Vec::new();
    for n in 1..=calls {
        let (place, killed) = killed_at(RESTORING, template, call, n);
        assert!(killed, "call {n} of {call}");
        let data = copied(&place, "data");
        let after = functions(&data);
        assert!(after == before || after == NEW, "killed at call {n} of {call}: {after:?}");
        found.push(after == NEW);
        let again = restore(&copied(&place, "backup"), &data, true, Timestamp::MAX, |_| {});
        if let Err(error) = again {
            // What was replaced has not got its name: it is not lost.
            let old = copied(&place, "data.unfinished");
            assert!(error.to_string().contains("is in the way") && after == NEW, "call {n} of {call}: {}", error.chain());
            assert_eq!(functions(&old), before);
        } else {
            assert_eq!(functions(&data), NEW, "restored after a kill at call {n} of {call}");
        }
    }
    assert!(found.is_sorted(), "{call}: a later kill, an earlier state: {found:?}");
    let (place, killed) = killed_at(RESTORING, template, call, calls + 1);
    assert!(!killed && functions(&copied(&place, "data")) == NEW, "there are no more calls");
    assert_eq!(functions(&copied(&place, REPLACED)), before);
    let old = found.iter().filter(|is_new| !**is_new).count();
    eprintln!("killed at {calls} calls of {call}: {old} times the old folder was left");
    (old, calls)
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_folder_or_the_new_one_whole() {
    let template = template(true);
    let (old, all) = sweep(template.path(), &["old"], "fsync");
    assert!(old > 10 && old < all, "{old} of {all}");
    for call in ["rename", "renameat2"] {
        sweep(template.path(), &["old"], call);
    }
}

#[test]
fn a_restore_into_nothing_that_is_killed_leaves_nothing_or_the_whole() {
    let template = template(false);
    let (nothing, all) = sweep(template.path(), &[], "fsync");
    assert!(nothing > 10 && nothing < all, "{nothing} of {all}");
}

#[test]
fn a_backup_that_is_killed_is_complete_or_absent_and_the_data_stays() {
    let template = tempfile::tempdir().expect("temp folder");
    deploy(&template.path().join("data"), "a");
    let calls = count(CREATING, template.path(), "fsync");
    assert!(calls > 8, "{calls}");
    let mut complete = 0;
    for n in 1..=calls {
        let (place, _) = killed_at(CREATING, template.path(), "fsync", n);
        let (data, target, restored) = (copied(&place, "data"), copied(&place, "target"), copied(&place, "restored"));
        assert_eq!(functions(&data), ["a"], "killed at sync {n}");
        if target.exists() {
            complete += 1;
        } else {
            create(&data, &target, NOW, |_| {}).unwrap_or_else(|error| panic!("after a kill at sync {n}: {}", error.chain()));
        }
        restore(&target, &restored, false, NOW, |_| {}).unwrap_or_else(|error| panic!("killed at sync {n}: {}", error.chain()));
        assert_eq!(functions(&restored), ["a"]);
    }
    assert!(complete > 0 && complete < calls, "{complete} of {calls}");
}
