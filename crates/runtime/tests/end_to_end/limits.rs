//! Every limit over a sandbox, from both sides: what is just within it works, and what is just over it is stopped, well
//! before a default of the engine would have stopped it.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use edgeward_model::{
    EdgeError, EdgeFunction, ErrorKind, Handler,
    limits::{
        HEADER_BYTES_MAX, HOSTCALL_FUEL_BYTES, INSTANCES_PER_STORE_MAX, MEMORIES_PER_STORE_MAX, RANDOM_BYTES_MAX, RESOURCES_MAX,
        RESPONSE_BYTES_MAX, TABLES_PER_STORE_MAX,
    },
};
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use http_body_util::BodyExt;

use crate::support::{call, command, deploy, guest, hostile, runtime, text};

/// Deploys and runs a command, to its first failure.
async fn run(artifact: Bytes, memory_mb: u32) -> Result<Bytes, EdgeError> {
    let runtime = runtime();
    let mut function = EdgeFunction::new("f", "f", Handler::Artifact(runtime.add_artifact(artifact).await?))?;
    function.memory_mb = memory_mb;
    runtime.deploy(function).await?;
    runtime.invoke("f", "").await
}

async fn assert_limit(within: Bytes, over: Bytes, kind: ErrorKind, word: &str) {
    run(within, 16).await.expect("what is within the limit runs");
    let error = run(over, 16).await.expect_err("over the limit");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.chain().contains(word), "{}", error.chain());
}

/// A command beside `count` instances of a module with these fields.
fn instances(count: usize, fields: &str) -> Bytes {
    let instances = "(core instance (instantiate $other))".repeat(count);
    command(&format!(
        r#"(core module $other {fields}) {instances}
           (core module $module (func (export "run") (result i32) (i32.const 0)))
           (core instance $main (instantiate $module))"#
    ))
}

#[tokio::test]
async fn a_component_has_at_most_fifty_core_instances() {
    // With the one that is called.
    let max = INSTANCES_PER_STORE_MAX - 1;
    assert_limit(instances(max, ""), instances(max + 1, ""), ErrorKind::RefusedArtifact, "instances").await;
}

#[tokio::test]
async fn a_component_has_at_most_twenty_tables() {
    let tables = |count| instances(count, "(table 1 funcref)");
    let max = TABLES_PER_STORE_MAX;
    assert_limit(tables(max), tables(max + 1), ErrorKind::RefusedArtifact, "tables").await;
}

#[tokio::test]
async fn a_component_has_at_most_eight_memories() {
    let memories = |count| instances(count, "(memory 1)");
    let max = MEMORIES_PER_STORE_MAX;
    assert_limit(memories(max), memories(max + 1), ErrorKind::RefusedArtifact, "memories").await;
}

#[tokio::test]
async fn one_module_may_hold_as_many_memories_and_tables_as_a_component() {
    let module = |fields: String| instances(1, &fields);
    run(module("(memory 1)".repeat(MEMORIES_PER_STORE_MAX)), 16).await.expect("runs");
    run(module("(table 1 funcref)".repeat(TABLES_PER_STORE_MAX)), 16).await.expect("runs");
}

/// A command that takes the exports `x` of two instances and grows each by this instruction, or traps.
fn grows_two(export: &str, kind: &str, instruction: impl Fn(&str) -> String) -> Bytes {
    let kind_type = if kind == "table" { "0 funcref" } else { "0" };
    let grow = ["$a", "$b"].map(|each| format!("(if (i32.eq {} (i32.const -1)) (then unreachable))", instruction(each))).concat();
    command(&format!(
        r#"(core module $one {export})
           (core instance $a (instantiate $one))
           (core instance $b (instantiate $one))
           (core module $module
             (import "a" "x" ({kind} $a {kind_type})) (import "b" "x" ({kind} $b {kind_type}))
             (func (export "run") (result i32) {grow} (i32.const 0)))
           (core instance $main (instantiate $module (with "a" (instance $a)) (with "b" (instance $b))))"#,
    ))
}

