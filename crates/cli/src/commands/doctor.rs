//! `edgeward doctor`: what could be wrong with this machine and the node, each with what to do about it.
//!
//! Each check is a function of what was measured; `run` measures. Only a `fail` changes the exit code.

mod toolchains;

use std::{borrow::Cow, fmt::Write as _};

use http::header::DATE;
use jiff::{SignedDuration, Timestamp};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::{
    client::{self, Client, HubStatus, Process, Status},
    exit::{Exit, Report},
    terminal::{self, Cell, Palette, Style, Table, size},
};

const EXAMPLES: &str = "\
Examples:
  edgeward doctor
  edgeward doctor --json | jq '.checks[] | select(.verdict != \"ok\")'

Ends with 1 when a check fails. A warning does not count: it names what is optional or only slower.";

/// The node warns below this much free disk.
const DISK_LOW_BYTES: u64 = 1 << 30;
/// Below this much free disk, deployments are at risk.
const DISK_FULL_BYTES: u64 = 100 << 20;
/// Difference of two clocks that the way of an answer does not explain.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(5);
/// A clock before this was never set.
const CLOCK_MIN: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// Open files with which every connection of both listeners has its descriptor.
const OPEN_FILES_GOOD: u64 = 10_000;
/// Open files without which a node does not work.
const OPEN_FILES_MIN: u64 = 256;
/// Addresses that a node needs: each of its sandboxes reserves 8 GiB.
const ADDRESSES_MIN_BYTES: u64 = 1 << 40;

/// Check this machine and the node
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: Cow<'static, str>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.into(), hint: "".into() }
    }

    fn warn(name: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { name, verdict: Verdict::Warn, detail: detail.into(), hint: hint.into() }
    }

    fn fail(name: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { name, verdict: Verdict::Fail, detail: detail.into(), hint: hint.into() }
    }
}

#[derive(Debug, Serialize)]
struct Findings {
    ok: bool,
    checks: Vec<Check>,
}

/// Runs the command.
pub(crate) async fn run(client: &Client, json: bool) -> anyhow::Result<Exit> {
    let mut checks = node(client).await;
    checks.push(open_files(getrlimit(Resource::Nofile).current));
    checks.push(addresses(getrlimit(Resource::As).current, overcommit().as_deref()));
    checks.push(processors(std::thread::available_parallelism().map_or(1, usize::from)));
    checks.extend(toolchains::checks().await);

    let findings = Findings { ok: checks.iter().all(|check| check.verdict != Verdict::Fail), checks };
    if json {
        terminal::write_json(&serde_json::to_vec_pretty(&findings)?)?;
    } else {
        terminal::write(shown(&findings, Palette::stdout()))?;
    }
    Ok(if findings.ok { Exit::Success } else { Exit::Failure })
}

/// The checks that ask the node; without an answer only those that need none.
async fn node(client: &Client) -> Vec<Check> {
    let (status, node_time) = match ask(client).await {
        Ok(answer) => answer,
        Err(error) => {
            let error = anyhow::Error::from(error);
            let hint = Report::of(&error).hint.unwrap_or_default();
            return vec![Check { name: "node", verdict: Verdict::Fail, detail: format!("{error:#}"), hint }, clock(Timestamp::now(), None)];
        }
    };
    let (who, version_there, data_dir, free_bytes, of_fleet) = match &status {
        Process::Node(status) => {
            (format!("`{}`", status.node.id), &status.version, &status.data_dir, status.disk_free_bytes, of_node(status))
        }
        Process::Hub(status) => {
            (format!("hub `{}`", status.hub), &status.version, &status.data_dir, status.disk_free_bytes, Some(of_hub(status)))
        }
    };
    let mut checks = vec![
        Check::ok("node", format!("{who} answers at {}", client.server())),
        version(version_there, env!("CARGO_PKG_VERSION")),
        data_folder(data_dir, client.server().is_loopback()),
        disk(free_bytes),
        clock(Timestamp::now(), node_time),
    ];
    checks.extend(of_fleet);
    checks
}

/// How a hub stands.
fn of_hub(HubStatus { standing, why, servers, credentials, .. }: &HubStatus) -> Check {
    let why = credentials.as_ref().or(why.as_ref()).map_or_else(String::new, |why| format!(": {why}"));
    if standing == "waiting" {
        let hint = "`edgeward status` and the log of the hub say more; its nodes go on by themselves";
        return Check::fail("fleet", format!("the hub does not serve its fleet{why}"), hint);
    }
    Check::ok("fleet", format!("the hub is {standing}; nodes join at {}", servers.join(", ")))
}

