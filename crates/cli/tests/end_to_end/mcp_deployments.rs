//! Deployments and rollouts by the tools of the Model Context Protocol, with a hub and two nodes.

use edgeward::{Digest, FunctionId, signing::SigningKey};
use http::Method;
use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    mcp::{Told, Way, ask},
    support::{Node, artifact, json as body, until},
};

/// A fleet that an assistant rolls out to.
struct Rolling {
    fleet: Fleet,
    nodes: (Node, Node),
    /// The digest of `moody`, which was uploaded.
    digest: Value,
}

impl Rolling {
    async fn start() -> Self {
        let fleet = Fleet::start().await;
        let nodes = (fleet.join("edge-01").await, fleet.join("edge-02").await);
        let wasm = std::fs::read(artifact("moody")).expect("built");
        let uploaded = fleet.hub().ask(Method::POST, "/v1/artifacts", &[("content-type", "application/wasm")], wasm).await;
        Self { fleet, nodes, digest: body(&uploaded)["digest"].clone() }
    }

    /// The arguments that roll out `moody` in a mood.
    fn moody(&self, mood: &str, strategy: &Value) -> Value {
        let environment = json!({ "MOOD": mood });
        let target = "site=berlin";
        json!({ "function_id": "moody", "artifact": self.digest, "environment": environment, "target": target, "strategy": strategy })
    }

    fn ask(&self, calls: &Value) -> Told {
        ask("legacy", Way::Stdio(self.fleet.hub(), &[]), calls)
    }

    /// Rolls out, and waits until that has come so far.
    async fn roll_out(&self, call: &Value, state: &str) {
        let told = self.ask(&json!([["edge_roll_out_artifact", call]]));
        self.becomes(state, &told.output(0)["deployment"]["generation"]).await;
    }

    /// Waits for a state of the rollout of a generation, or its approval.
    async fn becomes(&self, state: &str, generation: &Value) {
        until(&format!("generation {generation} is {state}"), async || {
            let rollout = self.fleet.hub().json("/v1/rollouts/moody").await;
            rollout["generation"] == *generation && (rollout["state"] == state || rollout["approval"] == state)
        })
        .await;
    }
}

/// The arguments with one that is another.
fn with(mut call: Value, name: &str, value: Value) -> Value {
    call[name] = value;
    call
}

#[tokio::test]
async fn an_assistant_rolls_out_to_a_fleet_and_a_canary_that_fails_goes_back() {
    let rolling = Rolling::start().await;
    let canary = json!({ "kind": "canary", "bake_seconds": 0, "gate": { "probe": { "path": "/" } } });
    let well = rolling.moody("well", &canary);
    let planning = with(well.clone(), "dry_run", json!(true));
    let told = rolling.ask(&json!([
        ["edge_list_deployments", {}],
        ["edge_roll_out_artifact", planning],
        ["edge_roll_out_artifact", with(well.clone(), "strategy", json!({ "kind": "sideways" }))],
        ["edge_roll_out_artifact", with(well.clone(), "target", json!("node=edge-09"))],
        ["edge_roll_out_artifact", with(well.clone(), "memory_mb", json!(0))],
        ["edge_roll_out_artifact", well],
    ]));
    assert_eq!(*told.output(0), json!({ "deployments": [] }));
    let planned = told.output(1);
    assert_eq!((&planned["status"], &planned["plan"]["revision"], &planned["deployment"]), (&json!("planned"), &json!(1), &Value::Null));
    assert_eq!(planned["plan"]["waves"][0]["nodes"], json!(["edge-01", "edge-02"]));
    assert!(told.error(2).contains("sideways"), "{}", told.error(2));
    assert!(told.error(3).contains("node not found: `edge-09`"), "{}", told.error(3));
    assert!(told.error(4).contains("memory_mb"), "{}", told.error(4));
    let deployed = told.output(5);
    assert_eq!((&deployed["status"], &deployed["deployment"]["nodes"]["wanted"]), (&json!("deployed"), &json!(2)));
    rolling.becomes("completed", &deployed["deployment"]["generation"]).await;

    rolling.roll_out(&rolling.moody("errs", &canary), "rolled_back").await;
    let told = rolling.ask(&json!([
        ["edge_show_rollout", { "rollout_id": "moody" }],
        ["edge_show_rollout", { "rollout_id": "moody/../x" }],
        ["edge_list_rollouts", {}],
        ["edge_show_deployment", { "function_id": "moody" }],
        ["edge_act_on_rollout", { "rollout_id": "moody", "action": "pause" }],
        ["edge_act_on_rollout", { "rollout_id": "moody", "action": "pause", "revision": 1 }],
    ]));
    let rollout = told.output(0);
    assert_eq!((&rollout["from"], &rollout["to"], &rollout["state"]), (&json!(1), &json!(2), &json!("rolled_back")), "{rollout}");
    assert!(rollout["reason"].as_str().is_some_and(|why| why.contains("500")), "{rollout}");
    assert_eq!(rollout["waves"][0]["nodes"]["wanted"], 2);
    assert!(told.error(1).contains("rollout not found"), "{}", told.error(1));
    assert_eq!(told.output(2)["rollouts"].as_array().map(Vec::len), Some(2));
    assert_eq!(told.output(3)["revisions"].as_array().map(Vec::len), Some(2));
    assert!(!told.output(3).to_string().contains("errs"), "values of an environment are not told");
    assert!(told.error(4).contains("rolled back"), "{}", told.error(4));
    assert!(told.error(5).contains("for a rollback"), "{}", told.error(5));
    for node in [&rolling.nodes.0, &rolling.nodes.1] {
        until("it serves the former one", async || node.get_function("/fn/moody/").await.body() == "well\n".as_bytes()).await;
    }
}

