//! A runtime with functions in it, and requests to them.

use std::path::PathBuf;

use bytes::Bytes;
use edgeward_model::{EdgeError, EdgeFunction, EdgeNode, Handler};
use edgeward_runtime::{EdgeRuntime, RequestBody, ResponseBody, body};
use http::{Request, Response};

/// A guest from `functions/built`, or one of the files of readings beside it.
pub(crate) fn file(name: &str) -> Bytes {
    let path = format!("{}/../../functions/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")).into()
}

pub(crate) fn guest(name: &str) -> Bytes {
    file(&format!("built/{name}.wasm"))
}

/// A guest that `cargo xtask test` built from source.
pub(crate) fn from_source(name: &str) -> Bytes {
    let folder = std::env::var_os("EDGEWARD_GUESTS").expect("`cargo xtask test` builds guests and names their folder in EDGEWARD_GUESTS");
    let path = PathBuf::from(folder).join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

pub(crate) fn runtime() -> EdgeRuntime {
    EdgeRuntime::new(EdgeNode::new("edge-01", "test").expect("valid"))
}

pub(crate) async fn deploy(runtime: &EdgeRuntime, id: &str, artifact: impl Into<Bytes>, change: impl FnOnce(&mut EdgeFunction)) {
    let digest = runtime.add_artifact(artifact).await.expect("runs here");
    let mut function = EdgeFunction::new(id, id, Handler::Artifact(digest)).expect("valid");
    change(&mut function);
    runtime.deploy(function).await.expect("deploys");
}

/// A command whose `run` is the export of the core instance `$main`.
pub(crate) fn command(core: &str) -> Bytes {
    let text = format!(
        r#"(component {core}
            (func $run (result (result)) (canon lift (core func $main "run")))
            (instance $cli (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $cli)))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")).into()
}

/// A runtime with the hostile HTTP function as `f`.
pub(crate) async fn hostile(change: impl FnOnce(&mut EdgeFunction)) -> EdgeRuntime {
    let runtime = runtime();
    deploy(&runtime, "f", guest("hostile"), change).await;
    runtime
}

pub(crate) fn request(path: &str, payload: impl Into<Bytes>) -> Request<RequestBody> {
    Request::post(path).header("host", "localhost").body(body::full(payload)).expect("valid")
}

pub(crate) async fn call(runtime: &EdgeRuntime, path: &str) -> Result<Response<ResponseBody>, EdgeError> {
    runtime.serve("f", request(path, "")).await
}

pub(crate) async fn text(response: Response<ResponseBody>) -> String {
    String::from_utf8(response.into_body().bytes().await.expect("whole").to_vec()).expect("text")
}
