//! Calls by the name of a function, of a hub and of nodes in processes of their own.

use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Response, header};
use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    support::{Node, artifact, data_dir, fails, json as body, problem, until},
    telemetry::series,
};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

/// Calls a function where its hub, or its node, sees fit.
async fn call(node: &Node, function: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    node.ask(Method::POST, &format!("/v1/functions/{function}/invoke"), headers, "").await
}

async fn route(hub: &Node, function: &str) -> Value {
    hub.json(&format!("/v1/routes?function={function}")).await["routes"][0].clone()
}

/// What a route tells of one node.
async fn candidate(hub: &Node, function: &str, node: &str) -> Value {
    let route = route(hub, function).await;
    let candidates = route["candidates"].as_array().expect("a list").iter();
    candidates.into_iter().find(|candidate| candidate["node"] == node).expect("there").clone()
}

#[tokio::test]
async fn calls_without_a_node_go_on_when_one_node_is_killed() {
    let fleet = Fleet::start().await;
    let hub = fleet.hub();
    let mut nodes = Vec::new();
    for id in ["edge-01", "edge-02", "edge-03"] {
        nodes.push(fleet.join(id).await);
    }
    let idempotent = [("edgeward-idempotent", "true")];
    problem(&call(hub, "hello", &idempotent).await, 404, "not_found", "function not found: `hello`");
    hub.done(&["deploy", &artifact("hello"), "--id", "hello", "--all", "--balance", "round_robin"]);
    fleet.serves("hello", 3).await;
    assert_eq!(text(hub.done(&["invoke", "hello", "--idempotent", "--timeout-seconds", "20"])), "hello from the edge\n");
    let mut answers = Vec::new();
    for round in 0..40 {
        if round == 10 {
            nodes.pop().expect("three").kill();
        }
        answers.extend(join_all((0..4).map(|_| call(hub, "hello", &idempotent))).await);
    }
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let route = route(hub, "hello").await;
    assert_eq!((&route["balance"], route["calls"].as_u64()), (&"round_robin".into(), Some(161)));
    assert!(route["retries"].as_u64().expect("a number") > 0, "{route}");
    let lost = candidate(hub, "hello", "edge-03").await;
    assert!(lost["failures"].as_u64().expect("a number") > 0 && lost["picks"].as_u64() < Some(100), "{lost}");
    let shown = text(hub.done(&["routes", "hello"]));
    assert!(shown.contains("round_robin") && shown.contains("edge-03"), "{shown}");
    fails(&hub.run(&["routes", "nothing"]), 3, "function not found: `nothing`");
    // One node and no other is asked, and nothing is tried again.
    let alone = hub.ask(Method::POST, "/v1/functions/hello/invoke?node=edge-03", &idempotent, "").await;
    assert!([503, 504].contains(&alone.status().as_u16()), "{alone:?}");
}

#[tokio::test]
async fn a_hub_that_has_a_site_calls_nodes_there_first() {
    let short = ["--heartbeat-seconds", "0.2"];
    let fleet = Fleet::start_with(&["--heartbeat-seconds", "0.2", "--site", "rome"], &short).await;
    let hub = fleet.hub();
    let _nodes = [fleet.join("edge-01").await, fleet.join("edge-02").await];
    hub.done(&["nodes", "label", "edge-02", "site=rome"]);
    hub.done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 2).await;
    until("the label is known", async || candidate(hub, "hello", "edge-02").await["nearness"] == "same_site").await;
    for _ in 0..10 {
        assert_eq!(call(hub, "hello", &[]).await.status(), 200);
    }
    assert_eq!(
        (&candidate(hub, "hello", "edge-01").await["picks"], &candidate(hub, "hello", "edge-02").await["picks"]),
        (&json!(0), &json!(10))
    );
}