#[tokio::test]
async fn an_assistant_pauses_resumes_approves_aborts_and_goes_back() {
    let rolling = Rolling::start().await;
    let step = json!({ "batch": "1", "bake_seconds": 0, "approve": true });
    rolling.roll_out(&rolling.moody("well", &json!({ "bake_seconds": 0 })), "completed").await;
    rolling.roll_out(&rolling.moody("glad", &step), "awaited").await;
    let told = rolling.ask(&json!([
        ["edge_act_on_rollout", { "rollout_id": "moody", "action": "pause" }],
        ["edge_act_on_rollout", { "rollout_id": "moody", "action": "resume" }],
        ["edge_act_on_rollout", { "rollout_id": "moody", "action": "approve" }],
    ]));
    assert_eq!((&told.output(0)["state"], &told.output(2)["approval"]), (&json!("paused"), &json!("given")));
    rolling.becomes("completed", &told.output(2)["generation"]).await;
    let told = rolling.ask(&json!([["edge_act_on_rollout", { "rollout_id": "moody", "action": "rollback" }]]));
    assert_eq!(told.output(0)["to"], 1);
    rolling.becomes("completed", &told.output(0)["generation"]).await;
    rolling.roll_out(&rolling.moody("calm", &step), "awaited").await;
    let told = rolling.ask(&json!([["edge_act_on_rollout", { "rollout_id": "moody", "action": "abort" }]]));
    rolling.becomes("rolled_back", &told.output(0)["generation"]).await;
}

#[tokio::test]
async fn an_assistant_rolls_out_with_a_signature_where_keys_are_trusted() {
    let rolling = Rolling::start().await;
    let key = SigningKey::generate().expect("random");
    rolling.fleet.hub().done(&["trust", "add", &key.public_key().to_string()]);
    let digest: Digest = serde_json::from_value(rolling.digest.clone()).expect("a digest");
    let signature = json!(key.sign(&FunctionId::new("moody").expect("valid"), &digest, 7));
    let unsigned = rolling.moody("well", &json!({ "bake_seconds": 0 }));
    let signed = with(unsigned.clone(), "signature", signature.clone());
    let told = rolling.ask(&json!([
        ["edge_roll_out_artifact", unsigned],
        ["edge_roll_out_artifact", with(signed.clone(), "signature", with(signature.clone(), "counter", json!(8)))],
        ["edge_roll_out_artifact", with(signed.clone(), "signature", with(signature.clone(), "key", json!("ed25519:00")))],
        ["edge_roll_out_artifact", with(signed.clone(), "signature", with(signature, "more", json!(1)))],
        ["edge_roll_out_artifact", with(signed.clone(), "dry_run", json!(true))],
    ]));
    assert!(told.error(0).contains("is not signed"), "{}", told.error(0));
    assert!(told.error(1).contains("is not that of"), "{}", told.error(1));
    assert!(told.error(2).contains("64 hexadecimal digits"), "{}", told.error(2));
    assert!(told.error(3).contains("`more`"), "{}", told.error(3));
    assert_eq!(told.output(4)["status"], "planned");
    rolling.roll_out(&signed, "completed").await;
    let mut alone = signed;
    for argument in ["target", "strategy"] {
        alone.as_object_mut().expect("an object").remove(argument);
    }
    alone["function_id"] = json!("other");
    let told = rolling.ask(&json!([["edge_deploy_artifact", alone]]));
    assert!(told.error(0).contains("is not that of"), "it is signed for another function: {}", told.error(0));
}

