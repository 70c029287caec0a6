//! Experiments on a fleet of processes, with the command that runs them.

use std::{fs, path::PathBuf};

use http::Method;
use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    support::{Node, artifact, data_dir, ended, json as body, problem, read, spawn, until},
};

const NODES: [&str; 3] = ["edge-01", "edge-02", "edge-03"];
const ALLOWED: [&str; 3] = ["--heartbeat-seconds", "0.2", "--allow-chaos"];

/// A fleet of three nodes that allow everything, with the function `hello` on each.
async fn fleet() -> (Fleet, Vec<Node>) {
    let fleet = Fleet::start_with(&ALLOWED, &ALLOWED).await;
    let mut nodes = Vec::new();
    for id in NODES {
        nodes.push(fleet.join(id).await);
    }
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 3).await;
    (fleet, nodes)
}

/// The file of a scenario as the command prints it, with times changed.
fn scenario(fleet: &Fleet, name: &str, times: &[(&str, &str)]) -> PathBuf {
    let mut text =
        String::from_utf8(fleet.hub().done(&["chaos", "scenarios", name, "--function", "hello", "--document", "prices"])).expect("text");
    for (long, short) in times {
        assert!(text.contains(long), "{long} in {text}");
        text = text.replace(long, short);
    }
    let file = fleet.path(&format!("{name}.toml"));
    fs::write(&file, format!("before_seconds = 3\n{text}")).expect("writes");
    file
}

fn run(fleet: &Fleet, file: &std::path::Path) -> (Option<i32>, Value) {
    let output = fleet.hub().run(&["chaos", "run", &file.display().to_string(), "--json"]);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_fails_costs_no_call_and_comes_back() {
    let (fleet, nodes) = fleet().await;
    let times = [("duration_seconds = 75", "duration_seconds = 20"), ("duration_seconds = 30", "duration_seconds = 6")];
    let file = scenario(&fleet, "node-failure", &times);
    let (code, report) = tokio::task::block_in_place(|| run(&fleet, &file));
    assert_eq!((code, &report["verdict"]), (Some(0), &json!("held")), "{report:#}");
    let hit = report["faults"][0]["nodes"][0].as_str().expect("a node was hit").to_owned();
    let node = nodes.iter().find(|node| node.stderr().contains("an injected fault ended this process")).expect("it says so");
    assert!(node.stderr().matches("the node is up").count() >= 2, "it started again: {}", node.stderr());
    let points = report["points"].as_array().expect("points");
    assert!(points.iter().any(|point| point["nodes_online"] == 2), "it was seen to be away: {report:#}");
    until("its fault is told", async || fleet.has_event("fault_changed", &hit)).await;
    fleet.is(&hit, "online").await;
    let shown = String::from_utf8(fleet.hub().done(&["chaos", "show", "node-failure:1"])).expect("text");
    assert!(shown.starts_with("# Experiment node-failure: held") && shown.contains("success of hello"), "{shown}");
    let listed = String::from_utf8(fleet.hub().done(&["chaos", "list"])).expect("text");
    assert!(listed.contains("node-failure:1") && listed.contains("held"), "{listed}");
}

#[tokio::test]
async fn a_node_that_is_down_ends_when_it_is_asked_to() {
    let (_folder, data_dir) = data_dir();
    let (mut child, stderr) = spawn("up", &data_dir, &[], &[("EDGEWARD_DOWN_MS", "60000")]);
    until("it is down", async || read(&stderr).contains("an injected fault ended this process")).await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    // By itself, and not by the signal, which the first process of a container does not get.
    assert_eq!(ended(&mut child).await.code(), Some(0));
}

/// Sets a key of the document `prices`.
async fn put(member: &Node, key: &str, value: &str) {
    let answer = member.ask(Method::PUT, &format!("/v1/documents/prices/keys/{key}"), &[], value.to_owned()).await;
    assert!(answer.status().is_success(), "{key}: {answer:?}");
}

/// Which of the keys of the document `prices` there are.
async fn keys(member: &Node) -> Vec<&'static str> {
    let mut there = Vec::new();
    for key in ["milk", "salt", "tea"] {
        let answer = member.ask(Method::GET, &format!("/v1/documents/prices/keys/{key}"), &[], "").await;
        match answer.status().as_u16() {
            200 => there.push(key),
            404 => {}
            _ => panic!("{key}: {answer:?}"),
        }
    }
    there
}

