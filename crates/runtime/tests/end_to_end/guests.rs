//! Real guests in the sandbox: what they are asked, what they answer, and how the hostile ones are stopped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeward_model::{
    ErrorKind,
    limits::{LOG_BYTES_PER_INVOCATION_MAX, RESPONSE_BYTES_MAX},
};
use edgeward_runtime::{EdgeRuntime, Filter, LogStream};
use http_body_util::BodyExt;

use crate::support::{call, deploy, guest, hostile, request, runtime, text};

#[tokio::test]
async fn an_http_component_answers_an_invocation() {
    let runtime = runtime();
    deploy(&runtime, "hello", guest("hello"), |_| ()).await;
    assert_eq!(runtime.invoke("hello", "x").await.expect("answers"), "hello from the edge\n");
    let summary = runtime.metrics().summary(Filter::function("hello").on_node("edge-01"));
    assert_eq!((summary.total, summary.error_count, summary.cold_starts), (1, 0, 1));
    assert_eq!(runtime.running(), 0);
}

#[tokio::test]
async fn many_invocations_in_one_task_all_answer() {
    let runtime = runtime();
    deploy(&runtime, "hello", guest("hello"), |_| ()).await;
    let answers = futures::future::join_all((0..300).map(|_| runtime.invoke("hello", ""))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|body| body == "hello from the edge\n")));
}

#[tokio::test]
async fn a_command_gets_the_payload_as_input_and_answers_with_its_output() {
    let runtime = runtime();
    deploy(&runtime, "f", guest("hostile-c"), |f| f.environment = [("MODE", "echo")].into_iter().collect()).await;
    assert_eq!(runtime.invoke("f", "round trip").await.expect("answers"), "round trip");
}

#[tokio::test]
async fn a_command_that_exits_with_a_code_fails_with_it_and_its_standard_error() {
    let runtime = runtime();
    deploy(&runtime, "f", guest("hostile-c"), |f| f.environment = [("MODE", "exit3")].into_iter().collect()).await;
    let error = runtime.invoke("f", "").await.expect_err("fails");
    // The adapter for preview 1 can say only "failed" through the stable `wasi:cli/exit`.
    assert_eq!((error.kind(), error.failure().exit_code), (ErrorKind::ExecutionFailed, Some(1)));
    assert!(!error.failure().stderr_tail.is_empty());
}

#[tokio::test]
async fn a_flood_of_standard_output_is_stopped_at_its_bound() {
    let runtime = runtime();
    deploy(&runtime, "f", guest("hostile-c"), |f| f.environment = [("MODE", "flood")].into_iter().collect()).await;
    let error = runtime.invoke("f", "").await.expect_err("fails");
    assert_eq!(error.kind(), ErrorKind::ExecutionFailed);
    assert!(error.chain().contains(&RESPONSE_BYTES_MAX.to_string()), "{}", error.chain());
}

#[tokio::test]
async fn a_request_reaches_the_guest_as_it_was_sent_and_the_body_streams_back() {
    let runtime = hostile(|_| ()).await;
    let answer = text(call(&runtime, "/request?a=1&b=%20").await.expect("answers")).await;
    assert!(answer.contains("/request?a=1&b=%20") && answer.to_lowercase().contains("post"), "{answer}");
    let big = Bytes::from(vec![7; 3 << 20]);
    let response = runtime.serve("f", request("/echo", big.clone())).await.expect("answers");
    assert_eq!(response.into_body().bytes().await.expect("whole"), big);
}

#[tokio::test]
async fn trailers_are_kept() {
    let runtime = hostile(|_| ()).await;
    let body = call(&runtime, "/trailers").await.expect("answers").into_body().collect().await.expect("whole");
    assert_eq!(body.trailers().expect("kept")["x-sum"], "42");
}

#[tokio::test]
async fn a_failed_answer_passes_through_http_and_fails_an_invocation() {
    let runtime = hostile(|_| ()).await;
    let response = call(&runtime, "/exit500").await.expect("passes");
    assert_eq!(response.status(), 500);
    assert_eq!(text(response).await.trim_end(), "broken");
    assert_eq!(runtime.metrics().error_count(Filter::ALL), 1);
}

#[tokio::test]
async fn the_environment_reaches_the_guest() {
    let runtime = hostile(|f| f.environment = [("SITE", "berlin")].into_iter().collect()).await;
    let answer = text(call(&runtime, "/env").await.expect("answers")).await;
    assert!(answer.contains("berlin"), "{answer}");
}

