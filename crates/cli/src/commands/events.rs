//! `edgeward events`: what happens in the fleet.

use anyhow::Context as _;
use edgeward::{EventKind, FleetEvent, NodeId};

use crate::{
    client::Client,
    commands::nodes::status_style,
    terminal::{self, Palette, Style, printable},
};

const EXAMPLES: &str = "\
Examples:
  edgeward events
  edgeward events --follow
  edgeward events --follow --node edge-01
  edgeward events --limit 1000 --json | jq -r 'select(.kind == \"node_status\").message'

What happened on a node while it was away is told when it is back, with the time at which it happened. Times are UTC.";

/// Show what happened in the fleet
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Go on with what happens
    #[arg(long, short)]
    follow: bool,
    /// Only on this node
    #[arg(long, value_name = "ID")]
    node: Option<NodeId>,
    /// How many of the last events to show first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=1000))]
    limit: u16,
    /// Show the samples of what ran, too
    #[arg(long)]
    metrics: bool,
}

/// What comes in place of events that were missed.
#[derive(Debug, serde::Deserialize)]
struct Missed {
    missed: u64,
}

/// Runs the command.
pub(crate) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let node = args.node.as_ref().map_or_else(String::new, |node| format!("&node={node}"));
    let mut events = client.get(format!("/v1/events?follow={}&limit={}{node}", args.follow, args.limit)).await?.events();
    while let Some(event) = events.next().await? {
        if json {
            terminal::write_json(event.data.as_bytes())?;
            continue;
        }
        if let Ok(Missed { missed }) = serde_json::from_str(&event.data) {
            terminal::note(&format!("{missed} events were missed: they came faster than they could be shown"));
            continue;
        }
        let event: FleetEvent = serde_json::from_str(&event.data).context("failed to read an event of the hub")?;
        if args.metrics || event.kind != EventKind::MetricsSampled {
            terminal::write(shown(&event, Palette::stdout()))?;
        }
    }
    Ok(())
}

fn shown(event: &FleetEvent, palette: Palette) -> String {
    let style = match (event.status, event.kind) {
        (Some(status), _) => status_style(status),
        (None, EventKind::FunctionReady | EventKind::NodeJoined | EventKind::HubActive) => Style::Good,
        (None, EventKind::FunctionFailed | EventKind::Refused | EventKind::EventsDropped) => Style::Error,
        (None, EventKind::NodeRemoved | EventKind::TriggerLeft) => Style::Warning,
        _ => Style::Plain,
    };
    let time = palette.paint(Style::Faint, &format!("{:.3}", event.at));
    let node = palette.paint(Style::Strong, &format!("{:12}", event.node.as_ref().map_or("", NodeId::as_str)));
    let message = match (&event.data, event.kind) {
        (Some(data), EventKind::MetricsSampled) => {
            format!("ran so far: {} invocations", data.get("total").unwrap_or(&serde_json::Value::Null))
        }
        _ => event.message.clone(),
    };
    format!("{time}  {node}  {}\n", palette.paint(style, &printable(&message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_with_its_time_and_node() {
        let json = r#"{"id":"00000000000000001/hub","at":"2026-01-02T03:04:05.6789Z","kind":"node_status","node":"edge-01","status":"offline",
            "message":"node `edge-01` is offline"}"#;
        let shown_of = |json: &str| shown(&serde_json::from_str(json).expect("an event"), Palette::plain());
        assert_eq!(shown_of(json), "2026-01-02T03:04:05.678Z  edge-01       node `edge-01` is offline\n");
        let newer = json.replace("node_status", "something_new");
        assert_eq!(shown_of(&newer), shown_of(json));
    }
}
