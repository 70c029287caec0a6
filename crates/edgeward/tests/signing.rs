//! A node that requires signatures: what is not signed, signed by another, changed on its disk, or old never runs.

use std::{fs, path::Path, sync::Arc};

use edgeward::{
    Digest, DocumentName, EdgeCluster, EdgeFunction, EdgeNode, ErrorKind, FunctionState, Handler, Node, NodeOptions, Precondition,
    PublicKey, Value, digest_of, document, signing::SigningKey,
};

/// A command that prints a word.
fn component(word: &str) -> Vec<u8> {
    let length = word.len();
    wat::parse_str(format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\{length:02x}\00\00\00")
            (data (i32.const 16) "{word}")
            (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    ))
    .expect("valid")
}

fn open(folder: &Path, keys: &[&SigningKey]) -> Arc<Node> {
    let node = EdgeNode::new("edge-01", "test").expect("valid");
    let trusted_keys = keys.iter().map(|key| key.public_key()).collect();
    Node::open(NodeOptions { trusted_keys, ..NodeOptions::new(node, folder) }).expect("opens")
}

fn key() -> SigningKey {
    SigningKey::generate().expect("random")
}

fn function(artifact: Digest) -> EdgeFunction {
    EdgeFunction::new("f", "f", Handler::Artifact(artifact)).expect("valid")
}

fn signed(artifact: Digest, key: &SigningKey, counter: u64) -> EdgeFunction {
    let function = function(artifact);
    EdgeFunction { signature: Some(key.sign(&function.id, &artifact, counter)), ..function }
}

async fn put(node: &Arc<Node>, function: EdgeFunction) -> Result<FunctionState, ErrorKind> {
    node.put_function(function, Precondition::None).await.map(|deployment| deployment.view.state).map_err(|error| error.kind())
}

