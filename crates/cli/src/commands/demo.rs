//! `edgeward demo`: real functions on real readings, in this process, in a few seconds.

/// The bytes of a function that is built already.
macro_rules! built {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../functions/built/", $name, ".wasm"))
    };
}

mod chart;
mod documents;
mod fleet;
mod integration;
mod rollout;
mod temp_folder;
mod waiting;

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::Context;
use bytes::Bytes;
use edgeward::{EdgeFunction, EdgeNode, EdgeRuntime, ErrorKind, Filter, Handler, Node, NodeOptions};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use self::temp_folder::TempFolder;
use crate::{
    signals::StopSignals,
    terminal::{self, Cell, Palette, Style, Table, heading, latency, size},
};

/// Shows what Edgeward does, on a year of hourly temperatures in San Francisco and Seattle
///
/// It starts a node in this process, deploys functions written in Rust and C, runs each day of the year through
/// them in sandboxes of their own, and stops functions that loop or take too much memory. It needs no network,
/// and removes what it wrote.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  edgeward demo
  edgeward demo documents
  edgeward demo fleet
  edgeward demo fleet --json | jq .back
  edgeward demo rollout
  edgeward demo integration")]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
}

/// What is shown; functions when nothing is named.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Functions, their limits and their metrics [default]
    Functions,
    Documents(documents::Args),
    Fleet(fleet::Args),
    Rollout(rollout::Args),
    Integration(integration::Args),
}

struct Example {
    id: &'static str,
    language: &'static str,
    does: &'static str,
    artifact: &'static [u8],
}

const EXAMPLES: [Example; 3] = [
    Example { id: "celsius", language: "Rust", does: "Fahrenheit to Celsius (a command)", artifact: built!("celsius") },
    Example { id: "daily-stats", language: "Rust", does: "lowest, mean and highest of a day (HTTP)", artifact: built!("daily-stats") },
    Example { id: "anomaly", language: "C", does: "readings that do not fit (a command)", artifact: built!("anomaly") },
];

struct City {
    name: &'static str,
    csv: &'static str,
    style: Style,
}

const CITIES: [City; 2] = [
    City { name: "San Francisco", csv: include_str!("../../../../functions/data/sf-temps.csv"), style: Style::Warning },
    City { name: "Seattle", csv: include_str!("../../../../functions/data/seattle-temps.csv"), style: Style::Note },
];

/// Days that are in the sandboxes at once.
const AT_ONCE: usize = 16;

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Day {
    #[serde(rename = "day")]
    date: String,
    n: u32,
    min: f64,
    mean: f64,
    max: f64,
}

#[derive(Debug, Deserialize)]
struct Anomaly {
    date: String,
    temp: f64,
    expected: f64,
    sigma: f64,
}

/// Runs the command.
pub(crate) async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    match args.part {
        Some(Part::Functions) | None => run_functions().await,
        Some(Part::Documents(documents::Args {})) => documents::run(json).await,
        Some(Part::Fleet(fleet::Args {})) => fleet::run(json).await,
        Some(Part::Rollout(rollout::Args {})) => rollout::run(json).await,
        Some(Part::Integration(integration::Args {})) => integration::run(json).await,
    }
}

/// Lets a story happen in a temporary folder, which goes with its end or when it is stopped, and shows what came of it.
async fn tell<T: Serialize>(
    json: bool,
    beginning: &'static str,
    story: impl AsyncFnOnce(&Path, &ProgressBar) -> anyhow::Result<T>,
    text: impl FnOnce(&T, Palette) -> String,
) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch()?;
    let folder = TempFolder::create()?;
    let progress = terminal::spinner(beginning);
    let outcome = tokio::select! {
        outcome = story(&folder.0, &progress) => outcome,
        // Dropping the folder removes it, which the signal alone would not.
        () = signals.next() => Err(anyhow::anyhow!("stopped before its end")),
    };
    progress.finish_and_clear();
    let outcome = outcome?;
    if json {
        terminal::write_json(&serde_json::to_vec(&outcome)?)?;
    } else {
        terminal::write(text(&outcome, Palette::stdout()))?;
    }
    Ok(())
}

async fn run_functions() -> anyhow::Result<()> {
    let mut signals = StopSignals::catch()?;
    let folder = TempFolder::create()?;
    let mut node = EdgeNode::new("demo", "demo node")?;
    node.location = "this machine".to_owned();
    let node = Node::open(NodeOptions::new(node, folder.0.clone()))?;
    tokio::select! {
        shown = show_functions(&node, Palette::stdout()) => shown,
        // Dropping the folder removes it, which the signal alone would not.
        () = signals.next() => anyhow::bail!("stopped before its end"),
    }
}

