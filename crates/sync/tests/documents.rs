//! Documents by name: atomic edits, preconditions, and what a list shows.

use std::time::Duration;

use edgeward_model::{DocumentName, EdgeError, ErrorKind, NodeId, Object, Value, limits::DOCUMENTS_MAX, python_json};
use edgeward_sync::{Document, Documents, Epoch, Precondition, Store};

fn documents() -> Documents {
    let epoch = Epoch::draw().expect("a random number");
    Documents::new(Store::in_memory(NodeId::new("edge-01").expect("valid"), epoch).expect("opens"))
}

fn document(documents: &Documents, name: &str) -> Document {
    documents.document(DocumentName::new(name).expect("valid"))
}

fn object(text: &str) -> Object {
    match python_json::read(text).expect(text) {
        Value::Object(object) => object,
        other => panic!("{other:?} is no object"),
    }
}

fn set(document: &Document, key: &'static str, value: i64) -> u64 {
    document.edit(Precondition::None, move |draft| draft.set(key, &value.into())).expect("edits").version
}

#[test]
fn documents_are_apart_and_listed_by_name() {
    let documents = documents();
    let (cellar, attic) = (document(&documents, "cellar"), document(&documents, "attic"));
    assert!(documents.list().expect("reads").is_empty() && cellar.view().expect("reads").is_none());
    assert_eq!((set(&cellar, "doors", 2), set(&cellar, "windows", 0), set(&attic, "doors", 1)), (1, 2, 1));
    assert_eq!(cellar.get("doors").expect("reads"), Some(2_i64.into()));
    assert_eq!(attic.get("windows").expect("reads"), None);
    let listed: Vec<_> =
        documents.list().expect("reads").into_iter().map(|info| (info.name.to_string(), info.version, info.keys)).collect();
    assert_eq!(listed, [("attic".to_owned(), 1, 1), ("cellar".to_owned(), 2, 2)]);
}

