//! A fleet: what a far call costs, how much memory an idle member keeps, and what so many nodes cost their hub.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::bench::Bench;
use crate::bench::client;
use crate::bench::row::{Row, Target, Unit};
use crate::bench::server::{Member, Server, free_address};
use crate::process::output;

/// Sizes of the fleet.
pub(super) const NODES: [usize; 3] = [500, 1000, 2000];
/// Time that a fleet has to settle before it is measured.
pub(super) const SETTLE: Duration = Duration::from_secs(10);
/// Time over which the hub's work is measured.
const MEASURED: Duration = Duration::from_mins(1);
/// Longest wait for a fleet to join, or to be in step again.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);

/// A call of a native function on a far node, a request by the backbone, and one by the client library alone: by turns, over one server.
pub(crate) fn call(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let what = "call of a far native function over loopback NATS, 64 B, p50";
    let data = tempfile::tempdir()?;
    let address = free_address()?;
    let mut command = Command::new(&bench.artifacts.nats_server);
    command.args(["--addr", "127.0.0.1", "--port", &address.port().to_string(), "--jetstream", "--store_dir"]).arg(data.path());
    let _server = Server::listening(&mut command, address)?;
    let url = format!("nats://{address}");
    let mut values: HashMap<String, Vec<f64>> = HashMap::new();
    for round in 0..bench.rounds {
        bench.step(what, round);
        let texts = [
            output(Command::new(bench.artifacts.fleet()?).args(["far_call", &url]))?,
            output(Command::new(bench.artifacts.backbone()?).arg(&url))?,
        ];
        for (name, nanoseconds) in texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.split_once(' ')) {
            values.entry(name.to_owned()).or_default().push(nanoseconds.parse::<f64>()? / 1e3);
        }
    }
    let of = |name: &str| values.get(name).with_context(|| format!("failed to find `{name}` in what the bench printed"));
    let bare = of("bare_request")?;
    Ok(vec![
        Row::ratio(what, Target::AtMost(1.3), Unit::Microseconds, of("far_call")?, ("bare async-nats", bare)),
        Row::ratio(
            "request over the backbone, the same",
            Target::None,
            Unit::Microseconds,
            of("backbone_request")?,
            ("bare async-nats", bare),
        ),
    ])
}

/// Resident memory of a member of a fleet that has nothing to do.
pub(crate) fn resident(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let mut values = Vec::new();
    for round in 0..bench.rounds {
        bench.step("resident memory of a node of a fleet", round);
        let data = tempfile::tempdir()?;
        let hub = Member::hub(bench.artifacts, &data.path().join("hub"), &[])?;
        let node = Member::node(bench.artifacts, "bench", &data.path().join("node"), &hub, &[])?;
        sleep(SETTLE);
        values.push(node.server.resident_bytes()? as f64 / 1e6);
    }
    Ok(vec![Row::alone("idle `edgeward node`, resident", Target::AtMost(25.0), Unit::Megabytes, &values)])
}