#[tokio::test]
async fn a_node_calls_by_its_hub_what_it_has_not_and_the_trace_goes_along() {
    let mut fleet = Fleet::start().await;
    let _one = fleet.join("edge-01").await;
    let two = fleet.join("edge-02").await;
    let hub = fleet.hub();
    hub.done(&["deploy", &artifact("hostile"), "--id", "echo", "--node", "edge-01"]);
    fleet.serves("echo", 1).await;
    let traced = [("traceparent", TRACE), ("tracestate", "a=1")];
    let seen = async |node: &Node| {
        until("it is found", async || call(node, "echo", &traced).await.status() == 200).await;
        String::from_utf8_lossy(call(node, "echo", &traced).await.body()).into_owned()
    };
    for asked in [hub, &two] {
        let seen = seen(asked).await;
        assert!(seen.contains(TRACE) && seen.contains("a=1"), "{seen}");
    }
    assert!(!text(two.done(&["invoke", "echo"])).is_empty());
    fails(&two.run(&["invoke", "echo", "--node", "edge-02"]), 3, "function not found: `echo`");
    fails(&two.run(&["invoke", "nothing"]), 3, "function not found: `nothing`");
    problem(&two.ask(Method::GET, "/v1/routes", &[], "").await, 404, "not_found", "the hub of a fleet answers that");

    fleet.hub.take().expect("it runs").kill();
    until("the node notices", async || two.json("/v1/status").await["fleet"]["connected"] == false).await;
    let cut_off = call(&two, "echo", &[]).await;
    problem(&cut_off, 503, "unavailable", "the hub, which would find it, cannot be reached");
    assert_eq!(cut_off.headers()[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn a_node_that_fails_too_often_is_passed_by_and_routes_show_it() {
    let fleet = Fleet::start().await;
    let hub = fleet.hub();
    let _one = fleet.join("edge-01").await;
    hub.done(&["deploy", &artifact("moody"), "--id", "bad", "--env", "MOOD=errs", "--all", "--breaker-open", "20", "--attempts", "1"]);
    fleet.serves("bad", 1).await;
    until("it is given no more calls", async || {
        let answer = call(hub, "bad", &[]).await;
        assert!([500, 503].contains(&answer.status().as_u16()), "{answer:?}");
        candidate(hub, "bad", "edge-01").await["breaker"] == "open"
    })
    .await;
    let refused = call(hub, "bad", &[]).await;
    problem(&refused, 503, "unavailable", "`edge-01` failed too often (execution_failed) and is tried again in ");
    let seconds: u64 = refused.headers()[header::RETRY_AFTER].to_str().expect("text").parse().expect("a number");
    assert!((2..=20).contains(&seconds), "{seconds}");
    let shown = text(hub.done(&["routes"]));
    assert!(shown.contains("open") && shown.contains("failed too often"), "{shown}");
    fails(&hub.run(&["invoke", "bad"]), 13, "failed too often");
    assert!(fleet.has_event("breaker_changed", "edge-01"));
    let of_bad = |metric: &str| format!("edgeward_route_breaker_{metric}{{faas_name=\"bad\",edgeward_node_id=\"edge-01\"}}");
    assert_eq!((series(hub, &of_bad("state")).await, series(hub, &of_bad("openings_total")).await), (2, 1));
    // Its fault is not that of the others.
    hub.done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    until("another is called there", async || call(hub, "hello", &[]).await.status() == 200).await;
}

#[tokio::test]
async fn a_node_with_no_weight_gets_no_calls_until_it_has_one() {
    let fleet = Fleet::start().await;
    let hub = fleet.hub();
    let (_one, two) = (fleet.join("edge-01").await, fleet.join("edge-02").await);
    hub.done(&["deploy", &artifact("hello"), "--id", "hello", "--all", "--balance", "weighted"]);
    fleet.serves("hello", 2).await;
    let calls_there = async || two.json("/v1/metrics/summary").await["total"].as_u64().expect("a number");
    let call_often = async || {
        for _ in 0..5 {
            let answers = join_all((0..40).map(|_| call(hub, "hello", &[]))).await;
            assert!(answers.iter().all(|answer| answer.status() == 200), "{answers:?}");
        }
    };
    hub.done(&["nodes", "label", "edge-02", "weight=0"]);
    until("the hub knows it", async || candidate(hub, "hello", "edge-02").await["why_not"].as_str().is_some()).await;
    let before = calls_there().await;
    call_often().await;
    assert_eq!(calls_there().await, before, "it has no weight");
    hub.done(&["nodes", "label", "edge-02", "weight=1000"]);
    hub.done(&["nodes", "label", "edge-01", "weight=100"]);
    until("the hub knows it", async || candidate(hub, "hello", "edge-02").await["why_not"].is_null()).await;
    call_often().await;
    // Of 200 calls it has 182 on average.
    let more = calls_there().await - before;
    assert!((155..200).contains(&more), "it has ten times the weight of the other, and {more} of the calls");
}

#[tokio::test]
async fn deadlines_and_places_hold_on_the_hub_and_on_a_node() {
    let fleet = Fleet::start().await;
    let hub = fleet.hub();
    let one = fleet.join("edge-01").await;
    let slow = ["deploy", &artifact("moody"), "--id", "slow", "--env", "MOOD=slow", "--all", "--calls-max", "1"];
    hub.done(&slow);
    fleet.serves("slow", 1).await;
    until("it is found", async || call(hub, "slow", &[]).await.status() == 200).await;
    for asked in [hub, &one] {
        problem(&call(asked, "slow", &[("edgeward-timeout-ms", "5")]).await, 504, "timeout", "the call may have run");
        problem(&call(asked, "slow", &[("edgeward-timeout-ms", "0")]).await, 504, "timeout", "has passed");
        problem(&call(asked, "slow", &[("edgeward-timeout-ms", "-5")]).await, 400, "invalid_input", "edgeward-timeout-ms");
        problem(&call(asked, "slow", &[("edgeward-idempotent", "maybe")]).await, 400, "invalid_input", "edgeward-idempotent");
        assert_eq!(call(asked, "slow", &[("edgeward-timeout-ms", "20000")]).await.status(), 200);
    }
    let alone = hub.ask(Method::POST, "/v1/functions/slow/invoke?node=edge-01", &[("edgeward-timeout-ms", "5")], "").await;
    problem(&alone, 504, "timeout", "did not answer within 5ms");
    fails(&hub.run(&["invoke", "slow", "--timeout-seconds", "0.005"]), 4, "the call may have run");
    fails(&hub.run(&["invoke", "slow", "--timeout-seconds", "-1"]), 2, "--timeout-seconds");
    let answers = join_all((0..6).map(|_| call(hub, "slow", &[]))).await;
    let refused = answers.iter().find(|answer| answer.status() == 503).expect("there is one place");
    problem(refused, 503, "overloaded", "function `slow` has as many calls under way as it may, 1");
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert!(answers.iter().any(|answer| answer.status() == 200));
    assert!(route(hub, "slow").await["refused_full"].as_u64() > Some(0));
}

#[tokio::test]
async fn how_calls_are_routed_is_said_shown_and_refused_where_it_is_wrong() {
    let fleet = Fleet::start().await;
    let hub = fleet.hub();
    let _one = fleet.join("edge-01").await;
    let options =
        ["--balance", "least_connections", "--locality", "any", "--deadline-seconds", "2.5", "--retry-budget", "5", "--idempotent"];
    let deploy = ["deploy", &artifact("hello"), "--id", "hello", "--to", "all", "--bake", "0"];
    hub.done(&[&deploy[..], &options].concat());
    let shown = text(hub.done(&["deployments", "show", "hello"]));
    let calls = "balance least_connections, deadline_seconds 2.5, idempotent, locality any, retry.budget_percent 5.0";
    assert!(shown.contains(calls), "{shown}");
    assert_eq!(
        (&route(hub, "hello").await["balance"], &route(hub, "hello").await["locality"]),
        (&"least_connections".into(), &"any".into())
    );

    let (_folder, data_dir) = data_dir();
    let node = Node::start(&data_dir).await;
    node.deploy("hello", "hello", &options);
    assert!(text(node.done(&["functions", "show", "hello"])).contains(calls));
    let record = node.json("/v1/functions/hello").await;
    assert_eq!(record["resilience"]["retry"], json!({ "budget_percent": 5.0 }));
    for (resilience, words) in [
        (json!({ "balance": "fastest" }), "unknown variant `fastest`"),
        (json!({ "retries": 3 }), "unknown field `retries`"),
        (json!({ "retry": { "attempts": -1 } }), "`-1`"),
        (json!({ "retry": { "attempts": 11 } }), "attempts of the resilience is 11"),
        (json!({ "deadline_seconds": -1 }), "deadline_seconds of the resilience is -1"),
        (json!({ "bulkhead": { "calls_max": 0 } }), "calls_max of the resilience is 0"),
        (json!([]), "fields with their names"),
    ] {
        let wanted = json!({ "handler": record["handler"], "resilience": resilience });
        let answer = node.ask(Method::PUT, "/v1/functions/hello", &[], wanted.to_string()).await;
        problem(&answer, 400, "invalid_input", words);
    }
    let again = node.ask(Method::PUT, "/v1/functions/hello", &[], json!({ "handler": record["handler"] }).to_string()).await;
    assert!(body(&again).get("resilience").is_none(), "what is not said has its default, and is not told");
    fails(&node.run(&["deploy", &artifact("hello"), "--id", "x", "--balance", "fastest"]), 2, "`fastest` is no balance");
    fails(&node.run(&["deploy", &artifact("hello"), "--id", "x", "--attempts", "-1"]), 2, "--attempts");
    fails(&node.run(&["deploy", &artifact("hello"), "--id", "x", "--calls-max", "0"]), 9, "calls_max of the resilience is 0");
}
