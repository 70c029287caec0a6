//! The Model Context Protocol, driven by the official Python SDK over both of its transports and in both of its revisions.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use http::Method;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    support::{Node, artifact, data_dir, try_send, until},
};

/// A Python that has the package `mcp`; `cargo xtask test` sets it.
const PYTHON_VARIABLE: &str = "EDGEWARD_PYTHON";
/// The revisions that are spoken: the newest, and the one before by its handshake.
const MODES: [(&str, &str); 2] = [("2026-07-28", "2026-07-28"), ("legacy", "2025-11-25")];

/// How the client reaches the server.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    Http(&'a Node),
    Stdio(&'a Node, &'a [&'a str]),
}

/// What the client was told.
pub(crate) struct Told(Value);

impl Told {
    pub(crate) fn answer(&self, n: usize) -> &Value {
        &self.0["answers"][n]
    }

    /// The output of a call that succeeded.
    pub(crate) fn output(&self, n: usize) -> &Value {
        let answer = self.answer(n);
        assert_eq!(answer["is_error"], false, "{answer}");
        &answer["output"]
    }

    /// The words of a call that failed as the contract says.
    pub(crate) fn error(&self, n: usize) -> &str {
        let answer = self.answer(n);
        assert_eq!((&answer["is_error"], &answer["output"]["status"]), (&json!(true), &json!("error")), "{answer}");
        answer["output"]["error"].as_str().expect("words")
    }
}

pub(crate) fn ask(mode: &str, way: Way<'_>, calls: &Value) -> Told {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/mcp_client.py")).arg(mode);
    match way {
        Way::Http(node) => command.args(["http", &format!("http://{}/mcp", node.api)]),
        Way::Stdio(node, options) => {
            let server = format!("http://{}", node.api);
            command.args(["stdio", env!("CARGO_BIN_EXE_edgeward"), "mcp", "--server", &server]).args(options)
        }
    };
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python starts");
    client.stdin.take().expect("piped").write_all(calls.to_string().as_bytes()).expect("it reads");
    let output = client.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Told(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[tokio::test]
async fn an_assistant_works_with_a_fleet_by_the_tools_of_the_contract() {
    let fleet = Fleet::start().await;
    let hub = fleet.hub();
    let nobody = ask("legacy", Way::Stdio(hub, &[]), &json!([["edge_deploy_function", { "function_id": "f", "function_name": "hello" }]]));
    assert!(nobody.error(0).contains("no node is registered"), "{}", nobody.error(0));
    let _nodes = (fleet.join("edge-01").await, fleet.join("edge-02").await);
    hub.done(&["deploy", &artifact("hello"), "--id", "hello", "--node", "edge-01"]);
    fleet.serves("hello", 1).await;
    for (n, (mode, version)) in MODES.into_iter().enumerate() {
        let id = format!("copy-{n}");
        let told = ask(
            mode,
            Way::Stdio(hub, &[]),
            &json!([
                ["edge_list_nodes", {}],
                ["edge_list_nodes", { "status_filter": "offline" }],
                ["edge_list_nodes", { "status_filter": "asleep" }],
                ["edge_deploy_function", { "function_id": id, "function_name": "hello", "memory_mb": 64, "environment": { "A": "b" } }],
                ["edge_node_status", { "include_functions": true }],
                ["edge_node_status", { "node_id": "edge-09" }],
                ["edge_deploy_function", { "function_id": id, "function_name": "hello", "node_id": "edge-09" }],
                ["edge_deploy_function", { "function_id": "new", "function_name": "nobody-knows" }],
                ["edge_deploy_function", { "function_id": id, "function_name": "hello", "memory_mb": 0 }],
                ["edge_deploy_function", { "function_id": id }],
                ["edge_no_such_tool", {}],
                ["edge_undeploy_function", { "function_id": id, "dry_run": true }],
                ["edge_list_functions", { "node_id": "edge-02" }],
                ["edge_watch_events", { "limit": 1000 }],
                ["edge_metrics", { "node_id": "edge-02", "function_id": id }],
            ]),
        );
        assert_eq!(told.0["version"], version);
        assert_eq!(told.output(0)["total"], 2);
        assert_eq!(told.output(0)["nodes"][0], json!({ "id": "edge-01", "name": "edge-01", "status": "online", "location": "" }));
        assert_eq!(*told.output(1), json!({ "nodes": [], "total": 0 }));
        assert!(told.error(2).contains("asleep") && told.error(2).contains("offline"), "{}", told.error(2));
        let deployed = json!({ "status": "deployed", "function_id": id, "deployed_to": ["edge-01", "edge-02"], "deploy_count": 2 });
        assert_eq!(*told.output(3), deployed);
        let status = told.output(4);
        assert_eq!((&status["total_nodes"], &status["online_count"]), (&json!(2), &json!(2)));
        let functions = status["nodes"][1]["functions"].as_array().expect("asked for");
        assert!(functions.contains(&json!({ "id": id, "name": "hello" })), "{functions:?}");
        assert!(status["nodes"][0]["last_heartbeat"].as_str().is_some_and(|time| time.ends_with('Z')), "{status}");
        assert_eq!(*told.output(5), json!({ "nodes": [], "total_nodes": 0, "online_count": 0 }));
        assert!(told.error(6).contains("node not found: `edge-09`"));
        assert!(told.error(7).contains("no code is known for function `new`"), "{}", told.error(7));
        assert!(told.error(8).contains("memory_mb"), "{}", told.error(8));
        assert!(told.error(9).contains("function_name"), "{}", told.error(9));
        assert!(told.answer(10)["protocol_error"].as_str().is_some_and(|error| error.contains("edge_no_such_tool")), "{}", told.answer(10));
        let planned = told.output(11);
        assert_eq!((&planned["status"], &planned["nodes"]), (&json!("planned"), &json!(["edge-01", "edge-02"])));
        assert!(told.output(12)["functions"].as_array().expect("a list").iter().any(|function| function["id"] == id.as_str()), "not gone");
        let kinds: Vec<_> = told.output(13)["events"].as_array().expect("a list").iter().map(|event| event["kind"].clone()).collect();
        assert!(kinds.contains(&json!("node_joined")), "{kinds:?}");
        assert!(told.error(14).contains("leave out `function`"), "{}", told.error(14));
        let over_http = ask(
            mode,
            Way::Http(hub),
            &json!([["edge_list_nodes", {}], ["edge_deploy_function", { "function_id": id, "function_name": "hello" }]]),
        );
        assert_eq!((&over_http.0["version"], &over_http.output(0)["total"]), (&json!(version), &json!(2)));
        assert!(over_http.error(1).contains("read-only"), "{}", over_http.error(1));
    }
    until("the copy serves", async || hub.ask(Method::POST, "/v1/functions/copy-0/invoke?node=edge-02", &[], "").await.status() == 200)
        .await;
    let told = ask(
        "legacy",
        Way::Stdio(hub, &[]),
        &json!([
            ["edge_invoke_function", { "function_id": "copy-0", "node_id": "edge-02" }],
            ["edge_metrics", { "node_id": "edge-02" }],
            ["edge_metrics", {}],
            ["edge_function_logs", { "function_id": "copy-0", "node_id": "edge-02" }],
            ["edge_undeploy_function", { "function_id": "copy-0" }],
            ["edge_list_functions", {}],
            ["resource", "edgeward://nodes/edge-01"],
            ["resource", "edgeward://functions/hello"],
            ["resource", "edgeward://tokens/a"],
        ]),
    );
    assert_eq!(told.output(0)["text"], "hello from the edge\n");
    assert!(told.output(1)["summary"]["total"].as_u64().is_some_and(|total| total >= 2), "{}", told.output(1));
    assert!(told.error(2).contains("say of which node"));
    assert_eq!(told.output(3)["function_id"], "copy-0");
    assert_eq!(told.output(4)["nodes"], json!(["edge-01", "edge-02"]));
    assert!(!told.output(5)["functions"].to_string().contains("copy-0"));
    assert!(told.answer(6)["text"].as_str().is_some_and(|text| text.contains("\"connectivity\"")), "{}", told.answer(6));
    assert!(told.answer(7)["text"].as_str().is_some_and(|text| text.contains("sha256:")), "{}", told.answer(7));
    assert!(told.answer(8)["protocol_error"].is_string(), "{}", told.answer(8));
    let resources = told.0["resources"].as_array().expect("a list");
    assert!(
        resources.contains(&json!("edgeward://nodes/edge-02")) && resources.contains(&json!("edgeward://functions/hello")),
        "{resources:?}"
    );
}

#[tokio::test]
async fn a_state_is_pushed_pulled_and_confirmed_and_a_node_alone_is_the_one_that_is_registered() {
    let (_folder, data) = data_dir();
    let node = Node::launch(&data, &["--mcp", "read-write"], &[]);
    until("it serves", async || node.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
    node.deploy("hello", "hello", &[]);
    node.deploy("visits", "visits", &["--document", "visits"]);
    let visits = node.json("/v1/functions/visits").await["handler"]["artifact"].clone();
    let large = node.ask(Method::PUT, "/v1/documents/edge-sync.large", &[], format!(r#"{{"large": {}0}}"#, u64::MAX)).await;
    assert_eq!(large.status(), 201);
    let calls = json!([
        ["edge_sync", { "action": "status", "node_id": "edge-test" }],
        ["edge_sync", { "action": "push", "node_id": "edge-test", "data": { "celsius": 12 } }],
        ["edge_sync", { "action": "push", "node_id": "edge-test", "data": { "celsius": 13 } }],
        ["edge_sync", { "action": "pull", "node_id": "edge-test" }],
        ["edge_sync", { "action": "confirm", "node_id": "edge-test", "version": 2 }],
        ["edge_sync", { "action": "status", "node_id": "edge-test" }],
        ["edge_sync", { "action": "push" }],
        ["edge_sync", { "action": "confirm" }],
        ["edge_sync", { "action": "erase" }],
        ["edge_sync", { "action": "confirm", "version": 7 }],
        ["edge_node_status", { "include_functions": true }],
        ["edge_deploy_function", { "function_id": "twin", "function_name": "hello", "node_id": "edge-test" }],
        ["edge_invoke_function", { "function_id": "twin" }],
        ["edge_invoke_function", { "function_id": "nobody" }],
        ["edge_edit_document", { "document": "cellar", "patch": { "celsius": 21, "big": 18_446_744_073_709_551_615_u64 } }],
        ["edge_edit_document", { "document": "cellar", "patch": { "celsius": 22 }, "if_match": "\"7-00\"" }],
        ["edge_read_document", { "document": "cellar" }],
        ["edge_read_document", { "document": "edgeward.local.functions" }],
        ["edge_list_conflicts", { "document": "cellar" }],
        ["edge_list_documents", {}],
        ["edge_watch_events", {}],
        ["edge_function_logs", { "function_id": "twin", "lines": 5 }],
        ["resource", "edgeward://documents/cellar"],
        ["edge_edit_document", { "document": "cellar", "patch": { "celsius": null }, "colour": 1 }],
        ["edge_sync", { "action": "status", "node_id": "large" }],
        ["edge_sync", { "action": "pull", "node_id": "large" }],
        ["edge_metrics", { "node_id": "edge-09" }],
        ["edge_deploy_function", { "function_id": "twin", "function_name": visits }],
        ["edge_list_functions", {}],
    ]);
    let told = ask("2026-07-28", Way::Http(&node), &calls);
    let checksum = "99914b932bd37a50b983c5e7c90ae93b";
    let nothing = json!({ "status": "synced", "version": 0, "checksum": checksum, "pending_changes": 0, "last_sync": null });
    assert_eq!(*told.output(0), nothing);
    assert_eq!((&told.output(1)["status"], &told.output(1)["version"]), (&json!("pending"), &json!(1)));
    assert_eq!(told.output(2)["version"], 2);
    // md5(json.dumps({"celsius": 13}, sort_keys=True))
    let pulled = told.output(3);
    assert_eq!((&pulled["data"], &pulled["checksum"]), (&json!({ "celsius": 13 }), &json!("6f26576fa52de600b8bde961afaa509e")));
    assert_eq!((&told.output(4)["status"], &told.output(4)["pending_changes"]), (&json!("confirmed"), &json!(0)));
    assert_eq!(told.output(5)["status"], "synced");
    assert!(told.error(6).contains("`push` needs `data`") && told.error(7).contains("`confirm` needs `version`"));
    assert!(told.error(8).contains("erase"), "{}", told.error(8));
    assert_eq!((&told.output(9)["status"], &told.output(9)["version"]), (&json!("confirmed"), &json!(0)));
    let status = told.output(10);
    assert_eq!((&status["total_nodes"], &status["nodes"][0]["id"]), (&json!(1), &json!("edge-test")));
    assert_eq!(status["nodes"][0]["functions"], json!([{ "id": "hello", "name": "hello" }, { "id": "visits", "name": "visits" }]));
    assert_eq!(told.output(11)["deployed_to"], json!(["edge-test"]));
    assert_eq!(told.output(12)["text"], "hello from the edge\n");
    assert!(told.error(13).contains("function not found: `nobody`"), "{}", told.error(13));
    assert_eq!(told.output(14)["data"]["big"], 18_446_744_073_709_551_615_u64);
    assert!(told.error(15).contains("version"), "{}", told.error(15));
    assert_eq!(told.output(16)["data"]["celsius"], 21);
    assert_eq!(told.answer(17)["output"]["kind"], "forbidden");
    assert_eq!(told.output(18)["conflicts"], json!([]));
    assert!(told.output(19)["documents"].to_string().contains("edge-sync.edge-test"));
    assert!(told.error(20).contains("watch those of the hub"), "{}", told.error(20));
    assert_eq!(told.output(21)["function_id"], "twin");
    assert!(told.answer(22)["text"].as_str().is_some_and(|text| text.contains("\"celsius\":21")), "{}", told.answer(22));
    assert!(told.error(23).contains("colour"), "{}", told.error(23));
    assert_eq!(told.output(24)["version"], 1);
    assert!(told.error(25).contains("an integer of more than 64 bits"), "{}", told.error(25));
    assert!(told.error(26).contains("node not found: `edge-09`"), "{}", told.error(26));
    assert_eq!(told.output(27)["status"], "deployed");
    let twin = told.output(28)["functions"].as_array().expect("a list").iter().find(|function| function["id"] == "twin").expect("deployed");
    assert_eq!(twin["handler"], visits, "an artifact that is named by its digest is meant, whatever ran under this id");
}

#[tokio::test]
async fn over_http_nothing_is_changed_unless_the_process_was_started_so_and_no_page_elsewhere_is_answered() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("hello", "hello", &[]);
    let calls = json!([
        ["edge_list_nodes", {}],
        ["edge_edit_document", { "document": "cellar", "patch": { "celsius": 21 } }],
        ["edge_invoke_function", { "function_id": "hello" }],
        ["edge_sync", { "action": "push", "data": {} }],
        ["edge_sync", { "action": "status" }],
    ]);
    for way in [Way::Http(&node), Way::Stdio(&node, &["--read-only"])] {
        let told = ask("legacy", way, &calls);
        assert_eq!(told.output(0)["total"], 1);
        for n in 1..4 {
            assert!(told.error(n).contains("read-only"), "{}", told.error(n));
        }
        assert_eq!(told.output(4)["version"], 0);
        assert_eq!(told.0["tools"]["edge_edit_document"]["destructive_hint"], true);
    }
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let json_headers = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    let post = async |headers: &[(&str, &str)]| node.ask(Method::POST, "/mcp", &[&json_headers, headers].concat(), list).await;
    assert_eq!(post(&[]).await.status(), 200);
    // 403 is what the protocol demands.
    assert_eq!(post(&[("origin", "https://evil.example")]).await.status(), 403);
    let rebound = http::Request::post("/mcp").header("host", "evil.example:7700").header("content-type", "application/json");
    let rebound = rebound.header("accept", "application/json, text/event-stream").body(Full::from(list)).expect("valid");
    assert_eq!(try_send(node.api, rebound).await.expect("an answer").status(), 403);
    for malformed in ["{", "[]", "\u{0}", r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#] {
        let answer = node.ask(Method::POST, "/mcp", &json_headers, malformed.to_owned()).await;
        assert!(answer.status().is_client_error() || answer.body().windows(7).any(|part| part == b"\"error\""), "{malformed}");
    }
    let large = format!("{list}{}", " ".repeat(5 * 1024 * 1024));
    assert_eq!(node.ask(Method::POST, "/mcp", &json_headers, large).await.status(), 413);
    assert_eq!(post(&[]).await.status(), 200, "it still serves");
}

#[tokio::test]
async fn there_is_no_server_where_it_was_switched_off() {
    let (_folder, data) = data_dir();
    let node = Node::launch(&data, &["--mcp", "off"], &[]);
    until("it serves", async || node.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
    assert_eq!(node.ask(Method::POST, "/mcp", &[("content-type", "application/json")], "{}").await.status(), 404);
}

#[tokio::test]
async fn an_assistant_publishes_reads_and_has_functions_triggered() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("moody", "moody", &["--env", "MOOD=errs"]);
    let calls = json!([
        ["edge_put_trigger", { "trigger_id": "t", "function_id": "moody", "filters": ["a/+"], "attempts": 1, "structured": true }],
        ["edge_publish_message", { "topic": "a/b", "payload": "{\"t\": 18446744073709551617}", "content_type": "application/json", "key": "k" }],
        ["edge_publish_message", { "topic": "a/state", "payload": "on", "retain": true }],
        ["edge_publish_message", { "topic": "a/+" }],
        ["edge_list_topics", { "filter": "a/#" }],
        ["edge_read_messages", { "filter": "a/b" }],
        ["edge_read_messages", { "filter": "#", "retained": true }],
        ["edge_list_triggers", {}],
        ["edge_read_messages", { "filter": "a/#/b" }],
        ["edge_publish_message", { "topic": "a/short", "payload": "x", "expires_in_seconds": 3600 }],
        ["edge_publish_message", { "topic": "a/short", "expires_in_seconds": 0 }],
        ["edge_read_messages", { "filter": "a/+", "from": 1, "limit": 1 }],
        ["edge_read_messages", { "filter": "a/+", "from": 2 }],
        ["edge_read_messages", { "filter": "a/+", "from": 2, "before": 3 }],
    ]);
    let told = ask("2026-07-28", Way::Stdio(&node, &[]), &calls);
    assert_eq!((&told.output(0)["trigger_id"], &told.output(0)["mode"]), (&json!("t"), &json!("structured")));
    assert_eq!(*told.output(1), json!({ "topic": "a/b", "position": 1 }));
    assert!(told.error(3).contains("for filters only"), "{}", told.error(3));
    assert_eq!((&told.output(4)["topics"][0]["topic"], &told.output(4)["head"]), (&json!("a/b"), &json!(2)));
    let message = &told.output(5)["messages"][0];
    assert_eq!((&message["payload"], &message["key"]), (&json!("{\"t\": 18446744073709551617}"), &json!("k")));
    assert_eq!(told.output(6)["messages"][0]["payload"], "on");
    assert_eq!(told.output(7)["triggers"][0]["filters"], json!(["a/+"]));
    assert!(told.error(8).contains("last level"), "{}", told.error(8));
    assert_eq!(told.output(9)["position"], 3);
    assert!(node.json("/v1/topics/a/short/messages").await["messages"][0]["expires_at"].is_string());
    assert!(told.error(10).contains("cannot expire in 0 s"), "{}", told.error(10));
    let positions = |index| {
        let read = told.output(index);
        let messages = read["messages"].as_array().expect("a list").iter().map(|message| message["position"].as_u64());
        (messages.collect::<Vec<_>>(), read["next"].as_u64(), read["lost"].as_u64())
    };
    assert_eq!(positions(11), (vec![Some(1)], Some(2), Some(0)));
    assert_eq!(positions(12), (vec![Some(2), Some(3)], Some(4), Some(0)));
    assert!(told.error(13).contains("give `from` or `before`"), "{}", told.error(13));
    let letters = async || node.json("/v1/dead-letters").await["dead_letters"].as_array().map(Vec::len);
    until("all are given up", async || letters().await == Some(3)).await;
    let calls = json!([
        ["edge_list_dead_letters", { "trigger_id": "t" }],
        ["edge_act_on_dead_letter", { "id": 1, "action": "discard" }],
        ["edge_act_on_dead_letter", { "id": 7, "action": "retry" }],
        ["edge_remove_trigger", { "trigger_id": "t" }],
    ]);
    let told = ask("legacy", Way::Stdio(&node, &[]), &calls);
    let letter = &told.output(0)["dead_letters"][0];
    assert_eq!((&letter["id"], &letter["attempts"]), (&json!(1), &json!(1)));
    assert!(letter["why"].as_str().is_some_and(|why| why.contains("answered 500")), "{letter}");
    assert_eq!(told.output(1)["action"], "discard");
    assert!(told.error(2).contains("dead letter not found: `7`"), "{}", told.error(2));
    assert_eq!(told.output(3)["removed"], true);
    assert_eq!(letters().await, Some(2));
    // A server that only reads refuses what changes.
    let told = ask("legacy", Way::Stdio(&node, &["--read-only"]), &json!([["edge_publish_message", { "topic": "a" }]]));
    assert!(told.error(0).contains("read-only"), "{}", told.error(0));
}
