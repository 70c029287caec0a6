//! The node as a process: how soon a deployment answers, and how much memory it keeps.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::bench::client::Connection;
use crate::bench::load::Load;
use crate::bench::row::{Row, Spread, Target, Unit};
use crate::bench::server::Node;

/// Deployments in one round, each by a new process; their median counts for the round.
const DEPLOYMENTS: usize = 10;

/// `PUT` of a function whose artifact and compiled code lie on disk, and the first `GET` of it. The process is new,
/// so that nothing is in its memory; the connections are open before the clock runs.
pub(crate) fn deploy(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let what = "deploy of a cached artifact to its first response";
    let data = tempfile::tempdir()?;
    let artifact = fs::read(bench.artifacts.component("hello")).context("failed to read the hello function")?;
    let answer = Node::start(bench.artifacts, data.path())?.connect()?.send("POST", "/v1/artifacts", "application/wasm", &artifact)?;
    let digest: serde_json::Value = serde_json::from_str(&answer).context("failed to read the answer to the upload")?;
    let function = serde_json::json!({ "handler": { "artifact": digest["digest"] } }).to_string();
    let mut medians = Vec::new();
    for round in 0..bench.rounds {
        bench.step(what, round);
        let times = (0..DEPLOYMENTS).map(|_| deploy_once(bench, data.path(), &function)).collect::<Result<Vec<_>>>()?;
        medians.push(Spread::of(&times).median);
    }
    Ok(vec![Row::alone(what, Target::AtMost(10.0), Unit::Milliseconds, &medians)])
}

fn deploy_once(bench: &Bench<'_>, data: &Path, function: &str) -> Result<f64> {
    let node = Node::start(bench.artifacts, data)?;
    let (api, functions) = (node.connect()?, Connection::open(node.functions)?);
    let started = Instant::now();
    api.send("PUT", "/v1/functions/hello", "application/json", function.as_bytes())?;
    functions.send("GET", "/fn/hello/", "text/plain", b"")?;
    let elapsed = started.elapsed();
    // Gone for good, so that the next process starts without it.
    node.connect()?.send("DELETE", "/v1/functions/hello", "text/plain", b"")?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// Resident memory of a node that has nothing to do, that got a function, and that was under load.
pub(crate) fn resident(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let component = bench.artifacts.component("hello");
    let (mut idle, mut deployed, mut loaded) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        bench.step("resident memory", round);
        let data = tempfile::tempdir()?;
        let node = Node::start(bench.artifacts, data.path())?;
        let megabytes = || Ok::<_, anyhow::Error>(node.server.resident_bytes()? as f64 / 1e6);
        idle.push(megabytes()?);
        node.deploy(&component, "hello", &[])?;
        deployed.push(megabytes()?);
        let load = Load { connections: 64, duration: bench.load.max(Duration::from_secs(1)), script: None };
        load.put(bench.artifacts, node.functions, "/fn/hello/")?;
        loaded.push(megabytes()?);
    }
    let row = |what: &str, target, values: &[f64]| Row::alone(what, target, Unit::Megabytes, values);
    Ok(vec![
        row("idle `edgeward up`, resident", Target::AtMost(30.0), &idle),
        row("the same after the hello function was compiled and deployed", Target::None, &deployed),
        row("the same after the load of the first benchmark", Target::None, &loaded),
    ])
}