#[tokio::test]
async fn an_assistant_drains_and_holds_nodes_and_changes_nothing_where_it_may_not() {
    let rolling = Rolling::start().await;
    rolling.roll_out(&rolling.moody("well", &json!({ "bake_seconds": 0 })), "completed").await;
    let planning = with(rolling.moody("well", &json!({})), "dry_run", json!(true));
    let of_node = |action: &str| json!(["edge_act_on_node", { "node_id": "edge-01", "action": action }]);
    let told = rolling.ask(&json!([
        of_node("drain"),
        of_node("undrain"),
        ["edge_act_on_node", { "node_id": "edge-01", "action": "hold", "reason": "inventory", "hold_seconds": 3600 }],
        of_node("unhold"),
        ["edge_act_on_node", { "node_id": "edge-01", "action": "drain", "reason": "inventory" }],
        ["edge_act_on_node", { "node_id": "edge-09", "action": "drain" }],
        ["edge_rebalance", { "moves_max": 1 }],
        ["edge_watch_events", { "limit": 1000 }],
        ["edge_undeploy_function", { "function_id": "moody" }],
        ["edge_remove_deployment", { "function_id": "moody" }],
        ["edge_show_deployment", { "function_id": "moody" }],
    ]));
    assert_eq!(*told.output(0), json!({ "node_id": "edge-01", "draining": true, "held": null }));
    assert_eq!(told.output(1)["draining"], false);
    assert!(told.output(2)["held"].as_str().is_some_and(|why| why.contains("inventory") && why.contains("until")), "{}", told.output(2));
    assert_eq!(told.output(3)["held"], Value::Null);
    assert!(told.error(4).contains("are for `hold`"), "{}", told.error(4));
    assert!(told.error(5).contains("node not found: `edge-09`"), "{}", told.error(5));
    assert_eq!(*told.output(6), json!({ "moves": [] }));
    for kind in ["deployment_changed", "rollout_changed", "node_duties"] {
        assert!(told.output(7)["events"].as_array().expect("a list").iter().any(|event| event["kind"] == kind), "{kind}");
    }
    assert!(told.error(8).contains("deployments remove"), "{}", told.error(8));
    assert_eq!(told.output(9)["status"], "removed");
    assert!(told.error(10).contains("deployment not found"), "{}", told.error(10));

    let told = ask(
        "2026-07-28",
        Way::Http(rolling.fleet.hub()),
        &json!([
            ["edge_list_rollouts", {}],
            ["edge_roll_out_artifact", planning],
            ["edge_roll_out_artifact", rolling.moody("well", &json!({}))],
            ["edge_act_on_node", { "node_id": "edge-01", "action": "drain" }],
            ["edge_rebalance", {}],
        ]),
    );
    assert_eq!((told.answer(0)["is_error"].clone(), &told.output(1)["status"]), (json!(false), &json!("planned")));
    for n in 2..5 {
        assert!(told.error(n).contains("read-only"), "{}", told.error(n));
    }
    let told = ask("legacy", Way::Stdio(&rolling.nodes.0, &[]), &json!([["edge_list_deployments", {}], ["edge_rebalance", {}]]));
    for n in 0..2 {
        assert!(told.error(n).contains("this is node `edge-01`") && told.error(n).contains("ask the hub"), "{}", told.error(n));
    }
}
