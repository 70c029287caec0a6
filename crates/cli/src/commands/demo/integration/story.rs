//! What happens in the demonstration, and what the hub and its nodes said of it. Nothing here is made up: sensors speak MQTT over loopback,
//! and every number comes from the node or the hub that has it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use edgeward::{
    Access, CallOptions, ClusterOptions, DocumentGrant, DocumentName, EdgeCluster, EdgeFunction, EdgeNodeStatus, FunctionId, Handler,
    ServiceOptions, Terms, blocking,
    chaos::{Experiment, Report},
    cluster::{LocalNetwork, membership::Timing, routing::BreakerState},
    python_json,
    telemetry::{
        Number, Point, Sampler, SpanKind, TraceContext,
        span::{self, Ended, Tracer},
    },
};
use futures::future::try_join_all;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        CITIES, Day,
        waiting::{eventually, millis},
    },
    site::{Reading, Site},
    trace::Trace,
};
use crate::terminal;

/// The functions of the sites: what counts readings, and what anybody may call.
pub(super) const STATS: &str = "site-stats";
pub(super) const HELLO: &str = "hello";
/// The node that loses its network.
const AWAY: &str = "seattle";
const SITES: [&str; 2] = ["sf", AWAY];
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Callers of a function at once, and how long they call in each part of the story.
const CALLERS: usize = 16;
const CALLING: Duration = Duration::from_secs(2);
/// Percent of the readings that are sent before the network is lost, and before it is back.
const LOST_AT: usize = 40;
const BACK_AT: usize = 80;

/// The metrics that are shown.
const SHOWN: [&str; 6] = [
    "faas.invocations",
    "faas.invoke_duration",
    "messaging.client.consumed.messages",
    "edgeward.trigger.dead_letters",
    "edgeward.mqtt.messages.received",
    "edgeward.schedule.runs",
];

/// What is tried at the end: each second call fails at one site, and nobody who calls shall notice.
const EXPERIMENT: &str = r#"
name = "errors-at-one-site"
before_seconds = 1
duration_seconds = 8

[[load]]
function = "hello"
per_second = 100

[[fault]]
kind = "error"
function = "hello"
nodes = "site=sf"
probability = 0.5
begins_after_seconds = 1
duration_seconds = 3

[[steady_state]]
probe = "success_rate"
function = "hello"
at_least_percent = 99

[[steady_state]]
probe = "nodes_online"
at_least = 2
"#;

/// What happened. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) sites: Vec<SiteOutcome>,
    pub(super) calls: [Calls; 2],
    pub(super) away: Away,
    /// The readings that each site's document has at the hub, and its days.
    pub(super) hub: BTreeMap<String, HubDocument>,
    pub(super) experiment: Report,
    /// A few numbers of what the first site measured.
    pub(super) telemetry: Vec<Measured>,
    /// A reading on its way to the document, and a call on its way to the function.
    pub(super) traces: [Trace; 2],
    pub(super) took_ms: u64,
}

/// A number of a metric, by the name that OpenTelemetry's rules give it.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) name: &'static str,
    /// What it is of.
    pub(super) attributes: Vec<String>,
    pub(super) value: f64,
    pub(super) means: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct SiteOutcome {
    pub(super) node: String,
    pub(super) city: &'static str,
    /// Readings that its sensors sent, and that it acknowledged.
    pub(super) acknowledged: usize,
    pub(super) sending_ms: u64,
    /// Messages that its function counted.
    pub(super) handled: u64,
    /// What was no reading, and what the function said to it.
    pub(super) dead_letter: Option<(String, String)>,
    /// What is retained of a sensor that vanished.
    pub(super) lost_sensor: Option<String>,
    pub(super) ticks: u64,
}

