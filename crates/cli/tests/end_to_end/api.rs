//! The HTTP API as any client sees it: conditions, problems, bounds, streams and its own description.

use std::time::Duration;

use bytes::Bytes;
use edgeward::limits::ARTIFACT_BYTES_MAX;
use http::{Method, Response, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::support::{Node, PATIENCE, artifact, data_dir, json as read, open, problem, request};

const FUNCTION: &str = "/v1/functions/f";

async fn upload(node: &Node, guest: &str) -> String {
    let bytes = std::fs::read(artifact(guest)).expect("built");
    let response = node.ask(Method::POST, "/v1/artifacts", &[], bytes).await;
    assert_eq!(response.status(), 201);
    read(&response)["digest"].as_str().expect("text").to_owned()
}

async fn put(node: &Node, headers: &[(&str, &str)], body: &Value) -> Response<Bytes> {
    node.ask(Method::PUT, FUNCTION, headers, body.to_string()).await
}

#[tokio::test]
async fn a_record_is_replaced_only_under_the_condition_that_is_asked() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let body = json!({ "handler": { "artifact": upload(&node, "hello").await } });
    problem(&put(&node, &[("if-match", "\"1\"")], &body).await, 412, "conflict", "does not exist");
    let created = put(&node, &[("if-none-match", "*")], &body).await;
    assert_eq!((created.status().as_u16(), &created.headers()[header::ETAG]), (201, &header::HeaderValue::from_static("\"1\"")));
    problem(&put(&node, &[("if-none-match", "*")], &body).await, 412, "conflict", "exists already");
    let replaced = put(&node, &[("if-match", "\"1\"")], &body).await;
    assert_eq!((replaced.status().as_u16(), &replaced.headers()[header::ETAG]), (200, &header::HeaderValue::from_static("\"2\"")));
    problem(&put(&node, &[("if-match", "\"1\"")], &body).await, 412, "conflict", "at generation 2, not 1");
    problem(&put(&node, &[("if-match", "2")], &body).await, 400, "invalid_input", "in quotes");
    problem(&node.ask(Method::DELETE, "/v1/functions/absent", &[("if-match", "*")], "").await, 412, "conflict", "does not exist");
    let shown = node.ask(Method::GET, FUNCTION, &[], "").await;
    assert_eq!((&shown.headers()[header::ETAG], &read(&shown)["generation"]), (&header::HeaderValue::from_static("\"2\""), &2.into()));
    problem(&node.ask(Method::DELETE, FUNCTION, &[("if-match", "\"1\"")], "").await, 412, "conflict", "generation 2");
    let any = put(&node, &[("if-match", "*")], &body).await;
    assert_eq!((any.status().as_u16(), &any.headers()[header::ETAG]), (200, &header::HeaderValue::from_static("\"3\"")));
    assert_eq!(node.ask(Method::DELETE, FUNCTION, &[("if-match", "\"3\"")], "").await.status(), 204);
    problem(&node.ask(Method::DELETE, FUNCTION, &[], "").await, 404, "not_found", "`f`");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_clients_that_replace_one_generation_exactly_one_wins() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let body = json!({ "handler": { "artifact": upload(&node, "hello").await } });
    put(&node, &[], &body).await;
    for generation in 1..=5 {
        let tag = format!("\"{generation}\"");
        let answers = futures::future::join_all((0..8).map(|n| {
            let (node, tag, mut body) = (&node, tag.as_str(), body.clone());
            body["name"] = format!("client {n}").into();
            async move { (n, put(node, &[("if-match", tag)], &body).await) }
        }))
        .await;
        let won: Vec<_> = answers.iter().filter(|(_, answer)| answer.status() == 200).map(|(n, _)| format!("client {n}")).collect();
        let lost = answers.iter().filter(|(_, answer)| answer.status() == 412).count();
        assert_eq!((won.len(), lost), (1, 7));
        let now = node.json(FUNCTION).await;
        assert_eq!((&now["name"], &now["generation"]), (&won[0].as_str().into(), &(generation + 1).into()));
    }
}

