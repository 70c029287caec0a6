//! The node as a service: where it listens, what survives a crash or a damaged disk, and how it stops.

use std::{fs, os::unix::net::UnixDatagram, path::Path, process::Stdio, time::Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::Full;

use crate::support::{KillOnDrop, Node, PATIENCE, data_dir, edgeward, open, refused_up, request, try_send, until};

#[tokio::test]
async fn a_data_folder_belongs_to_one_process() {
    let (_folder, data) = data_dir();
    let mut node = Node::start(&data).await;
    let (code, told) = refused_up(&data, &[]).await;
    assert_eq!(code, Some(12), "{told}");
    assert!(told.contains("in use by another process"), "{told}");
    node.terminate();
    assert!(node.ended().await.success());
    Node::start(&data).await;
}

#[tokio::test]
async fn every_acknowledged_deployment_serves_again_after_a_power_cut() {
    let (_folder, data) = data_dir();
    for count in 1..=10 {
        // What the last one left comes back by itself: a kill directly after each acknowledgement.
        let node = Node::start(&data).await;
        serve_all(&node, count - 1).await;
        node.deploy(&format!("f{count}"), "hello", &[]);
        node.kill();
    }
    let node = Node::start(&data).await;
    serve_all(&node, 10).await;
    for count in 11..=20 {
        node.deploy(&format!("f{count}"), "hello", &[]);
    }
    node.done(&["undeploy", "f1"]);
    node.kill();
    let node = Node::start(&data).await;
    assert_eq!(node.json("/v1/functions").await["functions"].as_array().map(Vec::len), Some(19));
    assert_eq!(node.get_function("/fn/f1/").await.status(), 404, "what was undeployed stays so");
    assert_eq!(node.get_function("/fn/f20/").await.status(), 200);
}

async fn serve_all(node: &Node, count: usize) {
    for n in 1..=count {
        assert_eq!(node.get_function(&format!("/fn/f{n}/")).await.body(), "hello from the edge\n", "f{n} of {count}");
    }
}

#[tokio::test]
async fn damaged_machine_code_is_compiled_again() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("hello", "hello", &[]);
    node.kill();
    let files = |extension: &str| -> Vec<_> {
        let entries = fs::read_dir(data.join("compiled")).expect("there").map(|entry| entry.expect("readable").path());
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    };
    let [code] = files("cwasm").try_into().expect("one artifact");
    let [checksum] = files("blake3").try_into().expect("one artifact");
    let (whole, sum) = (fs::read(&code).expect("there"), fs::read(&checksum).expect("there"));
    let garbage = vec![0xa5; whole.len()];
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let damages: [(&str, &Path, &[u8]); 6] = [
        ("truncated", &code, &whole[..whole.len() / 2]),
        ("empty", &code, &[]),
        ("garbage", &code, &garbage),
        ("one bit", &code, &flipped),
        ("checksum empty", &checksum, &[]),
        ("checksum garbage", &checksum, &[7; 32]),
    ];
    for (what, path, bytes) in damages {
        fs::write(path, bytes).expect("written");
        let node = Node::start(&data).await;
        assert_eq!(node.get_function("/fn/hello/").await.body(), "hello from the edge\n", "{what}");
        assert!(fs::read(&code).expect("there") == whole && fs::read(&checksum).expect("there") == sum, "{what}: mended");
        assert!(node.stderr().contains("compiled code is damaged"), "{what}: told");
        node.kill();
    }
}

#[tokio::test]
async fn a_damaged_artifact_is_told_and_an_upload_mends_it() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("hello", "hello", &[]);
    node.deploy("echo", "hostile-c", &["--env", "MODE=echo"]);
    let digest = node.json("/v1/functions/hello").await["handler"]["artifact"].as_str().expect("text").to_owned();
    node.kill();
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    fs::write(data.join("artifacts").join(hex).with_extension("wasm"), "garbage").expect("written");
    fs::remove_dir_all(data.join("compiled")).expect("there");
    let node = Node::start(&data).await;
    let function = node.json("/v1/functions/hello").await;
    assert_eq!(function["state"], "failed");
    assert!(function["message"].as_str().is_some_and(|message| message.contains("damaged on disk")), "{function}");
    assert_eq!(node.done(&["invoke", "echo", "--data", "x"]), b"x", "the others serve");
    node.deploy("hello", "hello", &[]);
    assert_eq!(node.get_function("/fn/hello/").await.body(), "hello from the edge\n");
}