/// Calls of a function by its name, wherever it runs.
#[derive(Debug, Default, Serialize)]
pub(super) struct Calls {
    #[serde(rename = "while")]
    pub(super) while_: &'static str,
    pub(super) total: usize,
    pub(super) failed: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) retries: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Away {
    pub(super) node: String,
    pub(super) offline_after_ms: u64,
    /// What the router thinks of it.
    pub(super) breaker: BreakerState,
    /// What it did meanwhile, by itself.
    pub(super) acknowledged: usize,
    pub(super) ticks: u64,
    /// Of what it counted meanwhile, what the hub had before it was back.
    pub(super) at_hub: u32,
    pub(super) lasted_ms: u64,
    /// From the network's return until the hub had all of it.
    pub(super) converged_ms: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct HubDocument {
    pub(super) readings: u32,
    pub(super) days: Vec<Day>,
}

/// Lets it all happen in this folder, and says meanwhile what is under way.
pub(super) async fn happen(folder: &Path, progress: &ProgressBar) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    // Only what says that it is to be kept is.
    let spans = span::install(Sampler { is_parent_based: true, ratio: 0.0 })?;
    let (timing, network) = (Timing::new(HEARTBEAT)?, LocalNetwork::new());
    let cluster = EdgeCluster::with_options(ClusterOptions { timing, ..ClusterOptions::in_folder(folder.join("hub")) })?;
    let _service = cluster.serve(Arc::new(network.member(cluster.id().clone())), ServiceOptions::default()).await?;
    terminal::spin(progress, "two sites join, and get their functions");
    let mut sites = Vec::new();
    for (id, city) in SITES.into_iter().zip(&CITIES) {
        cluster.admit(&edgeward::NodeId::new(id)?, None)?;
        sites.push(Site::begin(id, city, folder, &network, timing).await?);
    }
    for function in functions(&cluster).await? {
        cluster.deploy_to_all(function).await?;
    }
    eventually("every site is online and serves", async || {
        Ok(sites.iter().all(|site| site.serves() && status(&cluster, site).is_ok_and(|status| status == EdgeNodeStatus::Online)))
    })
    .await?;
    for site in &sites {
        site.schedule().await?;
    }

    terminal::spin(progress, "sensors of both sites publish their readings over MQTT");
    let readings: Vec<_> = sites.iter().map(Site::readings).collect();
    let mut sending_ms = vec![0; sites.len()];
    publish(&sites, &readings, (0, LOST_AT), &mut sending_ms).await?;
    for site in &sites {
        site.publish_nonsense().await?;
    }
    let with_all = calls(&cluster, "both sites are there").await?;

    terminal::spin(progress, "one site loses its network; its sensors go on");
    let away = sites.iter().position(|site| site.id.as_str() == AWAY).context("it is there")?;
    network.cut_off(&sites[away].id);
    let (cut, before) = (Instant::now(), (sites[away].ticks()?, at_hub(&cluster, AWAY).await?.readings));
    let with_one = calls(&cluster, "one is cut off").await?;
    eventually("the hub notices the silence", async || Ok(status(&cluster, &sites[away])? == EdgeNodeStatus::Offline)).await?;
    let offline_after_ms = millis(cut.elapsed());
    let breaker = breaker(&cluster, &sites[away])?;
    let acknowledged = publish(&sites, &readings, (LOST_AT, BACK_AT), &mut sending_ms).await?[away];
    eventually("its function has counted them", async || Ok(sites[away].trigger().await?.behind == 0)).await?;
    let (ticks, hub_has) = (sites[away].ticks()? - before.0, at_hub(&cluster, AWAY).await?.readings - before.1);
    let lasted_ms = millis(cut.elapsed());

    terminal::spin(progress, "the network is back");
    let counted = u32::try_from(readings[away].len() * BACK_AT / 100)?;
    let back = Instant::now();
    network.bring_back(&sites[away].id);
    eventually("the hub has what it missed", async || Ok(at_hub(&cluster, AWAY).await?.readings >= counted)).await?;
    let converged_ms = millis(back.elapsed());
    let away = Away { node: AWAY.to_owned(), offline_after_ms, breaker, acknowledged, ticks, at_hub: hub_has, lasted_ms, converged_ms };

    terminal::spin(progress, "the sensors send the rest of the year");
    publish(&sites, &readings, (BACK_AT, 100), &mut sending_ms).await?;
    let mut hub = BTreeMap::new();
    for (site, readings) in sites.iter().zip(&readings) {
        let whole = u32::try_from(readings.len())?;
        eventually("the hub has the year", async || Ok(at_hub(&cluster, site.id.as_str()).await?.readings == whole)).await?;
        hub.insert(site.id.to_string(), at_hub(&cluster, site.id.as_str()).await?);
    }

    terminal::spin(progress, "an experiment: each second call fails at one site");
    cluster.allow_chaos();
    let experiment = cluster.chaos().run(Experiment::read("the experiment", EXPERIMENT)?).await?;
    let mut outcomes = Vec::new();
    for ((site, readings), sending_ms) in sites.iter().zip(&readings).zip(sending_ms) {
        outcomes.push(outcome(site, readings.len(), sending_ms).await?);
    }
    let telemetry = measured(&sites[0]).await;
    let traces = traces(&cluster, &sites[0], &readings[0], spans).await?;
    for site in sites {
        site.end().await?;
    }
    let took_ms = millis(begun.elapsed());
    Ok(Outcome { sites: outcomes, calls: [with_all, with_one], away, hub, experiment, telemetry, traces, took_ms })
}

