//! MQTT as sensors speak it to the real binary: with TLS and tokens, by clients of others, and over a kill.
//!
//! The clients are `mosquitto_pub` and `mosquitto_sub` of the Debian package `mosquitto-clients`, and paho of Python.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    access::{Certificate, create_offline, secret},
    support::{Node, PATIENCE, data_dir, fails, refused_up, until},
    topics::visits,
};

const PYTHON_VARIABLE: &str = "EDGEWARD_PYTHON";
/// Set where set-up has installed the clients, so that they must be there.
const SET_UP_VARIABLE: &str = "EDGEWARD_IS_SET_UP";

/// Whether a program is here; when not, says why the test proves nothing.
pub(crate) fn is_installed(program: &str, arguments: &[&str]) -> bool {
    let found = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success() || arguments.is_empty());
    if !found {
        let why = format!("`{program} {}` failed; `cargo xtask setup` installs it", arguments.join(" "));
        assert!(std::env::var_os(SET_UP_VARIABLE).is_none(), "{why}");
        eprintln!("not tested: {why}");
    }
    found
}

/// Runs a client of mosquitto against this node.
pub(crate) fn mosquitto(program: &str, node: &Node, arguments: &[&str]) -> Output {
    let port = node.mqtt.expect("it serves MQTT").port().to_string();
    Command::new(program).args(["-h", "localhost", "-p", &port]).args(arguments).output().expect("starts")
}

/// A node that others can reach by MQTT alone, with these tokens.
struct Exposed {
    node: Node,
    certificate: Certificate,
}

impl Exposed {
    fn start(data: &Path) -> Self {
        let certificate = Certificate::new();
        let (chain, key) = (certificate.text("chain.pem"), certificate.text("key.pem"));
        let node = Node::launch(data, &["--mqtt-listen", "0.0.0.0:0", "--tls-cert", &chain, "--tls-key", &key], &[]);
        Self { node, certificate }
    }

    fn run(&self, program: &str, token: Option<&str>, arguments: &[&str]) -> Output {
        let authority = self.certificate.text("ca.pem");
        let login = token.map(|token| ["-u", "sensor", "-P", token]);
        let arguments = [&["--cafile", &authority][..], login.as_ref().map_or(&[], |login| &login[..]), arguments].concat();
        mosquitto(program, &self.node, &arguments)
    }
}

#[tokio::test]
async fn an_address_that_others_can_reach_needs_a_certificate_and_a_token() {
    let (_folder, data) = data_dir();
    let (code, told) = refused_up(&data, &["--mqtt-listen", "0.0.0.0:0"]).await;
    assert!(code == Some(9) && told.contains("--mqtt-listen 0.0.0.0:0 is refused"), "{told}");
    let certificate = Certificate::new();
    let (chain, key) = (certificate.text("chain.pem"), certificate.text("key.pem"));
    let (code, told) = refused_up(&data, &["--mqtt-listen", "0.0.0.0:0", "--tls-cert", &chain, "--tls-key", &key]).await;
    assert!(code == Some(9) && told.contains("no token that lets one of them in"), "{told}");
}