#[tokio::test]
async fn a_data_folder_belongs_to_one_node() {
    let (_folder, data) = data_dir();
    Node::start(&data).await.kill();
    let (code, told) = refused_up(&data, &["--id", "another"]).await;
    assert_eq!(code, Some(12), "{told}");
    assert!(told.contains("belongs to node `edge-test`, not to `another`") && told.contains("give the node's own `--id`"), "{told}");
    Node::start(&data).await;
}

#[tokio::test]
async fn a_damaged_store_stops_the_start_and_is_kept() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("hello", "hello", &[]);
    node.kill();
    let path = data.join("documents/documents.sqlite3");
    let garbage = "garbage".repeat(10_000);
    fs::write(&path, &garbage).expect("written");
    // It holds all that is not in the database yet.
    fs::remove_file(data.join("documents/documents.sqlite3-wal")).expect("there");
    let (code, told) = refused_up(&data, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("the store"), "{told}");
    assert_eq!(fs::read(&path).expect("kept"), garbage.as_bytes());
}

#[tokio::test]
async fn what_an_earlier_release_desired_serves_again_and_is_kept_when_it_is_damaged() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("hello", "hello", &[]);
    let mut record = node.json("/v1/functions/hello").await;
    node.kill();
    // The data folder as the earlier release left it: a file instead of the documents.
    record["generation"] = 4.into();
    let whole = serde_json::json!({ "format": 1, "last_generation": 7, "functions": { "hello": record } }).to_string();
    fs::remove_dir_all(data.join("documents")).expect("there");
    let path = data.join("desired.json");
    for damaged in [&whole.as_bytes()[..whole.len() - 10], b"", b"\0\0\0\0", br#"{"format":99}"#] {
        fs::write(&path, damaged).expect("written");
        let (code, told) = refused_up(&data, &[]).await;
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("desired.json"), "{told}");
        assert_eq!(fs::read(&path).expect("kept"), damaged);
    }
    fs::write(&path, &whole).expect("written");
    let node = Node::start(&data).await;
    assert_eq!(node.get_function("/fn/hello/").await.status(), 200);
    assert_eq!(node.json("/v1/functions/hello").await["generation"], 4);
    assert!(!path.exists(), "it moved into the documents");
    node.deploy("hello", "hello", &["--name", "another"]);
    assert_eq!(node.json("/v1/functions/hello").await["generation"], 8);
}

#[tokio::test]
async fn the_trace_context_of_a_caller_reaches_the_guest_through_both_doors() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    // It answers with the request that it sees.
    node.deploy("f", "hostile", &[]);
    for (address, path) in [(node.api, "/v1/functions/f/invoke"), (node.functions, "/fn/f/request")] {
        for (fields, expected) in [(true, vec![["traceparent", TRACE], ["tracestate", "a=1"]]), (false, vec![])] {
            let mut call = request(Method::POST, path);
            if fields {
                call = call.header("traceparent", TRACE).header("tracestate", "a=1");
            }
            let answer = crate::support::try_send(address, call.body(Full::<Bytes>::default()).expect("valid")).await.expect("an answer");
            let seen = crate::support::json(&answer);
            let pairs = seen["headers"].as_array().expect("pairs").iter();
            let mut trace: Vec<_> = pairs.filter(|pair| pair[0].as_str().is_some_and(|name| name.starts_with("trace"))).collect();
            trace.sort_by_key(|pair| pair[0].as_str());
            assert_eq!(serde_json::json!(trace), serde_json::json!(expected), "{path}");
        }
    }
}