/// The two functions, with the documents of the sites.
async fn functions(cluster: &EdgeCluster) -> anyhow::Result<[EdgeFunction; 2]> {
    let artifact = async |bytes: &'static [u8]| cluster.add_artifact(Bytes::from_static(bytes)).await;
    let mut stats = EdgeFunction::new(STATS, STATS, Handler::Artifact(artifact(built!("site-stats")).await?))?;
    for site in SITES {
        stats.documents.push(DocumentGrant::new(document_name(site)?, Access::ReadWrite)?);
    }
    let hello = EdgeFunction::new(HELLO, HELLO, Handler::Artifact(artifact(built!("hello")).await?))?;
    Ok([stats, hello])
}

/// All sites at once publish the part of their readings from one percentage to another. Returns how many each acknowledged.
async fn publish(
    sites: &[Site],
    readings: &[Vec<Reading>],
    (from, until): (usize, usize),
    sending_ms: &mut [u64],
) -> anyhow::Result<Vec<usize>> {
    let sending = sites.iter().zip(readings).map(async |(site, readings)| {
        let part = &readings[readings.len() * from / 100..readings.len() * until / 100];
        let begun = Instant::now();
        site.publish(part).await?;
        anyhow::Ok((part.len(), millis(begun.elapsed())))
    });
    let sent = try_join_all(sending).await?;
    for (sum, (_, ms)) in sending_ms.iter_mut().zip(&sent) {
        *sum += ms;
    }
    Ok(sent.into_iter().map(|(count, _)| count).collect())
}