#[tokio::test]
async fn sensors_publish_with_tls_and_a_token_to_the_topics_that_it_names() {
    if !is_installed("mosquitto_pub", &[]) {
        return;
    }
    let (_folder, data) = data_dir();
    let made = create_offline(&data, "sensor-7", &["--publish", "site/berlin/#", "--subscribe", "commands/#", "--id", "edge-test"]);
    let sensor = secret(&made);
    let exposed = Exposed::start(&data);
    let node = &exposed.node;
    let publish = |token: Option<&str>, topic: &str, qos: &str| {
        exposed.run("mosquitto_pub", token, &["-V", "mqttv5", "-t", topic, "-q", qos, "-m", "21.5"])
    };
    for qos in ["0", "1", "2"] {
        assert!(publish(Some(&sensor), "site/berlin/temp", qos).status.success());
    }
    assert!(!publish(None, "site/berlin/temp", "1").status.success(), "nobody without a password");
    assert!(!publish(Some("edgeward_wrong"), "site/berlin/temp", "1").status.success());
    publish(Some(&sensor), "site/rome/temp", "1");
    // What has QoS 0 is not kept.
    let topics = node.json("/v1/topics").await;
    assert_eq!((&topics["topics"][0]["topic"], &topics["topics"][0]["messages"]), (&"site/berlin/temp".into(), &2.into()));
    assert_eq!(topics["topics"].as_array().map(Vec::len), Some(1), "{topics}");
    assert!(node.stderr().contains("refused a client of MQTT"), "the audit log tells it");
    let of_mqtt = async |metric: &str| crate::telemetry::series(node, &format!("edgeward_mqtt_{metric}")).await;
    assert_eq!(of_mqtt("connections_refused_total").await, 2);
    let received = async |outcome: &str| of_mqtt(&format!("messages_received_total{{edgeward_outcome=\"{outcome}\"}}")).await;
    assert_eq!((received("taken").await, received("refused").await), (3, 1));

    // The same token has the same rights over HTTP, where it is of no other use.
    node.done(&["topics", "publish", "commands/sensor-7", "reboot", "--retain"]);
    let told = exposed.run("mosquitto_sub", Some(&sensor), &["-t", "commands/+", "-C", "1", "-W", "20", "-F", "%t %p %r"]);
    assert_eq!(String::from_utf8_lossy(&told.stdout), "commands/sensor-7 reboot 1\n");
    let refused = exposed.run("mosquitto_sub", Some(&sensor), &["-V", "mqttv5", "-t", "#", "-C", "1", "-W", "20"]);
    assert!(!refused.status.success() || refused.stdout.is_empty());
    let listed = String::from_utf8(node.done(&["token", "list"])).expect("text");
    assert!(listed.contains("sensor-7  client") && listed.contains("publishes site/berlin/#, follows commands/#"), "{listed}");
}

#[tokio::test]
async fn refused_clients_past_a_bound_are_counted_in_the_audit_log_and_not_told_one_by_one() {
    const CLIENTS: usize = 300;
    let (_folder, data) = data_dir();
    let node = Node::launch(&data, &["--mqtt-listen", "127.0.0.1:0"], &[]);
    let address = node.mqtt.expect("it serves MQTT");
    let knock = || {
        // A first packet of version 3.1.1 with a password that is no token.
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.write_all(b"\x10\x18\0\x04MQTT\x04\xc2\0\x3c\0\x01s\0\x01u\0\x06secret").expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        assert!(answer.starts_with(b"\x20\x02\0") && answer.last() > Some(&0), "it is refused: {answer:?}");
    };
    let told = || node.stderr().lines().filter(|line| line.contains("audit") && line.contains("refused a client of MQTT")).count();
    TcpStream::connect(address).expect("connects").write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    until("a client that speaks something else is told of", async || node.stderr().contains("it sent a packet that is none of MQTT")).await;
    (0..CLIENTS).for_each(|_| knock());
    assert!((1..CLIENTS / 2).contains(&told()), "{} lines of {CLIENTS} clients", told());
    until("the others are counted", async || {
        knock();
        node.stderr().contains("more clients of MQTT were refused than this log tells")
    })
    .await;
}

#[tokio::test]
async fn a_will_and_the_news_of_a_client_reach_functions() {
    if !is_installed("mosquitto_sub", &[]) {
        return;
    }
    let (_folder, data) = data_dir();
    let node = Node::launch(&data, &["--mqtt-listen", "127.0.0.1:0"], &[]);
    node.deploy("visits", "visits", &["--document", "visits"]);
    node.done(&["triggers", "put", "status", "--function", "visits", "--topic", "site/+/status", "--topic", "$edgeward/clients/+"]);
    let port = node.mqtt.expect("it serves MQTT").port().to_string();
    let will = ["--will-topic", "site/berlin/status", "--will-payload", "gone", "--will-qos", "1"];
    let mut sensor = Command::new("mosquitto_sub")
        .args(["-h", "localhost", "-p", &port, "-i", "sensor-7", "-t", "commands"])
        .args(will)
        .spawn()
        .expect("starts");
    let news = async || node.json("/v1/topics?filter=$edgeward/%23").await["topics"].as_array().map(Vec::len) == Some(1);
    until("the client is connected", news).await;
    sensor.kill().expect("it runs");
    sensor.wait().expect("it ends");
    until("the will is published", async || node.json("/v1/topics?filter=site/%23").await["topics"].as_array().map(Vec::len) == Some(1))
        .await;
    let told = node.json("/v1/topics/$edgeward/clients/sensor-7/messages").await;
    assert_eq!(told["messages"][0]["data"]["state"], "connected");
    until("the function had all three", async || visits(&node).await == Some(3)).await;
}

