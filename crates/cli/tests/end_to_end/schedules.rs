//! What runs by itself on nodes in processes of their own.

use std::{fs, path::Path};

use http::{Method, header};
use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    support::{Node, artifact, data_dir, fails, json as body, problem, until},
    telemetry::series,
};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

async fn totals(node: &Node, schedule: &str) -> Value {
    node.json(&format!("/v1/schedules/{schedule}/history")).await["totals"].clone()
}

/// Waits until a schedule has run well once more.
async fn succeeds(node: &Node, schedule: &str) -> u64 {
    let succeeded = async || totals(node, schedule).await["succeeded"].as_u64().expect("a number");
    let before = succeeded().await;
    until("it runs by itself", async || succeeded().await > before).await;
    succeeded().await
}

#[tokio::test]
async fn a_schedule_fires_on_a_node_and_goes_on_with_its_history_after_a_kill() {
    let (_folder, data_dir) = data_dir();
    let node = Node::start(&data_dir).await;
    assert!(text(node.done(&["schedules"])).contains("nothing runs by itself"));
    node.deploy("hello", "hello", &[]);
    let told = text(node.done(&["schedules", "put", "beat", "hello", "--every", "1s", "--data", "{\"a\": 1}"]));
    assert!(told.starts_with("schedule beat  hello at `every 1s`, next 2") && !told.contains("note"), "{told}");
    let before = succeeds(&node, "beat").await;
    let listed = text(node.done(&["schedules"]));
    assert!(listed.contains("beat  hello") && listed.contains("succeeded"), "{listed}");
    let shown = text(node.done(&["schedules", "show", "beat"]));
    assert!(shown.contains("{\"a\": 1} (application/json)"), "{shown}");
    let log = text(node.done(&["metrics", "--json"]));
    assert!(serde_json::from_str::<Value>(&log).expect("JSON")["total"].as_u64().expect("a number") >= before);

    let runs = "edgeward_schedule_runs_total{edgeward_schedule_id=\"beat\",edgeward_outcome=\"succeeded\"}";
    assert!(series(&node, runs).await >= before);

    node.kill();
    let node = Node::start(&data_dir).await;
    let kept = totals(&node, "beat").await["succeeded"].as_u64().expect("a number");
    assert!(kept >= before, "{kept} of {before}");
    succeeds(&node, "beat").await;
    let history = text(node.done(&["schedules", "history", "beat"]));
    assert!(history.contains("succeeded") && history.contains("in all: "), "{history}");
    let runs: Value = serde_json::from_slice(&node.done(&["schedules", "history", "beat", "--json"])).expect("JSON");
    assert_eq!(runs["runs"][0]["outcome"], "succeeded");
    assert!(text(node.done(&["schedules", "remove", "beat"])).starts_with("removed schedule beat"));
    fails(&node.run(&["schedules", "show", "beat"]), 3, "schedule not found: `beat`");
}

#[tokio::test]
async fn schedules_are_changed_over_http_as_functions_are() {
    let (_folder, data_dir) = data_dir();
    let node = Node::start(&data_dir).await;
    node.deploy("hello", "hello", &[]);
    let path = "/v1/schedules/nightly";
    let wanted = json!({ "function": "hello", "when": "30 2 * * *", "zone": "Europe/Berlin", "attempts": 2 });
    let made = node.ask(Method::PUT, path, &[("if-none-match", "*")], wanted.to_string()).await;
    assert_eq!(made.status(), 201, "{:?}", made.body());
    assert_eq!((&body(&made)["zone"], &body(&made)["source"]), (&"Europe/Berlin".into(), &"node".into()));
    let tag = made.headers()[header::ETAG].to_str().expect("text").to_owned();
    let again = node.ask(Method::PUT, path, &[("if-none-match", "*")], wanted.to_string()).await;
    problem(&again, 412, "conflict", "exists already");
    assert_eq!(node.ask(Method::PUT, path, &[("if-match", &tag)], wanted.to_string()).await.status(), 200);
    let stale = node.ask(Method::PUT, path, &[("if-match", &tag)], wanted.to_string()).await;
    problem(&stale, 412, "conflict", "is at generation");
    let stale = node.ask(Method::DELETE, path, &[("if-match", &tag)], "").await;
    problem(&stale, 412, "conflict", "is at generation");
    assert_eq!(node.json("/v1/schedules").await["schedules"][0]["id"], "nightly");

    let run = node.ask(Method::POST, "/v1/schedules/nightly/run", &[], "").await;
    assert_eq!(run.status(), 202, "{:?}", run.body());
    assert_eq!((&body(&run)["attempt"], &body(&run)["is_asked"]), (&1.into(), &true.into()));
    until("it ended", async || totals(&node, "nightly").await["succeeded"] == 1).await;
    assert_eq!(node.ask(Method::DELETE, path, &[], "").await.status(), 204);
    for (method, path) in [
        (Method::GET, path),
        (Method::DELETE, path),
        (Method::POST, "/v1/schedules/nightly/run"),
        (Method::GET, "/v1/schedules/nightly/history"),
    ] {
        problem(&node.ask(method, path, &[], "").await, 404, "not_found", "schedule not found: `nightly`");
    }
    let description = node.json("/openapi.json").await;
    let put = &description["paths"]["/v1/schedules/{id}"]["put"];
    assert_eq!(put["x-required-role"], "deployer");
    assert!(description["components"]["schemas"]["ScheduleBody"]["properties"]["catch_up"].is_object());
}

