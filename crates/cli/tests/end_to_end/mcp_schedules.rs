//! Schedules, triggers of a fleet, routes, calls without a node and metrics by the tools of the Model Context Protocol, with a hub and a node.

use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    mcp::{Way, ask},
    support::{artifact, until},
};

#[tokio::test]
async fn an_assistant_calls_by_name_and_has_functions_run_by_themselves() {
    let fleet = Fleet::start().await;
    let hub = fleet.hub();
    let node = fleet.join("edge-01").await;
    hub.done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    let of = |process, calls: &Value| ask("legacy", Way::Stdio(process, &[]), calls);
    let beat = json!({ "schedule_id": "beat", "function_id": "hello", "when": "every 1s", "target": "all", "payload": "{}" });
    let told = of(
        hub,
        &json!([
            ["edge_invoke_function", { "function_id": "hello", "timeout_seconds": 20, "idempotent": true }],
            ["edge_invoke_function", { "function_id": "hello", "timeout_seconds": 0 }],
            ["edge_list_routes", { "function_id": "hello" }],
            ["edge_put_schedule", beat],
            ["edge_put_schedule", { "schedule_id": "beat", "function_id": "hello", "when": "0 0 30 2 *" }],
            ["edge_put_schedule", { "schedule_id": "beat", "function_id": "hello", "when": "@daily", "zone": "Mars/Base" }],
            ["edge_list_schedules", {}],
        ]),
    );
    assert_eq!(told.output(0)["text"], "hello from the edge\n");
    assert!(told.error(1).contains("`timeout_seconds` is 0"), "{}", told.error(1));
    let route = &told.output(2)["routes"][0];
    assert_eq!((&route["function"], &route["candidates"][0]["breaker"]), (&"hello".into(), &"closed".into()));
    assert_eq!((&told.output(3)["status"], &told.output(3)["schedule"]["target"]), (&"scheduled".into(), &"all".into()));
    assert!(told.error(4).contains("never due") && told.error(5).contains("`Mars/Base`"), "{} {}", told.error(4), told.error(5));
    assert_eq!(told.output(6)["schedules"][0]["when"], "every 1s");
    until("it runs by itself", async || {
        let history = node.ask(http::Method::GET, "/v1/schedules/beat/history", &[], "").await;
        history.status() == 200 && crate::support::json(&history)["totals"]["succeeded"].as_u64() > Some(0)
    })
    .await;
    let told = of(
        hub,
        &json!([
            ["edge_schedule_history", { "schedule_id": "beat" }],
            ["edge_schedule_history", { "schedule_id": "none" }],
            ["edge_remove_schedule", { "schedule_id": "beat" }],
            ["edge_list_schedules", {}],
            ["edge_metrics", { "all": true, "prefix": "edgeward_node_status" }],
            ["edge_metrics", { "all": true, "node_id": "edge-01" }],
            ["edge_metrics", { "node_id": "edge-01", "prefix": "faas_" }],
        ]),
    );
    let online = json!({
        "name": "edgeward_node_status",
        "labels": { "edgeward_node_id": "edge-01", "edgeward_node_status": "online" },
        "value": 1,
    });
    assert_eq!(*told.output(4), json!({ "series": [online], "truncated": false }));
    assert!(told.error(5).contains("leave out `node_id`") && told.error(6).contains("goes with `all`"));
    assert_eq!(told.output(0)["runs"][0]["outcome"], "succeeded");
    assert!(told.error(1).contains("schedule not found: `none`"));
    assert_eq!((&told.output(2)["status"], &told.output(3)["schedules"]), (&"removed".into(), &json!([])));

    let seen = |target: &str| json!({ "trigger_id": "seen", "function_id": "hello", "filters": ["site/+"], "target": target });
    let told = of(hub, &json!([["edge_put_trigger", seen("site=berlin")], ["edge_put_trigger", seen("somewhere")]]));
    assert_eq!((&told.output(0)["target"], &told.output(0)["delivered"]), (&"site=berlin".into(), &Value::Null));
    assert!(told.error(1).contains("`somewhere` says not which nodes"), "{}", told.error(1));
    until("it is on its node", async || node.json("/v1/triggers").await["triggers"][0]["source"] == "fleet").await;
    let told = of(hub, &json!([["edge_list_triggers", {}], ["edge_remove_trigger", { "trigger_id": "seen" }], ["edge_list_triggers", {}]]));
    assert_eq!((&told.output(0)["triggers"][0]["nodes"], &told.output(2)["triggers"]), (&json!(["edge-01"]), &json!([])));
    until("it is gone", async || node.json("/v1/triggers").await["triggers"] == json!([])).await;

    let own = json!({ "schedule_id": "own", "function_id": "hello", "when": "@yearly", "enabled": false });
    let told = of(&node, &json!([["edge_list_routes", {}], ["edge_put_schedule", own], ["edge_run_schedule", { "schedule_id": "own" }]]));
    assert!(told.error(0).contains("ask the hub of its fleet"));
    assert_eq!((&told.output(1)["schedule"]["source"], &told.output(2)["status"]), (&"node".into(), &"started".into()));
    let read_only = ask("legacy", Way::Stdio(&node, &["--read-only"]), &json!([["edge_run_schedule", { "schedule_id": "own" }]]));
    assert!(read_only.error(0).contains("read-only"));
}
