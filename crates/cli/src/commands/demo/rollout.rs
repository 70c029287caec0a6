//! `edgeward demo rollout`: a fleet gets a bad revision and a good one. The bad one goes back from its canary.
//!
//! It all happens first, in data folders in a temporary folder; what is shown of it, as text or JSON, is what the nodes and the hub saw.

mod story;

use edgeward::cluster::rollout::RolloutState;

use self::story::{Ended, Outcome, Served};
use crate::{
    rollout::state_style,
    terminal::{Cell, Palette, Style, Table, heading, latency, printable},
};

/// Columns of the chart.
const WIDTH: usize = 72;
const NAME_WIDTH: usize = 10;

/// A bad canary is caught and goes back, and a good revision reaches every node
///
/// A hub deploys a function to eight nodes under load. The second revision answers with errors: its canary is judged by the first one on the
/// same node, and goes back, and no other node ever ran it. The third one is good, and reaches all of them without a failed call. It all happens in this
/// process, with a data folder for each in a temporary folder, which is removed. It takes some ten seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  edgeward demo rollout\n  edgeward demo rollout --json | jq .rollouts")]
pub(crate) struct Args {}

/// Runs the command.
pub(super) async fn run(json: bool) -> anyhow::Result<()> {
    super::tell(json, "a hub and eight nodes begin", story::happen, text).await
}

fn text(outcome: &Outcome, palette: Palette) -> String {
    let parts = [
        heading("Rollout", "a hub and eight nodes in this process, each called all the time", palette),
        rollouts(&outcome.rollouts).render(palette),
        heading("Timeline", "which revision served on each node; `!` while calls failed", palette),
        chart(outcome, palette),
        heading("Calls", "by the revision that answered", palette),
        calls(outcome).render(palette),
        "\nMore: `edgeward deploy --help` has the strategies, and docs/rollouts.md says what is judged.\n".to_owned(),
    ];
    parts.concat()
}

fn rollouts(ended: &[Ended]) -> Table {
    let mut table = Table::new(&["  revision", "does", "state", ">after", ">nodes that ran it", "why"]);
    for one in ended {
        let nodes = Cell::new(if one.state == RolloutState::RolledBack { Style::Good } else { Style::Plain }, &one.nodes.to_string());
        table.row(vec![
            format!("  {}", one.revision).into(),
            one.mood.into(),
            Cell::new(state_style(one.state), &one.state.as_str().replace('_', " ")),
            latency(one.took_ms as f64).into(),
            nodes,
            printable(&one.reason).as_ref().into(),
        ]);
    }
    table
}

fn calls(outcome: &Outcome) -> Table {
    let mut table = Table::new(&["  node", ">revision 1", ">revision 2", ">revision 3", ">failed"]);
    for node in &outcome.nodes {
        let calls = |revision: u64| match node.calls.get(&revision) {
            Some(calls) => Cell::from(calls.to_string()),
            None => Cell::new(Style::Faint, "-"),
        };
        let failed = Cell::new(if node.failed == 0 { Style::Good } else { Style::Error }, &node.failed.to_string());
        table.row(vec![format!("  {}", node.id).into(), calls(1), calls(2), calls(3), failed]);
    }
    table
}

/// A line of digits for each node, and the seconds below.
fn chart(outcome: &Outcome, palette: Palette) -> String {
    let length_ms = outcome.length_ms.max(1);
    let mut text = String::new();
    for node in &outcome.nodes {
        let line: String = columns(&node.timeline, length_ms).iter().map(|cell| drawn(cell.as_ref(), palette)).collect();
        text.push_str(&format!("  {:<NAME_WIDTH$} {line}\n", node.id.as_str()));
    }
    let mut axis = String::new();
    for seconds in (0..=length_ms / 1000).step_by(2) {
        let at = column(seconds * 1000, length_ms);
        if axis.is_empty() || at > axis.len() {
            axis = format!("{axis:<at$}{seconds} s");
        }
    }
    text.push_str(&format!("  {:<NAME_WIDTH$} {}\n", "", palette.paint(Style::Faint, axis.trim_end())));
    text
}

/// What is shown of a part of the time: what failed in it, so that nothing is too short to be seen, or else what served last.
fn columns(timeline: &[Served], length_ms: u64) -> Vec<Option<Served>> {
    let mut columns: Vec<Option<Served>> = vec![None; WIDTH];
    for served in timeline {
        let shown = &mut columns[column(served.at_ms, length_ms)];
        if !shown.as_ref().is_some_and(|shown| shown.failed) {
            *shown = Some(served.clone());
        }
    }
    let mut last = None;
    for shown in &mut columns {
        match shown {
            Some(served) => last = Some(Served { failed: false, ..served.clone() }),
            None => shown.clone_from(&last),
        }
    }
    columns
}

fn drawn(served: Option<&Served>, palette: Palette) -> String {
    match served {
        None => " ".to_owned(),
        Some(Served { failed: true, .. }) => palette.paint(Style::Error, "!"),
        Some(Served { revision, .. }) => {
            let style = match revision {
                1 => Style::Note,
                2 => Style::Error,
                _ => Style::Good,
            };
            palette.paint(style, &revision.to_string())
        }
    }
}

fn column(at_ms: u64, length_ms: u64) -> usize {
    let column = u128::from(at_ms) * WIDTH as u128 / u128::from(length_ms);
    usize::try_from(column).unwrap_or(WIDTH).min(WIDTH - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_seen_however_short_and_what_serves_lasts() {
        let served = |at_ms, revision, failed| Served { at_ms, revision, failed };
        let timeline =
            [served(0, 1, false), served(4_000, 2, false), served(4_001, 2, true), served(4_002, 2, false), served(6_000, 1, false)];
        let line: String = columns(&timeline, 7_200).iter().map(|cell| drawn(cell.as_ref(), Palette::plain())).collect();
        assert_eq!(line, format!("{}!{}{}", "1".repeat(40), "2".repeat(19), "1".repeat(12)));
    }
}
