//! A damaged disk: a clear error or what is still right, and never a panic. Of a torn log, the whole changes before the tear.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use edgeward_model::{EdgeError, ErrorKind, Object};
use edgeward_sync::EdgeSynchronizer;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::changes::{Seen, changes_of, expected, try_seen};

const DATABASE: &str = "documents.sqlite3";
const LOG: &str = "documents.sqlite3-wal";
/// Of the large values: some changes are in the database, and the others only in the log.
const BYTES: usize = 12_000;

/// A store as a kill leaves it: with changes in the database, and others only in the log.
fn killed_store() -> TempDir {
    let place = tempfile::tempdir().expect("temp folder");
    let (open, copy) = (place.path().join("open"), place.path().join("copy"));
    let sync = EdgeSynchronizer::open(&open).expect("opens");
    for change in changes_of(BYTES) {
        change.apply(&sync).expect("changes");
    }
    fs::create_dir(&copy).expect("made");
    for file in [DATABASE, LOG] {
        fs::copy(open.join(file), copy.join(file)).expect("copied");
    }
    place
}

/// The store with one of its files changed.
fn damaged(store: &TempDir, file: &str, what: &str, damage: impl FnOnce(&mut Vec<u8>)) -> Result<Seen, EdgeError> {
    check(store, &format!("{what} of {file}"), |folder| {
        let mut bytes = fs::read(folder.join(file)).expect("read");
        damage(&mut bytes);
        fs::write(folder.join(file), bytes).expect("written");
    })
}

/// Opens a damaged copy of the store, reads, and writes. Never may it panic.
fn check(store: &TempDir, what: &str, damage: impl FnOnce(&Path)) -> Result<Seen, EdgeError> {
    let place = tempfile::tempdir().expect("temp folder");
    for file in [DATABASE, LOG] {
        fs::copy(store.path().join("copy").join(file), place.path().join(file)).expect("copied");
    }
    damage(place.path());
    let found = catch_unwind(AssertUnwindSafe(|| use_all(place.path()))).unwrap_or_else(|_| panic!("{what}: it panicked"));
    if let Err(error) = &found {
        // No mistake of the caller, and no panic that a write caught.
        let chain = error.chain();
        assert!(error.kind() == ErrorKind::Internal && !chain.contains("panicked"), "{what}: {:?} {chain}", error.kind());
    }
    found
}

fn use_all(folder: &Path) -> Result<Seen, EdgeError> {
    let sync = EdgeSynchronizer::open(folder)?;
    let seen = try_seen(&sync)?;
    // Writes have more to find: an error is fine for each.
    let writes = [
        sync.patch_local(Object::from_iter([("a", 3_i64), ("k0", 1), ("k1", 1)])).map(drop),
        sync.update_local(Object::from_iter([("b", 3_i64)])).map(drop),
        sync.confirm_sync(13),
    ];
    let failed = writes.into_iter().find_map(Result::err);
    drop(sync);
    match failed {
        Some(error) => Err(error),
        None => try_seen(&EdgeSynchronizer::open(folder)?).map(|_| seen),
    }
}

/// Positions over a file: its head densely, as it says most, then one in so many.
fn positions(length: usize, step: usize) -> impl Iterator<Item = usize> {
    (0..length.min(100)).step_by(step.min(7)).chain((100..length).step_by(step))
}

fn flip_bits(step: usize) {
    let store = killed_store();
    let prefixes = expected(&changes_of(BYTES));
    for file in [LOG, DATABASE] {
        let length = fs::read(store.path().join("copy").join(file)).expect("read").len();
        let (mut right, mut refused, mut different) = (0, 0, 0);
        for position in positions(length, step) {
            let mask = [0x01, 0x80, 0xff][position % 3];
            match damaged(&store, file, &format!("byte {position} ^ {mask:#x}"), |bytes| bytes[position] ^= mask) {
                Ok(seen) if prefixes.contains(&seen) => right += 1,
                Ok(_) => different += 1,
                Err(_) => refused += 1,
            }
        }
        eprintln!("{file}: {right} times a right state, {refused} times an error, {different} times wrong data");
        // The frames of the log have checksums; the pages of the database have none.
        assert!(file != LOG || (different == 0 && right > refused), "the log does not notice damage");
    }
}

fn cut_tails(step: usize) {
    let store = killed_store();
    let prefixes = expected(&changes_of(BYTES));
    for file in [LOG, DATABASE] {
        let length = fs::read(store.path().join("copy").join(file)).expect("read").len();
        let mut before = 0;
        for length in positions(length, step) {
            let found = damaged(&store, file, &format!("the first {length} bytes"), |bytes| bytes.truncate(length));
            if file == LOG {
                let found = found.unwrap_or_else(|error| panic!("a log of {length} bytes: {}", error.chain()));
                let prefix = prefixes.iter().position(|prefix| *prefix == found);
                let prefix = prefix.unwrap_or_else(|| panic!("a log of {length} bytes shows no state that there was"));
                assert!(prefix >= before, "a longer log shows an earlier state");
                before = prefix;
            }
        }
        assert!(file != LOG || before >= prefixes.len() - 2, "the whole log holds the last changes, not only {before}");
    }
}

#[test]
fn flipped_bits_give_an_error_or_a_state_and_never_a_panic() {
    flip_bits(3001);
}

#[test]
fn a_torn_file_gives_an_error_or_an_earlier_state_and_never_a_panic() {
    cut_tails(5003);
}

/// Damage that SQLite does not notice.
#[test]
fn numbers_and_texts_that_nobody_wrote_give_an_error_and_never_a_panic() {
    let store = killed_store();
    let statements = [
        "UPDATE documents SET confirmed = -1",
        "UPDATE replica SET clock = -1",
        "UPDATE replica SET feed = -1",
        "UPDATE replica SET link = x'01ff'",
        "UPDATE replica SET link = x'07'",
        "UPDATE epochs SET counter = -1",
        "UPDATE epochs SET acknowledged = -1",
        "UPDATE replica SET node = 'another'",
        "UPDATE epochs SET opening = 9223372036854775807 WHERE opening = 1",
        "UPDATE rows SET state = x''",
        "UPDATE rows SET state = x'0001'",
        "UPDATE rows SET state = x'01ffffff'",
        "UPDATE rows SET slot = x'09'",
        "UPDATE rows SET seq = -seq",
        "UPDATE rows SET value = '{'",
        "UPDATE changes SET version = -1",
        "UPDATE changes SET keys = 0",
        "UPDATE changes SET number = 9223372036854775807 WHERE number = (SELECT max(number) FROM changes)",
        "UPDATE changes SET timestamp = 9223372036854775807",
        "UPDATE changes SET coalesced = -1",
        "UPDATE changes SET data = '{'",
        "UPDATE changes SET data = '1'",
        "UPDATE changes SET type = 'what'",
        "DELETE FROM replica",
    ];
    for statement in statements {
        let damage = |folder: &Path| {
            let sql = Connection::open(folder.join(DATABASE)).expect("opens");
            assert!(sql.execute(statement, []).expect(statement) > 0, "{statement}");
        };
        let found = check(&store, statement, damage);
        eprintln!("{statement}: {}", found.map_or_else(|error| error.chain(), |_| "no error".to_owned()));
    }
}

#[test]
fn long_flipped_bits_and_torn_files_everywhere_never_give_a_panic() {
    flip_bits(101);
    cut_tails(401);
}
