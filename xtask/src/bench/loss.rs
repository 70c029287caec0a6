//! Calls by the name of a function, of a fleet of three nodes of which one is killed, stands still, or fails: how many fail, and how late the others are.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::bench::Bench;
use crate::bench::row::{Row, Target, Unit};
use crate::bench::server::Member;
use crate::process::output;

const CONNECTIONS: u32 = 64;
const WARM_UP: Duration = Duration::from_secs(3);
/// From the beginning of a load to the end of a node.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// Has one node answer every call with an error, from a second after it is begun on.
const ERRORS: &str = r#"
name = "errors"
before_seconds = 1
duration_seconds = 600
[[fault]]
kind = "error"
nodes = "node=three"
duration_seconds = 599
[[steady_state]]
probe = "nodes_online"
at_least = 1
"#;
/// Calls that `wrk` makes: they may run twice.
const SCRIPT: &str = "wrk.method = \"POST\"\nwrk.headers[\"edgeward-idempotent\"] = \"true\"\n";

/// How a node is lost.
#[derive(Clone, Copy)]
enum Loss {
    /// By SIGKILL: whoever speaks to it is told by its kernel.
    Killed,
    /// By SIGSTOP: it says nothing any more, as when its power or its cable fails.
    StandsStill,
    /// It answers every call with an error.
    Errs,
}

impl Loss {
    fn becomes(self) -> &'static str {
        match self {
            Self::Killed => "is killed",
            Self::StandsStill => "stands still",
            Self::Errs => "answers each call with an error",
        }
    }
}

/// What `wrk` saw.
#[derive(Debug, PartialEq)]
struct Seen {
    requests: f64,
    failed: f64,
    p99_ms: f64,
}

pub(crate) fn of_one_in_three(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for loss in [Loss::Killed, Loss::StandsStill, Loss::Errs] {
        let what = format!("calls of a function on three nodes of which one {}, 64 connections", loss.becomes());
        let (mut succeeded, mut healthy, mut lossy) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..bench.rounds {
            bench.step(&what, round);
            // What is last is dropped first.
            let Fleet { data, hub, mut nodes } = Fleet::start(bench)?;
            let script = data.path().join("call.lua");
            fs::write(&script, SCRIPT)?;
            let load = |duration: Duration| {
                let mut command = Command::new(&bench.artifacts.wrk);
                command.args(["-t2", "--latency", "--timeout", "60s", &format!("-c{CONNECTIONS}"), &format!("-d{}", duration.as_secs())]);
                command.arg("-s").arg(&script).arg(format!("http://{}/v1/functions/hello/invoke", hub.server.address));
                command
            };
            output(&mut load(WARM_UP))?;
            healthy.push(read(&output(&mut load(bench.load))?)?.p99_ms);
            let begun = Instant::now();
            let lost = if let Loss::Errs = loss {
                let experiment = data.path().join("errors.toml");
                fs::write(&experiment, ERRORS)?;
                hub.does(bench.artifacts, &["chaos", "run", "--detach", &experiment.display().to_string()])?;
                None
            } else {
                nodes.pop()
            };
            let losing = std::thread::spawn(move || {
                sleep(LOST_AFTER.saturating_sub(begun.elapsed()));
                match lost {
                    Some(node) if matches!(loss, Loss::StandsStill) => node.server.stand_still().map(|()| Some(node)),
                    // What is dropped is killed.
                    _ => Ok(None),
                }
            });
            let seen = read(&output(&mut load(bench.load))?)?;
            losing.join().ok().context("failed to lose a node")??;
            succeeded.push(100.0 * (1.0 - seen.failed / seen.requests));
            lossy.push(seen.p99_ms);
        }
        rows.push(Row::alone(format!("{what}: succeed"), Target::AtLeast(99.9), Unit::Percent, &succeeded));
        rows.push(Row::ratio(format!("{what}: p99"), Target::AtMost(3.0), Unit::Milliseconds, &lossy, ("before", &healthy)));
    }
    Ok(rows)
}

/// A hub and three nodes that all have the hello function.
struct Fleet {
    hub: Member,
    nodes: Vec<Member>,
    data: TempDir,
}

impl Fleet {
    fn start(bench: &Bench<'_>) -> Result<Self> {
        const OPTIONS: [&str; 1] = ["--allow-chaos"];
        let data = tempfile::tempdir()?;
        let hub = Member::hub(bench.artifacts, &data.path().join("hub"), &OPTIONS)?;
        let mut nodes = Vec::new();
        for id in ["one", "two", "three"] {
            nodes.push(Member::node(bench.artifacts, id, &data.path().join(id), &hub, &OPTIONS)?);
        }
        hub.until_online(nodes.len())?;
        let component = bench.artifacts.component("hello").display().to_string();
        hub.does(bench.artifacts, &["deploy", "--id", "hello", "--to", "all", "--batch", "100%", "--bake", "0", &component])?;
        Ok(Self { hub, nodes, data })
    }
}

fn read(report: &str) -> Result<Seen> {
    let of = |beginning: &str| report.lines().find_map(|line| line.trim().strip_prefix(beginning));
    let requests = report.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok());
    let answered = of("Non-2xx or 3xx responses:").map_or(Some(0.0), |count| count.trim().parse().ok());
    let broken =
        of("Socket errors:").map_or(0.0, |errors| errors.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<f64>().ok()).sum());
    let seen = || Some(Seen { requests: requests?, failed: answered? + broken, p99_ms: millis(of("99%")?.trim())? });
    seen().with_context(|| format!("failed to read what `wrk` reports:\n{report}"))
}

/// A time as `wrk` writes it.
fn millis(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let factor = match &text[unit..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        _ => return None,
    };
    Some(text[..unit].parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_both_kinds_and_the_late_ones_are_read_from_the_report() {
        let report = concat!(
            "  Latency Distribution\n     50%  635.00us\n     99%   1.50s \n  10000 requests in 5.00s, 1MB read\n",
            "  Socket errors: connect 0, read 2, write 1, timeout 4\n  Non-2xx or 3xx responses: 3\nRequests/sec:   2000.00\n",
        );
        assert_eq!(read(report).unwrap(), Seen { requests: 10_000.0, failed: 10.0, p99_ms: 1500.0 });
        assert_eq!(read("99% 7.00ms\n5 requests in 1s\n").unwrap(), Seen { requests: 5.0, failed: 0.0, p99_ms: 7.0 });
    }
}
