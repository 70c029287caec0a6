//! A hub and nodes as processes of their own, over a real nats-server that the hub starts.

use std::{path::Path, time::Instant};

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    support::{Node, artifact, edgeward, refused, until},
};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn a_fleet_is_joined_deployed_to_called_and_told_of() {
    let fleet = Fleet::start().await;
    let hub = fleet.hub();
    assert!(text(hub.done(&["nodes"])).contains("edgeward join-token"));
    let one = fleet.join("edge-01").await;
    let _two = fleet.join("edge-02").await;

    let hello = artifact("hello");
    let refused = hub.run(&["deploy", &hello, "--id", "hello"]);
    assert!(text(refused.stderr).contains("`--node ID` or `--all`"));
    let told = text(hub.done(&["deploy", &hello, "--id", "hello", "--all"]));
    assert!(told.contains("assigned hello to 2 nodes"), "{told}");
    fleet.serves("hello", 2).await;
    assert_eq!(text(hub.done(&["invoke", "hello", "--node", "edge-01"])), "hello from the edge\n");
    assert_eq!(text(one.done(&["invoke", "hello"])), "hello from the edge\n");
    assert_eq!(one.get_function("/fn/hello/").await.status(), 200);
    let unknown = hub.run(&["invoke", "hello", "--node", "edge-09"]);
    assert!(text(unknown.stderr).contains("node not found: `edge-09`"));
    let summary: Value = serde_json::from_slice(&hub.done(&["metrics", "--node", "edge-01", "--json"])).expect("JSON");
    assert_eq!(summary["total"], 3, "two calls and a request");

    let nodes = text(hub.done(&["nodes"]));
    assert!(nodes.contains("edge-01  online") && nodes.contains("site=berlin"), "{nodes}");
    assert!(text(hub.done(&["nodes", "show", "edge-02"])).contains("gpu"));
    hub.done(&["nodes", "label", "edge-02", "site=hamburg"]);
    assert!(text(hub.done(&["nodes", "show", "edge-02"])).contains("site=hamburg"));
    let status = text(one.done(&["status"]));
    assert!(status.contains("connected, sync"), "{status}");
    let wrong = text(one.run(&["invoke", "hello", "--node", "edge-02"]).stderr);
    assert!(wrong.contains("node not found: `edge-02`; this is node `edge-01`"), "{wrong}");
    assert!(text(one.run(&["undeploy", "hello", "--all"]).stderr).contains("`all` is for the hub"));
    assert_eq!(text(one.done(&["invoke", "hello", "--node", "edge-01"])), "hello from the edge\n");
    let of_node = text(one.run(&["undeploy", "hello"]).stderr);
    assert!(of_node.contains("assigned to this node by the hub"), "{of_node}");

    for (process, words) in [(hub, "the hub is active"), (&one, "connected, sync")] {
        let told = text(process.run(&["doctor"]).stdout);
        assert!(told.contains(words), "{told}");
    }
    one.done(&["state", "put", "cellar", "celsius", "--value", "12"]);
    until("the document is at the hub", async || hub.ask(Method::GET, "/v1/documents/cellar", &[], "").await.status() == 200).await;
    assert_eq!(hub.json("/v1/documents/cellar").await["data"], json!({ "celsius": 12 }));

    assert!(text(hub.done(&["undeploy", "hello", "--node", "edge-02"])).contains("took hello from node edge-02"));
    fleet.serves("hello", 1).await;
    assert!(fleet.has_event("node_joined", "edge-01") && fleet.has_event("function_ready", "edge-02"), "{:?}", fleet.events());
}

#[tokio::test]
async fn a_hub_that_was_killed_is_back_with_its_nodes_and_what_they_should_run() {
    let mut fleet = Fleet::start().await;
    let node = fleet.join("edge-01").await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    fleet.hub.take().expect("it runs").kill();
    until("the node notices", async || node.json("/v1/status").await["fleet"]["connected"] == false).await;
    assert_eq!(text(node.done(&["invoke", "hello"])), "hello from the edge\n");
    node.done(&["state", "put", "cellar", "celsius", "--value", "13"]);
    node.kill();
    // Nobody is there that could be asked.
    let node = fleet.launch("edge-01", None);
    until("it serves again", async || node.ask(Method::POST, "/v1/functions/hello/invoke", &[], "").await.status() == 200).await;
    let begun = Instant::now();
    fleet.start_hub().await;
    println!("the hub serves {:?} after its start", begun.elapsed());
    fleet.is("edge-01", "online").await;
    fleet.serves("hello", 1).await;
    until("its write is at the hub", async || fleet.hub().ask(Method::GET, "/v1/documents/cellar", &[], "").await.status() == 200).await;
    assert_eq!(fleet.hub().json("/v1/status").await["term"], 2);
}

