//! Functions and the documents of their node: real guests, the real store, and what is left after a restart.

use std::{path::Path, sync::Arc};

use edgeward::{
    DocumentAccess, DocumentName, EdgeFunction, EdgeNode, ErrorKind, FunctionDocuments, Handler, Node, NodeOptions, Object, Value,
    limits::KEY_BYTES_MAX,
};
use tokio::task::JoinSet;

const DRAFTS: [&str; 2] = ["draft", "draft2"];

/// A node with the function `f`, which makes the calls of its payload and is granted the document `cellar`.
async fn node(folder: &Path) -> Arc<Node> {
    let options = NodeOptions::new(EdgeNode::new("edge-01", "test").expect("valid"), folder);
    let node = Node::open(options).expect("opens");
    let path = format!("{}/../../functions/built/keyvalue.wasm", env!("CARGO_MANIFEST_DIR"));
    let digest = node.add_artifact(std::fs::read(&path).expect("built")).await.expect("runs here");
    let mut function = EdgeFunction::new("f", "f", Handler::Artifact(digest)).expect("valid");
    function.documents = vec!["cellar".parse().expect("valid")];
    node.put_function(function, edgeward::Precondition::None).await.expect("put");
    node
}

/// What the guest tells of each call, the opening of the document left out.
async fn told(node: &Node, draft: &str, calls: &[&str]) -> Vec<String> {
    let output = node.runtime().invoke("f", format!("{draft}\nopen cellar\n{}", calls.join("\n"))).await.expect("it answers");
    std::str::from_utf8(&output).expect("text").lines().skip(1).map(str::to_owned).collect()
}

fn cellar() -> DocumentName {
    DocumentName::new("cellar").expect("valid")
}

fn data(node: &Node) -> Object {
    node.documents().document(cellar()).view().expect("read").expect("there").data
}

fn json(text: &str) -> Value {
    edgeward::python_json::read(text).expect("JSON")
}

#[tokio::test]
async fn a_function_gets_the_bytes_that_it_set_and_the_document_shows_json() {
    for draft in DRAFTS {
        let folder = tempfile::tempdir().expect("temp folder");
        let node = node(folder.path()).await;
        for (bytes, shown) in [
            // Odd spacing, a member twice, escapes, and numbers written in other ways.
            ("%7B%20%22b%22%3A1%2C%0A%22a%22%20%3A%202%20%7D", Some(r#"{"b": 1, "a": 2}"#)),
            ("%22%5Cu0061%22", Some(r#""a""#)),
            ("1.50", Some("1.5")),
            ("1e2", Some("100.0")),
            ("%20null%20", Some("null")),
            ("12345678901234567890", Some("12345678901234567890")),
            ("hello", Some(r#"{"$bytes": "aGVsbG8="}"#)),
            ("%FF%00%80", Some(r#"{"$bytes": "/wCA"}"#)),
            ("", Some(r#"{"$bytes": ""}"#)),
            // What looks like the form of other bytes is itself.
            ("%7B%22%24bytes%22%3A%22aGVsbG8%3D%22%7D", None),
        ] {
            let told = told(&node, draft, &[&format!("set k {bytes}"), "get k", "exists k"]).await;
            assert_eq!(told, ["ok", bytes, "true"], "{draft}");
            if let Some(shown) = shown {
                assert_eq!(data(&node).0["k"], json(shown), "{draft} {bytes}");
            }
        }
        assert_eq!(told(&node, draft, &["delete k", "get k", "keys"]).await, ["ok", "-", " | -"]);
    }
}

#[tokio::test]
async fn what_others_set_is_json_to_a_function() {
    let folder = tempfile::tempdir().expect("temp folder");
    let node = node(folder.path()).await;
    let document = node.documents().document(cellar());
    let data = Object::from_iter([("door", json(r#"{"open": true}"#)), ("n", 41_i64.into())]);
    document.replace(edgeward_sync::Precondition::None, data).expect("written");
    let told = told(&node, "draft", &["get door", "increment n 1", "get n", "keys"]).await;
    assert_eq!(told[0].replace("%20", " "), "%7B%22open%22%3A true%7D");
    assert_eq!(told[1..], ["42", "42", "door n | -"]);
}

#[tokio::test]
async fn counters_add_and_anything_else_is_refused() {
    let folder = tempfile::tempdir().expect("temp folder");
    let node = node(folder.path()).await;
    let told = told(&node, "draft2", &["increment n 2", "increment n -5", "get n", "set t %22x%22", "increment t 1", "get t"]).await;
    assert_eq!([&told[0], &told[1], &told[2], &told[3], &told[5]], ["2", "-3", "-3", "ok", "%22x%22"]);
    assert!(told[4].starts_with("error: ") && told[4].contains("`t`"), "{told:?}");
    assert_eq!(data(&node).0["n"], (-3_i64).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_of_one_key_all_count() {
    let folder = tempfile::tempdir().expect("temp folder");
    let node = node(folder.path()).await;
    let mut runs = JoinSet::new();
    for _ in 0..8 {
        let node = Arc::clone(&node);
        runs.spawn(async move { told(&node, "draft2", &["add swapped 10", &["increment counted 1"; 10].join("\n")]).await });
    }
    while let Some(told) = runs.join_next().await {
        assert_eq!(told.expect("joins")[0], "done");
    }
    assert_eq!((&data(&node).0["swapped"], &data(&node).0["counted"]), (&80_i64.into(), &80_i64.into()));
}

#[tokio::test]
async fn a_batch_that_fails_changes_nothing() {
    let folder = tempfile::tempdir().expect("temp folder");
    let node = node(folder.path()).await;
    told(&node, "draft", &["set a 1"]).await;
    let version = || node.documents().document(cellar()).view().expect("read").expect("there").version;
    let before = version();
    // A function cannot get so far: what the host lets through the store takes.
    let writes = vec![("a".to_owned(), Some(b"2".to_vec())), ("k".repeat(KEY_BYTES_MAX + 1), Some(Vec::new()))];
    let error = FunctionDocuments(node.documents().clone()).write(&cellar(), writes).expect_err("the second key is too long");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(told(&node, "draft", &["get a", "set a 1"]).await, ["1", "ok"]);
    assert_eq!(version(), before, "what changes nothing makes no version");
    assert_eq!(told(&node, "draft", &["set-many a 2 b 3", "delete-many a b x", "keys"]).await, ["ok", "ok", " | -"]);
    assert_eq!(version(), before + 2, "a batch is one change");
}

#[tokio::test]
async fn what_a_function_set_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("temp folder");
    let first = node(folder.path()).await;
    told(&first, "draft", &["set a %7B%20%7D", "increment n 5", "set gone 1", "delete gone"]).await;
    drop(first);
    let node = node(folder.path()).await;
    assert_eq!(told(&node, "draft", &["get a", "increment n 1", "keys"]).await, ["%7B%20%7D", "6", "a n | -"]);
}
