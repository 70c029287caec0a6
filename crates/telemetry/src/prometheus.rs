//! Readings in the text format of Prometheus, version 0.0.4, with the names that OpenTelemetry's rules make of ours.

use std::fmt::Write as _;

use crate::{
    instruments::Kind,
    reading::{Number, Reading},
};

/// The readings as Prometheus reads them.
pub fn text(readings: &[Reading]) -> String {
    let mut text = String::new();
    let mut write = |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("writing to a String cannot fail");
    for Reading { instrument, points } in readings {
        let name = instrument.prometheus_name();
        let kind = match instrument.kind {
            Kind::Counter | Kind::Total => "counter",
            Kind::UpDownCounter | Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        write(format_args!("# HELP {name} {}\n# TYPE {name} {kind}\n", instrument.help));
        let keys: Vec<_> = instrument.attributes.iter().map(|key| key.replace('.', "_")).collect();
        for point in points {
            let labels: Vec<_> = keys.iter().zip(&point.attributes).map(|(key, value)| format!("{key}=\"{}\"", Escaped(value))).collect();
            let labels = labels.join(",");
            let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            match &point.number {
                Number::Whole(number) => write(format_args!("{name}{braced} {number}\n")),
                Number::Real(number) => write(format_args!("{name}{braced} {number}\n")),
                Number::Distribution(values) => {
                    let before = if labels.is_empty() { String::new() } else { format!("{labels},") };
                    let mut up_to = 0;
                    for (edge, count) in values.bounds.iter().zip(&values.counts) {
                        up_to += count;
                        write(format_args!("{name}_bucket{{{before}le=\"{edge}\"}} {up_to}\n"));
                    }
                    write(format_args!("{name}_bucket{{{before}le=\"+Inf\"}} {}\n", values.count));
                    write(format_args!("{name}_sum{braced} {}\n{name}_count{braced} {}\n", values.sum, values.count));
                }
            }
        }
    }
    text
}

/// A value of a label as it stands between quotes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        histogram::Histogram,
        instruments::{INVOKE_DURATION, MEMORY, ROUTE_LATENCY},
    };

    #[test]
    fn buckets_add_up_and_values_are_escaped() {
        let mut histogram = Histogram::default();
        histogram.record(2_000_000);
        histogram.record(400_000_000_000);
        let mut durations = Reading::new(&INVOKE_DURATION);
        durations.push(["a\"b", "n"], Number::Distribution(histogram.in_seconds(402_000_000_000)));
        let text = text(&[durations, Reading::of(&MEMORY, 7_u64), Reading::new(&ROUTE_LATENCY)]);
        let labels = "faas_name=\"a\\\"b\",edgeward_node_id=\"n\"";
        for line in [
            "# TYPE faas_invoke_duration_seconds histogram".to_owned(),
            format!("faas_invoke_duration_seconds_bucket{{{labels},le=\"0.001\"}} 0"),
            format!("faas_invoke_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1"),
            format!("faas_invoke_duration_seconds_bucket{{{labels},le=\"300\"}} 1"),
            format!("faas_invoke_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
            format!("faas_invoke_duration_seconds_sum{{{labels}}} 402"),
            "process_memory_usage_bytes 7".to_owned(),
            "# TYPE edgeward_route_latency_seconds gauge".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
