//! A hub and nodes as processes of their own, over a real nats-server that the hub starts.

use std::{path::Path, time::Instant};

use http::Method;
use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    support::{KillOnDrop, Node, artifact, edgeward, json as body, refused, until},
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

/// A NATS server of an operator, set up by the files that `nats-config` writes. Dropped, it ends.
struct Operated {
    url: String,
    _process: KillOnDrop,
}

impl Operated {
    fn start(folder: &Path, hub_data: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
        let listen = format!("127.0.0.1:{port}");
        let mut config = edgeward(&["nats-config", "--name", "n1", "--host", "127.0.0.1", "--listen", &listen, "--out"]);
        let written = config.arg(folder).arg("--data-dir").arg(hub_data).output().expect("starts");
        assert!(written.status.success(), "{}", text(written.stderr));
        let program = std::env::var("EDGEWARD_NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
        let child = std::process::Command::new(program).arg("--config").arg(folder.join("nats.conf")).spawn().expect("nats-server starts");
        Self { url: format!("nats://{listen}"), _process: KillOnDrop(Some(child)) }
    }
}

#[tokio::test]
async fn a_second_hub_takes_over_with_everything_when_the_first_loses_its_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let server = Operated::start(&at("nats"), &at("hub-1"));
    std::fs::create_dir_all(at("hub-2").join("fleet")).expect("it is new");
    for name in ["hub-2", "hub-2/fleet"] {
        std::fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    }
    let keys = "fleet/authority.json";
    std::fs::copy(at("hub-1").join(keys), at("hub-2").join(keys)).expect("copies");
    let launch = |id: &str, peer: &str| {
        let options = ["--id", id, "--peer", peer, "--nats", &server.url, "--heartbeat-seconds", "0.2"];
        Node::launch_as("hub", &at(id), &options, &[])
    };
    let stands = async |hub: &Node, standing: &str| {
        until(standing, async || hub.json("/v1/status").await["standing"] == standing).await;
    };
    let one = launch("hub-1", "hub-2");
    stands(&one, "active").await;
    let two = launch("hub-2", "hub-1");
    stands(&two, "standby").await;

    let token = text(one.done(&["join-token"]));
    let options = ["--id", "edge-01", "--heartbeat-seconds", "0.2", "--join", token.trim()];
    let node = Node::launch_as("node", &at("edge-01"), &options, &[]);
    let online = async |hub: &Node| {
        until("the node is online", async || {
            let answer = hub.ask(Method::GET, "/v1/nodes/edge-01", &[], "").await;
            answer.status() == 200 && body(&answer)["status"] == "online"
        })
        .await;
    };
    online(&one).await;
    one.done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    one.done(&["state", "put", "prices", "milk", "--value", "1"]);
    node.done(&["state", "put", "cellar", "celsius", "--value", "12"]);
    let has = async |hub: &Node, document: &str| {
        let path = format!("/v1/documents/{document}");
        until(document, async || hub.ask(Method::GET, &path, &[], "").await.status() == 200).await;
    };
    // What stands by follows.
    has(&two, "cellar").await;
    has(&two, "prices").await;
    let refused = text(two.run(&["deploy", &artifact("hello"), "--id", "other", "--all"]).stderr);
    assert!(refused.contains("ask the active one, `hub-1`"), "{refused}");
    until("its artifact follows", async || std::fs::read_dir(at("hub-2").join("artifacts")).is_ok_and(|files| files.count() > 0)).await;

    one.kill();
    std::fs::remove_dir_all(at("hub-1").join("documents")).expect("its disk");
    node.done(&["state", "put", "attic", "celsius", "--value", "30"]);
    stands(&two, "active").await;
    online(&two).await;
    for document in ["cellar", "prices", "attic"] {
        has(&two, document).await;
    }
    assert!(text(two.done(&["functions"])).contains("hello"));
    assert_eq!(text(two.done(&["invoke", "hello", "--node", "edge-01"])), "hello from the edge\n");
    // The first is back with nothing, and stands by.
    let one = launch("hub-1", "hub-2");
    stands(&one, "standby").await;
    for document in ["cellar", "prices", "attic"] {
        has(&one, document).await;
    }
    let late = text(two.done(&["join-token"]));
    let options = ["--id", "edge-02", "--heartbeat-seconds", "0.2", "--join", late.trim()];
    let _second = Node::launch_as("node", &at("edge-02"), &options, &[]);
    until("it joins by the new hub", async || two.ask(Method::GET, "/v1/nodes/edge-02", &[], "").await.status() == 200).await;
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