/// Publishes to a topic with so many messages under way at once, and kills the node after so many acknowledgements. Gives the numbers of the
/// messages that were acknowledged, and of the last one that was sent.
fn publish_and_kill(node: Node, topic: &str, under_way: u16, acknowledgements: usize) -> (Vec<u16>, u16) {
    let mut stream = TcpStream::connect(node.mqtt.expect("it serves MQTT")).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    // Packet by packet in version 3.1.1, as the clients of others send anew what was not acknowledged.
    stream.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01s").expect("sent");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(answer, *b"\x20\x02\0\0");
    let packet = |number: u16| {
        let (topic, payload) = (topic.as_bytes(), number.to_string());
        let length = |bytes: usize| u8::try_from(bytes).expect("short");
        let head = [0x32, length(2 + topic.len() + 2 + payload.len()), 0, length(topic.len())];
        [&head[..], topic, &number.to_be_bytes(), payload.as_bytes()].concat()
    };
    stream.write_all(&(1..=under_way).flat_map(packet).collect::<Vec<_>>()).expect("sent");
    let (mut node, mut acknowledged, mut last) = (Some(node), Vec::new(), under_way);
    // What it said before its end counts too.
    while stream.read_exact(&mut answer).is_ok() {
        assert_eq!(answer[..2], *b"\x40\x02", "a PUBACK");
        acknowledged.push(u16::from_be_bytes([answer[2], answer[3]]));
        if acknowledged.len() == acknowledgements {
            node.take().expect("it runs").kill();
        }
        // It may be dead by now.
        last += u16::from(stream.write_all(&packet(last + 1)).is_ok());
    }
    assert!(node.is_none(), "{} messages were acknowledged", acknowledged.len());
    (acknowledged, last)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill_while_messages_are_under_way() {
    const UNDER_WAY: u16 = 20;
    let (_folder, data) = data_dir();
    let launch = || Node::launch(&data, &["--mqtt-listen", "127.0.0.1:0"], &[]);
    let (mut node, mut published) = (launch(), Vec::new());
    for round in 0..5_usize {
        published.push(publish_and_kill(node, &format!("round/{round}"), UNDER_WAY, 3 + 71 * round));
        node = launch();
        for (round, (acknowledged, last)) in published.iter().enumerate() {
            let kept = node.json(&format!("/v1/topics/round/{round}/messages?limit=1000")).await;
            let kept: Vec<u16> = kept["messages"].as_array().expect("a list").iter().map(payload).collect();
            // In the order in which they were sent, each once, and none of the first ones is missing.
            assert_eq!(kept, (1..).take(kept.len()).collect::<Vec<_>>());
            assert!(acknowledged.iter().max() <= kept.last() && kept.last() <= Some(last), "{acknowledged:?} of {last}, kept {kept:?}");
        }
    }
}

/// The number that is the payload of a message.
fn payload(message: &Value) -> u16 {
    message["data"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no number: {message}"))
}

#[tokio::test]
async fn a_client_of_python_publishes_follows_and_keeps_its_session() {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".to_owned());
    if !is_installed(&python, &["-c", "import paho.mqtt.client"]) {
        return;
    }
    let (_folder, data) = data_dir();
    let made = create_offline(&data, "sensor", &["--publish", "site/#", "--subscribe", "site/#", "--id", "edge-test"]);
    let token = secret(&made);
    let exposed = Exposed::start(&data);
    let port = exposed.node.mqtt.expect("it serves MQTT").port().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/mqtt_client.py");
    let output = Command::new(python).args([script, &port, &exposed.certificate.text("ca.pem"), &token]).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let retained = exposed.node.json("/v1/topics/site/%23/retained").await;
    assert_eq!(retained["messages"][0]["data"], "kept");
}

#[tokio::test]
async fn a_client_makes_no_token_without_topics() {
    let (_folder, data) = data_dir();
    let made = create_offline(&data, "sensor", &["--role", "client", "--id", "edge-test"]);
    fails(&made, 9, "must name topics");
    assert!(!create_offline(&data, "sensor", &["--id", "edge-test"]).status.success(), "no role, and no topics");
}