async fn show_functions(node: &Arc<Node>, palette: Palette) -> anyhow::Result<()> {
    let runtime = node.runtime();
    terminal::write(heading("Deploy", "three functions, compiled for this machine", palette))?;
    deploy_examples(node, palette).await?;

    let readings: usize = CITIES.iter().map(|city| city.csv.lines().count() - 1).sum();
    terminal::write(heading("Process", &format!("{readings} hourly readings of 2010, day by day, a fresh sandbox for each"), palette))?;
    let started = Instant::now();
    let mut years = Vec::new();
    for city in &CITIES {
        years.push(process_year(runtime, city).await.with_context(|| format!("failed to process the readings of {}", city.name))?);
    }
    let took = started.elapsed();
    let series: Vec<_> =
        CITIES.iter().zip(&years).map(|(city, year)| chart::Series { name: city.name, style: city.style, values: monthly(year) }).collect();
    terminal::write(chart::months("mean temperature, °C", &series, palette))?;
    for (city, year) in CITIES.iter().zip(&years) {
        terminal::write(extremes(city, year, palette))?;
    }
    let runs = runtime.metrics().total_invocations(Filter::ALL);
    let rate = runs as f64 / took.as_secs_f64();
    terminal::write(format!("\n  {runs} sandboxes in {:.2} s: {rate:.0} invocations/s\n", took.as_secs_f64()))?;

    terminal::write(heading("Watch", "what does not fit the days before (C, over the whole year)", palette))?;
    for city in &CITIES {
        show_anomalies(runtime, city, palette).await?;
    }

    terminal::write(heading("Limit", "functions that misbehave are stopped; their neighbours go on", palette))?;
    show_limits(node, palette).await?;

    terminal::write(heading("Measure", "every invocation counted once, in constant memory", palette))?;
    terminal::write(metrics_table(runtime).render(palette))?;
    terminal::write(
        "\nNow your own: `edgeward up`, then `edgeward deploy FILE.wasm --id NAME` and `edgeward invoke NAME`.\nMore: `edgeward demo documents` and `edgeward demo fleet`.\n",
    )?;
    Ok(())
}

async fn deploy_examples(node: &Arc<Node>, palette: Palette) -> anyhow::Result<()> {
    let mut table = Table::new(&["function", "language", ">size", ">ready in", "what it does"]);
    for example in &EXAMPLES {
        let started = Instant::now();
        deploy(node, example.id, example.artifact, |_| ()).await?;
        table.row(vec![
            example.id.into(),
            example.language.into(),
            size(example.artifact.len() as u64).into(),
            latency(started.elapsed().as_secs_f64() * 1e3).into(),
            example.does.into(),
        ]);
    }
    terminal::write(table.render(palette))?;
    Ok(())
}

async fn deploy(node: &Arc<Node>, id: &str, artifact: &'static [u8], change: impl FnOnce(&mut EdgeFunction)) -> anyhow::Result<()> {
    let digest = node.add_artifact(Bytes::from_static(artifact)).await?;
    let mut function = EdgeFunction::new(id, id, Handler::Artifact(digest))?;
    change(&mut function);
    node.put_function(function, edgeward::Precondition::None).await?;
    Ok(())
}

/// Runs each day through `celsius` and the result through `daily-stats`.
async fn process_year(runtime: &EdgeRuntime, city: &City) -> anyhow::Result<Vec<Day>> {
    let days = stream::iter(split_days(city.csv).into_iter().map(async |csv| {
        let celsius = runtime.invoke("celsius", csv).await?;
        let stats = runtime.invoke("daily-stats", celsius).await?;
        let [day] = serde_json::from_slice::<[Day; 1]>(&stats).context("`daily-stats` did not answer with one day")?;
        anyhow::ensure!(day.n > 0, "`daily-stats` answered with an empty day");
        Ok(day)
    }));
    days.buffered(AT_ONCE).try_collect().await
}

/// Cuts the year into one document a day, each with the header.
fn split_days(csv: &str) -> Vec<String> {
    let (header, rows) = csv.split_once('\n').unwrap_or((csv, ""));
    let date = |row: &str| row.split(',').find(|field| field.contains('/')).and_then(|date| date.split(' ').next()).map(str::to_owned);
    let mut days: Vec<(Option<String>, String)> = Vec::new();
    for row in rows.lines().filter(|row| !row.is_empty()) {
        let today = date(row);
        match days.last_mut() {
            Some((day, text)) if *day == today => text.push_str(row),
            _ => days.push((today, format!("{header}\n{row}"))),
        }
        if let Some((_, text)) = days.last_mut() {
            text.push('\n');
        }
    }
    days.into_iter().map(|(_, text)| text).collect()
}

