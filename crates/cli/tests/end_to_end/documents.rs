//! Documents over the HTTP API: conditions, exact numbers, watches, and what the node keeps to itself.

use std::time::Instant;

use bytes::Bytes;
use edgeward::limits::{DOCUMENT_BODY_BYTES_MAX, VALUE_BYTES_MAX, WATCH_PAUSE, WATCH_STATE_BYTES_MAX, WATCHES_MAX};
use http::{Method, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::support::{Node, PATIENCE, data_dir, json as read, open, problem, request, until};

const CELLAR: &str = "/v1/documents/cellar";
const MERGE_PATCH: (&str, &str) = ("content-type", "application/merge-patch+json");

async fn put(node: &Node, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    node.ask(Method::PUT, CELLAR, headers, body.to_owned()).await
}

async fn patch(node: &Node, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    node.ask(Method::PATCH, CELLAR, &[headers, &[MERGE_PATCH]].concat(), body.to_owned()).await
}

async fn get(node: &Node, path: &str) -> Response<Bytes> {
    node.ask(Method::GET, path, &[], "").await
}

fn tag<B>(response: &Response<B>) -> String {
    response.headers()[header::ETAG].to_str().expect("text").to_owned()
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).expect("text")
}

#[tokio::test]
async fn a_document_is_put_patched_read_listed_and_deleted() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    assert_eq!(node.json("/v1/documents").await, json!({ "documents": [] }));
    problem(&get(&node, CELLAR).await, 404, "not_found", "document not found: `cellar`");
    problem(&node.ask(Method::DELETE, CELLAR, &[], "").await, 404, "not_found", "document not found: `cellar`");

    let created = put(&node, &[], r#"{"doors": {"north": "open", "south": "shut"}, "degrees": 21.5}"#).await;
    assert_eq!((created.status(), &read(&created)["version"]), (http::StatusCode::CREATED, &1.into()));
    let patched = patch(&node, &[], r#"{"doors": {"south": null}, "lamp": false}"#).await;
    assert_eq!(patched.status(), 200);
    let whole = get(&node, CELLAR).await;
    assert_eq!((tag(&whole), whole.body()), (tag(&patched), patched.body()));
    assert_eq!(whole.headers()[header::CONTENT_TYPE], "application/json");
    let state = read(&whole);
    assert_eq!(state["data"], json!({ "doors": { "north": "open" }, "degrees": 21.5, "lamp": false }));
    // What Python computes: hashlib.md5(json.dumps(data, sort_keys=True).encode()).hexdigest()
    assert_eq!(state["checksum"], "cc26598dd5ed6cf7a1ca888439bda205");
    assert_eq!(tag(&whole), format!("\"2-{}\"", state["checksum"].as_str().expect("text")));

    let replaced = put(&node, &[], r#"{"lamp": true}"#).await;
    assert_eq!((replaced.status().as_u16(), &read(&replaced)["data"]), (200, &json!({ "lamp": true })));
    node.ask(Method::PUT, "/v1/documents/attic", &[], "{}").await;
    let listed = node.json("/v1/documents").await;
    let listed = listed["documents"].as_array().expect("a list");
    let rows: Vec<_> = listed.iter().map(|row| (row["name"].as_str(), row["version"].as_u64(), row["keys"].as_u64())).collect();
    assert_eq!(rows, [(Some("attic"), Some(1), Some(0)), (Some("cellar"), Some(3), Some(1))]);
    assert_eq!(listed[1]["updated_at"], read(&replaced)["updated_at"]);

    assert_eq!(node.ask(Method::DELETE, CELLAR, &[], "").await.status(), 204);
    let empty = read(&get(&node, CELLAR).await);
    assert_eq!((&empty["version"], &empty["data"]), (&4.into(), &json!({})), "the deletion is a change");
    problem(&node.ask(Method::DELETE, CELLAR, &[], "").await, 404, "not_found", "document `cellar` has no keys");
    assert_eq!(patch(&node, &[], r#"{"a": 1}"#).await.status(), 200);
}

#[tokio::test]
async fn a_document_is_changed_only_under_the_condition_that_is_asked() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    problem(&put(&node, &[("if-match", "*")], "{}").await, 412, "conflict", "document `cellar` does not exist");
    problem(&put(&node, &[("if-match", "\"1-0a\"")], "{}").await, 412, "conflict", "does not exist");
    let first = put(&node, &[("if-none-match", "*")], r#"{"a": 1}"#).await;
    assert_eq!(first.status(), 201);
    problem(&patch(&node, &[("if-none-match", "*")], "{}").await, 412, "conflict", "exists already");
    let second = patch(&node, &[("if-match", &tag(&first))], r#"{"a": 2}"#).await;
    assert_eq!(second.status(), 200);
    for outdated in [tag(&first), tag(&second).replace("\"2-", "\"3-")] {
        let outdated = [("if-match", outdated.as_str())];
        problem(&put(&node, &outdated, "{}").await, 412, "conflict", "is at version 2, not");
        problem(&patch(&node, &outdated, "{}").await, 412, "conflict", "is at version 2, not");
        problem(&node.ask(Method::DELETE, CELLAR, &outdated, "").await, 412, "conflict", "is at version 2, not");
        problem(&node.ask(Method::PUT, &format!("{CELLAR}/keys/a"), &outdated, "1").await, 412, "conflict", "is at version 2, not");
        problem(&node.ask(Method::DELETE, &format!("{CELLAR}/keys/a"), &outdated, "").await, 412, "conflict", "is at version 2, not");
    }
    // The version of another history, such as that of a backup.
    let other = tag(&first).replace("\"1-", "\"2-");
    problem(&put(&node, &[("if-match", &other)], "{}").await, 412, "conflict", "is not what the ETag names");
    problem(&put(&node, &[("if-match", "2")], "{}").await, 400, "invalid_input", "If-Match `2`");
    problem(&put(&node, &[("if-none-match", &tag(&second))], "{}").await, 400, "invalid_input", "only `*`");
    assert_eq!(read(&get(&node, CELLAR).await)["data"], json!({ "a": 2 }), "nothing of it was written");

    let any = put(&node, &[("if-match", "*")], "{}").await;
    assert_eq!((any.status().as_u16(), &read(&any)["version"]), (200, &3.into()));
    let key = node.ask(Method::PUT, &format!("{CELLAR}/keys/a"), &[("if-match", &tag(&any))], "1").await;
    assert_eq!(key.status(), 204);
    assert_eq!(node.ask(Method::DELETE, CELLAR, &[("if-match", &tag(&key))], "").await.status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_with_one_etag_exactly_one_wins() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let mut now = tag(&put(&node, &[], "{}").await);
    let mut version = 1;
    for round in 0..5 {
        // A value that no round before had: what changes nothing makes no version, and takes the turn of nobody.
        let writers = round * 9..(round + 1) * 9;
        let answers = futures::future::join_all(writers.clone().map(|n| {
            let (node, condition) = (&node, [("if-match", now.as_str())]);
            async move {
                match n % 3 {
                    0 => put(node, &condition, &format!(r#"{{"writer": {n}}}"#)).await,
                    1 => patch(node, &condition, &format!(r#"{{"writer": {n}}}"#)).await,
                    _ => node.ask(Method::PUT, &format!("{CELLAR}/keys/writer"), &condition, n.to_string()).await,
                }
            }
        }))
        .await;
        let (won, lost): (Vec<_>, Vec<_>) = writers.zip(&answers).partition(|(_, answer)| answer.status().is_success());
        let [(winner, won)] = won[..] else { panic!("round {round}: {answers:?}") };
        assert!(lost.iter().all(|(_, answer)| answer.status() == 412), "{answers:?}");
        version += 1;
        let state = get(&node, CELLAR).await;
        assert_eq!((&read(&state)["data"], &read(&state)["version"]), (&json!({ "writer": winner }), &version.into()));
        now = tag(won);
        assert_eq!(tag(&state), now);
    }
}

#[tokio::test]
async fn a_reader_that_has_the_state_is_told_so_without_it() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let first = tag(&put(&node, &[], r#"{"a": 1}"#).await);
    for path in [CELLAR.to_owned(), format!("{CELLAR}/keys/a")] {
        let read = async |known: &str| node.ask(Method::GET, &path, &[("if-none-match", known)], "").await;
        for known in [first.clone(), "*".to_owned(), format!("\"9-0a\", W/{first}")] {
            let same = read(&known).await;
            assert_eq!((same.status().as_u16(), same.body().len(), tag(&same)), (304, 0, first.clone()), "{known}");
        }
        assert_eq!(read("\"1-0a\"").await.status(), 200);
    }
    put(&node, &[], r#"{"a": 2}"#).await;
    let changed = node.ask(Method::GET, CELLAR, &[("if-none-match", &first)], "").await;
    assert_eq!((changed.status().as_u16(), &read(&changed)["data"]), (200, &json!({ "a": 2 })));
}

#[tokio::test]
async fn every_number_comes_back_as_it_was_sent() {
    const EXACT: &str =
        r#"{"a": 18446744073709551617, "b": [1.0, -0.0, 1e+16, 9007199254740993, 5e-324, 0.1, -7], "c": "\u00e9\ud83d\ude00"}"#;
    const HUGE: &str = "-123456789012345678901234567890123456789012345678901234567890";
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let whole = |state: &Response<Bytes>| text(state).split_once("\"data\":").map(|(_, rest)| rest.to_owned()).expect("data");
    let answers = [put(&node, &[], EXACT).await, get(&node, CELLAR).await, patch(&node, &[], EXACT).await];
    for answer in &answers {
        assert!(whole(answer).starts_with(&format!("{EXACT},\"checksum\"")), "{}", text(answer));
    }
    assert!(text(&get(&node, &format!("{CELLAR}/pending")).await).contains(EXACT));
    // As Python writes it: `1E2` is a float, and text is ASCII.
    for (sent, kept) in [(HUGE, HUGE), ("1E2", "100.0"), ("-0", "0"), (" \"é\"", "\"\\u00e9\""), ("null", "null"), ("[]", "[]")] {
        let key = format!("{CELLAR}/keys/k");
        assert_eq!(node.ask(Method::PUT, &key, &[], sent).await.status(), 204, "{sent}");
        assert_eq!(text(&get(&node, &key).await), kept);
    }
}

#[tokio::test]
async fn a_key_is_any_text_and_its_tag_is_that_of_the_document() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    problem(&get(&node, &format!("{CELLAR}/keys/a")).await, 404, "not_found", "document not found: `cellar`");
    for (version, (path, key)) in
        [("a%2Fb", "a/b"), ("a+b%20c", "a+b c"), ("%C3%A9%F0%9F%98%80", "é😀"), ("..", ".."), ("%00", "\0")].into_iter().enumerate()
    {
        let path = format!("{CELLAR}/keys/{path}");
        let put = node.ask(Method::PUT, &path, &[], "[1]").await;
        assert_eq!((put.status().as_u16(), put.body().len()), (204, 0), "{key}");
        let shown = get(&node, &path).await;
        assert_eq!((text(&shown), tag(&shown)), ("[1]", tag(&put)), "{key}");
        let whole = get(&node, CELLAR).await;
        assert_eq!((tag(&whole), &read(&whole)["version"]), (tag(&put), &(version + 1).into()));
        assert_eq!(read(&whole)["data"][key], json!([1]), "{key}");
    }
    // What changes nothing makes no version.
    let same = node.ask(Method::PUT, &format!("{CELLAR}/keys/.."), &[], "[1]").await;
    assert!(tag(&same).starts_with("\"5-"), "{}", tag(&same));
    let deleted = node.ask(Method::DELETE, &format!("{CELLAR}/keys/a%2Fb"), &[], "").await;
    assert_eq!((deleted.status().as_u16(), tag(&deleted)), (204, tag(&get(&node, CELLAR).await)));
    problem(&get(&node, &format!("{CELLAR}/keys/a%2Fb")).await, 404, "not_found", "document `cellar` has no key `a/b`");
    problem(&node.ask(Method::DELETE, &format!("{CELLAR}/keys/a%2Fb"), &[], "").await, 404, "not_found", "has no key `a/b`");
    assert_eq!(node.json(CELLAR).await["version"], 6);
}

#[tokio::test]
async fn what_a_body_says_wrong_is_told_and_nothing_is_written() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let key = format!("{CELLAR}/keys/k");
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let long = format!("{{\"{}\": 1}}", "k".repeat(1025));
    for (body, words) in [
        ("", ""),
        ("{", "byte"),
        ("[1]", "must be a JSON object"),
        (r#"{"a": NaN}"#, "infinite or NaN"),
        (r#"{"a": 1E400}"#, "infinite or NaN"),
        (r#"{"a": "\ud800"}"#, "lone surrogate"),
        (&format!("{{\"a\": {deep}}}"), "deeper than 64"),
        (&long, "the most is 1024"),
    ] {
        problem(&put(&node, &[], body).await, 400, "invalid_input", words);
        problem(&patch(&node, &[], body).await, 400, "invalid_input", words);
    }
    for (body, words) in [("", ""), ("nul", "byte"), ("-Infinity", "infinite or NaN"), (deep.as_str(), "deeper than 64")] {
        problem(&node.ask(Method::PUT, &key, &[], body.to_owned()).await, 400, "invalid_input", words);
    }
    problem(&node.ask(Method::PUT, &key, &[], &b"\"\xff\""[..]).await, 400, "invalid_input", "UTF-8");
    let value = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX));
    problem(&node.ask(Method::PUT, &key, &[], value).await, 413, "too_large", "key `k`");
    let large = vec![b' '; DOCUMENT_BODY_BYTES_MAX + 1];
    for (method, path) in [(Method::PUT, CELLAR), (Method::PATCH, CELLAR), (Method::PUT, key.as_str())] {
        let refused = node.ask(method, path, &[MERGE_PATCH], large.clone()).await;
        problem(&refused, 413, "too_large", &DOCUMENT_BODY_BYTES_MAX.to_string());
    }
    for other in [None, Some("application/json"), Some("application/json-patch+json")] {
        let headers: Vec<_> = other.map(|kind| ("content-type", kind)).into_iter().collect();
        let refused = node.ask(Method::PATCH, CELLAR, &headers, "{}").await;
        problem(&refused, 415, "invalid_input", "application/merge-patch+json");
        assert_eq!(refused.headers()["accept-patch"], "application/merge-patch+json");
    }
    problem(&node.ask(Method::PUT, "/v1/documents/a%20b", &[], "{}").await, 400, "invalid_input", "document name `a b`");
    assert_eq!(node.json("/v1/documents").await, json!({ "documents": [] }));
    let spelled = [("content-type", "Application/Merge-Patch+JSON; charset=utf-8")];
    assert_eq!(node.ask(Method::PATCH, CELLAR, &spelled, "{}").await.status(), 201);
}

#[tokio::test]
async fn pending_changes_are_listed_until_they_are_confirmed() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let pending = format!("{CELLAR}/pending");
    let confirm = async |body: &'static str| node.ask(Method::POST, &format!("{CELLAR}/confirm"), &[], body).await;
    problem(&get(&node, &pending).await, 404, "not_found", "`cellar`");
    problem(&confirm(r#"{"up_to_version": 1}"#).await, 404, "not_found", "`cellar`");
    put(&node, &[], r#"{"a": 1, "b": 2}"#).await;
    patch(&node, &[], r#"{"a": null}"#).await;
    let listed = node.json(&pending).await;
    let changes = listed["pending"].as_array().expect("a list");
    let row = |n: usize| (&changes[n]["type"], &changes[n]["version"], &changes[n]["data"], &changes[n]["coalesced"]);
    assert_eq!(row(0), (&"update".into(), &1.into(), &json!({ "a": 1, "b": 2 }), &0.into()));
    assert_eq!(row(1), (&"patch".into(), &2.into(), &json!({ "a": null }), &0.into()));
    assert_eq!(changes[1]["timestamp"], node.json(CELLAR).await["updated_at"]);
    assert_eq!(changes.len(), 2);
    for bad in ["", "{}", r#"{"up_to_version": -1}"#, r#"{"up_to_version": 1.5}"#, r#"{"up_to_version": 1, "x": 1}"#] {
        problem(&confirm(bad).await, 400, "invalid_input", "up_to_version");
    }
    assert_eq!(confirm(r#"{"up_to_version": 1}"#).await.status(), 204);
    assert_eq!(node.json(&pending).await["pending"], json!([changes[1]]));
    assert_eq!(confirm(r#"{"up_to_version": 18446744073709551615}"#).await.status(), 204);
    assert_eq!(node.json(&pending).await, json!({ "pending": [] }));
    assert_eq!(node.json(CELLAR).await["data"], json!({ "b": 2 }));
}

#[tokio::test]
async fn documents_of_the_node_itself_are_refused_on_every_route() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    for name in ["edgeward.local.functions", "edgeward.", "%65dgeward.x"] {
        let of = |rest: &str| format!("/v1/documents/{name}{rest}");
        for (method, rest) in [
            (Method::GET, ""),
            (Method::PUT, ""),
            (Method::PATCH, ""),
            (Method::DELETE, ""),
            (Method::GET, "/keys/k"),
            (Method::PUT, "/keys/k"),
            (Method::DELETE, "/keys/k"),
            (Method::GET, "/pending"),
            (Method::POST, "/confirm"),
            (Method::GET, "/history"),
            (Method::GET, "/policy"),
            (Method::PUT, "/policy"),
            (Method::DELETE, "/policy"),
            (Method::GET, "/conflicts"),
            (Method::POST, "/conflicts/0a/resolve"),
            (Method::GET, "/watch"),
        ] {
            let refused = node.ask(method, &of(rest), &[MERGE_PATCH], "{}").await;
            problem(&refused, 403, "forbidden", "is the node's own");
        }
    }
    assert_eq!(node.ask(Method::PUT, "/v1/documents/edgeward", &[], "{}").await.status(), 201);
    // One that the node made, which nothing tells of.
    node.kill();
    plant(&data, "edgeward.secret");
    let node = Node::start(&data).await;
    let listed = get(&node, "/v1/documents").await;
    assert!(text(&listed).contains("\"edgeward\"") && !text(&listed).contains("secret"), "{}", text(&listed));
    problem(&get(&node, "/v1/documents/edgeward.secret").await, 403, "forbidden", "is the node's own");
}

/// Writes a document into the store of a node that does not run.
fn plant(data: &std::path::Path, name: &str) {
    let node = edgeward::EdgeNode::new("edge-test", "edge-test").expect("valid");
    let node = edgeward::Node::open(edgeward::NodeOptions::new(node, data)).expect("opens");
    let document = node.documents().document(edgeward::DocumentName::new(name).expect("valid"));
    document.replace(edgeward::document::Precondition::None, [("token", "s3cret")].into_iter().collect()).expect("written");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_power_cut() {
    let (_folder, data) = data_dir();
    let mut now = None;
    for count in 1..=5_u64 {
        let node = Node::start(&data).await;
        let here = now.take().unwrap_or_else(|| "\"0-\"".to_owned());
        let condition = if count == 1 { ("if-none-match", "*") } else { ("if-match", here.as_str()) };
        let put = node.ask(Method::PUT, &format!("{CELLAR}/keys/{count}"), &[condition], "18446744073709551617").await;
        assert_eq!(put.status(), 204, "what the last one left is what it was: {}", text(&put));
        now = Some(tag(&put));
        node.kill();
    }
    let node = Node::start(&data).await;
    let whole = get(&node, CELLAR).await;
    assert_eq!(Some(tag(&whole)), now);
    assert_eq!(read(&whole)["data"].as_object().map(serde_json::Map::len), Some(5));
    assert_eq!(text(&whole).matches(": 18446744073709551617").count(), 5);
    assert_eq!(node.json(&format!("{CELLAR}/pending")).await["pending"].as_array().map(Vec::len), Some(5));
}

/// The server-sent events of an answer.
struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    async fn of(node: &Node, path: &str) -> Self {
        let answer = open(node.api, request(Method::GET, path).body(Full::default()).expect("valid")).await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[header::CONTENT_TYPE]),
            (200, &"text/event-stream".parse().expect("valid"))
        );
        Self { body: answer.into_body(), text: String::new() }
    }

    /// The id and the data of the next event; none at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        // Over the whole wait, as comments keep the stream alive.
        tokio::time::timeout(PATIENCE, self.wait()).await.expect("an event in time")
    }

    async fn wait(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n").map(|(event, rest)| (event.to_owned(), rest.to_owned())) {
                self.text = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim_start().to_owned());
                let Some(data) = field("data:") else { continue };
                assert_eq!(field("event:").as_deref(), Some("change"), "{event}");
                return Some((field("id:").expect("an id"), serde_json::from_str(&data).expect("json")));
            }
            let frame = self.body.frame().await?.expect("whole");
            self.text += &String::from_utf8_lossy(frame.data_ref().expect("no trailers"));
        }
    }
}

#[tokio::test]
async fn a_watch_begins_with_the_present_and_tells_each_state_that_stays() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    put(&node, &[], r#"{"n": 0}"#).await;
    let mut events = Events::of(&node, &format!("{CELLAR}/watch")).await;
    for n in 0..5 {
        let (id, state) = events.next().await.expect("goes on");
        let now = get(&node, CELLAR).await;
        assert_eq!((id, state), (tag(&now), read(&now)), "what reading the document answers");
        // A change of another document is none of this one, whenever the watch looks.
        let changing = Instant::now();
        while changing.elapsed() < 3 * WATCH_PAUSE {
            node.ask(Method::PUT, "/v1/documents/attic", &[], "{}").await;
        }
        put(&node, &[], &format!(r#"{{"n": {}}}"#, n + 1)).await;
    }
    assert_eq!(events.next().await.expect("goes on").1["data"], json!({ "n": 5 }));
    node.ask(Method::POST, &format!("{CELLAR}/confirm"), &[], r#"{"up_to_version": 6}"#).await;
    node.ask(Method::DELETE, CELLAR, &[], "").await;
    let (_, state) = events.next().await.expect("goes on");
    assert_eq!((&state["version"], &state["data"]), (&7.into(), &json!({})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_the_last_state_of_every_burst_and_no_state_twice() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    put(&node, &[], "{}").await;
    let mut watches = Vec::new();
    for _ in 0..4 {
        watches.push(Events::of(&node, &format!("{CELLAR}/watch")).await);
    }
    let mut last = 1;
    for burst in 1..=10_u64 {
        let writes = (0..20).map(|n| patch_of(&node, json!({ "burst": burst, "n": n })));
        for answer in futures::future::join_all(writes).await {
            assert_eq!(answer.status(), 200);
        }
        let now = read(&get(&node, CELLAR).await);
        assert_eq!(now["version"], 1 + burst * 20);
        for events in &mut watches {
            let mut seen = last - 1;
            loop {
                let (_, state) = events.next().await.expect("goes on");
                let version = state["version"].as_u64().expect("a number");
                assert!(version > seen, "{version} after {seen}");
                seen = version;
                if state == now {
                    break;
                }
            }
        }
        last = 2 + burst * 20;
    }
}

async fn patch_of(node: &Node, body: Value) -> Response<Bytes> {
    patch(node, &[], &body.to_string()).await
}

#[tokio::test]
async fn a_document_that_is_not_there_yet_is_waited_for() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let mut events = Events::of(&node, &format!("{CELLAR}/watch")).await;
    node.ask(Method::PUT, "/v1/documents/attic", &[], "{}").await;
    put(&node, &[], r#"{"a": 1}"#).await;
    let (_, state) = events.next().await.expect("goes on");
    assert_eq!((&state["version"], &state["data"]), (&1.into(), &json!({ "a": 1 })));
}

#[tokio::test]
async fn of_a_large_document_a_watch_tells_the_version_only() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let value = "x".repeat(VALUE_BYTES_MAX - 2);
    let keys = 0..=WATCH_STATE_BYTES_MAX / VALUE_BYTES_MAX;
    let body = keys.map(|n| (n.to_string(), Value::from(value.as_str()))).collect::<serde_json::Map<_, _>>();
    let put = put(&node, &[], &Value::from(body).to_string()).await;
    let (id, state) = Events::of(&node, &format!("{CELLAR}/watch")).await.next().await.expect("goes on");
    assert_eq!((id, &state["data_omitted"], state.get("data")), (tag(&put), &true.into(), None));
    assert_eq!((&state["checksum"], &state["version"]), (&read(&put)["checksum"], &1.into()));
}

#[tokio::test]
async fn a_watch_ends_with_the_node() {
    let (_folder, data) = data_dir();
    let mut node = Node::start(&data).await;
    put(&node, &[], "{}").await;
    let mut events = Events::of(&node, &format!("{CELLAR}/watch")).await;
    let mut waiting = Events::of(&node, "/v1/documents/attic/watch").await;
    assert!(events.next().await.is_some());
    node.terminate();
    assert_eq!((events.next().await, waiting.next().await), (None, None));
    assert!(node.ended().await.success());
}

#[tokio::test]
async fn more_watches_than_the_most_are_refused_and_their_places_are_given_back() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let path = format!("{CELLAR}/watch");
    let mut watches = Vec::new();
    for _ in 0..WATCHES_MAX {
        watches.push(Events::of(&node, &path).await);
    }
    let refused = get(&node, &path).await;
    problem(&refused, 503, "overloaded", &format!("watched {WATCHES_MAX} times"));
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    watches.pop();
    until("a place is free", async || {
        let answer = open(node.api, request(Method::GET, &path).body(Full::default()).expect("valid")).await.expect("an answer");
        answer.status() == 200
    })
    .await;
    assert_eq!(put(&node, &[], "{}").await.status(), 201);
    for events in &mut watches {
        assert_eq!(events.next().await.expect("goes on").1["version"], 1);
    }
}
