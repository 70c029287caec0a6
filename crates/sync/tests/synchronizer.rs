//! The specification's face, in memory and on disk: versions, pending changes, remote states, contention, and what survives.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use edgeward_model::{ErrorKind, Object, SyncState, Value, limits::PENDING_CHANGES_MAX, python_json};
use edgeward_sync::{EdgeSynchronizer, PendingChange};

fn object(text: &str) -> Object {
    match python_json::read(text).expect(text) {
        Value::Object(object) => object,
        other => panic!("{other:?} is no object"),
    }
}

fn open(folder: &Path) -> EdgeSynchronizer {
    EdgeSynchronizer::open(folder).expect("opens")
}

fn data(sync: &EdgeSynchronizer) -> Object {
    sync.get_local_state().expect("reads").expect("a state").data
}

/// Both kinds of synchronizer, under one test.
fn on_both(test: impl Fn(&EdgeSynchronizer)) {
    test(&EdgeSynchronizer::new());
    let folder = tempfile::tempdir().expect("temp folder");
    test(&open(folder.path()));
}

#[test]
fn there_is_no_state_before_the_first_and_then_each_update_is_a_version() {
    on_both(|sync| {
        assert_eq!(sync.get_local_state().expect("reads"), None);
        assert!(sync.get_pending_changes().expect("reads").is_empty());
        let first = sync.update_local(object(r#"{"sensor_data": [1, 2, 3]}"#)).expect("updates");
        assert_eq!((first.version, first.checksum.as_str()), (1, "a07817689015e9070c687774c0a350ad"));
        assert!(first.verify());
        let second = sync.update_local(object(r#"{"other": true}"#)).expect("updates");
        assert_eq!(sync.get_local_state().expect("reads"), Some(second));
        assert_eq!(data(sync), object(r#"{"other": true}"#), "keys that are not there are deleted");
        sync.update_local(object("{}")).expect("updates");
        let state = sync.get_local_state().expect("reads").expect("an empty state is one");
        assert_eq!((state.version, state.data), (3, Object::default()));
    });
}

#[test]
fn a_remote_state_is_taken_when_its_version_is_higher_and_its_checksum_right() {
    on_both(|sync| {
        sync.update_local(object(r#"{"a": 1, "b": 2}"#)).expect("updates");
        let remote = SyncState::from_data(object(r#"{"b": 3}"#), 5).expect("a state");
        assert!(sync.apply_remote(&remote).expect("applies"));
        assert!(!sync.apply_remote(&remote).expect("applies"), "the same version");
        assert!(!sync.apply_remote(&SyncState { version: 4, ..remote.clone() }).expect("applies"));
        let damaged = SyncState { version: 9, data: object(r#"{"b": 4}"#), ..remote.clone() };
        assert_eq!(sync.apply_remote(&damaged).expect_err("damaged").kind(), ErrorKind::InvalidInput);
        let endless = SyncState { version: u64::MAX, ..remote.clone() };
        assert_eq!(sync.apply_remote(&endless).expect_err("no version comes after it").kind(), ErrorKind::InvalidInput);
        let state = sync.get_local_state().expect("reads").expect("a state");
        assert_eq!((state.version, &state.data, &state.checksum), (5, &remote.data, &remote.checksum));
        assert_eq!(state.updated_at, remote.updated_at);
        assert_eq!(sync.get_pending_changes().expect("reads").len(), 1, "a remote state is not a pending change");
        assert_eq!(sync.update_local(object("{}")).expect("updates").version, 6);
    });
}

#[test]
fn pending_changes_are_listed_until_they_are_confirmed() {
    on_both(|sync| {
        for n in 1..=5_i64 {
            sync.update_local(Object::from_iter([("n", n)])).expect("updates");
        }
        sync.patch_local(object(r#"{"m": 6}"#)).expect("patches");
        let pending = || sync.get_pending_changes().expect("reads");
        let listed: Vec<_> = pending().iter().map(|change| (change.r#type.clone(), change.version)).collect();
        let expected: Vec<_> = (1..=6).map(|n| (if n == 6 { "patch" } else { "update" }.to_owned(), n)).collect();
        assert_eq!(listed, expected);
        assert_eq!((&pending()[2].data, &pending()[5].data), (&object(r#"{"n": 3}"#), &object(r#"{"m": 6}"#)));
        sync.confirm_sync(3).expect("confirms");
        assert_eq!(pending().iter().map(|change| change.version).collect::<Vec<_>>(), [4, 5, 6]);
        sync.confirm_sync(u64::MAX).expect("confirms");
        assert!(pending().is_empty());
        assert_eq!(data(sync), object(r#"{"n": 5, "m": 6}"#), "the state stays");
    });
}

#[test]
fn a_patch_changes_members_and_null_deletes() {
    on_both(|sync| {
        sync.update_local(object(r#"{"a": {"x": 1, "y": 2}, "b": 1, "c": [1]}"#)).expect("updates");
        let state = sync.patch_local(object(r#"{"a": {"x": null, "z": {"q": null}}, "b": null, "c": 2, "d": "new"}"#)).expect("patches");
        assert_eq!((state.version, &state.data), (2, &object(r#"{"a": {"y": 2, "z": {}}, "c": 2, "d": "new"}"#)));
        assert_eq!(sync.get_local_state().expect("reads"), Some(state));
    });
}

/// What the pending changes make of nothing.
fn replayed(pending: &[PendingChange]) -> Object {
    let sync = EdgeSynchronizer::new();
    for change in pending {
        let replay = if change.r#type == "update" { EdgeSynchronizer::update_local } else { EdgeSynchronizer::patch_local };
        replay(&sync, change.data.clone()).expect("replays");
    }
    data(&sync)
}

#[test]
fn past_the_bound_neighbours_become_one_and_nothing_is_dropped() {
    let most = i64::try_from(PENDING_CHANGES_MAX).expect("small");
    let patch = |n: i64| match n % 5 {
        // After a number, this cannot be said in one patch with it.
        0 => object(r#"{"k": {"deep": 1}}"#),
        1 => object(r#"{"k": null, "l": 1}"#),
        _ => Object::from_iter([("k", n), ("m", n)]),
    };
    for (changes, whole) in [(most, 0), (most + 1, 0), (2 * most + 50, 0), (most + 1, 3), (most + 1, most)] {
        let sync = EdgeSynchronizer::new();
        for n in 1..=changes {
            let change = if n == whole { EdgeSynchronizer::update_local } else { EdgeSynchronizer::patch_local };
            change(&sync, patch(n)).expect("changes");
        }
        let pending = sync.get_pending_changes().expect("reads");
        assert!(pending.len() <= PENDING_CHANGES_MAX && (changes > most) == (pending.len() < PENDING_CHANGES_MAX), "{}", pending.len());
        assert_eq!(pending.iter().map(|change| 1 + change.coalesced).sum::<u64>(), changes.unsigned_abs());
        assert!(pending.is_sorted_by_key(|change| change.version));
        assert_eq!(pending.last().expect("some").version, changes.unsigned_abs());
        assert_eq!(replayed(&pending), data(&sync));
        sync.confirm_sync(u64::MAX).expect("confirms");
        assert!(sync.get_pending_changes().expect("reads").is_empty());
    }
}

#[test]
fn where_no_two_changes_can_be_said_in_one_the_newest_becomes_the_whole_state() {
    let sync = EdgeSynchronizer::new();
    let changes = PENDING_CHANGES_MAX + 1;
    for n in 1..=changes {
        // Patches as an object what the change before made a number.
        let (number, patched) = (Value::from(1_i64), object(r#"{"deep": 1}"#).into());
        sync.patch_local(Object::from_iter([(format!("k{n}"), number), (format!("k{}", n - 1), patched)])).expect("patches");
    }
    let pending = sync.get_pending_changes().expect("reads");
    let [whole] = &pending[..] else { panic!("{} changes", pending.len()) };
    assert_eq!((whole.r#type.as_str(), whole.version, 1 + whole.coalesced), ("update", changes as u64, changes as u64));
    assert_eq!(whole.data, data(&sync));
}

#[test]
fn what_was_acknowledged_is_there_after_opening_again() {
    let folder = tempfile::tempdir().expect("temp folder");
    let before = {
        let sync = open(folder.path());
        sync.update_local(object(r#"{"a": 1, "gone": 2}"#)).expect("updates");
        sync.patch_local(object(r#"{"gone": null, "text": "grüße"}"#)).expect("patches");
        (sync.get_local_state().expect("reads"), sync.get_pending_changes().expect("reads"))
    };
    for _ in 0..3 {
        let sync = open(folder.path());
        assert_eq!((sync.get_local_state().expect("reads"), sync.get_pending_changes().expect("reads")), before);
    }
}

#[test]
fn one_store_is_open_once_and_a_foreign_database_is_left_alone() {
    let folder = tempfile::tempdir().expect("temp folder");
    let sync = open(folder.path());
    assert_eq!(EdgeSynchronizer::open(folder.path()).expect_err("in use").kind(), ErrorKind::Conflict);
    drop(sync);
    open(folder.path());
    let path = folder.path().join("documents.sqlite3");
    fs::write(&path, b"this is no database, it is a text that somebody put here").expect("written");
    let error = EdgeSynchronizer::open(folder.path()).expect_err("refused");
    assert!(error.chain().contains("not a database"), "{}", error.chain());
    assert!(fs::read(&path).expect("kept").starts_with(b"this is no database"));
}

#[test]
fn updates_from_many_threads_each_get_a_version_of_their_own() {
    on_both(|sync| {
        const THREADS: i64 = 8;
        const EACH: i64 = 50;
        let versions = std::thread::scope(|scope| {
            let update = |thread: i64| {
                let sync = sync.clone();
                move || {
                    let patch = |n| Object::from_iter([(format!("k{thread}"), Value::from(n))]);
                    (0..EACH).map(|n| sync.patch_local(patch(n)).expect("patches").version).collect::<Vec<_>>()
                }
            };
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(update(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert!(versions.iter().all(|each| each.is_sorted()));
        let all: BTreeSet<_> = versions.into_iter().flatten().collect();
        assert_eq!(all, (1..=(THREADS * EACH).unsigned_abs()).collect());
        assert_eq!(data(sync).0.len(), usize::try_from(THREADS).expect("small"));
        assert!(data(sync).0.values().all(|value| *value == Value::from(EACH - 1)));
    });
}

#[test]
fn past_a_bound_the_error_is_clear_and_nothing_is_changed() {
    on_both(|sync| {
        sync.update_local(object(r#"{"a": 1}"#)).expect("updates");
        let long_key = Object::from_iter([("k".repeat(2000), Value::from(1_i64)), ("b".to_owned(), Value::from(1_i64))]);
        assert_eq!(sync.patch_local(long_key).expect_err("a long key").kind(), ErrorKind::InvalidInput);
        let large = Object::from_iter([("b", Value::from(1_i64)), ("large", Value::from("x".repeat(300 << 10)))]);
        let error = sync.update_local(large).expect_err("a large value");
        assert!(error.kind() == ErrorKind::TooLarge && error.to_string().contains("`large`"), "{error}");
        let state = sync.get_local_state().expect("reads").expect("a state");
        assert_eq!((state.version, state.data), (1, object(r#"{"a": 1}"#)));
    });
}

/// The child of the test below: patches without end and says which patches were acknowledged.
#[test]
fn child_that_patches_until_it_is_killed() {
    let Some(folder) = std::env::var_os("EDGEWARD_TEST_STORE") else { return };
    let sync = open(Path::new(&folder));
    let mut out = std::io::stdout();
    for n in 0..i64::MAX {
        sync.patch_local(Object::from_iter([(format!("k{}", n % 7), n)])).expect("patches");
        writeln!(out, "acknowledged {n}").and_then(|()| out.flush()).expect("told");
    }
}

#[test]
fn no_acknowledged_change_is_lost_to_kill_9() {
    let this = std::env::current_exe().expect("this test");
    for trial in 0..5_u64 {
        let folder = tempfile::tempdir().expect("temp folder");
        let mut child = Command::new(&this)
            .args(["--exact", "child_that_patches_until_it_is_killed", "--nocapture"])
            .env("EDGEWARD_TEST_STORE", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut acknowledged =
            lines.map_while(Result::ok).filter_map(|line| Some(line.split_once("acknowledged ")?.1.parse::<i64>().expect("a number")));
        acknowledged.next().expect("it patches");
        std::thread::sleep(Duration::from_millis(20 + trial * 17));
        child.kill().expect("killed");
        let last = acknowledged.last().unwrap_or(0);
        child.wait().expect("ended");
        let sync = open(folder.path());
        let state = sync.get_local_state().expect("reads").expect("a state");
        // One more may have been written without a word of it.
        let version = i64::try_from(state.version).expect("small");
        assert!((last + 1..=last + 2).contains(&version), "acknowledged up to {last}, found version {version}");
        for n in (0..=last).rev().take(7) {
            let Some(Value::Integer(found)) = state.data.0.get(&format!("k{}", n % 7)) else { panic!("{n} is lost") };
            assert!(found.as_i64().expect("small") >= n, "{n} is lost");
        }
        assert_eq!(sync.get_pending_changes().expect("reads").last().expect("some").version, state.version);
    }
}
