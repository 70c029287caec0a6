//! A chart of text: what was seen over time, with the faults below it.

use edgeward_model::FunctionId;

use super::report::{Point, Report};

/// Columns of time.
const COLUMNS: usize = 60;
/// Columns of names.
const NAMES: usize = 26;
/// From none to all.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The chart, line by line.
pub(super) fn draw(report: &Report) -> String {
    let total = report.points.last().map_or(0.0, |last| last.at_seconds);
    if total <= 0.0 {
        return "nothing was seen\n".to_owned();
    }
    let functions: std::collections::BTreeSet<_> = report.points.iter().flat_map(|point| point.success_percent.keys()).collect();
    let mut text = String::new();
    for function in functions {
        let success = columns(report, total, f64::min, |point| point.success_percent.get(function).copied());
        text += &success.line(&named("success of", function), 100.0, |worst| format!("{worst:.1}% at worst"));
        let p95 = columns(report, total, f64::max, |point| point.p95_ms.get(function).copied());
        text += &p95.line(&named("p95 of", function), p95.worst.unwrap_or(0.0), |worst| format!("{worst:.0} ms at worst"));
    }
    let most = report.points.iter().map(|point| f64::from(point.nodes_online)).fold(0.0, f64::max);
    let online = columns(report, total, f64::min, |point| Some(f64::from(point.nodes_online)));
    text += &online.line("nodes online", most, |worst| format!("{worst:.0} at worst"));
    for (number, fault) in report.faults.iter().enumerate() {
        let is_in = |column: usize| {
            let (from, to) = (column_start(column, total), column_start(column + 1, total));
            from < fault.to_seconds as f64 && to > fault.from_seconds as f64 && !fault.nodes.is_empty()
        };
        let bar: String = (0..COLUMNS).map(|column| if is_in(column) { '━' } else { ' ' }).collect();
        let word = fault.fault.split([' ', ',']).next().unwrap_or_default();
        text += &format!("{:<NAMES$}{}\n", short(&format!("{} {word}", number + 1)), bar.trim_end());
    }
    text + &format!("{:<NAMES$}0 s{:>width$.0} s\n", "", total, width = COLUMNS - 5)
}

fn column_start(column: usize, total: f64) -> f64 {
    total * column as f64 / COLUMNS as f64
}

/// The worst value of each column of time, where there is one, and the worst of all.
struct Columns {
    values: [Option<f64>; COLUMNS],
    worst: Option<f64>,
}

fn columns(report: &Report, total: f64, worse: fn(f64, f64) -> f64, value: impl Fn(&Point) -> Option<f64>) -> Columns {
    let (mut values, mut is_seen) = ([None::<f64>; COLUMNS], [false; COLUMNS]);
    for point in &report.points {
        let column = (1..COLUMNS).take_while(|column| column_start(*column, total) < point.at_seconds).count();
        is_seen[column] = true;
        if let Some(value) = value(point) {
            values[column] = Some(values[column].map_or(value, |other| worse(other, value)));
        }
    }
    // What is seen at a moment is of the time before it: of few moments each has several columns.
    for column in (1..COLUMNS).rev() {
        if !is_seen[column - 1] {
            values[column - 1] = values[column];
        }
    }
    Columns { values, worst: values.iter().flatten().copied().reduce(worse) }
}

impl Columns {
    /// A line of bars, of which the highest is `most`.
    fn line(&self, name: &str, most: f64, worst: impl Fn(f64) -> String) -> String {
        let bar = |value: &Option<f64>| value.map_or('·', |value| BARS[level(value, most)]);
        let bars: String = self.values.iter().map(bar).collect();
        format!("{name:<NAMES$}{bars}  {}\n", self.worst.map_or_else(String::new, worst))
    }
}

/// How high a bar is, 0 to 8; what is there at all is seen.
fn level(value: f64, most: f64) -> usize {
    let part = if most > 0.0 { value / most } else { 0.0 };
    let level = (0..BARS.len()).rev().find(|level| *level as f64 <= part * 8.0 + 1e-9).unwrap_or(0);
    if value > 0.0 { level.max(1) } else { 0 }
}

fn named(what: &str, function: &FunctionId) -> String {
    short(&format!("{what} {function}"))
}

/// A name that leaves a space before the bars.
fn short(name: &str) -> String {
    if name.chars().count() < NAMES {
        return name.to_owned();
    }
    let cut: String = name.chars().take(NAMES - 2).collect();
    format!("{cut}…")
}