#[tokio::test]
async fn what_a_description_says_wrong_is_named() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let digest = upload(&node, "hello").await;
    let with = |field: &str, value: Value| {
        let mut body = json!({ "handler": { "artifact": digest } });
        body[field] = value;
        body
    };
    for (body, words) in [
        (with("memory", 64.into()), "`memory`"),
        (with("memory_mb", 0.into()), "memory_mb"),
        (with("timeout_seconds", (-1).into()), "timeout_seconds"),
        (with("allowed_hosts", json!(["no scheme"])), "no scheme"),
        (with("documents", json!([{ "document": "a/b", "access": "read-only" }])), "a/b"),
        (with("documents", json!([{ "document": "a", "access": "write" }])), "`read-write` or `read-only`"),
        (with("documents", json!([{ "document": "edgeward.nodes", "access": "read-only" }])), "the node's own"),
        (with("handler", json!({ "artifact": "sha256:12" })), "sha256:12"),
        (json!({}), "no handler"),
    ] {
        problem(&put(&node, &[], &body).await, 400, "invalid_input", words);
    }
    let unknown = format!("sha256:{}", "0".repeat(64));
    problem(&put(&node, &[], &json!({ "handler": { "artifact": unknown } })).await, 404, "not_found", "upload it first");
    problem(&put(&node, &[], &json!({ "handler": { "native": "absent" } })).await, 404, "not_found", "`absent`");
    problem(&node.ask(Method::PUT, "/v1/functions/a%20b", &[], "{}").await, 400, "invalid_input", "a b");
    problem(&node.ask(Method::PUT, FUNCTION, &[], "{").await, 400, "invalid_input", "not valid");
    assert_eq!(node.json("/v1/functions").await["functions"], json!([]), "nothing of it was written");
}

#[tokio::test]
async fn an_artifact_that_cannot_run_is_refused_with_the_reason() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let hello = std::fs::read(artifact("hello")).expect("built");
    for (bytes, words) in [(b"not wasm".to_vec(), "not WebAssembly"), (hello[..2000].to_vec(), "truncated"), (Vec::new(), "")] {
        problem(&node.ask(Method::POST, "/v1/artifacts", &[], bytes).await, 422, "refused_artifact", words);
    }
    let large = Bytes::from(vec![0; ARTIFACT_BYTES_MAX + 1]);
    problem(&node.ask(Method::POST, "/v1/artifacts", &[], large).await, 413, "too_large", &ARTIFACT_BYTES_MAX.to_string());
}

#[tokio::test]
async fn a_failed_invocation_is_a_problem_with_what_it_left_behind() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("exits", "hostile-c", &["--env", "MODE=exit3"]);
    node.deploy("loop", "hostile-c", &["--env", "MODE=loop", "--timeout-seconds", "0.2"]);
    let exits = node.ask(Method::POST, "/v1/functions/exits/invoke", &[], "").await;
    problem(&exits, 500, "execution_failed", "`exits`");
    assert!(read(&exits)["failure"]["stderr_tail"].as_str().is_some_and(|tail| tail.contains("leaving with 3")));
    problem(&node.ask(Method::POST, "/v1/functions/loop/invoke", &[], "").await, 504, "timeout", "0.2 s");
    problem(&node.ask(Method::POST, "/v1/functions/absent/invoke", &[], "").await, 404, "not_found", "`absent`");
    let summary = node.json("/v1/metrics/summary?function=loop").await;
    assert_eq!((&summary["total"], &summary["error_count"], &summary["success_rate"]), (&1.into(), &1.into(), &0.0.into()));
}

