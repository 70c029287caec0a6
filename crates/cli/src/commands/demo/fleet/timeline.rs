//! How the nodes of a fleet were over a time, drawn as one line of blocks for each node.

use edgeward::{EdgeNodeStatus, EventKind, FleetEvent, NodeId};
use jiff::Timestamp;
use serde::Serialize;

use crate::terminal::{Palette, Style};

/// Columns of the chart.
const WIDTH: usize = 60;
const NAME_WIDTH: usize = 14;
/// From the best to the worst.
const STATUSES: [EdgeNodeStatus; 4] = [EdgeNodeStatus::Online, EdgeNodeStatus::Syncing, EdgeNodeStatus::Degraded, EdgeNodeStatus::Offline];

/// A status that a node came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) node: NodeId,
    /// Since the beginning.
    pub(super) at_ms: u64,
    pub(super) status: EdgeNodeStatus,
    /// As the hub told it.
    pub(super) message: String,
}

/// What a hub's events say of its nodes' statuses from `begun` on, oldest first. Who joins is OFFLINE until it is heard.
pub(super) fn changes(events: &[FleetEvent], begun: Timestamp) -> Vec<Change> {
    let status = |event: &FleetEvent| match event.kind {
        EventKind::NodeJoined => Some(EdgeNodeStatus::Offline),
        EventKind::NodeStatus => event.status,
        _ => None,
    };
    let change = |event: &FleetEvent| {
        let at_ms = u64::try_from(event.at.duration_since(begun).as_millis()).unwrap_or(0);
        Some(Change { node: event.node.clone()?, at_ms, status: status(event)?, message: event.message.clone() })
    };
    events.iter().filter_map(change).collect()
}

/// Draws a line for each node, and the seconds below.
pub(super) fn draw(nodes: &[&NodeId], changes: &[Change], length_ms: u64, palette: Palette) -> String {
    let length_ms = length_ms.max(1);
    let mut text = String::new();
    for node in nodes {
        let statuses = slices(changes.iter().filter(|change| change.node == **node), length_ms);
        let line: String = statuses
            .chunk_by(|left, right| left == right)
            .map(|run| match run[0] {
                Some(status) => palette.paint(style(status), &block(status).repeat(run.len())),
                None => " ".repeat(run.len()),
            })
            .collect();
        text.push_str(&format!("  {:<NAME_WIDTH$} {line}\n", node.as_str()));
    }
    text.push_str(&format!("  {:<NAME_WIDTH$} {}\n", "", palette.paint(Style::Faint, axis(length_ms).trim_end())));
    let legend: Vec<_> = STATUSES.iter().map(|status| format!("{} {status}", palette.paint(style(*status), block(*status)))).collect();
    text.push_str(&format!("  {:<NAME_WIDTH$} {}\n", "", legend.join("  ")));
    text
}

/// The status to show for each slice of the time: the worst of those that began in it, so that none is too short to be
/// seen, or else the one before.
fn slices<'a>(changes: impl Iterator<Item = &'a Change>, length_ms: u64) -> Vec<Option<EdgeNodeStatus>> {
    let rank = |status: EdgeNodeStatus| STATUSES.iter().position(|other| *other == status);
    let mut began: Vec<Vec<EdgeNodeStatus>> = vec![Vec::new(); WIDTH];
    for change in changes {
        began[column(change.at_ms, length_ms)].push(change.status);
    }
    let mut now = None;
    let slice = |began: Vec<EdgeNodeStatus>| {
        let shown = began.iter().copied().max_by_key(|status| rank(*status)).or(now);
        now = began.last().copied().or(now);
        shown
    };
    began.into_iter().map(slice).collect()
}

fn column(at_ms: u64, length_ms: u64) -> usize {
    let column = u128::from(at_ms) * WIDTH as u128 / u128::from(length_ms);
    usize::try_from(column).unwrap_or(WIDTH).min(WIDTH - 1)
}

/// The whole seconds where they fit.
fn axis(length_ms: u64) -> String {
    let mut axis = String::new();
    for seconds in 0..=length_ms / 1000 {
        let at = column(seconds * 1000, length_ms);
        if axis.is_empty() || at > axis.len() {
            axis = format!("{axis:<at$}{seconds} s");
        }
    }
    axis
}

fn block(status: EdgeNodeStatus) -> &'static str {
    match status {
        EdgeNodeStatus::Online => "█",
        EdgeNodeStatus::Syncing => "▒",
        EdgeNodeStatus::Degraded => "▓",
        EdgeNodeStatus::Offline => "·",
    }
}

pub(super) fn style(status: EdgeNodeStatus) -> Style {
    match status {
        EdgeNodeStatus::Online => Style::Good,
        EdgeNodeStatus::Syncing => Style::Note,
        EdgeNodeStatus::Degraded => Style::Warning,
        EdgeNodeStatus::Offline => Style::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_was_short_is_seen_and_the_last_one_lasts() {
        let node = NodeId::new("edge-01").expect("valid");
        let change = |at_ms, status| Change { node: node.clone(), at_ms, status, message: String::new() };
        let changes = [
            change(100, EdgeNodeStatus::Offline),
            change(1_000, EdgeNodeStatus::Online),
            change(3_000, EdgeNodeStatus::Offline),
            change(4_000, EdgeNodeStatus::Syncing),
            change(4_001, EdgeNodeStatus::Online),
        ];
        let drawn = draw(&[&node], &changes, 6_000, Palette::plain());
        let line = format!(" {}{}{}▒{}", "·".repeat(9), "█".repeat(20), "·".repeat(10), "█".repeat(19));
        let axis = "0 s       1 s       2 s       3 s       4 s       5 s      6 s";
        let legend = "█ online  ▒ syncing  ▓ degraded  · offline";
        assert_eq!(drawn, format!("  edge-01        {line}\n  {0:<14} {axis}\n  {0:<14} {legend}\n", ""));
    }
}
