//! What happens in the demonstration, and what the hub and its nodes said of it.
//!
//! Nothing here waits for a time: each step begins when what it needs has come true, and fails when it does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use edgeward::{
    ClusterOptions, EdgeCluster, EdgeFunction, EdgeNodeStatus, EventKind, Handler, NodeId, ServiceOptions, blocking,
    cluster::{LocalNetwork, membership::Timing},
    python_json,
};
use indicatif::ProgressBar;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    super::{
        CITIES, Day, EXAMPLES, split_days,
        waiting::{eventually, millis},
    },
    station::{FUNCTION, Station, document_name},
    timeline::{self, Change},
};
use crate::terminal;

/// Short, so that a silence is noticed while someone looks on.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// The node that is cut off.
const AWAY: &str = "seattle";
/// Percent of their days that the nodes have taken up at each turn of the story, however slow the machine is.
const CUT_OFF_AT: usize = 22;
const NOTICED_UNTIL: usize = 38;
const SECOND_UNTIL: usize = 46;
const THIRD_UNTIL: usize = 54;
const BACK_AT: usize = 66;
const CONVERGED_UNTIL: usize = 90;
/// Time between two days of the node that has all of its city's.
const PACE: Duration = Duration::from_millis(10);
/// The memory of each revision of the function, in MiB; the second and the third come while the node is away.
const REVISIONS_MB: [u32; 3] = [64, 32, 16];
/// Events of the hub that are looked at: there are a few dozen.
const EVENTS_MAX: usize = 1000;

/// What happened. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) heartbeat_ms: u64,
    /// Until all nodes were online and served the first revision.
    pub(super) begun_ms: u64,
    pub(super) nodes: Vec<Worked>,
    pub(super) away: Away,
    pub(super) back: Back,
    /// The days of each node as the hub has them at the end.
    pub(super) hub: BTreeMap<NodeId, Vec<Day>>,
    pub(super) length_ms: u64,
    pub(super) timeline: Vec<Change>,
}

/// What a node did in all.
#[derive(Debug, Serialize)]
pub(super) struct Worked {
    pub(super) id: NodeId,
    pub(super) place: &'static str,
    pub(super) days: usize,
    pub(super) status: EdgeNodeStatus,
    pub(super) calls: usize,
    pub(super) errors: usize,
    /// Calls by the revision that answered them.
    pub(super) revisions: BTreeMap<String, usize>,
}

/// What was while a node was cut off.
#[derive(Debug, Serialize)]
pub(super) struct Away {
    pub(super) node: NodeId,
    pub(super) lasted_ms: u64,
    /// Until the hub showed it as OFFLINE, and why.
    pub(super) offline_after_ms: u64,
    pub(super) reason: String,
    /// From the end of its process until it served again out of its data folder.
    pub(super) restarted_in_ms: u64,
    pub(super) calls: usize,
    pub(super) errors: usize,
    /// Days that it wrote to its own disk, and how many of them the hub had before it was back.
    pub(super) written: usize,
    pub(super) at_hub: usize,
    pub(super) nodes_with_newest: usize,
}

/// How long it took from the network's return.
#[derive(Debug, Serialize)]
pub(super) struct Back {
    pub(super) newest_serves_ms: u64,
    pub(super) writes_at_hub_ms: u64,
    pub(super) events_at_hub_ms: u64,
    pub(super) online_ms: u64,
    /// Until all of these were so.
    pub(super) converged_ms: u64,
    /// Events that happened while it was away.
    pub(super) events: Vec<String>,
}