#[tokio::test]
async fn half_of_the_nodes_may_be_cut_off_and_what_was_written_on_both_sides_arrives() {
    let (fleet, nodes) = fleet().await;
    let hub = fleet.hub();
    put(hub, "tea", "1").await;
    for node in &nodes {
        until("every node has the document", async || keys(node).await == ["tea"]).await;
    }
    let times = [("duration_seconds = 40", "duration_seconds = 15"), ("duration_seconds = 105", "duration_seconds = 35")];
    let file = scenario(&fleet, "partition", &times);
    hub.done(&["chaos", "run", &file.display().to_string(), "--detach"]);

    let offline = async || {
        let answer = hub.json("/v1/nodes").await;
        let nodes = answer["nodes"].as_array().expect("a list");
        nodes
            .iter()
            .filter(|node| node["status"] == "offline")
            .map(|node| node["id"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    until("a node is cut off", async || !offline().await.is_empty()).await;
    let cut_off = offline().await;
    assert_eq!(cut_off.len(), 1, "half of three is one: {cut_off:?}");
    let (cut, others): (Vec<_>, Vec<_>) = NODES.into_iter().zip(&nodes).partition(|(id, _)| *id == cut_off[0]);
    let cut = cut[0].1;
    put(cut, "salt", "2").await;
    put(hub, "milk", "3").await;
    for (id, node) in &others {
        until(&format!("{id} has what was written at the hub"), async || keys(node).await.contains(&"milk")).await;
    }
    assert_eq!(keys(cut).await, ["salt", "tea"], "nothing came to what is cut off");
    for member in others.iter().map(|(_, node)| *node).chain([hub]) {
        assert_eq!(keys(member).await, ["milk", "tea"], "nothing came from it");
    }
    assert_eq!(offline().await, cut_off, "and it was looked while they were apart");

    until("the experiment is over", async || hub.json("/v1/chaos/experiments/partition:1").await["phase"] == "ended").await;
    let report = hub.json("/v1/chaos/experiments/partition:1/report").await;
    assert_eq!(report["verdict"], "held", "{report:#}");
    let converged = &report["hypotheses"][2];
    assert_ne!(converged["during"], "always", "it was seen that they differ: {report:#}");
    for member in nodes.iter().chain([hub]) {
        assert_eq!(keys(member).await, ["milk", "salt", "tea"], "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_tells_what_came_of_an_experiment() {
    let (fleet, _nodes) = fleet().await;
    let text = |abort: &str| {
        format!(
            r#"
            name = "fail_ing"
            before_seconds = 2
            duration_seconds = 12
            [[load]]
            function = "hello"
            per_second = 20
            [[fault]]
            kind = "error"
            blast_radius = "100%"
            duration_seconds = 2
            [[steady_state]]
            probe = "success_rate"
            function = "hello"
            at_least_percent = 99
            {abort}
            "#
        )
    };
    let file = fleet.path("failing.toml");
    fs::write(&file, text("")).expect("writes");
    let (code, report) = tokio::task::block_in_place(|| run(&fleet, &file));
    assert_eq!((code, &report["verdict"]), (Some(16), &json!("broken")), "{report:#}");
    fs::write(&file, text("[[abort]]\nprobe = \"success_rate\"\nfunction = \"hello\"\nat_least_percent = 50\nfor_seconds = 1"))
        .expect("writes");
    let (code, report) = tokio::task::block_in_place(|| run(&fleet, &file));
    assert_eq!((code, &report["verdict"]), (Some(17), &json!("aborted")), "{report:#}");

    let path = file.display().to_string();
    fleet.hub().done(&["chaos", "run", &path, "--detach"]);
    let second = fleet.hub().run(&["chaos", "run", &path]);
    assert_eq!(second.status.code(), Some(12), "one at a time: {}", String::from_utf8_lossy(&second.stderr));
    let stopped = String::from_utf8(fleet.hub().done(&["chaos", "stop", "fail_ing:3"])).expect("text");
    assert!(stopped.contains("aborted") && stopped.contains("somebody ended it"), "{stopped}");
    fs::write(&file, text("").replace("function = \"hello\"", "function = \"ghost\"")).expect("writes");
    let ghost = fleet.hub().run(&["chaos", "run", &path]);
    let why = String::from_utf8_lossy(&ghost.stderr).into_owned();
    assert!(ghost.status.code() == Some(9) && why.contains("there is no function `ghost`; there are `hello`"), "{why}");
    // What is no id is none of an experiment either.
    for id in ["none:1", "fail ing:3", "fail/ing:3", "../experiments/fail_ing:3", ".."] {
        for action in ["show", "stop"] {
            assert_eq!(fleet.hub().run(&["chaos", action, id]).status.code(), Some(3), "{action} {id}");
        }
    }
    let both = fleet.hub().ask(Method::POST, "/v1/chaos/experiments?function=hello", &[], text("")).await;
    problem(&both, 400, "invalid_input", "`function` and `document` go with a `scenario`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_injects_anything_where_it_is_not_allowed() {
    let short = ["--heartbeat-seconds", "0.2"];
    let fleet = Fleet::start_with(&ALLOWED, &short).await;
    let _node = fleet.join("edge-01").await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    let run = ["chaos", "run", "--scenario", "slow-network", "--function", "hello"];
    let refused = fleet.hub().run(&run);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(14) && why.contains("node `edge-01`") && why.contains("--allow-chaos"), "{why}");
    let fleet = Fleet::start().await;
    let refused = fleet.hub().run(&run);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(14) && why.contains("this hub runs no experiments"), "{why}");
    let answer = fleet.hub().ask(Method::POST, "/v1/chaos/experiments?scenario=overload&function=hello", &[], "").await;
    assert_eq!((answer.status().as_u16(), &body(&answer)["status"]), (403, &json!(403)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_the_ready_made_scenarios_hold_as_they_are() {
    let (fleet, _nodes) = fleet().await;
    let put = fleet.hub().ask(Method::PUT, "/v1/documents/prices/keys/tea", &[], "1").await;
    assert!(put.status().is_success(), "{put:?}");
    for name in ["node-failure", "partition", "slow-network", "overload", "disk-full", "cascading-failure"] {
        let mut args = vec!["chaos", "run", "--scenario", name, "--function", "hello", "--json"];
        args.extend(["partition", "disk-full"].contains(&name).then_some(["--document", "prices"]).into_iter().flatten());
        let output = tokio::task::block_in_place(|| fleet.hub().run(&args));
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{name}: {report} {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_began_and_stopped_an_experiment_and_each_fault_are_in_the_audit_logs() {
    let fleet = Fleet::start_with(&ALLOWED, &ALLOWED).await;
    let node = fleet.join("edge-01").await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    let file = fleet.path("audited.toml");
    let text = r#"
        name = "audited"
        before_seconds = 1
        duration_seconds = 300
        [[fault]]
        kind = "latency"
        delay_ms = 1
        duration_seconds = 200
        [[steady_state]]
        probe = "nodes_online"
        at_least = 1
        "#;
    fs::write(&file, text).expect("writes");
    let audited = |process: &Node, words: &[&str]| {
        process.stderr().lines().any(|line| line.contains("audit") && words.iter().all(|words| line.contains(words)))
    };
    fleet.hub().done(&["chaos", "run", &file.display().to_string(), "--detach"]);
    until("who began it is told", async || audited(fleet.hub(), &["began an experiment", "audited:1", "by=", "loopback"])).await;
    assert!(audited(fleet.hub(), &["an experiment begins", "audited:1"]), "{}", fleet.hub().stderr());
    until("its fault is told", async || audited(&node, &["the fault `", "latency", "is injected", "edge-01"])).await;
    fleet.hub().done(&["chaos", "stop", "audited:1"]);
    until("who stopped it is told", async || audited(fleet.hub(), &["stopped an experiment", "audited:1", "by=", "loopback"])).await;
    assert!(audited(fleet.hub(), &["an experiment has ended", "audited:1", "aborted", "somebody ended it"]), "{}", fleet.hub().stderr());
    until("its end is told", async || audited(&node, &["the fault `", "latency", "ended", "edge-01"])).await;
}