/// What the function prints; nothing when it does not run.
async fn says(node: &Node) -> Option<String> {
    match node.runtime().invoke("f", "").await {
        Ok(said) => Some(String::from_utf8(said.to_vec()).expect("text")),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

/// A change of a record.
type Change<'a> = &'a dyn Fn(&mut serde_json::Value);

/// Changes the record of the function, as who can write to the data folder would.
fn tamper(node: &Node, change: impl FnOnce(&mut serde_json::Value)) {
    let document = node.documents().document(DocumentName::new("edgeward.local.functions").expect("valid"));
    let record = document.get("f").expect("reads").expect("there");
    let mut json = serde_json::from_str(&edgeward::python_json::write(&record).expect("JSON")).expect("JSON");
    change(&mut json);
    let record: Value = edgeward::python_json::read(&json.to_string()).expect("JSON");
    document.edit(document::Precondition::None, move |draft| draft.set("f", &record)).expect("edits");
}

async fn failed(node: &Node, why: &str) {
    node.reconcile().await;
    let view = node.function("f").expect("desired");
    assert!(view.state == FunctionState::Failed && view.message.contains(why), "{view:?}");
    assert_eq!(says(node).await, None, "it must not run");
}

#[tokio::test]
async fn what_no_trusted_key_signed_is_refused_before_it_is_desired() {
    let folder = tempfile::tempdir().expect("temp folder");
    let (trusted, other) = (key(), key());
    let node = open(folder.path(), &[&trusted]);
    let [one, two] = ["one", "two"].map(component);
    let (one, two) = (node.add_artifact(one).await.expect("runs here"), node.add_artifact(two).await.expect("runs here"));
    let by_other = signed(one, &other, 1).signature.expect("signed");
    let as_if = edgeward::ArtifactSignature { key: trusted.public_key(), ..by_other };
    for refused in [
        function(one),
        signed(one, &other, 1),
        EdgeFunction { signature: Some(as_if), ..function(one) },
        EdgeFunction { signature: signed(two, &trusted, 1).signature, ..function(one) },
    ] {
        assert_eq!(put(&node, refused).await, Err(ErrorKind::RefusedArtifact));
        assert!(node.functions().is_empty() && says(&node).await.is_none());
    }
    assert_eq!(put(&node, signed(one, &trusted, 1)).await, Ok(FunctionState::Ready));
    assert_eq!(says(&node).await.as_deref(), Some("one"));
    assert_eq!(put(&node, function(two)).await, Err(ErrorKind::RefusedArtifact));
    assert_eq!(says(&node).await.as_deref(), Some("one"), "what ran before goes on");
}

#[tokio::test]
async fn an_old_image_is_not_run_again_not_even_after_a_restart_or_an_undeployment() {
    let folder = tempfile::tempdir().expect("temp folder");
    let trusted = key();
    let mut node = open(folder.path(), &[&trusted]);
    let old = signed(node.add_artifact(component("old")).await.expect("runs here"), &trusted, 1);
    let new = signed(node.add_artifact(component("new")).await.expect("runs here"), &trusted, 2);
    assert_eq!(put(&node, old.clone()).await, Ok(FunctionState::Ready));
    assert_eq!(put(&node, new.clone()).await, Ok(FunctionState::Ready));
    for _ in 0..2 {
        assert_eq!(put(&node, old.clone()).await, Err(ErrorKind::RefusedArtifact));
        assert_eq!(says(&node).await.as_deref(), Some("new"));
        drop(node);
        node = open(folder.path(), &[&trusted]);
        node.reconcile().await;
    }
    let id = new.id.clone();
    node.delete_function(&id, Precondition::None).await.expect("deleted");
    assert_eq!(put(&node, old.clone()).await, Err(ErrorKind::RefusedArtifact));
    assert_eq!(put(&node, new).await, Ok(FunctionState::Ready));
    tamper(&node, |record| {
        record["handler"] = serde_json::json!(old.handler);
        record["signature"] = serde_json::json!(old.signature);
    });
    drop(node);
    failed(&open(folder.path(), &[&trusted]), "an old image is not run again").await;
}

#[tokio::test]
async fn a_record_that_was_changed_on_the_disk_does_not_run_at_the_next_start() {
    let folder = tempfile::tempdir().expect("temp folder");
    let trusted = key();
    let (good, evil) = (component("good"), component("evil"));
    let evil_digest = digest_of(&evil);
    let changes: [(&str, Change<'_>); 4] = [
        ("is not signed", &|record| drop(record.as_object_mut().expect("an object").remove("signature"))),
        ("is not that of", &|record| record["handler"]["artifact"] = evil_digest.to_string().into()),
        ("is not that of", &|record| record["signature"]["counter"] = 9.into()),
        ("not trusted here", &|record| record["signature"]["key"] = PublicKey::from_bytes([1; 32]).to_string().into()),
    ];
    for (why, change) in changes {
        let node = open(folder.path(), &[&trusted]);
        node.add_artifact(evil.clone()).await.expect("runs here");
        let digest = node.add_artifact(good.clone()).await.expect("runs here");
        assert_eq!(put(&node, signed(digest, &trusted, 1)).await, Ok(FunctionState::Ready));
        assert_eq!(says(&node).await.as_deref(), Some("good"));
        tamper(&node, change);
        drop(node);
        failed(&open(folder.path(), &[&trusted]), why).await;
    }
}

#[tokio::test]
async fn an_artifact_that_was_changed_on_the_disk_does_not_run_at_the_next_start() {
    let folder = tempfile::tempdir().expect("temp folder");
    let trusted = key();
    let node = open(folder.path(), &[&trusted]);
    let digest = node.add_artifact(component("good")).await.expect("runs here");
    let evil = node.add_artifact(component("evil")).await.expect("runs here");
    assert_eq!(put(&node, signed(digest, &trusted, 1)).await, Ok(FunctionState::Ready));
    drop(node);
    let file = |digest: &Digest| folder.path().join("artifacts").join(digest.hex()).with_extension("wasm");
    fs::copy(file(&evil), file(&digest)).expect("copied");
    // The machine code of another artifact, without its checksum.
    let compiled = |digest: &Digest| {
        let mut found = fs::read_dir(folder.path().join("compiled")).expect("there").map(|entry| entry.expect("there").path());
        let is_code = |path: &std::path::PathBuf| {
            path.to_string_lossy().contains(&digest.hex()) && path.extension().is_some_and(|kind| kind == "cwasm")
        };
        found.find(is_code).expect("compiled")
    };
    fs::copy(compiled(&evil), compiled(&digest)).expect("copied");
    let node = open(folder.path(), &[&trusted]);
    failed(&node, "is damaged on disk").await;
    node.add_artifact(component("good")).await.expect("an upload mends it");
    assert_eq!(says(&node).await.as_deref(), Some("good"));
}

#[tokio::test]
async fn a_node_that_is_told_of_keys_later_stops_what_they_did_not_sign() {
    let folder = tempfile::tempdir().expect("temp folder");
    let (first, second) = (key(), key());
    let node = open(folder.path(), &[]);
    let digest = node.add_artifact(component("word")).await.expect("runs here");
    assert_eq!(put(&node, signed(digest, &first, 7)).await, Ok(FunctionState::Ready));
    drop(node);
    failed(&open(folder.path(), &[&second]), "not trusted here").await;
    let node = open(folder.path(), &[&first, &second]);
    node.reconcile().await;
    assert_eq!(says(&node).await.as_deref(), Some("word"));
}

#[tokio::test]
async fn nodes_of_a_cluster_in_this_process_stop_what_is_not_trusted_and_take_no_old_image() {
    let cluster = EdgeCluster::new().expect("opens");
    let runtime = cluster.register_node(EdgeNode::new("edge-01", "test").expect("valid")).expect("new");
    let _steering = cluster.steer();
    let trusted = key();
    let [old, new] = ["old", "new"].map(component);
    let (old, new) = (cluster.add_artifact(old).await.expect("runs here"), cluster.add_artifact(new).await.expect("runs here"));
    cluster.deploy_to_all(function(old)).await.expect("nothing need be signed");
    assert_eq!(runtime.invoke("f", "").await.expect("it runs"), "old");
    let trusting = (cluster.clone(), trusted.public_key());
    edgeward::blocking(move || trusting.0.trust_key(trusting.1, "release".to_owned())).await.expect("it is new");
    assert_eq!(runtime.invoke("f", "").await.expect_err("nobody signed it").kind(), ErrorKind::NotFound);
    cluster.deploy_to_all(signed(new, &trusted, 2)).await.expect("signed");
    assert_eq!(runtime.invoke("f", "").await.expect("it runs"), "new");
    // It is remembered that this release has come to stay.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while cluster.deploy_to_all(signed(old, &trusted, 1)).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "the old image is taken");
        cluster.deploy_to_all(signed(new, &trusted, 2)).await.expect("signed");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(runtime.invoke("f", "").await.expect("it runs"), "new");
}
