//! Messages over MQTT: a node beside mosquitto as it comes, which acknowledges what it has in memory.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::bench::Bench;
use crate::bench::artifacts::Artifacts;
use crate::bench::client;
use crate::bench::load::Load as HttpLoad;
use crate::bench::row::{Row, Target, Unit};
use crate::bench::server::{Node, Server, free_address};
use crate::process::output;

/// Bytes of a message: a reading with its date and its sensor.
const PAYLOAD_BYTES: u32 = 200;
/// Messages that call a function, and how many of them at once: each of a topic of its own.
const CALLED: u32 = 64_000;
const CALLED_AT_ONCE: u32 = 64;
/// Time between two looks at a trigger.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for all to be delivered.
const PATIENCE: Duration = Duration::from_mins(2);

/// A load, as `mqtt_load` puts it.
#[derive(Clone, Copy)]
struct Load {
    publishers: u32,
    /// Of each publisher.
    messages: u32,
    qos: u8,
    /// Messages of a publisher that are not acknowledged yet.
    window: u32,
    subscribers: u32,
}

pub(crate) fn mqtt(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let many = Load { publishers: 16, messages: 4000, qos: 1, window: 20, subscribers: 0 };
    let to_one = Load { publishers: 4, messages: 20_000, qos: 1, window: 100, subscribers: 1 };
    let not_durable = Load { qos: 0, ..to_one };
    let mut rows = Vec::new();
    for (what, target, load, theirs_load) in [
        ("MQTT, QoS 1 acknowledged when it is on the disk, 16 publishers with 20 messages under way", Target::AtLeast(0.2), many, many),
        ("MQTT, QoS 1 to a subscriber, 4 publishers with 100 messages under way", Target::AtLeast(0.2), to_one, to_one),
        ("MQTT, not durable (QoS 0) to a subscriber, 4 publishers, beside QoS 1", Target::AtLeast(0.7), not_durable, to_one),
        ("MQTT, the same beside QoS 0", Target::None, not_durable, not_durable),
        (
            "MQTT, QoS 1, one publisher that waits for each",
            Target::None,
            Load { publishers: 1, messages: 1000, window: 1, ..many },
            Load { publishers: 1, messages: 1000, window: 1, ..many },
        ),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..bench.rounds {
            bench.step(what, round);
            let (data, address) = (tempfile::tempdir()?, free_address()?);
            let node = Node::start_with(bench.artifacts, data.path(), &["--mqtt-listen", &address.to_string()])?;
            ours.push(rate(bench, address, load)?);
            drop(node);
            let broker = mosquitto()?;
            theirs.push(rate(bench, broker.server.address, theirs_load)?);
        }
        rows.push(Row::ratio(what, target, Unit::MessagesPerSecond, &ours, ("mosquitto", &theirs)));
    }
    Ok(rows)
}

/// The hello function, called for each of many messages that wait, and over HTTP on the same node.
pub(crate) fn trigger(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let what = "messages that call the Rust hello, 64 at once, a fresh sandbox for each";
    let (data, mqtt) = (tempfile::tempdir()?, free_address()?);
    let node = Node::start_with(bench.artifacts, data.path(), &["--mqtt-listen", &mqtt.to_string()])?;
    let component = bench.artifacts.component("hello");
    let load = Load { publishers: CALLED_AT_ONCE, messages: CALLED / CALLED_AT_ONCE, qos: 1, window: 20, subscribers: 0 };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    node.deploy(&component, "warm", &[])?;
    for round in 0..bench.rounds {
        bench.step(what, round);
        // They wait for a function that is not there yet.
        let id = format!("hello-{round}");
        node.does(&["triggers", "put", &id, "--function", &id, "--topic", "load/#", "--concurrency", &CALLED_AT_ONCE.to_string()])?;
        put(bench, mqtt, load)?;
        node.deploy(&component, &id, &[])?;
        ours.push(drained(&node, &id)?);
        let put = HttpLoad { connections: CALLED_AT_ONCE, duration: bench.load, script: None };
        theirs.push(put.put(bench.artifacts, node.functions, &format!("/fn/{id}/"))?);
        node.does(&["triggers", "remove", &id])?;
        node.does(&["undeploy", &id])?;
    }
    Ok(vec![Row::ratio(what, Target::AtLeast(0.8), Unit::MessagesPerSecond, &ours, ("the same over HTTP", &theirs))])
}

/// Messages a second that a trigger delivers, from the first that is seen to the last.
fn drained(node: &Node, id: &str) -> Result<f64> {
    let delivered = || -> Result<u64> {
        let view: serde_json::Value = serde_json::from_str(&client::get(node.server.address, &format!("/v1/triggers/{id}"))?)?;
        view["delivered"].as_u64().with_context(|| format!("failed to find how much was delivered in {view}"))
    };
    let deadline = Instant::now() + PATIENCE;
    let (mut begun, mut before) = (Instant::now(), 0);
    loop {
        let count = delivered()?;
        if before == 0 {
            (begun, before) = (Instant::now(), count);
        } else if count >= u64::from(CALLED) {
            return Ok((count - before) as f64 / begun.elapsed().as_secs_f64());
        }
        ensure!(Instant::now() < deadline, "failed to deliver {CALLED} messages: only {count} were");
        sleep(LOOK_EVERY);
    }
}

/// mosquitto with a folder of its own.
struct Broker {
    server: Server,
    _folder: tempfile::TempDir,
}

/// With its own defaults, but that it drops nothing for a subscriber that is behind.
fn mosquitto() -> Result<Broker> {
    let (folder, address) = (tempfile::tempdir()?, free_address()?);
    let settings = folder.path().join("mosquitto.conf");
    let text = format!("listener {} {}\nallow_anonymous true\nmax_queued_messages 0\nlog_type error\n", address.port(), address.ip());
    fs::write(&settings, text)?;
    let mut command = Command::new(Artifacts::mosquitto()?);
    command.arg("-c").arg(&settings);
    Ok(Broker { server: Server::listening(&mut command, address)?, _folder: folder })
}

/// Messages a second: acknowledged ones, or those that came to the subscriber.
fn rate(bench: &Bench<'_>, address: SocketAddr, load: Load) -> Result<f64> {
    let text = put(bench, address, load)?;
    let (rate, came) = read(&text).with_context(|| format!("failed to read what `mqtt_load` reports: {text}"))?;
    let sent = f64::from(load.publishers) * f64::from(load.messages);
    Ok(if load.subscribers == 0 { rate } else { rate * came / sent })
}

fn put(bench: &Bench<'_>, address: SocketAddr, load: Load) -> Result<String> {
    let mut command = Command::new(bench.artifacts.mqtt_load()?);
    let numbers = [load.publishers, load.messages, u32::from(load.qos), load.window, PAYLOAD_BYTES, load.subscribers];
    output(command.arg(address.to_string()).args(numbers.map(|number| number.to_string())))
}

/// Messages a second, and how many came.
fn read(report: &str) -> Option<(f64, f64)> {
    let (rate, came) = report.trim().rsplit_once(": ")?.1.split_once(" messages/s; ")?;
    Some((rate.parse().ok()?, came.strip_suffix(" came")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_report() {
        let report = "4 publishers, 10 messages each, QoS 0, window 9, 200 bytes: 8123 messages/s; 40 came\n";
        assert_eq!(read(report), Some((8123.0, 40.0)));
    }
}
