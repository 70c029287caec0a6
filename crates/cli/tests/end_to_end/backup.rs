//! `edgeward backup` and `edgeward restore`: beside a node that runs, and into the folder of the next one.

use std::{
    fs,
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::Method;
use http_body_util::Full;
use serde_json::Value;

use crate::support::{Node, data_dir, edgeward, request, try_send};

fn run(args: &[&str], data_dir: &Path) -> Output {
    edgeward(args).arg("--data-dir").arg(data_dir).output().expect("starts")
}

#[track_caller]
fn done(args: &[&str], data_dir: &Path) -> String {
    let output = run(args, data_dir);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn fails(output: &Output, code: i32, words: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(words.iter().all(|words| told.contains(words)), "{told}");
    assert!(output.stdout.is_empty(), "a failure writes nothing to standard output");
}

#[tokio::test]
async fn a_node_that_is_backed_up_while_it_changes_is_restored_with_all_that_it_acknowledged() {
    let (folder, data) = data_dir();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let node = Node::start(&data).await;
    node.deploy("hello", "hello", &[]);
    // Changed as fast as the node takes it: its name is the number of the change.
    let handler = node.json("/v1/functions/hello").await["handler"].take();
    let (stop, acknowledged, api) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), node.api);
    let writer = tokio::spawn({
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        async move {
            for number in 1_u64.. {
                let function = serde_json::json!({ "name": number.to_string(), "handler": handler });
                let put = request(Method::PUT, "/v1/functions/hello").header("content-type", "application/json");
                let put = put.body(Full::new(Bytes::from(function.to_string()))).expect("valid");
                let answer = try_send(api, put).await.expect("an answer");
                assert_eq!(answer.status(), 200, "a backup stops no change: {:?}", answer.body());
                acknowledged.store(number, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
        }
    });
    let mut before = Vec::new();
    for n in 0..5 {
        before.push(acknowledged.load(Ordering::SeqCst));
        let (data, backup) = (data.clone(), path(&format!("backup-{n}")));
        let told = tokio::task::spawn_blocking(move || done(&["backup", &backup], &data)).await.expect("joins");
        assert!(told.starts_with("backed up edge-test to ") && told.ends_with("with 1 artifact\n"), "{told}");
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.expect("no change failed");
    let last = acknowledged.load(Ordering::SeqCst);
    assert!(last > before[4] && before[4] > before[0], "{before:?}, {last}");
    fails(&run(&["restore", "--replace", &path("backup-0")], &data), 12, &["in use by another process", "stop the node or hub first"]);
    assert_eq!(node.json("/v1/functions/hello").await["name"], last.to_string());
    node.kill();

    for (n, before) in before.into_iter().enumerate() {
        let told: Value =
            serde_json::from_str(&done(&["restore", "--json", "--replace", &path(&format!("backup-{n}"))], &data)).expect("json");
        assert_eq!(told["node"], "edge-test");
        fs::remove_dir_all(told["replaced"].as_str().expect("a folder")).expect("it lies there");
        let node = Node::start(&data).await;
        assert_eq!(node.get_function("/fn/hello/").await.body(), "hello from the edge\n");
        let name = node.json("/v1/functions/hello").await["name"].as_str().and_then(|name| name.parse::<u64>().ok());
        assert!(name.unwrap_or(0) >= before, "backup {n} has change {name:?}, and {before} was acknowledged");
        node.kill();
    }
}

#[tokio::test]
async fn what_is_refused_is_told_with_its_exit_code_and_a_hint() {
    let (folder, data) = data_dir();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fails(&run(&["backup", &path("backup")], &data), 3, &["there is no store", "hint: `--data-dir`"]);
    fails(&run(&["restore", &path("backup")], &data), 3, &["there is no backup", "hint: give the folder"]);
    Node::start(&data).await.kill();
    let told: Value = serde_json::from_str(&done(&["backup", "--json", &path("backup")], &data)).expect("json");
    assert_eq!((&told["node"], &told["artifacts"]), (&"edge-test".into(), &0.into()));
    fails(&run(&["backup", &path("backup")], &data), 12, &["is not empty", "give another one"]);
    fails(&run(&["restore", &path("backup")], &data), 12, &["is not empty", "`--replace`"]);

    let database = folder.path().join("backup/documents/documents.sqlite3");
    let mut bytes = fs::read(&database).expect("there");
    bytes[5000] ^= 1;
    fs::write(&database, bytes).expect("written");
    fails(&run(&["restore", "--replace", &path("backup")], &data), 1, &["the backup is damaged", "use another backup"]);
    Node::start(&data).await;
}
