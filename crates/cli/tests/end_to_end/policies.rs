//! Policies, conflicts and the history of documents over the HTTP API, at a node that is alone.

use bytes::Bytes;
use edgeward::limits::HISTORY_CHANGES_MAX;
use http::{Method, Response};
use serde_json::json;

use crate::support::{Node, data_dir, problem};

const CELLAR: &str = "/v1/documents/cellar";
const POLICY: &str = "/v1/documents/cellar/policy";

/// Sets the policy of keys that begin so.
async fn set_policy(node: &Node, prefix: &str, policy: &str) -> Response<Bytes> {
    node.ask(Method::PUT, POLICY, &[], json!({ "policy": policy, "prefix": prefix }).to_string()).await
}

async fn put(node: &Node, key: &str, value: &'static str) -> Response<Bytes> {
    node.ask(Method::PUT, &format!("{CELLAR}/keys/{key}"), &[], value).await
}

#[tokio::test]
async fn a_policy_says_what_writing_a_key_does() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    for (prefix, policy) in [("n-", "counter"), ("tags", "set"), ("hot", "max"), ("rules", "hub_owned"), ("rules-2", "edge_owned:edge-9")] {
        assert_eq!(set_policy(&node, prefix, policy).await.status(), 204, "{policy}");
    }
    for (key, value) in [
        ("n-visits", "5"),
        ("n-visits", "7"),
        ("tags", r#"["wet", "cold", "wet"]"#),
        ("hot", "21.5"),
        ("hot", "20"),
        // A node without a hub is its own.
        ("rules", "true"),
    ] {
        assert_eq!(put(&node, key, value).await.status(), 204, "{key}");
    }
    let state = node.json(CELLAR).await;
    assert_eq!(state["data"], json!({ "n-visits": 7, "tags": ["cold", "wet"], "hot": 21.5, "rules": true }));
    assert_eq!(state["version"], 5, "what is not greater changes nothing");
    problem(&put(&node, "n-visits", "\"many\"").await, 400, "invalid_input", "key `n-visits` counts");
    problem(&put(&node, "n-visits", "1.5").await, 400, "invalid_input", "`1.5` is none");
    problem(&put(&node, "tags", "{}").await, 400, "invalid_input", "key `tags` is a set, so its value is an array");
    problem(&put(&node, "rules-2", "1").await, 403, "forbidden", "node `edge-9` alone");
    assert_eq!(node.json(CELLAR).await, state, "nothing of it was written");

    assert_eq!(node.ask(Method::DELETE, &format!("{POLICY}?prefix=tags"), &[], "").await.status(), 204);
    assert_eq!(put(&node, "tags", "{}").await.status(), 204);
    assert_eq!(node.json(CELLAR).await["data"]["tags"], json!({}));
}

