//! Topics of a fleet of processes: published on a node, read at the hub, and imported by another node, also when one of them is killed.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use http::Method;
use serde_json::{Value, json};

use crate::{
    fleet_support::Fleet,
    mcp::{Way, ask},
    mqtt::is_installed,
    support::{KillOnDrop, Node, artifact, fails, json as body, problem, until},
    telemetry::series,
    topics::{Followed, visits, write_project},
};

const SENT: &str = "messaging_client_sent_messages_total{messaging_system=\"edgeward\",messaging_operation_name=\"publish\"}";

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
    let importers = async |process: &Node, topic: &str| {
        body(&process.ask(Method::POST, &format!("/v1/topics/{topic}"), &[], "x").await)["importers"].clone()
    };
    assert_eq!((importers(hub, "all/told").await, importers(hub, "nowhere").await), (json!(2), json!(0)));
    assert_eq!(importers(&one, "nowhere").await, Value::Null, "a node knows of none");
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
    assert_eq!(series(&one, "edgeward_topics_forwarded_total").await, 2);
    let imported = messages(&two, "all/#").await.len() + messages(&two, "site/#").await.len();
    assert_eq!(series(&two, "edgeward_topics_imported_total").await, imported as u64);
    assert_eq!((series(&one, SENT).await, series(&two, SENT).await), (4, 0), "who imports a message did not publish it");
    read_at_the_hub(hub).await;
    problem(&hub.ask(Method::POST, "/v1/topics/$SYS/x", &[], "x").await, 403, "forbidden", "`$`");
}

