//! Costs inside one process, as `crates/runtime/benches/in_process.rs` tells them: each round starts it anew.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::bench::row::{Row, Target, Unit};
use crate::process::output;

/// Nanoseconds by name, one value for each round.
type Values = HashMap<String, Vec<f64>>;

impl Bench<'_> {
    fn in_process(&self, what: &str, part: &str) -> Result<Values> {
        let mut values = Values::new();
        for round in 0..self.rounds {
            self.step(what, round);
            let text = output(Command::new(&self.artifacts.in_process).arg(part))?;
            for (name, value) in read(&text) {
                values.entry(name.to_owned()).or_default().push(value);
            }
        }
        Ok(values)
    }
}

fn read(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.parse().ok()?))
    })
}

/// The values under this name, in a unit of so many nanoseconds.
fn take(values: &Values, name: &str, nanoseconds: f64) -> Result<Vec<f64>> {
    let values = values.get(name).with_context(|| format!("failed to find `{name}` in what the bench printed"))?;
    Ok(values.iter().map(|value| value / nanoseconds).collect())
}

pub(crate) fn native(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let what = "`invoke` of an empty native handler, over the bare call";
    let values = bench.in_process(what, "native")?;
    let (invoke, bare) = (take(&values, "native_invoke", 1.0)?, take(&values, "bare_call", 1.0)?);
    Ok(vec![Row::difference(what, Target::AtMost(2000.0), Unit::Nanoseconds, &invoke, ("bare call", &bare))])
}

pub(crate) fn instantiate(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let what = "instantiate, Rust hello, WASI and limits on, p50";
    let values = bench.in_process(what, "instantiate")?;
    let alone = |what: &str, target, name| anyhow::Ok(Row::alone(what, target, Unit::Microseconds, &take(&values, name, 1e3)?));
    Ok(vec![
        alone(what, Target::AtMost(15.0), "instantiate")?,
        alone("drop of that sandbox, p50", Target::None, "drop")?,
        alone("whole `invoke` of the Rust hello, p50", Target::None, "hello_invoke")?,
    ])
}

pub(crate) fn metrics(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let values = bench.in_process("`EdgeMetrics::record`", "metrics")?;
    let alone = |what: &str, most, name| anyhow::Ok(Row::alone(what, Target::AtMost(most), Unit::Nanoseconds, &take(&values, name, 1.0)?));
    Ok(vec![
        alone("`EdgeMetrics::record`, one thread", 50.0, "record_one_thread")?,
        alone("`EdgeMetrics::record`, two threads", 100.0, "record_two_threads")?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_name_and_a_number_are_values_and_others_are_not() {
        assert_eq!(read("a 1.5\nnothing here\n\nb 2\n").collect::<Vec<_>>(), [("a", 1.5), ("b", 2.0)]);
    }
}