#[tokio::test]
async fn a_schedule_that_is_wrong_is_refused_in_words() {
    let (_folder, data_dir) = data_dir();
    let node = Node::start(&data_dir).await;
    for (wanted, words) in [
        (json!({ "function": "f", "when": "0 0 30 2 *" }), "never due"),
        (json!({ "function": "f", "when": "at 2001-01-01T00:00:00Z" }), "is never due"),
        (json!({ "function": "f", "when": "61 * * * *" }), "61"),
        (json!({ "function": "f", "when": "@daily", "zone": "Mars/Base" }), "there is no time zone `Mars/Base`"),
        (json!({ "function": "f", "when": "every 30s", "jitter_seconds": -1 }), "`-1`"),
        (json!({ "function": "f", "when": "every 30s", "timeout_seconds": -1 }), "timeout_seconds of schedule `s` is -1"),
        (json!({ "function": "f", "when": "every 30s", "catch_up": "some" }), "`some` says not how to catch up"),
        (json!({ "function": "f", "when": "every 30s", "target": "site=berlin" }), "is for the hub of a fleet"),
        (json!({ "function": "f", "when": "every 30s", "retries": 1 }), "unknown field `retries`"),
        (json!({ "function": "f", "when": "every 30s", "payload": "{" }), "no JSON"),
        (json!([]), "not valid"),
    ] {
        let answer = node.ask(Method::PUT, "/v1/schedules/s", &[], wanted.to_string()).await;
        problem(&answer, 400, "invalid_input", words);
    }
    let large = json!({ "function": "f", "when": "every 30s", "payload": "x".repeat(600_000) });
    problem(&node.ask(Method::PUT, "/v1/schedules/s", &[], large.to_string()).await, 413, "too_large", "request");
    for (options, code, words) in [
        (&["--cron", "0 0 30 2 *"][..], 9, "never due"),
        (&["--cron", "* * *"], 9, "fields"),
        (&["--cron", "@daily", "--zone", "Mars/Base"], 2, "there is no time zone `Mars/Base`"),
        (&["--every", "30s", "--jitter", "-1"], 2, "--jitter"),
        (&["--every", "-30s"], 9, "is no interval"),
        (&["--every", "30s", "--to", "site=berlin"], 9, "is for the hub of a fleet"),
        (&[], 2, "--every"),
    ] {
        fails(&node.run(&[&["schedules", "put", "s", "f"], options].concat()), code, words);
    }
    assert_eq!(node.json("/v1/schedules").await["schedules"], json!([]));
}

#[tokio::test]
async fn a_project_brings_its_schedules_along() {
    let (folder, data_dir) = data_dir();
    let node = Node::start(&data_dir).await;
    let project = folder.path().join("project");
    write_project(&project, "every 1s");
    let project = project.display().to_string();
    let told = text(node.done(&["deploy", &project]));
    assert!(told.contains("schedule beat  hello at `every 1s`"), "{told}");
    succeeds(&node, "beat").await;
    text(node.done(&["deploy", &project, "--id", "other"]));
    assert_eq!(node.json("/v1/schedules/beat").await["function"], "other");
    write_project(Path::new(&project), "0 0 30 2 *");
    fails(&node.run(&["deploy", &project]), 9, "edgeward.toml`, line 4: cron `0 0 30 2 *`: it is never due");
}

