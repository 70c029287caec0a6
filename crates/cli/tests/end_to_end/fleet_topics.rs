//! Topics of a fleet of processes: published on a node, read at the hub, and imported by another node, also when one of them is killed.

use http::Method;
use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    support::{Node, problem, until},
};

const SHORT: [&str; 2] = ["--heartbeat-seconds", "0.2"];

async fn start() -> Fleet {
    let sharing = ["--topics-forward", "site/#", "--topics-import", "all/#", "--topics-import", "site/shared"];
    Fleet::start_with(&SHORT, &[&SHORT[..], &sharing].concat()).await
}

/// The newest messages of a filter, as payload and the node on which each was published.
pub(crate) async fn messages(process: &Node, filter: &str) -> Vec<(Value, Value)> {
    let filter = filter.replace('#', "%23");
    let answer = process.json(&format!("/v1/topics/{filter}/messages?limit=1000")).await;
    let messages = answer["messages"].as_array().expect("a list");
    messages.iter().map(|message| (message["data"].clone(), message["node"].clone())).collect()
}

async fn has(process: &Node, filter: &str, count: usize) {
    until(&format!("{count} messages of {filter}"), async || messages(process, filter).await.len() >= count).await;
}

fn publish(process: &Node, topic: &str, payload: &str) {
    process.done(&["topics", "publish", topic, payload, "--content-type", "text/plain"]);
}

#[tokio::test]
async fn what_is_published_on_a_node_is_at_the_hub_and_on_a_node_that_imports_it() {
    let fleet = start().await;
    let (hub, one, two) = (fleet.hub(), fleet.join("edge-01").await, fleet.join("edge-02").await);
    // A node imports what comes after it has asked first.
    until("both have asked", async || {
        let asked = async |node: &Node| node.json("/v1/status").await["fleet"]["topics"]["importing_failed"].is_null();
        asked(&one).await && asked(&two).await
    })
    .await;
    until("both import", async || {
        hub.ask(Method::POST, "/v1/topics/all/begun", &[], "x").await;
        !messages(&one, "all/begun").await.is_empty() && !messages(&two, "all/begun").await.is_empty()
    })
    .await;
    publish(&one, "site/shared", "21.5");
    publish(&one, "site/own", "2");
    publish(&one, "elsewhere", "3");
    publish(hub, "all/news", "4");
    has(hub, "site/#", 2).await;
    assert_eq!(messages(hub, "site/#").await, [(json!("21.5"), json!("edge-01")), (json!("2"), json!("edge-01"))]);
    assert!(messages(hub, "elsewhere").await.is_empty());
    for node in [&one, &two] {
        has(node, "all/news", 1).await;
        assert_eq!(messages(node, "all/news").await, [(json!("4"), json!("hub-1"))]);
    }
    has(&two, "site/#", 1).await;
    assert_eq!(messages(&two, "site/#").await, [(json!("21.5"), json!("edge-01"))]);
    let listed = String::from_utf8(hub.done(&["topics", "list"])).expect("text");
    assert!(listed.contains("site/own") && listed.contains("all/news"), "{listed}");
    let status = String::from_utf8(one.done(&["status"])).expect("text");
    assert!(status.contains("2 forwarded"), "{status}");
    assert_eq!(crate::telemetry::series(&one, "edgeward_topics_forwarded_total").await, 2);
    let imported = messages(&two, "all/#").await.len() + messages(&two, "site/#").await.len();
    assert_eq!(crate::telemetry::series(&two, "edgeward_topics_imported_total").await, imported as u64);
    problem(&hub.ask(Method::GET, "/v1/triggers", &[], "").await, 404, "not_found", "a node answers that");
    problem(&hub.ask(Method::POST, "/v1/topics/$SYS/x", &[], "x").await, 403, "forbidden", "`$`");
}

#[tokio::test]
async fn messages_outlive_the_death_of_their_node_and_of_the_hub_and_come_once() {
    const COUNT: usize = 300;
    let mut fleet = start().await;
    let node = fleet.join("edge-01").await;
    publish(&node, "site/n", "0");
    has(fleet.hub(), "site/n", 1).await;
    fleet.hub.take().expect("it runs").kill();
    for n in 1..COUNT / 2 {
        let answer = node.ask(Method::POST, "/v1/topics/site/n", &[("content-type", "text/plain")], n.to_string()).await;
        assert_eq!(answer.status(), 201);
    }
    node.kill();
    let node = fleet.launch("edge-01", None);
    until("it is back", async || node.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
    fleet.start_hub().await;
    for n in COUNT / 2..COUNT {
        if n == COUNT / 2 + 20 {
            // Messages are on their way.
            fleet.hub.take().expect("it runs").kill();
            fleet.start_hub().await;
        }
        node.ask(Method::POST, "/v1/topics/site/n", &[("content-type", "text/plain")], n.to_string()).await;
    }
    has(fleet.hub(), "site/n", COUNT).await;
    let arrived: Vec<_> = messages(fleet.hub(), "site/n").await.into_iter().map(|(payload, _)| payload).collect();
    assert_eq!(arrived, (0..COUNT).map(|n| json!(n.to_string())).collect::<Vec<_>>());
}