/// The mean of each month.
fn monthly(year: &[Day]) -> Vec<f64> {
    (1..=12)
        .filter_map(|month| {
            let prefix = format!("2010-{month:02}-");
            let means: Vec<f64> = year.iter().filter(|day| day.date.starts_with(&prefix)).map(|day| day.mean).collect();
            (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64)
        })
        .collect()
}

fn extremes(city: &City, year: &[Day], palette: Palette) -> String {
    let coldest = year.iter().min_by(|left, right| left.min.total_cmp(&right.min));
    let hottest = year.iter().max_by(|left, right| left.max.total_cmp(&right.max));
    let (Some(coldest), Some(hottest)) = (coldest, hottest) else { return String::new() };
    let name = palette.paint(city.style, &format!("{:<14}", city.name));
    format!(
        "  {name} {} days · coldest {:.1} °C on {} · hottest {:.1} °C on {}\n",
        year.len(),
        coldest.min,
        coldest.date,
        hottest.max,
        hottest.date
    )
}

async fn show_anomalies(runtime: &EdgeRuntime, city: &City, palette: Palette) -> anyhow::Result<()> {
    let output = runtime.invoke("anomaly", city.csv).await?;
    let lines = std::str::from_utf8(&output).context("`anomaly` did not answer with text")?.lines();
    let mut found: Vec<Anomaly> =
        lines.map(serde_json::from_str).collect::<Result<_, _>>().context("`anomaly` did not answer with JSON lines")?;
    found.sort_by(|left, right| right.sigma.abs().total_cmp(&left.sigma.abs()));
    let name = palette.paint(city.style, &format!("{:<14}", city.name));
    terminal::write(format!("  {name} {} of {} readings", found.len(), city.csv.lines().count() - 1))?;
    if let Some(Anomaly { date, temp, expected, sigma }) = found.first() {
        terminal::write(format!("; farthest: {temp:.1} °F on {date}, where {expected:.1} was expected ({sigma:+.1} σ)"))?;
    }
    terminal::write("\n")?;
    Ok(())
}

async fn show_limits(node: &Arc<Node>, palette: Palette) -> anyhow::Result<()> {
    let runtime = node.runtime();
    deploy(node, "hostile", built!("hostile"), |function| (function.timeout_seconds, function.memory_mb) = (0.25, 16)).await?;
    let mut table = Table::new(&["it did", "and was stopped", ">after", "meanwhile its neighbour"]);
    for (did, path, kind) in [
        ("loop for ever", "/loop", ErrorKind::Timeout),
        ("wait for ever", "/sleep", ErrorKind::Timeout),
        ("take all memory", "/memory", ErrorKind::MemoryLimit),
    ] {
        let request = http::Request::post(path).header("host", "localhost").body(edgeward::body::full(""))?;
        let started = Instant::now();
        let (stopped, neighbour) = tokio::join!(runtime.serve("hostile", request), runtime.invoke("daily-stats", CITIES[1].csv));
        let took = started.elapsed();
        let error = stopped.err().with_context(|| format!("the function that should {did} was not stopped"))?;
        anyhow::ensure!(error.kind() == kind, "the function that should {did} ended otherwise: {}", error.chain());
        let days = serde_json::from_slice::<Vec<Day>>(&neighbour?)?.len();
        table.row(vec![
            did.into(),
            Cell::new(Style::Error, &error.kind().as_str().replace('_', " ")),
            latency(took.as_secs_f64() * 1e3).into(),
            format!("counted {days} days").into(),
        ]);
    }
    terminal::write(table.render(palette))?;
    Ok(())
}

fn metrics_table(runtime: &EdgeRuntime) -> Table {
    let mut table = Table::new(&["function", ">runs", ">success", ">p50", ">p95", ">p99", "failures"]);
    for function in runtime.list_functions() {
        let summary = runtime.metrics().summary(Filter::function(function.id.as_str()));
        let failures: Vec<_> = summary.errors.iter().map(|(kind, count)| format!("{count} {}", kind.replace('_', " "))).collect();
        let style = if summary.error_count == 0 { Style::Good } else { Style::Warning };
        table.row(vec![
            function.id.as_str().into(),
            summary.total.to_string().into(),
            Cell::new(style, &format!("{:.1} %", summary.success_rate)),
            latency(summary.p50_ms).into(),
            latency(summary.p95_ms).into(),
            latency(summary.p99_ms).into(),
            failures.join(", ").into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_is_cut_into_days_in_either_order_of_columns() {
        for city in &CITIES {
            let days = split_days(city.csv);
            assert_eq!(days.len(), 365, "{}", city.name);
            assert!(days.iter().all(|day| day.lines().next() == city.csv.lines().next()));
            assert_eq!(days.iter().map(|day| day.lines().count() - 1).sum::<usize>(), city.csv.lines().count() - 1);
        }
    }
}
