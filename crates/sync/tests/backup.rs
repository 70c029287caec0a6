//! A copy of a store that others write to: of one moment, whole, and nobody notices it.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
};

use edgeward_model::{DocumentName, ErrorKind, NodeId, Value};
use edgeward_sync::{Document, Documents, Epoch, Precondition, Store, backup};
use rusqlite::Connection;

const WRITERS: usize = 3;

fn open(folder: &Path) -> Documents {
    let epoch = Epoch::draw().expect("a random number");
    Documents::new(Store::open(folder, NodeId::new("edge-01").expect("valid"), epoch).expect("opens"))
}

fn document(documents: &Documents, n: usize) -> Document {
    documents.document(DocumentName::new(format!("d{n}")).expect("valid"))
}

fn number(document: &Document, key: &str) -> i64 {
    match document.get(key).expect("reads") {
        Some(Value::Integer(number)) => number.as_i64().expect("small"),
        other => panic!("{other:?} is no number"),
    }
}

/// Sets two keys to the same number.
fn set(document: &Document, number: i64) {
    let edit = document.edit(Precondition::None, move |draft| {
        draft.set("a", &number.into())?;
        // So large that the database grows while it is copied.
        draft.set(&format!("large-{}", number % 50), &Value::from(format!("{number}").repeat(2000)))?;
        draft.set("b", &number.into())
    });
    edit.expect("a copy stops no write");
}

#[test]
fn a_copy_holds_all_that_was_acknowledged_before_and_is_of_one_moment() {
    let place = tempfile::tempdir().expect("temp folder");
    let documents = open(&place.path().join("store"));
    (0..WRITERS).for_each(|n| set(&document(&documents, n), 0));
    let acknowledged: Arc<Vec<AtomicI64>> = Arc::new((0..WRITERS).map(|_| AtomicI64::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let (document, acknowledged, stop) = (document(&documents, n), Arc::clone(&acknowledged), Arc::clone(&stop));
            thread::spawn(move || {
                for number in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    set(&document, number);
                    acknowledged[n].store(number, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let now = || acknowledged.iter().map(|number| number.load(Ordering::SeqCst)).collect::<Vec<_>>();
    let mut written_meanwhile = 0;
    for round in 0..10 {
        let copy = place.path().join(format!("copy-{round}"));
        fs::create_dir(&copy).expect("made");
        let before = now();
        let mut told = Vec::new();
        let node = backup::copy(&place.path().join("store"), &copy, |done, total| told.push((done, total))).expect("copies");
        written_meanwhile += now().iter().sum::<i64>() - before.iter().sum::<i64>();
        assert_eq!(node.as_str(), "edge-01");
        assert!(told.is_sorted() && told.last().is_some_and(|(done, total)| done == total && *total > 0), "{told:?}");
        assert_eq!(fs::read_dir(&copy).expect("there").count(), 1, "one file");
        let copied = open(&copy);
        for (n, before) in before.into_iter().enumerate() {
            let document = document(&copied, n);
            let (a, b) = (number(&document, "a"), number(&document, "b"));
            assert!(a == b && a >= before, "round {round}: {a} and {b}, and {before} was acknowledged");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().expect("no write failed");
    }
    assert!(written_meanwhile > 0, "nothing was written during a copy");
    let last = now();
    drop(documents);
    let again = open(&place.path().join("store"));
    (0..WRITERS).for_each(|n| assert_eq!(number(&document(&again, n), "b"), last[n], "nothing acknowledged is lost"));
}

#[test]
fn a_store_is_copied_whether_it_is_open_or_not_and_its_files_stay_as_they_are() {
    let place = tempfile::tempdir().expect("temp folder");
    let folder = place.path().join("store");
    assert_eq!(backup::owner(&folder).expect_err("absent").kind(), ErrorKind::NotFound);
    set(&document(&open(&folder), 0), 7);
    let copy = place.path().join("copy");
    fs::create_dir(&copy).expect("made");
    let before = fs::read(folder.join("documents.sqlite3")).expect("there");
    assert_eq!(backup::owner(&folder).expect("there").as_str(), "edge-01");
    backup::copy(&folder, &copy, |_, _| {}).expect("copies");
    assert_eq!(fs::read(folder.join("documents.sqlite3")).expect("there"), before);
    assert_eq!(number(&document(&open(&copy), 0), "b"), 7);
}

#[test]
fn a_damaged_store_is_not_copied() {
    let place = tempfile::tempdir().expect("temp folder");
    let folder = place.path().join("store");
    let documents = open(&folder);
    (0..200).for_each(|number| set(&document(&documents, 0), number));
    drop(documents);
    let sql = Connection::open(folder.join("documents.sqlite3")).expect("opens");
    sql.execute_batch("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'feed'").expect("damages");
    sql.close().expect("closes");
    let copy = place.path().join("copy");
    fs::create_dir(&copy).expect("made");
    let error = backup::copy(&folder, &copy, |_, _| {}).expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Internal, "{}", error.chain());
}