/// So many nodes at default heartbeats against one hub and its broker, and all of them back at once after the broker was killed.
pub(crate) fn scale(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for nodes in NODES {
        bench.step(&format!("a fleet of {nodes} nodes"), 0);
        let is_largest = nodes == NODES[NODES.len() - 1];
        let most = |most| if is_largest { Target::AtMost(most) } else { Target::None };
        let data = tempfile::tempdir()?;
        let hub = Member::hub(bench.artifacts, &data.path().join("hub"), &[])?;
        let joining = Instant::now();
        let mut fleet = Nodes::join(bench.artifacts.fleet()?, &data.path().join("hub"), nodes, &data.path().join("nodes"))?;
        hub.until_online(nodes)?;
        fleet.until_synced(nodes)?;
        let joined = joining.elapsed().as_secs_f64();
        sleep(SETTLE);
        let broker = hub.broker_pid()?;
        let before = (processor_time(hub.server.id())?, processor_time(broker)?, processor_time(fleet.process.id())?);
        sleep(MEASURED);
        let share = |before: Duration, pid| {
            Ok::<_, anyhow::Error>(processor_time(pid)?.saturating_sub(before).as_secs_f64() / MEASURED.as_secs_f64())
        };
        let hub_share = share(before.0, hub.server.id())?;
        let (broker_share, nodes_share) = (share(before.1, broker)?, share(before.2, fleet.process.id())?);
        let hub_bytes = hub.server.resident_bytes()? as f64 / 1e6;
        let alone = |what: &str, target, unit, value| Row::alone(format!("{nodes} nodes: {what}"), target, unit, &[value]);
        rows.push(alone("all joined, in step and online, from the first token", Target::None, Unit::Seconds, joined));
        let hub_bytes_most = hub.server.resident_bytes_most()? as f64 / 1e6;
        rows.push(alone("resident memory of the hub, the most so far", Target::None, Unit::Megabytes, hub_bytes_most));
        rows.push(alone("processor time of the hub", most(1.0), Unit::Cores, hub_share));
        rows.push(alone("resident memory of the hub", most(300.0), Unit::Megabytes, hub_bytes));
        rows.push(alone("processor time of nats-server", Target::None, Unit::Cores, broker_share));
        rows.push(alone("processor time of all nodes, on the same machine", Target::None, Unit::Cores, nodes_share));
        let begun = Instant::now();
        output(Command::new("kill").args(["-KILL", &broker.to_string()]))?;
        // They notice first.
        sleep(Duration::from_secs(1));
        fleet.until_synced(nodes)?;
        hub.until_online(nodes)?;
        let back = begun.elapsed().as_secs_f64();
        let target = if nodes == 1000 { Target::AtMost(30.0) } else { Target::None };
        rows.push(alone("all in step and online again after the broker was killed", target, Unit::Seconds, back));
        rows.push(alone(
            "resident memory of the hub, the most until then",
            Target::None,
            Unit::Megabytes,
            hub.server.resident_bytes_most()? as f64 / 1e6,
        ));
    }
    Ok(rows)
}

/// The process with the simulated nodes.
pub(super) struct Nodes {
    pub(super) process: Child,
    asking: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Nodes {
    pub(super) fn join(program: &Path, hub: &Path, count: usize, folder: &Path) -> Result<Self> {
        fs::create_dir(folder)?;
        let log: PathBuf = folder.with_extension("log");
        let mut command = Command::new(program);
        command.arg("nodes").arg(hub).arg(count.to_string()).arg(folder);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&log)?).spawn()?;
        let asking = process.stdin.take().context("failed to reach the simulated nodes")?;
        let answers = BufReader::new(process.stdout.take().context("failed to hear the simulated nodes")?);
        let mut nodes = Self { process, asking, answers };
        let line = nodes.line()?;
        if !line.starts_with("joined ") {
            bail!("the simulated nodes did not join: {line}\n{}", fs::read_to_string(&log)?);
        }
        eprintln!("   {line}");
        Ok(nodes)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Asks how many nodes are what is asked, or has them do it.
    pub(super) fn ask(&mut self, what: &str) -> Result<usize> {
        writeln!(self.asking, "{what}")?;
        let line = self.line()?;
        let count = line.strip_prefix(what).with_context(|| format!("failed to hear from the simulated nodes: {line}"))?;
        Ok(count.trim().parse()?)
    }

    pub(super) fn until_synced(&mut self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let synced = self.ask("synced")?;
            if synced == count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the nodes are not in step: {synced} of {count}");
            }
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Member {
    fn status(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&client::get(self.server.address, "/v1/status")?)?)
    }

    pub(super) fn broker_pid(&self) -> Result<u32> {
        let pid = self.status()?["broker_pid"].as_u64().context("failed to find the broker's process")?;
        Ok(u32::try_from(pid)?)
    }

    pub(super) fn until_online(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let health = self.status()?["health"].clone();
            if health["online"] == count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not all nodes are online: {health}");
            }
            sleep(Duration::from_millis(200));
        }
    }
}

/// Time that a process has had on the processors, its threads together. A tick is a hundredth of a second on Linux.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("failed to read the time of a process")?;
    // The name of the program, in brackets, may hold anything.
    let fields: Vec<_> = stat.rsplit_once(") ").context("failed to read the time of a process")?.1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