#[tokio::test]
async fn every_sandbox_is_fresh_unless_reuse_is_asked_for_and_then_bounded() {
    let fresh = hostile(|_| ()).await;
    let count =
        async |runtime: &EdgeRuntime| text(call(runtime, "/count").await.expect("answers")).await.trim().parse::<u32>().expect("a number");
    assert_eq!(count(&fresh).await, count(&fresh).await);
    let reusing = hostile(|f| f.max_reuse = 3).await;
    let first = count(&reusing).await;
    assert_eq!([count(&reusing).await, count(&reusing).await, count(&reusing).await], [first + 1, first + 2, first]);
    assert_eq!(reusing.metrics().summary(Filter::ALL).cold_starts, 2);
}

#[tokio::test]
async fn a_sandbox_is_never_reused_after_a_trap_or_a_timeout() {
    let runtime = hostile(|f| (f.max_reuse, f.timeout_seconds) = (100, 0.1)).await;
    let first = text(call(&runtime, "/count").await.expect("answers")).await;
    call(&runtime, "/trap").await.expect_err("traps");
    assert_eq!(text(call(&runtime, "/count").await.expect("answers")).await, first);
    call(&runtime, "/loop").await.expect_err("times out");
    assert_eq!(text(call(&runtime, "/count").await.expect("answers")).await, first);
}

#[tokio::test]
async fn a_trap_fails_with_the_reason_and_the_standard_error_of_the_guest() {
    let runtime = hostile(|_| ()).await;
    let error = call(&runtime, "/stderr").await.expect_err("traps");
    assert_eq!(error.kind(), ErrorKind::ExecutionFailed);
    assert!(error.failure().stderr_tail.contains("stderr says hi"), "{error:?}");
    assert!(error.to_string().contains("unreachable"), "{error}");
    assert!(runtime.log("f").expect("deployed").lines().iter().any(|line| line.text.contains("stderr says hi")));
}

#[tokio::test]
async fn deep_recursion_ends_with_the_stack() {
    let error = call(&hostile(|_| ()).await, "/recurse").await.expect_err("fails");
    assert_eq!(error.kind(), ErrorKind::ExecutionFailed);
    assert!(error.to_string().contains("stack"), "{error}");
}

#[tokio::test]
async fn a_memory_bomb_is_stopped_at_its_limit() {
    let error = call(&hostile(|f| f.memory_mb = 16).await, "/memory").await.expect_err("fails");
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    assert!(error.to_string().contains("16 MiB"), "{error}");
}

#[tokio::test]
async fn a_handle_bomb_and_huge_headers_are_stopped() {
    let runtime = hostile(|f| f.timeout_seconds = 20.0).await;
    for path in ["/handles", "/headers"] {
        match call(&runtime, path).await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::ExecutionFailed, "{path}: {error}"),
            Ok(response) => assert_eq!(response.status(), 500, "{path}"),
        }
    }
}

