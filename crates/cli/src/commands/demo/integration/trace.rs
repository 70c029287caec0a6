//! Traces of the demonstration as trees: of a reading, from the topic to the document, and of a call, from the hub to the function.

use edgeward::telemetry::{SpanKind, span::Ended};
use serde::Serialize;

use crate::terminal::{Cell, Style, Table, latency, printable};

/// Columns of the bar that shows when in its trace a span was.
const BAR: usize = 32;

/// A trace. Its spans are in the order of the tree.
#[derive(Debug, Serialize)]
pub(super) struct Trace {
    /// What it is of.
    pub(super) of: String,
    pub(super) spans: Vec<Line>,
}

/// A span. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) kind: &'static str,
    /// How many are above it.
    pub(super) depth: usize,
    /// Since the first one of its trace began.
    pub(super) after_ms: f64,
    pub(super) took_ms: f64,
}

impl Trace {
    /// The spans of one trace, however they come.
    pub(super) fn new(of: String, mut ended: Vec<Ended>) -> Self {
        ended.sort_by_key(|span| span.began_at);
        let mut trace = Self { of, spans: Vec::new() };
        let Some(begun_at) = ended.first().map(|span| span.began_at) else { return trace };
        // Those below a span that is not here are at the top.
        let is_root = |span: &&Ended| !ended.iter().any(|other| Some(other.context.span_id) == span.parent);
        let mut open: Vec<_> = ended.iter().filter(is_root).rev().map(|span| (0, span)).collect();
        while let Some((depth, span)) = open.pop() {
            trace.spans.push(Line {
                name: span.name.clone(),
                kind: word(span.kind),
                depth,
                after_ms: span.began_at.duration_since(begun_at).as_secs_f64() * 1e3,
                took_ms: span.took.as_secs_f64() * 1e3,
            });
            let below = ended.iter().rev().filter(|other| other.parent == Some(span.context.span_id));
            open.extend(below.map(|other| (depth + 1, other)));
        }
        trace
    }

    /// As a tree with a bar for each span.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(&[&format!("  {}", self.of), "kind", ">took", "when"]);
        let whole = self.spans.iter().map(|line| line.after_ms + line.took_ms).fold(f64::MIN_POSITIVE, f64::max);
        for line in &self.spans {
            table.row(vec![
                format!("  {:indent$}{}", "", printable(&line.name), indent = 2 * line.depth).into(),
                line.kind.into(),
                latency(line.took_ms).into(),
                Cell::new(Style::Good, &bar(line.after_ms / whole, (line.after_ms + line.took_ms) / whole)),
            ]);
        }
        table
    }
}

/// From and to which part of the whole.
fn bar(from: f64, to: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate, and a part is at most 1")]
    let column = |part: f64| ((part * BAR as f64).round() as usize).min(BAR);
    let from = column(from).min(BAR - 1);
    " ".repeat(from) + &"█".repeat(column(to).saturating_sub(from).max(1))
}

fn word(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_where_its_span_was_and_never_empty() {
        assert_eq!(bar(0.0, 1.0), "█".repeat(BAR));
        assert_eq!(bar(0.5, 0.5), " ".repeat(BAR / 2) + "█");
        assert_eq!(bar(1.0, 1.0), " ".repeat(BAR - 1) + "█");
    }
}