/// Calls a function by its name from many places at once, for a while.
async fn calls(cluster: &EdgeCluster, while_: &'static str) -> anyhow::Result<Calls> {
    let function = FunctionId::new(HELLO)?;
    let retries = |cluster: &EdgeCluster| -> anyhow::Result<u64> {
        Ok(cluster.routes()?.iter().find(|route| route.function == function).map_or(0, |route| route.retries))
    };
    let retried_before = retries(cluster)?;
    let (stop, mut callers) = (CancellationToken::new(), JoinSet::new());
    for _ in 0..CALLERS {
        let (cluster, function, stop) = (cluster.clone(), function.clone(), stop.clone());
        callers.spawn(async move {
            let (mut times, mut failed) = (Vec::new(), 0);
            while !stop.is_cancelled() {
                let begun = Instant::now();
                let terms = Terms { is_idempotent: true, ..Terms::default() };
                let called = cluster.call(&function, Bytes::new(), CallOptions::default(), terms).await;
                failed += usize::from(called.is_err());
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            (times, failed)
        });
    }
    tokio::time::sleep(CALLING).await;
    stop.cancel();
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(caller) = callers.join_next().await {
        let (of_caller, failed_there) = caller?;
        times.extend(of_caller);
        failed += failed_there;
    }
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
    Ok(Calls { while_, total: times.len(), failed, p50_ms: at(50), p99_ms: at(99), retries: retries(cluster)? - retried_before })
}

fn status(cluster: &EdgeCluster, site: &Site) -> anyhow::Result<EdgeNodeStatus> {
    Ok(cluster.get_node(site.id.as_str()).context("it is registered")?.status)
}

fn breaker(cluster: &EdgeCluster, site: &Site) -> anyhow::Result<BreakerState> {
    let routes = cluster.routes()?;
    let mut candidates = routes.iter().filter(|route| route.function.as_str() == HELLO).flat_map(|route| &route.candidates);
    Ok(candidates.find(|candidate| candidate.node == site.id).map(|candidate| candidate.breaker).unwrap_or_default())
}

async fn outcome(site: &Site, acknowledged: usize, sending_ms: u64) -> anyhow::Result<SiteOutcome> {
    let status = site.lose_sensor().await?;
    let mut lost_sensor = None;
    eventually("the will of a lost sensor is told", async || {
        lost_sensor = site.retained(&status).await?;
        Ok(lost_sensor.as_deref() == Some("offline"))
    })
    .await?;
    Ok(SiteOutcome {
        node: site.id.to_string(),
        city: site.city.name,
        acknowledged,
        sending_ms,
        handled: site.trigger().await?.delivered,
        dead_letter: site.dead_letter().await?,
        lost_sensor,
        ticks: site.ticks()?,
    })
}

/// What a site measured, of the metrics that are shown.
async fn measured(site: &Site) -> Vec<Measured> {
    let mut found = Vec::new();
    for reading in site.readings_of_all().await.into_iter().filter(|reading| SHOWN.contains(&reading.instrument.name)) {
        for Point { attributes, number } in reading.points {
            let value = match number {
                Number::Whole(whole) => whole as f64,
                Number::Real(real) => real,
                // The mean.
                Number::Distribution(values) => values.sum / (values.count.max(1) as f64),
            };
            if value > 0.0 {
                found.push(Measured { name: reading.instrument.name, attributes, value, means: reading.instrument.help });
            }
        }
    }
    found
}

/// Follows one more reading of a site, and a call from the hub.
async fn traces(cluster: &EdgeCluster, site: &Site, readings: &[Reading], spans: &Tracer) -> anyhow::Result<[Trace; 2]> {
    let root = |trace_id| TraceContext { trace_id, span_id: 1, is_sampled: true };
    let (of_reading, of_call) = (root(1), root(2));
    site.publish_traced(readings.last().context("it has readings")?, of_reading).await?;
    let options = CallOptions { traceparent: Some(of_call.to_value()), ..CallOptions::default() };
    cluster.call(&FunctionId::new(HELLO)?, Bytes::new(), options, Terms::default()).await?;
    let mut ended = Vec::new();
    eventually("the traces have ended", async || {
        ended.extend(spans.take());
        // What handles the reading ends last.
        Ok(ended.iter().any(|span: &Ended| span.kind == SpanKind::Consumer))
    })
    .await?;
    let (reading, call): (Vec<_>, _) = ended.into_iter().partition(|span| span.context.trace_id == of_reading.trace_id);
    Ok([Trace::new(format!("a reading at `{}`", site.id), reading), Trace::new(format!("a call of `{HELLO}`"), call)])
}

fn document_name(site: &str) -> anyhow::Result<DocumentName> {
    Ok(DocumentName::new(format!("site.{site}"))?)
}

/// What the hub has of a site: a day of the year out of those of its sensors.
async fn at_hub(cluster: &EdgeCluster, site: &str) -> anyhow::Result<HubDocument> {
    let document = cluster.documents().document(document_name(site)?);
    let Some(state) = blocking(move || document.view()).await? else { return Ok(HubDocument { readings: 0, days: Vec::new() }) };
    let mut days: BTreeMap<String, Day> = BTreeMap::new();
    for value in state.data.0.values() {
        let of_sensor: Day = serde_json::from_str(&python_json::write(value)?)?;
        days.entry(of_sensor.date.clone()).and_modify(|day| *day = joined(day, &of_sensor)).or_insert(of_sensor);
    }
    Ok(HubDocument { readings: days.values().map(|day| day.n).sum(), days: days.into_values().collect() })
}

fn joined(left: &Day, right: &Day) -> Day {
    let n = left.n + right.n;
    let mean = (left.mean * f64::from(left.n) + right.mean * f64::from(right.n)) / f64::from(n);
    Day { date: left.date.clone(), n, min: left.min.min(right.min), mean, max: left.max.max(right.max) }
}