fn write_project(folder: &Path, when: &str) {
    fs::create_dir_all(folder).expect("made");
    fs::copy(artifact("hello"), folder.join("hello.wasm")).expect("copied");
    let text = "edgeward_manifest_version = 1\n[component.hello]\nsource = \"hello.wasm\"\n[[schedule]]\nid = \"beat\"\nwhen = ";
    fs::write(folder.join("edgeward.toml"), format!("{text}\"{when}\"\n")).expect("written");
}

#[tokio::test]
async fn a_schedule_of_a_fleet_fires_on_its_node_while_the_hub_is_gone_and_is_told_of_by_the_hub() {
    let mut fleet = Fleet::start().await;
    let one = fleet.join("edge-01").await;
    let two = fleet.join("edge-02").await;
    let hub = fleet.hub();
    let told = text(hub.done(&["schedules", "put", "early", "hello", "--every", "1h"]));
    assert!(told.contains("note: this fleet has no function `hello` yet"), "{told}");
    hub.done(&["schedules", "remove", "early"]);
    hub.done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 2).await;
    let told = text(hub.done(&["schedules", "put", "beat", "hello", "--every", "1s", "--to", "node=edge-01", "--if-generation", "0"]));
    assert!(!told.contains("note"), "{told}");
    until("it is on its node", async || hub.json("/v1/schedules/beat").await["nodes"] == json!(["edge-01"])).await;
    until("the node has it", async || one.ask(Method::GET, "/v1/schedules/beat", &[], "").await.status() == 200).await;
    succeeds(&one, "beat").await;
    assert_eq!(one.json("/v1/schedules/beat").await["source"], "fleet");
    fails(&one.run(&["schedules", "remove", "beat"]), 14, "change it there");
    let listed = text(hub.done(&["schedules"]));
    assert!(listed.contains("node=edge-01") && listed.contains("1 (edge-01)"), "{listed}");
    let history = text(hub.done(&["schedules", "history", "beat"]));
    assert!(history.contains("succeeded"), "{history}");
    fails(&hub.run(&["schedules", "history", "beat", "--node", "edge-02"]), 3, "schedule not found: `beat`");
    for action in ["history", "run"] {
        fails(&one.run(&["schedules", action, "beat", "--node", "edge-02"]), 3, "this is node `edge-01`");
    }

    fleet.hub.take().expect("it runs").kill();
    until("the node notices", async || one.json("/v1/status").await["fleet"]["connected"] == false).await;
    succeeds(&one, "beat").await;
    until("its log tells it", async || one.stderr().contains("the hub cannot be reached; the node goes on alone")).await;
    fleet.start_hub().await;
    fleet.is("edge-01", "online").await;
    fleet.is("edge-02", "online").await;
    until("its log tells that it is back", async || one.stderr().contains("the hub is back")).await;
    let hub = fleet.hub();
    hub.done(&["schedules", "put", "beat", "hello", "--cron", "0 0 1 1 *", "--to", "all"]);
    until("it is on both", async || hub.json("/v1/schedules/beat").await["nodes"] == json!(["edge-01", "edge-02"])).await;
    until("the other has it", async || two.ask(Method::GET, "/v1/schedules/beat", &[], "").await.status() == 200).await;
    fails(&hub.run(&["schedules", "run", "beat"]), 9, "schedule `beat` is on `edge-01`, `edge-02`");
    assert!(text(hub.done(&["schedules", "run", "beat", "--node", "edge-02"])).contains("history beat --node edge-02"));
    until("it ran there", async || totals(&two, "beat").await["succeeded"] == 1).await;
    let stale = hub.run(&["schedules", "remove", "beat", "--if-generation", "1"]);
    fails(&stale, 12, "`edgeward schedules show ID` has the present generation");
    hub.done(&["schedules", "remove", "beat"]);
    until("it is gone", async || one.json("/v1/schedules").await["schedules"] == json!([])).await;
}
