//! Native handlers: how they answer, fail and are stopped, and how they are replaced.

use std::{error::Error, future::pending, sync::Arc};

use bytes::Bytes;
use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, Handler, HandlerName};
use edgeward_runtime::{EdgeRuntime, Filter, NativeHandler, Permit};
use parking_lot::Mutex;

use crate::support::{request, runtime, text};

fn name(name: &str) -> HandlerName {
    HandlerName::new(name).expect("valid")
}

/// A runtime with the handler as the function `f`.
async fn with(handler: NativeHandler) -> EdgeRuntime {
    let runtime = runtime();
    runtime.register(name("handler"), handler);
    deploy(&runtime, 1.0).await;
    runtime
}

async fn deploy(runtime: &EdgeRuntime, timeout_seconds: f64) {
    let mut function = EdgeFunction::new("f", "f", Handler::Native(name("handler"))).expect("valid");
    function.timeout_seconds = timeout_seconds;
    runtime.deploy(function).await.expect("deploys");
}

fn answers(answer: &'static str) -> NativeHandler {
    NativeHandler::new(async move |_| Ok::<_, std::io::Error>(Bytes::from_static(answer.as_bytes())))
}

#[derive(Debug, thiserror::Error)]
#[error("the sensor gave no reading")]
struct NoReading(#[source] std::io::Error);

#[tokio::test]
async fn a_handler_that_waits_is_stopped_at_its_deadline() {
    let runtime = with(NativeHandler::new(async |_| pending::<Result<Bytes, std::io::Error>>().await)).await;
    deploy(&runtime, 0.05).await;
    for error in
        [runtime.invoke("f", "").await.expect_err("stopped"), runtime.serve("f", request("/", "")).await.map(drop).expect_err("stopped")]
    {
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("`f` ran past its deadline of 0.05 s"), "{error}");
    }
    assert_eq!((runtime.running(), runtime.metrics().summary(Filter::ALL).errors["timeout"]), (0, 2));
}

#[tokio::test]
async fn a_panic_fails_the_invocation_with_its_message_and_nothing_else() {
    let runtime = with(NativeHandler::new(async |payload: Bytes| {
        assert!(!payload.is_empty(), "an empty reading");
        Ok::<_, std::io::Error>(payload)
    }))
    .await;
    let error = runtime.invoke("f", "").await.expect_err("panics");
    assert_eq!(error.kind(), ErrorKind::ExecutionFailed);
    assert!(error.to_string().contains("panicked: an empty reading"), "{error}");
    assert_eq!(runtime.invoke("f", "42").await.expect("goes on"), "42");
    assert_eq!(runtime.running(), 0);
}

#[tokio::test]
async fn the_error_of_a_handler_keeps_its_message_and_its_causes() {
    let runtime = with(NativeHandler::new(async |_| Err::<Bytes, _>(NoReading(std::io::Error::other("the cable is loose"))))).await;
    let error = runtime.invoke("f", "").await.expect_err("fails");
    assert_eq!(error.kind(), ErrorKind::ExecutionFailed);
    assert!(error.to_string().contains("the sensor gave no reading"), "{error}");
    let reading = error.source().expect("a cause").downcast_ref::<NoReading>().expect("the handler's own error");
    assert_eq!(reading.source().expect("with its cause").to_string(), "the cable is loose");
    assert!(error.chain().ends_with("the cable is loose"), "{}", error.chain());
}

#[tokio::test]
async fn a_handler_of_json_takes_and_gives_values_and_names_what_is_no_value() {
    let runtime = with(NativeHandler::json(async |readings: Vec<f64>| Ok::<_, std::io::Error>(readings.iter().sum::<f64>()))).await;
    assert_eq!(runtime.invoke("f", "[1.5, 2]").await.expect("answers"), "3.5");
    for payload in ["", "[1.5", r#"["warm"]"#, "\u{0}"] {
        let error = runtime.invoke("f", payload).await.expect_err(payload);
        assert_eq!(error.kind(), ErrorKind::ExecutionFailed, "{payload}");
        assert!(error.to_string().contains("not the JSON that the handler takes"), "{error}");
    }
}

#[tokio::test]
async fn a_handler_registered_again_is_for_later_deployments() {
    let runtime = with(answers("old")).await;
    runtime.register(name("handler"), answers("new"));
    assert_eq!(runtime.invoke("f", "").await.expect("answers"), "old");
    deploy(&runtime, 1.0).await;
    assert_eq!(runtime.invoke("f", "").await.expect("answers"), "new");
}

#[tokio::test]
async fn a_handler_that_is_not_registered_is_named() {
    let function = EdgeFunction::new("f", "f", Handler::Native(name("absent"))).expect("valid");
    let error = runtime().deploy(function).await.expect_err("absent");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("`absent`"), "{error}");
}

