//! What is deployed, and how it changes under invocations that run.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use edgeward_model::{EdgeFunction, ErrorKind, Handler, HandlerName};
use edgeward_runtime::{CallOptions, EdgeRuntime, Filter, NativeHandler};
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::support::{call, deploy, guest, hostile, runtime};

fn native(id: &str, handler: &str) -> EdgeFunction {
    EdgeFunction::new(id, id, Handler::Native(HandlerName::new(handler).expect("valid"))).expect("valid")
}

fn register(runtime: &EdgeRuntime, name: &str, handler: NativeHandler) {
    runtime.register(HandlerName::new(name).expect("valid"), handler);
}

fn echo() -> NativeHandler {
    NativeHandler::new(async |payload: Bytes| Ok::<_, std::io::Error>(payload))
}

#[tokio::test]
async fn an_invocation_fails_with_any_answer_but_2xx_and_carries_it() {
    let runtime = runtime();
    deploy(&runtime, "f", guest("daily-stats"), |_| ()).await;
    let error = runtime.invoke("f", "no,csv\n").await.expect_err("400");
    assert_eq!((error.kind(), error.failure().status), (ErrorKind::ExecutionFailed, Some(400)));
    assert!(error.to_string().contains("answered 400 Bad Request: line 1: expected the header"), "{error}");
    let summary = runtime.metrics().summary(Filter::ALL);
    assert_eq!((summary.total, summary.error_count, summary.errors["execution_failed"]), (1, 1, 1));
}

#[tokio::test]
async fn the_content_type_of_a_payload_reaches_the_guest_and_that_of_the_answer_comes_back() {
    let runtime = hostile(|_| ()).await;
    let seen = async |given: Option<&'static str>| {
        let options = CallOptions { content_type: given.map(HeaderValue::from_static), ..CallOptions::default() };
        let output = runtime.invoke_with("f", "x", options).await.expect("answers");
        assert_eq!(output.content_type.expect("given"), "application/json");
        let seen: Value = serde_json::from_slice(&output.body).expect("json");
        assert_eq!((&seen["method"], &seen["path_with_query"]), (&"POST".into(), &"/".into()));
        let pairs = seen["headers"].as_array().expect("pairs").iter();
        pairs.filter(|pair| pair[0] == "content-type").map(|pair| pair[1].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seen(Some("text/csv; header=present")).await, ["text/csv; header=present"]);
    assert_eq!(seen(None).await, ["application/octet-stream"]);
}

#[tokio::test]
async fn the_trace_context_of_a_caller_reaches_the_guest_and_without_one_there_is_none() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let runtime = hostile(|_| ()).await;
    let seen = async |given: &[(&'static str, &'static str)]| {
        let given = given.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let output = runtime.invoke_with("f", "x", CallOptions::of(&given.collect())).await.expect("answers");
        let seen: Value = serde_json::from_slice(&output.body).expect("json");
        let pairs = seen["headers"].as_array().expect("pairs").iter().map(|pair| (pair[0].as_str(), pair[1].as_str()));
        let text = pairs.map(|(name, value)| (name.expect("text").to_owned(), value.expect("text").to_owned()));
        text.filter(|(name, _)| name.starts_with("trace")).collect::<HashSet<_>>()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(seen(&[("x-trace", "a")]).await, [].into());
    assert_eq!(seen(&[("traceparent", TRACE)]).await, [pair("traceparent", TRACE)].into());
    let both = [("traceparent", TRACE), ("tracestate", "a=1,b=2"), ("tracestate", "c=3")];
    assert_eq!(seen(&both).await, [pair("traceparent", TRACE), pair("tracestate", "a=1,b=2,c=3")].into());
    assert_eq!(seen(&[("tracestate", "a=1")]).await, [].into(), "it says nothing by itself");
}

