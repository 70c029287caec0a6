//! `edgeward demo fleet`: a hub and three nodes, of which one is cut off and comes back.
//!
//! The whole story happens first, in data folders in a temporary folder; what is shown of it, as text or JSON, is what the hub and its
//! nodes said.

mod station;
mod story;
mod timeline;

use edgeward::NodeId;

use self::story::{Away, Back, Outcome};
use super::{CITIES, Day, chart, monthly, waiting::time};
use crate::terminal::{Cell, Palette, Style, Table, heading};

const EXAMPLES: &str = "\
Examples:
  edgeward demo fleet
  edgeward demo fleet --json | jq .back";

/// A hub and three nodes, of which one is cut off and comes back
///
/// Each node works through real readings with a function that the hub deployed. One of them loses its network and then its power, and goes
/// on by itself; the hub deploys two more revisions meanwhile. Then the network is back. It all happens in this process, with a data folder for
/// each in a temporary folder, which is removed. It needs no node, no network and no nats-server, and takes some seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// Runs the command.
pub(super) async fn run(json: bool) -> anyhow::Result<()> {
    super::tell(json, "a hub begins", story::happen, text).await
}

fn text(outcome: &Outcome, palette: Palette) -> String {
    let Outcome { away, back, .. } = outcome;
    let nodes: Vec<&NodeId> = outcome.nodes.iter().map(|node| &node.id).collect();
    let parts = [
        heading("Fleet", "a hub and three nodes in this process, each with a data folder of its own", palette),
        format!(
            "  online, with `{}` from the hub, after {}; a heartbeat every {}\n",
            station::FUNCTION,
            time(outcome.begun_ms),
            time(outcome.heartbeat_ms)
        ),
        heading("Away", &format!("`{}` loses its network, then its power, and goes on by itself", away.node), palette),
        away_table(away).render(palette),
        heading(
            "Back",
            &format!("the network returns after {}; each gives what it has and takes what it missed", time(away.lasted_ms)),
            palette,
        ),
        back_table(away, back).render(palette),
        heading("Revisions", "which one answered how many calls; who was away took the newest only", palette),
        revisions_table(outcome).render(palette),
        heading("Timeline", "the nodes as the hub saw them", palette),
        timeline::draw(&nodes, &outcome.timeline, outcome.length_ms, palette),
        heading("Result", "a year of readings at the hub, each day from the node that has it", palette),
        months(outcome, palette),
        "\nMore: `edgeward demo documents` shows what becomes of writes that did not know of each other.\n".to_owned(),
    ];
    parts.concat()
}

fn away_table(away: &Away) -> Table {
    let mut table = Table::of_columns(2);
    let errors = if away.errors == 0 { Style::Good } else { Style::Error };
    let mut row = |what: &str, cell: Cell| table.row(vec![format!("  {what}").as_str().into(), cell]);
    row("the hub shows it", Cell::new(Style::Error, &format!("offline after {}: {}", time(away.offline_after_ms), away.reason)));
    row("its process starts again", format!("serves after {}, out of its data folder", time(away.restarted_in_ms)).into());
    row("calls there", away.calls.to_string().into());
    row("errors", Cell::new(errors, &away.errors.to_string()));
    row("days on its disk", format!("{}, of which the hub has {}", away.written, away.at_hub).into());
    row("the hub deploys", format!("revisions 2 and 3; {} of 3 nodes have the last", away.nodes_with_newest).into());
    table
}

fn back_table(away: &Away, back: &Back) -> Table {
    let mut table = Table::new(&["  so again", ">after"]);
    let mut row = |what: String, ms| table.row(vec![format!("  {what}").into(), Cell::from(time(ms))]);
    row("the newest revision serves there".to_owned(), back.newest_serves_ms);
    row(format!("its {} days are at the hub", away.written), back.writes_at_hub_ms);
    row(format!("what happened there is told: {}", back.events.join(", ")), back.events_at_hub_ms);
    row("the hub shows it online".to_owned(), back.online_ms);
    table.row(vec![Cell::new(Style::Good, "  converged"), Cell::new(Style::Good, &time(back.converged_ms))]);
    table
}

fn revisions_table(outcome: &Outcome) -> Table {
    let mut table = Table::new(&["node", "place", "status", ">days", ">revision 1", ">revision 2", ">revision 3", ">errors"]);
    for node in &outcome.nodes {
        let calls = |revision: &str| match node.revisions.get(revision) {
            Some(calls) => Cell::from(calls.to_string()),
            None => Cell::new(Style::Faint, "-"),
        };
        let errors = if node.errors == 0 { Style::Good } else { Style::Error };
        table.row(vec![
            node.id.as_str().into(),
            node.place.into(),
            Cell::new(timeline::style(node.status), &node.status.to_string()),
            node.days.to_string().into(),
            calls("revision 1"),
            calls("revision 2"),
            calls("revision 3"),
            Cell::new(errors, &node.errors.to_string()),
        ]);
    }
    table
}

/// The months of each city out of what the hub has.
fn months(outcome: &Outcome, palette: Palette) -> String {
    let series = CITIES.iter().map(|city| {
        let here = outcome.nodes.iter().filter(|node| node.place == city.name).filter_map(|node| outcome.hub.get(&node.id));
        let year: Vec<Day> = here.flatten().cloned().collect();
        chart::Series { name: city.name, style: city.style, values: monthly(&year) }
    });
    chart::months("mean temperature, °F", &series.collect::<Vec<_>>(), palette)
}