#[tokio::test]
async fn a_handler_answers_http_with_its_result() {
    let runtime = with(NativeHandler::new(async |payload: Bytes| Ok::<_, std::io::Error>(payload))).await;
    let response = runtime.serve("f", request("/any?path", "body")).await.expect("answers");
    assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, "body"));
}

/// Code that its owner calls by itself.
struct Shout(&'static str);

#[tokio::test]
async fn foreign_code_is_run_by_its_owner_and_counted_by_the_runtime() {
    let runtime = with(NativeHandler::foreign(Arc::new(Shout("!")))).await;
    let deployed = runtime.find("f").expect("deployed");
    let shout = deployed.foreign::<Shout>().expect("it is what was registered");
    assert!(deployed.foreign::<String>().is_none());
    let answer = Arc::clone(&deployed).run_foreign(|_permit, _deadline| async move { Ok(["hello", shout.0].concat()) }).await;
    assert_eq!(answer.expect("answers"), "hello!");

    let failed = || EdgeError::new(ErrorKind::ExecutionFailed, "the shout failed");
    let answer = Arc::clone(&deployed).run_foreign(|_, _| async move { Err::<(), _>(failed()) }).await;
    assert_eq!(answer.expect_err("fails").kind(), ErrorKind::ExecutionFailed);
    let refused = runtime.invoke("f", "payload").await.expect_err("it takes no bytes");
    assert!(refused.to_string().contains("takes no payload"), "{refused}");
    assert_eq!((runtime.metrics().total_invocations(Filter::ALL), runtime.metrics().error_count(Filter::ALL)), (3, 2));
}

#[tokio::test]
async fn foreign_code_that_takes_requests_gets_each_with_its_body_and_ends_at_its_deadline() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let handler = NativeHandler::foreign_serving(Arc::new(Shout("!")), move |shout, parts, body, permit, _deadline| {
        let tell = tell.clone();
        async move {
            if body.is_empty() {
                let _permit = permit;
                return pending().await;
            }
            tell.try_send((parts.uri.path().to_owned(), body, shout.0)).expect("the test listens");
            Ok(())
        }
    });
    let runtime = with(handler).await;
    assert!(runtime.find("f").expect("deployed").foreign::<Shout>().is_some());
    let response = runtime.serve("f", request("/any", "body")).await.expect("answers");
    assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, ""));
    assert_eq!(told.recv().await.expect("it was served"), ("/any".to_owned(), Bytes::from("body"), "!"));
    let refused = runtime.invoke("f", "payload").await.expect_err("it takes no bytes");
    assert!(refused.to_string().contains("takes no payload"), "{refused}");

    let mut function = EdgeFunction::new("f", "f", Handler::Native(name("handler"))).expect("valid");
    function.timeout_seconds = 0.05;
    runtime.deploy(function).await.expect("deploys");
    let late = runtime.serve("f", request("/", "")).await.expect_err("never ends");
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert!(late.to_string().contains("may still run"), "{late}");
}

#[tokio::test]
async fn foreign_code_past_its_deadline_keeps_its_permit_until_it_ends() {
    let runtime = with(NativeHandler::foreign(Arc::new(Shout("!")))).await;
    let mut function = EdgeFunction::new("f", "f", Handler::Native(name("handler"))).expect("valid");
    (function.timeout_seconds, function.max_concurrency, function.max_queue) = (0.05, 1, 0);
    runtime.deploy(function).await.expect("deploys");
    let run = |kept: Arc<Mutex<Option<Permit>>>| {
        let deployed = runtime.find("f").expect("deployed");
        deployed.run_foreign(move |permit, _| {
            *kept.lock() = Some(permit);
            pending::<Result<(), EdgeError>>()
        })
    };
    let kept = Arc::default();
    assert_eq!(run(Arc::clone(&kept)).await.expect_err("never ends").kind(), ErrorKind::Timeout);
    assert_eq!(run(Arc::default()).await.expect_err("the first still runs").kind(), ErrorKind::Overloaded);
    drop(kept.lock().take());
    assert_eq!(run(Arc::default()).await.expect_err("never ends").kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_name_that_is_forgotten_leaves_what_is_deployed_as_it_is() {
    let runtime = with(answers("old")).await;
    runtime.unregister(&name("handler"));
    assert_eq!(runtime.invoke("f", "").await.expect("it is deployed"), "old");
    let function = EdgeFunction::new("g", "g", Handler::Native(name("handler"))).expect("valid");
    assert_eq!(runtime.deploy(function).await.expect_err("nothing has this name").kind(), ErrorKind::NotFound);
}