/// How a member of a fleet stands to it.
fn of_node(status: &Status) -> Option<Check> {
    let fleet = status.fleet.as_ref()?;
    let why = fleet.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    Some(match (fleet.refused, fleet.connected) {
        (true, _) => Check::fail(
            "fleet",
            format!("the fleet refuses this node{why}"),
            "join it again with a token of `edgeward join-token --node ID`",
        ),
        (false, false) => Check::warn(
            "fleet",
            format!("the fleet is not reached{why}"),
            "the node goes on by itself; is the hub up, and its address reachable?",
        ),
        (false, true) => Check::ok("fleet", format!("connected, {}", fleet.documents)),
    })
}

async fn ask(client: &Client) -> Result<(Process, Option<Timestamp>), client::Error> {
    let answer = client.get("/v1/status").await?;
    let node_time = answer.header(DATE).and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp());
    Ok((answer.json().await?.read()?, node_time))
}

fn version(node: &str, own: &str) -> Check {
    if node == own {
        Check::ok("version", format!("{own}, here and on the node"))
    } else {
        Check::warn("version", format!("{own} here, {node} on the node"), "use the same version on both sides")
    }
}

fn data_folder(path: &str, is_here: bool) -> Check {
    const NAME: &str = "data folder";
    if !is_here {
        return Check::ok(NAME, format!("{path}, on the machine of the node"));
    }
    match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        Ok(()) => Check::ok(NAME, format!("{path} is writable")),
        Err(error) => Check::warn(
            NAME,
            format!("{path} is not writable for this user: {error}"),
            "fine when the node runs as another user or behind a tunnel; otherwise give it a folder with `--data-dir`",
        ),
    }
}

fn disk(free_bytes: Option<u64>) -> Check {
    const NAME: &str = "free disk";
    let Some(free_bytes) = free_bytes else {
        return Check::warn(NAME, "the node cannot tell", "look with `df` at its data folder");
    };
    let detail = size(free_bytes);
    if free_bytes < DISK_FULL_BYTES {
        Check::fail(NAME, detail, "make room: without it nothing can be deployed")
    } else if free_bytes < DISK_LOW_BYTES {
        Check::warn(NAME, detail, "make room: artifacts, their compiled forms and data share this disk")
    } else {
        Check::ok(NAME, detail)
    }
}

fn clock(now: Timestamp, node_time: Option<Timestamp>) -> Check {
    const NAME: &str = "clock";
    const HINT: &str = "set the clock, and keep it with NTP: records of several nodes are ordered by time";
    if now < CLOCK_MIN {
        return Check::fail(NAME, format!("{now:.0} was before this version was made"), HINT);
    }
    match node_time.map(|node_time| now.duration_since(node_time).abs()) {
        Some(skew) if skew > SKEW_MAX => Check::warn(NAME, format!("the clock of the node is {} s away", skew.as_secs()), HINT),
        Some(_) => Check::ok(NAME, format!("{now:.0}, the node agrees")),
        None => Check::ok(NAME, format!("{now:.0}")),
    }
}

fn open_files(limit: Option<u64>) -> Check {
    const NAME: &str = "open files";
    const HINT: &str = "raise it with `ulimit -n 65536`, or LimitNOFILE= in the systemd unit";
    match limit {
        Some(limit) if limit < OPEN_FILES_MIN => Check::fail(NAME, format!("at most {limit}"), HINT),
        Some(limit) if limit < OPEN_FILES_GOOD => {
            Check::warn(NAME, format!("at most {limit}; both listeners at full load need {OPEN_FILES_GOOD}"), HINT)
        }
        Some(limit) => Check::ok(NAME, format!("at most {limit}")),
        None => Check::ok(NAME, "unlimited"),
    }
}

