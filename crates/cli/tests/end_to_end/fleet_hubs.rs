//! Two hubs as processes, of which one stands by, with the servers of an operator.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::fleet_topics::messages;
use crate::support::{KillOnDrop, Node, artifact, edgeward, fails, json as body, request, try_send, until};

/// Time in which a hub that went silent is replaced and the nodes follow: its lease lapses, and the broker notices who is gone.
const TAKEN_OVER: Duration = Duration::from_secs(20);

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
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

/// The folders of two hubs with the keys of one fleet, and its server.
struct Pair {
    folder: TempDir,
    server: Operated,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let server = Operated::start(&at("nats"), &at("hub-1"));
        std::fs::create_dir_all(at("hub-2").join("fleet")).expect("it is new");
        for name in ["hub-2", "hub-2/fleet"] {
            std::fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
        }
        let keys = "fleet/authority.json";
        std::fs::copy(at("hub-1").join(keys), at("hub-2").join(keys)).expect("copies");
        Self { folder, server }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn launch(&self, id: &str, peer: &str) -> Node {
        let options = ["--id", id, "--peer", peer, "--nats", &self.server.url, "--heartbeat-seconds", "0.2"];
        Node::launch_as("hub", &self.at(id), &options, &[])
    }

    /// The first, which is active, and the second, which stands by.
    async fn start(&self) -> (Node, Node) {
        let one = self.launch("hub-1", "hub-2");
        stands(&one, "active").await;
        let two = self.launch("hub-2", "hub-1");
        stands(&two, "standby").await;
        (one, two)
    }

    /// A node that joins by a hub.
    fn join(&self, hub: &Node, id: &str) -> Node {
        self.join_with(hub, id, &[])
    }

    fn join_with(&self, hub: &Node, id: &str, more: &[&str]) -> Node {
        let token = text(hub.done(&["join-token"]));
        let options = [&["--id", id, "--heartbeat-seconds", "0.2", "--join", token.trim()], more].concat();
        Node::launch_as("node", &self.at(id), &options, &[])
    }
}

async fn stands(hub: &Node, standing: &str) {
    until(standing, async || hub.json("/v1/status").await["standing"] == standing).await;
}

/// It reports and is up to date. Whether the machine has too much to do is not asked.
async fn online(hub: &Node, id: &str) {
    until("the node is online", async || {
        let answer = hub.ask(Method::GET, &format!("/v1/nodes/{id}"), &[], "").await;
        answer.status() == 200 && ["online", "degraded"].iter().any(|status| body(&answer)["status"] == *status)
    })
    .await;
}

async fn has(hub: &Node, document: &str) {
    let path = format!("/v1/documents/{document}");
    until(document, async || hub.ask(Method::GET, &path, &[], "").await.status() == 200).await;
}

#[tokio::test]
async fn a_second_hub_takes_over_with_everything_when_the_first_loses_its_disk() {
    let pair = Pair::new();
    let (one, two) = pair.start().await;
    // It ends no experiment of which it does not know how it is.
    fails(&two.run(&["chaos", "stop", "any:1"]), 13, "this hub stands by");
    let node = pair.join(&one, "edge-01");
    online(&one, "edge-01").await;
    one.done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    one.done(&["state", "put", "prices", "milk", "--value", "1"]);
    node.done(&["state", "put", "cellar", "celsius", "--value", "12"]);
    // What stands by follows.
    has(&two, "cellar").await;
    has(&two, "prices").await;
    let refused = text(two.run(&["deploy", &artifact("hello"), "--id", "other", "--all"]).stderr);
    assert!(refused.contains("ask the active one, `hub-1`"), "{refused}");
    let artifacts = pair.at("hub-2").join("artifacts");
    until("its artifact follows", async || std::fs::read_dir(&artifacts).is_ok_and(|files| files.count() > 0)).await;

    one.kill();
    std::fs::remove_dir_all(pair.at("hub-1").join("documents")).expect("its disk");
    node.done(&["state", "put", "attic", "celsius", "--value", "30"]);
    stands(&two, "active").await;
    online(&two, "edge-01").await;
    for document in ["cellar", "prices", "attic"] {
        has(&two, document).await;
    }
    assert!(text(two.done(&["functions"])).contains("hello"));
    assert_eq!(text(two.done(&["invoke", "hello", "--node", "edge-01"])), "hello from the edge\n");
    // The first is back with nothing, and stands by.
    let one = pair.launch("hub-1", "hub-2");
    stands(&one, "standby").await;
    for document in ["cellar", "prices", "attic"] {
        has(&one, document).await;
    }
    let _second = pair.join(&two, "edge-02");
    until("it joins by the new hub", async || two.ask(Method::GET, "/v1/nodes/edge-02", &[], "").await.status() == 200).await;
}

fn signal(node: &Node, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(node.id()).expect("an id")).expect("an id"), signal).expect("it runs");
}