#[tokio::test]
async fn a_hub_is_back_from_a_backup_with_its_nodes_and_what_they_should_run_and_nobody_joins_anew() {
    let mut fleet = Fleet::start().await;
    let used = fleet.token(&[]);
    let node = fleet.launch("edge-01", Some(&used));
    fleet.is("edge-01", "online").await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    fleet.hub().done(&["state", "put", "prices", "milk", "--value", "1"]);
    let (hub, backup) = (fleet.path("hub"), fleet.path("backup"));
    let run = |command: &str, more: &[&str]| {
        let output = edgeward(&[command, "--data-dir"]).arg(&hub).args(more).arg(&backup).output().expect("starts");
        assert!(output.status.success(), "{}", text(output.stderr));
        text(output.stdout)
    };
    let told = run("backup", &[]);
    assert!(told.contains("with 1 artifact and keys"), "{told}");
    // After the backup, so that only the node can bring it back.
    node.done(&["state", "put", "cellar", "celsius", "--value", "12"]);
    until("it is at the hub", async || fleet.hub().ask(Method::GET, "/v1/documents/cellar", &[], "").await.status() == 200).await;
    fleet.hub.take().expect("it runs").kill();
    std::fs::remove_dir_all(&hub).expect("its disk");
    assert!(run("restore", &[]).starts_with("restored hub-1 as of "));
    for (path, mode) in [("", 0o700), ("fleet", 0o700), ("fleet/authority.json", 0o600), ("fleet/joins.json", 0o600)] {
        let found = std::fs::metadata(hub.join(path)).expect("there").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&found) & 0o777, mode, "{path}");
    }
    fleet.start_hub().await;
    fleet.is("edge-01", "online").await;
    fleet.serves("hello", 1).await;
    let hub = fleet.hub();
    assert_eq!(text(hub.done(&["invoke", "hello", "--node", "edge-01"])), "hello from the edge\n");
    assert_eq!(hub.json("/v1/documents/prices").await["data"], json!({ "milk": 1 }));
    until("what came after the backup", async || hub.ask(Method::GET, "/v1/documents/cellar", &[], "").await.status() == 200).await;
    // Its artifact is there for others, by the record that was kept: nothing is uploaded.
    let _other = fleet.join("edge-02").await;
    let record = hub.json("/v1/functions/hello?node=edge-01").await["functions"][0].take();
    let wanted = json!({ "name": record["name"], "handler": record["handler"] }).to_string();
    let put = hub.ask(Method::PUT, "/v1/functions/hello?node=edge-02", &[("content-type", "application/json")], wanted).await;
    assert_eq!(put.status().as_u16() / 100, 2, "{:?}", put.body());
    fleet.serves("hello", 2).await;
    let (code, told) = refused("node", &fleet.path("edge-03"), &["--id", "edge-03", "--join", &used]).await;
    assert!(code == Some(14) && told.contains("edgeward join-token"), "a token that was used stays used: {code:?} {told}");
}

#[tokio::test]
async fn a_node_that_was_removed_is_refused_until_it_joins_anew() {
    let fleet = Fleet::start().await;
    let used = fleet.token(&[]);
    let node = fleet.launch("edge-01", Some(&used));
    fleet.is("edge-01", "online").await;
    let (code, told) = refused("node", &fleet.path("edge-02"), &["--id", "edge-02", "--join", &used]).await;
    assert!(code == Some(14) && told.contains("edgeward join-token"), "{code:?} {told}");
    // Another machine does not take the place of one that is there, without a token for it.
    let (code, told) = refused("node", &fleet.path("another"), &["--id", "edge-01", "--join", &fleet.token(&[])]).await;
    assert!(code == Some(12) && told.contains("belongs to the fleet already"), "{code:?} {told}");

    assert!(text(fleet.hub().done(&["nodes", "remove", "edge-01"])).contains("removed edge-01"));
    until("the node knows", async || node.json("/v1/status").await["fleet"]["refused"] == true).await;
    assert!(text(fleet.hub().run(&["nodes", "show", "edge-01"]).stderr).contains("node not found"));
    node.done(&["state", "put", "cellar", "celsius", "--value", "14"]);
    node.kill();
    let token = fleet.token(&["--node", "edge-01"]);
    let _node = fleet.launch("edge-01", Some(&token));
    fleet.is("edge-01", "online").await;
    until("its write is at the hub", async || fleet.hub().ask(Method::GET, "/v1/documents/cellar", &[], "").await.status() == 200).await;
    let wrong = edgeward(&["join-token", "--data-dir"]).arg(fleet.path("nobody")).output().expect("starts");
    assert!(text(wrong.stderr).contains("there is no fleet"));
    let offline = edgeward(&["join-token", "--data-dir"]).arg(fleet.path("hub")).output().expect("starts");
    assert!(text(offline.stdout).starts_with("edgeward-join-"));
}

