//! What a process measures, read from the text format of Prometheus as `GET /metrics` answers it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Number;

/// A number of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Series {
    /// The metric, by the name that Prometheus has for it.
    pub(crate) name: String,
    /// What the number is of.
    pub(crate) labels: BTreeMap<String, String>,
    /// `null` for one that is no number.
    pub(crate) value: Option<Number>,
}

/// Every number, in its order. Lines that are not of the format are passed over.
pub(crate) fn series(text: &str) -> Vec<Series> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(one).collect()
}

fn one(line: &str) -> Option<Series> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, value) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = unescaped(value)?;
            labels.insert(key.to_owned(), value);
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = match rest.trim().parse::<u64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => Number::from_f64(rest.trim().parse().ok()?),
    };
    Some(Series { name: name.to_owned(), labels, value })
}

/// The value of a label up to its closing quote, and what follows that.
fn unescaped(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use edgeward::telemetry::{self, INSTRUMENTS, Reading};

    use super::*;

    #[test]
    fn what_is_written_for_prometheus_reads_back() {
        let mut reading = Reading::new(INSTRUMENTS.iter().find(|instrument| instrument.name == "edgeward.route.latency").expect("known"));
        reading.push(["a\\b\"c\nd,}e=\"", "n"], 0.25);
        reading.push(["f", "n"], f64::NAN);
        let text = telemetry::text(&[reading]) + "edgeward_outbox_events 7\nnonsense\n{=\n";
        let read = series(&text);
        let of = |function: &str| {
            BTreeMap::from([("faas_name", function), ("edgeward_node_id", "n")].map(|(key, value)| (key.to_owned(), value.to_owned())))
        };
        let latency = |function: &str, value| Series { name: "edgeward_route_latency_seconds".to_owned(), labels: of(function), value };
        let outbox = Series { name: "edgeward_outbox_events".to_owned(), labels: BTreeMap::new(), value: Some(7.into()) };
        assert_eq!(read, [latency("a\\b\"c\nd,}e=\"", Number::from_f64(0.25)), latency("f", None), outbox]);
    }
}
