//! Topics and triggers as any client has them: publishing, following, triggers and what they could not handle, over HTTP and by commands.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
};

use bytes::Bytes;
use edgeward::limits::{TOPIC_ATTRIBUTES_MAX, TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX, TOPIC_PAYLOAD_BYTES_MAX};
use http::{Method, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::support::{KillOnDrop, Node, PATIENCE, data_dir, fails, json as read, open, problem, refused_up, request, until};

const TEMP: &str = "/v1/topics/site/berlin/temp";

async fn post(node: &Node, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Bytes> {
    node.ask(Method::POST, path, headers, body).await
}

async fn publish(node: &Node, path: &str, body: &str) -> u64 {
    let response = post(node, path, &[], body.to_owned()).await;
    assert_eq!(response.status(), 201, "{:?}", response.body());
    read(&response)["position"].as_u64().expect("a position")
}

/// How often the function `visits` was called.
pub(crate) async fn visits(node: &Node) -> Option<u64> {
    let answer = node.ask(Method::GET, "/v1/documents/visits/keys/%2F", &[], "").await;
    (answer.status() == 200).then(|| read(&answer).as_u64().expect("a number"))
}

/// A stream of events that is being read.
pub(crate) struct Followed {
    body: Incoming,
    read: String,
}

impl Followed {
    pub(crate) async fn open(node: &Node, path: &str, headers: &[(&str, &str)]) -> Self {
        let request = headers.iter().fold(request(Method::GET, path), |request, (name, value)| request.header(*name, *value));
        let response = open(node.api, request.body(Full::default()).expect("valid")).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), read: String::new() }
    }

    /// The next event: its kind, its id and its data.
    async fn event(&mut self) -> (String, String, Value) {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.read = rest;
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    line.unwrap_or_default().to_owned()
                };
                if event.starts_with(':') {
                    continue;
                }
                return (field("event"), field("id"), serde_json::from_str(&field("data")).expect("JSON"));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("in time").expect("more").expect("whole");
            self.read.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
        }
    }

    /// The payload and the id of the next message.
    pub(crate) async fn message(&mut self) -> (Value, String) {
        loop {
            let (kind, id, data) = self.event().await;
            if kind.is_empty() {
                return (data["data"].clone(), id);
            }
            assert_eq!(kind, "begin");
        }
    }
}

#[tokio::test]
async fn a_message_that_is_published_over_http_calls_a_function_that_keeps_a_document() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("visits", "visits", &["--document", "visits"]);
    node.done(&["triggers", "put", "count", "--function", "visits", "--topic", "site/+/temp"]);
    for n in 0..5 {
        publish(&node, TEMP, &n.to_string()).await;
        publish(&node, "/v1/topics/site/berlin/door", "open").await;
    }
    until("the five messages are counted", async || visits(&node).await == Some(5)).await;
    until("the trigger is through", async || node.json("/v1/triggers/count").await["behind"] == 0).await;
    let trigger = node.json("/v1/triggers/count").await;
    assert_eq!((&trigger["delivered"], &trigger["dead"], &trigger["function"]), (&5.into(), &0.into(), &"visits".into()));

    // After a power cut the trigger goes on by itself, with what is published from then on.
    node.kill();
    let node = Node::start(&data).await;
    publish(&node, TEMP, "6").await;
    until("the sixth is counted", async || visits(&node).await >= Some(6)).await;
}

