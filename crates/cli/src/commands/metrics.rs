//! `edgeward metrics`: what was invoked, how fast, and what failed; or everything that a process measures.

use edgeward::FunctionId;
use http::Method;

use crate::{
    client::{Client, Request, Series, Summary, series},
    target::OneNode,
    terminal::{self, Cell, Palette, Style, Table, bar, latency},
};

/// Columns of a full bar.
const BAR_WIDTH: u16 = 30;

const EXAMPLES: &str = "\
Examples:
  edgeward metrics
  edgeward metrics --function hello
  edgeward metrics --json | jq .p99_ms
  edgeward metrics --all | grep edgeward_trigger
  edgeward metrics --all --json | jq '.[] | select(.name == \"edgeward_node_heartbeat_age_seconds\" and .value > 60)'

Prometheus reads what --all shows at /metrics. docs/metrics.md says what each name means.";

/// Show counts, latencies and errors since the node started, or with --all everything that a node or hub measures
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this function [default: all]
    #[arg(long, value_name = "ID", conflicts_with = "node")]
    function: Option<FunctionId>,
    /// Everything that the node or hub which is asked measures: functions, documents, topics, schedules, routing, the fleet
    #[arg(long, conflicts_with_all = ["function", "node"])]
    all: bool,
    #[command(flatten)]
    target: OneNode,
}

/// Runs the command.
pub(crate) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    if args.all {
        return everything(client, json).await;
    }
    let query = args.function.as_ref().map_or_else(|| args.target.query('?'), |id| format!("?function={id}"));
    let answer = client.get(format!("/v1/metrics/summary{query}")).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(shown(&answer.read()?, Palette::stdout()))?;
    }
    Ok(())
}

async fn everything(client: &Client, json: bool) -> anyhow::Result<()> {
    let (_, bytes) = client.send(Request::new(Method::GET, "/metrics")).await?.into_whole().await?;
    let text = String::from_utf8_lossy(&bytes);
    if json {
        terminal::write_json(&serde_json::to_vec::<[Series]>(&series(&text))?)?;
    } else {
        terminal::write(text.into_owned())?;
    }
    Ok(())
}

fn shown(summary: &Summary, palette: Palette) -> String {
    let mut table = Table::new(&["", ">", ""]);
    let mut row = |name: &str, value: String, bar: Cell| table.row(vec![Cell::new(Style::Faint, name), value.into(), bar]);

    row("invocations", summary.total.to_string(), "".into());
    let style = if summary.error_count == 0 { Style::Good } else { Style::Warning };
    row("success", format!("{:.1} %", summary.success_rate), Cell::new(style, &bar(summary.success_rate / 100.0, BAR_WIDTH)));
    row("cold starts", summary.cold_starts.to_string(), "".into());
    row("mean latency", latency(summary.avg_latency_ms), "".into());
    for (name, ms) in [("  p50", summary.p50_ms), ("  p95", summary.p95_ms), ("  p99", summary.p99_ms)] {
        row(name, latency(ms), Cell::new(Style::Note, &bar(ms / summary.p99_ms, BAR_WIDTH)));
    }
    row("errors", summary.error_count.to_string(), "".into());
    for (kind, &count) in &summary.errors {
        let share = count as f64 / summary.error_count as f64;
        row(&format!("  {}", kind.replace('_', " ")), count.to_string(), Cell::new(Style::Error, &bar(share, BAR_WIDTH)));
    }
    // The headings are empty: their line goes.
    let text = table.render(palette);
    text.split_once('\n').map_or(String::new(), |(_, rows)| rows.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_shown_with_bars_that_compare() {
        let summary: Summary = serde_json::from_str(
            r#"{"total":4,"success_rate":50.0,"avg_latency":1.0,"error_count":2,"total_invocations":4,"avg_latency_ms":1.0,
                "p50_ms":1.0,"p95_ms":2.0,"p99_ms":2.0,"cold_starts":4,"errors":{"memory_limit":1,"timeout":1}}"#,
        )
        .expect("a summary of the API");
        let half = "█".repeat(15);
        assert_eq!(
            shown(&summary, Palette::plain()),
            format!(
                "invocations           4\nsuccess          50.0 %  {half}\ncold starts           4\nmean latency    1.00 ms\n  p50           1.00 ms  \
                 {half}\n  p95           2.00 ms  {half}{half}\n  p99           2.00 ms  {half}{half}\nerrors                2\n  memory limit        \
                 1  {half}\n  timeout             1  {half}\n"
            )
        );
    }

    #[test]
    fn a_node_without_records_shows_no_bar_of_latency() {
        let summary: Summary = serde_json::from_str(
            r#"{"total":0,"success_rate":100.0,"error_count":0,"avg_latency_ms":0.0,"p50_ms":0.0,"p95_ms":0.0,"p99_ms":0.0,"cold_starts":0}"#,
        )
        .expect("a summary of the API");
        assert!(shown(&summary, Palette::plain()).ends_with("  p99            0 ms\nerrors              0\n"));
    }
}