#[tokio::test]
async fn functions_are_listed_by_id_whatever_the_order_of_deployment() {
    let runtime = runtime();
    register(&runtime, "echo", echo());
    for id in ["m", "z", "a", "b-2", "b-10"] {
        runtime.deploy(native(id, "echo")).await.expect("deploys");
    }
    let listed = || runtime.list_functions().into_iter().map(|function| function.id.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(listed(), ["a", "b-10", "b-2", "m", "z"]);
    assert!(runtime.undeploy("m"));
    assert!(!runtime.undeploy("m"), "it was there once");
    assert_eq!(listed(), ["a", "b-10", "b-2", "z"]);
}

#[tokio::test]
async fn a_function_that_is_replaced_or_removed_ends_what_it_runs() {
    let runtime = Arc::new(runtime());
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    register(
        &runtime,
        "waits",
        NativeHandler::new(move |_| {
            let waiting = Arc::clone(&waiting);
            async move { waiting.acquire().await.map(|_turn| Bytes::from_static(b"the old one")) }
        }),
    );
    register(&runtime, "echo", echo());
    let begin = || {
        let runtime = Arc::clone(&runtime);
        tokio::spawn(async move { runtime.invoke("f", "").await })
    };
    let running = async || {
        while runtime.running() == 0 {
            tokio::task::yield_now().await;
        }
    };

    runtime.deploy(native("f", "waits")).await.expect("deploys");
    let old = begin();
    running().await;
    runtime.deploy(native("f", "echo")).await.expect("replaces");
    assert_eq!(runtime.invoke("f", "the new one").await.expect("answers"), "the new one");
    assert!(!old.is_finished());
    gate.add_permits(1);
    assert_eq!(old.await.expect("joins").expect("undisturbed"), "the old one");

    gate.forget_permits(1);
    runtime.deploy(native("f", "waits")).await.expect("deploys");
    let old = begin();
    running().await;
    assert!(runtime.undeploy("f"));
    assert_eq!(runtime.invoke("f", "").await.expect_err("gone").kind(), ErrorKind::NotFound);
    gate.add_permits(1);
    assert_eq!(old.await.expect("joins").expect("undisturbed"), "the old one");
    assert_eq!(runtime.metrics().summary(Filter::function("f")).error_count, 0);
}

#[tokio::test]
async fn a_guest_that_is_replaced_ends_its_answer() {
    let runtime = hostile(|_| ()).await;
    let response = call(&runtime, "/big?bytes=3000000").await.expect("answers");
    deploy(&runtime, "f", guest("hello"), |_| ()).await;
    assert_eq!(runtime.invoke("f", "").await.expect("the new one"), "hello from the edge\n");
    assert_eq!(response.into_body().bytes().await.expect("whole").len(), 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_deploy_invoke_and_undeploy_at_once_and_nothing_is_lost() {
    const TASKS: usize = 16;
    const TURNS: usize = 50;
    let runtime = Arc::new(runtime());
    register(&runtime, "echo", echo());
    let digest = runtime.add_artifact(guest("hello")).await.expect("runs here");
    let tasks = (0..TASKS).map(|task| {
        let runtime = Arc::clone(&runtime);
        tokio::spawn(async move {
            let (stays, comes, wasm) = (format!("stays-{task}"), format!("comes-{task}"), format!("wasm-{task}"));
            runtime.deploy(native(&stays, "echo")).await.expect("deploys");
            for turn in 0..TURNS {
                let payload = format!("{task} {turn}");
                runtime.deploy(native(&comes, "echo")).await.expect("deploys");
                runtime.deploy(EdgeFunction::new(&wasm, &wasm, Handler::Artifact(digest)).expect("valid")).await.expect("deploys");
                assert_eq!(runtime.invoke(&comes, payload.clone()).await.expect("its own"), payload);
                assert_eq!(runtime.invoke(&stays, payload.clone()).await.expect("still there"), payload);
                assert_eq!(runtime.invoke(&wasm, "").await.expect("answers"), "hello from the edge\n");
                assert!(runtime.undeploy(&comes) && runtime.undeploy(&wasm));
                assert_eq!(runtime.invoke(&comes, "").await.expect_err("gone").kind(), ErrorKind::NotFound);
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.expect("holds");
    }
    assert_eq!(runtime.list_functions().len(), TASKS);
    let summary = runtime.metrics().summary(Filter::ALL);
    assert_eq!((summary.total, summary.error_count), (3 * (TASKS * TURNS) as u64, 0));
    assert_eq!(runtime.running(), 0);
}