#[tokio::test]
async fn who_follows_goes_on_where_it_was() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let events = "/v1/topics/site/+/temp/events";
    let mut followed = Followed::open(&node, events, &[]).await;
    assert_eq!(followed.event().await, ("begin".to_owned(), "0".to_owned(), json!({ "after": 0 })));
    publish(&node, TEMP, "20").await;
    publish(&node, "/v1/topics/other", "x").await;
    publish(&node, TEMP, "21").await;
    assert_eq!(followed.message().await, ("20".into(), "1".to_owned()));
    drop(followed);
    publish(&node, TEMP, "22").await;
    let mut again = Followed::open(&node, events, &[("last-event-id", "1")]).await;
    assert_eq!(again.message().await, ("21".into(), "3".to_owned()));
    assert_eq!(again.message().await, ("22".into(), "4".to_owned()));
    // A browser repeats its query with what it has.
    let mut browser = Followed::open(&node, &format!("{events}?from=1"), &[("last-event-id", "3")]).await;
    assert_eq!(browser.message().await, ("22".into(), "4".to_owned()));
    let mut whole = Followed::open(&node, "/v1/topics/%23/events?from=1", &[]).await;
    for (data, id) in [("20", "1"), ("x", "2"), ("21", "3"), ("22", "4")] {
        assert_eq!(whole.message().await, (data.into(), id.to_owned()));
    }
    node.terminate();
    let end = tokio::time::timeout(PATIENCE, whole.body.frame()).await.expect("a node that stops ends it");
    assert!(end.is_none_or(|frame| frame.is_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_takes_nothing_for_a_while_stops_nobody_and_misses_nothing() {
    const MESSAGES: u64 = 200;
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let mut followed = Followed::open(&node, "/v1/topics/%23/events", &[]).await;
    // More than what is in memory of the log, and of the connection.
    let payload = "x".repeat(128 * 1024);
    for n in 1..=MESSAGES {
        assert_eq!(publish(&node, TEMP, &payload).await, n);
    }
    for n in 1..=MESSAGES {
        let (data, id) = followed.message().await;
        assert_eq!((id, data.as_str().map(str::len)), (n.to_string(), Some(payload.len())));
    }
}

#[tokio::test]
async fn events_are_published_in_both_modes_and_come_as_they_were() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let mut followed = Followed::open(&node, "/v1/topics/%23/events", &[]).await;
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "e1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-partitionkey", "k"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(post(&node, TEMP, &binary, "warm").await.status(), 201);
    let data = r#"{"t": [1.50, 18446744073709551617]}"#;
    let structured = format!(r#"{{"specversion":"1.0","id":"e2","source":"/s","type":"t","data":{data}}}"#);
    let kind = [("content-type", "application/cloudevents+json; charset=utf-8")];
    assert_eq!(post(&node, TEMP, &kind, structured).await.status(), 201);
    let mut told = Vec::new();
    while told.len() < 2 {
        let (kind, _, data) = followed.event().await;
        told.extend(kind.is_empty().then_some(data));
    }
    assert_eq!((&told[0]["data"], &told[0]["key"], &told[0]["content_type"]), (&"warm".into(), &"k".into(), &"text/plain".into()));
    assert!(told[0]["attributes"].as_array().expect("pairs").contains(&json!(["id", "e1"])), "{}", told[0]);
    assert_eq!((&told[1]["data"]["t"][0], &told[1]["content_type"]), (&json!(1.5), &"application/json".into()));
    let raw = node.ask(Method::GET, "/v1/topics/%23/messages", &[], "").await;
    let raw = String::from_utf8_lossy(raw.body()).into_owned();
    assert!(raw.contains(&format!(r#""data":{data}"#)), "numbers stay as they were written: {raw}");

    let broken = json!({ "specversion": "1.0", "source": "/s", "type": "t" }).to_string();
    problem(&post(&node, TEMP, &kind, broken).await, 400, "invalid_input", "it has no `id`");
    problem(&post(&node, TEMP, &kind, "{").await, 400, "invalid_input", "no JSON object");
    problem(&post(&node, TEMP, &[("ce-id", "1")], "x").await, 400, "invalid_input", "`ce-specversion: 1.0`");
    problem(&post(&node, TEMP, &[("ce-specversion", "1.0"), ("ce-id", "1")], "x").await, 400, "invalid_input", "it has no `source`");
    let batch = [("content-type", "application/cloudevents-batch+json")];
    problem(&post(&node, TEMP, &batch, "[]").await, 400, "invalid_input", "each event by itself");
}

#[tokio::test]
async fn messages_are_retained_expire_and_are_read_a_page_at_a_time() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let state = "/v1/topics/site/berlin/state";
    publish(&node, &format!("{state}?retain=true"), "shut").await;
    publish(&node, &format!("{state}?retain=true&key=k"), "open").await;
    publish(&node, &format!("{TEMP}?expires_in_seconds=3600"), "21").await;
    let retained = node.json("/v1/topics/site/%23/retained").await;
    assert_eq!((&retained["messages"][0]["data"], &retained["messages"][0]["key"]), (&"open".into(), &"k".into()));
    assert_eq!(node.json("/v1/topics/site/%23/retained?after=site/berlin/state").await, json!({ "messages": [], "next": null }));
    publish(&node, &format!("{state}?retain=true"), "").await;
    assert_eq!(node.json("/v1/topics/site/%23/retained").await["messages"], json!([]));

    let latest = node.json("/v1/topics/site/%23/messages?limit=2").await;
    let positions = |page: &Value| page["messages"].as_array().expect("a list").iter().map(|m| m["position"].as_u64()).collect::<Vec<_>>();
    assert_eq!((positions(&latest), &latest["before"]), (vec![Some(3), Some(4)], &3.into()));
    assert!(latest["messages"][0]["expires_at"].is_string());
    let older = node.json("/v1/topics/site/%23/messages?before=3").await;
    assert_eq!((positions(&older), &older["before"]), (vec![Some(1), Some(2)], &Value::Null));
    let read = node.json("/v1/topics/site/%23/messages?from=2&limit=2").await;
    assert_eq!((positions(&read), &read["next"], &read["lost"]), (vec![Some(2), Some(3)], &4.into(), &0.into()));
    let end = node.json("/v1/topics/site/%23/messages?from=4").await;
    assert_eq!((positions(&end), &end["next"]), (vec![Some(4)], &5.into()));
    assert_eq!(node.json("/v1/topics/site/%23/messages?from=5").await["next"], 5, "there is no more");
    assert_eq!(node.json("/v1/topics/other/messages?from=1").await, json!({ "messages": [], "before": null, "next": 5, "lost": 0 }));
    let shown = String::from_utf8(node.done(&["topics", "messages", "site/#", "--from", "2", "--limit", "1"])).expect("text");
    assert!(shown.contains("open") && shown.lines().count() == 1, "{shown}");
    let both = node.ask(Method::GET, "/v1/topics/a/messages?from=1&before=2", &[], "").await;
    problem(&both, 400, "invalid_input", "give `from` or `before`");
    let listed = node.json("/v1/topics?filter=site/%2B/temp").await;
    assert_eq!(
        (&listed["topics"][0]["topic"], &listed["topics"][0]["messages"], &listed["head"]),
        (&"site/berlin/temp".into(), &1.into(), &4.into())
    );
    assert_eq!(node.json("/v1/topics?after=site/berlin/state").await["topics"].as_array().map(Vec::len), Some(1));

    // What is binary is told in base 64, and what is JSON as it is.
    post(&node, TEMP, &[("content-type", "application/json")], "[18446744073709551617]").await;
    post(&node, TEMP, &[], vec![0xff, 0]).await;
    let raw = node.ask(Method::GET, "/v1/topics/site/%23/messages?limit=2", &[], "").await;
    let raw = String::from_utf8_lossy(raw.body()).into_owned();
    assert!(raw.contains(r#""data":[18446744073709551617]"#) && raw.contains(r#""data_base64":"/wA=""#), "{raw}");
    node.done(&["topics", "publish", "a/kept", "x", "--retain"]);
    let shown = String::from_utf8(node.done(&["topics", "messages", "#", "--retained"])).expect("text");
    assert!(shown.contains("a/kept") && shown.lines().count() == 1, "{shown}");
}

#[tokio::test]
async fn bad_topics_filters_bodies_and_queries_are_problems_with_a_hint() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let deep = vec!["a"; TOPIC_LEVELS_MAX + 1].join("/");
    let long = "x".repeat(TOPIC_BYTES_MAX + 1);
    for (topic, why) in [
        ("site/+/temp", "for filters only"),
        ("site/%23", "for filters only"),
        ("a%00b", "control character"),
        (&*deep, "levels, the most is"),
        (&*long, "bytes long, the most is"),
    ] {
        problem(&post(&node, &format!("/v1/topics/{topic}"), &[], "x").await, 400, "invalid_input", why);
    }
    problem(&post(&node, "/v1/topics/$edgeward/clients/x", &[], "x").await, 403, "forbidden", "the node's own");
    let large = vec![b'x'; TOPIC_PAYLOAD_BYTES_MAX + 1];
    problem(&post(&node, TEMP, &[], large).await, 413, "too_large", "");
    let key = "k".repeat(300);
    problem(&post(&node, &format!("{TEMP}?key={key}"), &[], "x").await, 413, "too_large", "its key has 300 bytes");
    problem(&post(&node, &format!("{TEMP}?retain=maybe"), &[], "x").await, 400, "invalid_input", "retain");
    problem(&post(&node, &format!("{TEMP}?retained=true"), &[], "x").await, 400, "invalid_input", "retained");
    problem(&post(&node, &format!("{TEMP}?expires_in_seconds=0"), &[], "x").await, 400, "invalid_input", "cannot expire in 0 s");
    let get = async |path: &str| node.ask(Method::GET, path, &[], "").await;
    problem(&get(TEMP).await, 404, "not_found", "/v1/topics/FILTER/events");
    problem(&get("/v1/topics/events").await, 400, "invalid_input", "it is empty");
    problem(&get("/v1/topics/a/%23/b/events").await, 400, "invalid_input", "last level");
    problem(&get("/v1/topics/a/events?from=x").await, 400, "invalid_input", "from");
    problem(&get("/v1/topics/a/messages?limit=0").await, 400, "invalid_input", "`limit` is 0");
    let last = node.ask(Method::GET, "/v1/topics/a/events", &[("last-event-id", "x")], "").await;
    problem(&last, 400, "invalid_input", "Last-Event-ID `x`");
    assert_eq!(node.ask(Method::DELETE, TEMP, &[], "").await.status(), 405);
    problem(&get("/v1/triggers/none").await, 404, "not_found", "trigger not found: `none`");
    problem(&get("/v1/dead-letters?trigger=a%20b").await, 400, "invalid_input", "a b");
    // Nothing of it was published.
    assert_eq!(node.json("/v1/topics").await["head"], 0);
}

#[tokio::test]
async fn an_event_that_never_ends_or_has_too_much_is_refused_and_the_node_goes_on() {
    const CHUNK: usize = 64 * 1024;
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    for kind in ["application/cloudevents+json", "application/octet-stream"] {
        let mut stream = TcpStream::connect(node.api).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut answers = stream.try_clone().expect("cloned");
        let reader = std::thread::spawn(move || {
            let (mut answer, mut part) = (Vec::new(), [0; 4096]);
            // It ends with the connection, which may break as nobody reads what is sent.
            while let Ok(bytes @ 1..) = answers.read(&mut part) {
                answer.extend_from_slice(&part[..bytes]);
            }
            String::from_utf8_lossy(&answer).into_owned()
        });
        let head = format!("POST {TEMP} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        let begin = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":""#;
        let chunk = |content: &[u8]| [format!("{:x}\r\n", content.len()).as_bytes(), content, b"\r\n"].concat();
        let mut chunks = std::iter::once(chunk(begin)).chain(std::iter::repeat(chunk(&vec![b'x'; CHUNK])));
        let sent = (0..1000).take_while(|_| stream.write_all(&chunks.next().expect("endless")).is_ok()).count();
        assert!(sent < 1000, "the connection ends, and does not take {sent} chunks of an event");
        let answer = reader.join().expect("no panic");
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("application/problem+json"), "{answer}");
    }

    // Small enough, and with more attributes than an event may have.
    let event = |count: usize| {
        let attributes = (0..count).map(|n| format!(r#","k{n}":1"#)).collect::<String>();
        format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{attributes}}}"#)
    };
    let kind = [("content-type", "application/cloudevents+json")];
    let most = TOPIC_ATTRIBUTES_MAX - 4;
    assert_eq!(post(&node, TEMP, &kind, event(most)).await.status(), 201);
    problem(&post(&node, TEMP, &kind, event(most + 1)).await, 400, "invalid_input", "it has 33 attributes, the most is 32");
    problem(&post(&node, TEMP, &kind, event(60_000)).await, 400, "invalid_input", "it has 60004 attributes, the most is 32");
    problem(&post(&node, TEMP, &kind, event(100_000)).await, 413, "too_large", "");
    assert_eq!(node.json("/v1/topics/%23/messages").await["messages"].as_array().map(Vec::len), Some(1), "nothing of the others is there");
}

#[tokio::test]
async fn a_node_keeps_as_many_messages_as_it_is_told() {
    let (_folder, data) = data_dir();
    let node = Node::launch(&data, &["--topics-keep-messages", "5"], &[]);
    for n in 1..=20 {
        publish(&node, TEMP, &n.to_string()).await;
    }
    let listed = node.json("/v1/topics").await;
    assert_eq!((&listed["head"], &listed["trimmed"], &listed["topics"][0]["messages"]), (&20.into(), &15.into(), &5.into()));
    node.kill();
    let node = Node::launch(&data, &["--topics-keep-messages", "5"], &[]);
    let read = node.json("/v1/topics/site/%23/messages?from=1").await;
    assert_eq!((&read["lost"], &read["messages"][0]["data"]), (&15.into(), &"16".into()), "who comes too late is told");
    node.kill();
    let node = Node::launch(&data, &["--topics-keep-messages", "100", "--topics-keep-bytes", "1048576", "--topics-keep-days", "1"], &[]);
    for n in 1..=20 {
        publish(&node, TEMP, &n.to_string()).await;
    }
    assert_eq!(node.json("/v1/topics").await["trimmed"], 15);
    // Of messages of 128 KiB less than 8 fit into a mebibyte.
    let payload = "x".repeat(128 * 1024);
    for _ in 0..10 {
        publish(&node, "/v1/topics/loud", &payload).await;
    }
    let listed = node.json("/v1/topics?filter=loud").await;
    assert!((1..8).contains(&listed["topics"][0]["messages"].as_u64().expect("a number")), "{listed}");
    let (_other, data) = data_dir();
    for wrong in [["--topics-keep-messages", "0"], ["--topics-keep-bytes", "1000"], ["--topics-keep-days", "0"]] {
        let (code, told) = refused_up(&data, &wrong).await;
        assert!(code == Some(2) && told.contains(wrong[0]), "{code:?} {told}");
    }
}

#[tokio::test]
async fn a_trigger_is_changed_only_under_the_condition_that_is_asked() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let put = async |headers: &[(&str, &str)], body: Value| node.ask(Method::PUT, "/v1/triggers/t", headers, body.to_string()).await;
    let body = |concurrency: u32| json!({ "function": "f", "filters": ["a/#"], "concurrency": concurrency });
    problem(&put(&[("if-match", "*")], body(1)).await, 412, "conflict", "trigger `t` is not there");
    let created = put(&[("if-none-match", "*")], body(1)).await;
    assert_eq!(created.status(), 201);
    let tag = created.headers()["etag"].to_str().expect("text").to_owned();
    problem(&put(&[("if-none-match", "*")], body(2)).await, 412, "conflict", "exists already");
    let replaced = put(&[("if-match", &tag)], body(2)).await;
    assert_eq!((replaced.status().as_u16(), &read(&replaced)["concurrency"]), (200, &2.into()));
    problem(&put(&[("if-match", &tag)], body(3)).await, 412, "conflict", "has changed meanwhile");
    let delete = async |tag: &str| node.ask(Method::DELETE, "/v1/triggers/t", &[("if-match", tag)], "").await;
    problem(&delete(&tag).await, 412, "conflict", "has changed meanwhile");
    assert_eq!(delete("*").await.status(), 204);
    assert_eq!(node.json("/v1/triggers").await, json!({ "triggers": [] }));
    for (body, why) in [
        (json!({ "function": "f", "filters": [] }), "number of filters of trigger `t` is 0"),
        (json!({ "function": "f", "filters": ["a"], "retry": { "attempts": 0 } }), "attempts of trigger `t` is 0"),
        (json!({ "function": "f", "filters": ["a"], "retries": 1 }), "unknown field `retries`"),
    ] {
        problem(&put(&[], body).await, 400, "invalid_input", why);
    }
}

#[tokio::test]
async fn what_a_function_cannot_handle_is_a_dead_letter_that_is_tried_again_or_discarded() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("moody", "moody", &["--env", "MOOD=errs"]);
    node.done(&["triggers", "put", "t", "--function", "moody", "--topic", "a", "--attempts", "2", "--pause-min-ms", "1"]);
    node.done(&["topics", "publish", "a", "one"]);
    node.done(&["topics", "publish", "a", "two"]);
    let letters = async || node.json("/v1/dead-letters?trigger=t").await["dead_letters"].as_array().expect("a list").clone();
    until("both are given up", async || letters().await.len() == 2).await;
    let first = letters().await[0].clone();
    assert_eq!((&first["trigger"], &first["attempts"], &first["message"]["data"]), (&"t".into(), &2.into(), &"one".into()));
    let shown = String::from_utf8(node.done(&["topics", "dead-letters"])).expect("text");
    assert!(shown.contains("function `moody` answered 500"), "{shown}");
    let of_trigger = async |metric: &str| {
        let name = format!("edgeward_trigger_{metric}{{messaging_consumer_group_name=\"t\"}}");
        crate::telemetry::series(&node, &name).await
    };
    assert_eq!((of_trigger("dead_letters_total").await, of_trigger("retries_total").await), (2, 2));
    until("all is handled or given up", async || of_trigger("lag").await == 0).await;

    node.deploy("moody", "moody", &["--env", "MOOD=well"]);
    node.done(&["topics", "dead-letters", "retry", &first["id"].to_string()]);
    until("the first is handled", async || letters().await.len() == 1).await;
    let second = letters().await[0]["id"].to_string();
    node.done(&["topics", "dead-letters", "discard", &second]);
    assert!(letters().await.is_empty());
    fails(&node.run(&["topics", "dead-letters", "discard", &second]), 3, "`edgeward topics dead-letters` lists them");
    let removed: Value = serde_json::from_slice(&node.done(&["triggers", "remove", "t", "--json"])).expect("JSON");
    assert_eq!(removed, json!({ "id": "t", "removed": true }));
    fails(&node.run(&["triggers", "show", "t"]), 3, "`edgeward triggers list` lists them");
}

#[tokio::test]
async fn a_command_that_follows_goes_on_after_the_node_was_away() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let address = node.api.to_string();
    let mut child = KillOnDrop(Some(
        node.command(&["topics", "subscribe", "a/+", "--count", "3", "--json"]).stdout(Stdio::piped()).spawn().expect("starts"),
    ));
    until("it follows", async || node.json("/v1/topics").await["followers"] == 1).await;
    let mut lines = BufReader::new(child.0.as_mut().and_then(|child| child.stdout.take()).expect("piped")).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().expect("more").expect("text")).expect("JSON")["data"].clone();
    node.done(&["topics", "publish", "a/1", "before"]);
    assert_eq!(next(), "before");
    node.kill();
    let node = Node::launch(&data, &["--listen", &address], &[]);
    let mut publisher = node.command(&["topics", "publish", "a/2", "-"]).stdin(Stdio::piped()).spawn().expect("starts");
    publisher.stdin.take().expect("piped").write_all(b"after").expect("it reads");
    assert!(publisher.wait().expect("ends").success());
    assert_eq!(next(), "after");
    node.done(&["topics", "publish", "a/3", "--retain"]);
    assert_eq!(next(), "");
    assert!(child.0.take().expect("there").wait().expect("it ends").success(), "three were enough");
}

#[tokio::test]
async fn commands_show_topics_and_refuse_what_is_none() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let told = String::from_utf8(node.done(&["topics", "publish", "site/berlin/temp", "-3.5", "--key", "a b"])).expect("text");
    assert_eq!(told, "published to site/berlin/temp at position 1\n");
    let listed = String::from_utf8(node.done(&["topics", "list", "site/#"])).expect("text");
    assert!(listed.contains("site/berlin/temp         1              1"), "{listed}");
    let messages = String::from_utf8(node.done(&["topics", "messages", "#"])).expect("text");
    assert!(messages.ends_with("1  site/berlin/temp  -3.5\n"), "{messages}");
    let shown: Value = serde_json::from_slice(&node.done(&["topics", "messages", "#", "--json"])).expect("JSON");
    assert_eq!(shown["messages"][0]["key"], "a b");
    assert!(!node.run(&["topics", "publish", "site/+", "x"]).status.success());
    fails(&node.run(&["topics", "publish", "$edgeward/x", "x"]), 14, "the node's own");
    let told =
        String::from_utf8(node.done(&["triggers", "put", "t", "--function", "absent", "--topic", "a", "--topic", "b/#"])).expect("text");
    assert!(told.ends_with("note: this node has no function `absent` yet; `edgeward functions` lists what there is\n"), "{told}");
    let listed = String::from_utf8(node.done(&["triggers", "list"])).expect("text");
    assert!(listed.contains("a b/#"), "{listed}");
}