#[tokio::test]
async fn a_hub_that_stands_still_is_replaced_and_when_it_wakes_it_follows_with_what_it_had_acknowledged() {
    let pair = Pair::new();
    let (one, two) = pair.start().await;
    let node = pair.join(&one, "edge-01");
    online(&one, "edge-01").await;
    one.done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    node.done(&["state", "put", "cellar", "celsius", "--value", "12"]);
    has(&two, "cellar").await;
    let term = one.json("/v1/status").await["term"].as_u64().expect("a number");
    let artifacts = pair.at("hub-2").join("artifacts");
    until("its artifact follows", async || std::fs::read_dir(&artifacts).is_ok_and(|files| files.count() > 0)).await;
    // Acknowledged at the last moment, by a hub that nobody hears any more.
    one.done(&["state", "put", "late", "word", "--value", "1"]);
    signal(&one, Signal::STOP);
    let stopped = Instant::now();
    let put = request(Method::PUT, "/v1/documents/asleep/keys/word").body("2".into()).expect("valid");
    let asleep = tokio::spawn(try_send(one.api, put));
    let deploy = request(Method::PUT, "/v1/functions/asleep?node=edge-01").header("content-type", "application/json");
    let function = serde_json::json!({ "name": "asleep", "handler": { "native": "none" } }).to_string();
    let deployed = tokio::spawn(try_send(one.api, deploy.body(function.into()).expect("valid")));

    stands(&two, "active").await;
    assert!(two.json("/v1/status").await["term"].as_u64().expect("a number") > term);
    let taken = stopped.elapsed();
    online(&two, "edge-01").await;
    println!("taken over {taken:?} after it stood still, and the node follows {:?} later", stopped.elapsed().saturating_sub(taken));
    assert!(stopped.elapsed() < TAKEN_OVER, "{:?}", stopped.elapsed());
    node.done(&["state", "put", "attic", "celsius", "--value", "30"]);
    two.done(&["state", "put", "prices", "milk", "--value", "1"]);
    two.done(&["deploy", &artifact("hello"), "--id", "hello", "--env", "BY=two", "--all"]);
    assert_eq!(text(two.done(&["invoke", "hello", "--node", "edge-01"])), "hello from the edge\n");
    has(&two, "attic").await;
    has(&node, "prices").await;

    signal(&one, Signal::CONT);
    stands(&one, "standby").await;
    for document in ["cellar", "attic", "prices"] {
        has(&one, document).await;
    }
    has(&two, "late").await;
    has(&node, "late").await;
    // What it was asked for in its sleep it did as the hub that it no longer is, or not at all.
    let asleep = asleep.await.expect("it ends").expect("an answer");
    if asleep.status().is_success() {
        has(&two, "asleep").await;
    }
    let deployed = deployed.await.expect("it ends").expect("an answer");
    println!("in its sleep: the write was answered {}, the deployment {}", asleep.status(), deployed.status());
    if deployed.status().is_success() {
        until("it is at the hub", async || text(two.done(&["functions"])).contains("asleep")).await;
    }
    let refused = text(one.run(&["deploy", &artifact("hello"), "--id", "other", "--all"]).stderr);
    assert!(refused.contains("ask the active one, `hub-2`"), "{refused}");
    assert_eq!(two.json("/v1/status").await["standing"], "active");
    online(&two, "edge-01").await;
    assert_eq!(text(two.done(&["invoke", "hello", "--node", "edge-01"])), "hello from the edge\n");
}

/// The payloads of all messages of a topic that a hub has, in the order of their positions.
async fn numbers(hub: &Node, topic: &str) -> Vec<String> {
    let payload = |(payload, _): (serde_json::Value, _)| payload.as_str().expect("text").to_owned();
    messages(hub, topic).await.into_iter().map(payload).collect()
}

#[tokio::test]
async fn messages_that_come_while_a_hub_is_replaced_are_at_either_once_and_in_order() {
    const COUNT: usize = 600;
    let pair = Pair::new();
    let (one, two) = pair.start().await;
    let node = pair.join_with(&one, "edge-01", &["--topics-forward", "site/#"]);
    online(&one, "edge-01").await;
    let published = async |numbers: std::ops::Range<usize>| {
        for n in numbers {
            let answer = node.ask(Method::POST, "/v1/topics/site/n", &[("content-type", "text/plain")], n.to_string()).await;
            assert_eq!(answer.status(), 201);
        }
    };
    published(0..COUNT / 3).await;
    until("some are at the first", async || !messages(&one, "site/n").await.is_empty()).await;
    // Some are on their way.
    signal(&one, Signal::STOP);
    published(COUNT / 3..COUNT / 3 * 2).await;
    stands(&two, "active").await;
    signal(&one, Signal::CONT);
    published(COUNT / 3 * 2..COUNT).await;
    stands(&one, "standby").await;
    let expected: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
    let all_have_come = async |hub: &Node| {
        until("all have come", async || messages(hub, "site/n").await.len() >= COUNT).await;
        assert_eq!(numbers(hub, "site/n").await, expected);
    };
    all_have_come(&two).await;
    for refused in [one.run(&["topics", "publish", "site/m", "x"]), one.run(&["topics", "messages", "site/m"])] {
        let refused = text(refused.stderr);
        assert!(refused.contains("ask the active one, `hub-2`"), "{refused}");
    }
    // The stream is theirs both.
    two.kill();
    stands(&one, "active").await;
    until("it reads", async || one.ask(Method::GET, "/v1/topics/site/n/messages", &[], "").await.status() == 200).await;
    all_have_come(&one).await;
}
