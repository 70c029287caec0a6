//! Rollouts to a fleet of simulated nodes: what one costs and how long it takes, and how far one comes that no node can live with.
//!
//! The nodes fetch, verify and keep the component as others do, and run native code in its place, as they have no engine.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::bench::Bench;
use crate::bench::client;
use crate::bench::fleet::{NODES, Nodes, PATIENCE, SETTLE, processor_time};
use crate::bench::row::{Row, Target, Unit};
use crate::bench::server::Member;
use crate::process::output;

/// The function, as the simulated nodes know it.
const FUNCTION: &str = "f";
/// Size of the component.
const COMPONENT_BYTES: usize = 45_000;
/// Time between two looks at a rollout: each costs its hub something too.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A component to ever larger fleets, and what cannot run to the largest.
pub(crate) fn scale(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut hub_seconds = Vec::new();
    for count in NODES {
        bench.step(&format!("rollouts to {count} nodes"), 0);
        let is_largest = count == NODES[NODES.len() - 1];
        let data = tempfile::tempdir()?;
        let hub = Member::hub(bench.artifacts, &data.path().join("hub"), &[])?;
        let nodes = Nodes::join(bench.artifacts.fleet()?, &data.path().join("hub"), count, &data.path().join("nodes"))?;
        let mut fleet = Fleet { edgeward: bench.artifacts.edgeward()?, hub, nodes, count };
        fleet.hub.until_online(count)?;
        fleet.nodes.until_synced(count)?;
        let component = |number: u8| -> Result<String> {
            let path = data.path().join(format!("component-{number}.wasm"));
            std::fs::write(&path, sized(&std::fs::read(bench.artifacts.component("hello"))?, number)?)?;
            Ok(path.display().to_string())
        };
        fleet.deploy(&component(1)?, &["--batch", "100%", "--bake", "0"])?;
        fleet.until("completed")?;
        sleep(SETTLE);
        let pids = [fleet.hub.server.id(), fleet.hub.broker_pid()?, fleet.nodes.process.id()];
        let before = pids.map(processor_time);
        let begun = Instant::now();
        fleet.deploy(&component(2)?, &["--batch", "10%", "--bake", "0"])?;
        fleet.until("completed")?;
        let took = begun.elapsed().as_secs_f64();
        // What follows it is its work too: the former revision goes.
        sleep(SETTLE);
        let mut spent = Vec::new();
        for (pid, before) in pids.into_iter().zip(before) {
            spent.push(processor_time(pid)?.saturating_sub(before?).as_secs_f64());
        }
        hub_seconds.push(spent[0]);
        let alone = |what: &str, target, value| Row::alone(format!("{count} nodes: {what}"), target, Unit::Seconds, &[value]);
        let most = if is_largest { Target::AtMost(60.0) } else { Target::None };
        rows.push(alone("rollout of a component of 45 KB, rolling 10 %, until it is completed", most, took));
        rows.push(alone("processor time of the hub for it", Target::None, spent[0]));
        rows.push(alone("processor time of nats-server for it", Target::None, spent[1]));
        rows.push(alone("processor time of all nodes for it, on the same machine", Target::None, spent[2]));
        if is_largest {
            rows.extend(fleet.poisoned(&component(3)?)?);
        }
    }
    // As the fleet grows, with a quarter for what else a machine does.
    let (smallest, largest) = (0, NODES.len() - 1);
    let linear = NODES[largest] as f64 / NODES[smallest] as f64;
    rows.push(Row::alone(
        format!("processor time of the hub, {} nodes to {}", NODES[largest], NODES[smallest]),
        Target::AtMost(linear * 1.25),
        Unit::Times,
        &[hub_seconds[largest] / hub_seconds[smallest]],
    ));
    Ok(rows)
}

struct Fleet<'a> {
    edgeward: &'a Path,
    hub: Member,
    nodes: Nodes,
    count: usize,
}

impl Fleet<'_> {
    fn deploy(&self, what: &str, options: &[&str]) -> Result<()> {
        let mut command = Command::new(self.edgeward);
        command.args(["--server", &format!("http://{}", self.hub.server.address)]);
        command.args(["deploy", what, "--id", FUNCTION, "--to", "all", "--no-wait"]).args(options);
        output(&mut command).map(drop)
    }

    /// Waits until the newest rollout has ended so.
    fn until(&self, state: &str) -> Result<Value> {
        let read = |what: &str| -> Result<Value> {
            Ok(serde_json::from_str(&client::get(self.hub.server.address, &format!("/v1/{what}/{FUNCTION}"))?)?)
        };
        let deadline = Instant::now() + PATIENCE;
        let wanted = read("deployments")?["generation"].clone();
        loop {
            let rollout = read("rollouts")?;
            let is_over = rollout["ended_at"].is_string() && rollout["generation"] == wanted;
            if is_over && rollout["state"] == state {
                return Ok(rollout);
            }
            if is_over || Instant::now() > deadline {
                bail!("the rollout is not {state}: {rollout}");
            }
            sleep(LOOK_EVERY);
        }
    }

    /// To how many nodes of all what none can live with is ordered.
    fn poisoned(&mut self, component: &str) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let count = self.count;
        let mut row = |what: &str, most: f64, ordered: usize| {
            let name = format!("{count} nodes: those that were ordered {what}");
            rows.push(Row::alone(name, Target::AtMost(most), Unit::Nodes, &[ordered as f64]));
        };
        for (what, handler) in [("what no node can load", "native:unknown"), ("what crashes in each call", "native:failing")] {
            ensure!(self.nodes.ask("note")? == count, "failed to find the function on every node");
            self.nodes.ask("call")?;
            self.deploy(handler, &["--batch", "10%", "--bake", "5"])?;
            self.until("rolled_back")?;
            sleep(SETTLE);
            let ordered = self.nodes.ask("ordered")?;
            self.nodes.ask("rest")?;
            ensure!(ordered > 0, "failed to poison any node");
            row(what, count as f64 / 10.0, ordered);
        }
        self.nodes.ask("note")?;
        ensure!(self.deploy(component, &["--memory-mb", "1"]).is_err(), "a component with more memory than it may have was taken");
        row("what wants more memory than it may have", 0.0, self.nodes.ask("ordered")?);
        Ok(rows)
    }
}

/// The component with what makes it another and as large as wanted: a custom section, which nobody reads.
fn sized(component: &[u8], number: u8) -> Result<Vec<u8>> {
    let name = b"\x04size";
    // In front of the name: the id of the section, and its size in three groups of seven bits.
    let rest = COMPONENT_BYTES.checked_sub(component.len() + 4 + name.len()).context("failed to fit the component into its size")?;
    let size = rest + name.len();
    let groups = [0, 7, 14].map(|shift| u8::try_from(size >> shift & 0x7f).expect("of seven bits"));
    let encoded = [groups[0] | 0x80, groups[1] | 0x80, groups[2]];
    Ok([component, &[0], &encoded, name, &vec![number; rest]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_grows_to_its_size() {
        let sized = sized(b"\0asm", 7).expect("it fits");
        assert_eq!(sized.len(), COMPONENT_BYTES);
        // 44,992 bytes follow the size, which is written with the lowest bits first.
        assert_eq!((&sized[..8], sized[44_999]), (&b"\0asm\0\xc0\xdf\x02"[..], 7));
    }
}
