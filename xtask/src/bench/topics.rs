//! Messages over MQTT: our broker beside mosquitto as it comes, which acknowledges what it has in memory.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::bench::artifacts::Artifacts;
use crate::bench::row::{Row, Target, Unit};
use crate::bench::server::{Server, free_address};
use crate::process::output;

/// Bytes of a message: a reading with its date and its sensor.
const PAYLOAD_BYTES: u32 = 200;

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
    let mut rows = Vec::new();
    for (what, target, load) in [
        (
            "MQTT, QoS 1 acknowledged when it is on the disk, 16 publishers with 20 messages under way",
            Target::AtLeast(0.2),
            Load { publishers: 16, messages: 4000, qos: 1, window: 20, subscribers: 0 },
        ),
        (
            "MQTT, QoS 1 to a subscriber, 16 publishers with 20 messages under way",
            Target::None,
            Load { publishers: 16, messages: 2000, qos: 1, window: 20, subscribers: 1 },
        ),
        (
            "MQTT, QoS 1, one publisher that waits for each",
            Target::None,
            Load { publishers: 1, messages: 1000, qos: 1, window: 1, subscribers: 0 },
        ),
        (
            "MQTT, QoS 0 (not durable) to a subscriber, 4 publishers",
            Target::AtLeast(0.7),
            Load { publishers: 4, messages: 20_000, qos: 0, window: 100, subscribers: 1 },
        ),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..bench.rounds {
            bench.step(what, round);
            ours.push(rate(bench, &our_broker(bench)?, load)?);
            theirs.push(rate(bench, &mosquitto()?, load)?);
        }
        rows.push(Row::ratio(what, target, Unit::MessagesPerSecond, &ours, ("mosquitto", &theirs)));
    }
    Ok(rows)
}

/// A broker with a folder of its own.
struct Broker {
    server: Server,
    _folder: tempfile::TempDir,
}

fn our_broker(bench: &Bench<'_>) -> Result<Broker> {
    let (folder, address) = (tempfile::tempdir()?, free_address()?);
    let mut command = Command::new(bench.artifacts.mqtt_broker()?);
    command.arg(folder.path().join("log")).arg(address.to_string());
    Ok(Broker { server: Server::listening(&mut command, address)?, _folder: folder })
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
fn rate(bench: &Bench<'_>, broker: &Broker, load: Load) -> Result<f64> {
    let mut command = Command::new(bench.artifacts.mqtt_load()?);
    command.arg(broker.server.address.to_string());
    let numbers = [load.publishers, load.messages, u32::from(load.qos), load.window, PAYLOAD_BYTES, load.subscribers];
    let text = output(command.args(numbers.map(|number| number.to_string())))?;
    let (rate, came) = read(&text).with_context(|| format!("failed to read what `mqtt_load` reports: {text}"))?;
    let sent = f64::from(load.publishers) * f64::from(load.messages);
    Ok(if load.subscribers == 0 { rate } else { rate * came / sent })
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
