//! The commands as scripts use them: exact output, exit codes, and nothing secret anywhere.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use http::Method;
use serde_json::{Value, json};

use crate::support::{Node, artifact, data_dir, edgeward, fails, told};

#[tokio::test]
async fn a_function_is_deployed_listed_invoked_and_undeployed() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("echo", "hostile-c", &["--env", "MODE=echo", "--memory-mb", "64"]);
    // Bytes that no text is: NUL, a broken UTF-8 sequence, no line end.
    let bytes = [0, 159, 146, 150, b'\n', b'x'];
    let input = data.with_extension("input");
    fs::write(&input, bytes).expect("written");
    assert_eq!(node.done(&["invoke", "echo", "--data", &format!("@{}", input.display())]), bytes);
    assert_eq!(node.done(&["invoke", "echo", "--data", "text"]), b"text");

    let listed: Value = serde_json::from_slice(&node.done(&["functions", "--json"])).expect("json");
    let function = &listed["functions"][0];
    assert_eq!((&function["id"], &function["state"], &function["memory_mb"]), (&"echo".into(), &"ready".into(), &64.into()));

    let undeployed: Value = serde_json::from_slice(&node.done(&["undeploy", "echo", "--json"])).expect("json");
    assert_eq!(undeployed["undeployed"], true);
    fails(&node.run(&["invoke", "echo"]), 3, "function not found: `echo`");
    fails(&node.run(&["undeploy", "echo"]), 3, "function not found: `echo`");
}

#[tokio::test]
async fn each_failure_has_its_exit_code() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    fails(&node.run(&["invoke", "absent"]), 3, "function not found: `absent`");

    node.deploy("loop", "hostile-c", &["--env", "MODE=loop", "--timeout-seconds", "0.2"]);
    fails(&node.run(&["invoke", "loop"]), 4, "deadline of 0.2 s");

    node.deploy("exits", "hostile-c", &["--env", "MODE=exit3"]);
    fails(&node.run(&["invoke", "exits"]), 5, "leaving with 3");

    let grows = r#"(module (memory (export "memory") 1) (func (export "_start") (drop (memory.grow (i32.const 1000))) unreachable))"#;
    let file = data.with_extension("wasm");
    fs::write(&file, wat::parse_str(grows).expect("valid")).expect("written");
    let file = file.display().to_string();
    node.done(&["deploy", &file, "--id", "grows", "--memory-mb", "16"]);
    fails(&node.run(&["invoke", "grows"]), 6, "16 MiB");

    fs::write(&file, "not wasm").expect("written");
    fails(&node.run(&["deploy", &file, "--id", "broken"]), 8, "not WebAssembly");

    fails(&node.run(&["deploy", &artifact("hello"), "--id", "x", "--memory-mb", "0"]), 9, "memory_mb");
    fails(&node.run(&["deploy", &artifact("hello"), "--id", "exits", "--if-generation", "0"]), 12, "exists already");
    for (grant, words) in [("a/b", "`/` is not allowed"), ("a:rx", "`a:ro` for reading only"), ("edgeward.nodes", "the node's own")] {
        fails(&node.run(&["deploy", &artifact("hello"), "--id", "x", "--document", grant]), 2, words);
    }
    fails(&node.run(&["deploy", &artifact("hello"), "--id", "x", "--document", "a", "--document", "a:ro"]), 9, "document `a` twice");
    fails(&node.run(&["invoke", "a/b"]), 2, "a/b");
}

#[tokio::test]
async fn a_full_function_is_overloaded() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("loop", "hostile-c", &["--env", "MODE=loop", "--max-concurrency", "1", "--max-queue", "0", "--timeout-seconds", "50"]);
    let mut busy = node.command(&["invoke", "loop"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    node.until_running(1).await;
    fails(&node.run(&["invoke", "loop"]), 7, "overloaded");
    // Its client gone, the function stops and its place is free.
    busy.kill().expect("it runs");
    busy.wait().expect("it ends");
    node.until_running(0).await;
}

#[test]
fn a_node_that_is_not_there_is_unreachable() {
    // Nothing listens on a port that was just given back.
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("bound");
    let output = edgeward(&["functions", "--server", &format!("http://{address}")]).output().expect("starts");
    fails(&output, 10, "edgeward up");
}

#[tokio::test]
async fn errors_are_problems_with_their_kind_when_json_is_asked_for() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let output = node.run(&["invoke", "absent", "--json"]);
    let problem: Value = serde_json::from_slice(&output.stderr).expect("json");
    assert_eq!((output.status.code(), &problem["kind"], &problem["status"]), (Some(3), &"not_found".into(), &404.into()));
}