/// Reads the two messages of `site/#` in every way in which a hub tells its topics.
async fn read_at_the_hub(hub: &Node) {
    let page = hub.json("/v1/topics/site/%23/messages?from=1").await;
    let positions: Vec<_> = page["messages"].as_array().expect("a list").iter().map(|message| message["position"].as_u64()).collect();
    let [Some(first), Some(second)] = positions[..] else { panic!("{page}") };
    assert!(page["next"].as_u64() > Some(second), "{page}");

    // From a position, from the last one that is known, and as it comes.
    let events = "/v1/topics/site/%23/events";
    let mut whole = Followed::open(hub, &format!("{events}?from=1"), &[]).await;
    let mut later = Followed::open(hub, events, &[("last-event-id", &first.to_string())]).await;
    let mut live = Followed::open(hub, "/v1/topics/live/+/events", &[]).await;
    assert_eq!(whole.message().await, (json!("21.5"), first.to_string()));
    for followed in [&mut whole, &mut later] {
        assert_eq!(followed.message().await, (json!("2"), second.to_string()));
    }
    let published = hub.ask(Method::POST, "/v1/topics/live/a", &[("content-type", "text/plain")], "now").await;
    assert_eq!(published.status(), 201);
    assert_eq!(live.message().await.0, json!("now"));

    let followed = hub.done(&["topics", "subscribe", "site/#", "--from", &second.to_string(), "--count", "1", "--json"]);
    let followed: Value = serde_json::from_slice(&followed).expect("one line of JSON");
    assert_eq!((&followed["data"], &followed["node"]), (&json!("2"), &json!("edge-01")));
    let shown = String::from_utf8(hub.done(&["topics", "messages", "site/#", "--from", "1"])).expect("text");
    assert!(shown.contains("21.5") && shown.lines().count() == 2, "{shown}");

    let told = ask(
        "legacy",
        Way::Stdio(hub, &[]),
        &json!([
            ["edge_publish_message", { "topic": "live/b", "payload": "asked" }],
            ["edge_read_messages", { "filter": "site/#", "from": second }],
            ["edge_list_topics", { "filter": "live/+" }],
        ]),
    );
    assert!(told.output(0)["position"].as_u64() > Some(second));
    assert_eq!(told.output(1)["messages"][0]["payload"], "2");
    assert_eq!(told.output(2)["topics"].as_array().map(Vec::len), Some(2));
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

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn a_project_that_is_deployed_to_a_fleet_brings_its_triggers_which_go_on_while_the_hub_is_gone() {
    const TRIGGER: &str = "/v1/triggers/visits.gates";
    let mut fleet = Fleet::start_with(&SHORT, &SHORT).await;
    let (one, two) = (fleet.join("edge-01").await, fleet.join("edge-02").await);
    let folder = fleet.path("project");
    let project = folder.display().to_string();
    write_project(&folder, "[deployment]\ntarget = \"node=edge-01\"\n[deployment.strategy]\nkind = \"rolling\"\nbake_seconds = 0\n");
    let hub = fleet.hub();
    let planned = text(hub.done(&["deploy", &project, "--dry-run"]));
    assert!(planned.contains("revision 1") && hub.json("/v1/triggers").await["triggers"] == json!([]), "{planned}");
    let told = text(hub.done(&["deploy", &project]));
    assert!(told.contains("trigger visits.gates calls visits for gates/+/opened, on nodes of `node=edge-01` that have it\n"), "{told}");
    let on = async |hub: &Node, nodes: Value| until(&format!("it is on {nodes}"), async || hub.json(TRIGGER).await["nodes"] == nodes).await;
    on(hub, json!(["edge-01"])).await;
    until("the node has it", async || one.ask(Method::GET, TRIGGER, &[], "").await.status() == 200).await;
    assert_eq!((&one.json(TRIGGER).await["source"], two.json("/v1/triggers").await), (&json!("fleet"), json!({ "triggers": [] })));
    let delivered = async |node: &Node, count: u64| {
        until(&format!("{count} are handled"), async || node.json(TRIGGER).await["delivered"] == count).await;
    };
    publish(&one, "gates/north/opened", "x");
    delivered(&one, 1).await;
    assert_eq!(visits(&one).await, Some(1));
    for refused in [&["remove", "visits.gates"][..], &["put", "visits.gates", "--function", "visits", "--topic", "a"]] {
        fails(&one.run(&[&["triggers"], refused].concat()), 14, "change it there");
    }
    fails(
        &one.run(&["triggers", "put", "t", "--function", "visits", "--topic", "a", "--to", "site=berlin"]),
        9,
        "is for the hub of a fleet",
    );
    let shown = text(one.done(&["triggers", "show", "visits.gates"]));
    assert!(shown.contains("the hub of its fleet"), "{shown}");

    fleet.hub.take().expect("it runs").kill();
    until("the node notices", async || one.json("/v1/status").await["fleet"]["connected"] == false).await;
    publish(&one, "gates/north/opened", "x");
    delivered(&one, 2).await;
    fleet.start_hub().await;
    for node in ["edge-01", "edge-02"] {
        fleet.is(node, "online").await;
    }

    // The command line wins, and the trigger goes where the function goes.
    let hub = fleet.hub();
    hub.done(&["deploy", &project, "--to", "site=berlin", "--no-wait"]);
    on(hub, json!(["edge-01", "edge-02"])).await;
    until("the other has it", async || two.ask(Method::GET, TRIGGER, &[], "").await.status() == 200).await;
    publish(&two, "gates/south/opened", "x");
    delivered(&two, 1).await;
    let listed = text(hub.done(&["triggers", "list"]));
    assert!(listed.contains("site=berlin") && listed.contains("2 (edge-01, edge-02)"), "{listed}");

    let made = hub.json(TRIGGER).await;
    let tag = format!("\"{}\"", made["generation"]);
    let wanted = json!({ "function": "visits", "filters": ["gates/+/opened"], "target": "node=edge-02", "concurrency": 2 });
    let stale = hub.ask(Method::PUT, TRIGGER, &[("if-match", "\"1000\"")], wanted.to_string()).await;
    problem(&stale, 412, "conflict", "is at generation");
    let changed = hub.ask(Method::PUT, TRIGGER, &[("if-match", &tag)], wanted.to_string()).await;
    assert_eq!((changed.status().as_u16(), &body(&changed)["concurrency"]), (200, &json!(2)), "{:?}", changed.body());
    on(hub, json!(["edge-02"])).await;
    until("the first has it no more", async || one.json("/v1/triggers").await["triggers"] == json!([])).await;
    fails(&hub.run(&["triggers", "remove", "visits.gates", "--if-match", tag.trim_matches('"')]), 12, "`edgeward triggers show ID`");
    hub.done(&["triggers", "remove", "visits.gates"]);
    until("the other has it no more", async || two.json("/v1/triggers").await["triggers"] == json!([])).await;
    problem(&hub.ask(Method::DELETE, TRIGGER, &[], "").await, 404, "not_found", "trigger not found: `visits.gates`");

    // By itself assigned, it brings them too.
    hub.done(&["deploy", &project, "--id", "other", "--node", "edge-02"]);
    assert_eq!(hub.json("/v1/triggers/other.gates").await["target"], "node=edge-02");
    until("the other has this one", async || two.ask(Method::GET, "/v1/triggers/other.gates", &[], "").await.status() == 200).await;
}

/// Publishes each of these by MQTT, a line of `mosquitto_pub` each, does something meanwhile, and returns when all are acknowledged.
async fn publish_by_mqtt(node: &Node, numbers: std::ops::Range<usize>, meanwhile: impl AsyncFnOnce()) {
    let port = node.mqtt.expect("it serves MQTT").port().to_string();
    let mut sensor = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &port, "-i", "sensor", "-q", "1", "-t", "site/n", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = sensor.stdin.take().expect("piped");
    let middle = numbers.start.midpoint(numbers.end);
    let mut write = |number: usize| writeln!(lines, "{number}").expect("it reads");
    (numbers.start..middle).for_each(&mut write);
    meanwhile().await;
    (middle..numbers.end).for_each(&mut write);
    drop(lines);
    assert!(sensor.wait().expect("it ends").success());
}

#[tokio::test]
async fn what_sensors_publish_on_a_node_comes_once_to_clients_of_another_and_to_the_hub_that_was_killed_meanwhile() {
    const COUNT: usize = 120;
    if !is_installed("mosquitto_pub", &[]) {
        return;
    }
    let sharing = ["--mqtt-listen", "127.0.0.1:0", "--topics-forward", "#", "--topics-import", "#"];
    let mut fleet = Fleet::start_with(&SHORT, &[&SHORT[..], &sharing].concat()).await;
    let (one, two) = (fleet.join("edge-01").await, fleet.join("edge-02").await);
    until("edge-02 imports", async || {
        publish(&one, "begun", "x");
        !messages(&two, "begun").await.is_empty()
    })
    .await;
    two.done(&["topics", "publish", "local/ready", "ready", "--retain"]);
    let port = two.mqtt.expect("it serves MQTT").port().to_string();
    // Else what it says waits in a buffer of its own.
    let mut reader = Command::new("stdbuf");
    reader.args(["-oL", "mosquitto_sub", "-h", "localhost", "-p", &port, "-q", "1", "-t", "site/n", "-t", "local/ready", "-W", "60"]);
    let mut reader = KillOnDrop(Some(reader.stdout(Stdio::piped()).spawn().expect("starts")));
    let mut lines = BufReader::new(reader.0.as_mut().and_then(|reader| reader.stdout.take()).expect("piped")).lines();
    let mut next = || lines.next().expect("it comes in time").expect("text");
    assert_eq!(next(), "ready", "it has subscribed");

    publish_by_mqtt(&one, 0..COUNT / 3, async || ()).await;
    let mut hub = fleet.hub.take();
    publish_by_mqtt(&one, COUNT / 3..COUNT * 2 / 3, async || hub.take().expect("it runs").kill()).await;
    publish_by_mqtt(&one, COUNT * 2 / 3..COUNT, async || fleet.start_hub().await).await;
    publish(&one, "site/n", "end");
    let expected: Vec<_> = (0..COUNT).map(|n| n.to_string()).chain(["end".to_owned()]).collect();
    let given: Vec<_> = (0..=COUNT).map(|_| next()).collect();
    assert_eq!(given, expected);
    has(fleet.hub(), "site/n", COUNT + 1).await;
    for process in [fleet.hub(), &two] {
        assert_eq!(messages(process, "site/n").await, expected.iter().map(|text| (json!(text), json!("edge-01"))).collect::<Vec<_>>());
    }
    let sent = series(&one, SENT).await - messages(&one, "begun").await.len() as u64;
    assert_eq!(
        (sent, series(&two, SENT).await),
        (COUNT as u64 + 1, 1),
        "neither imported messages nor the news of clients are published here"
    );
}

/// A fleet with `moody`, which fails, behind the trigger `t` on each of its nodes.
async fn with_failing_trigger(ids: &[&str]) -> (Fleet, Vec<Node>) {
    let fleet = Fleet::start_with(&SHORT, &SHORT).await;
    let mut nodes = Vec::new();
    for id in ids {
        nodes.push(fleet.join(id).await);
    }
    fleet.hub().done(&["deploy", &artifact("moody"), "--id", "moody", "--all", "--env", "MOOD=errs"]);
    fleet.serves("moody", ids.len()).await;
    fleet.hub().done(&["triggers", "put", "t", "--function", "moody", "--topic", "site/#", "--attempts", "2", "--pause-min-ms", "1"]);
    for node in &nodes {
        until("the node has the trigger", async || node.ask(Method::GET, "/v1/triggers/t", &[], "").await.status() == 200).await;
    }
    (fleet, nodes)
}

async fn letters(process: &Node, query: &str) -> Vec<Value> {
    process.json(&format!("/v1/dead-letters{query}")).await["dead_letters"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_hub_sees_how_the_triggers_of_a_node_do_and_retries_and_discards_its_dead_letters() {
    const OF_NODE: &str = "?node=edge-01";
    let (fleet, nodes) = with_failing_trigger(&["edge-01", "edge-02"]).await;
    let hub = fleet.hub();
    for payload in ["1", "2"] {
        publish(&nodes[0], "site/a", payload);
    }
    until("both are given up", async || letters(hub, OF_NODE).await.len() == 2).await;
    assert_eq!(letters(hub, OF_NODE).await, letters(&nodes[0], "").await);
    assert!(letters(hub, "?node=edge-02").await.is_empty() && letters(hub, "?node=edge-01&trigger=none").await.is_empty());
    assert_eq!(letters(hub, "?node=edge-01&after=1").await[0]["message"]["data"], "2");
    let there = hub.json("/v1/triggers/t?node=edge-01").await;
    assert_eq!(there, nodes[0].json("/v1/triggers/t").await);
    assert_eq!((&there["dead"], &there["retried"], &there["source"]), (&json!(2), &json!(2), &json!("fleet")));
    assert_eq!(hub.json("/v1/triggers?node=edge-01").await, nodes[0].json("/v1/triggers").await);
    assert!(hub.ask(Method::GET, "/v1/triggers/t?node=edge-01", &[], "").await.headers().get("etag").is_none());
    let listed = text(hub.done(&["triggers", "list", "--node", "edge-01"]));
    assert!(listed.contains("DEAD") && listed.contains("runs"), "{listed}");
    assert!(text(hub.done(&["triggers", "show", "t", "--node", "edge-01"])).contains("2 dead"));
    assert!(text(hub.done(&["triggers", "list"])).contains("2 (edge-01, edge-02)"));
    let listed = text(hub.done(&["topics", "dead-letters", "--node", "edge-01"]));
    assert!(listed.lines().count() == 3 && listed.contains("answered 500"), "{listed}");

    // It fails again, and then is handled by a function that is mended.
    let retry = ["topics", "dead-letters", "retry", "1", "--node", "edge-01"];
    let at = letters(hub, OF_NODE).await[0]["at"].clone();
    hub.done(&retry);
    until("it is given up again", async || letters(hub, OF_NODE).await[0]["at"] != at).await;
    hub.done(&["deploy", &artifact("moody"), "--id", "moody", "--node", "edge-01", "--env", "MOOD=well"]);
    until("it is mended", async || nodes[0].get_function("/fn/moody/").await.status() == 200).await;
    assert_eq!(text(hub.done(&retry)), "dead letter 1 is tried again\n");
    until("one is left", async || letters(hub, OF_NODE).await.len() == 1).await;
    assert_eq!(nodes[0].json("/v1/triggers/t").await["delivered"], 1);
    let told = ask(
        "legacy",
        Way::Stdio(hub, &[]),
        &json!([
            ["edge_list_triggers", { "node_id": "edge-01" }],
            ["edge_list_dead_letters", { "node_id": "edge-01", "trigger_id": "t" }],
            ["edge_act_on_dead_letter", { "node_id": "edge-01", "id": 2, "action": "discard" }],
            ["edge_act_on_dead_letter", { "node_id": "edge-01", "id": 2, "action": "retry" }],
            ["edge_list_dead_letters", {}],
        ]),
    );
    assert_eq!(told.output(0)["triggers"][0]["dead"], 3);
    assert_eq!(told.output(1)["dead_letters"][0]["message"]["payload"], "2");
    assert_eq!(told.output(2)["action"], "discard");
    assert!(told.error(3).contains("dead letter not found: `2`"), "{}", told.error(3));
    assert!(told.error(4).contains("say of which node"), "{}", told.error(4));
    assert!(letters(&nodes[0], "").await.is_empty());
    let log = hub.stderr();
    let audited = |what: &str| log.lines().any(|line| [what, "audit", "edge-01", "loopback"].iter().all(|word| line.contains(word)));
    assert!(audited("had a dead letter tried again") && audited("discarded a dead letter"), "{log}");
}

#[tokio::test]
async fn a_hub_says_of_which_node_it_cannot_tell_triggers_and_dead_letters_and_why() {
    let (fleet, mut nodes) = with_failing_trigger(&["edge-01"]).await;
    let (hub, node) = (fleet.hub(), nodes.remove(0));
    let routes = [
        (Method::GET, "/v1/dead-letters"),
        (Method::POST, "/v1/dead-letters/1/retry"),
        (Method::DELETE, "/v1/dead-letters/1"),
        (Method::GET, "/v1/triggers"),
        (Method::GET, "/v1/triggers/t"),
    ];
    let asked = async |process: &Node, query: &str, status: u16, kind: &str, words: &str| {
        for (method, path) in &routes {
            problem(&process.ask(method.clone(), &format!("{path}{query}"), &[], "").await, status, kind, words);
        }
    };
    asked(hub, "?node=absent", 404, "not_found", "node not found: `absent`").await;
    asked(&node, "?node=edge-02", 404, "not_found", "this is node `edge-01`").await;
    for (method, path) in &routes[..3] {
        problem(&hub.ask(method.clone(), path, &[], "").await, 400, "invalid_input", "say of which node");
    }
    for (method, path) in &routes[1..3] {
        let path = format!("{path}?node=edge-01");
        problem(&hub.ask(method.clone(), &path, &[], "").await, 404, "not_found", "dead letter not found: `1`");
    }
    problem(&hub.ask(Method::GET, "/v1/triggers/u?node=edge-01", &[], "").await, 404, "not_found", "trigger not found: `u`");
    fails(&hub.run(&["topics", "dead-letters"]), 9, "a hub needs `--node ID`");
    fails(&hub.run(&["topics", "dead-letters", "discard", "1", "--node", "absent"]), 3, "`edgeward nodes` lists");

    // One whose trigger was removed meanwhile cannot be tried again.
    publish(&node, "site/a", "1");
    until("it is given up", async || letters(hub, "?node=edge-01").await.len() == 1).await;
    hub.done(&["triggers", "remove", "t"]);
    until("the trigger is gone", async || node.json("/v1/triggers").await["triggers"] == json!([])).await;
    problem(&hub.ask(Method::POST, "/v1/dead-letters/1/retry?node=edge-01", &[], "").await, 412, "conflict", "was removed");
    node.kill();
    fleet.is("edge-01", "offline").await;
    asked(hub, "?node=edge-01", 503, "unavailable", "node `edge-01` is not connected").await;
}
