//! Data folders with functions, and a sweep that kills a child at each of its calls.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use edgeward::{EdgeError, EdgeFunction, EdgeNode, Handler, Node, NodeOptions, Precondition, backup::create};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child;

/// The time of the backups.
pub(crate) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

pub(crate) fn open(data_dir: &Path) -> Result<Arc<Node>, EdgeError> {
    let node = EdgeNode::new("edge-01", "test").expect("valid");
    Node::open(NodeOptions::new(node, data_dir))
}

/// Opens the node of this folder and deploys a function with an artifact.
pub(crate) fn deploy(data_dir: &Path, id: &str) {
    let text = format!(r#"(module ${id} (memory (export "memory") 1) (func (export "_start")))"#);
    Runtime::new().expect("threads").block_on(async {
        let node = open(data_dir).expect("opens");
        let digest = node.add_artifact(wat::parse_str(text).expect("valid")).await.expect("runs here");
        let function = EdgeFunction::new(id, id, Handler::Artifact(digest)).expect("valid");
        node.put_function(function, Precondition::None).await.expect("put");
    });
}

/// A data folder with the function `a`, and a backup of it.
pub(crate) fn backed_up(place: &Path) -> (PathBuf, PathBuf) {
    let (data, whole) = (place.join("data"), place.join("backup"));
    deploy(&data, "a");
    create(&data, &whole, NOW, |_| {}).expect("backs up");
    (data, whole)
}

/// The functions of a data folder, each with its artifact; none when there is no folder.
pub(crate) fn functions(data_dir: &Path) -> Vec<String> {
    if !data_dir.exists() {
        return Vec::new();
    }
    let node = open(data_dir).unwrap_or_else(|error| panic!("{}: {}", data_dir.display(), error.chain()));
    let functions = node.functions().into_iter().map(|view| view.record.function);
    functions
        .map(|function| {
            let artifact = function.handler.artifact().expect("each has one");
            node.runtime().artifacts().get(&artifact).expect("its artifact is whole");
            function.id.to_string()
        })
        .collect()
}

/// Runs the child on a copy of `template`, killed at the nth of these calls. Returns the copy, and whether it was killed.
pub(crate) fn killed_at(test: &str, template: &Path, call: &str, n: usize) -> (TempDir, bool) {
    let place = copy(template);
    let log = place.path().join("calls");
    let folder = place.path().join("copy");
    let output = child::run(&mut child::traced(test, &folder, &log, Some(&format!("{call}:signal=KILL:when={n}"))));
    let killed = fs::read_to_string(&log).expect("the calls").contains("killed by SIGKILL");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(killed || output.status.success(), "killed at call {n} of {call}: the child failed of itself: {told}{errors}");
    (place, killed)
}

/// How often the child makes this call on a copy of `template`.
pub(crate) fn count(test: &str, template: &Path, call: &str) -> usize {
    let place = copy(template);
    let log = place.path().join("calls");
    let output = child::run(&mut child::traced(test, &place.path().join("copy"), &log, None));
    assert!(output.status.success(), "{output:?}");
    child::count_in(&log, call)
}

fn copy(template: &Path) -> TempDir {
    let place = tempfile::tempdir().expect("temp folder");
    let done = Command::new("cp").arg("-r").arg(template).arg(place.path().join("copy")).status().expect("starts");
    assert!(done.success());
    place
}

/// The folder that the copy of a template is.
pub(crate) fn copied(place: &TempDir, name: &str) -> PathBuf {
    place.path().join("copy").join(name)
}
