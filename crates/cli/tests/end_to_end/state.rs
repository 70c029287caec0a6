//! `edgeward state` as scripts use it: exact output, exact numbers, exit codes, and a watch that goes on.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Output, Stdio},
};

use serde_json::{Value, json};

use crate::support::{KillOnDrop, Node, data_dir, ended, fails, told};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("json")
}

/// The ETag that a change told.
fn etag(told: &str) -> String {
    told.trim_end().rsplit_once(", ETag ").map_or_else(|| panic!("{told}"), |(_, tag)| tag.to_owned())
}

/// Runs a command with this standard input.
fn fed(node: &Node, args: &[&str], input: &str) -> Output {
    let mut command = node.command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("ends")
}

#[tokio::test]
async fn a_document_is_written_shown_and_deleted_by_commands() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    assert!(text(node.done(&["state", "list"])).contains("no documents"));
    let file = data.with_extension("json");
    fs::write(&file, r#"{"n": 18446744073709551617, "f": [1.0, 1e16], "t": "é"}"#).expect("written");
    let file = file.display().to_string();

    let put = text(node.done(&["state", "put", "cellar", &file]));
    assert!(put.starts_with("cellar is at version 1, ETag 1-"), "{put}");
    let shown = "{\n  \"f\": [\n    1.0,\n    1e+16\n  ],\n  \"n\": 18446744073709551617,\n  \"t\": \"é\"\n}\n";
    assert_eq!(text(node.done(&["state", "get", "cellar"])), shown);
    let back = fed(&node, &["state", "put", "cellar", "-", "--json"], shown);
    assert_eq!(etag(&put), format!("1-{}", read(&back.stdout)["checksum"].as_str().expect("text")), "what is shown reads back the same");

    let patched = text(node.done(&["state", "patch", "cellar", "--value", r#"{"f": null, "t": {"deep": [-5]}}"#]));
    assert!(patched.starts_with("cellar is at version 3, ETag 3-"), "{patched}");
    assert_eq!(text(node.done(&["state", "get", "cellar", "n"])), "18446744073709551617\n");
    assert_eq!(text(node.done(&["state", "get", "cellar", "t", "--json"])), "{\"deep\": [-5]}\n");
    node.done(&["state", "put", "cellar", "a/b c", "--value", "-1"]);
    assert!(fed(&node, &["state", "put", "cellar", "in", "-"], "null").status.success());
    let whole = node.done(&["state", "get", "cellar", "--json"]);
    assert_eq!(read(&whole)["data"]["a/b c"], -1);
    assert!(text(whole).contains(r#""data":{"a/b c": -1, "in": null, "n": 18446744073709551617, "t": {"deep": [-5]}}"#));

    let deleted = text(node.done(&["state", "delete", "cellar", "a/b c"]));
    assert!(deleted.starts_with("cellar is at version 6, ETag 6-"), "{deleted}");
    let listed = text(node.done(&["state", "list"]));
    assert!(listed.starts_with("NAME    VERSION  KEYS  UPDATED\ncellar        6     3  "), "{listed}");
    assert_eq!(text(node.done(&["state", "delete", "cellar"])), "deleted every key of cellar\n");
    assert_eq!(read(&node.done(&["state", "list", "--json"]))["documents"][0]["keys"], 0);
    assert_eq!(text(node.done(&["state", "get", "cellar"])), "{}\n");
}

#[tokio::test]
async fn a_document_is_changed_only_in_the_state_that_is_asked() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    fails(&node.run(&["state", "patch", "cellar", "--value", "{}", "--if-match", "*"]), 12, "does not exist");
    let first = etag(&text(node.done(&["state", "put", "cellar", "--value", "{}"])));
    let second = etag(&text(node.done(&["state", "put", "cellar", "door", "--value", "1", "--if-match", &first])));
    for change in [
        &["put", "cellar", "--value", "{}"][..],
        &["put", "cellar", "door", "--value", "2"],
        &["patch", "cellar", "--value", "{}"],
        &["delete", "cellar"],
    ] {
        let output = node.run(&[&["state"], change, &["--if-match", &first]].concat());
        fails(&output, 12, "is at version 2, not 1");
        assert!(told(&output).contains("hint: `edgeward state get NAME --json`"), "{}", told(&output));
    }
    // As HTTP writes it, too.
    let deleted = node.done(&["state", "delete", "cellar", "door", "--if-match", &format!("\"{second}\""), "--json"]);
    let third = read(&deleted)["etag"].as_str().expect("text").to_owned();
    assert_eq!(read(&deleted), json!({ "name": "cellar", "key": "door", "deleted": true, "etag": third }));
    let whole = read(&node.done(&["state", "get", "cellar", "--json"]));
    assert_eq!(third, format!("{}-{}", whole["version"], whole["checksum"].as_str().expect("text")), "as the help says");
}

#[tokio::test]
async fn pending_changes_are_shown_and_confirmed_by_commands() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.done(&["state", "put", "cellar", "--value", r#"{"a": 1}"#]);
    node.done(&["state", "patch", "cellar", "--value", r#"{"a": null}"#]);
    let shown = text(node.done(&["state", "pending", "cellar"]));
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].starts_with("VERSION  TYPE") && lines[1].contains("update") && lines[2].ends_with(r#"{"a": null}"#), "{shown}");
    assert_eq!(read(&node.done(&["state", "pending", "cellar", "--json"]))["pending"][1]["data"], json!({ "a": null }));
    assert_eq!(text(node.done(&["state", "confirm", "cellar", "1"])), "confirmed the changes of cellar up to version 1\n");
    assert!(!text(node.done(&["state", "pending", "cellar"])).contains("update"));
    node.done(&["state", "confirm", "cellar", "2"]);
    assert_eq!(text(node.done(&["state", "pending", "cellar"])), "every change is confirmed\n");
}

#[tokio::test]
async fn policies_and_the_history_are_shown_and_changed_by_commands() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    assert!(text(node.done(&["state", "policy", "cellar"])).contains("the last writer wins"));
    assert_eq!(text(node.done(&["state", "policy", "cellar", "keep_both"])), "the policy of cellar is keep_both\n");
    let set = text(node.done(&["state", "policy", "cellar", "counter", "--prefix", "visits & more/"]));
    assert_eq!(set, "the policy of keys of cellar with the prefix visits & more/ is counter\n");
    let shown = "PREFIX          POLICY\n(document)      keep_both\nvisits & more/  counter\n";
    assert_eq!(text(node.done(&["state", "policy", "cellar"])), shown);
    let policies = |args: &[&str]| read(&node.done(&[&["state", "policy", "cellar", "--json"], args].concat()));
    assert_eq!(policies(&[]), json!({ "policies": { "": "keep_both", "visits & more/": "counter" } }));
    assert_eq!(policies(&["--prefix", ""]), json!({ "policies": { "": "keep_both" } }));
    fails(&node.run(&["state", "put", "cellar", "visits & more/a", "--value", "\"many\""]), 9, "counts");

    let removed = node.done(&["state", "policy", "cellar", "--prefix", "visits & more/", "--remove", "--json"]);
    assert_eq!(read(&removed), json!({ "name": "cellar", "prefix": "visits & more/", "policy": null }));
    assert_eq!(policies(&[]), json!({ "policies": { "": "keep_both" } }));
    fails(&node.run(&["state", "policy", "cellar", "--prefix", "visits & more/", "--remove"]), 3, "has no policy");
    assert_eq!(text(node.done(&["state", "policy", "cellar", "--remove"])), "removed the policy of cellar\n");

    node.done(&["state", "put", "cellar", "--value", r#"{"door": "open"}"#]);
    node.done(&["state", "put", "cellar", "door", "--value", "\"shut\""]);
    node.done(&["state", "confirm", "cellar", "2"]);
    let history = text(node.done(&["state", "history", "cellar"]));
    let lines: Vec<_> = history.lines().collect();
    assert!(lines[0].starts_with("VERSION  TYPE") && lines[1].ends_with(r#"{"door": "open"}"#), "{history}");
    assert!(lines[2].contains("patch") && lines[2].ends_with(r#"{"door": "shut"}"#) && lines.len() == 3, "{history}");
    assert_eq!(read(&node.done(&["state", "history", "cellar", "--json"]))["history"][1]["data"], json!({ "door": "shut" }));

    assert_eq!(text(node.done(&["state", "conflicts", "cellar"])), "there are no conflicts\n");
    assert_eq!(read(&node.done(&["state", "conflicts", "cellar", "--json"])), json!({ "conflicts": [], "next": null, "forgotten": 0 }));
    for resolution in [&["--keep"][..], &["--take"], &["--value", "-1"], &["--delete"]] {
        let output = node.run(&[&["state", "resolve", "cellar", "a/b"], resolution].concat());
        fails(&output, 3, "conflict not found: `a/b` of document `cellar`");
        assert!(told(&output).contains("hint: `edgeward state conflicts NAME`"), "{}", told(&output));
    }
    fails(&node.run(&["state", "resolve", "cellar", "0a", "--value", "1}"]), 9, "");
}

#[tokio::test]
async fn each_failure_of_a_document_has_its_exit_code_and_a_hint() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let absent = node.run(&["state", "get", "cellar"]);
    fails(&absent, 3, "document not found: `cellar`");
    assert!(told(&absent).contains("hint: `edgeward state list`"), "{}", told(&absent));
    for command in [
        &["pending", "cellar"][..],
        &["confirm", "cellar", "1"],
        &["history", "cellar"],
        &["conflicts", "cellar"],
        &["delete", "cellar"],
        &["get", "cellar", "door"],
    ] {
        fails(&node.run(&[&["state"], command].concat()), 3, "document not found: `cellar`");
    }
    node.done(&["state", "put", "cellar", "--value", "{}"]);
    fails(&node.run(&["state", "get", "cellar", "door"]), 3, "document `cellar` has no key `door`");
    fails(&node.run(&["state", "put", "cellar", "--value", "[1]"]), 9, "must be a JSON object");
    fails(&node.run(&["state", "put", "cellar", "/nonexistent"]), 1, "`/nonexistent`");
    let large = data.with_extension("large");
    fs::File::create(&large).and_then(|file| file.set_len(5 << 20)).expect("sparse");
    fails(&node.run(&["state", "put", "cellar", &large.display().to_string()]), 11, "larger than 4194304 bytes");
    for command in [
        &["get", "edgeward.x"][..],
        &["put", "edgeward.x", "--value", "{}"],
        &["patch", "edgeward.x", "--value", "{}"],
        &["delete", "edgeward.x"],
        &["watch", "edgeward.x"],
        &["pending", "edgeward.x"],
        &["confirm", "edgeward.x", "1"],
        &["history", "edgeward.x"],
        &["policy", "edgeward.x"],
        &["policy", "edgeward.x", "max"],
        &["policy", "edgeward.x", "--remove"],
        &["conflicts", "edgeward.x"],
        &["resolve", "edgeward.x", "0a", "--keep"],
    ] {
        fails(&node.run(&[&["state"], command].concat()), 14, "document `edgeward.x` is the node's own");
    }
    for usage in [
        &["put", "cellar"][..],
        &["put", "cellar", "door", "a.json", "--value", "1"],
        &["patch", "cellar"],
        &["patch", "cellar", "a.json", "--value", "{}"],
        &["get", "a/b"],
        &["get", "cellar", ""],
        &["delete", "cellar", "--if-match", "3"],
        &["confirm", "cellar", "-1"],
        &["policy", "cellar", "greatest"],
        &["policy", "cellar", "max", "--remove"],
        &["resolve", "cellar", "0a"],
        &["resolve", "cellar", "", "--keep"],
        &["resolve", "cellar", "0a", "--keep", "--delete"],
    ] {
        let output = node.run(&[&["state"], usage].concat());
        assert_eq!(output.status.code(), Some(2), "{usage:?}: {}", told(&output));
    }
    let problem = read(&node.run(&["state", "get", "absent", "--json"]).stderr);
    assert_eq!((&problem["kind"], &problem["status"]), (&"not_found".into(), &404.into()));
}

#[tokio::test]
async fn a_watch_prints_a_line_for_each_state_until_the_node_stops() {
    let (_folder, data) = data_dir();
    let mut node = Node::start(&data).await;
    node.done(&["state", "put", "cellar", "--value", r#"{"n": 0}"#]);
    let start = |options: &[&str]| {
        let mut child = node.command(&[&["state", "watch", "cellar"], options].concat()).stdout(Stdio::piped()).spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        (KillOnDrop(Some(child)), lines)
    };
    let (mut people, mut people_lines) = start(&[]);
    let (mut programs, mut programs_lines) = start(&["--json"]);
    for n in 0..3_u64 {
        let line = people_lines.next().expect("goes on").expect("text");
        assert!(line.ends_with(&format!("Z  version {}  {{\"n\": {n}}}", n + 1)), "{line}");
        let state = read(programs_lines.next().expect("goes on").expect("text").as_bytes());
        assert_eq!((&state["version"], &state["data"]["n"]), (&(n + 1).into(), &n.into()));
        node.done(&["state", "put", "cellar", "n", "--value", &(n + 1).to_string()]);
    }
    node.terminate();
    assert!(node.ended().await.success());
    for child in [&mut people, &mut programs] {
        assert!(ended(child.0.as_mut().expect("there")).await.success());
    }
}
