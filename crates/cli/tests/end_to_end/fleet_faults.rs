//! What a fleet of processes must stand: kills at any moment, a node that is cut off for long, silence, and a network that carries one way.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

#[path = "../../../cluster/tests/contract/cable.rs"]
#[expect(dead_code, reason = "the contract's suite asks more of it")]
mod cable;

use self::cable::Cable;
use crate::{
    fleet_support::Fleet,
    support::{Node, artifact, json as body, request, try_send, until},
};

const KILLS: usize = 20;
/// What "ready again" may take after a process was started.
const READY: Duration = Duration::from_secs(2);

/// A number below `end`, from the clock: no two runs are alike.
fn any(end: u64) -> u64 {
    u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs() / 1000) % end
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port()
}

/// Writes key after key at an address that may be down, and remembers what was acknowledged.
async fn write(api: std::net::SocketAddr, document: &'static str, stop: Arc<AtomicBool>) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("k{n}");
        let put = request(Method::PUT, &format!("/v1/documents/{document}/keys/{key}")).body(n.to_string().into()).expect("valid");
        match try_send(api, put).await {
            Some(answer) if answer.status().is_success() => drop(acknowledged.insert(key)),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    acknowledged
}

async fn keys(node: &Node, document: &str) -> BTreeSet<String> {
    let answer = node.ask(Method::GET, &format!("/v1/documents/{document}"), &[], "").await;
    if answer.status() != 200 {
        return BTreeSet::new();
    }
    body(&answer)["data"].as_object().expect("an object").keys().cloned().collect()
}

async fn until_ready(node: &Node) {
    until("it is ready", async || {
        let ready = request(Method::GET, "/readyz").body(http_body_util::Full::default()).expect("valid");
        try_send(node.api, ready).await.is_some_and(|answer| answer.status() == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_kills_of_node_hub_and_broker_lose_nothing_that_was_acknowledged() {
    let (hub_port, node_port) = (free_port(), free_port());
    let (hub_at, node_at) = (format!("127.0.0.1:{hub_port}"), format!("127.0.0.1:{node_port}"));
    let hub_options = ["--heartbeat-seconds", "0.2", "--listen", &hub_at];
    let mut fleet = Fleet::start_with(&hub_options, &["--heartbeat-seconds", "0.2", "--listen", &node_at]).await;
    let mut node = Some(fleet.join("edge-01").await);
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let at_node = tokio::spawn(write(node_at.parse().expect("an address"), "cellar", Arc::clone(&stop)));
    let at_hub = tokio::spawn(write(hub_at.parse().expect("an address"), "prices", Arc::clone(&stop)));
    let mut deployed = BTreeSet::from(["hello".to_owned()]);
    let (mut of_hub, mut of_node, mut of_broker) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(any(600))).await;
        let id = format!("f{round}");
        if fleet.hub().run(&["deploy", &artifact("hello"), "--id", &id, "--all"]).status.success() {
            deployed.insert(id);
        }
        tokio::time::sleep(Duration::from_millis(any(200))).await;
        fleet.hub.take().expect("it runs").kill();
        let begun = Instant::now();
        fleet.start_hub().await;
        of_hub.push(begun.elapsed());

        tokio::time::sleep(Duration::from_millis(any(600))).await;
        node.take().expect("it runs").kill();
        let begun = Instant::now();
        let again = fleet.launch("edge-01", None);
        until_ready(&again).await;
        of_node.push(begun.elapsed());
        node = Some(again);

        tokio::time::sleep(Duration::from_millis(any(600))).await;
        let status = fleet.hub().json("/v1/status").await;
        if let Some(pid) = status["broker_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            let begun = Instant::now();
            kill_process(pid, Signal::KILL).expect("it runs");
            let other = |status: &Value| status["broker_pid"].as_i64().is_some_and(|now| now != i64::from(pid.as_raw_nonzero().get()));
            until("another broker", async || other(&fleet.hub().json("/v1/status").await)).await;
            until("the hub is connected", async || fleet.hub().json("/v1/status").await["connected"] == true).await;
            of_broker.push(begun.elapsed());
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (at_node, at_hub) = (at_node.await.expect("it ends"), at_hub.await.expect("it ends"));
    let node = node.expect("it runs");
    println!("{} writes at the node and {} at the hub were acknowledged, {} deployments", at_node.len(), at_hub.len(), deployed.len());
    for (who, mut times) in [("hub", of_hub), ("node", of_node), ("broker", of_broker)] {
        times.sort();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{who} ready again: median {median:?}, most {most:?}");
        assert!(most <= READY, "{who}: {times:?}");
    }
    for (document, written) in [("cellar", &at_node), ("prices", &at_hub)] {
        assert!(!written.is_empty());
        for (who, process) in [("node", &node), ("hub", fleet.hub())] {
            until(&format!("{document} is whole at the {who}"), async || keys(process, document).await.is_superset(written)).await;
        }
    }
    for id in &deployed {
        fleet.serves(id, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_a_node_cut_off_past_the_life_of_its_credentials_converges_with_a_hundred_thousand_writes_on_both_sides() {
    const PATCHES: usize = 100;
    const KEYS: usize = 1000;
    let broker = free_port();
    let cable = Cable::to(broker).await;
    let advertised = cable.url().replace("nats://", "");
    let hub_options = ["--heartbeat-seconds", "0.2", "--credentials-seconds", "5", "--advertise", &advertised];
    let mut fleet = Fleet::start_with(&hub_options, &["--heartbeat-seconds", "0.2"]).await;
    // The broker's own address, behind the cable.
    fleet.hub.take().expect("it runs").kill();
    fleet.broker = format!("127.0.0.1:{broker}");
    fleet.start_hub().await;
    let node = fleet.join("edge-01").await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    cable.cut();
    let cut_at = Instant::now();
    let errors = AtomicU64::new(0);
    let write = async |process: &Node, document: &str| {
        for patch in 0..PATCHES {
            let changes: serde_json::Map<_, _> = (0..KEYS).map(|key| (format!("k{}", patch * KEYS + key), json!(patch))).collect();
            let body = Value::Object(changes).to_string();
            let kind = ("content-type", "application/merge-patch+json");
            if patch == 0 {
                process.ask(Method::PUT, &format!("/v1/documents/{document}"), &[], "{}").await;
            }
            let answer = process.ask(Method::PATCH, &format!("/v1/documents/{document}"), &[kind], body).await;
            errors.fetch_add(u64::from(!answer.status().is_success()), Ordering::Relaxed);
            let called = node.ask(Method::POST, "/v1/functions/hello/invoke", &[], "").await;
            errors.fetch_add(u64::from(called.status() != 200), Ordering::Relaxed);
        }
    };
    tokio::join!(write(&node, "cellar"), write(fleet.hub(), "prices"));
    assert_eq!(errors.load(Ordering::Relaxed), 0, "it goes on by itself");
    tokio::time::sleep(Duration::from_secs(20).saturating_sub(cut_at.elapsed())).await;
    assert_eq!(node.json("/v1/status").await["fleet"]["connected"], false);
    cable.mend();
    let mended_at = Instant::now();
    until("it is connected", async || node.json("/v1/status").await["fleet"]["connected"] == true).await;
    let connected_at = Instant::now();
    let count = async |process: &Node, document: &str| {
        let documents = process.json("/v1/documents").await;
        let found = documents["documents"].as_array().expect("a list").iter().find(|known| known["name"] == document).cloned();
        found.and_then(|known| known["keys"].as_u64()).unwrap_or(0)
    };
    let all = (PATCHES * KEYS) as u64;
    until("both have everything", async || count(fleet.hub(), "cellar").await == all && count(&node, "prices").await == all).await;
    let (from_cable, from_connection) = (mended_at.elapsed(), connected_at.elapsed());
    println!("converged {from_connection:?} after the first connection, {from_cable:?} after the cable's return");
    assert!(from_connection <= Duration::from_secs(5), "{from_connection:?}");
    fleet.is("edge-01", "online").await;
}

fn signal(node: &Node, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(node.id()).expect("an id")).expect("an id"), signal).expect("it runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_a_node_that_stands_still_is_offline_within_five_seconds() {
    let fleet = Fleet::start_with(&[], &[]).await;
    let node = fleet.join("edge-01").await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(any(1500))).await;
        signal(&node, Signal::STOP);
        let begun = Instant::now();
        fleet.is("edge-01", "offline").await;
        let after = begun.elapsed();
        println!("offline {after:?} after it stood still");
        signal(&node, Signal::CONT);
        assert!(after <= Duration::from_secs(5), "{after:?}");
        fleet.is("edge-01", "online").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_pauses_of_a_second_in_ten_minutes_make_nobody_offline() {
    let fleet = Fleet::start_with(&[], &[]).await;
    let node = fleet.join("edge-01").await;
    let begun = Instant::now();
    let mut pauses = 0;
    while begun.elapsed() < Duration::from_mins(10) {
        tokio::time::sleep(Duration::from_millis(500 + any(4000))).await;
        let whom = if pauses % 2 == 0 { &node } else { fleet.hub() };
        signal(whom, Signal::STOP);
        tokio::time::sleep(Duration::from_secs(1)).await;
        signal(whom, Signal::CONT);
        pauses += 1;
    }
    let events = fleet.events();
    let offline = events.iter().filter(|event| event["kind"] == "node_status" && event["status"] == "offline").count();
    println!("{pauses} pauses, {offline} times offline");
    assert_eq!(offline, 0, "{events:?}");
}

/// A host of its own: a network namespace with one cable to the other.
struct Host(String);

impl Host {
    /// Two hosts with a cable between them: 10.77.N.1 and 10.77.N.2.
    fn pair(n: u64) -> [Self; 2] {
        let [one, two] = ["a", "b"].map(|end| format!("edgeward-{}-{n}-{end}", std::process::id()));
        for line in [
            format!("netns add {one}"),
            format!("netns add {two}"),
            format!("-n {one} link add eth0 type veth peer name eth0 netns {two}"),
            format!("-n {one} addr add 10.77.{n}.1/24 dev eth0"),
            format!("-n {two} addr add 10.77.{n}.2/24 dev eth0"),
            format!("-n {one} link set eth0 up"),
            format!("-n {two} link set eth0 up"),
            format!("-n {one} link set lo up"),
            format!("-n {two} link set lo up"),
        ] {
            run(Command::new("ip").args(line.split(' ')));
        }
        [Self(one), Self(two)]
    }

    /// A command on this host.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, env!("CARGO_BIN_EXE_edgeward")]).args(args);
        command.env_remove("EDGEWARD_SERVER").env("NO_COLOR", "1");
        command
    }

    fn start(&self, args: &[&str], log: &std::path::Path) -> crate::support::KillOnDrop {
        let log = std::fs::File::create(log).expect("writes");
        let mut command = self.command(args);
        command.stdout(Stdio::null()).stderr(log);
        crate::support::KillOnDrop(Some(command.spawn().expect("starts")))
    }

    fn done(&self, args: &[&str]) -> Option<Vec<u8>> {
        let output = self.command(args).output().expect("starts");
        output.status.success().then_some(output.stdout)
    }

    /// Nothing that this host sends goes out any more, and what is sent to it arrives: a queue of one byte has no room for a packet.
    fn mute(&self) {
        run(Command::new("tc").args(["-n", &self.0, "qdisc", "add", "dev", "eth0", "root", "bfifo", "limit", "1"]));
    }

    fn speak(&self) {
        run(Command::new("tc").args(["-n", &self.0, "qdisc", "del", "dev", "eth0", "root"]));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_a_network_that_carries_one_way_changes_a_status_once_for_each_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] = Host::pair(any(200));
    let at = |name: &str| folder.path().join(name).display().to_string();
    let address = {
        let addresses = Command::new("ip").args(["-n", &one.0, "-4", "-o", "addr", "show", "eth0"]).output().expect("starts");
        let text = String::from_utf8(addresses.stdout).expect("text");
        text.split_whitespace().find_map(|word| word.strip_suffix("/24")).expect("an address").to_owned()
    };
    let broker = format!("{address}:4222");
    let hub_data = at("hub");
    let _hub = one.start(&["hub", "--id", "hub-1", "--broker-listen", &broker, "--data-dir", &hub_data], &folder.path().join("hub.log"));
    until("the hub serves", async || one.done(&["nodes"]).is_some()).await;
    let token = String::from_utf8(one.done(&["join-token"]).expect("a token")).expect("text");
    let node_data = at("node");
    let _node = two.start(&["node", "--id", "edge-01", "--join", token.trim(), "--data-dir", &node_data], &folder.path().join("node.log"));
    let status = || {
        let shown = one.done(&["nodes", "show", "edge-01", "--json"])?;
        serde_json::from_slice::<Value>(&shown).ok()?["status"].as_str().map(str::to_owned)
    };
    let is = async |wanted: &str| until(wanted, async || status().as_deref() == Some(wanted)).await;
    is("online").await;
    let transitions = || {
        let lines = String::from_utf8(one.done(&["events", "--limit", "1000", "--json"]).expect("events")).expect("text");
        let events = serde_json::Deserializer::from_str(&lines).into_iter::<Value>().map(|event| event.expect("JSON"));
        events
            .filter(|event| event["kind"] == "node_status")
            .map(|event| event["status"].as_str().expect("a word").to_owned())
            .collect::<Vec<_>>()
    };
    for (who, host) in [("the hub", &one), ("the node", &two)] {
        let before = transitions().len();
        host.mute();
        // As long as it lasts, whatever TCP makes of it.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let during = transitions()[before..].to_vec();
        host.speak();
        is("online").await;
        println!("while nothing of {who} went out: {during:?}, and then {:?}", &transitions()[before + during.len()..]);
        assert!(during.len() <= 1, "{who}: {during:?}");
    }
}
