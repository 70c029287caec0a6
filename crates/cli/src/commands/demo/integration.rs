//! `edgeward demo integration`: sensors speak MQTT to two sites, functions count what they say, and the hub sees both, also of a site that was away.
//!
//! The whole story happens first, in data folders in a temporary folder; what is shown of it, as text or JSON, is what the nodes and the hub said.

mod site;
mod story;
mod trace;

use edgeward::{
    chaos::{Report, Verdict},
    cluster::routing::BreakerState,
};

use self::{
    site::SENSORS,
    story::{Away, Calls, HELLO, Measured, Outcome, STATS, SiteOutcome},
};
use super::{CITIES, chart, monthly, waiting::time};
use crate::terminal::{Cell, Palette, Style, Table, heading, latency, printable};

const EXAMPLES: &str = "\
Examples:
  edgeward demo integration
  edgeward demo integration --json | jq .away";

/// Sensors, topics, schedules and calls at two sites, of which one is cut off for a while
///
/// The sensors of two sites send a year of real readings over MQTT. A trigger hands each message to a function, which keeps statistics in a
/// document, and the hub sees those of both sites. A function runs by a schedule, and another is called by its name wherever it runs. Then one site loses its network: its sensors, its
/// trigger and its schedule go on, and calls go to the other. At the end an experiment has calls fail at one site, which no caller notices, and a site tells what it measured. It all happens in this process, with a data folder for each in a temporary folder, which
/// is removed. It takes half a minute.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// Runs the command.
pub(super) async fn run(json: bool) -> anyhow::Result<()> {
    super::tell(json, "a hub begins", story::happen, text).await
}

fn text(outcome: &Outcome, palette: Palette) -> String {
    let away = &outcome.away;
    let parts = [
        heading(
            "Sensors",
            &format!("{SENSORS} at each of two sites, over MQTT; each message acknowledged when it is on the disk"),
            palette,
        ),
        sites(&outcome.sites).render(palette),
        letters(&outcome.sites, palette),
        heading("Calls", &format!("`{HELLO}` by its name, from 16 places at once; the router finds a node"), palette),
        calls(&outcome.calls).render(palette),
        heading("Away", &format!("`{}` loses its network for {}, and goes on by itself", away.node, time(away.lasted_ms)), palette),
        away_table(away).render(palette),
        heading("Experiment", &format!("each second call of `{HELLO}` fails at `sf`; of those that call none shall notice"), palette),
        experiment(&outcome.experiment, palette),
        heading("Telemetry", "a few numbers of `sf`, as `edgeward metrics --all`, Prometheus and receivers of OTLP get them", palette),
        telemetry(&outcome.telemetry).render(palette),
        heading("Traces", "where one reading and one call were, and for how long, as receivers of OTLP get it", palette),
        outcome.traces.iter().map(|trace| trace.table().render(palette)).collect(),
        heading("Result", &format!("what `{STATS}` counted, at the hub, out of the document of each site"), palette),
        months(outcome, palette),
        format!(
            "\nIt took {}. More: docs/topics.md, docs/schedules.md, docs/routing.md, docs/chaos.md and docs/metrics.md.\n",
            time(outcome.took_ms)
        ),
    ];
    parts.concat()
}

fn sites(sites: &[SiteOutcome]) -> Table {
    let mut table =
        Table::new(&["  site", "city", ">acknowledged", ">a second", ">counted", ">runs by schedule", "a sensor that vanished"]);
    for site in sites {
        let rate = site.acknowledged as f64 * 1e3 / site.sending_ms.max(1) as f64;
        table.row(vec![
            format!("  {}", site.node).into(),
            site.city.into(),
            site.acknowledged.to_string().into(),
            format!("{rate:.0}").into(),
            Cell::new(Style::Good, &site.handled.to_string()),
            site.ticks.to_string().into(),
            site.lost_sensor.as_deref().map_or_else(|| "-".into(), |status| Cell::new(Style::Warning, &printable(status))),
        ]);
    }
    table
}

/// What the functions could not handle.
fn letters(sites: &[SiteOutcome], palette: Palette) -> String {
    let letter = |site: &SiteOutcome| {
        let (sent, why) = site.dead_letter.as_ref()?;
        let sent = palette.paint(Style::Error, &format!("`{}`", printable(sent)));
        Some(format!("  dead letter at {}: {sent}: {}\n", site.node, printable(why)))
    };
    sites.iter().filter_map(letter).collect()
}

fn calls(phases: &[Calls]) -> Table {
    let mut table = Table::new(&["  while", ">calls", ">failed", ">retries", ">p50", ">p99"]);
    for phase in phases {
        let failed = if phase.failed == 0 { Style::Good } else { Style::Error };
        table.row(vec![
            format!("  {}", phase.while_).into(),
            phase.total.to_string().into(),
            Cell::new(failed, &phase.failed.to_string()),
            phase.retries.to_string().into(),
            latency(phase.p50_ms).into(),
            latency(phase.p99_ms).into(),
        ]);
    }
    table
}

fn away_table(away: &Away) -> Table {
    let mut table = Table::of_columns(2);
    let mut row = |what: &str, cell: Cell| table.row(vec![format!("  {what}").as_str().into(), cell]);
    let breaker = if away.breaker == BreakerState::Closed { Style::Plain } else { Style::Warning };
    row("the hub shows it", Cell::new(Style::Error, &format!("offline after {}", time(away.offline_after_ms))));
    row("its breaker", Cell::new(breaker, away.breaker.as_str()));
    row("readings acknowledged there", format!("{}, of which the hub has {}", away.acknowledged, away.at_hub).into());
    row("runs by schedule there", away.ticks.to_string().into());
    row("the network is back", Cell::new(Style::Good, &format!("the hub has all of it after {}", time(away.converged_ms))));
    table
}

fn experiment(report: &Report, palette: Palette) -> String {
    let style = if report.verdict == Verdict::Held { Style::Good } else { Style::Error };
    let markdown = report.to_markdown();
    let chart = markdown.split_once("```text\n").and_then(|(_, rest)| rest.split_once("```")).map_or("", |(chart, _)| chart);
    let lines: String = chart.lines().map(|line| format!("  {line}\n")).collect();
    format!("  {}: {}\n{lines}", palette.paint(style, report.verdict.as_str()), printable(&report.reason))
}

fn telemetry(measured: &[Measured]) -> Table {
    let mut table = Table::new(&["  metric", "of", ">value"]);
    for Measured { name, attributes, value, .. } in measured {
        let value = if value.fract() == 0.0 { format!("{value:.0}") } else { latency(value * 1e3) };
        table.row(vec![
            format!("  {name}").into(),
            Cell::new(Style::Plain, &printable(&attributes.join(", "))),
            Cell::new(Style::Good, &value),
        ]);
    }
    table
}

fn months(outcome: &Outcome, palette: Palette) -> String {
    let series = outcome.sites.iter().filter_map(|site| {
        let city = CITIES.iter().find(|city| city.name == site.city)?;
        let days = &outcome.hub.get(&site.node)?.days;
        Some(chart::Series { name: city.name, style: city.style, values: monthly(days) })
    });
    chart::months("mean temperature, °F", &series.collect::<Vec<_>>(), palette)
}