/// A project of `visits`, which messages of `gates/+/opened` call, and what else its file says.
pub(crate) fn write_project(folder: &std::path::Path, more: &str) {
    std::fs::create_dir_all(folder).expect("made");
    std::fs::copy(crate::support::artifact("visits"), folder.join("visits.wasm")).expect("copied");
    let manifest = "edgeward_manifest_version = 1\n[component.visits]\nsource = \"visits.wasm\"\nkey_value_stores = [\"visits\"]\n\
        [[trigger.topic]]\ncomponent = \"visits\"\ntopics = [\"gates/+/opened\"]\nname = \"gates\"\n";
    std::fs::write(folder.join("edgeward.toml"), format!("{manifest}{more}")).expect("written");
}

#[tokio::test]
async fn a_project_says_which_messages_call_its_function() {
    let (folder, data) = data_dir();
    let node = Node::start(&data).await;
    let project = folder.path().join("project");
    write_project(&project, "");
    let path = project.display().to_string();
    let told = String::from_utf8(node.done(&["deploy", &path])).expect("text");
    assert!(told.contains("gates/+/opened by trigger visits.gates"), "{told}");
    node.done(&["topics", "publish", "gates/north/opened", "x"]);
    until("it is counted", async || visits(&node).await == Some(1)).await;
    // Under another id it has triggers of its own.
    node.done(&["deploy", &path, "--id", "other"]);
    let triggers = node.json("/v1/triggers").await;
    let ids: Vec<_> = triggers["triggers"].as_array().expect("a list").iter().map(|trigger| trigger["id"].clone()).collect();
    assert_eq!(ids, ["other.gates", "visits.gates"]);
}
