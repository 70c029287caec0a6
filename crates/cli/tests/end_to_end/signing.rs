//! Signed artifacts from the command line: keys, signatures, and nodes that run nothing else.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use http::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    fleet_support::Fleet,
    support::{Node, artifact, edgeward, refused_up, until},
};

/// A folder with two artifacts and two keys.
struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        let workshop = Self(tempfile::tempdir().expect("a folder"));
        for (name, guest) in [("one.wasm", "hello"), ("two.wasm", "anomaly")] {
            fs::copy(artifact(guest), workshop.0.path().join(name)).expect("copied");
        }
        for name in ["release", "other"] {
            let public = workshop.done(&["sign", "keygen", "--out", &format!("{name}.key")]);
            assert!(public.starts_with("ed25519:") && public.ends_with('\n') && public.len() == 73, "{public}");
            fs::write(workshop.0.path().join(format!("{name}.pub")), public).expect("written");
        }
        workshop
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn public(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.pub"))).expect("there").trim().to_owned()
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let output = edgeward(args).current_dir(self.0.path()).output().expect("starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn done(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        stdout
    }

    fn sign(&self, artifact: &str, key: &str, counter: &str) {
        self.done(&["sign", artifact, "--key", key, "--id", "hello", "--counter", counter]);
    }
}