/// Lets it all happen in this folder, and says meanwhile what is under way.
pub(super) async fn happen(folder: &Path, progress: &ProgressBar) -> anyhow::Result<Outcome> {
    let (begun, begun_at) = (Instant::now(), Timestamp::now());
    let mut fleet = Fleet::begin(folder).await?;
    let mut stations = stations(folder)?;
    allow(&stations, CUT_OFF_AT);
    terminal::spin(progress, "three nodes join and get their function");
    for station in &mut stations {
        fleet.cluster.admit(&station.id, None)?;
        station.start(&fleet.network, fleet.timing).await?;
    }
    let newest = fleet.deploy(0).await?;
    eventually("every node is online and serves", async || {
        Ok(stations.iter().all(|station| serves(station, &newest) && fleet.status(&station.id).ok() == Some(EdgeNodeStatus::Online)))
    })
    .await?;
    let begun_ms = millis(begun.elapsed());

    let away = stations.iter().position(|station| station.id.as_str() == AWAY).context("there is such a node")?;
    eventually("it has worked for a while", async || Ok(stations[away].has_done_its_share())).await?;
    terminal::spin(progress, "one node is cut off, loses its power too, and goes on");
    let (away, written, newest) = be_away(&mut fleet, &mut stations, away).await?;
    terminal::spin(progress, "the network is back");
    let back = come_back(&fleet, &away.node, &stations, written, &newest).await?;

    terminal::spin(progress, "the nodes work through the rest of the year");
    allow(&stations, 100);
    for station in &mut stations {
        station.finish().await?;
    }
    let mut hub = BTreeMap::new();
    for station in &stations {
        eventually("the hub has every day", async || Ok(fleet.days(&station.id).await?.len() == station.days())).await?;
        hub.insert(station.id.clone(), fleet.days(&station.id).await?);
    }
    let nodes = stations.iter().map(|station| fleet.worked(station)).collect::<anyhow::Result<_>>()?;
    let length_ms = millis(begun.elapsed());
    let events = fleet.cluster.events().list(None, EVENTS_MAX)?;
    let timeline = timeline::changes(&events, begun_at);
    let outcome = Outcome { heartbeat_ms: millis(HEARTBEAT), begun_ms, nodes, away, back, hub, length_ms, timeline };
    for station in &mut stations {
        station.stop().await?;
    }
    Ok(outcome)
}

/// One node is cut off and goes on, and meanwhile the hub deploys twice. Says what it wrote meanwhile too, and the revision of the last
/// deployment; the network is still away.
async fn be_away(fleet: &mut Fleet, stations: &mut [Station], away: usize) -> anyhow::Result<(Away, BTreeSet<String>, String)> {
    let node = stations[away].id.clone();
    fleet.network.cut_off(&node);
    let (cut, before) = (Instant::now(), stations[away].tally());
    allow(stations, NOTICED_UNTIL);
    eventually("the hub notices the silence", async || Ok(fleet.status(&node)? == EdgeNodeStatus::Offline)).await?;
    let offline_after_ms = millis(cut.elapsed());
    let reason = fleet.cluster.view_node(node.as_str()).context("it is registered")?.reasons.join(", ");

    let mut newest = String::new();
    for (revision, until) in [(1, SECOND_UNTIL), (2, THIRD_UNTIL)] {
        newest = fleet.deploy(revision).await?;
        let others = || stations.iter().filter(|station| station.id != node);
        eventually("the others have the revision", async || Ok(others().all(|station| serves(station, &newest)))).await?;
        allow(stations, until);
        eventually("it answers there", async || Ok(others().all(|station| station.tally().revisions.contains_key(&newest)))).await?;
    }

    stations[away].stop().await?;
    let stopped = Instant::now();
    stations[away].start(&fleet.network, fleet.timing).await?;
    eventually("it serves again", async || Ok(stations[away].revision().is_some())).await?;
    let restarted_in_ms = millis(stopped.elapsed());

    allow(stations, BACK_AT);
    eventually("it has worked alone for a while", async || Ok(stations[away].has_done_its_share())).await?;
    let after = stations[away].tally();
    let written: BTreeSet<String> = after.written[before.written.len()..].iter().cloned().collect();
    let at_hub = fleet.days(&node).await?.iter().filter(|day| written.contains(&day.date)).count();
    let happened = Away {
        node,
        lasted_ms: millis(cut.elapsed()),
        offline_after_ms,
        reason,
        restarted_in_ms,
        calls: after.calls - before.calls,
        errors: after.errors - before.errors,
        written: written.len(),
        at_hub,
        nodes_with_newest: stations.iter().filter(|station| serves(station, &newest)).count(),
    };
    Ok((happened, written, newest))
}