#[tokio::test]
async fn every_documented_path_is_served_and_nothing_else() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let description = node.json("/openapi.json").await;
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    let body = &description["components"]["schemas"]["FunctionBody"];
    assert!(body["properties"].is_object() && body["additionalProperties"] != false, "an answer is a body and more: {body}");
    let mut asked = Vec::new();
    for (path, operations) in description["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations").iter().filter(|(key, _)| *key != "parameters") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let path = path.replace("{id}", "f").replace("{name}", "d").replace("{key}", "k");
            asked.push(operation["operationId"].to_string());
            let asking = request(method.clone(), &path).body(Full::default()).expect("valid");
            let answer = open(node.api, asking).await.expect("an answer");
            assert_ne!(answer.status(), 405, "{method} {path}");
            // What streams without an end is served.
            if answer.status().is_client_error() {
                let body = answer.into_body().collect().await.expect("whole").to_bytes();
                assert!(!String::from_utf8_lossy(&body).contains("nothing is served"), "{method} {path}");
            }
        }
    }
    assert!(asked.len() >= 23, "{asked:?}");
    asked.sort();
    let count = asked.len();
    asked.dedup();
    assert_eq!(asked.len(), count, "each operation has a name of its own");
    problem(&node.ask(Method::GET, "/v2/functions", &[], "").await, 404, "not_found", "/openapi.json");
}

#[tokio::test]
async fn a_request_that_a_browser_was_tricked_into_is_refused() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    for origin in ["https://evil.example", "null", &format!("http://{}", node.functions)] {
        problem(&node.ask(Method::POST, "/v1/artifacts", &[("origin", origin)], "").await, 403, "forbidden", "not the API itself");
    }
    let rebound = http::Request::get("/v1/functions").header("host", "evil.example:7700").body(Full::default()).expect("valid");
    let answer = crate::support::try_send(node.api, rebound).await.expect("an answer");
    problem(&answer, 403, "forbidden", "evil.example");
    assert!(!answer.headers().contains_key(header::WWW_AUTHENTICATE), "no token would help");
    // Requests of these tests name the host without its port.
    let own = node.ask(Method::GET, "/v1/functions", &[("origin", "http://127.0.0.1")], "").await;
    assert_eq!(own.status(), 200);
}

#[tokio::test]
async fn what_the_router_refuses_is_a_problem_too() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    problem(&node.ask(Method::GET, "/v1/functions/f/logs?follow=x", &[], "").await, 400, "invalid_input", "follow");
    problem(&node.ask(Method::GET, "/v1/functions/%ff", &[], "").await, 400, "invalid_input", "UTF-8");
    let wrong = node.ask(Method::POST, "/v1/functions", &[], "").await;
    problem(&wrong, 405, "invalid_input", "`/v1/functions` does not take POST");
    assert!(wrong.headers()[header::ALLOW].to_str().is_ok_and(|methods| methods.contains("GET")), "{wrong:?}");
}

#[tokio::test]
async fn an_internal_error_is_in_the_log_of_the_node() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let digest = upload(&node, "hello").await;
    node.kill();
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    std::fs::write(data.join("artifacts").join(hex).with_extension("wasm"), "garbage").expect("written");
    std::fs::remove_dir_all(data.join("compiled")).expect("there");
    let node = Node::start(&data).await;
    assert!(!node.stderr().contains("damaged on disk"));
    let body = json!({ "handler": { "artifact": digest }, "environment": { "TOKEN": "s3cret" } });
    problem(&put(&node, &[], &body).await, 500, "internal", "damaged on disk");
    assert!(node.stderr().contains("damaged on disk") && !node.stderr().contains("s3cret"), "{}", node.stderr());
}

#[tokio::test]
async fn an_overloaded_function_tells_when_to_come_again() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("f", "hostile-c", &["--env", "MODE=loop", "--max-concurrency", "1", "--max-queue", "0", "--timeout-seconds", "50"]);
    let invoke = request(Method::POST, "/v1/functions/f/invoke").body(Full::default()).expect("valid");
    let api = node.api;
    let busy = tokio::spawn(async move { crate::support::try_send(api, invoke).await });
    node.until_running(1).await;
    let refused = node.ask(Method::POST, "/v1/functions/f/invoke", &[], "").await;
    problem(&refused, 503, "overloaded", "`f`");
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    busy.abort();
}