fn addresses(limit_bytes: Option<u64>, overcommit: Option<&str>) -> Check {
    const NAME: &str = "address space";
    if let Some(limit_bytes) = limit_bytes.filter(|&limit_bytes| limit_bytes < ADDRESSES_MIN_BYTES) {
        let hint = "lift it with `ulimit -v unlimited`: each sandbox reserves 8 GiB of addresses, but not of memory";
        return Check::fail(NAME, format!("at most {}", size(limit_bytes)), hint);
    }
    if overcommit == Some("2") {
        let hint = "set it to 0 with `sysctl vm.overcommit_memory=0`: addresses that are only reserved may count as memory";
        return Check::warn(NAME, "vm.overcommit_memory is 2", hint);
    }
    Check::ok(NAME, limit_bytes.map_or_else(|| "unlimited".to_owned(), |limit_bytes| format!("at most {}", size(limit_bytes))))
}

/// How Linux counts reserved addresses; `None` elsewhere.
fn overcommit() -> Option<String> {
    std::fs::read_to_string("/proc/sys/vm/overcommit_memory").ok().map(|text| text.trim().to_owned())
}

fn processors(count: usize) -> Check {
    const NAME: &str = "processors";
    if count == 1 {
        Check::warn(NAME, "1", "a function that computes shares it with everything else; two are better")
    } else {
        Check::ok(NAME, count.to_string())
    }
}

fn shown(findings: &Findings, palette: Palette) -> String {
    let mut table = Table::of_columns(3);
    for check in &findings.checks {
        let verdict = match check.verdict {
            Verdict::Ok => Cell::new(Style::Good, "ok"),
            Verdict::Warn => Cell::new(Style::Warning, "warn"),
            Verdict::Fail => Cell::new(Style::Error, "fail"),
        };
        table.row(vec![verdict, check.name.into(), check.detail.as_str().into()]);
    }
    let mut text = String::new();
    let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a String cannot fail");
    for (row, check) in table.render(palette).lines().zip(&findings.checks) {
        line(row);
        if !check.hint.is_empty() {
            line(&format!("  {} {}", palette.paint(Style::Note, "hint:"), check.hint));
        }
    }
    let count = |verdict| findings.checks.iter().filter(|check| check.verdict == verdict).count();
    line(&format!("{} ok, {} warned, {} failed", count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_a_node_fails_and_what_slows_it_warns() {
        let verdicts = [
            (version("0.1.0", "0.1.0"), Verdict::Ok),
            (version("0.2.0", "0.1.0"), Verdict::Warn),
            (disk(Some(u64::MAX)), Verdict::Ok),
            (disk(Some(DISK_LOW_BYTES - 1)), Verdict::Warn),
            (disk(Some(0)), Verdict::Fail),
            (open_files(None), Verdict::Ok),
            (open_files(Some(65_536)), Verdict::Ok),
            (open_files(Some(1024)), Verdict::Warn),
            (open_files(Some(64)), Verdict::Fail),
            (addresses(None, Some("0")), Verdict::Ok),
            (addresses(None, Some("2")), Verdict::Warn),
            (addresses(Some(1 << 32), Some("0")), Verdict::Fail),
            (processors(1), Verdict::Warn),
            (processors(2), Verdict::Ok),
        ];
        for (check, verdict) in verdicts {
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert_eq!(check.hint.is_empty(), verdict == Verdict::Ok, "{check:?}");
        }
    }

    #[test]
    fn a_clock_is_compared_with_the_node_and_with_the_age_of_the_product() {
        let now = CLOCK_MIN + SignedDuration::from_hours(1);
        assert_eq!(clock(now, None).verdict, Verdict::Ok);
        assert_eq!(clock(now, Some(now - SKEW_MAX)).verdict, Verdict::Ok);
        assert_eq!(clock(now, Some(now + SignedDuration::from_mins(1))).detail, "the clock of the node is 60 s away");
        assert_eq!(clock(Timestamp::UNIX_EPOCH, None).verdict, Verdict::Fail);
    }

    #[test]
    fn a_data_folder_is_only_looked_at_on_the_machine_of_the_node() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(data_folder(folder.path().to_str().expect("text"), true).verdict, Verdict::Ok);
        assert_eq!(data_folder("/nonexistent", true).verdict, Verdict::Warn);
        assert_eq!(data_folder("/nonexistent", false).verdict, Verdict::Ok);
    }

    #[test]
    fn each_hint_follows_its_line() {
        let findings = Findings { ok: false, checks: vec![Check::ok("a", "fine"), Check::fail("longer", "broken", "mend it")] };
        assert_eq!(
            shown(&findings, Palette::plain()),
            "ok    a       fine\nfail  longer  broken\n  hint: mend it\n1 ok, 0 warned, 1 failed\n"
        );
    }
}