/// The network comes back; waits until node and hub have all of each other.
async fn come_back(
    fleet: &Fleet,
    node: &NodeId,
    stations: &[Station],
    mut missing: BTreeSet<String>,
    newest: &str,
) -> anyhow::Result<Back> {
    let station = stations.iter().find(|station| station.id == *node).context("it is there")?;
    let (back_at, back) = (Timestamp::now(), Instant::now());
    let cut_at = fleet
        .cluster
        .events()
        .list(None, EVENTS_MAX)?
        .iter()
        .rfind(|event| event.node.as_ref() == Some(node) && event.status == Some(EdgeNodeStatus::Offline))
        .map(|event| event.at)
        .context("the hub told that it was away")?;
    fleet.network.bring_back(node);
    allow(stations, CONVERGED_UNTIL);
    let [mut serves_ms, mut writes_ms, mut events_ms, mut online_ms] = [None; 4];
    let mut events = Vec::new();
    eventually("all is exchanged", async || {
        let now_ms = || Some(millis(back.elapsed()));
        if serves(station, newest) {
            serves_ms = serves_ms.or_else(now_ms);
        }
        if writes_ms.is_none() {
            for day in fleet.days(node).await? {
                missing.remove(&day.date);
            }
            writes_ms = if missing.is_empty() { now_ms() } else { None };
        }
        if events_ms.is_none() {
            let told = fleet.cluster.events().list(None, EVENTS_MAX)?.into_iter();
            events = told
                .filter(|event| event.node.as_ref() == Some(node) && event.kind == EventKind::NodeStarted)
                .filter(|event| cut_at < event.at && event.at < back_at)
                .map(|event| event.message)
                .collect();
            events_ms = if events.is_empty() { None } else { now_ms() };
        }
        if fleet.status(node)? == EdgeNodeStatus::Online {
            online_ms = online_ms.or_else(now_ms);
        }
        Ok([serves_ms, writes_ms, events_ms, online_ms].iter().all(Option::is_some))
    })
    .await?;
    let times = [serves_ms, writes_ms, events_ms, online_ms].map(Option::unwrap_or_default);
    Ok(Back {
        newest_serves_ms: times[0],
        writes_at_hub_ms: times[1],
        events_at_hub_ms: times[2],
        online_ms: times[3],
        converged_ms: times.into_iter().max().unwrap_or_default(),
        events,
    })
}

/// Two gateways share the days of San Francisco; one has those of Seattle.
fn stations(folder: &Path) -> anyhow::Result<Vec<Station>> {
    let [francisco, seattle] = &CITIES;
    let every_second = |first: usize| split_days(francisco.csv).into_iter().skip(first).step_by(2).collect();
    let station = |id, place, days, every| Station::new(id, place, folder.join(id), days, every);
    Ok(vec![
        station("sf-depot", francisco.name, every_second(0), 2 * PACE)?,
        station("sf-dock", francisco.name, every_second(1), 2 * PACE)?,
        station(AWAY, seattle.name, split_days(seattle.csv), PACE)?,
    ])
}

/// The hub, and the network in this process.
struct Fleet {
    cluster: EdgeCluster,
    network: LocalNetwork,
    timing: Timing,
    function: EdgeFunction,
    _service: edgeward::FleetService,
}

impl Fleet {
    async fn begin(folder: &Path) -> anyhow::Result<Self> {
        let timing = Timing::new(HEARTBEAT)?;
        let cluster = EdgeCluster::with_options(ClusterOptions { timing, ..ClusterOptions::in_folder(folder.join("hub")) })?;
        let network = LocalNetwork::new();
        let service = cluster.serve(Arc::new(network.member(cluster.id().clone())), ServiceOptions::default()).await?;
        let example = EXAMPLES.iter().find(|example| example.id == FUNCTION).context("it is one of the examples")?;
        let digest = cluster.add_artifact(Bytes::from_static(example.artifact)).await?;
        let function = EdgeFunction::new(FUNCTION, FUNCTION, Handler::Artifact(digest))?;
        Ok(Self { cluster, network, timing, function, _service: service })
    }

    /// Assigns a revision of the function to all nodes, and returns its name.
    async fn deploy(&mut self, revision: usize) -> anyhow::Result<String> {
        self.function.name = format!("revision {}", revision + 1);
        self.function.memory_mb = REVISIONS_MB[revision];
        self.cluster.deploy_to_all(self.function.clone()).await?;
        Ok(self.function.name.clone())
    }

    fn status(&self, node: &NodeId) -> anyhow::Result<EdgeNodeStatus> {
        Ok(self.cluster.get_node(node.as_str()).context("it is registered")?.status)
    }

    /// The days of a node that the hub has, oldest first.
    async fn days(&self, node: &NodeId) -> anyhow::Result<Vec<Day>> {
        let document = self.cluster.documents().document(document_name(node));
        let Some(state) = blocking(move || document.view()).await? else { return Ok(Vec::new()) };
        state.data.0.values().map(|value| Ok(serde_json::from_str(&python_json::write(value)?)?)).collect()
    }

    fn worked(&self, station: &Station) -> anyhow::Result<Worked> {
        let tally = station.tally();
        let status = self.status(&station.id)?;
        let (id, place, days) = (station.id.clone(), station.place, tally.written.len());
        Ok(Worked { id, place, days, status, calls: tally.calls, errors: tally.errors, revisions: tally.revisions })
    }
}

fn allow(stations: &[Station], percent: usize) {
    for station in stations {
        station.allow(percent);
    }
}

fn serves(station: &Station, revision: &str) -> bool {
    station.revision().as_deref() == Some(revision)
}