#[tokio::test]
async fn a_broker_whose_folder_was_deleted_is_made_anew_and_nothing_is_lost() {
    let mut fleet = Fleet::start().await;
    let node = fleet.join("edge-01").await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    fleet.hub().done(&["state", "put", "prices", "milk", "--value", "1"]);
    let broker = fleet.path("hub").join("fleet/broker");
    let have = async |fleet: &Fleet, documents: &[&str]| {
        for document in documents {
            for process in [fleet.hub(), &node] {
                let path = format!("/v1/documents/{document}");
                until(document, async || process.ask(Method::GET, &path, &[], "").await.status() == 200).await;
            }
        }
    };
    // While the hub is down.
    fleet.hub.take().expect("it runs").kill();
    std::fs::remove_dir_all(&broker).expect("there");
    node.done(&["state", "put", "cellar", "celsius", "--value", "12"]);
    fleet.start_hub().await;
    fleet.is("edge-01", "online").await;
    have(&fleet, &["prices", "cellar"]).await;
    assert_eq!(fleet.hub().json("/v1/status").await["term"], 2, "it is no earlier term, though the leases are gone");

    // Under the broker, which is killed then.
    let pid = fleet.hub().json("/v1/status").await["broker_pid"].as_i64().expect("it runs");
    std::fs::remove_dir_all(&broker).expect("there");
    kill_process(Pid::from_raw(i32::try_from(pid).expect("an id")).expect("an id"), Signal::KILL).expect("it runs");
    node.done(&["state", "put", "attic", "celsius", "--value", "30"]);
    fleet.hub().done(&["state", "put", "wages", "tom", "--value", "2"]);
    until("another broker", async || fleet.hub().json("/v1/status").await["broker_pid"].as_i64().is_some_and(|now| now != pid)).await;
    have(&fleet, &["attic", "wages"]).await;
    until("the hub is the active one", async || fleet.hub().json("/v1/status").await["standing"] == "active").await;
    fleet.is("edge-01", "online").await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "again", "--all"]);
    for function in ["hello", "again"] {
        fleet.serves(function, 1).await;
    }
    let _other = fleet.join("edge-02").await;
}

#[tokio::test]
async fn a_copy_of_a_nodes_data_folder_is_refused_says_why_and_is_told_of() {
    let fleet = Fleet::start().await;
    let node = fleet.join("edge-01").await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    let copied = std::process::Command::new("cp").arg("-a").args([fleet.path("edge-01"), fleet.path("copy")]).status();
    assert!(copied.expect("starts").success());
    let copy = Node::launch_as("node", &fleet.path("copy"), &["--id", "edge-01", "--heartbeat-seconds", "0.2"], &[]);
    until("the copy knows", async || copy.json("/v1/status").await["fleet"]["refused"] == true).await;
    let told = text(copy.done(&["status"]));
    assert!(told.contains("its data folder was copied") && told.contains("join the copy anew"), "{told}");
    assert_eq!(text(copy.done(&["invoke", "hello"])), "hello from the edge\n", "it goes on by itself");
    let refused = |event: &Value| event["message"].as_str().is_some_and(|message| message.contains("its data folder was copied"));
    until("it is told", async || {
        fleet.events().iter().any(|event| event["kind"] == "refused" && event["node"] == "edge-01" && refused(event))
    })
    .await;
    let audited = fleet.hub().stderr();
    assert!(audited.contains("refused a node") && audited.contains("its data folder was copied"), "{audited}");
    // The one that was there works on.
    assert_eq!(node.json("/v1/status").await["fleet"]["connected"], true);
    fleet.is("edge-01", "online").await;
    node.done(&["state", "put", "cellar", "celsius", "--value", "12"]);
    until("its write is at the hub", async || fleet.hub().ask(Method::GET, "/v1/documents/cellar", &[], "").await.status() == 200).await;
}

#[tokio::test]
async fn a_hub_or_node_that_cannot_start_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let options = ["--id", "h", "--nats-server", "/nonexistent/nats-server"];
    let (code, told) = refused("hub", &at("a"), &options).await;
    assert!(code == Some(3) && told.contains("nats-server") && told.contains("install"), "{code:?} {told}");
    let (code, told) = refused("hub", &at("b"), &["--id", "h", "--broker-listen", "0.0.0.0:0"]).await;
    assert!(code == Some(9) && told.contains("--advertise"), "{code:?} {told}");
    let (code, told) = refused("node", &at("c"), &["--id", "n"]).await;
    assert!(code == Some(3) && told.contains("--join TOKEN"), "{code:?} {told}");
    let (code, told) = refused("node", &at("d"), &["--id", "n", "--join", "edgeward-join-s3cret"]).await;
    assert!(code == Some(9) && told.contains("join-token") && !told.contains("s3cret"), "{code:?} {told}");
    assert!(!Path::new(&at("e")).exists());
    let (code, told) = refused("node", &at("e"), &["--id", "n", "--label", "site"]).await;
    assert!(code == Some(2) && told.contains("NAME=VALUE"), "{code:?} {told}");
}
