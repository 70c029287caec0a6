//! Functions over HTTP, under load from `wrk`: two servers, one after the other, round after round.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::bench::load::Load;
use crate::bench::row::{Row, Target, Unit};
use crate::bench::server::{Node, Server};

const CONNECTIONS: u32 = 64;
const WARM_UP: Duration = Duration::from_secs(1);
/// Copies of a year of readings in one request that computes: some milliseconds of work.
const YEARS: usize = 10;
/// Explicit bounds checks, as ours are.
const CHECKS: [&str; 2] = ["-Osignals-based-traps=n", "-Omemory-guard-size=0"];
/// Epoch checks at the head of each loop, which end a guest at its deadline; ours has them always.
const EPOCHS: [&str; 1] = ["-Wtimeout=60s"];

/// A server and the path of the function on it.
#[derive(Clone, Copy)]
struct Side<'a> {
    address: SocketAddr,
    path: &'a str,
}

impl Bench<'_> {
    /// Requests a second of both sides, for each round; both are warm.
    fn by_turns<const N: usize>(&self, what: &str, load: &Load<'_>, sides: [Side<'_>; N]) -> Result<[Vec<f64>; N]> {
        for side in sides {
            Load { duration: WARM_UP, ..*load }.put(self.artifacts, side.address, side.path)?;
        }
        let mut rates = [const { Vec::new() }; N];
        for round in 0..self.rounds {
            self.step(what, round);
            for (side, rates) in sides.iter().zip(&mut rates) {
                rates.push(load.put(self.artifacts, side.address, side.path)?);
            }
        }
        Ok(rates)
    }

    fn plain_load(&self) -> Load<'static> {
        Load { connections: CONNECTIONS, duration: self.load, script: None }
    }

    fn hello(&self, what: &str, ours: &[&str], theirs: &[&str], target: f64) -> Result<Vec<Row>> {
        let component = self.artifacts.component("hello");
        let data = tempfile::tempdir()?;
        let node = Node::start(self.artifacts, data.path())?;
        node.deploy(&component, "hello", ours)?;
        let peer = Server::wasmtime(self.artifacts, &component, theirs)?;
        let sides = [Side { address: node.functions, path: "/fn/hello/" }, Side { address: peer.address, path: "/" }];
        let [ours, theirs] = self.by_turns(what, &self.plain_load(), sides)?;
        Ok(vec![Row::ratio(what, Target::AtLeast(target), Unit::RequestsPerSecond, &ours, ("wasmtime serve", &theirs))])
    }
}

pub(crate) fn fresh(bench: &Bench<'_>) -> Result<Vec<Row>> {
    bench.hello("HTTP hello, 64 connections, fresh sandbox", &[], &[], 3.0)
}

pub(crate) fn reuse(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let ours = ["--max-reuse", "1000"];
    let theirs = ["--max-instance-reuse-count", "1000"];
    bench.hello("HTTP hello, 64 connections, sandbox reused 1000 times", &ours, &theirs, 1.0)
}

pub(crate) fn listener(bench: &Bench<'_>) -> Result<Vec<Row>> {
    // The same path on both, so that both read the same request.
    let path = "/fn/hello/";
    let node = Server::example(bench.artifacts.native_handler()?)?;
    let peer = Server::example(bench.artifacts.plain_hyper()?)?;
    let what = "native handler through the function listener, 64 connections";
    let sides = [Side { address: node.address, path }, Side { address: peer.address, path }];
    let [ours, theirs] = bench.by_turns(what, &bench.plain_load(), sides)?;
    Ok(vec![Row::ratio(what, Target::AtLeast(0.85), Unit::RequestsPerSecond, &ours, ("plain hyper", &theirs))])
}

/// One connection, so that a request takes what its work takes. The further sides show what of the difference is
/// bounds checks and what is epoch checks.
pub(crate) fn compute(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let component = bench.artifacts.component("daily-stats");
    let data = tempfile::tempdir()?;
    let node = Node::start(bench.artifacts, &data.path().join("data"))?;
    node.deploy(&component, "daily-stats", &[])?;
    let peer = |options: &[&str]| Server::wasmtime(bench.artifacts, &component, options);
    let peers = [peer(&[])?, peer(&CHECKS)?, peer(&EPOCHS)?, peer(&[&CHECKS[..], &EPOCHS[..]].concat())?];
    let script = data.path().join("post.lua");
    let readings = data.path().join("readings.csv");
    fs::write(&readings, years(&bench.artifacts.readings("seattle-temps"))?)?;
    fs::write(&script, post(&readings))?;
    let load = Load { connections: 1, duration: bench.load, script: Some(&script) };
    let side = |server: &Server| Side { address: server.address, path: "/" };
    let ours = Side { address: node.functions, path: "/fn/daily-stats/" };
    let sides = [ours, side(&peers[0]), side(&peers[1]), side(&peers[2]), side(&peers[3])];
    let rates = bench.by_turns("compute", &load, sides)?;
    let [ours, plain, checks, epochs, both] = rates.map(|rates| rates.iter().map(|rate| 1e3 / rate).collect::<Vec<_>>());
    let row = |what: &str, times: &[f64]| Row::ratio(what, Target::None, Unit::Milliseconds, times, ("wasmtime serve", &plain));
    let what = format!("compute: daily-stats over {YEARS} years of readings, one connection, time of a request");
    Ok(vec![
        row(&what, &ours),
        row("`wasmtime serve` itself with explicit bounds checks", &checks),
        row("`wasmtime serve` itself with epoch checks", &epochs),
        row("`wasmtime serve` itself with both", &both),
    ])
}

fn years(path: &Path) -> Result<String> {
    let csv = fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    let (header, lines) = csv.split_once('\n').with_context(|| format!("failed to find readings in `{}`", path.display()))?;
    Ok(format!("{header}\n{}", format!("{}\n", lines.trim_end()).repeat(YEARS)))
}

/// What `wrk` sends instead of a GET.
fn post(body: &Path) -> String {
    format!(
        "local file = io.open({:?}, \"rb\")\nwrk.method = \"POST\"\nwrk.body = file:read(\"*a\")\nwrk.headers[\"content-type\"] = \"text/csv\"\nfile:close()\n",
        body.display().to_string()
    )
}
