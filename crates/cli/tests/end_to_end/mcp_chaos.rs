//! Experiments of chaos engineering by the tools of the Model Context Protocol, with a hub and a node that allow them.

use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    mcp::{Way, ask},
    support::{artifact, until},
};

const ALLOWED: [&str; 3] = ["--heartbeat-seconds", "0.2", "--allow-chaos"];

const EXPERIMENT: &str = r#"
name = "late"
description = "Calls are late, and none fails for that."
before_seconds = 1
duration_seconds = 300

[[load]]
function = "hello"
per_second = 10

[[fault]]
kind = "latency"
delay_ms = 5
duration_seconds = 200
function = "hello"

[[steady_state]]
probe = "success_rate"
function = "hello"
at_least_percent = 99
"#;

#[tokio::test]
async fn an_assistant_has_a_fleet_fail_on_purpose_looks_and_ends_it() {
    let fleet = Fleet::start_with(&ALLOWED, &ALLOWED).await;
    let hub = fleet.hub();
    let node = fleet.join("edge-01").await;
    hub.done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    let of = |calls: &Value| ask("2026-07-28", Way::Stdio(hub, &[]), calls);

    let told = of(&json!([
        ["edge_list_scenarios", {}],
        ["edge_list_experiments", {}],
        ["edge_run_experiment", { "scenario": "earthquake", "function_id": "hello" }],
        ["edge_run_experiment", { "scenario": "overload" }],
        ["edge_run_experiment", { "scenario": "overload", "function_id": "ghost" }],
        ["edge_run_experiment", {}],
        ["edge_run_experiment", { "experiment": "name = 7" }],
        ["edge_show_experiment", { "experiment_id": "late:1" }],
        ["edge_run_experiment", { "experiment": EXPERIMENT }],
        ["edge_run_experiment", { "experiment": EXPERIMENT }],
    ]));
    let scenarios = told.output(0)["scenarios"].as_array().expect("a list");
    let overload = scenarios.iter().find(|scenario| scenario["name"] == "overload").expect("there");
    assert!(scenarios.len() == 6 && overload["experiment"].as_str().is_some_and(|file| file.contains("[[fault]]")), "{scenarios:?}");
    assert_eq!(told.output(1)["experiments"], json!([]));
    assert!(told.error(2).contains("`earthquake`"), "{}", told.error(2));
    assert!(told.error(3).contains("`function_id`"), "{}", told.error(3));
    assert!(told.error(4).contains("there is no function `ghost`; there are `hello`"), "{}", told.error(4));
    assert!(told.error(5).contains("either `experiment` or `scenario`"), "{}", told.error(5));
    assert!(told.error(6).contains("experiment"), "{}", told.error(6));
    assert!(told.error(7).contains("`late:1`"), "{}", told.error(7));
    let begun = told.output(8);
    assert_eq!((&begun["id"], &begun["phase"], &begun["verdict"]), (&"late:1".into(), &"before".into(), &Value::Null));
    assert!(told.error(9).contains("one runs at a time"), "{}", told.error(9));

    let show = json!([["edge_show_experiment", { "experiment_id": "late:1" }]]);
    until("its fault is injected", async || {
        let shown = of(&show).output(0).clone();
        shown["phase"] == "faults" && shown["injected"].as_array().is_some_and(|injected| injected.len() == 1)
    })
    .await;
    let told = of(&show);
    let shown = told.output(0);
    assert_eq!((&shown["id"], &shown["name"], &shown["total_seconds"]), (&"late:1".into(), &"late".into(), &301.into()));
    assert_eq!(shown["last"]["nodes_online"], 1);
    let report = shown["report"].as_str().expect("text");
    assert!(report.starts_with("# Experiment late") && report.contains("success of hello"), "{report}");

    let read_only =
        ask("legacy", Way::Stdio(hub, &["--read-only"]), &json!([["edge_stop_experiment", { "experiment_id": "late:1" }], show[0]]));
    assert!(read_only.error(0).contains("read-only"));
    assert_eq!(read_only.output(1)["phase"], "faults");
    let at_node = ask(
        "legacy",
        Way::Stdio(&node, &[]),
        &json!([["edge_list_experiments", {}], ["edge_run_experiment", { "experiment": EXPERIMENT }]]),
    );
    assert!(at_node.error(0).contains("ask the hub") && at_node.error(1).contains("ask the hub"), "{}", at_node.error(0));

    let told = of(&json!([
        ["edge_stop_experiment", { "experiment_id": "late:1" }],
        ["edge_stop_experiment", { "experiment_id": "late:1" }],
        ["edge_stop_experiment", { "experiment_id": "late:7" }],
        ["edge_list_experiments", {}],
        show[0],
    ]));
    for stopped in [told.output(0), told.output(1), &told.output(3)["experiments"][0], told.output(4)] {
        assert_eq!((&stopped["phase"], &stopped["verdict"]), (&"ended".into(), &"aborted".into()), "{stopped}");
        assert_eq!(stopped["injected"], json!([]));
    }
    assert!(told.error(2).contains("`late:7`"), "{}", told.error(2));
}
