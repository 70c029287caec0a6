//! Deployments of a fleet, with real processes, guests and a nats-server.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{
    fleet_support::Fleet,
    load::Load,
    support::{Node, artifact, until},
};

/// Connections of the load.
const CONNECTIONS: usize = 64;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

async fn fleet_of(count: usize) -> (Fleet, Vec<Node>) {
    let fleet = Fleet::start().await;
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(fleet.join(&format!("edge-{number:02}")).await);
    }
    (fleet, nodes)
}

/// Deploys `moody` in a mood, and says how that ended and what was told.
fn deploy(fleet: &Fleet, mood: &str, options: &[&str]) -> (bool, String) {
    let (artifact, mood) = (artifact("moody"), format!("MOOD={mood}"));
    let arguments = [&["deploy", &artifact, "--id", "moody", "--to", "all", "--env", &mood], options].concat();
    let output = fleet.hub().run(&arguments);
    let told = [text(output.stdout), text(output.stderr)].concat();
    (output.status.success(), told)
}

fn listeners(nodes: &[Node]) -> Vec<SocketAddr> {
    nodes.iter().map(|node| node.functions).collect()
}

async fn say(nodes: &[Node], mood: &str) {
    for node in nodes {
        until(&format!("it says {mood}"), async || node.get_function("/fn/moody/").await.body() == format!("{mood}\n").as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_roll_out_and_back_under_load_and_no_request_fails() {
    let (fleet, nodes) = fleet_of(3).await;
    let first = deploy(&fleet, "well", &["--bake", "0"]);
    assert!(first.0 && first.1.contains("completed"), "{}", first.1);
    say(&nodes, "well").await;
    let load = Load::on(&listeners(&nodes), "/fn/moody/", CONNECTIONS);
    // How fast requests are says nothing on a machine that has more of them than it can answer.
    for (mood, strategy) in [("glad", "rolling"), ("calm", "canary"), ("merry", "blue-green")] {
        let (ended, told) = deploy(&fleet, mood, &["--strategy", strategy, "--bake", "1", "--probe", "/health", "--max-slower", "100"]);
        assert!(ended, "{strategy}: {told}");
        say(&nodes, mood).await;
    }
    let told = text(fleet.hub().done(&["rollouts", "rollback", "moody"]));
    assert!(told.contains("from revision 4 to revision 3"), "{told}");
    let told = text(fleet.hub().done(&["rollouts", "show", "moody", "--follow"]));
    assert!(told.contains("completed"), "{told}");
    say(&nodes, "calm").await;
    let (well, failed, last) = load.stop().await;
    println!("{well} requests");
    assert!(well > 1000 && failed == 0, "{failed} of {}: {last}", well + failed);
    let told = text(fleet.hub().done(&["deployments", "diff", "moody", "--from", "1", "--to", "2"]));
    assert!(told.contains("environment.MOOD") && !told.contains("glad"), "{told}");
    let told = text(fleet.hub().done(&["deployments", "show", "moody"]));
    assert!(told.contains("3 wanted, 3 ready") && !told.contains("merry"), "{told}");
    let told = text(fleet.hub().done(&["rollouts"]));
    assert!(told.contains("moody:") && told.lines().count() == 6, "{told}");
    fleet.hub().done(&["deployments", "remove", "moody"]);
    for node in &nodes {
        until("it is gone", async || node.get_function("/fn/moody/").await.status() == 404).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_errs_slows_leaks_or_traps_goes_back_and_no_other_node_saw_it() {
    let (fleet, nodes) = fleet_of(3).await;
    assert!(deploy(&fleet, "well", &["--bake", "0"]).0);
    let load = Load::on(&listeners(&nodes), "/fn/moody/", 12);
    until("there is something to compare with", async || load.well() > 500).await;
    for (mood, why) in
        [("errs", "invocations failed"), ("traps", "invocations failed"), ("leaks", "invocations failed"), ("slow", "95th percentile")]
    {
        // An instance that serves again has what it leaked.
        let (ended, told) = deploy(
            &fleet,
            mood,
            &["--strategy", "canary", "--bake", "5", "--min-samples", "50", "--max-reuse", "1000", "--memory-mb", "32"],
        );
        // On a machine with much to do, what fails may be found to be slow first.
        let is_found = told.contains(why) || (mood != "slow" && told.contains("95th percentile"));
        assert!(!ended && told.contains("was rolled back") && is_found, "{mood}: {told}");
        say(&nodes, "well").await;
    }
    load.stop().await;
    let mut saw = 0;
    for node in &nodes {
        let summary: Value = serde_json::from_slice(&node.done(&["metrics", "--json"])).expect("JSON");
        saw += u64::from(summary["error_count"].as_u64().expect("a number") > 0);
    }
    assert_eq!(saw, 1, "one of three is the canary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deployment_would_do_is_told_and_what_it_cannot_do_too() {
    let (fleet, nodes) = fleet_of(2).await;
    let hub = fleet.hub();
    let hello = artifact("hello");
    let planned = |options: &[&str]| text(hub.done(&[&["deploy", &hello, "--id", "hello", "--dry-run"], options].concat()));
    let told = planned(&["--to", "site=berlin", "--wave", "capability=gpu", "--batch", "1"]);
    assert!(told.contains("revision 1 (a new one) in place of nothing") && told.contains("1 + 1"), "{told}");
    let told = planned(&["--to", "count=3,capability=gpu"]);
    assert!(told.contains("1 could not be placed: there are no other nodes"), "{told}");
    let told = planned(&["--to", "count=1,capability=camera"]);
    assert!(told.contains("no node has `camera`"), "{told}");
    assert!(text(hub.done(&["deployments"])).contains("nothing is deployed"), "a plan changes nothing");

    let refused = |options: &[&str]| text(hub.run(&[&["deploy", &hello, "--id", "hello"], options].concat()).stderr);
    assert!(refused(&["--to", "berlin"]).contains("says not which nodes"));
    assert!(refused(&["--to", "node=edge-09"]).contains("node not found: `edge-09`"));
    assert!(refused(&["--strategy", "canary"]).contains("--to all"));
    assert!(refused(&["--to", "all", "--all"]).contains("--to"));
    assert!(refused(&["--to", "all", "--strategy", "blue-green", "--batch", "2"]).contains("takes no batch"));
    let of_node = text(nodes[0].run(&["deploy", &hello, "--id", "hello", "--to", "all"]).stderr);
    assert!(of_node.contains("nothing is served at `/v1/deployments/hello`"), "{of_node}");

    hub.done(&["deploy", &hello, "--id", "hello", "--to", "count=1", "--bake", "0"]);
    let conflict = text(hub.run(&["deploy", &hello, "--id", "hello", "--to", "all", "--if-generation", "999"]).stderr);
    assert!(conflict.contains("generation"), "{conflict}");
    assert!(refused(&["--all"]).contains("deployments remove hello"));
    for (action, words) in
        [("pause", "it is completed"), ("approve", "it is completed"), ("resume", "it is completed"), ("abort", "it is completed")]
    {
        let told = text(hub.run(&["rollouts", action, "hello"]).stderr);
        assert!(told.contains(words), "{told}");
    }
    assert!(text(hub.run(&["rollouts", "rollback", "hello"]).stderr).contains("no revision of function `hello` to go back to"));
    assert!(text(hub.run(&["rollouts", "show", "hello:99"]).stderr).contains("rollout not found: `hello:99`"));

    hub.done(&["nodes", "drain", "edge-01"]);
    assert!(text(hub.done(&["nodes"])).contains("draining"));
    hub.done(&["nodes", "undrain", "edge-01"]);
    hub.done(&["nodes", "hold", "edge-01", "--for", "2h", "--reason", "inventory"]);
    let told = text(hub.done(&["nodes", "show", "edge-01"]));
    assert!(told.contains("held until") && told.contains("inventory"), "{told}");
    let told = planned(&["--to", "all"]);
    assert!(told.contains("edge-01: held until"), "{told}");
    hub.done(&["nodes", "unhold", "edge-01"]);
    nodes[1].done(&["nodes", "hold", "edge-02"]);
    until("the hub knows", async || hub.json("/v1/nodes/edge-02").await["held"] == "held").await;
    assert!(text(nodes[1].run(&["nodes", "hold", "edge-01"]).stderr).contains("this is node `edge-02`"));
}
