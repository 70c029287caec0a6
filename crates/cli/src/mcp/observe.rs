//! Tools that look at what ran: logs and metrics.

use edgeward::FunctionId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    functions::of_node,
    session::{Session, ToolError},
    tool::{EdgeTool, Effect},
};
use crate::client::{LogLine, Series, events_in, series};

/// Lines of a log that are told when nobody says how many.
const LINES_DEFAULT: usize = 100;
/// Most lines of a log.
const LINES_MAX: usize = 1000;
/// Most numbers of metrics.
const SERIES_MAX: usize = 1000;

/// Parameters of `edge_function_logs`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FunctionLogs {
    /// The function.
    function_id: String,
    /// On this node. A hub needs it; a node tells of its own.
    #[serde(default)]
    node_id: Option<String>,
    /// How many of the last lines, at most 1000; 100 when it is left out.
    #[serde(default)]
    lines: Option<usize>,
}

/// The end of a function's log.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Log {
    function_id: String,
    /// Oldest first.
    lines: Vec<Line>,
    /// Whether there are older ones.
    truncated: bool,
}

/// A line of a log.
#[derive(Debug, Serialize, JsonSchema)]
struct Line {
    /// Counts the lines of the function; a gap means that lines were dropped.
    seq: u64,
    /// RFC 3339 in UTC.
    timestamp: String,
    /// `stdout`, `stderr`, or `runtime` for what Edgeward says of the function.
    stream: String,
    text: String,
}

impl EdgeTool for FunctionLogs {
    const NAME: &'static str = "edge_function_logs";
    const TITLE: &'static str = "Logs of a function";
    const ABOUT: &'static str = "Tells the last lines that a function printed on a node, and what Edgeward says of it.";
    const EFFECT: Effect = Effect::Reads;
    type Output = Log;

    async fn run(self, session: &Session<'_>) -> Result<Log, ToolError> {
        let wanted = self.lines.unwrap_or(LINES_DEFAULT);
        if wanted > LINES_MAX {
            return Err(ToolError::invalid(format!("`lines` is {LINES_MAX} at most, not {wanted}")));
        }
        let id = FunctionId::new(&self.function_id)?;
        let reply = session.get(format!("/v1/functions/{id}/logs{}", of_node(self.node_id.as_deref())?)).await?;
        let kept = events_in(&reply.bytes);
        let first = kept.len().saturating_sub(wanted);
        let read = |data: &String| serde_json::from_str::<LogLine>(data).ok();
        let line = |line: LogLine| Line { seq: line.seq, timestamp: line.timestamp.to_string(), stream: line.stream, text: line.text };
        let lines = kept[first..].iter().filter_map(read).map(line).collect();
        Ok(Log { function_id: id.to_string(), lines, truncated: first > 0 })
    }
}

/// Parameters of `edge_metrics`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    /// Of this node. A hub needs it; a node tells of its own.
    #[serde(default)]
    node_id: Option<String>,
    /// Only of this function. A hub does not tell it apart.
    #[serde(default)]
    function_id: Option<String>,
    /// Instead of that summary, everything that the node or hub which is asked measures: functions, documents, topics, triggers, schedules, routing, nodes.
    #[serde(default)]
    all: bool,
    /// With `all`, only the metrics whose names begin so, as `edgeward_node_`.
    #[serde(default)]
    prefix: Option<String>,
}

/// What ran on a node, or what a process measures.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct MetricsOutput {
    /// Totals, `success_rate` in percent, durations in milliseconds (mean and quantiles), errors by kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<serde_json::Map<String, Value>>,
    /// With `all`: numbers by the names and labels that Prometheus sees, without the buckets of histograms.
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<Vec<Series>>,
    /// Whether there are more than are told; a longer `prefix` tells them.
    truncated: bool,
}

impl EdgeTool for Metrics {
    const NAME: &'static str = "edge_metrics";
    const TITLE: &'static str = "Metrics";
    const ABOUT: &'static str = "Tells what ran on a node since it started: invocations, success rate, mean and quantiles of the durations, \
        errors by kind. With `all`, every number that the node or hub which is asked measures, by name.";
    const EFFECT: Effect = Effect::Reads;
    type Output = MetricsOutput;

    async fn run(self, session: &Session<'_>) -> Result<MetricsOutput, ToolError> {
        if self.all {
            if self.node_id.is_some() || self.function_id.is_some() {
                return Err(ToolError::invalid("`all` is of whom you ask: leave out `node_id` and `function_id`"));
            }
            let text = session.get("/metrics").await?.bytes;
            let prefix = self.prefix.unwrap_or_default();
            let mut found = series(&String::from_utf8_lossy(&text));
            found.retain(|series| series.name.starts_with(&prefix) && !series.labels.contains_key("le"));
            let truncated = found.len() > SERIES_MAX;
            found.truncate(SERIES_MAX);
            return Ok(MetricsOutput { summary: None, series: Some(found), truncated });
        }
        if self.prefix.is_some() {
            return Err(ToolError::invalid("`prefix` goes with `all`"));
        }
        let node = of_node(self.node_id.as_deref())?;
        let function = self.function_id.map(FunctionId::new).transpose()?.map(|id| format!("function={id}"));
        let query = match (node.is_empty(), function) {
            (_, None) => node,
            (true, Some(function)) => format!("?{function}"),
            (false, Some(function)) => format!("{node}&{function}"),
        };
        let summary = session.read(format!("/v1/metrics/summary{query}")).await?;
        Ok(MetricsOutput { summary: Some(summary), series: None, truncated: false })
    }
}