#[tokio::test]
async fn tables_count_as_memory_when_they_grow_and_when_they_begin_large() {
    // Two tables of 90,000 pointers are 1.4 MB; each alone is in order.
    let growing =
        grows_two(r#"(table (export "x") 0 funcref)"#, "table", |table| format!("(table.grow {table} (ref.null func) (i32.const 90000))"));
    for artifact in [growing, instances(2, "(table 90000 funcref)")] {
        run(artifact.clone(), 2).await.expect("it fits");
        let error = run(artifact, 1).await.expect_err("too much");
        assert_eq!(error.kind(), ErrorKind::MemoryLimit, "{error}");
    }
}

#[tokio::test]
async fn all_memories_draw_on_one_budget() {
    // Two memories of 2.5 MiB.
    let growing = grows_two(r#"(memory (export "x") 0)"#, "memory", |memory| format!("(memory.grow {memory} (i32.const 40))"));
    for artifact in [growing, instances(2, "(memory 40)")] {
        run(artifact.clone(), 5).await.expect("it fits");
        let error = run(artifact, 4).await.expect_err("too much");
        assert_eq!(error.kind(), ErrorKind::MemoryLimit, "{error}");
    }
}

#[tokio::test]
async fn a_proposal_that_is_off_is_refused_at_deploy() {
    for (proposal, fields) in [
        ("memory64", "(memory i64 1)"),
        ("gc", "(type (struct (field i32)))"),
        ("function references", "(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))"),
        ("exceptions", "(tag)"),
        ("threads", "(memory 1 1 shared)"),
    ] {
        let error = runtime().add_artifact(instances(1, fields)).await.expect_err(proposal);
        assert_eq!(error.kind(), ErrorKind::RefusedArtifact, "{proposal}");
        assert!(error.to_string().contains(proposal), "{proposal}: {error}");
    }
}

#[tokio::test]
async fn the_async_component_model_is_refused_at_deploy() {
    let lifted = r#"(component
        (core module $m (func (export "run") unreachable))
        (core instance $main (instantiate $m))
        (func $run async (result (result)) (canon lift (core func $main "run") async))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $cli)))"#;
    let streaming = "(component (type (stream u8)))";
    for text in [lifted, streaming] {
        let error = runtime().add_artifact(wat::parse_str(text).expect("valid")).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::RefusedArtifact);
        assert!(error.to_string().contains("async"), "{error}");
    }
}

#[tokio::test]
async fn a_component_of_wasi_0_3_is_refused_and_told_what_to_build_instead() {
    let importing = r#"(component (import "wasi:cli/environment@0.3.0" (instance)))"#;
    let exporting = r#"(component
        (core module $m (func (export "run") unreachable))
        (core instance $main (instantiate $m))
        (func $run async (result (result)) (canon lift (core func $main "run") async))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.3.0-rc-2025-09-16" (instance $cli)))"#;
    for text in [importing, exporting] {
        let error = runtime().add_artifact(wat::parse_str(text).expect("valid")).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::RefusedArtifact);
        assert!(error.to_string().contains("it uses WASI 0.3 (`wasi:cli/"), "{error}");
        assert!(error.to_string().contains("build it for WASI 0.2"), "{error}");
    }
}

/// Calls the hostile guest twice: what is within the limit answers 200, and what is over it is stopped with this word.
async fn assert_call_limit(within: &str, over: &str, word: &str) {
    let runtime = hostile(|_| ()).await;
    let response = call(&runtime, within).await.expect(within);
    assert_eq!(response.status(), 200, "{within}");
    let error = match call(&runtime, over).await {
        Err(error) => error,
        Ok(response) => panic!("{over} was let through: {}", text(response).await),
    };
    assert_eq!(error.kind(), ErrorKind::ExecutionFailed, "{over}: {error}");
    assert!(error.chain().contains(word), "{over}: {}", error.chain());
}

#[tokio::test]
async fn a_call_makes_the_host_copy_at_most_four_mebibytes() {
    let bytes = HOSTCALL_FUEL_BYTES;
    assert_call_limit(&format!("/path?bytes={}", bytes - 1024), &format!("/path?bytes={}", bytes + 1024), "fuel").await;
}

#[tokio::test]
async fn a_guest_holds_at_most_a_thousand_handles() {
    // The request, its answer and the streams of the guest need a few.
    let within = RESOURCES_MAX - 20;
    assert_call_limit(&format!("/hold?handles={within}"), &format!("/hold?handles={RESOURCES_MAX}"), "resource table").await;
}

#[tokio::test]
async fn a_call_gives_at_most_64_kib_of_random_bytes() {
    let bytes = RANDOM_BYTES_MAX;
    assert_call_limit(&format!("/random?bytes={bytes}"), &format!("/random?bytes={}", bytes + 1), "exceeds limit").await;
}

#[tokio::test]
async fn the_header_fields_of_a_guest_are_at_most_64_kib() {
    // The host counts the name and some bytes of its own as well.
    let (within, over) = (HEADER_BYTES_MAX - 1024, HEADER_BYTES_MAX + 1024);
    assert_call_limit(&format!("/field?bytes={within}"), &format!("/field?bytes={over}"), "size").await;
}