#[test]
fn a_secret_that_was_mistyped_is_not_repeated() {
    for mistyped in ["s3cret-value", "=s3cret-value"] {
        let output = edgeward(&["deploy", &artifact("hello"), "--id", "f", "--env", mistyped]).output().expect("starts");
        fails(&output, 9, "--env NAME=VALUE");
        assert!(!told(&output).contains("s3cret"), "{}", told(&output));
    }
}

#[tokio::test]
async fn the_environment_reaches_the_guest_twice_and_nobody_else() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let artifact = artifact("hostile");
    let deploy = ["deploy", &artifact, "--id", "f", "--env", "TOKEN=s3cret-value", "--timeout-seconds", "5"];
    let mut shown = node.done(&deploy);

    let seen: Value = serde_json::from_slice(node.get_function("/fn/f/env").await.body()).expect("json");
    assert_eq!(seen["environment"]["TOKEN"], "s3cret-value", "{seen}");
    assert_eq!(seen["config"]["TOKEN"], "s3cret-value", "{seen}");

    // The values lie in the data folder, which nobody else may look into.
    assert_eq!(fs::metadata(&data).expect("there").permissions().mode() & 0o077, 0);

    // A trap and a failed deployment write what they know of the function.
    assert_eq!(node.get_function("/fn/f/stderr").await.status(), 500);
    let output = node.run(&["deploy", &artifact, "--id", "f", "--env", "TOKEN=s3cret-value", "--memory-mb", "0"]);
    shown.extend(output.stderr);
    for output in ["deploy --id f", "functions", "functions show f", "logs f", "metrics", "status"] {
        for json in [&[][..], &["--json"]] {
            let words: Vec<_> = output.split(' ').chain(json.iter().copied()).collect();
            let output = node.run(&words);
            shown.extend([output.stdout, output.stderr].concat());
        }
    }
    for path in ["/v1/functions", "/v1/functions/f", "/v1/functions/f/logs", "/v1/metrics/summary", "/v1/status", "/metrics"] {
        shown.extend(node.ask(Method::GET, path, &[], "").await.into_body());
    }
    shown.extend(node.stderr().into_bytes());
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("TOKEN") && shown.contains("stderr says hi"), "the listings and the log were read");
    assert!(!shown.contains("s3cret"), "a value of the environment was shown:\n{shown}");
}

#[tokio::test]
async fn a_function_keeps_the_document_that_it_was_granted() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("visits", "visits", &["--document", "visits", "--document", "prices:ro"]);
    let shown = String::from_utf8(node.done(&["functions", "show", "visits"])).expect("text");
    assert!(shown.contains("visits, prices:ro"), "{shown}");
    assert_eq!(node.get_function("/fn/visits/garden").await.body(), "visit 1 of /garden\n");
    assert_eq!(node.get_function("/fn/visits/garden").await.body(), "visit 2 of /garden\n");
    // A visit that was answered is on disk.
    node.kill();
    let node = Node::start(&data).await;
    assert_eq!(node.get_function("/fn/visits/garden").await.body(), "visit 3 of /garden\n");
    assert_eq!(node.json("/v1/functions/visits").await["documents"][1], json!({ "document": "prices", "access": "read-only" }));

    node.deploy("visits", "visits", &["--document", "visits:ro"]);
    let denied = node.get_function("/fn/visits/garden").await;
    assert_eq!((denied.status().as_u16(), &denied.body()[..]), (500, &b"deploy this function with `--document visits`\n"[..]));
}