#[tokio::test]
async fn policies_are_shown_set_and_removed_and_outlast_the_process() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    assert_eq!(node.json(POLICY).await, json!({ "policies": {} }), "of a document that is not there yet, too");
    problem(&node.ask(Method::DELETE, POLICY, &[], "").await, 404, "not_found", "document `cellar` has no policy");
    assert_eq!(node.ask(Method::PUT, POLICY, &[], r#"{"policy": "min"}"#).await.status(), 204);
    assert_eq!(set_policy(&node, "é/&", "counter").await.status(), 204);
    let both = json!({ "policies": { "": "min", "é/&": "counter" } });
    assert_eq!(node.json(POLICY).await, both);

    let unknown = set_policy(&node, "", "greatest").await;
    problem(&unknown, 400, "invalid_input", "`greatest` is no policy; there are last_writer_wins, first_writer_wins, max, min,");
    problem(&unknown, 400, "invalid_input", "edge_owned and edge_owned:NODE");
    problem(&set_policy(&node, "a", "version_wins").await, 400, "invalid_input", "of a whole document");
    for bad in ["", "{}", "max", r#"{"policy": 1}"#, r#"{"policy": "max", "key": "a"}"#, r#"{"policy": "max", "prefix": null}"#] {
        problem(&node.ask(Method::PUT, POLICY, &[], bad).await, 400, "invalid_input", r#"send {"policy": "max""#);
    }
    let long = "k".repeat(2000);
    problem(&set_policy(&node, &long, "max").await, 400, "invalid_input", "the most is 1024");
    for mistaken in ["?prefx=a", "?prefix=a&x=1"] {
        problem(&node.ask(Method::DELETE, &format!("{POLICY}{mistaken}"), &[], "").await, 400, "invalid_input", "unknown field");
    }
    let other = format!("{POLICY}?prefix=%C3%A9");
    problem(&node.ask(Method::DELETE, &other, &[], "").await, 404, "not_found", "no policy of its own for keys with the prefix `é`");
    assert_eq!(node.json(POLICY).await, both);

    node.kill();
    let node = Node::start(&data).await;
    assert_eq!(node.json(POLICY).await, both);
    assert_eq!(node.ask(Method::DELETE, &format!("{POLICY}?prefix=%C3%A9%2F%26"), &[], "").await.status(), 204);
    assert_eq!(node.json(POLICY).await, json!({ "policies": { "": "min" } }));
    assert_eq!(node.ask(Method::DELETE, POLICY, &[], "").await.status(), 204);
    assert_eq!(node.json(POLICY).await, json!({ "policies": {} }));
    assert_eq!(node.json("/v1/documents").await, json!({ "documents": [] }), "they are the node's own");

    put(&node, "a", "1").await;
    problem(&set_policy(&node, "", "version_wins").await, 412, "conflict", "has keys already");
}

#[tokio::test]
async fn the_history_grows_with_each_change_and_is_bounded_where_it_is_confirmed() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let history = format!("{CELLAR}/history");
    problem(&node.ask(Method::GET, &history, &[], "").await, 404, "not_found", "document not found: `cellar`");
    node.ask(Method::PUT, CELLAR, &[], r#"{"n": 18446744073709551617}"#).await;
    put(&node, "n", "2").await;
    node.ask(Method::DELETE, &format!("{CELLAR}/keys/n"), &[], "").await;
    let listed = node.ask(Method::GET, &history, &[], "").await;
    assert!(String::from_utf8_lossy(listed.body()).contains(r#""data":{"n": 18446744073709551617}"#), "{listed:?}");
    let listed = node.json(&history).await;
    let pending = node.json(&format!("{CELLAR}/pending")).await;
    assert_eq!(listed["history"], pending["pending"], "nothing is confirmed");
    let rows = |listed: &serde_json::Value| listed["history"].as_array().expect("a list").clone();
    let told: Vec<_> = rows(&listed).iter().map(|row| (row["type"].clone(), row["version"].clone(), row["data"].clone())).skip(1).collect();
    assert_eq!(told, [("patch".into(), 2.into(), json!({ "n": 2 })), ("patch".into(), 3.into(), json!({ "n": null }))], "oldest first");
    assert_eq!(rows(&listed)[2]["timestamp"], node.json(CELLAR).await["updated_at"]);

    node.ask(Method::POST, &format!("{CELLAR}/confirm"), &[], r#"{"up_to_version": 3}"#).await;
    assert_eq!(node.json(&history).await, listed, "what is confirmed is history still");
    let last = HISTORY_CHANGES_MAX + 50;
    for version in 4..=last {
        node.ask(Method::PUT, &format!("{CELLAR}/keys/n"), &[], version.to_string()).await;
    }
    assert_eq!(rows(&node.json(&history).await).len(), last, "what is pending is kept");
    node.ask(Method::POST, &format!("{CELLAR}/confirm"), &[], format!(r#"{{"up_to_version": {last}}}"#)).await;
    let kept = rows(&node.json(&history).await);
    assert_eq!((kept.len(), &kept[kept.len() - 1]["version"]), (HISTORY_CHANGES_MAX, &last.into()));
    assert_eq!(kept[0]["version"], last - HISTORY_CHANGES_MAX + 1);
}

#[tokio::test]
async fn alone_a_node_has_no_conflicts_and_what_is_no_resolution_is_refused() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let conflicts = format!("{CELLAR}/conflicts");
    let resolve = async |body: &'static str| node.ask(Method::POST, &format!("{conflicts}/0123456789abcdef/resolve"), &[], body).await;
    problem(&node.ask(Method::GET, &conflicts, &[], "").await, 404, "not_found", "document not found: `cellar`");
    problem(&resolve(r#"{"keep": true}"#).await, 404, "not_found", "conflict not found: `0123456789abcdef`");
    set_policy(&node, "both", "keep_both").await;
    for (key, value) in [("both", "1"), ("both", "2"), ("door", "1"), ("door", "2")] {
        put(&node, key, value).await;
    }
    assert_eq!(node.json(&conflicts).await, json!({ "conflicts": [], "next": null, "forgotten": 0 }), "each write had seen the one before");
    for limit in ["0", "1001", "-1", "x"] {
        problem(&node.ask(Method::GET, &format!("{conflicts}?limit={limit}"), &[], "").await, 400, "invalid_input", "limit");
    }
    for good in [r#"{"keep": true}"#, r#"{"take": true}"#, r#"{"value": null}"#, r#"{"delete": true}"#] {
        problem(&resolve(good).await, 404, "not_found", "of document `cellar`");
    }
    for bad in ["{}", r#"{"keep": false}"#, r#"{"keep": true, "delete": true}"#, r#"{"drop": true}"#, r#"{"value": 1, "x": 2}"#] {
        problem(&resolve(bad).await, 400, "invalid_input", r#"send exactly one of {"keep": true}, {"take": true}, {"value": …}"#);
    }
    for (bad, words) in [("", ""), ("[]", "must be a JSON object"), (r#"{"value": NaN}"#, "infinite or NaN")] {
        problem(&resolve(bad).await, 400, "invalid_input", words);
    }
    assert_eq!(node.json(CELLAR).await["data"], json!({ "both": 2, "door": 2 }));
}