#[tokio::test]
async fn a_response_has_at_most_64_mib() {
    let runtime = hostile(|_| ()).await;
    let body = async |bytes: usize| call(&runtime, &format!("/big?bytes={bytes}")).await?.into_body().bytes().await;
    assert_eq!(body(RESPONSE_BYTES_MAX).await.expect("fits").len(), RESPONSE_BYTES_MAX);
    let error = body(RESPONSE_BYTES_MAX + 1).await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::ExecutionFailed);
    assert!(error.to_string().contains(&RESPONSE_BYTES_MAX.to_string()), "{error}");
}

/// A core module that computes for some tens of milliseconds, sleeps for longer than the engine's ticker stays awake
/// without guests, and then loops for ever.
const COMPUTES_SLEEPS_AND_LOOPS: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start") (local $i i32)
        (loop $compute
            (br_if $compute (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200000000))))
        ;; A subscription: the monotonic clock, 1.8 seconds from now.
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 1800000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
        (loop $forever (br $forever))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_computes_again_after_a_long_wait_is_still_stopped() {
    let runtime = runtime();
    deploy(&runtime, "f", wat::parse_str(COMPUTES_SLEEPS_AND_LOOPS).expect("a module"), |function| {
        (function.timeout_seconds, function.max_concurrency, function.max_queue) = (3.0, 1, 1);
    })
    .await;
    assert_eq!(runtime.invoke("f", "").await.expect_err("loops").kind(), ErrorKind::Timeout);
    // It has the only permit until it really ends, so this one runs only if it did.
    let error = runtime.invoke("f", "").await.expect_err("loops");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

/// A request body of these frames, each some time after the one before.
struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    waited: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = EdgeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EdgeError>>> {
        self.waited = !self.waited;
        if self.waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.frames.pop_front().map(Ok))
    }
}

async fn send_frames(path: &str, frames: impl IntoIterator<Item = Frame<Bytes>>) -> String {
    let runtime = hostile(|_| ()).await;
    let body = Frames { frames: frames.into_iter().collect(), waited: false }.boxed_unsync();
    let request = Request::post(path).header("host", "localhost").body(body).expect("valid");
    text(runtime.serve("f", request).await.expect("answers")).await
}

#[tokio::test]
async fn empty_frames_of_a_request_body_do_not_reach_the_guest() {
    let frames = ["", "one", "", "", "three", ""].map(|part| Frame::data(Bytes::from(part)));
    assert_eq!(send_frames("/reads", frames).await, "[3, 5] closed\n");
    let many = (0..10_000).map(|_| Frame::data(Bytes::new())).chain([Frame::data(Bytes::from_static(b"end"))]);
    assert_eq!(send_frames("/reads", many).await, "[3] closed\n");
}

#[tokio::test]
async fn the_trailers_of_a_request_reach_the_guest() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().expect("valid"));
    let frames = || [Frame::data(Bytes::from_static(b"body")), Frame::data(Bytes::new())];
    assert_eq!(send_frames("/request-trailers", frames().into_iter().chain([Frame::trailers(trailers)])).await, "x-sum: 42\n");
    assert_eq!(send_frames("/request-trailers", frames()).await, "none\n");
}

#[tokio::test]
async fn a_guest_reaches_no_file_and_no_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("bound").port();
    // A host that it may call over HTTP is not open to its sockets.
    let runtime = hostile(|f| f.allowed_hosts = vec!["*://127.0.0.1:*".to_owned(), "*://localhost:*".to_owned()]).await;
    let answer = text(call(&runtime, &format!("/reach?port={port}")).await.expect("answers")).await;
    let mut lines = answer.lines();
    assert_eq!(lines.next(), Some("folders 0"));
    let refused = [
        ("connect", "access-denied"),
        ("listen", "access-denied"),
        ("datagram", "access-denied"),
        ("lookup", "permanent-resolver-failure"),
    ];
    for (attempt, refusal) in refused {
        let line = lines.next().expect(attempt);
        assert!(line.starts_with(attempt) && line.contains(refusal), "{line}");
    }
    assert!(futures::FutureExt::now_or_never(listener.accept()).is_none(), "it was connected");
}

#[tokio::test]
async fn a_committed_guest_in_c_is_a_core_module_and_runs_as_a_component() {
    let artifact = guest("hostile-c");
    // The version of a core module is 1; that of a component is 13, with a layer of its own.
    assert_eq!(artifact[4..8], [1, 0, 0, 0]);
    let runtime = runtime();
    deploy(&runtime, "f", artifact, |f| f.environment = [("MODE", "echo")].into_iter().collect()).await;
    assert_eq!(runtime.invoke("f", "adapted").await.expect("answers"), "adapted");
}