#[tokio::test]
async fn a_flood_into_the_log_does_not_end_the_guest_and_is_stopped_by_the_deadline() {
    let runtime = hostile(|f| f.timeout_seconds = 0.3).await;
    assert_eq!(call(&runtime, "/stdout").await.expect_err("stopped").kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn an_invocation_logs_at_most_64_kib_and_says_that_the_rest_is_dropped() {
    let runtime = hostile(|_| ()).await;
    let log = async || {
        // A hundred bytes each: three times what is kept.
        call(&runtime, "/lines?count=2000").await.expect("goes on");
        runtime.log("f").expect("deployed").lines()
    };
    let lines = log().await;
    let (notice, kept) = lines.split_last().expect("some");
    let bytes: usize = kept.iter().map(|line| line.text.len()).sum();
    // What keeping a line costs beside its text counts as well.
    assert!((LOG_BYTES_PER_INVOCATION_MAX / 2..=LOG_BYTES_PER_INVOCATION_MAX).contains(&bytes), "{bytes}");
    // The first lines in order; the last of them may be cut.
    assert!(kept.iter().enumerate().take(kept.len() - 1).all(|(n, line)| line.text.parse() == Ok(n)), "{kept:?}");
    assert!(notice.stream == LogStream::Runtime && notice.text.contains("dropped"), "{notice:?}");
    // The next invocation may log as much.
    assert_eq!(log().await.len(), 2 * lines.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_the_deadline_holds_for_a_loop_a_blocked_call_and_a_slow_answer() {
    let timeout = Duration::from_millis(200);
    let runtime = hostile(|f| f.timeout_seconds = timeout.as_secs_f64()).await;
    for path in ["/loop", "/sleep?ms=60000", "/slow-body"] {
        let started = Instant::now();
        let error = match call(&runtime, path).await {
            Ok(response) => response.into_body().bytes().await.expect_err("cut"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Timeout, "{path}");
        let over = started.elapsed().saturating_sub(timeout);
        assert!(over < Duration::from_millis(100), "{path} ran {over:?} over");
    }
    assert_eq!(runtime.metrics().summary(Filter::ALL).errors["timeout"], 3);
}

#[tokio::test]
async fn past_concurrency_and_queue_the_answer_is_overloaded() {
    let runtime = Arc::new(hostile(|f| (f.max_concurrency, f.max_queue, f.timeout_seconds) = (1, 0, 1.0)).await);
    let busy = tokio::spawn({
        let runtime = Arc::clone(&runtime);
        async move { call(&runtime, "/sleep?ms=60000").await.map(drop) }
    });
    let deadline = Instant::now() + Duration::from_secs(5);
    while runtime.running() == 0 {
        assert!(Instant::now() < deadline, "the first call never started");
        tokio::task::yield_now().await;
    }
    assert_eq!(call(&runtime, "/count").await.expect_err("full").kind(), ErrorKind::Overloaded);
    assert_eq!(busy.await.expect("joins").expect_err("stopped").kind(), ErrorKind::Timeout);
    // A guest that had moved to the threads for long work gives its permit back when it ends there.
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = call(&runtime, "/count").await {
        assert!(error.kind() == ErrorKind::Overloaded && Instant::now() < deadline, "free again: {error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_that_leaves_the_queue_is_not_an_invocation() {
    let runtime = hostile(|f| (f.max_concurrency, f.max_queue) = (1, 1)).await;
    let mut running = Box::pin(call(&runtime, "/sleep?ms=60000"));
    assert!(futures::poll!(&mut running).is_pending());
    let mut waiting = Box::pin(call(&runtime, "/count"));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert_eq!(runtime.running(), 2);
    drop(waiting);
    assert_eq!((runtime.running(), runtime.metrics().total_invocations(Filter::ALL)), (1, 0));
    drop(running);
    assert_eq!((runtime.running(), runtime.metrics().total_invocations(Filter::ALL)), (0, 1));
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_at_the_deadline() {
    let runtime = hostile(|f| f.timeout_seconds = 0.3).await;
    let response = call(&runtime, "/big?bytes=60000000").await.expect("begins");
    let begun = Instant::now();
    while runtime.running() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(runtime.metrics().summary(Filter::ALL).errors["timeout"], 1);
    let error = response.into_body().bytes().await.expect_err("it is not whole");
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_timeout_carries_what_the_guest_wrote_to_standard_error() {
    let runtime = runtime();
    let module = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\0f\00\00\00")
        (data (i32.const 16) "before the loop")
        (func (export "_start")
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
            (loop $again (br $again))))"#;
    deploy(&runtime, "f", wat::parse_str(module).expect("valid"), |f| f.timeout_seconds = 0.2).await;
    let error = runtime.invoke("f", "").await.expect_err("it never ends");
    assert_eq!((error.kind(), error.failure().stderr_tail.as_str()), (ErrorKind::Timeout, "before the loop"));
}

#[tokio::test]
async fn sandboxes_that_wait_to_be_reused_give_way_and_calls_wait_for_room() {
    let runtime = hostile(|f| (f.max_concurrency, f.max_reuse) = (1000, 10)).await;
    let answers = futures::future::join_all((0..1000).map(|_| call(&runtime, "/sleep?ms=1000"))).await;
    assert!(answers.iter().all(Result::is_ok), "one thousand sandboxes run at once and are kept");
    deploy(&runtime, "others", guest("hostile"), |f| (f.max_concurrency, f.max_queue) = (1000, 10_000)).await;
    let others = (0..1200).map(|_| runtime.serve("others", request("/sleep?ms=500", "")));
    for answer in futures::future::join_all(others).await {
        assert_eq!(answer.expect("there is room, at once or soon").status(), 200);
    }
}

#[tokio::test]
async fn an_artifact_that_cannot_run_is_refused_with_the_reason() {
    let runtime = runtime();
    for (bytes, why) in [
        (Bytes::from_static(b"not wasm"), "not WebAssembly"),
        (guest("hello").slice(..2000), "truncated"),
        (wat::parse_str("(component)").expect("valid").into(), "exports nothing"),
        (
            wat::parse_str(r#"(component (import "acme:gpu/device" (instance (export "f" (func)))))"#).expect("valid").into(),
            "acme:gpu/device",
        ),
    ] {
        let error = runtime.add_artifact(bytes).await.expect_err(why);
        assert_eq!(error.kind(), ErrorKind::RefusedArtifact);
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_function_is_not_found() {
    assert_eq!(runtime().invoke("absent", "").await.expect_err("absent").kind(), ErrorKind::NotFound);
}