#[tokio::test]
async fn a_follower_of_a_log_gets_a_line_that_is_printed_later() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("f", "hostile-c", &["--env", "MODE=exit3"]);
    let follow = request(Method::GET, "/v1/functions/f/logs?follow=true").body(Full::default()).expect("valid");
    let mut follower = open(node.api, follow).await.expect("follows");
    assert_eq!(follower.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(node.ask(Method::POST, "/v1/functions/f/invoke", &[], "").await.status(), 500);
    let mut events = String::new();
    while !events.contains("leaving with 3") {
        let frame = tokio::time::timeout(PATIENCE, follower.frame()).await.expect("in time").expect("goes on").expect("whole");
        events += &String::from_utf8_lossy(frame.data_ref().expect("no trailers"));
    }
    assert!(events.contains("\"stream\":\"stderr\"") && events.contains("id: 1"), "{events}");
    // Without `follow` the lines that are there come, and an end.
    let kept = tokio::time::timeout(Duration::from_secs(5), node.ask(Method::GET, "/v1/functions/f/logs", &[], "")).await.expect("ends");
    assert!(String::from_utf8_lossy(kept.body()).contains("leaving with 3"));
}

#[tokio::test]
async fn a_follower_stays_over_a_replacement_and_ends_when_the_function_is_undeployed() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("f", "hostile-c", &["--env", "MODE=echo"]);
    let follow = request(Method::GET, "/v1/functions/f/logs?follow=true").body(Full::default()).expect("valid");
    let follower = tokio::spawn(crate::support::try_send(node.api, follow));
    node.deploy("f", "hostile-c", &["--env", "MODE=exit3"]);
    assert_eq!(node.ask(Method::POST, "/v1/functions/f/invoke", &[], "").await.status(), 500);
    node.done(&["undeploy", "f"]);
    let told = tokio::time::timeout(PATIENCE, follower).await.expect("it ends").expect("joins").expect("an answer");
    assert!(String::from_utf8_lossy(told.body()).contains("leaving with 3"), "{told:?}");
}

#[tokio::test]
async fn the_log_of_a_function_that_could_not_be_deployed_says_why() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("f", "hello", &[]);
    node.kill();
    for folder in ["artifacts", "compiled"] {
        std::fs::remove_dir_all(data.join(folder)).expect("there");
    }
    let node = Node::start(&data).await;
    for path in ["/v1/functions/f/logs", "/v1/functions/f/logs?follow=true"] {
        let log = node.ask(Method::GET, path, &[], "").await;
        let text = String::from_utf8_lossy(log.body()).into_owned();
        assert!(text.contains("could not be deployed: artifact not found") && text.contains("\"stream\":\"runtime\""), "{text}");
    }
    problem(&node.ask(Method::GET, "/v1/functions/absent/logs", &[], "").await, 404, "not_found", "`absent`");
}

#[tokio::test]
async fn the_metrics_are_the_text_format_of_prometheus_and_count_once() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("f", "hello", &[]);
    for _ in 0..3 {
        assert_eq!(node.get_function("/fn/f/").await.status(), 200);
    }
    let answer = node.ask(Method::GET, "/metrics", &[], "").await;
    assert!(answer.headers()[header::CONTENT_TYPE].to_str().is_ok_and(|kind| kind.starts_with("text/plain")));
    let text = String::from_utf8(answer.body().to_vec()).expect("text");
    assert!(text.ends_with('\n'));
    let mut typed = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let [what, name, _] = comment.splitn(3, ' ').collect::<Vec<_>>().try_into().expect("three words");
            assert!(["HELP", "TYPE"].contains(&what), "{line}");
            typed.extend((what == "TYPE").then_some(name));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        let name = series.split('{').next().expect("a name");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        assert!(typed.iter().any(|family| name.starts_with(family)), "{line} has no type");
        assert_eq!(series.contains('{'), series.ends_with('}'), "{line}");
    }
    for counted in ["faas_invocations_total", "faas_invoke_duration_seconds_count", "faas_coldstarts_total"] {
        let line = format!("\n{counted}{{faas_name=\"f\",edgeward_node_id=\"edge-test\"}} 3\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}