#[tokio::test]
async fn a_stop_lets_running_invocations_end() {
    let (_folder, data) = data_dir();
    let mut node = Node::start(&data).await;
    node.deploy("f", "hostile", &[]);
    let address = node.functions;
    let slow = tokio::spawn(async move {
        crate::support::try_send(address, request(Method::GET, "/fn/f/sleep?ms=800").body(Full::<Bytes>::default()).expect("valid")).await
    });
    node.until_running(1).await;
    node.terminate();
    let answer = slow.await.expect("joins").expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.body()), (200, &Bytes::from("slept 800 ms\n")));
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.stderr());
}

#[tokio::test]
async fn a_stop_ends_streams_of_logs_and_idle_connections_at_once() {
    let (_folder, data) = data_dir();
    let mut node = Node::start(&data).await;
    node.deploy("hello", "hello", &[]);
    let follow = request(Method::GET, "/v1/functions/hello/logs?follow=true").body(Full::default()).expect("valid");
    let follower = open(node.api, follow).await.expect("follows");
    let _idle = tokio::net::TcpStream::connect(node.functions).await.expect("connects");
    let stopping = Instant::now();
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.stderr());
    assert!(stopping.elapsed().as_secs() < 5, "it waited {:?}", stopping.elapsed());
    drop(follower);
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    let (_folder, data) = data_dir();
    let mut node = Node::start(&data).await;
    node.deploy("f", "hostile", &[]);
    let slow = request(Method::GET, "/fn/f/sleep?ms=25000").body(Full::<Bytes>::default()).expect("valid");
    let slow = tokio::spawn(crate::support::try_send(node.functions, slow));
    node.until_running(1).await;
    let stopping = Instant::now();
    node.terminate();
    until("it drains", async || node.stderr().contains("running invocations may end")).await;
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.stderr());
    assert!(stopping.elapsed().as_secs() < 10, "it waited {:?}", stopping.elapsed());
    assert!(node.stderr().contains("cut off"), "{}", node.stderr());
    slow.abort();
}

#[tokio::test]
async fn without_an_option_the_data_lies_where_the_desktop_standard_says() {
    let (folder, _) = data_dir();
    for (variable, below) in [("XDG_DATA_HOME", "edgeward"), ("HOME", ".local/share/edgeward")] {
        let home = folder.path().join(variable);
        let mut command = edgeward(&["up", "--listen", "127.0.0.1:0", "--functions-listen", "127.0.0.1:0"]);
        command.env_remove("XDG_DATA_HOME").env(variable, &home).stdout(Stdio::null()).stderr(Stdio::null());
        let _node = KillOnDrop(Some(command.spawn().expect("starts")));
        until("the node opens its folder", async || home.join(below).join("lock").exists()).await;
    }
}

#[tokio::test]
async fn a_service_manager_is_told_when_the_node_serves_and_when_it_stops() {
    let (folder, data) = data_dir();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("binds");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let heard = || {
        let mut bytes = [0; 200];
        let length = socket.recv(&mut bytes).expect("is told");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let path = path.to_str().expect("text");
    let mut node = Node::launch(&data, &[], &[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "200000")]);
    assert_eq!(heard(), "STATUS=starting");
    let ready = heard();
    assert!(ready.starts_with("READY=1\nSTATUS=node ") && ready.contains(&node.functions.to_string()), "{ready}");
    let request = request(Method::GET, "/readyz").body(Full::default()).expect("valid");
    assert_eq!(try_send(node.api, request).await.expect("it answers").status(), 200);
    assert_eq!([heard(), heard()], ["WATCHDOG=1", "WATCHDOG=1"]);
    node.terminate();
    assert!(node.ended().await.success());
    let last = std::iter::repeat_with(heard).find(|text| text != "WATCHDOG=1");
    assert!(last.as_deref().is_some_and(|text| text.starts_with("STOPPING=1\n")), "{last:?}");
}