#[test]
fn the_entries_of_a_prefix_are_those_that_begin_so() {
    let documents = documents();
    let cellar = document(&documents, "cellar");
    assert!(cellar.entries("").expect("reads").is_empty());
    let keys: Vec<_> =
        ["a/1", "b", "b.", "b/", "c/1"].map(str::to_owned).into_iter().chain((0..1_200).map(|n| format!("b/{n:04}"))).collect();
    let written = keys.clone();
    let edited = cellar.edit(Precondition::None, move |draft| {
        written.iter().try_for_each(|key| draft.set(key, &i64::try_from(key.len()).expect("short").into()))?;
        draft.set("b/gone", &1_i64.into())?;
        draft.remove("b/gone")
    });
    edited.expect("edits");
    let found = |prefix: &str| cellar.entries(prefix).expect("reads");
    let begin_so = |prefix: &str| {
        let mut own: Vec<_> = keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
        own.sort();
        own
    };
    for prefix in ["b/", "b", "", "c", "d"] {
        assert_eq!(found(prefix).into_iter().map(|(key, _)| key).collect::<Vec<_>>(), begin_so(prefix), "{prefix}");
    }
    assert_eq!(found("b.")[0].1, 2_i64.into());
    cellar.replace(Precondition::None, object(r#"{"b/1": 1, "x": 2}"#)).expect("replaces");
    assert_eq!(found("b/"), [("b/1".to_owned(), 1_i64.into())]);
}

#[test]
fn an_edit_reads_what_it_changed_and_takes_all_back_when_it_fails() {
    let documents = documents();
    let cellar = document(&documents, "cellar");
    set(&cellar, "doors", 2);
    let failed = cellar.edit(Precondition::None, |draft| {
        draft.set("doors", &3_i64.into())?;
        draft.remove("gone")?;
        assert_eq!(draft.get("doors")?, Some(3_i64.into()));
        Err::<(), _>(EdgeError::invalid("changed its mind"))
    });
    assert_eq!(failed.expect_err("fails").to_string(), "changed its mind");
    let state = cellar.view().expect("reads").expect("there");
    assert_eq!((state.version, state.data), (1, object(r#"{"doors": 2}"#)));
    let panicked = cellar.edit(Precondition::None, |draft| -> Result<(), EdgeError> {
        draft.set("doors", &4_i64.into())?;
        panic!("a defect of the caller");
    });
    assert_eq!(panicked.expect_err("fails").kind(), ErrorKind::Internal);
    assert_eq!(set(&cellar, "doors", 5), 2, "the store goes on");
}

#[test]
fn an_edit_is_a_pending_patch_and_one_that_changes_nothing_makes_no_version() {
    let documents = documents();
    let cellar = document(&documents, "cellar");
    cellar.replace(Precondition::None, object(r#"{"a": 1, "b": 2}"#)).expect("replaces");
    let edited = cellar
        .edit(Precondition::None, |draft| {
            draft.set("c", &3_i64.into())?;
            draft.remove("a")?;
            draft.remove("never there")?;
            draft.set("b", &2_i64.into())
        })
        .expect("edits");
    assert_eq!((edited.version, edited.changed), (2, true));
    let pending = cellar.pending().expect("reads");
    assert_eq!((pending[1].r#type.as_str(), &pending[1].data), ("patch", &object(r#"{"a": null, "c": 3}"#)));
    let same = cellar.edit(Precondition::None, |draft| draft.set("b", &2_i64.into())).expect("edits");
    assert_eq!((same.version, same.changed, cellar.pending().expect("reads").len()), (2, false, 2));
}

#[test]
fn a_precondition_that_does_not_hold_is_a_conflict_and_changes_nothing() {
    let documents = documents();
    let cellar = document(&documents, "cellar");
    let attempt = |precondition| cellar.patch(precondition, object(r#"{"a": 1}"#)).map(|state| state.version);
    for precondition in [Precondition::Present, Precondition::Version(1)] {
        assert_eq!(attempt(precondition).expect_err("absent").kind(), ErrorKind::Conflict);
    }
    assert!(documents.list().expect("reads").is_empty());
    assert_eq!(attempt(Precondition::Absent).expect("patches"), 1);
    for precondition in [Precondition::Absent, Precondition::Version(7)] {
        let error = attempt(precondition).expect_err("there");
        assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("at version 1"), "{error}");
    }
    assert_eq!((attempt(Precondition::Version(1)).expect("patches"), attempt(Precondition::Present).expect("patches")), (2, 3));
}

#[test]
fn a_cleared_document_is_empty_and_a_version_on() {
    let documents = documents();
    let cellar = document(&documents, "cellar");
    assert!(!cellar.clear(Precondition::None).expect("clears"));
    set(&cellar, "doors", 2);
    assert!(cellar.clear(Precondition::Version(1)).expect("clears"));
    let state = cellar.view().expect("reads").expect("there");
    assert_eq!((state.version, state.data), (2, Object::default()));
    assert!(!cellar.clear(Precondition::None).expect("clears"));
}

#[test]
fn one_document_more_than_the_most_is_refused() {
    let documents = documents();
    for n in 0..DOCUMENTS_MAX {
        set(&document(&documents, &format!("d{n}")), "k", 1);
    }
    let error = document(&documents, "one-more").edit(Precondition::None, |draft| draft.set("k", &1_i64.into())).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    set(&document(&documents, "d0"), "k", 2);
}

#[tokio::test]
async fn a_watch_tells_of_the_state_of_now_and_then_of_each_that_stays() {
    let documents = documents();
    let (watched, other) = (document(&documents, "cellar"), document(&documents, "attic"));
    let mut watch = watched.watch();
    let nothing = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
    assert!(nothing.is_err(), "there is no such document yet: {nothing:?}");
    set(&watched, "n", 1);
    assert_eq!(watch.changed().await.expect("reads").version, 1);
    set(&other, "n", 1);
    let nothing = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
    assert!(nothing.is_err(), "another document changed: {nothing:?}");
    let late = watched.watch();
    set(&watched, "n", 2);
    set(&watched, "n", 3);
    for mut watch in [watch, late] {
        assert_eq!(watch.changed().await.expect("reads").version, 3);
    }
}