/// What a command that must fail says.
fn refusal(node: &Node, args: &[&str]) -> (Option<i32>, String) {
    let output = node.run(args);
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

/// The exit code of what is refused to run.
const REFUSED: Option<i32> = Some(8);

#[test]
fn keys_and_signatures_are_files_that_other_tools_read() {
    let workshop = Workshop::new();
    let mode = |name: &str| fs::metadata(workshop.path(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode("release.key"), 0o600);
    assert!(workshop.run(&["sign", "keygen", "--out", "release.key"]).2.contains("exists already"));
    workshop.sign("one.wasm", "release.key", "7");
    let signature: Value = serde_json::from_slice(&fs::read(workshop.path("one.wasm.sig")).expect("there")).expect("JSON");
    assert_eq!((signature["function"].as_str(), signature["counter"].as_u64()), (Some("hello"), Some(7)));
    assert_eq!(signature["key"].as_str(), Some(workshop.public("release").as_str()));
    assert!(workshop.done(&["sign", "verify", "one.wasm", "--trusted-key", "release.pub", "--id", "hello"]).contains("counter    7"));
    let refused = |args: &[&str]| {
        let (code, _, stderr) = workshop.run(args);
        assert_eq!(code, REFUSED, "{stderr}");
        stderr
    };
    assert!(refused(&["sign", "verify", "one.wasm", "--trusted-key", "other.pub"]).contains("none of the trusted keys"));
    assert!(refused(&["sign", "verify", "one.wasm", "--id", "other"]).contains("not of `other`"));
    assert!(refused(&["sign", "verify", "two.wasm", "--signature", "one.wasm.sig"]).contains("sign the new bytes"));
    let forged = signature.to_string().replace("\"counter\":7", "\"counter\":8");
    fs::write(workshop.path("one.wasm.sig"), forged).expect("written");
    assert!(refused(&["sign", "verify", "one.wasm"]).contains("is not that of"));
    fs::write(workshop.path("one.wasm.sig"), "{}").expect("written");
    let (code, _, stderr) = workshop.run(&["sign", "verify", "one.wasm"]);
    assert!(code != Some(0) && stderr.contains("one.wasm.sig"), "{stderr}");
    // Without a number it is the time, which grows by itself.
    workshop.done(&["sign", "one.wasm", "--key", "release.key", "--id", "hello"]);
    let signature: Value = serde_json::from_slice(&fs::read(workshop.path("one.wasm.sig")).expect("there")).expect("JSON");
    assert!(signature["counter"].as_u64().expect("a number") > 1_700_000_000);
    fs::set_permissions(workshop.path("release.key"), fs::Permissions::from_mode(0o644)).expect("set");
    assert!(workshop.run(&["sign", "one.wasm", "--key", "release.key", "--id", "hello"]).2.contains("chmod 600"));
    assert!(workshop.run(&["sign", "one.wasm", "--key", "release.pub", "--id", "hello"]).0 != Some(0));
    assert!(workshop.run(&["sign"]).0 != Some(0));
}

#[tokio::test]
async fn a_node_with_trusted_keys_runs_what_they_signed_and_its_audit_log_has_the_rest() {
    let workshop = Workshop::new();
    let data = workshop.0.path().join("data");
    let trusted = workshop.path("release.pub");
    assert!(refused_up(&data, &["--trusted-key", &workshop.path("one.wasm")]).await.1.contains("no key"));
    let node = launch(&data, &trusted).await;
    let (one, two) = (workshop.path("one.wasm"), workshop.path("two.wasm"));
    let deploy = |artifact: &str| refusal(&node, &["deploy", artifact, "--id", "hello"]);

    let (code, told) = deploy(&one);
    assert!(code == REFUSED && told.contains("is not signed") && told.contains("edgeward sign"), "{told}");
    workshop.sign("one.wasm", "other.key", "1");
    let (code, told) = deploy(&one);
    assert!(code == REFUSED && told.contains("not trusted here"), "{told}");
    assert_eq!(node.ask(Method::POST, "/v1/functions/hello/invoke", &[], "").await.status(), 404);
    let audit = node.stderr();
    assert_eq!(audit.lines().filter(|line| line.contains("audit") && line.contains("refused a function")).count(), 2, "{audit}");
    assert!(audit.contains(&workshop.public("other")), "{audit}");

    workshop.sign("one.wasm", "release.key", "1");
    workshop.sign("two.wasm", "release.key", "2");
    node.done(&["deploy", &one, "--id", "hello"]);
    assert_eq!(node.done(&["invoke", "hello"]), b"hello from the edge\n");
    let shown = String::from_utf8(node.done(&["functions", "show", "hello"])).expect("text");
    assert!(shown.contains(&format!("{} (counter 1)", workshop.public("release"))), "{shown}");
    let (code, told) = refusal(&node, &["deploy", &one, "--id", "other"]);
    assert!(code == REFUSED && told.contains("sign the artifact for this id"), "{told}");
    let (code, told) = refusal(&node, &["deploy", &two, "--id", "hello", "--signature", &format!("{one}.sig")]);
    assert!(code == REFUSED && told.contains("sign the new bytes"), "{told}");
    node.done(&["deploy", &two, "--id", "hello"]);
    let (code, told) = deploy(&one);
    assert!(code == REFUSED && told.contains("an old image is not run again"), "{told}");

    node.kill();
    let node = launch(&data, &trusted).await;
    let running = node.json("/v1/functions/hello").await;
    assert_eq!((running["state"].as_str(), running["signature"]["counter"].as_u64()), (Some("ready"), Some(2)));
    node.kill();
    // Other keys than it was deployed with.
    let node = launch(&data, &workshop.public("other")).await;
    let stopped = node.json("/v1/functions/hello").await;
    assert_eq!(stopped["state"], "failed");
    assert!(stopped["message"].as_str().expect("text").contains("not trusted here"), "{stopped}");
    assert_eq!(node.ask(Method::POST, "/v1/functions/hello/invoke", &[], "").await.status(), 404);
    assert_eq!(node.stderr().matches("refused a function").count(), 4, "three deployments, and one generation once: {}", node.stderr());
}

async fn launch(data: &Path, trusted: &str) -> Node {
    let node = Node::launch(data, &["--trusted-key", trusted], &[]);
    until("the node is ready", async || node.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
    node
}

#[tokio::test]
async fn a_fleet_that_trusts_a_key_takes_and_runs_nothing_else() {
    let workshop = Workshop::new();
    let fleet = Fleet::start().await;
    let hub = fleet.hub();
    let node = fleet.join("edge-01").await;
    let one = workshop.path("one.wasm");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    assert!(text(hub.done(&["trust", "list"])).contains("no key is trusted"));
    hub.done(&["deploy", &one, "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;

    let (release, other) = (workshop.public("release"), workshop.public("other"));
    hub.done(&["trust", "add", &release, "--name", "release machine"]);
    assert!(text(hub.done(&["trust", "list"])).contains("release machine"));
    assert!(refusal(hub, &["trust", "add", &release]).1.contains("trusted already"));
    until("the node stops what is not signed", async || node.json("/v1/functions/hello").await["state"] == "failed").await;
    // It asks its hub for what it may not run itself, and no other node has it.
    let refused = node.ask(Method::POST, "/v1/functions/hello/invoke", &[], "").await.status().as_u16();
    assert!([404, 503].contains(&refused), "{refused}");
    assert!(node.stderr().contains("refused a function"), "{}", node.stderr());
    let (code, told) = refusal(hub, &["deploy", &one, "--id", "hello", "--all"]);
    assert!(code == REFUSED && told.contains("is not signed"), "{told}");
    workshop.sign("one.wasm", "release.key", "1");
    hub.done(&["deploy", &one, "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    assert_eq!(node.done(&["invoke", "hello"]), b"hello from the edge\n");

    let (_, told) = refusal(hub, &["trust", "remove", &release]);
    assert!(told.contains("the last trusted key"), "{told}");
    hub.done(&["trust", "add", &other]);
    hub.done(&["trust", "remove", &release]);
    until("the node stops what was signed by it", async || node.json("/v1/functions/hello").await["state"] == "failed").await;
    hub.done(&["trust", "remove", &other, "--allow-unsigned"]);
    until("nothing need be signed", async || node.json("/v1/functions/hello").await["state"] == "ready").await;
    let audit = hub.stderr();
    assert!(audit.contains("the fleet trusts a key no more") && audit.contains(&other), "{audit}");
    assert!(fleet.has_event("trust_changed", "hub-1") || fleet.events().iter().any(|event| event["kind"] == "trust_changed"));
    assert!(refusal(&node, &["trust", "list"]).1.contains("/v1/trusted-keys"), "a node has no say in it");
}
